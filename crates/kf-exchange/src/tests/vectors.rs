//! The published vectors: every input and every octet sent.

use std::string::{String, ToString};

use super::*;
use crate::order::{Order, OrderAct, OrderOutcome, OrderReport};
use kf_key::UnixMillis;
use serde_json::{Value, json};

const NAMES: [&str; 6] = ["hello", "challenge", "proof", "delivery", "acknowledgement", "done"];

fn named(messages: impl IntoIterator<Item = Message>) -> serde_json::Map<String, Value> {
    let octets = messages.into_iter().map(|message| Value::from(hex::encode(message.as_bytes())));
    NAMES.into_iter().map(str::to_string).zip(octets).collect()
}

/// A session of the same randomness; its messages, and what is derived from it.
fn session(sides: &Sides) -> serde_json::Map<String, Value> {
    let (waiting, served, [hello, challenge, proof]) = sides.proved(Purpose::Session);
    let (of_server, delivery) = served.open_session(PLACE, &device_key(PLACE)).unwrap();
    let (session, _, acknowledgement) = waiting.open_session(delivery.as_bytes(), &PLACE, &device_key(PLACE)).unwrap();
    let done = Acknowledgement::read(acknowledgement.as_bytes()).unwrap().verify_session(&of_server).unwrap();
    let mut session_messages = named([hello, challenge, proof, delivery, acknowledgement, done]);
    let leaf = hex::encode(session.application(b"telemetry", 0).unwrap().into_secret().expose());
    session_messages.insert("application key of `telemetry`, epoch 0".into(), leaf.into());
    session_messages
}

fn computed() -> Value {
    let sides = Sides::honest();
    let order = Order { act: OrderAct::Wipe, device: DEVICE, counter: 7, expires: UnixMillis(1_800_086_400_000) };
    let report = OrderReport {
        act: OrderAct::Wipe,
        device: DEVICE,
        counter: 7,
        outcome: OrderOutcome::Done,
        at: UnixMillis(1_800_000_000_000),
    };
    json!({
        "description": "Key exchange and orders, version 1. Octets in hexadecimal. Signatures are deterministic (RFC 6979).",
        "input": {
            "device identity private": hex::encode([0x11; 32]),
            "server delivery private": hex::encode([0x22; 32]),
            "server order private": hex::encode([0x41; 32]),
            "device ephemeral private": hex::encode([0x33; 32]),
            "server ephemeral private": hex::encode([0x66; 32]),
            "device nonce": hex::encode([0x44; 16]),
            "session": hex::encode([0x55; 16]),
            "device": hex::encode(DEVICE.as_bytes()),
            "facility": hex::encode(FACILITY.as_bytes()),
            "facility epoch": PLACE.facility_epoch,
            "device epoch": PLACE.device_epoch,
            "device key": hex::encode(device_key(PLACE).into_secret().expose()),
        },
        "delivery": named(whole_exchange(&sides)),
        "session": session(&sides),
        "order": {
            "act": 2, "counter": 7, "expires": 1_800_086_400_000_u64,
            "message": hex::encode(order.sign(&identity(0x41)).unwrap().as_bytes()),
        },
        "outcome": {
            "act": 2, "counter": 7, "outcome": 1, "at": 1_800_000_000_000_u64,
            "message": hex::encode(report.sign(&identity(0x11)).unwrap().as_bytes()),
        },
    })
}

#[test]
fn the_vectors_are_the_published_ones() {
    let published: Value = serde_json::from_str(include_str!("../../../../vectors/exchange.json")).unwrap();
    let computed = computed();
    assert_eq!(published, computed, "{}", serde_json::to_string_pretty(&computed).unwrap());
}

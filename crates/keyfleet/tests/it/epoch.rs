//! `keyfleet epoch` and `keyfleet order` against a served fleet. Devices that hold keys are in the server's tests.

use crate::console::{Fleet, Succeeds as _, json};
use crate::fleet::sign_up;

#[test]
fn an_epoch_follows_another_and_the_old_one_is_retired_once() {
    let fleet = Fleet::start(&[]).with_device();
    let early = fleet.run(&["epoch", "retire", "--facility", "lyon", "--epoch", "1"]);
    assert_eq!(early.code, Some(5), "{}", early.text());
    let made = fleet.json(&["epoch", "advance", "--facility", "lyon", "--why", "yearly"]);
    assert_eq!((made["done"].clone(), made["epoch"].clone()), (true.into(), 2.into()));
    let twice = fleet.run(&["epoch", "advance", "--facility", "lyon"]);
    assert_eq!(twice.code, Some(5), "{}", twice.text());
    assert!(twice.stderr_text().contains("keyfleet epoch retire"), "{}", twice.text());
    assert_eq!(fleet.json(&["epoch", "holders", "--facility", "lyon", "--epoch", "1"])["items"], serde_json::json!([]));
    fleet.run(&["epoch", "retire", "--facility", "lyon", "--epoch", "1"]).succeeds();
    let listed = fleet.json(&["epoch", "list", "--facility", "lyon"]);
    let states: Vec<_> = listed["items"].as_array().unwrap().iter().map(|epoch| epoch["state"].clone()).collect();
    assert_eq!(states, ["current", "retired"]);
    let shown = fleet.json(&["epoch", "show", "--device", "thermo-0001"]);
    assert_eq!((shown["facility_epoch"].clone(), shown["up_to_date"].clone()), (2.into(), false.into()));
    let never = fleet.run(&["epoch", "advance", "--device", "thermo-0001"]);
    assert_eq!(never.code, Some(5), "a device that was never sent a key has none to replace: {}", never.text());
    assert_eq!(fleet.run(&["epoch", "advance"]).code, Some(2));
}

#[test]
fn the_pins_are_two_public_keys_whose_digests_the_status_shows() {
    let fleet = Fleet::start(&[]);
    let text = fleet.run(&["epoch", "pins"]).expect_success().stdout_text();
    assert_eq!(text.matches("-----BEGIN PUBLIC KEY-----").count(), 2, "{text}");
    let (pins, status) = (fleet.json(&["epoch", "pins"]), fleet.json(&["status"]));
    for key in ["delivery_key_sha256", "order_key_sha256"] {
        assert_eq!(pins[key], status[key]);
    }
    assert_ne!(pins["delivery_key_sha256"], pins["order_key_sha256"]);
}

#[test]
fn an_order_waits_for_a_second_person_and_can_be_withdrawn() {
    let fleet = Fleet::start(&[]).with_device();
    let order = ["order", "create", "--device", "thermo-0001", "--act", "wipe", "--why", "stolen", "--yes"];
    let waits = fleet.run(&[&order[..], &["--format", "json"]].concat());
    assert_eq!(waits.code, Some(6), "{}", waits.text());
    let proposal = json(&waits)["proposal"].as_str().unwrap().to_owned();
    assert_eq!(fleet.run(&["proposal", "approve", &proposal]).code, Some(5));
    assert_eq!(fleet.json(&["order", "list"])["items"], serde_json::json!([]));
    sign_up(&fleet, "bert", "fleet-operator");
    fleet.run_as("bert.toml", &["proposal", "approve", &proposal]).succeeds();
    let listed = fleet.json(&["order", "list", "--device", "thermo-0001"]);
    let made = &listed["items"][0];
    assert_eq!((made["act"].clone(), made["counter"].clone()), ("wipe".into(), 1.into()));
    let id = made["id"].as_str().unwrap();
    assert_eq!(fleet.json(&["order", "show", id])["state"], "open");
    fleet.run(&["order", "cancel", id, "--why", "found again"]).succeeds();
    assert_eq!(fleet.json(&["order", "show", id])["state"], "cancelled");
    assert_eq!(fleet.run(&["order", "cancel", id]).code, Some(5));
    let unasked = fleet.run(&["order", "create", "--device", "thermo-0001", "--act", "wipe", "--why", "x"]);
    assert_eq!(unasked.code, Some(2), "nobody is there to be asked: {}", unasked.text());
}

use std::vec::Vec;

use kf_key::{DeviceId, UnixMillis};

use super::*;
use crate::order::{Order, OrderAct, OrderOutcome, OrderRefusal, OrderReport};

const NOW: UnixMillis = UnixMillis(1_800_000_000_000);

fn order() -> Order {
    Order { act: OrderAct::Wipe, device: DEVICE, counter: 7, expires: NOW.plus(UnixMillis::DAY) }
}

fn signed(order: &Order) -> Message {
    order.sign(&identity(0x41)).unwrap()
}

fn verify(message: &[u8], last: u64, now: UnixMillis) -> Result<Order, OrderRefusal> {
    Order::verify(message, &identity(0x41).public_key(), DEVICE, last, now)
}

#[test]
fn an_order_is_obeyed_once_and_no_older_one_after_it() {
    let message = signed(&order());
    assert_eq!(verify(message.as_bytes(), 6, NOW), Ok(order()));
    assert_eq!(verify(message.as_bytes(), 0, NOW), Ok(order()), "counters may skip");
    assert_eq!(verify(message.as_bytes(), 7, NOW), Err(OrderRefusal::Replayed));
    assert_eq!(verify(message.as_bytes(), 8, NOW), Err(OrderRefusal::WentBackwards { last: 8 }));
    assert_eq!(verify(message.as_bytes(), u64::MAX, NOW), Err(OrderRefusal::WentBackwards { last: u64::MAX }));
}

#[test]
fn an_order_that_came_too_late_or_to_another_device_is_refused() {
    let message = signed(&order());
    assert_eq!(verify(message.as_bytes(), 6, order().expires), Ok(order()));
    assert_eq!(verify(message.as_bytes(), 6, order().expires.plus(1)), Err(OrderRefusal::Expired));
    let other = DeviceId::from_bytes([0xd2; 16]);
    let refused = Order::verify(message.as_bytes(), &identity(0x41).public_key(), other, 6, NOW);
    assert_eq!(refused, Err(OrderRefusal::OtherDevice));
}

#[test]
fn only_the_order_key_orders() {
    let message = order().sign(&identity(0x22)).unwrap();
    assert_eq!(verify(message.as_bytes(), 6, NOW), Err(OrderRefusal::OtherKey));
    // The delivery key's signature under the order key's name.
    let mut forged = message.as_bytes().to_vec();
    let ours = signed(&order());
    let at = forged.windows(16).position(|window| window == &identity(0x22).public_key().spki_sha256()[..16]).unwrap();
    forged[at..at + 16].copy_from_slice(&identity(0x41).public_key().spki_sha256()[..16]);
    assert_eq!(verify(&forged, 6, NOW), Err(OrderRefusal::Message(Refusal::Unauthentic)));
    assert_eq!(forged.len(), ours.as_bytes().len());
}

#[test]
fn no_cut_or_flipped_order_passes() {
    let message = signed(&order());
    for length in 0..message.as_bytes().len() {
        let refused = verify(&message.as_bytes()[..length], 6, NOW);
        assert_eq!(refused, Err(OrderRefusal::Message(Refusal::Malformed)), "cut to {length}");
    }
    for changed in flipped(message.as_bytes()).step_by(3) {
        assert!(verify(&changed, 6, NOW).is_err(), "{}", hex::encode(changed));
    }
    let longer = [message.as_bytes(), &[0]].concat();
    assert_eq!(verify(&longer, 6, NOW), Err(OrderRefusal::Message(Refusal::Malformed)));
    let oversized = std::vec![0xd2; 5_000];
    assert_eq!(verify(&oversized, 6, NOW), Err(OrderRefusal::Message(Refusal::TooLong)));
}

/// What a server of tomorrow may send: signed by the order key, and of a kind that this program does not know.
#[test]
fn an_order_of_a_later_version_with_an_act_or_a_field_that_is_not_known_is_refused_by_name() {
    let made = |version: u8, act: u8, has_more: bool| {
        let payload = Message::encode(|out| {
            out.array(if has_more { 6 } else { 5 })?.u8(version)?.u8(act)?.bytes(DEVICE.as_bytes())?;
            out.u64(7)?.u64(NOW.0)?;
            if has_more {
                out.u64(1)?;
            }
            out.ok()
        });
        cose::sign(b"keyfleet order v1", &payload.unwrap(), &identity(0x41)).ok().unwrap()
    };
    assert!(verify(made(1, 1, false).as_bytes(), 6, NOW).is_ok());
    for (message, refusal) in [
        (made(2, 1, false), Refusal::Version),
        (made(2, 1, true), Refusal::Version),
        (made(1, 4, false), Refusal::Purpose),
        (made(1, 1, true), Refusal::Malformed),
    ] {
        assert_eq!(verify(message.as_bytes(), 6, NOW), Err(OrderRefusal::Message(refusal)));
    }
}

#[test]
fn every_counter_and_time_fits() {
    for counter in [1, 23, 24, 255, 256, 65_536, u64::from(u32::MAX) + 1, u64::MAX] {
        let order = Order { counter, expires: UnixMillis(u64::MAX), ..order() };
        assert_eq!(verify(signed(&order).as_bytes(), 0, NOW), Ok(order));
    }
}

#[test]
fn a_report_is_believed_from_the_device_alone_and_is_no_order() {
    let report = OrderReport { act: OrderAct::Wipe, device: DEVICE, counter: 7, outcome: OrderOutcome::Done, at: NOW };
    let message = report.sign(&identity(0x11)).unwrap();
    assert_eq!(OrderReport::claimed(message.as_bytes()), Ok(report));
    assert_eq!(OrderReport::verify(message.as_bytes(), &identity(0x11).public_key()), Ok(report));
    let refused = OrderReport::verify(message.as_bytes(), &identity(0x12).public_key());
    assert_eq!(refused, Err(Refusal::Unauthentic));
    // Signed by the very order key, a report is still no order and an order no report.
    let posing = report.sign(&identity(0x41)).unwrap();
    assert_eq!(verify(posing.as_bytes(), 6, NOW), Err(OrderRefusal::Message(Refusal::Unauthentic)));
    let refused = OrderReport::verify(signed(&order()).as_bytes(), &identity(0x41).public_key());
    assert_eq!(refused, Err(Refusal::Unauthentic));
    for changed in flipped(message.as_bytes()).step_by(5).collect::<Vec<_>>() {
        assert!(OrderReport::verify(&changed, &identity(0x11).public_key()).is_err());
    }
}

//! The checks of the demonstration find what they are there to find.

use kf_api::batch::Outcome;
use kf_batch::device_list::{DeviceList, Naming};
use kf_batch::record::{Fingerprint, Hardware, HardwareKind, KeyOrigin, MadeKey, Record};
use kf_key::{BatchId, UnixMillis};

use super::super::super::report::Report;
use super::super::shift::Counts;
use super::Books;

const NOW: UnixMillis = UnixMillis(1_800_000_000_000);

fn devices() -> DeviceList {
    DeviceList::fresh(NOW, [1; 10], 4, Naming { prefix: "gate-".into(), digits: 6, first: 1 }).unwrap()
}

fn record(position: u32, outcome: Outcome, key: u8, address: u8) -> Record {
    Record {
        batch: BatchId::from_parts(NOW, [2; 10]),
        sequence: 1,
        previous: [0; 32],
        device: devices().device(position).unwrap(),
        outcome,
        at: NOW,
        fixture: "fixture-1".into(),
        operator: "Ana".into(),
        recipe: [0; 32],
        firmware: None,
        key: Some(MadeKey { origin: KeyOrigin::StationToken, spki_sha256: [key; 32] }),
        certificate: None,
        fingerprints: vec![Fingerprint { slot: "device-key".into(), value: [key + 100; 32] }],
        salt: None,
        entropy: None,
        hardware: vec![Hardware { kind: HardwareKind::Address, value: vec![address; 6] }],
        checks: Vec::new(),
        unsafe_marks: Vec::new(),
        reason: None,
    }
}

/// Two devices that passed, one that failed first and is scrap, one that was never begun.
fn honest() -> Books {
    let records = vec![
        record(0, Outcome::Passed, 1, 1),
        record(2, Outcome::Rework, 2, 3),
        record(1, Outcome::Passed, 3, 2),
        record(2, Outcome::Scrapped, 4, 3),
    ];
    let counts = Counts { planned: 4, good: 2, scrap: 1, rework: 1, open: 0, left: 1, balances: true };
    Books {
        batch: "gate-1".into(),
        id: "batch".into(),
        devices: devices(),
        items: Vec::new(),
        records,
        counts,
        destroyed: Vec::new(),
        is_chain: true,
    }
}

/// Whether the endings balance, and whether nothing occurs twice.
fn judge(change: impl FnOnce(&mut Books)) -> (bool, bool) {
    let mut books = honest();
    change(&mut books);
    let (mut endings, mut twice) = (Report::new(true), Report::new(true));
    books.check_endings(&mut endings);
    books.check_twice(&mut twice);
    (endings.all_hold(), twice.all_hold())
}

#[test]
fn honest_books_balance() {
    assert_eq!(judge(|_books| ()), (true, true));
}

#[test]
fn a_record_too_few_a_count_too_many_and_an_open_device_are_found() {
    assert!(!judge(|books| drop(books.records.remove(0))).0);
    assert!(!judge(|books| books.counts.good = 3).0);
    assert!(!judge(|books| books.counts.left = 0).0);
    assert!(!judge(|books| drop(books.records.pop())).0);
}

#[test]
fn a_key_an_address_and_a_device_that_occur_twice_are_found() {
    assert!(!judge(|books| books.records[3].key = books.records[1].key).1);
    assert!(!judge(|books| books.records[3].fingerprints = books.records[0].fingerprints.clone()).1);
    assert!(!judge(|books| books.records[2].hardware = books.records[0].hardware.clone()).1);
    assert!(!judge(|books| books.records[2].device = books.records[0].device).1);
}

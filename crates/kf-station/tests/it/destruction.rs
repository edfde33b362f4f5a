//! What becomes of the keys of a device that did not pass, and what its record says of it.

use std::sync::Arc;
use std::time::Duration;

use kf_api::batch::Outcome;
use kf_batch::record::{Check, Record};
use kf_flash::scan::NamedSecret;
use kf_key::SecretBytes;
use kf_station::KEY_DESTROYED;
use kf_station::fixture::{Board, Deadline, Fault, Fixture, Simulator, Supply};
use kf_station::image::{Segment, findings};

use crate::esp32::C3;
use crate::stage::{Disk, LINUX, Stage};

/// Makes one board with a fault, then closes the batch; the records, the board and the journal.
fn fail(recipe: &str, chip: Option<&str>, fault: Fault) -> (Vec<Record>, Option<Board>, Vec<u8>) {
    let stage = Stage::new(recipe, 2);
    let supply = Supply::new([Board::new(1, chip).with_fault(fault)]);
    let (station, _) = stage.open(Disk::default()).unwrap();
    let simulator = Simulator::new(Arc::clone(&supply), Arc::clone(&stage.target));
    let fixture: Box<dyn Fixture> = Box::new(Deadline::new(Box::new(simulator), Duration::from_millis(500)).unwrap());
    station.run(vec![fixture], &());
    station.close_shift(true).unwrap();
    let mut disk = station.into_file();
    let records = stage.records(&mut disk);
    let board = supply.take_done().into_values().next().map(|(board, _)| board);
    (records, board, disk.durable)
}

/// The one check of a record of a device that did not pass.
fn destroyed(record: &Record) -> (bool, String) {
    assert_ne!(record.outcome, Outcome::Passed);
    let [Check { name, passed, detail }] = record.checks.as_slice() else { panic!("{:?}", record.checks) };
    assert_eq!(name, KEY_DESTROYED);
    (*passed, detail.clone().unwrap())
}

#[test]
fn a_board_that_did_not_pass_is_erased_and_read_back_before_its_record_says_so_and_no_salt_leaves() {
    let (records, board, _) = fail(LINUX, None, Fault::OtherKey);
    let board = board.unwrap();
    assert!(board.segments().is_empty() && board.unlock().is_none());
    let record = records.first().unwrap();
    assert_eq!(destroyed(record), (true, "flash erased, read back blank".to_owned()));
    assert!(record.key.is_some() && record.certificate.is_some(), "what is barred is named");
    assert!(record.salt.is_none(), "nobody derives its symmetric key");
}

#[test]
fn what_cannot_be_destroyed_is_said_with_its_reason() {
    let (records, board, _) = fail(LINUX, None, Fault::LyingReadBack);
    assert!(!board.unwrap().segments().is_empty());
    let (gone, why) = destroyed(&records[0]);
    assert!(!gone && why.contains("barred"), "{why}");
    let (records, ..) = fail(LINUX, None, Fault::HangOnWrite);
    let (gone, why) = destroyed(&records[0]);
    assert!(!gone && why.contains("did not answer in time"), "{why}");
}

#[test]
fn a_fused_key_stays_and_the_image_that_it_opened_is_gone() {
    let (records, board, _) = fail(C3, Some("esp32-c3"), Fault::WeakFuses);
    let board = board.unwrap();
    assert!(board.segments().is_empty() && board.unlock().is_some(), "a fuse cannot be taken back");
    let (gone, how) = destroyed(&records[0]);
    assert!(gone && how.contains("its fused keys stay"), "{how}");
    assert_eq!(records[0].outcome, Outcome::Scrapped);
}

#[test]
fn a_board_that_never_came_back_is_barred_and_its_record_says_that_nothing_was_destroyed() {
    let stage = Stage::new(LINUX, 2);
    let supply = Supply::new([Board::new(1, None)]);
    let (station, _) = stage.open(Disk::default()).unwrap();
    let simulator = Simulator::new(supply, Arc::clone(&stage.target));
    station.run(vec![Box::new(simulator)], &());
    // The journal as it was before the device was finished: power was cut, and the board was never seen again.
    let durable = crate::espefuse::journal_until(&station.into_file().durable, |entry| {
        matches!(entry, kf_station::line::Entry::Writing { .. })
    });
    let (station, _) = stage.open(durable).unwrap();
    station.close_shift(true).unwrap();
    let records = stage.records(&mut station.into_file());
    let (gone, why) = destroyed(&records[0]);
    assert!(!gone && why.contains("did not come back"), "{why}");
}

#[test]
fn the_journal_holds_no_fragment_of_a_key_of_any_device() {
    let stage = Stage::new(LINUX, 2);
    let supply = Supply::new([Board::new(1, None)]);
    let (station, _) = stage.open(Disk::default()).unwrap();
    station.run(vec![Box::new(Simulator::new(Arc::clone(&supply), Arc::clone(&stage.target)))], &());
    let durable = station.into_file().durable;
    let (board, passed) = supply.take_done().into_values().next().unwrap();
    assert!(passed);
    let named = |name: &str, octets: &[u8]| NamedSecret {
        name: name.to_owned(),
        octets: SecretBytes::from_vec(octets.to_vec()),
    };
    let unlock = board.unlock().unwrap();
    let sealed = board.segments().iter().find(|segment| segment.name == "device.key").unwrap();
    let device_key = kf_crypto::open(unlock, b"keyfleet station device key v1", sealed.octets.expose()).unwrap();
    let pkcs8 = stage.target.open(board.segments(), board.held()).unwrap().to_pkcs8().unwrap();
    let scalar = pkcs8.expose().windows(37).find(|window| window.starts_with(&[2, 1, 1, 4, 32])).unwrap();
    let secrets =
        || vec![named("unlock", unlock.expose()), named("device", device_key.expose()), named("key", &scalar[5..])];
    let search = |octets: Vec<u8>| findings(&[Segment::file("journal", octets)], secrets()).unwrap();
    assert!(search(durable.clone()).is_empty());
    for secret in secrets() {
        let mut with = durable.clone();
        with.extend_from_slice(&secret.octets.expose()[3..15]);
        assert!(!search(with).is_empty(), "a fragment of {} would not be found", secret.name);
    }
}

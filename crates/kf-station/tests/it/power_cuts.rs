//! Power is cut at every act that touches the outside: every write and sync of the journal, every signature and every step of
//! the token's counter. After each the station starts again and the books must balance.

use std::collections::BTreeSet;
use std::sync::Arc;

use kf_api::batch::Outcome;
use kf_station::fixture::{Board, Fixture, Simulator, Supply};

use crate::stage::{Disk, LINUX, MemoryToken, Power, Stage};

const DEVICES: u32 = 3;

/// Works until all boards passed; the boards survive between lives, as boards do.
fn finish(stage: &Stage, supply: &Arc<Supply>, mut disk: Disk) -> Disk {
    // A board that was in a fixture when power went is put in again by the operator.
    for (_, (board, passed)) in supply.take_done() {
        if !passed {
            supply.give(board);
        }
    }
    let (station, _) = stage.open(disk).unwrap();
    let fixture: Box<dyn Fixture> = Box::new(Simulator::new(Arc::clone(supply), Arc::clone(&stage.target)));
    station.run(vec![fixture], &());
    station.close_shift(true).unwrap();
    let counts = station.counts();
    assert!(counts.balance(), "{counts:?}");
    assert_eq!(counts.open, 0);
    disk = station.into_file();
    disk
}

#[test]
fn after_a_power_cut_at_every_single_act_each_device_is_made_once_and_the_books_balance() {
    let mut acts = 0;
    loop {
        for quarters in 0..4 {
            let power = Power::for_acts(acts);
            let token = MemoryToken::new(None);
            let stage = Stage::with_token(LINUX, DEVICES, token);
            let supply = Supply::new((0..DEVICES).map(|number| Board::new(number, None)));
            let disk = Disk::powered(Vec::new(), Arc::clone(&power), quarters);
            let durable = match stage.open_with(disk, stage.powered(&power)) {
                Ok((station, _)) => {
                    let fixture = Simulator::new(Arc::clone(&supply), Arc::clone(&stage.target));
                    station.run(vec![Box::new(fixture)], &());
                    station.into_file().durable
                }
                // Power went while it started: the disk is lost to this test, which has nothing durable of its own.
                Err(_) => Vec::new(),
            };
            let was_cut = power.is_off();
            let mut disk = finish(&stage, &supply, Disk { durable, ..Disk::default() });
            check(&stage, &mut disk, acts);
            if !was_cut && quarters == 3 {
                assert!(acts > 10, "the test cuts nothing");
                return;
            }
        }
        acts += 1;
    }
}

#[test]
fn a_batch_that_was_closed_for_good_stays_closed_when_the_station_is_started_once_more() {
    let stage = Stage::new(LINUX, DEVICES);
    let supply = Supply::new((0..DEVICES).map(|number| Board::new(number, None)));
    let disk = finish(&stage, &supply, Disk::default());
    let octets = disk.durable.clone();
    let (station, _) = stage.open(disk).unwrap();
    station.close_shift(true).unwrap();
    station.close_shift(false).unwrap();
    assert_eq!(station.into_file().durable, octets);
}

#[test]
fn the_times_of_records_never_go_back_along_the_chain_however_many_fixtures_work() {
    const BOARDS: u32 = 100;
    let stage = Stage::new(LINUX, BOARDS);
    let supply = Supply::new((0..BOARDS).map(|number| Board::new(number, None)));
    let (station, _) = stage.open(Disk::default()).unwrap();
    let fixture = |_| -> Box<dyn Fixture> { Box::new(Simulator::new(Arc::clone(&supply), Arc::clone(&stage.target))) };
    station.run((0..8).map(fixture).collect(), &());
    assert_eq!(station.counts().good, BOARDS);
    let records = stage.records(&mut station.into_file());
    assert!(records.is_sorted_by_key(|record| record.at));
}

/// What must hold at the end, whatever happened.
fn check(stage: &Stage, disk: &mut Disk, acts: u64) {
    let records = stage.records(disk);
    let passed: Vec<_> = records.iter().filter(|record| record.outcome == Outcome::Passed).collect();
    let ids: BTreeSet<_> = passed.iter().map(|record| record.device).collect();
    let keys: BTreeSet<_> = records.iter().filter_map(|record| record.key.map(|key| key.spki_sha256)).collect();
    for record in records.iter().filter(|record| record.outcome != Outcome::Passed && record.key.is_some()) {
        let said: Vec<_> = record.checks.iter().map(|check| check.name.as_str()).collect();
        assert_eq!(said, [kf_station::KEY_DESTROYED], "cut after {acts}");
    }
    assert_eq!(ids.len(), passed.len(), "a device passed twice, cut after {acts}");
    assert_eq!(keys.len(), records.iter().filter(|record| record.key.is_some()).count(), "a key twice");
    assert_eq!(passed.len(), DEVICES as usize, "cut after {acts}");
}

//! Boards, fixtures, tokens and quotas that are not as they should be: each is a named refusal, and the line goes on.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use kf_api::batch::Outcome;
use kf_entropy::{Alphabet, Assessment, Cutoffs, Evidence, HealthTests, NoiseState, SourceId};
use kf_key::UnixMillis;
use kf_station::fixture::{Board, Deadline, DeviceNoise, Fault, Fixture, FixtureError, Simulator, Supply};
use kf_station::ledger::LedgerError;
use kf_station::line::{BookError, FailReason};
use kf_station::station::{Event, StationError, Watch};

use crate::stage::{Disk, LINUX, MemoryToken, NOW, Stage};

#[derive(Default)]
struct Seen(Mutex<BTreeMap<String, Vec<FailReason>>>);

impl Watch for Seen {
    fn tell(&self, event: &Event) {
        if let Some(reason) = event.reason {
            let key = event.mac.clone().unwrap_or_else(|| event.fixture.clone());
            self.0.lock().unwrap().entry(key).or_default().push(reason);
        }
    }
}

fn simulators(stage: &Stage, supply: &Arc<Supply>, count: usize) -> Vec<Box<dyn Fixture>> {
    (0..count)
        .map(|_| -> Box<dyn Fixture> {
            let simulator = Simulator::new(Arc::clone(supply), Arc::clone(&stage.target));
            Box::new(Deadline::new(Box::new(simulator), Duration::from_millis(500)).unwrap())
        })
        .collect()
}

#[test]
fn eight_fixtures_go_on_when_boards_hang_lie_and_show_other_keys() {
    let stage = Stage::new(LINUX, 60);
    let faults = [
        (3, Fault::HangOnWrite, FailReason::Hang),
        (9, Fault::LyingReadBack, FailReason::ReadBack),
        (15, Fault::OtherKey, FailReason::Proof),
        (21, Fault::BrokenWrite, FailReason::Fixture),
    ];
    let boards = (0..40).map(|number| {
        let board = Board::new(number, None);
        match faults.iter().find(|(place, ..)| *place == number) {
            Some((_, fault, _)) => board.with_fault(*fault),
            None => board,
        }
    });
    let supply = Supply::new(boards);
    let (station, _) = stage.open(Disk::default()).unwrap();
    let seen = Seen::default();
    station.run(simulators(&stage, &supply, 8), &seen);
    let counts = station.counts();
    assert_eq!((counts.good, counts.open), (36, 4), "{counts:?}");
    for (place, _, reason) in faults {
        let mac = Board::new(place, None).mac().to_owned();
        assert_eq!(seen.0.lock().unwrap().get(&mac), Some(&vec![reason]));
    }
    station.close_shift(true).unwrap();
    let counts = station.counts();
    assert!(counts.balance() && counts.scrap == 4, "{counts:?}");
    let records = stage.records(&mut station.into_file());
    let of = |outcome| records.iter().filter(|record| record.outcome == outcome).count();
    assert_eq!((of(Outcome::Passed), of(Outcome::Rework), of(Outcome::Scrapped)), (36, 4, 4));
}

#[test]
fn a_board_that_never_answers_takes_its_fixture_out_of_service_and_no_other() {
    let stage = Stage::new(LINUX, 20);
    let boards = (0..12).map(|number| {
        let board = Board::new(number, None);
        if number == 1 { board.with_fault(Fault::HangOnRead) } else { board }
    });
    let supply = Supply::new(boards);
    let (station, _) = stage.open(Disk::default()).unwrap();
    let (sender, ended) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        for (mut fixture, sender) in simulators(&stage, &supply, 2).into_iter().zip([sender.clone(), sender]) {
            let station = &station;
            scope.spawn(move || {
                while station.make_one("fixture", fixture.as_mut(), &()) {}
                let _nobody_waits = sender.send(station.counts().good);
            });
        }
        // The wait for an operator has no end; the other fixture has done everything by then.
        assert_eq!(ended.recv(), Ok(11));
        supply.end();
    });
}

#[test]
fn one_board_twice_and_two_boards_of_one_number_are_set_aside() {
    let stage = Stage::new(LINUX, 9);
    let supply = Supply::new([
        Board::new(1, None),
        Board::new(1, None),
        Board::new(1, None).with_mac("02:4b:ff:ff:ff:ff"),
        Board::new(2, None),
    ]);
    let (station, _) = stage.open(Disk::default()).unwrap();
    let seen = Seen::default();
    station.run(simulators(&stage, &supply, 1), &seen);
    assert_eq!(station.counts().good, 2);
    assert_eq!(station.counts().refused, 2);
    let seen = seen.0.lock().unwrap();
    assert_eq!(seen.get("02:4b:00:00:00:01"), Some(&vec![FailReason::AlreadyMade]));
    assert_eq!(seen.get("02:4b:ff:ff:ff:ff"), Some(&vec![FailReason::DuplicateBoard]));
}

#[test]
fn an_exhausted_quota_an_expired_one_and_a_clock_set_back_stop_the_line() {
    let stage = Stage::new(LINUX, 2);
    let run = |boards: std::ops::Range<u32>, disk: Disk| {
        let supply = Supply::new(boards.map(|number| Board::new(number, None)));
        let (station, _) = stage.open(disk).unwrap();
        let seen = Seen::default();
        station.run(simulators(&stage, &supply, 1), &seen);
        let reasons: Vec<_> = seen.0.lock().unwrap().values().flatten().copied().collect();
        (station.counts().good, reasons, station.into_file())
    };
    let (good, reasons, disk) = run(0..1, Disk::default());
    assert_eq!((good, reasons), (1, vec![]));
    stage.clock.0.store(NOW.0 - UnixMillis::HOUR, Ordering::SeqCst);
    let (good, reasons, disk) = run(1..3, disk);
    assert_eq!((good, reasons), (1, vec![FailReason::ClockBack]));
    stage.clock.0.store(NOW.0 + 25 * UnixMillis::HOUR, Ordering::SeqCst);
    let (good, reasons, disk) = run(1..3, disk);
    assert_eq!((good, reasons), (1, vec![FailReason::Expired]));
    assert!(!disk.durable.is_empty());
    let stage = Stage::new(LINUX, 2);
    let supply = Supply::new((0..4).map(|number| Board::new(number, None)));
    let (station, _) = stage.open(Disk::default()).unwrap();
    let seen = Seen::default();
    station.run(simulators(&stage, &supply, 1), &seen);
    assert_eq!(station.counts().good, 2);
    assert_eq!(seen.0.lock().unwrap().values().flatten().collect::<Vec<_>>(), [&FailReason::Exhausted]);
}

#[test]
fn a_stuck_random_generator_makes_no_device() {
    let token = MemoryToken::new(None);
    let stage = Stage::with_token(LINUX, 2, token);
    let (station, _) = stage.open(Disk::default()).unwrap();
    stage.token.stuck.store(true, Ordering::SeqCst);
    let supply = Supply::new((0..2).map(|number| Board::new(number, None)));
    let seen = Seen::default();
    station.run(simulators(&stage, &supply, 1), &seen);
    assert_eq!(station.counts().good, 0);
    assert_eq!(seen.0.lock().unwrap().values().flatten().next(), Some(&FailReason::Noise));
    drop(station);
    assert!(matches!(
        stage.open(Disk::default()),
        Err(StationError::Ledger(_) | StationError::Start(FailReason::Noise))
    ));
}

/// A recipe for devices that make their own keys.
fn born_in_device() -> String {
    LINUX
        .replace("target = \"linux\"", "target = \"hook\"\nhook = [\"/bin/true\"]")
        .replace("\"station\"", "\"device\"")
        .replace("inject = true", "")
        .replace("\"sealed\"", "\"hardware\"")
}

#[test]
fn a_device_whose_random_generator_sticks_does_not_pass_and_its_record_says_so() {
    let stage = Stage::new(&born_in_device(), 4);
    let supply = Supply::new([Board::new(1, None).with_fault(Fault::StuckNoise), Board::new(2, None)]);
    let (station, _) = stage.open(Disk::default()).unwrap();
    let seen = Seen::default();
    station.run(simulators(&stage, &supply, 1), &seen);
    assert_eq!((station.counts().good, station.counts().rework), (1, 1));
    assert_eq!(seen.0.lock().unwrap().get("02:4b:00:00:00:01"), Some(&vec![FailReason::DeviceNoise]));
    let records = stage.records(&mut station.into_file());
    let of = |outcome| records.iter().find(|record| record.outcome == outcome).unwrap();
    let (failed, passed) = (of(Outcome::Rework), of(Outcome::Passed));
    let evidence = |record: &kf_batch::record::Record| record.entropy.clone().unwrap();
    assert_eq!((evidence(failed).failures, evidence(failed).source.as_str()), (1, "simulated"));
    assert!(failed.key.is_some() && failed.certificate.is_none(), "its key is barred, and was never certified");
    assert_eq!((evidence(passed).failures, evidence(passed).samples), (0, 1_024));
}

/// A simulated device that shows something else of its random source.
struct Shows(Simulator, fn() -> DeviceNoise);

impl Fixture for Shows {
    fn read(&mut self) -> Result<Option<kf_station::fixture::Reading>, FixtureError> {
        self.0.read()
    }

    fn make_key(&mut self, algorithm: kf_key::KeyAlgorithm, slot: Option<u32>) -> Result<Vec<u8>, FixtureError> {
        self.0.make_key(algorithm, slot)
    }

    fn noise(&mut self) -> Result<DeviceNoise, FixtureError> {
        Ok((self.1)())
    }

    fn write(&mut self, image: &kf_station::image::Image) -> Result<(), FixtureError> {
        self.0.write(image)
    }

    fn read_back(&mut self) -> Result<(Vec<kf_station::image::Segment>, kf_station::recipe::ChipState), FixtureError> {
        self.0.read_back()
    }

    fn prove(&mut self, message: &[u8]) -> Result<Vec<u8>, FixtureError> {
        self.0.prove(message)
    }
}

/// The evidence of firmware whose noise is of this kind.
fn evidence(state: NoiseState) -> DeviceNoise {
    let assessment = Assessment { alphabet: Alphabet::Octet, millibits: 4_000, alpha: 30 };
    let mut tests = HealthTests::new(Cutoffs::new(assessment).unwrap());
    let mut octets = [0; 4_096];
    kf_crypto::fill_random(&mut octets).unwrap();
    for octet in octets {
        let _progress = tests.test(octet).unwrap();
    }
    let source = SourceId(*b"esp32-rng\0\0\0\0\0\0\0");
    DeviceNoise::Evidence(Evidence { source, state, cutoffs: tests.cutoffs(), counts: tests.counts() })
}

#[test]
fn evidence_of_a_device_stands_in_its_record_and_pseudo_random_noise_and_silence_are_told_apart() {
    type Case = (fn() -> DeviceNoise, Option<(&'static str, u64)>);
    let cases: [Case; 3] = [
        (|| evidence(NoiseState::PhysicalOn), Some(("esp32-rng", 4_096))),
        (|| evidence(NoiseState::PseudoRandomOnly), None),
        (|| DeviceNoise::NotTestable, Some(("device, not testable", 0))),
    ];
    for (shows, expected) in cases {
        let stage = Stage::new(&born_in_device(), 1);
        let supply = Supply::new([Board::new(1, None)]);
        let (station, _) = stage.open(Disk::default()).unwrap();
        let mut fixture = Shows(Simulator::new(supply, Arc::clone(&stage.target)), shows);
        let _goes_on = station.make_one("fixture-1", &mut fixture, &());
        let records = stage.records(&mut station.into_file());
        let entropy = records[0].entropy.clone().unwrap();
        match expected {
            Some((source, samples)) => {
                assert_eq!(records[0].outcome, Outcome::Passed);
                assert_eq!((entropy.source.as_str(), entropy.samples, entropy.failures), (source, samples, 0));
            }
            None => assert!(records[0].outcome == Outcome::Rework && entropy.failures == 1),
        }
    }
}

#[test]
fn a_device_that_makes_a_key_that_was_seen_does_not_pass() {
    let stage = Stage::new(&born_in_device(), 4);
    let boards = (0..3).map(|number| Board::new(number, None).with_fault(Fault::RepeatedKey));
    let supply = Supply::new(boards);
    let (station, _) = stage.open(Disk::default()).unwrap();
    let seen = Seen::default();
    station.run(simulators(&stage, &supply, 1), &seen);
    assert_eq!(station.counts().good, 1);
    assert_eq!(
        seen.0.lock().unwrap().values().flatten().copied().collect::<Vec<_>>(),
        [FailReason::DuplicateKey, FailReason::DuplicateKey]
    );
    let records = stage.records(&mut station.into_file());
    assert_eq!(records.iter().filter(|record| record.key.is_some()).count(), 1, "the good device's key is not barred");
}

#[test]
fn a_copy_of_the_journal_a_foreign_token_and_another_recipe_are_refused_at_start() {
    let stage = Stage::new(LINUX, 9);
    let make = |boards: std::ops::Range<u32>, disk: Disk| {
        let supply = Supply::new(boards.map(|number| Board::new(number, None)));
        let (station, _) = stage.open(disk).unwrap();
        station.run(simulators(&stage, &supply, 1), &());
        station.into_file()
    };
    let early = make(0..1, Disk::default());
    let copy = early.durable.clone();
    let late = make(1..3, early);
    let refused = stage.open(Disk { durable: copy, ..Disk::default() });
    assert!(matches!(
        refused.err(),
        Some(StationError::Ledger(LedgerError::Book(BookError::JournalRolledBack { token: 3, journal: 1 })))
    ));
    stage.token.counters.lock().unwrap().clear();
    let refused = stage.open(Disk { durable: late.durable.clone(), ..Disk::default() });
    assert!(matches!(
        refused.err(),
        Some(StationError::Ledger(LedgerError::Book(BookError::TokenRolledBack { token: 0, journal: 3 })))
    ));
    let other = Stage::new(&LINUX.replace("gate-r1", "gate-r2"), 9);
    let swapped = Stage { recipe: other.recipe, ..Stage::new(LINUX, 9) };
    assert!(matches!(swapped.open(Disk::default()).err(), Some(StationError::NotApproved { .. })));
    let stranger = MemoryToken::new(None);
    assert!(matches!(stage.open_with(Disk::default(), stranger).err(), Some(StationError::Authority)));
}

/// A fixture in Python, as a line would write one.
const PROGRAM: &str = include_str!("../../../../examples/fixture/fixture.py");

#[test]
fn a_fixture_whose_program_ends_is_out_of_service_at_once_and_the_line_goes_on() {
    let stage = Stage::new(LINUX, 4);
    let (station, _) = stage.open(Disk::default()).unwrap();
    let ended = kf_station::fixture::Program::start(std::path::Path::new("/bin/true"), &[]).unwrap();
    let supply = Supply::new((0..3).map(|number| Board::new(number, None)));
    let mut fixtures = simulators(&stage, &supply, 1);
    fixtures.push(Box::new(ended));
    let seen = Seen::default();
    station.run(fixtures, &seen);
    assert_eq!(station.counts().good, 3);
    assert_eq!(seen.0.lock().unwrap().get("fixture-2"), Some(&vec![FailReason::FixtureGone]));
}

/// A fixture that fails at each call, at once.
struct Broken;

impl Fixture for Broken {
    fn read(&mut self) -> Result<Option<kf_station::fixture::Reading>, FixtureError> {
        Err(FixtureError::Failed)
    }

    fn make_key(&mut self, _: kf_key::KeyAlgorithm, _: Option<u32>) -> Result<Vec<u8>, FixtureError> {
        Err(FixtureError::Failed)
    }

    fn write(&mut self, _: &kf_station::image::Image) -> Result<(), FixtureError> {
        Err(FixtureError::Failed)
    }

    fn read_back(&mut self) -> Result<(Vec<kf_station::image::Segment>, kf_station::recipe::ChipState), FixtureError> {
        Err(FixtureError::Failed)
    }

    fn prove(&mut self, _: &[u8]) -> Result<Vec<u8>, FixtureError> {
        Err(FixtureError::Failed)
    }
}

#[test]
fn a_fixture_that_only_ever_fails_does_not_fill_the_journal() {
    let stage = Stage::new(LINUX, 4);
    let (station, _) = stage.open(Disk::default()).unwrap();
    station.run(vec![Box::new(Broken)], &());
    let refused = station.counts().refused;
    assert!((2..=200).contains(&refused), "{refused}");
}

#[test]
fn a_program_of_the_line_is_a_fixture_and_its_devices_make_their_keys_with_openssl() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("fixture.py");
    std::fs::write(&path, PROGRAM).unwrap();
    let recipe = LINUX
        .replace("target = \"linux\"", "target = \"tpm\"")
        .replace("\"station\"", "\"device\"")
        .replace("inject = true", "")
        .replace("\"sealed\"", "\"hardware\"");
    let stage = Stage::new(&recipe, 4);
    let (station, _) = stage.open(Disk::default()).unwrap();
    let python = std::path::Path::new("python3");
    let program = kf_station::fixture::Program::start(python, &[path.display().to_string()]).unwrap();
    let fixture = Deadline::new(Box::new(program), Duration::from_secs(30)).unwrap();
    let seen = Seen::default();
    station.run(vec![Box::new(fixture)], &seen);
    assert_eq!(station.counts().good, 2, "{:?}", seen.0.lock().unwrap());
}

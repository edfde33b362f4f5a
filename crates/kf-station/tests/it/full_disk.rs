//! The disk is full at every single write: journal, counter, label, the device's files. Each is a named refusal; nothing is lost, and
//! nothing is made twice, when there is space again.

use std::collections::BTreeSet;
use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use kf_api::batch::Outcome;
use kf_batch::P256Key;
use kf_key::{KeyAlgorithm, SecretArray};
use kf_station::fixture::{Board, Fixture, FixtureError, Reading, Simulator, Supply, Verdict};
use kf_station::image::{Image, Segment};
use kf_station::journal::RESERVED_OCTETS;
use kf_station::label::{Label, LabelSink};
use kf_station::line::FailReason;
use kf_station::recipe::ChipState;
use kf_station::station::{Event, Watch};
use kf_station::token::{Generation, StationKey, StationToken, TokenError};

use crate::stage::{Disk, LINUX, MemoryToken, Space, Stage};

const DEVICES: u32 = 3;

#[derive(Default)]
struct Reasons(Mutex<Vec<FailReason>>);

impl Watch for Reasons {
    fn tell(&self, event: &Event) {
        self.0.lock().unwrap().extend(event.reason);
    }
}

/// Labels, the token's counter and the device's files on the one disk that the journal is on.
struct Shared<T>(T, Arc<Space>);

impl LabelSink for Shared<Mutex<BTreeSet<String>>> {
    fn spool(&self, label: &Label) -> io::Result<()> {
        self.1.write()?;
        self.0.lock().unwrap().insert(label.name().to_owned());
        Ok(())
    }

    fn release(&self, name: &str) -> io::Result<()> {
        self.1.write()?;
        assert!(self.0.lock().unwrap().contains(name), "a device passed without a label");
        Ok(())
    }
}

impl StationToken for Shared<Arc<MemoryToken>> {
    fn source(&self) -> &str {
        self.0.source()
    }

    fn public_key(&self, key: StationKey) -> Result<P256Key, TokenError> {
        self.0.public_key(key)
    }

    fn sign(&self, key: StationKey, message: &[u8]) -> Result<Vec<u8>, TokenError> {
        self.0.sign(key, message)
    }

    fn transport_key(&self, generation: Generation) -> Result<P256Key, TokenError> {
        self.0.transport_key(generation)
    }

    fn agree(&self, generation: Generation, peer: &[u8; 65]) -> Result<SecretArray<32>, TokenError> {
        self.0.agree(generation, peer)
    }

    fn draw(&self, generation: Generation) -> Result<(), TokenError> {
        self.0.draw(generation)
    }

    fn destroy(&self, generation: Generation) -> Result<&'static str, TokenError> {
        self.0.destroy(generation)
    }

    fn fill_random(&self, out: &mut [u8]) -> Result<(), TokenError> {
        self.0.fill_random(out)
    }

    fn counter(&self, batch: &[u8; 16]) -> Result<u64, TokenError> {
        self.0.counter(batch)
    }

    fn advance(&self, batch: &[u8; 16], to: u64) -> Result<(), TokenError> {
        self.1.write().map_err(|_full| TokenError::DISK_FULL)?;
        self.0.advance(batch, to)
    }
}

impl Fixture for Shared<Simulator> {
    fn read(&mut self) -> Result<Option<Reading>, FixtureError> {
        self.0.read()
    }

    fn make_key(&mut self, algorithm: KeyAlgorithm, slot: Option<u32>) -> Result<Vec<u8>, FixtureError> {
        self.0.make_key(algorithm, slot)
    }

    fn write(&mut self, image: &Image) -> Result<(), FixtureError> {
        self.1.write().map_err(|_full| FixtureError::DiskFull)?;
        self.0.write(image)
    }

    fn read_back(&mut self) -> Result<(Vec<Segment>, ChipState), FixtureError> {
        self.0.read_back()
    }

    fn prove(&mut self, message: &[u8]) -> Result<Vec<u8>, FixtureError> {
        self.0.prove(message)
    }

    fn show(&mut self, verdict: Verdict) {
        self.0.show(verdict);
    }
}

fn recipe() -> String {
    format!("{LINUX}[label]\nserver = \"https://fleet.example\"\n")
}

/// One life of the station on this disk.
fn live(stage: &Stage, supply: &Arc<Supply>, durable: Vec<u8>, space: &Arc<Space>) -> (Vec<u8>, Vec<FailReason>) {
    for (_, (board, passed)) in supply.take_done() {
        if !passed {
            supply.give(board);
        }
    }
    let disk = Disk { durable, space: Some(Arc::clone(space)), ..Disk::default() };
    let token = Arc::new(Shared(Arc::clone(&stage.token), Arc::clone(space)));
    let labels = Arc::new(Shared(Mutex::new(stage.spooled.lock().unwrap().clone()), Arc::clone(space)));
    let reasons = Reasons::default();
    let durable = match stage.open_all(disk, token, Arc::clone(&labels) as Arc<dyn LabelSink>) {
        Ok((station, _)) => {
            let simulator = Simulator::new(Arc::clone(supply), Arc::clone(&stage.target));
            station.run(vec![Box::new(Shared(simulator, Arc::clone(space)))], &reasons);
            station.into_file().durable
        }
        // Nothing was begun on a disk that was full from the start.
        Err(_) => Vec::new(),
    };
    stage.spooled.lock().unwrap().clone_from(&labels.0.lock().unwrap());
    (durable, reasons.0.into_inner().unwrap())
}

#[test]
fn the_disk_full_at_any_write_is_named_and_after_that_every_device_is_made_once_and_the_books_balance() {
    // Space is freed at once, or only after the station was started again.
    for lasting in [1, u64::MAX] {
        let mut act = 0;
        loop {
            let stage = Stage::new(&recipe(), DEVICES);
            let supply = Supply::new((0..DEVICES).map(|number| Board::new(number, None)));
            let space = Space::full_at(act, act.saturating_add(lasting));
            let (durable, reasons) = live(&stage, &supply, Vec::new(), &space);
            let was_full = space.acts() > act;
            let what = format!("write {act}, {lasting}: {reasons:?}");
            let named = [FailReason::DiskFull, FailReason::JournalFull, FailReason::Journal, FailReason::AlreadyMade];
            assert!(reasons.iter().all(|reason| named.contains(reason)), "{what}");
            let (durable, after) = live(&stage, &supply, durable, &Space::full_at(u64::MAX, u64::MAX));
            // A device whose failure could not even be recorded is read back, found not to be whole, and made again.
            let settled = [FailReason::AlreadyMade, FailReason::PowerCut];
            assert!(after.iter().all(|reason| settled.contains(reason)), "{what}; then {after:?}");
            let (station, _) = stage.open(Disk { durable, ..Disk::default() }).unwrap();
            station.close_shift(true).unwrap();
            let counts = station.counts();
            assert!(counts.balance() && counts.good == DEVICES && counts.open == 0, "{what}: {counts:?}");
            let records = stage.records(&mut station.into_file());
            let passed = records.iter().filter(|record| record.outcome == Outcome::Passed);
            let ids: BTreeSet<_> = passed.map(|record| record.device).collect();
            assert_eq!(ids.len(), DEVICES as usize, "{what}");
            if !was_full {
                assert!(act > 20, "the test fills nothing");
                break;
            }
            act += 1;
        }
    }
}

#[test]
fn with_too_little_space_to_finish_a_device_none_is_begun_and_the_line_goes_on_when_there_is_enough() {
    let stage = Stage::new(&recipe(), DEVICES);
    let space = Space::full_at(u64::MAX, u64::MAX);
    let disk = Disk { space: Some(Arc::clone(&space)), ..Disk::default() };
    let token = Arc::clone(&stage.token) as Arc<dyn StationToken>;
    let (station, _) = stage.open_with(disk, token).unwrap();
    let one = |number: u32| {
        let supply = Supply::new([Board::new(number, None)]);
        let mut fixture = Simulator::new(supply, Arc::clone(&stage.target));
        let reasons = Reasons::default();
        assert!(station.make_one("fixture-1", &mut fixture, &reasons), "the fixture stays in service");
        reasons.0.into_inner().unwrap()
    };
    assert_eq!(one(0), []);
    space.free.store(RESERVED_OCTETS - 1, Ordering::SeqCst);
    assert_eq!(one(1), [FailReason::DiskFull]);
    assert_eq!((station.counts().left, station.counts().refused), (DEVICES - 1, 1), "no number was used up");
    space.free.store(RESERVED_OCTETS, Ordering::SeqCst);
    assert_eq!(one(1), []);
    assert_eq!(station.counts().good, 2);
}

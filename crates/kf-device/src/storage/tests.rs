use std::collections::BTreeMap;
use std::vec;
use std::vec::Vec;

use proptest::prelude::*;

use super::simulated::{SimulatedError, SimulatedFlash};
use super::*;
use kf_key::SecretArray;

const OCTETS: usize = 2_048;
type Chip = SimulatedFlash<OCTETS>;
type Model = BTreeMap<u16, Vec<u8>>;

fn chip(word: u32) -> Chip {
    let octets = u32::try_from(OCTETS).unwrap();
    SimulatedFlash::new(Geometry { word, sector: octets / 4, sectors: 4 }, Medium::Raw)
}

fn formatted(word: u32) -> Chip {
    Store::format(chip(word), Checksum).unwrap().into_flash()
}

fn open(chip: Chip) -> Store<Chip> {
    Store::open(chip, Checksum).unwrap()
}

const IDS: u16 = 6;

fn contents<I: Integrity>(store: &mut Store<Chip, I>) -> Model {
    let mut model = Model::new();
    let mut buffer = [0; 512];
    for id in 0..IDS {
        if let Some(length) = store.read(RecordId(id), &mut buffer).unwrap() {
            model.insert(id, buffer[..length].to_vec());
        }
    }
    model
}

/// One update: (id, octets or removal).
type Step = Vec<(u16, Option<Vec<u8>>)>;

fn apply(model: &mut Model, step: &Step) {
    for (id, octets) in step {
        match octets {
            Some(octets) => model.insert(*id, octets.clone()),
            None => model.remove(id),
        };
    }
}

fn run<I: Integrity>(store: &mut Store<Chip, I>, step: &Step) -> Result<(), StorageError<SimulatedError>> {
    let changes: Vec<_> = step
        .iter()
        .map(|(id, octets)| match octets {
            Some(octets) => Change::Put(RecordId(*id), octets),
            None => Change::Remove(RecordId(*id)),
        })
        .collect();
    store.update(&changes)
}

/// Enough updates to fill both banks several times.
fn history() -> Vec<Step> {
    (0..40_u8)
        .map(|n| match n % 5 {
            0 => vec![(0, Some(vec![n; 40])), (1, Some(vec![n; 8]))],
            1 => vec![(u16::from(n) % IDS, Some(vec![n; usize::from(n)]))],
            2 => vec![(2, None)],
            3 => vec![(2, Some(vec![n; 33])), (3, None), (4, Some(vec![]))],
            _ => vec![(5, Some(vec![n; 70]))],
        })
        .collect()
}

const TEARS: [u32; 4] = [0, u32::MAX, 1, 0xdead_beef];

#[test]
fn records_are_what_was_last_put_and_survive_a_restart() {
    for word in [1, 2, 4, 8, 16, 32] {
        let mut store = open(formatted(word));
        let mut model = Model::new();
        for step in history() {
            run(&mut store, &step).unwrap();
            apply(&mut model, &step);
            assert_eq!(contents(&mut store), model, "word {word}");
            store = open(store.into_flash());
            assert_eq!(contents(&mut store), model, "word {word}, after a restart");
        }
        assert!(store.into_flash().erasures() > 8, "the banks were changed");
    }
}

/// Cuts the power at every word and every erasure of a whole history, torn in several ways, and again while the store
/// recovers from that. Afterwards every update is there in full or not at all, and stays so.
#[test]
fn a_power_cut_anywhere_leaves_the_old_or_the_new_and_never_a_third_thing() {
    for word in [4, 16] {
        for tear in TEARS {
            let mut store = open(formatted(word));
            let (mut model, mut cuts) = (Model::new(), 0);
            for step in history().into_iter().take(24) {
                let before = store.into_flash();
                let mut after = model.clone();
                apply(&mut after, &step);
                for operations in 0.. {
                    let mut flash = before.clone();
                    flash.cut_after(operations, tear);
                    let mut cut = match Store::open(flash, Checksum) {
                        Ok(mut store) => {
                            let outcome = run(&mut store, &step);
                            if outcome.is_ok() && store.flash.has_power() {
                                break;
                            }
                            if outcome.is_err() {
                                assert_eq!(
                                    store.read(RecordId(0), &mut []),
                                    Err(StorageError::OpenAgain),
                                    "nothing is given out after a failure in the middle"
                                );
                            }
                            store.into_flash()
                        }
                        Err(StorageError::Flash(SimulatedError::NoPower)) => continue,
                        Err(error) => panic!("{error}"),
                    };
                    cut.power_on();
                    cuts += 1;
                    check_old_or_new(cut.clone(), &model, &after);
                    // The power goes again while the store recovers.
                    for again in (0..).step_by(5) {
                        let mut flash = cut.clone();
                        flash.cut_after(again, tear);
                        if Store::open(&mut flash, Checksum).is_ok() && flash.has_power() {
                            break;
                        }
                        flash.power_on();
                        check_old_or_new(flash, &model, &after);
                    }
                }
                store = open(before);
                run(&mut store, &step).unwrap();
                model = after;
            }
            assert!(cuts > 150, "{cuts}");
        }
    }
}

fn check_old_or_new(flash: Chip, old: &Model, new: &Model) {
    let mut store = open(flash);
    let found = contents(&mut store);
    assert!(found == *old || found == *new, "{found:?}\nneither {old:?}\nnor {new:?}");
    // What was found stays, whatever the torn cells read like next time: nothing reads them any more.
    let mut store = open(store.into_flash());
    assert_eq!(contents(&mut store), found);
    store.put(RecordId(0), b"and it can be written").unwrap();
}

#[test]
fn a_cut_in_a_wipe_or_a_destruction_leaves_all_or_what_was_asked_for() {
    for tear in TEARS {
        let mut store = open(formatted(8));
        let mut model = Model::new();
        for step in history().iter().take(7) {
            run(&mut store, step).unwrap();
            apply(&mut model, step);
        }
        let before = store.into_flash();
        let wiped = Model::from([(5, b"wiped".to_vec())]);
        for operations in 0.. {
            let mut flash = before.clone();
            flash.cut_after(operations, tear);
            let mut store = open(flash);
            let outcome = store.wipe(&[Change::Put(RecordId(5), b"wiped")]);
            let mut flash = store.into_flash();
            if outcome.is_ok() {
                break;
            }
            flash.power_on();
            let mut store = open(flash);
            let found = contents(&mut store);
            assert!(found == model || found == wiped, "{found:?}");
            if found == wiped {
                let cells = store.into_flash();
                assert!(!has_run(cells.cells(), 8), "a record of before is still in a cell");
            }
        }
    }
}

/// Whether some value of [`history`] stands in the cells: a run of `length` equal octets that is neither erased,
/// padding nor a mark.
fn has_run(cells: &[u8], length: usize) -> bool {
    cells.windows(length).any(|window| {
        let first = window[0];
        !matches!(first, 0x00 | 0xff | 0x5a) && window.iter().all(|octet| *octet == first)
    })
}

#[test]
fn a_destroyed_record_is_in_no_cell_and_the_report_says_what_that_is_worth() {
    for (medium, expected) in
        [(Medium::Raw, Erasure::Erased { read_back: true }), (Medium::Remapped, Erasure::Overwritten)]
    {
        let flash = SimulatedFlash::<OCTETS>::new(Geometry { word: 8, sector: 512, sectors: 4 }, medium);
        let mut store = Store::format(flash, Checksum).unwrap();
        store.put(RecordId(1), &[0x41; 32]).unwrap();
        store.put(RecordId(1), &[0x42; 32]).unwrap();
        store.put(RecordId(2), b"stays").unwrap();
        assert!(has_run(store.flash.cells(), 8), "the check can fail");
        assert_eq!(store.destroy(&[RecordId(1)]), Ok(expected));
        assert!(!has_run(store.flash.cells(), 8));
        assert_eq!(store.read(RecordId(1), &mut []), Ok(None));
        assert_eq!(store.read_array(RecordId(2)), Ok(Some(*b"stays")));
    }
}

/// Damages every octet in several ways. The store opens with what was there, with the state before the last update, or
/// not at all; and never with less than that.
#[test]
fn damage_to_any_octet_is_harmless_or_refused() {
    let key = || Authenticated::new(SecretArray::fill(|key| key.fill(3)));
    let mut store = Store::format(chip(8), key()).unwrap();
    let (mut model, mut before) = (Model::new(), Model::new());
    for step in history().iter().take(6) {
        before = model.clone();
        run(&mut store, step).unwrap();
        apply(&mut model, step);
    }
    let flash = store.into_flash();
    let (mut refused, mut harmless) = (0, 0);
    for place in 0..OCTETS {
        for change in [0x01, 0x80, 0xff] {
            let mut damaged = flash.clone();
            damaged.cells_mut()[place] ^= change;
            match Store::open(damaged, key()) {
                Ok(mut store) => {
                    let found = contents(&mut store);
                    assert!(found == model || found == before, "octet {place}: {found:?}");
                    harmless += 1;
                }
                Err(StorageError::Corrupt) => refused += 1,
                Err(error) => panic!("octet {place}: {error}"),
            }
        }
    }
    assert!(refused > 300 && harmless > 300, "{refused} {harmless}");
}

#[test]
fn damage_after_the_store_was_opened_is_found_when_the_record_is_read() {
    let mut store = open(formatted(4));
    store.put(RecordId(1), &[0x41; 32]).unwrap();
    let place = store.flash.cells().iter().position(|octet| *octet == 0x41).unwrap();
    store.flash.cells_mut()[place] ^= 1;
    assert_eq!(store.read(RecordId(1), &mut [0; 32]), Err(StorageError::Corrupt));
}

#[test]
fn a_lost_sector_is_refused_and_not_taken_for_the_end() {
    let mut store = open(formatted(4));
    for n in 0..8_u8 {
        store.put(RecordId(u16::from(n % 6)), &[n; 60]).unwrap();
    }
    let mut flash = store.into_flash();
    // The second sector of the bank keeps its content, the first loses all but its header.
    flash.cells_mut()[64..512].fill(0xff);
    assert!(matches!(Store::open(flash, Checksum), Err(StorageError::Corrupt)));
}

#[test]
fn another_key_a_blank_memory_and_an_odd_geometry_are_refused() {
    let key = |octet: u8| Authenticated::new(SecretArray::fill(|key| key.fill(octet)));
    let flash = Store::format(chip(8), key(1)).unwrap().into_flash();
    assert!(matches!(Store::open(flash, key(2)), Err(StorageError::Corrupt)));
    assert!(matches!(Store::open(chip(8), key(1)), Err(StorageError::Unformatted)));
    for geometry in [
        Geometry { word: 3, sector: 512, sectors: 4 },
        Geometry { word: 64, sector: 512, sectors: 4 },
        Geometry { word: 4, sector: 512, sectors: 3 },
        Geometry { word: 4, sector: 512, sectors: 0 },
        Geometry { word: 4, sector: 100, sectors: 2 },
        Geometry { word: 4, sector: u32::MAX - 31, sectors: 2 },
    ] {
        let flash = SimulatedFlash::<OCTETS>::new(geometry, Medium::Raw);
        assert!(matches!(Store::format(flash, Checksum), Err(StorageError::Geometry)), "{geometry:?}");
    }
}

#[test]
fn what_does_not_fit_is_refused_and_changes_nothing() {
    let mut store = open(formatted(4));
    store.put(RecordId(1), &[1; 400]).unwrap();
    store.put(RecordId(2), &[2; 400]).unwrap();
    assert_eq!(store.put(RecordId(3), &[3; 400]), Err(StorageError::Full));
    assert_eq!(store.put(RecordId(3), &vec![3; 40_000]), Err(StorageError::TooLarge));
    assert_eq!(store.read(RecordId(1), &mut [0; 100]), Err(StorageError::Buffer { needed: 400 }));
    assert_eq!(store.read_array::<3>(RecordId(1)), Err(StorageError::Corrupt));
    assert_eq!(contents(&mut store).len(), 2);
    store.put(RecordId(4), &[4; 20]).unwrap();
}

#[test]
fn worn_out_cells_are_noticed() {
    struct Stuck(Chip);
    impl Flash for Stuck {
        type Error = SimulatedError;
        fn geometry(&self) -> Geometry {
            self.0.geometry()
        }
        fn medium(&self) -> Medium {
            Medium::Raw
        }
        fn read(&mut self, offset: u32, octets: &mut [u8]) -> Result<(), SimulatedError> {
            self.0.read(offset, octets)?;
            if (offset..offset + u32::try_from(octets.len()).unwrap()).contains(&100) {
                octets[usize::try_from(100 - offset).unwrap()] |= 1;
            }
            Ok(())
        }
        fn program(&mut self, offset: u32, octets: &[u8]) -> Result<(), SimulatedError> {
            self.0.program(offset, octets)
        }
        fn erase(&mut self, sector: u32) -> Result<(), SimulatedError> {
            self.0.erase(sector)
        }
    }
    let mut store = Store::format(Stuck(chip(4)), Checksum).unwrap();
    assert_eq!(store.put(RecordId(1), &[0; 200]), Err(StorageError::NotTaken));
    assert_eq!(store.put(RecordId(2), &[0; 2]), Err(StorageError::OpenAgain));
}

#[test]
fn a_counter_never_gives_a_number_twice_whenever_the_power_goes() {
    for stride in [1, 8] {
        for tear in TEARS {
            let (mut flash, mut last, mut numbers) = (formatted(8), 0, 0);
            for operations in 0..200 {
                flash.cut_after(operations % 37, tear);
                if let Ok(mut store) = Store::open(&mut flash, Checksum)
                    && let Ok(mut counter) = Counter::open(&mut store, RecordId(7), stride)
                {
                    while let Ok(number) = counter.next(&mut store) {
                        assert!(number > last, "{number} after {last}");
                        last = number;
                        numbers += 1;
                    }
                }
                flash.power_on();
            }
            assert!(numbers > 100, "{numbers}");
        }
    }
}

#[test]
fn a_counter_ends_instead_of_wrapping_and_spares_the_memory() {
    let mut store = open(formatted(8));
    store.put(RecordId(7), &(u64::MAX - 2).to_be_bytes()).unwrap();
    let mut counter = Counter::open(&mut store, RecordId(7), 64).unwrap();
    assert_eq!(counter.next(&mut store), Ok(u64::MAX - 1));
    assert_eq!(counter.next(&mut store), Ok(u64::MAX));
    assert_eq!(counter.next(&mut store), Err(CounterError::Exhausted));
    let mut counter = Counter::open(&mut store, RecordId(8), 64).unwrap();
    let room = store.room();
    for expected in 1..=64 {
        assert_eq!(counter.next(&mut store), Ok(expected));
    }
    assert_eq!(room - store.room(), store.layout.group(12), "64 numbers cost one group");
}

#[test]
fn a_high_water_mark_only_rises_and_stays_after_a_restart() {
    let mut store = open(formatted(8));
    let mut mark = HighWater::open(&mut store, RecordId(9)).unwrap();
    mark.raise(&mut store, 5).unwrap();
    for replay in [0, 4, 5] {
        assert_eq!(mark.raise(&mut store, replay), Err(CounterError::NotAbove { last: 5 }));
    }
    let mut store = open(store.into_flash());
    assert_eq!(HighWater::open(&mut store, RecordId(9)).unwrap().last(), 5);
}

fn steps() -> impl Strategy<Value = Vec<(Step, u32, u32)>> {
    let change = (0..IDS, proptest::option::of(proptest::collection::vec(any::<u8>(), 0..60)));
    let step = proptest::collection::vec(change, 1..4);
    proptest::collection::vec((step, 0_u32..60, any::<u32>()), 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn the_store_equals_its_model_under_random_updates_and_cuts(steps in steps()) {
        let (mut flash, mut model) = (formatted(4), Model::new());
        for (step, operations, tear) in steps {
            let mut after = model.clone();
            apply(&mut after, &step);
            flash.cut_after(operations, tear);
            let outcome = Store::open(flash.clone(), Checksum).map(|mut store| {
                let outcome = run(&mut store, &step);
                (outcome, store.into_flash())
            });
            let (is_done, mut next) = match outcome {
                Ok((outcome, next)) => (outcome.is_ok(), next),
                // The cut came while it opened; the clone is gone with it, which is as if it had not been switched on.
                Err(_) => (false, flash),
            };
            next.power_on();
            let mut store = open(next);
            let found = contents(&mut store);
            if is_done {
                prop_assert_eq!(&found, &after);
            } else {
                prop_assert!(found == model || found == after);
            }
            model = found;
            flash = store.into_flash();
        }
    }
}

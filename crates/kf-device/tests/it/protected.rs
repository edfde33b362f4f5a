//! Data at rest while its key is replaced, with the power cut at every octet that is programmed and every sector that is erased.

use kf_device::protected::{Migrated, ProtectError, Step, StorageKeys, last_migration};
use kf_device::storage::simulated::SimulatedFlash;
use kf_device::storage::{Checksum, Erasure, Geometry, Medium, RecordId, StorageError, Store};
use kf_key::DeviceId;

use crate::device::{Step_, Stopped, source, wrap};
use crate::server::DEVICE;

const REQUEST: [u8; 16] = [0x51; 16];
/// Small, so that every octet of it can be tried.
const OCTETS: usize = 4_096;
type Chip = SimulatedFlash<OCTETS>;

fn stop(error: impl core::fmt::Debug) -> Stopped {
    Stopped(format!("{error:?}"))
}

/// Records of several lengths, one of them empty.
fn data() -> Vec<(RecordId, Vec<u8>)> {
    let lengths = [0, 1, 17, 40, 90];
    let ids = [0x8000, 0x8001, 0x9000, 0xfffe, 0xffff];
    let record =
        |(id, length): (u16, u32)| (RecordId(id), (0..length).map(|n| u8::try_from(n % 251).unwrap() ^ 0x33).collect());
    ids.into_iter().zip(lengths).map(record).collect()
}

fn opened(chip: &mut Chip, seed: u64) -> Step_<(Store<&mut Chip>, StorageKeys)> {
    let mut store = Store::open(chip, Checksum).map_err(stop)?;
    let keys = StorageKeys::open(&mut store, &wrap(), DEVICE, &mut source(seed)?).map_err(stop)?;
    Ok((store, keys))
}

/// A chip with the data under version 1, and with other records that nobody migrates.
fn filled(word: u32, medium: Medium) -> Chip {
    let blank = SimulatedFlash::new(Geometry { word, sector: 1_024, sectors: 4 }, medium);
    let mut chip = Store::format(blank, Checksum).unwrap().into_flash();
    let (mut store, keys) = opened(&mut chip, 1).unwrap();
    let mut source = source(7).unwrap();
    store.put(RecordId(0x1000), b"not protected").unwrap();
    for (id, octets) in data() {
        keys.put(&mut store, id, &octets, &mut source).unwrap();
    }
    chip
}

fn check(store: &mut Store<&mut Chip>, keys: &StorageKeys, moment: &str) {
    let mut buffer = [0; 256];
    for (id, octets) in data() {
        let length = keys.read(store, id, &mut buffer).unwrap_or_else(|error| panic!("{moment}: {id:?}: {error}"));
        assert_eq!(&buffer[..length.unwrap()], octets, "{moment}: {id:?}");
    }
    let length = store.read(RecordId(0x1000), &mut buffer).unwrap().unwrap();
    assert_eq!(&buffer[..length], b"not protected");
}

/// Migrates as firmware does: begin, steps until it is over.
fn migrate(chip: &mut Chip, seed: u64) -> Step_<Migrated> {
    let (mut store, mut keys) = opened(chip, seed)?;
    let mut source = source(seed + 100)?;
    keys.begin(&mut store, &wrap(), REQUEST, &mut source).map_err(stop)?;
    loop {
        match keys.step(&mut store, &mut source).map_err(stop)? {
            Step::Moved(_) => {}
            Step::Over(migrated) => return Ok(migrated),
            Step::Idle => return last_migration(&mut store).map_err(stop)?.ok_or(Stopped("nothing to do".into())),
        }
    }
}

/// The octets of a record as they lie in the cells.
fn stored(chip: &mut Chip, id: RecordId) -> Vec<u8> {
    let mut store = Store::open(chip, Checksum).unwrap();
    let mut buffer = [0; 512];
    let length = store.read(id, &mut buffer).unwrap().unwrap();
    buffer[..length].to_vec()
}

fn remains(chip: &Chip, secret: &[u8]) -> bool {
    secret.windows(8).any(|piece| chip.cells().windows(8).any(|cells| cells == piece))
}

#[test]
fn a_migration_that_is_cut_at_any_octet_loses_nothing_and_is_over_only_when_the_old_key_is_gone() {
    let before = filled(1, Medium::Raw);
    // What lies under version 1: the wrapped key behind its number, and the ciphertexts behind their heads.
    let old_key = stored(&mut before.clone(), RecordId(0x0030))[4..].to_vec();
    let old_data = stored(&mut before.clone(), RecordId(0xffff))[17..].to_vec();
    assert!(remains(&before, &old_key) && remains(&before, &old_data), "the search finds what is there");
    let mut whole = before.clone();
    let first = whole.operations();
    let expected = migrate(&mut whole, 2).unwrap();
    let operations = whole.operations() - first;
    assert_eq!((expected.version, expected.records, expected.request), (2, 5, REQUEST));
    assert_eq!(expected.erasure, Erasure::Erased { read_back: true });
    assert!(!remains(&whole, &old_key) && !remains(&whole, &old_data));
    assert!(operations > 1_000, "{operations}");
    for at in 0..operations {
        let tear = [0, u32::MAX, at + 1][usize::try_from(at % 3).unwrap()];
        let mut chip = before.clone();
        chip.cut_after(at, tear);
        let cut = migrate(&mut chip, 2);
        assert!(cut.is_err() && !chip.has_power(), "operation {at}: {cut:?}");
        chip.power_on();
        let said = {
            let (mut store, keys) = opened(&mut chip, 3).unwrap();
            check(&mut store, &keys, &format!("operation {at}"));
            last_migration(&mut store).unwrap()
        };
        assert!(said.is_none() || !remains(&chip, &old_key), "operation {at}: it is said too early");
        let end = migrate(&mut chip, 4).unwrap_or_else(|stopped| panic!("operation {at}: {stopped:?}"));
        assert_eq!(end, expected, "operation {at}");
        assert!(!remains(&chip, &old_key) && !remains(&chip, &old_data), "operation {at}");
        let (mut store, keys) = opened(&mut chip, 5).unwrap();
        check(&mut store, &keys, &format!("operation {at}, at the end"));
        assert_eq!(keys.version(), 2, "operation {at}: once is enough");
    }
}

#[test]
fn a_request_is_done_once_another_one_again_and_what_is_put_meanwhile_lies_under_the_newer_key() {
    let mut chip = filled(32, Medium::Remapped);
    assert_eq!(migrate(&mut chip, 2).unwrap().erasure, Erasure::Overwritten, "a remapped medium promises less");
    assert_eq!(migrate(&mut chip, 3).unwrap().version, 2, "the same request");
    let (mut store, mut keys) = opened(&mut chip, 4).unwrap();
    let mut source = source(9).unwrap();
    keys.begin(&mut store, &wrap(), [2; 16], &mut source).unwrap();
    assert_eq!(last_migration(&mut store).unwrap(), None, "it is under way");
    assert_eq!(keys.step(&mut store, &mut source).unwrap(), Step::Moved(RecordId(0x8000)));
    check(&mut store, &keys, "in between");
    keys.put(&mut store, RecordId(0x9000), b"new", &mut source).unwrap();
    // A second request while one is under way changes nothing.
    keys.begin(&mut store, &wrap(), [3; 16], &mut source).unwrap();
    let mut moved = Vec::new();
    let over = loop {
        match keys.step(&mut store, &mut source).unwrap() {
            Step::Moved(id) => moved.push(id.0),
            Step::Over(over) => break over,
            Step::Idle => panic!("not over"),
        }
    };
    assert_eq!(moved, [0x8001, 0xfffe, 0xffff], "the one that was put meanwhile needs no move");
    assert_eq!((over.version, over.request), (3, [2; 16]));
    let mut buffer = [0; 256];
    assert_eq!(keys.read(&mut store, RecordId(0x9000), &mut buffer), Ok(Some(3)));
    assert_eq!(&buffer[..3], b"new");
}

#[test]
fn a_record_opens_at_its_place_on_its_device_unchanged_and_a_damaged_one_keeps_the_old_key() {
    let mut chip = filled(32, Medium::Raw);
    let octets = stored(&mut chip, RecordId(0x9000));
    let (mut store, mut keys) = opened(&mut chip, 2).unwrap();
    let mut source = source(3).unwrap();
    let mut buffer = [0; 256];
    for place in 0..octets.len() {
        let mut changed = octets.clone();
        changed[place] ^= 1;
        store.put(RecordId(0x9000), &changed).unwrap();
        assert_eq!(keys.read(&mut store, RecordId(0x9000), &mut buffer), Err(ProtectError::Refused), "octet {place}");
    }
    store.put(RecordId(0x8001), &octets).unwrap();
    assert_eq!(keys.read(&mut store, RecordId(0x8001), &mut buffer), Err(ProtectError::Refused), "another place");
    keys.begin(&mut store, &wrap(), REQUEST, &mut source).unwrap();
    let refused = loop {
        match keys.step(&mut store, &mut source) {
            Ok(Step::Moved(_)) => {}
            other => break other,
        }
    };
    assert_eq!(refused, Err(ProtectError::Refused), "nothing is destroyed while a record opens under no key");
    assert_eq!(last_migration(&mut store).unwrap(), None);
    let other = StorageKeys::open(&mut store, &wrap(), DeviceId::from_bytes([1; 16]), &mut source);
    assert!(other.is_err(), "another device's key does not unwrap");
    assert_eq!(keys.put(&mut store, RecordId(0x7fff), b"", &mut source), Err(ProtectError::Id));
    assert_eq!(keys.put(&mut store, RecordId(0x8000), &[0; 257], &mut source), Err(ProtectError::TooLarge));
    let mut small = [0; 10];
    keys.put(&mut store, RecordId(0xffff), &[7; 256], &mut source).unwrap();
    let needed = ProtectError::Key(kf_device::KeyError::Storage(StorageError::Buffer { needed: 256 }));
    assert_eq!(keys.read(&mut store, RecordId(0xffff), &mut small), Err(needed));
}

//! A partition of ESP-IDF's NVS under the storage key, with the power cut at every word that is programmed and every page that is
//! erased, in the partition and in the journal.

use core::convert::Infallible;
use std::collections::BTreeSet;
use std::time::Duration;

use kf_device::nvs::{KeepError, KeepStep, Nvs, NvsError, PageStep, Under};
use kf_device::protected::{Migrated, ProtectError, Step, StorageKeys, last_migration};
use kf_device::storage::simulated::{SimulatedError, SimulatedFlash};
use kf_device::storage::{Checksum, Erasure, Geometry, Medium, RecordId, Store};
use kf_flash::nvs::{ItemType, NvsKeys, PAGE_OCTETS, Partition, Value, Writer, remnants};
use kf_key::SecretArray;
use kf_testkit::Python;

use crate::chip_flash::{ChipFlash, key, start};
use crate::device::{Step_, Stopped, source, wrap};
use crate::server::DEVICE;

const REQUEST: [u8; 16] = [0x52; 16];
const PAGES: usize = 4;
type Journal = SimulatedFlash<4_096>;
type Cells = SimulatedFlash<{ PAGES * PAGE_OCTETS }>;
type Refused = KeepError<SimulatedError, Infallible, SimulatedError>;

/// A board: the journal of the SDK, and the partition of the firmware.
#[derive(Clone)]
struct Board {
    journal: Journal,
    cells: Cells,
}

fn stop(error: impl core::fmt::Debug) -> Stopped {
    Stopped(format!("{error:?}"))
}

fn blob() -> Vec<u8> {
    (0..600_u32).map(|number| u8::try_from(number % 253).unwrap()).collect()
}

/// What the firmware keeps: value by value, as it is read.
fn values() -> Vec<((&'static str, &'static str), Vec<u8>)> {
    vec![
        (("wifi", "ssid"), b"plant floor".to_vec()),
        (("wifi", "password"), b"correct horse battery staple".to_vec()),
        (("calib", "offset"), (-7_i32).to_le_bytes().to_vec()),
        (("calib", "serial"), 0x0123_4567_89ab_cdef_u64.to_le_bytes().to_vec()),
        (("calib", "table"), blob()),
        (("wifi", "channel"), vec![11]),
    ]
}

const DELETED: &str = "what was deleted and still lies there";
const UNMARKED: &[u8; 32] = b"what a power cut left unmarked..";

/// Two pages in use, with a blob over both of them, text that was deleted, and octets that a power cut left; in clear.
fn image() -> [u8; PAGES * PAGE_OCTETS] {
    let mut image = [0; PAGES * PAGE_OCTETS];
    let mut writer = Writer::new(&mut image).unwrap();
    let wifi = writer.namespace("wifi").unwrap();
    let calib = writer.namespace("calib").unwrap();
    writer.write(wifi, "ssid", Value::Text("plant floor")).unwrap();
    writer.write(wifi, "password", Value::Text("correct horse battery staple")).unwrap();
    writer.write(calib, "offset", Value::I32(-7)).unwrap();
    writer.write(calib, "serial", Value::U64(0x0123_4567_89ab_cdef)).unwrap();
    writer.write(calib, "notes", Value::Text(&DELETED.repeat(90))).unwrap();
    writer.write(calib, "table", Value::Blob(&blob())).unwrap();
    writer.write(wifi, "channel", Value::U8(11)).unwrap();
    writer.finish();
    let notes = kf_flash::nvs::EntryKey::new("notes").unwrap();
    let of_notes = Partition::new(&image).unwrap().items().find(|(_, entry)| entry.key == notes);
    let (page, first, span) = of_notes.map(|(at, entry)| (at.page, at.slot, usize::from(entry.span))).unwrap();
    for slot in first..first + span {
        image[page * PAGE_OCTETS + 32 + slot / 4] &= !(3 << (slot % 4 * 2));
    }
    image[PAGE_OCTETS + 64 + 100 * 32..][..32].copy_from_slice(UNMARKED);
    image
}

fn own_keys() -> NvsKeys {
    NvsKeys::from_secret(SecretArray::fill(|keys| (0..).zip(keys).for_each(|(number, octet)| *octet = number))).unwrap()
}

/// A board whose partition holds this, and whose journal holds a protected record.
fn board(image: &[u8]) -> Board {
    let sectors = u32::try_from(PAGES).unwrap();
    let mut cells = Cells::new(Geometry { word: 4, sector: 4_096, sectors }, Medium::Raw);
    cells.cells_mut().copy_from_slice(image);
    let blank = Journal::new(Geometry { word: 4, sector: 1_024, sectors: 4 }, Medium::Raw);
    let mut board = Board { journal: Store::format(blank, Checksum).unwrap().into_flash(), cells };
    let (mut store, keys, _) = opened(&mut board, 1).unwrap();
    keys.put(&mut store, RecordId(0x8000), b"a record", &mut source(7).unwrap()).unwrap();
    board
}

type Open<'a> = (Store<&'a mut Journal>, StorageKeys, Nvs<&'a mut Cells>);

fn opened(board: &mut Board, seed: u64) -> Step_<Open<'_>> {
    let mut store = Store::open(&mut board.journal, Checksum).map_err(stop)?;
    let keys = StorageKeys::open(&mut store, &wrap(), DEVICE, &mut source(seed)?).map_err(stop)?;
    Ok((store, keys, Nvs::new(&mut board.cells).map_err(stop)?))
}

fn adopt(board: &mut Board, from: Under<'_>, seed: u64) -> Step_<()> {
    let (mut store, keys, mut nvs) = opened(board, seed)?;
    loop {
        let step: Result<_, Refused> = keys.adopt_nvs(&mut store, &mut nvs, from);
        match step {
            Ok(PageStep::Over) | Err(KeepError::Kept) => return Ok(()),
            Ok(_) => {}
            Err(error) => return Err(stop(error)),
        }
    }
}

fn migrate(board: &mut Board, seed: u64) -> Step_<Migrated> {
    let (mut store, mut keys, mut nvs) = opened(board, seed)?;
    let mut source = source(seed + 100)?;
    keys.begin(&mut store, &wrap(), REQUEST, &mut source).map_err(stop)?;
    loop {
        match keys.step_with_nvs(&mut store, &mut nvs, &mut source).map_err(stop)? {
            KeepStep::Page(_) | KeepStep::Record(Step::Moved(_)) => {}
            KeepStep::Record(Step::Over(migrated)) => return Ok(migrated),
            KeepStep::Record(Step::Idle) => {
                return last_migration(&mut store).map_err(stop)?.ok_or(Stopped("nothing to do".into()));
            }
        }
    }
}

/// Everything is read, whatever it lies under.
fn check(board: &mut Board, from: Option<Under<'_>>, moment: &str) {
    let (_, keys, mut nvs) = opened(board, 50).unwrap();
    let mut buffer = [0; 1_024];
    for (name, expected) in values() {
        let read: Result<_, Refused> = keys.read_nvs(&mut nvs, from, name, &mut buffer);
        let length = read.unwrap_or_else(|error| panic!("{moment}: {name:?}: {error:?}"));
        assert_eq!(length.map(|length| &buffer[..length]), Some(&expected[..]), "{moment}: {name:?}");
    }
    let gone: Result<_, Refused> = keys.read_nvs(&mut nvs, from, ("calib", "notes"), &mut buffer);
    assert_eq!(gone, Ok(None), "{moment}");
}

/// What is searched for: every piece of 16 octets of it.
struct Pieces(BTreeSet<[u8; 16]>);

impl Pieces {
    fn of<T: AsRef<[u8]>>(secrets: &[T]) -> Self {
        let pieces =
            secrets.iter().flat_map(|secret| secret.as_ref().windows(16).map(|piece| piece.try_into().unwrap()));
        Self(pieces.filter(|piece| *piece != [0xff; 16]).collect())
    }

    fn are_in(&self, cells: &[u8]) -> bool {
        let programmed = cells.windows(16).filter(|piece| piece[0] != 0xff || piece[15] != 0xff);
        programmed.into_iter().any(|piece| self.0.contains(piece))
    }

    /// Each secret has a piece there.
    fn each_in<T: AsRef<[u8]>>(secrets: &[T], cells: &[u8]) -> bool {
        secrets.iter().all(|secret| Self::of(std::slice::from_ref(&secret.as_ref())).are_in(cells))
    }
}

/// Pieces of every value and remain, as they lie in clear.
fn plaintexts() -> Vec<Vec<u8>> {
    let long = values().into_iter().map(|(_, octets)| octets).filter(|octets| octets.len() >= 16);
    long.chain([DELETED.as_bytes().to_vec(), UNMARKED.to_vec()]).collect()
}

/// The slots that were ever programmed, as they lie in the cells.
fn ciphertexts(image: &[u8]) -> Vec<Vec<u8>> {
    let slots = image.chunks(PAGE_OCTETS).flat_map(|page| page[64..].chunks(32));
    slots.filter(|slot| slot.iter().any(|octet| *octet != 0xff)).map(<[u8]>::to_vec).collect()
}

fn operations(board: &Board) -> (u32, u32) {
    (board.journal.operations(), board.cells.operations())
}

/// Runs `act` with the power cut at each operation of either memory, looks, has it finish, and looks again.
fn cut_everywhere(
    before: &Board,
    act: impl Fn(&mut Board, u64) -> Step_<()>,
    in_between: impl Fn(&mut Board, &str),
    at_the_end: impl Fn(&mut Board, &str),
) -> u32 {
    let mut whole = before.clone();
    let first = operations(before);
    act(&mut whole, 2).unwrap();
    at_the_end(&mut whole, "without a cut");
    let last = operations(&whole);
    let (journal, cells) = (last.0 - first.0, last.1 - first.1);
    for at in 0..journal + cells {
        let mut board = before.clone();
        let tear = [0, u32::MAX, at + 1][usize::try_from(at % 3).unwrap()];
        match at.checked_sub(journal) {
            None => board.journal.cut_after(at, tear),
            Some(at) => board.cells.cut_after(at, tear),
        }
        let cut = act(&mut board, 2);
        assert!(cut.is_err(), "operation {at}");
        board.journal.power_on();
        board.cells.power_on();
        in_between(&mut board, &format!("operation {at}"));
        act(&mut board, 4).unwrap_or_else(|stopped| panic!("operation {at}: {stopped:?}"));
        at_the_end(&mut board, &format!("operation {at}, at the end"));
    }
    journal + cells
}

#[test]
fn a_partition_in_clear_comes_under_the_storage_key_whatever_is_cut_and_leaves_nothing_in_clear() {
    let before = board(&image());
    assert!(Pieces::each_in(&plaintexts(), before.cells.cells()), "the search finds what is there");
    let plaintexts = Pieces::of(&plaintexts());
    let cuts = cut_everywhere(
        &before,
        |board, seed| adopt(board, Under::Clear, seed),
        |board, moment| check(board, Some(Under::Clear), moment),
        |board, moment| {
            check(board, None, moment);
            assert!(!plaintexts.are_in(board.cells.cells()), "{moment}");
        },
    );
    assert!(cuts > 250, "{cuts}");
}

#[test]
fn a_migration_that_is_cut_at_any_word_loses_no_value_and_is_over_only_when_key_and_ciphertexts_of_before_are_gone() {
    // Under keys of its own first, which a keys partition would hold.
    let mut encrypted = image();
    own_keys().cipher().encrypt(&mut encrypted).unwrap();
    let mut before = board(&encrypted);
    adopt(&mut before, Under::Keys(&own_keys().cipher()), 2).unwrap();
    assert!(!Pieces::of(&ciphertexts(&encrypted)).are_in(before.cells.cells()), "under its own keys");
    let old = ciphertexts(before.cells.cells());
    let old_key = opened(&mut before, 3).unwrap().1.nvs_keys::<(), (), ()>().unwrap();
    let wrapped = {
        let (mut store, ..) = opened(&mut before, 3).unwrap();
        let mut buffer = [0; 128];
        let length = store.read(RecordId(0x0030), &mut buffer).unwrap().unwrap();
        buffer[4..length].to_vec()
    };
    assert!(Pieces::each_in(&[&wrapped], before.journal.cells()) && Pieces::each_in(&old, before.cells.cells()));
    let old_keys = Pieces::of(&[&wrapped[..], old_key.expose()]);
    let (old, plaintexts) = (Pieces::of(&old), Pieces::of(&plaintexts()));
    let cuts = cut_everywhere(
        &before,
        |board, seed| migrate(board, seed).map(drop),
        |board, moment| {
            check(board, None, moment);
            let said = last_migration(&mut opened(board, 3).unwrap().0).unwrap();
            let is_left = || old_keys.are_in(board.journal.cells()) || old.are_in(board.cells.cells());
            assert!(said.is_none() || !is_left(), "{moment}: it is said too early");
        },
        |board, moment| {
            check(board, None, moment);
            let (mut store, keys, _) = opened(board, 3).unwrap();
            let said = last_migration(&mut store).unwrap().unwrap();
            let expected = (REQUEST, 2, 1, Erasure::Erased { read_back: true });
            assert_eq!((said.request, said.version, said.records, said.erasure), expected, "{moment}");
            assert_eq!(keys.version(), 2, "{moment}: once is enough");
            for memory in [board.journal.cells().as_slice(), board.cells.cells()] {
                assert!(![&old_keys, &old, &plaintexts].iter().any(|pieces| pieces.are_in(memory)), "{moment}");
            }
        },
    );
    assert!(cuts > 400, "{cuts}");
}

#[test]
fn what_comes_out_is_decrypted_by_espressifs_own_tool_and_holds_the_values_and_nothing_else() {
    let mut board = board(&image());
    adopt(&mut board, Under::Clear, 2).unwrap();
    migrate(&mut board, 3).unwrap();
    let keys = opened(&mut board, 4).unwrap().1.nvs_keys::<(), (), ()>().unwrap();
    let mut keys_partition = [0; PAGE_OCTETS];
    keys.write_partition(&mut keys_partition);
    let job = format!(
        "{{\"encrypted\": \"{}\", \"keys\": \"{}\"}}\n",
        hex::encode(board.cells.cells()),
        hex::encode(keys_partition)
    );
    let python = Python::with_espressif_module("esp_idf_nvs_partition_gen");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../kf-flash/tests/it/nvs/espressif_nvs.py");
    let tool = python.tool().clone().deadline(Duration::from_secs(60));
    let answer = tool.run_with_input(&[script], job.as_bytes()).expect_success();
    let text = answer.stdout_text();
    let plain = hex::decode(text.split('"').nth(3).expect("the image")).unwrap();
    let partition = Partition::new(&plain).unwrap();
    assert_eq!(remnants(partition).count(), 0);
    for ((namespace, key), expected) in values() {
        let number = partition.namespace(namespace).unwrap().unwrap();
        let octets = match partition.value(number, key).unwrap().unwrap() {
            kf_flash::nvs::Stored::U8(value) => vec![value],
            kf_flash::nvs::Stored::I32(value) => value.to_le_bytes().to_vec(),
            kf_flash::nvs::Stored::U64(value) => value.to_le_bytes().to_vec(),
            kf_flash::nvs::Stored::Text(text) => text.as_bytes().to_vec(),
            kf_flash::nvs::Stored::Blob(blob) => blob.chunks().flat_map(Result::unwrap).copied().collect(),
            _ => panic!("{key}: another type"),
        };
        assert_eq!(octets, expected, "{key}");
    }
    assert!(!partition.items().any(|(_, entry)| entry.key.octets() == b"notes"));
    check_by_others(&plain);
}

/// Another implementation, the crate esp-nvs, mounts it as a device does, reads every value and goes on writing.
fn check_by_others(plain: &[u8]) {
    let mut flash = ChipFlash::holding(plain);
    let mut nvs = start(&mut flash);
    let (wifi, calib) = (key("wifi"), key("calib"));
    for (name, expected) in [("ssid", "plant floor"), ("password", "correct horse battery staple")] {
        assert_eq!(nvs.get::<String>(&wifi, &key(name)).unwrap(), expected);
    }
    assert_eq!(nvs.get::<i32>(&calib, &key("offset")).unwrap(), -7);
    assert_eq!(nvs.get::<u64>(&calib, &key("serial")).unwrap(), 0x0123_4567_89ab_cdef);
    assert_eq!(nvs.get::<Vec<u8>>(&calib, &key("table")).unwrap(), blob());
    assert_eq!(nvs.get::<u8>(&wifi, &key("channel")).unwrap(), 11);
    assert!(nvs.get::<String>(&calib, &key("notes")).is_err(), "what was deleted stays so");
    nvs.set(&calib, &key("offset"), 8_i32).unwrap();
    drop(nvs);
    assert_eq!(start(&mut flash).get::<i32>(&calib, &key("offset")).unwrap(), 8);
}

#[test]
fn values_that_the_sdk_writes_are_read_again_and_refused_where_one_key_takes_over_from_another() {
    let mut board = board(&image());
    type Put = Result<(), Refused>;
    {
        let (mut store, keys, mut nvs) = opened(&mut board, 2).unwrap();
        let put: Put = keys.put_nvs(&mut store, &mut nvs, ("wifi", "channel"), Value::U8(6));
        assert_eq!(put, Err(KeepError::NotKept));
    }
    adopt(&mut board, Under::Clear, 2).unwrap();
    let (mut store, mut keys, mut nvs) = opened(&mut board, 3).unwrap();
    let long = "x".repeat(3_000);
    let values: [(_, Value<'_>, &[u8]); 4] = [
        (("wifi", "channel"), Value::U8(6), &[6]),
        (("wifi", "ssid"), Value::Text(&long), long.as_bytes()),
        (("calib", "table"), Value::Blob(b"short"), b"short"),
        (("site", "name"), Value::Text("Lyon"), b"Lyon"),
    ];
    let mut buffer = [0; 4_096];
    for (name, value, expected) in values {
        let put: Put = keys.put_nvs(&mut store, &mut nvs, name, value);
        assert_eq!(put, Ok(()), "{name:?}");
        let read: Result<_, Refused> = keys.read_nvs(&mut nvs, None, name, &mut buffer);
        assert_eq!(read.unwrap().map(|length| &buffer[..length]), Some(expected), "{name:?}");
    }
    let removed: Result<_, Refused> = keys.remove_nvs(&mut store, &mut nvs, ("wifi", "ssid"));
    assert_eq!(removed, Ok(true));
    let removed: Result<_, Refused> = keys.remove_nvs(&mut store, &mut nvs, ("wifi", "ssid"));
    assert_eq!(removed, Ok(false));
    let too_long: Put = keys.put_nvs(&mut store, &mut nvs, ("calib", "table"), Value::Blob(&[0; 3_969]));
    assert_eq!(too_long, Err(KeepError::Nvs(NvsError::Value)));
    keys.begin(&mut store, &wrap(), REQUEST, &mut source(9).unwrap()).unwrap();
    let put: Put = keys.put_nvs(&mut store, &mut nvs, ("wifi", "channel"), Value::U8(7));
    assert_eq!(put, Err(KeepError::UnderWay));
}

/// Of one name there is one value, and no chunk but its own, in the cells as they lie there.
fn check_single(board: &mut Board, name: (&str, &str), moment: &str) {
    let cipher = opened(board, 60).unwrap().1.nvs_keys::<(), (), ()>().unwrap().cipher();
    let mut plain = board.cells.cells().to_vec();
    cipher.decrypt(&mut plain).unwrap();
    let partition = Partition::new(&plain).unwrap();
    let namespace = partition.namespace(name.0).unwrap().unwrap();
    let (mut values, mut chunks, mut expected) = (0, 0, 0);
    for (_, entry) in partition.items().filter(|(_, entry)| entry.key.octets() == name.1.as_bytes()) {
        match entry.item_type {
            Some(ItemType::BlobData) => chunks += 1,
            Some(ItemType::BlobIndex) => (values, expected) = (values + 1, usize::from(entry.chunks().0)),
            _ => values += 1,
        }
    }
    assert_eq!((values, chunks), (1, expected), "{moment}: {name:?}");
    assert!(partition.value(namespace, name.1).unwrap().is_some(), "{moment}: {name:?}");
}

#[test]
fn a_value_that_is_cut_while_it_is_written_is_the_old_or_the_new_one_and_once_settled_there_is_no_other() {
    let mut before = board(&image());
    adopt(&mut before, Under::Clear, 2).unwrap();
    // A text that fits into no page that is in use, a blob that lay in two pages, a number in its own page.
    let long = "x".repeat(3_900);
    let new: [(_, Value<'_>, Vec<u8>); 3] = [
        (("wifi", "ssid"), Value::Text(&long), long.clone().into_bytes()),
        (("calib", "table"), Value::Blob(&[7; 40]), vec![7; 40]),
        (("calib", "offset"), Value::I32(8), 8_i32.to_le_bytes().to_vec()),
    ];
    for (name, value, after) in new {
        let was = values().into_iter().find(|(known, _)| *known == name).unwrap().1;
        let read = |board: &mut Board| {
            let (mut store, keys, mut nvs) = opened(board, 50).unwrap();
            let settled: Result<(), Refused> = keys.settle_nvs(&mut store, &mut nvs);
            settled.unwrap();
            let mut buffer = [0; 4_096];
            let read: Result<_, Refused> = keys.read_nvs(&mut nvs, None, name, &mut buffer);
            read.unwrap().map(|length| buffer[..length].to_vec())
        };
        let cuts = cut_everywhere(
            &before,
            |board, seed| {
                let (mut store, keys, mut nvs) = opened(board, seed)?;
                let put: Result<(), Refused> = keys.put_nvs(&mut store, &mut nvs, name, value);
                put.map_err(stop)
            },
            |board, moment| {
                let found = read(board).unwrap();
                assert!(found == was || found == after, "{moment}: {found:?}");
                check_single(board, name, moment);
            },
            |board, moment| {
                assert_eq!(read(board).as_ref(), Some(&after), "{moment}");
                check_single(board, name, moment);
            },
        );
        assert!(cuts > 20, "{name:?}: {cuts}");
    }
}

#[test]
fn the_older_key_stays_where_a_page_opens_under_no_key_and_where_the_partition_is_forgotten() {
    let mut encrypted = image();
    own_keys().cipher().encrypt(&mut encrypted).unwrap();
    let mut board = board(&encrypted);
    // The wrong keys, then in clear: nothing is moved, and nothing erased.
    let wrong =
        NvsKeys::from_secret(SecretArray::fill(|keys| (7..).zip(keys).for_each(|(n, octet)| *octet = n))).unwrap();
    for from in [Under::Keys(&wrong.cipher()), Under::Clear] {
        let refused = adopt(&mut board, from, 2).unwrap_err();
        assert!(refused.0.contains("Unreadable { page: 0 }"), "{refused:?}");
        assert_eq!(board.cells.cells(), &encrypted);
    }
    {
        let (mut store, mut keys, _) = opened(&mut board, 3).unwrap();
        let mut source = source(9).unwrap();
        let waits = keys.begin(&mut store, &wrap(), REQUEST, &mut source);
        assert_eq!(waits, Err(ProtectError::NvsFirst), "a migration waits for a partition that is on its way");
    }
    adopt(&mut board, Under::Keys(&own_keys().cipher()), 4).unwrap();
    {
        let (mut store, mut keys, mut nvs) = opened(&mut board, 5).unwrap();
        let mut source = source(10).unwrap();
        keys.begin(&mut store, &wrap(), REQUEST, &mut source).unwrap();
        assert_eq!(keys.step(&mut store, &mut source), Err(ProtectError::NvsFirst), "a program that forgets it");
        let again: Result<_, Refused> = keys.adopt_nvs(&mut store, &mut nvs, Under::Clear);
        assert_eq!(again, Err(KeepError::UnderWay));
    }
    // A page that is damaged beside one that is not.
    let page = board.cells.cells().chunks(PAGE_OCTETS).position(|page| page[0] == 0xfe).unwrap();
    let slots = board.cells.cells_mut()[page * PAGE_OCTETS + 64..][..64 * 32].iter_mut();
    slots.for_each(|octet| *octet ^= 0x5a);
    let refused = migrate(&mut board, 6).unwrap_err();
    assert!(refused.0.contains("Unreadable"), "{refused:?}");
    let (mut store, ..) = opened(&mut board, 7).unwrap();
    assert!(
        last_migration(&mut store).unwrap().is_none() && store.read(RecordId(0x0031), &mut [0; 128]).unwrap().is_some()
    );
}

#[test]
fn a_partition_without_a_spare_page_and_memory_of_another_shape_are_refused_and_an_empty_one_is_made() {
    let mut full = image();
    full.copy_within(0..PAGE_OCTETS, 2 * PAGE_OCTETS);
    full.copy_within(0..PAGE_OCTETS, 3 * PAGE_OCTETS);
    let mut board = board(&full);
    let refused = adopt(&mut board, Under::Clear, 2).unwrap_err();
    assert!(refused.0.contains("NoSpare"), "{refused:?}");
    assert_eq!(board.cells.cells(), &full);
    let (mut store, keys, mut nvs) = opened(&mut board, 3).unwrap();
    let made: Result<_, Refused> = keys.format_nvs(&mut store, &mut nvs);
    assert_eq!(made, Ok(()));
    let read: Result<_, Refused> = keys.read_nvs(&mut nvs, None, ("wifi", "ssid"), &mut [0; 64]);
    assert_eq!(read, Ok(None));
    assert!(board.cells.cells().iter().all(|octet| *octet == 0xff));
    let other = SimulatedFlash::<8_192>::new(Geometry { word: 4, sector: 1_024, sectors: 8 }, Medium::Raw);
    assert_eq!(Nvs::new(other).map(drop), Err(NvsError::Geometry));
    let other = SimulatedFlash::<8_192>::new(Geometry { word: 32, sector: 4_096, sectors: 2 }, Medium::Raw);
    assert_eq!(Nvs::new(other).map(drop), Err(NvsError::Geometry));
}

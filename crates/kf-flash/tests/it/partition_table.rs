//! Partition tables, their MD5 made by openssl.

use kf_flash::partition_table::{MAX_PARTITIONS, PartitionTable, PartitionTableError};
use kf_testkit::Tool;
use proptest::collection::vec;
use proptest::prelude::*;

/// One line of a partition table: label, type, subtype, offset, size, flags.
pub(crate) type Line = (&'static str, u8, u8, u32, u32, u32);

/// The entries of a table, without its end.
pub(crate) fn entries(lines: &[Line]) -> Vec<u8> {
    let mut table = Vec::new();
    for (label, kind, subtype, offset, octets, flags) in lines {
        table.extend([0xaa, 0x50, *kind, *subtype]);
        table.extend(offset.to_le_bytes());
        table.extend(octets.to_le_bytes());
        let mut name = [0; 16];
        name[..label.len()].copy_from_slice(label.as_bytes());
        table.extend(name);
        table.extend(flags.to_le_bytes());
    }
    table
}

const LINES: [Line; 3] = [
    ("nvs", 1, 2, 0x9000, 0x6000, 0),
    ("nvs_keys", 1, 4, 0xf000, 0x1000, 1),
    ("sixteen-letters!", 0x40, 7, 0x1_0000, 0x10_0000, 2),
];

/// A whole table: entries, MD5, blank to the end of its sector.
fn table() -> Vec<u8> {
    let mut table = entries(&LINES);
    let digest = Tool::new("openssl").run_with_input(&["md5", "-binary"], &table).expect_success().stdout;
    table.extend([0xeb, 0xeb]);
    table.extend([0xff; 14]);
    table.extend(digest);
    table.resize(0x1000, 0xff);
    table
}

#[test]
fn a_table_is_read_with_labels_purposes_and_flags() {
    let table = table();
    let read = PartitionTable::parse(&table).unwrap();
    assert!(read.has_digest());
    let partitions: Vec<_> = read.partitions().collect();
    let labels: Vec<_> = partitions.iter().map(|entry| entry.label().escape_ascii().to_string()).collect();
    assert_eq!(labels, ["nvs", "nvs_keys", "sixteen-letters!"]);
    assert_eq!(partitions.iter().map(|entry| entry.purpose()).collect::<Vec<_>>(), ["nvs", "nvs_keys", "custom"]);
    assert_eq!((partitions[0].offset, partitions[0].octets), (0x9000, 0x6000));
    assert_eq!(partitions.iter().map(|entry| entry.is_encrypted).collect::<Vec<_>>(), [false, true, false]);
    assert!(partitions[2].is_read_only);
}

#[test]
fn a_changed_octet_of_a_table_is_seen() {
    for at in [4, 40, 95, 96 + 16] {
        let mut table = table();
        table[at] ^= 1;
        let verdict = PartitionTable::parse(&table).err();
        assert_eq!(verdict, Some(PartitionTableError::Digest), "octet {at}");
    }
    let mut table = table();
    table[32] ^= 1;
    assert_eq!(PartitionTable::parse(&table).err(), Some(PartitionTableError::Entry { number: 1 }));
    assert_eq!(PartitionTable::parse(&[0xff; 64]).err(), Some(PartitionTableError::Absent));
    assert_eq!(PartitionTable::parse(&[]).err(), Some(PartitionTableError::Entry { number: 0 }));
}

#[test]
fn a_table_without_an_end_or_with_too_many_entries_is_none() {
    let mut without_digest = entries(&LINES);
    assert!(PartitionTable::parse(&without_digest).is_err(), "it just stops");
    without_digest.extend([0xff; 32]);
    assert!(PartitionTable::parse(&without_digest).is_ok_and(|table| !table.has_digest()));
    let endless = entries(&[LINES[0]; MAX_PARTITIONS + 2]);
    assert!(PartitionTable::parse(&endless).is_err());
}

proptest! {
    #[test]
    fn no_octets_make_the_parser_panic(octets in vec(any::<u8>(), 0..200), is_entry: bool) {
        let mut octets = octets;
        if is_entry && octets.len() > 1 {
            octets[..2].copy_from_slice(&[0xaa, 0x50]);
        }
        if let Ok(table) = PartitionTable::parse(&octets) {
            prop_assert!(table.partitions().count() <= MAX_PARTITIONS);
        }
    }
}

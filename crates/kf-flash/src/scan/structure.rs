//! What tells its format by a magic number and a checksum.

use alloc::string::String;
use alloc::vec::Vec;

use super::block::BLOCK_OCTETS;
use super::finding::{Finding, FindingKind};
use crate::nvs::{NvsError, NvsKeys, PAGE_OCTETS, Page, Partition};
use crate::octets::{is_blank, u32_le};
use crate::partition_table::{PartitionEntry, PartitionTable};
use crate::secure_cert::{KeyProtection, RecordType, SecureCert};

/// Something whose format is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Structure {
    /// What it is.
    pub kind: StructureKind,
    /// Where it begins in the image, in octets.
    pub offset: u64,
    /// Its octets.
    pub octets: u64,
}

/// What it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StructureKind {
    /// A partition table.
    PartitionTable {
        /// Whether its MD5 says that it is whole.
        has_digest: bool,
        /// Its partitions.
        partitions: Vec<PartitionEntry>,
    },
    /// Pages of NVS in a row.
    Nvs {
        /// How many of them are in use.
        pages: u32,
        /// Entries whose CRC is right as they lie there: such a page is not encrypted.
        readable_entries: u32,
        /// Slots in use that cannot be read: encrypted, or damaged.
        unreadable_slots: u32,
    },
    /// A record of `esp_secure_cert`.
    SecureCertRecord {
        /// Its type.
        record_type: RecordType,
        /// Its index.
        index: u8,
        /// How its value is kept.
        protection: KeyProtection,
    },
    /// A firmware image that says what it is, not encrypted.
    Application {
        /// The project's name.
        project: String,
        /// Its version.
        version: String,
    },
    /// A firmware image without a description, such as a boot loader, not encrypted.
    FirmwareImage,
}

impl StructureKind {
    /// Its name in reports.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::PartitionTable { .. } => "partition_table",
            Self::Nvs { .. } => "nvs",
            Self::SecureCertRecord { .. } => "secure_cert_record",
            Self::Application { .. } => "application",
            Self::FirmwareImage => "firmware_image",
        }
    }
}

/// Looks at one block, with what follows it in `rest`, which begins with the block.
pub(super) fn inspect(offset: u64, rest: &[u8], structures: &mut Vec<Structure>, mut found: impl FnMut(Finding)) {
    let Some(block) = rest.get(..BLOCK_OCTETS) else { return secure_cert(offset, rest, structures) };
    if is_blank(block) {
        return;
    }
    if let Some(structure) = partition_table(offset, block) {
        structures.push(structure);
    }
    nvs(offset, block, structures);
    if is_nvs_keys(block) {
        found(Finding { kind: FindingKind::NvsKeys, offset, octets: 64 });
    }
    secure_cert(offset, rest, structures);
    if let Some(kind) = firmware(block) {
        structures.push(Structure { kind, offset, octets: length(BLOCK_OCTETS) });
    }
}

fn partition_table(offset: u64, block: &[u8]) -> Option<Structure> {
    let table = PartitionTable::parse(block).ok()?;
    let partitions: Vec<_> = table.partitions().collect();
    let octets = length((partitions.len() + usize::from(table.has_digest())) * 32);
    let kind = StructureKind::PartitionTable { has_digest: table.has_digest(), partitions };
    Some(Structure { kind, offset, octets })
}

/// A page in use, joined with the one before it.
fn nvs(offset: u64, block: &[u8], structures: &mut Vec<Structure>) {
    let Ok(partition) = Partition::new(block) else { return };
    let Some(page) = partition.pages().find(Page::is_in_use) else { return };
    let (mut readable, mut unreadable) = (0, 0);
    for placed in page.entries().filter(|placed| placed.state == crate::nvs::EntryState::Written) {
        if placed.entry().is_some() { readable += 1 } else { unreadable += 1 }
    }
    if let Some(Structure {
        kind: StructureKind::Nvs { pages, readable_entries, unreadable_slots },
        offset: begin,
        octets,
    }) = structures.last_mut()
        && *begin + *octets == offset
    {
        *pages += 1;
        *readable_entries += readable;
        *unreadable_slots += unreadable;
        *octets += length(PAGE_OCTETS);
        return;
    }
    let kind = StructureKind::Nvs { pages: 1, readable_entries: readable, unreadable_slots: unreadable };
    structures.push(Structure { kind, offset, octets: length(PAGE_OCTETS) });
}

/// 64 octets with their CRC, and nothing after them.
fn is_nvs_keys(block: &[u8]) -> bool {
    let Some((keys, rest)) = block.split_at_checked(68) else { return false };
    let has_crc = !matches!(NvsKeys::from_partition(keys), Err(NvsError::KeysChecksum));
    is_blank(rest) && !is_blank(keys) && has_crc
}

fn secure_cert(offset: u64, rest: &[u8], structures: &mut Vec<Structure>) {
    if u32_le(rest, 0) != crate::secure_cert::MAGIC {
        return;
    }
    let Ok(partition) = SecureCert::new(rest) else { return };
    // What follows the records belongs to somebody else: the first error is the end.
    for record in partition.records().map_while(Result::ok) {
        let kind = StructureKind::SecureCertRecord {
            record_type: record.record_type,
            index: record.index,
            protection: record.protection,
        };
        structures.push(Structure {
            kind,
            offset: offset + length(record.offset),
            octets: length(record.octets.len()),
        });
    }
}

/// The header of a firmware image, and its description where there is one.
fn firmware(block: &[u8]) -> Option<StructureKind> {
    const DESCRIPTION: usize = 0x20;
    let [0xe9, segments, spi_mode, ..] = block else { return None };
    let has_digest_flag = block.get(23).is_some_and(|flag| *flag <= 1);
    if !(1..=16).contains(segments) || *spi_mode > 5 || !has_digest_flag {
        return None;
    }
    if u32_le(block, DESCRIPTION) != 0xabcd_5432 {
        return Some(StructureKind::FirmwareImage);
    }
    Some(StructureKind::Application { version: text(block, DESCRIPTION + 16), project: text(block, DESCRIPTION + 48) })
}

/// Up to 32 octets of text that ends in a NUL, made printable.
fn text(block: &[u8], at: usize) -> String {
    let octets = block.get(at..at + 32).unwrap_or_default();
    let text = octets.split(|octet| *octet == 0).next().unwrap_or_default();
    text.escape_ascii().map(char::from).collect()
}

fn length(octets: usize) -> u64 {
    u64::try_from(octets).unwrap_or(u64::MAX)
}

//! The partition table of ESP-IDF, usually at 8000.
//!
//! ```text
//! entry = aa 50 | type u8 | subtype u8 | offset u32 | size u32 | label 16 | flags u32       (32 octets, little endian)
//! end   = eb eb | 14 × ff | MD5 over all entries before
//! ```

use core::fmt;

use md5::{Digest, Md5};

use crate::octets::{field, is_blank, u32_le};

/// Where the table usually is.
pub const USUAL_OFFSET: u64 = 0x8000;
/// The most octets of a table, its end included.
pub const TABLE_OCTETS: usize = 0xc00;
/// The most partitions.
pub const MAX_PARTITIONS: usize = TABLE_OCTETS / ENTRY_OCTETS - 1;

const ENTRY_OCTETS: usize = 32;

/// A table whose MD5 is right, or that has none.
#[derive(Clone, Copy)]
pub struct PartitionTable<'a> {
    entries: &'a [u8],
    has_digest: bool,
}

/// One partition.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PartitionEntry {
    /// 0 application, 1 data, 3f `esp_secure_cert`, from 40 on the user's.
    pub partition_type: u8,
    /// Its meaning depends on the type.
    pub subtype: u8,
    /// Where it begins in flash.
    pub offset: u32,
    /// Its octets.
    pub octets: u32,
    /// Whether flash encryption covers it; applications and the keys of NVS always are, when it is on.
    pub is_encrypted: bool,
    /// Whether the firmware only reads it.
    pub is_read_only: bool,
    label: [u8; 16],
}

/// Why this is no partition table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PartitionTableError {
    /// It does not begin with an entry.
    Absent,
    /// The MD5 is wrong: it is damaged.
    Digest,
    /// Something other than an entry or the end stands at this entry, counted from 0.
    Entry {
        /// Which one.
        number: usize,
    },
}

impl<'a> PartitionTable<'a> {
    /// Reads a table at the beginning of `octets`.
    ///
    /// # Errors
    /// [`PartitionTableError`].
    pub fn parse(octets: &'a [u8]) -> Result<Self, PartitionTableError> {
        let table = octets.get(..TABLE_OCTETS).unwrap_or(octets);
        for (number, entry) in table.chunks_exact(ENTRY_OCTETS).enumerate() {
            let entries = table.get(..number * ENTRY_OCTETS).unwrap_or_default();
            match entry {
                [0xaa, 0x50, ..] => {}
                _ if number == 0 => return Err(PartitionTableError::Absent),
                [0xeb, 0xeb, ..] => {
                    let is_right = Md5::digest(entries).as_slice() == field::<16>(entry, 16);
                    let table = Self { entries, has_digest: true };
                    return if is_right { Ok(table) } else { Err(PartitionTableError::Digest) };
                }
                blank if is_blank(blank) => return Ok(Self { entries, has_digest: false }),
                _ => return Err(PartitionTableError::Entry { number }),
            }
        }
        Err(PartitionTableError::Entry { number: table.len() / ENTRY_OCTETS })
    }

    /// Whether an MD5 says that it is whole.
    #[must_use]
    pub const fn has_digest(&self) -> bool {
        self.has_digest
    }

    /// The partitions in order.
    pub fn partitions(&self) -> impl Iterator<Item = PartitionEntry> + use<'a> {
        self.entries.chunks_exact(ENTRY_OCTETS).map(|entry| {
            let [partition_type, subtype] = field(entry, 2);
            let flags = u32_le(entry, 28);
            PartitionEntry {
                partition_type,
                subtype,
                offset: u32_le(entry, 4),
                octets: u32_le(entry, 8),
                is_encrypted: flags & 1 != 0,
                is_read_only: flags & 2 != 0,
                label: field(entry, 12),
            }
        })
    }
}

impl PartitionEntry {
    /// The name, up to its first NUL.
    #[must_use]
    pub fn label(&self) -> &[u8] {
        self.label.split(|octet| *octet == 0).next().unwrap_or_default()
    }

    /// What it is for, in a word of ESP-IDF where there is one.
    #[must_use]
    pub const fn purpose(&self) -> &'static str {
        match (self.partition_type, self.subtype) {
            (0, 0) => "factory",
            (0, 0x10..=0x1f) => "ota",
            (0, 0x20) => "test",
            (0, _) => "app",
            (1, 0) => "otadata",
            (1, 1) => "phy",
            (1, 2) => "nvs",
            (1, 3) => "coredump",
            (1, 4) => "nvs_keys",
            (1, 5) => "efuse",
            (1, 0x81) => "fat",
            (1, 0x82) => "spiffs",
            (1, 0x83) => "littlefs",
            (1, _) => "data",
            (0x3f, _) => "esp_secure_cert",
            _ => "custom",
        }
    }
}

impl fmt::Debug for PartitionEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} ({}) at {:#x}, {:#x} octets",
            self.label().escape_ascii(),
            self.purpose(),
            self.offset,
            self.octets
        )
    }
}

impl fmt::Display for PartitionTableError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent => f.write_str("there is no partition table here"),
            Self::Digest => f.write_str("the MD5 of the partition table is wrong: it is damaged"),
            Self::Entry { number } => write!(f, "entry {number} of the partition table is none"),
        }
    }
}

impl core::error::Error for PartitionTableError {}

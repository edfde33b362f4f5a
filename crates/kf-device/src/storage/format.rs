//! Where things lie in a bank.

use super::flash::Geometry;

pub(super) const MAGIC: [u8; 4] = *b"KFJ1";
/// Magic, sequence, tag.
pub(super) const HEADER_OCTETS: u32 = 16;
pub(super) const HEAD_OCTETS: u32 = 4;
pub(super) const TAG_OCTETS: u32 = 8;
/// Id and length of a record.
pub(super) const RECORD_HEAD_OCTETS: u32 = 4;
/// The length that says "removed".
pub(super) const REMOVED: u16 = u16::MAX;
pub(super) const MARK: u8 = 0x5a;
pub(super) const ERASED: u8 = 0xff;
/// A multiple of every word.
pub(super) const CHUNK: usize = 64;
/// The most octets of the records of one group: its length never begins with an erased octet.
pub(super) const MAX_GROUP_OCTETS: u32 = 0x7fff;

/// One of the two banks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bank {
    A,
    B,
}

impl Bank {
    pub(super) const fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }
}

/// Geometry that has been checked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Layout {
    pub(super) word: u32,
    pub(super) bank_sectors: u32,
    pub(super) bank_octets: u32,
}

impl Layout {
    pub(super) fn new(geometry: Geometry) -> Option<Self> {
        let Geometry { word, sector, sectors } = geometry;
        let is_word = matches!(word, 1 | 2 | 4 | 8 | 16 | 32);
        let is_sector = sector >= 128 && sector.is_multiple_of(32);
        if !is_word || !is_sector || sectors < 2 || !sectors.is_multiple_of(2) {
            return None;
        }
        // Both banks are addressed with 32 bits.
        sector.checked_mul(sectors)?;
        let bank_sectors = sectors / 2;
        Some(Self { word, bank_sectors, bank_octets: sector.checked_mul(bank_sectors)? })
    }

    pub(super) const fn start(&self, bank: Bank) -> u32 {
        match bank {
            Bank::A => 0,
            Bank::B => self.bank_octets,
        }
    }

    pub(super) const fn end(&self, bank: Bank) -> u32 {
        self.start(bank).saturating_add(self.bank_octets)
    }

    pub(super) const fn first_sector(&self, bank: Bank) -> u32 {
        match bank {
            Bank::A => 0,
            Bank::B => self.bank_sectors,
        }
    }

    /// Rounded up to whole words.
    pub(super) const fn words(&self, octets: u32) -> u32 {
        octets.div_ceil(self.word).saturating_mul(self.word)
    }

    pub(super) const fn first_group(&self, bank: Bank) -> u32 {
        self.start(bank).saturating_add(self.words(HEADER_OCTETS)).saturating_add(self.word)
    }

    /// Octets of a group without its mark.
    pub(super) const fn body(&self, records: u32) -> u32 {
        self.words(HEAD_OCTETS.saturating_add(records).saturating_add(TAG_OCTETS))
    }

    /// Octets of a group.
    pub(super) const fn group(&self, records: u32) -> u32 {
        self.body(records).saturating_add(self.word)
    }
}

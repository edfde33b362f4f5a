//! One entry of 32 octets, and what a slot of a page holds.

use core::fmt;

use super::{ENTRY_OCTETS, MAX_KEY_OCTETS, NvsError};
use crate::octets::{crc32, field, put, u16_le, u32_le};

/// What the two bits of a slot say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum EntryState {
    /// 11: nothing written.
    Empty,
    /// 10: written and in use.
    Written,
    /// 00: no longer in use. The octets are still there.
    Erased,
    /// 01: no power cut leaves this; the page is damaged.
    Illegal,
}

/// The type of an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
#[allow(missing_docs)]
pub enum ItemType {
    U8 = 0x01,
    I8 = 0x11,
    U16 = 0x02,
    I16 = 0x12,
    U32 = 0x04,
    I32 = 0x14,
    U64 = 0x08,
    I64 = 0x18,
    /// NUL-terminated text, within one page.
    Text = 0x21,
    /// A blob of format version 1, within one page.
    OldBlob = 0x41,
    /// A chunk of a blob.
    BlobData = 0x42,
    /// What holds the chunks of a blob together.
    BlobIndex = 0x48,
}

/// A key or the name of a namespace: 1 to 15 octets, then NULs.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct EntryKey([u8; 16]);

/// What an entry says. It borrows nothing and holds no value but the 8 octets of its own.
#[derive(Clone, Copy)]
pub struct Entry {
    /// 0 for the name of a namespace.
    pub namespace: u8,
    /// `None` for a type that no version of the format knows.
    pub item_type: Option<ItemType>,
    /// Slots of the item, this one included.
    pub span: u8,
    /// The number of a chunk; ff elsewhere.
    pub chunk: u8,
    /// The key.
    pub key: EntryKey,
    /// A number, or the length and CRC of what follows.
    pub(super) data: [u8; 8],
}

/// What was found at a slot. Not printed with its octets, because these may be a secret.
#[derive(Clone, Copy)]
pub struct Placed<'a> {
    /// The page, from 0.
    pub page: usize,
    /// The slot in its page, from 0.
    pub slot: usize,
    /// Where it is in the partition, in octets.
    pub offset: usize,
    /// What the two bits say of its first slot.
    pub state: EntryState,
    /// What it reads as.
    pub reading: Reading,
    /// All octets of its slots.
    pub octets: &'a [u8],
}

/// What the octets of one or several slots read as.
#[derive(Clone, Copy)]
pub enum Reading {
    /// An entry whose CRC is right and whose slots all have its state.
    Item(Entry),
    /// One slot without a readable entry: damaged, or a data slot that lost its entry.
    Octets,
    /// One slot with every bit programmed, which is what a purge leaves.
    Purged,
}

/// A value that is checked piece by piece against the CRC in its entry.
pub struct ValueCheck {
    crc: crc32fast::Hasher,
    expected: u32,
}

impl ValueCheck {
    /// The next octets of the value.
    pub fn add(&mut self, piece: &[u8]) {
        self.crc.update(piece);
    }

    /// Whether it is whole.
    #[must_use]
    pub fn is_right(self) -> bool {
        self.crc.finalize() == self.expected
    }
}

impl EntryState {
    /// What the states of a page (its octets 32 to 63) say of the slot `slot`.
    #[must_use]
    pub fn of(states: &[u8; 32], slot: usize) -> Self {
        Self::from_bits(states.get(slot / 4).copied().unwrap_or_default() >> (slot % 4 * 2))
    }

    /// Marks the slot `slot` as written in the states of a page.
    pub fn mark_written(states: &mut [u8; 32], slot: usize) {
        if let Some(octet) = states.get_mut(slot / 4) {
            *octet &= !(1 << (slot % 4 * 2));
        }
    }

    pub(super) const fn from_bits(bits: u8) -> Self {
        match bits & 3 {
            3 => Self::Empty,
            2 => Self::Written,
            0 => Self::Erased,
            _ => Self::Illegal,
        }
    }
}

impl ItemType {
    pub(super) const fn from_octet(octet: u8) -> Option<Self> {
        Some(match octet {
            0x01 => Self::U8,
            0x11 => Self::I8,
            0x02 => Self::U16,
            0x12 => Self::I16,
            0x04 => Self::U32,
            0x14 => Self::I32,
            0x08 => Self::U64,
            0x18 => Self::I64,
            0x21 => Self::Text,
            0x41 => Self::OldBlob,
            0x42 => Self::BlobData,
            0x48 => Self::BlobIndex,
            _ => return None,
        })
    }

    /// The octet of the format.
    #[must_use]
    pub const fn octet(self) -> u8 {
        match self {
            Self::U8 => 0x01,
            Self::I8 => 0x11,
            Self::U16 => 0x02,
            Self::I16 => 0x12,
            Self::U32 => 0x04,
            Self::I32 => 0x14,
            Self::U64 => 0x08,
            Self::I64 => 0x18,
            Self::Text => 0x21,
            Self::OldBlob => 0x41,
            Self::BlobData => 0x42,
            Self::BlobIndex => 0x48,
        }
    }

    /// Its name in ESP-IDF.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::U8 => "u8",
            Self::I8 => "i8",
            Self::U16 => "u16",
            Self::I16 => "i16",
            Self::U32 => "u32",
            Self::I32 => "i32",
            Self::U64 => "u64",
            Self::I64 => "i64",
            Self::Text => "string",
            Self::OldBlob => "blob",
            Self::BlobData => "blob_data",
            Self::BlobIndex => "blob_index",
        }
    }

    /// Whether the value lies in the slots after the entry.
    #[must_use]
    pub const fn has_data_slots(self) -> bool {
        matches!(self, Self::Text | Self::OldBlob | Self::BlobData)
    }
}

impl EntryKey {
    /// A key of 1 to 15 octets.
    ///
    /// # Errors
    /// [`NvsError::Name`] when it is empty, longer, or holds a NUL.
    pub fn new(key: &str) -> Result<Self, NvsError> {
        if key.is_empty() || key.len() > MAX_KEY_OCTETS || key.bytes().any(|octet| octet == 0) {
            return Err(NvsError::Name);
        }
        let mut octets = [0; 16];
        put(&mut octets, 0, key.as_bytes());
        Ok(Self(octets))
    }

    /// All 16 octets, as an entry has them.
    pub(super) const fn padded(&self) -> &[u8; 16] {
        &self.0
    }

    /// The octets before the first NUL. A key read from flash can be any 16 octets.
    #[must_use]
    pub fn octets(&self) -> &[u8] {
        self.0.split(|octet| *octet == 0).next().unwrap_or_default()
    }
}

impl fmt::Display for EntryKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.octets().escape_ascii())
    }
}

impl fmt::Debug for EntryKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

impl Entry {
    /// Reads 32 octets.
    ///
    /// `None` when the CRC is wrong, or no item can have this span.
    #[must_use]
    pub fn parse(octets: &[u8; ENTRY_OCTETS]) -> Option<Self> {
        let [namespace, item_type, span, chunk, ..] = *octets;
        if u32_le(octets, 4) != entry_crc(octets) || span == 0 {
            return None;
        }
        let item_type = ItemType::from_octet(item_type);
        Some(Self { namespace, item_type, span, chunk, key: EntryKey(field(octets, 8)), data: field(octets, 24) })
    }

    /// The 32 octets, their CRC included.
    pub(super) fn to_octets(self, item_type: ItemType) -> [u8; ENTRY_OCTETS] {
        let mut octets = [0; ENTRY_OCTETS];
        put(&mut octets, 0, &[self.namespace, item_type.octet(), self.span, self.chunk]);
        put(&mut octets, 8, &self.key.0);
        put(&mut octets, 24, &self.data);
        let crc = entry_crc(&octets);
        put(&mut octets, 4, &crc.to_le_bytes());
        octets
    }

    /// Octets of the value that follows the entry; of an index, of the whole blob; `None` for numbers.
    #[must_use]
    pub fn value_octets(&self) -> Option<usize> {
        match self.item_type? {
            ItemType::Text | ItemType::OldBlob | ItemType::BlobData => Some(usize::from(u16_le(&self.data, 0))),
            ItemType::BlobIndex => usize::try_from(u32_le(&self.data, 0)).ok(),
            _ => None,
        }
    }

    /// The octets of a number, little endian; `None` for what is none.
    #[must_use]
    pub fn number(&self) -> Option<&[u8]> {
        let octets = match self.item_type? {
            ItemType::U8 | ItemType::I8 => 1,
            ItemType::U16 | ItemType::I16 => 2,
            ItemType::U32 | ItemType::I32 => 4,
            ItemType::U64 | ItemType::I64 => 8,
            ItemType::Text | ItemType::OldBlob | ItemType::BlobData | ItemType::BlobIndex => return None,
        };
        self.data.get(..octets)
    }

    /// The CRC of the value that follows.
    pub(super) fn value_crc(&self) -> u32 {
        u32_le(&self.data, 4)
    }

    /// Checks the value that follows, piece by piece.
    #[must_use]
    pub fn value_check(&self) -> ValueCheck {
        ValueCheck { crc: crate::octets::begin_crc32(), expected: self.value_crc() }
    }

    /// How many chunks an index counts, and the number of the first.
    #[must_use]
    pub const fn chunks(&self) -> (u8, u8) {
        let [.., count, start, _, _] = self.data;
        (count, start)
    }

    /// Whether `self` and `other` are the same item, so that the later one takes the place of the earlier.
    #[must_use]
    pub fn is_same_item(&self, other: &Self) -> bool {
        (self.namespace, self.item_type, self.chunk, self.key)
            == (other.namespace, other.item_type, other.chunk, other.key)
    }
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { namespace, item_type, span, chunk, key, data: _ } = self;
        f.debug_struct("Entry")
            .field("namespace", namespace)
            .field("item_type", item_type)
            .field("span", span)
            .field("chunk", chunk)
            .field("key", key)
            .finish_non_exhaustive()
    }
}

impl<'a> Placed<'a> {
    /// The entry, if there is one.
    #[must_use]
    pub const fn entry(&self) -> Option<&Entry> {
        match &self.reading {
            Reading::Item(entry) => Some(entry),
            Reading::Octets | Reading::Purged => None,
        }
    }

    /// The slots after the entry.
    #[must_use]
    pub fn data_slots(&self) -> &'a [u8] {
        self.octets.get(ENTRY_OCTETS..).unwrap_or_default()
    }
}

impl fmt::Debug for Placed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} slot {} of page {}, {} octets", self.state, self.slot, self.page, self.octets.len())
    }
}

/// The CRC over an entry without the CRC's own place.
fn entry_crc(octets: &[u8; ENTRY_OCTETS]) -> u32 {
    let (before, rest) = octets.split_at(4);
    crc32(&[before, rest.split_at(4).1])
}

//! Values, as they go in and as they come out.

use super::entry::{Entry, EntryKey, ItemType, Placed};
use super::partition::Partition;
use super::{DamagedValue, ENTRY_OCTETS, MAX_CHUNKS, NvsError};
use crate::octets::{crc32, field};

/// A value to be written. It can be a secret, so it is not printed.
#[derive(Clone, Copy)]
#[allow(missing_docs)]
pub enum Value<'a> {
    U8(u8),
    I8(i8),
    U16(u16),
    I16(i16),
    U32(u32),
    I32(i32),
    U64(u64),
    I64(i64),
    /// Without its closing NUL, which is added.
    Text(&'a str),
    /// Octets, over as many pages as it takes.
    Blob(&'a [u8]),
}

/// A value that was read. It can be a secret, so it is not printed.
#[derive(Clone, Copy)]
#[allow(missing_docs)]
pub enum Stored<'a> {
    U8(u8),
    I8(i8),
    U16(u16),
    I16(i16),
    U32(u32),
    I32(i32),
    U64(u64),
    I64(i64),
    /// Without its closing NUL.
    Text(&'a str),
    /// Octets in chunks.
    Blob(Blob<'a>),
}

/// A blob in its chunks.
#[derive(Clone, Copy)]
pub struct Blob<'a> {
    partition: Partition<'a>,
    source: BlobSource<'a>,
    key: EntryKey,
    namespace: u8,
    octets: usize,
}

#[derive(Clone, Copy)]
enum BlobSource<'a> {
    /// One item of format version 1.
    Old(&'a [u8]),
    Chunks {
        count: u8,
        start: u8,
    },
}

impl Value<'_> {
    /// The type of item that it becomes; of a blob, its chunks.
    pub(super) const fn item_type(&self) -> ItemType {
        match self {
            Self::U8(_) => ItemType::U8,
            Self::I8(_) => ItemType::I8,
            Self::U16(_) => ItemType::U16,
            Self::I16(_) => ItemType::I16,
            Self::U32(_) => ItemType::U32,
            Self::I32(_) => ItemType::I32,
            Self::U64(_) => ItemType::U64,
            Self::I64(_) => ItemType::I64,
            Self::Text(_) => ItemType::Text,
            Self::Blob(_) => ItemType::BlobData,
        }
    }

    /// The data field of a number, filled up with ff; of text and blobs, all ff.
    pub(super) fn number_data(&self) -> [u8; 8] {
        let mut data = [0xff; 8];
        let mut put = |octets: &[u8]| crate::octets::put(&mut data, 0, octets);
        match self {
            Self::U8(number) => put(&number.to_le_bytes()),
            Self::I8(number) => put(&number.to_le_bytes()),
            Self::U16(number) => put(&number.to_le_bytes()),
            Self::I16(number) => put(&number.to_le_bytes()),
            Self::U32(number) => put(&number.to_le_bytes()),
            Self::I32(number) => put(&number.to_le_bytes()),
            Self::U64(number) => put(&number.to_le_bytes()),
            Self::I64(number) => put(&number.to_le_bytes()),
            Self::Text(_) | Self::Blob(_) => {}
        }
        data
    }
}

impl<'a> Stored<'a> {
    /// What the item at `placed` holds; a blob is gathered from the whole partition. Chunks are no value of their own.
    pub(super) fn read(partition: Partition<'a>, placed: &Placed<'a>) -> Result<Self, NvsError> {
        let entry = placed.entry().ok_or(NvsError::NotFound)?;
        let data = &entry.data;
        Ok(match entry.item_type.ok_or(NvsError::NotFound)? {
            ItemType::U8 => Self::U8(u8::from_le_bytes(field(data, 0))),
            ItemType::I8 => Self::I8(i8::from_le_bytes(field(data, 0))),
            ItemType::U16 => Self::U16(u16::from_le_bytes(field(data, 0))),
            ItemType::I16 => Self::I16(i16::from_le_bytes(field(data, 0))),
            ItemType::U32 => Self::U32(u32::from_le_bytes(field(data, 0))),
            ItemType::I32 => Self::I32(i32::from_le_bytes(field(data, 0))),
            ItemType::U64 => Self::U64(u64::from_le_bytes(field(data, 0))),
            ItemType::I64 => Self::I64(i64::from_le_bytes(field(data, 0))),
            ItemType::Text => Self::Text(text(slot_value(placed, entry)?)?),
            ItemType::OldBlob => Self::Blob(Blob::old(partition, entry, slot_value(placed, entry)?)),
            ItemType::BlobIndex => Self::Blob(Blob::gather(partition, entry)?),
            ItemType::BlobData => return Err(NvsError::NotFound),
        })
    }
}

/// The octets in the slots after an entry, checked against its CRC.
pub(super) fn slot_value<'a>(placed: &Placed<'a>, entry: &Entry) -> Result<&'a [u8], NvsError> {
    let octets = entry.value_octets().unwrap_or_default();
    let slots = placed.data_slots();
    // The firmware copies from all slots of the item: more slots than the value needs are no valid item either.
    if octets.div_ceil(ENTRY_OCTETS) * ENTRY_OCTETS != slots.len() {
        return Err(NvsError::Damaged(DamagedValue::Length));
    }
    let value = slots.get(..octets).ok_or(NvsError::Damaged(DamagedValue::Length))?;
    if crc32(&[value]) != entry.value_crc() {
        return Err(NvsError::Damaged(DamagedValue::Checksum));
    }
    Ok(value)
}

fn text(value: &[u8]) -> Result<&str, NvsError> {
    let damaged = NvsError::Damaged(DamagedValue::Text);
    let (nul, text) = value.split_last().ok_or(damaged)?;
    match core::str::from_utf8(text) {
        Ok(text) if *nul == 0 && !text.contains('\0') => Ok(text),
        _ => Err(damaged),
    }
}

impl<'a> Blob<'a> {
    fn old(partition: Partition<'a>, entry: &Entry, value: &'a [u8]) -> Self {
        let source = BlobSource::Old(value);
        Self { partition, source, key: entry.key, namespace: entry.namespace, octets: value.len() }
    }

    /// Checks that every chunk is there and whole, and that they add up.
    fn gather(partition: Partition<'a>, index: &Entry) -> Result<Self, NvsError> {
        let (count, start) = index.chunks();
        let octets = index.value_octets().unwrap_or(usize::MAX);
        if count > MAX_CHUNKS || start & MAX_CHUNKS != 0 {
            return Err(NvsError::Damaged(DamagedValue::BlobLength));
        }
        let source = BlobSource::Chunks { count, start };
        let blob = Self { partition, source, key: index.key, namespace: index.namespace, octets };
        let mut sum = 0_usize;
        for chunk in blob.chunks() {
            sum = sum.saturating_add(chunk?.len());
        }
        if sum == octets { Ok(blob) } else { Err(NvsError::Damaged(DamagedValue::BlobLength)) }
    }

    /// Its length in octets.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.octets
    }

    /// Whether it has no octets.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.octets == 0
    }

    /// Its chunks in order.
    pub fn chunks(&self) -> impl Iterator<Item = Result<&'a [u8], NvsError>> {
        let blob = *self;
        let (count, old) = match self.source {
            BlobSource::Old(value) => (0, Some(Ok(value))),
            BlobSource::Chunks { count, .. } => (count, None),
        };
        old.into_iter().chain((0..count).map(move |number| blob.chunk(number)))
    }

    /// Copies it to the beginning of `buffer` and returns its octets there.
    ///
    /// # Errors
    /// [`NvsError::BufferTooShort`].
    pub fn copy_to<'b>(&self, buffer: &'b mut [u8]) -> Result<&'b [u8], NvsError> {
        let too_short = NvsError::BufferTooShort { needed: self.octets };
        let target = buffer.get_mut(..self.octets).ok_or(too_short)?;
        let mut rest = &mut *target;
        for chunk in self.chunks() {
            let chunk = chunk?;
            let (place, after) = rest.split_at_mut_checked(chunk.len()).ok_or(too_short)?;
            place.copy_from_slice(chunk);
            rest = after;
        }
        Ok(target)
    }

    fn chunk(&self, number: u8) -> Result<&'a [u8], NvsError> {
        let BlobSource::Chunks { start, .. } = self.source else { return Err(NvsError::NotFound) };
        let chunk = start | number;
        let is_it = |entry: &Entry| entry.item_type == Some(ItemType::BlobData) && entry.chunk == chunk;
        let found = self.partition.last_item(self.namespace, &self.key, is_it);
        let placed = found.ok_or(NvsError::Damaged(DamagedValue::MissingChunk { number }))?;
        let entry = placed.entry().ok_or(NvsError::NotFound)?;
        slot_value(&placed, entry)
    }
}

//! A value as the slots of one page, for whoever writes flash slot by slot.

use super::entry::{Entry, EntryKey, ItemType};
use super::value::Value;
use super::{ENTRIES_PER_PAGE, ENTRY_OCTETS, MAX_NAMESPACES, MAX_TEXT_OCTETS, NO_CHUNK, NvsError};
use crate::octets::{crc32, put};

/// The most octets of a blob that lies in one page, with its entry and its index.
pub const MAX_BLOB_IN_PAGE_OCTETS: usize = (ENTRIES_PER_PAGE - 2) * ENTRY_OCTETS;

/// A value that lies in one page. It can be a secret, so it is not printed.
pub struct Item<'a> {
    head: [u8; ENTRY_OCTETS],
    /// What follows in slots of its own.
    value: &'a [u8],
    data_slots: usize,
    has_nul: bool,
    index: Option<[u8; ENTRY_OCTETS]>,
}

impl<'a> Item<'a> {
    /// The entry that gives the namespace `name` its number, 1 to 254.
    ///
    /// # Errors
    /// [`NvsError::Name`], [`NvsError::TooManyNamespaces`].
    pub fn namespace(name: &str, number: u8) -> Result<Self, NvsError> {
        if !(1..=MAX_NAMESPACES).contains(&number) {
            return Err(NvsError::TooManyNamespaces);
        }
        Self::new(0, EntryKey::new(name)?, Value::U8(number), 0)
    }

    /// A value. `chunk` is the number of the one chunk of a blob: 0 or 128, whichever the blob does not have whose place it takes.
    ///
    /// # Errors
    /// [`NvsError::NulInText`], [`NvsError::ValueTooLong`].
    pub fn new(namespace: u8, key: EntryKey, value: Value<'a>, chunk: u8) -> Result<Self, NvsError> {
        let item_type = value.item_type();
        let entry = |span: u8, chunk, data| Entry { namespace, item_type: None, span, chunk, key, data };
        let (octets, has_nul, limit, chunk) = match value {
            Value::Text(text) if text.contains('\0') => return Err(NvsError::NulInText),
            Value::Text(text) => (text.as_bytes(), true, MAX_TEXT_OCTETS, NO_CHUNK),
            Value::Blob(blob) => (blob, false, MAX_BLOB_IN_PAGE_OCTETS, chunk),
            number => {
                let head = entry(1, NO_CHUNK, number.number_data()).to_octets(item_type);
                return Ok(Self { head, value: &[], data_slots: 0, has_nul: false, index: None });
            }
        };
        let length = octets.len() + usize::from(has_nul);
        if length > limit {
            return Err(NvsError::ValueTooLong { octets: length, limit });
        }
        let end: &[u8] = if has_nul { &[0] } else { &[] };
        let data_slots = length.div_ceil(ENTRY_OCTETS);
        // At most one page, as was checked.
        let span = u8::try_from(1 + data_slots).unwrap_or(u8::MAX);
        let head = entry(span, chunk, length_and_crc(length, crc32(&[octets, end]))).to_octets(item_type);
        let index = (item_type == ItemType::BlobData).then(|| {
            let mut data = [0xff; 8];
            put(&mut data, 0, &u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes());
            put(&mut data, 4, &[1, chunk]);
            entry(1, NO_CHUNK, data).to_octets(ItemType::BlobIndex)
        });
        Ok(Self { head, value: octets, data_slots, has_nul, index })
    }

    /// How many slots it takes.
    #[must_use]
    pub fn slots(&self) -> usize {
        1 + self.data_slots + usize::from(self.index.is_some())
    }

    /// The octets of one of them. Beyond the last one they are ff.
    #[must_use]
    pub fn slot(&self, number: usize) -> [u8; ENTRY_OCTETS] {
        let Some(data_slot) = number.checked_sub(1) else { return self.head };
        if data_slot == self.data_slots {
            return self.index.unwrap_or([0xff; ENTRY_OCTETS]);
        }
        let mut octets = [0xff; ENTRY_OCTETS];
        let rest = self.value.get(data_slot * ENTRY_OCTETS..).unwrap_or_default();
        let end = [0].into_iter().take(usize::from(self.has_nul && data_slot < self.data_slots));
        octets.iter_mut().zip(rest.iter().copied().chain(end)).for_each(|(place, octet)| *place = octet);
        octets
    }

    /// Whether it is a blob, whose last slot is its index.
    #[must_use]
    pub const fn is_blob(&self) -> bool {
        self.index.is_some()
    }
}

pub(super) fn length_and_crc(octets: usize, crc: u32) -> [u8; 8] {
    let mut data = [0xff; 8];
    // At most one page: the callers have checked.
    put(&mut data, 0, &u16::try_from(octets).unwrap_or(u16::MAX).to_le_bytes());
    put(&mut data, 4, &crc.to_le_bytes());
    data
}

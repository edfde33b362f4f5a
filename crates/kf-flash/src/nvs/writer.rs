//! Laying out a new partition.

use super::entry::{Entry, EntryKey, ItemType};
use super::item::length_and_crc;
use super::page::{self, FULL};
use super::partition::check_size;
use super::value::Value;
use super::{
    ENTRIES_PER_PAGE, ENTRY_OCTETS, FIRST_ENTRY_OFFSET, MAX_BLOB_OCTETS, MAX_CHUNKS, MAX_NAMESPACES, MAX_TEXT_OCTETS,
    NO_CHUNK, NvsError, PAGE_OCTETS,
};
use crate::octets::{crc32, put};

/// Writes a new partition into a buffer of the caller, which is plain until [`super::NvsCipher::encrypt`].
///
/// Where the vendor's generator accepts the same items in the same order, it makes the same octets, with two
/// exceptions that are better for the firmware: no empty first chunk when a blob starts at the last slot of a page, and a
/// namespace that is named again is used again.
pub struct Writer<'a> {
    octets: &'a mut [u8],
    /// Pages that may be begun.
    pages: usize,
    page: usize,
    slot: usize,
    namespaces: u8,
}

/// A namespace of the partition being written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Namespace(u8);

/// What was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// Pages with entries.
    pub pages: usize,
    /// Slots in use in the last of them.
    pub slots: usize,
}

impl<'a> Writer<'a> {
    /// Begins a partition that the device will write to: at least three pages, the last of which stays blank, because the
    /// firmware needs it to move entries. What `octets` held is gone.
    ///
    /// # Errors
    /// [`NvsError::PartitionSize`], [`NvsError::TooSmallToWrite`].
    pub fn new(octets: &'a mut [u8]) -> Result<Self, NvsError> {
        check_size(octets.len())?;
        let pages = octets.len() / PAGE_OCTETS;
        if pages < 3 {
            return Err(NvsError::TooSmallToWrite { pages });
        }
        Ok(Self::begin(octets, pages - 1))
    }

    /// Begins a partition that is marked `readonly` in the partition table: one page is enough, and every page is used.
    ///
    /// # Errors
    /// [`NvsError::PartitionSize`].
    pub fn read_only(octets: &'a mut [u8]) -> Result<Self, NvsError> {
        check_size(octets.len())?;
        let pages = octets.len() / PAGE_OCTETS;
        Ok(Self::begin(octets, pages))
    }

    fn begin(octets: &'a mut [u8], pages: usize) -> Self {
        octets.fill(0xff);
        let mut writer = Self { octets, pages, page: 0, slot: 0, namespaces: 0 };
        page::write_header(writer.page_octets(), 0);
        writer
    }

    /// The namespace `name`, begun if it is new.
    ///
    /// # Errors
    /// [`NvsError::Name`], [`NvsError::TooManyNamespaces`], [`NvsError::Full`].
    pub fn namespace(&mut self, name: &str) -> Result<Namespace, NvsError> {
        let key = EntryKey::new(name)?;
        // The number is the value of the entry, in its last eight octets.
        if let Some([.., number, _, _, _, _, _, _, _]) = self.find(0, &key) {
            return Ok(Namespace(*number));
        }
        if self.namespaces == MAX_NAMESPACES {
            return Err(NvsError::TooManyNamespaces);
        }
        let number = self.namespaces + 1;
        self.write_number(0, key, &Value::U8(number))?;
        self.namespaces = number;
        Ok(Namespace(number))
    }

    /// Writes one value. When this fails nothing of it was written.
    ///
    /// # Errors
    /// [`NvsError::Name`], [`NvsError::DuplicateKey`], [`NvsError::NulInText`], [`NvsError::ValueTooLong`],
    /// [`NvsError::Full`].
    pub fn write(&mut self, namespace: Namespace, key: &str, value: Value<'_>) -> Result<(), NvsError> {
        let key = EntryKey::new(key)?;
        if self.find(namespace.0, &key).is_some() {
            return Err(NvsError::DuplicateKey);
        }
        match value {
            Value::Text(text) => self.write_text(namespace.0, key, text),
            Value::Blob(blob) => self.write_blob(namespace.0, key, blob),
            number => self.write_number(namespace.0, key, &number),
        }
    }

    /// What was written, and the end of writing.
    pub const fn finish(self) -> Written {
        Written { pages: self.page + 1, slots: self.slot }
    }

    /// The entry of this key, if one was written. What was written here is whole, so that headers are enough: a reader would
    /// check every item again for each that is added.
    fn find(&self, namespace: u8, key: &EntryKey) -> Option<&[u8; ENTRY_OCTETS]> {
        let pages = self.octets.chunks_exact(PAGE_OCTETS).take(self.page + 1).enumerate();
        let mut items = pages.flat_map(|(page, octets)| {
            let end = if page == self.page { self.slot } else { ENTRIES_PER_PAGE };
            page::headers(octets, end)
        });
        items.find(|header| header.first() == Some(&namespace) && header.get(8..24) == Some(key.padded().as_slice()))
    }

    fn write_number(&mut self, namespace: u8, key: EntryKey, value: &Value<'_>) -> Result<(), NvsError> {
        if self.slot == ENTRIES_PER_PAGE {
            self.next_page()?;
        }
        let entry = Entry { namespace, item_type: None, span: 1, chunk: NO_CHUNK, key, data: value.number_data() };
        self.put_entry(entry, value.item_type());
        Ok(())
    }

    fn write_text(&mut self, namespace: u8, key: EntryKey, text: &str) -> Result<(), NvsError> {
        if text.contains('\0') {
            return Err(NvsError::NulInText);
        }
        let octets = text.len() + 1;
        if octets > MAX_TEXT_OCTETS {
            return Err(NvsError::ValueTooLong { octets, limit: MAX_TEXT_OCTETS });
        }
        let slots = 1 + octets.div_ceil(ENTRY_OCTETS);
        // The generator never fills the last slot of a page with text, so that only a whole page of text does here.
        if self.slot > 0 && self.slot + slots >= ENTRIES_PER_PAGE {
            self.next_page()?;
        }
        let data = length_and_crc(octets, crc32(&[text.as_bytes(), &[0]]));
        let span = u8::try_from(slots).unwrap_or(u8::MAX);
        let entry = Entry { namespace, item_type: None, span, chunk: NO_CHUNK, key, data };
        self.put_entry(entry, ItemType::Text);
        self.put_data(text.as_bytes(), &[0]);
        Ok(())
    }

    fn write_blob(&mut self, namespace: u8, key: EntryKey, blob: &[u8]) -> Result<(), NvsError> {
        if blob.len() > MAX_BLOB_OCTETS {
            return Err(NvsError::ValueTooLong { octets: blob.len(), limit: MAX_BLOB_OCTETS });
        }
        if !self.has_room_for_blob(blob.len()) {
            return Err(NvsError::Full);
        }
        let (mut rest, mut count) = (blob, 0_u8);
        loop {
            if ENTRIES_PER_PAGE - self.slot < 2 && !(rest.is_empty() && self.slot < ENTRIES_PER_PAGE) {
                self.next_page()?;
            }
            let (chunk, after) = rest.split_at(rest.len().min((ENTRIES_PER_PAGE - self.slot - 1) * ENTRY_OCTETS));
            let span = u8::try_from(1 + chunk.len().div_ceil(ENTRY_OCTETS)).unwrap_or(u8::MAX);
            let data = length_and_crc(chunk.len(), crc32(&[chunk]));
            self.put_entry(Entry { namespace, item_type: None, span, chunk: count, key, data }, ItemType::BlobData);
            self.put_data(chunk, &[]);
            count += 1;
            rest = after;
            if rest.is_empty() {
                break;
            }
        }
        if self.slot == ENTRIES_PER_PAGE {
            self.next_page()?;
        }
        let mut data = [0xff; 8];
        put(&mut data, 0, &u32::try_from(blob.len()).unwrap_or(u32::MAX).to_le_bytes());
        put(&mut data, 4, &[count, 0]);
        self.put_entry(Entry { namespace, item_type: None, span: 1, chunk: NO_CHUNK, key, data }, ItemType::BlobIndex);
        Ok(())
    }

    /// Whether all chunks and the index fit, in so few chunks that their numbers are enough.
    fn has_room_for_blob(&self, octets: usize) -> bool {
        let (mut page, mut slot, mut rest, mut chunks) = (self.page, self.slot, octets, 0);
        loop {
            if ENTRIES_PER_PAGE - slot < 2 && !(rest == 0 && slot < ENTRIES_PER_PAGE) {
                (page, slot) = (page + 1, 0);
            }
            let chunk = rest.min((ENTRIES_PER_PAGE - slot - 1) * ENTRY_OCTETS);
            slot += 1 + chunk.div_ceil(ENTRY_OCTETS);
            rest -= chunk;
            chunks += 1;
            if rest == 0 {
                break;
            }
        }
        page + usize::from(slot == ENTRIES_PER_PAGE) < self.pages && chunks <= usize::from(MAX_CHUNKS)
    }

    /// Closes the page and begins the next.
    fn next_page(&mut self) -> Result<(), NvsError> {
        if self.page + 1 >= self.pages {
            return Err(NvsError::Full);
        }
        put(self.page_octets(), 0, &FULL.to_le_bytes());
        (self.page, self.slot) = (self.page + 1, 0);
        let sequence = u32::try_from(self.page).unwrap_or(u32::MAX);
        page::write_header(self.page_octets(), sequence);
        Ok(())
    }

    fn page_octets(&mut self) -> &mut [u8] {
        self.octets.get_mut(self.page * PAGE_OCTETS..(self.page + 1) * PAGE_OCTETS).unwrap_or_default()
    }

    fn put_entry(&mut self, entry: Entry, item_type: ItemType) {
        let octets = entry.to_octets(item_type);
        let slot = self.slot;
        put(self.page_octets(), FIRST_ENTRY_OFFSET + slot * ENTRY_OCTETS, &octets);
        page::mark_written(self.page_octets(), slot);
        self.slot += 1;
    }

    /// Puts a value into the next slots; the rest of the last one stays ff.
    fn put_data(&mut self, value: &[u8], end: &[u8]) {
        let slot = self.slot;
        let octets = value.len() + end.len();
        let start = FIRST_ENTRY_OFFSET + slot * ENTRY_OCTETS;
        put(self.page_octets(), start, value);
        put(self.page_octets(), start + value.len(), end);
        let slots = octets.div_ceil(ENTRY_OCTETS);
        for used in slot..slot + slots {
            page::mark_written(self.page_octets(), used);
        }
        self.slot += slots;
    }
}

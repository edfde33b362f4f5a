//! Reading a partition.

use super::entry::{Entry, EntryKey, EntryState, ItemType, Placed};
use super::page::Page;
use super::value::Stored;
use super::{MAX_PARTITION_OCTETS, NvsError, PAGE_OCTETS};

/// A plain partition, read where it lies.
#[derive(Clone, Copy)]
pub struct Partition<'a>(&'a [u8]);

impl<'a> Partition<'a> {
    /// Takes a partition of whole pages. Damaged pages are for [`Partition::pages`] to show, not an error here.
    ///
    /// # Errors
    /// [`NvsError::PartitionSize`].
    pub fn new(octets: &'a [u8]) -> Result<Self, NvsError> {
        check_size(octets.len())?;
        Ok(Self(octets))
    }

    /// Its octets.
    #[must_use]
    pub const fn octets(&self) -> &'a [u8] {
        self.0
    }

    /// Its pages as they lie in flash.
    pub fn pages(&self) -> impl Iterator<Item = Page<'a>> + use<'a> {
        self.0.chunks_exact(PAGE_OCTETS).enumerate().map(|(index, octets)| Page::new(index, octets))
    }

    /// The pages that the firmware looks at, in the order in which they were begun.
    pub fn pages_in_use(&self) -> impl Iterator<Item = Page<'a>> + use<'a> {
        let partition = *self;
        let mut before = None;
        core::iter::from_fn(move || {
            let later = |page: &Page<'a>| page.is_in_use() && before.is_none_or(|before| place(page) > before);
            let next = partition.pages().filter(later).min_by_key(place)?;
            before = Some(place(&next));
            Some(next)
        })
    }

    /// Everything that is not blank in pages in use, oldest page first: items, erased items, damaged and left-over slots.
    pub fn entries(&self) -> impl Iterator<Item = Placed<'a>> + use<'a> {
        self.pages_in_use().flat_map(Page::entries)
    }

    /// The items in use, oldest first. After a power cut two of them can be the same item; the later one holds.
    pub fn items(&self) -> impl Iterator<Item = (Placed<'a>, Entry)> + use<'a> {
        self.entries()
            .filter(|placed| placed.state == EntryState::Written)
            .filter_map(|placed| placed.entry().copied().map(|entry| (placed, entry)))
    }

    /// The number of the namespace `name`, if it is there.
    ///
    /// # Errors
    /// [`NvsError::Name`] when nothing can have this name.
    pub fn namespace(&self, name: &str) -> Result<Option<u8>, NvsError> {
        let name = EntryKey::new(name)?;
        let found = self.last_item(0, &name, |entry| entry.item_type == Some(ItemType::U8));
        let number = found.and_then(|placed| placed.entry().map(|entry| entry.data));
        Ok(number.and_then(|data| data.first().copied()))
    }

    /// The name of the namespace `number`, if it is there.
    #[must_use]
    pub fn namespace_name(&self, number: u8) -> Option<EntryKey> {
        let is_it = |entry: &Entry| {
            entry.namespace == 0 && entry.item_type == Some(ItemType::U8) && entry.data.first() == Some(&number)
        };
        self.items().map(|(_, entry)| entry).filter(is_it).last().map(|entry| entry.key)
    }

    /// The value of `key` in the namespace `number`, if it is there.
    ///
    /// # Errors
    /// [`NvsError::Name`], and [`NvsError::Damaged`] when it is there but not whole.
    pub fn value(&self, number: u8, key: &str) -> Result<Option<Stored<'a>>, NvsError> {
        let key = EntryKey::new(key)?;
        let is_value = |entry: &Entry| entry.item_type.is_some_and(|found| found != ItemType::BlobData);
        match self.last_item(number, &key, is_value) {
            Some(placed) => Stored::read(*self, &placed).map(Some),
            None => Ok(None),
        }
    }

    /// What the item at `placed` holds: see [`Partition::items`].
    ///
    /// # Errors
    /// [`NvsError::NotFound`] for what is no value of its own, such as a chunk, and [`NvsError::Damaged`].
    pub fn read(&self, placed: &Placed<'a>) -> Result<Stored<'a>, NvsError> {
        Stored::read(*self, placed)
    }

    /// The last item in use with this key of which `accepts` holds.
    pub(super) fn last_item(
        &self,
        namespace: u8,
        key: &EntryKey,
        accepts: impl Fn(&Entry) -> bool,
    ) -> Option<Placed<'a>> {
        self.items()
            .filter(|(_, entry)| entry.namespace == namespace && entry.key == *key && accepts(entry))
            .last()
            .map(|(placed, _)| placed)
    }
}

/// Refuses what is no whole number of pages.
pub(super) const fn check_size(octets: usize) -> Result<(), NvsError> {
    if octets == 0 || !octets.is_multiple_of(PAGE_OCTETS) || octets > MAX_PARTITION_OCTETS {
        return Err(NvsError::PartitionSize { octets });
    }
    Ok(())
}

/// Pages that claim the same sequence number keep the order of flash.
const fn place(page: &Page<'_>) -> (u32, usize) {
    (page.sequence, page.index)
}

//! Values that the SDK itself writes into a partition which lies under the storage key.
//!
//! ESP-IDF's driver appends, and clears bits of words that were programmed before. Here a page is written anew, with what stays of it
//! and the value, into the spare page; the header of the copy, its checksum last, is the commit. So words are programmed once between
//! two erasures, as everywhere in the SDK, and a value is the old one or the new one. Price: one erasure for each value. What changes
//! often is better written by ESP-IDF's driver.
//!
//! The copy has the number of its original, so that the order of pages stays, and the next edition: an octet of the header that the
//! format reserves and no reader looks at. Of two pages with one number the next edition is what counts; the other one is erased.
//!
//! A value that does not fit where it was moves to another page, and a blob may have lain in several. The journal notes which key that
//! is, and what a power cut leaves twice is settled before the next value is written.

use kf_flash::nvs::{
    ENTRIES_PER_PAGE, Entry, EntryKey, EntryState, Item, ItemType, NvsCipher, NvsError as FormatError, PageHead, Value,
};
use zeroize::Zeroize;

use super::{Found, HEAD_OCTETS, KeepError, Nvs, NvsError, Slot, Under, place, slot_place};
use crate::protected::{NvsKept, StorageKeys, nvs_kept};
use crate::record::{NVS_KEPT, NVS_UNSETTLED};
use crate::storage::{Change, Flash, Integrity, Store};

/// Number of the namespace, then the key.
const MAX_NAME_OCTETS: usize = 1 + 15;

/// What a value is found by.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Name {
    namespace: u8,
    key: EntryKey,
}

impl Name {
    fn is_of(&self, entry: &Entry) -> bool {
        entry.namespace == self.namespace && entry.key == self.key
    }
}

/// Where a value goes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Target {
    /// The page is written anew.
    Page(u32),
    /// A blank page is begun.
    Blank,
}

/// A page that is being written.
pub(super) struct Filling {
    page: u32,
    slots: usize,
}

impl StorageKeys {
    /// Sets a value of the partition, `(namespace, key)`. A power cut leaves the old value or the new one. A number or text that is there
    /// already is not written again.
    ///
    /// # Errors
    /// [`KeepError::UnderWay`] while one storage key takes over from another, [`KeepError::NotKept`];
    /// [`NvsError::Full`] before anything is written, [`NvsError::Value`].
    pub fn put_nvs<F: Flash, I: Integrity, P: Flash, N>(
        &self,
        store: &mut Store<F, I>,
        nvs: &mut Nvs<P>,
        (namespace, key): (&str, &str),
        value: Value<'_>,
    ) -> Result<(), KeepError<F::Error, N, P::Error>> {
        let cipher = self.settled(store, nvs)?;
        let key = EntryKey::new(key).map_err(refused)?;
        // A value that cannot be is refused before a namespace is made for it.
        let _can_be = Item::new(1, key, value, 0).map_err(refused)?;
        let namespace = nvs.namespace(&cipher, namespace)?;
        let name = Name { namespace, key };
        let before = nvs.value_of(&cipher, &name)?;
        let chunk = before.map_or(0, |found| match found.entry.item_type {
            Some(ItemType::BlobIndex) => found.entry.chunks().1 ^ 0x80,
            _ => 0,
        });
        let item = Item::new(namespace, key, value, chunk).map_err(refused)?;
        if let Some(found) = before
            && nvs.holds(found, &item)?
        {
            return Ok(());
        }
        replace(store, nvs, &cipher, (name, before), Some(&item))
    }

    /// Removes a value of the partition; `false` when there is none.
    ///
    /// # Errors
    /// As [`StorageKeys::put_nvs`].
    pub fn remove_nvs<F: Flash, I: Integrity, P: Flash, N>(
        &self,
        store: &mut Store<F, I>,
        nvs: &mut Nvs<P>,
        (namespace, key): (&str, &str),
    ) -> Result<bool, KeepError<F::Error, N, P::Error>> {
        let cipher = self.settled(store, nvs)?;
        let (namespace, key) = (EntryKey::new(namespace).map_err(refused)?, EntryKey::new(key).map_err(refused)?);
        let Some(namespace) = nvs.number_of(&[Under::Keys(&cipher)], namespace)? else { return Ok(false) };
        let name = Name { namespace, key };
        let before = nvs.value_of(&cipher, &name)?;
        if before.is_none() {
            return Ok(false);
        }
        replace(store, nvs, &cipher, (name, before), None).map(|()| true)
    }

    /// Finishes what a power cut left of a value that was being written or removed: before ESP-IDF's driver mounts the partition after a
    /// start. [`StorageKeys::put_nvs`] does it by itself.
    ///
    /// # Errors
    /// As [`StorageKeys::put_nvs`].
    pub fn settle_nvs<F: Flash, I: Integrity, P: Flash, N>(
        &self,
        store: &mut Store<F, I>,
        nvs: &mut Nvs<P>,
    ) -> Result<(), KeepError<F::Error, N, P::Error>> {
        self.settled(store, nvs).map(drop)
    }

    /// The cipher of a partition that lies under one key alone, with nothing left by a power cut.
    fn settled<F: Flash, I: Integrity, P: Flash, N>(
        &self,
        store: &mut Store<F, I>,
        nvs: &mut Nvs<P>,
    ) -> Result<NvsCipher, KeepError<F::Error, N, P::Error>> {
        match nvs_kept(store)? {
            None => return Err(KeepError::NotKept),
            Some(NvsKept::OnItsWay) => return Err(KeepError::UnderWay),
            Some(NvsKept::Kept) if self.left.is_some() => return Err(KeepError::UnderWay),
            Some(NvsKept::Kept) => {}
        }
        let cipher = self.nvs_keys().map_err(KeepError::Protect)?.cipher();
        nvs.clear_what_is_replaced()?;
        let mut octets = [0; MAX_NAME_OCTETS];
        if let Some(length) = store.read(NVS_UNSETTLED, &mut octets)? {
            nvs.keep_the_last(&cipher, &name_in(octets.get(..length).unwrap_or_default())?)?;
            store.update(&[Change::Remove(NVS_UNSETTLED)])?;
        }
        Ok(cipher)
    }
}

fn refused<F>(error: FormatError) -> NvsError<F> {
    match error {
        FormatError::Name => NvsError::Name,
        FormatError::TooManyNamespaces => NvsError::Full,
        _ => NvsError::Value,
    }
}

fn name_in<F, N, P>(octets: &[u8]) -> Result<Name, KeepError<F, N, P>> {
    let damaged = || KeepError::from(crate::storage::StorageError::Corrupt);
    let (namespace, key) = octets.split_first().ok_or_else(damaged)?;
    let key = core::str::from_utf8(key).ok().and_then(|key| EntryKey::new(key).ok()).ok_or_else(damaged)?;
    Ok(Name { namespace: *namespace, key })
}

/// Writes `item`, and removes everything else of its name.
fn replace<F: Flash, I: Integrity, P: Flash, N>(
    store: &mut Store<F, I>,
    nvs: &mut Nvs<P>,
    cipher: &NvsCipher,
    (name, before): (Name, Option<Found<'_>>),
    item: Option<&Item<'_>>,
) -> Result<(), KeepError<F::Error, N, P::Error>> {
    let target = item.map(|item| nvs.target(cipher, &name, before, item.slots())).transpose()?;
    let other = nvs.page_with(cipher, &name, target)?;
    if other.is_some() {
        let mut octets = [0; MAX_NAME_OCTETS];
        let all = core::iter::once(&name.namespace).chain(name.key.octets());
        let length = octets.iter_mut().zip(all).map(|(place, octet)| *place = *octet).count();
        store.put(NVS_UNSETTLED, octets.get(..length).unwrap_or_default())?;
    }
    let others = |_: usize, entry: &Entry| !name.is_of(entry);
    let written = match target {
        Some(Target::Page(page)) => Some(Target::Page(nvs.rewrite(Some(page), cipher, others, item)?)),
        Some(Target::Blank) => Some(Target::Page(nvs.rewrite(None, cipher, others, item)?)),
        None => None,
    };
    if other.is_some() {
        // The value first: without its chunks it would be damaged, and they are nothing without it.
        if let Some(found) = before.filter(|found| Some(Target::Page(found.page)) != target) {
            nvs.rewrite(Some(found.page), cipher, others, None)?;
        }
        while let Some(page) = nvs.page_with(cipher, &name, written)? {
            nvs.rewrite(Some(page), cipher, others, None)?;
        }
        store.update(&[Change::Remove(NVS_UNSETTLED)])?;
    }
    Ok(())
}

/// Without the note of what is unsettled, for a partition that is made anew.
pub(super) fn note_kept<F: Flash, I: Integrity>(
    store: &mut Store<F, I>,
) -> Result<(), crate::storage::StorageError<F::Error>> {
    let kept = Change::Put(NVS_KEPT, &[2]);
    match store.read(NVS_UNSETTLED, &mut [0; MAX_NAME_OCTETS])? {
        Some(_) => store.update(&[kept, Change::Remove(NVS_UNSETTLED)]),
        None => store.update(&[kept]),
    }
}

impl<F: Flash> Nvs<F> {
    /// Erases pages of which the next edition is there, and those without a header that is whole.
    fn clear_what_is_replaced(&mut self) -> Result<(), NvsError<F::Error>> {
        for page in 0..self.pages {
            let is_left = match self.head(page)? {
                Some(head) => self.is_replaced(page, &head)?,
                None => !self.is_blank(page)?,
            };
            if is_left {
                self.clear(page)?;
            }
        }
        Ok(())
    }

    /// The number of a namespace, which is begun when it is new.
    fn namespace(&mut self, cipher: &NvsCipher, name: &str) -> Result<u8, NvsError<F::Error>> {
        let key = EntryKey::new(name).map_err(refused)?;
        let keys = [Under::Keys(cipher)];
        if let Some(number) = self.number_of(&keys, key)? {
            return Ok(number);
        }
        let mut highest = 0;
        self.last(&keys, |entry| {
            let number = (entry.namespace == 0).then(|| entry.number()?.first().copied()).flatten();
            highest = highest.max(number.unwrap_or(0));
            false
        })?;
        let number = highest.checked_add(1).ok_or(NvsError::Full)?;
        let item = Item::namespace(name, number).map_err(refused)?;
        let all = |_: usize, _: &Entry| true;
        match self.target(cipher, &Name { namespace: 0, key }, None, item.slots())? {
            Target::Page(page) => self.rewrite(Some(page), cipher, all, Some(&item))?,
            Target::Blank => self.rewrite(None, cipher, all, Some(&item))?,
        };
        Ok(number)
    }

    /// The value of a name that counts, or the index of it.
    fn value_of<'a>(&mut self, cipher: &'a NvsCipher, name: &Name) -> Result<Option<Found<'a>>, NvsError<F::Error>> {
        self.last(&[Under::Keys(cipher)], |entry| name.is_of(entry) && entry.item_type != Some(ItemType::BlobData))
    }

    /// Whether a number or text is there already, octet for octet.
    fn holds(&mut self, found: Found<'_>, item: &Item<'_>) -> Result<bool, NvsError<F::Error>> {
        if item.is_blob() || usize::from(found.entry.span) != item.slots() {
            return Ok(false);
        }
        for number in 0..item.slots() {
            let mut there = self.slot(found.page, found.slot + number, found.under)?;
            let is_same = there == item.slot(number);
            there.zeroize();
            if !is_same {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The page for so many more slots: the one in which the value is, another one with room, or a blank one that is not the last.
    fn target(
        &mut self,
        cipher: &NvsCipher,
        name: &Name,
        before: Option<Found<'_>>,
        slots: usize,
    ) -> Result<Target, NvsError<F::Error>> {
        let first = before.map(|found| found.page);
        for page in first.into_iter().chain(0..self.pages) {
            if self.head(page)?.is_some() && self.slots_but(page, cipher, name)? + slots <= ENTRIES_PER_PAGE {
                return Ok(Target::Page(page));
            }
        }
        let mut blank = 0;
        for page in 0..self.pages {
            blank += u32::from(self.is_blank(page)?);
        }
        if blank > 1 { Ok(Target::Blank) } else { Err(NvsError::Full) }
    }

    /// Slots of a page that are in use by other names. One that opens under no key is not written anew.
    fn slots_but(&mut self, page: u32, cipher: &NvsCipher, name: &Name) -> Result<usize, NvsError<F::Error>> {
        let states = self.states(page)?;
        let (mut slot, mut used) = (0, 0);
        while let Some((found, entry)) = self.next_item(page, &states, slot, Under::Keys(cipher))? {
            slot = found + usize::from(entry.span);
            used += if name.is_of(&entry) { 0 } else { usize::from(entry.span) };
        }
        let is_used = (0..ENTRIES_PER_PAGE).any(|slot| EntryState::of(&states, slot) == EntryState::Written);
        if slot == 0 && is_used { Err(NvsError::Unreadable { page }) } else { Ok(used) }
    }

    /// The first page but this one in which something of a name lies.
    fn page_with(
        &mut self,
        cipher: &NvsCipher,
        name: &Name,
        but: Option<Target>,
    ) -> Result<Option<u32>, NvsError<F::Error>> {
        self.page_where(cipher, |page, _, entry| Some(Target::Page(page)) != but && name.is_of(entry))
    }

    fn page_where(
        &mut self,
        cipher: &NvsCipher,
        accepts: impl Fn(u32, usize, &Entry) -> bool,
    ) -> Result<Option<u32>, NvsError<F::Error>> {
        for page in 0..self.pages {
            if self.head(page)?.is_none() {
                continue;
            }
            let states = self.states(page)?;
            let mut slot = 0;
            while let Some((found, entry)) = self.next_item(page, &states, slot, Under::Keys(cipher))? {
                if accepts(page, found, &entry) {
                    return Ok(Some(page));
                }
                slot = found + usize::from(entry.span);
            }
        }
        Ok(None)
    }

    /// Leaves of a name the value that counts and its chunks.
    fn keep_the_last(&mut self, cipher: &NvsCipher, name: &Name) -> Result<(), NvsError<F::Error>> {
        for _ in 0..=self.pages {
            let value = self.value_of(cipher, name)?;
            let counts = |page: u32, slot: usize, entry: &Entry| {
                value.is_some_and(|value| {
                    let (count, start) = value.entry.chunks();
                    let is_index = value.entry.item_type == Some(ItemType::BlobIndex);
                    let is_chunk = is_index && entry.item_type == Some(ItemType::BlobData);
                    (value.page, value.slot) == (page, slot) || is_chunk && entry.chunk.wrapping_sub(start) < count
                })
            };
            let is_left = |page: u32, slot: usize, entry: &Entry| name.is_of(entry) && !counts(page, slot, entry);
            let Some(page) = self.page_where(cipher, is_left)? else { return Ok(()) };
            self.rewrite(Some(page), cipher, |slot, entry| !is_left(page, slot, entry), None)?;
        }
        Err(NvsError::Damaged)
    }

    /// Writes a page anew, or begins one: what `keeps` says of it, then `item`. Gives where that is.
    fn rewrite(
        &mut self,
        page: Option<u32>,
        cipher: &NvsCipher,
        keeps: impl Fn(usize, &Entry) -> bool,
        item: Option<&Item<'_>>,
    ) -> Result<u32, NvsError<F::Error>> {
        let mut filling = self.begin_page()?;
        let head = match page {
            Some(page) => {
                let states = self.states(page)?;
                let mut slot = 0;
                while let Some((found, entry)) = self.next_item(page, &states, slot, Under::Keys(cipher))? {
                    slot = found + usize::from(entry.span);
                    if keeps(found, &entry) {
                        self.copy_slots((page, found..slot), Under::Keys(cipher), (&mut filling, cipher))?;
                    }
                }
                PageHead::next_edition(&self.head_octets(page)?)
            }
            None => PageHead::first_edition(self.next_sequence()?),
        };
        if let Some(item) = item {
            (0..item.slots()).try_for_each(|number| self.fill(&mut filling, item.slot(number), cipher))?;
        }
        self.commit(&filling, &head)?;
        if let Some(page) = page {
            self.clear(page)?;
        }
        Ok(filling.page)
    }

    fn next_sequence(&mut self) -> Result<u32, NvsError<F::Error>> {
        let mut next = 0;
        for page in 0..self.pages {
            next = next.max(self.head(page)?.map_or(0, |head| head.sequence.wrapping_add(1)));
        }
        Ok(next)
    }

    /// Takes the spare page.
    pub(super) fn begin_page(&mut self) -> Result<Filling, NvsError<F::Error>> {
        Ok(Filling { page: self.spare()?, slots: 0 })
    }

    /// Copies slots of a page, from one key to another.
    pub(super) fn copy_slots(
        &mut self,
        (page, slots): (u32, core::ops::Range<usize>),
        from: Under<'_>,
        (filling, to): (&mut Filling, &NvsCipher),
    ) -> Result<(), NvsError<F::Error>> {
        for slot in slots {
            let octets = self.slot(page, slot, from)?;
            self.fill(filling, octets, to)?;
        }
        Ok(())
    }

    /// Encrypts and writes the next slot.
    fn fill(&mut self, filling: &mut Filling, mut octets: Slot, cipher: &NvsCipher) -> Result<(), NvsError<F::Error>> {
        let offset = slot_place(filling.page, filling.slots);
        if filling.slots >= ENTRIES_PER_PAGE {
            octets.zeroize();
            return Err(NvsError::Full);
        }
        cipher.encrypt_slot(u128::from(offset), &mut octets);
        filling.slots += 1;
        self.put(offset, &octets)
    }

    /// The marks, then the header, its checksum at its very end.
    pub(super) fn commit(&mut self, filling: &Filling, head: &[u8; HEAD_OCTETS]) -> Result<(), NvsError<F::Error>> {
        let mut marks = [0xff; HEAD_OCTETS];
        (0..filling.slots).for_each(|slot| EntryState::mark_written(&mut marks, slot));
        self.put(place(filling.page, HEAD_OCTETS), &marks)?;
        let (head, checksum) = head.split_at(HEAD_OCTETS - 4);
        self.put(place(filling.page, 0), head)?;
        self.put(place(filling.page, HEAD_OCTETS - 4), checksum)
    }
}

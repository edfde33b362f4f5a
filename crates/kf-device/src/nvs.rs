//! A partition in the format of ESP-IDF's NVS, moved to another key in its own place.
//!
//! The format has one key for a partition and nothing that says which; each entry is its own unit of XTS, with its place as the
//! tweak. So a partition that changes its key is moved page by page, record by record within a page, through the spare page that
//! the format keeps anyway:
//!
//! ```text
//! copy    every record in use of the next page that lies under the older key, into the spare page, under the newer one
//! commit  the header of the copy: state and sequence number of the original, their checksum last
//! clear   the original is erased, read back, and is the spare page of the next one
//! ```
//! A copy whose header is not whole is no page of the format and is erased; one whose header is whole is complete, and then the
//! original goes. The number that both have for a moment keeps the order of pages, and with it which of two records is the later
//! one. What is under way is read from the partition itself. What was deleted, or left by a power cut, is not copied, and goes with
//! the original.
//!
//! Which key a record lies under is told by its CRC-32. XTS has no authenticity: whoever writes the memory can damage values, under
//! this format with any key.
//!
//! Meanwhile the partition is read here, under both keys, and written by nobody. When it is over ESP-IDF's driver mounts it, or values are
//! put and removed here (`nvs/write.rs`).

mod write;

use core::convert::Infallible;
use core::fmt;

use hmac::{Hmac, KeyInit, Mac};
use kf_flash::nvs::{
    ENTRIES_PER_PAGE, ENTRY_OCTETS, Entry, EntryKey, EntryState, FIRST_ENTRY_OFFSET, ItemType, NvsError as FormatError,
    PAGE_OCTETS, PageHead,
};
pub use kf_flash::nvs::{MAX_BLOB_IN_PAGE_OCTETS, NvsCipher, NvsKeys, Value};
use kf_key::{DeviceId, SecretArray};
use sha2::Sha256;
use zeroize::Zeroize;

use crate::entropy::{Healthy, Noise, Source};
use crate::protected::{NvsKept, ProtectError, Step, StorageKeys, Version, nvs_kept};
use crate::record::NVS_KEPT;
use crate::storage::{Flash, Geometry, Integrity, StorageError, Store};

/// Octets of a page, as flash counts them.
const PAGE: u32 = 4096;
const HEAD_OCTETS: usize = 32;
/// The most pages of a partition: 16 MiB.
const MAX_PAGES: u32 = 4096;

/// Why it was not done. `F`: of the flash memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum NvsError<F> {
    /// The hardware.
    Flash(F),
    /// Not sectors of 4,096 octets, fewer than two of them, or words longer than four octets.
    Geometry,
    /// There is no blank page: the format keeps one in every partition that is written to.
    NoSpare,
    /// A page of which nothing can be read under either key. It stays as it is, and so does the older key.
    Unreadable {
        /// The page, from 0.
        page: u32,
    },
    /// What was programmed or erased does not read back: worn-out cells.
    NotTaken,
    /// Nothing can have this name or key.
    Name,
    /// It is there, and not whole.
    Damaged,
    /// No page has room for the value, or the partition for another namespace.
    Full,
    /// The value is longer than what one page holds, or text holds a NUL.
    Value,
    /// The buffer is too small for the value.
    Buffer {
        /// Octets of the value.
        needed: usize,
    },
}

impl<F> fmt::Display for NvsError<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Flash(_) => "the flash memory refused",
            Self::Geometry => "the geometry of the flash memory is not that of NVS",
            Self::NoSpare => "the NVS partition has no blank page",
            Self::Unreadable { .. } => "a page of the NVS partition opens under no key",
            Self::NotTaken => "the flash memory does not hold what was written",
            Self::Name => "a name of NVS has 1 to 15 octets",
            Self::Damaged => "the NVS value is damaged",
            Self::Full => "the NVS partition has no room",
            Self::Value => "an NVS value lies in one page, and text has no NUL",
            Self::Buffer { .. } => "the buffer is too small for the value",
        })
    }
}

impl<F: fmt::Debug> core::error::Error for NvsError<F> {}

/// What keeping a partition under the storage key came to. `F`: of the memory of the store, `N`: of the noise source, `P`: of the memory
/// of the partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum KeepError<F, N, P> {
    /// The store or the storage key.
    Protect(ProtectError<F, Infallible, N>),
    /// The partition.
    Nvs(NvsError<P>),
    /// A migration from one storage key to the next is under way, and has to be over first.
    UnderWay,
    /// The partition lies under the storage key already.
    Kept,
    /// The partition does not lie under the storage key: adopt it, or format it.
    NotKept,
}

impl<F, N, P> fmt::Display for KeepError<F, N, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Protect(_) => "the storage key cannot be used",
            Self::Nvs(_) => "the NVS partition cannot be used",
            Self::UnderWay => "the storage key is being replaced",
            Self::Kept => "the NVS partition lies under the storage key already",
            Self::NotKept => "the NVS partition does not lie under the storage key",
        })
    }
}

impl<F: fmt::Debug, N: fmt::Debug, P: fmt::Debug> core::error::Error for KeepError<F, N, P> {}

impl<F, N, P> From<NvsError<P>> for KeepError<F, N, P> {
    fn from(error: NvsError<P>) -> Self {
        Self::Nvs(error)
    }
}

impl<F, N, P> From<StorageError<F>> for KeepError<F, N, P> {
    fn from(error: StorageError<F>) -> Self {
        Self::Protect(error.into())
    }
}

type Keeping<T, F, N, P> = Result<T, KeepError<<F as Flash>::Error, <N as Noise>::Error, <P as Flash>::Error>>;

/// What one step of a migration has done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeepStep {
    /// One page of the partition.
    Page(PageStep),
    /// A record of the store, the end, or nothing to do.
    Record(Step),
}

impl StorageKeys {
    /// The keys of the partition under the version in use, for `nvs_flash_secure_init_partition` of ESP-IDF: from the storage key as
    /// ESP-IDF's scheme of an HMAC key has it, the HMAC key being that of this purpose, device and version.
    ///
    /// # Errors
    /// [`ProtectError::Refused`], for a key that no random source gives.
    pub fn nvs_keys<F, W, N>(&self) -> Result<NvsKeys, ProtectError<F, W, N>> {
        nvs_keys(self.device, &self.newest).ok_or(ProtectError::Refused)
    }

    /// Takes a partition that lies in clear, or under keys of its own, one page on its way under the storage key. Once, in the life of a
    /// device; from the first call on a migration of the storage key waits for it. After [`PageStep::Over`] the keys that it had are
    /// needed no more, and it is for the caller to erase them where they lie.
    ///
    /// # Errors
    /// [`KeepError`].
    pub fn adopt_nvs<F: Flash, I: Integrity, P: Flash, N>(
        &self,
        store: &mut Store<F, I>,
        nvs: &mut Nvs<P>,
        from: Under<'_>,
    ) -> Result<PageStep, KeepError<F::Error, N, P::Error>> {
        if self.left.is_some() {
            return Err(KeepError::UnderWay);
        }
        match nvs_kept(store)? {
            Some(NvsKept::Kept) => return Err(KeepError::Kept),
            Some(NvsKept::OnItsWay) => {}
            None => store.put(NVS_KEPT, &[1])?,
        }
        let keys = self.nvs_keys().map_err(KeepError::Protect)?;
        let step = nvs.step(from, &keys.cipher())?;
        if step == PageStep::Over {
            store.put(NVS_KEPT, &[2])?;
        }
        Ok(step)
    }

    /// Makes an empty partition under the storage key, of whatever lies there.
    ///
    /// # Errors
    /// [`KeepError`].
    pub fn format_nvs<F: Flash, I: Integrity, P: Flash, N>(
        &self,
        store: &mut Store<F, I>,
        nvs: &mut Nvs<P>,
    ) -> Result<(), KeepError<F::Error, N, P::Error>> {
        nvs.erase()?;
        write::note_kept(store)?;
        Ok(())
    }

    /// Takes a migration one step on, as [`StorageKeys::step`], of a device whose partition lies under the storage key as well: its pages
    /// first, then the records, then the older key is destroyed.
    ///
    /// # Errors
    /// [`KeepError`]; [`NvsError::Unreadable`] for a page that opens under neither version: it stays as it is, and the older version is
    /// not destroyed.
    pub fn step_with_nvs<F: Flash, I: Integrity, P: Flash, N: Noise>(
        &mut self,
        store: &mut Store<F, I>,
        nvs: &mut Nvs<P>,
        source: &mut Source<N, Healthy>,
    ) -> Keeping<KeepStep, F, N, P> {
        if let (Some(left), Some(_)) = (&self.left, nvs_kept(store)?) {
            let older = nvs_keys(self.device, left).ok_or(KeepError::Protect(ProtectError::Refused))?;
            let newer = self.nvs_keys().map_err(KeepError::Protect)?;
            match nvs.step(Under::Keys(&older.cipher()), &newer.cipher())? {
                PageStep::Over => {}
                step => return Ok(KeepStep::Page(step)),
            }
        }
        self.step_records(store, source).map(KeepStep::Record).map_err(KeepError::Protect)
    }

    /// Reads a value of the partition, `(namespace, key)`, under both versions while one takes over from the other; `from` is what it lay
    /// under before, while it is on its way under the storage key. See [`Nvs::read`].
    ///
    /// # Errors
    /// [`KeepError`].
    pub fn read_nvs<F, N, P: Flash>(
        &self,
        nvs: &mut Nvs<P>,
        from: Option<Under<'_>>,
        name: (&str, &str),
        out: &mut [u8],
    ) -> Result<Option<usize>, KeepError<F, N, P::Error>> {
        let refused = || KeepError::Protect(ProtectError::Refused);
        let newest = nvs_keys(self.device, &self.newest).ok_or_else(refused)?.cipher();
        let newest = Under::Keys(&newest);
        let read = match (&self.left, from) {
            (Some(left), _) => {
                let left = nvs_keys(self.device, left).ok_or_else(refused)?.cipher();
                nvs.read(&[Under::Keys(&left), newest], name, out)
            }
            (None, Some(from)) => nvs.read(&[from, newest], name, out),
            (None, None) => nvs.read(&[newest], name, out),
        };
        Ok(read?)
    }
}

/// Whether a partition lies under the storage key, all of it: what it lay under before opens nothing of it any more.
///
/// # Errors
/// Of the store.
pub fn is_kept<F: Flash, I: Integrity>(store: &mut Store<F, I>) -> Result<bool, StorageError<F::Error>> {
    Ok(nvs_kept(store)? == Some(NvsKept::Kept))
}

/// HMAC-SHA-256 under a version, over the purpose, the device and the number; under that, ESP-IDF's two messages. A version also
/// encrypts records, by AES-GCM: nothing derived here is of use there.
fn nvs_keys(device: DeviceId, version: &Version) -> Option<NvsKeys> {
    let number = version.number.to_be_bytes();
    let root = hmac(&version.key, &[b"keyfleet nvs v1", device.as_bytes(), &number])?;
    NvsKeys::from_hmac(|message| hmac(&root, &[message]).ok_or(FormatError::WeakKeys)).ok()
}

fn hmac(key: &SecretArray<32>, parts: &[&[u8]]) -> Option<SecretArray<32>> {
    // Exposed to the MAC.
    let mut mac = Hmac::<Sha256>::new_from_slice(key.expose()).ok()?;
    parts.iter().for_each(|part| mac.update(part));
    let mut octets = mac.finalize().into_bytes();
    let derived = SecretArray::fill(|place: &mut [u8; 32]| place.copy_from_slice(&octets));
    octets.zeroize();
    Some(derived)
}

/// What a partition lies under before it is moved.
#[derive(Clone, Copy)]
pub enum Under<'a> {
    /// Nothing: it is in clear.
    Clear,
    /// Keys of its own, which the firmware has read from a keys partition or asked of the HMAC peripheral.
    Keys(&'a NvsCipher),
}

impl Under<'_> {
    fn decrypt(self, offset: u32, octets: &mut [u8; ENTRY_OCTETS]) {
        match self {
            Self::Clear => {}
            Self::Keys(cipher) => cipher.decrypt_slot(u128::from(offset), octets),
        }
    }
}

/// What one step has done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageStep {
    /// The records of this page lie under the newer key, in another place.
    Moved(u32),
    /// This page held nothing that is in use, and is blank.
    Cleared(u32),
    /// Everything lies under the newer key, and every other page is blank.
    Over,
}

/// An NVS partition of the firmware.
#[derive(Debug)]
pub struct Nvs<F> {
    flash: F,
    pages: u32,
}

/// A record in use: where it is, and what it says.
#[derive(Clone, Copy)]
struct Found<'a> {
    page: u32,
    slot: usize,
    entry: Entry,
    under: Under<'a>,
}

/// What a page lies under.
enum Standing {
    Newer,
    Older,
    /// Nothing in it is in use.
    Empty,
    Unreadable,
}

type Slot = [u8; ENTRY_OCTETS];

const fn place(page: u32, octets: usize) -> u32 {
    // A page has 4,096 octets.
    #[allow(clippy::as_conversions, clippy::cast_possible_truncation, reason = "below 4,096")]
    let octets = octets as u32;
    page.saturating_mul(PAGE).saturating_add(octets)
}

const fn slot_place(page: u32, slot: usize) -> u32 {
    place(page, FIRST_ENTRY_OFFSET.saturating_add(slot.saturating_mul(ENTRY_OCTETS)))
}

impl<F: Flash> Nvs<F> {
    /// Takes a partition: whole pages, one of them the spare one.
    ///
    /// # Errors
    /// [`NvsError::Geometry`].
    pub fn new(flash: F) -> Result<Self, NvsError<F::Error>> {
        let Geometry { word, sector, sectors } = flash.geometry();
        if sector != PAGE || !(2..=MAX_PAGES).contains(&sectors) || ![1, 2, 4].contains(&word) {
            return Err(NvsError::Geometry);
        }
        Ok(Self { flash, pages: sectors })
    }

    /// The memory.
    pub fn into_flash(self) -> F {
        self.flash
    }

    /// Erases every page.
    ///
    /// # Errors
    /// [`NvsError::Flash`], [`NvsError::NotTaken`].
    pub fn erase(&mut self) -> Result<(), NvsError<F::Error>> {
        (0..self.pages).try_for_each(|page| self.clear(page))
    }

    /// Takes the partition one page on its way from one key to another.
    ///
    /// # Errors
    /// [`NvsError`].
    pub fn step(&mut self, older: Under<'_>, newer: &NvsCipher) -> Result<PageStep, NvsError<F::Error>> {
        for page in 0..self.pages {
            let Some(head) = self.head(page)? else {
                if self.is_blank(page)? {
                    continue;
                }
                self.clear(page)?;
                return Ok(PageStep::Cleared(page));
            };
            if self.is_replaced(page, &head)? {
                self.clear(page)?;
                return Ok(PageStep::Cleared(page));
            }
            let standing = self.standing(page, older, newer)?;
            if matches!(standing, Standing::Newer) {
                continue;
            }
            let is_copied = self.is_copied(head.sequence, page, older, newer)?;
            match standing {
                Standing::Unreadable if !is_copied => return Err(NvsError::Unreadable { page }),
                Standing::Older if !is_copied => {
                    self.copy(page, older, newer)?;
                    self.clear(page)?;
                    return Ok(PageStep::Moved(page));
                }
                _ => {
                    self.clear(page)?;
                    return Ok(PageStep::Cleared(page));
                }
            }
        }
        Ok(PageStep::Over)
    }

    /// Reads a value into `out` and gives its length; `None` when there is none. Numbers are little endian, text comes without its
    /// closing NUL.
    ///
    /// # Errors
    /// [`NvsError`]; nothing of a damaged value is left in `out`.
    pub fn read(
        &mut self,
        keys: &[Under<'_>],
        (namespace, key): (&str, &str),
        out: &mut [u8],
    ) -> Result<Option<usize>, NvsError<F::Error>> {
        let name = |name| EntryKey::new(name).map_err(|_refused: FormatError| NvsError::Name);
        let (namespace, key) = (name(namespace)?, name(key)?);
        let Some(number) = self.number_of(keys, namespace)? else { return Ok(None) };
        let is_value = |entry: &Entry| {
            entry.namespace == number
                && entry.key == key
                && entry.item_type.is_some_and(|found| found != ItemType::BlobData)
        };
        let Some(found) = self.last(keys, is_value)? else { return Ok(None) };
        let read = self.value(keys, found, out);
        if read.is_err() {
            out.zeroize();
        }
        read.map(Some)
    }

    /// The number of a namespace.
    fn number_of(&mut self, keys: &[Under<'_>], name: EntryKey) -> Result<Option<u8>, NvsError<F::Error>> {
        let is_it = |entry: &Entry| entry.namespace == 0 && entry.key == name && entry.item_type == Some(ItemType::U8);
        let found = self.last(keys, is_it)?;
        Ok(found.and_then(|found| found.entry.number()?.first().copied()))
    }

    fn value(&mut self, keys: &[Under<'_>], found: Found<'_>, out: &mut [u8]) -> Result<usize, NvsError<F::Error>> {
        let entry = found.entry;
        if let Some(number) = entry.number() {
            let place = out.get_mut(..number.len()).ok_or(NvsError::Buffer { needed: number.len() })?;
            place.copy_from_slice(number);
            return Ok(number.len());
        }
        let needed = entry.value_octets().ok_or(NvsError::Damaged)?;
        match entry.item_type {
            Some(ItemType::Text) => {
                let octets = needed.checked_sub(1).ok_or(NvsError::Damaged)?;
                if out.len() < octets {
                    return Err(NvsError::Buffer { needed: octets });
                }
                self.data(found, needed, out).map(|_| octets)
            }
            Some(ItemType::OldBlob) if out.len() >= needed => self.data(found, needed, out),
            Some(ItemType::BlobIndex) if out.len() >= needed => {
                let (count, start) = entry.chunks();
                let mut filled = 0;
                for chunk in (0..count).map(|chunk| start.wrapping_add(chunk)) {
                    let is_chunk = |other: &Entry| {
                        other.namespace == entry.namespace
                            && other.key == entry.key
                            && other.item_type == Some(ItemType::BlobData)
                            && other.chunk == chunk
                    };
                    let found = self.last(keys, is_chunk)?.ok_or(NvsError::Damaged)?;
                    let octets = found.entry.value_octets().ok_or(NvsError::Damaged)?;
                    let rest = out.get_mut(filled..needed).ok_or(NvsError::Damaged)?;
                    filled += self.data(found, octets, rest)?;
                }
                if filled == needed { Ok(needed) } else { Err(NvsError::Damaged) }
            }
            _ => Err(NvsError::Buffer { needed }),
        }
    }

    /// Puts what lies in the slots after an entry into `out`, as far as there is room, checks it, and gives its length.
    fn data(&mut self, found: Found<'_>, octets: usize, out: &mut [u8]) -> Result<usize, NvsError<F::Error>> {
        let Found { page, slot, entry, under } = found;
        let slots = octets.div_ceil(ENTRY_OCTETS);
        if slots + 1 != usize::from(entry.span) {
            return Err(NvsError::Damaged);
        }
        let mut crc = entry.value_check();
        for index in 0..slots {
            let mut piece = self.slot(page, slot + 1 + index, under)?;
            let from = index * ENTRY_OCTETS;
            let length = octets.saturating_sub(from).min(ENTRY_OCTETS);
            let piece_of_value = piece.get(..length).unwrap_or_default();
            crc.add(piece_of_value);
            let room = out.get_mut(from..).unwrap_or_default();
            room.iter_mut().zip(piece_of_value).for_each(|(place, octet)| *place = *octet);
            piece.zeroize();
        }
        if crc.is_right() { Ok(octets) } else { Err(NvsError::Damaged) }
    }

    /// The last record in use, in the order of pages, of which `accepts` holds.
    fn last<'a>(
        &mut self,
        keys: &[Under<'a>],
        mut accepts: impl FnMut(&Entry) -> bool,
    ) -> Result<Option<Found<'a>>, NvsError<F::Error>> {
        let (mut before, mut last) = (None, None);
        while let Some((order, page)) = self.next_page(before)? {
            before = Some((order, page));
            let states = self.states(page)?;
            for under in keys {
                let mut slot = 0;
                while let Some((found, entry)) = self.next_item(page, &states, slot, *under)? {
                    if accepts(&entry) {
                        last = Some(Found { page, slot: found, entry, under: *under });
                    }
                    slot = found + usize::from(entry.span);
                }
            }
        }
        Ok(last)
    }

    /// The page in use that comes after `before` in the order in which they were begun, without those that a copy has replaced.
    fn next_page(&mut self, mut before: Option<(u32, u32)>) -> Result<Option<(u32, u32)>, NvsError<F::Error>> {
        loop {
            let mut next: Option<((u32, u32), PageHead)> = None;
            for page in 0..self.pages {
                let Some(head) = self.head(page)? else { continue };
                let order = (head.sequence, page);
                if before.is_none_or(|before| order > before) && next.is_none_or(|(next, _)| order < next) {
                    next = Some((order, head));
                }
            }
            let Some((order, head)) = next else { return Ok(None) };
            if !self.is_replaced(order.1, &head)? {
                return Ok(Some(order));
            }
            before = Some(order);
        }
    }

    /// Whether the next edition of a page is there, which is whole.
    fn is_replaced(&mut self, page: u32, head: &PageHead) -> Result<bool, NvsError<F::Error>> {
        for other in (0..self.pages).filter(|other| *other != page) {
            if self.head(other)?.is_some_and(|other| other.replaces(head)) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The next whole record in use at or after `slot` that can be read under a key.
    fn next_item(
        &mut self,
        page: u32,
        states: &[u8; HEAD_OCTETS],
        mut slot: usize,
        under: Under<'_>,
    ) -> Result<Option<(usize, Entry)>, NvsError<F::Error>> {
        let is_written = |slot| EntryState::of(states, slot) == EntryState::Written;
        while slot < ENTRIES_PER_PAGE {
            if is_written(slot) {
                let mut octets = self.slot(page, slot, under)?;
                let entry = Entry::parse(&octets);
                octets.zeroize();
                let end = |entry: &Entry| slot.saturating_add(usize::from(entry.span));
                if let Some(entry) =
                    entry.filter(|entry| end(entry) <= ENTRIES_PER_PAGE && (slot..end(entry)).all(is_written))
                {
                    return Ok(Some((slot, entry)));
                }
            }
            slot += 1;
        }
        Ok(None)
    }

    fn standing(&mut self, page: u32, older: Under<'_>, newer: &NvsCipher) -> Result<Standing, NvsError<F::Error>> {
        let states = self.states(page)?;
        if self.next_item(page, &states, 0, Under::Keys(newer))?.is_some() {
            return Ok(Standing::Newer);
        }
        if self.next_item(page, &states, 0, older)?.is_some() {
            return Ok(Standing::Older);
        }
        let is_used = (0..ENTRIES_PER_PAGE).any(|slot| EntryState::of(&states, slot) == EntryState::Written);
        Ok(if is_used { Standing::Unreadable } else { Standing::Empty })
    }

    /// Whether another page with this number lies under the newer key: the copy, which is complete.
    fn is_copied(
        &mut self,
        sequence: u32,
        original: u32,
        older: Under<'_>,
        newer: &NvsCipher,
    ) -> Result<bool, NvsError<F::Error>> {
        for page in (0..self.pages).filter(|page| *page != original) {
            let is_it = self.head(page)?.is_some_and(|head| head.sequence == sequence);
            if is_it && matches!(self.standing(page, older, newer)?, Standing::Newer) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Copies what is in use of a page into a blank one, under the newer key.
    fn copy(&mut self, page: u32, older: Under<'_>, newer: &NvsCipher) -> Result<(), NvsError<F::Error>> {
        let mut filling = self.begin_page()?;
        let states = self.states(page)?;
        let mut slot = 0;
        while let Some((found, entry)) = self.next_item(page, &states, slot, older)? {
            slot = found + usize::from(entry.span);
            self.copy_slots((page, found..slot), older, (&mut filling, newer))?;
        }
        let head = self.head_octets(page)?;
        self.commit(&filling, &head)
    }

    fn spare(&mut self) -> Result<u32, NvsError<F::Error>> {
        for page in 0..self.pages {
            if self.is_blank(page)? {
                return Ok(page);
            }
        }
        Err(NvsError::NoSpare)
    }

    /// Programs, and reads back.
    fn put(&mut self, offset: u32, octets: &[u8]) -> Result<(), NvsError<F::Error>> {
        self.flash.program(offset, octets).map_err(NvsError::Flash)?;
        let mut found = [0; ENTRY_OCTETS];
        let found = found.get_mut(..octets.len()).ok_or(NvsError::Geometry)?;
        self.flash.read(offset, found).map_err(NvsError::Flash)?;
        if *found == *octets { Ok(()) } else { Err(NvsError::NotTaken) }
    }

    /// Erases a page, and reads back.
    fn clear(&mut self, page: u32) -> Result<(), NvsError<F::Error>> {
        self.flash.erase(page).map_err(NvsError::Flash)?;
        if self.is_blank(page)? { Ok(()) } else { Err(NvsError::NotTaken) }
    }

    fn is_blank(&mut self, page: u32) -> Result<bool, NvsError<F::Error>> {
        let mut octets = [0; ENTRY_OCTETS];
        for from in (0..PAGE_OCTETS).step_by(ENTRY_OCTETS) {
            self.flash.read(place(page, from), &mut octets).map_err(NvsError::Flash)?;
            if octets.iter().any(|octet| *octet != 0xff) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn head(&mut self, page: u32) -> Result<Option<PageHead>, NvsError<F::Error>> {
        Ok(PageHead::in_use(&self.head_octets(page)?))
    }

    fn head_octets(&mut self, page: u32) -> Result<[u8; HEAD_OCTETS], NvsError<F::Error>> {
        let mut octets = [0; HEAD_OCTETS];
        self.flash.read(place(page, 0), &mut octets).map_err(NvsError::Flash)?;
        Ok(octets)
    }

    fn states(&mut self, page: u32) -> Result<[u8; HEAD_OCTETS], NvsError<F::Error>> {
        let mut octets = [0; HEAD_OCTETS];
        self.flash.read(place(page, HEAD_OCTETS), &mut octets).map_err(NvsError::Flash)?;
        Ok(octets)
    }

    /// A slot, decrypted. The caller wipes it.
    fn slot(&mut self, page: u32, slot: usize, under: Under<'_>) -> Result<Slot, NvsError<F::Error>> {
        let mut octets = [0; ENTRY_OCTETS];
        let offset = slot_place(page, slot);
        self.flash.read(offset, &mut octets).map_err(NvsError::Flash)?;
        under.decrypt(offset, &mut octets);
        Ok(octets)
    }
}

//! The store that the rest of the SDK sees.

use core::fmt;

use super::flash::{Flash, Medium};
use super::format::{Bank, HEAD_OCTETS, Layout, MAX_GROUP_OCTETS, RECORD_HEAD_OCTETS, TAG_OCTETS};
use super::integrity::{Checksum, Integrity};

/// Which record. The SDK uses ids below [`RecordId::FIRST_OF_FIRMWARE`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RecordId(pub u16);

impl RecordId {
    /// From here on ids are the firmware's own.
    pub const FIRST_OF_FIRMWARE: Self = Self(0x1000);
    /// From here up to the protected ones (`0x8000`) records are the maker's, such as an IDevID: a factory reset leaves them,
    /// a wipe does not.
    pub const FIRST_OF_MAKER: Self = Self(0x7000);

    /// Whether it is a record of the maker's.
    #[must_use]
    pub const fn is_of_maker(self) -> bool {
        self.0 >= Self::FIRST_OF_MAKER.0 && self.0 < Self::FIRST_PROTECTED.0
    }
}

/// One change of an atomic update.
#[derive(Clone, Copy, Debug)]
pub enum Change<'a> {
    /// Sets a record.
    Put(RecordId, &'a [u8]),
    /// Removes a record. Its octets stay in the memory until the bank is erased: [`Store::destroy`] waits for that.
    Remove(RecordId),
}

/// What is known about what was there before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Erasure {
    /// Something else is read now. The cells may still hold the old content: the medium remaps addresses.
    Overwritten,
    /// The cells were erased, on a medium where that reaches them.
    Erased {
        /// Whether every octet was read back as erased.
        read_back: bool,
    },
    /// What is left is ciphertext, and its key has been erased, read back, on a medium where that reaches the cells.
    CryptoErased,
}

/// Why the store did not do it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StorageError<E> {
    /// The hardware.
    Flash(E),
    /// The sizes are not those of [`Geometry`](super::Geometry).
    Geometry,
    /// The memory is blank: [`Store::format`], once, in the factory.
    Unformatted,
    /// The memory holds what no power cut leaves behind. Nothing was changed.
    Corrupt,
    /// What is alive leaves no room.
    Full,
    /// More octets than one update may have.
    TooLarge,
    /// The buffer is too small for the record.
    Buffer {
        /// Octets of the record.
        needed: usize,
    },
    /// What was programmed or erased does not read back: worn-out cells.
    NotTaken,
    /// An earlier call failed in the middle: open the store again.
    OpenAgain,
}

impl<E> fmt::Display for StorageError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Flash(_) => "the flash memory refused",
            Self::Geometry => "the geometry of the flash memory is not supported",
            Self::Unformatted => "the storage is not formatted",
            Self::Corrupt => "the storage is corrupt",
            Self::Full => "the storage is full",
            Self::TooLarge => "the record is too large",
            Self::Buffer { .. } => "the buffer is too small for the record",
            Self::NotTaken => "the flash memory does not hold what was written",
            Self::OpenAgain => "the storage must be opened again",
        })
    }
}

impl<E: fmt::Debug> core::error::Error for StorageError<E> {}

/// The journal, open.
#[derive(Debug)]
pub struct Store<F, I = Checksum> {
    pub(super) flash: F,
    pub(super) integrity: I,
    pub(super) layout: Layout,
    pub(super) active: Bank,
    pub(super) sequence: u32,
    /// Where the next group goes.
    pub(super) end: u32,
    /// Whether the other bank was erased since the power came.
    pub(super) is_spare_fresh: bool,
    /// Whether a call failed in the middle.
    pub(super) is_broken: bool,
}

impl<F: Flash, I: Integrity> Store<F, I> {
    /// Erases everything and makes an empty store: once, in the factory.
    ///
    /// # Errors
    /// [`StorageError::Geometry`], [`StorageError::Flash`], [`StorageError::NotTaken`].
    pub fn format(flash: F, integrity: I) -> Result<Self, StorageError<F::Error>> {
        let layout = Layout::new(flash.geometry()).ok_or(StorageError::Geometry)?;
        let mut store = Self {
            flash,
            integrity,
            layout,
            active: Bank::A,
            sequence: 1,
            end: layout.first_group(Bank::A),
            is_spare_fresh: true,
            is_broken: false,
        };
        store.erase(Bank::A)?;
        store.erase(Bank::B)?;
        store.write_header(Bank::A, 1)?;
        Ok(store)
    }

    /// Opens the store and settles what a power cut has left.
    ///
    /// # Errors
    /// [`StorageError::Unformatted`] when the memory is blank; [`StorageError::Corrupt`] when it holds something else
    /// than a store.
    pub fn open(flash: F, integrity: I) -> Result<Self, StorageError<F::Error>> {
        let layout = Layout::new(flash.geometry()).ok_or(StorageError::Geometry)?;
        let mut store = Self {
            flash,
            integrity,
            layout,
            active: Bank::A,
            sequence: 0,
            end: 0,
            is_spare_fresh: false,
            is_broken: false,
        };
        store.recover()?;
        Ok(store)
    }

    /// Reads a record into `octets` and gives its length; `None` when there is none.
    ///
    /// # Errors
    /// [`StorageError::Buffer`], [`StorageError::Corrupt`], [`StorageError::Flash`].
    pub fn read(&mut self, id: RecordId, octets: &mut [u8]) -> Result<Option<usize>, StorageError<F::Error>> {
        self.refuse_if_broken()?;
        let Some(found) = self.find(id)? else { return Ok(None) };
        let length = usize::from(found.length);
        let place = octets.get_mut(..length).ok_or(StorageError::Buffer { needed: length })?;
        // The tag is checked again: memory can change after the store was opened.
        if !self.is_whole(found.group, found.records)? {
            return Err(StorageError::Corrupt);
        }
        self.flash.read(found.octets, place).map_err(StorageError::Flash)?;
        Ok(Some(length))
    }

    /// Reads a record of exactly `N` octets; `None` when there is none.
    ///
    /// # Errors
    /// [`StorageError::Corrupt`] also when it has another length.
    pub fn read_array<const N: usize>(&mut self, id: RecordId) -> Result<Option<[u8; N]>, StorageError<F::Error>> {
        let mut octets = [0; N];
        match self.read(id, &mut octets) {
            Ok(None) => Ok(None),
            Ok(Some(length)) if length == N => Ok(Some(octets)),
            Ok(Some(_)) | Err(StorageError::Buffer { .. }) => Err(StorageError::Corrupt),
            Err(error) => Err(error),
        }
    }

    /// The lowest id from `from` on of which there is a record.
    ///
    /// # Errors
    /// [`StorageError::Corrupt`], [`StorageError::Flash`].
    pub fn next_id(&mut self, from: RecordId) -> Result<Option<RecordId>, StorageError<F::Error>> {
        self.refuse_if_broken()?;
        let mut from = from;
        while let Some(id) = self.lowest_id(from)? {
            if self.find(id)?.is_some() {
                return Ok(Some(id));
            }
            let Some(next) = id.0.checked_add(1) else { break };
            from = RecordId(next);
        }
        Ok(None)
    }

    /// Sets one record.
    ///
    /// # Errors
    /// As [`update`](Self::update).
    pub fn put(&mut self, id: RecordId, octets: &[u8]) -> Result<(), StorageError<F::Error>> {
        self.update(&[Change::Put(id, octets)])
    }

    /// Makes all changes or none, whatever the power does.
    ///
    /// # Errors
    /// [`StorageError::TooLarge`] and [`StorageError::Full`] before anything is written. After one of the others the store
    /// must be opened again, and then holds all changes or none.
    pub fn update(&mut self, changes: &[Change<'_>]) -> Result<(), StorageError<F::Error>> {
        self.refuse_if_broken()?;
        let records = octets_of(changes).ok_or(StorageError::TooLarge)?;
        let needed = self.layout.group(records);
        if needed > self.layout.end(self.active).saturating_sub(self.end) {
            if needed > self.room_after_compaction()? {
                return Err(StorageError::Full);
            }
            self.compact()?;
        }
        self.append(changes, records)
    }

    /// Removes records and waits until no cell of this store holds their octets: the living ones move to the other
    /// bank, this one is erased and read back.
    ///
    /// # Errors
    /// As [`update`](Self::update).
    pub fn destroy(&mut self, ids: &[RecordId]) -> Result<Erasure, StorageError<F::Error>> {
        for id in ids {
            self.update(&[Change::Remove(*id)])?;
        }
        self.refuse_if_broken()?;
        self.compact()?;
        Ok(self.erased())
    }

    /// Replaces everything by `keep`, in one step that a power cut cannot divide.
    ///
    /// # Errors
    /// As [`update`](Self::update).
    pub fn wipe(&mut self, keep: &[Change<'_>]) -> Result<Erasure, StorageError<F::Error>> {
        self.refuse_if_broken()?;
        let records = octets_of(keep).ok_or(StorageError::TooLarge)?;
        let first = self.layout.first_group(self.active);
        if self.layout.group(records) > self.layout.end(self.active).saturating_sub(first) {
            return Err(StorageError::Full);
        }
        self.replace_all(keep, records)?;
        Ok(self.erased())
    }

    /// Keeps the records that `keeps` names, and `with`; everything else is erased, in one step that a power cut cannot divide. A
    /// record that is in both is as in `with`.
    ///
    /// # Errors
    /// As [`update`](Self::update).
    pub fn retain(
        &mut self,
        keeps: impl Fn(RecordId) -> bool,
        with: &[Change<'_>],
    ) -> Result<Erasure, StorageError<F::Error>> {
        self.refuse_if_broken()?;
        let records = octets_of(with).ok_or(StorageError::TooLarge)?;
        if self.layout.group(records) > self.room_after_moving(&keeps)? {
            return Err(StorageError::Full);
        }
        self.move_living(&keeps, Some((with, records)))?;
        Ok(self.erased())
    }

    /// What it is worth that the old bank was erased and read back.
    fn erased(&self) -> Erasure {
        match self.flash.medium() {
            Medium::Raw => Erasure::Erased { read_back: true },
            Medium::Remapped => Erasure::Overwritten,
        }
    }

    /// Octets that can be written before the next erasure.
    #[must_use]
    pub const fn room(&self) -> u32 {
        self.layout.end(self.active).saturating_sub(self.end)
    }

    /// Gives the flash memory back.
    pub fn into_flash(self) -> F {
        self.flash
    }

    pub(super) const fn refuse_if_broken(&self) -> Result<(), StorageError<F::Error>> {
        if self.is_broken { Err(StorageError::OpenAgain) } else { Ok(()) }
    }
}

/// Octets of the records of one group; `None` when they are too many.
fn octets_of(changes: &[Change<'_>]) -> Option<u32> {
    let mut sum: u32 = 0;
    for change in changes {
        let octets = match change {
            Change::Put(_, octets) => u32::try_from(octets.len()).ok()?,
            Change::Remove(_) => 0,
        };
        sum = sum.checked_add(octets)?.checked_add(RECORD_HEAD_OCTETS)?;
    }
    (sum <= MAX_GROUP_OCTETS - HEAD_OCTETS - TAG_OCTETS).then_some(sum)
}

//! Data at rest: records of the firmware under a *storage key* that is replaced while the device works.
//!
//! A storage key is random, comes in versions, and lies in the store wrapped under a key of the chip ([`WrapKey`]). Every
//! protected record says which version it lies under:
//!
//! ```text
//! record  format 1 | version 4 | nonce 12 | ciphertext n | tag 16        AES-256-GCM; additional data: format, id, version, device
//! ```
//! A migration is a row of steps, each one atomic update of the [journal](crate::storage):
//!
//! ```text
//! begin   a new version beside the one in use: what is put from here on lies under it, both open
//! step    the next record that lies under the older one, opened, sealed under the newer one, put in its own place
//! step    none is left: the older key is removed, the living records move to fresh cells, the old cells are erased and read back
//! step    that it is so is written down: version, records, what the erasure is worth
//! ```
//! Power may go at any octet of any of them. What is under way is read from the store itself, so [`StorageKeys::open`] and
//! further steps go on where it was; a version that was left is reported as destroyed only after its cells were erased.
//!
//! A partition in the format of ESP-IDF's NVS can lie under the same storage key and move with it (feature `nvs`, module `nvs`).
//!
//! Bounds: nonces are random, so a version seals at most 2^32 times (SP 800-38D section 8.3); a memory that takes 100,000
//! erasures of two banks is worn out long before.

use core::convert::Infallible;
use core::fmt;

use aes_gcm::aead::AeadInOut;
use aes_gcm::{Aes256Gcm, KeyInit};
use kf_key::{DeviceId, SecretArray};
use zeroize::Zeroize;

use crate::entropy::{EntropyError, Healthy, Noise, Source};
use crate::error::KeyError;
use crate::record::{NVS_KEPT, STORAGE_KEY, STORAGE_KEY_LEFT, STORAGE_MIGRATED};
use crate::storage::{Change, Erasure, Flash, Integrity, RecordId, StorageError, Store};
use crate::wrap::{WRAPPED_OCTETS, What, WrapKey, Wrapped};

/// The most octets of a protected record.
pub const MAX_OCTETS: usize = 256;

const FORMAT: u8 = 1;
const HEAD: usize = 1 + 4 + 12;
const TAG: usize = 16;
/// Octets of a protected record in the store.
const SEALED_OCTETS: usize = HEAD + MAX_OCTETS + TAG;
/// Version, wrapped key.
const KEY_OCTETS: usize = 4 + WRAPPED_OCTETS;
/// Request, version, records, what the erasure is worth.
const MIGRATED_OCTETS: usize = 16 + 4 + 4 + 1;

impl RecordId {
    /// From here on records are protected: read, written and migrated by [`StorageKeys`] alone.
    pub const FIRST_PROTECTED: Self = Self(0x8000);
}

/// Why it was not done. `F`: of the flash memory, `W`: of the chip that wraps, `N`: of the noise source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProtectError<F, W, N> {
    /// The store, or the wrapping key.
    Key(KeyError<F, W>),
    /// The noise source.
    Entropy(EntropyError<N>),
    /// The id is below [`RecordId::FIRST_PROTECTED`].
    Id,
    /// More than [`MAX_OCTETS`].
    TooLarge,
    /// The record does not open: it was changed, or lies under a version that is not there. No more is known.
    Refused,
    /// An NVS partition lies under the storage key: its pages move first, see the module `nvs`.
    NvsFirst,
}

impl<F, W, N> fmt::Display for ProtectError<F, W, N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Key(_) => "the storage key cannot be used",
            Self::Entropy(_) => "the noise source gave no random octets",
            Self::Id => "the id is not that of a protected record",
            Self::TooLarge => "a protected record has at most 256 octets",
            Self::Refused => "the protected record does not open",
            Self::NvsFirst => "the NVS partition under the storage key has to be moved first",
        })
    }
}

impl<F: fmt::Debug, W: fmt::Debug, N: fmt::Debug> core::error::Error for ProtectError<F, W, N> {}

impl<F, W, N> From<KeyError<F, W>> for ProtectError<F, W, N> {
    fn from(error: KeyError<F, W>) -> Self {
        Self::Key(error)
    }
}

impl<F, W, N> From<StorageError<F>> for ProtectError<F, W, N> {
    fn from(error: StorageError<F>) -> Self {
        Self::Key(error.into())
    }
}

type Outcome<T, F, W, N> = Result<T, ProtectError<<F as Flash>::Error, <W as WrapKey>::Error, <N as Noise>::Error>>;

/// One version of the storage key, in memory.
#[derive(Debug)]
pub(crate) struct Version {
    pub(crate) number: u32,
    pub(crate) key: SecretArray<32>,
}

/// A migration that is over: the older version has been destroyed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Migrated {
    /// Who asked for it: 16 octets that the server gave, so that it is done once.
    pub request: [u8; 16],
    /// The version in use since.
    pub version: u32,
    /// Protected records that lie under it.
    pub records: u32,
    /// What the erasure of the older one is worth.
    pub erasure: Erasure,
}

/// What one step has done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// A record lies under the newest version now.
    Moved(RecordId),
    /// The older version is destroyed, and that is written down.
    Over(Migrated),
    /// Nothing is under way.
    Idle,
}

/// The storage key: the version in use, and one that is being left.
#[derive(Debug)]
pub struct StorageKeys {
    pub(crate) device: DeviceId,
    pub(crate) newest: Version,
    pub(crate) left: Option<Version>,
}

impl StorageKeys {
    /// The storage key; its first version is made when there is none.
    ///
    /// # Errors
    /// [`ProtectError`]: corrupt storage or a key that does not unwrap give no key, and never a fresh one in its place.
    pub fn open<F: Flash, I: Integrity, W: WrapKey, N: Noise>(
        store: &mut Store<F, I>,
        wrap: &W,
        device: DeviceId,
        source: &mut Source<N, Healthy>,
    ) -> Outcome<Self, F, W, N> {
        if let Some(newest) = load(store, wrap, device, STORAGE_KEY)? {
            let left = load(store, wrap, device, STORAGE_KEY_LEFT)?;
            return Ok(Self { device, newest, left });
        }
        let newest = Version { number: 1, key: source.random().map_err(ProtectError::Entropy)? };
        let octets = wrapped(wrap, device, &newest, source)?;
        store.put(STORAGE_KEY, &octets)?;
        Ok(Self { device, newest, left: None })
    }

    /// The version that new records lie under.
    #[must_use]
    pub const fn version(&self) -> u32 {
        self.newest.number
    }

    /// Sets a protected record.
    ///
    /// # Errors
    /// [`ProtectError`]; [`StorageError::Full`] before anything is written.
    pub fn put<F: Flash, I: Integrity, N: Noise>(
        &self,
        store: &mut Store<F, I>,
        id: RecordId,
        octets: &[u8],
        source: &mut Source<N, Healthy>,
    ) -> Result<(), ProtectError<F::Error, Infallible, N::Error>> {
        require_protected(id)?;
        let nonce = source.nonce().map_err(ProtectError::Entropy)?.into_octets();
        let mut sealed = [0; SEALED_OCTETS];
        let length = self.seal(id, octets, nonce, &mut sealed).ok_or(ProtectError::TooLarge)?;
        store.put(id, sealed.get(..length).unwrap_or_default())?;
        Ok(())
    }

    /// Reads a protected record into `octets` and gives its length; `None` when there is none.
    ///
    /// # Errors
    /// [`ProtectError::Refused`] without any octet of it; [`StorageError::Buffer`].
    pub fn read<F: Flash, I: Integrity>(
        &self,
        store: &mut Store<F, I>,
        id: RecordId,
        octets: &mut [u8],
    ) -> Result<Option<usize>, ProtectError<F::Error, Infallible, Infallible>> {
        require_protected(id)?;
        let mut sealed = [0; SEALED_OCTETS];
        let Some(length) = store.read(id, &mut sealed)? else { return Ok(None) };
        let plain = self.open_in_place(id, sealed.get_mut(..length).unwrap_or_default());
        let copied = match plain.ok_or(ProtectError::Refused)? {
            plain if plain.len() <= octets.len() => {
                octets.iter_mut().zip(plain.iter()).for_each(|(place, octet)| *place = *octet);
                Ok(Some(plain.len()))
            }
            plain => Err(StorageError::Buffer { needed: plain.len() }.into()),
        };
        sealed.zeroize();
        copied
    }

    /// Makes the next version the one in use, because `request` asks for it. Nothing happens when a migration is under way, or when
    /// the last one was for the same request.
    ///
    /// # Errors
    /// [`ProtectError`].
    pub fn begin<F: Flash, I: Integrity, W: WrapKey, N: Noise>(
        &mut self,
        store: &mut Store<F, I>,
        wrap: &W,
        request: [u8; 16],
        source: &mut Source<N, Healthy>,
    ) -> Outcome<(), F, W, N> {
        // Under way is also what a power cut left behind between the removal of the older key and its erasure.
        if parsed(store)?.is_some_and(|(last, _, _, code)| code == UNDER_WAY || last == request) {
            return Ok(());
        }
        // Of three keys a partition would not say which one a page lies under.
        if nvs_kept(store)? == Some(NvsKept::OnItsWay) {
            return Err(ProtectError::NvsFirst);
        }
        let number = self.newest.number.checked_add(1).ok_or(ProtectError::Refused)?;
        let next = Version { number, key: source.random().map_err(ProtectError::Entropy)? };
        let octets = wrapped(wrap, self.device, &next, source)?;
        let before = store.read_array::<KEY_OCTETS>(STORAGE_KEY)?.ok_or(KeyError::Missing)?;
        let begun = encoded(request, number, 0, UNDER_WAY);
        store.update(&[
            Change::Put(STORAGE_KEY, &octets),
            Change::Put(STORAGE_KEY_LEFT, &before),
            Change::Put(STORAGE_MIGRATED, &begun),
        ])?;
        self.left = Some(core::mem::replace(&mut self.newest, next));
        Ok(())
    }

    /// Takes a migration one step on.
    ///
    /// # Errors
    /// [`ProtectError`]; [`ProtectError::Refused`] for a record that opens under neither version: it stays as it is, and the
    /// older version is not destroyed. [`ProtectError::NvsFirst`] where a partition lies under it as well.
    pub fn step<F: Flash, I: Integrity, N: Noise>(
        &mut self,
        store: &mut Store<F, I>,
        source: &mut Source<N, Healthy>,
    ) -> Result<Step, ProtectError<F::Error, Infallible, N::Error>> {
        if self.left.is_some() && nvs_kept(store)?.is_some() {
            return Err(ProtectError::NvsFirst);
        }
        self.step_records(store, source)
    }

    /// The same, where no partition lies under the older version any more.
    pub(crate) fn step_records<F: Flash, I: Integrity, N: Noise>(
        &mut self,
        store: &mut Store<F, I>,
        source: &mut Source<N, Healthy>,
    ) -> Result<Step, ProtectError<F::Error, Infallible, N::Error>> {
        let Some(under_way) = begun(store)? else { return Ok(Step::Idle) };
        let (mut records, mut from) = (0_u32, RecordId::FIRST_PROTECTED);
        while let Some(id) = store.next_id(from)? {
            if self.left.is_some() && self.move_record(store, id, source)? {
                return Ok(Step::Moved(id));
            }
            records = records.saturating_add(1);
            let Some(next) = id.0.checked_add(1) else { break };
            from = RecordId(next);
        }
        // Also when a power cut came between the removal and the erasure: the cells are erased before it is said that they are.
        let erasure = store.destroy(&[STORAGE_KEY_LEFT])?;
        self.left = None;
        let version = self.newest.number;
        store.put(STORAGE_MIGRATED, &encoded(under_way, version, records, code_of(erasure)))?;
        Ok(Step::Over(Migrated { request: under_way, version, records, erasure }))
    }

    /// Seals a record anew when it lies under the older version; whether it did.
    fn move_record<F: Flash, I: Integrity, N: Noise>(
        &self,
        store: &mut Store<F, I>,
        id: RecordId,
        source: &mut Source<N, Healthy>,
    ) -> Result<bool, ProtectError<F::Error, Infallible, N::Error>> {
        let mut sealed = [0; SEALED_OCTETS];
        let length = store.read(id, &mut sealed)?.unwrap_or_default();
        let sealed = sealed.get_mut(..length).unwrap_or_default();
        if version_of(sealed) == Some(self.newest.number) {
            return Ok(false);
        }
        let plain = self.open_in_place(id, sealed).ok_or(ProtectError::Refused)?;
        let moved = self.put(store, id, plain, source);
        sealed.zeroize();
        moved.map(|()| true)
    }

    /// Format, version, nonce, ciphertext and tag; how long. `None`: too many octets.
    fn seal(&self, id: RecordId, octets: &[u8], nonce: [u8; 12], out: &mut [u8; SEALED_OCTETS]) -> Option<usize> {
        let length = HEAD.checked_add(octets.len())?;
        let (head, rest) = out.split_at_mut_checked(HEAD)?;
        let parts = [FORMAT].into_iter().chain(self.newest.number.to_be_bytes()).chain(nonce);
        head.iter_mut().zip(parts).for_each(|(place, octet)| *place = octet);
        if octets.len() > MAX_OCTETS {
            return None;
        }
        let (text, rest) = rest.split_at_mut_checked(octets.len())?;
        text.copy_from_slice(octets);
        let context = self.context(id, self.newest.number);
        let tag = cipher(&self.newest).encrypt_inout_detached(&nonce.into(), &context, (&mut *text).into()).ok()?;
        rest.get_mut(..TAG)?.copy_from_slice(&tag);
        length.checked_add(TAG)
    }

    /// The octets of a record, in the place of its ciphertext.
    fn open_in_place<'a>(&self, id: RecordId, sealed: &'a mut [u8]) -> Option<&'a mut [u8]> {
        let number = version_of(sealed)?;
        let version =
            [Some(&self.newest), self.left.as_ref()].into_iter().flatten().find(|key| key.number == number)?;
        let (head, rest) = sealed.split_at_mut_checked(HEAD)?;
        let nonce: [u8; 12] = head.get(5..)?.try_into().ok()?;
        let (text, tag) = rest.split_at_mut_checked(rest.len().checked_sub(TAG)?)?;
        let tag: [u8; TAG] = (&*tag).try_into().ok()?;
        let context = self.context(id, number);
        let opened = cipher(version).decrypt_inout_detached(&nonce.into(), &context, (&mut *text).into(), &tag.into());
        opened.ok().map(|()| text)
    }

    /// The additional authenticated data: format 1, id 2, version 4, device 16.
    fn context(&self, id: RecordId, version: u32) -> [u8; 23] {
        let mut octets = [0; 23];
        let parts = [FORMAT].into_iter().chain(id.0.to_be_bytes()).chain(version.to_be_bytes());
        let parts = parts.chain(*self.device.as_bytes());
        octets.iter_mut().zip(parts).for_each(|(place, octet)| *place = octet);
        octets
    }
}

/// The last migration that is over; to be told to the server until it has heard it.
///
/// # Errors
/// [`StorageError`].
pub fn last_migration<F: Flash, I: Integrity>(
    store: &mut Store<F, I>,
) -> Result<Option<Migrated>, StorageError<F::Error>> {
    let Some((request, version, records, code)) = parsed(store)? else { return Ok(None) };
    let erasure = match code {
        UNDER_WAY => return Ok(None),
        1 => Erasure::Overwritten,
        2 => Erasure::Erased { read_back: false },
        3 => Erasure::Erased { read_back: true },
        4 => Erasure::CryptoErased,
        _ => return Err(StorageError::Corrupt),
    };
    Ok(Some(Migrated { request, version, records, erasure }))
}

/// What is written down of an NVS partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NvsKept {
    /// Some of its pages may lie under the storage key.
    OnItsWay,
    /// All of them do.
    Kept,
}

pub(crate) fn nvs_kept<F: Flash, I: Integrity>(
    store: &mut Store<F, I>,
) -> Result<Option<NvsKept>, StorageError<F::Error>> {
    match store.read_array::<1>(NVS_KEPT)? {
        None => Ok(None),
        Some([1]) => Ok(Some(NvsKept::OnItsWay)),
        Some([2]) => Ok(Some(NvsKept::Kept)),
        Some(_) => Err(StorageError::Corrupt),
    }
}

/// The request of a migration that is under way.
fn begun<F: Flash, I: Integrity>(store: &mut Store<F, I>) -> Result<Option<[u8; 16]>, StorageError<F::Error>> {
    Ok(parsed(store)?.and_then(|(request, _, _, code)| (code == UNDER_WAY).then_some(request)))
}

/// The code of a migration that is not over.
const UNDER_WAY: u8 = 0;

const fn code_of(erasure: Erasure) -> u8 {
    match erasure {
        Erasure::Overwritten => 1,
        Erasure::Erased { read_back: false } => 2,
        Erasure::Erased { read_back: true } => 3,
        Erasure::CryptoErased => 4,
    }
}

fn encoded(request: [u8; 16], version: u32, records: u32, code: u8) -> [u8; MIGRATED_OCTETS] {
    let mut octets = [0; MIGRATED_OCTETS];
    let parts = request.into_iter().chain(version.to_be_bytes()).chain(records.to_be_bytes()).chain([code]);
    octets.iter_mut().zip(parts).for_each(|(place, octet)| *place = octet);
    octets
}

type Parsed = ([u8; 16], u32, u32, u8);

fn parsed<F: Flash, I: Integrity>(store: &mut Store<F, I>) -> Result<Option<Parsed>, StorageError<F::Error>> {
    let Some(octets) = store.read_array::<MIGRATED_OCTETS>(STORAGE_MIGRATED)? else { return Ok(None) };
    let parts = || {
        let (request, rest) = octets.split_first_chunk::<16>()?;
        let (version, rest) = rest.split_first_chunk::<4>()?;
        let (records, rest) = rest.split_first_chunk::<4>()?;
        Some((*request, u32::from_be_bytes(*version), u32::from_be_bytes(*records), *rest.first()?))
    };
    parts().map(Some).ok_or(StorageError::Corrupt)
}

const fn require_protected<F, W, N>(id: RecordId) -> Result<(), ProtectError<F, W, N>> {
    if id.0 < RecordId::FIRST_PROTECTED.0 { Err(ProtectError::Id) } else { Ok(()) }
}

/// The version that a record says it lies under.
fn version_of(sealed: &[u8]) -> Option<u32> {
    let (format, rest) = sealed.split_first()?;
    let (version, _) = rest.split_first_chunk::<4>()?;
    (*format == FORMAT).then(|| u32::from_be_bytes(*version))
}

fn cipher(version: &Version) -> Aes256Gcm {
    // Exposed to the cipher.
    Aes256Gcm::new(version.key.expose().into())
}

fn wrapped<F, W: WrapKey, N: Noise>(
    wrap: &W,
    device: DeviceId,
    version: &Version,
    source: &mut Source<N, Healthy>,
) -> Result<[u8; KEY_OCTETS], ProtectError<F, W::Error, N::Error>> {
    let nonce = source.nonce().map_err(ProtectError::Entropy)?;
    let context = Wrapped { device, what: What::StorageKey, number: version.number };
    let wrapped = wrap.wrap(context, nonce, &version.key).map_err(KeyError::Wrap)?;
    let mut octets = [0; KEY_OCTETS];
    let parts = version.number.to_be_bytes().into_iter().chain(wrapped);
    octets.iter_mut().zip(parts).for_each(|(place, octet)| *place = octet);
    Ok(octets)
}

fn load<F: Flash, I: Integrity, W: WrapKey>(
    store: &mut Store<F, I>,
    wrap: &W,
    device: DeviceId,
    id: RecordId,
) -> Result<Option<Version>, KeyError<F::Error, W::Error>> {
    let Some(octets) = store.read_array::<KEY_OCTETS>(id)? else { return Ok(None) };
    let parts = || {
        let (number, wrapped) = octets.split_first_chunk::<4>()?;
        Some((u32::from_be_bytes(*number), <&[u8; WRAPPED_OCTETS]>::try_from(wrapped).ok()?))
    };
    let (number, wrapped) = parts().ok_or(KeyError::Storage(StorageError::Corrupt))?;
    let context = Wrapped { device, what: What::StorageKey, number };
    Ok(Some(Version { number, key: wrap.unwrap(context, wrapped)? }))
}

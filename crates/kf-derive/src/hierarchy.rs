//! One type per level.

use core::convert::Infallible;

use hmac::{Hmac, KeyInit, Mac};
use kf_key::{DeviceId, FacilityId, SecretArray};
use sha2::Sha256;

use crate::info::{Algorithm, ContextTooLong, Info, Level, Purpose};

/// A key in whatever holds it that offers one HMAC-SHA-256 and nothing else.
pub trait KeyedHmac {
    /// Why the holder did not answer.
    type Error;

    /// Writes `HMAC-SHA-256(key, message)` to `tag`.
    ///
    /// # Errors
    /// Whatever the holder reports; `tag` must then not be used.
    fn hmac_sha256(&self, message: &[u8], tag: &mut [u8; 32]) -> Result<(), Self::Error>;
}

/// A key in this process.
#[derive(Debug)]
pub struct SoftwareKey(SecretArray<32>);

impl SoftwareKey {
    /// Takes over 32 uniformly random octets.
    #[must_use]
    pub const fn new(key: SecretArray<32>) -> Self {
        Self(key)
    }

    /// The key itself, for the primitive it was derived for.
    #[must_use]
    pub fn into_secret(self) -> SecretArray<32> {
        self.0
    }
}

impl KeyedHmac for SoftwareKey {
    type Error = Infallible;

    fn hmac_sha256(&self, message: &[u8], tag: &mut [u8; 32]) -> Result<(), Infallible> {
        // Exposed to HMAC.
        write_hmac(self.0.expose(), message, tag);
        Ok(())
    }
}

fn write_hmac(key: &[u8], message: &[u8], tag: &mut [u8; 32]) {
    // HMAC takes keys of any length (FIPS 198-1), so the error cannot occur.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else { return };
    mac.update(message);
    tag.copy_from_slice(&mac.finalize().into_bytes());
}

/// `HKDF-Expand(parent, info, 32)`: one HMAC.
///
/// # Errors
/// What the holder of `parent` reports.
pub fn expand<K: KeyedHmac>(parent: &K, info: &Info) -> Result<SoftwareKey, K::Error> {
    SecretArray::try_fill(|tag| parent.hmac_sha256(info.hmac_message(), tag)).map(SoftwareKey)
}

/// `HKDF-Extract(salt, input)` (RFC 5869 section 2.2), for inputs that carry entropy but are not uniformly random.
/// Passphrases do not belong here: they need Argon2id.
#[must_use]
pub fn extract(salt: &[u8], input: &[u8]) -> SoftwareKey {
    SoftwareKey(SecretArray::fill(|tag| write_hmac(salt, input, tag)))
}

macro_rules! levels {
    ($($(#[$doc:meta])* $name:ident;)+) => {$(
        $(#[$doc])*
        #[derive(Debug)]
        pub struct $name<K = SoftwareKey>(K);

        impl<K: KeyedHmac> $name<K> {
            /// A key of this level that a back end already holds, or that was unwrapped from storage.
            #[must_use]
            pub const fn from_keyed_hmac(key: K) -> Self {
                Self(key)
            }
        }
    )+};
}

levels! {
    /// The fleet root key.
    FleetRoot;
    /// The key of one site or factory.
    FacilityKey;
    /// What a station gets instead of a facility key: good for one batch.
    BatchKey;
    /// The key of one device and epoch.
    DeviceKey;
    /// The key of one session of a device.
    SessionKey;
}

/// The key of one service in one session, for use with AES-256-GCM.
#[derive(Debug)]
pub struct ApplicationKey(SoftwareKey);

/// Wraps data at rest on one device, with AES-256-GCM.
#[derive(Debug)]
pub struct StorageKey(SoftwareKey);

/// A key-wrapping key below the root, with AES-256-GCM.
#[derive(Debug)]
pub struct WrappingKey(SoftwareKey);

macro_rules! leaves {
    ($($name:ident)+) => {$(
        impl $name {
            /// The key, for AES-256-GCM.
            #[must_use]
            pub fn into_secret(self) -> SecretArray<32> {
                self.0.into_secret()
            }
        }
    )+};
}

leaves! { ApplicationKey StorageKey WrappingKey }

/// Why a step yields no key: a context that is too long, or the holder of the parent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeriveError<E> {
    /// The caller.
    Context(ContextTooLong),
    /// The holder of the parent key.
    Holder(E),
}

fn step<K: KeyedHmac>(
    parent: &K,
    level: Level,
    algorithm: Algorithm,
    context: &[u8],
    epoch: u32,
) -> Result<SoftwareKey, DeriveError<K::Error>> {
    let purpose = if matches!(algorithm, Algorithm::HkdfSha256) { Purpose::Derive } else { Purpose::Encrypt };
    let info = Info::new(level, algorithm, purpose, context, epoch).map_err(DeriveError::Context)?;
    expand(parent, &info).map_err(DeriveError::Holder)
}

/// The context of a device: its identifier and the 16 octets whose destruction ends its key.
fn device_context(device: DeviceId, salt: &[u8; 16]) -> [u8; 32] {
    let mut context = [0; 32];
    let (first, second) = context.split_at_mut(16);
    first.copy_from_slice(device.as_bytes());
    second.copy_from_slice(salt);
    context
}

impl<K: KeyedHmac> FleetRoot<K> {
    /// The key of a facility.
    ///
    /// # Errors
    /// [`DeriveError::Holder`].
    pub fn facility(&self, facility: FacilityId, epoch: u32) -> Result<FacilityKey, DeriveError<K::Error>> {
        step(&self.0, Level::Facility, Algorithm::HkdfSha256, facility.as_bytes(), epoch).map(FacilityKey)
    }

    /// A key-wrapping key, one per purpose and epoch. `info` of the same key, for a back end that expands by itself:
    /// [`wrapping_info`](Self::wrapping_info).
    ///
    /// # Errors
    /// [`DeriveError`].
    pub fn wrapping(&self, purpose: Purpose, epoch: u32) -> Result<WrappingKey, DeriveError<K::Error>> {
        let info = Self::wrapping_info(purpose, epoch).map_err(DeriveError::Context)?;
        expand(&self.0, &info).map(WrappingKey).map_err(DeriveError::Holder)
    }
}

impl<K> FleetRoot<K> {
    /// The `info` of [`FleetRoot::wrapping`].
    ///
    /// # Errors
    /// [`ContextTooLong`], which cannot occur: the context is empty.
    pub fn wrapping_info(purpose: Purpose, epoch: u32) -> Result<Info, ContextTooLong> {
        Info::new(Level::Wrapping, Algorithm::Aes256Gcm, purpose, &[], epoch)
    }
}

impl<K: KeyedHmac> FacilityKey<K> {
    /// The key of a device.
    ///
    /// # Errors
    /// [`DeriveError::Holder`].
    pub fn device(&self, device: DeviceId, salt: &[u8; 16], epoch: u32) -> Result<DeviceKey, DeriveError<K::Error>> {
        step(&self.0, Level::Device, Algorithm::HkdfSha256, &device_context(device, salt), epoch).map(DeviceKey)
    }

    /// The key of a batch, for a station.
    ///
    /// # Errors
    /// [`DeriveError`].
    pub fn batch(&self, batch: &[u8], epoch: u32) -> Result<BatchKey, DeriveError<K::Error>> {
        step(&self.0, Level::Batch, Algorithm::HkdfSha256, batch, epoch).map(BatchKey)
    }
}

impl<K: KeyedHmac> BatchKey<K> {
    /// The provisioning key of a device of this batch.
    ///
    /// # Errors
    /// [`DeriveError::Holder`].
    pub fn device(&self, device: DeviceId, salt: &[u8; 16], epoch: u32) -> Result<DeviceKey, DeriveError<K::Error>> {
        step(&self.0, Level::Device, Algorithm::HkdfSha256, &device_context(device, salt), epoch).map(DeviceKey)
    }
}

impl<K: KeyedHmac> DeviceKey<K> {
    /// The key of a session. It separates sessions; it gives no forward secrecy by itself.
    ///
    /// # Errors
    /// [`DeriveError`].
    pub fn session(&self, session: &[u8], epoch: u32) -> Result<SessionKey, DeriveError<K::Error>> {
        step(&self.0, Level::Session, Algorithm::HkdfSha256, session, epoch).map(SessionKey)
    }

    /// The key that wraps data at rest.
    ///
    /// # Errors
    /// [`DeriveError`].
    pub fn storage(&self, label: &[u8], epoch: u32) -> Result<StorageKey, DeriveError<K::Error>> {
        step(&self.0, Level::Storage, Algorithm::Aes256Gcm, label, epoch).map(StorageKey)
    }
}

impl<K: KeyedHmac> SessionKey<K> {
    /// The key of a service.
    ///
    /// # Errors
    /// [`DeriveError`].
    pub fn application(&self, service: &[u8], epoch: u32) -> Result<ApplicationKey, DeriveError<K::Error>> {
        step(&self.0, Level::Application, Algorithm::Aes256Gcm, service, epoch).map(ApplicationKey)
    }
}

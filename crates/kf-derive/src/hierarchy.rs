//! One type per level.

use kf_key::{DeviceId, FacilityId, SecretArray};

use crate::arrangement::{KeyDerivationKey, SoftwareHeld};
use crate::info::{Algorithm, ContextTooLong, Info, Level, Purpose};
use crate::keyed_hmac::SoftwareKey;
use crate::leaf::{AeadAlgorithm, AuthenticationKey, EncryptionKey, SealingKey, Sender, StorageKey, WrappingKey};

macro_rules! levels {
    ($($(#[$doc:meta])* $name:ident;)+) => {$(
        $(#[$doc])*
        #[derive(Debug)]
        pub struct $name<K = SoftwareKey>(pub(crate) K);

        impl<K: KeyDerivationKey> $name<K> {
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
    /// The key of one service in one session.
    ApplicationKey;
}

macro_rules! portable {
    ($($name:ident)+) => {$(
        impl<K: SoftwareHeld> $name<K> {
            /// The key, to be wrapped or sealed for whoever it is meant for.
            #[must_use]
            pub fn into_secret(self) -> SecretArray<32> {
                self.0.into_secret()
            }
        }
    )+};
}

/// A key that a chip holds for good: burnt into eFuses, or in a slot that was locked. Nobody can replace it, so nothing
/// that must be replaced is derived from it: it only wraps. The device key lies wrapped under it, and a new epoch is a
/// new wrapped key. There is no way from here to a level of the tree:
///
/// ```compile_fail,E0599
/// # use kf_derive::{FusedKey, SoftwareKey};
/// # let fused = FusedKey::new(SoftwareKey::new(kf_key::SecretArray::fill(|key| key.fill(1))));
/// fused.session(b"session", 1);
/// ```
#[derive(Debug)]
pub struct FusedKey<K>(K);

impl<K: KeyDerivationKey> FusedKey<K> {
    /// The key that the chip holds.
    #[must_use]
    pub const fn new(key: K) -> Self {
        Self(key)
    }

    /// The key that wraps a replaceable key of this epoch.
    ///
    /// # Errors
    /// [`DeriveError::Holder`].
    pub fn wrapping(&self, epoch: u32) -> Step<WrappingKey, K> {
        let place = (Algorithm::Aes256Gcm, Purpose::WrapReplaceableKey);
        leaf(&self.0, Level::Wrapping, place, &[], epoch).map(WrappingKey::new)
    }
}

// What leaves the place where it was derived: to a station, a device, the server. Roots and facility keys do not.
portable! { BatchKey DeviceKey SessionKey ApplicationKey }

/// Why a step yields no key: a context that is too long, or the holder of the parent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeriveError<E> {
    /// The caller.
    Context(ContextTooLong),
    /// The holder of the parent key.
    Holder(E),
}

impl<E> core::fmt::Display for DeriveError<E> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Context(too_long) => too_long.fmt(f),
            Self::Holder(_) => f.write_str("the holder of the parent key did not answer"),
        }
    }
}

impl<E: core::error::Error + 'static> core::error::Error for DeriveError<E> {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            Self::Context(_) => None,
            Self::Holder(holder) => Some(holder),
        }
    }
}

type Step<T, K> = Result<T, DeriveError<<K as KeyDerivationKey>::Error>>;

/// The key of the next level, from which further keys are derived.
pub(crate) fn step<K: KeyDerivationKey>(parent: &K, level: Level, context: &[u8], epoch: u32) -> Step<K::Child, K> {
    leaf(parent, level, (Algorithm::HkdfSha256, Purpose::Derive), context, epoch).map(K::Child::from_secret)
}

fn leaf<K: KeyDerivationKey>(
    parent: &K,
    level: Level,
    (algorithm, purpose): (Algorithm, Purpose),
    context: &[u8],
    epoch: u32,
) -> Step<SecretArray<32>, K> {
    let info = Info::new(level, algorithm, purpose, context, epoch).map_err(DeriveError::Context)?;
    parent.derive(&info).map_err(DeriveError::Holder)
}

/// The context of a device: its identifier and the 16 octets whose destruction ends its key.
fn device_context(device: DeviceId, salt: &[u8; 16]) -> [u8; 32] {
    let mut context = [0; 32];
    let (first, second) = context.split_at_mut(16);
    first.copy_from_slice(device.as_bytes());
    second.copy_from_slice(salt);
    context
}

impl<K: KeyDerivationKey> FleetRoot<K> {
    /// The key of a facility.
    ///
    /// # Errors
    /// [`DeriveError::Holder`].
    pub fn facility(&self, facility: FacilityId, epoch: u32) -> Step<FacilityKey<K::Child>, K> {
        step(&self.0, Level::Facility, facility.as_bytes(), epoch).map(FacilityKey)
    }

    /// A key-wrapping key, one per purpose and epoch. `info` of the same key, for a back end that expands by itself:
    /// [`wrapping_info`](Self::wrapping_info).
    ///
    /// # Errors
    /// [`DeriveError`].
    pub fn wrapping(&self, purpose: Purpose, epoch: u32) -> Step<WrappingKey, K> {
        let info = Self::wrapping_info(purpose, epoch).map_err(DeriveError::Context)?;
        self.0.derive(&info).map(WrappingKey::new).map_err(DeriveError::Holder)
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

    /// The `info` of [`FleetRoot::facility`], for a back end that expands by itself.
    ///
    /// # Errors
    /// [`ContextTooLong`], which cannot occur: an identifier has 16 octets.
    pub fn facility_info(facility: FacilityId, epoch: u32) -> Result<Info, ContextTooLong> {
        Info::new(Level::Facility, Algorithm::HkdfSha256, Purpose::Derive, facility.as_bytes(), epoch)
    }
}

impl<K: KeyDerivationKey> FacilityKey<K> {
    /// The key of a device.
    ///
    /// # Errors
    /// [`DeriveError::Holder`].
    pub fn device(&self, device: DeviceId, salt: &[u8; 16], epoch: u32) -> Step<DeviceKey<K::Child>, K> {
        step(&self.0, Level::Device, &device_context(device, salt), epoch).map(DeviceKey)
    }

    /// The key of a batch, for a station.
    ///
    /// # Errors
    /// [`DeriveError`].
    pub fn batch(&self, batch: &[u8], epoch: u32) -> Step<BatchKey<K::Child>, K> {
        step(&self.0, Level::Batch, batch, epoch).map(BatchKey)
    }

    /// What the private half of a key is made from to which the station of a batch encrypts: it stays with whoever holds the
    /// facility key, and nothing of the batch key leads to it.
    ///
    /// # Errors
    /// [`DeriveError`].
    pub fn batch_agreement(&self, batch: &[u8], epoch: u32) -> Step<SecretArray<32>, K> {
        leaf(&self.0, Level::Batch, (Algorithm::HkdfSha256, Purpose::Agree), batch, epoch)
    }
}

impl<K: KeyDerivationKey> BatchKey<K> {
    /// The provisioning key of a device of this batch.
    ///
    /// # Errors
    /// [`DeriveError::Holder`].
    pub fn device(&self, device: DeviceId, salt: &[u8; 16], epoch: u32) -> Step<DeviceKey<K::Child>, K> {
        step(&self.0, Level::Device, &device_context(device, salt), epoch).map(DeviceKey)
    }

    /// What other keys are written into a secure element under: the same at every try with this chip, so that a power cut
    /// leaves none with a key that nobody knows.
    ///
    /// # Errors
    /// [`DeriveError`].
    pub fn element_transport(&self, serial_number: &[u8], epoch: u32) -> Step<SecretArray<32>, K> {
        let place = (Algorithm::HkdfSha256, Purpose::WrapReplaceableKey);
        leaf(&self.0, Level::Wrapping, place, serial_number, epoch)
    }
}

impl<K: KeyDerivationKey> DeviceKey<K> {
    /// The key of a session. It separates sessions; it gives no forward secrecy by itself.
    ///
    /// # Errors
    /// [`DeriveError`].
    pub fn session(&self, session: &[u8], epoch: u32) -> Step<SessionKey<K::Child>, K> {
        step(&self.0, Level::Session, session, epoch).map(SessionKey)
    }

    /// The key that wraps data at rest.
    ///
    /// # Errors
    /// [`DeriveError`].
    pub fn storage(&self, label: &[u8], epoch: u32) -> Step<StorageKey, K> {
        leaf(&self.0, Level::Storage, (Algorithm::Aes256Gcm, Purpose::Encrypt), label, epoch).map(StorageKey::new)
    }

    /// A key that shows to whoever can derive it that its holder has this device key, for example in an acknowledgement.
    ///
    /// # Errors
    /// [`DeriveError`].
    pub fn authentication(&self, label: &[u8], epoch: u32) -> Step<AuthenticationKey, K> {
        leaf(&self.0, Level::Session, (Algorithm::HmacSha256, Purpose::Authenticate), label, epoch)
            .map(AuthenticationKey::new)
    }
}

impl<K: KeyDerivationKey> SessionKey<K> {
    /// The key of a service, from which its sealing keys are derived.
    ///
    /// # Errors
    /// [`DeriveError`].
    pub fn application(&self, service: &[u8], epoch: u32) -> Step<ApplicationKey<K::Child>, K> {
        step(&self.0, Level::Application, service, epoch).map(ApplicationKey)
    }

    /// The key that encrypts the data of a service, for a session in which nonces cannot repeat.
    ///
    /// # Errors
    /// [`DeriveError`].
    pub fn encryption(&self, service: &[u8], algorithm: AeadAlgorithm, epoch: u32) -> Step<EncryptionKey, K> {
        leaf(&self.0, Level::Application, (algorithm.into(), Purpose::Encrypt), service, epoch)
            .map(|key| EncryptionKey::new(algorithm, key))
    }

    /// The key that authenticates the data of a service.
    ///
    /// # Errors
    /// [`DeriveError`].
    pub fn authentication(&self, service: &[u8], epoch: u32) -> Step<AuthenticationKey, K> {
        leaf(&self.0, Level::Application, (Algorithm::HmacSha256, Purpose::Authenticate), service, epoch)
            .map(AuthenticationKey::new)
    }
}

impl<K: KeyDerivationKey> ApplicationKey<K> {
    /// The sealing key of one boot and one direction. `boot_random` are 128 fresh random bits, drawn at every start and
    /// sent in the clear with every payload; that they never repeat is what lets the counters below start at zero.
    ///
    /// # Errors
    /// [`DeriveError::Holder`].
    pub fn boot(&self, boot_random: &[u8; 16], sender: Sender, algorithm: AeadAlgorithm) -> Step<SealingKey, K> {
        let mut context = [sender.code(); 17];
        if let Some(place) = context.last_chunk_mut() {
            *place = *boot_random;
        }
        leaf(&self.0, Level::Boot, (algorithm.into(), Purpose::Encrypt), &context, 0)
            .map(|key| SealingKey::new(sender, EncryptionKey::new(algorithm, key)))
    }
}

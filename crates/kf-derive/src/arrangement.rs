//! How a step is computed: HKDF-Expand, or SP 800-108 counter mode for those who read SP 800-108r1 strictly.

use core::convert::Infallible;

use kf_key::SecretArray;

use crate::info::{Info, MAX_INFO_OCTETS};
use crate::keyed_hmac::{KeyedHmac, SoftwareKey, expand};

/// A key-derivation key (SP 800-57): a key whose only use is to derive the next level.
///
/// Every [`KeyedHmac`] is one, by HKDF-Expand; [`CounterMode`] around it is one, by SP 800-108r1. Below the first step
/// the arrangement stays the same, so a tree is of one kind from root to leaf.
pub trait KeyDerivationKey {
    /// Why the holder did not answer.
    type Error;
    /// A key below this one, which is in this process.
    type Child: SoftwareHeld;

    /// The 32 octets at the place that `info` names. Of a key of 16 octets they are the first half.
    ///
    /// # Errors
    /// Whatever the holder reports.
    fn derive(&self, info: &Info) -> Result<SecretArray<32>, Self::Error>;
}

/// A key-derivation key in this process: it can be stored, sent sealed, and wiped.
pub trait SoftwareHeld: KeyDerivationKey<Error = Infallible, Child = Self> + Sized {
    /// Takes over 32 uniformly random octets.
    fn from_secret(key: SecretArray<32>) -> Self;

    /// The key, borrowed.
    fn secret(&self) -> &SecretArray<32>;

    /// The key.
    fn into_secret(self) -> SecretArray<32>;
}

impl<K: KeyedHmac> KeyDerivationKey for K {
    type Error = K::Error;
    type Child = SoftwareKey;

    fn derive(&self, info: &Info) -> Result<SecretArray<32>, K::Error> {
        expand(self, info).map(SoftwareKey::into_secret)
    }
}

impl SoftwareHeld for SoftwareKey {
    fn from_secret(key: SecretArray<32>) -> Self {
        Self::new(key)
    }

    fn secret(&self) -> &SecretArray<32> {
        self.secret()
    }

    fn into_secret(self) -> SecretArray<32> {
        self.into_secret()
    }
}

/// The Label of SP 800-108r1 section 4. It holds no zero octet, so the separator behind it is the first one.
const LABEL: &[u8] = b"keyfleet-v1";

const MAX_FIXED_INPUT_OCTETS: usize = 4 + LABEL.len() + 1 + MAX_INFO_OCTETS + 4;

/// A key used in counter mode (SP 800-108r1 section 4.1) with HMAC-SHA-256, a counter of 32 bits and one block:
///
/// ```text
/// K(1) = HMAC-SHA-256(key, [1]_32 || "keyfleet-v1" || 0x00 || info || [L]_32)        L = bits of the key
/// ```
///
/// It begins with a zero octet, the message of HKDF-Expand with the version octet: even over one key the two
/// arrangements never ask for the same HMAC.
#[derive(Debug)]
pub struct CounterMode<K = SoftwareKey>(K);

impl<K: KeyedHmac> CounterMode<K> {
    /// Uses `key` in counter mode, and everything derived from it.
    #[must_use]
    pub const fn new(key: K) -> Self {
        Self(key)
    }
}

impl<K: KeyedHmac> KeyDerivationKey for CounterMode<K> {
    type Error = K::Error;
    type Child = CounterMode<SoftwareKey>;

    fn derive(&self, info: &Info) -> Result<SecretArray<32>, K::Error> {
        let bits = u32::from(info.key_octets()) * 8;
        let parts: [&[u8]; 5] = [&1_u32.to_be_bytes(), LABEL, &[0x00], info.as_bytes(), &bits.to_be_bytes()];
        let mut message = [0; MAX_FIXED_INPUT_OCTETS];
        let mut length = 0;
        for part in parts {
            // The array is as long as the longest parts together, so there is always room.
            let end = length + part.len();
            if let Some(place) = message.get_mut(length..end) {
                place.copy_from_slice(part);
            }
            length = end;
        }
        let used = message.get(..length).unwrap_or_default();
        SecretArray::try_fill(|tag| self.0.hmac_sha256(used, tag))
    }
}

impl SoftwareHeld for CounterMode<SoftwareKey> {
    fn from_secret(key: SecretArray<32>) -> Self {
        Self(SoftwareKey::new(key))
    }

    fn secret(&self) -> &SecretArray<32> {
        self.0.secret()
    }

    fn into_secret(self) -> SecretArray<32> {
        self.0.into_secret()
    }
}

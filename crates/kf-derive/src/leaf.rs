//! Keys that nothing is derived from: they encrypt or authenticate.

use core::fmt;

use hmac::{Hmac, Mac};
use kf_key::SecretArray;
use sha2::Sha256;

use crate::info::Algorithm;
use crate::keyed_hmac::hmac_under;

/// An algorithm of authenticated encryption.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are those of Algorithm, where they are described")]
pub enum AeadAlgorithm {
    Aes128Ccm,
    Aes128Gcm,
    Aes256Gcm,
    ChaCha20Poly1305,
}

impl AeadAlgorithm {
    /// Every algorithm.
    pub const ALL: [Self; 4] = [Self::Aes128Ccm, Self::Aes128Gcm, Self::Aes256Gcm, Self::ChaCha20Poly1305];
}

impl From<AeadAlgorithm> for Algorithm {
    fn from(algorithm: AeadAlgorithm) -> Self {
        match algorithm {
            AeadAlgorithm::Aes128Ccm => Self::Aes128Ccm,
            AeadAlgorithm::Aes128Gcm => Self::Aes128Gcm,
            AeadAlgorithm::Aes256Gcm => Self::Aes256Gcm,
            AeadAlgorithm::ChaCha20Poly1305 => Self::ChaCha20Poly1305,
        }
    }
}

/// Who seals with a key. The two directions never share one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Sender {
    /// The device, to the server.
    Device = 1,
    /// The server, to the device.
    Server = 2,
}

impl Sender {
    /// The octet in `info` and in headers.
    #[must_use]
    #[allow(clippy::as_conversions, reason = "a fieldless enum with explicit codes")]
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// The sender of a code; `None` for another octet.
    #[must_use]
    pub const fn from_code(code: u8) -> Option<Self> {
        match code {
            1 => Some(Self::Device),
            2 => Some(Self::Server),
            _ => None,
        }
    }
}

/// A data-encryption key for one algorithm.
pub struct EncryptionKey {
    algorithm: AeadAlgorithm,
    key: SecretArray<32>,
}

impl EncryptionKey {
    pub(crate) const fn new(algorithm: AeadAlgorithm, key: SecretArray<32>) -> Self {
        Self { algorithm, key }
    }

    /// The algorithm that it was derived for.
    #[must_use]
    pub const fn algorithm(&self) -> AeadAlgorithm {
        self.algorithm
    }

    /// The key: 16 or 32 octets. Every call is an exposure: give the reason beside it.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        // Exposed to the caller, who says why.
        self.key.expose().get(..Algorithm::from(self.algorithm).key_octets()).unwrap_or_default()
    }
}

impl fmt::Debug for EncryptionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EncryptionKey({:?})", self.algorithm)
    }
}

/// A data-encryption key of one boot and one direction. Nonces count from zero below it, because no boot repeats its
/// 128 random bits.
#[derive(Debug)]
pub struct SealingKey {
    sender: Sender,
    key: EncryptionKey,
}

impl SealingKey {
    pub(crate) const fn new(sender: Sender, key: EncryptionKey) -> Self {
        Self { sender, key }
    }

    /// Who seals with it; the other side opens.
    #[must_use]
    pub const fn sender(&self) -> Sender {
        self.sender
    }

    /// The algorithm that it was derived for.
    #[must_use]
    pub const fn algorithm(&self) -> AeadAlgorithm {
        self.key.algorithm
    }

    /// The key: 16 or 32 octets. Every call is an exposure: give the reason beside it.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        // Exposed to the caller, who says why.
        self.key.expose()
    }
}

/// A key for HMAC-SHA-256 over data.
#[derive(Debug)]
pub struct AuthenticationKey(SecretArray<32>);

impl AuthenticationKey {
    pub(crate) const fn new(key: SecretArray<32>) -> Self {
        Self(key)
    }

    /// The tag of `parts`, as if they were one message.
    #[must_use]
    pub fn tag(&self, parts: &[&[u8]]) -> [u8; 32] {
        self.mac(parts).finalize().into_bytes().into()
    }

    /// Whether `tag` is the tag of `parts`, in constant time.
    #[must_use]
    pub fn verify(&self, parts: &[&[u8]], tag: &[u8; 32]) -> bool {
        self.mac(parts).verify(tag.into()).is_ok()
    }

    fn mac(&self, parts: &[&[u8]]) -> Hmac<Sha256> {
        // Exposed to HMAC.
        let mut mac = hmac_under(self.0.expose());
        parts.iter().for_each(|part| mac.update(part));
        mac
    }
}

/// Wraps data at rest on one device, with AES-256-GCM.
#[derive(Debug)]
pub struct StorageKey(SecretArray<32>);

/// A key-wrapping key below the root, with AES-256-GCM.
#[derive(Debug)]
pub struct WrappingKey(SecretArray<32>);

macro_rules! whole_keys {
    ($($name:ident)+) => {$(
        impl $name {
            pub(crate) const fn new(key: SecretArray<32>) -> Self {
                Self(key)
            }

            /// The key, for AES-256-GCM.
            #[must_use]
            pub fn into_secret(self) -> SecretArray<32> {
                self.0
            }
        }
    )+};
}

whole_keys! { StorageKey WrappingKey }

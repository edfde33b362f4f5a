//! One keyed cipher, whichever was built in.

use kf_derive::SealingKey;

use crate::algorithm::{SealAlgorithm, TAG_OCTETS};

#[cfg(feature = "aes-128-gcm")]
use aes_gcm::Aes128Gcm;
#[cfg(all(feature = "aes-128-gcm", not(feature = "aes-128-ccm")))]
use aes_gcm::aead;
#[cfg(feature = "aes-128-ccm")]
use ccm::aead;
#[cfg(feature = "chacha20-poly1305")]
use chacha20poly1305::ChaCha20Poly1305;
#[cfg(all(feature = "chacha20-poly1305", not(any(feature = "aes-128-ccm", feature = "aes-128-gcm"))))]
use chacha20poly1305::aead;

use aead::{AeadInOut, KeyInit};

/// AES-CCM with L = 2 (a nonce of 13 octets) and M = 16 (RFC 9053 section 4.2).
#[cfg(feature = "aes-128-ccm")]
type Aes128Ccm = ccm::Ccm<aes::Aes128, ccm::consts::U16, ccm::consts::U13>;

/// The one thing that is said of a ciphertext that does not open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Refused;

/// Key schedules are wiped when dropped.
#[allow(clippy::large_enum_variant, reason = "without an allocator there is nothing to point to")]
pub(crate) enum Cipher {
    #[cfg(feature = "aes-128-ccm")]
    Ccm(Aes128Ccm),
    #[cfg(feature = "aes-128-gcm")]
    Gcm(Aes128Gcm),
    #[cfg(feature = "chacha20-poly1305")]
    ChaCha(ChaCha20Poly1305),
}

impl Cipher {
    /// `None`: this build does not have the algorithm, or the key is for another one.
    pub(crate) fn new(algorithm: SealAlgorithm, key: &SealingKey) -> Option<Self> {
        if key.algorithm() != algorithm.into() {
            return None;
        }
        // Exposed to the key schedule.
        let key = key.expose();
        match algorithm {
            #[cfg(feature = "aes-128-ccm")]
            SealAlgorithm::Aes128Ccm => Aes128Ccm::new_from_slice(key).ok().map(Self::Ccm),
            #[cfg(feature = "aes-128-gcm")]
            SealAlgorithm::Aes128Gcm => Aes128Gcm::new_from_slice(key).ok().map(Self::Gcm),
            #[cfg(feature = "chacha20-poly1305")]
            SealAlgorithm::ChaCha20Poly1305 => ChaCha20Poly1305::new_from_slice(key).ok().map(Self::ChaCha),
            #[allow(unreachable_patterns, reason = "reachable unless every feature is on")]
            _ => None,
        }
    }

    /// Encrypts `buffer` in place; the tag.
    pub(crate) fn encrypt(&self, nonce: &[u8], aad: &[u8], buffer: &mut [u8]) -> Result<[u8; TAG_OCTETS], Refused> {
        match self {
            #[cfg(feature = "aes-128-ccm")]
            Self::Ccm(cipher) => encrypt(cipher, nonce, aad, buffer),
            #[cfg(feature = "aes-128-gcm")]
            Self::Gcm(cipher) => encrypt(cipher, nonce, aad, buffer),
            #[cfg(feature = "chacha20-poly1305")]
            Self::ChaCha(cipher) => encrypt(cipher, nonce, aad, buffer),
        }
    }

    /// Decrypts `buffer` in place, if `tag` is that of it and `aad`. After a failure `buffer` is of no use.
    pub(crate) fn decrypt(
        &self,
        nonce: &[u8],
        aad: &[u8],
        buffer: &mut [u8],
        tag: &[u8; TAG_OCTETS],
    ) -> Result<(), Refused> {
        match self {
            #[cfg(feature = "aes-128-ccm")]
            Self::Ccm(cipher) => decrypt(cipher, nonce, aad, buffer, tag),
            #[cfg(feature = "aes-128-gcm")]
            Self::Gcm(cipher) => decrypt(cipher, nonce, aad, buffer, tag),
            #[cfg(feature = "chacha20-poly1305")]
            Self::ChaCha(cipher) => decrypt(cipher, nonce, aad, buffer, tag),
        }
    }
}

fn encrypt<A: AeadInOut>(cipher: &A, nonce: &[u8], aad: &[u8], buffer: &mut [u8]) -> Result<[u8; TAG_OCTETS], Refused> {
    let nonce = nonce.try_into().map_err(|_length| Refused)?;
    let tag = cipher.encrypt_inout_detached(nonce, aad, buffer.into()).map_err(|_opaque| Refused)?;
    tag.as_slice().try_into().map_err(|_length| Refused)
}

fn decrypt<A: AeadInOut>(
    cipher: &A,
    nonce: &[u8],
    aad: &[u8],
    buffer: &mut [u8],
    tag: &[u8; TAG_OCTETS],
) -> Result<(), Refused> {
    let nonce = nonce.try_into().map_err(|_length| Refused)?;
    let tag = tag.as_slice().try_into().map_err(|_length| Refused)?;
    cipher.decrypt_inout_detached(nonce, aad, buffer.into(), tag).map_err(|_opaque| Refused)
}

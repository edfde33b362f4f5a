//! What holds a key and offers one HMAC-SHA-256 over it.

use core::convert::Infallible;

use hmac::{Hmac, KeyInit, Mac};
use kf_key::SecretArray;
use sha2::{Digest, Sha256};

use crate::info::Info;

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

impl<K: KeyedHmac + ?Sized> KeyedHmac for &K {
    type Error = K::Error;

    fn hmac_sha256(&self, message: &[u8], tag: &mut [u8; 32]) -> Result<(), Self::Error> {
        (**self).hmac_sha256(message, tag)
    }
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

    pub(crate) const fn secret(&self) -> &SecretArray<32> {
        &self.0
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

/// HMAC-SHA-256 ready for a message. A key of more octets than a block is hashed first, a shorter one is filled up with
/// zeroes (FIPS 198-1 section 4).
pub(crate) fn hmac_under(key: &[u8]) -> Hmac<Sha256> {
    let block = SecretArray::<64>::fill(|block| match block.get_mut(..key.len()) {
        Some(place) => place.copy_from_slice(key),
        None => {
            if let Some(place) = block.first_chunk_mut::<32>() {
                *place = Sha256::digest(key).into();
            }
        }
    });
    // Exposed to HMAC.
    Hmac::new(block.expose().into())
}

fn write_hmac(key: &[u8], message: &[u8], tag: &mut [u8; 32]) {
    tag.copy_from_slice(&hmac_under(key).chain_update(message).finalize().into_bytes());
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

//! The one encryption under an eFuse key.

use aes::Aes256;
use aes_gcm::AesGcm;
use aes_gcm::aead::consts::U16;
use aes_gcm::aead::{AeadInOut, KeyInit};
use kf_key::SecretArray;

use super::{SecureCertError, TAG_OCTETS};
use crate::octets::field;

/// What the HMAC peripheral is asked for the key: all ones.
pub const HMAC_KEY_MESSAGE: [u8; 32] = [0xff; 32];
/// What the HMAC peripheral is asked for the IV, its first 16 octets: `0xabcdabcd` eight times, little endian.
pub const HMAC_IV_MESSAGE: [u8; 32] = {
    let word = [0xcd, 0xab, 0xcd, 0xab];
    let [a, b, c, d] = word;
    [a, b, c, d, a, b, c, d, a, b, c, d, a, b, c, d, a, b, c, d, a, b, c, d, a, b, c, d, a, b, c, d]
};

type Gcm = AesGcm<Aes256, U16>;

/// A new key for an eFuse block of purpose `HMAC_UP`, which no record was encrypted under.
///
/// Splitting it gives the octets to burn and the permission to encrypt one record. There is no way from the octets back to
/// a permission.
pub struct HmacEfuseKey(SecretArray<32>);

/// The permission to encrypt one record: not `Clone`, spent by [`super::SecureCertWriter::add_encrypted`].
pub struct RecordCipher {
    key: SecretArray<32>,
    iv: [u8; 16],
}

impl HmacEfuseKey {
    /// Takes 32 octets that were drawn from a random source for this one device, and never used.
    #[must_use]
    pub const fn fresh(key: SecretArray<32>) -> Self {
        Self(key)
    }

    /// The octets to burn, and the cipher under them. `hmac` is HMAC-SHA-256 of a message under a key.
    ///
    /// # Errors
    /// Whatever `hmac` returns.
    pub fn split<E>(
        self,
        mut hmac: impl FnMut(&SecretArray<32>, &[u8; 32]) -> Result<SecretArray<32>, E>,
    ) -> Result<(SecretArray<32>, RecordCipher), E> {
        let key = hmac(&self.0, &HMAC_KEY_MESSAGE)?;
        // Exposed to shorten it: an IV is no secret by itself.
        let iv = field(hmac(&self.0, &HMAC_IV_MESSAGE)?.expose(), 0);
        Ok((self.0, RecordCipher { key, iv }))
    }
}

impl RecordCipher {
    /// Encrypts in place, once.
    pub(super) fn encrypt(self, value: &mut [u8]) -> Result<[u8; TAG_OCTETS], SecureCertError> {
        let tag = gcm(&self.key)
            .encrypt_inout_detached((&self.iv).into(), &[], value.into())
            .map_err(|_opaque| SecureCertError::Refused)?;
        Ok(field(tag.as_slice(), 0))
    }
}

/// Opens an encrypted record into `buffer`, as the firmware does: `hmac` is that of the eFuse block. For read-back.
///
/// # Errors
/// [`SecureCertError::Refused`], [`SecureCertError::BufferTooShort`], and whatever `hmac` returns.
pub fn open_record<'b, E: From<SecureCertError>>(
    record: &super::Record<'_>,
    buffer: &'b mut [u8],
    mut hmac: impl FnMut(&[u8; 32]) -> Result<SecretArray<32>, E>,
) -> Result<&'b [u8], E> {
    if record.protection != super::KeyProtection::HmacEncrypted {
        return Err(SecureCertError::Refused.into());
    }
    let (ciphertext, tag) = record.value.split_last_chunk::<TAG_OCTETS>().ok_or(SecureCertError::Refused)?;
    let too_short = SecureCertError::BufferTooShort { needed: ciphertext.len() };
    let target = buffer.get_mut(..ciphertext.len()).ok_or(too_short)?;
    let key = hmac(&HMAC_KEY_MESSAGE)?;
    // Exposed to shorten it: an IV is no secret by itself.
    let iv: [u8; 16] = field(hmac(&HMAC_IV_MESSAGE)?.expose(), 0);
    target.copy_from_slice(ciphertext);
    let opened = gcm(&key).decrypt_inout_detached((&iv).into(), &[], (&mut *target).into(), tag.into());
    if opened.is_err() {
        target.fill(0);
        return Err(SecureCertError::Refused.into());
    }
    Ok(target)
}

fn gcm(key: &SecretArray<32>) -> Gcm {
    // Exposed to the key schedule, which is wiped when dropped.
    Gcm::new(key.expose().into())
}

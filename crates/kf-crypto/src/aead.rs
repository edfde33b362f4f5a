//! AES-256-GCM (SP 800-38D) with a random 96-bit IV in front of the ciphertext. At most 2^32 seals per key
//! (SP 800-38D section 8.3); callers seal keys and small records, not streams.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use kf_key::{SecretArray, SecretBytes};
use zeroize::Zeroize;

use crate::{CryptoError, random_array};

const TAG_LEN: usize = 16;

/// Octets that sealing adds: IV and tag.
pub const AEAD_OVERHEAD: usize = NONCE_LEN + TAG_LEN;

fn cipher(key: &SecretArray<32>) -> Result<LessSafeKey, CryptoError> {
    // Exposed to the provider, which keeps its own copy and clears it on drop.
    UnboundKey::new(&AES_256_GCM, key.expose())
        .map(LessSafeKey::new)
        .map_err(|aws_lc_rs::error::Unspecified| CryptoError)
}

/// Seals `plaintext` under `key`, bound to `context`. Returns IV, ciphertext and tag.
///
/// # Errors
/// [`CryptoError`] when the provider or its random source fails.
pub fn seal(key: &SecretArray<32>, context: &[u8], plaintext: &[u8]) -> Result<Vec<u8>, CryptoError> {
    let iv: [u8; NONCE_LEN] = random_array()?;
    let mut sealed = Vec::with_capacity(plaintext.len() + AEAD_OVERHEAD);
    sealed.extend_from_slice(&iv);
    sealed.extend_from_slice(plaintext);
    let outcome = sealed.split_at_mut_checked(NONCE_LEN).ok_or(CryptoError).and_then(|(_, body)| {
        cipher(key)?
            .seal_in_place_separate_tag(Nonce::assume_unique_for_key(iv), Aad::from(context), body)
            .map_err(|aws_lc_rs::error::Unspecified| CryptoError)
    });
    match outcome {
        Ok(tag) => {
            sealed.extend_from_slice(tag.as_ref());
            Ok(sealed)
        }
        Err(error) => {
            sealed.zeroize();
            Err(error)
        }
    }
}

/// Opens what [`seal`] made.
///
/// # Errors
/// [`CryptoError`] for a wrong key, another context, or a changed octet; which of them is not said.
pub fn open(key: &SecretArray<32>, context: &[u8], sealed: &[u8]) -> Result<SecretBytes, CryptoError> {
    let (iv, body) = sealed.split_at_checked(NONCE_LEN).ok_or(CryptoError)?;
    let length = body.len().checked_sub(TAG_LEN).ok_or(CryptoError)?;
    let iv = Nonce::try_assume_unique_for_key(iv).map_err(|aws_lc_rs::error::Unspecified| CryptoError)?;
    let cipher = cipher(key)?;
    let mut outcome = Ok(());
    let plaintext = SecretBytes::fill(length, |out| {
        let (ciphertext, tag) = body.split_at(length);
        outcome = cipher
            .open_separate_gather(iv, Aad::from(context), ciphertext, tag, out)
            .map_err(|aws_lc_rs::error::Unspecified| CryptoError);
    });
    outcome.map(|()| plaintext)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(octet: u8) -> SecretArray<32> {
        SecretArray::fill(|bytes| bytes.fill(octet))
    }

    #[test]
    fn what_is_sealed_opens_under_the_same_key_and_context_only() {
        let sealed = seal(&key(1), b"context", b"secret").unwrap();
        assert!(open(&key(1), b"context", &sealed).unwrap().equals(b"secret"));
        assert_eq!(open(&key(2), b"context", &sealed).unwrap_err(), CryptoError);
        assert_eq!(open(&key(1), b"other", &sealed).unwrap_err(), CryptoError);
    }

    #[test]
    fn every_flipped_bit_and_every_truncation_is_refused() {
        let sealed = seal(&key(1), b"", b"secret").unwrap();
        for position in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[position] ^= 1;
            assert!(open(&key(1), b"", &changed).is_err(), "octet {position}");
            assert!(open(&key(1), b"", &sealed[..position]).is_err(), "length {position}");
        }
    }
}

//! What carries a secret to the holder of somebody else's key: ephemeral ECDH (SP 800-56A), RSAES-OAEP (RFC 8017
//! section 7.1), AES-CFB (SP 800-38A). Public operations: we hold no key that decrypts.

use aws_lc_rs::agreement::{ECDH_P256, ECDH_P384, EphemeralPrivateKey, UnparsedPublicKey, agree_ephemeral};
use aws_lc_rs::cipher::{AES_128, AES_256, EncryptingKey, EncryptionContext, UnboundCipherKey};
use aws_lc_rs::hmac;
use aws_lc_rs::iv::FixedLength;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{OAEP_SHA256_MGF1SHA256, OAEP_SHA384_MGF1SHA384, OaepPublicEncryptingKey, PublicEncryptingKey};
use kf_key::{KeyAlgorithm, SecretBytes};

use crate::{CryptoError, SignatureHash};

/// HMAC (FIPS 198-1) of the concatenated `parts`, as long as the hash.
#[must_use]
pub fn hmac_with_hash(hash: SignatureHash, key: &[u8], parts: &[&[u8]]) -> SecretBytes {
    let algorithm = match hash {
        SignatureHash::Sha256 => hmac::HMAC_SHA256,
        SignatureHash::Sha384 => hmac::HMAC_SHA384,
        SignatureHash::Sha512 => hmac::HMAC_SHA512,
    };
    let mut context = hmac::Context::with_key(&hmac::Key::new(algorithm, key));
    parts.iter().for_each(|part| context.update(part));
    let tag = context.sign();
    SecretBytes::fill(tag.as_ref().len(), |out| out.copy_from_slice(tag.as_ref()))
}

/// An ephemeral key on the peer's curve and what it agrees on with the peer's raw public point: the ephemeral public
/// point, uncompressed, and the x coordinate of the shared one.
///
/// # Errors
/// [`CryptoError`] for another algorithm than P-256 and P-384, and for a point off the curve.
pub fn agree_with_ephemeral(algorithm: KeyAlgorithm, peer: &[u8]) -> Result<(Vec<u8>, SecretBytes), CryptoError> {
    let curve = match algorithm {
        KeyAlgorithm::P256 => &ECDH_P256,
        KeyAlgorithm::P384 => &ECDH_P384,
        _ => return Err(CryptoError),
    };
    let opaque = |aws_lc_rs::error::Unspecified| CryptoError;
    let own = EphemeralPrivateKey::generate(curve, &SystemRandom::new()).map_err(opaque)?;
    let public = own.compute_public_key().map_err(opaque)?.as_ref().to_vec();
    let shared = agree_ephemeral(own, UnparsedPublicKey::new(curve, peer), CryptoError, |shared| {
        Ok(SecretBytes::fill(shared.len(), |out| out.copy_from_slice(shared)))
    })?;
    Ok((public, shared))
}

/// RSAES-OAEP with SHA-256 or SHA-384 and MGF1 of the same, under a SubjectPublicKeyInfo of 2048 bits or more.
///
/// # Errors
/// [`CryptoError`] for another key or hash, and a secret that is too long.
pub fn encrypt_rsa_oaep(
    spki: &[u8],
    hash: SignatureHash,
    label: &[u8],
    secret: &SecretBytes,
) -> Result<Vec<u8>, CryptoError> {
    let algorithm = match hash {
        SignatureHash::Sha256 => &OAEP_SHA256_MGF1SHA256,
        SignatureHash::Sha384 => &OAEP_SHA384_MGF1SHA384,
        SignatureHash::Sha512 => return Err(CryptoError),
    };
    let key = PublicEncryptingKey::from_der(spki).map_err(|_rejected| CryptoError)?;
    if key.key_size_bits() < 2048 {
        return Err(CryptoError);
    }
    let key = OaepPublicEncryptingKey::new(key).map_err(|_rejected| CryptoError)?;
    let mut ciphertext = vec![0; key.ciphertext_size()];
    // Exposed to be encrypted.
    let length = key
        .encrypt(algorithm, secret.expose(), &mut ciphertext, Some(label))
        .map_err(|aws_lc_rs::error::Unspecified| CryptoError)?
        .len();
    ciphertext.truncate(length);
    Ok(ciphertext)
}

/// AES-128 or AES-256 in CFB mode with a segment of 128 bits and an initialisation vector of zeros: for a key that
/// encrypts once, whose ciphertext is authenticated by other means (TPM 2.0 Part 1 section 24.4).
///
/// # Errors
/// [`CryptoError`] for a key of another length.
pub fn encrypt_cfb_once(key: &SecretBytes, plaintext: &[u8]) -> Result<Vec<u8>, CryptoError> {
    let cipher = match key.len() {
        16 => &AES_128,
        32 => &AES_256,
        _ => return Err(CryptoError),
    };
    // Exposed to encrypt with.
    let key = UnboundCipherKey::new(cipher, key.expose()).map_err(|aws_lc_rs::error::Unspecified| CryptoError)?;
    let mut octets = plaintext.to_vec();
    EncryptingKey::cfb128(key)
        .and_then(|key| key.less_safe_encrypt(&mut octets, EncryptionContext::Iv128(FixedLength::from([0; 16]))))
        .map_err(|aws_lc_rs::error::Unspecified| CryptoError)?;
    Ok(octets)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cfb_gives_the_standards_first_block_under_a_zero_vector() {
        // The first block is AES of the vector, added to the text, and the next would be AES of that sum.
        let key = SecretBytes::from_vec(hex::decode("2b7e151628aed2a6abf7158809cf4f3c").unwrap());
        let zeros = encrypt_cfb_once(&key, &[0; 16]).unwrap();
        let text = [0x6b; 20];
        let sealed = encrypt_cfb_once(&key, &text).unwrap();
        assert_eq!(sealed.len(), 20);
        assert!(zeros.iter().zip(&sealed).all(|(stream, octet)| stream ^ octet == 0x6b));
        // RFC 4493 section 4: AES-128 of sixteen zeros under that key.
        assert_eq!(hex::encode(&zeros), "7df76b0c1ab899b33e42f047b91b546f");
        assert!(encrypt_cfb_once(&SecretBytes::from_vec(vec![0; 24]), &[0; 16]).is_err());
    }

    #[test]
    fn rfc_4231_holds_for_both_hashes() {
        let mac = |hash| hex::encode(hmac_with_hash(hash, b"Jefe", &[b"what do ya want ", b"for nothing?"]).expose());
        assert_eq!(mac(SignatureHash::Sha256), "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
        assert_eq!(
            mac(SignatureHash::Sha384),
            "af45d2e376484031617f78d2b58a6b1b9c7ef464f5a01b47e42ec3736322445e\
             8e2240ca5e69e2c78b3239ecfab21649"
        );
    }

    #[test]
    fn a_point_off_the_curve_and_a_key_that_is_none_are_refused() {
        assert!(agree_with_ephemeral(KeyAlgorithm::P256, &[4; 65]).is_err());
        assert!(agree_with_ephemeral(KeyAlgorithm::Ed25519, &[4; 32]).is_err());
        let secret = SecretBytes::from_vec(vec![1; 32]);
        assert!(encrypt_rsa_oaep(b"key", SignatureHash::Sha256, b"label", &secret).is_err());
    }
}

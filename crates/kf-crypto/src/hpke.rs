//! HPKE (RFC 9180) in base mode, one suite: DHKEM(P-256, HKDF-SHA256), HKDF-SHA256, AES-256-GCM. For secrets that travel to
//! a key that lies in a token: the recipient's only private operation is one ECDH, handed in as its result
//! ([`HpkeReceiver::new`]), which no implementation of HPKE that we know lets a caller do.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::agreement::{ECDH_P256, PrivateKey, UnparsedPublicKey, agree};
use kf_key::{KeyAlgorithm, SecretArray, SecretBytes};

use crate::{CryptoError, agree_with_ephemeral, hmac_sha256, is_public_key};

/// Octets of an encapsulated key: an uncompressed point (RFC 9180 section 7.1.1).
pub const HPKE_POINT_OCTETS: usize = 65;
/// Octets that sealing adds.
pub const HPKE_TAG_OCTETS: usize = 16;

/// "KEM" and DHKEM(P-256, HKDF-SHA256) (section 4.1).
const KEM_SUITE: &[u8] = &[b'K', b'E', b'M', 0x00, 0x10];
/// "HPKE", the KEM, HKDF-SHA256, AES-256-GCM (section 5.1).
const SUITE: &[u8] = &[b'H', b'P', b'K', b'E', 0x00, 0x10, 0x00, 0x01, 0x00, 0x02];
const VERSION: &[u8] = b"HPKE-v1";
const MODE_BASE: u8 = 0;

type Point = [u8; HPKE_POINT_OCTETS];

/// HKDF-Extract with the labels of section 4.
fn labeled_extract(suite: &[u8], salt: &[u8], label: &[u8], input: &[u8]) -> SecretArray<32> {
    let message = SecretBytes::from_vec([VERSION, suite, label, input].concat());
    // Exposed to the hash.
    SecretArray::fill(|prk| prk.copy_from_slice(&hmac_sha256(salt, message.expose())))
}

/// The first block of HKDF-Expand with the labels of section 4: `length` is at most 32.
fn labeled_expand(suite: &[u8], prk: &SecretArray<32>, label: &[u8], info: &[u8], length: u8) -> SecretArray<32> {
    let message = [&[0, length], VERSION, suite, label, info, &[1]].concat();
    // Exposed to the hash.
    SecretArray::fill(|block| block.copy_from_slice(&hmac_sha256(prk.expose(), &message)))
}

/// ExtractAndExpand of section 4.1: what both sides make of the ECDH.
fn shared_secret(agreed: &[u8], encapsulated: &Point, recipient: &Point) -> SecretArray<32> {
    let prk = labeled_extract(KEM_SUITE, &[], b"eae_prk", agreed);
    let context = [encapsulated.as_slice(), recipient].concat();
    labeled_expand(KEM_SUITE, &prk, b"shared_secret", &context, 32)
}

/// A private key of a recipient in this process.
pub struct HpkePrivateKey(PrivateKey, Point);

impl core::fmt::Debug for HpkePrivateKey {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("HpkePrivateKey")
    }
}

impl HpkePrivateKey {
    /// DeriveKeyPair (section 7.1.3): always the same pair from the same 32 uniformly random octets.
    ///
    /// # Errors
    /// [`CryptoError`], with a probability of 2^-8192.
    pub fn derive(material: &SecretArray<32>) -> Result<Self, CryptoError> {
        // Exposed to the hash.
        let prk = labeled_extract(KEM_SUITE, &[], b"dkp_prk", material.expose());
        let candidate = |counter: u8| {
            let scalar = labeled_expand(KEM_SUITE, &prk, b"candidate", &[counter], 32);
            // Exposed to the provider, which keeps its own copy and refuses a scalar outside [1, n-1].
            PrivateKey::from_private_key(&ECDH_P256, scalar.expose()).ok()
        };
        let key = (0..=u8::MAX).find_map(candidate).ok_or(CryptoError)?;
        let public = key.compute_public_key().map_err(|aws_lc_rs::error::Unspecified| CryptoError)?;
        let public = public.as_ref().try_into().map_err(|_other_length| CryptoError)?;
        Ok(Self(key, public))
    }

    /// The public half, an uncompressed point.
    #[must_use]
    pub const fn public_key(&self) -> &Point {
        &self.1
    }

    /// The x-coordinate of the ECDH with `peer`.
    ///
    /// # Errors
    /// [`CryptoError`] for a point off the curve.
    pub fn agree(&self, peer: &Point) -> Result<SecretArray<32>, CryptoError> {
        let peer = UnparsedPublicKey::new(&ECDH_P256, peer);
        agree(&self.0, peer, CryptoError, |agreed| {
            SecretArray::try_fill(|octets: &mut [u8; 32]| {
                octets.copy_from_slice(agreed.first_chunk::<32>().ok_or(CryptoError)?);
                Ok(())
            })
        })
    }

    /// The receiver of what was sealed to this key under `encapsulated`.
    ///
    /// # Errors
    /// [`CryptoError`] for a point off the curve.
    pub fn receive(&self, encapsulated: &Point, info: &[u8]) -> Result<HpkeReceiver, CryptoError> {
        Ok(HpkeReceiver::new(&self.agree(encapsulated)?, encapsulated, &self.1, info))
    }
}

/// Key and nonce of one encapsulation (section 5.1).
struct Schedule {
    key: SecretArray<32>,
    base_nonce: SecretArray<32>,
}

impl Schedule {
    fn new(shared: &SecretArray<32>, info: &[u8]) -> Self {
        let psk_id = labeled_extract(SUITE, &[], b"psk_id_hash", &[]);
        let info = labeled_extract(SUITE, &[], b"info_hash", info);
        // Hashes of public values.
        let context = [&[MODE_BASE], psk_id.expose().as_slice(), info.expose()].concat();
        // Exposed to Extract, as its salt; there is no pre-shared key in base mode.
        let secret = labeled_extract(SUITE, shared.expose(), b"secret", &[]);
        let key = labeled_expand(SUITE, &secret, b"key", &context, 32);
        Self { key, base_nonce: labeled_expand(SUITE, &secret, b"base_nonce", &context, 12) }
    }

    fn cipher(&self) -> Result<LessSafeKey, CryptoError> {
        // Exposed to the provider, which keeps its own copy and clears it on drop.
        UnboundKey::new(&AES_256_GCM, self.key.expose())
            .map(LessSafeKey::new)
            .map_err(|aws_lc_rs::error::Unspecified| CryptoError)
    }

    /// ComputeNonce (section 5.2).
    fn nonce(&self, number: u64) -> Nonce {
        let mut nonce = [0; NONCE_LEN];
        // Exposed to make the nonce of a message.
        let base = self.base_nonce.expose();
        let padded = u128::from(number).to_be_bytes();
        let number = padded.iter().skip(padded.len() - NONCE_LEN);
        for ((octet, base), number) in nonce.iter_mut().zip(base).zip(number) {
            *octet = base ^ number;
        }
        Nonce::assume_unique_for_key(nonce)
    }
}

/// The sending side of one encapsulation: seals any number of messages, each under a number of its own.
pub struct HpkeSender {
    schedule: Schedule,
    encapsulated: Point,
    next: u64,
}

impl core::fmt::Debug for HpkeSender {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("HpkeSender")
    }
}

impl HpkeSender {
    /// Encapsulates a fresh key for `recipient`, an uncompressed point of P-256.
    ///
    /// # Errors
    /// [`CryptoError`] for what is no point of the curve.
    pub fn new(recipient: &Point, info: &[u8]) -> Result<Self, CryptoError> {
        if !is_public_key(KeyAlgorithm::P256, recipient) {
            return Err(CryptoError);
        }
        let (encapsulated, agreed) = agree_with_ephemeral(KeyAlgorithm::P256, recipient)?;
        let encapsulated: Point = encapsulated.try_into().map_err(|_other_length: Vec<u8>| CryptoError)?;
        // Exposed to Extract.
        let shared = shared_secret(agreed.expose(), &encapsulated, recipient);
        Ok(Self { schedule: Schedule::new(&shared, info), encapsulated, next: 0 })
    }

    /// What the recipient needs to open.
    #[must_use]
    pub const fn encapsulated(&self) -> &Point {
        &self.encapsulated
    }

    /// Seals a message; returns its number, and ciphertext with tag.
    ///
    /// # Errors
    /// [`CryptoError`] when the numbers are used up.
    pub fn seal(&mut self, context: &[u8], plaintext: &[u8]) -> Result<(u64, Vec<u8>), CryptoError> {
        let number = self.next;
        self.next = number.checked_add(1).ok_or(CryptoError)?;
        let mut sealed = plaintext.to_vec();
        self.schedule
            .cipher()?
            .seal_in_place_append_tag(self.schedule.nonce(number), Aad::from(context), &mut sealed)
            .map_err(|aws_lc_rs::error::Unspecified| CryptoError)?;
        Ok((number, sealed))
    }
}

/// The receiving side.
pub struct HpkeReceiver(Schedule);

impl core::fmt::Debug for HpkeReceiver {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("HpkeReceiver")
    }
}

impl HpkeReceiver {
    /// From the x-coordinate of the ECDH between `encapsulated` and the private half of `recipient`, however it was made: a
    /// token does it with CKM_ECDH1_DERIVE and the key derivation function CKD_NULL. That `encapsulated` is a point of
    /// the curve is for whoever does the ECDH to check.
    #[must_use]
    pub fn new(agreed: &SecretArray<32>, encapsulated: &Point, recipient: &Point, info: &[u8]) -> Self {
        // Exposed to Extract.
        Self(Schedule::new(&shared_secret(agreed.expose(), encapsulated, recipient), info))
    }

    /// Opens the message with this number.
    ///
    /// # Errors
    /// [`CryptoError`] for another key, number or context, or a changed octet; which of them is not said.
    pub fn open(&self, number: u64, context: &[u8], sealed: &[u8]) -> Result<SecretBytes, CryptoError> {
        let length = sealed.len().checked_sub(HPKE_TAG_OCTETS).ok_or(CryptoError)?;
        let cipher = self.0.cipher()?;
        let mut outcome = Ok(());
        let plaintext = SecretBytes::fill(length, |out| {
            let (ciphertext, tag) = sealed.split_at(length);
            outcome = cipher
                .open_separate_gather(self.0.nonce(number), Aad::from(context), ciphertext, tag, out)
                .map_err(|aws_lc_rs::error::Unspecified| CryptoError);
        });
        outcome.map(|()| plaintext)
    }
}

#[cfg(test)]
mod tests;

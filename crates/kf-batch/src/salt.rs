//! Secrets in documents, by HPKE (RFC 9180) in the one suite of `kf-crypto`: the batch key to the station, device salts to the
//! server.
//!
//! A station encapsulates once per run of its program and seals every salt under a number of its own, so that a device costs
//! one AEAD and no ECDH. It never writes the sender's state down: a copy of its disk starts with a fresh encapsulation and
//! cannot repeat a nonce. Two live copies of one running machine could; they are found at merge, as everything of clones.

use kf_crypto::{CryptoError, HpkePrivateKey, HpkeReceiver, HpkeSender};
use kf_key::{BatchId, DeviceId, SecretArray};

use crate::codec::{Input, Out, Written};
use crate::frame::FormatError;
use crate::key::{P256Key, POINT_OCTETS};

/// Octets of a batch key.
const BATCH_KEY_OCTETS: usize = 32;
/// Octets of a device salt.
pub const SALT_OCTETS: usize = 16;
const TAG_OCTETS: usize = kf_crypto::HPKE_TAG_OCTETS;

fn batch_key_info() -> &'static [u8] {
    b"keyfleet batch key v1"
}

fn salt_info(batch: BatchId) -> Vec<u8> {
    [b"keyfleet device salt v1".as_slice(), batch.as_bytes()].concat()
}

/// The batch key, sealed to the station's transport key and bound to the terms of its quota.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealedBatchKey {
    encapsulated: [u8; POINT_OCTETS],
    ciphertext: [u8; BATCH_KEY_OCTETS + TAG_OCTETS],
}

impl SealedBatchKey {
    /// Seals; `terms_hash` is [`crate::quota::QuotaTerms::hash`].
    ///
    /// # Errors
    /// [`CryptoError`].
    pub fn seal(key: &SecretArray<32>, transport: &P256Key, terms_hash: &[u8; 32]) -> Result<Self, CryptoError> {
        let mut sender = HpkeSender::new(transport.point(), batch_key_info())?;
        // Exposed to be sealed.
        let (_, sealed) = sender.seal(terms_hash, key.expose())?;
        let ciphertext = sealed.try_into().map_err(|_other_length: Vec<u8>| CryptoError)?;
        Ok(Self { encapsulated: *sender.encapsulated(), ciphertext })
    }

    /// The point with which the holder of the transport key does its ECDH.
    #[must_use]
    pub const fn encapsulated(&self) -> &[u8; POINT_OCTETS] {
        &self.encapsulated
    }

    /// Opens, from the x-coordinate of the ECDH between [`SealedBatchKey::encapsulated`] and the private transport key,
    /// wherever that lies.
    ///
    /// # Errors
    /// [`CryptoError`] for another key or other terms.
    pub fn open(
        &self,
        agreed: &SecretArray<32>,
        transport: &P256Key,
        terms_hash: &[u8; 32],
    ) -> Result<SecretArray<32>, CryptoError> {
        let receiver = HpkeReceiver::new(agreed, &self.encapsulated, transport.point(), batch_key_info());
        let opened = receiver.open(0, terms_hash, &self.ciphertext)?;
        SecretArray::try_fill(|key: &mut [u8; 32]| {
            // Exposed to be kept in its own type.
            key.copy_from_slice(opened.expose().first_chunk::<32>().ok_or(CryptoError)?);
            Ok(())
        })
    }

    pub(crate) fn write(&self, out: &mut Out) -> Written {
        out.array(2)?.bytes(&self.encapsulated)?.bytes(&self.ciphertext)?.ok()
    }

    pub(crate) fn read(input: &mut Input<'_>) -> Result<Self, FormatError> {
        input.array(2)?;
        Ok(Self { encapsulated: input.octets()?, ciphertext: input.octets()? })
    }
}

/// A device's salt, sealed to the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealedSalt {
    encapsulated: [u8; POINT_OCTETS],
    number: u64,
    ciphertext: [u8; SALT_OCTETS + TAG_OCTETS],
}

/// Seals the salts of one run of a station.
#[derive(Debug)]
pub struct SaltSealer(HpkeSender);

impl SaltSealer {
    /// For the salt key in the quota of `batch`.
    ///
    /// # Errors
    /// [`CryptoError`].
    pub fn new(salt_key: &P256Key, batch: BatchId) -> Result<Self, CryptoError> {
        HpkeSender::new(salt_key.point(), &salt_info(batch)).map(Self)
    }

    /// Seals the salt of a device.
    ///
    /// # Errors
    /// [`CryptoError`].
    pub fn seal(&mut self, device: DeviceId, salt: &SecretArray<SALT_OCTETS>) -> Result<SealedSalt, CryptoError> {
        // Exposed to be sealed.
        let (number, sealed) = self.0.seal(device.as_bytes(), salt.expose())?;
        let ciphertext = sealed.try_into().map_err(|_other_length: Vec<u8>| CryptoError)?;
        Ok(SealedSalt { encapsulated: *self.0.encapsulated(), number, ciphertext })
    }
}

/// Opens the salts of one run of a station: one ECDH for all of them.
#[derive(Debug)]
pub struct SaltOpener(HpkeReceiver);

impl SaltOpener {
    /// For salts sealed under `encapsulated` to the salt key of `batch`.
    ///
    /// # Errors
    /// [`CryptoError`].
    pub fn new(key: &HpkePrivateKey, encapsulated: &[u8; POINT_OCTETS], batch: BatchId) -> Result<Self, CryptoError> {
        key.receive(encapsulated, &salt_info(batch)).map(Self)
    }

    /// Opens the salt of a device.
    ///
    /// # Errors
    /// [`CryptoError`].
    pub fn open(&self, device: DeviceId, salt: &SealedSalt) -> Result<SecretArray<SALT_OCTETS>, CryptoError> {
        let opened = self.0.open(salt.number, device.as_bytes(), &salt.ciphertext)?;
        SecretArray::try_fill(|octets: &mut [u8; SALT_OCTETS]| {
            // Exposed to be kept in its own type.
            octets.copy_from_slice(opened.expose().first_chunk::<SALT_OCTETS>().ok_or(CryptoError)?);
            Ok(())
        })
    }
}

impl SealedSalt {
    /// Octets of [`SealedSalt::to_octets`].
    pub const OCTETS: usize = POINT_OCTETS + 8 + SALT_OCTETS + TAG_OCTETS;

    /// What selects the [`SaltOpener`].
    #[must_use]
    pub const fn encapsulated(&self) -> &[u8; POINT_OCTETS] {
        &self.encapsulated
    }

    /// One length, for the socket of the signer.
    #[must_use]
    pub fn to_octets(&self) -> [u8; Self::OCTETS] {
        let mut octets = [0; Self::OCTETS];
        let number = self.number.to_be_bytes();
        let values = self.encapsulated.iter().chain(&number).chain(&self.ciphertext);
        for (octet, value) in octets.iter_mut().zip(values) {
            *octet = *value;
        }
        octets
    }

    /// Reads [`SealedSalt::to_octets`].
    #[must_use]
    pub fn from_octets(octets: &[u8; Self::OCTETS]) -> Option<Self> {
        let (encapsulated, rest) = octets.split_first_chunk()?;
        let (number, rest) = rest.split_first_chunk()?;
        let ciphertext = rest.try_into().ok()?;
        Some(Self { encapsulated: *encapsulated, number: u64::from_be_bytes(*number), ciphertext })
    }

    pub(crate) fn write(&self, out: &mut Out) -> Written {
        out.array(3)?.bytes(&self.encapsulated)?.u64(self.number)?.bytes(&self.ciphertext)?.ok()
    }

    pub(crate) fn read(input: &mut Input<'_>) -> Result<Self, FormatError> {
        input.array(3)?;
        Ok(Self { encapsulated: input.octets()?, number: input.u64()?, ciphertext: input.octets()? })
    }
}

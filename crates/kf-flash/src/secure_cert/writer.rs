//! Laying out a new partition.

use sha2::{Digest, Sha256};

use super::cipher::RecordCipher;
use super::record::{KeyProtection, RecordType};
use super::{
    ALIGNMENT, CRC_OCTETS, HEADER_OCTETS, MAGIC, MAX_INDEX, MAX_PARTITION_OCTETS, SecureCert, SecureCertError,
    TAG_OCTETS,
};
use crate::octets::{crc32, put};

/// Writes a partition into a buffer of the caller.
pub struct SecureCertWriter<'a> {
    octets: &'a mut [u8],
    end: usize,
}

impl<'a> SecureCertWriter<'a> {
    /// Begins a partition. What `octets` held is gone.
    ///
    /// # Errors
    /// [`SecureCertError::PartitionSize`].
    pub fn new(octets: &'a mut [u8]) -> Result<Self, SecureCertError> {
        if octets.len() < ALIGNMENT || octets.len() > MAX_PARTITION_OCTETS {
            return Err(SecureCertError::PartitionSize { octets: octets.len() });
        }
        octets.fill(0xff);
        Ok(Self { octets, end: 0 })
    }

    /// Adds a record that is no secret. PEM ends in a NUL, as the firmware's parser wants it; without one it is added.
    ///
    /// # Errors
    /// [`SecureCertError::Index`], [`SecureCertError::Duplicate`], [`SecureCertError::ValueTooLong`],
    /// [`SecureCertError::Full`]; [`SecureCertError::PrivateKeyInClear`] and [`SecureCertError::IntegrityIsWrittenLast`]
    /// for those types.
    pub fn add(&mut self, record_type: RecordType, index: u8, value: &[u8]) -> Result<(), SecureCertError> {
        let is_pem = value.starts_with(b"-----BEGIN") && value.last() != Some(&0);
        match record_type {
            RecordType::PrivateKey | RecordType::TeeStorageKey => Err(SecureCertError::PrivateKeyInClear),
            RecordType::Integrity => Err(SecureCertError::IntegrityIsWrittenLast),
            RecordType::CaCertificate | RecordType::DeviceCertificate if is_pem => {
                self.put(record_type, index, KeyProtection::Clear, &[value, &[0]])
            }
            _ => self.put(record_type, index, KeyProtection::Clear, &[value]),
        }
    }

    /// Adds the reference to a private key in an eFuse block of the ECDSA peripheral, and the record that names the block:
    /// `key_block` is the number in `BLOCK_KEYn`, 0 to 5.
    ///
    /// # Errors
    /// As [`SecureCertWriter::add`].
    pub fn add_efuse_ecdsa_key(&mut self, index: u8, key_block: u8) -> Result<(), SecureCertError> {
        let begin = self.end;
        self.put(RecordType::SecurityConfig, index, KeyProtection::Clear, &[&security_config(key_block)])?;
        let key = self.put(RecordType::PrivateKey, index, KeyProtection::EcdsaPeripheral, &[]);
        self.undo_unless(begin, key)
    }

    /// Adds the reference to a private key that the firmware derives from the eFuse key and `salt`.
    ///
    /// # Errors
    /// As [`SecureCertWriter::add`].
    pub fn add_derived_key(&mut self, index: u8, salt: &[u8]) -> Result<(), SecureCertError> {
        let begin = self.end;
        self.put(RecordType::EcdsaKeySalt, index, KeyProtection::Clear, &[salt])?;
        let key = self.put(RecordType::PrivateKey, index, KeyProtection::HmacDerived, &[]);
        self.undo_unless(begin, key)
    }

    /// Adds the block and the RSA length of a key of the digital signature peripheral, and its encrypted operands:
    /// `operands` are IV and ciphertext as the chip reads them.
    ///
    /// # Errors
    /// As [`SecureCertWriter::add`].
    pub fn add_ds_key(
        &mut self,
        index: u8,
        key_block: u8,
        rsa_bits: u16,
        operands: &[u8],
    ) -> Result<(), SecureCertError> {
        let begin = self.end;
        let length = (u32::from(rsa_bits) / 32).saturating_sub(1).to_le_bytes();
        self.put(RecordType::DsData, index, KeyProtection::Clear, &[&length, operands])?;
        let mut context = [0; 8];
        put(&mut context, 4, &[key_block]);
        put(&mut context, 6, &rsa_bits.to_le_bytes());
        let context = self.put(RecordType::DsContext, index, KeyProtection::Clear, &[&context]);
        self.undo_unless(begin, context)
    }

    /// Adds the one record that is encrypted under an eFuse key, and spends the cipher.
    ///
    /// # Errors
    /// [`SecureCertError::SecondEncryptedRecord`] when the image has one already, under whatever key: the firmware uses the
    /// first eFuse block of purpose `HMAC_UP` for all of them. Otherwise as [`SecureCertWriter::add`].
    pub fn add_encrypted(
        &mut self,
        cipher: RecordCipher,
        record_type: RecordType,
        index: u8,
        value: &[u8],
    ) -> Result<(), SecureCertError> {
        if self.written()?.records().flatten().any(|record| record.protection == KeyProtection::HmacEncrypted) {
            return Err(SecureCertError::SecondEncryptedRecord);
        }
        let begin = self.end;
        self.put(record_type, index, KeyProtection::HmacEncrypted, &[value, &[0; TAG_OCTETS]])?;
        let record = self.octets.get_mut(begin..self.end).unwrap_or_default();
        let place = record.get_mut(HEADER_OCTETS..HEADER_OCTETS + value.len() + TAG_OCTETS);
        let (value, place_of_tag) = place.unwrap_or_default().split_at_mut(value.len());
        let encrypted = cipher.encrypt(value).map(|tag| place_of_tag.copy_from_slice(&tag));
        seal_crc(record);
        self.undo_unless(begin, encrypted)
    }

    /// Adds the integrity record. Returns how many octets are in use; the rest is blank.
    ///
    /// # Errors
    /// [`SecureCertError::Full`].
    pub fn finish(mut self) -> Result<usize, SecureCertError> {
        let digest = Sha256::digest(self.octets.get(..self.end).unwrap_or_default());
        self.put(RecordType::Integrity, 0, KeyProtection::Clear, &[digest.as_slice()])?;
        Ok(self.end)
    }

    /// After a failure takes out what was written since `begin`.
    fn undo_unless(&mut self, begin: usize, done: Result<(), SecureCertError>) -> Result<(), SecureCertError> {
        if done.is_err() {
            self.octets.get_mut(begin..).unwrap_or_default().fill(0xff);
            self.end = begin;
        }
        done
    }

    fn written(&self) -> Result<SecureCert<'_>, SecureCertError> {
        // Blank behind the last record, and so never too short.
        SecureCert::new(self.octets)
    }

    pub(super) fn put(
        &mut self,
        record_type: RecordType,
        index: u8,
        protection: KeyProtection,
        value: &[&[u8]],
    ) -> Result<(), SecureCertError> {
        if index > MAX_INDEX {
            return Err(SecureCertError::Index { index });
        }
        for record in self.written()?.records() {
            let record = record?;
            if (record.record_type, record.index) == (record_type, index) {
                return Err(SecureCertError::Duplicate);
            }
        }
        let octets = value.iter().map(|part| part.len()).sum();
        let length = u16::try_from(octets).map_err(|_long| SecureCertError::ValueTooLong { octets })?;
        let total = HEADER_OCTETS + octets.next_multiple_of(ALIGNMENT) + CRC_OCTETS;
        let place = self.octets.get_mut(self.end..self.end + total).ok_or(SecureCertError::Full)?;
        place.fill(0);
        put(place, 0, &MAGIC.to_le_bytes());
        put(place, 4, &[protection.flags(), 0, 0, 0, record_type.number(), index]);
        put(place, 10, &length.to_le_bytes());
        let mut at = HEADER_OCTETS;
        for part in value {
            put(place, at, part);
            at += part.len();
        }
        seal_crc(place);
        self.end += total;
        Ok(())
    }
}

/// Puts the CRC at the end of a record.
fn seal_crc(record: &mut [u8]) {
    if let Some((covered, crc)) = record.split_last_chunk_mut::<CRC_OCTETS>() {
        *crc = crc32(&[covered]).to_le_bytes();
    }
}

/// The 40 octets that name the eFuse block of a private key: blocks of keys begin at 4.
fn security_config(key_block: u8) -> [u8; 40] {
    let mut config = [0; 40];
    put(&mut config, 0, &[key_block.saturating_add(4)]);
    config
}

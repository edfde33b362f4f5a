//! Factory batches: the quota is completed and signed here, so that the batch key leaves encrypted to the station's token and
//! in no other way, and salts of devices come back under the wrapping key.

use std::sync::Arc;
use std::time::Instant;

use kf_batch::quota::{Quota, QuotaTerms};
use kf_batch::salt::{SaltOpener, SealedBatchKey, SealedSalt};
use kf_batch::{FormatError, P256Key};
use kf_crypto::HpkePrivateKey;
use kf_derive::FacilityKey;
use kf_key::{BatchId, DeviceId, FacilityId, SecretBytes};

use super::derivation::salt_context;
use super::{Engine, malformed};
use crate::protocol::{Fields, MAX_SALTS, bug, prefix};
use crate::{KeyPurpose, SignerError, SignerRefusal};

/// A batch lies in one epoch of its facility and has none of its own.
pub(super) const BATCH_EPOCH: u32 = 0;

fn refused(error: FormatError) -> SignerError {
    SignerError::Refused(SignerRefusal::Content(format!("not the terms of a quota: {error}")))
}

/// The key pair to which the station of a batch encrypts.
fn salt_key(facility: &FacilityKey, batch: BatchId) -> Result<HpkePrivateKey, SignerError> {
    let material = facility.batch_agreement(batch.as_bytes(), BATCH_EPOCH).map_err(|_too_long| bug("batch context"))?;
    HpkePrivateKey::derive(&material).map_err(|_opaque| bug("salt key"))
}

impl Engine {
    /// Derives the keys of a batch, seals the batch key to the station, and signs.
    pub(super) fn sign_quota(&self, mut fields: Fields<'_>) -> Result<Vec<u8>, SignerError> {
        let key = fields.key().ok_or_else(malformed)?;
        let loaded = self.loaded(key)?;
        loaded.require(&[KeyPurpose::BatchAuthorisation])?;
        let terms = QuotaTerms::from_octets(fields.rest()).map_err(refused)?;
        let facility = self.facility_key(terms.facility, terms.facility_epoch)?;
        let salt_key = salt_key(&facility, terms.batch)?;
        let batch_key = facility
            .batch(terms.batch.as_bytes(), BATCH_EPOCH)
            .map_err(|_too_long| bug("batch context"))?
            .into_secret();
        let batch_key = SealedBatchKey::seal(&batch_key, &terms.transport_key, &terms.hash())
            .map_err(|_opaque| bug("sealing a batch key"))?;
        let salt_key = P256Key::from_point(*salt_key.public_key()).map_err(|_not_a_point| bug("salt key"))?;
        let server_key = P256Key::from_spki(loaded.spki()).map_err(|_other_curve| bug("a quota key is not P-256"))?;
        let unsigned = Quota { terms, salt_key, batch_key }.prepare(&server_key).map_err(refused)?;
        let signature = loaded.sign(key, &unsigned.to_be_signed(), Instant::now())?;
        unsigned.complete(&signature).map_err(|_too_long| bug("quota encoding"))
    }

    /// Opens the salts of devices that a station made and wraps each for the registry; an empty answer for one that does not
    /// open.
    pub(super) fn open_salts(&self, mut fields: Fields<'_>) -> Result<Vec<u8>, SignerError> {
        let facility = fields.array().map(FacilityId::from_bytes).ok_or_else(malformed)?;
        let epoch = fields.array().map(u32::from_be_bytes).ok_or_else(malformed)?;
        let batch = fields.array().map(BatchId::from_bytes).ok_or_else(malformed)?;
        let facility: Arc<FacilityKey> = self.facility_key(facility, epoch)?;
        let key = salt_key(&facility, batch)?;
        // One station, one encapsulation per run of its program: nearly always the same as that of the salt before.
        let mut opener: Option<([u8; 65], SaltOpener)> = None;
        let mut answer = Vec::new();
        let mut count = 0;
        while let Some(device) = fields.array().map(DeviceId::from_bytes) {
            let salt = fields.array().and_then(|octets| SealedSalt::from_octets(&octets)).ok_or_else(malformed)?;
            count += 1;
            if count > MAX_SALTS {
                return Err(malformed());
            }
            if opener.as_ref().is_none_or(|(point, _)| point != salt.encapsulated()) {
                opener =
                    SaltOpener::new(&key, salt.encapsulated(), batch).ok().map(|opener| (*salt.encapsulated(), opener));
            }
            let opened = opener.as_ref().and_then(|(_, opener)| opener.open(device, &salt).ok());
            let wrapped = match opened {
                Some(salt) => {
                    // Exposed to be wrapped, with the place from which the station derived.
                    let octets = [salt.expose().as_slice(), batch.as_bytes()].concat();
                    let octets = SecretBytes::from_vec(octets);
                    self.wrap_under(&salt_context(device), octets.expose())?
                }
                None => Vec::new(),
            };
            answer.extend_from_slice(&prefix(&wrapped)?);
            answer.extend_from_slice(&wrapped);
        }
        fields.end().ok_or_else(malformed)?;
        Ok(answer)
    }
}

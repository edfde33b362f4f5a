//! Requests of factory batches.

use kf_batch::quota::QuotaTerms;
use kf_batch::salt::SealedSalt;
use kf_key::{BatchId, DeviceId, FacilityId, KeyId};

use super::{SignatureUse, SignerClient};
use crate::SignerError;
use crate::protocol::{Fields, MAX_SALTS, RequestKind, bug, too_large};

/// Where the keys of a batch are derived from.
#[derive(Clone, Copy, Debug)]
pub struct BatchPlace {
    /// The facility.
    pub facility: FacilityId,
    /// Its epoch.
    pub facility_epoch: u32,
    /// The batch.
    pub batch: BatchId,
}

impl SignerClient {
    /// Completes the terms of a quota with the keys of the batch and signs it; returns the document.
    ///
    /// # Errors
    /// [`crate::SignerRefusal::Content`] for terms that no station would take; [`SignerError::Rate`]; [`SignerError`].
    pub async fn sign_quota(&self, batch_key: KeyId, terms: &QuotaTerms) -> Result<Vec<u8>, SignerError> {
        self.count(batch_key, SignatureUse::Issue).await?;
        let octets = terms.to_octets();
        self.link_with(batch_key).await?.call(RequestKind::SignQuota, &[batch_key.as_bytes(), &octets]).await
    }

    /// Opens salts (at most 1,024) that a station sealed, and wraps each as [`SignerClient::new_device_salt`] does; `None` for
    /// one that does not open.
    ///
    /// # Errors
    /// [`SignerError`].
    pub async fn open_salts(
        &self,
        place: BatchPlace,
        salts: &[(DeviceId, SealedSalt)],
    ) -> Result<Vec<Option<Vec<u8>>>, SignerError> {
        if salts.len() > MAX_SALTS {
            return Err(too_large(MAX_SALTS));
        }
        let salts_octets: Vec<u8> =
            salts.iter().flat_map(|(device, salt)| device.as_bytes().iter().copied().chain(salt.to_octets())).collect();
        let epoch = place.facility_epoch.to_be_bytes();
        let request = [&place.facility.as_bytes()[..], &epoch, place.batch.as_bytes(), &salts_octets];
        let body = self.ready().await?.call(RequestKind::OpenSalts, &request).await?;
        let mut fields = Fields(&body);
        let mut wrapped = Vec::with_capacity(salts.len());
        for _ in salts {
            let one = fields.prefixed().ok_or_else(|| bug("unreadable answer"))?;
            wrapped.push((!one.is_empty()).then(|| one.to_vec()));
        }
        fields.end().ok_or_else(|| bug("unreadable answer"))?;
        Ok(wrapped)
    }
}

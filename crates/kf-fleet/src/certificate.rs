//! Certificates on an operator's request, and look-ups.

mod issue;

use kf_access::Principal;
use kf_api::Page;
use kf_api::certificate::{Certificate, CertificateFilter, CertificateWithPem};
use kf_key::SerialNumber;

use crate::{Fleet, FleetError};

impl Fleet {
    /// A certificate by serial number.
    ///
    /// # Errors
    /// [`FleetError::NotFound`].
    pub async fn certificate_show(
        &self,
        who: &Principal,
        serial: SerialNumber,
    ) -> Result<CertificateWithPem, FleetError> {
        let _ = (who, serial);
        todo!()
    }

    /// Certificates that match, newest first.
    ///
    /// # Errors
    /// [`FleetError::Invalid`], [`FleetError::Denied`].
    pub async fn certificate_list(
        &self,
        who: &Principal,
        filter: CertificateFilter,
    ) -> Result<Page<Certificate>, FleetError> {
        let _ = (who, filter);
        todo!()
    }

    /// Puts public keys on the list of keys that are never certified: SHA-256 of SubjectPublicKeyInfo, at most 100,000
    /// at once. Returns how many were new.
    ///
    /// # Errors
    /// [`FleetError::Invalid`], [`FleetError::Denied`].
    pub async fn key_block(&self, who: &Principal, spki_sha256: Vec<[u8; 32]>, why: String) -> Result<u64, FleetError> {
        let _ = (who, spki_sha256, why);
        todo!()
    }
}

//! Certification authorities. Every facility shares them, so reading them takes no visibility.

use kf_api::authority::Authority;
use kf_api::certificate::Certificate;
use kf_key::AuthorityId;

use crate::key::KeyRecord;
use crate::{Audit, Logged, Store, StoreError};

/// A certification authority to be added, complete.
#[derive(Clone, Debug)]
pub struct AuthorityRecord {
    /// The authority. `certificate_pem`, `status` and the dates are kept as given; later the status follows the
    /// certificate's.
    pub authority: Authority,
    /// Its certificate as a row of the registry (its `authority` is the issuer; a root's is itself).
    pub certificate: Certificate,
    /// Its certificate, DER.
    pub der: Vec<u8>,
    /// Its key; `key.id` equals `authority.key`.
    pub key: KeyRecord,
}

impl Store {
    /// Adds a CA with its certificate and its key, in one act. With `is_default` it takes over from the former default.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] on `name`, `id`, `serial` or `key`; [`StoreError::KeyInUse`]; [`StoreError::Stopped`].
    pub async fn insert_authority(
        &self,
        record: AuthorityRecord,
        audit: impl Into<Audit>,
    ) -> Result<Logged<()>, StoreError> {
        let _ = (record, audit.into());
        todo!()
    }

    /// A CA by id.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn authority(&self, id: AuthorityId) -> Result<Option<Authority>, StoreError> {
        let _ = id;
        todo!()
    }

    /// A CA by name.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn authority_by_name(&self, name: &str) -> Result<Option<Authority>, StoreError> {
        let _ = name;
        todo!()
    }

    /// Every CA, in the order of ids.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn authorities(&self) -> Result<Vec<Authority>, StoreError> {
        todo!()
    }

    /// The serial number of a CA's own certificate and its DER.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn authority_certificate(
        &self,
        id: AuthorityId,
    ) -> Result<Option<crate::certificate::StoredCertificate>, StoreError> {
        let _ = id;
        todo!()
    }

    /// Makes a CA the default of the fleet.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn set_default_authority(
        &self,
        id: AuthorityId,
        audit: impl Into<Audit>,
    ) -> Result<Logged<()>, StoreError> {
        let _ = (id, audit.into());
        todo!()
    }

    /// Sets aside `count` (1 to 1,000) CRL numbers of a CA and returns the first: durable before it is returned, and
    /// never given again (RFC 5280 section 5.2.3). Works on a full disk; not logged.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn reserve_crl_numbers(&self, id: AuthorityId, count: u16) -> Result<u64, StoreError> {
        let _ = (id, count);
        todo!()
    }

    /// Raises a CA's CRL number so that the next one is above `floor`: after a restore, when a witness has seen a higher
    /// number. Never lowers it.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn raise_crl_number(&self, id: AuthorityId, floor: u64) -> Result<(), StoreError> {
        let _ = (id, floor);
        todo!()
    }
}

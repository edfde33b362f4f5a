//! Settings: the issuance switch, and facts about the fleet. Every change is logged.

use kf_api::status::Issuance;

use crate::{Audit, Logged, Store, StoreError};

impl Store {
    /// Turns issuance on (`None`) or off (why). Durable and in force for every issuance that commits afterwards.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn set_issuance(
        &self,
        stopped: Option<String>,
        audit: impl Into<Audit>,
    ) -> Result<Logged<()>, StoreError> {
        let _ = (stopped, audit.into());
        todo!()
    }

    /// Whether certificates are being issued: fenced, full, stopped or running, from memory.
    #[must_use]
    pub fn issuance(&self) -> Issuance {
        todo!()
    }

    /// Keeps a fact about the fleet under a key of at most 64 octets; at most 65,536 octets, never a secret.
    ///
    /// # Errors
    /// [`StoreError::Invalid`] beyond the limits.
    pub async fn set_fact(&self, key: &str, value: String, audit: impl Into<Audit>) -> Result<Logged<()>, StoreError> {
        let _ = (key, value, audit.into());
        todo!()
    }

    /// A fact about the fleet.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn fact(&self, key: &str) -> Result<Option<String>, StoreError> {
        let _ = key;
        todo!()
    }
}

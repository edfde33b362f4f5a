//! Public keys that are never certified: known to be leaked or compromised.

use kf_key::UnixMillis;

use crate::{Audit, Logged, Store, StoreError};

impl Store {
    /// Blocks public keys (at most 100,000 at once), by the SHA-256 of their SubjectPublicKeyInfo. Says how many were new.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn block_keys(
        &self,
        spki_sha256: Vec<[u8; 32]>,
        at: UnixMillis,
        audit: impl Into<Audit>,
    ) -> Result<Logged<u64>, StoreError> {
        let _ = (spki_sha256, at, audit.into());
        todo!()
    }

    /// Whether a public key is blocked.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn is_key_blocked(&self, spki_sha256: &[u8; 32]) -> Result<bool, StoreError> {
        let _ = spki_sha256;
        todo!()
    }
}

//! The log as the API shows it, and the published tiles.

use kf_access::Principal;
use kf_api::Page;
use kf_api::audit::{AuditFilter, AuditRecord};

use crate::{Fleet, FleetError};

impl Fleet {
    /// Log entries the caller may see, newest first.
    ///
    /// # Errors
    /// [`FleetError::Denied`].
    pub async fn audit_list(&self, who: &Principal, filter: AuditFilter) -> Result<Page<AuditRecord>, FleetError> {
        let _ = (who, filter);
        todo!()
    }

    /// A published file of the log (`checkpoint`, `tile/…`), for auditors; the path is checked against the tlog-tiles
    /// grammar.
    ///
    /// # Errors
    /// [`FleetError::NotFound`], [`FleetError::Denied`].
    pub async fn audit_file(&self, who: &Principal, path: &str) -> Result<Vec<u8>, FleetError> {
        let _ = (who, path);
        todo!()
    }

    /// The log's public key as a signed-note verifier key. Public.
    #[must_use]
    pub fn audit_verifier_key(&self) -> String {
        todo!()
    }
}

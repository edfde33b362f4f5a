//! CRLs: kept in memory, rebuilt shard by shard within a second of a revocation, read without waiting.

use std::sync::Arc;

use kf_key::{AuthorityId, UnixMillis};
use kf_pki::crl::CrlScope;

use crate::{Fleet, FleetError};

/// A signed CRL as it is served.
#[derive(Clone, Debug)]
pub struct CurrentCrl {
    /// CertificateList, DER.
    pub der: Arc<[u8]>,
    /// cRLNumber.
    pub number: u64,
    /// thisUpdate.
    pub this_update: UnixMillis,
    /// nextUpdate.
    pub next_update: UnixMillis,
}

impl Fleet {
    /// The newest CRL of a CA and scope, or `None` when there is no such CA or shard. A full CRL that is out of date
    /// because of a revocation is signed anew here.
    ///
    /// # Errors
    /// [`FleetError::Signer`] when a full CRL cannot be signed and none was before.
    pub async fn crl(&self, authority: AuthorityId, scope: CrlScope) -> Result<Option<CurrentCrl>, FleetError> {
        let _ = (authority, scope);
        todo!()
    }
}

//! Revocation, hold and release.

use kf_access::Principal;
use kf_api::revocation::{RevokeOutcome, RevokeRequest};

use crate::{Fleet, FleetError};

impl Fleet {
    /// Revokes, holds or releases. Effective in OCSP when this returns, in the CRL within a second. What is permanent
    /// at scale becomes a proposal.
    ///
    /// # Errors
    /// [`FleetError::NotFound`], [`FleetError::Conflict`], [`FleetError::Denied`].
    pub async fn revoke(&self, who: &Principal, request: RevokeRequest) -> Result<RevokeOutcome, FleetError> {
        let _ = (who, request);
        todo!()
    }
}

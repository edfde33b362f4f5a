//! Certification authorities.

use kf_access::Principal;
use kf_api::authority::{Authority, NewAuthority};
use kf_api::{Page, PageRequest};
use kf_key::AuthorityId;

use crate::{Fleet, FleetError};

impl Fleet {
    /// Creates an issuing CA below the root.
    ///
    /// # Errors
    /// [`FleetError::Invalid`], [`FleetError::Conflict`] for a name in use, [`FleetError::Signer`].
    pub async fn authority_create(&self, who: &Principal, new: NewAuthority) -> Result<Authority, FleetError> {
        let _ = (who, new);
        todo!()
    }

    /// A CA by name or id.
    ///
    /// # Errors
    /// [`FleetError::NotFound`].
    pub async fn authority_show(&self, who: &Principal, authority: &str) -> Result<Authority, FleetError> {
        let _ = (who, authority);
        todo!()
    }

    /// All CAs.
    ///
    /// # Errors
    /// [`FleetError::Denied`].
    pub async fn authority_list(&self, who: &Principal, page: PageRequest) -> Result<Page<Authority>, FleetError> {
        let _ = (who, page);
        todo!()
    }

    /// A CA certificate, DER, for the address in AIA. Public.
    #[must_use]
    pub fn authority_certificate(&self, authority: AuthorityId) -> Option<Vec<u8>> {
        let _ = authority;
        todo!()
    }
}

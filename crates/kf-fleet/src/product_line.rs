//! Product lines.

use kf_access::Principal;
use kf_api::product_line::{EnrolmentPolicy, NewProductLine, ProductLine};
use kf_api::{Page, PageRequest};

use crate::{Fleet, FleetError};

impl Fleet {
    /// Creates a product line.
    ///
    /// # Errors
    /// [`FleetError::Invalid`], [`FleetError::Conflict`] for a name in use, [`FleetError::Denied`].
    pub async fn product_line_create(&self, who: &Principal, new: NewProductLine) -> Result<ProductLine, FleetError> {
        let _ = (who, new);
        todo!()
    }

    /// Replaces a product line's policy.
    ///
    /// # Errors
    /// [`FleetError::Invalid`], [`FleetError::NotFound`], [`FleetError::Denied`].
    pub async fn product_line_set_policy(
        &self,
        who: &Principal,
        line: &str,
        policy: EnrolmentPolicy,
    ) -> Result<ProductLine, FleetError> {
        let _ = (who, line, policy);
        todo!()
    }

    /// A product line by name or id.
    ///
    /// # Errors
    /// [`FleetError::NotFound`].
    pub async fn product_line_show(&self, who: &Principal, line: &str) -> Result<ProductLine, FleetError> {
        let _ = (who, line);
        todo!()
    }

    /// All product lines.
    ///
    /// # Errors
    /// [`FleetError::Denied`].
    pub async fn product_line_list(&self, who: &Principal, page: PageRequest) -> Result<Page<ProductLine>, FleetError> {
        let _ = (who, page);
        todo!()
    }
}

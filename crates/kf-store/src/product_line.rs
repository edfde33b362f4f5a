//! Product lines. Every facility shares them, so reading them takes no visibility.

use kf_api::product_line::{EnrolmentPolicy, ProductLine};
use kf_api::{Page, PageRequest};
use kf_key::{AuthorityId, ProductLineId};

use crate::{Audit, Logged, Store, StoreError};

impl Store {
    /// Adds a product line.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] on `name` or `id`; [`StoreError::NotFound`] for its authority.
    pub async fn insert_product_line(
        &self,
        line: ProductLine,
        audit: impl Into<Audit>,
    ) -> Result<Logged<()>, StoreError> {
        let _ = (line, audit.into());
        todo!()
    }

    /// Changes the policy and the issuing CA of a product line.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] for the line or the authority.
    pub async fn update_product_line(
        &self,
        id: ProductLineId,
        authority: Option<AuthorityId>,
        policy: EnrolmentPolicy,
        audit: impl Into<Audit>,
    ) -> Result<Logged<()>, StoreError> {
        let _ = (id, authority, policy, audit.into());
        todo!()
    }

    /// A product line by id.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn product_line(&self, id: ProductLineId) -> Result<Option<ProductLine>, StoreError> {
        let _ = id;
        todo!()
    }

    /// A product line by name, which is its EST label.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn product_line_by_name(&self, name: &str) -> Result<Option<ProductLine>, StoreError> {
        let _ = name;
        todo!()
    }

    /// Product lines in the order of their ids.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn product_lines(&self, page: &PageRequest) -> Result<Page<ProductLine>, StoreError> {
        let _ = page;
        todo!()
    }
}

//! Facilities.

use kf_access::Visibility;
use kf_api::facility::Facility;
use kf_api::{Page, PageRequest};
use kf_key::FacilityId;

use crate::{Audit, Logged, Store, StoreError};

impl Store {
    /// Adds a facility.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] on `name` or `id`.
    pub async fn insert_facility(&self, facility: Facility, audit: impl Into<Audit>) -> Result<Logged<()>, StoreError> {
        let _ = (facility, audit.into());
        todo!()
    }

    /// A facility by id; `None` also when it lies outside `visibility`.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn facility(&self, id: FacilityId, visibility: &Visibility) -> Result<Option<Facility>, StoreError> {
        let _ = (id, visibility);
        todo!()
    }

    /// A facility by name; `None` also when it lies outside `visibility`.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn facility_by_name(&self, name: &str, visibility: &Visibility) -> Result<Option<Facility>, StoreError> {
        let _ = (name, visibility);
        todo!()
    }

    /// Facilities in the order of their ids.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn facilities(&self, visibility: &Visibility, page: &PageRequest) -> Result<Page<Facility>, StoreError> {
        let _ = (visibility, page);
        todo!()
    }
}

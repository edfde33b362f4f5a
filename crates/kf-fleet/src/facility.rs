//! Facilities.

use kf_access::Principal;
use kf_api::facility::{Facility, NewFacility};
use kf_api::{Page, PageRequest};

use crate::{Fleet, FleetError};

impl Fleet {
    /// Creates a facility.
    ///
    /// # Errors
    /// [`FleetError::Invalid`], [`FleetError::Conflict`] for a name in use, [`FleetError::Denied`].
    pub async fn facility_create(&self, who: &Principal, new: NewFacility) -> Result<Facility, FleetError> {
        let _ = (who, new);
        todo!()
    }

    /// A facility by name or id.
    ///
    /// # Errors
    /// [`FleetError::NotFound`].
    pub async fn facility_show(&self, who: &Principal, facility: &str) -> Result<Facility, FleetError> {
        let _ = (who, facility);
        todo!()
    }

    /// The facilities the caller may see.
    ///
    /// # Errors
    /// [`FleetError::Denied`].
    pub async fn facility_list(&self, who: &Principal, page: PageRequest) -> Result<Page<Facility>, FleetError> {
        let _ = (who, page);
        todo!()
    }
}

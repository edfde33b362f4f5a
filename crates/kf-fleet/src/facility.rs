//! Facilities.

use kf_access::{Action, Principal, Target, authorize};
use kf_api::facility::{Facility, NewFacility};
use kf_api::{Page, PageRequest};
use kf_key::FacilityId;

use crate::entry::Entry;
use crate::naming::{check_name, check_text};
use crate::{Fleet, FleetError};

const MAX_DESCRIPTION: usize = 200;

impl Fleet {
    /// Creates a facility.
    ///
    /// # Errors
    /// [`FleetError::Invalid`], [`FleetError::Conflict`] for a name in use, [`FleetError::Denied`].
    pub async fn facility_create(&self, who: &Principal, new: NewFacility) -> Result<Facility, FleetError> {
        check_name("name", &new.name)?;
        check_text("description", &new.description, MAX_DESCRIPTION)?;
        authorize(who, Action::FacilityCreate, Target::Fleet)?;
        let now = self.now();
        let id = FacilityId::from_parts(now, kf_crypto::random_array()?);
        let facility = Facility { id, name: new.name, description: new.description, created: now };
        let entry = Entry::done(who, "facility.create", now)
            .about(id)
            .at_facility(Some(id))
            .with("name", &facility.name)
            .build();
        self.store.insert_facility(facility.clone(), entry).await?;
        Ok(facility)
    }

    /// A facility by name or id.
    ///
    /// # Errors
    /// [`FleetError::NotFound`].
    pub async fn facility_show(&self, who: &Principal, facility: &str) -> Result<Facility, FleetError> {
        let found = self.find_facility(facility, &who.visibility())?;
        authorize(who, Action::FacilityRead, Target::Facility(found.id))?;
        Ok(found)
    }

    /// The facilities the caller may see.
    ///
    /// # Errors
    /// [`FleetError::Denied`].
    pub async fn facility_list(&self, who: &Principal, page: PageRequest) -> Result<Page<Facility>, FleetError> {
        let permit = authorize(who, Action::FacilityRead, Target::Visible)?;
        Ok(self.store.facilities(permit.visibility(), &page)?)
    }
}

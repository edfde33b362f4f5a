//! Things by name or id, as far as somebody may see them.

use kf_access::Visibility;
use kf_api::device::Device;
use kf_api::facility::Facility;
use kf_api::operator::Operator;
use kf_api::product_line::ProductLine;
use kf_key::{DeviceId, FacilityId, OperatorId, ProductLineId};

use crate::{Fleet, FleetError};

impl Fleet {
    /// A device by name or id.
    pub(crate) fn find_device(&self, reference: &str, visibility: &Visibility) -> Result<Device, FleetError> {
        let found = match reference.parse::<DeviceId>() {
            Ok(id) => self.store.device(id, visibility)?,
            Err(_not_an_id) => self.store.device_by_name(reference, visibility)?,
        };
        found.ok_or(FleetError::NotFound("device"))
    }

    /// A facility by name or id.
    pub(crate) fn find_facility(&self, reference: &str, visibility: &Visibility) -> Result<Facility, FleetError> {
        let found = match reference.parse::<FacilityId>() {
            Ok(id) => self.store.facility(id, visibility)?,
            Err(_not_an_id) => self.store.facility_by_name(reference, visibility)?,
        };
        found.ok_or(FleetError::NotFound("facility"))
    }

    /// A product line by name or id.
    pub(crate) fn find_product_line(&self, reference: &str) -> Result<ProductLine, FleetError> {
        let found = match reference.parse::<ProductLineId>() {
            Ok(id) => self.store.product_line(id)?,
            Err(_not_an_id) => self.store.product_line_by_name(reference)?,
        };
        found.ok_or(FleetError::NotFound("product line"))
    }

    /// An operator by name or id.
    pub(crate) fn find_operator(&self, reference: &str) -> Result<Operator, FleetError> {
        let found = match reference.parse::<OperatorId>() {
            Ok(id) => self.store.operator(id)?,
            Err(_not_an_id) => self.store.operator_by_name(reference)?,
        };
        found.ok_or(FleetError::NotFound("operator"))
    }
}

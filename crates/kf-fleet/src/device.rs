//! Devices: registration, import, and the acts that change their place in the fleet.

mod act;
mod facts;
pub(crate) mod import;

use kf_access::{Action, Principal, Target, authorize};
use kf_api::device::{Device, DeviceFilter, DeviceHistory, NewDevice};
use kf_api::{Page, PageRequest};
use kf_key::{DeviceId, DeviceState, FacilityId, KeyProtection, ProductLineId, UnixMillis};
use kf_store::device::{DeviceQuery, Registration};

use crate::entry::Entry;
use crate::{Fleet, FleetError};
pub(crate) use facts::check_new_device;

impl Fleet {
    /// Registers a device. Registering the same facts again answers with the device that is there.
    ///
    /// # Errors
    /// [`FleetError::Invalid`], [`FleetError::Conflict`], [`FleetError::NotFound`], [`FleetError::Denied`].
    pub async fn device_register(&self, who: &Principal, new: NewDevice) -> Result<Device, FleetError> {
        check_new_device(&new)?;
        let facility = self.find_facility(&new.facility, &who.visibility())?.id;
        authorize(who, Action::DeviceRegister, Target::Facility(facility))?;
        let product_line = self.find_product_line(&new.product_line)?.id;
        let device = self.device_of(new, facility, product_line)?;
        let entry = registration_entry(who, &device, device.created).build();
        let row = (device.clone(), entry);
        let outcome = self.store.register_devices(vec![row]).await?.pop();
        match outcome.ok_or(FleetError::Bug("a registration without outcome"))? {
            Registration::Registered { .. } => Ok(device),
            Registration::AlreadyThere { id, same_facts: true } => {
                self.store.device(id, &who.visibility())?.ok_or(FleetError::NotFound("device"))
            }
            Registration::AlreadyThere { same_facts: false, .. } => Err(name_in_use()),
            Registration::Refused(error) => Err(error.into()),
        }
    }

    /// Devices that match; in the order of their names when a prefix is given, otherwise of their registration.
    ///
    /// # Errors
    /// [`FleetError::Invalid`], [`FleetError::NotFound`] for a facility or product line, [`FleetError::Denied`].
    pub async fn device_list(&self, who: &Principal, filter: DeviceFilter) -> Result<Page<Device>, FleetError> {
        let permit = authorize(who, Action::DeviceRead, Target::Visible)?;
        let facility = match &filter.facility {
            Some(reference) => Some(self.find_facility(reference, permit.visibility())?.id),
            None => None,
        };
        let product_line = match &filter.product_line {
            Some(reference) => Some(self.find_product_line(reference)?.id),
            None => None,
        };
        let query = DeviceQuery {
            facility,
            product_line,
            state: filter.state,
            batch: filter.batch,
            name_prefix: filter.name_prefix,
            page: PageRequest { after: filter.after, limit: filter.limit },
        };
        Ok(self.store.devices(&query, permit.visibility())?)
    }

    /// A device by name or id, with its certificates and log entries.
    ///
    /// # Errors
    /// [`FleetError::NotFound`].
    pub async fn device_show(&self, who: &Principal, device: &str) -> Result<DeviceHistory, FleetError> {
        let permit = |device: &Device| authorize(who, Action::DeviceRead, Target::Facility(device.facility)).map(drop);
        let found = self.store.device_history(device, &who.visibility(), permit)?;
        Ok(found.ok_or(FleetError::NotFound("device"))??)
    }

    /// A device that is about to be registered.
    pub(crate) fn device_of(
        &self,
        new: NewDevice,
        facility: FacilityId,
        product_line: ProductLineId,
    ) -> Result<Device, FleetError> {
        let now = self.now();
        Ok(Device {
            id: DeviceId::from_parts(now, kf_crypto::random_array()?),
            name: new.name,
            facility,
            product_line,
            state: DeviceState::Registered,
            batch: new.batch,
            attributes: new.attributes,
            protection: KeyProtection::Unknown,
            created: now,
            last_seen: None,
        })
    }
}

/// The entry of a registration.
pub(crate) fn registration_entry(who: &Principal, device: &Device, at: UnixMillis) -> Entry {
    let entry = Entry::done(who, "device.register", at)
        .about(device.id)
        .at_facility(Some(device.facility))
        .with("name", &device.name)
        .with("product_line", device.product_line);
    match &device.batch {
        Some(batch) => entry.with("batch", batch),
        None => entry,
    }
}

/// The refusal of a name that a device with other facts has, perhaps at a facility that the caller does not see.
pub(crate) fn name_in_use() -> FleetError {
    FleetError::conflict(
        "name",
        "a device of this name is registered with other facts",
        "choose another name, or correct facility, product line, batch and attributes to those of the registered one",
    )
}

//! Devices: registration, import, and the acts that change their place in the fleet.

mod act;

use kf_access::Principal;
use kf_api::Page;
use kf_api::device::{Device, DeviceFilter, DeviceHistory, ImportFormat, ImportReport, NewDevice};

use crate::{Fleet, FleetError};

impl Fleet {
    /// Registers a device. Registering the same facts again answers with the device that is there.
    ///
    /// # Errors
    /// [`FleetError::Invalid`], [`FleetError::Conflict`], [`FleetError::NotFound`], [`FleetError::Denied`].
    pub async fn device_register(&self, who: &Principal, new: NewDevice) -> Result<Device, FleetError> {
        let _ = (who, new);
        todo!()
    }

    /// Registers many devices, in transactions of 1,000 rows. At most 64 MiB and 1,000,000 rows; sending the same
    /// file again resumes.
    ///
    /// # Errors
    /// [`FleetError::Invalid`] when the text as a whole cannot be read; single rows are in the report.
    pub async fn device_import(
        &self,
        who: &Principal,
        format: ImportFormat,
        text: &[u8],
        dry_run: bool,
    ) -> Result<ImportReport, FleetError> {
        let _ = (who, format, text, dry_run);
        todo!()
    }

    /// Devices that match, in the order of their names.
    ///
    /// # Errors
    /// [`FleetError::Invalid`], [`FleetError::Denied`].
    pub async fn device_list(&self, who: &Principal, filter: DeviceFilter) -> Result<Page<Device>, FleetError> {
        let _ = (who, filter);
        todo!()
    }

    /// A device by name or id, with its certificates and log entries.
    ///
    /// # Errors
    /// [`FleetError::NotFound`].
    pub async fn device_show(&self, who: &Principal, device: &str) -> Result<DeviceHistory, FleetError> {
        let _ = (who, device);
        todo!()
    }
}

//! Devices.

use kf_access::Visibility;
use kf_api::device::Device;
use kf_api::{Page, PageRequest};
use kf_key::{DeviceId, DeviceState, FacilityId, ProductLineId, RevocationReason, UnixMillis};
use kf_log::AuditEntry;

use crate::revocation::Revoked;
use crate::{Audit, Logged, Store, StoreError};

/// What became of one row of a registration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Registration {
    /// Registered.
    Registered {
        /// Index of its log entry.
        index: u64,
    },
    /// A device of this name was there already; nothing was written.
    AlreadyThere {
        /// Its id; the id that was offered is not used.
        id: DeviceId,
        /// Whether facility, product line, batch and attributes are the same.
        same_facts: bool,
    },
    /// Refused; nothing was written.
    Refused(StoreError),
}

/// Which devices to list; names are resolved by the caller. Every given field must match.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeviceQuery {
    /// Facility.
    pub facility: Option<FacilityId>,
    /// Product line.
    pub product_line: Option<ProductLineId>,
    /// State.
    pub state: Option<DeviceState>,
    /// Batch.
    pub batch: Option<String>,
    /// First characters of the name. Given it, the listing is in the order of names, otherwise of ids.
    pub name_prefix: Option<String>,
    /// Page.
    pub page: PageRequest,
}

/// Which devices an act touches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeviceTarget {
    /// One device, which must be in the state the caller saw.
    Device {
        /// The device.
        id: DeviceId,
        /// The state the caller saw.
        seen: DeviceState,
    },
    /// Every device of a batch for which the change is a legal step; the others are left alone.
    Batch(String),
    /// Every device of a facility for which the change is a legal step; the others are left alone.
    Facility(FacilityId),
}

/// What a change of device state does to the device's certificates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CertificateEffect {
    /// Nothing.
    Keep,
    /// Good LDevIDs and IDevIDs go on hold (suspension, quarantine).
    Hold,
    /// Held ones are released (resumption).
    Release,
    /// LDevIDs are revoked, held or good, and open enrolment codes withdrawn (decommissioning).
    Revoke {
        /// Why, for the LDevIDs.
        ldevid: RevocationReason,
        /// Why, for the IDevIDs; absent: they stay good for the next owner (held ones are released).
        idevid: Option<RevocationReason>,
    },
}

/// A change of device state with what it does to certificates, in one act.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceChange {
    /// Which devices.
    pub target: DeviceTarget,
    /// The new state. `Active` and `Registered` are chosen by the store on resumption: a device that holds an LDevID
    /// becomes `Active`, another `Registered`, whichever of the two is given.
    pub to: DeviceState,
    /// What becomes of their certificates.
    pub certificates: CertificateEffect,
    /// When.
    pub at: UnixMillis,
}

impl Store {
    /// Registers one device.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] on `name` or `id`; [`StoreError::NotFound`] for its facility or product line.
    pub async fn register_device(&self, device: Device, audit: impl Into<Audit>) -> Result<Logged<()>, StoreError> {
        let _ = (device, audit.into());
        todo!()
    }

    /// Registers many devices (at most 10,000) in one transaction, each with its own log entry. A refused row is not
    /// written, the others are; a row whose device is there already is reported, so that an import resumes.
    ///
    /// # Errors
    /// Only when nothing at all could be written.
    pub async fn register_devices(&self, rows: Vec<(Device, AuditEntry)>) -> Result<Vec<Registration>, StoreError> {
        let _ = rows;
        todo!()
    }

    /// A device by id; `None` also when it lies outside `visibility`.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn device(&self, id: DeviceId, visibility: &Visibility) -> Result<Option<Device>, StoreError> {
        let _ = (id, visibility);
        todo!()
    }

    /// A device by name; `None` also when it lies outside `visibility`.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn device_by_name(&self, name: &str, visibility: &Visibility) -> Result<Option<Device>, StoreError> {
        let _ = (name, visibility);
        todo!()
    }

    /// One page of devices.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn devices(&self, query: &DeviceQuery, visibility: &Visibility) -> Result<Page<Device>, StoreError> {
        let _ = (query, visibility);
        todo!()
    }

    /// Devices by state, in the order of [`DeviceState::ALL`]; kept as counters, so it costs the same at any size.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn device_counts(&self, visibility: &Visibility) -> Result<Vec<(DeviceState, u64)>, StoreError> {
        let _ = visibility;
        todo!()
    }

    /// Changes the state of devices and the status of their certificates together. A mass act never leaves
    /// `visibility`; its log entry is completed with `detail.devices` and `detail.certificates`.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] (also outside `visibility`); [`StoreError::IllegalState`] when the device is not as the
    /// caller saw it; [`StoreError::IllegalDeviceTransition`].
    pub async fn change_devices(
        &self,
        change: DeviceChange,
        visibility: Visibility,
        audit: impl Into<Audit>,
    ) -> Result<Logged<Revoked>, StoreError> {
        let _ = (change, visibility, audit.into());
        todo!()
    }

    /// How many devices and certificates [`Store::change_devices`] would touch: `(devices, certificates)`.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn count_device_change(
        &self,
        change: &DeviceChange,
        visibility: &Visibility,
    ) -> Result<(u64, u64), StoreError> {
        let _ = (change, visibility);
        todo!()
    }

    /// Moves a device, and its certificates with it, from one facility to another.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] for device or facility; [`StoreError::IllegalState`] when it is not in `from`.
    pub async fn move_device(
        &self,
        device: DeviceId,
        from: FacilityId,
        to: FacilityId,
        audit: impl Into<Audit>,
    ) -> Result<Logged<()>, StoreError> {
        let _ = (device, from, to, audit.into());
        todo!()
    }

    /// Notes that a device authenticated. Not logged, written with the next group, lost in a crash; never waits.
    pub fn touch_device(&self, device: DeviceId, at: UnixMillis) {
        let _ = (device, at);
        todo!()
    }
}

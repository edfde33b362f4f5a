//! Devices.

use std::collections::BTreeMap;
use std::sync::PoisonError;

use kf_access::Visibility;
use kf_api::backup::Restored;
use kf_api::device::Device;
use kf_api::{Page, PageRequest};
use kf_key::{DeviceId, DeviceState, FacilityId, ProductLineId, RevocationReason, UnixMillis};
use kf_log::AuditEntry;

use rusqlite::{Connection, Row};

use crate::act::{Act, Class, is_fatal};
use crate::column::{self, Coded, millis};
use crate::revocation::Revoked;
use crate::sql::{self, in_scope, scope};
use crate::writer::TOUCHES_PER_GROUP;
use crate::{Audit, Logged, Store, StoreError};

pub(crate) mod change;
mod history;
mod listed;

/// Rows of one registration.
const MAX_ROWS: usize = 10_000;
/// Sightings that may wait to be written; further ones are dropped.
const MAX_TOUCHED: usize = 100_000;
/// Devices out of service that are read at once.
const STOPPED_AT_ONCE: u32 = 4_096;
const MAX_NAME_OCTETS: usize = 64;
const MAX_BATCH_OCTETS: usize = 128;
const MAX_ATTRIBUTES_OCTETS: usize = 16_384;

/// Devices that were seen, and when last.
pub(crate) type Touched = BTreeMap<DeviceId, UnixMillis>;

macro_rules! columns {
    () => {
        "SELECT id, name, facility, product_line, state, batch, attributes, protection, created, last_seen FROM device"
    };
}
use columns;

fn device_row(row: &Row<'_>) -> rusqlite::Result<Device> {
    device_from(row, 0)
}

/// A device whose columns begin at `first`.
pub(crate) fn device_from(row: &Row<'_>, first: usize) -> rusqlite::Result<Device> {
    let attributes = match row.get_ref(first + 6)? {
        rusqlite::types::ValueRef::Null => BTreeMap::new(),
        _ => column::json(row, first + 6)?,
    };
    Ok(Device {
        id: column::id(row, first)?,
        name: row.get(first + 1)?,
        facility: column::id(row, first + 2)?,
        product_line: column::id(row, first + 3)?,
        state: column::coded(row, first + 4)?,
        batch: row.get(first + 5)?,
        attributes,
        protection: column::coded(row, first + 7)?,
        created: column::time(row, first + 8)?,
        last_seen: column::optional_time(row, first + 9)?,
    })
}

/// See [`Store::device`].
pub(crate) fn by_id(
    connection: &Connection,
    id: DeviceId,
    visibility: &Visibility,
) -> Result<Option<Device>, StoreError> {
    let sql = concat!(columns!(), " WHERE id = ?2 AND ", in_scope!("facility"));
    sql::one(connection, sql, (scope(visibility), id.as_bytes()), device_row)
}

fn by_name(connection: &Connection, name: &str, visibility: &Visibility) -> Result<Option<Device>, StoreError> {
    let sql = concat!(columns!(), " WHERE name = ?2 AND ", in_scope!("facility"));
    sql::one(connection, sql, (scope(visibility), name), device_row)
}

fn insert(act: &mut Act<'_>, device: &Device) -> Result<(), StoreError> {
    let Device { id, name, facility, product_line, state, batch, attributes, protection, created, last_seen } = device;
    if *state != DeviceState::Registered {
        return Err(StoreError::Invalid { field: "state", problem: "a new device is registered" });
    }
    if name.is_empty() || name.len() > MAX_NAME_OCTETS {
        return Err(StoreError::Invalid { field: "name", problem: "1 to 64 octets" });
    }
    if batch.as_ref().is_some_and(|batch| batch.is_empty() || batch.len() > MAX_BATCH_OCTETS) {
        return Err(StoreError::Invalid { field: "batch", problem: "1 to 128 octets" });
    }
    let attributes = if attributes.is_empty() { None } else { serde_json::to_string(attributes).ok() };
    if attributes.as_ref().is_some_and(|text| text.len() > MAX_ATTRIBUTES_OCTETS) {
        return Err(StoreError::Invalid { field: "attributes", problem: "at most 16,384 octets" });
    }
    act.require_facility(*facility)?;
    if !act.exists("SELECT 1 FROM product_line WHERE id = ?1", [product_line.as_bytes()])? {
        return Err(StoreError::NotFound { what: "product line" });
    }
    let sql = "INSERT INTO device (id, name, facility, product_line, state, batch, attributes, protection, created,
        last_seen) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)";
    act.execute(
        sql,
        (
            id.as_bytes(),
            name,
            facility.as_bytes(),
            product_line.as_bytes(),
            state.code(),
            batch,
            attributes,
            protection.code(),
            millis(*created),
            last_seen.map(millis),
        ),
    )?;
    act.counts.device(*facility, *state, 1);
    Ok(())
}

/// A device, as it stands in the transaction under way.
pub(crate) fn in_transaction(act: &Act<'_>, id: DeviceId) -> Result<Option<Device>, StoreError> {
    act.one(concat!(columns!(), " WHERE id = ?1"), [id.as_bytes()], device_row)
}

/// One row of a registration: what is there already or refused writes nothing and fails nothing.
pub(crate) fn register(act: &mut Act<'_>, device: &Device, entry: &AuditEntry) -> Result<Registration, StoreError> {
    let there = act.one(concat!(columns!(), " WHERE name = ?1"), [&device.name], device_row)?;
    if let Some(there) = there {
        let same_facts = there.facility == device.facility
            && there.product_line == device.product_line
            && there.batch == device.batch
            && there.attributes == device.attributes;
        return Ok(Registration::AlreadyThere { id: there.id, same_facts });
    }
    match insert(act, device) {
        Ok(()) => Ok(Registration::Registered { index: act.log(&entry.clone().into())? }),
        // A statement that fails undoes itself, and `insert` is one statement after its checks.
        Err(error) if !is_fatal(&error) => Ok(Registration::Refused(error)),
        Err(error) => Err(error),
    }
}

/// Moves a device, and its certificates with it, in the transaction under way.
pub(crate) fn change_facility(
    act: &mut Act<'_>,
    device: DeviceId,
    from: FacilityId,
    to: FacilityId,
) -> Result<(), StoreError> {
    act.require_facility(to)?;
    let sql = "SELECT state, facility FROM device WHERE id = ?1";
    let found = act.one(sql, [device.as_bytes()], |row| {
        Ok((column::coded::<DeviceState>(row, 0)?, column::id::<FacilityId>(row, 1)?))
    })?;
    let (state, facility) = found.ok_or(StoreError::NotFound { what: "device" })?;
    if facility != from {
        return Err(StoreError::IllegalState {
            what: "facility of the device",
            found: facility.to_string(),
            expected: from.to_string(),
        });
    }
    act.execute("UPDATE device SET facility = ?2 WHERE id = ?1", (device.as_bytes(), to.as_bytes()))?;
    crate::device_key::moved(act, device)?;
    act.counts.device(from, state, -1);
    act.counts.device(to, state, 1);
    let sql = "UPDATE certificate SET facility = ?2 WHERE device = ?1 RETURNING status";
    let statuses = act.all(sql, (device.as_bytes(), to.as_bytes()), |row| column::coded(row, 0))?;
    for status in statuses {
        act.counts.certificate(Some(from), status, -1);
        act.counts.certificate(Some(to), status, 1);
    }
    Ok(())
}

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
        self.logged(Class::Ordinary, audit.into(), move |act| insert(act, &device)).await
    }

    /// Registers many devices (at most 10,000) in one transaction, each with its own log entry. A refused row is not
    /// written, the others are; a row whose device is there already is reported, so that an import resumes.
    ///
    /// # Errors
    /// Only when nothing at all could be written.
    pub async fn register_devices(&self, rows: Vec<(Device, AuditEntry)>) -> Result<Vec<Registration>, StoreError> {
        self.write(Class::Ordinary, move |act| {
            if rows.len() > MAX_ROWS {
                return Err(StoreError::Invalid { field: "rows", problem: "at most 10,000 at once" });
            }
            rows.iter().map(|(device, entry)| register(act, device, entry)).collect()
        })
        .await
    }

    /// A device by id; `None` also when it lies outside `visibility`.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn device(&self, id: DeviceId, visibility: &Visibility) -> Result<Option<Device>, StoreError> {
        self.read(|connection| by_id(connection, id, visibility))
    }

    /// A device by name; `None` also when it lies outside `visibility`.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn device_by_name(&self, name: &str, visibility: &Visibility) -> Result<Option<Device>, StoreError> {
        self.read(|connection| by_name(connection, name, visibility))
    }

    /// One page of devices.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn devices(&self, query: &DeviceQuery, visibility: &Visibility) -> Result<Page<Device>, StoreError> {
        self.read_at_once(|connection| listed::page(connection, query, visibility))
    }

    /// Devices by state, in the order of [`DeviceState::ALL`]; kept as counters, so it costs the same at any size.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn device_counts(&self, visibility: &Visibility) -> Result<Vec<(DeviceState, u64)>, StoreError> {
        let sql =
            concat!("SELECT state, sum(count) FROM device_count WHERE ", in_scope!("facility"), " GROUP BY state");
        self.read(|connection| {
            let rows = sql::all(connection, sql, [scope(visibility)], |row| {
                Ok((column::coded::<DeviceState>(row, 0)?, column::count(row, 1)?))
            })?;
            let of = |state| rows.iter().find(|(found, _)| *found == state).map_or(0, |(_, count)| *count);
            Ok(DeviceState::ALL.into_iter().map(|state| (state, of(state))).collect())
        })
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
        let audit = audit.into();
        // Taking a device out of service goes on when the disk is full; bringing it back does not.
        let resumes = matches!(change.to, DeviceState::Active | DeviceState::Registered);
        let class = if resumes { Class::Ordinary } else { Class::Reserved };
        self.write(class, move |act| {
            let revoked = change::carry_out(act, &change, &visibility)?;
            let audit = audit.with_detail("devices", revoked.devices);
            let index = act.log(&audit.with_detail("certificates", revoked.certificates))?;
            Ok(Logged { value: revoked, index })
        })
        .await
    }

    /// Puts devices again into states that somebody outside knows them to be in: at most 10,000 at a time. One that this registry
    /// does not know, or that is stopped more firmly, is left alone. How many changed; nothing is logged where none did.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn stop_devices_again(
        &self,
        devices: Vec<(DeviceId, DeviceState)>,
        restored: Restored,
        audit: impl Into<Audit>,
    ) -> Result<u64, StoreError> {
        let audit = audit.into();
        self.write(Class::Reserved, move |act| {
            let mut count = 0_u64;
            for (device, to) in &devices {
                count += u64::from(change::stop(act, *device, *to)?);
            }
            if count > 0 {
                let restored = Restored { devices: restored.devices.saturating_add(count), ..restored.clone() };
                crate::backup::keep_lost(act, &restored)?;
                act.log(&audit.with_detail("devices", count))?;
            }
            Ok(count)
        })
        .await
    }

    /// Calls `each` for every device that is suspended, quarantined or decommissioned.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn for_each_stopped_device(&self, each: &mut dyn FnMut(DeviceId, DeviceState)) -> Result<(), StoreError> {
        // The index by facility and state holds the id: devices in service are not looked at.
        let sql = "SELECT id FROM device INDEXED BY device_by_facility
            WHERE facility = ?1 AND state = ?2 AND id > ?3 ORDER BY id LIMIT ?4";
        for facility in self.facility_ids()? {
            for state in DeviceState::ALL.into_iter().filter(|state| !state.may_enrol()) {
                let mut after = Vec::new();
                loop {
                    let rows: Vec<DeviceId> = self.read(|connection| {
                        let params = (facility.as_bytes(), state.code(), &after, STOPPED_AT_ONCE);
                        sql::all(connection, sql, params, |row| column::id(row, 0))
                    })?;
                    let Some(last) = rows.last() else { break };
                    after = last.as_bytes().to_vec();
                    rows.iter().for_each(|device| each(*device, state));
                }
            }
        }
        Ok(())
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
        self.read(|connection| change::count(connection, change, visibility))
    }

    /// Moves a device, and its certificates with it, from one facility to another. Its next exchange delivers a key of
    /// the new facility.
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
        self.logged(Class::Ordinary, audit.into(), move |act| change_facility(act, device, from, to)).await
    }

    /// Notes that a device authenticated. Not logged, lost in a crash; never waits. Written when somebody asks for it
    /// ([`Store::write_sightings`]), or when there are many: a commit for each would cost more than everything else that a poll does,
    /// and what many a device does next, a renewal, writes it anyway.
    pub fn touch_device(&self, device: DeviceId, at: UnixMillis) {
        let many = {
            let mut touched = self.shared().touched.lock().unwrap_or_else(PoisonError::into_inner);
            let before = touched.len();
            if before < MAX_TOUCHED || touched.contains_key(&device) {
                let latest = touched.entry(device).or_insert(at);
                *latest = at.max(*latest);
            }
            touched.len() > before && touched.len().is_multiple_of(TOUCHES_PER_GROUP)
        };
        if many {
            self.wake();
        }
    }

    /// Has the sightings written that wait. Does not wait for it.
    pub fn write_sightings(&self) {
        if !self.shared().touched.lock().unwrap_or_else(PoisonError::into_inner).is_empty() {
            self.wake();
        }
    }

    /// A sighting until `at` has been written with something else.
    pub(crate) fn forget_sighting(&self, device: DeviceId, at: UnixMillis) {
        let mut touched = self.shared().touched.lock().unwrap_or_else(PoisonError::into_inner);
        if touched.get(&device).is_some_and(|seen| *seen <= at) {
            touched.remove(&device);
        }
    }
}

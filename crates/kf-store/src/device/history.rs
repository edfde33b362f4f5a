//! What the registry knows of one device.

use kf_access::Visibility;
use kf_api::PageRequest;
use kf_api::audit::AuditRecord;
use kf_api::device::{Device, DeviceHistory};
use kf_key::DeviceId;
use rusqlite::Connection;

use super::{by_id, by_name};
use crate::{Store, StoreError, certificate, facility, log, product_line, sql};

/// Pages of log entries that are read for one device, of 1,000 entries each.
const MAX_EVENT_PAGES: u32 = 10;

impl Store {
    /// A device by name or id with its certificates and log entries, as far as `visibility` reaches, all of one moment; `None` also
    /// when it lies outside. What is known of it is read once `permit` has said that it may be.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] of its facility or product line.
    pub fn device_history<E>(
        &self,
        reference: &str,
        visibility: &Visibility,
        permit: impl FnOnce(&Device) -> Result<(), E>,
    ) -> Result<Option<Result<DeviceHistory, E>>, StoreError> {
        self.read_at_once(|connection| {
            let found = match reference.parse::<DeviceId>() {
                Ok(id) => by_id(connection, id, visibility)?,
                Err(_not_an_id) => by_name(connection, reference, visibility)?,
            };
            let Some(device) = found else { return Ok(None) };
            if let Err(refused) = permit(&device) {
                return Ok(Some(Err(refused)));
            }
            let facility = facility::by_id(connection, device.facility, visibility)?;
            let line = product_line::by_id(connection, device.product_line)?;
            let sql = "SELECT mark FROM device_unsafe WHERE device = ?1 ORDER BY mark LIMIT 100";
            Ok(Some(Ok(DeviceHistory {
                facility_name: facility.ok_or(StoreError::NotFound { what: "facility" })?.name,
                product_line_name: line.ok_or(StoreError::NotFound { what: "product line" })?.name,
                certificates: certificate::of_device(connection, device.id, visibility)?,
                unsafe_marks: sql::all(connection, sql, [device.id.as_bytes()], |row| row.get(0))?,
                events: events_about(connection, device.id, visibility)?,
                device,
            })))
        })
    }
}

/// The log entries about a device, oldest first.
fn events_about(
    connection: &Connection,
    device: DeviceId,
    visibility: &Visibility,
) -> Result<Vec<AuditRecord>, StoreError> {
    let subject = device.to_string();
    let mut page = PageRequest { after: None, limit: Some(kf_api::page::MAX_LIMIT) };
    let mut events = Vec::new();
    for _ in 0..MAX_EVENT_PAGES {
        let found = log::list(connection, Some(&subject), visibility, &page)?;
        events.extend(found.items);
        page.after = found.next;
        if page.after.is_none() {
            break;
        }
    }
    events.sort_by_key(|event| event.index);
    Ok(events)
}

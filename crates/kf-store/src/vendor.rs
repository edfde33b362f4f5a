//! Manufacturers, and the IDevIDs of theirs that bootstrap devices.

use kf_access::Visibility;
use kf_api::device::Device;
use kf_api::vendor::{Vendor, VendorDevice};
use kf_api::{Page, PageRequest};
use kf_key::{DeviceId, UnixMillis, VendorId};
use kf_log::AuditEntry;
use rusqlite::Row;

use crate::act::{Act, Class, is_fatal};
use crate::certificate::issuance::{bind_key_of_device, check_key_is_free};
use crate::column::{self, millis};
use crate::device::Registration;
use crate::listing::{BAD_CURSOR, next_of};
use crate::sql::{self, in_scope, scope};
use crate::{Audit, Logged, Store, StoreError};

/// Rows of one import.
const MAX_ROWS: usize = 10_000;
const MAX_ANCHOR_OCTETS: usize = 16_384;
const MAX_IDENTIFIER_OCTETS: usize = 256;

macro_rules! columns {
    () => {
        "SELECT id, name, subject, anchor, not_after, created, withdrawn FROM vendor"
    };
}

macro_rules! device_columns {
    () => {
        "SELECT v.device, v.vendor, v.identifier, v.certificate, v.first_used FROM vendor_device v"
    };
}

fn vendor_row(row: &Row<'_>) -> rusqlite::Result<Vendor> {
    Ok(Vendor {
        id: column::id(row, 0)?,
        name: row.get(1)?,
        subject: row.get(2)?,
        anchor_pem: row.get(3)?,
        not_after: column::time(row, 4)?,
        created: column::time(row, 5)?,
        withdrawn: column::optional_time(row, 6)?,
    })
}

fn device_row(row: &Row<'_>) -> rusqlite::Result<VendorDevice> {
    let certificate: Option<[u8; 32]> = row.get(3)?;
    Ok(VendorDevice {
        device: column::id(row, 0)?,
        vendor: column::id(row, 1)?,
        identifier: row.get(2)?,
        certificate_sha256: certificate.map(hex::encode),
        first_used: column::optional_time(row, 4)?,
    })
}

/// A certificate that a device may use, and its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BoundCertificate {
    /// SHA-256 of the certificate's DER.
    pub certificate: [u8; 32],
    /// SHA-256 of its SubjectPublicKeyInfo.
    pub spki: [u8; 32],
}

/// A device to be registered with the IDevID that it may use.
#[derive(Clone, Debug)]
pub struct NewVendorDevice {
    /// The device.
    pub device: Device,
    /// Its manufacturer.
    pub vendor: VendorId,
    /// What its certificate says it is.
    pub identifier: String,
    /// The only certificate that it may use, where it is known.
    pub pin: Option<BoundCertificate>,
    /// Its log entry.
    pub entry: AuditEntry,
}

/// One row: the device, its line in the list, and its key bound, or nothing of it.
fn register(act: &mut Act<'_>, new: &NewVendorDevice) -> Result<Registration, StoreError> {
    let NewVendorDevice { device, vendor, identifier, pin, entry } = new;
    let sql = concat!(device_columns!(), " WHERE v.vendor = ?1 AND v.identifier = ?2");
    if let Some(there) = act.one(sql, (vendor.as_bytes(), identifier), device_row)? {
        let found = crate::device::in_transaction(act, there.device)?;
        let pinned = pin.map(|pin| hex::encode(pin.certificate));
        let same_facts = found.is_some_and(|found| {
            found.name == device.name
                && found.facility == device.facility
                && found.product_line == device.product_line
                && (pinned.is_none() || pinned == there.certificate_sha256)
        });
        return Ok(Registration::AlreadyThere { id: there.device, same_facts });
    }
    // All that can be refused is looked at first: a row is written whole or not at all.
    if let Some(pin) = pin {
        if act.exists("SELECT 1 FROM vendor_device WHERE certificate = ?1", [pin.certificate])? {
            return Ok(Registration::Refused(StoreError::Conflict { field: "certificate" }));
        }
        match check_key_is_free(act, &pin.spki) {
            Err(error) if !is_fatal(&error) => return Ok(Registration::Refused(error)),
            outcome => outcome?,
        }
    }
    let outcome = crate::device::register(act, device, entry)?;
    if !matches!(outcome, Registration::Registered { .. }) {
        return Ok(outcome);
    }
    let sql = "INSERT INTO vendor_device (device, vendor, identifier, certificate) VALUES (?1, ?2, ?3, ?4)";
    let certificate = pin.map(|pin| pin.certificate);
    act.execute(sql, (device.id.as_bytes(), vendor.as_bytes(), identifier, certificate))?;
    if let Some(pin) = pin {
        bind_key_of_device(act, device.id, &pin.spki)?;
    }
    Ok(outcome)
}

impl Store {
    /// Adds a manufacturer.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] on `name`.
    pub async fn insert_vendor(&self, vendor: Vendor, audit: impl Into<Audit>) -> Result<Logged<()>, StoreError> {
        self.logged(Class::Ordinary, audit.into(), move |act| {
            let Vendor { id, name, subject, anchor_pem, not_after, created, withdrawn: _ } = &vendor;
            if anchor_pem.len() > MAX_ANCHOR_OCTETS {
                return Err(StoreError::Invalid { field: "anchor", problem: "at most 16,384 octets" });
            }
            let sql =
                "INSERT INTO vendor (id, name, anchor, subject, not_after, created) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
            let params = (id.as_bytes(), name, anchor_pem, subject, millis(*not_after), millis(*created));
            act.execute(sql, params)?;
            Ok(())
        })
        .await
    }

    /// Withdraws the trust in a manufacturer.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; [`StoreError::IllegalState`] when it was withdrawn before.
    pub async fn withdraw_vendor(
        &self,
        id: VendorId,
        at: UnixMillis,
        audit: impl Into<Audit>,
    ) -> Result<Logged<()>, StoreError> {
        // To trust less goes on when the disk is full.
        self.logged(Class::Reserved, audit.into(), move |act| {
            let sql = concat!(columns!(), " WHERE id = ?1");
            let found = act.one(sql, [id.as_bytes()], vendor_row)?.ok_or(StoreError::NotFound { what: "vendor" })?;
            if found.withdrawn.is_some() {
                return Err(StoreError::IllegalState {
                    what: "vendor",
                    found: "withdrawn".into(),
                    expected: "trusted".into(),
                });
            }
            act.execute("UPDATE vendor SET withdrawn = ?2 WHERE id = ?1", (id.as_bytes(), millis(at)))?;
            Ok(())
        })
        .await
    }

    /// A manufacturer by id.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn vendor(&self, id: VendorId) -> Result<Option<Vendor>, StoreError> {
        let sql = concat!(columns!(), " WHERE id = ?1");
        self.read(|connection| sql::one(connection, sql, [id.as_bytes()], vendor_row))
    }

    /// A manufacturer by name.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn vendor_by_name(&self, name: &str) -> Result<Option<Vendor>, StoreError> {
        let sql = concat!(columns!(), " WHERE name = ?1");
        self.read(|connection| sql::one(connection, sql, [name], vendor_row))
    }

    /// Manufacturers in the order in which they were added.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn vendors(&self, page: &PageRequest) -> Result<Page<Vendor>, StoreError> {
        let after = match &page.after {
            None => None,
            Some(text) => Some(text.parse::<VendorId>().map_err(|_detail| BAD_CURSOR)?),
        };
        let after = after.as_ref().map_or(&[][..], |id| &id.as_bytes()[..]);
        let sql = concat!(columns!(), " WHERE id > ?1 ORDER BY id LIMIT ?2");
        let rows = usize::try_from(page.rows()).unwrap_or(usize::MAX);
        let mut items = self.read(|connection| sql::all(connection, sql, (after, page.rows() + 1), vendor_row))?;
        let next = next_of(&mut items, rows, |last| last.id.to_string());
        Ok(Page { items, next })
    }

    /// Registers devices (at most 10,000) with the IDevIDs that they may use, in one transaction, each with its own log
    /// entry. A refused row is not written, the others are.
    ///
    /// # Errors
    /// Only when nothing at all could be written.
    pub async fn register_vendor_devices(&self, rows: Vec<NewVendorDevice>) -> Result<Vec<Registration>, StoreError> {
        self.write(Class::Ordinary, move |act| {
            if rows.len() > MAX_ROWS {
                return Err(StoreError::Invalid { field: "rows", problem: "at most 10,000 at once" });
            }
            let mut outcomes = Vec::with_capacity(rows.len());
            for row in &rows {
                if row.identifier.is_empty() || row.identifier.len() > MAX_IDENTIFIER_OCTETS {
                    let problem = "1 to 256 octets";
                    outcomes.push(Registration::Refused(StoreError::Invalid { field: "identifier", problem }));
                    continue;
                }
                outcomes.push(register(act, row)?);
            }
            Ok(outcomes)
        })
        .await
    }

    /// The device that may use this certificate (SHA-256 of its DER).
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn vendor_device_by_certificate(&self, certificate: &[u8; 32]) -> Result<Option<VendorDevice>, StoreError> {
        let sql = concat!(device_columns!(), " WHERE v.certificate = ?1");
        self.read(|connection| sql::one(connection, sql, [certificate], device_row))
    }

    /// The device that a vendor's certificates call this.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn vendor_device(&self, vendor: VendorId, identifier: &str) -> Result<Option<VendorDevice>, StoreError> {
        let sql = concat!(device_columns!(), " WHERE v.vendor = ?1 AND v.identifier = ?2");
        self.read(|connection| sql::one(connection, sql, (vendor.as_bytes(), identifier), device_row))
    }

    /// The devices of a manufacturer, in the order of their registration.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn vendor_devices(
        &self,
        vendor: VendorId,
        visibility: &Visibility,
        page: &PageRequest,
    ) -> Result<Page<VendorDevice>, StoreError> {
        let after = match &page.after {
            None => None,
            Some(text) => Some(text.parse::<DeviceId>().map_err(|_detail| BAD_CURSOR)?),
        };
        let after = after.as_ref().map_or(&[][..], |id| &id.as_bytes()[..]);
        let sql = concat!(
            device_columns!(),
            " JOIN device d ON d.id = v.device WHERE v.vendor = ?2 AND v.device > ?3 AND ",
            in_scope!("d.facility"),
            " ORDER BY v.device LIMIT ?4"
        );
        let rows = usize::try_from(page.rows()).unwrap_or(usize::MAX);
        let mut items = self.read(|connection| {
            sql::all(connection, sql, (scope(visibility), vendor.as_bytes(), after, page.rows() + 1), device_row)
        })?;
        let next = next_of(&mut items, rows, |last| last.device.to_string());
        Ok(Page { items, next })
    }

    /// Notes the first use of a certificate, which is from then on the only one that the device may use, and binds its key
    /// to the device.
    ///
    /// # Errors
    /// [`StoreError::IllegalState`] when another is, or this one was used before; [`StoreError::KeyInUse`]; [`StoreError::NotFound`].
    pub async fn bind_vendor_device(
        &self,
        device: DeviceId,
        pin: BoundCertificate,
        at: UnixMillis,
        audit: impl Into<Audit>,
    ) -> Result<Logged<()>, StoreError> {
        self.logged(Class::Ordinary, audit.into(), move |act| {
            let sql = "UPDATE vendor_device SET certificate = ?2, first_used = ?3
                WHERE device = ?1 AND first_used IS NULL AND coalesce(certificate, ?2) = ?2";
            if act.execute(sql, (device.as_bytes(), pin.certificate, millis(at)))? == 0 {
                return Err(StoreError::IllegalState {
                    what: "IDevID of the device",
                    found: "another certificate".into(),
                    expected: "this one, not yet used".into(),
                });
            }
            bind_key_of_device(act, device, &pin.spki)
        })
        .await
    }
}

//! Batches of factory stations: the quota, the records that came of it, and what they say about each other.

mod books;
mod cancel;
mod merge;

use kf_access::Visibility;
use kf_api::batch::{Batch, BatchState};
use kf_api::certificate::Certificate;
use kf_api::{Page, PageRequest};
use kf_key::{AuthorityId, BatchId, DeviceId, DeviceState, KeyProtection, OperatorId};
use rusqlite::Row;

use crate::act::{Act, Class};
use crate::column::{self, Coded, integer, millis};
use crate::listing::{BAD_CURSOR, next_of};
use crate::sql::{self, in_scope, scope};
use crate::{Audit, Logged, Store, StoreError};

pub use cancel::Cancellation;
pub use merge::{KeysDestroyedRow, ManifestRow, MergeRow, Merged, MergedOne};

const MAX_QUOTA_OCTETS: usize = 256 * 1024;
const MAX_DEVICES: usize = 250_000;

macro_rules! columns {
    () => {
        columns!("")
    };
    ($more:literal) => {
        concat!(
            "SELECT id, name, facility, product_line, station, sequence, recipe, devices, first_name, last_name,
                allows_unsafe, allows_early, authority_serial, issued, expires, state, ended",
            $more,
            " FROM batch"
        )
    };
}
fn batch_row(row: &Row<'_>) -> rusqlite::Result<Batch> {
    Ok(Batch {
        id: column::id(row, 0)?,
        name: row.get(1)?,
        facility: column::id(row, 2)?,
        product_line: column::id(row, 3)?,
        station: column::id(row, 4)?,
        sequence: column::count(row, 5)?,
        recipe_sha256: hex::encode(row.get::<_, [u8; 32]>(6)?),
        devices: row.get(7)?,
        first_name: row.get(8)?,
        last_name: row.get(9)?,
        allows_unsafe: row.get(10)?,
        allows_early_enrolment: row.get(11)?,
        authority_serial: column::serial(row, 12)?,
        issued: column::time(row, 13)?,
        expires: column::time(row, 14)?,
        state: column::coded(row, 15)?,
        ended: column::optional_time(row, 16)?,
    })
}

fn stored_row(row: &Row<'_>) -> rusqlite::Result<StoredBatch> {
    Ok(StoredBatch { batch: batch_row(row)?, authority: column::id(row, 17)?, quota: row.get(18)? })
}

/// A batch with its signed quota.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredBatch {
    /// The batch.
    pub batch: Batch,
    /// Identifier of the batch CA.
    pub authority: AuthorityId,
    /// The quota, as it was signed.
    pub quota: Vec<u8>,
}

/// A batch that is about to be authorised.
#[derive(Clone, Debug)]
pub struct BatchRecord {
    /// The batch with its quota.
    pub stored: StoredBatch,
    /// SHA-256 of the station request, which serves one batch.
    pub request_sha256: [u8; 32],
    /// The subjectKeyIdentifier of the batch CA, by which what it issued finds it.
    pub key_identifier: [u8; 20],
    /// The certificate of the batch CA.
    pub certificate: Certificate,
    /// The same, DER.
    pub der: Vec<u8>,
    /// The devices, registered as planned.
    pub devices: Vec<(DeviceId, String)>,
}

fn insert_devices(act: &mut Act<'_>, batch: &Batch, devices: &[(DeviceId, String)]) -> Result<(), StoreError> {
    if devices.is_empty() || devices.len() > MAX_DEVICES {
        return Err(StoreError::Invalid { field: "devices", problem: "1 to 250,000" });
    }
    act.require_facility(batch.facility)?;
    if !act.exists("SELECT 1 FROM product_line WHERE id = ?1", [batch.product_line.as_bytes()])? {
        return Err(StoreError::NotFound { what: "product line" });
    }
    let sql = "INSERT INTO device (id, name, facility, product_line, state, batch, protection, created)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";
    let (facility, line) = (batch.facility.as_bytes(), batch.product_line.as_bytes());
    let (state, protection) = (DeviceState::Registered.code(), KeyProtection::Unknown.code());
    for (id, name) in devices {
        let created = millis(batch.issued);
        act.execute(sql, (id.as_bytes(), name, facility, line, state, &batch.name, protection, created))?;
    }
    let count = i64::try_from(devices.len()).unwrap_or(i64::MAX);
    act.counts.device(batch.facility, DeviceState::Registered, count);
    Ok(())
}

fn insert(act: &mut Act<'_>, record: &BatchRecord) -> Result<(), StoreError> {
    let BatchRecord { stored, request_sha256, key_identifier, certificate, der, devices } = record;
    let StoredBatch { batch, authority, quota } = stored;
    if quota.is_empty() || quota.len() > MAX_QUOTA_OCTETS {
        return Err(StoreError::Invalid { field: "quota", problem: "1 to 262,144 octets" });
    }
    if act.exists("SELECT 1 FROM device WHERE batch = ?1 LIMIT 1", [&batch.name])? {
        return Err(StoreError::Conflict { field: "name" });
    }
    insert_devices(act, batch, devices)?;
    let Batch { id, name, facility, product_line, station, sequence, recipe_sha256, devices, .. } = batch;
    let Batch { first_name, last_name, allows_unsafe, allows_early_enrolment, authority_serial, .. } = batch;
    let Batch { issued, expires, state, ended, .. } = batch;
    let recipe = column::sha256_of_hex("recipe_sha256", recipe_sha256)?;
    let sql = "INSERT INTO batch (id, name, facility, product_line, station, sequence, recipe, devices, first_name,
        last_name, allows_unsafe, allows_early, authority, authority_serial, key_identifier, issued, expires, state,
        ended, request, quota)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21)";
    let ended = ended.map(millis);
    act.execute(
        sql,
        rusqlite::params![
            id.as_bytes(),
            name,
            facility.as_bytes(),
            product_line.as_bytes(),
            station.as_bytes(),
            integer(*sequence),
            recipe,
            devices,
            first_name,
            last_name,
            allows_unsafe,
            allows_early_enrolment,
            authority.as_bytes(),
            authority_serial.as_bytes(),
            key_identifier,
            millis(*issued),
            millis(*expires),
            state.code(),
            ended,
            request_sha256,
            quota,
        ],
    )?;
    crate::certificate::issuance::insert_with_key(act, certificate, der, None)
}

impl Store {
    /// Authorises a batch: quota, certificate of its CA and every planned device in one commit.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] on `name` (of the batch or of a device), `station request` (a request serves once) or
    /// `sequence`; [`StoreError::KeyInUse`]; [`StoreError::Stopped`]; [`StoreError::NotFound`].
    pub async fn insert_batch(&self, record: BatchRecord, audit: impl Into<Audit>) -> Result<Logged<()>, StoreError> {
        self.logged(Class::Ordinary, audit.into(), move |act| {
            act.require_issuance()?;
            act.require_issuance_for(record.stored.batch.facility.as_bytes())?;
            insert(act, &record)
        })
        .await
    }

    /// The sequence of the next quota for a station.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn next_batch_sequence(&self, station: OperatorId) -> Result<u64, StoreError> {
        let sql = "SELECT coalesce(max(sequence), 0) + 1 FROM batch WHERE station = ?1";
        let next =
            self.read(|connection| sql::one(connection, sql, [station.as_bytes()], |row| column::count(row, 0)))?;
        Ok(next.unwrap_or(1))
    }

    /// A batch by id; `None` also when it lies outside `visibility`.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn batch(&self, id: BatchId, visibility: &Visibility) -> Result<Option<StoredBatch>, StoreError> {
        let sql = concat!(columns!(", authority, quota"), " WHERE id = ?2 AND ", in_scope!("facility"));
        self.read(|connection| sql::one(connection, sql, (scope(visibility), id.as_bytes()), stored_row))
    }

    /// A batch by name; `None` also when it lies outside `visibility`.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn batch_by_name(&self, name: &str, visibility: &Visibility) -> Result<Option<StoredBatch>, StoreError> {
        let sql = concat!(columns!(", authority, quota"), " WHERE name = ?2 AND ", in_scope!("facility"));
        self.read(|connection| sql::one(connection, sql, (scope(visibility), name), stored_row))
    }

    /// The batch with this CA.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn batch_by_authority(&self, authority: AuthorityId) -> Result<Option<StoredBatch>, StoreError> {
        let sql = concat!(columns!(", authority, quota"), " WHERE authority = ?1");
        self.read(|connection| sql::one(connection, sql, [authority.as_bytes()], stored_row))
    }

    /// The batch whose CA has this subjectKeyIdentifier.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn batch_by_key_identifier(&self, key_identifier: &[u8]) -> Result<Option<StoredBatch>, StoreError> {
        let sql = concat!(columns!(", authority, quota"), " WHERE key_identifier = ?1");
        self.read(|connection| sql::one(connection, sql, [key_identifier], stored_row))
    }

    /// Batches, newest first; of one station, where it is given.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn batches(
        &self,
        station: Option<OperatorId>,
        visibility: &Visibility,
        page: &PageRequest,
    ) -> Result<Page<Batch>, StoreError> {
        let before = match &page.after {
            None => vec![0xff; 17],
            Some(text) => text.parse::<BatchId>().map_err(|_detail| BAD_CURSOR)?.as_bytes().to_vec(),
        };
        let sql = concat!(
            columns!(),
            " WHERE (?2 IS NULL OR station = ?2) AND id < ?3 AND ",
            in_scope!("facility"),
            " ORDER BY id DESC LIMIT ?4"
        );
        let station = station.as_ref().map(OperatorId::as_bytes);
        let rows = usize::try_from(page.rows()).unwrap_or(usize::MAX);
        let params = (scope(visibility), station, before, page.rows() + 1);
        let mut items = self.read(|connection| sql::all(connection, sql, params, batch_row))?;
        let next = next_of(&mut items, rows, |last| last.id.to_string());
        Ok(Page { items, next })
    }
}

fn require_state(act: &Act<'_>, id: BatchId) -> Result<BatchState, StoreError> {
    let sql = "SELECT state FROM batch WHERE id = ?1";
    act.one(sql, [id.as_bytes()], |row| column::coded(row, 0))?.ok_or(StoreError::NotFound { what: "batch" })
}

/// The identifier in a column where the empty blob means none.
fn device_or_none(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<DeviceId>> {
    let octets: Vec<u8> = row.get(column)?;
    Ok(octets.try_into().ok().map(DeviceId::from_bytes))
}

fn octets_or_none(device: Option<&DeviceId>) -> &[u8] {
    device.map_or(&[], |device| device.as_bytes().as_slice())
}

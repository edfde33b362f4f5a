//! What a blast radius is counted from. Nothing here returns a row per device.

use std::collections::BTreeMap;

use kf_api::audit::AuditRecord;
use kf_api::certificate::Certificate;
use kf_key::{AuthorityId, FacilityId, OperatorId, SerialNumber, TokenId, UnixMillis};
use kf_log::AuditEntry;
use rusqlite::Connection;
use rusqlite::types::Value;

use crate::certificate::{certificate_row, columns};
use crate::column::{self, integer, millis};
use crate::device::DeviceTarget;
use crate::{Store, StoreError, log, sql};

/// Names and serial numbers that are listed.
const MAX_LISTED: u32 = 100;
/// The least number of devices of a step whose duration says something about a rate.
const MEASURABLE: u64 = 100;

/// Devices by their counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Devices {
    /// By facility.
    pub by_facility: BTreeMap<FacilityId, u64>,
    /// How many were seen since the moment asked for.
    pub seen_lately: u64,
    /// Names of the first 100.
    pub names: Vec<String>,
    /// Their IDevIDs and LDevIDs that are good or on hold.
    pub certificates: u64,
    /// Serial numbers of the first 100 of these.
    pub serials: Vec<SerialNumber>,
    /// The last moment of any of their LDevIDs.
    pub last_not_after: Option<UnixMillis>,
}

/// What an operator did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ActorEntries {
    /// Entries, oldest first, as many as were asked for.
    pub entries: Vec<(u64, AuditEntry)>,
    /// The first 100 of them as they stand in the log.
    pub first: Vec<AuditRecord>,
    /// How many there are in all.
    pub total: u64,
}

/// Conditions on `device` and on `certificate`, with the target as `?1`.
fn conditions(target: &DeviceTarget) -> (&'static str, &'static str, Value) {
    match target {
        DeviceTarget::Device { id, .. } => ("id = ?1", "device = ?1", Value::Blob(id.as_bytes().to_vec())),
        DeviceTarget::Batch(batch) => {
            ("batch = ?1", "device IN (SELECT id FROM device WHERE batch = ?1)", Value::Text(batch.clone()))
        }
        DeviceTarget::Facility(id) => ("facility = ?1", "facility = ?1", Value::Blob(id.as_bytes().to_vec())),
    }
}

fn devices(connection: &Connection, target: &DeviceTarget, lately: UnixMillis) -> Result<Devices, StoreError> {
    let (devices, certificates, target) = conditions(target);
    let mut found = Devices::default();
    let sql = format!(
        "SELECT facility, count(*), count(*) FILTER (WHERE last_seen >= ?2) FROM device WHERE {devices} GROUP BY facility"
    );
    let rows: Vec<(FacilityId, u64, u64)> = sql::all(connection, &sql, (&target, millis(lately)), |row| {
        Ok((column::id(row, 0)?, column::count(row, 1)?, column::count(row, 2)?))
    })?;
    for (facility, count, seen) in rows {
        found.by_facility.insert(facility, count);
        found.seen_lately += seen;
    }
    let sql = format!("SELECT name FROM device WHERE {devices} ORDER BY id LIMIT {MAX_LISTED}");
    found.names = sql::all(connection, &sql, [&target], |row| row.get(0))?;
    let live = format!("FROM certificate WHERE {certificates} AND status IN (1, 2) AND profile IN (3, 4)");
    let sql = format!("SELECT count(*), max(not_after) FILTER (WHERE profile = 4) {live}");
    let counted =
        sql::one(connection, &sql, [&target], |row| Ok((column::count(row, 0)?, column::optional_time(row, 1)?)))?;
    (found.certificates, found.last_not_after) = counted.unwrap_or_default();
    let sql = format!("SELECT serial {live} LIMIT {MAX_LISTED}");
    found.serials = sql::all(connection, &sql, [&target], |row| column::serial(row, 0))?;
    Ok(found)
}

/// When the entry at an index was made.
fn moment_at(connection: &Connection, index: i64) -> Result<Option<UnixMillis>, StoreError> {
    let found = sql::one(connection, "SELECT idx, entry FROM log WHERE idx = ?1", [index], log::record)?;
    Ok(found.and_then(|record| record.entry.get("at")?.as_u64()).map(UnixMillis))
}

/// The first entry that was not made before `since`, found by halving: entries are in the order of their acts, so this is right
/// as far as the server's clock did not go back.
fn first_since(connection: &Connection, since: UnixMillis) -> Result<i64, StoreError> {
    let last: Option<i64> = sql::one(connection, "SELECT max(idx) FROM log", [], |row| row.get(0))?.flatten();
    let (mut low, mut high) = (0, last.map_or(0, |last| last + 1));
    while low < high {
        let middle = low + (high - low) / 2;
        if moment_at(connection, middle)?.is_some_and(|at| at >= since) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    Ok(low)
}

impl Store {
    /// Devices of a target by their counts, and how many were seen since `lately`.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn count_devices(&self, target: &DeviceTarget, lately: UnixMillis) -> Result<Devices, StoreError> {
        self.read(|connection| devices(connection, target, lately))
    }

    /// Devices that are elsewhere and still hold a key of this facility.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn departed_devices(&self, facility: FacilityId) -> Result<u64, StoreError> {
        let sql = "SELECT count(DISTINCT k.device) FROM device_key_epoch k JOIN device d ON d.id = k.device
            WHERE k.facility = ?1 AND k.state <> 3 AND d.facility <> ?1";
        let count =
            self.read(|connection| sql::one(connection, sql, [facility.as_bytes()], |row| column::count(row, 0)))?;
        Ok(count.unwrap_or(0))
    }

    /// Certificates of an operator that had not ended at `since`, whatever their status, at most 1,000.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn certificates_of_operator(
        &self,
        operator: OperatorId,
        since: UnixMillis,
    ) -> Result<Vec<Certificate>, StoreError> {
        let sql = concat!(
            columns!(),
            " WHERE c.profile = 7 AND c.profile <> 4 AND b.operator = ?1 AND c.not_after >= ?2
            ORDER BY c.serial DESC LIMIT 1000"
        );
        let params = (operator.as_bytes(), millis(since));
        self.read(|connection| sql::all(connection, sql, params, certificate_row))
    }

    /// Certificates that a CA issued and that are good or on hold, and the devices that any of its certificates names.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn count_issued(&self, authority: AuthorityId) -> Result<(u64, u64), StoreError> {
        let sql = "SELECT count(*) FILTER (WHERE status IN (1, 2)), count(DISTINCT device) FROM certificate
            WHERE authority = ?1";
        let counts = self.read(|connection| {
            sql::one(connection, sql, [authority.as_bytes()], |row| {
                Ok((column::count(row, 0)?, column::count(row, 1)?))
            })
        })?;
        Ok(counts.unwrap_or_default())
    }

    /// What an operator did since a moment; `token` limits it to what was done by one API token.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn log_of_actor(
        &self,
        actor: OperatorId,
        token: Option<TokenId>,
        since: UnixMillis,
        limit: u32,
    ) -> Result<ActorEntries, StoreError> {
        self.read(|connection| {
            let first = first_since(connection, since)?;
            let token = token.map(|token| token.to_string());
            let by_this = "(?3 IS NULL OR json_extract(CAST(l.entry AS TEXT), '$.who.token') = ?3)";
            let from = "FROM log_actor a JOIN log l ON l.idx = a.idx WHERE a.actor = ?1 AND a.idx >= ?2";
            let sql = format!("SELECT count(*) {from} AND {by_this}");
            let total = sql::one(connection, &sql, (actor.as_bytes(), first, &token), |row| column::count(row, 0))?;
            let sql = format!("SELECT l.idx, l.entry {from} AND {by_this} ORDER BY a.idx LIMIT ?4");
            let records = sql::all(connection, &sql, (actor.as_bytes(), first, &token, limit), log::record)?;
            let mut found = ActorEntries { total: total.unwrap_or(0), ..ActorEntries::default() };
            for record in records {
                let entry = serde_json::from_value(record.entry.clone())
                    .map_err(|error| StoreError::Corrupt { what: format!("log entry {}: {error}", record.index) })?;
                found.entries.push((record.index, entry));
                if found.first.len() < usize::try_from(MAX_LISTED).unwrap_or(0) {
                    found.first.push(record);
                }
            }
            Ok(found)
        })
    }

    /// Devices and milliseconds of the steps of incidents that were large enough to say something about a rate, of the
    /// newest hundred.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn measured_incident_steps(&self) -> Result<(u64, u64), StoreError> {
        let sql = "SELECT coalesce(sum(devices), 0), coalesce(sum(ended - begun), 0) FROM
            (SELECT devices, ended, begun FROM incident_step WHERE devices >= ?1 AND ended > begun
                ORDER BY ended DESC LIMIT 100)";
        let counts = self.read(|connection| {
            sql::one(connection, sql, [integer(MEASURABLE)], |row| Ok((column::count(row, 0)?, column::count(row, 1)?)))
        })?;
        Ok(counts.unwrap_or_default())
    }

    /// How many facilities there are.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn count_facilities(&self) -> Result<u64, StoreError> {
        let sql = "SELECT count(*) FROM facility";
        Ok(self.read(|connection| sql::one(connection, sql, [], |row| column::count(row, 0)))?.unwrap_or(0))
    }
}

//! One operation inside the transaction of its group.

use std::collections::BTreeMap;

use kf_access::Visibility;
use kf_key::{CertificateStatus, DeviceState, FacilityId};
use rusqlite::{Connection, Params, Row};

use crate::column::Coded;
use crate::log::Entered;
use crate::{Audit, StoreError, log, proposal, sql};

/// How a write is treated when the disk is full or the store is fenced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    /// Refused.
    Ordinary,
    /// Written, from the reserve: it stops something, or records what has happened already.
    Reserved,
}

/// Changes of the counters that are kept instead of counting rows.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) devices: BTreeMap<(FacilityId, u8), i64>,
    pub(crate) certificates: BTreeMap<(Option<FacilityId>, u8), i64>,
}

impl Counts {
    pub(crate) fn device(&mut self, facility: FacilityId, state: DeviceState, by: i64) {
        *self.devices.entry((facility, state.code())).or_default() += by;
    }

    pub(crate) fn certificate(&mut self, facility: Option<FacilityId>, status: CertificateStatus, by: i64) {
        *self.certificates.entry((facility, status.code())).or_default() += by;
    }

    fn add(&mut self, other: Self) {
        for (key, by) in other.devices {
            *self.devices.entry(key).or_default() += by;
        }
        for (key, by) in other.certificates {
            *self.certificates.entry(key).or_default() += by;
        }
    }

    /// Writes the changes.
    fn write(&self, connection: &Connection) -> Result<(), StoreError> {
        for ((facility, state), by) in self.devices.iter().filter(|(_, by)| **by != 0) {
            let sql = "INSERT INTO device_count (facility, state, count) VALUES (?1, ?2, ?3)
                ON CONFLICT (facility, state) DO UPDATE SET count = count + excluded.count";
            sql::execute(connection, sql, (facility.as_bytes(), state, by))?;
        }
        for ((facility, status), by) in self.certificates.iter().filter(|(_, by)| **by != 0) {
            let facility = facility.as_ref().map_or(&[][..], |id| &id.as_bytes()[..]);
            let sql = "INSERT INTO certificate_count (facility, status, count) VALUES (?1, ?2, ?3)
                ON CONFLICT (facility, status) DO UPDATE SET count = count + excluded.count";
            sql::execute(connection, sql, (facility, status, by))?;
        }
        Ok(())
    }
}

/// What a group has done so far beyond its rows: applied when it commits, forgotten when it does not.
#[derive(Debug)]
pub(crate) struct Pending {
    base: u64,
    entries: Vec<Entered>,
    counts: Counts,
}

impl Pending {
    /// Nothing done; the log holds `base` entries.
    pub(crate) fn new(base: u64) -> Self {
        Self { base, entries: Vec::new(), counts: Counts::default() }
    }

    /// The log entries of the group.
    pub(crate) fn entries(&self) -> &[Entered] {
        &self.entries
    }

    /// Writes the counters and the log entries.
    pub(crate) fn write(&self, connection: &Connection) -> Result<(), StoreError> {
        self.counts.write(connection)?;
        log::append(connection, self.base, &self.entries)
    }

    /// Runs one operation; when it fails, what it did is undone and nothing else.
    ///
    /// # Errors
    /// [`Halt`] when the transaction cannot go on; otherwise the operation's own outcome.
    pub(crate) fn run<T>(
        &mut self,
        connection: &Connection,
        isolation: Isolation,
        operation: impl FnOnce(&mut Act<'_>) -> Result<T, StoreError>,
    ) -> Result<Result<T, StoreError>, Halt> {
        if isolation == Isolation::Savepoint {
            sql::execute(connection, "SAVEPOINT act", [])?;
        }
        let (entries, changes) = (self.entries.len(), connection.total_changes());
        let mut act = Act { connection, base: self.base, entries: &mut self.entries, counts: Counts::default() };
        let outcome = operation(&mut act);
        let counts = act.counts;
        match &outcome {
            Ok(_) => self.counts.add(counts),
            Err(error) if is_fatal(error) => return Err(Halt::Failed(error.clone())),
            Err(_) => self.entries.truncate(entries),
        }
        match (isolation, &outcome) {
            (Isolation::Savepoint, Err(_)) => {
                sql::execute(connection, "ROLLBACK TO act", [])?;
                sql::execute(connection, "RELEASE act", [])?;
            }
            (Isolation::Savepoint, Ok(_)) => {
                sql::execute(connection, "RELEASE act", [])?;
            }
            (Isolation::Bare, Err(_)) if connection.total_changes() != changes => return Err(Halt::Unclean),
            (Isolation::Bare, _) => {}
        }
        Ok(outcome)
    }
}

/// How the operations of a group are kept apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Isolation {
    /// Not at all, which is a tenth cheaper: nearly every operation that fails does so in its checks, before it has
    /// changed a row. One that fails later halts the group, which then runs again with savepoints.
    Bare,
    /// Each in its own savepoint.
    Savepoint,
}

/// Why a group stops in the middle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Halt {
    /// An operation failed after it had changed rows outside a savepoint.
    Unclean,
    /// The transaction cannot go on.
    Failed(StoreError),
}

impl From<StoreError> for Halt {
    fn from(error: StoreError) -> Self {
        Self::Failed(error)
    }
}

/// Whether an error means that the transaction as a whole cannot go on.
pub(crate) const fn is_fatal(error: &StoreError) -> bool {
    matches!(error, StoreError::Full | StoreError::Io { .. } | StoreError::Busy)
}

/// One operation at work.
pub(crate) struct Act<'a> {
    connection: &'a Connection,
    base: u64,
    entries: &'a mut Vec<Entered>,
    pub(crate) counts: Counts,
}

impl<'a> Act<'a> {
    /// The connection, for statements shared with readers.
    pub(crate) const fn connection(&self) -> &'a Connection {
        self.connection
    }

    /// See [`sql::execute`].
    pub(crate) fn execute(&self, sql: &str, params: impl Params) -> Result<usize, StoreError> {
        sql::execute(self.connection, sql, params)
    }

    /// See [`sql::one`].
    pub(crate) fn one<T>(
        &self,
        sql: &str,
        params: impl Params,
        read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Option<T>, StoreError> {
        sql::one(self.connection, sql, params, read)
    }

    /// See [`sql::all`].
    pub(crate) fn all<T>(
        &self,
        sql: &str,
        params: impl Params,
        read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Vec<T>, StoreError> {
        sql::all(self.connection, sql, params, read)
    }

    /// See [`sql::exists`].
    pub(crate) fn exists(&self, sql: &str, params: impl Params) -> Result<bool, StoreError> {
        sql::exists(self.connection, sql, params)
    }

    /// Refuses unless there is such a facility.
    pub(crate) fn require_facility(&self, facility: FacilityId) -> Result<(), StoreError> {
        let found = self.exists("SELECT 1 FROM facility WHERE id = ?1", [facility.as_bytes()])?;
        if found { Ok(()) } else { Err(StoreError::NotFound { what: "facility" }) }
    }

    /// Refuses unless there is such a facility within `visibility`.
    pub(crate) fn require_visible(&self, facility: FacilityId, visibility: &Visibility) -> Result<(), StoreError> {
        if !visibility.sees(facility) {
            return Err(StoreError::NotFound { what: "facility" });
        }
        self.require_facility(facility)
    }

    /// Refuses when issuance is stopped.
    pub(crate) fn require_issuance(&self) -> Result<(), StoreError> {
        let stopped: Option<String> =
            self.one("SELECT value FROM setting WHERE key = 'issuance-stopped'", [], |row| row.get(0))?;
        stopped.map_or(Ok(()), |why| Err(StoreError::Stopped { why }))
    }

    /// Refuses when issuance is stopped for this facility or CA.
    pub(crate) fn require_issuance_for(&self, target: &[u8; 16]) -> Result<(), StoreError> {
        let held: Option<String> =
            self.one("SELECT why FROM issuance_hold WHERE target = ?1", [target], |row| row.get(0))?;
        held.map_or(Ok(()), |why| Err(StoreError::Stopped { why }))
    }

    /// Takes the log entries of the act, which are stored when its group commits, and records the decision that it carries out; the index of the first.
    ///
    /// # Errors
    /// [`StoreError::Invalid`] when there is none, or one over the limit; as [`proposal::decide`].
    pub(crate) fn log(&mut self, audit: &Audit) -> Result<u64, StoreError> {
        let first = self.next_index();
        if audit.entries.is_empty() {
            return Err(StoreError::Invalid { field: "audit", problem: "an act needs a log entry" });
        }
        if let Some(decision) = audit.decision {
            proposal::decide(self, decision)?;
        }
        for entry in &audit.entries {
            self.entries.push(Entered::of(entry)?);
        }
        Ok(first)
    }

    fn next_index(&self) -> u64 {
        self.base.saturating_add(u64::try_from(self.entries.len()).unwrap_or(u64::MAX))
    }
}

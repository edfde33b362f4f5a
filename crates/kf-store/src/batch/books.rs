//! The books of a batch: planned, made, scrapped, missing, and what conflicts.

use kf_api::batch::{Batch, BatchConflict, Gap, MadeState, ManifestLine, Reconciliation};
use kf_key::BatchId;
use rusqlite::Connection;

use super::device_or_none;
use crate::column::{self, Coded, integer};
use crate::{Store, StoreError, sql};

const MAX_CONFLICTS: u32 = 1_000;
const MAX_GAPS: u32 = 100;
const MAX_MANIFESTS: u32 = 1_000;

fn count(connection: &Connection, sql: &str, batch: BatchId) -> Result<u64, StoreError> {
    Ok(sql::one(connection, sql, [batch.as_bytes()], |row| column::count(row, 0))?.unwrap_or(0))
}

fn of_state(connection: &Connection, batch: BatchId, state: MadeState) -> Result<u64, StoreError> {
    let sql = "SELECT count(*) FROM batch_made WHERE batch = ?1 AND state = ?2";
    let found = sql::one(connection, sql, (batch.as_bytes(), state.code()), |row| column::count(row, 0))?;
    Ok(found.unwrap_or(0))
}

/// Ranges of sequences that no record has, up to `last`.
fn gaps(connection: &Connection, batch: BatchId, last: u64) -> Result<Vec<Gap>, StoreError> {
    let sql = "SELECT after + 1, next - 1 FROM (
            SELECT lag(sequence, 1, 0) OVER (ORDER BY sequence) AS after, sequence AS next FROM (
                SELECT DISTINCT sequence FROM batch_record WHERE batch = ?1
                UNION SELECT ?2 + 1))
        WHERE next > after + 1 ORDER BY after LIMIT ?3";
    sql::all(connection, sql, (batch.as_bytes(), integer(last), MAX_GAPS), |row| {
        Ok(Gap { first: column::count(row, 0)?, last: column::count(row, 1)? })
    })
}

fn manifests(connection: &Connection, batch: BatchId, gaps: &[Gap]) -> Result<Vec<ManifestLine>, StoreError> {
    let sql = "SELECT m.last, m.passed, m.scrapped, m.rework, m.at, m.is_final,
            (SELECT count(*) FROM batch_record r WHERE r.batch = m.batch AND r.sequence <= m.last AND r.outcome = 1),
            (SELECT count(*) FROM batch_record r WHERE r.batch = m.batch AND r.sequence <= m.last AND r.outcome = 2),
            (SELECT count(*) FROM batch_record r WHERE r.batch = m.batch AND r.sequence <= m.last AND r.outcome = 3),
            m.last = 0 OR EXISTS (SELECT 1 FROM batch_record r
                WHERE r.batch = m.batch AND r.sequence = m.last AND r.hash = m.head)
        FROM batch_manifest m WHERE m.batch = ?1 ORDER BY m.last, m.at LIMIT ?2";
    sql::all(connection, sql, (batch.as_bytes(), MAX_MANIFESTS), |row| {
        let said = (column::count(row, 1)?, column::count(row, 2)?, column::count(row, 3)?);
        let found = (column::count(row, 6)?, column::count(row, 7)?, column::count(row, 8)?);
        let last = column::count(row, 0)?;
        let is_whole = gaps.first().is_none_or(|gap| gap.first > last);
        Ok(ManifestLine {
            last,
            passed: said.0,
            scrapped: said.1,
            rework: said.2,
            at: column::time(row, 4)?,
            is_final: row.get(5)?,
            agrees: is_whole && said == found && row.get(9)?,
        })
    })
}

impl Store {
    /// A batch by its books.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn reconcile_batch(&self, batch: Batch) -> Result<Reconciliation, StoreError> {
        let id = batch.id;
        self.read(|connection| {
            let passed = of_state(connection, id, MadeState::Passed)?;
            let scrapped = of_state(connection, id, MadeState::Scrapped)?;
            let rework = of_state(connection, id, MadeState::Rework)?;
            let records = count(connection, "SELECT count(*) FROM batch_record WHERE batch = ?1", id)?;
            let sql = "SELECT coalesce(max(sequence), 0) FROM batch_record WHERE batch = ?1";
            let last_sequence = count(connection, sql, id)?;
            let sql = "SELECT coalesce(max(last), 0) FROM batch_manifest WHERE batch = ?1";
            let named = count(connection, sql, id)?;
            let gaps = gaps(connection, id, last_sequence.max(named))?;
            let manifests = manifests(connection, id, &gaps)?;
            let conflict_count = count(connection, "SELECT count(*) FROM batch_conflict WHERE batch = ?1", id)?;
            let sql = "SELECT sequence, kind, device, other FROM batch_conflict WHERE batch = ?1 LIMIT ?2";
            let conflicts = sql::all(connection, sql, (id.as_bytes(), MAX_CONFLICTS), |row| {
                Ok(BatchConflict {
                    sequence: column::count(row, 0)?,
                    kind: column::coded(row, 1)?,
                    device: device_or_none(row, 2)?,
                    other: device_or_none(row, 3)?,
                })
            })?;
            let sql = "SELECT min(at) FROM batch_keys_destroyed WHERE batch = ?1";
            let key_destroyed =
                sql::one(connection, sql, [id.as_bytes()], |row| column::optional_time(row, 0))?.flatten();
            let planned = u64::from(batch.devices);
            let balances = gaps.is_empty() && conflict_count == 0 && manifests.iter().all(|line| line.agrees);
            Ok(Reconciliation {
                missing: planned.saturating_sub(passed + scrapped + rework),
                batch,
                planned,
                passed,
                scrapped,
                rework,
                records,
                last_sequence,
                gaps,
                manifests,
                conflicts,
                conflict_count,
                key_destroyed,
                balances,
            })
        })
    }
}

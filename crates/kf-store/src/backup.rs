//! Copies of the registry, the list of those that were made, and what a registry does that was restored from one.

mod copy;

use kf_access::Visibility;
use kf_api::backup::{Backup, BackupKey, Restored};
use kf_api::certificate::Certificate;
use kf_api::proposal::Proposal;
use kf_api::{Page, PageRequest};
use kf_key::{BackupId, CertificateProfile, CertificateStatus, DeviceId, OperatorId, RevocationReason, TokenId};
use kf_log::hash::leaf_hash;
use kf_log::{AuditEntry, Tree};
use rusqlite::Row;
use rusqlite::types::Value;

use crate::act::{Act, Class};
use crate::certificate::issuance;
use crate::column::{self, Coded};
use crate::listing::{BAD_CURSOR, Branch, Listing, next_of};
use crate::revocation::{Profiles, Revocation, Selection, StatusChange};
use crate::{Audit, Logged, Store, StoreError, setting, sql};

pub use copy::{CopyFacts, inspect, take_up};

/// The setting that says what a restored registry has lost.
const RESTORED: &str = "restored";
/// The most entries that are put back into the log in one commit.
const MAX_ENTRIES_AT_ONCE: usize = 4_096;

fn backup_row(row: &Row<'_>) -> rusqlite::Result<Backup> {
    column::json(row, 0)
}

fn write<T: serde::Serialize>(value: &T) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|_detail| StoreError::Invalid { field: "backup", problem: "is unwritable" })
}

fn keep(act: &Act<'_>, backup: &Backup) -> Result<(), StoreError> {
    let sql = "INSERT INTO backup (id, key_version, state, record) VALUES (?1, ?2, ?3, ?4)
        ON CONFLICT (id) DO UPDATE SET state = excluded.state, record = excluded.record";
    act.execute(sql, (backup.id.as_bytes(), backup.key_version, backup.state.code(), write(backup)?))?;
    Ok(())
}

/// Entries of the log that a witness has and the registry has not, checked against a checkpoint.
#[derive(Debug)]
pub struct Missing {
    /// The first index that is missing.
    pub from: u64,
    /// The entries, as they were published.
    pub entries: Vec<Vec<u8>>,
}

/// Keeps, in the act under way, what a restored registry has lost.
pub(crate) fn keep_lost(act: &Act<'_>, restored: &Restored) -> Result<(), StoreError> {
    setting::set(act, RESTORED, &write(restored)?)
}

/// Disables one operator, unless it is the last enabled owner.
fn disable(act: &Act<'_>, operator: OperatorId, found: &mut Restored) -> Result<(), StoreError> {
    let sql = "SELECT name FROM operator WHERE id = ?1 AND role = 1 AND enabled = 1
        AND NOT EXISTS (SELECT 1 FROM operator o WHERE o.role = 1 AND o.enabled = 1 AND o.id <> ?1)";
    let last: Option<String> = act.one(sql, [operator.as_bytes()], |row| row.get(0))?;
    match last {
        Some(name) if !found.owners_left.contains(&name) => found.owners_left.push(name),
        Some(_) => {}
        None => {
            let sql = "UPDATE operator SET enabled = 0 WHERE id = ?1 AND enabled = 1";
            found.operators += u64::from(act.execute(sql, [operator.as_bytes()])? > 0);
        }
    }
    Ok(())
}

impl Store {
    /// Makes a key version known: the next number. The private half is nowhere here.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] for a recipient that is known already.
    pub async fn insert_backup_key(
        &self,
        key: BackupKey,
        audit: impl Into<Audit>,
    ) -> Result<Logged<BackupKey>, StoreError> {
        let audit = audit.into();
        self.write(Class::Ordinary, move |act| {
            let sql = "SELECT coalesce(max(version), 0) + 1 FROM backup_key";
            let version = act.one(sql, [], |row| row.get::<_, u32>(0))?.unwrap_or(1);
            let key = BackupKey { version, ..key.clone() };
            if act.exists("SELECT 1 FROM backup_key WHERE recipient = ?1", [&key.recipient])? {
                return Err(StoreError::Conflict { field: "recipient" });
            }
            let sql = "INSERT INTO backup_key (version, recipient, record) VALUES (?1, ?2, ?3)";
            act.execute(sql, (version, &key.recipient, write(&key)?))?;
            let index = act.log(&audit.with_detail("version", version))?;
            Ok(Logged { value: key, index })
        })
        .await
    }

    /// The key versions, newest first, at most 1,000.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn backup_keys(&self) -> Result<Vec<BackupKey>, StoreError> {
        let sql = "SELECT record FROM backup_key ORDER BY version DESC LIMIT 1000";
        self.read(|connection| sql::all(connection, sql, [], |row| column::json(row, 0)))
    }

    /// Approved retirements of backups that are not retired yet, oldest first, at most 100.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn open_backup_retirements(&self) -> Result<Vec<Proposal>, StoreError> {
        let sql = concat!(
            crate::proposal::columns!(),
            " WHERE state = 2 AND json_extract(act, '$.act') = 'retire-backup' AND EXISTS (SELECT 1 FROM backup b
                WHERE b.state = 1 AND 'bkp_' || lower(hex(b.id)) = json_extract(act, '$.backup')) ORDER BY id LIMIT 100"
        );
        self.read(|connection| sql::all(connection, sql, [], crate::proposal::proposal_row))
    }

    /// Keeps what is known of a backup, new or changed.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn keep_backup(&self, backup: Backup, audit: impl Into<Audit>) -> Result<Logged<()>, StoreError> {
        self.logged(Class::Reserved, audit.into(), move |act| keep(act, &backup)).await
    }

    /// A backup.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn backup(&self, id: BackupId) -> Result<Option<Backup>, StoreError> {
        let sql = "SELECT record FROM backup WHERE id = ?1";
        self.read(|connection| sql::one(connection, sql, [id.as_bytes()], backup_row))
    }

    /// Backups, newest first.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn backups(&self, page: &PageRequest) -> Result<Page<Backup>, StoreError> {
        let before = match &page.after {
            None => Value::Blob(vec![0xff; 17]),
            Some(text) => Value::Blob(text.parse::<BackupId>().map_err(|_detail| BAD_CURSOR)?.as_bytes().to_vec()),
        };
        let listing = Listing::descending("id", vec![Branch::new("backup")]);
        let rows = usize::try_from(page.rows()).unwrap_or(usize::MAX);
        self.read_at_once(|connection| {
            let mut items = Vec::new();
            for key in listing.keys(connection, before, rows + 1)? {
                items.extend(sql::one(connection, "SELECT record FROM backup WHERE id = ?1", [key], backup_row)?);
            }
            let next = next_of(&mut items, rows, |last: &Backup| last.id.to_string());
            Ok(Page { items, next })
        })
    }

    /// Backups that can still be opened and build on the full one `full` after its increment `number`, the newest first, at most 1,000.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn increments_after(&self, full: BackupId, number: u32) -> Result<Vec<Backup>, StoreError> {
        let sql = "SELECT record FROM backup WHERE state = 1 AND json_extract(record, '$.manifest.base.full') = ?1
            AND json_extract(record, '$.manifest.base.number') > ?2
            ORDER BY json_extract(record, '$.manifest.base.number') DESC LIMIT 1000";
        self.read(|connection| sql::all(connection, sql, (full.to_string(), number), backup_row))
    }

    /// Backups that were begun and neither finished nor retired, at most 1,000.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn unfinished_backups(&self) -> Result<Vec<Backup>, StoreError> {
        let sql = "SELECT record FROM backup WHERE state = 1 AND json_extract(record, '$.manifest') IS NULL
            AND json_extract(record, '$.directory') <> '' ORDER BY id LIMIT 1000";
        self.read(|connection| sql::all(connection, sql, [], backup_row))
    }

    /// Whether these entries, appended to the log as it is, give this root. The entries are not kept.
    #[must_use]
    pub fn would_give(&self, entries: impl Iterator<Item = Vec<u8>>) -> [u8; 32] {
        let mut tree: Tree = (*self.shared().tree()).clone();
        let mut completed = Vec::new();
        for entry in entries {
            tree.append(leaf_hash(&entry), &mut completed);
            completed.clear();
        }
        tree.root()
    }

    /// Puts entries back into the log that a registry of before has lost, and keeps what is known of it, if that is to be
    /// accepted by somebody. The caller has compared them with a checkpoint.
    ///
    /// # Errors
    /// [`StoreError::Invalid`] for what is no entry of ours; [`StoreError::IllegalState`] when the log does not end at `from`.
    pub async fn import_log(&self, missing: Missing, restored: Option<Restored>) -> Result<(), StoreError> {
        let Missing { from, entries } = missing;
        let mut at = from;
        for chunk in entries.chunks(MAX_ENTRIES_AT_ONCE) {
            let parsed: Vec<AuditEntry> = chunk.iter().map(|octets| entry_of(octets)).collect::<Result<_, _>>()?;
            let (restored, start) = (restored.clone(), at);
            at = at.saturating_add(u64::try_from(parsed.len()).unwrap_or(u64::MAX));
            let audit = Audit::from(parsed);
            self.write(Class::Reserved, move |act| {
                if let Some(restored) = &restored {
                    setting::set(act, RESTORED, &write(restored)?)?;
                }
                let index = act.log(&audit)?;
                if index == start {
                    return Ok(());
                }
                Err(StoreError::IllegalState {
                    what: "log",
                    found: format!("{index} entries"),
                    expected: format!("{start} entries"),
                })
            })
            .await?;
        }
        Ok(())
    }

    /// Stops again what the witness knows to be stopped: at most 10,000 at a time. Certificates that this registry has never
    /// seen are recorded without DER, so that OCSP and CRL refuse them. How many changed; nothing is logged where none did.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn stop_again(
        &self,
        changes: Vec<StatusChange>,
        restored: Restored,
        audit: impl Into<Audit>,
    ) -> Result<u64, StoreError> {
        let audit = audit.into();
        self.write(Class::Reserved, move |act| {
            let mut count = 0_u64;
            for change in &changes {
                count += u64::from(stop(act, change)?);
            }
            if count > 0 {
                // What was stopped again is known as long as the restored registry is not accepted, through any crash.
                let restored = Restored { stopped: restored.stopped.saturating_add(count), ..restored.clone() };
                setting::set(act, RESTORED, &write(&restored)?)?;
                act.log(&audit.with_detail("certificates", count))?;
            }
            Ok(count)
        })
        .await
    }

    /// Disables again who was disabled, and withdraws again what was withdrawn, but leaves the last enabled owner: a fleet
    /// without one has nobody to look after it. What has come of it so far; `None`, and nothing logged, where nothing changed.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn shut_out_again(
        &self,
        operators: Vec<OperatorId>,
        tokens: Vec<TokenId>,
        restored: Restored,
        audit: impl Into<Audit>,
    ) -> Result<Option<Restored>, StoreError> {
        let audit = audit.into();
        self.write(Class::Reserved, move |act| {
            let mut found = restored.clone();
            for operator in &operators {
                disable(act, *operator, &mut found)?;
            }
            for token in &tokens {
                let sql = "UPDATE token SET withdrawn = 1 WHERE id = ?1 AND withdrawn = 0";
                found.tokens += u64::from(act.execute(sql, [token.as_bytes()])? > 0);
            }
            if found == restored {
                return Ok(None);
            }
            setting::set(act, RESTORED, &write(&found)?)?;
            let audit = audit.with_detail("operators", found.operators.saturating_sub(restored.operators));
            act.log(&audit.with_detail("tokens", found.tokens.saturating_sub(restored.tokens)))?;
            Ok(Some(found))
        })
        .await
    }

    /// Operators who are disabled and tokens that are withdrawn.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn shut_out(&self) -> Result<(Vec<OperatorId>, Vec<TokenId>), StoreError> {
        self.read(|connection| {
            let disabled =
                sql::all(connection, "SELECT id FROM operator WHERE enabled = 0", [], |row| column::id(row, 0))?;
            let sql = "SELECT id FROM token WHERE withdrawn = 1";
            Ok((disabled, sql::all(connection, sql, [], |row| column::id(row, 0))?))
        })
    }

    /// What a restored registry has lost, until somebody accepts it.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn restored(&self) -> Result<Option<Restored>, StoreError> {
        let sql = "SELECT value FROM setting WHERE key = ?1";
        self.read(|connection| sql::one(connection, sql, [RESTORED], |row| column::json(row, 0)))
    }

    /// Keeps what a restored registry has lost.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn keep_restored(&self, restored: Restored, audit: impl Into<Audit>) -> Result<Logged<()>, StoreError> {
        self.logged(Class::Reserved, audit.into(), move |act| setting::set(act, RESTORED, &write(&restored)?)).await
    }

    /// A restored registry is accepted. Codes that were not used yet are withdrawn: they may have been used meanwhile.
    /// How many.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] when there is nothing to accept.
    pub async fn accept_restored(&self, audit: impl Into<Audit>) -> Result<Logged<u64>, StoreError> {
        self.logged(Class::Reserved, audit.into(), |act| {
            if act.execute("DELETE FROM setting WHERE key = ?1", [RESTORED])? == 0 {
                return Err(StoreError::NotFound { what: "restored registry" });
            }
            let withdrawn = act.execute("UPDATE code SET withdrawn = 1 WHERE used IS NULL AND withdrawn = 0", [])?;
            Ok(u64::try_from(withdrawn).unwrap_or(u64::MAX))
        })
        .await
    }

    /// Takes all writes again. For a registry that was fenced because it was restored, and has been accepted.
    pub fn unfence(&self) {
        self.shared().set_health(|health| health.fenced = None);
    }
}

/// An entry whose octets come out the same when it is written again.
fn entry_of(octets: &[u8]) -> Result<AuditEntry, StoreError> {
    let invalid = StoreError::Invalid { field: "log entry", problem: "is none of this version" };
    let entry: AuditEntry = serde_json::from_slice(octets).map_err(|_detail| invalid.clone())?;
    if entry.to_leaf() == octets { Ok(entry) } else { Err(invalid) }
}

fn stop(act: &mut Act<'_>, change: &StatusChange) -> Result<bool, StoreError> {
    let Some((at, reason)) = change.revoked else { return Ok(false) };
    let sql = "SELECT status FROM certificate WHERE serial = ?1";
    let found: Option<CertificateStatus> = act.one(sql, [change.serial.as_bytes()], |row| column::coded(row, 0))?;
    match (found, reason) {
        (None, _) => record_unknown(act, change),
        (Some(CertificateStatus::Revoked), _) | (Some(CertificateStatus::Held), RevocationReason::CertificateHold) => {
            Ok(false)
        }
        (Some(_), reason) => {
            let selection = Selection::Certificate(change.serial);
            let revocation = Revocation { selection, profiles: Profiles::All, reason, at };
            crate::revocation::change(act, &revocation, &Visibility::Fleet).map(|revoked| revoked.certificates > 0)
        }
    }
}

/// A certificate that was issued after the backup, and stopped. Of a CA that is not known here either, nothing can be said.
fn record_unknown(act: &mut Act<'_>, change: &StatusChange) -> Result<bool, StoreError> {
    let Some((at, reason)) = change.revoked else { return Ok(false) };
    if !act.exists("SELECT 1 FROM authority WHERE id = ?1", [change.authority.as_bytes()])? {
        return Ok(false);
    }
    let known = |device: &DeviceId| act.exists("SELECT 1 FROM device WHERE id = ?1", [device.as_bytes()]);
    let device = match change.device {
        Some(device) if known(&device)? => Some(device),
        _ => None,
    };
    let is_held = reason == RevocationReason::CertificateHold;
    let certificate = Certificate {
        serial: change.serial,
        authority: change.authority,
        profile: CertificateProfile::LDevId,
        device,
        operator: None,
        facility: None,
        subject: "not in this registry, which was restored from before".into(),
        spki_sha256: "0".repeat(64),
        not_before: at,
        not_after: change.not_after,
        status: if is_held { CertificateStatus::Held } else { CertificateStatus::Revoked },
        revoked: Some(at),
        reason: Some(reason),
    };
    issuance::insert(act, &certificate, &[], None)?;
    Ok(true)
}

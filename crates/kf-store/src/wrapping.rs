//! Versions of the wrapping key, and what lies under each: the salts of devices, versions of encryption keys, signature keys.
//!
//! Every wrapped row begins with the version that it lies under, and an index on it makes "what is left under the old one" a
//! range that is read in order. So a sweep needs no notes of its own: what it has moved is not there any more.

use kf_key::{DeviceId, EncryptionKeyId, KeyId, KeyState, KeyType, UnixMillis};
use rusqlite::{Connection, Row};

use crate::act::Class;
use crate::column::{self, Coded, millis};
use crate::error::KeyTransition;
use crate::sql;
use crate::{Audit, Logged, Store, StoreError};

const KEY_TYPE: KeyType = KeyType::SymmetricKeyWrapping;
/// The most rows that are moved in one transaction.
pub const MAX_MOVED: usize = 1_024;

/// A version of the wrapping key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WrappingVersion {
    /// Its number, from 1.
    pub version: u32,
    /// Its state: active while it is the newest.
    pub state: KeyState,
    /// When it was made; zero for the first, which is as old as the fleet.
    pub created: UnixMillis,
    /// When the next one took over.
    pub deactivated: Option<UnixMillis>,
    /// When it was destroyed.
    pub destroyed: Option<UnixMillis>,
}

/// How many rows lie under a version.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WrappedCounts {
    /// Salts of devices.
    pub salts: u64,
    /// Versions of encryption keys.
    pub encryption_versions: u64,
    /// Signature keys that no hardware holds.
    pub signature_keys: u64,
}

impl WrappedCounts {
    /// All of them.
    #[must_use]
    pub const fn total(&self) -> u64 {
        self.salts.saturating_add(self.encryption_versions).saturating_add(self.signature_keys)
    }
}

/// A row that holds something wrapped. In the order in which they are moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum WrappedPlace {
    /// A signature key.
    SignatureKey(KeyId),
    /// A version of an encryption key.
    EncryptionVersion(EncryptionKeyId, u32),
    /// The salt of a device, with the version that it lies under.
    Salt(u32, DeviceId),
}

/// A row as it is. Debug does not print what it holds.
#[derive(Clone, PartialEq, Eq)]
pub struct WrappedRow {
    /// Where.
    pub place: WrappedPlace,
    /// What is there.
    pub wrapped: Vec<u8>,
}

impl std::fmt::Debug for WrappedRow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "WrappedRow({:?})", self.place)
    }
}

/// A row that was wrapped anew.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MovedRow {
    /// As it was read: one that has changed since stays as it is now.
    pub from: WrappedRow,
    /// What is to be there.
    pub to: Vec<u8>,
}

/// The version in front of a wrapped secret, and behind the purpose in a handle that has one; as big-endian octets, which sort.
macro_rules! of_handle {
    () => {
        "(CASE substr(material, 1, 1) WHEN x'02' THEN substr(material, 3, 4) ELSE x'00000001' END)"
    };
}

fn version_row(row: &Row<'_>) -> rusqlite::Result<WrappingVersion> {
    Ok(WrappingVersion {
        version: row.get(0)?,
        state: column::coded(row, 1)?,
        created: column::time(row, 2)?,
        deactivated: column::optional_time(row, 3)?,
        destroyed: column::optional_time(row, 4)?,
    })
}

fn counts(connection: &Connection, version: u32) -> Result<WrappedCounts, StoreError> {
    let count = |sql| -> Result<u64, StoreError> {
        let found = sql::one(connection, sql, [version.to_be_bytes()], |row| column::count(row, 0))?;
        Ok(found.unwrap_or_default())
    };
    Ok(WrappedCounts {
        salts: count("SELECT count(*) FROM device_key WHERE substr(salt, 2, 4) = ?1")?,
        encryption_versions: count("SELECT count(*) FROM encryption_key_version WHERE substr(material, 2, 4) = ?1")?,
        signature_keys: count(concat!("SELECT count(*) FROM key WHERE material_kind = 1 AND ", of_handle!(), " = ?1"))?,
    })
}

/// The versions under which something lies.
pub(crate) fn in_use(connection: &Connection) -> Result<Vec<u32>, StoreError> {
    // The first is not in the table before there is a second.
    let sql = "SELECT version FROM wrapping_version UNION SELECT 1 ORDER BY version";
    let mut versions: Vec<u32> = sql::all(connection, sql, [], |row| row.get(0))?;
    let mut failed = None;
    versions.retain(|version| match counts(connection, *version) {
        Ok(counts) => counts.total() > 0,
        Err(error) => failed.replace(error).is_some(),
    });
    failed.map_or(Ok(versions), Err)
}

fn row_of(place: WrappedPlace, wrapped: Vec<u8>) -> WrappedRow {
    WrappedRow { place, wrapped }
}

/// Rows below a version, the few of a fleet first, from behind `after` on.
fn below(
    connection: &Connection,
    version: u32,
    after: Option<WrappedPlace>,
    limit: usize,
) -> Result<Vec<WrappedRow>, StoreError> {
    let version = version.to_be_bytes();
    let mut found = Vec::new();
    let most = i64::try_from(limit).unwrap_or(i64::MAX);
    let is_before = |place: &WrappedPlace| after.as_ref().is_none_or(|after| after < place);
    if after.is_none_or(|after| matches!(after, WrappedPlace::SignatureKey(_))) {
        let sql = concat!(
            "SELECT id, material FROM key WHERE material_kind = 1 AND ",
            of_handle!(),
            " < ?1 ORDER BY id LIMIT 10000"
        );
        let rows = sql::all(connection, sql, [version], |row| {
            Ok(row_of(WrappedPlace::SignatureKey(column::id(row, 0)?), row.get(1)?))
        })?;
        found.extend(rows.into_iter().filter(|row| is_before(&row.place)).take(limit));
    }
    if found.len() < limit && after.is_none_or(|after| !matches!(after, WrappedPlace::Salt(..))) {
        let sql = "SELECT key, version, material FROM encryption_key_version
            WHERE substr(material, 2, 4) < ?1 AND (key, version) > (?2, ?3) ORDER BY key, version LIMIT ?4";
        let (key, number) = match after {
            Some(WrappedPlace::EncryptionVersion(key, number)) => (key.as_bytes().to_vec(), number),
            _ => (Vec::new(), 0),
        };
        found.extend(sql::all(connection, sql, (version, key, number, most), |row| {
            Ok(row_of(WrappedPlace::EncryptionVersion(column::id(row, 0)?, row.get(1)?), row.get(2)?))
        })?);
    }
    let (from, device) = match after {
        Some(WrappedPlace::Salt(from, device)) => (from, device.as_bytes().to_vec()),
        _ => (0, Vec::new()),
    };
    // In two statements: of both columns together SQLite finds its place in the index by the upper bound alone, and reads from its
    // beginning each time.
    if found.len() < limit && from.to_be_bytes() < version {
        let sql = "SELECT device, salt FROM device_key WHERE substr(salt, 2, 4) = ?1 AND device > ?2 ORDER BY device LIMIT ?3";
        found.extend(sql::all(connection, sql, (from.to_be_bytes(), device, most), |row| {
            Ok(row_of(WrappedPlace::Salt(from, column::id(row, 0)?), row.get(1)?))
        })?);
    }
    if found.len() < limit {
        let sql = "SELECT device, salt, substr(salt, 2, 4) FROM device_key
            WHERE substr(salt, 2, 4) > ?1 AND substr(salt, 2, 4) < ?2 ORDER BY substr(salt, 2, 4), device LIMIT ?3";
        found.extend(sql::all(connection, sql, (from.to_be_bytes(), version, most), |row| {
            let under = row.get::<_, [u8; 4]>(2).map(u32::from_be_bytes)?;
            Ok(row_of(WrappedPlace::Salt(under, column::id(row, 0)?), row.get(1)?))
        })?);
    }
    found.truncate(limit);
    Ok(found)
}

impl Store {
    /// The versions of the wrapping key, oldest first.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn wrapping_versions(&self) -> Result<Vec<WrappingVersion>, StoreError> {
        let sql = "SELECT version, state, created, deactivated, destroyed FROM wrapping_version ORDER BY version";
        self.read(|connection| sql::all(connection, sql, [], version_row))
    }

    /// Makes version `next` active and deactivates the one before (SP 800-57 Part 1 section 7.2).
    ///
    /// # Errors
    /// [`StoreError::IllegalState`] when `seen` is not the newest any more.
    pub async fn advance_wrapping(
        &self,
        (seen, next): (u32, u32),
        at: UnixMillis,
        audit: impl Into<Audit>,
    ) -> Result<Logged<()>, StoreError> {
        // A registry that was restored from before is fenced, and must know of the versions that it finds in their file all the same.
        self.logged(Class::Reserved, audit.into(), move |act| {
            let newest: Option<u32> = act.one("SELECT max(version) FROM wrapping_version", [], |row| row.get(0))?;
            if newest != Some(seen) || next <= seen {
                return Err(StoreError::IllegalState {
                    what: "newest version of the wrapping key",
                    found: newest.unwrap_or_default().to_string(),
                    expected: seen.to_string(),
                });
            }
            KeyState::Active.transition(KeyState::Deactivated, KEY_TYPE).map_err(KeyTransition)?;
            let (active, deactivated) = (KeyState::Active.code(), KeyState::Deactivated.code());
            let sql = "UPDATE wrapping_version SET state = ?2, deactivated = ?3 WHERE state = ?1";
            act.execute(sql, (active, deactivated, millis(at)))?;
            let sql = "INSERT INTO wrapping_version (version, state, created) VALUES (?1, ?2, ?3)";
            act.execute(sql, (next, active, millis(at)))?;
            Ok(())
        })
        .await
    }

    /// Records that a version is destroyed; nothing may lie under it. False, and nothing logged, when that was recorded before.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; [`StoreError::IllegalState`] for the newest one, or while something lies under it and
    /// `is_gone` does not say that it is gone in truth, which a registry that was restored from before does not know.
    pub async fn destroy_wrapping(
        &self,
        version: u32,
        is_gone: bool,
        at: UnixMillis,
        audit: impl Into<Audit>,
    ) -> Result<bool, StoreError> {
        let audit = audit.into();
        self.write(Class::Reserved, move |act| {
            let sql = "SELECT state FROM wrapping_version WHERE version = ?1";
            let state: Option<KeyState> = act.one(sql, [version], |row| column::coded(row, 0))?;
            let state = state.ok_or(StoreError::NotFound { what: "version of the wrapping key" })?;
            if state == KeyState::Destroyed {
                return Ok(false);
            }
            let left = counts(act.connection(), version)?.total();
            if !is_gone && (state == KeyState::Active || left > 0) {
                return Err(StoreError::IllegalState {
                    what: "version of the wrapping key",
                    found: format!("{}, {left} rows under it", state.name()),
                    expected: "deactivated, nothing under it".into(),
                });
            }
            let sql = "UPDATE wrapping_version SET state = ?2, deactivated = coalesce(deactivated, ?3), destroyed = ?3
                WHERE version = ?1";
            act.execute(sql, (version, KeyState::Destroyed.code(), millis(at)))?;
            act.log(&audit)?;
            Ok(true)
        })
        .await
    }

    /// How many rows lie under a version.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn wrapped_under(&self, version: u32) -> Result<WrappedCounts, StoreError> {
        self.read(|connection| counts(connection, version))
    }

    /// Rows under older versions than this, from behind `after` on, at most `limit` and at most [`MAX_MOVED`].
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn wrapped_below(
        &self,
        version: u32,
        after: Option<WrappedPlace>,
        limit: usize,
    ) -> Result<Vec<WrappedRow>, StoreError> {
        self.read(|connection| below(connection, version, after, limit.min(MAX_MOVED)))
    }

    /// Puts rows under their new version, in one transaction with its log entry; each only as it was read. How many were
    /// moved; nothing is logged where there was none.
    ///
    /// # Errors
    /// [`StoreError::Invalid`] for more than [`MAX_MOVED`].
    pub async fn move_wrapped(&self, rows: Vec<MovedRow>, audit: impl Into<Audit>) -> Result<u64, StoreError> {
        if rows.len() > MAX_MOVED {
            return Err(StoreError::Invalid { field: "rows", problem: "at most 1,024 at once" });
        }
        let audit = audit.into();
        self.write(Class::Ordinary, move |act| {
            let mut moved = 0;
            for MovedRow { from: WrappedRow { place, wrapped }, to } in &rows {
                let changed = match place {
                    WrappedPlace::SignatureKey(key) => {
                        let sql = "UPDATE key SET material = ?3 WHERE id = ?1 AND material = ?2 AND material_kind = 1";
                        act.execute(sql, (key.as_bytes(), wrapped, to))?
                    }
                    WrappedPlace::EncryptionVersion(key, version) => {
                        let sql = "UPDATE encryption_key_version SET material = ?4
                            WHERE key = ?1 AND version = ?2 AND material = ?3";
                        act.execute(sql, (key.as_bytes(), version, wrapped, to))?
                    }
                    WrappedPlace::Salt(_, device) => {
                        let sql = "UPDATE device_key SET salt = ?3 WHERE device = ?1 AND salt = ?2";
                        act.execute(sql, (device.as_bytes(), wrapped, to))?
                    }
                };
                moved += u64::try_from(changed).unwrap_or(0);
            }
            if moved > 0 {
                act.log(&audit.with_detail("rows", moved))?;
            }
            Ok(moved)
        })
        .await
    }
}

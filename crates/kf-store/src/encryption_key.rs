//! Keys with which the server encrypts for others: their versions, wrapped, and how often each may still encrypt.

use kf_access::Visibility;
use kf_api::encryption_key::{ENCRYPTIONS_PER_VERSION, EncryptionKey, KeyVersion};
use kf_api::{Page, PageRequest};
use kf_key::{EncryptionKeyId, FacilityId, KeyState, KeyType, UnixMillis};
use rusqlite::{Connection, Row};

use crate::act::{Act, Class};
use crate::column::{self, Coded, integer, millis};
use crate::error::KeyTransition;
use crate::listing::{BAD_CURSOR, next_of};
use crate::sql::{self, in_scope, scope};
use crate::{Audit, Logged, Store, StoreError};

const MAX_MATERIAL_OCTETS: usize = 256;
/// The most versions of one key: with the limit of each that is a quadrillion encryptions.
const MAX_VERSIONS: u32 = 100_000;
/// Versions that are shown with a key, the newest ones.
const SHOWN_VERSIONS: u32 = 1_000;
const KEY_TYPE: KeyType = KeyType::SymmetricDataEncryption;

macro_rules! columns {
    () => {
        "SELECT id, name, facility, created, newest, minimum FROM encryption_key"
    };
}

fn key_row(row: &Row<'_>) -> rusqlite::Result<EncryptionKey> {
    Ok(EncryptionKey {
        id: column::id(row, 0)?,
        name: row.get(1)?,
        facility: column::id(row, 2)?,
        created: column::time(row, 3)?,
        newest_version: row.get(4)?,
        minimum_version: row.get(5)?,
        versions: Vec::new(),
    })
}

fn version_row(row: &Row<'_>) -> rusqlite::Result<KeyVersion> {
    Ok(KeyVersion {
        version: row.get(0)?,
        state: column::coded(row, 1)?,
        created: column::time(row, 2)?,
        deactivated: column::optional_time(row, 3)?,
        destroyed: column::optional_time(row, 4)?,
        encryptions: column::count(row, 5)?,
        limit: ENCRYPTIONS_PER_VERSION,
        objects: column::count(row, 6)?,
    })
}

/// A key with its versions.
fn with_versions(connection: &Connection, mut key: EncryptionKey) -> Result<EncryptionKey, StoreError> {
    let sql = "SELECT version, state, created, deactivated, destroyed, encryptions, (SELECT count(*) FROM object o
        WHERE o.key = v.key AND o.version = v.version) FROM encryption_key_version v WHERE key = ?1 ORDER BY version DESC LIMIT ?2";
    key.versions = sql::all(connection, sql, (key.id.as_bytes(), SHOWN_VERSIONS), version_row)?;
    Ok(key)
}

fn in_transaction(act: &Act<'_>, id: EncryptionKeyId) -> Result<EncryptionKey, StoreError> {
    let found = act.one(concat!(columns!(), " WHERE id = ?1"), [id.as_bytes()], key_row)?;
    found.ok_or(StoreError::NotFound { what: "encryption key" })
}

fn insert_version(
    act: &Act<'_>,
    id: EncryptionKeyId,
    version: u32,
    material: &WrappedMaterial,
    at: UnixMillis,
) -> Result<(), StoreError> {
    if material.0.is_empty() || material.0.len() > MAX_MATERIAL_OCTETS {
        return Err(StoreError::Invalid { field: "material", problem: "1 to 256 octets" });
    }
    let sql = "INSERT INTO encryption_key_version (key, version, state, material, created, encryptions, blocks)
        VALUES (?1, ?2, ?3, ?4, ?5, 0, 0)";
    act.execute(sql, (id.as_bytes(), version, KeyState::Active.code(), &material.0, millis(at)))?;
    Ok(())
}

/// Destroys the material of a version; whether it was there. Whoever calls this has asked whether it may be.
pub(crate) fn destroy_version(
    act: &Act<'_>,
    id: EncryptionKeyId,
    version: u32,
    at: UnixMillis,
) -> Result<bool, StoreError> {
    let sql = "SELECT state FROM encryption_key_version WHERE key = ?1 AND version = ?2 AND material IS NOT NULL";
    let found: Option<KeyState> = act.one(sql, (id.as_bytes(), version), |row| column::coded(row, 0))?;
    let Some(state) = found else { return Ok(false) };
    // The newest version of a registry that was restored from before may be destroyed already in truth.
    let state = if state == KeyState::Active {
        state.transition(KeyState::Deactivated, KEY_TYPE).map_err(KeyTransition)?
    } else {
        state
    };
    state.transition(KeyState::Destroyed, KEY_TYPE).map_err(KeyTransition)?;
    let sql = "UPDATE encryption_key_version SET state = ?3, deactivated = coalesce(deactivated, ?4), destroyed = ?4,
        material = NULL WHERE key = ?1 AND version = ?2";
    act.execute(sql, (id.as_bytes(), version, KeyState::Destroyed.code(), millis(at)))?;
    Ok(true)
}

/// The material of a version, wrapped by a key that this crate has no access to. Debug does not print it.
#[derive(Clone, PartialEq, Eq)]
pub struct WrappedMaterial(pub Vec<u8>);

impl std::fmt::Debug for WrappedMaterial {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("WrappedMaterial")
    }
}

/// A version as whoever encrypts or decrypts needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsableVersion {
    /// Its state.
    pub state: KeyState,
    /// Absent once it is destroyed.
    pub material: Option<WrappedMaterial>,
}

/// Encryptions to be set aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reservation {
    /// The key.
    pub key: EncryptionKeyId,
    /// Its newest version.
    pub version: u32,
    /// How many encryptions.
    pub encryptions: u64,
    /// Their blocks of 16 octets, plaintext and associated data together.
    pub blocks: u64,
    /// The most blocks that a version bears.
    pub max_blocks: u64,
}

/// What became of a reservation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reserved {
    /// Set aside, and durable.
    Done,
    /// The version has encrypted what it bears: nothing is set aside.
    UsedUp,
    /// There is a newer version.
    Superseded,
}

impl Store {
    /// Adds a key with its first version.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] on `name`; [`StoreError::NotFound`] for its facility.
    pub async fn insert_encryption_key(
        &self,
        key: EncryptionKey,
        material: WrappedMaterial,
        audit: impl Into<Audit>,
    ) -> Result<Logged<()>, StoreError> {
        self.logged(Class::Ordinary, audit.into(), move |act| {
            act.require_facility(key.facility)?;
            let sql = "INSERT INTO encryption_key (id, name, facility, created, newest, minimum)
                VALUES (?1, ?2, ?3, ?4, 1, 1)";
            let params = (key.id.as_bytes(), &key.name, key.facility.as_bytes(), millis(key.created));
            act.execute(sql, params)?;
            insert_version(act, key.id, 1, &material, key.created)
        })
        .await
    }

    /// Makes version `next` after `seen`, which is deactivated: its originator-usage period is over, it still decrypts
    /// (SP 800-57 Part 1 section 7.2).
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; [`StoreError::IllegalState`] when `seen` is not the newest any more.
    pub async fn rotate_encryption_key(
        &self,
        id: EncryptionKeyId,
        (seen, next): (u32, u32),
        material: WrappedMaterial,
        at: UnixMillis,
        audit: impl Into<Audit>,
    ) -> Result<Logged<u32>, StoreError> {
        self.logged(Class::Ordinary, audit.into(), move |act| {
            let found = in_transaction(act, id)?;
            if found.newest_version != seen {
                return Err(StoreError::IllegalState {
                    what: "newest version of the encryption key",
                    found: found.newest_version.to_string(),
                    expected: seen.to_string(),
                });
            }
            if next <= seen || next < found.minimum_version || next > MAX_VERSIONS {
                let problem = "the next one, not below the minimum, at most 100,000";
                return Err(StoreError::Invalid { field: "version", problem });
            }
            KeyState::Active.transition(KeyState::Deactivated, KEY_TYPE).map_err(KeyTransition)?;
            let sql = "UPDATE encryption_key_version SET state = ?3, deactivated = ?4
                WHERE key = ?1 AND version = ?2 AND state = ?5";
            let (deactivated, active) = (KeyState::Deactivated.code(), KeyState::Active.code());
            act.execute(sql, (id.as_bytes(), seen, deactivated, millis(at), active))?;
            insert_version(act, id, next, &material, at)?;
            act.execute("UPDATE encryption_key SET newest = ?2 WHERE id = ?1", (id.as_bytes(), next))?;
            Ok(next)
        })
        .await
    }

    /// Raises the oldest version that is decrypted. It never goes down again.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; [`StoreError::IllegalState`] for a version below the minimum or above the newest.
    pub async fn raise_minimum_version(
        &self,
        id: EncryptionKeyId,
        version: u32,
        audit: impl Into<Audit>,
    ) -> Result<Logged<()>, StoreError> {
        // To decrypt less goes on when the disk is full.
        self.logged(Class::Reserved, audit.into(), move |act| {
            let found = in_transaction(act, id)?;
            if version < found.minimum_version || version > found.newest_version {
                return Err(StoreError::IllegalState {
                    what: "minimum version",
                    found: version.to_string(),
                    expected: format!("{} to {}", found.minimum_version, found.newest_version),
                });
            }
            act.execute("UPDATE encryption_key SET minimum = ?2 WHERE id = ?1", (id.as_bytes(), version))?;
            Ok(())
        })
        .await
    }

    /// Raises the minimum as a witness knows it, in a registry that was restored from before: also above the newest version
    /// that is left.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn bar_versions_below(
        &self,
        id: EncryptionKeyId,
        version: u32,
        audit: impl Into<Audit>,
    ) -> Result<Logged<()>, StoreError> {
        self.logged(Class::Reserved, audit.into(), move |act| {
            in_transaction(act, id)?;
            act.execute(
                "UPDATE encryption_key SET minimum = max(minimum, ?2) WHERE id = ?1",
                (id.as_bytes(), version),
            )?;
            Ok(())
        })
        .await
    }

    /// Sets encryptions aside, so that a crash loses count of none: a version that has encrypted what it bears does not go on.
    /// The entry is written only when they are set aside.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn reserve_encryptions(
        &self,
        reservation: Reservation,
        audit: impl Into<Audit>,
    ) -> Result<Reserved, StoreError> {
        let audit = audit.into();
        self.write(Class::Ordinary, move |act| {
            let Reservation { key, version, encryptions, blocks, max_blocks } = reservation;
            if in_transaction(act, key)?.newest_version != version {
                return Ok(Reserved::Superseded);
            }
            let sql = "UPDATE encryption_key_version SET encryptions = encryptions + ?3, blocks = blocks + ?4
                WHERE key = ?1 AND version = ?2 AND state = ?5 AND encryptions + ?3 <= ?6 AND blocks + ?4 <= ?7";
            let (active, most) = (KeyState::Active.code(), integer(ENCRYPTIONS_PER_VERSION));
            let params =
                (key.as_bytes(), version, integer(encryptions), integer(blocks), active, most, integer(max_blocks));
            if act.execute(sql, params)? == 0 {
                return Ok(Reserved::UsedUp);
            }
            act.log(&audit)?;
            Ok(Reserved::Done)
        })
        .await
    }

    /// A key by id.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn encryption_key(
        &self,
        id: EncryptionKeyId,
        visibility: &Visibility,
    ) -> Result<Option<EncryptionKey>, StoreError> {
        let sql = concat!(columns!(), " WHERE id = ?2 AND ", in_scope!("facility"));
        self.read(|connection| {
            let found = sql::one(connection, sql, (scope(visibility), id.as_bytes()), key_row)?;
            found.map(|key| with_versions(connection, key)).transpose()
        })
    }

    /// A key by name.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn encryption_key_by_name(
        &self,
        name: &str,
        visibility: &Visibility,
    ) -> Result<Option<EncryptionKey>, StoreError> {
        let sql = concat!(columns!(), " WHERE name = ?2 AND ", in_scope!("facility"));
        self.read(|connection| {
            let found = sql::one(connection, sql, (scope(visibility), name), key_row)?;
            found.map(|key| with_versions(connection, key)).transpose()
        })
    }

    /// Keys in the order of their ids.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn encryption_keys(
        &self,
        facility: Option<FacilityId>,
        visibility: &Visibility,
        page: &PageRequest,
    ) -> Result<Page<EncryptionKey>, StoreError> {
        let after = match &page.after {
            None => None,
            Some(text) => Some(text.parse::<EncryptionKeyId>().map_err(|_detail| BAD_CURSOR)?),
        };
        let after = after.as_ref().map_or(&[][..], |id| &id.as_bytes()[..]);
        let facility = facility.as_ref().map(FacilityId::as_bytes);
        let sql = concat!(
            columns!(),
            " WHERE id > ?2 AND (?4 IS NULL OR facility = ?4) AND ",
            in_scope!("facility"),
            " ORDER BY id LIMIT ?3"
        );
        let rows = usize::try_from(page.rows()).unwrap_or(usize::MAX);
        let mut items = self.read(|connection| {
            let params = (scope(visibility), after, page.rows() + 1, facility);
            let keys = sql::all(connection, sql, params, key_row)?;
            keys.into_iter().map(|key| with_versions(connection, key)).collect::<Result<Vec<_>, _>>()
        })?;
        let next = next_of(&mut items, rows, |last| last.id.to_string());
        Ok(Page { items, next })
    }

    /// A version with its material.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn encryption_version(&self, id: EncryptionKeyId, version: u32) -> Result<Option<UsableVersion>, StoreError> {
        let sql = "SELECT state, material FROM encryption_key_version WHERE key = ?1 AND version = ?2";
        self.read(|connection| {
            sql::one(connection, sql, (id.as_bytes(), version), |row| {
                let material: Option<Vec<u8>> = row.get(1)?;
                Ok(UsableVersion { state: column::coded(row, 0)?, material: material.map(WrappedMaterial) })
            })
        })
    }
}

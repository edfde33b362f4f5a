//! Keys under management: their states, and their wrapped bytes or the label under which a token holds them.

use std::fmt;

use kf_key::{KeyAlgorithm, KeyId, KeyState, KeyType, UnixMillis};

use rusqlite::Row;

use crate::act::{Act, Class};
use crate::column::{self, Coded, millis};
use crate::error::KeyTransition;
use crate::{Audit, Logged, Store, StoreError, sql};

const MAX_MATERIAL_OCTETS: usize = 65_536;
const MAX_PURPOSE_OCTETS: usize = 200;

macro_rules! columns {
    () => {
        "SELECT id, key_type, algorithm, state, purpose, material_kind, material, spki, created, activated, suspended,
            deactivated, compromised, destroyed FROM key"
    };
}
pub(crate) use columns;

pub(crate) fn key_row(row: &Row<'_>) -> rusqlite::Result<KeyRecord> {
    let material = match row.get::<_, u8>(5)? {
        1 => KeyMaterial::Wrapped(row.get(6)?),
        2 => KeyMaterial::Token(String::from_utf8_lossy(&row.get::<_, Vec<u8>>(6)?).into_owned()),
        _ => KeyMaterial::Destroyed,
    };
    Ok(KeyRecord {
        id: column::id(row, 0)?,
        key_type: column::coded(row, 1)?,
        algorithm: column::coded(row, 2)?,
        state: column::coded(row, 3)?,
        purpose: row.get(4)?,
        material,
        spki: row.get(7)?,
        created: column::time(row, 8)?,
        activated: column::optional_time(row, 9)?,
        suspended: column::optional_time(row, 10)?,
        deactivated: column::optional_time(row, 11)?,
        compromised: column::optional_time(row, 12)?,
        destroyed: column::optional_time(row, 13)?,
    })
}

/// Kind and octets of key material as stored.
fn stored(material: &KeyMaterial) -> Result<(u8, Option<&[u8]>), StoreError> {
    let (kind, octets) = match material {
        KeyMaterial::Wrapped(octets) => (1, Some(octets.as_slice())),
        KeyMaterial::Token(label) => (2, Some(label.as_bytes())),
        KeyMaterial::Destroyed => (3, None),
    };
    match octets {
        Some(octets) if octets.is_empty() || octets.len() > MAX_MATERIAL_OCTETS => {
            Err(StoreError::Invalid { field: "material", problem: "1 to 65,536 octets" })
        }
        octets => Ok((kind, octets)),
    }
}

fn illegal(found: KeyState, expected: &str) -> StoreError {
    StoreError::IllegalState { what: "key", found: found.name().into(), expected: expected.into() }
}

pub(crate) fn state_of(act: &Act<'_>, id: KeyId) -> Result<(KeyState, KeyType), StoreError> {
    let sql = "SELECT state, key_type FROM key WHERE id = ?1";
    act.one(sql, [id.as_bytes()], |row| Ok((column::coded(row, 0)?, column::coded(row, 1)?)))?
        .ok_or(StoreError::NotFound { what: "key" })
}

/// Adds a key; part of adding a CA as well.
pub(crate) fn insert(act: &Act<'_>, key: &KeyRecord) -> Result<(), StoreError> {
    let KeyRecord { id, key_type, algorithm, state, purpose, material, spki, created, activated, .. } = key;
    let KeyRecord { suspended, deactivated, compromised, destroyed, .. } = key;
    let fits = match state {
        KeyState::PreActivation => activated.is_none(),
        KeyState::Active => activated.is_some(),
        KeyState::Suspended => suspended.is_some(),
        KeyState::Deactivated => deactivated.is_some(),
        KeyState::Compromised => compromised.is_some(),
        KeyState::Destroyed => destroyed.is_some(),
    };
    if !fits || (*state == KeyState::Destroyed) != (*material == KeyMaterial::Destroyed) {
        return Err(StoreError::Invalid { field: "key", problem: "state, material and times do not fit together" });
    }
    if purpose.len() > MAX_PURPOSE_OCTETS {
        return Err(StoreError::Invalid { field: "purpose", problem: "at most 200 octets" });
    }
    let (kind, octets) = stored(material)?;
    let sql = "INSERT INTO key (id, key_type, algorithm, state, purpose, material_kind, material, spki, created,
        activated, suspended, deactivated, compromised, destroyed)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)";
    act.execute(
        sql,
        (
            id.as_bytes(),
            key_type.code(),
            algorithm.code(),
            state.code(),
            purpose,
            kind,
            octets,
            spki,
            millis(*created),
            activated.map(millis),
            suspended.map(millis),
            deactivated.map(millis),
            compromised.map(millis),
            destroyed.map(millis),
        ),
    )?;
    Ok(())
}

/// Where the private part is. Debug does not print the wrapped octets.
#[derive(Clone, PartialEq, Eq)]
pub enum KeyMaterial {
    /// Octets wrapped by a key that this crate has no access to.
    Wrapped(Vec<u8>),
    /// The label of an object in a token.
    Token(String),
    /// Gone: the key is destroyed.
    Destroyed,
}

impl fmt::Debug for KeyMaterial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Wrapped(octets) => write!(f, "Wrapped({} octets)", octets.len()),
            Self::Token(label) => write!(f, "Token({label:?})"),
            Self::Destroyed => f.write_str("Destroyed"),
        }
    }
}

/// A key with its metadata.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRecord {
    /// Identifier.
    pub id: KeyId,
    /// SP 800-57 type.
    pub key_type: KeyType,
    /// Algorithm.
    pub algorithm: KeyAlgorithm,
    /// State.
    pub state: KeyState,
    /// What it is for: `authority:<name>`, `ocsp:<name>`, `log`, `tls`; at most 200 octets.
    pub purpose: String,
    /// Where the private part is.
    pub material: KeyMaterial,
    /// SubjectPublicKeyInfo DER of the public part; empty for a symmetric key.
    pub spki: Vec<u8>,
    /// When it was generated.
    pub created: UnixMillis,
    /// When it became active.
    pub activated: Option<UnixMillis>,
    /// When it was last suspended.
    pub suspended: Option<UnixMillis>,
    /// When it was deactivated.
    pub deactivated: Option<UnixMillis>,
    /// When it was found compromised, which may be after its destruction.
    pub compromised: Option<UnixMillis>,
    /// When it was destroyed.
    pub destroyed: Option<UnixMillis>,
}

/// A change of key state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyChange {
    /// The key.
    pub id: KeyId,
    /// The state the caller saw.
    pub seen: KeyState,
    /// The new state.
    pub to: KeyState,
    /// When.
    pub at: UnixMillis,
}

impl Store {
    /// Adds a key.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] on `id`; [`StoreError::Invalid`] when state, material and times do not fit together.
    pub async fn insert_key(&self, key: KeyRecord, audit: impl Into<Audit>) -> Result<Logged<()>, StoreError> {
        self.logged(Class::Ordinary, audit.into(), move |act| insert(act, &key)).await
    }

    /// A key by id.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn key(&self, id: KeyId) -> Result<Option<KeyRecord>, StoreError> {
        let sql = concat!(columns!(), " WHERE id = ?1");
        self.read(|connection| sql::one(connection, sql, [id.as_bytes()], key_row))
    }

    /// Every key whose purpose starts with `purpose_prefix`, newest first, at most 10,000.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn keys(&self, purpose_prefix: &str) -> Result<Vec<KeyRecord>, StoreError> {
        let sql = concat!(columns!(), " WHERE substr(purpose, 1, length(?1)) = ?1 ORDER BY id DESC LIMIT 10000");
        self.read(|connection| sql::all(connection, sql, [purpose_prefix], key_row))
    }

    /// Changes the state of a key by the one transition function; on `Destroyed` the wrapped octets are overwritten.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; [`StoreError::IllegalState`] when it is not as the caller saw it;
    /// [`StoreError::IllegalKeyTransition`] for every pair that SP 800-57 does not draw.
    pub async fn change_key(&self, change: KeyChange, audit: impl Into<Audit>) -> Result<Logged<()>, StoreError> {
        // Taking a key out of use goes on when the disk is full.
        let class = if change.to == KeyState::Active { Class::Ordinary } else { Class::Reserved };
        self.logged(class, audit.into(), move |act| {
            let KeyChange { id, seen, to, at } = change;
            let (state, key_type) = state_of(act, id)?;
            if state != seen {
                return Err(illegal(state, seen.name()));
            }
            seen.transition(to, key_type).map_err(KeyTransition)?;
            let column = match to {
                KeyState::PreActivation => None,
                KeyState::Active => {
                    Some("UPDATE key SET state = ?2, activated = coalesce(activated, ?3) WHERE id = ?1")
                }
                KeyState::Suspended => Some("UPDATE key SET state = ?2, suspended = ?3 WHERE id = ?1"),
                KeyState::Deactivated => Some("UPDATE key SET state = ?2, deactivated = ?3 WHERE id = ?1"),
                KeyState::Compromised => Some("UPDATE key SET state = ?2, compromised = ?3 WHERE id = ?1"),
                KeyState::Destroyed => {
                    // secure_delete overwrites the octets in the page that held them.
                    Some("UPDATE key SET state = ?2, destroyed = ?3, material_kind = 3, material = NULL WHERE id = ?1")
                }
            };
            if let Some(sql) = column {
                act.execute(sql, (id.as_bytes(), to.code(), millis(at)))?;
            }
            Ok(())
        })
        .await
    }

    /// Records that a destroyed key had been compromised.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; [`StoreError::IllegalState`] when it is not destroyed.
    pub async fn record_late_compromise(
        &self,
        id: KeyId,
        at: UnixMillis,
        audit: impl Into<Audit>,
    ) -> Result<Logged<()>, StoreError> {
        self.logged(Class::Reserved, audit.into(), move |act| {
            let (state, _) = state_of(act, id)?;
            if state != KeyState::Destroyed {
                return Err(illegal(state, KeyState::Destroyed.name()));
            }
            let sql = "UPDATE key SET compromised = coalesce(compromised, ?2) WHERE id = ?1";
            act.execute(sql, (id.as_bytes(), millis(at)))?;
            Ok(())
        })
        .await
    }
}

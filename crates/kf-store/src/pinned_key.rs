//! Keys that devices and stations pin: how each was succeeded, who has proved to hold which, and the end of an old one.
//!
//! Identifiers of keys are in the order in which they were made, so "newer" is "greater".

use kf_access::Visibility;
use kf_api::succession::UnprovedDevice;
use kf_api::{Page, PageRequest};
use kf_key::{DeviceId, KeyId, KeyRole, KeyState, OperatorId, UnixMillis};

use crate::act::{Act, Class};
use crate::column::{self, Coded as _, millis};
use crate::error::KeyTransition;
use crate::key::{self, KeyRecord};
use crate::sql::{self, in_scope, scope};
use crate::succession::unproved_row;
use crate::{Audit, Logged, Store, StoreError};

const MAX_LINK_OCTETS: usize = 384;

/// Who pins a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holder {
    /// A device.
    Device(DeviceId),
    /// A station, by its operator.
    Station(OperatorId),
}

impl Holder {
    const fn as_bytes(&self) -> &[u8; 16] {
        match self {
            Self::Device(device) => device.as_bytes(),
            Self::Station(operator) => operator.as_bytes(),
        }
    }
}

/// A key, the one that succeeds it, and what the first signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PinnedKeyLink {
    /// The key before.
    pub predecessor: KeyId,
    /// The key after.
    pub successor: KeyId,
    /// The link: COSE_Sign1.
    pub message: Vec<u8>,
}

/// The end of a key, and the devices or stations that two people agreed to leave behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PinnedKeyEnd {
    /// The key.
    pub key: KeyId,
    /// What it is for.
    pub role: KeyRole,
    /// At most so many may not have proved that they hold a newer one.
    pub agreed: u64,
    /// When.
    pub at: UnixMillis,
}

/// Those who pin keys of a role and have not proved to hold one that is newer than `?1` (`?2` is the role). Devices: all that are
/// not decommissioned (5), also those that never came: they were given the first key at some factory. Stations (role 5):
/// those that may sign in.
fn behind(role: KeyRole) -> &'static str {
    match role {
        KeyRole::Delivery | KeyRole::Order => {
            "SELECT count(*) FROM device d WHERE d.state <> 5 AND NOT EXISTS
                (SELECT 1 FROM pinned_key_holder p WHERE p.holder = d.id AND p.role = ?2 AND p.key > ?1)"
        }
        KeyRole::Batch => {
            "SELECT count(*) FROM operator o WHERE o.role = 5 AND o.enabled AND NOT EXISTS
                (SELECT 1 FROM pinned_key_holder p WHERE p.holder = o.id AND p.role = ?2 AND p.key > ?1)"
        }
    }
}

fn remaining(act: &Act<'_>, key: KeyId, role: KeyRole) -> Result<u64, StoreError> {
    let count = act.one(behind(role), (key.as_bytes(), role.code()), |row| column::count(row, 0))?;
    Ok(count.unwrap_or_default())
}

impl Store {
    /// Adds the key that succeeds another. Both are in use from then on.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] on `succession` when the key before has a successor; [`StoreError::IllegalState`] when it is
    /// not active; [`StoreError::NotFound`], [`StoreError::Invalid`].
    pub async fn succeed_pinned_key(
        &self,
        key: KeyRecord,
        predecessor: KeyId,
        link: Vec<u8>,
        audit: impl Into<Audit>,
    ) -> Result<Logged<()>, StoreError> {
        self.logged(Class::Ordinary, audit.into(), move |act| {
            if link.is_empty() || link.len() > MAX_LINK_OCTETS {
                return Err(StoreError::Invalid { field: "link", problem: "1 to 384 octets" });
            }
            if key.id <= predecessor {
                return Err(StoreError::Invalid { field: "key", problem: "is not newer than the one before" });
            }
            let (state, _) = key::state_of(act, predecessor)?;
            if state != KeyState::Active {
                return Err(StoreError::IllegalState {
                    what: "key",
                    found: state.name().into(),
                    expected: KeyState::Active.name().into(),
                });
            }
            let sql = "INSERT INTO pinned_key_succession (predecessor, successor, message) VALUES (?1, ?2, ?3)";
            act.execute(sql, (predecessor.as_bytes(), key.id.as_bytes(), &link))?;
            key::insert(act, &key)
        })
        .await
    }

    /// The links between keys of a role, oldest first, at most 1,000.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn pinned_key_links(&self, role: KeyRole) -> Result<Vec<PinnedKeyLink>, StoreError> {
        let sql = "SELECT s.predecessor, s.successor, s.message FROM pinned_key_succession s
            JOIN key k ON k.id = s.successor WHERE k.purpose = ?1 ORDER BY s.successor LIMIT 1000";
        self.read(|connection| {
            sql::all(connection, sql, [role.name()], |row| {
                Ok(PinnedKeyLink {
                    predecessor: column::id(row, 0)?,
                    successor: column::id(row, 1)?,
                    message: row.get(2)?,
                })
            })
        })
    }

    /// Notes that somebody has proved to hold a key of a role; `false` when that or more was known. It never goes back.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn note_pinned_key(
        &self,
        holder: Holder,
        (role, key): (KeyRole, KeyId),
        at: UnixMillis,
        audit: impl Into<Audit>,
    ) -> Result<bool, StoreError> {
        let audit = audit.into();
        self.write(Class::Ordinary, move |act| {
            let sql = "INSERT INTO pinned_key_holder (holder, role, key, at) VALUES (?1, ?2, ?3, ?4)
                ON CONFLICT (holder, role) DO UPDATE SET key = ?3, at = ?4 WHERE key < ?3";
            let params = (holder.as_bytes(), role.code(), key.as_bytes(), millis(at));
            let is_new = act.execute(sql, params)? > 0;
            if is_new {
                act.log(&audit)?;
            }
            Ok(is_new)
        })
        .await
    }

    /// The newest key of a role that somebody has proved to hold; `None` for the first, of which no proof is noted.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn pinned_key_of(&self, holder: Holder, role: KeyRole) -> Result<Option<KeyId>, StoreError> {
        let sql = "SELECT key FROM pinned_key_holder WHERE holder = ?1 AND role = ?2";
        let params = (holder.as_bytes(), role.code());
        self.read(|connection| sql::one(connection, sql, params, |row| column::id(row, 0)))
    }

    /// How many have not proved that they hold a key newer than this one.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn behind_pinned_key(&self, key: KeyId, role: KeyRole) -> Result<u64, StoreError> {
        let params = (key.as_bytes(), role.code());
        let count = self.read(|connection| sql::one(connection, behind(role), params, |row| column::count(row, 0)))?;
        Ok(count.unwrap_or_default())
    }

    /// The devices among those, in the order of their ids.
    ///
    /// # Errors
    /// [`StoreError::Invalid`] for a cursor that is none.
    pub fn devices_behind_pinned_key(
        &self,
        (key, role): (KeyId, KeyRole),
        visibility: &Visibility,
        page: &PageRequest,
    ) -> Result<Page<UnprovedDevice>, StoreError> {
        let sql = concat!(
            "SELECT d.id, d.name, d.facility, d.last_seen FROM device d WHERE d.state <> 5 AND d.id > ?2
            AND NOT EXISTS (SELECT 1 FROM pinned_key_holder p WHERE p.holder = d.id AND p.role = ?5 AND p.key > ?4) AND ",
            in_scope!("d.facility"),
            " ORDER BY d.id LIMIT ?3"
        );
        self.unproved(page, |connection, after, rows| {
            let params = (scope(visibility), after, rows, key.as_bytes(), role.code());
            sql::all(connection, sql, params, unproved_row)
        })
    }

    /// Ends a key that has a successor; `false` when it was ended before. Those who are left behind are counted in the same
    /// transaction, and noted in the log entry (`detail.stranded`).
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; [`StoreError::IllegalState`] without a successor, or when more are left behind than agreed.
    pub async fn destroy_pinned_key(&self, end: PinnedKeyEnd, audit: impl Into<Audit>) -> Result<bool, StoreError> {
        let audit = audit.into();
        self.write(Class::Reserved, move |act| {
            let PinnedKeyEnd { key, role, agreed, at } = end;
            let (state, key_type) = key::state_of(act, key)?;
            if state == KeyState::Destroyed {
                return Ok(false);
            }
            let stranded = remaining(act, key, role)?;
            if stranded > agreed {
                return Err(StoreError::IllegalState {
                    what: "key",
                    found: format!("one that {stranded} still need"),
                    expected: format!("one that at most {agreed} are left behind by"),
                });
            }
            state.transition(KeyState::Destroyed, key_type).map_err(KeyTransition)?;
            // secure_delete overwrites the octets in the page that held them.
            let sql = "UPDATE key SET state = ?2, destroyed = ?3, material_kind = 3, material = NULL WHERE id = ?1";
            act.execute(sql, (key.as_bytes(), KeyState::Destroyed.code(), millis(at)))?;
            act.log(&audit.with_detail("stranded", stranded))?;
            Ok(true)
        })
        .await
    }
}

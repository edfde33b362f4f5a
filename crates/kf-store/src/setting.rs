//! Settings: the issuance switch, and facts about the fleet. Every change is logged.

use kf_api::status::Issuance;

use std::sync::PoisonError;

use rusqlite::Connection;

use crate::act::{Act, Class};
use crate::{Audit, Logged, Store, StoreError, sql};

/// The setting that stops issuance; its value says why.
const STOPPED: &str = "issuance-stopped";
const SET: &str = "INSERT INTO setting (key, value) VALUES (?1, ?2)
    ON CONFLICT (key) DO UPDATE SET value = excluded.value";
const MAX_KEY_OCTETS: usize = 64 + 5;
const MAX_VALUE_OCTETS: usize = 65_536;

/// Why issuance is stopped, if it is.
pub(crate) fn stopped(connection: &Connection) -> Result<Option<String>, StoreError> {
    sql::one(connection, "SELECT value FROM setting WHERE key = 'issuance-stopped'", [], |row| row.get(0))
}

/// Sets a value inside an act.
pub(crate) fn set(act: &Act<'_>, key: &str, value: &str) -> Result<(), StoreError> {
    if value.len() > MAX_VALUE_OCTETS {
        return Err(StoreError::Invalid { field: "setting", problem: "at most 65,536 octets" });
    }
    act.execute(SET, (key, value))?;
    Ok(())
}

impl Store {
    /// Turns issuance on (`None`) or off (why). Durable and in force for every issuance that commits afterwards.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn set_issuance(
        &self,
        stopped: Option<String>,
        audit: impl Into<Audit>,
    ) -> Result<Logged<()>, StoreError> {
        self.logged(Class::Reserved, audit.into(), move |act| {
            match &stopped {
                None => act.execute("DELETE FROM setting WHERE key = ?1", [STOPPED])?,
                Some(why) => act.execute(SET, (STOPPED, why))?,
            };
            Ok(())
        })
        .await
    }

    /// Why somebody has stopped issuance for the whole fleet, if so; from memory.
    #[must_use]
    pub fn issuance_stopped(&self) -> Option<String> {
        self.shared().stopped.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether certificates are being issued: fenced, full, stopped or running, from memory.
    #[must_use]
    pub fn issuance(&self) -> Issuance {
        let health = self.shared().health();
        if let Some(why) = health.fenced {
            return Issuance::Fenced(why);
        }
        match self.issuance_stopped() {
            Some(why) => Issuance::Stopped(why),
            None if health.full => Issuance::StoreFull,
            None => Issuance::Running,
        }
    }

    /// Keeps a fact about the fleet under a key of at most 64 octets; at most 65,536 octets, never a secret.
    ///
    /// # Errors
    /// [`StoreError::Invalid`] beyond the limits.
    pub async fn set_fact(&self, key: &str, value: String, audit: impl Into<Audit>) -> Result<Logged<()>, StoreError> {
        let key = format!("fact:{key}");
        self.logged(Class::Ordinary, audit.into(), move |act| {
            if key.len() > MAX_KEY_OCTETS || value.len() > MAX_VALUE_OCTETS {
                return Err(StoreError::Invalid { field: "fact", problem: "at most 64 and 65,536 octets" });
            }
            act.execute(SET, (&key, &value))?;
            Ok(())
        })
        .await
    }

    /// A fact about the fleet.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn fact(&self, key: &str) -> Result<Option<String>, StoreError> {
        let sql = "SELECT value FROM setting WHERE key = ?1";
        self.read(|connection| sql::one(connection, sql, [format!("fact:{key}")], |row| row.get(0)))
    }
}

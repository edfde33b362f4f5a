//! How often keys have signed: set aside before it happens, so that a crash loses count only upwards.

use kf_key::KeyId;

use crate::act::Class;
use crate::column::{self, integer};
use crate::{Store, StoreError, sql};

impl Store {
    /// Sets at most `block` uses of a key aside, as far as `limit` goes; how many, zero when the limit is reached. What is signed is
    /// in the log by itself, so this is not.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn set_key_uses_aside(&self, key: KeyId, block: u64, limit: Option<u64>) -> Result<u64, StoreError> {
        // What revokes is counted as well, and goes on when the disk is full.
        self.write(Class::Reserved, move |act| {
            let sql = "SELECT uses FROM key_use WHERE key = ?1";
            let used = act.one(sql, [key.as_bytes()], |row| column::count(row, 0))?.unwrap_or_default();
            let aside = block.min(limit.map_or(u64::MAX, |limit| limit.saturating_sub(used)));
            if aside > 0 {
                let sql = "INSERT INTO key_use (key, uses) VALUES (?1, ?2) ON CONFLICT (key) DO UPDATE SET uses = ?2";
                act.execute(sql, (key.as_bytes(), integer(used.saturating_add(aside))))?;
            }
            Ok(aside)
        })
        .await
    }

    /// How often a key has been used, at most.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn key_uses(&self, key: KeyId) -> Result<u64, StoreError> {
        let sql = "SELECT uses FROM key_use WHERE key = ?1";
        let uses = self.read(|connection| sql::one(connection, sql, [key.as_bytes()], |row| column::count(row, 0)))?;
        Ok(uses.unwrap_or_default())
    }
}

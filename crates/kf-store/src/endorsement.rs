//! Keys that devices have proven to live in their TPM, and the endorsement key that a device is bound to.

use kf_key::{DeviceId, UnixMillis};

use crate::act::Class;
use crate::column::millis;
use crate::sql;
use crate::{Audit, Logged, Store, StoreError};

/// The most proven keys that are kept of a device; the oldest go. A device with two slots needs two.
const MAX_PER_DEVICE: u32 = 16;

/// A key that a device proved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProvenKey {
    /// The device.
    pub device: DeviceId,
    /// SHA-256 of the key's SubjectPublicKeyInfo.
    pub spki: [u8; 32],
    /// SHA-256 of the endorsement key's SubjectPublicKeyInfo.
    pub endorsement_key: [u8; 32],
    /// When.
    pub proven: UnixMillis,
}

impl Store {
    /// Records a proven key. `is_registered` says that the endorsement key is the one that an operator registered for
    /// the device: it then replaces what was bound before.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] on `endorsement_key` when the device is bound to another one.
    pub async fn record_proven_key(
        &self,
        key: ProvenKey,
        is_registered: bool,
        audit: impl Into<Audit>,
    ) -> Result<Logged<()>, StoreError> {
        self.logged(Class::Ordinary, audit.into(), move |act| {
            let device = key.device.as_bytes();
            if is_registered {
                let sql = "DELETE FROM proven_key WHERE device = ?1 AND endorsement_key <> ?2";
                act.execute(sql, (device, key.endorsement_key))?;
            }
            let sql = "SELECT 1 FROM proven_key WHERE device = ?1 AND endorsement_key <> ?2";
            if act.exists(sql, (device, key.endorsement_key))? {
                return Err(StoreError::Conflict { field: "endorsement_key" });
            }
            let sql = "INSERT INTO proven_key (device, spki, endorsement_key, proven) VALUES (?1, ?2, ?3, ?4)
                       ON CONFLICT (device, spki) DO UPDATE SET proven = excluded.proven";
            act.execute(sql, (device, key.spki, key.endorsement_key, millis(key.proven)))?;
            let sql = "DELETE FROM proven_key WHERE device = ?1 AND spki NOT IN
                       (SELECT spki FROM proven_key WHERE device = ?1 ORDER BY proven DESC, spki LIMIT ?2)";
            act.execute(sql, (device, MAX_PER_DEVICE))?;
            Ok(())
        })
        .await
    }

    /// The endorsement key under which a device proved a key, if it did.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn proven_key(&self, device: DeviceId, spki: &[u8; 32]) -> Result<Option<[u8; 32]>, StoreError> {
        let sql = "SELECT endorsement_key FROM proven_key WHERE device = ?1 AND spki = ?2";
        self.read(|connection| sql::one(connection, sql, (device.as_bytes(), spki), |row| row.get(0)))
    }

    /// The endorsement key that a device is bound to: all that it proved, it proved under this one.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn bound_endorsement_key(&self, device: DeviceId) -> Result<Option<[u8; 32]>, StoreError> {
        let sql = "SELECT endorsement_key FROM proven_key WHERE device = ?1 LIMIT 1";
        self.read(|connection| sql::one(connection, sql, [device.as_bytes()], |row| row.get(0)))
    }
}

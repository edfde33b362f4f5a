//! Public keys that are never certified: known to be leaked or compromised.

use kf_key::UnixMillis;

use crate::act::Class;
use crate::column::millis;
use crate::{Audit, Logged, Store, StoreError, sql};

const MAX_AT_ONCE: usize = 100_000;
/// Read at once.
const CHUNK: u32 = 4_096;

impl Store {
    /// Blocks public keys (at most 100,000 at once), by the SHA-256 of their SubjectPublicKeyInfo. Says how many were new.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn block_keys(
        &self,
        spki_sha256: Vec<[u8; 32]>,
        at: UnixMillis,
        audit: impl Into<Audit>,
    ) -> Result<Logged<u64>, StoreError> {
        self.logged(Class::Reserved, audit.into(), move |act| {
            if spki_sha256.len() > MAX_AT_ONCE {
                return Err(StoreError::Invalid { field: "keys", problem: "at most 100,000 at once" });
            }
            let mut fresh = 0_u64;
            for sha256 in &spki_sha256 {
                let sql = "INSERT OR IGNORE INTO blocked_spki (sha256, at) VALUES (?1, ?2)";
                fresh += u64::try_from(act.execute(sql, (sha256, millis(at)))?).unwrap_or(0);
            }
            Ok(fresh)
        })
        .await
    }

    /// Calls `each` for every blocked key, in the order of their digests.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn for_each_blocked(&self, each: &mut dyn FnMut([u8; 32])) -> Result<(), StoreError> {
        let sql = "SELECT sha256 FROM blocked_spki WHERE sha256 > ?1 ORDER BY sha256 LIMIT ?2";
        let mut after = Vec::new();
        loop {
            let rows: Vec<[u8; 32]> =
                self.read(|connection| sql::all(connection, sql, (&after, CHUNK), |row| row.get(0)))?;
            let Some(last) = rows.last() else { return Ok(()) };
            after = last.to_vec();
            rows.into_iter().for_each(&mut *each);
        }
    }
}

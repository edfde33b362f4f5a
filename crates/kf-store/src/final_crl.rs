//! The last lists of a CA whose key is destroyed, and the end of that key.

use kf_key::{AuthorityId, CertificateProfile, CertificateStatus, KeyId, KeyState, UnixMillis};
use rusqlite::Row;

use crate::act::Class;
use crate::column::{self, Coded, integer, millis};
use crate::error::KeyTransition;
use crate::{Audit, Logged, Store, StoreError, sql};

/// The scope of a full list, in the column of shards.
const FULL: i64 = -1;

/// A list that is served for ever.
#[derive(Clone, PartialEq, Eq)]
pub struct FinalCrl {
    /// Its shard; `None` is the full list.
    pub shard: Option<u16>,
    /// cRLNumber.
    pub number: u64,
    /// thisUpdate.
    pub this_update: UnixMillis,
    /// CertificateList, DER.
    pub der: Vec<u8>,
}

impl std::fmt::Debug for FinalCrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "FinalCrl({:?}, number {}, {} octets)", self.shard, self.number, self.der.len())
    }
}

/// Certificates that are good or held and have not expired.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Living {
    /// How many.
    pub certificates: u64,
    /// When the last of them expires.
    pub until: Option<UnixMillis>,
}

fn list_row(row: &Row<'_>) -> rusqlite::Result<FinalCrl> {
    let shard: i64 = row.get(0)?;
    Ok(FinalCrl {
        shard: u16::try_from(shard).ok(),
        number: column::count(row, 1)?,
        this_update: column::time(row, 2)?,
        der: row.get(3)?,
    })
}

impl Store {
    /// Certificates of a CA whose status may still have to change: not its own, and not those of OCSP responders, which
    /// last for a day and whose keys nobody stores.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn living_certificates(&self, authority: AuthorityId, now: UnixMillis) -> Result<Living, StoreError> {
        let sql = "SELECT count(*), max(c.not_after) FROM certificate c INDEXED BY certificate_by_authority
            WHERE c.authority = ?1 AND c.status IN (?2, ?3) AND c.not_after > ?4 AND c.profile <> ?5
                AND c.serial NOT IN (SELECT a.serial FROM authority a WHERE a.id = ?1)";
        let (good, held) = (CertificateStatus::Good.code(), CertificateStatus::Held.code());
        let params = (authority.as_bytes(), good, held, millis(now), CertificateProfile::OcspSigner.code());
        let living = self.read(|connection| {
            sql::one(connection, sql, params, |row| {
                Ok(Living { certificates: column::count(row, 0)?, until: column::optional_time(row, 1)? })
            })
        })?;
        Ok(living.unwrap_or_default())
    }

    /// Keeps the last lists of a CA, in place of those that were kept before.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn keep_final_crls(
        &self,
        authority: AuthorityId,
        lists: Vec<FinalCrl>,
        audit: impl Into<Audit>,
    ) -> Result<Logged<()>, StoreError> {
        self.logged(Class::Reserved, audit.into(), move |act| {
            act.execute("DELETE FROM final_crl WHERE authority = ?1", [authority.as_bytes()])?;
            for FinalCrl { shard, number, this_update, der } in &lists {
                let sql =
                    "INSERT INTO final_crl (authority, shard, number, this_update, der) VALUES (?1, ?2, ?3, ?4, ?5)";
                let shard = shard.map_or(FULL, i64::from);
                act.execute(sql, (authority.as_bytes(), shard, integer(*number), millis(*this_update), der))?;
            }
            Ok(())
        })
        .await
    }

    /// The last lists of a CA, the full one first; empty while it signs.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn final_crls(&self, authority: AuthorityId) -> Result<Vec<FinalCrl>, StoreError> {
        let sql = "SELECT shard, number, this_update, der FROM final_crl WHERE authority = ?1 ORDER BY shard";
        self.read(|connection| sql::all(connection, sql, [authority.as_bytes()], list_row))
    }

    /// Ends the key of a CA: its material is overwritten, and it is the default of the fleet no more. Whether it was there
    /// until now; nothing is logged where it was not.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; [`StoreError::IllegalState`] without the last lists.
    pub async fn destroy_authority_key(
        &self,
        authority: AuthorityId,
        at: UnixMillis,
        audit: impl Into<Audit>,
    ) -> Result<bool, StoreError> {
        let audit = audit.into();
        self.write(Class::Reserved, move |act| {
            let sql = "SELECT key FROM authority WHERE id = ?1";
            let key: KeyId = act
                .one(sql, [authority.as_bytes()], |row| column::id(row, 0))?
                .ok_or(StoreError::NotFound { what: "authority" })?;
            if !act.exists("SELECT 1 FROM final_crl WHERE authority = ?1", [authority.as_bytes()])? {
                return Err(StoreError::IllegalState {
                    what: "authority",
                    found: "without its last lists".into(),
                    expected: "with its last lists".into(),
                });
            }
            let (state, key_type) = crate::key::state_of(act, key)?;
            if state == KeyState::Destroyed {
                return Ok(false);
            }
            state.transition(KeyState::Destroyed, key_type).map_err(KeyTransition)?;
            // secure_delete overwrites the octets in the page that held them.
            let sql = "UPDATE key SET state = ?2, destroyed = ?3, material_kind = 3, material = NULL WHERE id = ?1";
            act.execute(sql, (key.as_bytes(), KeyState::Destroyed.code(), millis(at)))?;
            act.execute("UPDATE authority SET is_default = 0 WHERE id = ?1", [authority.as_bytes()])?;
            act.log(&audit)?;
            Ok(true)
        })
        .await
    }
}

//! Certification authorities. Every facility shares them, so reading them takes no visibility.

use kf_api::authority::Authority;
use kf_api::certificate::Certificate;
use kf_key::AuthorityId;

use kf_access::Visibility;
use kf_key::{FacilityId, SerialNumber};
use rusqlite::Row;

use crate::act::{Act, Class};
use crate::column::{self, Coded, integer, millis};
use crate::key::KeyRecord;
use crate::{Audit, Logged, Store, StoreError, sql};

const MAX_CRL_NUMBERS: u16 = 1_000;

macro_rules! columns {
    () => {
        "SELECT a.id, a.name, a.kind, a.issuer, a.facility, a.is_default, a.algorithm, a.key, a.subject, a.shard_count,
            a.pem, a.not_before, a.not_after, coalesce(c.status, 1), k.destroyed
            FROM authority a LEFT JOIN certificate c ON c.serial = a.serial LEFT JOIN key k ON k.id = a.key"
    };
}

fn authority_row(row: &Row<'_>) -> rusqlite::Result<Authority> {
    Ok(Authority {
        id: column::id(row, 0)?,
        name: row.get(1)?,
        kind: column::coded(row, 2)?,
        issuer: column::optional_id(row, 3)?,
        facility: column::optional_id(row, 4)?,
        is_default: row.get(5)?,
        algorithm: column::coded(row, 6)?,
        key: column::id(row, 7)?,
        subject: row.get(8)?,
        shard_count: row.get(9)?,
        certificate_pem: row.get(10)?,
        not_before: column::time(row, 11)?,
        not_after: column::time(row, 12)?,
        status: column::coded(row, 13)?,
        key_destroyed: column::optional_time(row, 14)?,
    })
}

fn insert(act: &Act<'_>, authority: &Authority, serial: SerialNumber) -> Result<(), StoreError> {
    let Authority { id, name, kind, issuer, facility, is_default, algorithm, key, subject, .. } = authority;
    let Authority { shard_count, certificate_pem, not_before, not_after, .. } = authority;
    if let Some(facility) = facility {
        act.require_facility(*facility)?;
    }
    if *is_default {
        act.execute("UPDATE authority SET is_default = 0 WHERE is_default = 1", [])?;
    }
    let sql =
        "INSERT INTO authority (id, name, kind, issuer, facility, is_default, algorithm, key, subject, shard_count,
        serial, pem, not_before, not_after, crl_number)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, 0)";
    act.execute(
        sql,
        (
            id.as_bytes(),
            name,
            kind.code(),
            issuer.as_ref().map(AuthorityId::as_bytes),
            facility.as_ref().map(FacilityId::as_bytes),
            is_default,
            algorithm.code(),
            key.as_bytes(),
            subject,
            shard_count,
            serial.as_bytes(),
            certificate_pem,
            millis(*not_before),
            millis(*not_after),
        ),
    )?;
    Ok(())
}

/// Adds a CA with its certificate and its key.
pub(crate) fn insert_complete(act: &mut Act<'_>, record: &AuthorityRecord) -> Result<(), StoreError> {
    let AuthorityRecord { authority, certificate, der, key } = record;
    if key.id != authority.key {
        return Err(StoreError::Invalid { field: "key", problem: "is not the key of the authority" });
    }
    if !(1..=256).contains(&authority.shard_count) {
        return Err(StoreError::Invalid { field: "shard_count", problem: "1 to 256" });
    }
    crate::key::insert(act, key)?;
    insert(act, authority, certificate.serial)?;
    crate::certificate::issuance::insert_with_key(act, certificate, der, None)
}

/// A certification authority to be added, complete.
#[derive(Clone, Debug)]
pub struct AuthorityRecord {
    /// The authority. `certificate_pem`, `status` and the dates are kept as given; later the status follows the
    /// certificate's.
    pub authority: Authority,
    /// Its certificate as a row of the registry (its `authority` is the issuer; a root's is itself).
    pub certificate: Certificate,
    /// Its certificate, DER.
    pub der: Vec<u8>,
    /// Its key; `key.id` equals `authority.key`.
    pub key: KeyRecord,
}

impl Store {
    /// Adds a CA with its certificate and its key, in one act. With `is_default` it takes over from the former default.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] on `name`, `id`, `serial` or `key`; [`StoreError::KeyInUse`]; [`StoreError::Stopped`].
    pub async fn insert_authority(
        &self,
        record: AuthorityRecord,
        audit: impl Into<Audit>,
    ) -> Result<Logged<()>, StoreError> {
        self.logged(Class::Ordinary, audit.into(), move |act| {
            act.require_issuance()?;
            insert_complete(act, &record)
        })
        .await
    }

    /// A CA by id.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn authority(&self, id: AuthorityId) -> Result<Option<Authority>, StoreError> {
        let sql = concat!(columns!(), " WHERE a.id = ?1");
        self.read(|connection| sql::one(connection, sql, [id.as_bytes()], authority_row))
    }

    /// A CA by name.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn authority_by_name(&self, name: &str) -> Result<Option<Authority>, StoreError> {
        let sql = concat!(columns!(), " WHERE a.name = ?1");
        self.read(|connection| sql::one(connection, sql, [name], authority_row))
    }

    /// Every CA, in the order of ids.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn authorities(&self) -> Result<Vec<Authority>, StoreError> {
        let sql = concat!(columns!(), " ORDER BY a.id");
        self.read(|connection| sql::all(connection, sql, [], authority_row))
    }

    /// The serial number of a CA's own certificate and its DER.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn authority_certificate(
        &self,
        id: AuthorityId,
    ) -> Result<Option<crate::certificate::StoredCertificate>, StoreError> {
        let sql = "SELECT serial FROM authority WHERE id = ?1";
        self.read(|connection| {
            let serial = sql::one(connection, sql, [id.as_bytes()], |row| column::serial(row, 0))?;
            serial.map_or(Ok(None), |serial| crate::certificate::stored(connection, serial, &Visibility::Fleet))
        })
    }

    /// Makes a CA the default of the fleet.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn set_default_authority(
        &self,
        id: AuthorityId,
        audit: impl Into<Audit>,
    ) -> Result<Logged<()>, StoreError> {
        self.logged(Class::Ordinary, audit.into(), move |act| {
            act.execute("UPDATE authority SET is_default = 0 WHERE is_default = 1", [])?;
            match act.execute("UPDATE authority SET is_default = 1 WHERE id = ?1", [id.as_bytes()])? {
                0 => Err(StoreError::NotFound { what: "authority" }),
                _ => Ok(()),
            }
        })
        .await
    }

    /// Sets aside `count` (1 to 1,000) CRL numbers of a CA and returns the first: durable before it is returned, and
    /// never given again (RFC 5280 section 5.2.3). Works on a full disk; not logged.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn reserve_crl_numbers(&self, id: AuthorityId, count: u16) -> Result<u64, StoreError> {
        self.write(Class::Reserved, move |act| {
            let count = i64::from(count.clamp(1, MAX_CRL_NUMBERS));
            let sql = "UPDATE authority SET crl_number = crl_number + ?2 WHERE id = ?1 RETURNING crl_number";
            let last = act.one(sql, (id.as_bytes(), count), |row| row.get::<_, i64>(0))?;
            let last = last.ok_or(StoreError::NotFound { what: "authority" })?;
            u64::try_from(last - count + 1)
                .map_err(|_negative| StoreError::Corrupt { what: "a CRL number is negative".into() })
        })
        .await
    }

    /// Raises a CA's CRL number so that the next one is above `floor`: after a restore, when a witness has seen a higher
    /// number. Never lowers it.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn raise_crl_number(&self, id: AuthorityId, floor: u64) -> Result<(), StoreError> {
        self.write(Class::Reserved, move |act| {
            let sql = "UPDATE authority SET crl_number = max(crl_number, ?2) WHERE id = ?1";
            match act.execute(sql, (id.as_bytes(), integer(floor)))? {
                0 => Err(StoreError::NotFound { what: "authority" }),
                _ => Ok(()),
            }
        })
        .await
    }
}

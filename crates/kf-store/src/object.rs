//! Objects that programs store: ciphertexts, each with the version of the encryption key that it lies under.

use kf_api::object::{MAX_OBJECTS_PER_KEY, StoredObject};
use kf_api::{Page, PageRequest};
use kf_key::{EncryptionKeyId, UnixMillis};
use rusqlite::{Connection, Row};

use crate::act::{Act, Class};
use crate::column::{self, integer, millis};
use crate::listing::next_of;
use crate::sql;
use crate::{Audit, Logged, Store, StoreError};

/// Octets that a ciphertext has more than its plaintext.
const MAX_CIPHERTEXT_OCTETS: usize = kf_api::object::MAX_OBJECT_OCTETS + 28;
/// The most objects that are moved in one transaction.
pub const MAX_MOVED_OBJECTS: u32 = 64;

macro_rules! columns {
    () => {
        "SELECT name, key, version, generation, octets, created, written"
    };
}

fn object_row(row: &Row<'_>) -> rusqlite::Result<StoredObject> {
    Ok(StoredObject {
        name: row.get(0)?,
        key: column::id(row, 1)?,
        key_version: row.get(2)?,
        generation: column::count(row, 3)?,
        octets: column::count(row, 4)?,
        created: column::time(row, 5)?,
        written: column::time(row, 6)?,
    })
}

/// What is stored of an object beside its description. Debug does not print it.
#[derive(Clone, PartialEq, Eq)]
pub struct ObjectCiphertext(pub Vec<u8>);

impl std::fmt::Debug for ObjectCiphertext {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ObjectCiphertext")
    }
}

/// An object to be put.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectPut {
    /// The key.
    pub key: EncryptionKeyId,
    /// Its name.
    pub name: String,
    /// The version that encrypted.
    pub version: u32,
    /// Octets of the plaintext.
    pub octets: u64,
    /// The ciphertext.
    pub ciphertext: ObjectCiphertext,
    /// The generation that the caller has seen, 0 for none.
    pub seen: Option<u64>,
    /// When.
    pub at: UnixMillis,
}

/// An object brought under another version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MovedObject {
    /// As it was read: one that was put or deleted since stays as it is.
    pub from: StoredObject,
    /// Its new version.
    pub version: u32,
    /// Its new ciphertext.
    pub ciphertext: ObjectCiphertext,
}

fn find(connection: &Connection, key: EncryptionKeyId, name: &str) -> Result<Option<StoredObject>, StoreError> {
    let sql = concat!(columns!(), " FROM object WHERE key = ?1 AND name = ?2");
    sql::one(connection, sql, (key.as_bytes(), name), object_row)
}

fn put(act: &Act<'_>, put: &ObjectPut) -> Result<StoredObject, StoreError> {
    let ObjectPut { key, name, version, octets, ciphertext, seen, at } = put;
    if ciphertext.0.is_empty() || ciphertext.0.len() > MAX_CIPHERTEXT_OCTETS {
        return Err(StoreError::Invalid { field: "plaintext", problem: "at most 65,536 octets" });
    }
    let found = find(act.connection(), *key, name)?;
    let generation = found.as_ref().map_or(0, |found| found.generation);
    if seen.is_some_and(|seen| seen != generation) {
        return Err(StoreError::IllegalState {
            what: "generation",
            found: generation.to_string(),
            expected: seen.unwrap_or_default().to_string(),
        });
    }
    if found.is_none() {
        let sql = "SELECT count(*) FROM object WHERE key = ?1";
        let count = act.one(sql, [key.as_bytes()], |row| column::count(row, 0))?.unwrap_or_default();
        if count >= MAX_OBJECTS_PER_KEY {
            return Err(StoreError::Invalid { field: "object", problem: "at most 100,000 under one key" });
        }
    }
    let sql = "INSERT INTO object (key, name, version, generation, octets, created, written, ciphertext)
        VALUES (?1, ?2, ?3, 1, ?4, ?5, ?5, ?6) ON CONFLICT (key, name) DO UPDATE SET version = excluded.version,
            generation = generation + 1, octets = excluded.octets, written = excluded.written,
            ciphertext = excluded.ciphertext";
    act.execute(sql, (key.as_bytes(), name, version, integer(*octets), millis(*at), &ciphertext.0))?;
    find(act.connection(), *key, name)?.ok_or(StoreError::NotFound { what: "object" })
}

impl Store {
    /// Stores an object, new or in place of the one of its name.
    ///
    /// # Errors
    /// [`StoreError::IllegalState`] when its generation is not the one that the caller has seen; [`StoreError::Invalid`] for one
    /// too many, or too large.
    pub async fn put_object(
        &self,
        object: ObjectPut,
        audit: impl Into<Audit>,
    ) -> Result<Logged<StoredObject>, StoreError> {
        self.logged(Class::Ordinary, audit.into(), move |act| put(act, &object)).await
    }

    /// Deletes an object; its octets are overwritten.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn delete_object(
        &self,
        key: EncryptionKeyId,
        name: String,
        audit: impl Into<Audit>,
    ) -> Result<Logged<()>, StoreError> {
        // To give something up goes on when the disk is full.
        self.logged(Class::Reserved, audit.into(), move |act| {
            let sql = "DELETE FROM object WHERE key = ?1 AND name = ?2";
            match act.execute(sql, (key.as_bytes(), &name))? {
                0 => Err(StoreError::NotFound { what: "object" }),
                _ => Ok(()),
            }
        })
        .await
    }

    /// An object, without what is in it.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn object(&self, key: EncryptionKeyId, name: &str) -> Result<Option<StoredObject>, StoreError> {
        self.read(|connection| find(connection, key, name))
    }

    /// An object with its ciphertext.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn object_content(
        &self,
        key: EncryptionKeyId,
        name: &str,
    ) -> Result<Option<(StoredObject, ObjectCiphertext)>, StoreError> {
        let sql = concat!(columns!(), ", ciphertext FROM object WHERE key = ?1 AND name = ?2");
        self.read(|connection| {
            sql::one(connection, sql, (key.as_bytes(), name), |row| {
                Ok((object_row(row)?, ObjectCiphertext(row.get(7)?)))
            })
        })
    }

    /// The objects under a key by name, a page of them.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn objects(&self, key: EncryptionKeyId, page: &PageRequest) -> Result<Page<StoredObject>, StoreError> {
        let after = page.after.clone().unwrap_or_default();
        let sql = concat!(columns!(), " FROM object WHERE key = ?1 AND name > ?2 ORDER BY name LIMIT ?3");
        let rows = usize::try_from(page.rows()).unwrap_or(usize::MAX);
        self.read(|connection| {
            let mut items = sql::all(connection, sql, (key.as_bytes(), &after, page.rows() + 1), object_row)?;
            let next = next_of(&mut items, rows, |last| last.name.clone());
            Ok(Page { items, next })
        })
    }

    /// How many objects lie under a version of a key.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn objects_under(&self, key: EncryptionKeyId, version: u32) -> Result<u64, StoreError> {
        let sql = "SELECT count(*) FROM object WHERE key = ?1 AND version = ?2";
        let found =
            self.read(|connection| sql::one(connection, sql, (key.as_bytes(), version), |row| column::count(row, 0)));
        Ok(found?.unwrap_or_default())
    }

    /// A key of which objects lie under older versions than its newest, from behind `after`.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn key_with_old_objects(&self, after: Option<EncryptionKeyId>) -> Result<Option<EncryptionKeyId>, StoreError> {
        let sql = "SELECT id FROM encryption_key k WHERE id > ?1
            AND EXISTS (SELECT 1 FROM object o WHERE o.key = k.id AND o.version < k.newest) ORDER BY id LIMIT 1";
        let after = after.as_ref().map_or(&[][..], |id| &id.as_bytes()[..]);
        self.read(|connection| sql::one(connection, sql, [after], |row| column::id(row, 0)))
    }

    /// Objects under older versions than this, oldest versions first, at most [`MAX_MOVED_OBJECTS`].
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn old_objects(
        &self,
        key: EncryptionKeyId,
        version: u32,
        limit: u32,
    ) -> Result<Vec<(StoredObject, ObjectCiphertext)>, StoreError> {
        let sql = concat!(
            columns!(),
            ", ciphertext FROM object WHERE key = ?1 AND version < ?2 ORDER BY version, name LIMIT ?3"
        );
        self.read(|connection| {
            sql::all(connection, sql, (key.as_bytes(), version, limit.min(MAX_MOVED_OBJECTS)), |row| {
                Ok((object_row(row)?, ObjectCiphertext(row.get(7)?)))
            })
        })
    }

    /// Brings objects under another version, in one transaction with its log entry; each only as it was read. How many were.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn move_objects(&self, objects: Vec<MovedObject>, audit: impl Into<Audit>) -> Result<u64, StoreError> {
        let audit = audit.into();
        self.write(Class::Ordinary, move |act| {
            let mut moved = 0;
            for MovedObject { from, version, ciphertext } in &objects {
                let sql = "UPDATE object SET version = ?3, ciphertext = ?4
                    WHERE key = ?1 AND name = ?2 AND version = ?5 AND generation = ?6";
                let generation = integer(from.generation);
                let params = (from.key.as_bytes(), &from.name, version, &ciphertext.0, from.key_version, generation);
                moved += u64::try_from(act.execute(sql, params)?).unwrap_or(0);
            }
            if moved > 0 {
                act.log(&audit.with_detail("objects", moved))?;
            }
            Ok(moved)
        })
        .await
    }
}

//! The registry of a fleet as a drill needs it: who and what there is, and nothing that opens or signs anything.

use std::path::Path;

use kf_key::AuthorityId;
use rusqlite::{Connection, OpenFlags};

use crate::StoreError;

/// What is taken as it is. No key material: `key`, `authority`, `pre_image` and the log stay behind.
const TAKEN: [&str; 16] = [
    "INSERT INTO facility SELECT * FROM source.facility",
    "INSERT INTO device SELECT * FROM source.device",
    "INSERT INTO device_unsafe SELECT * FROM source.device_unsafe",
    "INSERT INTO device_count SELECT * FROM source.device_count",
    "INSERT INTO facility_epoch SELECT * FROM source.facility_epoch",
    // Salts are of no use in a drill; that there is one says that the device was sent a key.
    "INSERT INTO device_key (device, salt, device_epoch) SELECT device, x'00', device_epoch FROM source.device_key",
    "INSERT INTO device_key_epoch SELECT * FROM source.device_key_epoch",
    "INSERT INTO batch SELECT * FROM source.batch",
    "INSERT INTO batch_made SELECT * FROM source.batch_made",
    "INSERT INTO operator SELECT * FROM source.operator WHERE name NOT IN (SELECT name FROM main.operator)",
    "INSERT INTO operator_facility SELECT * FROM source.operator_facility",
    // Nobody signs in to a drill, and no label enrols anything in it: other hashes than those of the real secrets.
    "INSERT INTO token (id, hash, operator, created, expires, withdrawn)
        SELECT id, randomblob(32), operator, created, expires, withdrawn FROM source.token",
    "INSERT INTO code (id, device, hash, expires, withdrawn) SELECT id, device, randomblob(32), expires, withdrawn
        FROM source.code WHERE used IS NULL",
    "INSERT OR IGNORE INTO spki SELECT * FROM source.spki",
    "INSERT OR IGNORE INTO blocked_spki SELECT * FROM source.blocked_spki",
    "INSERT INTO issuance_hold SELECT * FROM source.issuance_hold",
];

/// Copies the registry at `source`, which may be in use, into the new one at `target`, which nobody has open: certificates come
/// under `authority` there, without their octets. One read transaction, so that what is copied is of one moment; the writer of the
/// source goes on meanwhile. (SQLite's backup interface begins again with each commit of another process, and copies keys.)
///
/// # Errors
/// See [`StoreError`]; [`StoreError::Io`] when either cannot be opened.
pub fn copy_for_drill(source: &Path, target: &Path, authority: AuthorityId) -> Result<(), StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_URI;
    let mut connection = Connection::open_with_flags(target, flags)?;
    let uri = uri_of(source)?;
    connection.execute("ATTACH ?1 AS source", [uri])?;
    let transaction = connection.transaction()?;
    for statement in TAKEN {
        transaction.execute(statement, [])?;
    }
    transaction
        .execute("INSERT INTO product_line SELECT id, name, NULL, policy, created FROM source.product_line", [])?;
    let taken = "c.profile IN (3, 4, 7)";
    let first: i64 =
        transaction.query_row("SELECT coalesce(max(body), 0) FROM main.certificate_body", [], |row| row.get(0))?;
    let sql = format!(
        "INSERT INTO certificate_body (body, spki, operator, not_before, subject, der)
            SELECT b.body + ?1, b.spki, b.operator, b.not_before, b.subject, x''
            FROM source.certificate c JOIN source.certificate_body b ON b.body = c.body WHERE {taken}"
    );
    transaction.execute(&sql, [first])?;
    // An IDevID of a batch keeps its batch CA: it is not the issuing CA's.
    let sql = format!(
        "INSERT INTO certificate (serial, authority, status, revoked, reason, profile, device, facility, not_after, body)
            SELECT serial, iif(authority IN (SELECT authority FROM source.batch), authority, ?2), status, revoked, reason,
                profile, device, facility, not_after, body + ?1 FROM source.certificate c WHERE {taken}"
    );
    transaction.execute(&sql, (first, authority.as_bytes()))?;
    transaction.execute("DELETE FROM certificate_count", [])?;
    transaction.execute(
        "INSERT INTO certificate_count (facility, status, count)
            SELECT coalesce(facility, x''), status, count(*) FROM certificate GROUP BY 1, 2",
        [],
    )?;
    transaction.commit()?;
    Ok(())
}

/// A read-only address of a file, as SQLite reads it.
fn uri_of(path: &Path) -> Result<String, StoreError> {
    let text = path.to_str().ok_or(StoreError::Invalid { field: "data", problem: "is not text" })?;
    let mut uri = "file:".to_owned();
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'/' | b'-' | b'.' | b'_' => uri.push(char::from(byte)),
            _ => uri.push_str(&format!("%{byte:02X}")),
        }
    }
    uri.push_str("?mode=ro");
    Ok(uri)
}

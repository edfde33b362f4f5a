//! Copies of the registry: every page as it is at one moment, looked into, and brought forward by what changed since.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use kf_key::UnixMillis;
use kf_log::AuditEntry;
use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, OpenFlags};

use crate::{Store, StoreError, log, schema, sql, wrapping};

/// A copy waits this long for a lock that the end of another connection holds for a moment.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

/// What a copy of a registry holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopyFacts {
    /// Schema version.
    pub schema: u32,
    /// Entries of its log.
    pub log_size: u64,
    /// RFC 6962 root over them.
    pub log_root: [u8; 32],
    /// Origin of its log.
    pub origin: Option<String>,
    /// The time of its newest entry: it holds nothing that happened later.
    pub as_of: UnixMillis,
    /// Versions of the wrapping key under which something in it lies.
    pub wrapped_under: Vec<u32>,
}

/// Looks into a copy that nobody has open: whether the engine finds it whole, its log against its tree. Nothing is written, not even
/// beside it.
///
/// # Errors
/// [`StoreError::Corrupt`], [`StoreError::NewerSchema`].
pub fn inspect(path: &Path) -> Result<CopyFacts, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_URI;
    let connection = Connection::open_with_flags(immutable(path)?, flags)?;
    // Whoever made it is not known yet: nothing in it is run, and nothing believed.
    connection.pragma_update(None, "trusted_schema", false)?;
    connection.pragma_update(None, "cell_size_check", true)?;
    let schema = schema::of_copy(&connection)?;
    let said: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    if said != "ok" {
        return Err(StoreError::Corrupt { what: said });
    }
    let tree = log::load_tree(&connection)?;
    let sql = "SELECT value FROM setting WHERE key = 'fact:log.origin'";
    let origin = sql::one(&connection, sql, [], |row| row.get(0))?;
    let sql = "SELECT entry FROM log ORDER BY idx DESC LIMIT 1";
    let newest: Option<Vec<u8>> = sql::one(&connection, sql, [], |row| row.get(0))?;
    let newest = newest.and_then(|entry| serde_json::from_slice::<AuditEntry>(&entry).ok());
    let newest = newest.ok_or_else(|| StoreError::Corrupt { what: "the newest log entry cannot be read".into() })?;
    let wrapped_under = wrapping::in_use(&connection)?;
    Ok(CopyFacts { schema, log_size: tree.size(), log_root: tree.root(), origin, as_of: newest.at, wrapped_under })
}

/// The name under which SQLite opens a file without locks and without a write-ahead log beside it.
fn immutable(path: &Path) -> Result<String, StoreError> {
    let path = text_of(path)?;
    let mut uri = String::from("file:");
    for octet in path.bytes() {
        if octet.is_ascii_alphanumeric() || b"/-_.~".contains(&octet) {
            uri.push(char::from(octet));
        } else {
            write!(uri, "%{octet:02X}")
                .map_err(|_never| StoreError::Invalid { field: "path", problem: "is unwritable" })?;
        }
    }
    uri.push_str("?immutable=1");
    Ok(uri)
}

fn text_of(path: &Path) -> Result<&str, StoreError> {
    path.to_str().ok_or(StoreError::Invalid { field: "path", problem: "is not UTF-8" })
}

/// Brings a copy forward by what lies beside it as its write-ahead log (`-wal`), which is used up. Pages that were taken up.
///
/// # Errors
/// [`StoreError::Corrupt`] for a copy that is none, [`StoreError::Io`].
pub fn take_up(path: &Path) -> Result<u64, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(text_of(path)?, flags)?;
    // Nobody else has it, so that no index shared between processes is made beside it.
    let _mode: String = connection.pragma_update_and_check(None, "locking_mode", "EXCLUSIVE", |row| row.get(0))?;
    let read = |row: &rusqlite::Row<'_>| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?, row.get::<_, i64>(2)?));
    let (busy, there, taken) = connection.query_row("PRAGMA wal_checkpoint(FULL)", [], read)?;
    if busy != 0 || there != taken {
        return Err(StoreError::Io { what: format!("{taken} of {there} pages were taken up") });
    }
    connection.close().map_err(|(_connection, error)| error)?;
    u64::try_from(there).map_err(|_negative| StoreError::Corrupt { what: "it keeps no write-ahead log".into() })
}

impl Store {
    /// Writes a copy of the registry as it is at one moment, page by page, without pausing anybody: what was deleted is in no page,
    /// because it was written over. The file must not be there. It is not flushed.
    ///
    /// # Errors
    /// [`StoreError::Io`], [`StoreError::Full`], [`StoreError::Busy`].
    pub fn copy_to(&self, path: &Path) -> Result<(), StoreError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let from = Connection::open_with_flags(self.path(), flags)?;
        from.busy_timeout(BUSY_TIMEOUT)?;
        let mut to = Connection::open(text_of(path)?)?;
        // It is thrown away: neither flushed nor undone.
        let _mode: String = to.pragma_update_and_check(None, "journal_mode", "OFF", |row| row.get(0))?;
        to.pragma_update(None, "synchronous", "OFF")?;
        // All in one step, so that one snapshot is read and no commit begins it anew.
        match Backup::new(&from, &mut to)?.step(-1)? {
            StepResult::Done => Ok(()),
            StepResult::Busy | StepResult::Locked => Err(StoreError::Busy),
            _ => Err(StoreError::Io { what: "the copy did not end".into() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_with_the_signs_of_a_uri_in_it_stays_a_path() {
        let uri = immutable(Path::new("/a b/c?d=1#e%/registry.sqlite")).unwrap();
        assert_eq!(uri, "file:/a%20b/c%3Fd%3D1%23e%25/registry.sqlite?immutable=1");
    }
}

//! The writing connection and the pool of reading ones.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use crate::{StoreError, sql};

/// Statements kept prepared on each connection; there are fewer in this crate.
const CACHED_STATEMENTS: usize = 384;
/// A reader never waits for the writer in WAL mode; this covers recovery at start and checkpoints that reset the WAL.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);
/// Pages of 4,096 octets in the WAL before it is written back: rarer than SQLite's 1,000, because a page that changed
/// in many commits is written back once.
const CHECKPOINT_PAGES: i64 = 4_000;

const CHECKPOINT_PAGES_WHEN_FULL: i64 = 256;

/// Whether commits reach the disk before they are answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Durability {
    /// `synchronous=FULL`.
    Full,
    /// For stores that are thrown away.
    None,
}

/// Keeps statements prepared, and their plans whatever is bound to them: without the planner's stability guarantee SQLite
/// prepares a statement anew each time a parameter changes that could have decided for or against a partial index.
fn keep_plans(connection: &Connection) -> Result<(), StoreError> {
    connection.set_prepared_statement_cache_capacity(CACHED_STATEMENTS);
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    Ok(())
}

/// Opens the connection of the writer.
pub(crate) fn open_writer(path: &Path, durability: Durability) -> Result<Connection, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    keep_plans(&connection)?;
    let mode: String = connection.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0))?;
    if mode != "wal" {
        return Err(StoreError::Io { what: format!("the file system does not support WAL (journal mode {mode})") });
    }
    let synchronous = match durability {
        Durability::Full => "FULL",
        Durability::None => "OFF",
    };
    connection.pragma_update(None, "synchronous", synchronous)?;
    // Savepoint journals and sorts stay in memory: no temporary files, which would also fail on a full disk.
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    // Not larger: after a commit that split a tree page, SQLite walks its whole page table, at 16 MiB for 0.4 ms when the
    // processor's cache is shared. What is hot are the right edges of the trees; the rest the kernel keeps.
    connection.pragma_update(None, "cache_size", -4_096)?;
    connection.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)?;
    connection.pragma_update(None, "journal_size_limit", CHECKPOINT_PAGES * 4_096)?;
    // Also pages that become free as a whole: destruction looks for what is left in the file, and would find it there.
    connection.pragma_update(None, "secure_delete", true)?;
    connection.pragma_update(None, "trusted_schema", false)?;
    connection.pragma_update(None, "cell_size_check", true)?;
    Ok(connection)
}

/// Writes the whole WAL back and cuts its file, as far as no reader needs it: what a full disk has to give.
pub(crate) fn shrink_wal(connection: &Connection) -> Result<(), StoreError> {
    let _busy: i64 = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))?;
    Ok(())
}

/// As [`shrink_wal`], and fails when a reader keeps a part of it.
pub(crate) fn cut_wal(connection: &Connection) -> Result<(), StoreError> {
    let busy: i64 = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))?;
    if busy == 0 { Ok(()) } else { Err(StoreError::Busy) }
}

/// How far the WAL grows before it is written back: less on a full disk.
pub(crate) fn limit_wal(connection: &Connection, full: bool) -> Result<(), StoreError> {
    let pages = if full { CHECKPOINT_PAGES_WHEN_FULL } else { CHECKPOINT_PAGES };
    let _pages: i64 = connection.pragma_update_and_check(None, "wal_autocheckpoint", pages, |row| row.get(0))?;
    Ok(())
}

/// How much of the database readers map at most, in octets: 1 TiB, which is address space and not memory. SQLite has to be built
/// for it (`.cargo/config.toml`); as it comes it maps 2 GiB, and reads the rest by system calls.
const MAPPED_OCTETS: i64 = 0x100_0000_0000;

/// How long after a commit the file is read and not mapped. Whatever a connection has mapped it gives up when it next reads and
/// something was committed since: the kernel takes thousands of pages out of the address space that all threads share, and interrupts
/// the other processors for it, as long as a look-up takes by itself.
const UNMAPPED_AFTER_COMMIT: Duration = Duration::from_millis(100);

/// A reading connection.
#[derive(Debug)]
struct Reader {
    connection: Connection,
    is_mapped: bool,
}

fn open_reader(path: &Path, is_mapped: bool) -> Result<Reader, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    keep_plans(&connection)?;
    connection.pragma_update(None, "query_only", true)?;
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    if is_mapped {
        connection.pragma_update(None, "cache_size", -16_384)?;
        // A look-up in a large registry touches some octets of each of a few pages that no cache of ours holds: to copy the pages
        // costs more than to look. A disk that fails under a mapped page ends the process, which then starts again.
        connection.pragma_update(None, "mmap_size", MAPPED_OCTETS)?;
    } else {
        // Empty again after the next commit.
        connection.pragma_update(None, "cache_size", -4_096)?;
        connection.pragma_update(None, "mmap_size", 0)?;
    }
    connection.pragma_update(None, "trusted_schema", false)?;
    Ok(Reader { connection, is_mapped })
}

/// Idle read-only connections, of two kinds: some map the file, for reads while nothing is written; the others serve while
/// something is, see [`UNMAPPED_AFTER_COMMIT`]. A caller that finds none opens one of its own, so that nobody waits; those beyond the
/// pool's size are closed afterwards.
///
/// To open a snapshot of the database and to give it up costs more than to look something up in it. So a connection may keep its
/// snapshot from one read to the next, but not beyond the moment at which the writer sets out to write: each read sees all that was
/// committed before it, and no snapshot keeps the WAL from being written back.
#[derive(Debug)]
pub(crate) struct Readers {
    path: PathBuf,
    keep: usize,
    idle: Mutex<Idle>,
}

#[derive(Debug)]
struct Idle {
    mapped: Vec<Reader>,
    unmapped: Vec<Reader>,
    /// How often the writer has set out to write.
    turns: u64,
    is_writing: bool,
    /// When it last had written.
    written: Option<Instant>,
}

impl Idle {
    /// Whether the next read is to be of the mapped file.
    fn is_quiet(&self) -> bool {
        !self.is_writing && self.written.is_none_or(|written| written.elapsed() >= UNMAPPED_AFTER_COMMIT)
    }

    fn of_kind(&mut self, is_mapped: bool) -> &mut Vec<Reader> {
        if is_mapped { &mut self.mapped } else { &mut self.unmapped }
    }
}

/// The writer writes: no snapshot is kept until it is dropped.
#[derive(Debug)]
pub(crate) struct Writing<'a>(&'a Readers);

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        let mut idle = self.0.idle();
        idle.is_writing = false;
        idle.written = Some(Instant::now());
    }
}

impl Readers {
    pub(crate) fn open(path: &Path, keep: usize) -> Result<Self, StoreError> {
        let keep = keep.clamp(1, 64);
        let mapped = vec![open_reader(path, true)?];
        let idle = Idle { mapped, unmapped: Vec::new(), turns: 0, is_writing: false, written: None };
        Ok(Self { path: path.into(), keep, idle: Mutex::new(idle) })
    }

    /// Runs `read` on one connection, in one snapshot of the database where `read` opens a transaction or the snapshot `may_stay`:
    /// a write is about to come, with which it ends.
    pub(crate) fn with<T>(
        &self,
        may_stay: bool,
        read: impl FnOnce(&Connection) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let (idle, is_mapped, turn) = {
            let mut idle = self.idle();
            let is_mapped = idle.is_quiet();
            let turn = (may_stay && !idle.is_writing).then_some(idle.turns);
            (idle.of_kind(is_mapped).pop(), is_mapped, turn)
        };
        let reader = match idle {
            Some(reader) => reader,
            None => open_reader(&self.path, is_mapped)?,
        };
        if turn.is_some() && reader.connection.is_autocommit() {
            sql::execute(&reader.connection, "BEGIN", [])?;
        }
        let result = read(&reader.connection);
        self.give_back(reader, turn.filter(|_| result.is_ok()));
        result
    }

    /// Ends every snapshot that is kept; none is kept until the answer is dropped.
    pub(crate) fn writing(&self) -> Writing<'_> {
        let kept = {
            let mut idle = self.idle();
            idle.is_writing = true;
            idle.turns = idle.turns.wrapping_add(1);
            let has_snapshot = |reader: &mut Reader| !reader.connection.is_autocommit();
            let mut kept: Vec<Reader> = idle.mapped.extract_if(.., has_snapshot).collect();
            kept.extend(idle.unmapped.extract_if(.., has_snapshot));
            kept
        };
        for reader in kept {
            self.give_back(reader, None);
        }
        Writing(self)
    }

    /// Takes a connection back, with its snapshot where that is as new as it was in `turn`.
    fn give_back(&self, reader: Reader, turn: Option<u64>) {
        let has_snapshot = !reader.connection.is_autocommit();
        let is_new = |idle: &Idle| turn == Some(idle.turns) && !idle.is_writing;
        let mut idle = self.idle();
        if has_snapshot && !is_new(&idle) {
            drop(idle);
            // A connection that cannot even do that is closed.
            if sql::execute(&reader.connection, "COMMIT", []).is_err() {
                return;
            }
            idle = self.idle();
        }
        let of_kind = idle.of_kind(reader.is_mapped);
        if of_kind.len() < self.keep {
            of_kind.push(reader);
        }
    }

    fn idle(&self) -> MutexGuard<'_, Idle> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_map_the_file_only_while_nothing_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("registry.db");
        let _writer = open_writer(&path, Durability::None).unwrap();
        let readers = Readers::open(&path, 4).unwrap();
        let maps = || {
            let most = |connection: &Connection| -> Result<i64, StoreError> {
                Ok(connection.query_row("PRAGMA mmap_size", [], |row| row.get(0))?)
            };
            readers.with(false, most).unwrap() > 0
        };
        assert!(maps());
        let writing = readers.writing();
        assert!(!maps());
        drop(writing);
        assert!(!maps());
        readers.idle().written = Instant::now().checked_sub(UNMAPPED_AFTER_COMMIT);
        assert!(maps());
    }
}

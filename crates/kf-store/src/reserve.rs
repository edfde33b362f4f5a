//! Space that is kept for revocations with their log entries, so that a full disk stops issuance and not the stopping
//! of devices.
//!
//! Two means: a file of that size beside the database, given back to the file system when SQLite says that the disk is
//! full; and, where the database has a page limit of its own, pages between a lower limit for ordinary writes and the
//! limit itself.

use std::fs::{File, OpenOptions};
use std::io::Read;
use std::path::{Path, PathBuf};

use rusqlite::Connection;

use crate::StoreError;

const PAGE_OCTETS: u64 = 4_096;

/// The reserve of one store.
#[derive(Debug)]
pub(crate) struct Reserve {
    file: Option<PathBuf>,
    octets: u64,
    max_pages: Option<u32>,
}

impl Reserve {
    /// A reserve beside the database at `path`; zero octets turn it off.
    pub(crate) fn new(path: &Path, octets: u64, max_pages: Option<u32>) -> Self {
        let mut name = path.as_os_str().to_owned();
        name.push("-reserve");
        Self { file: (octets > 0).then(|| name.into()), octets, max_pages }
    }

    /// Sets the space aside; false when there is not enough of it.
    pub(crate) fn arm(&self, connection: &Connection) -> Result<bool, StoreError> {
        if let Some(max) = self.max_pages {
            let kept = u32::try_from(self.octets / PAGE_OCTETS).unwrap_or(u32::MAX);
            let limit = max.saturating_sub(kept).max(1);
            set_page_limit(connection, limit)?;
            let used = pragma(connection, "page_count")?.saturating_sub(pragma(connection, "freelist_count")?);
            if used >= i64::from(limit) {
                return Ok(false);
            }
        }
        let Some(file) = &self.file else { return Ok(true) };
        Ok(allocate(file, self.octets).is_ok())
    }

    /// Gives the space back, for what must still be written.
    pub(crate) fn release(&self, connection: &Connection) -> Result<(), StoreError> {
        if let Some(max) = self.max_pages {
            set_page_limit(connection, max)?;
        }
        match self.file.as_deref().map(std::fs::remove_file) {
            Some(Err(error)) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(StoreError::Io { what: format!("the reserve could not be released: {error}") })
            }
            _ => Ok(()),
        }
    }
}

fn pragma(connection: &Connection, name: &str) -> Result<i64, StoreError> {
    Ok(connection.pragma_query_value(None, name, |row| row.get(0))?)
}

fn set_page_limit(connection: &Connection, pages: u32) -> Result<(), StoreError> {
    let _in_force: i64 =
        connection.pragma_update_and_check(None, "max_page_count", i64::from(pages), |row| row.get(0))?;
    Ok(())
}

/// Makes the file occupy its blocks; on failure it is removed, so that it does not make a full disk fuller.
fn allocate(path: &Path, octets: u64) -> std::io::Result<()> {
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(path)?;
    if file.metadata()?.len() == octets {
        return Ok(());
    }
    let allocated = allocate_blocks(&file, octets).and_then(|()| file.sync_all());
    if allocated.is_err() {
        std::fs::remove_file(path)?;
    }
    allocated
}

fn allocate_blocks(file: &File, octets: u64) -> std::io::Result<()> {
    file.set_len(0)?;
    match rustix::fs::fallocate(file, rustix::fs::FallocateFlags::empty(), 0, octets) {
        // Not every file system can set blocks aside: write them.
        Err(rustix::io::Errno::OPNOTSUPP) => {
            let written = std::io::copy(&mut std::io::repeat(0).take(octets), &mut &*file)?;
            if written == octets { Ok(()) } else { Err(std::io::ErrorKind::WriteZero.into()) }
        }
        other => Ok(other?),
    }
}

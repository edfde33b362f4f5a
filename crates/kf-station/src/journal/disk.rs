//! What the journal asks of a file, so that power can be cut at each of them in a test.

use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, Read, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

/// A file that is read once, cut once, and appended to.
pub trait JournalFile: Send {
    /// Reads from the beginning.
    ///
    /// # Errors
    /// Of the disk.
    fn reader(&mut self) -> io::Result<Box<dyn Read + '_>>;

    /// Cuts off everything from `length` on, durably.
    ///
    /// # Errors
    /// Of the disk.
    fn truncate(&mut self, length: u64) -> io::Result<()>;

    /// Appends. Nothing is durable yet.
    ///
    /// # Errors
    /// Of the disk.
    fn append(&mut self, octets: &[u8]) -> io::Result<()>;

    /// Makes everything durable.
    ///
    /// # Errors
    /// Of the disk.
    fn sync(&mut self) -> io::Result<()>;

    /// Octets that are free on its disk; `None` where nobody knows.
    ///
    /// # Errors
    /// Of the disk.
    fn free_octets(&self) -> io::Result<Option<u64>> {
        Ok(None)
    }
}

/// A file of mode 0600, locked against a second station on the same directory.
#[derive(Debug)]
pub struct DirectoryFile(File);

impl DirectoryFile {
    /// Opens it, making it when missing, and locks it.
    ///
    /// # Errors
    /// `WouldBlock` when another station has it; of the disk.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path)?;
        file.try_lock().map_err(io::Error::from)?;
        if let Some(parent) = path.parent() {
            File::open(parent)?.sync_all()?;
        }
        Ok(Self(file))
    }

    /// Opens an existing one for reading beside a station that is at work.
    ///
    /// # Errors
    /// Of the disk.
    pub fn open_to_read(path: &Path) -> io::Result<Self> {
        File::open(path).map(Self)
    }
}

impl JournalFile for DirectoryFile {
    fn reader(&mut self) -> io::Result<Box<dyn Read + '_>> {
        self.0.seek(SeekFrom::Start(0))?;
        Ok(Box::new(BufReader::with_capacity(256 * 1024, &self.0)))
    }

    fn truncate(&mut self, length: u64) -> io::Result<()> {
        if self.0.metadata()?.len() > length {
            self.0.set_len(length)?;
            self.0.sync_all()?;
        }
        Ok(())
    }

    fn append(&mut self, octets: &[u8]) -> io::Result<()> {
        self.0.write_all(octets)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn free_octets(&self) -> io::Result<Option<u64>> {
        let found = rustix::fs::fstatvfs(&self.0)?;
        Ok(Some(found.f_bavail.saturating_mul(found.f_frsize)))
    }
}

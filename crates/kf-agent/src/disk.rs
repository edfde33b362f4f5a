//! The few things that the agent asks of a disk, one by one, so that each can fail in a test.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// The most octets of a file of ours.
const MAX_FILE_OCTETS: u64 = 256 * 1024;

/// A small disk. Paths are relative: `current`, `a/key`.
pub trait Disk: Send {
    /// The content of a file, `None` when there is none.
    ///
    /// # Errors
    /// Of the disk.
    fn read(&self, path: &str) -> io::Result<Option<Vec<u8>>>;

    /// Makes a file or overwrites it. Nothing is durable yet.
    ///
    /// # Errors
    /// Of the disk.
    fn write(&mut self, path: &str, content: &[u8]) -> io::Result<()>;

    /// Makes the content of a file durable.
    ///
    /// # Errors
    /// Of the disk.
    fn sync(&mut self, path: &str) -> io::Result<()>;

    /// Gives a file another name, replacing what had it.
    ///
    /// # Errors
    /// Of the disk.
    fn rename(&mut self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a file; one that is not there is no error.
    ///
    /// # Errors
    /// Of the disk.
    fn remove(&mut self, path: &str) -> io::Result<()>;

    /// Makes the names in a directory durable; `""` is the top.
    ///
    /// # Errors
    /// Of the disk.
    fn sync_directory(&mut self, directory: &str) -> io::Result<()>;
}

/// The directory of a path: `a` of `a/key`, `""` of `current`.
fn directory_of(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(directory, _name)| directory)
}

/// Replaces a file so that a power cut at any moment leaves the old content or the new.
pub(crate) fn replace(disk: &mut dyn Disk, path: &str, content: &[u8]) -> io::Result<()> {
    let temporary = format!("{path}.new");
    disk.write(&temporary, content)?;
    disk.sync(&temporary)?;
    disk.rename(&temporary, path)?;
    disk.sync_directory(directory_of(path))
}

/// Files below a directory of mode 0700, each of mode 0600.
#[derive(Debug)]
pub struct DirectoryDisk {
    root: PathBuf,
}

impl DirectoryDisk {
    /// Uses `root`, making it and the slots when missing.
    ///
    /// # Errors
    /// When a directory cannot be made.
    pub fn open(root: &Path, slots: &[&str]) -> io::Result<Self> {
        let make = |path: &Path| DirBuilder::new().recursive(true).mode(0o700).create(path);
        make(root)?;
        for slot in slots {
            make(&root.join(slot))?;
        }
        File::open(root)?.sync_all()?;
        Ok(Self { root: root.to_owned() })
    }

    /// Uses `root` as it is, for reading.
    #[must_use]
    pub fn existing(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    fn path(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }
}

impl Disk for DirectoryDisk {
    fn read(&self, path: &str) -> io::Result<Option<Vec<u8>>> {
        let file = match File::open(self.path(path)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let length = file.metadata()?.len();
        if length > MAX_FILE_OCTETS {
            return Err(io::Error::new(io::ErrorKind::InvalidData, format!("{path} is larger than any file of ours")));
        }
        // Capacity for all of it: a vector that grows leaves copies of a key behind.
        let mut content = Vec::with_capacity(usize::try_from(length).unwrap_or_default());
        file.take(length).read_to_end(&mut content)?;
        Ok(Some(content))
    }

    fn write(&mut self, path: &str, content: &[u8]) -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(self.path(path))?;
        file.write_all(content)
    }

    fn sync(&mut self, path: &str) -> io::Result<()> {
        File::open(self.path(path))?.sync_all()
    }

    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        std::fs::rename(self.path(from), self.path(to))
    }

    fn remove(&mut self, path: &str) -> io::Result<()> {
        match std::fs::remove_file(self.path(path)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn sync_directory(&mut self, directory: &str) -> io::Result<()> {
        File::open(self.path(directory))?.sync_all()
    }
}

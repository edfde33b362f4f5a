//! Opening, closing, and the state of the store as a whole.

use std::path::Path;
use std::sync::Arc;

use crate::StoreError;

/// How a store is opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Read-only connections kept ready, 1 to 64.
    pub readers: usize,
    /// Operations that may wait for the writer; beyond it callers wait for room.
    pub queue: usize,
    /// The most operations in one commit, 1 to 4,096.
    pub group: usize,
    /// Octets kept free for revocations with their log entries when the disk is full; 0 turns the reserve off.
    pub reserve_octets: u64,
    /// The most pages (of 4,096 octets) the database may grow to, of which `reserve_octets` are kept for revocations.
    pub max_pages: Option<u32>,
}

impl Default for Options {
    fn default() -> Self {
        Self { readers: 4, queue: 4_096, group: 256, reserve_octets: 64 << 20, max_pages: None }
    }
}

/// The registry. Cheap to clone; the writer ends when the last clone is dropped or [`Store::close`] is called.
#[derive(Clone)]
pub struct Store {
    _inner: Arc<()>,
}

/// Whether the store takes writes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// The disk is full: only revocations and what stops things are written.
    pub full: bool,
    /// Writes other than revocations are refused, for this reason.
    pub fenced: Option<String>,
}

impl Store {
    /// Opens the database at `path`, makes it when it is not there, and brings its schema up to date.
    ///
    /// # Errors
    /// [`StoreError::NewerSchema`] for a file of a newer version, [`StoreError::Corrupt`] when the log does not fit its
    /// stored tree, [`StoreError::Io`].
    pub fn open(path: &Path, options: Options) -> Result<Self, StoreError> {
        let _ = (path, options);
        todo!()
    }

    /// A store that lives in memory: for tests.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn in_memory() -> Result<Self, StoreError> {
        todo!()
    }

    /// Whether the store takes writes.
    #[must_use]
    pub fn health(&self) -> Health {
        todo!()
    }

    /// Refuses every write but revocations from now on (until reopened): the database was found to be older than a
    /// witness says.
    pub fn fence(&self, why: String) {
        let _ = why;
        todo!()
    }

    /// Writes what waits, then ends the writer; later writes are answered with [`StoreError::Closed`].
    pub async fn close(&self) {
        todo!()
    }
}

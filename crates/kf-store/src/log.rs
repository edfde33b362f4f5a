//! The log: entries committed with their acts, the tree over them, and what is published of it.

use std::ops::Range;

use kf_access::Visibility;
use kf_api::audit::AuditRecord;
use kf_api::{Page, PageRequest};
use kf_log::AuditEntry;

use crate::{Store, StoreError};

/// The entries that are committed with an act, at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Audit(pub(crate) Vec<AuditEntry>);

impl From<AuditEntry> for Audit {
    fn from(entry: AuditEntry) -> Self {
        Self(vec![entry])
    }
}

impl From<Vec<AuditEntry>> for Audit {
    fn from(entries: Vec<AuditEntry>) -> Self {
        Self(entries)
    }
}

/// What an act gave, and the index of its (first) log entry, which is durable together with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Logged<T> {
    /// What the act gave.
    pub value: T,
    /// Index of its first log entry.
    pub index: u64,
}

/// The tree over all entries committed so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TreeHead {
    /// Entries.
    pub size: u64,
    /// RFC 6962 root over them.
    pub root: [u8; 32],
}

/// The newest checkpoint that was signed and published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublishedCheckpoint {
    /// Entries it covers.
    pub size: u64,
    /// The signed note.
    pub note: String,
}

impl Store {
    /// Appends entries that belong to no act on the database.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn append_log(&self, audit: impl Into<Audit>) -> Result<Logged<()>, StoreError> {
        let _ = audit.into();
        todo!()
    }

    /// The tree over everything committed.
    #[must_use]
    pub fn tree(&self) -> TreeHead {
        todo!()
    }

    /// The leaves (exact octets) of a range of at most 1,024 indices; shorter when the log ends before.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn log_entries(&self, range: Range<u64>) -> Result<Vec<Vec<u8>>, StoreError> {
        let _ = range;
        todo!()
    }

    /// Entries about `subject` (text form of an id, `cert:<serial>`), or all, oldest first, as far as `visibility`
    /// reaches: entries of no facility are seen by those who see the fleet only.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn log_list(
        &self,
        subject: Option<&str>,
        visibility: &Visibility,
        page: &PageRequest,
    ) -> Result<Page<AuditRecord>, StoreError> {
        let _ = (subject, visibility, page);
        todo!()
    }

    /// A hash tile for publication: `width` hashes (1 to 256) of tile `index` at `level`, each 32 octets.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] when the tree does not reach that far.
    pub fn log_tile(&self, level: u8, index: u64, width: u16) -> Result<Vec<u8>, StoreError> {
        let _ = (level, index, width);
        todo!()
    }

    /// An entry bundle for publication: `width` entries (1 to 256) from `256 * index`, each with its 16-bit length.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] when the log does not reach that far.
    pub fn log_bundle(&self, index: u64, width: u16) -> Result<Vec<u8>, StoreError> {
        let _ = (index, width);
        todo!()
    }

    /// Keeps a signed checkpoint as the newest one published. An older one than the newest is refused.
    ///
    /// # Errors
    /// [`StoreError::IllegalState`] when its size goes back or lies beyond the log.
    pub async fn publish_checkpoint(&self, checkpoint: PublishedCheckpoint) -> Result<(), StoreError> {
        let _ = checkpoint;
        todo!()
    }

    /// The newest checkpoint that was published.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn checkpoint(&self) -> Result<Option<PublishedCheckpoint>, StoreError> {
        todo!()
    }
}

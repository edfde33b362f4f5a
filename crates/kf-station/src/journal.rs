//! The journal: one file, appended to and synced, never changed.
//!
//! ```text
//! frame = length of what follows the checksum (u32) | CRC-32 of it (u32) | number (u64) | durable (u64)
//!       | length of the entry (u32) | entry, JSON | document            all numbers little-endian
//! ```
//! `number` counts frames from 0. `durable` says how many frames were known to be on disk when this one was written. At the end
//! of the file a power cut may leave anything of the frames after the last sync: what is broken there, and all behind it, is
//! cut off. A broken frame that a later one calls durable is damage, and the station stops.
//!
//! Several threads append at once; one of them syncs for all (group commit).

mod disk;
mod frame;

pub use disk::{DirectoryFile, JournalFile};
pub use frame::{JournalDamage, MAX_DOCUMENT_OCTETS};

use std::io;
use std::sync::{Condvar, Mutex, PoisonError};

use crate::line::Entry;

/// Octets that are kept free, so that whatever was begun can be finished and recorded: 64 fixtures, each with all of its entries, its
/// label and its share of an image.
pub const RESERVED_OCTETS: u64 = 16 * 1024 * 1024;

/// Why the journal cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JournalError {
    /// What was durable once is broken now.
    #[error("the journal is damaged: {0}; restore it from a copy, or close the batch at the server")]
    Damage(#[from] JournalDamage),
    /// The disk.
    #[error("the journal cannot be {verb}: free space on its disk, then start again")]
    Io {
        /// `read` or `written`.
        verb: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// An earlier write failed: nothing more is written, because what is on disk is not known any more.
    #[error("an earlier write of the journal failed: start the station again")]
    Poisoned,
}

/// An entry and the document beside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Noted {
    /// The entry.
    pub entry: Entry,
    /// The document; may be empty.
    pub document: Vec<u8>,
}

/// The journal of a running station.
#[derive(Debug)]
pub struct Journal<F> {
    state: Mutex<State>,
    changed: Condvar,
    file: Mutex<F>,
}

#[derive(Debug, Default)]
struct State {
    /// Frames that are not on disk yet.
    waiting: Vec<u8>,
    /// Frames appended.
    appended: u64,
    /// Frames on disk.
    durable: u64,
    /// Free on the disk after the last sync; `None` where nobody knows.
    free: Option<u64>,
    is_syncing: bool,
    is_poisoned: bool,
}

impl JournalError {
    /// Whether there was no space.
    #[must_use]
    pub fn is_full(&self) -> bool {
        matches!(self, Self::Io { source, .. } if crate::disk::is_full(source))
    }
}

impl<F: JournalFile> Journal<F> {
    /// Reads the journal from its beginning, hands every entry to `take`, cuts off what a power cut left, and is ready to append.
    ///
    /// # Errors
    /// [`JournalError`], or what `take` gives.
    pub fn open<E: From<JournalError>>(mut file: F, mut take: impl FnMut(Noted) -> Result<(), E>) -> Result<Self, E> {
        let mut number = 0;
        let end = read_all(&mut file, |noted| {
            number += 1;
            take(noted)
        })?;
        file.truncate(end).map_err(|source| JournalError::Io { verb: "written", source })?;
        let free = file.free_octets().map_err(|source| JournalError::Io { verb: "read", source })?;
        let state = State { appended: number, durable: number, free, ..State::default() };
        Ok(Self { state: Mutex::new(state), changed: Condvar::new(), file: Mutex::new(file) })
    }

    /// Appends an entry; nothing is durable yet. Gives the ticket for [`Journal::wait`].
    ///
    /// # Errors
    /// [`JournalError::Poisoned`].
    pub fn append(&self, entry: &Entry, document: &[u8]) -> Result<u64, JournalError> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.is_poisoned {
            return Err(JournalError::Poisoned);
        }
        let (number, durable) = (state.appended, state.durable);
        frame::write(&mut state.waiting, number, durable, entry, document)
            .map_err(|source| JournalError::Io { verb: "written", source })?;
        state.appended = state.appended.saturating_add(1);
        Ok(state.appended)
    }

    /// Waits until everything up to `ticket` is durable.
    ///
    /// # Errors
    /// [`JournalError`]; the journal then takes nothing more.
    pub fn wait(&self, ticket: u64) -> Result<(), JournalError> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if state.durable >= ticket {
                return Ok(());
            }
            if state.is_poisoned {
                return Err(JournalError::Poisoned);
            }
            if state.is_syncing {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            state.is_syncing = true;
            let batch = std::mem::take(&mut state.waiting);
            let upto = state.appended;
            drop(state);
            let (written, free) = {
                let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
                let written = file.append(&batch).and_then(|()| file.sync());
                (written, file.free_octets())
            };
            state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            state.free = free.unwrap_or(state.free);
            state.is_syncing = false;
            match written {
                Ok(()) => state.durable = upto,
                Err(_) => state.is_poisoned = true,
            }
            self.changed.notify_all();
            written.map_err(|source| JournalError::Io { verb: "written", source })?;
        }
    }

    /// Whether there is space to begin another device and to finish those that were begun.
    #[must_use]
    pub fn has_space(&self) -> bool {
        // While somebody writes, what was free after the last write is near enough.
        let asked = match self.file.try_lock() {
            Ok(file) => file.free_octets().ok(),
            Err(_) => None,
        };
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.free = asked.unwrap_or(state.free);
        state.free.is_none_or(|free| free >= RESERVED_OCTETS)
    }

    /// Gives the file back.
    pub fn into_file(self) -> F {
        self.file.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads a journal that is not open for writing.
///
/// # Errors
/// As [`Journal::open`].
pub fn read<F: JournalFile, E: From<JournalError>>(
    file: &mut F,
    take: impl FnMut(Noted) -> Result<(), E>,
) -> Result<(), E> {
    read_all(file, take).map(|_end| ())
}

fn read_all<F: JournalFile, E: From<JournalError>>(
    file: &mut F,
    take: impl FnMut(Noted) -> Result<(), E>,
) -> Result<u64, E> {
    let mut reader = file.reader().map_err(|source| JournalError::Io { verb: "read", source })?;
    frame::read_all(&mut reader, take)
}

#[cfg(test)]
mod tests;

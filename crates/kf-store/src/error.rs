//! What can go wrong, grouped by who must act.

use kf_key::{IllegalDeviceTransition, IllegalTransition};

/// Why the store refused or failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The caller: there is no such thing, or the caller may not see it.
    #[error("there is no such {what}")]
    NotFound {
        /// The noun.
        what: &'static str,
    },
    /// The caller: something with this unique value is there already.
    #[error("{field} is taken")]
    Conflict {
        /// The field whose value must be unique: `name`, `serial`, `id`, `voucher`, …
        field: &'static str,
    },
    /// The caller: the public key belongs to another subject.
    #[error("this public key already belongs to {holder}")]
    KeyInUse {
        /// Text form of who holds it; not for the eyes of a device.
        holder: String,
    },
    /// The caller: the thing is not in the state that the act expects, because it changed in between or was never so.
    #[error("the {what} is {found}, the act expects {expected}")]
    IllegalState {
        /// The noun.
        what: &'static str,
        /// The state found.
        found: String,
        /// The state expected.
        expected: String,
    },
    /// The caller: SP 800-57 does not draw this change of key state.
    #[error(transparent)]
    IllegalKeyTransition(#[from] KeyTransition),
    /// The caller: a device's life does not have this step.
    #[error(transparent)]
    IllegalDeviceTransition(#[from] DeviceTransition),
    /// The caller: a value is outside the limits of the store.
    #[error("{field}: {problem}")]
    Invalid {
        /// The field.
        field: &'static str,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The operator: somebody stopped issuance.
    #[error("issuance is stopped: {why}")]
    Stopped {
        /// Why, in their words.
        why: String,
    },
    /// The operator: the disk is full. Reads and revocations go on; free space and the rest resumes.
    #[error("the store is full: free space on its disk; reads and revocations go on meanwhile")]
    Full,
    /// The operator: writes other than revocations are refused until a person has looked.
    #[error("the store is fenced: {why}")]
    Fenced {
        /// Why.
        why: String,
    },
    /// The caller: too many operations are waiting; try again.
    #[error("the store is busy: try again")]
    Busy,
    /// The store has been closed.
    #[error("the store is closed")]
    Closed,
    /// The operator: the file was written by a newer version.
    #[error("the database has schema {found}, this version knows {known}: install the newer version")]
    NewerSchema {
        /// Schema version of the file.
        found: u32,
        /// Newest schema version that is known here.
        known: u32,
    },
    /// The operator: what is stored does not make sense. Restore a backup.
    #[error("the database is damaged: {what}")]
    Corrupt {
        /// What was found wrong.
        what: String,
    },
    /// The operator: the file system or the database engine failed.
    #[error("the database could not be read or written: {what}")]
    Io {
        /// What the engine said.
        what: String,
    },
}

/// [`IllegalTransition`] as a source of [`StoreError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct KeyTransition(pub IllegalTransition);

/// [`IllegalDeviceTransition`] as a source of [`StoreError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct DeviceTransition(pub IllegalDeviceTransition);

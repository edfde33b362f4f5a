//! What a full disk looks like.

use std::io;

/// Whether a write failed for want of space: no space, no quota, or a limit on the size of files.
#[must_use]
pub fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge)
}

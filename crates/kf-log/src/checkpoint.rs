//! Checkpoints (C2SP tlog-checkpoint): the size and the root of a log, as a signed note.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::note::{NoteError, SignError, VerifierKey, open_note, sign_note};

/// The head of a log at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// The name of the log; a restored log that may have lost entries gets another.
    pub origin: String,
    /// Entries.
    pub size: u64,
    /// RFC 6962 root over them.
    pub root: [u8; 32],
}

impl Checkpoint {
    /// The text that is signed.
    #[must_use]
    pub fn to_text(&self) -> String {
        format!("{}\n{}\n{}\n", self.origin, self.size, STANDARD.encode(self.root))
    }

    /// Reads the text of a note; extension lines are passed over.
    ///
    /// # Errors
    /// [`NoteError::Checkpoint`].
    pub fn from_text(text: &str) -> Result<Self, NoteError> {
        let mut lines = text.lines();
        let (Some(origin), Some(size), Some(root)) = (lines.next(), lines.next(), lines.next()) else {
            return Err(NoteError::Checkpoint);
        };
        let canonical = size == "0" || !size.starts_with('0');
        let digits = size.bytes().all(|byte| byte.is_ascii_digit());
        let root = STANDARD.decode(root).ok().and_then(|octets| <[u8; 32]>::try_from(octets).ok());
        match (size.parse(), root) {
            (Ok(size), Some(root)) if canonical && digits && !origin.is_empty() => {
                Ok(Self { origin: origin.into(), size, root })
            }
            _ => Err(NoteError::Checkpoint),
        }
    }

    /// Signs the checkpoint: `sign` gets the octets to be signed and returns 64 octets of Ed25519, so that the process
    /// that holds the key can be another one.
    ///
    /// # Errors
    /// [`SignError`].
    pub fn sign<E>(
        &self,
        key: &VerifierKey,
        sign: impl FnOnce(&[u8]) -> Result<Vec<u8>, E>,
    ) -> Result<String, SignError<E>> {
        if self.origin.is_empty() || self.origin.contains(['\n', '\r']) {
            return Err(SignError::Note(NoteError::Checkpoint));
        }
        sign_note(&self.to_text(), key, sign)
    }

    /// Reads a signed checkpoint whose signature by `key` verifies.
    ///
    /// # Errors
    /// [`NoteError`].
    pub fn open(note: &str, key: &VerifierKey) -> Result<Self, NoteError> {
        Self::from_text(open_note(note, key)?)
    }
}

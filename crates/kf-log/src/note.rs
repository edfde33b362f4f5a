//! Signed notes (C2SP signed-note) with Ed25519: text, an empty line, signature lines.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use kf_key::KeyAlgorithm;

/// The most octets of a signed note.
pub const MAX_NOTE_OCTETS: usize = 64 * 1024;
/// The most signature lines that are read.
pub const MAX_SIGNATURES: usize = 64;
/// The signature type of Ed25519 in key ids and verifier keys.
const ED25519: u8 = 0x01;

/// Why a note, a key or a signature was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoteError {
    /// Not `name+hash+key`, or the hash does not fit.
    #[error("not a verifier key of the form <name>+<hash>+<key>")]
    VerifierKey,
    /// A key name is empty or holds a space, a plus sign or a line break.
    #[error("a key name is not empty and holds no space and no plus sign")]
    KeyName,
    /// Not text, an empty line and signature lines; or too long.
    #[error("not a signed note")]
    Format,
    /// No signature by this key.
    #[error("the note is not signed by this key")]
    Unsigned,
    /// The signature by this key does not verify.
    #[error("the signature of the note does not verify")]
    Signature,
    /// The text is not a checkpoint.
    #[error("the note is not a checkpoint")]
    Checkpoint,
}

/// The public half of a note key with its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifierKey {
    name: String,
    public_key: [u8; 32],
}

impl VerifierKey {
    /// A key under a name.
    ///
    /// # Errors
    /// [`NoteError::KeyName`].
    pub fn new(name: &str, public_key: [u8; 32]) -> Result<Self, NoteError> {
        let bad = |c: char| c.is_whitespace() || c.is_control() || c == '+';
        if name.is_empty() || name.len() > 255 || name.contains(bad) {
            return Err(NoteError::KeyName);
        }
        Ok(Self { name: name.into(), public_key })
    }

    /// The name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The raw Ed25519 public key.
    #[must_use]
    pub const fn public_key(&self) -> &[u8; 32] {
        &self.public_key
    }

    /// The key id: the first four octets of SHA-256(name || 0x0A || 0x01 || public key).
    #[must_use]
    pub fn id(&self) -> [u8; 4] {
        let hash = kf_crypto::sha256(&[self.name.as_bytes(), &[b'\n', ED25519], &self.public_key].concat());
        let [a, b, c, d, ..] = hash;
        [a, b, c, d]
    }

    /// Reads `name+hash+key`.
    ///
    /// # Errors
    /// [`NoteError::VerifierKey`].
    pub fn from_text(text: &str) -> Result<Self, NoteError> {
        let mut parts = text.trim().splitn(3, '+');
        let (Some(name), Some(id), Some(key)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(NoteError::VerifierKey);
        };
        let octets = STANDARD.decode(key).map_err(|_detail| NoteError::VerifierKey)?;
        let public_key = match octets.split_first() {
            Some((&ED25519, key)) => <[u8; 32]>::try_from(key).map_err(|_length| NoteError::VerifierKey)?,
            _ => return Err(NoteError::VerifierKey),
        };
        let key = Self::new(name, public_key).map_err(|_name| NoteError::VerifierKey)?;
        if hex::encode(key.id()) == id { Ok(key) } else { Err(NoteError::VerifierKey) }
    }
}

impl std::fmt::Display for VerifierKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let key = STANDARD.encode([&[ED25519][..], &self.public_key].concat());
        write!(f, "{}+{}+{key}", self.name, hex::encode(self.id()))
    }
}

/// Signs `text`, which ends with a line break and holds no empty line at its end. `sign` gets exactly the octets to be
/// signed and returns 64 octets of Ed25519; the signature is checked before the note is returned.
///
/// # Errors
/// `Err(Ok(_))`: what `sign` said; `Err(Err(_))`: the text cannot be a note, or the signature does not verify.
pub fn sign_note<E>(
    text: &str,
    key: &VerifierKey,
    sign: impl FnOnce(&[u8]) -> Result<Vec<u8>, E>,
) -> Result<String, SignError<E>> {
    if !text.ends_with('\n') || text.len() > MAX_NOTE_OCTETS / 2 {
        return Err(SignError::Note(NoteError::Format));
    }
    let signature = sign(text.as_bytes()).map_err(SignError::Signer)?;
    kf_crypto::verify(KeyAlgorithm::Ed25519, &key.public_key, text.as_bytes(), &signature)
        .map_err(|_opaque| SignError::Note(NoteError::Signature))?;
    let blob = STANDARD.encode([&key.id()[..], &signature].concat());
    Ok(format!("{text}\n\u{2014} {} {blob}\n", key.name))
}

/// Adds a signature by another key to a note; the signature is checked.
///
/// # Errors
/// [`NoteError`].
pub fn cosign_note(note: &str, key: &VerifierKey, signature: &[u8]) -> Result<String, NoteError> {
    let gap = note.rfind("\n\n").ok_or(NoteError::Format)?;
    let (text, _) = note.split_at_checked(gap + 1).ok_or(NoteError::Format)?;
    kf_crypto::verify(KeyAlgorithm::Ed25519, &key.public_key, text.as_bytes(), signature)
        .map_err(|_opaque| NoteError::Signature)?;
    let blob = STANDARD.encode([&key.id()[..], signature].concat());
    Ok(format!("{note}\u{2014} {} {blob}\n", key.name))
}

/// Why a note could not be signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignError<E> {
    /// The text cannot be a note, or what the signer returned does not verify under the key.
    #[error("the note could not be signed")]
    Note(#[source] NoteError),
    /// The signer refused or failed.
    #[error("the signer refused")]
    Signer(#[source] E),
}

/// Checks a note and returns its text, with its final line break. Signatures by other keys are passed over, as
/// C2SP signed-note asks.
///
/// # Errors
/// [`NoteError`].
pub fn open_note<'a>(note: &'a str, key: &VerifierKey) -> Result<&'a str, NoteError> {
    if note.len() > MAX_NOTE_OCTETS || note.chars().any(|c| c.is_control() && c != '\n') {
        return Err(NoteError::Format);
    }
    let gap = note.rfind("\n\n").ok_or(NoteError::Format)?;
    let (text, signatures) = note.split_at_checked(gap + 1).ok_or(NoteError::Format)?;
    let signatures = signatures.strip_prefix('\n').filter(|lines| lines.ends_with('\n')).ok_or(NoteError::Format)?;
    if signatures.lines().count() > MAX_SIGNATURES {
        return Err(NoteError::Format);
    }
    let mut found = false;
    for line in signatures.lines() {
        let (name, blob) =
            line.strip_prefix("\u{2014} ").and_then(|line| line.split_once(' ')).ok_or(NoteError::Format)?;
        let octets = STANDARD.decode(blob).map_err(|_detail| NoteError::Format)?;
        let (id, signature) = octets.split_first_chunk::<4>().ok_or(NoteError::Format)?;
        if name != key.name || *id != key.id() {
            continue;
        }
        kf_crypto::verify(KeyAlgorithm::Ed25519, &key.public_key, text.as_bytes(), signature)
            .map_err(|_opaque| NoteError::Signature)?;
        found = true;
    }
    if found { Ok(text) } else { Err(NoteError::Unsigned) }
}

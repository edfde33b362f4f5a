//! Files sealed to recipients and opened by their identities, in the format of [age](https://age-encryption.org/v1):
//! what leaves this host for tapes, shares and people, so that they can open it with programs that we did not write.
//!
//! X25519 recipients only (`age1…`). A recipient is public: whoever makes a backup cannot open it. The format authenticates what was
//! sealed, chunk by chunk, and not who sealed it; where that matters, the caller seals something that it can recognise.
//!
//! An identity is a secret of 32 octets, which is what can be split into shares.
//!
//! ```compile_fail,E0599
//! # fn take(identity: kf_age::Identity) {
//! let copy = identity.clone();
//! # }
//! ```
#![forbid(unsafe_code)]
#![warn(missing_docs)]

use std::fmt;
use std::io::{self, Read, Write};
use std::str::FromStr;

use age::secrecy::ExposeSecret as _;
use bech32::{Bech32, Hrp};
use kf_key::{SecretArray, SecretBytes, with_wiped_stack};
use zeroize::Zeroizing;

const SECRET_PREFIX: Hrp = Hrp::parse_unchecked("age-secret-key-");
/// The most octets of a recipient or identity in text form; both have far fewer.
const MAX_TEXT_OCTETS: usize = 128;
/// Octets moved at a time.
const CHUNK_OCTETS: usize = 64 * 1024;

/// What the crates below use of the stack, with room to spare: they leave keys and their text form in frames that are gone.
const STACK_OCTETS: usize = 64 * 1024;

fn apart<T>(work: impl FnOnce() -> T) -> T {
    with_wiped_stack::<STACK_OCTETS, T>(work)
}

/// Whom a file is sealed to. Public.
#[derive(Clone, PartialEq, Eq)]
pub struct Recipient(age::x25519::Recipient);

/// Why a text is no recipient or identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an X25519 {0} of age")]
pub struct NotAKey(&'static str);

impl FromStr for Recipient {
    type Err = NotAKey;

    fn from_str(text: &str) -> Result<Self, NotAKey> {
        if text.len() > MAX_TEXT_OCTETS {
            return Err(NotAKey("recipient (`age1…`)"));
        }
        text.parse().map(Self).map_err(|_reason: &str| NotAKey("recipient (`age1…`)"))
    }
}

impl fmt::Display for Recipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Recipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What opens files that were sealed to its recipient. A secret, in a box: whoever moves it leaves no copy behind.
pub struct Identity(Box<age::x25519::Identity>);

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({})", self.recipient())
    }
}

impl Identity {
    /// Octets of an identity.
    pub const OCTETS: usize = 32;

    /// A fresh one.
    #[must_use]
    pub fn generate() -> Self {
        apart(|| Self(Box::new(age::x25519::Identity::generate())))
    }

    /// Reads an identity file as `age-keygen` writes it: the first line that is neither empty nor a comment.
    ///
    /// # Errors
    /// [`NotAKey`]; the text is not repeated in it.
    pub fn from_file(text: &[u8]) -> Result<Self, NotAKey> {
        let wrong = NotAKey("identity file (`AGE-SECRET-KEY-1…`)");
        let text = core::str::from_utf8(text).map_err(|_not_text| wrong)?;
        let line = text.lines().map(str::trim).find(|line| !line.is_empty() && !line.starts_with('#')).ok_or(wrong)?;
        if line.len() > MAX_TEXT_OCTETS {
            return Err(wrong);
        }
        apart(|| Self::parsed(line)).ok_or(wrong)
    }

    fn parsed(text: &str) -> Option<Self> {
        text.parse().ok().map(|identity| Self(Box::new(identity)))
    }

    /// The identity as a file that `age -d -i` takes.
    #[must_use]
    pub fn to_file(&self) -> SecretBytes {
        apart(|| self.as_file())
    }

    fn as_file(&self) -> SecretBytes {
        let text = self.0.to_string();
        let text = text.expose_secret().as_bytes(); // to be sealed, or written where the caller says
        SecretBytes::fill(text.len() + 1, |place| {
            if let Some((end, front)) = place.split_last_mut() {
                front.copy_from_slice(text);
                *end = b'\n';
            }
        })
    }

    /// From its octets, for example out of shares.
    ///
    /// # Errors
    /// [`NotAKey`] for another length than [`Identity::OCTETS`].
    pub fn from_octets(octets: &SecretBytes) -> Result<Self, NotAKey> {
        apart(|| Self::of_octets(octets))
    }

    fn of_octets(octets: &SecretBytes) -> Result<Self, NotAKey> {
        let wrong = NotAKey("identity");
        if octets.len() != Self::OCTETS {
            return Err(wrong);
        }
        // Exposed to its text form, which is all that the crate takes.
        let text = bech32::encode_upper::<Bech32>(SECRET_PREFIX, octets.expose()).map_err(|_too_long| wrong)?;
        Self::parsed(&Zeroizing::new(text)).ok_or(wrong)
    }

    /// Its octets, to be split.
    ///
    /// # Errors
    /// [`NotAKey`] never, unless the crate changes its text form.
    pub fn octets(&self) -> Result<SecretArray<{ Self::OCTETS }>, NotAKey> {
        apart(|| self.as_octets())
    }

    fn as_octets(&self) -> Result<SecretArray<{ Self::OCTETS }>, NotAKey> {
        let text = self.0.to_string();
        let wrong = NotAKey("identity");
        // Exposed to be decoded, which is all that the crate gives.
        let (_, octets) = bech32::decode(text.expose_secret()).map_err(|_other_form| wrong)?;
        let octets = Zeroizing::new(octets);
        let octets: &[u8; Self::OCTETS] = octets.as_slice().try_into().map_err(|_other_length| wrong)?;
        Ok(SecretArray::fill(|place: &mut [u8; Self::OCTETS]| *place = *octets))
    }

    /// Whom to seal to for this identity.
    #[must_use]
    pub fn recipient(&self) -> Recipient {
        Recipient(self.0.to_public())
    }
}

/// Why nothing was sealed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SealError {
    /// Nobody could open it.
    #[error("there is no recipient")]
    NoRecipient,
    /// Reading or writing failed.
    #[error("the file could not be sealed")]
    Io(#[source] io::Error),
}

/// Why a sealed file does not open.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Not an age file, or its header was changed.
    #[error("this is no age file, or its header was changed")]
    Header,
    /// Sealed to others.
    #[error("none of the identities given opens it")]
    Identity,
    /// Cut off or changed on the way; what was read before may be used for nothing.
    #[error("it was cut off or changed")]
    Damaged,
    /// Reading or writing failed.
    #[error("the file could not be opened")]
    Io(#[source] io::Error),
}

/// Seals what `from` gives to `recipients`. Octets that were sealed.
///
/// # Errors
/// [`SealError`]; `to` then holds something that does not open.
pub fn seal(recipients: &[Recipient], from: impl Read, to: impl Write) -> Result<u64, SealError> {
    apart(|| seal_all(recipients, from, to))
}

fn seal_all(recipients: &[Recipient], mut from: impl Read, to: impl Write) -> Result<u64, SealError> {
    let people = recipients.iter().map(|recipient| -> &dyn age::Recipient { &recipient.0 });
    let encryptor = age::Encryptor::with_recipients(people).map_err(|_nobody| SealError::NoRecipient)?;
    let mut sealed = encryptor.wrap_output(to).map_err(SealError::Io)?;
    let octets = pump(&mut from, &mut sealed, |error| error).map_err(SealError::Io)?;
    sealed.finish().and_then(|mut to| to.flush()).map_err(SealError::Io)?;
    Ok(octets)
}

/// Opens what was sealed to one of `identities` into `to`. Octets that were opened.
///
/// # Errors
/// [`OpenError`]; what `to` was given until then must not be used, because its end is not authenticated.
pub fn open(identities: &[&Identity], from: impl Read, mut to: impl Write) -> Result<u64, OpenError> {
    let decryptor = age::Decryptor::new(from).map_err(opened)?;
    let keys = identities.iter().map(|identity| -> &dyn age::Identity { &*identity.0 });
    let mut clear = decryptor.decrypt(keys).map_err(opened)?;
    // What the reader says of wrong or missing chunks is damage; only what `to` says is about this machine.
    let octets = pump(&mut clear, &mut to, |_damage| io::Error::from(io::ErrorKind::InvalidData));
    match octets {
        Ok(octets) => to.flush().map(|()| octets).map_err(OpenError::Io),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => Err(OpenError::Damaged),
        Err(error) => Err(OpenError::Io(error)),
    }
}

/// Opens a small secret.
///
/// # Errors
/// As [`open`]; [`OpenError::Damaged`] beyond `limit` octets.
pub fn open_secret(identities: &[&Identity], sealed: &[u8], limit: usize) -> Result<SecretBytes, OpenError> {
    let mut clear = Zeroizing::new(Vec::with_capacity(limit));
    let mut bounded = Bounded { clear: &mut clear, limit };
    apart(|| open(identities, sealed, &mut bounded))?;
    Ok(SecretBytes::fill(clear.len(), |place| place.copy_from_slice(&clear)))
}

/// Never grows beyond what was allocated, so that no copy of the secret stays behind.
struct Bounded<'a> {
    clear: &'a mut Vec<u8>,
    limit: usize,
}

impl Write for Bounded<'_> {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        if self.clear.len() + octets.len() > self.limit {
            return Err(io::ErrorKind::InvalidData.into());
        }
        self.clear.extend_from_slice(octets);
        Ok(octets.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn opened(error: age::DecryptError) -> OpenError {
    match error {
        age::DecryptError::NoMatchingKeys | age::DecryptError::KeyDecryptionFailed => OpenError::Identity,
        age::DecryptError::Io(error) if error.kind() != io::ErrorKind::UnexpectedEof => OpenError::Io(error),
        _ => OpenError::Header,
    }
}

fn pump(from: &mut impl Read, to: &mut impl Write, read: impl Fn(io::Error) -> io::Error) -> io::Result<u64> {
    let mut chunk = Zeroizing::new(vec![0; CHUNK_OCTETS]);
    let mut octets = 0;
    loop {
        let count = match from.read(&mut chunk) {
            Ok(0) => return Ok(octets),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(read(error)),
        };
        to.write_all(chunk.get(..count).unwrap_or_default())?;
        octets += u64::try_from(count).unwrap_or(0);
    }
}

#[cfg(test)]
mod tests;

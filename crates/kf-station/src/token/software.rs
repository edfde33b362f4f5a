//! A token in files: keys and counters sealed under a secret, which is itself sealed under a passphrase. For demonstrations
//! and for lines without a token: whoever copies directory and passphrase has the station. The copy is found at merge, not here.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use kf_backend::SealError;
use kf_batch::P256Key;
use kf_crypto::{Argon2Cost, HpkePrivateKey, PrivateKey};
use kf_key::{KeyAlgorithm, SecretArray, SecretBytes};

use super::{StationKey, StationToken, TokenError};

/// Why such a token is not made or opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SoftwareTokenError {
    /// The sealed secret.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// A file.
    #[error("cannot use {}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A file that is not what it was.
    #[error("{} is damaged or of another token", .0.display())]
    Damaged(PathBuf),
    /// The provider.
    #[error("a cryptographic operation failed")]
    Crypto,
}

/// A token in a directory.
pub struct SoftwareToken {
    directory: PathBuf,
    secret: SecretArray<32>,
    keys: Vec<(StationKey, PrivateKey)>,
    transport: HpkePrivateKey,
    counters: Mutex<BTreeMap<[u8; 16], Counter>>,
}

/// A counter that was raised since the token was opened. Its file has two places, and the one that holds the lower number is
/// written: a write that power interrupts spoils what nobody needs, one sync is enough, and the file never grows.
struct Counter {
    file: File,
    number: u64,
    place: usize,
}

/// The two places, a disk's block apart, so that no interrupted write reaches both.
const PLACES: [u64; 2] = [0, 4_096];
/// A number under AES-256-GCM: nonce, eight octets, tag.
const SEALED_OCTETS: usize = 12 + 8 + 16;

impl std::fmt::Debug for SoftwareToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SoftwareToken").field("directory", &self.directory).finish_non_exhaustive()
    }
}

const SECRET: &str = "token.json";

impl SoftwareToken {
    /// Makes one in `directory`, which is made when missing.
    ///
    /// # Errors
    /// [`SoftwareTokenError`]; an existing one is never overwritten.
    pub fn create(directory: &Path, passphrase: &SecretBytes) -> Result<Self, SoftwareTokenError> {
        let io = |source| SoftwareTokenError::Io { path: directory.to_owned(), source };
        fs::DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(io)?;
        let secret = kf_backend::create_sealed_root(&directory.join(SECRET), passphrase, Argon2Cost::FLOOR)?;
        for key in StationKey::ALL {
            let pair = PrivateKey::generate(KeyAlgorithm::P256).map_err(|_opaque| SoftwareTokenError::Crypto)?;
            let pkcs8 = pair.to_pkcs8().map_err(|_opaque| SoftwareTokenError::Crypto)?;
            // Exposed to be sealed.
            let sealed = kf_crypto::seal(&secret, key.label().as_bytes(), pkcs8.expose())
                .map_err(|_opaque| SoftwareTokenError::Crypto)?;
            replace(directory, key.label(), &sealed).map_err(io)?;
        }
        Self::with_secret(directory, secret)
    }

    /// Opens one.
    ///
    /// # Errors
    /// [`SoftwareTokenError`].
    pub fn open(directory: &Path, passphrase: &SecretBytes) -> Result<Self, SoftwareTokenError> {
        let secret = kf_backend::open_sealed_root(&directory.join(SECRET), passphrase)?;
        Self::with_secret(directory, secret)
    }

    fn with_secret(directory: &Path, secret: SecretArray<32>) -> Result<Self, SoftwareTokenError> {
        let mut keys = Vec::new();
        for key in StationKey::ALL {
            let path = directory.join(key.label());
            let sealed = fs::read(&path).map_err(|source| SoftwareTokenError::Io { path: path.clone(), source })?;
            let pkcs8 = kf_crypto::open(&secret, key.label().as_bytes(), &sealed)
                .map_err(|_opaque| SoftwareTokenError::Damaged(path.clone()))?;
            let pair = PrivateKey::from_pkcs8(KeyAlgorithm::P256, &pkcs8)
                .map_err(|_opaque| SoftwareTokenError::Damaged(path))?;
            keys.push((key, pair));
        }
        let material = SecretArray::fill(|out: &mut [u8; 32]| {
            // Exposed to derive the transport key.
            *out = kf_crypto::hmac_sha256(secret.expose(), b"keyfleet station transport key v1");
        });
        let transport = HpkePrivateKey::derive(&material).map_err(|_opaque| SoftwareTokenError::Crypto)?;
        Ok(Self { directory: directory.to_owned(), secret, keys, transport, counters: Mutex::default() })
    }

    fn key(&self, key: StationKey) -> Result<&PrivateKey, TokenError> {
        self.keys.iter().find(|(known, _)| *known == key).map(|(_, pair)| pair).ok_or(TokenError("know the key"))
    }

    /// The highest number in the file of a counter, and its place; `None` when there is no file.
    fn read_counter(&self, batch: &[u8; 16]) -> Result<Option<(u64, usize)>, TokenError> {
        let unreadable = TokenError("read its counter");
        let file = match File::open(self.directory.join(counter_name(batch))) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(_) => return Err(unreadable),
        };
        let number = |place: &u64| {
            let mut sealed = [0; SEALED_OCTETS];
            file.read_exact_at(&mut sealed, *place).ok()?;
            let number = kf_crypto::open(&self.secret, &counter_context(batch), &sealed).ok()?;
            // Exposed: a number is no secret, it is sealed to be unforgeable.
            number.expose().try_into().map(u64::from_le_bytes).ok()
        };
        let found = PLACES.iter().enumerate().filter_map(|(place, at)| Some((number(at)?, place)));
        found.max().map(Some).ok_or(unreadable)
    }

    fn seal_counter(&self, batch: &[u8; 16], to: u64) -> io::Result<Vec<u8>> {
        let sealed = kf_crypto::seal(&self.secret, &counter_context(batch), &to.to_le_bytes());
        sealed.map_err(|_opaque| io::Error::other("not sealed"))
    }

    /// The counter of a batch, its file made when there is none.
    fn open_counter(&self, batch: &[u8; 16]) -> io::Result<Counter> {
        let name = counter_name(batch);
        let (number, place) = match self.read_counter(batch).map_err(io::Error::other)? {
            Some(found) => found,
            None => {
                replace(&self.directory, &name, &self.seal_counter(batch, 0)?)?;
                (0, 0)
            }
        };
        let file = OpenOptions::new().write(true).open(self.directory.join(name))?;
        Ok(Counter { file, number, place })
    }

    fn raise(&self, counter: &mut Counter, batch: &[u8; 16], to: u64) -> io::Result<()> {
        let place = 1 - counter.place;
        let at = PLACES.get(place).ok_or_else(|| io::Error::other("two places"))?;
        counter.file.write_all_at(&self.seal_counter(batch, to)?, *at)?;
        counter.file.sync_data()?;
        (counter.number, counter.place) = (to, place);
        Ok(())
    }
}

fn counter_name(batch: &[u8; 16]) -> String {
    format!("counter-{}", hex::encode(batch))
}

fn counter_context(batch: &[u8; 16]) -> Vec<u8> {
    [b"keyfleet station counter v1\0".as_slice(), batch].concat()
}

/// Replaces a file so that a power cut leaves the old content or the new.
pub(super) fn replace(directory: &Path, name: &str, content: &[u8]) -> io::Result<()> {
    let temporary = directory.join(format!("{name}.new"));
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&temporary, directory.join(name))?;
    File::open(directory)?.sync_all()
}

impl StationToken for SoftwareToken {
    fn source(&self) -> &str {
        "software"
    }

    fn public_key(&self, key: StationKey) -> Result<P256Key, TokenError> {
        P256Key::from_spki(&self.key(key)?.spki()).map_err(|_format| TokenError("give its public key"))
    }

    fn sign(&self, key: StationKey, message: &[u8]) -> Result<Vec<u8>, TokenError> {
        self.key(key)?.sign(message).map_err(|_opaque| TokenError("sign"))
    }

    fn transport_key(&self) -> Result<P256Key, TokenError> {
        P256Key::from_point(*self.transport.public_key()).map_err(|_format| TokenError("give its transport key"))
    }

    fn agree(&self, peer: &[u8; 65]) -> Result<SecretArray<32>, TokenError> {
        self.transport.agree(peer).map_err(|_opaque| TokenError("agree on the batch key"))
    }

    fn fill_random(&self, out: &mut [u8]) -> Result<(), TokenError> {
        kf_crypto::fill_random(out).map_err(|_opaque| TokenError("give random octets"))
    }

    fn counter(&self, batch: &[u8; 16]) -> Result<u64, TokenError> {
        let _guard = self.counters.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(self.read_counter(batch)?.map_or(0, |(number, _)| number))
    }

    fn advance(&self, batch: &[u8; 16], to: u64) -> Result<(), TokenError> {
        let failed = |error: io::Error| {
            if crate::disk::is_full(&error) { TokenError::DISK_FULL } else { TokenError("advance its counter") }
        };
        let mut counters = self.counters.lock().unwrap_or_else(PoisonError::into_inner);
        let mut counter = match counters.remove(batch) {
            Some(counter) => counter,
            None => self.open_counter(batch).map_err(failed)?,
        };
        if counter.number < to {
            // After a failure it is opened again: what is in the file is not known.
            self.raise(&mut counter, batch, to).map_err(failed)?;
        }
        counters.insert(*batch, counter);
        Ok(())
    }
}

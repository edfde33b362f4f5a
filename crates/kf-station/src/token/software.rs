//! A token in files: keys and counters sealed under a secret, which is itself sealed under a passphrase. For demonstrations
//! and for lines without a token: whoever copies directory and passphrase has the station. The copy is found at merge, not here.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use kf_backend::SealError;
use kf_batch::P256Key;
use kf_crypto::{Argon2Cost, HpkePrivateKey, PrivateKey};
use kf_key::{KeyAlgorithm, SecretArray, SecretBytes};

use super::{Generation, StationKey, StationToken, TokenError, labels, transport_label};

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
    identity: PrivateKey,
    /// Those that were used since the token was opened.
    generations: Mutex<BTreeMap<Generation, Arc<Keys>>>,
    counters: Mutex<BTreeMap<[u8; 16], Counter>>,
}

/// The keys of a generation.
struct Keys {
    authority: PrivateKey,
    record: PrivateKey,
    transport: HpkePrivateKey,
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
        let path = directory.join(SECRET);
        if path.exists() {
            return Err(io(io::ErrorKind::AlreadyExists.into()));
        }
        let secret = kf_crypto::random_secret::<32>().map_err(|_opaque| SoftwareTokenError::Crypto)?;
        draw_pair(directory, &secret, &StationKey::Identity.label()).map_err(io)?;
        // Last, so that a token that is there is whole.
        kf_backend::seal_root(&path, passphrase, Argon2Cost::FLOOR, &secret)?;
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
        let label = StationKey::Identity.label();
        let path = directory.join(&label);
        let sealed = fs::read(&path).map_err(|source| SoftwareTokenError::Io { path: path.clone(), source })?;
        let identity = open_pair(&secret, &label, &sealed).ok_or(SoftwareTokenError::Damaged(path))?;
        let (generations, counters) = (Mutex::default(), Mutex::default());
        Ok(Self { directory: directory.to_owned(), secret, identity, generations, counters })
    }

    /// The keys of a generation.
    fn keys(&self, generation: Generation) -> Result<Arc<Keys>, TokenError> {
        let mut generations = self.generations.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = generations.get(&generation) {
            return Ok(Arc::clone(known));
        }
        let pair = |key: StationKey| {
            let label = key.label();
            open_pair(&self.secret, &label, &self.sealed(&label)?).ok_or(TokenError("open its keys"))
        };
        let (authority, record) = (pair(StationKey::Authority(generation))?, pair(StationKey::Record(generation))?);
        let label = transport_label(generation);
        let transport =
            open_transport(&self.secret, &label, &self.sealed(&label)?).ok_or(TokenError("open its keys"))?;
        let keys = Arc::new(Keys { authority, record, transport });
        generations.insert(generation, Arc::clone(&keys));
        Ok(keys)
    }

    fn sealed(&self, label: &str) -> Result<Vec<u8>, TokenError> {
        fs::read(self.directory.join(label)).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => TokenError::MISSING,
            _ => TokenError("read its keys"),
        })
    }

    /// Does something with a key that signs.
    fn with<T>(
        &self,
        key: StationKey,
        act: impl FnOnce(&PrivateKey) -> Result<T, TokenError>,
    ) -> Result<T, TokenError> {
        match key {
            StationKey::Identity => act(&self.identity),
            StationKey::Authority(generation) => act(&self.keys(generation)?.authority),
            StationKey::Record(generation) => act(&self.keys(generation)?.record),
        }
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

fn draw_pair(directory: &Path, secret: &SecretArray<32>, label: &str) -> io::Result<()> {
    let opaque = |_opaque| io::Error::other("not made");
    let pair = PrivateKey::generate(KeyAlgorithm::P256).map_err(opaque)?;
    let pkcs8 = pair.to_pkcs8().map_err(opaque)?;
    // Exposed to be sealed.
    replace(directory, label, &kf_crypto::seal(secret, label.as_bytes(), pkcs8.expose()).map_err(opaque)?)
}

fn draw_transport(directory: &Path, secret: &SecretArray<32>, label: &str) -> io::Result<()> {
    let opaque = |_opaque| io::Error::other("not made");
    let material = kf_crypto::random_secret::<32>().map_err(opaque)?;
    // Exposed to be sealed.
    replace(directory, label, &kf_crypto::seal(secret, label.as_bytes(), material.expose()).map_err(opaque)?)
}

fn open_pair(secret: &SecretArray<32>, label: &str, sealed: &[u8]) -> Option<PrivateKey> {
    let pkcs8 = kf_crypto::open(secret, label.as_bytes(), sealed).ok()?;
    PrivateKey::from_pkcs8(KeyAlgorithm::P256, &pkcs8).ok()
}

fn open_transport(secret: &SecretArray<32>, label: &str, sealed: &[u8]) -> Option<HpkePrivateKey> {
    let opened = kf_crypto::open(secret, label.as_bytes(), sealed).ok()?;
    // Exposed to be moved into its type.
    let material: &[u8; 32] = opened.expose().try_into().ok()?;
    HpkePrivateKey::derive(&SecretArray::fill(|out: &mut [u8; 32]| *out = *material)).ok()
}

/// Overwrites files and removes them, with what an interrupted [`replace`] left of them, and looks for them.
pub(super) fn destroy_files(directory: &Path, names: &[String]) -> io::Result<()> {
    for name in names {
        for path in [directory.join(name), directory.join(format!("{name}.new"))] {
            let file = match OpenOptions::new().write(true).open(&path) {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            let length = usize::try_from(file.metadata()?.len()).map_err(io::Error::other)?;
            file.write_all_at(&vec![0; length], 0)?;
            file.sync_all()?;
            fs::remove_file(&path)?;
        }
    }
    File::open(directory)?.sync_all()?;
    let left = names.iter().find(|name| directory.join(name).symlink_metadata().is_ok());
    left.map_or(Ok(()), |_left| Err(io::ErrorKind::AlreadyExists.into()))
}

/// What a failure to make keys means.
pub(super) fn not_drawn(error: &io::Error) -> TokenError {
    if crate::disk::is_full(error) { TokenError::FULL } else { TokenError("make the keys of a batch") }
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
        self.with(key, |pair| P256Key::from_spki(&pair.spki()).map_err(|_format| TokenError("give its public key")))
    }

    fn sign(&self, key: StationKey, message: &[u8]) -> Result<Vec<u8>, TokenError> {
        self.with(key, |pair| pair.sign(message).map_err(|_opaque| TokenError("sign")))
    }

    fn transport_key(&self, generation: Generation) -> Result<P256Key, TokenError> {
        let keys = self.keys(generation)?;
        P256Key::from_point(*keys.transport.public_key()).map_err(|_format| TokenError("give its transport key"))
    }

    fn agree(&self, generation: Generation, peer: &[u8; 65]) -> Result<SecretArray<32>, TokenError> {
        self.keys(generation)?.transport.agree(peer).map_err(|_opaque| TokenError("agree on the batch key"))
    }

    fn draw(&self, generation: Generation) -> Result<(), TokenError> {
        let [authority, record, transport] = labels(generation);
        let is_missing = |label: &str| !self.directory.join(label).exists();
        for label in [authority, record].iter().filter(|label| is_missing(label)) {
            draw_pair(&self.directory, &self.secret, label).map_err(|error| not_drawn(&error))?;
        }
        if is_missing(&transport) {
            draw_transport(&self.directory, &self.secret, &transport).map_err(|error| not_drawn(&error))?;
        }
        Ok(())
    }

    fn destroy(&self, generation: Generation) -> Result<&'static str, TokenError> {
        self.generations.lock().unwrap_or_else(PoisonError::into_inner).remove(&generation);
        destroy_files(&self.directory, &labels(generation)).map_err(|_io| TokenError::NOT_DESTROYED)?;
        Ok("sealed files overwritten, removed, and looked for")
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

//! A station's keys in its TPM 2.0. A copy of the disk is worth nothing without it, and an old copy is refused: what is counted stands
//! in a sealed file whose generation is a counter in the TPM's own memory.
//!
//! ```text
//! index                        the index of that counter, hexadecimal, and what it showed at first
//! secret                       what seals the file, itself sealed to the TPM
//! keyfleet-station-identity    an object that this TPM alone loads
//! keyfleet-station-…-N         such objects of generation N: two keys that sign, one for ECDH
//! counters                     two places, each: generation and all counts under AES-256-GCM
//! ```
//! Everything takes the station's passphrase as its authorisation value; the TPM counts wrong ones and locks itself.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kf_batch::P256Key;
use kf_key::{SecretArray, SecretBytes};
use kf_tpm::{Blob, DEFAULT_DEADLINE, Protection, Tpm, TpmError};

use super::software::{destroy_files, not_drawn, replace};
use super::{Generation, StationKey, StationToken, TokenError, labels, transport_label};

const SECRET: &str = "secret";
const INDEX: &str = "index";
const COUNTERS: &str = "counters";
/// Where a station looks for a free place in the owner's part of the TPM's memory: `KF` and sixteen more.
const FIRST_INDEX: u32 = 0x0180_4b46;
const INDEXES: u32 = 16;
/// The most batches that are counted, and octets of a place in the file for it.
const MAX_COUNTS: usize = 128;
const PLACE_OCTETS: usize = 4_096;
/// Nonce and tag around the content.
const OVERHEAD: usize = 12 + 16;
const CONTEXT: &[u8] = b"keyfleet station counters v1";

/// Why such a token is not made or opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TpmTokenError {
    /// The TPM.
    #[error(transparent)]
    Tpm(#[from] TpmError),
    /// A file.
    #[error("cannot use {}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A file that is not what it was.
    #[error("{} is damaged or of another station", .0.display())]
    Damaged(PathBuf),
    /// What was counted is older than the TPM's own counter, or the TPM is another one.
    #[error("the TPM is at generation {tpm}, the file of counters at {file}: it is an old copy; cancel its batches")]
    RolledBack {
        /// Of the TPM.
        tpm: u64,
        /// The newest in the file.
        file: u64,
    },
    /// No place is free in the TPM's memory.
    #[error("the TPM's memory has no place for a counter: clear what other stations left there")]
    NoIndex,
    /// The provider.
    #[error("a cryptographic operation failed")]
    Crypto,
}

/// A station's TPM.
pub struct TpmToken {
    tpm: Tpm,
    protection: Protection,
    directory: PathBuf,
    identity: Key,
    /// Those that were used since the token was opened.
    generations: Mutex<BTreeMap<Generation, Arc<Keys>>>,
    index: u32,
    secret: SecretArray<32>,
    counters: Mutex<Counters>,
    /// A TPM does one thing at a time; whoever else wants something waits here.
    turn: Mutex<()>,
}

/// An object and its public half.
struct Key {
    blob: Blob,
    public: P256Key,
}

/// The keys of a generation.
struct Keys {
    authority: Key,
    record: Key,
    transport: Key,
}

struct Counters {
    file: File,
    generation: u64,
    counts: BTreeMap<[u8; 16], u64>,
}

impl std::fmt::Debug for TpmToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TpmToken").field("tpm", &self.tpm).finish_non_exhaustive()
    }
}

fn io_at(path: &Path) -> impl Fn(io::Error) -> TpmTokenError + use<> {
    let path = path.to_owned();
    move |source| TpmTokenError::Io { path: path.clone(), source }
}

fn read_blob(path: &Path) -> Result<Blob, TpmTokenError> {
    let octets = fs::read(path).map_err(io_at(path))?;
    Blob::from_bytes(&octets).map_err(|_format| TpmTokenError::Damaged(path.to_owned()))
}

fn read_key(path: &Path) -> Result<Key, TpmTokenError> {
    let blob = read_blob(path)?;
    let public = P256Key::from_spki(&blob.spki()?).map_err(|_format| TpmTokenError::Crypto)?;
    Ok(Key { blob, public })
}

impl TpmToken {
    /// Opens the token in `directory`, making what is not there yet: so one whose making was interrupted is finished.
    ///
    /// # Errors
    /// [`TpmTokenError`].
    pub fn open(directory: &Path, address: &str, passphrase: SecretBytes) -> Result<Self, TpmTokenError> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(io_at(directory))?;
        let tpm = Tpm::open(address.parse()?, DEFAULT_DEADLINE)?;
        let protection = Protection { auth: Some(passphrase), policy: None };
        let object = |name: &str, make: &dyn Fn() -> Result<Blob, TpmTokenError>| {
            let path = directory.join(name);
            if !path.exists() {
                replace(directory, name, &make()?.to_bytes()).map_err(io_at(&path))?;
            }
            read_blob(&path)
        };
        let sealed = object(SECRET, &|| {
            let fresh = kf_crypto::random_secret::<32>().map_err(|_opaque| TpmTokenError::Crypto)?;
            // Exposed to be sealed to the TPM.
            let fresh = SecretBytes::fill(32, |out| out.copy_from_slice(fresh.expose()));
            Ok(tpm.seal(&fresh, &protection)?)
        })?;
        let secret = tpm.unseal(&sealed, &protection)?;
        // Exposed to be moved into its type.
        let secret: &[u8; 32] = secret.expose().try_into().map_err(|_length| TpmTokenError::Crypto)?;
        let secret = SecretArray::fill(|out: &mut [u8; 32]| *out = *secret);
        let identity = StationKey::Identity.label();
        object(&identity, &|| Ok(tpm.generate_signature_key(&protection)?))?;
        let identity = read_key(&directory.join(identity))?;
        let (index, first) = index(directory, &tpm, &secret)?;
        let counters = Counters::open(directory, &tpm, index, first, &secret)?;
        Ok(Self {
            tpm,
            protection,
            directory: directory.to_owned(),
            identity,
            generations: Mutex::default(),
            index,
            secret,
            counters: Mutex::new(counters),
            turn: Mutex::new(()),
        })
    }

    /// The keys of a generation.
    fn keys(&self, generation: Generation) -> Result<Arc<Keys>, TokenError> {
        let mut generations = self.generations.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = generations.get(&generation) {
            return Ok(Arc::clone(known));
        }
        let [authority, record, transport] = labels(generation).map(|label| {
            read_key(&self.directory.join(label)).map_err(|error| match error {
                TpmTokenError::Io { source, .. } if source.kind() == io::ErrorKind::NotFound => TokenError::MISSING,
                _ => TokenError("read its keys"),
            })
        });
        let keys = Arc::new(Keys { authority: authority?, record: record?, transport: transport? });
        generations.insert(generation, Arc::clone(&keys));
        Ok(keys)
    }

    /// Does something with a key that signs.
    fn with<T>(&self, key: StationKey, act: impl FnOnce(&Key) -> Result<T, TokenError>) -> Result<T, TokenError> {
        match key {
            StationKey::Identity => act(&self.identity),
            StationKey::Authority(generation) => act(&self.keys(generation)?.authority),
            StationKey::Record(generation) => act(&self.keys(generation)?.record),
        }
    }

    fn raise(&self, generation: u64) -> Result<u64, TpmError> {
        let _turn = self.turn();
        self.tpm.raise_counter(self.index, &counter_auth(&self.secret), generation)
    }

    /// Does something with the counters, which another process of this station, at work on another batch, may have raised.
    fn counting<T>(
        &self,
        failed: TokenError,
        act: impl FnOnce(&mut Counters) -> Result<T, TokenError>,
    ) -> Result<T, TokenError> {
        let mut counters = self.counters.lock().unwrap_or_else(PoisonError::into_inner);
        counters.file.lock().map_err(|_io| failed)?;
        let out = self.catch_up(&mut counters).ok_or(failed).and_then(|()| act(&mut counters));
        counters.file.unlock().map_err(|_io| failed)?;
        out
    }

    /// `None` for a file that is older than what was read before: a copy was put in its place.
    fn catch_up(&self, counters: &mut Counters) -> Option<()> {
        let (generation, counts) = newest(&counters.file, &self.secret)?;
        if generation < counters.generation {
            return None;
        }
        if generation > counters.generation {
            // It may have been interrupted before it came to the TPM.
            self.raise(generation).ok()?;
            (counters.generation, counters.counts) = (generation, counts);
        }
        Some(())
    }

    fn turn(&self) -> MutexGuard<'_, ()> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The authorisation value of the counter.
fn counter_auth(secret: &SecretArray<32>) -> SecretBytes {
    // Exposed to a derivation of one purpose.
    let auth = kf_crypto::hmac_sha256(secret.expose(), b"keyfleet station tpm counter v1");
    SecretBytes::fill(auth.len(), |out| out.copy_from_slice(&auth))
}

/// The index of this station's counter and what it showed at first: from the file, or the first that is free or was begun by this
/// very station.
fn index(directory: &Path, tpm: &Tpm, secret: &SecretArray<32>) -> Result<(u32, u64), TpmTokenError> {
    let path = directory.join(INDEX);
    if path.exists() {
        let text = fs::read_to_string(&path).map_err(io_at(&path))?;
        let numbers = text
            .trim()
            .split_once(' ')
            .and_then(|(index, first)| Some((u32::from_str_radix(index, 16).ok()?, first.parse().ok()?)));
        return numbers.ok_or(TpmTokenError::Damaged(path));
    }
    let auth = counter_auth(secret);
    let made = |index| Some((index, tpm.make_counter(index, &auth).ok()?));
    let (index, first) = (FIRST_INDEX..FIRST_INDEX + INDEXES).find_map(made).ok_or(TpmTokenError::NoIndex)?;
    replace(directory, INDEX, format!("{index:08x} {first}\n").as_bytes()).map_err(io_at(&path))?;
    Ok((index, first))
}

impl Counters {
    fn open(
        directory: &Path,
        tpm: &Tpm,
        index: u32,
        first: u64,
        secret: &SecretArray<32>,
    ) -> Result<Self, TpmTokenError> {
        let path = directory.join(COUNTERS);
        let in_tpm = tpm.counter(index, &counter_auth(secret))?;
        if !path.exists() {
            if in_tpm != first {
                return Err(TpmTokenError::RolledBack { tpm: in_tpm, file: 0 });
            }
            let mut empty = vec![0; 2 * PLACE_OCTETS];
            let sealed = seal(secret, in_tpm, &BTreeMap::new())?;
            let place = place_of(in_tpm);
            empty.iter_mut().skip(place).zip(&sealed).for_each(|(out, octet)| *out = *octet);
            replace(directory, COUNTERS, &empty).map_err(io_at(&path))?;
        }
        let file = OpenOptions::new().read(true).write(true).open(&path).map_err(io_at(&path))?;
        file.lock().map_err(io_at(&path))?;
        let (generation, counts) = newest(&file, secret).ok_or_else(|| TpmTokenError::Damaged(path.clone()))?;
        let in_tpm = tpm.counter(index, &counter_auth(secret))?;
        // Power may have gone between the file and the TPM.
        if generation != in_tpm && generation.checked_sub(1) != Some(in_tpm) {
            return Err(TpmTokenError::RolledBack { tpm: in_tpm, file: generation });
        }
        tpm.raise_counter(index, &counter_auth(secret), generation)?;
        file.unlock().map_err(io_at(&path))?;
        Ok(Self { file, generation, counts })
    }
}

/// The newest of the two places.
fn newest(file: &File, secret: &SecretArray<32>) -> Option<(u64, BTreeMap<[u8; 16], u64>)> {
    let found = [0, PLACE_OCTETS].into_iter().filter_map(|place| read_place(file, place, secret));
    found.max_by_key(|(generation, _)| *generation)
}

/// Where a generation is written: each beside the one before, so that a torn write spoils what nobody needs.
const fn place_of(generation: u64) -> usize {
    if generation.is_multiple_of(2) { 0 } else { PLACE_OCTETS }
}

/// Generation and counts: eight octets, then 24 for each batch.
fn seal(secret: &SecretArray<32>, generation: u64, counts: &BTreeMap<[u8; 16], u64>) -> Result<Vec<u8>, TpmTokenError> {
    let mut content = vec![0; PLACE_OCTETS - OVERHEAD - 2];
    let used = generation.to_le_bytes().into_iter();
    let entries = counts.iter().flat_map(|(batch, count)| batch.iter().copied().chain(count.to_le_bytes()));
    let length = 8 + 24 * counts.len();
    content.iter_mut().zip(used.chain(entries)).for_each(|(out, octet)| *out = octet);
    let number = u16::try_from(length).map_err(|_long| TpmTokenError::Crypto)?;
    content.extend(number.to_le_bytes());
    kf_crypto::seal(secret, CONTEXT, &content).map_err(|_opaque| TpmTokenError::Crypto)
}

fn read_place(file: &File, place: usize, secret: &SecretArray<32>) -> Option<(u64, BTreeMap<[u8; 16], u64>)> {
    let mut sealed = vec![0; PLACE_OCTETS];
    file.read_exact_at(&mut sealed, u64::try_from(place).ok()?).ok()?;
    let content = kf_crypto::open(secret, CONTEXT, &sealed).ok()?;
    // Exposed: numbers are no secret, they are sealed to be unforgeable.
    let (content, length) = content.expose().split_last_chunk::<2>()?;
    let content = content.get(..usize::from(u16::from_le_bytes(*length)))?;
    let (generation, entries) = content.split_first_chunk::<8>()?;
    let mut counts = BTreeMap::new();
    for entry in entries.chunks_exact(24) {
        let (batch, count) = entry.split_first_chunk::<16>()?;
        counts.insert(*batch, u64::from_le_bytes(count.try_into().ok()?));
    }
    Some((u64::from_le_bytes(*generation), counts))
}

impl StationToken for TpmToken {
    fn source(&self) -> &str {
        "tpm"
    }

    fn public_key(&self, key: StationKey) -> Result<P256Key, TokenError> {
        self.with(key, |key| Ok(key.public))
    }

    fn sign(&self, key: StationKey, message: &[u8]) -> Result<Vec<u8>, TokenError> {
        self.with(key, |key| {
            let _turn = self.turn();
            self.tpm.sign(&key.blob, &self.protection, message).map_err(|_tpm| TokenError("sign"))
        })
    }

    fn transport_key(&self, generation: Generation) -> Result<P256Key, TokenError> {
        Ok(self.keys(generation)?.transport.public)
    }

    fn agree(&self, generation: Generation, peer: &[u8; 65]) -> Result<SecretArray<32>, TokenError> {
        let keys = self.keys(generation)?;
        let _turn = self.turn();
        let agreed = self.tpm.agree(&keys.transport.blob, &self.protection, peer);
        agreed.map_err(|_tpm| TokenError("agree on the batch key"))
    }

    fn draw(&self, generation: Generation) -> Result<(), TokenError> {
        let transport = transport_label(generation);
        for label in labels(generation) {
            if self.directory.join(&label).exists() {
                continue;
            }
            let _turn = self.turn();
            let made = if label == transport {
                self.tpm.generate_agreement_key(&self.protection)
            } else {
                self.tpm.generate_signature_key(&self.protection)
            };
            let made = made.map_err(|_tpm| TokenError("make the keys of a batch"))?;
            replace(&self.directory, &label, &made.to_bytes()).map_err(|error| not_drawn(&error))?;
        }
        Ok(())
    }

    fn destroy(&self, generation: Generation) -> Result<&'static str, TokenError> {
        self.generations.lock().unwrap_or_else(PoisonError::into_inner).remove(&generation);
        destroy_files(&self.directory, &labels(generation)).map_err(|_io| TokenError::NOT_DESTROYED)?;
        Ok("objects that the TPM alone loads overwritten, removed, and looked for")
    }

    fn fill_random(&self, out: &mut [u8]) -> Result<(), TokenError> {
        let _turn = self.turn();
        for part in out.chunks_mut(32) {
            let octets = self.tpm.random().map_err(|_tpm| TokenError("give random octets"))?;
            // Exposed to whoever asked.
            part.iter_mut().zip(octets.expose()).for_each(|(out, octet)| *out = *octet);
        }
        Ok(())
    }

    fn counter(&self, batch: &[u8; 16]) -> Result<u64, TokenError> {
        self.counting(TokenError("read its counter"), |counters| Ok(counters.counts.get(batch).copied().unwrap_or(0)))
    }

    fn advance(&self, batch: &[u8; 16], to: u64) -> Result<(), TokenError> {
        let failed = TokenError("advance its counter");
        self.counting(failed, |counters| {
            if counters.counts.get(batch).is_some_and(|count| *count >= to) {
                return Ok(());
            }
            let mut counts = counters.counts.clone();
            counts.insert(*batch, to);
            if counts.len() > MAX_COUNTS {
                // Identifiers begin with their time: the first is the oldest, whose quota ended long ago. Should it be opened again,
                // its journal shows more than is counted, and is refused.
                counts.pop_first();
            }
            let generation = counters.generation.checked_add(1).ok_or(failed)?;
            let sealed = seal(&self.secret, generation, &counts).map_err(|_crypto| failed)?;
            let place = u64::try_from(place_of(generation)).map_err(|_wide| failed)?;
            let written = counters.file.write_all_at(&sealed, place).and_then(|()| counters.file.sync_data());
            written.map_err(|error| if crate::disk::is_full(&error) { TokenError::DISK_FULL } else { failed })?;
            self.raise(generation).map_err(|_tpm| failed)?;
            counters.generation = generation;
            counters.counts = counts;
            Ok(())
        })
    }
}

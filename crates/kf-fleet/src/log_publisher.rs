//! Publishes the log: tiles, bundles and signed checkpoints below `log/`, and the newest checkpoint to the witness.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError, RwLock, RwLockReadGuard};

use kf_key::{KeyAlgorithm, KeyId, KeyState};
use kf_log::note::cosign_note;
use kf_log::proof::prefix_root;
use kf_log::succession::{Link, SUCCESSION, follow, parse_links};
use kf_log::tile::{TILE_WIDTH, parse_bundle, parse_tile, tile_width};
use kf_log::{Checkpoint, HashReader, NoteError, TileKind, TilePath, VerifierKey};
use kf_signer::{KeyFacts, KeyPurpose, SignerClient};
use kf_store::backup::Missing;
use kf_store::log::PublishedCheckpoint;
use kf_store::{Store, StoreError};

use crate::authority::handle_of;
use crate::{DataDir, Fleet, FleetConfig, FleetError};

/// Name of the fact that holds the id of the log key.
pub(crate) const LOG_KEY_FACT: &str = "log.key";
/// The purpose of the log's keys in the registry.
pub(crate) const LOG_PURPOSE: &str = "log";
/// Name of the fact that holds the links of its successions, JSON.
pub(crate) const LOG_LINKS_FACT: &str = "log.links";
/// Name of the fact that holds the origin of the log.
pub(crate) const LOG_ORIGIN_FACT: &str = "log.origin";
const CHECKPOINT: &str = "checkpoint";
/// Where the witness keeps a copy of the published log.
const MIRROR: &str = "log";
/// The most entries that are put back into the log of a restored registry: some two gibibytes.
const MAX_MISSING: u64 = 4_000_000;

/// Where the log is published, and under which key.
pub(crate) struct LogPublisher {
    dir: PathBuf,
    witness: Option<PathBuf>,
    origin: String,
    keys: RwLock<LogKeys>,
    /// Keys that the witness knows to be destroyed.
    destroyed: Mutex<BTreeSet<KeyId>>,
    turn: tokio::sync::Mutex<()>,
}

/// The keys of the log.
struct LogKeys {
    /// Those that sign, the newest first: while a succession is young the one before signs too.
    signing: Vec<(KeyId, VerifierKey)>,
    /// Every key that ever signed: kept checkpoints are by one of them.
    known: Vec<VerifierKey>,
    /// Of those, keys that the witness knows to have followed and this registry does not hold: it was restored from before they
    /// were made, and they are lost.
    lost: Vec<VerifierKey>,
}

impl LogKeys {
    fn load(store: &Store, signer: &SignerClient, origin: &str) -> Result<Self, FleetError> {
        let fact = store.fact(LOG_KEY_FACT)?.ok_or(FleetError::Bug("the registry was not initialised"))?;
        let current: KeyId = fact.parse().map_err(|_not_an_id| FleetError::Bug("log key id"))?;
        let (mut signing, mut known) = (Vec::new(), Vec::new());
        // Newest first; one that is newer than the current one was begun and is not in use yet.
        for record in store.keys(LOG_PURPOSE)?.into_iter().filter(|key| key.purpose == LOG_PURPOSE && key.id <= current)
        {
            let verifier = verifier_of(origin, &record.spki)?;
            if record.state == KeyState::Active {
                let facts = KeyFacts { purpose: KeyPurpose::LogCheckpoint, issuer_name: Vec::new() };
                signer.register_key(record.id, handle_of(&record)?, facts);
                signing.push((record.id, verifier.clone()));
            }
            known.push(verifier);
        }
        match signing.first() {
            Some((first, _)) if *first == current => Ok(Self { signing, known, lost: Vec::new() }),
            _ => Err(FleetError::Bug("no log key")),
        }
    }

    fn open(&self, note: &str) -> Result<Checkpoint, NoteError> {
        let mut outcome = Err(NoteError::Unsigned);
        for key in &self.known {
            outcome = Checkpoint::open(note, key);
            if outcome != Err(NoteError::Unsigned) {
                break;
            }
        }
        outcome
    }
}

/// Reads hashes for proofs from the registry.
struct StoredHashes<'a>(&'a Store);

impl HashReader for StoredHashes<'_> {
    type Error = StoreError;

    fn hashes(&self, level: u8, index: u64, width: u16) -> Result<Vec<[u8; 32]>, StoreError> {
        let octets = self.0.log_tile(level, index, width)?;
        parse_tile(&octets, width).map_err(|error| StoreError::Corrupt { what: error.to_string() })
    }
}

impl LogPublisher {
    pub(crate) fn open(
        dir: &DataDir,
        config: &FleetConfig,
        store: &Store,
        signer: &SignerClient,
    ) -> Result<Self, FleetError> {
        let origin = store.fact(LOG_ORIGIN_FACT)?.ok_or(FleetError::Bug("the registry was not initialised"))?;
        let keys = RwLock::new(LogKeys::load(store, signer, &origin)?);
        let witness = config.witness_dir.clone();
        let this = Self {
            dir: dir.log_dir(),
            witness,
            origin,
            keys,
            destroyed: Mutex::default(),
            turn: tokio::sync::Mutex::new(()),
        };
        this.learn(store)?;
        Ok(this)
    }

    /// Learns from the witness which keys followed on those of this registry: by the links that the known keys signed, and only as far
    /// as the log there is this one. With them the witness's checkpoints can be opened; sign with them nobody can any more.
    fn learn(&self, store: &Store) -> Result<(), FleetError> {
        let Some(mirror) = self.mirror() else { return Ok(()) };
        let path = mirror.join(SUCCESSION);
        let octets = match std::fs::read(&path) {
            Ok(octets) => octets,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(local(&path, &error)),
        };
        let Ok(links) = parse_links(&octets) else { return Ok(()) };
        let (known, current) = {
            let keys = self.keys();
            (keys.known.clone(), keys.signing.first().map(|(_, verifier)| verifier.clone()))
        };
        let Some(current) = current else { return Ok(()) };
        let (followed, proofs) = follow(&current, &links, |index| {
            Ok::<_, FleetError>(read_entries(&mirror, index, index + 1)?.and_then(|mut entries| entries.pop()))
        })?;
        for proof in &proofs {
            if !self.is_of_this_log(store, &mirror, proof)? {
                return Ok(());
            }
        }
        let lost: Vec<VerifierKey> = followed.into_iter().filter(|key| !known.contains(key)).collect();
        if !lost.is_empty() {
            let mut keys = self.keys.write().unwrap_or_else(PoisonError::into_inner);
            keys.known.extend(lost.iter().cloned());
            keys.lost = lost;
        }
        Ok(())
    }

    /// Whether a checkpoint is over the registry's log, or over it and what the witness has beyond it.
    fn is_of_this_log(&self, store: &Store, mirror: &Path, checkpoint: &Checkpoint) -> Result<bool, FleetError> {
        let head = store.tree();
        if checkpoint.size <= head.size {
            let root = prefix_root(&StoredHashes(store), checkpoint.size, head.size);
            return Ok(root.is_ok_and(|root| root == checkpoint.root));
        }
        if checkpoint.size - head.size > MAX_MISSING {
            return Ok(false);
        }
        let beyond = read_entries(mirror, head.size, checkpoint.size)?;
        Ok(beyond.is_some_and(|entries| store.would_give(entries.into_iter()) == checkpoint.root))
    }

    /// Notes keys that the witness knows to be destroyed.
    pub(crate) fn note_destroyed(&self, keys: impl IntoIterator<Item = KeyId>) {
        self.destroyed.lock().unwrap_or_else(PoisonError::into_inner).extend(keys);
    }

    /// Whether the witness knows a key to be destroyed.
    pub(crate) fn was_destroyed(&self, key: KeyId) -> bool {
        self.destroyed.lock().unwrap_or_else(PoisonError::into_inner).contains(&key)
    }

    /// Keys that followed on those of this registry and are lost with the one that had them.
    pub(crate) fn lost_keys(&self) -> Vec<String> {
        self.keys().lost.iter().map(ToString::to_string).collect()
    }

    /// Reads the keys again: one took over, or one ended.
    pub(crate) fn reload(&self, store: &Store, signer: &SignerClient) -> Result<(), FleetError> {
        let mut keys = LogKeys::load(store, signer, &self.origin)?;
        if keys.signing.first().map(|(key, _)| *key) == Some(self.key()) {
            // As long as no key of this registry has taken over, those that are lost stay lost.
            let before = self.keys();
            keys.known.extend(before.lost.iter().cloned());
            keys.lost.clone_from(&before.lost);
        }
        *self.keys.write().unwrap_or_else(PoisonError::into_inner) = keys;
        Ok(())
    }

    fn keys(&self) -> RwLockReadGuard<'_, LogKeys> {
        self.keys.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn origin(&self) -> &str {
        &self.origin
    }

    /// The key in use.
    pub(crate) fn key(&self) -> KeyId {
        self.keys().signing.first().map_or(KeyId::from_bytes([0; 16]), |(key, _)| *key)
    }

    /// Keys that sign and have a successor.
    pub(crate) fn retiring(&self) -> Vec<KeyId> {
        self.keys().signing.iter().skip(1).map(|(key, _)| *key).collect()
    }

    /// The links of its successions, oldest first.
    pub(crate) fn links(&self, store: &Store) -> Result<Vec<Link>, FleetError> {
        match store.fact(LOG_LINKS_FACT)? {
            None => Ok(Vec::new()),
            Some(text) => parse_links(text.as_bytes()).map_err(|_bug| FleetError::Bug("links of the log")),
        }
    }

    /// Writes the links beside the checkpoint, and at the witness, where they differ.
    pub(crate) fn write_links(&self, store: &Store) -> Result<(), FleetError> {
        let Some(text) = store.fact(LOG_LINKS_FACT)? else { return Ok(()) };
        for place in std::iter::once(self.dir.clone()).chain(self.mirror()) {
            let path = place.join(SUCCESSION);
            if std::fs::read(&path).is_ok_and(|there| there == text.as_bytes()) {
                continue;
            }
            write_durably(&path, text.as_bytes())?;
        }
        Ok(())
    }

    pub(crate) const fn has_witness(&self) -> bool {
        self.witness.is_some()
    }

    /// The public half of the key in use.
    pub(crate) fn verifier(&self) -> String {
        self.keys().signing.first().map_or_else(String::new, |(_, verifier)| verifier.to_string())
    }

    /// Compares the registry with the newest checkpoints kept beside it and outside. `Some(why)`: it went back or
    /// forked, and whoever restored it must look.
    pub(crate) fn compare_with_witness(&self, store: &Store) -> Result<Option<String>, FleetError> {
        for place in self.witness.iter().chain([&self.dir]) {
            let path = place.join(CHECKPOINT);
            let note = match std::fs::read_to_string(&path) {
                Ok(note) => note,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                Err(error) => return Err(local(&path, &error)),
            };
            if let Some(why) = self.compare_with(store, &path, &note)? {
                return Ok(Some(why));
            }
        }
        Ok(None)
    }

    fn compare_with(&self, store: &Store, path: &Path, note: &str) -> Result<Option<String>, FleetError> {
        let seen = match self.keys().open(note) {
            Ok(seen) => seen,
            Err(error) => return Ok(Some(format!("{}: {error}", path.display()))),
        };
        let head = store.tree();
        if seen.size > head.size {
            return Ok(Some(format!(
                "{} has seen {} log entries, the registry holds {}: it was rolled back",
                path.display(),
                seen.size,
                head.size
            )));
        }
        let root = if seen.size == 0 {
            kf_log::hash::empty_root()
        } else {
            prefix_root(&StoredHashes(store), seen.size, head.size)
                .map_err(|_proof| FleetError::Bug("log hashes cannot be read"))?
        };
        let forked = root != seen.root;
        Ok(forked.then(|| format!("{} does not fit the registry's log: it was forked", path.display())))
    }

    /// Publishes what was committed since the last checkpoint.
    pub(crate) async fn publish(&self, store: &Store, signer: &SignerClient) -> Result<(), FleetError> {
        let _turn = self.turn.lock().await;
        let head = store.tree();
        let published = store.checkpoint()?.map_or(0, |checkpoint| checkpoint.size);
        let is_out = self.dir.join(CHECKPOINT).exists();
        if head.size == 0 || (published == head.size && is_out) {
            return Ok(());
        }
        let from = if is_out { published } else { 0 };
        self.write_tiles(store, &self.dir, from, head.size)?;
        if let Some(mirror) = self.mirror() {
            // What a restored registry has lost is read from here; see `recovery`.
            let from = if mirror.join(CHECKPOINT).exists() { published } else { 0 };
            self.write_tiles(store, &mirror, from, head.size)?;
        }
        self.write_links(store)?;
        let note = self.signed(signer, head.size, head.root).await?;
        if published < head.size {
            store.publish_checkpoint(PublishedCheckpoint { size: head.size, note: note.clone() }).await?;
        }
        write_durably(&self.dir.join(CHECKPOINT), note.as_bytes())?;
        if let (Some(witness), Some(mirror)) = (&self.witness, self.mirror()) {
            write_durably(&mirror.join(CHECKPOINT), note.as_bytes())?;
            write_durably(&witness.join(CHECKPOINT), note.as_bytes())?;
        }
        Ok(())
    }

    /// The checkpoint, signed by every key that signs.
    async fn signed(&self, signer: &SignerClient, size: u64, root: [u8; 32]) -> Result<String, FleetError> {
        let signing = self.keys().signing.clone();
        let text = Checkpoint { origin: self.origin.clone(), size, root }.to_text();
        let mut note = format!("{text}\n");
        for (key, verifier) in signing {
            let signature = signer.sign_checkpoint(key, &self.origin, size, root).await?;
            note = cosign_note(&note, &verifier, &signature)
                .map_err(|_note| FleetError::Bug("the checkpoint's signature does not verify"))?;
        }
        Ok(note)
    }

    /// Where the witness keeps a copy of the published log.
    fn mirror(&self) -> Option<PathBuf> {
        self.witness.as_ref().map(|witness| witness.join(MIRROR))
    }

    /// What the witness has of the log beyond the registry: entries from `size` on, if they are all there and lead to its
    /// newest checkpoint.
    pub(crate) fn missing(&self, store: &Store) -> Result<Option<Missing>, FleetError> {
        let (Some(witness), Some(mirror)) = (&self.witness, self.mirror()) else { return Ok(None) };
        let path = witness.join(CHECKPOINT);
        let note = match std::fs::read_to_string(&path) {
            Ok(note) => note,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(local(&path, &error)),
        };
        let Ok(seen) = self.keys().open(&note) else { return Ok(None) };
        let from = store.tree().size;
        if seen.size <= from || seen.size - from > MAX_MISSING {
            return Ok(None);
        }
        let Some(entries) = read_entries(&mirror, from, seen.size)? else { return Ok(None) };
        let fits = store.would_give(entries.iter().cloned()) == seen.root;
        Ok(fits.then_some(Missing { from, entries }))
    }

    fn write_tiles(&self, store: &Store, place: &Path, from: u64, to: u64) -> Result<(), FleetError> {
        for index in tiles_between(from, to) {
            let width = tile_width(to, 0, index);
            let bundle = store.log_bundle(index, width)?;
            write_tile(place, TileKind::Entries, index, width, &bundle)?;
        }
        for level in 0..8u8 {
            let shift = u32::from(level) * 8;
            let (old, new) = (from.checked_shr(shift).unwrap_or(0), to.checked_shr(shift).unwrap_or(0));
            if new == 0 {
                break;
            }
            for index in tiles_between(old, new) {
                let width = tile_width(to, level, index);
                let tile = store.log_tile(level, index, width)?;
                write_tile(place, TileKind::Hashes(level), index, width, &tile)?;
            }
        }
        Ok(())
    }
}

fn write_tile(place: &Path, kind: TileKind, index: u64, width: u16, octets: &[u8]) -> Result<(), FleetError> {
    let tile = TilePath::new(kind, index, width).map_err(|_path| FleetError::Bug("tile path"))?;
    let path = place.join(tile.to_string());
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).map_err(|error| local(parent, &error))?;
    }
    let temporary = path.with_extension("tmp");
    std::fs::write(&temporary, octets).map_err(|error| local(&temporary, &error))?;
    std::fs::rename(&temporary, &path).map_err(|error| local(&path, &error))?;
    if width == TILE_WIDTH {
        // The partial tiles that led here are of no more use; that they go is not important.
        let mut partial = path.into_os_string();
        partial.push(".p");
        let _ = std::fs::remove_dir_all(partial);
    }
    Ok(())
}

/// The entries that a witness has from `from` up to `to`, not compared with anything; `None` when one is missing, or for more than
/// would ever be put back.
pub(crate) fn read_mirrored(witness: &Path, from: u64, to: u64) -> Result<Option<Vec<Vec<u8>>>, FleetError> {
    if to.saturating_sub(from) > MAX_MISSING {
        return Ok(None);
    }
    read_entries(&witness.join(MIRROR), from, to)
}

/// The entries from `from` up to `to` of a published log; `None` when one is missing.
fn read_entries(place: &Path, from: u64, to: u64) -> Result<Option<Vec<Vec<u8>>>, FleetError> {
    let width = u64::from(TILE_WIDTH);
    // Only to know how wide the last bundle is: nothing is believed of it here.
    let note = std::fs::read_to_string(place.join(CHECKPOINT)).unwrap_or_default();
    let size = Checkpoint::from_text(&note).map_or(to, |said| said.size.max(to));
    let mut entries = Vec::new();
    for index in tiles_between(from, to) {
        let Some(bundle) = read_bundle(place, index, tile_width(size, 0, index))? else { return Ok(None) };
        let Ok(found) = parse_bundle(&bundle) else { return Ok(None) };
        let first = index * width;
        let wanted = found.into_iter().zip(first..to).filter(|(_, at)| *at >= from);
        entries.extend(wanted.map(|(entry, _)| entry.to_vec()));
    }
    Ok((u64::try_from(entries.len()) == Ok(to - from)).then_some(entries))
}

/// A bundle of this width, or the complete one.
fn read_bundle(place: &Path, index: u64, width: u16) -> Result<Option<Vec<u8>>, FleetError> {
    for width in [width, TILE_WIDTH] {
        let tile = TilePath::new(TileKind::Entries, index, width).map_err(|_path| FleetError::Bug("tile path"))?;
        let path = place.join(tile.to_string());
        match std::fs::read(&path) {
            Ok(bundle) => return Ok(Some(bundle)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(local(&path, &error)),
        }
    }
    Ok(None)
}

/// Tiles of 256 that hold something from `old` up to `new`.
fn tiles_between(old: u64, new: u64) -> std::ops::RangeInclusive<u64> {
    let width = u64::from(TILE_WIDTH);
    if new <= old {
        #[allow(clippy::reversed_empty_ranges, reason = "nothing new: no tile")]
        return 1..=0;
    }
    old / width..=(new - 1) / width
}

/// The verifier key of a log from the SubjectPublicKeyInfo of its key.
pub(crate) fn verifier_of(origin: &str, spki: &[u8]) -> Result<VerifierKey, FleetError> {
    let public_key = match kf_crypto::public_key_of_spki(spki) {
        Ok((KeyAlgorithm::Ed25519, key)) => <[u8; 32]>::try_from(key).ok(),
        _ => None,
    };
    let public_key = public_key.ok_or(FleetError::Bug("the log key is not Ed25519"))?;
    VerifierKey::new(origin, public_key).map_err(|_name| FleetError::Bug("log origin"))
}

/// Replaces a file so that a crash leaves the old one or the new one.
pub(crate) fn write_durably(path: &Path, octets: &[u8]) -> Result<(), FleetError> {
    let parent = path.parent().ok_or(FleetError::Bug("a file without a directory"))?;
    std::fs::create_dir_all(parent).map_err(|error| local(parent, &error))?;
    let temporary = path.with_extension("tmp");
    let write = || -> std::io::Result<()> {
        let mut file = std::fs::File::create(&temporary)?;
        file.write_all(octets)?;
        file.sync_all()?;
        std::fs::rename(&temporary, path)?;
        std::fs::File::open(parent)?.sync_all()
    };
    write().map_err(|error| local(path, &error))
}

pub(crate) fn local(path: &Path, error: &std::io::Error) -> FleetError {
    FleetError::Local { path: path.display().to_string(), problem: error.to_string() }
}

impl Fleet {
    /// Publishes the log now; a failure is reported and tried again at the next turn.
    pub(crate) async fn publish_log(&self) {
        if let Err(error) = self.log.publish(&self.store, &self.signer).await {
            tracing::error!(error = %error, "the log was not published");
            metrics::counter!("keyfleet_log_publish_failures_total").increment(1);
        }
    }
}

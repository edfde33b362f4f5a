//! Restore: from the directory of a backup, or of many, to a data directory that a server starts from. Works without a server.
//!
//! A full backup is opened, and the increments on it one after the other, each laid beside the copy as its write-ahead log, which
//! SQLite takes up.
//!
//! What can be checked without the root is checked first: lengths, digests, origin, the witness. What only the root can tell, that the
//! manifest is of this fleet, the next start checks before it serves anything ([`crate::recovery`]).

mod chain;
mod verify;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use kf_age::{Identity, OpenError};
use kf_api::backup::BackupManifest;
use kf_key::{BackupId, SecretBytes, with_wiped_stack};
use kf_store::StoreError;
use kf_store::backup::{CopyFacts, inspect, take_up};
use serde::Serialize;

use crate::backup::{CONFIG, INCREMENT, MANIFEST, REGISTRY, SEAL, digest_of, sync_dir};
use crate::fence::FenceKeeper;
use crate::log_publisher::{local, read_mirrored, write_durably};
use crate::recovery::{Marker, count_acts};
use crate::{DataDir, FleetConfig, FleetError};

use chain::Found;
pub use chain::RestorePoint;
pub use verify::{Verified, verify_backup, verify_backups};

/// The most octets of a manifest or its seal.
const MAX_MANIFEST_OCTETS: u64 = 64 * 1024;
/// Octets of stack that are written over after backups and keys were opened: the ciphers leave pieces of the identities there.
const STACK_OCTETS: usize = 128 * 1024;
/// The most octets of a sealed backup key.
const MAX_KEY_OCTETS: usize = 4_096;

/// What opens backups. Debug does not print it.
#[derive(Debug)]
pub struct BackupKeys(Vec<Identity>);

impl BackupKeys {
    /// From sealed backup keys and the identity files of people whom they were sealed to; without sealed keys the identities
    /// are the backup keys themselves, for example out of an escrow.
    ///
    /// # Errors
    /// [`FleetError::Invalid`] for what is no identity, and for a key that none of them opens.
    pub fn open(sealed: &[Vec<u8>], identities: &[SecretBytes]) -> Result<Self, FleetError> {
        with_wiped_stack::<STACK_OCTETS, _>(|| Self::opened(sealed, identities))
    }

    fn opened(sealed: &[Vec<u8>], identities: &[SecretBytes]) -> Result<Self, FleetError> {
        let invalid = |field: &str, problem: String, remedy: &str| FleetError::invalid(field, problem, remedy);
        let mut people = Vec::new();
        for file in identities {
            // Exposed to be parsed.
            let identity = Identity::from_file(file.expose()).map_err(|error| {
                invalid(
                    "identity",
                    error.to_string(),
                    "give the file that age-keygen or `keyfleet backup key create` wrote",
                )
            })?;
            people.push(identity);
        }
        if sealed.is_empty() {
            return Ok(Self(people));
        }
        let by: Vec<&Identity> = people.iter().collect();
        let mut keys = Vec::new();
        for key in sealed {
            let opened = kf_age::open_secret(&by, key, MAX_KEY_OCTETS).map_err(|error| {
                invalid("key", error.to_string(), "give the identity of somebody whom this backup key was sealed to")
            })?;
            let key = Identity::from_file(opened.expose()) // parsed, like the others
                .map_err(|error| {
                    invalid("key", error.to_string(), "give a key that `keyfleet backup key create` made")
                })?;
            keys.push(key);
        }
        Ok(Self(keys))
    }
}

/// How to restore.
#[derive(Debug)]
pub struct RestoreOptions {
    /// The directory of a backup, or the one in which backups lie: then the newest of them.
    pub from: PathBuf,
    /// The newest of them that does not lie beyond this point.
    pub at: Option<RestorePoint>,
    /// What opens it.
    pub keys: BackupKeys,
    /// The witness, where it is not where the backup's configuration says.
    pub witness: Option<PathBuf>,
    /// Whether a backup is taken that is older than what the witness has seen.
    pub accept_loss: bool,
    /// Check everything, change nothing.
    pub dry_run: bool,
}

/// What a restore did, or would do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Restoration {
    /// Whether it was done.
    pub done: bool,
    /// What the backup says of itself: `as_of` and `log_size` are the point that it comes to.
    pub manifest: BackupManifest,
    /// The backups that were opened for it, the full one first.
    pub chain: Vec<BackupId>,
    /// Acts that the witness has seen since, the recording of the backup itself aside; absent without a witness.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entries_since: Option<u64>,
    /// The same by kind, as far as the witness keeps the log: these are lost, but for what stops something.
    pub lost: BTreeMap<String, u64>,
    /// What the fence knows to have stopped after that point, by kind: a start stops it again.
    pub stopped_since: BTreeMap<&'static str, u64>,
    /// What to know and do before the server starts.
    pub notes: Vec<String>,
}

fn refused(problem: impl Into<String>, remedy: &str) -> FleetError {
    FleetError::invalid("backup", problem, remedy)
}

/// Reads the manifest of a backup, as text and parsed, and its seal.
///
/// # Errors
/// [`FleetError::Local`], [`FleetError::Invalid`].
pub fn read_manifest(from: &Path) -> Result<(String, BackupManifest, String), FleetError> {
    let read = |name: &str| {
        let path = from.join(name);
        let length = std::fs::metadata(&path).map_err(|error| local(&path, &error))?.len();
        if length > MAX_MANIFEST_OCTETS {
            return Err(refused(format!("{} is longer than any", path.display()), "give the directory of a backup"));
        }
        std::fs::read_to_string(&path).map_err(|error| local(&path, &error))
    };
    let text = read(MANIFEST)?;
    let manifest: BackupManifest = serde_json::from_str(&text).map_err(|error| {
        refused(
            format!("{MANIFEST} cannot be read: {error}"),
            "it was changed, or was written by a newer version; use another copy",
        )
    })?;
    if manifest.v != 2 {
        return Err(refused(
            format!("{MANIFEST} is of version {}; this program reads version 2", manifest.v),
            "use the program that made it, or a newer one",
        ));
    }
    Ok((text, manifest, read(SEAL)?.trim().to_owned()))
}

/// Whether the root behind `signer` sealed the manifest of a backup, and the files are its own.
///
/// # Errors
/// [`FleetError::Invalid`] when it is another root, or the backup is damaged.
pub async fn check_seal(signer: &kf_signer::SignerClient, from: &Path) -> Result<BackupManifest, FleetError> {
    let (chain, _) = chain::resolve(from, None)?;
    let Found { directory, text, manifest, seal } =
        chain.into_iter().last().ok_or(FleetError::Bug("a chain without a backup"))?;
    let seal =
        hex::decode(&seal).map_err(|_digits| refused("its seal is damaged", "use another copy of this backup"))?;
    let sealed = signer.unwrap(crate::backup::SEAL_CONTEXT, &seal).await;
    if !sealed.is_ok_and(|digest| digest.equals(&kf_crypto::sha256(text.as_bytes()))) {
        return Err(refused("this root did not seal it", "give a backup of the fleet whose root this is"));
    }
    check_files(&directory, &manifest)?;
    Ok(manifest)
}

/// Whether the files are those of the manifest: nothing cut off, nothing changed.
fn check_files(from: &Path, manifest: &BackupManifest) -> Result<(), FleetError> {
    const ANOTHER: &str = "use another copy of this backup, or another backup";
    for name in [sealed_registry(manifest), CONFIG] {
        let file = manifest.files.iter().find(|file| file.name == name);
        let file = file.ok_or_else(|| refused(format!("{name} is not in its manifest"), ANOTHER))?;
        let path = from.join(name);
        let length = std::fs::metadata(&path).map_err(|error| local(&path, &error))?.len();
        if length < file.octets {
            return Err(refused(format!("{name} is truncated: {length} of {} octets are there", file.octets), ANOTHER));
        }
        if (length, &file.sha256) != (file.octets, &digest_of(&path)?.1) {
            return Err(refused(format!("{name} was changed: its digest is not that of the manifest"), ANOTHER));
        }
    }
    Ok(())
}

/// The file of a backup in which the registry is, or what changed of it.
const fn sealed_registry(manifest: &BackupManifest) -> &'static str {
    if manifest.base.is_some() { INCREMENT } else { REGISTRY }
}

/// Opens one file of a backup durably.
fn open_file(from: &Path, name: &str, keys: &BackupKeys, to: &Path) -> Result<(), FleetError> {
    let path = from.join(name);
    let sealed = File::open(&path).map_err(|error| local(&path, &error))?;
    let file = File::create(to).map_err(|error| local(to, &error))?;
    let mut writer = BufWriter::new(file);
    let identities: Vec<&Identity> = keys.0.iter().collect();
    let reader = io::BufReader::new(sealed);
    let opened = with_wiped_stack::<STACK_OCTETS, _>(|| kf_age::open(&identities, reader, &mut writer));
    opened.map_err(|error| match error {
        OpenError::Identity => refused(
            format!("{name}: none of the keys given opens it"),
            "give the key of its version, see `key_version` in its manifest",
        ),
        OpenError::Io(error) => local(to, &error),
        other => refused(format!("{name}: {other}"), "use another copy of this backup, or another backup"),
    })?;
    writer.flush().and_then(|()| writer.get_ref().sync_all()).map_err(|error| local(to, &error))
}

/// What lies beside an SQLite file of this name.
fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn remove_if_there(path: &Path) -> Result<(), FleetError> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(local(path, &error)),
        _ => Ok(()),
    }
}

/// Opens a full backup at `to`, or an increment over the one before it, which is there.
fn open_link(link: &Found, keys: &BackupKeys, to: &Path) -> Result<(), FleetError> {
    let Some(base) = &link.manifest.base else { return open_file(&link.directory, REGISTRY, keys, to) };
    let id = link.manifest.id;
    open_file(&link.directory, INCREMENT, keys, &beside(to, "-wal"))?;
    const ANOTHER: &str = "use another copy of this increment, or restore to a point before it";
    match take_up(to) {
        Ok(pages) if pages == base.pages => Ok(()),
        Ok(pages) => Err(refused(format!("{pages} of the {} pages of {id} can be taken up", base.pages), ANOTHER)),
        Err(StoreError::Corrupt { what }) => Err(refused(format!("{id} cannot be taken up: {what}"), ANOTHER)),
        Err(error) => Err(error.into()),
    }
}

/// Opens the registry of a chain at `to`, and checks that it is the one of its last manifest; what it holds.
fn open_registry(chain: &[Found], keys: &BackupKeys, to: &Path) -> Result<CopyFacts, FleetError> {
    // What an attempt that was cut short left beside it would be taken for its own.
    for suffix in ["-wal", "-shm", "-journal"] {
        remove_if_there(&beside(to, suffix))?;
    }
    for link in chain {
        open_link(link, keys, to)?;
    }
    let last = chain.last().ok_or(FleetError::Bug("a chain without a backup"))?;
    check_registry(to, &last.manifest)
}

fn check_registry(path: &Path, manifest: &BackupManifest) -> Result<CopyFacts, FleetError> {
    const PUT_TOGETHER: &str = "somebody put them together; use another backup";
    let (octets, sha256) = digest_of(path)?;
    if (octets, &sha256) != (manifest.registry.octets, &manifest.registry.sha256) {
        return Err(refused("the registry in it is not the one of its manifest", PUT_TOGETHER));
    }
    let facts = inspect(path)?;
    let is_same = facts.origin.as_deref() == Some(&manifest.origin)
        && (facts.log_size, hex::encode(facts.log_root)) == (manifest.log_size, manifest.log_root.clone());
    if is_same { Ok(facts) } else { Err(refused("the registry in it is not the one of its manifest", PUT_TOGETHER)) }
}

fn read_config(path: &Path) -> Result<FleetConfig, FleetError> {
    let text = std::fs::read_to_string(path).map_err(|error| local(path, &error))?;
    toml::from_str(&text).map_err(|error| {
        refused(format!("its configuration cannot be read: {error}"), "it was written by a newer version; use that")
    })
}

/// Restores a backup into a data directory without a registry, or says what that would come to.
///
/// A restore that was cut short can be run again: the directory holds no fleet before the last step.
///
/// # Errors
/// [`FleetError::Conflict`] where there is a fleet, and for a backup that is older than the witness unless the loss is accepted;
/// [`FleetError::Invalid`] naming what is wrong with the backup; [`FleetError::Local`].
pub fn restore(dir: &DataDir, options: &RestoreOptions) -> Result<Restoration, FleetError> {
    let RestoreOptions { from, at, keys, witness, accept_loss, dry_run } = options;
    let (chain, passed_over) = chain::resolve(from, *at)?;
    let last = chain.last().ok_or(FleetError::Bug("a chain without a backup"))?;
    if dir.database().exists() && dir.config_file().exists() {
        return Err(FleetError::conflict(
            "data",
            format!("{} holds a fleet", dir.path().display()),
            "restore into an empty directory, or move the registry away; nothing was changed",
        ));
    }
    for link in &chain {
        check_files(&link.directory, &link.manifest)?;
    }
    check_verifier(dir, &last.manifest)?;
    std::fs::create_dir_all(dir.path()).map_err(|error| local(dir.path(), &error))?;
    let (registry, config) = (dir.path().join("registry.restoring"), dir.path().join("keyfleet.restoring"));
    let facts = open_registry(&chain, keys, &registry)?;
    open_file(&last.directory, CONFIG, keys, &config)?;
    let has_config = dir.config_file().exists();
    let settings = if has_config { dir.load_config()? } else { read_config(&config)? };
    let witness = witness.clone().or_else(|| settings.witness_dir.clone());
    let entries_since = compare_witness(witness.as_deref(), &last.manifest)?;
    let fence = FenceKeeper::new(witness.clone());
    check_wrapping(&fence, &facts)?;
    if entries_since.is_some_and(|since| since > 0) && !accept_loss && !dry_run {
        return Err(older_than_the_fence(entries_since.unwrap_or_default()));
    }
    let mut notes = notes(&settings, dir, entries_since);
    notes.extend(passed_over);
    let mut restoration = Restoration {
        done: false,
        manifest: last.manifest.clone(),
        chain: chain.iter().map(|link| link.manifest.id).collect(),
        entries_since,
        lost: lost_since(witness.as_deref(), &last.manifest, entries_since)?,
        stopped_since: fence.stopped_since(last.manifest.as_of)?,
        notes,
    };
    if *dry_run {
        for path in [&registry, &config] {
            std::fs::remove_file(path).map_err(|error| local(path, &error))?;
        }
        return Ok(restoration);
    }
    take_place(dir, last, (&registry, &config), has_config)?;
    restoration.done = true;
    Ok(restoration)
}

/// Gives what was opened its names, so that the next start finds a fleet and knows what it is from.
fn take_place(
    dir: &DataDir,
    last: &Found,
    (registry, config): (&Path, &Path),
    has_config: bool,
) -> Result<(), FleetError> {
    let marker = Marker { manifest: last.text.clone(), seal: last.seal.clone() };
    let marker = serde_json::to_vec(&marker).map_err(|_bug| FleetError::Bug("marker"))?;
    write_durably(&dir.restored_marker(), &marker)?;
    for suffix in ["-wal", "-shm"] {
        // What another registry left beside the place of this one would be taken for its own.
        remove_if_there(&beside(&dir.database(), suffix))?;
    }
    std::fs::rename(registry, dir.database()).map_err(|error| local(registry, &error))?;
    sync_dir(dir.path())?;
    if has_config {
        std::fs::remove_file(config).map_err(|error| local(config, &error))?;
    } else {
        // Last: a directory without a configuration holds no fleet.
        std::fs::rename(config, dir.config_file()).map_err(|error| local(config, &error))?;
    }
    sync_dir(dir.path())
}

fn older_than_the_fence(since: u64) -> FleetError {
    FleetError::conflict(
        "backup",
        format!("it is older than the fence: the witness has seen {since} acts since"),
        "restore a newer one, or give --accept-loss: what was revoked or destroyed since stays so, the rest is lost",
    )
}

/// Refuses a registry whose keys nobody can open any more: what wrapped them is destroyed.
fn check_wrapping(fence: &FenceKeeper, facts: &CopyFacts) -> Result<(), FleetError> {
    let gone = fence.destroyed_wrapping()?;
    let dead: Vec<String> =
        facts.wrapped_under.iter().filter(|version| gone.contains(version)).map(u32::to_string).collect();
    if dead.is_empty() {
        return Ok(());
    }
    Err(refused(
        format!(
            "keys in it lie under version {} of the wrapping key, which is destroyed: nobody opens them",
            dead.join(", ")
        ),
        "restore a backup that was made after the rotation; what else is in this one can be read with age and SQLite",
    ))
}

/// What happened after a point, by kind, as far as the witness keeps the log.
fn lost_since(
    witness: Option<&Path>,
    manifest: &BackupManifest,
    since: Option<u64>,
) -> Result<BTreeMap<String, u64>, FleetError> {
    let mut lost = BTreeMap::new();
    let (Some(witness), Some(since)) = (witness, since.filter(|since| *since > 0)) else { return Ok(lost) };
    // The first entry after every backup says that it is whole.
    let from = manifest.log_size + 1;
    if let Some(entries) = read_mirrored(witness, from, from.saturating_add(since))? {
        count_acts(&entries, &mut lost);
    }
    Ok(lost)
}

/// A verifier key that lies in the directory already says of which fleet it is.
fn check_verifier(dir: &DataDir, manifest: &BackupManifest) -> Result<(), FleetError> {
    let Ok(text) = std::fs::read_to_string(dir.verifier_key()) else { return Ok(()) };
    let key = kf_log::VerifierKey::from_text(text.trim());
    match key {
        Ok(key) if key.name() == manifest.origin => Ok(()),
        _ => Err(another_fleet(manifest, &dir.verifier_key())),
    }
}

fn another_fleet(manifest: &BackupManifest, path: &Path) -> FleetError {
    refused(
        format!("it is of another fleet ({}, {}) than {}", manifest.fleet, manifest.origin, path.display()),
        "restore it into a directory of its own, with its own witness",
    )
}

/// Entries that the witness has seen beyond the backup.
fn compare_witness(witness: Option<&Path>, manifest: &BackupManifest) -> Result<Option<u64>, FleetError> {
    let Some(path) = witness.map(|witness| witness.join("checkpoint")) else { return Ok(None) };
    let note = match std::fs::read_to_string(&path) {
        Ok(note) => note,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(local(&path, &error)),
    };
    // The signature is checked by the start, which has the key; here the numbers are enough to ask a person.
    let body = note.split_once("\n\n").map_or(note.as_str(), |(body, _)| body);
    let seen = kf_log::Checkpoint::from_text(&format!("{}\n", body.trim_end())).map_err(|error| FleetError::Local {
        path: path.display().to_string(),
        problem: format!("is no checkpoint: {error}"),
    })?;
    if seen.origin != manifest.origin {
        return Err(another_fleet(manifest, &path));
    }
    // One entry follows every backup: the one that says that it is whole.
    Ok(Some(seen.size.saturating_sub(manifest.log_size).saturating_sub(1)))
}

fn notes(settings: &FleetConfig, dir: &DataDir, entries_since: Option<u64>) -> Vec<String> {
    let mut notes = Vec::new();
    match entries_since {
        None => notes.push(
            "no witness: whether something was revoked or destroyed since the backup cannot be known, and a rollback is \
             undetectable; the server will issue nothing until two people accept that"
                .to_owned(),
        ),
        Some(0) => notes.push("the witness has seen nothing since: nothing is lost".to_owned()),
        Some(since) => notes.push(format!(
            "{since} acts happened since: what they revoked or destroyed stays so, the rest is lost; the server will issue \
             nothing until two people accept that"
        )),
    }
    let root = settings.signer.clone().below(dir.path()).sealed_file.path;
    if settings.signer.backend == kf_signer::BackendKind::SealedFile && !root.exists() {
        notes.push(format!(
            "the root is not in a backup: put its sealed file at {}, or bring it back from escrow",
            root.display()
        ));
    }
    notes
}

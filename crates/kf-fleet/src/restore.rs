//! Restore: from the directory of a backup to a data directory that a server starts from. Works without a server.
//!
//! What can be checked without the root is checked first: lengths, digests, origin, the witness. What only the root can tell, that the
//! manifest is of this fleet, the next start checks before it serves anything ([`crate::recovery`]).

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use kf_age::{Identity, OpenError};
use kf_api::backup::BackupManifest;
use kf_key::{SecretBytes, with_wiped_stack};
use kf_store::backup::inspect;
use serde::Serialize;

use crate::backup::{CONFIG, MANIFEST, REGISTRY, SEAL, digest_of, sync_dir};
use crate::log_publisher::{local, write_durably};
use crate::recovery::Marker;
use crate::{DataDir, FleetConfig, FleetError};

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
    /// The directory of the backup.
    pub from: PathBuf,
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
    /// What the backup says of itself.
    pub manifest: BackupManifest,
    /// Acts that the witness has seen since, the recording of the backup itself aside; absent without a witness.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entries_since: Option<u64>,
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
    if manifest.v != 1 {
        return Err(refused(
            format!("{MANIFEST} is of version {}; this program reads version 1", manifest.v),
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
    let (text, manifest, seal) = read_manifest(from)?;
    let seal =
        hex::decode(&seal).map_err(|_digits| refused("its seal is damaged", "use another copy of this backup"))?;
    let sealed = signer.unwrap(crate::backup::SEAL_CONTEXT, &seal).await;
    if !sealed.is_ok_and(|digest| digest.equals(&kf_crypto::sha256(text.as_bytes()))) {
        return Err(refused("this root did not seal it", "give a backup of the fleet whose root this is"));
    }
    check_files(from, &manifest)?;
    Ok(manifest)
}

/// Whether the files are those of the manifest: nothing cut off, nothing changed.
fn check_files(from: &Path, manifest: &BackupManifest) -> Result<(), FleetError> {
    const ANOTHER: &str = "use another copy of this backup, or another backup";
    for name in [REGISTRY, CONFIG] {
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

/// Checks a backup as far as that is possible without the root, in a scratch directory that is removed.
///
/// # Errors
/// [`FleetError::Invalid`] naming what is wrong with it, [`FleetError::Local`].
pub fn verify_backup(from: &Path, keys: &BackupKeys, scratch: &Path) -> Result<BackupManifest, FleetError> {
    let (_, manifest, _) = read_manifest(from)?;
    check_files(from, &manifest)?;
    std::fs::create_dir_all(scratch).map_err(|error| local(scratch, &error))?;
    let (registry, config) = (scratch.join("registry.verifying"), scratch.join("config.verifying"));
    let outcome = open_file(from, REGISTRY, keys, &registry)
        .and_then(|()| check_registry(&registry, &manifest))
        .and_then(|()| open_file(from, CONFIG, keys, &config))
        .and_then(|()| read_config(&config).map(drop));
    for path in [&registry, &config] {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(local(path, &error)),
            _ => {}
        }
    }
    outcome.map(|()| manifest)
}

fn check_registry(path: &Path, manifest: &BackupManifest) -> Result<(), FleetError> {
    let facts = inspect(path)?;
    let is_same = facts.origin.as_deref() == Some(&manifest.origin)
        && (facts.log_size, hex::encode(facts.log_root)) == (manifest.log_size, manifest.log_root.clone());
    if is_same {
        return Ok(());
    }
    Err(refused("the registry in it is not the one of its manifest", "somebody put them together; use another backup"))
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
    let RestoreOptions { from, keys, witness, accept_loss, dry_run } = options;
    let (text, manifest, seal) = read_manifest(from)?;
    if dir.database().exists() && dir.config_file().exists() {
        return Err(FleetError::conflict(
            "data",
            format!("{} holds a fleet", dir.path().display()),
            "restore into an empty directory, or move the registry away; nothing was changed",
        ));
    }
    check_files(from, &manifest)?;
    check_verifier(dir, &manifest)?;
    std::fs::create_dir_all(dir.path()).map_err(|error| local(dir.path(), &error))?;
    let (registry, config) = (dir.path().join("registry.restoring"), dir.path().join("keyfleet.restoring"));
    open_file(from, REGISTRY, keys, &registry)?;
    check_registry(&registry, &manifest)?;
    open_file(from, CONFIG, keys, &config)?;
    let has_config = dir.config_file().exists();
    let settings = if has_config { dir.load_config()? } else { read_config(&config)? };
    let witness = witness.clone().or_else(|| settings.witness_dir.clone());
    let entries_since = compare_witness(witness.as_deref(), &manifest)?;
    if entries_since.is_some_and(|since| since > 0) && !accept_loss && !dry_run {
        return Err(FleetError::conflict(
            "backup",
            format!(
                "it is older than the fence: the witness has seen {} acts since",
                entries_since.unwrap_or_default()
            ),
            "restore a newer one, or give --accept-loss: what was revoked or destroyed since stays so, the rest is lost",
        ));
    }
    let notes = notes(&settings, dir, entries_since);
    if *dry_run {
        for path in [&registry, &config] {
            std::fs::remove_file(path).map_err(|error| local(path, &error))?;
        }
        return Ok(Restoration { done: false, manifest, entries_since, notes });
    }
    let marker = Marker { manifest: text, seal };
    let marker = serde_json::to_vec(&marker).map_err(|_bug| FleetError::Bug("marker"))?;
    write_durably(&dir.restored_marker(), &marker)?;
    for suffix in ["-wal", "-shm"] {
        // What another registry left beside the place of this one would be taken for its own.
        let mut path = dir.database().into_os_string();
        path.push(suffix);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(local(Path::new(&path), &error)),
            _ => {}
        }
    }
    std::fs::rename(&registry, dir.database()).map_err(|error| local(&registry, &error))?;
    sync_dir(dir.path())?;
    if has_config {
        std::fs::remove_file(&config).map_err(|error| local(&config, &error))?;
    } else {
        // Last: a directory without a configuration holds no fleet.
        std::fs::rename(&config, dir.config_file()).map_err(|error| local(&config, &error))?;
    }
    sync_dir(dir.path())?;
    Ok(Restoration { done: true, manifest, entries_since, notes })
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

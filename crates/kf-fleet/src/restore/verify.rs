//! Backups checked without a server and without the root: opened, and compared with what their manifests say.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use kf_api::backup::BackupManifest;
use kf_key::{BackupId, UnixMillis};
use serde::Serialize;

use super::chain::{Found, Shelf, resolve};
use super::{
    BackupKeys, CONFIG, beside, check_files, check_registry, open_file, open_link, open_registry, read_config,
};
use super::{refused, remove_if_there};
use crate::FleetError;
use crate::log_publisher::local;

/// What became of one backup among many.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Verified {
    /// Which; absent where its manifest cannot be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<BackupId>,
    /// Where it lies.
    pub directory: PathBuf,
    /// Its number in its chain: 0 for a full one.
    pub number: u32,
    /// The time of the newest act in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub as_of: Option<UnixMillis>,
    /// Entries of the log in it.
    pub log_size: u64,
    /// What is wrong with it; absent when it opens and holds what its manifest says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// Where backups are opened to be looked at; what is left there is removed.
struct Bench {
    registry: PathBuf,
    config: PathBuf,
}

impl Bench {
    fn at(scratch: &Path) -> Result<Self, FleetError> {
        std::fs::create_dir_all(scratch).map_err(|error| local(scratch, &error))?;
        Ok(Self { registry: scratch.join("registry.verifying"), config: scratch.join("config.verifying") })
    }

    fn clear(&self) -> Result<(), FleetError> {
        for suffix in ["", "-wal", "-shm", "-journal"] {
            remove_if_there(&beside(&self.registry, suffix))?;
        }
        remove_if_there(&self.config)
    }

    fn check_config(&self, link: &Found, keys: &BackupKeys) -> Result<(), FleetError> {
        open_file(&link.directory, CONFIG, keys, &self.config)?;
        read_config(&self.config).map(drop)
    }
}

/// Checks a backup, with those that it builds on, as far as that is possible without the root, in a scratch directory that is left
/// empty.
///
/// # Errors
/// [`FleetError::Invalid`] naming what is wrong with it, [`FleetError::Local`].
pub fn verify_backup(from: &Path, keys: &BackupKeys, scratch: &Path) -> Result<BackupManifest, FleetError> {
    let (chain, _) = resolve(from, None)?;
    let last = chain.last().ok_or(FleetError::Bug("a chain without a backup"))?;
    for link in &chain {
        check_files(&link.directory, &link.manifest)?;
    }
    let bench = Bench::at(scratch)?;
    let outcome = open_registry(&chain, keys, &bench.registry).and_then(|_facts| bench.check_config(last, keys));
    bench.clear()?;
    outcome.map(|()| last.manifest.clone())
}

/// Checks every backup that lies in a directory: each full one is opened once, and each increment on it in its turn.
///
/// # Errors
/// [`FleetError::Invalid`] where there is none, [`FleetError::Local`]. What is wrong with one of them is in its row.
pub fn verify_backups(from: &Path, keys: &BackupKeys, scratch: &Path) -> Result<Vec<Verified>, FleetError> {
    let shelf = Shelf::at(from)?;
    if shelf.found.is_empty() && shelf.unreadable.is_empty() {
        return Err(refused(format!("there is none in {}", from.display()), "give the directory in which they lie"));
    }
    let bench = Bench::at(scratch)?;
    let mut rows: Vec<Verified> = shelf.unreadable.iter().map(|(place, error)| unreadable(place, error)).collect();
    let mut seen = BTreeSet::new();
    for full in shelf.found.iter().filter(|found| found.manifest.base.is_none()) {
        bench.clear()?;
        let mut is_open = true;
        for link in chained(&shelf, full) {
            seen.insert(link.directory.clone());
            let outcome = if is_open { check_next(&shelf, link, keys, &bench) } else { Err(not_open()) };
            // What builds on one that does not open cannot be opened either.
            is_open = outcome.is_ok();
            rows.push(row(link, outcome));
        }
    }
    bench.clear()?;
    for lost in shelf.found.iter().filter(|found| !seen.contains(&found.directory)) {
        let outcome = shelf.chain_of(lost).map(drop).and(Err(not_open()));
        rows.push(row(lost, outcome));
    }
    Ok(rows)
}

/// A full backup and the increments on it, in their order.
fn chained<'a>(shelf: &'a Shelf, full: &'a Found) -> Vec<&'a Found> {
    let number = |found: &Found| found.manifest.base.as_ref().map_or(0, |base| base.number);
    let is_of = |found: &&Found| found.manifest.base.as_ref().is_some_and(|base| base.full == full.manifest.id);
    let mut chain: Vec<&Found> = shelf.found.iter().filter(is_of).collect();
    chain.sort_by_key(|found| number(found));
    chain.insert(0, full);
    chain
}

/// Opens `link` over the one before it, which is open.
fn check_next(shelf: &Shelf, link: &Found, keys: &BackupKeys, bench: &Bench) -> Result<(), FleetError> {
    shelf.chain_of(link)?;
    check_files(&link.directory, &link.manifest)?;
    open_link(link, keys, &bench.registry)?;
    check_registry(&bench.registry, &link.manifest)?;
    bench.check_config(link, keys)
}

fn not_open() -> FleetError {
    refused("a backup that it builds on does not open", "bring a good copy of that one")
}

fn row(found: &Found, outcome: Result<(), FleetError>) -> Verified {
    let BackupManifest { id, as_of, log_size, base, .. } = &found.manifest;
    Verified {
        id: Some(*id),
        directory: found.directory.clone(),
        number: base.as_ref().map_or(0, |base| base.number),
        as_of: Some(*as_of),
        log_size: *log_size,
        problem: outcome.err().map(|error| error.to_string()),
    }
}

fn unreadable(place: &Path, error: &FleetError) -> Verified {
    Verified {
        id: None,
        directory: place.into(),
        number: 0,
        as_of: None,
        log_size: 0,
        problem: Some(error.to_string()),
    }
}

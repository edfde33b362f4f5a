//! Which backups are opened, one after the other, to come to a point: a full one and the increments on it, found by what their
//! manifests say and not by their names.

use std::path::{Path, PathBuf};

use kf_api::backup::BackupManifest;
use kf_key::{BackupId, UnixMillis};

use super::{read_manifest, refused};
use crate::FleetError;
use crate::backup::{MANIFEST, MAX_INCREMENTS};
use crate::log_publisher::local;

/// The most entries of a directory that are looked at.
const MAX_ENTRIES: usize = 100_000;

/// A point to which a registry is brought back: the newest backup that lies before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RestorePoint {
    /// It holds nothing that happened later.
    Time(UnixMillis),
    /// Its log has no more entries than that.
    Entry(u64),
}

impl RestorePoint {
    fn holds(self, manifest: &BackupManifest) -> bool {
        match self {
            Self::Time(time) => manifest.as_of <= time,
            Self::Entry(entry) => manifest.log_size <= entry,
        }
    }
}

/// A backup that was found, with its manifest as it was sealed.
#[derive(Clone, Debug)]
pub(super) struct Found {
    pub(super) directory: PathBuf,
    pub(super) text: String,
    pub(super) manifest: BackupManifest,
    pub(super) seal: String,
}

impl Found {
    fn at(directory: PathBuf) -> Result<Self, FleetError> {
        let (text, manifest, seal) = read_manifest(&directory)?;
        Ok(Self { directory, text, manifest, seal })
    }
}

/// Backups that lie in one directory.
pub(super) struct Shelf {
    pub(super) found: Vec<Found>,
    /// Directories whose manifests cannot be read, and why.
    pub(super) unreadable: Vec<(PathBuf, FleetError)>,
}

impl Shelf {
    /// Looks through a directory.
    pub(super) fn at(directory: &Path) -> Result<Self, FleetError> {
        let mut shelf = Self { found: Vec::new(), unreadable: Vec::new() };
        let entries = std::fs::read_dir(directory).map_err(|error| local(directory, &error))?;
        for entry in entries.take(MAX_ENTRIES) {
            let place = entry.map_err(|error| local(directory, &error))?.path();
            // What begins with a dot was never finished.
            let is_hidden = place.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
            if is_hidden || !place.join(MANIFEST).is_file() {
                continue;
            }
            match Found::at(place.clone()) {
                Ok(found) => shelf.found.push(found),
                Err(error) => shelf.unreadable.push((place, error)),
            }
        }
        shelf.found.sort_by_key(|found| (found.manifest.created, found.manifest.id));
        Ok(shelf)
    }

    fn by_id(&self, id: BackupId) -> Option<&Found> {
        self.found.iter().find(|found| found.manifest.id == id)
    }

    /// The chain that ends with `last`, oldest first: each link checked against the one before.
    pub(super) fn chain_of(&self, last: &Found) -> Result<Vec<Found>, FleetError> {
        let mut chain = vec![last.clone()];
        let mut next = last.manifest.clone();
        while let Some(base) = next.base.clone() {
            if base.number == 0 || base.number > MAX_INCREMENTS {
                return Err(refused(
                    format!("{} has no place in a chain", next.id),
                    "its manifest was made up; use another",
                ));
            }
            let found = self.by_id(base.backup).ok_or_else(|| missing(&next, base.backup))?;
            follows(&found.manifest, &next)?;
            next = found.manifest.clone();
            chain.push(found.clone());
        }
        chain.reverse();
        Ok(chain)
    }
}

fn missing(of: &BackupManifest, base: BackupId) -> FleetError {
    refused(
        format!("a link is missing: {} builds on {base}, which is not beside it", of.id),
        "bring it into the same directory; without it only what lies before can be restored",
    )
}

/// Whether `next` is an increment on `base` as it is here.
fn follows(base: &BackupManifest, next: &BackupManifest) -> Result<(), FleetError> {
    let Some(link) = &next.base else { return Err(FleetError::Bug("a full backup follows nothing")) };
    let full = base.base.as_ref().map_or(base.id, |before| before.full);
    if (full, &base.registry.sha256, &base.origin) != (link.full, &link.registry_sha256, &next.origin) {
        return Err(refused(
            format!("{} is of another chain: the {} that it builds on gave back another registry", next.id, base.id),
            "use the backups that were made one after the other",
        ));
    }
    let number = base.base.as_ref().map_or(0, |before| before.number);
    let is_later = base.log_size <= next.log_size && base.created <= next.created;
    if link.number != number + 1 || !is_later {
        return Err(refused(
            format!("{} is in the wrong order: it is increment {} after {number}", next.id, link.number),
            "its manifest was made up; use another copy of this backup, or another backup",
        ));
    }
    Ok(())
}

/// Finds what `from` stands for: one backup, or among those that lie in it the newest that is not beyond `at`. The chain, oldest first,
/// and what was passed over.
pub(super) fn resolve(from: &Path, at: Option<RestorePoint>) -> Result<(Vec<Found>, Vec<String>), FleetError> {
    let from = from.canonicalize().map_err(|error| local(from, &error))?;
    if from.join(MANIFEST).is_file() {
        if at.is_some() {
            return Err(refused("it is one backup, and so one point", "give the directory in which the backups lie"));
        }
        let last = Found::at(from.clone())?;
        if last.manifest.base.is_none() {
            return Ok((vec![last], Vec::new()));
        }
        let shelf = Shelf::at(from.parent().unwrap_or(&from))?;
        return Ok((shelf.chain_of(&last)?, Vec::new()));
    }
    let shelf = Shelf::at(&from)?;
    let last = shelf.found.iter().rev().find(|found| at.is_none_or(|at| at.holds(&found.manifest)));
    let last = last.ok_or_else(|| match shelf.found.first() {
        None => {
            refused(format!("there is none in {}", from.display()), "give a backup, or the directory in which they lie")
        }
        Some(oldest) => refused(
            format!(
                "none lies before that point: the oldest, {}, holds {} log entries already",
                oldest.manifest.id, oldest.manifest.log_size
            ),
            "give a later point; `as_of` in its manifest says from when it is",
        ),
    })?;
    let passed = |(place, error): &(PathBuf, FleetError)| format!("{} was passed over: {error}", place.display());
    Ok((shelf.chain_of(last)?, shelf.unreadable.iter().map(passed).collect()))
}

//! `wrapping.keys`: the versions of the wrapping key, sealed under the root; beside the registry, and at the witness.
//!
//! The registry and its backups hold what the versions wrap, and never the versions. So what is removed from here is gone from
//! every backup as well, and what is lost from here is lost: a second copy is kept at the witness, and put back from there.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::OpenOptions;
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use kf_api::destruction::FileScan;
use kf_key::UnixMillis;
use kf_signer::SignerClient;
use serde::{Deserialize, Serialize};

use crate::log_publisher::{local, write_durably};
use crate::{DataDir, FleetConfig, FleetError};

const FILE: &str = "wrapping.keys";
/// The most octets of the file: some thousand versions.
const MAX_OCTETS: u64 = 512 * 1024;

/// One version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SealedVersion {
    created: UnixMillis,
    /// Hexadecimal; only zeros where a destruction was cut short.
    sealed: String,
}

impl SealedVersion {
    fn octets(&self) -> Option<Vec<u8>> {
        hex::decode(&self.sealed).ok().filter(|octets| octets.iter().any(|octet| *octet != 0))
    }
}

/// What the file says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Contents {
    /// Format version: 1.
    v: u8,
    versions: BTreeMap<u32, SealedVersion>,
    /// Versions that were ended, so that a copy of the file from before does not bring them back unnoticed.
    destroyed: BTreeSet<u32>,
}

impl Contents {
    /// What two copies of the file say together: every version of either, and none that either knows as destroyed.
    fn join(mut self, other: Self) -> Self {
        self.v = 1;
        self.destroyed.extend(other.destroyed);
        for (version, sealed) in other.versions {
            self.versions.entry(version).or_insert(sealed);
        }
        self
    }
}

/// The file and its copy.
#[derive(Debug)]
pub(crate) struct WrappingBook {
    places: Vec<PathBuf>,
    contents: Mutex<Contents>,
    /// Held while the newest version changes.
    pub(super) turn: tokio::sync::Mutex<()>,
}

impl WrappingBook {
    /// Reads both copies; each gets what only the other has.
    pub(crate) fn open(dir: &DataDir, config: &FleetConfig) -> Result<Self, FleetError> {
        let witness = config.witness_dir.as_ref().map(|witness| witness.join(FILE));
        let places: Vec<PathBuf> = std::iter::once(dir.wrapping_keys()).chain(witness).collect();
        let found: Vec<Option<Contents>> = places.iter().map(|path| read(path)).collect::<Result<_, _>>()?;
        let contents = found.iter().flatten().cloned().fold(Contents::default(), Contents::join);
        for (path, found) in places.iter().zip(found) {
            if contents != Contents::default() && found.as_ref() != Some(&contents) {
                write(path, &contents)?;
            }
        }
        Ok(Self { places, contents: Mutex::new(contents), turn: tokio::sync::Mutex::default() })
    }

    fn contents(&self) -> MutexGuard<'_, Contents> {
        self.contents.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells the signer of every version, and asks it to open them.
    pub(crate) async fn load(&self, signer: &SignerClient) -> Result<(), FleetError> {
        let contents = self.contents().clone();
        for version in &contents.destroyed {
            signer.end_wrapping(*version).await?;
        }
        for (version, sealed) in &contents.versions {
            if let Some(octets) = sealed.octets().filter(|_| !contents.destroyed.contains(version)) {
                signer.register_wrapping(*version, octets);
            }
        }
        signer.load_wrapping().await.map_err(|error| match error {
            kf_signer::SignerError::Wrapped => FleetError::Local {
                path: self.places.first().map_or_else(String::new, |path| path.display().to_string()),
                problem:
                    "holds a version that the root of this fleet does not open: it is of another fleet, or damaged; \
                          bring back the copy that belongs to this root"
                        .to_owned(),
            },
            error => error.into(),
        })
    }

    /// Adds a version; durable in every place when this returns.
    pub(super) fn add(&self, version: u32, sealed: &[u8], created: UnixMillis) -> Result<(), FleetError> {
        let mut contents = self.contents();
        let mut next = contents.clone();
        next.v = 1;
        next.versions.insert(version, SealedVersion { created, sealed: hex::encode(sealed) });
        self.places.iter().try_for_each(|path| write(path, &next))?;
        *contents = next;
        Ok(())
    }

    /// The sealed form of a version that may be used.
    pub(super) fn sealed(&self, version: u32) -> Option<Vec<u8>> {
        let contents = self.contents();
        let sealed = contents.versions.get(&version).filter(|_| !contents.destroyed.contains(&version));
        sealed.and_then(SealedVersion::octets)
    }

    /// Versions that may be used, oldest first; the first of all is not among them.
    pub(super) fn versions(&self) -> Vec<(u32, UnixMillis)> {
        let contents = self.contents();
        let usable = contents.versions.iter().filter(|(version, _)| !contents.destroyed.contains(version));
        usable.map(|(version, sealed)| (*version, sealed.created)).collect()
    }

    /// Whether a version was ended.
    pub(crate) fn is_destroyed(&self, version: u32) -> bool {
        self.contents().destroyed.contains(&version)
    }

    /// The number of a version that never was.
    pub(super) fn next(&self, newest: u32) -> u32 {
        let contents = self.contents();
        let last = |version: Option<&u32>| version.copied().unwrap_or_default();
        newest.max(last(contents.versions.keys().last())).max(last(contents.destroyed.last())).saturating_add(1)
    }

    /// Ends a version in every place: its octets are overwritten where they lie, and the file is written anew without them. The
    /// search of the files for them, before and after.
    pub(crate) fn destroy(&self, version: u32) -> Result<FileScan, FleetError> {
        let mut contents = self.contents();
        let mut next = contents.clone();
        next.v = 1;
        next.destroyed.insert(version);
        let octets = next.versions.remove(&version).and_then(|sealed| sealed.octets());
        let needle: Vec<Vec<u8>> = octets.iter().map(|octets| hex::encode(octets).into_bytes()).collect();
        let before = kf_store::remnant::search(&self.places, &needle)?.fragments_after;
        for path in &self.places {
            if let Some(needle) = needle.first() {
                overwrite(path, needle).map_err(|error| local(path, &error))?;
            }
            write(path, &next)?;
        }
        let after = kf_store::remnant::search(&self.places, &needle)?;
        if after.fragments_after > 0 {
            return Err(FleetError::Bug("a destroyed version of the wrapping key is left in its file"));
        }
        *contents = next;
        Ok(FileScan { fragments_before: (!needle.is_empty()).then_some(before), ..after })
    }
}

fn read(path: &Path) -> Result<Option<Contents>, FleetError> {
    let unreadable = || FleetError::Local {
        path: path.display().to_string(),
        problem: "is not a file of wrapping keys of a known version; bring back a copy of it".to_owned(),
    };
    match std::fs::metadata(path) {
        Ok(facts) if facts.len() > MAX_OCTETS => return Err(unreadable()),
        Ok(_) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(local(path, &error)),
    }
    let octets = std::fs::read(path).map_err(|error| local(path, &error))?;
    match serde_json::from_slice::<Contents>(&octets) {
        Ok(contents) if contents.v == 1 => Ok(Some(contents)),
        _ => Err(unreadable()),
    }
}

fn write(path: &Path, contents: &Contents) -> Result<(), FleetError> {
    let octets = serde_json::to_vec_pretty(contents).map_err(|_bug| FleetError::Bug("wrapping keys"))?;
    write_durably(path, &octets)
}

/// Overwrites octets where they lie in a file; what is written next to it by another name does not do that.
fn overwrite(path: &Path, needle: &[u8]) -> std::io::Result<()> {
    let mut file = match OpenOptions::new().read(true).write(true).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    let octets = std::fs::read(path)?;
    let Some(at) = octets.windows(needle.len()).position(|window| window == needle) else { return Ok(()) };
    file.seek(SeekFrom::Start(u64::try_from(at).unwrap_or(0)))?;
    file.write_all(&vec![b'0'; needle.len()])?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn book(dir: &Path) -> WrappingBook {
        let mut config = FleetConfig::named("test");
        config.witness_dir = Some(dir.join("witness"));
        WrappingBook::open(&DataDir::new(dir.join("data")), &config).unwrap()
    }

    #[test]
    fn a_copy_that_was_lost_or_is_of_before_is_put_back_from_the_other_and_what_is_destroyed_stays_so() {
        let directory = tempfile::tempdir().unwrap();
        let (data, witness) =
            (directory.path().join("data/wrapping.keys"), directory.path().join("witness/wrapping.keys"));
        let first = book(directory.path());
        assert!(!data.exists(), "a fleet that never rotated has no file");
        first.add(2, &[7; 60], UnixMillis(1)).unwrap();
        let before = std::fs::read(&data).unwrap();
        first.add(3, &[8; 60], UnixMillis(2)).unwrap();
        for lost in [&data, &witness] {
            std::fs::remove_file(lost).unwrap();
            assert_eq!(book(directory.path()).versions(), [(2, UnixMillis(1)), (3, UnixMillis(2))]);
            assert_eq!(std::fs::read(&data).unwrap(), std::fs::read(&witness).unwrap());
        }
        let scan = first.destroy(2).unwrap();
        assert_eq!((scan.files, scan.fragments_after), (2, 0));
        assert!(scan.fragments_before.is_some_and(|found| found > 100), "{scan:?}");
        std::fs::write(&data, &before).unwrap();
        let again = book(directory.path());
        assert_eq!((again.versions(), again.is_destroyed(2)), (vec![(3, UnixMillis(2))], true));
        assert_eq!((again.next(1), again.next(9)), (4, 10));
    }

    #[test]
    fn a_version_that_was_half_overwritten_when_the_server_stopped_is_not_used() {
        let directory = tempfile::tempdir().unwrap();
        let first = book(directory.path());
        first.add(2, &[7; 60], UnixMillis(1)).unwrap();
        for place in &first.places {
            overwrite(place, hex::encode([7; 60]).as_bytes()).unwrap();
        }
        let again = book(directory.path());
        assert_eq!(again.sealed(2), None);
        assert_eq!(again.destroy(2).unwrap().fragments_before, None, "there was nothing left to look for");
    }

    #[test]
    fn a_file_that_is_none_is_refused_by_name() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("data")).unwrap();
        for bad in ["", "{}", "{\"v\":2,\"versions\":{},\"destroyed\":[]}"] {
            std::fs::write(directory.path().join("data/wrapping.keys"), bad).unwrap();
            let opened = WrappingBook::open(&DataDir::new(directory.path().join("data")), &FleetConfig::named("test"));
            assert!(opened.unwrap_err().to_string().contains("wrapping.keys"), "{bad}");
        }
    }
}

//! What is left of wiped octets in the database files.
//!
//! Every run of 8 octets counts: SQLite moves cells when it balances its trees, and may leave a part of an old copy behind.

use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use kf_api::destruction::FileScan;

use crate::{Store, StoreError};

/// Octets in front of a wrapped secret that all of them have in common (version and epoch), and so say nothing.
const COMMON_OCTETS: usize = 5;
const WINDOW_OCTETS: usize = 8;
/// Bits of the filter in front of the search: 4 MiB.
const FILTER_BITS: u32 = 25;

/// Every run of 8 octets of some secrets, as wrapped.
pub(crate) struct Fragments {
    windows: Vec<u64>,
    filter: Vec<u64>,
}

fn place(window: u64) -> (usize, u64) {
    // The multiplier of a Fibonacci hash; any odd one would do.
    let bit = window.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (u64::BITS - FILTER_BITS);
    (usize::try_from(bit / 64).unwrap_or(0), 1 << (bit % 64))
}

impl Fragments {
    pub(crate) fn of(secrets: &[Vec<u8>]) -> Self {
        let mut windows: Vec<u64> = secrets
            .iter()
            .flat_map(|secret| secret.get(COMMON_OCTETS..).unwrap_or_default().windows(WINDOW_OCTETS))
            .filter_map(|window| window.try_into().ok().map(u64::from_be_bytes))
            .collect();
        windows.sort_unstable();
        windows.dedup();
        let mut filter = vec![0; 1 << (FILTER_BITS - 6)];
        for window in &windows {
            let (word, bit) = place(*window);
            if let Some(word) = filter.get_mut(word) {
                *word |= bit;
            }
        }
        Self { windows, filter }
    }

    fn holds(&self, window: u64) -> bool {
        let (word, bit) = place(window);
        self.filter.get(word).is_some_and(|word| word & bit != 0) && self.windows.binary_search(&window).is_ok()
    }

    /// Octets read, and places where a fragment begins.
    pub(crate) fn search(&self, from: impl Read) -> std::io::Result<(u64, u64)> {
        let (mut octets, mut found, mut window) = (0_u64, 0_u64, 0_u64);
        for octet in BufReader::with_capacity(1 << 20, from).bytes() {
            window = (window << 8) | u64::from(octet?);
            octets += 1;
            if octets >= 8 && self.holds(window) {
                found += 1;
            }
        }
        Ok((octets, found))
    }
}

fn failed(error: &std::io::Error) -> StoreError {
    StoreError::Io { what: format!("the files could not be searched: {error}") }
}

impl Store {
    /// Searches the database file and what SQLite keeps beside it.
    pub(crate) fn search_files(&self, fragments: &Fragments) -> Result<FileScan, StoreError> {
        let mut scan = FileScan::default();
        let mut add = |(octets, found): (u64, u64)| {
            scan.files += 1;
            scan.octets += octets;
            scan.fragments_after += found;
        };
        let mut searched = self.searched();
        let database = match &mut *searched {
            Some(file) => file,
            none => none.insert(File::open(self.path()).map_err(|error| failed(&error))?),
        };
        database.seek(SeekFrom::Start(0)).map_err(|error| failed(&error))?;
        add(fragments.search(&mut *database).map_err(|error| failed(&error))?);
        drop(searched);
        for suffix in ["-wal", "-journal"] {
            match File::open(beside(self.path(), suffix)) {
                Ok(file) => add(fragments.search(file).map_err(|error| failed(&error))?),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(failed(&error)),
            }
        }
        Ok(scan)
    }
}

/// Searches files for every run of 8 octets of some secrets, as they lie there; a file that is not there holds none.
///
/// # Errors
/// [`StoreError::Io`].
pub fn search(files: &[PathBuf], secrets: &[Vec<u8>]) -> Result<FileScan, StoreError> {
    // What all wrapped secrets have in common is left out of a search for them; nothing is in common here.
    let padded: Vec<Vec<u8>> = secrets.iter().map(|secret| [&[0; COMMON_OCTETS], secret.as_slice()].concat()).collect();
    let fragments = Fragments::of(&padded);
    let mut scan = FileScan::default();
    for path in files {
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => return Err(failed(&error)),
        };
        let (octets, found) = fragments.search(file).map_err(|error| failed(&error))?;
        scan.files += 1;
        scan.octets += octets;
        scan.fragments_after += found;
    }
    Ok(scan)
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_of_eight_octets_is_found_anywhere_and_seven_are_not() {
        let secret: Vec<u8> = (0..40).map(|octet| octet * 5 + 1).collect();
        let fragments = Fragments::of(std::slice::from_ref(&secret));
        let within = |part: &[u8]| [&[0xee; 1_000], part, &[0xee; 77]].concat();
        let found = |part: &[u8]| fragments.search(within(part).as_slice()).unwrap().1;
        assert_eq!(found(&secret), 28);
        for start in COMMON_OCTETS..=secret.len() - WINDOW_OCTETS {
            assert_eq!(found(&secret[start..start + 8]), 1, "{start}");
            assert_eq!(found(&secret[start..start + 7]), 0, "{start}");
        }
        assert_eq!(found(&secret[..12]), 0, "what every wrapped secret begins with");
    }

    #[test]
    fn nothing_to_look_for_is_never_found() {
        assert_eq!(Fragments::of(&[]).search([0_u8; 64].as_slice()).unwrap(), (64, 0));
    }
}

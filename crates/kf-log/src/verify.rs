//! The complete check of a published log, offline and without trust in who published it: the signature of the newest
//! checkpoint, every tile up to its root, every entry against its leaf hash, and older checkpoints against the tree.

use crate::checkpoint::Checkpoint;
use crate::entry::AuditEntry;
use crate::hash::{leaf_hash, subtree_root};
use crate::note::{NoteError, VerifierKey};
use crate::proof::{self, HashReader};
use crate::succession::{SUCCESSION, follow, parse_links};
use crate::tile::{TILE_WIDTH, TileKind, TilePath, parse_bundle, parse_tile, tile_width};

/// The most findings that are listed; a log with more is as broken as can be.
pub const MAX_FINDINGS: usize = 100;

/// Reads the files of a published log.
pub trait TileSource {
    /// What can go wrong beyond a file that is not there.
    type Error;

    /// The octets of a file (`checkpoint`, `tile/…`), or `None` when there is none.
    ///
    /// # Errors
    /// The source's own.
    fn read(&self, path: &str) -> Result<Option<Vec<u8>>, Self::Error>;
}

/// Something that is wrong with a log, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Finding {
    /// There is no checkpoint.
    #[error("there is no checkpoint")]
    NoCheckpoint,
    /// The checkpoint is not signed by the key.
    #[error("the checkpoint is not to be trusted")]
    Checkpoint(#[source] NoteError),
    /// A file that the checkpoint needs is missing: the end of the log was cut, or part of it removed.
    #[error("{path} is missing")]
    Missing {
        /// Its path.
        path: String,
    },
    /// A file is not what its path says: cut, or not a tile.
    #[error("{path} is cut or damaged")]
    Damaged {
        /// Its path.
        path: String,
    },
    /// An entry was changed.
    #[error("entry {index} was edited")]
    Edited {
        /// Index of the entry.
        index: u64,
    },
    /// An entry was taken out.
    #[error("entry {index} was removed")]
    Removed {
        /// Index of the entry.
        index: u64,
    },
    /// An entry was put in.
    #[error("an entry was inserted at {index}")]
    Inserted {
        /// Index of the entry.
        index: u64,
    },
    /// Entries changed places.
    #[error("entries from {index} on were reordered")]
    Reordered {
        /// Index of the first one.
        index: u64,
    },
    /// An entry is not an audit entry of a version that is known here.
    #[error("entry {index} cannot be read")]
    Unreadable {
        /// Index of the entry.
        index: u64,
    },
    /// A tile does not match the hash in the level above: it, or the one above, was rewritten.
    #[error("tile {index} of level {level} does not match the level above: entries {first} to {last} are affected")]
    Tile {
        /// Its level.
        level: u8,
        /// Its number.
        index: u64,
        /// First entry below it.
        first: u64,
        /// Last entry below it.
        last: u64,
    },
    /// The tiles as a whole do not give the root of the checkpoint.
    #[error("the tiles do not give the root of the checkpoint")]
    Root,
    /// An older checkpoint covers more entries than the newest.
    #[error("the log had {old} entries before and has {size} now: its end was cut")]
    Truncated {
        /// Entries of the older checkpoint.
        old: u64,
        /// Entries now.
        size: u64,
    },
    /// An older checkpoint is not a prefix of this log: its past was rewritten, or there are two logs.
    #[error("the first {old} entries are not those that were signed before: the log was forked")]
    Forked {
        /// Entries of the older checkpoint.
        old: u64,
    },
    /// An older checkpoint names another log.
    #[error("an older checkpoint is of another log: {origin}")]
    OtherLog {
        /// Its origin.
        origin: String,
    },
}

/// What the check found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The newest checkpoint, where its signature holds.
    pub checkpoint: Option<Checkpoint>,
    /// Entries that were read and match.
    pub entries: u64,
    /// Tiles that were read and match.
    pub tiles: u64,
    /// Older checkpoints that are prefixes of this log.
    pub consistent: usize,
    /// How often the key was succeeded between the one that was given and the newest.
    pub successions: usize,
    /// What is wrong, at most [`MAX_FINDINGS`].
    pub findings: Vec<Finding>,
}

impl Report {
    /// Whether everything holds.
    #[must_use]
    pub const fn holds(&self) -> bool {
        self.checkpoint.is_some() && self.findings.is_empty()
    }
}

/// Checks a whole log. `older` are checkpoints kept from before (by a witness, in a backup, on paper), signatures
/// already checked.
///
/// # Errors
/// Only what the source says when it cannot read; everything wrong with the log itself is in the report.
pub fn verify_log<S: TileSource>(source: &S, key: &VerifierKey, older: &[Checkpoint]) -> Result<Report, S::Error> {
    let mut report =
        Report { checkpoint: None, entries: 0, tiles: 0, consistent: 0, successions: 0, findings: Vec::new() };
    let Some(note) = source.read("checkpoint")? else {
        report.findings.push(Finding::NoCheckpoint);
        return Ok(report);
    };
    let Some((keys, proofs)) = chain(source, key, &note)? else {
        report.findings.push(Finding::Damaged { path: SUCCESSION.to_owned() });
        return Ok(report);
    };
    let newest = keys.last().unwrap_or(key);
    let opened = std::str::from_utf8(&note)
        .map_err(|_not_text| NoteError::Format)
        .and_then(|note| Checkpoint::open(note, newest));
    match opened {
        Err(error) => report.findings.push(Finding::Checkpoint(error)),
        Ok(checkpoint) => {
            let mut check = Check { source, size: checkpoint.size, report: &mut report };
            check.tiles(&checkpoint)?;
            check.bundles()?;
            // That the announcements are in this log, and not in another that the old key signed.
            check.older(&checkpoint, &proofs)?;
            check.report.consistent = 0;
            check.older(&checkpoint, older)?;
            report.successions = proofs.len();
            report.checkpoint = Some(checkpoint);
        }
    }
    Ok(report)
}

/// The keys that `key` leads to by the log's own links, `key` first: an older checkpoint may be signed by any of them.
///
/// # Errors
/// Only what the source says when it cannot read. Links that cannot be read lead nowhere.
pub fn trusted_keys<S: TileSource>(source: &S, key: &VerifierKey) -> Result<Vec<VerifierKey>, S::Error> {
    let Some(note) = source.read("checkpoint")? else { return Ok(vec![key.clone()]) };
    Ok(chain(source, key, &note)?.map_or_else(|| vec![key.clone()], |(keys, _)| keys))
}

type Chain = (Vec<VerifierKey>, Vec<Checkpoint>);

/// The keys and the checkpoints that announce them; `None` when the links cannot be read.
fn chain<S: TileSource>(source: &S, key: &VerifierKey, note: &[u8]) -> Result<Option<Chain>, S::Error> {
    let Some(octets) = source.read(SUCCESSION)? else { return Ok(Some((vec![key.clone()], Vec::new()))) };
    let Ok(links) = parse_links(&octets) else { return Ok(None) };
    // Only to know how wide the last bundle is: nothing is believed of it here.
    let size =
        std::str::from_utf8(note).ok().and_then(|note| Checkpoint::from_text(note).ok()).map_or(0, |said| said.size);
    let chain = follow(key, &links, |index| {
        let bundle = index / u64::from(TILE_WIDTH);
        if index >= size {
            return Ok(None);
        }
        let octets = read_tile(source, TileKind::Entries, bundle, tile_width(size, 0, bundle))?;
        let place = usize::try_from(index % u64::from(TILE_WIDTH)).unwrap_or(usize::MAX);
        let entry =
            octets.as_deref().and_then(|octets| parse_bundle(octets).ok()?.get(place).map(|entry| entry.to_vec()));
        Ok(entry)
    })?;
    Ok(Some(chain))
}

struct Check<'a, S> {
    source: &'a S,
    size: u64,
    report: &'a mut Report,
}

/// A tile could not be had; what is wrong with it has been noted by whoever needed it first.
enum TileFault<E> {
    Missing,
    Damaged,
    Source(E),
}

impl<S: TileSource> HashReader for Check<'_, S> {
    type Error = TileFault<S::Error>;

    fn hashes(&self, level: u8, index: u64, width: u16) -> Result<Vec<[u8; 32]>, Self::Error> {
        let octets = match read_tile(self.source, TileKind::Hashes(level), index, width) {
            Ok(Some(octets)) => octets,
            Ok(None) => return Err(TileFault::Missing),
            Err(error) => return Err(TileFault::Source(error)),
        };
        // A complete tile stands in for a partial one (C2SP tlog-tiles, "Partial Tiles").
        let wanted = octets.get(..usize::from(width) * 32).ok_or(TileFault::Damaged)?;
        if octets.len() != wanted.len() && octets.len() != usize::from(TILE_WIDTH) * 32 {
            return Err(TileFault::Damaged);
        }
        parse_tile(wanted, width).map_err(|_length| TileFault::Damaged)
    }
}

fn path_text(kind: TileKind, index: u64, width: u16) -> String {
    TilePath::new(kind, index, width).map_or_else(|_width| String::new(), |path| path.to_string())
}

/// The file of this width, or the complete one.
fn read_tile<S: TileSource>(source: &S, kind: TileKind, index: u64, width: u16) -> Result<Option<Vec<u8>>, S::Error> {
    let found = source.read(&path_text(kind, index, width))?;
    if found.is_some() || width == TILE_WIDTH {
        return Ok(found);
    }
    source.read(&path_text(kind, index, TILE_WIDTH))
}

impl<S: TileSource> Check<'_, S> {
    fn found(&mut self, finding: Finding) {
        if self.report.findings.len() < MAX_FINDINGS {
            self.report.findings.push(finding);
        }
    }

    fn is_over(&self) -> bool {
        self.report.findings.len() >= MAX_FINDINGS
    }

    /// The hashes of a tile; `None` after noting what is wrong with it.
    fn tile(&mut self, level: u8, index: u64) -> Result<Option<Vec<[u8; 32]>>, S::Error> {
        let width = tile_width(self.size, level, index);
        let path = || path_text(TileKind::Hashes(level), index, width);
        match self.hashes(level, index, width) {
            Ok(hashes) => return Ok(Some(hashes)),
            Err(TileFault::Missing) => self.found(Finding::Missing { path: path() }),
            Err(TileFault::Damaged) => self.found(Finding::Damaged { path: path() }),
            Err(TileFault::Source(error)) => return Err(error),
        }
        Ok(None)
    }

    /// Every tile against the level above, and the whole against the root.
    fn tiles(&mut self, checkpoint: &Checkpoint) -> Result<(), S::Error> {
        for level in 0_u8..8 {
            let count = self.size.checked_shr(u32::from(level) * 8).unwrap_or(0);
            let mut above: Option<(u64, Option<Vec<[u8; 32]>>)> = None;
            for index in 0..count.div_ceil(u64::from(TILE_WIDTH)) {
                if self.is_over() {
                    return Ok(());
                }
                let Some(hashes) = self.tile(level, index)? else { continue };
                self.report.tiles += 1;
                if hashes.len() < usize::from(TILE_WIDTH) {
                    continue;
                }
                let parent = index / u64::from(TILE_WIDTH);
                if above.as_ref().is_none_or(|(number, _)| *number != parent) {
                    let width = tile_width(self.size, level + 1, parent);
                    above = Some((parent, self.hashes(level + 1, parent, width).ok()));
                }
                self.against_parent(level, index, &hashes, above.as_ref().and_then(|(_, hashes)| hashes.as_deref()));
            }
        }
        match proof::root(self, self.size) {
            Ok(root) if root == checkpoint.root => {}
            // A missing tile has been noted above; the root cannot be had then.
            Ok(_) | Err(_) if self.is_over() => {}
            Ok(_) => self.found(Finding::Root),
            Err(_) if self.report.findings.is_empty() => self.found(Finding::Root),
            Err(_) => {}
        }
        Ok(())
    }

    fn against_parent(&mut self, level: u8, index: u64, hashes: &[[u8; 32]], above: Option<&[[u8; 32]]>) {
        let slot = usize::try_from(index % u64::from(TILE_WIDTH)).unwrap_or(usize::MAX);
        // A missing parent is noted when its own level is read.
        let Some(expected) = above.and_then(|above| above.get(slot)) else { return };
        if subtree_root(hashes).as_ref() != Some(expected) {
            let span = 1_u64.checked_shl(8 * (u32::from(level) + 1)).unwrap_or(u64::MAX);
            let first = index.saturating_mul(span);
            let last = first.saturating_add(span - 1).min(self.size.saturating_sub(1));
            self.found(Finding::Tile { level, index, first, last });
        }
    }

    /// Every entry against its leaf hash.
    fn bundles(&mut self) -> Result<(), S::Error> {
        for index in 0..self.size.div_ceil(u64::from(TILE_WIDTH)) {
            if self.is_over() {
                break;
            }
            let width = tile_width(self.size, 0, index);
            let path = path_text(TileKind::Entries, index, width);
            let Some(octets) = read_tile(self.source, TileKind::Entries, index, width)? else {
                self.found(Finding::Missing { path });
                continue;
            };
            let Ok(mut entries) = parse_bundle(&octets) else {
                self.found(Finding::Damaged { path });
                continue;
            };
            // A complete bundle stands in for a partial one; any other surplus is an insertion.
            if entries.len() == usize::from(TILE_WIDTH) {
                entries.truncate(usize::from(width));
            }
            let leaves = match self.hashes(0, index, width) {
                Ok(leaves) => leaves,
                Err(TileFault::Source(error)) => return Err(error),
                Err(TileFault::Missing | TileFault::Damaged) => continue,
            };
            self.bundle(index * u64::from(TILE_WIDTH), &entries, &leaves);
        }
        Ok(())
    }

    fn bundle(&mut self, first: u64, entries: &[&[u8]], leaves: &[[u8; 32]]) {
        let hashed: Vec<[u8; 32]> = entries.iter().map(|entry| leaf_hash(entry)).collect();
        if let Some(finding) = difference(first, &hashed, leaves) {
            self.found(finding);
        }
        for ((entry, hash), (leaf, index)) in entries.iter().zip(&hashed).zip(leaves.iter().zip(first..)) {
            if hash != leaf {
                continue;
            }
            match serde_json::from_slice::<AuditEntry>(entry) {
                Ok(AuditEntry { v: 1, .. }) => self.report.entries += 1,
                _ => self.found(Finding::Unreadable { index }),
            }
        }
    }

    fn older(&mut self, checkpoint: &Checkpoint, older: &[Checkpoint]) -> Result<(), S::Error> {
        for old in older {
            if old.origin != checkpoint.origin {
                self.found(Finding::OtherLog { origin: old.origin.clone() });
            } else if old.size > checkpoint.size {
                self.found(Finding::Truncated { old: old.size, size: checkpoint.size });
            } else {
                match prefix_root(self, old.size) {
                    Ok(root) if root == old.root => self.report.consistent += 1,
                    Err(proof::ProofError::Read(TileFault::Source(error))) => return Err(error),
                    Ok(_) | Err(_) => self.found(Finding::Forked { old: old.size }),
                }
            }
        }
        Ok(())
    }
}

/// The root of the first `old` entries, read from the tiles of the larger tree.
fn prefix_root<S: TileSource>(
    check: &Check<'_, S>,
    old: u64,
) -> Result<[u8; 32], proof::ProofError<TileFault<S::Error>>> {
    proof::prefix_root(check, old, check.size)
}

/// Names how the entries of a bundle differ from its leaf hashes, and where first.
fn difference(first: u64, hashed: &[[u8; 32]], leaves: &[[u8; 32]]) -> Option<Finding> {
    let same = hashed.iter().zip(leaves).take_while(|(hash, leaf)| hash == leaf).count();
    if same == hashed.len() && same == leaves.len() {
        return None;
    }
    let index = first.saturating_add(u64::try_from(same).unwrap_or(u64::MAX));
    let (mut left, mut right) = (hashed.to_vec(), leaves.to_vec());
    left.sort_unstable();
    right.sort_unstable();
    let (rest, expected) = (hashed.get(same..)?, leaves.get(same..)?);
    Some(if left == right {
        Finding::Reordered { index }
    } else if rest.is_empty() || (expected.len() > 1 && rest.first() == expected.get(1)) {
        Finding::Removed { index }
    } else if expected.is_empty() || (rest.len() > 1 && rest.get(1) == expected.first()) {
        Finding::Inserted { index }
    } else {
        Finding::Edited { index }
    })
}

//! Succession of the log's key: who was given one key finds the newest by following what each key said of the next.
//!
//! A link is a checkpoint that the old key signed, and the index of the entry in it that announces the new key. So a new key is
//! believed because the old one signed a log that names it, and for no other reason. The links stand in the file `succession`
//! beside the checkpoint; whoever checks the whole log checks that the announcement is in it.

use serde::{Deserialize, Serialize};

use crate::checkpoint::Checkpoint;
use crate::entry::AuditEntry;
use crate::note::VerifierKey;

/// The file of the links, beside the checkpoint.
pub const SUCCESSION: &str = "succession";
/// The act of an entry that announces a key, and where in its detail the key is.
pub const ANNOUNCE: &str = "log.succeed";
/// See [`ANNOUNCE`].
pub const SUCCESSOR: &str = "successor";
/// The most links: with a key a year, some lifetimes.
pub const MAX_LINKS: usize = 256;
/// The most octets of the file.
pub const MAX_SUCCESSION_OCTETS: usize = 1024 * 1024;

/// One succession.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Link {
    /// Index of the entry that announces the new key.
    pub index: u64,
    /// A checkpoint over that entry, signed by the key before.
    pub checkpoint: String,
}

/// A file that is not one of links.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a list of at most 256 links")]
pub struct NotLinks;

/// Reads the file.
///
/// # Errors
/// [`NotLinks`].
pub fn parse_links(octets: &[u8]) -> Result<Vec<Link>, NotLinks> {
    if octets.len() > MAX_SUCCESSION_OCTETS {
        return Err(NotLinks);
    }
    let links: Vec<Link> = serde_json::from_slice(octets).map_err(|_syntax| NotLinks)?;
    if links.len() > MAX_LINKS { Err(NotLinks) } else { Ok(links) }
}

/// The key that an entry announces, if it announces one of this log.
#[must_use]
pub fn announced(entry: &[u8], log: &str) -> Option<VerifierKey> {
    let entry: AuditEntry = serde_json::from_slice(entry).ok()?;
    if entry.act != ANNOUNCE {
        return None;
    }
    VerifierKey::from_text(entry.detail.get(SUCCESSOR)?).ok().filter(|key| key.name() == log)
}

/// The keys that `key` leads to, itself first, and the checkpoints that say so: each must be a prefix of the log that is checked, or the
/// announcement is of another one. `entry` gives the octets of an entry of the log.
///
/// # Errors
/// Whatever `entry` says.
pub fn follow<E>(
    key: &VerifierKey,
    links: &[Link],
    mut entry: impl FnMut(u64) -> Result<Option<Vec<u8>>, E>,
) -> Result<(Vec<VerifierKey>, Vec<Checkpoint>), E> {
    let (mut keys, mut proofs) = (vec![key.clone()], Vec::new());
    for Link { index, checkpoint } in links {
        let newest = keys.last().unwrap_or(key);
        // One that this key did not sign is of before it: whoever was given a later key begins later.
        let Ok(checkpoint) = Checkpoint::open(checkpoint, newest) else { continue };
        if *index >= checkpoint.size || checkpoint.origin != newest.name() {
            continue;
        }
        let next = entry(*index)?.and_then(|octets| announced(&octets, newest.name()));
        // A key that announces itself again is no succession: both sign for a while.
        if let Some(next) = next.filter(|next| !keys.contains(next)) {
            keys.push(next);
            proofs.push(checkpoint);
        }
    }
    Ok((keys, proofs))
}

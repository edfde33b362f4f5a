//! Inclusion and consistency proofs: made from tiles, checked from hashes alone (RFC 6962 section 2.1.1 and 2.1.2, the
//! checks as spelled out in RFC 9162 section 2.1.3.2 and 2.1.4.2).

use crate::hash::{empty_root, leaf_hash, node_hash, subtree_root};
use crate::tile::tile_width;

/// Reads hash tiles of one log.
pub trait HashReader {
    /// What can go wrong.
    type Error;

    /// `width` hashes of tile `index` at `level`.
    ///
    /// # Errors
    /// The reader's own, also when the tile is shorter.
    fn hashes(&self, level: u8, index: u64, width: u16) -> Result<Vec<[u8; 32]>, Self::Error>;
}

/// Why a proof could not be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProofError<E> {
    /// The index or the older size lies beyond the tree.
    #[error("the tree is not that large")]
    Range,
    /// A tile has fewer hashes than the tree needs.
    #[error("a tile is too short")]
    ShortTile,
    /// The reader failed.
    #[error("a tile could not be read")]
    Read(#[source] E),
}

/// A proof does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the proof does not hold")]
pub struct ProofFails;

/// Largest power of two below `count`, for `count` of at least 2.
const fn split(count: u64) -> u64 {
    let bits = (count - 1).ilog2();
    1 << bits
}

/// Root of the complete subtree of `1 << height` entries from `number << height`, in a tree of `size`.
fn node<R: HashReader>(reader: &R, size: u64, height: u32, number: u64) -> Result<[u8; 32], ProofError<R::Error>> {
    let level = u8::try_from(height / 8).map_err(|_too_high| ProofError::Range)?;
    let within = height % 8;
    let first = number.checked_shl(within).ok_or(ProofError::Range)?;
    let tile = first / 256;
    let hashes = reader.hashes(level, tile, tile_width(size, level, tile)).map_err(ProofError::Read)?;
    let from = usize::try_from(first % 256).map_err(|_never| ProofError::Range)?;
    let block = hashes.get(from..from + (1_usize << within)).ok_or(ProofError::ShortTile)?;
    subtree_root(block).ok_or(ProofError::ShortTile)
}

/// RFC 6962 hash of the entries `from..to` in a tree of `size`.
fn range_hash<R: HashReader>(reader: &R, size: u64, from: u64, to: u64) -> Result<[u8; 32], ProofError<R::Error>> {
    let count = to.checked_sub(from).ok_or(ProofError::Range)?;
    if count == 0 {
        return Ok(empty_root());
    }
    if count.is_power_of_two() {
        let height = count.trailing_zeros();
        return node(reader, size, height, from >> height);
    }
    let middle = from + split(count);
    Ok(node_hash(&range_hash(reader, size, from, middle)?, &range_hash(reader, size, middle, to)?))
}

/// The root of the first `size` entries, for a reader whose tiles reach at least that far.
///
/// # Errors
/// [`ProofError`].
pub fn root<R: HashReader>(reader: &R, size: u64) -> Result<[u8; 32], ProofError<R::Error>> {
    range_hash(reader, size, 0, size)
}

/// The root of the first `old` entries, read from the tiles of a tree of `size`.
///
/// # Errors
/// [`ProofError`].
pub fn prefix_root<R: HashReader>(reader: &R, old: u64, size: u64) -> Result<[u8; 32], ProofError<R::Error>> {
    if old > size {
        return Err(ProofError::Range);
    }
    range_hash(reader, size, 0, old)
}

/// Proof that entry `index` is in the tree of `size` entries, leaf side first.
///
/// # Errors
/// [`ProofError`].
pub fn inclusion_proof<R: HashReader>(
    reader: &R,
    index: u64,
    size: u64,
) -> Result<Vec<[u8; 32]>, ProofError<R::Error>> {
    if index >= size {
        return Err(ProofError::Range);
    }
    let (mut from, mut to) = (0, size);
    let mut proof = Vec::new();
    while to - from > 1 {
        let middle = from + split(to - from);
        if index < middle {
            proof.push(range_hash(reader, size, middle, to)?);
            to = middle;
        } else {
            proof.push(range_hash(reader, size, from, middle)?);
            from = middle;
        }
    }
    proof.reverse();
    Ok(proof)
}

/// Proof that the tree of `old` entries is a prefix of the tree of `size`; empty when `old` is 0 or `size`.
///
/// # Errors
/// [`ProofError`].
pub fn consistency_proof<R: HashReader>(
    reader: &R,
    old: u64,
    size: u64,
) -> Result<Vec<[u8; 32]>, ProofError<R::Error>> {
    if old > size {
        return Err(ProofError::Range);
    }
    if old == 0 || old == size {
        return Ok(Vec::new());
    }
    let (mut from, mut to) = (0, size);
    let mut proof = Vec::new();
    while to != old {
        let middle = from + split(to - from);
        if old <= middle {
            proof.push(range_hash(reader, size, middle, to)?);
            to = middle;
        } else {
            proof.push(range_hash(reader, size, from, middle)?);
            from = middle;
        }
    }
    if from != 0 {
        proof.push(range_hash(reader, size, from, to)?);
    }
    proof.reverse();
    Ok(proof)
}

/// Checks that `entry` stands at `index` of the tree of `size` entries with this `root`.
///
/// # Errors
/// [`ProofFails`].
pub fn verify_inclusion(
    entry: &[u8],
    index: u64,
    size: u64,
    root: &[u8; 32],
    proof: &[[u8; 32]],
) -> Result<(), ProofFails> {
    if index >= size {
        return Err(ProofFails);
    }
    let (mut number, mut last) = (index, size - 1);
    let mut hash = leaf_hash(entry);
    for sibling in proof {
        if last == 0 {
            return Err(ProofFails);
        }
        if number & 1 == 1 || number == last {
            hash = node_hash(sibling, &hash);
            while number & 1 == 0 && number != 0 {
                number >>= 1;
                last >>= 1;
            }
        } else {
            hash = node_hash(&hash, sibling);
        }
        number >>= 1;
        last >>= 1;
    }
    if last == 0 && hash == *root { Ok(()) } else { Err(ProofFails) }
}

/// Checks that the tree `(old, old_root)` is a prefix of the tree `(size, root)`.
///
/// # Errors
/// [`ProofFails`].
pub fn verify_consistency(
    old: u64,
    old_root: &[u8; 32],
    size: u64,
    root: &[u8; 32],
    proof: &[[u8; 32]],
) -> Result<(), ProofFails> {
    let holds = |condition: bool| if condition { Ok(()) } else { Err(ProofFails) };
    if old > size {
        return Err(ProofFails);
    }
    if old == size {
        return holds(proof.is_empty() && old_root == root);
    }
    if old == 0 {
        return holds(proof.is_empty() && *old_root == empty_root());
    }
    let (first, rest) =
        if old.is_power_of_two() { (old_root, proof) } else { proof.split_first().ok_or(ProofFails)? };
    let shift = (old - 1).trailing_ones();
    let (mut number, mut last) = ((old - 1) >> shift, (size - 1) >> shift);
    let (mut older, mut newer) = (*first, *first);
    for sibling in rest {
        if last == 0 {
            return Err(ProofFails);
        }
        if number & 1 == 1 || number == last {
            older = node_hash(sibling, &older);
            newer = node_hash(sibling, &newer);
            while number & 1 == 0 && number != 0 {
                number >>= 1;
                last >>= 1;
            }
        } else {
            newer = node_hash(&newer, sibling);
        }
        number >>= 1;
        last >>= 1;
    }
    holds(last == 0 && older == *old_root && newer == *root)
}

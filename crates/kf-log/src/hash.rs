//! Hashes of leaves and nodes (RFC 6962 section 2.1).

use kf_crypto::{Sha256, sha256};

/// Hash of a leaf: SHA-256(0x00 || entry).
#[must_use]
pub fn leaf_hash(entry: &[u8]) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(&[0x00]);
    hash.update(entry);
    hash.finish()
}

/// Hash of an inner node: SHA-256(0x01 || left || right).
#[must_use]
pub fn node_hash(left: &[u8; 32], right: &[u8; 32]) -> [u8; 32] {
    let mut octets = [0x01; 65];
    let (_, hashes) = octets.split_at_mut(1);
    let (first, second) = hashes.split_at_mut(32);
    first.copy_from_slice(left);
    second.copy_from_slice(right);
    sha256(&octets)
}

/// Root of the empty tree: SHA-256 of nothing.
#[must_use]
pub fn empty_root() -> [u8; 32] {
    sha256(b"")
}

/// Root over a power of two of hashes; `None` for any other count.
#[must_use]
pub fn subtree_root(hashes: &[[u8; 32]]) -> Option<[u8; 32]> {
    match hashes {
        [] => None,
        [single] => Some(*single),
        more if more.len().is_power_of_two() => {
            let (left, right) = more.split_at_checked(more.len() / 2)?;
            Some(node_hash(&subtree_root(left)?, &subtree_root(right)?))
        }
        _ => None,
    }
}

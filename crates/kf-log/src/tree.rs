//! The growing tree: the right edge in memory, completed tiles handed out as they fill.

use crate::hash::{empty_root, node_hash, subtree_root};
use crate::tile::TILE_WIDTH;

/// The most levels of tiles of a tree of at most 2^64 entries.
pub const MAX_TILE_LEVELS: usize = 8;

/// A hash tile that is complete: it never changes again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompletedTile {
    /// Level, 0 for leaf hashes.
    pub level: u8,
    /// Number within the level.
    pub index: u64,
    /// Its 256 hashes.
    pub hashes: Vec<[u8; 32]>,
}

/// The right edge of a tree: for each tile level the hashes of the tile that is not complete yet, fewer than 256.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tree {
    size: u64,
    edges: Vec<Vec<[u8; 32]>>,
}

/// The edges do not fit the size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("level {level} of the tree needs {needed} hashes at its edge")]
pub struct EdgeMismatch {
    /// The level.
    pub level: usize,
    /// How many hashes a tree of this size has there.
    pub needed: usize,
}

/// Hashes at the edge of `level` in a tree of `size` entries.
fn edge_width(size: u64, level: usize) -> usize {
    let shift = u32::try_from(level.saturating_mul(8)).unwrap_or(u32::MAX);
    let count = size.checked_shr(shift).unwrap_or(0) % u64::from(TILE_WIDTH);
    usize::try_from(count).unwrap_or(0)
}

impl Tree {
    /// The empty tree.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A tree read back from storage: its size and the edge of each level, level 0 first.
    ///
    /// # Errors
    /// [`EdgeMismatch`] when a level does not hold as many hashes as a tree of this size has there.
    pub fn restore(size: u64, mut edges: Vec<Vec<[u8; 32]>>) -> Result<Self, EdgeMismatch> {
        for level in 0..MAX_TILE_LEVELS.max(edges.len()) {
            let needed = edge_width(size, level);
            if edges.get(level).map_or(0, Vec::len) != needed {
                return Err(EdgeMismatch { level, needed });
            }
        }
        while edges.last().is_some_and(Vec::is_empty) {
            edges.pop();
        }
        Ok(Self { size, edges })
    }

    /// Entries.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// The hashes at the edge of a level, fewer than 256.
    #[must_use]
    pub fn edge(&self, level: usize) -> &[[u8; 32]] {
        self.edges.get(level).map_or(&[], Vec::as_slice)
    }

    /// Levels that hold hashes at their edge, counted from 0.
    #[must_use]
    pub fn levels(&self) -> usize {
        self.edges.len()
    }

    /// Appends a leaf; pushes every tile that it completes to `completed`, lower levels first.
    pub fn append(&mut self, leaf: [u8; 32], completed: &mut Vec<CompletedTile>) {
        self.size = self.size.saturating_add(1);
        let mut carry = leaf;
        for level in 0..MAX_TILE_LEVELS {
            if self.edges.len() <= level {
                self.edges.push(Vec::with_capacity(usize::from(TILE_WIDTH)));
            }
            let Some(edge) = self.edges.get_mut(level) else { return };
            edge.push(carry);
            if edge.len() < usize::from(TILE_WIDTH) {
                return;
            }
            let hashes = std::mem::replace(edge, Vec::with_capacity(usize::from(TILE_WIDTH)));
            let Some(root) = subtree_root(&hashes) else { return };
            let shift = u32::try_from(8 * (level + 1)).unwrap_or(u32::MAX);
            let index = self.size.checked_shr(shift).unwrap_or(0).saturating_sub(1);
            completed.push(CompletedTile { level: u8::try_from(level).unwrap_or(u8::MAX), index, hashes });
            carry = root;
        }
    }

    /// The RFC 6962 root: the complete subtrees at the edge, folded from the right.
    #[must_use]
    pub fn root(&self) -> [u8; 32] {
        let mut folded: Option<[u8; 32]> = None;
        for edge in &self.edges {
            let mut rest = edge.as_slice();
            while !rest.is_empty() {
                // The rightmost complete subtree is as wide as the lowest bit that is set.
                let width = 1_usize << rest.len().trailing_zeros();
                let Some((left, block)) = rest.split_at_checked(rest.len() - width) else { break };
                let Some(root) = subtree_root(block) else { break };
                folded = Some(folded.map_or(root, |right| node_hash(&root, &right)));
                rest = left;
            }
        }
        folded.unwrap_or_else(empty_root)
    }
}

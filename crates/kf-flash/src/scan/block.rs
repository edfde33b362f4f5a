//! What a block of octets looks like.

use alloc::vec::Vec;

use crate::octets::{is_blank, is_purged};

/// Octets of a block: what flash erases at once.
pub const BLOCK_OCTETS: usize = 4096;

/// What a block looks like, from how often each octet occurs in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum BlockContent {
    /// Only ff: erased.
    Blank,
    /// Only 00: purged, or never more than zeroes.
    Zero,
    /// Some octets are more frequent than in random data: code, text, tables, or a mixture with blank flash. Not encrypted
    /// as a whole.
    Plain,
    /// No octet is more frequent than in random data: encrypted, compressed or random. Which of them cannot be told.
    LooksRandom,
}

/// Adjacent blocks that look the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    /// Where it begins in the image, in octets.
    pub offset: u64,
    /// Its octets.
    pub octets: u64,
    /// What each of its blocks looks like.
    pub content: BlockContent,
}

impl BlockContent {
    /// Its name in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Blank => "blank",
            Self::Zero => "zero",
            Self::Plain => "plain",
            Self::LooksRandom => "looks_random",
        }
    }

    /// Judges a block by Pearson's chi-squared statistic over its octets, which has mean 255 and standard deviation 22.6
    /// for random data. The limit lies eight deviations above: a random block is taken for plain less than once in 10^12.
    ///
    /// A block of fewer than 1024 octets is too short to look random.
    pub(super) fn of(block: &[u8]) -> Self {
        if is_blank(block) {
            return Self::Blank;
        }
        if is_purged(block) {
            return Self::Zero;
        }
        let mut counts = [0_u64; 256];
        for octet in block {
            if let Some(count) = counts.get_mut(usize::from(*octet)) {
                *count += 1;
            }
        }
        // chi² = 256 / n × Σ count² − n, here times n to stay with whole numbers.
        let octets = u64::try_from(block.len()).unwrap_or(u64::MAX);
        let squares: u64 = counts.iter().map(|count| count * count).sum();
        let limit = 255 + 8 * 23;
        let is_random = block.len() >= 1024 && 256 * squares < octets * (octets + limit);
        if is_random { Self::LooksRandom } else { Self::Plain }
    }
}

/// Joins adjacent blocks of one content. `octets` is the length of the image.
pub(super) fn regions(blocks: &[BlockContent], octets: u64) -> Vec<Region> {
    let block_octets = u64::try_from(BLOCK_OCTETS).unwrap_or_default();
    let mut regions: Vec<Region> = Vec::new();
    let mut offset = 0;
    for run in blocks.chunk_by(|one, next| one == next) {
        let Some(content) = run.first().copied() else { continue };
        let run = u64::try_from(run.len()).unwrap_or_default() * block_octets;
        let run = run.min(octets.saturating_sub(offset));
        regions.push(Region { offset, octets: run, content });
        offset += run;
    }
    regions
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use sha2::{Digest, Sha256};

    use super::*;

    fn random(octets: usize) -> Vec<u8> {
        (0_u32..).flat_map(|count| Sha256::digest(count.to_le_bytes())).take(octets).collect()
    }

    #[test]
    fn random_blocks_look_random_and_others_do_not() {
        assert!(random(1 << 20).chunks(BLOCK_OCTETS).all(|block| BlockContent::of(block) == BlockContent::LooksRandom));
        assert_eq!(BlockContent::of(&vec![0xff; 4096]), BlockContent::Blank);
        assert_eq!(BlockContent::of(&vec![0; 4096]), BlockContent::Zero);
        assert_eq!(BlockContent::of(b"some text ".repeat(409).as_slice()), BlockContent::Plain);
        let mut half = random(4096);
        half.get_mut(..2048).expect("half").fill(0xff);
        assert_eq!(BlockContent::of(&half), BlockContent::Plain);
        assert_eq!(BlockContent::of(&random(1023)), BlockContent::Plain);
    }

    #[test]
    fn adjacent_blocks_are_joined_and_the_last_region_ends_with_the_image() {
        let blocks = [BlockContent::Blank, BlockContent::Blank, BlockContent::Plain];
        let found = regions(&blocks, 8192 + 100);
        let expected = [(0, 8192, BlockContent::Blank), (8192, 100, BlockContent::Plain)];
        assert_eq!(found.len(), 2);
        assert!(found.iter().map(|region| (region.offset, region.octets, region.content)).eq(expected));
    }
}

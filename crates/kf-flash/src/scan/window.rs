//! The scanner: an image, piece by piece.

use alloc::vec::Vec;
use core::fmt;

use zeroize::Zeroize;

use super::block::{BLOCK_OCTETS, BlockContent, Region, regions};
use super::finding::Finding;
use super::private_key::{self, Found};
use super::secret::Secrets;
use super::structure::{Structure, inspect};

/// The most octets of an image: 1 GiB, more flash than any of these devices has.
pub const MAX_IMAGE_OCTETS: u64 = 1 << 30;
/// The most findings that are listed; a report says when there were more.
pub const MAX_FINDINGS: usize = 10_000;
/// The most structures that are listed; a report says when there were more.
pub const MAX_STRUCTURES: usize = 10_000;

/// What follows a place must be in memory to judge it: the longest key, and an `esp_secure_cert` partition.
pub(super) const LOOKAHEAD: usize = 16 << 10;
/// How much is judged at once.
const STEP: usize = 64 << 10;

/// Takes an image piece by piece. What it holds of it is wiped.
pub struct Scanner {
    secrets: Secrets,
    window: Vec<u8>,
    /// Where the window begins in the image.
    offset: u64,
    /// Where the next key may begin, from the start of the window: past the last one.
    after_key: usize,
    /// Where the next fragment may begin, likewise.
    after_fragment: usize,
    blocks: Vec<BlockContent>,
    findings: Vec<Finding>,
    structures: Vec<Structure>,
    is_truncated: bool,
}

/// What an image holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageReport {
    /// Octets of the image.
    pub octets: u64,
    /// What should not be there in clear, by offset.
    pub findings: Vec<Finding>,
    /// What told its format, by offset.
    pub structures: Vec<Structure>,
    /// What each block looks like, joined.
    pub regions: Vec<Region>,
    /// Whether there was more of anything than a report lists.
    pub is_truncated: bool,
}

/// The image is longer than [`MAX_IMAGE_OCTETS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImageTooLong;

impl Scanner {
    /// Begins an image.
    #[must_use]
    pub fn new(secrets: Secrets) -> Self {
        Self {
            secrets,
            window: Vec::new(),
            offset: 0,
            after_key: 0,
            after_fragment: 0,
            blocks: Vec::new(),
            findings: Vec::new(),
            structures: Vec::new(),
            is_truncated: false,
        }
    }

    /// Takes the next piece, of any length.
    ///
    /// # Errors
    /// [`ImageTooLong`].
    pub fn push(&mut self, mut piece: &[u8]) -> Result<(), ImageTooLong> {
        let held = self.offset + length(self.window.len());
        if held + length(piece.len()) > MAX_IMAGE_OCTETS {
            return Err(ImageTooLong);
        }
        // Never grown, because growing leaves a copy behind.
        self.window.reserve_exact((STEP + LOOKAHEAD).saturating_sub(self.window.len()));
        while !piece.is_empty() {
            let room = STEP + LOOKAHEAD - self.window.len();
            let (now, later) = piece.split_at(piece.len().min(room));
            self.window.extend_from_slice(now);
            piece = later;
            if self.window.len() == STEP + LOOKAHEAD {
                self.judge(STEP);
                self.window.copy_within(STEP.., 0);
                self.window.truncate(LOOKAHEAD);
                self.offset += length(STEP);
            }
        }
        Ok(())
    }

    /// Ends the image.
    #[must_use]
    pub fn finish(mut self) -> ImageReport {
        let rest = self.window.len();
        self.judge(rest);
        let octets = self.offset + length(rest);
        let mut findings = core::mem::take(&mut self.findings);
        findings.sort_by_key(|finding| (finding.offset, finding.octets));
        ImageReport {
            octets,
            findings,
            structures: core::mem::take(&mut self.structures),
            regions: regions(&self.blocks, octets),
            is_truncated: self.is_truncated,
        }
    }

    /// Judges everything that begins before `end`, which is a multiple of the block length or the end of the image.
    fn judge(&mut self, end: usize) {
        let Self { secrets, window, offset, findings, structures, blocks, after_key, after_fragment, is_truncated } =
            self;
        let mut add = |finding| {
            if findings.len() < MAX_FINDINGS { findings.push(finding) } else { *is_truncated = true }
        };
        let at =
            |(start, octets, kind): Found| Finding { kind, offset: *offset + length(start), octets: length(octets) };
        private_key::pem(window, end, |found| add(at(found)));
        let mut next_key = *after_key;
        private_key::der(window, *after_key, end, |found| {
            next_key = found.0 + found.1;
            add(at(found));
        });
        *after_key = next_key.saturating_sub(end);
        let next_fragment = secrets.find(window, *after_fragment, end, |found| add(at(found)));
        *after_fragment = next_fragment.saturating_sub(end);
        secrets.find_digests(window, end, |found| add(at(found)));
        for start in (0..end).step_by(BLOCK_OCTETS) {
            let rest = window.get(start..).unwrap_or_default();
            blocks.push(BlockContent::of(rest.get(..BLOCK_OCTETS).unwrap_or(rest)));
            let rest = rest.get(..LOOKAHEAD).unwrap_or(rest);
            inspect(*offset + length(start), rest, structures, &mut add);
        }
        if self.structures.len() > MAX_STRUCTURES {
            self.structures.truncate(MAX_STRUCTURES);
            self.is_truncated = true;
        }
    }
}

impl Drop for Scanner {
    fn drop(&mut self) {
        self.window.zeroize();
    }
}

fn length(octets: usize) -> u64 {
    u64::try_from(octets).unwrap_or(u64::MAX)
}

impl fmt::Display for ImageTooLong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the image is longer than 1 GiB: scan its partitions one by one")
    }
}

impl core::error::Error for ImageTooLong {}

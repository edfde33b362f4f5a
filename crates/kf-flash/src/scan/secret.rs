//! Secrets that the caller names, and fragments of them.

use alloc::string::String;
use alloc::vec::Vec;
use alloc::{format, vec};
use core::fmt;

use kf_key::SecretBytes;
use sha2::{Digest, Sha256};
use zeroize::Zeroize;

use super::finding::{Encoding, FindingKind};
use super::private_key::Found;
use crate::octets::{field, is_blank};

/// The shortest fragment of a secret that is found.
pub const MIN_FRAGMENT_OCTETS: usize = 8;
/// The most secrets, and the most digests.
pub const MAX_SECRETS: usize = 1024;
/// The most octets of one secret, and of what a digest is of.
pub const MAX_SECRET_OCTETS: usize = 4096;
/// The most octets of all secrets together.
const MAX_TOTAL_OCTETS: usize = 64 << 10;
/// The most different lengths of what digests are of: each costs a hash of every place in the image.
const MAX_DIGEST_LENGTHS: usize = 4;
/// The shortest secret that is looked for by its digest.
const MIN_DIGEST_OCTETS: usize = 16;
/// Bits of the filter that most places of an image do not pass.
const FILTER_BITS: u32 = 20;

/// A secret to look for.
pub struct NamedSecret {
    /// What reports call it.
    pub name: String,
    /// Its octets.
    pub octets: SecretBytes,
}

/// The digest of a secret to look for, where the secret itself should not be at hand. It finds the secret whole, as it is.
pub struct NamedDigest {
    /// What reports call it.
    pub name: String,
    /// SHA-256 of the secret.
    pub sha256: [u8; 32],
    /// Octets of the secret.
    pub octets: usize,
}

/// What a scanner looks for.
#[derive(Default)]
pub struct Secrets {
    needles: Vec<Needle>,
    /// Every 8 octets of every needle, sorted.
    fragments: Vec<Fragment>,
    filter: Vec<u64>,
    digests: Vec<NamedDigest>,
    digest_lengths: Vec<usize>,
}

/// One way to write one secret.
struct Needle {
    name: String,
    encoding: Encoding,
    text: SecretBytes,
    /// Octets of the secret.
    octets: usize,
    /// Octets of the secret that the alignment of base64 leaves out at the beginning.
    skipped: usize,
}

#[derive(Clone, Copy)]
struct Fragment {
    octets: u64,
    needle: usize,
    offset: usize,
}

/// Why secrets were refused.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SecretListError {
    /// There are more than [`MAX_SECRETS`].
    TooMany,
    /// All secrets together are longer than 64 KiB.
    TooLong,
    /// One secret has 8 to [`MAX_SECRET_OCTETS`] octets; one that is looked for by digest, at least 16.
    Length {
        /// Its name.
        name: String,
    },
    /// One octet repeated would be found everywhere.
    Constant {
        /// Its name.
        name: String,
    },
    /// Digests are of at most four different lengths.
    TooManyLengths,
    /// A file holds a private key under a passphrase.
    Encrypted {
        /// Its name.
        name: String,
    },
    /// A file of PEM holds no private key, or is damaged.
    KeyFile {
        /// Its name.
        name: String,
    },
}

impl Secrets {
    /// Prepares to look for `secrets` and for what `digests` are of.
    ///
    /// # Errors
    /// [`SecretListError`].
    pub fn new(secrets: Vec<NamedSecret>, digests: Vec<NamedDigest>) -> Result<Self, SecretListError> {
        if secrets.len() > MAX_SECRETS || digests.len() > MAX_SECRETS {
            return Err(SecretListError::TooMany);
        }
        if secrets.iter().map(|secret| secret.octets.len()).sum::<usize>() > MAX_TOTAL_OCTETS {
            return Err(SecretListError::TooLong);
        }
        let mut list = Self::default();
        for secret in secrets {
            check_secret(&secret)?;
            list.needles.extend(needles(&secret));
        }
        if list.needles.is_empty() {
            list.filter = Vec::new();
        } else {
            list.filter = vec![0; 1 << (FILTER_BITS - 6)];
            list.collect_fragments();
        }
        for digest in &digests {
            if !(MIN_DIGEST_OCTETS..=MAX_SECRET_OCTETS).contains(&digest.octets) {
                return Err(SecretListError::Length { name: digest.name.clone() });
            }
            list.digest_lengths.push(digest.octets);
        }
        list.digest_lengths.sort_unstable();
        list.digest_lengths.dedup();
        if list.digest_lengths.len() > MAX_DIGEST_LENGTHS {
            return Err(SecretListError::TooManyLengths);
        }
        list.digests = digests;
        Ok(list)
    }

    fn collect_fragments(&mut self) {
        // Never grown, because growing leaves a copy behind.
        let count = self.needles.iter().map(|needle| needle.text.len() - MIN_FRAGMENT_OCTETS + 1).sum();
        self.fragments.reserve_exact(count);
        for (number, needle) in self.needles.iter().enumerate() {
            // Exposed to index its fragments, which are wiped when the list is dropped.
            for (offset, octets) in needle.text.expose().windows(MIN_FRAGMENT_OCTETS).enumerate() {
                if is_constant(octets) {
                    continue;
                }
                let octets = u64::from_le_bytes(field(octets, 0));
                self.fragments.push(Fragment { octets, needle: number, offset });
                let (word, bit) = filter_place(octets);
                if let Some(word) = self.filter.get_mut(word) {
                    *word |= bit;
                }
            }
        }
        self.fragments.sort_unstable_by_key(|fragment| fragment.octets);
    }

    /// Finds what begins before `end`, from `start` on. Returns where to go on, which is past the end when a fragment is.
    pub(super) fn find(&self, window: &[u8], start: usize, end: usize, mut found: impl FnMut(Found)) -> usize {
        let mut at = start;
        if self.fragments.is_empty() {
            return end;
        }
        while at < end {
            let Some(octets) = window.get(at..).and_then(<[u8]>::first_chunk::<MIN_FRAGMENT_OCTETS>) else { break };
            let octets = u64::from_le_bytes(*octets);
            let (word, bit) = filter_place(octets);
            let passes = self.filter.get(word).is_some_and(|word| word & bit != 0);
            match passes.then(|| self.longest(window, at, octets)).flatten() {
                Some((octets, kind)) => {
                    found((at, octets, kind));
                    at += octets;
                }
                None => at += 1,
            }
        }
        at.max(end)
    }

    /// Finds octets with one of the digests that begin before `end`.
    pub(super) fn find_digests(&self, window: &[u8], end: usize, mut found: impl FnMut(Found)) {
        for length in &self.digest_lengths {
            for (at, octets) in window.windows(*length).enumerate().take(end) {
                if octets.first_chunk::<8>().is_some_and(|start| is_blank(start)) {
                    continue;
                }
                let digest = Sha256::digest(octets);
                let is_it = |named: &&NamedDigest| named.octets == *length && named.sha256 == digest.0;
                for named in self.digests.iter().filter(is_it) {
                    found((at, *length, FindingKind::SecretDigest { name: named.name.clone() }));
                }
            }
        }
    }

    /// The longest fragment at `at`, if one is long enough for its encoding.
    fn longest(&self, window: &[u8], at: usize, octets: u64) -> Option<(usize, FindingKind)> {
        let first = self.fragments.partition_point(|fragment| fragment.octets < octets);
        let same = self.fragments.iter().skip(first).take_while(|fragment| fragment.octets == octets);
        let rest = window.get(at..)?;
        let matches = same.filter_map(|fragment| {
            let needle = self.needles.get(fragment.needle)?;
            // Exposed to compare it with the image.
            let text = needle.text.expose().get(fragment.offset..)?;
            let octets = text.iter().zip(rest).take_while(|(one, other)| one == other).count();
            Some((octets, needle, fragment.offset)).filter(|_| octets >= needle.encoding.shortest())
        });
        let (octets, needle, offset) = matches.max_by_key(|(octets, ..)| *octets)?;
        Some((octets, needle.finding(offset, octets)))
    }
}

impl Needle {
    fn finding(&self, offset: usize, octets: usize) -> FindingKind {
        let (secret_offset, secret_octets) = match self.encoding {
            Encoding::Raw => (offset, octets),
            Encoding::Reversed => (self.octets - offset - octets, octets),
            // A digit alone at either end is half an octet: it does not count.
            Encoding::HexLower | Encoding::HexUpper => (offset.div_ceil(2), (octets - (offset & 1)) / 2),
            Encoding::Base64 => (self.skipped + (offset * 6).div_ceil(8), octets * 6 / 8),
        };
        // Base64 at another alignment leaves out an octet or two at the ends, which the neighbours share.
        let lost = if self.encoding == Encoding::Base64 { 4 } else { 0 };
        let is_whole = secret_octets + lost >= self.octets;
        FindingKind::Secret { name: self.name.clone(), encoding: self.encoding, secret_offset, secret_octets, is_whole }
    }
}

impl Encoding {
    /// Characters of the shortest fragment: 8 octets of the secret at least.
    const fn shortest(self) -> usize {
        match self {
            Self::Raw | Self::Reversed => MIN_FRAGMENT_OCTETS,
            Self::HexLower | Self::HexUpper => 2 * MIN_FRAGMENT_OCTETS,
            Self::Base64 => 12,
        }
    }
}

impl Drop for Secrets {
    fn drop(&mut self) {
        for fragment in &mut self.fragments {
            fragment.octets.zeroize();
        }
        self.filter.zeroize();
    }
}

fn check_secret(secret: &NamedSecret) -> Result<(), SecretListError> {
    let name = || secret.name.clone();
    if !(MIN_FRAGMENT_OCTETS..=MAX_SECRET_OCTETS).contains(&secret.octets.len()) {
        return Err(SecretListError::Length { name: name() });
    }
    // Exposed to look for a single octet repeated.
    if is_constant(secret.octets.expose()) {
        return Err(SecretListError::Constant { name: name() });
    }
    Ok(())
}

/// The secret in all of its encodings.
fn needles(secret: &NamedSecret) -> Vec<Needle> {
    // Exposed to write it in other ways, each of which is wiped when dropped.
    let octets = secret.octets.expose();
    let needle = |encoding, skipped, text| Needle {
        name: secret.name.clone(),
        encoding,
        text: SecretBytes::from_vec(text),
        octets: octets.len(),
        skipped,
    };
    let digits = |alphabet: &[u8; 16]| {
        let pairs = octets.iter().flat_map(|octet| [octet >> 4, octet & 15]);
        pairs.map(|digit| alphabet.get(usize::from(digit)).copied().unwrap_or_default()).collect::<Vec<u8>>()
    };
    let mut reversed = octets.to_vec();
    reversed.reverse();
    let mut all = vec![
        needle(Encoding::Raw, 0, octets.to_vec()),
        needle(Encoding::Reversed, 0, reversed),
        needle(Encoding::HexLower, 0, digits(b"0123456789abcdef")),
        needle(Encoding::HexUpper, 0, digits(b"0123456789ABCDEF")),
    ];
    // Where the secret begins within a larger text in base64 depends on what stands before it: three alignments.
    all.extend(
        (0..3).map(|skipped| needle(Encoding::Base64, skipped, base64(octets.get(skipped..).unwrap_or_default()))),
    );
    all.retain(|needle| needle.text.len() >= MIN_FRAGMENT_OCTETS);
    all
}

/// Base64 of the whole groups of three octets, which do not depend on what follows.
fn base64(octets: &[u8]) -> Vec<u8> {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = Vec::with_capacity(octets.len().div_ceil(3) * 4);
    for group in octets.chunks_exact(3) {
        let bits = group.iter().fold(0_u32, |bits, octet| bits << 8 | u32::from(*octet));
        for shift in [18, 12, 6, 0] {
            let digit = usize::try_from(bits >> shift & 63).unwrap_or_default();
            text.push(ALPHABET.get(digit).copied().unwrap_or_default());
        }
    }
    text
}

fn is_constant(octets: &[u8]) -> bool {
    octets.windows(2).all(|pair| pair.first() == pair.last())
}

/// Which bit of the filter eight octets set.
#[allow(clippy::as_conversions, clippy::cast_possible_truncation, reason = "20 bits, in a constant function")]
const fn filter_place(octets: u64) -> (usize, u64) {
    // Fibonacci hashing: the upper bits of a product with 2^64 / φ.
    let hash = octets.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - FILTER_BITS);
    ((hash >> 6) as usize, 1 << (hash & 63))
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&format!("Secrets({} needles, {} digests)", self.needles.len(), self.digests.len()))
    }
}

impl fmt::Display for SecretListError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooMany => {
                write!(f, "at most {MAX_SECRETS} secrets can be looked for at once: scan again for the rest")
            }
            Self::TooLong => {
                f.write_str("at most 64 KiB of secrets can be looked for at once: scan again for the rest")
            }
            Self::Length { name } => write!(
                f,
                "{name}: a secret has {MIN_FRAGMENT_OCTETS} to {MAX_SECRET_OCTETS} octets, one given by its digest at least \
                 {MIN_DIGEST_OCTETS}"
            ),
            Self::Constant { name } => {
                write!(f, "{name}: one octet repeated is no secret, and would be found everywhere")
            }
            Self::TooManyLengths => {
                write!(
                    f,
                    "digests of secrets of at most {MAX_DIGEST_LENGTHS} different lengths can be looked for at once"
                )
            }
            Self::Encrypted { name } => {
                write!(
                    f,
                    "{name}: the private key is encrypted under a passphrase: give it decrypted, or give its digest"
                )
            }
            Self::KeyFile { name } => write!(f, "{name}: this PEM holds no private key, or is damaged"),
        }
    }
}

impl core::error::Error for SecretListError {}

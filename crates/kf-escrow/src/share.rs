//! A share, and its octets.

use std::fmt;

use kf_key::SecretBytes;
use zeroize::Zeroizing;

use crate::split::{MAX_SECRET_OCTETS, MAX_SHARES, MIN_SECRET_OCTETS};

/// Octets of the digest that is shared behind the key.
pub(crate) const CHECK_OCTETS: usize = 16;
/// The version of the format that this code writes and reads.
const VERSION: u8 = 1;
/// version, threshold, index, ceremony.
const HEADER_OCTETS: usize = 3 + CeremonyId::OCTETS;
/// Octets of the digest over a share itself, against slips of the pen.
const SUM_OCTETS: usize = 4;
/// The most octets of an encoded share.
pub const MAX_SHARE_OCTETS: usize = HEADER_OCTETS + MAX_SECRET_OCTETS + CHECK_OCTETS + SUM_OCTETS;

/// Which ceremony a share is from: 8 random octets, no secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CeremonyId(pub [u8; Self::OCTETS]);

impl CeremonyId {
    /// Its length.
    pub const OCTETS: usize = 8;
}

impl fmt::Display for CeremonyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|octet| write!(f, "{octet:02x}"))
    }
}

/// One share. It says nothing by itself, and is a secret all the same.
pub struct Share {
    pub(crate) ceremony: CeremonyId,
    pub(crate) threshold: u8,
    /// The place at which the polynomials are evaluated; from 1.
    pub(crate) index: u8,
    /// A value for each octet of key and check.
    pub(crate) values: SecretBytes,
}

/// Why octets are no share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ShareError {
    /// Shorter or longer than any share.
    #[error("a share has {min} to {MAX_SHARE_OCTETS} octets, this has {0}", min = MIN_SHARE_OCTETS)]
    Length(usize),
    /// Of another version of the format.
    #[error("the share is of version {0}; this program reads version {VERSION}")]
    Version(u8),
    /// An octet or a word is wrong: the digest over the share does not fit.
    #[error("the share was copied wrongly: compare every word or character with the original")]
    Sum,
    /// Threshold or index out of range.
    #[error("threshold or number of the share are out of range: this is no share of ours")]
    Range,
}

const MIN_SHARE_OCTETS: usize = HEADER_OCTETS + MIN_SECRET_OCTETS + CHECK_OCTETS + SUM_OCTETS;

impl Share {
    /// The ceremony that it is from.
    #[must_use]
    pub const fn ceremony(&self) -> CeremonyId {
        self.ceremony
    }

    /// How many shares bring the key back.
    #[must_use]
    pub const fn threshold(&self) -> u8 {
        self.threshold
    }

    /// Its number in the ceremony, from 1.
    #[must_use]
    pub const fn index(&self) -> u8 {
        self.index
    }

    /// Octets of the key that was split.
    #[must_use]
    pub fn secret_octets(&self) -> usize {
        self.values.len().saturating_sub(CHECK_OCTETS)
    }

    /// The share as octets: version (1), threshold, index, ceremony (8 octets), a value for each octet of key and check, and
    /// the first 4 octets of SHA-256 over all that.
    #[must_use]
    pub fn encode(&self) -> SecretBytes {
        let values = self.values.expose(); // into the encoded share, a secret as well
        let front = HEADER_OCTETS + values.len();
        SecretBytes::fill(front + SUM_OCTETS, |octets| {
            let header = [VERSION, self.threshold, self.index].into_iter().chain(self.ceremony.0);
            let body = header.chain(values.iter().copied());
            octets.iter_mut().zip(body).for_each(|(octet, value)| *octet = value);
            let (body, sum) = octets.split_at_mut(front);
            sum.copy_from_slice(&sum_of(body));
        })
    }

    /// Reads a share.
    ///
    /// # Errors
    /// [`ShareError`].
    pub fn decode(octets: &[u8]) -> Result<Self, ShareError> {
        if !(MIN_SHARE_OCTETS..=MAX_SHARE_OCTETS).contains(&octets.len()) {
            return Err(ShareError::Length(octets.len()));
        }
        let length = || ShareError::Length(octets.len());
        let (body, sum) = octets.split_last_chunk::<SUM_OCTETS>().ok_or_else(length)?;
        let (&[version, threshold, index], rest) = body.split_first_chunk::<3>().ok_or_else(length)?;
        if version != VERSION {
            return Err(ShareError::Version(version));
        }
        if sum_of(body) != *sum {
            return Err(ShareError::Sum);
        }
        let (ceremony, values) = rest.split_first_chunk::<{ CeremonyId::OCTETS }>().ok_or_else(length)?;
        if !(2..=MAX_SHARES).contains(&threshold) || !(1..=MAX_SHARES).contains(&index) {
            return Err(ShareError::Range);
        }
        let values = SecretBytes::fill(values.len(), |place| place.copy_from_slice(values));
        Ok(Self { ceremony: CeremonyId(*ceremony), threshold, index, values })
    }
}

impl fmt::Debug for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Share {} of ceremony {}", self.index, self.ceremony)
    }
}

fn sum_of(body: &[u8]) -> [u8; SUM_OCTETS] {
    let digest = kf_crypto::sha256(body);
    let mut sum = [0; SUM_OCTETS];
    sum.iter_mut().zip(digest).for_each(|(octet, digested)| *octet = digested);
    sum
}

/// What is shared behind the key: the front of SHA-256 over a label, the ceremony, the threshold and the key.
pub(crate) fn check_of(ceremony: CeremonyId, threshold: u8, secret: &[u8]) -> Zeroizing<[u8; CHECK_OCTETS]> {
    let front = b"keyfleet escrow v1".iter().copied().chain(ceremony.0).chain([threshold]);
    let length = 18 + CeremonyId::OCTETS + 1 + secret.len();
    let input = SecretBytes::fill(length, |octets| {
        octets.iter_mut().zip(front.chain(secret.iter().copied())).for_each(|(octet, value)| *octet = value);
    });
    let digest = Zeroizing::new(kf_crypto::sha256(input.expose())); // the digest of the key is shared as it is
    let mut check = Zeroizing::new([0; CHECK_OCTETS]);
    check.iter_mut().zip(digest.iter()).for_each(|(octet, digested)| *octet = *digested);
    check
}

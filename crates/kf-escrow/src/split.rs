//! From a key to shares.

use kf_key::SecretBytes;

use crate::gf256::multiply;
use crate::share::{CHECK_OCTETS, CeremonyId, Share, check_of};

/// The fewest octets of a key: a shorter one is a password, and is not escrowed.
pub const MIN_SECRET_OCTETS: usize = 16;
/// The most octets of a key.
pub const MAX_SECRET_OCTETS: usize = 64;
/// The most shares, and so the highest threshold.
pub const MAX_SHARES: u8 = 16;

/// How many shares there are, and how many bring the key back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quorum {
    threshold: u8,
    shares: u8,
}

/// Why there is no such quorum.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum QuorumError {
    /// A threshold of one is a copy of the key, of zero is nothing.
    #[error("threshold: at least 2, because one share would be a copy of the key")]
    Threshold,
    /// More shares are needed than there are.
    #[error("threshold: {threshold} shares are needed and only {shares} are made")]
    TooFewShares {
        /// Shares needed.
        threshold: u8,
        /// Shares made.
        shares: u8,
    },
    /// More than [`MAX_SHARES`].
    #[error("shares: at most {MAX_SHARES}")]
    TooManyShares,
}

impl Quorum {
    /// `threshold` of `shares`.
    ///
    /// # Errors
    /// [`QuorumError`].
    pub const fn new(threshold: u8, shares: u8) -> Result<Self, QuorumError> {
        if threshold < 2 {
            return Err(QuorumError::Threshold);
        }
        if shares > MAX_SHARES {
            return Err(QuorumError::TooManyShares);
        }
        if threshold > shares {
            return Err(QuorumError::TooFewShares { threshold, shares });
        }
        Ok(Self { threshold, shares })
    }

    /// How many bring the key back.
    #[must_use]
    pub const fn threshold(self) -> u8 {
        self.threshold
    }

    /// How many there are.
    #[must_use]
    pub const fn shares(self) -> u8 {
        self.shares
    }
}

/// Why a key was not split. `E` is what the source of randomness said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SplitError<E> {
    /// Too short or too long.
    #[error("a key of {MIN_SECRET_OCTETS} to {MAX_SECRET_OCTETS} octets can be split, this has {0}")]
    Length(usize),
    /// No randomness.
    #[error("the source of randomness failed")]
    Random(#[source] E),
}

/// Octets of randomness that [`split`] takes for a key of `length` octets: (threshold - 1) × (length + 16).
#[must_use]
pub fn random_octets(length: usize, quorum: Quorum) -> usize {
    usize::from(quorum.threshold).saturating_sub(1).saturating_mul(length.saturating_add(CHECK_OCTETS))
}

/// Splits `secret`. `random` fills its argument with unpredictable octets; it is asked once, for [`random_octets`]. The same octets give the
/// same shares, so that a ceremony that was cut short can go on.
///
/// # Errors
/// [`SplitError`]; no share has been made then.
pub fn split<E>(
    secret: &SecretBytes,
    quorum: Quorum,
    ceremony: CeremonyId,
    random: impl FnOnce(&mut [u8]) -> Result<(), E>,
) -> Result<Vec<Share>, SplitError<E>> {
    if !(MIN_SECRET_OCTETS..=MAX_SECRET_OCTETS).contains(&secret.len()) {
        return Err(SplitError::Length(secret.len()));
    }
    let check = check_of(ceremony, quorum.threshold, secret.expose()); // shared together with the key
    let shared = SecretBytes::fill(secret.len() + CHECK_OCTETS, |octets| {
        let (front, back) = octets.split_at_mut(secret.len());
        front.copy_from_slice(secret.expose()); // what the shares are of
        back.copy_from_slice(check.as_slice());
    });
    let mut outcome = Ok(());
    let coefficients = SecretBytes::fill(usize::from(quorum.threshold - 1) * shared.len(), |octets| {
        outcome = random(octets);
    });
    outcome.map_err(SplitError::Random)?;
    Ok((1..=quorum.shares)
        .map(|index| Share {
            ceremony,
            threshold: quorum.threshold,
            index,
            values: values_at(index, &shared, &coefficients),
        })
        .collect())
}

/// The polynomials at `index`, one for each shared octet, by Horner's rule: the constant term is the shared octet, the
/// coefficients of one power lie together, the lowest power first.
pub(crate) fn values_at(index: u8, shared: &SecretBytes, coefficients: &SecretBytes) -> SecretBytes {
    SecretBytes::fill(shared.len(), |values| {
        for power in coefficients.expose().chunks_exact(shared.len()).rev() {
            // Coefficients are secrets that only the shares hold.
            values.iter_mut().zip(power).for_each(|(value, octet)| *value = multiply(*value ^ octet, index));
        }
        // The constant term.
        values.iter_mut().zip(shared.expose()).for_each(|(value, octet)| *value ^= octet);
    })
}

//! From shares to the key.

use kf_key::SecretBytes;
use zeroize::Zeroizing;

use crate::gf256::{invert, multiply};
use crate::share::{CHECK_OCTETS, Share, check_of};

/// Why shares do not bring a key back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CombineError {
    /// Not enough of them.
    #[error("{needed} shares are needed, {given} were given")]
    TooFew {
        /// The threshold; 2 where there is no share to tell it.
        needed: u8,
        /// How many there were.
        given: usize,
    },
    /// The same share twice, or two with one number.
    #[error("share {0} was given twice")]
    Duplicate(u8),
    /// From another ceremony, or with another threshold or length than the first one.
    #[error("share {0} is from another ceremony than the first one given")]
    OtherCeremony(u8),
    /// One share is wrong, and which one is known because the others suffice without it.
    #[error("share {0} is wrong; the others bring the key back without it")]
    Wrong(u8),
    /// Something is wrong, and there are too few shares to tell which.
    #[error("these shares do not belong together; give one more, so that the wrong one can be told")]
    Inconsistent,
}

/// Brings the key back. All shares given are used: one that does not fit is an error even where enough others are right.
///
/// # Errors
/// [`CombineError`]; nothing is returned of a key that does not pass its check.
pub fn combine(shares: &[Share]) -> Result<SecretBytes, CombineError> {
    let Some(first) = shares.first() else { return Err(CombineError::TooFew { needed: 2, given: 0 }) };
    for (place, share) in shares.iter().enumerate() {
        let is_same = (share.ceremony, share.threshold) == (first.ceremony, first.threshold);
        if !is_same || share.values.len() != first.values.len() {
            return Err(CombineError::OtherCeremony(share.index));
        }
        if shares.iter().take(place).any(|earlier| earlier.index == share.index) {
            return Err(CombineError::Duplicate(share.index));
        }
    }
    if shares.len() < usize::from(first.threshold) {
        return Err(CombineError::TooFew { needed: first.threshold, given: shares.len() });
    }
    if let Some(secret) = checked(&shares.iter().collect::<Vec<_>>()) {
        return Ok(secret);
    }
    if shares.len() > usize::from(first.threshold) {
        for suspect in shares {
            let others: Vec<&Share> = shares.iter().filter(|share| share.index != suspect.index).collect();
            if checked(&others).is_some() {
                return Err(CombineError::Wrong(suspect.index));
            }
        }
    }
    Err(CombineError::Inconsistent)
}

/// The key that these shares bring back, all of them used, if it passes its check. A polynomial through more points than
/// the threshold is of too high a degree unless all lie on the right one, and then the check fails.
fn checked(shares: &[&Share]) -> Option<SecretBytes> {
    let first = shares.first()?;
    let shared = at_zero(shares);
    let (secret, check) = shared.expose().split_last_chunk::<CHECK_OCTETS>()?; // the key is taken out below
    let expected = check_of(first.ceremony, first.threshold, secret);
    let secret = SecretBytes::fill(secret.len(), |octets| octets.copy_from_slice(secret));
    // A constant-time comparison costs nothing here, and then nobody has to ask whether it matters.
    SecretBytes::fill(CHECK_OCTETS, |octets| octets.copy_from_slice(check))
        .equals(expected.as_slice())
        .then_some(secret)
}

/// Lagrange's interpolation at zero. Indices are no secrets; they are distinct and not zero, so every quotient exists.
fn at_zero(shares: &[&Share]) -> SecretBytes {
    let length = shares.first().map_or(0, |share| share.values.len());
    SecretBytes::fill(length, |octets| {
        for share in shares {
            let others = shares.iter().map(|other| other.index).filter(|index| *index != share.index);
            let (above, below) = others
                .fold((1, 1), |(above, below), index| (multiply(above, index), multiply(below, index ^ share.index)));
            let weight = Zeroizing::new(multiply(above, invert(below)));
            let values = share.values.expose(); // summed up into the key
            octets.iter_mut().zip(values).for_each(|(octet, value)| *octet ^= multiply(*value, *weight));
        }
    })
}

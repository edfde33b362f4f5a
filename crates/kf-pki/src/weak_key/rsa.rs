//! RSA moduli and exponents (SP 800-89 section 5.3.3, CA/B BR 6.1.6).

use crypto_bigint::{BoxedUint, Limb, NonZero, Resize as _};

use super::WeakKey;
use crate::public_key::RsaNumbers;

/// CA/B BR 6.1.6: no factor smaller than 752.
const SMALL_FACTOR_BELOW: u64 = 752;
/// CA/B BR 6.1.1.3 asks for at least 100 rounds of Fermat's method.
const FERMAT_ROUNDS: u64 = 100;
/// The largest exponent, 2^256 (SP 800-56B section 6.2), in octets.
const MAX_EXPONENT_OCTETS: usize = 32;
/// The odd primes whose residues carry the fingerprint of CVE-2017-15361: the library built its primes as
/// k * M + (65537^a mod M) with M the product of the first primes, so that the modulus itself is a power of 65537
/// modulo each of them. Primes modulo which every residue is such a power tell nothing and do no harm.
const ROCA_LARGEST_PRIME: u64 = 167;
const ROCA_GENERATOR: u64 = 65_537;

pub(super) fn check(numbers: &RsaNumbers<'_>) -> Result<(), WeakKey> {
    if !matches!(numbers.modulus_bits(), 2048 | 3072 | 4096) {
        return Err(WeakKey::Modulus);
    }
    check_exponent(numbers.exponent)?;
    let modulus = BoxedUint::from_be_slice_vartime(numbers.modulus);
    if remainder(&modulus, 2) == 0 || primes_below(SMALL_FACTOR_BELOW).any(|prime| remainder(&modulus, prime) == 0) {
        return Err(WeakKey::Modulus);
    }
    if has_roca_fingerprint(&modulus) {
        return Err(WeakKey::Roca);
    }
    if has_close_primes(&modulus) {
        return Err(WeakKey::ClosePrimes);
    }
    Ok(())
}

fn check_exponent(exponent: &[u8]) -> Result<(), WeakKey> {
    let is_odd = exponent.last().is_some_and(|last| last & 1 == 1);
    let is_large_enough = match exponent {
        [1, low @ ..] if low.len() == 2 => low >= [0, 1].as_slice(),
        _ => exponent.len() >= 3,
    };
    if is_odd && is_large_enough && exponent.len() <= MAX_EXPONENT_OCTETS { Ok(()) } else { Err(WeakKey::Exponent) }
}

fn has_roca_fingerprint(modulus: &BoxedUint) -> bool {
    primes_below(ROCA_LARGEST_PRIME + 1).all(|prime| {
        let residue = remainder(modulus, prime);
        let generator = ROCA_GENERATOR % prime;
        let mut power = 1;
        // The powers of a number modulo a prime repeat after at most prime - 1 steps.
        (1..prime).any(|_| {
            power = power * generator % prime;
            power == residue
        })
    })
}

/// Fermat's method: with a = ceil(sqrt(n)), primes that are close make a^2 - n a square within few steps of a.
fn has_close_primes(modulus: &BoxedUint) -> bool {
    // One bit more than the modulus, so that a^2 never overflows.
    let modulus = modulus.resize(modulus.bits_precision() + 64);
    let root = modulus.floor_sqrt_vartime();
    let one = BoxedUint::one_with_precision(modulus.bits_precision());
    let mut candidate = root.wrapping_add(&one);
    let mut difference = candidate.wrapping_square().wrapping_sub(&modulus);
    for _ in 0..FERMAT_ROUNDS {
        if is_square(&difference) {
            return true;
        }
        // (a + 1)^2 - n = (a^2 - n) + 2a + 1
        difference = difference.wrapping_add(&candidate).wrapping_add(&candidate).wrapping_add(&one);
        candidate = candidate.wrapping_add(&one);
    }
    false
}

/// Residues first: they rule out all but about one in a thousand numbers without a square root.
fn is_square(number: &BoxedUint) -> bool {
    const FILTERS: [u64; 5] = [64, 63, 65, 11, 17];
    let may_be_square = FILTERS.iter().all(|modulus| {
        let residue = remainder(number, *modulus);
        (0..*modulus).any(|root| root * root % modulus == residue)
    });
    may_be_square && number.checked_sqrt_vartime().is_some()
}

fn remainder(number: &BoxedUint, divisor: u64) -> u64 {
    NonZero::new(Limb::from(divisor)).into_option().map_or(0, |divisor| number.rem_limb(divisor).0)
}

/// The odd primes below a small limit.
fn primes_below(limit: u64) -> impl Iterator<Item = u64> {
    (3..limit).step_by(2).filter(|candidate| {
        (3..).step_by(2).take_while(|divisor| divisor * divisor <= *candidate).all(|divisor| candidate % divisor != 0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_small_primes_are_the_small_primes() {
        let primes: Vec<u64> = primes_below(752).collect();
        assert_eq!(primes.len(), 132);
        assert_eq!(primes[..6], [3, 5, 7, 11, 13, 17]);
        assert_eq!(primes.last(), Some(&751));
    }

    #[test]
    fn exponents_start_at_65537_and_are_odd() {
        for good in [&[1, 0, 1][..], &[1, 0, 3], &[2, 0, 1], &[1, 0, 0, 1]] {
            assert_eq!(check_exponent(good), Ok(()), "{good:?}");
        }
        for bad in [&[3][..], &[1, 0], &[0xff, 0xff], &[1, 0, 0], &[1; 33], &[]] {
            assert_eq!(check_exponent(bad), Err(WeakKey::Exponent), "{bad:?}");
        }
    }
}

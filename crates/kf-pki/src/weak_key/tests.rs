use crypto_bigint::{BoxedUint, ConcatenatingMul as _, Resize as _};
use kf_crypto::PrivateKey;
use kf_key::KeyAlgorithm;

use super::*;
use crate::asn1::{Writer, oid, tag};
use crate::pem;
use crate::request::RequestError;

fn check(spki: &[u8]) -> Result<(), WeakKey> {
    check_key(&RequestedKey::from_spki(spki).unwrap(), |_| false)
}

fn rsa_spki(modulus: &BoxedUint, exponent: &[u8]) -> Vec<u8> {
    let integer = |w: &mut Writer, octets: &[u8]| {
        let padding: &[u8] = if octets[0] >= 0x80 { &[0] } else { &[] };
        w.primitive(tag::INTEGER, &[padding, octets].concat());
    };
    let key = Writer::build(600, |w| {
        w.sequence(|w| {
            integer(w, &modulus.to_be_bytes_trimmed_vartime());
            integer(w, exponent);
        });
    });
    Writer::build(600, |w| {
        w.sequence(|w| {
            w.sequence(|w| {
                w.oid(&oid::RSA_ENCRYPTION);
                w.null();
            });
            w.bit_string(&key);
        });
    })
}

/// A prime-free stand-in for a modulus: 2048 bits, no small factor; which primes it has plays no part in these checks.
fn modulus_from(base: &BoxedUint, step: &BoxedUint) -> BoxedUint {
    let mut modulus = base.clone();
    let one = crypto_bigint::Limb::ONE;
    loop {
        let has_small_factor = (3u64..752).step_by(2).any(|divisor| {
            modulus.rem_limb(crypto_bigint::NonZero::new(crypto_bigint::Limb::from(divisor)).unwrap()).0 == 0
        });
        if !has_small_factor && modulus.as_limbs()[0].0 & one.0 == 1 {
            return modulus;
        }
        modulus = modulus.wrapping_add(step);
    }
}

#[test]
fn fresh_keys_of_every_curve_pass() {
    for algorithm in [KeyAlgorithm::P256, KeyAlgorithm::P384, KeyAlgorithm::Ed25519] {
        assert_eq!(check(&PrivateKey::generate(algorithm).unwrap().spki()), Ok(()));
    }
}

#[test]
fn keys_printed_in_rfcs_are_refused() {
    // RFC 9500 section 2.3 (testECCP256), section 2.1 (testRSA2048), and RFC 8410 section 10.1: public halves only.
    for text in [
        include_str!("testdata/rfc9500-testECCP256.pub.pem"),
        include_str!("testdata/rfc9500-testECCP384.pub.pem"),
        include_str!("testdata/rfc9500-testRSA2048.pub.pem"),
        include_str!("testdata/rfc9500-testRSA4096.pub.pem"),
        include_str!("testdata/rfc8410-ed25519.pub.pem"),
    ] {
        let spki = pem::decode_all("PUBLIC KEY", text).unwrap().remove(0);
        assert_eq!(check(&spki), Err(WeakKey::KnownLeaked));
    }
}

#[test]
fn keys_on_the_fleets_own_list_are_refused() {
    let key = RequestedKey::from_spki(&PrivateKey::generate(KeyAlgorithm::P256).unwrap().spki()).unwrap();
    let blocked = key.spki_sha256;
    assert_eq!(check_key(&key, |hash| *hash == blocked), Err(WeakKey::KnownLeaked));
}

#[test]
fn a_point_off_the_curve_is_refused() {
    let mut spki = PrivateKey::generate(KeyAlgorithm::P384).unwrap().spki();
    *spki.last_mut().unwrap() ^= 1;
    assert_eq!(RequestedKey::from_spki(&spki), Err(RequestError::OffCurve));
}

#[test]
fn a_key_that_claims_another_algorithm_is_refused() {
    let mut key = RequestedKey::from_spki(&PrivateKey::generate(KeyAlgorithm::P256).unwrap().spki()).unwrap();
    key.algorithm = KeyAlgorithm::P384;
    assert_eq!(check_key(&key, |_| false), Err(WeakKey::Algorithm));
}

#[test]
fn a_modulus_with_the_fingerprint_of_cve_2017_15361_is_refused_and_its_neighbour_is_not() {
    // M = product of the first 126 primes (2 to 701); moduli of that library are powers of 65537 modulo M.
    let primes = std::iter::once(2u64).chain((3..702u64).step_by(2).filter(|n| (2..*n).all(|d| n % d != 0)));
    let mut product = BoxedUint::one_with_precision(2048);
    let mut count = 0;
    for prime in primes {
        product = product.wrapping_mul(BoxedUint::from(prime).resize(2048));
        count += 1;
    }
    assert_eq!(count, 126);
    // 65537^1 + k * M with k large enough for 2048 bits.
    let shift = 2047 - product.bits_vartime();
    let base = BoxedUint::from(65_537u64).resize(2048).wrapping_add(product.wrapping_shl_vartime(shift + 1));
    let infected = modulus_from(&base, &product);
    assert_eq!(check(&rsa_spki(&infected, &[1, 0, 1])), Err(WeakKey::Roca));
    let neighbour =
        modulus_from(&infected.wrapping_add(BoxedUint::from(2u64).resize(2048)), &BoxedUint::from(2u64).resize(2048));
    assert_eq!(check(&rsa_spki(&neighbour, &[1, 0, 1])), Ok(()));
}

#[test]
fn a_product_of_two_close_numbers_is_refused() {
    let mut octets = [0u8; 128];
    octets[0] = 0xd3;
    octets[64] = 0x5a;
    let two = BoxedUint::from(2u64).resize(1024);
    let first = modulus_from(
        &BoxedUint::from_be_slice_vartime(&octets).wrapping_add(BoxedUint::one_with_precision(1024)),
        &two,
    );
    let second = modulus_from(&first.wrapping_add(&two), &two);
    let modulus = first.concatenating_mul(&second);
    assert_eq!(modulus.bits_vartime(), 2048);
    assert_eq!(check(&rsa_spki(&modulus, &[1, 0, 1])), Err(WeakKey::ClosePrimes));
}

#[test]
fn even_moduli_small_factors_and_small_exponents_are_refused() {
    let mut octets = [0x5bu8; 256];
    octets[0] = 0xc1;
    let base = BoxedUint::from_be_slice_vartime(&octets);
    let good = modulus_from(&base, &BoxedUint::from(2u64).resize(2048));
    assert_eq!(check(&rsa_spki(&good, &[1, 0, 1])), Ok(()));
    assert_eq!(check(&rsa_spki(&good, &[3])), Err(WeakKey::Exponent));
    let even = good.wrapping_add(BoxedUint::one_with_precision(2048));
    assert_eq!(check(&rsa_spki(&even, &[1, 0, 1])), Err(WeakKey::Modulus));
    let multiple = (0..751u64)
        .map(|step| good.wrapping_add(BoxedUint::from(2 * step).resize(2048)))
        .find(|candidate| {
            candidate.rem_limb(crypto_bigint::NonZero::new(crypto_bigint::Limb::from(751u64)).unwrap()).0 == 0
        })
        .unwrap();
    assert_eq!(check(&rsa_spki(&multiple, &[1, 0, 1])), Err(WeakKey::Modulus));
}

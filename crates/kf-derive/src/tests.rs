use std::string::String;
use std::vec::Vec;

use kf_key::{DeviceId, FacilityId, SecretArray, UnixMillis};
use proptest::prelude::*;

use super::*;

mod arrangement;
mod leaf;
mod mixed_session;
mod prepared;
mod ratchet;

fn device() -> DeviceKey {
    let facility = root().facility(FacilityId::from_bytes([0x11; 16]), 1).unwrap();
    facility.device(DeviceId::from_parts(UnixMillis(0), [0; 10]), &[0x22; 16], 1).unwrap()
}

fn root() -> FleetRoot {
    FleetRoot::from_keyed_hmac(SoftwareKey::new(SecretArray::fill(|key| {
        for (octet, value) in key.iter_mut().zip(0..) {
            *octet = value;
        }
    })))
}

/// RFC 5869 appendix A: (IKM, salt, info, PRK, first 32 octets of OKM).
const RFC_5869: [[&str; 5]; 3] = [
    [
        "0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b",
        "000102030405060708090a0b0c",
        "f0f1f2f3f4f5f6f7f8f9",
        "077709362c2e32df0ddc3f0dc47bba6390b6c73bb50f9c3122ec844ad7c2b3e5",
        "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf",
    ],
    [
        "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f202122232425262728292a2b2c2d2e2f303132333435363738393a3b3c3d3e3f404142434445464748494a4b4c4d4e4f",
        "606162636465666768696a6b6c6d6e6f707172737475767778797a7b7c7d7e7f808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9fa0a1a2a3a4a5a6a7a8a9aaabacadaeaf",
        "b0b1b2b3b4b5b6b7b8b9babbbcbdbebfc0c1c2c3c4c5c6c7c8c9cacbcccdcecfd0d1d2d3d4d5d6d7d8d9dadbdcdddedfe0e1e2e3e4e5e6e7e8e9eaebecedeeeff0f1f2f3f4f5f6f7f8f9fafbfcfdfeff",
        "06a6b88c5853361a06104c9ceb35b45cef760014904671014a193f40c15fc244",
        "b11e398dc80327a1c8e7f78c596a49344f012eda2d4efad8a050cc4c19afa97c",
    ],
    [
        "0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b",
        "",
        "",
        "19ef24a32c717b167f33a91d6f648bdf96596776afdb6377ac434c1c293ccb04",
        "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d",
    ],
];

#[test]
fn extract_and_one_hmac_give_the_vectors_of_rfc_5869() {
    for vector in RFC_5869 {
        let [input, salt, info, prk, okm] = vector.map(|text| hex::decode(text).unwrap());
        let key = extract(&salt, &input);
        let mut tag = [0; 32];
        key.hmac_sha256(&[info.as_slice(), &[0x01]].concat(), &mut tag).unwrap();
        assert_eq!(tag.as_slice(), okm);
        assert_eq!(key.into_secret().expose().as_slice(), prk);
    }
}

#[test]
fn a_step_equals_hkdf_expand_of_an_independent_implementation() {
    let info = Info::new(Level::Device, Algorithm::HkdfSha256, Purpose::Derive, b"context", 7).unwrap();
    let parent: Vec<u8> = (0..32).collect();
    let mut expected = [0; 32];
    hkdf::Hkdf::<sha2::Sha256>::from_prk(&parent).unwrap().expand(info.as_bytes(), &mut expected).unwrap();
    let parent = SoftwareKey::new(SecretArray::fill(|key| key.copy_from_slice(&parent)));
    assert_eq!(expand(&parent, &info).unwrap().into_secret().expose(), &expected);
}

#[test]
fn the_encoding_is_the_published_one() {
    let info = Info::new(Level::Wrapping, Algorithm::Aes256Gcm, Purpose::WrapRegistry, b"", 1).unwrap();
    let expected = String::from("01070200200d") + &hex::encode("wrap registry") + "0000000001";
    assert_eq!(hex::encode(info.as_bytes()), expected);
    assert_eq!(info.hmac_message(), [info.as_bytes(), &[0x01]].concat());
}

#[test]
fn the_longest_purpose_and_context_fit_and_one_octet_more_is_refused() {
    for purpose in Purpose::ALL {
        let info = Info::new(Level::Device, Algorithm::HmacSha256, purpose, &[0; MAX_CONTEXT_OCTETS], u32::MAX);
        assert!(info.unwrap().as_bytes().len() <= MAX_INFO_OCTETS);
        assert_eq!(
            Info::new(Level::Device, Algorithm::HmacSha256, purpose, &[0; MAX_CONTEXT_OCTETS + 1], 0),
            Err(ContextTooLong { octets: MAX_CONTEXT_OCTETS + 1 })
        );
    }
}

#[test]
fn debug_shows_no_key() {
    let shown = std::format!("{:?}", root());
    assert_eq!(shown, "FleetRoot(SoftwareKey(SecretArray<32>))");
}

type Place = (usize, usize, usize, Vec<u8>, u32);

fn place() -> impl Strategy<Value = Place> {
    // Few values each, so that equal parts and shifted boundaries are common.
    (0..11_usize, 0..6_usize, 0..7_usize, proptest::collection::vec(0..3_u8, 0..8), 0..3_u32)
}

fn encode(place: &Place) -> Info {
    Info::new(Level::ALL[place.0], Algorithm::ALL[place.1], Purpose::ALL[place.2], &place.3, place.4).unwrap()
}

proptest! {
    #[test]
    fn different_places_never_share_an_encoding(a in place(), b in place()) {
        prop_assert_eq!(a == b, encode(&a).as_bytes() == encode(&b).as_bytes());
        // Nor is one a prefix of the other, so a hardware HMAC fed in parts cannot confuse them.
        prop_assert!(a == b || !encode(&a).as_bytes().starts_with(encode(&b).as_bytes()));
    }

    #[test]
    fn an_encoding_is_read_back_and_no_other_octets_are(place in place(), change in 0..64_usize, octet: u8) {
        let info = encode(&place);
        prop_assert_eq!(Info::decode(info.as_bytes()), Some(info.clone()));
        let mut changed = info.as_bytes().to_vec();
        prop_assert_eq!(Info::decode(&changed[..change.min(changed.len() - 1)]), None);
        if let Some(place) = changed.get_mut(change) {
            *place = octet;
        }
        if let Some(read) = Info::decode(&changed) {
            prop_assert_eq!(read.as_bytes(), changed);
        }
    }
}

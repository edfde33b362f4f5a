use proptest::prelude::*;

use super::*;

#[test]
fn a_payload_opens_with_every_algorithm() {
    for algorithm in SealAlgorithm::ALL {
        let envelope = sealed_once(b"21.5 C", algorithm);
        assert_eq!(Receiver::new().open(&envelope, b"topic"), Verdict::Plaintext(b"21.5 C".to_vec()), "{algorithm:?}");
    }
}

#[test]
fn an_empty_and_the_largest_plaintext_are_sealed_and_a_larger_one_is_refused() {
    for length in [0, MAX_PLAINTEXT_OCTETS] {
        let plaintext = std::vec![0x42; length];
        let envelope = sealed_once(&plaintext, SealAlgorithm::Aes128Ccm);
        assert_eq!(Receiver::new().open(&envelope, b"topic"), Verdict::Plaintext(plaintext));
    }
    let octets = MAX_PLAINTEXT_OCTETS + 1;
    let mut out = std::vec![0; octets + MAX_OVERHEAD_OCTETS];
    let error = sealer(1, RANDOM, SealAlgorithm::Aes128Ccm).seal(&std::vec![0; octets], b"", &mut out);
    assert_eq!(error, Err(SealError::PlaintextTooLarge { octets }));
}

#[test]
fn the_overhead_is_the_documented_one_and_is_reached() {
    let envelope = sealed_once(&[0; 256], SealAlgorithm::Aes128Ccm);
    assert_eq!(envelope.len() - 256, 94 + "telemetry".len());
    let service = Service::new("0123456789abcdef").unwrap();
    let key_id = KeyId { service, session: Some([7; 16]), ..key_id() };
    let boot = Boot::new(1, RANDOM).unwrap();
    let mut longest = Sealer::new(&application("x"), key_id, boot, SealAlgorithm::Aes128Ccm).unwrap();
    assert_eq!(seal(&mut longest, &[0; MAX_PLAINTEXT_OCTETS], b"").len(), MAX_ENVELOPE_OCTETS);
}

#[test]
fn the_envelope_is_the_published_one() {
    let envelope = hex::encode(sealed_once(b"", SealAlgorithm::Aes128Gcm));
    let kid = std::format!("01{}00000003000000020174656c656d65747279", "d1".repeat(16));
    let random = hex::encode(RANDOM);
    let front = std::format!("d083583fa3010104 5823{kid} 0a5400000001{random} a1054c{}00000000 50", &random[..16]);
    assert_eq!(envelope[..envelope.len() - 32], front.replace(' ', ""));
}

#[test]
fn the_octets_of_a_key_identifier_tell_keys_apart() {
    let mut out = [0; KEY_ID_MAX_OCTETS];
    let length = key_id().encode(&mut out);
    assert_eq!(KeyId::from_bytes(&out[..length]), Some(key_id()));
    assert_eq!(KeyId::from_bytes(&out[..length - 9]), None, "no service");
}

#[test]
fn the_key_identifier_of_a_session_has_a_version_of_its_own_and_names_the_session() {
    let ours = KeyId { session: Some([0x5e; 16]), ..key_id() };
    let mut out = [0; KEY_ID_MAX_OCTETS];
    let length = ours.encode(&mut out);
    let kid = std::format!("02{}0000000300000002{}0174656c656d65747279", "d1".repeat(16), "5e".repeat(16));
    assert_eq!(hex::encode(&out[..length]), kid);
    assert_eq!(KeyId::from_bytes(&out[..length]), Some(ours));
    assert_eq!(key_id().require(&ours), Err(Mismatch::Session));
    for version in [0, 1, 3] {
        out[0] = version;
        assert_ne!(KeyId::from_bytes(&out[..length]), Some(ours), "version {version}");
    }
}

#[test]
fn a_service_is_one_to_sixteen_characters_of_its_alphabet() {
    for label in ["a", "telemetry", "a-1", "0123456789abcdef"] {
        assert_eq!(Service::new(label).unwrap().as_str(), label);
    }
    for label in ["", "0123456789abcdef0", "Telemetry", "a b", "ä", "a_b", "a\0"] {
        assert_eq!(Service::new(label), Err(ServiceError), "{label:?}");
    }
}

#[test]
fn nothing_of_a_key_is_printed() {
    let mut sealer = sealer(1, RANDOM, SealAlgorithm::Aes128Ccm);
    let envelope = seal(&mut sealer, b"secret words", b"");
    let sealed = Sealed::parse(&envelope).unwrap();
    let mut opener = Opener::new(&application("telemetry"), &key_id(), &sealed).unwrap();
    let mut out = [0; 32];
    let authentic = opener.open(&sealed, b"", &mut out).unwrap();
    let shown = std::format!("{authentic:?} {sealer:?}");
    assert_eq!(shown.matches("boot 1").count(), 2, "{shown}");
    assert!(!shown.contains("secret words") && !shown.contains(&hex::encode(b"secret words")), "{shown}");
    assert!(std::format!("{opener:?}").starts_with("Opener(KeyId"));
}

proptest! {
    #[test]
    fn what_was_sealed_opens_to_itself(
        plaintext in proptest::collection::vec(any::<u8>(), 0..600),
        aad in proptest::collection::vec(any::<u8>(), 0..=MAX_EXTERNAL_AAD_OCTETS),
        random in any::<[u8; 16]>().prop_filter("stuck", |random| Boot::new(0, *random).is_ok()),
        number in any::<u32>(),
        algorithm in 0..3_usize,
    ) {
        let mut sealer = sealer(number, random, SealAlgorithm::ALL[algorithm]);
        let mut receiver = Receiver::new();
        for _ in 0..3 {
            let envelope = seal(&mut sealer, &plaintext, &aad);
            prop_assert_eq!(receiver.open(&envelope, &aad), Verdict::Plaintext(plaintext.clone()));
        }
    }

    #[test]
    fn no_input_makes_the_parser_panic_and_what_parses_has_one_encoding(
        mut input in proptest::collection::vec(any::<u8>(), 0..200),
        edits in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3),
    ) {
        prop_assert!(Sealed::parse(&input).is_err());
        input = sealed_once(b"plaintext", SealAlgorithm::Aes128Ccm);
        for (index, value) in edits {
            let place = index.index(input.len());
            input[place] = value;
        }
        if let Ok(sealed) = Sealed::parse(&input) {
            let protected = crate::envelope::Protected::encode(sealed.algorithm(), sealed.key_id(), sealed.boot()).unwrap();
            let nonce = sealed.boot().nonce(sealed.algorithm(), sealed.counter());
            let mut front = [0; 200];
            let length = sealed.plaintext_octets() + 16;
            let front_octets = crate::envelope::write_front(&mut front, protected.as_bytes(), &nonce, length).unwrap();
            prop_assert_eq!(&input[..front_octets], &front[..front_octets]);
            prop_assert_eq!(input.len(), front_octets + length);
        }
    }
}

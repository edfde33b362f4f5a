use super::*;

#[test]
fn every_flipped_bit_is_refused() {
    for algorithm in SealAlgorithm::ALL {
        let envelope = sealed_once(b"21.5 C", algorithm);
        for bit in 0..envelope.len() * 8 {
            let mut flipped = envelope.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let verdict = Receiver::new().open(&flipped, b"topic");
            assert!(
                !matches!(verdict, Verdict::Plaintext(_) | Verdict::Replay(_)),
                "{algorithm:?} bit {bit}: {verdict:?}"
            );
        }
    }
}

#[test]
fn every_truncation_is_refused_before_any_key_is_touched() {
    let envelope = sealed_once(b"21.5 C", SealAlgorithm::Aes128Gcm);
    for length in 0..envelope.len() {
        assert_eq!(Sealed::parse(&envelope[..length]).err(), Some(ParseError::Truncated), "{length}");
    }
}

#[test]
fn octets_behind_the_envelope_are_refused() {
    let mut envelope = sealed_once(b"21.5 C", SealAlgorithm::Aes128Gcm);
    let twice = [envelope.clone(), envelope.clone()].concat();
    assert_eq!(Sealed::parse(&twice).err(), Some(ParseError::TrailingOctets { octets: envelope.len() }));
    envelope.push(0);
    assert_eq!(Sealed::parse(&envelope).err(), Some(ParseError::TrailingOctets { octets: 1 }));
}

#[test]
fn an_oversized_envelope_is_refused_unread() {
    let octets = MAX_ENVELOPE_OCTETS + 1;
    assert_eq!(Sealed::parse(&std::vec![0xd0; octets]).err(), Some(ParseError::TooLarge { octets }));
}

/// The envelope with `from` replaced by `to`, both in hex.
fn rewritten(from: &str, to: &str) -> ParseError {
    let envelope = hex::encode(sealed_once(b"21.5 C", SealAlgorithm::Aes128Ccm));
    assert_eq!(envelope.matches(from).count(), 1, "{from} in {envelope}");
    Sealed::parse(&hex::decode(envelope.replace(from, to)).unwrap()).unwrap_err()
}

#[test]
fn other_encodings_of_the_same_content_are_refused() {
    let shapes = [
        ("d083", "d88083"),       // another tag
        ("d083", "d81083"),       // the tag in two octets
        ("d083", "d09803"),       // the array's length in two octets
        ("d083", "d09f"),         // an indefinite array
        ("d08358", "83d058"),     // untagged
        ("a301181e", "bf01181e"), // an indefinite map
        ("a301181e", "a401181e"), // one parameter more than there is
        ("a301181e", "a304181e"), // another parameter first
        ("045823", "04590023"),   // the length of kid in three octets
        ("045823", "045f5823"),   // kid in pieces
        ("0a54", "0a5814"),       // the length of kid context in two octets
        ("0a54", "0b54"),         // another parameter
        ("a1054d", "a1064d"),     // Partial IV
        ("a1054d", "bf054d"),     // an indefinite map
        ("a1054d", "a105580d"),   // the length of IV in two octets
    ];
    for (from, to) in shapes {
        assert_eq!(rewritten(from, to), ParseError::NotTheShape, "{from} -> {to}");
    }
}

#[test]
fn each_parameter_that_means_nothing_is_named() {
    assert_eq!(rewritten("a301181e", "a301181f"), ParseError::Algorithm);
    assert_eq!(rewritten("a301181e", "a3010a04"), ParseError::Algorithm, "a tag of 8 octets is not offered");
    assert_eq!(rewritten("04582301d1", "04582302d1"), ParseError::KeyId, "version");
    assert_eq!(rewritten("0174656c", "0374656c"), ParseError::KeyId, "sender");
    assert_eq!(rewritten("0174656c", "0154656c"), ParseError::KeyId, "upper case");
    assert_eq!(rewritten("a1054d30", "a1054d31"), ParseError::Iv);
    assert_eq!(rewritten("a1054d30", "a1054c30"), ParseError::Iv, "length");
}

#[test]
fn a_payload_for_another_key_is_refused_by_name() {
    let ours = key_id();
    let others = [
        (KeyId { device: DeviceId::from_bytes([2; 16]), ..ours }, Mismatch::Device),
        (KeyId { sender: Sender::Server, ..ours }, Mismatch::Sender),
        (KeyId { service: Service::new("commands").unwrap(), ..ours }, Mismatch::Service),
        (KeyId { facility_epoch: 4, ..ours }, Mismatch::FacilityEpoch { found: 4, expected: 3 }),
        (KeyId { device_epoch: 1, ..ours }, Mismatch::DeviceEpoch { found: 1, expected: 2 }),
    ];
    for (other, mismatch) in others {
        let boot = Boot::new(1, RANDOM).unwrap();
        let mut sealer = Sealer::new(&application("telemetry"), other, boot, SealAlgorithm::Aes128Ccm).unwrap();
        let envelope = seal(&mut sealer, b"21.5 C", b"");
        assert_eq!(Receiver::new().open(&envelope, b""), Verdict::Open(OpenError::Mismatch(mismatch)));
    }
}

#[test]
fn a_forged_key_identifier_ends_in_the_one_opaque_refusal() {
    let envelope = hex::encode(sealed_once(b"21.5 C", SealAlgorithm::Aes128Ccm));
    let forgeries = [
        (hex::encode([0xd1; 16]), hex::encode([0xd2; 16])),     // device
        ("0000000300000002".into(), "0000000400000002".into()), // facility epoch
        ("0000000300000002".into(), "0000000300000001".into()), // device epoch
        ("000000020174".into(), "000000020274".into()),         // sender
        (hex::encode("telemetry"), hex::encode("telemetrz")),   // service
        ("0a5400000001".into(), "0a5400000002".into()),         // boot number
        ("a301181e".into(), "a301181e".into()),                 // nothing, but other additional data below
    ];
    for (from, to) in &forgeries {
        let octets = hex::decode(envelope.replace(from.as_str(), to)).unwrap();
        let sealed = Sealed::parse(&octets).unwrap();
        // A receiver that believes the header.
        let mut opener = Opener::new(&application("telemetry"), sealed.key_id(), &sealed).unwrap();
        let mut out = [0; 64];
        let aad: &[u8] = if from == to { b"tropic" } else { b"topic" };
        assert_eq!(opener.open(&sealed, aad, &mut out).err(), Some(OpenError::Refused), "{from} -> {to}");
    }
}

#[test]
fn the_key_of_another_service_or_direction_does_not_open() {
    let envelope = sealed_once(b"21.5 C", SealAlgorithm::Aes128Ccm);
    let sealed = Sealed::parse(&envelope).unwrap();
    let mut opener = Opener::new(&application("commands"), &key_id(), &sealed).unwrap();
    assert_eq!(opener.open(&sealed, b"topic", &mut [0; 64]).err(), Some(OpenError::Refused));
}

#[test]
fn an_opener_refuses_other_boots_and_small_buffers() {
    let mut one = sealer(1, RANDOM, SealAlgorithm::Aes128Ccm);
    let (first, other) = (seal(&mut one, b"21.5 C", b""), sealed_once(b"21.5 C", SealAlgorithm::Aes128Gcm));
    let sealed = Sealed::parse(&first).unwrap();
    let mut opener = Opener::new(&application("telemetry"), &key_id(), &sealed).unwrap();
    let other = Sealed::parse(&other).unwrap();
    assert_eq!(opener.open(&other, b"topic", &mut [0; 64]).err(), Some(OpenError::OtherBoot));
    assert_eq!(opener.open(&sealed, b"", &mut [0; 5]).err(), Some(OpenError::BufferTooSmall { needed: 6 }));
    let aad = [0; MAX_EXTERNAL_AAD_OCTETS + 1];
    let octets = aad.len();
    assert_eq!(opener.open(&sealed, &aad, &mut [0; 64]).err(), Some(OpenError::ExternalAadTooLarge { octets }));
    assert!(opener.open(&sealed, b"", &mut [0; 6]).is_ok());
}

#[test]
fn a_plaintext_is_released_for_its_own_mark_only() {
    let mut sealer = sealer(1, RANDOM, SealAlgorithm::Aes128Ccm);
    let (first, second) = (seal(&mut sealer, b"first", b""), seal(&mut sealer, b"second", b""));
    let sealed = [Sealed::parse(&first).unwrap(), Sealed::parse(&second).unwrap()];
    let mut opener = Opener::new(&application("telemetry"), &key_id(), &sealed[0]).unwrap();
    let mut replay = Replay::<2>::new();
    let mark = *opener.open(&sealed[0], b"", &mut [0; 8]).unwrap().mark();
    let accepted = replay.accept(&mark).unwrap();
    let mut out = [0; 8];
    let authentic = opener.open(&sealed[1], b"", &mut out).unwrap();
    assert_eq!(authentic.release(&accepted), Err(NotAccepted));
    assert_eq!(out, [0; 8], "the plaintext was left behind");
}

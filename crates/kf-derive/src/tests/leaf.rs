use std::collections::BTreeSet;

use super::*;

fn application() -> ApplicationKey {
    device().session(b"sealed", 0).unwrap().application(b"telemetry", 0).unwrap()
}

#[test]
fn a_key_has_as_many_octets_as_its_algorithm_says() {
    for algorithm in AeadAlgorithm::ALL {
        let key = application().boot(&[1; 16], Sender::Device, algorithm).unwrap();
        let octets = if matches!(algorithm, AeadAlgorithm::Aes128Ccm | AeadAlgorithm::Aes128Gcm) { 16 } else { 32 };
        assert_eq!((key.expose().len(), key.algorithm(), key.sender()), (octets, algorithm, Sender::Device));
    }
}

#[test]
fn no_two_boots_directions_or_algorithms_share_a_sealing_key_or_its_beginning() {
    let mut seen = BTreeSet::new();
    for boot in [[1; 16], [2; 16]] {
        for sender in [Sender::Device, Sender::Server] {
            for algorithm in AeadAlgorithm::ALL {
                let key = application().boot(&boot, sender, algorithm).unwrap();
                assert!(seen.insert(key.expose()[..16].to_vec()), "{boot:?} {sender:?} {algorithm:?}");
            }
        }
    }
}

#[test]
fn the_info_of_a_boot_names_sender_then_random_octets() {
    let mut context = std::vec![Sender::Server.code()];
    context.extend_from_slice(&[0x5a; 16]);
    let info = Info::new(Level::Boot, Algorithm::Aes128Gcm, Purpose::Encrypt, &context, 0).unwrap();
    let expected = expand(&SoftwareKey::new(application().into_secret()), &info).unwrap().into_secret();
    let key = application().boot(&[0x5a; 16], Sender::Server, AeadAlgorithm::Aes128Gcm).unwrap();
    assert_eq!(key.expose(), &expected.expose()[..16]);
}

#[test]
fn a_tag_verifies_for_its_key_and_message_only() {
    let key = device().authentication(b"acknowledgement", 3).unwrap();
    let tag = key.tag(&[b"one ", b"message"]);
    assert!(key.verify(&[b"one message"], &tag), "parts are one message");
    assert!(!key.verify(&[b"another"], &tag));
    assert!(!device().authentication(b"acknowledgement", 4).unwrap().verify(&[b"one message"], &tag));
    let mut changed = tag;
    changed[31] ^= 1;
    assert!(!key.verify(&[b"one message"], &changed));
}

#[test]
fn a_sender_is_read_back_from_its_code_and_no_other() {
    let known: Vec<_> = (0..=u8::MAX).filter_map(Sender::from_code).collect();
    assert_eq!(known, [Sender::Device, Sender::Server]);
    assert!(known.iter().all(|sender| Sender::from_code(sender.code()) == Some(*sender)));
}

#[test]
fn debug_of_a_leaf_names_the_algorithm_and_no_octet() {
    let key = application().boot(&[1; 16], Sender::Device, AeadAlgorithm::Aes128Ccm).unwrap();
    assert_eq!(std::format!("{key:?}"), "SealingKey { sender: Device, key: EncryptionKey(Aes128Ccm) }");
}

//! What keys in the chip compute, checked with other implementations.

use kf_derive::{KeyedHmac as _, SoftwareKey};
use kf_exchange::{Ephemeral, KeyAgreement as _};
use kf_secure_element::config::{KeyConfig, SlotConfig};
use kf_secure_element::layout::{self, Layout};
use kf_secure_element::{Counter, Error, Opcode, TransportKey};
use kf_testkit::SecureElement;

use crate::bench::{NUMBER, finished, finished_with, open, secret, slot, transport};

#[test]
fn a_key_signs_and_another_library_verifies() {
    let (_chip, mut element) = finished();
    let public_key = element.generate_key(layout::GENERATED[0]).unwrap();
    for message in [b"".as_slice(), b"message", &[0x5a; 10_000]] {
        let signature = element.sign(layout::GENERATED[0], &kf_crypto::sha256(message)).unwrap();
        assert!(public_key.verifies(message, &signature));
        assert!(!public_key.verifies(b"another", &signature));
        element.verify(&kf_crypto::sha256(message), &signature, &public_key).unwrap();
        let wrong = element.verify(&kf_crypto::sha256(b"another"), &signature, &public_key);
        assert_eq!(wrong, Err(Error::Mismatch));
    }
}

#[test]
fn a_new_key_replaces_the_old_one() {
    let (_chip, mut element) = finished();
    let first = element.generate_key(layout::GENERATED[0]).unwrap();
    let second = element.generate_key(layout::GENERATED[0]).unwrap();
    assert_ne!(first, second);
    assert_eq!(element.public_key(layout::GENERATED[0]), Ok(second));
    assert_eq!(element.public_key(layout::GENERATED[1]), Err(Error::Execution(Opcode::GenKey)), "none was made there");
}

#[test]
fn both_ways_to_an_hmac_give_what_software_gives() {
    let (_chip, mut element) = finished_with(&Layout::keyfleet(), &secret(9), false);
    let software = SoftwareKey::new(secret(9));
    for length in [1, 31, 63, 64, 65, 126, 127, 128, 129, 300] {
        let message: Vec<u8> = (0..length).map(|index| u8::try_from(index % 251).unwrap()).collect();
        let mut expected = [0; 32];
        let Ok(()) = software.hmac_sha256(&message, &mut expected);
        assert_eq!(element.hmac_by_sha(layout::ROOT, &message).unwrap().expose(), &expected, "SHA, {length} octets");
        assert_eq!(element.hmac(layout::ROOT, &message).unwrap().expose(), &expected, "{length} octets");
        if length <= 127 {
            assert_eq!(
                element.hmac_by_kdf(layout::ROOT, &message).unwrap().expose(),
                &expected,
                "KDF, {length} octets"
            );
        } else {
            assert!(element.hmac_by_kdf(layout::ROOT, &message).is_err());
        }
    }
}

#[test]
fn both_sides_of_an_agreement_have_the_same_secret() {
    let (_chip, mut element) = finished();
    let ours = element.generate_key(layout::AGREEMENT).unwrap();
    let other = Ephemeral::from_random(secret(7)).unwrap();
    let shared = element.agree(layout::AGREEMENT, &other.public_key()).unwrap();
    assert!(shared.equals(&other.agree(&ours).unwrap()));
}

#[test]
fn aes_gives_the_standards_example() {
    let (_chip, mut element) = finished();
    // FIPS 197 appendix C.1.
    let key = kf_key::SecretArray::fill(|key: &mut [u8; 32]| {
        (0..16).for_each(|octet| key[usize::from(octet)] = octet);
    });
    element.write_encrypted(layout::AES, &key, &transport(), &NUMBER).unwrap();
    let plain: [u8; 16] = std::array::from_fn(|index| u8::try_from(index * 0x11).unwrap());
    let cipher = [0x69, 0xc4, 0xe0, 0xd8, 0x6a, 0x7b, 0x04, 0x30, 0xd8, 0xcd, 0xb7, 0x80, 0x70, 0xb4, 0xc5, 0x5a];
    assert_eq!(element.aes_encrypt(layout::AES, &plain), Ok(cipher));
    assert_eq!(element.aes_decrypt(layout::AES, &cipher), Ok(plain));
}

#[test]
fn a_counter_only_counts_up_and_survives_power() {
    let (chip, mut element) = finished();
    assert_eq!(element.count(Counter::One), Ok(0));
    assert_eq!(element.increment(Counter::One), Ok(1));
    assert_eq!(element.increment(Counter::One), Ok(2));
    assert_eq!(element.count(Counter::Zero), Ok(0));
    chip.set_power(false);
    chip.set_power(true);
    assert_eq!(open(&chip).count(Counter::One), Ok(2));
}

#[test]
fn random_numbers_differ_and_the_chip_is_of_the_family() {
    let (_chip, mut element) = finished();
    assert!(!element.random().unwrap().equals(&element.random().unwrap()));
    assert_eq!(element.revision().unwrap()[2], 0x60);
    element.self_test().unwrap();
}

#[test]
fn a_secret_is_written_encrypted_and_read_encrypted_under_the_right_key_only() {
    let vault = slot(11);
    // Secret, read and written encrypted under slot 6.
    let policy = (SlotConfig::from_bits(0x46c6), KeyConfig::from_bits(0x001c));
    let layout = Layout::keyfleet().with_slot(vault, policy.0, policy.1);
    let (chip, mut element) = finished_with(&layout, &secret(0x55), false);
    let before = chip.traffic().len();
    element.write_encrypted(vault, &secret(0x3c), &transport(), &NUMBER).unwrap();
    assert!(chip.slot(11).starts_with(&[0x3c; 32]));
    assert!(element.read_encrypted(vault, 0, &transport(), &NUMBER).unwrap().equals(&secret(0x3c)));
    let wrong = TransportKey::new(layout::TRANSPORT, secret(0x67));
    let refused = element.write_encrypted(vault, &secret(0x3d), &wrong, &NUMBER);
    assert_eq!(refused, Err(Error::Execution(Opcode::Write)));
    assert!(chip.slot(11).starts_with(&[0x3c; 32]));
    assert!(!element.read_encrypted(vault, 0, &wrong, &NUMBER).unwrap().equals(&secret(0x3c)));
    assert!(!chip.traffic()[before..].windows(8).any(|window| window == [0x3c; 8]), "never in the clear on the bus");
}

#[test]
fn data_of_every_slot_comes_back() {
    let (_chip, mut element) = finished();
    for (slot, length) in [(layout::CERTIFICATE, 416), (slot(10), 72), (slot(12), 72)] {
        let data: Vec<u8> = (0..length).map(|index| u8::try_from(index % 253).unwrap()).collect();
        element.write(slot, 0, &data).unwrap();
        let mut found = vec![0; length];
        element.read(slot, 0, &mut found).unwrap();
        assert_eq!(found, data, "{slot}");
        element.write(slot, 36, &[9; 8]).unwrap();
        element.read(slot, 32, &mut found[..16]).unwrap();
        assert_eq!(found[..16], [&data[32..36], &[9; 8], &data[44..48]].concat()[..]);
    }
}

#[test]
fn nothing_volatile_is_left_after_a_call() {
    let (chip, mut element) = finished();
    element.generate_key(layout::GENERATED[0]).unwrap();
    assert!(chip.is_asleep());
    element.sign(layout::GENERATED[0], &[1; 32]).unwrap();
    assert!(chip.is_asleep());
    element.sign(layout::ROOT, &[1; 32]).unwrap_err();
    assert!(chip.is_asleep());
}

#[test]
fn before_it_is_configured_a_chip_gives_no_randomness() {
    let mut element = open(&SecureElement::blank(3));
    assert!(element.random().is_err());
}

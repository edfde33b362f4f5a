//! The emulated chip driven by at-cryptoauth, which we did not write: what both drivers and the emulator agree on is not one
//! misunderstanding of ours. Its signatures are verified by this project's provider (aws-lc-rs) besides.

use at_cryptoauth::memory::{Size, Slot, Zone};
use at_cryptoauth::{AtCaClient, Block};
use embassy_sync::blocking_mutex::raw::NoopRawMutex;
use kf_secure_element::layout::{self, Layout};
use kf_testkit::{ElementBus, SecureElement};

use crate::bench::{finish, finished, open, secret};

type Client = AtCaClient<NoopRawMutex, ElementBus>;

fn client(chip: &SecureElement) -> Client {
    AtCaClient::new(chip.bus())
}

/// SubjectPublicKeyInfo of a raw point.
fn spki(point: &[u8]) -> Vec<u8> {
    let tagged: [u8; 65] = [&[4], point].concat().try_into().unwrap();
    kf_exchange::PublicKey::from_sec1(&tagged).unwrap().to_spki().to_vec()
}

#[test]
fn it_wakes_the_chip_and_reads_what_we_read() {
    let (chip, element) = finished();
    let client = client(&chip);
    assert_eq!(client.info_blocking().unwrap().as_ref()[2], 0x60);
    let serial = client.memory().serial_number_blocking().unwrap();
    assert_eq!(serial.as_ref(), element.config().serial_number().as_bytes());
    for (ours, theirs) in [(layout::IDENTITY, Slot::PrivateKey00), (layout::ROOT, Slot::PrivateKey05)] {
        let zone = element.config();
        assert_eq!(client.memory().permission_blocking(theirs).unwrap(), zone.slot_config(ours).bits());
        assert_eq!(client.memory().key_type_blocking(theirs).unwrap(), zone.key_config(ours).bits());
        assert_eq!(client.memory().is_slot_locked_blocking(theirs).unwrap(), zone.is_slot_locked(ours));
    }
    assert!(client.memory().is_locked_blocking(Zone::Config).unwrap());
    assert!(client.memory().is_locked_blocking(Zone::Data).unwrap());
}

#[test]
fn it_makes_a_key_and_signs_and_others_verify() {
    let (chip, mut element) = finished();
    let client = client(&chip);
    let public = client.create_private_key_blocking(Slot::PrivateKey02).unwrap();
    let ours = element.public_key(layout::GENERATED[0]).unwrap();
    assert_eq!(&ours.to_sec1()[1..], public.as_ref());
    let signature = client.signer(Slot::PrivateKey02).sign_blocking(b"message").unwrap();
    let raw: [u8; 64] = signature.to_bytes().into();
    assert!(ours.verifies(b"message", &raw));
    let der = kf_crypto::ecdsa_signature_to_der(&raw).unwrap();
    let spki = spki(public.as_ref());
    let (algorithm, key) = kf_crypto::public_key_of_spki(&spki).unwrap();
    kf_crypto::verify(algorithm, key, b"message", &der).unwrap();
    let digest = kf_crypto::sha256(b"message");
    element.verify(&digest, &raw, &ours).unwrap();
    // And ours verifies there.
    let ours_signed = element.sign(layout::GENERATED[0], &digest).unwrap();
    let theirs = at_cryptoauth::Signature::from_bytes(&ours_signed.into()).unwrap();
    let digest = at_cryptoauth::Digest::try_from(digest.as_slice()).unwrap();
    client.verify_external_blocking(&digest, &theirs, &public).unwrap();
    let other = at_cryptoauth::Digest::try_from([9; 32].as_slice()).unwrap();
    assert!(client.verify_external_blocking(&other, &theirs, &public).is_err());
}

#[test]
fn it_hashes_as_the_provider_does_and_draws_random_numbers() {
    let (chip, _element) = finished();
    let client = client(&chip);
    for length in [0, 1, 63, 64, 65, 200] {
        let message = vec![0x5a; length];
        assert_eq!(client.sha().digest_blocking(&message).unwrap().as_ref(), kf_crypto::sha256(&message), "{length}");
    }
    let mut numbers = [[0; 32]; 2];
    for number in &mut numbers {
        client.random().try_fill_bytes_blocking(number).unwrap();
    }
    assert!(numbers[0] != numbers[1] && numbers[0] != [0; 32]);
}

#[test]
fn what_it_configures_and_locks_our_driver_finds_so() {
    let chip = SecureElement::blank(9);
    let client = client(&chip);
    let zone = *open(&chip).config();
    let wanted = *Layout::keyfleet().applied_to(&zone).as_bytes();
    for (word, octets) in wanted.chunks(4).enumerate().filter(|(word, _)| *word >= 4 && *word != 21) {
        let (block, offset, _) = Zone::locate_index(word * 4);
        client.memory().write_config_blocking(Size::Word, block, offset, octets).unwrap();
    }
    assert!(Layout::keyfleet().is_of(open(&chip).config()));
    assert!(client.memory().write_config_blocking(Size::Word, 0, 0, &[0; 4]).is_err(), "the serial number stays");
    // With the checksum as that driver computes it.
    let crc = at_cryptoauth::CRC16.checksum(&wanted);
    assert!(client.memory().lock_crc_blocking(Zone::Config, crc ^ 1).is_err());
    client.memory().lock_crc_blocking(Zone::Config, crc).unwrap();
    let mut element = open(&chip);
    assert!(element.config().is_config_locked());
    finish(&mut element, &Layout::keyfleet(), &secret(0x55), false);
    assert!(client.memory().is_locked_blocking(Zone::Data).unwrap());
}

#[test]
fn data_that_one_writes_the_other_reads() {
    let (chip, mut element) = finished();
    let client = client(&chip);
    let block = Block::try_from([0xa5; 32].as_slice()).unwrap();
    client.memory().write_data08_block_blocking(3, &block).unwrap();
    let mut found = [0; 32];
    element.read(layout::CERTIFICATE, 96, &mut found).unwrap();
    assert_eq!(found, [0xa5; 32]);
    element.write(layout::CERTIFICATE, 0, &[0x3c; 32]).unwrap();
    assert_eq!(client.memory().read_data08_block_blocking(0).unwrap().as_ref(), &[0x3c; 32]);
}

#[test]
fn it_computes_a_secret_that_ours_computes_too() {
    let (chip, mut element) = finished();
    let client = client(&chip);
    let ours = element.generate_key(layout::AGREEMENT).unwrap();
    let other = client.create_private_key_blocking(Slot::PrivateKey01).unwrap();
    assert_ne!(&ours.to_sec1()[1..], other.as_ref(), "another key in its place");
    let peer = kf_exchange::Ephemeral::from_random(secret(4)).unwrap();
    use kf_exchange::KeyAgreement as _;
    let shared = element.agree(layout::AGREEMENT, &peer.public_key()).unwrap();
    let tagged: [u8; 65] = [&[4], other.as_ref()].concat().try_into().unwrap();
    assert!(shared.equals(&peer.agree(&kf_exchange::PublicKey::from_sec1(&tagged).unwrap()).unwrap()));
}

//! Signature keys, HMAC keys, sealed secrets, random numbers.

use kf_key::{KeyAlgorithm, SecretArray, SecretBytes};
use kf_testkit::SoftwareTpm;
use kf_tpm::{Blob, Protection, TpmError};

use crate::open;

fn secret(text: &str) -> SecretBytes {
    SecretBytes::from_vec(text.as_bytes().to_vec())
}

fn with_auth(text: &str) -> Protection {
    Protection { auth: Some(secret(text)), policy: None }
}

#[test]
fn a_signature_key_signs_for_its_public_half_and_survives_a_reboot() {
    let mut emulator = SoftwareTpm::new();
    let none = Protection::default();
    let stored = {
        let tpm = open(&emulator);
        let key = tpm.generate_signature_key(&none).unwrap();
        let signature = tpm.sign(&key, &none, b"message").unwrap();
        let spki = key.spki().unwrap();
        let (algorithm, point) = kf_crypto::public_key_of_spki(&spki).unwrap();
        assert_eq!(algorithm, KeyAlgorithm::P256);
        assert!(kf_crypto::verify(algorithm, point, b"message", &signature).is_ok());
        assert!(kf_crypto::verify(algorithm, point, b"another", &signature).is_err());
        key.to_bytes()
    };
    emulator.restart();
    let tpm = open(&emulator);
    let key = Blob::from_bytes(&stored).unwrap();
    // Many in a row: nothing that a call loads stays behind.
    for round in 0..8_u8 {
        let signature = tpm.sign(&key, &none, &[round]).unwrap();
        let spki = key.spki().unwrap();
        let (algorithm, point) = kf_crypto::public_key_of_spki(&spki).unwrap();
        assert!(kf_crypto::verify(algorithm, point, &[round], &signature).is_ok());
    }
}

#[test]
fn an_imported_key_gives_the_hmac_that_software_gives() {
    let emulator = SoftwareTpm::new();
    let tpm = open(&emulator);
    let none = Protection::default();
    let key = tpm.import_hmac_key(&SecretArray::fill(|key| key.fill(7)), &none).unwrap();
    for message in [&b""[..], b"message", &[0x5a; 300]] {
        let code = tpm.hmac(&key, &none, message).unwrap();
        assert_eq!(code.expose(), &kf_crypto::hmac_sha256(&[7; 32], message));
    }
    let drawn = tpm.generate_hmac_key(&none).unwrap();
    let other = tpm.generate_hmac_key(&none).unwrap();
    let code = tpm.hmac(&drawn, &none, b"message").unwrap();
    assert!(code.equals(&tpm.hmac(&drawn, &none, b"message").unwrap()));
    assert!(!code.equals(&tpm.hmac(&other, &none, b"message").unwrap()));
}

#[test]
fn a_sealed_secret_opens_with_its_authorisation_only() {
    let emulator = SoftwareTpm::new();
    let tpm = open(&emulator);
    for length in [1, 32, kf_tpm::MAX_SEALED_OCTETS] {
        let plain = SecretBytes::from_vec(vec![3; length]);
        let sealed = tpm.seal(&plain, &with_auth("right")).unwrap();
        assert!(tpm.unseal(&sealed, &with_auth("right")).unwrap().equals(plain.expose()));
        let stored = sealed.to_bytes();
        assert!(length < 32 || !stored.windows(8).any(|window| window == [3; 8]), "{length}");
    }
    let sealed = tpm.seal(&secret("secret"), &with_auth("right")).unwrap();
    assert_eq!(tpm.unseal(&sealed, &with_auth("wrong")).err(), Some(TpmError::Authorization));
    assert_eq!(tpm.unseal(&sealed, &Protection::default()).err(), Some(TpmError::Authorization));
    assert!(tpm.unseal(&sealed, &with_auth("right")).unwrap().equals(b"secret"));
    for length in [0, kf_tpm::MAX_SEALED_OCTETS + 1] {
        assert!(tpm.seal(&SecretBytes::from_vec(vec![3; length]), &Protection::default()).is_err());
    }
}

#[test]
fn keys_of_one_tpm_are_of_no_use_in_another() {
    let (one, other) = (SoftwareTpm::new(), SoftwareTpm::new());
    let none = Protection::default();
    let (key, sealed) = {
        let tpm = open(&one);
        (tpm.generate_signature_key(&none).unwrap(), tpm.seal(&secret("secret"), &none).unwrap())
    };
    let tpm = open(&other);
    assert_eq!(tpm.sign(&key, &none, b"message"), Err(TpmError::OtherTpm));
    assert_eq!(tpm.unseal(&sealed, &none).err(), Some(TpmError::OtherTpm));
    // Not even when the note of the storage key is replaced.
    let own = tpm.generate_signature_key(&none).unwrap().to_bytes();
    let mut forged = key.to_bytes();
    forged[..33].copy_from_slice(&own[..33]);
    assert_eq!(tpm.sign(&Blob::from_bytes(&forged).unwrap(), &none, b"message"), Err(TpmError::OtherTpm));
}

#[test]
fn a_damaged_key_is_refused_at_every_octet() {
    let emulator = SoftwareTpm::new();
    let tpm = open(&emulator);
    let none = Protection::default();
    let stored = tpm.generate_signature_key(&none).unwrap().to_bytes();
    for length in 0..stored.len() {
        assert!(Blob::from_bytes(&stored[..length]).is_err(), "{length} octets");
    }
    assert!(Blob::from_bytes(&[&stored[..], &[0]].concat()).is_err());
    // A few commands a position: every fourth shows the private area as well as the public.
    for position in (0..stored.len()).step_by(4) {
        let mut damaged = stored.clone();
        damaged[position] ^= 1;
        let signed = Blob::from_bytes(&damaged).and_then(|key| tpm.sign(&key, &none, b"message"));
        assert!(signed.is_err(), "octet {position}");
    }
    assert!(tpm.sign(&Blob::from_bytes(&stored).unwrap(), &none, b"message").is_ok());
}

#[test]
fn random_numbers_differ() {
    let emulator = SoftwareTpm::new();
    let tpm = open(&emulator);
    let (one, other) = (tpm.random().unwrap(), tpm.random().unwrap());
    assert!(!one.equals(&other) && one.expose() != &[0; 32]);
}

#[test]
fn what_a_killed_program_left_loaded_is_cleared_at_the_next_start() {
    let emulator = SoftwareTpm::new();
    // Three transient objects are all that the TPM has room for.
    for _ in 0..3 {
        let output = emulator.tool("tpm2_createprimary").run(&["-C", "o", "-G", "ecc256", "-Q"]);
        assert!(output.success(), "{}", output.text());
    }
    assert!(open(&emulator).random().is_ok());
}

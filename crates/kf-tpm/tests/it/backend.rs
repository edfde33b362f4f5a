//! The server's back end over a TPM.

use kf_backend::{BackendError, KeyBackend, SoftwareBackend, TokenFault, conformance, generate_wrapped};
use kf_key::{KeyAlgorithm, KeyId, SecretArray, SecretBytes};
use kf_testkit::{SoftwareTpm, scratch};
use kf_tpm::{Protection, TpmBackend};

use crate::open;

fn key_id(number: u8) -> KeyId {
    KeyId::from_parts(kf_key::UnixMillis(1), [number; 10])
}

fn pin(text: &str) -> Protection {
    Protection { auth: Some(SecretBytes::from_vec(text.as_bytes().to_vec())), policy: None }
}

#[test]
fn the_tpm_conforms() {
    let (emulator, directory) = (SoftwareTpm::new(), scratch());
    let tpm = open(&emulator);
    TpmBackend::create_root(&tpm, directory.path(), &pin("1357")).unwrap();
    let backend = TpmBackend::open(tpm, directory.path(), pin("1357")).unwrap();
    assert_eq!(conformance::check(&backend, [key_id(1), key_id(2)]), Ok(()));
}

#[test]
fn tpm_and_software_derive_the_same_keys_from_one_root() {
    let (emulator, directory) = (SoftwareTpm::new(), scratch());
    let tpm = open(&emulator);
    let root = || SecretArray::fill(|root| root.fill(9));
    TpmBackend::import_root(&tpm, directory.path(), &Protection::default(), &root()).unwrap();
    let backend = TpmBackend::open(tpm, directory.path(), Protection::default()).unwrap();
    let software = SoftwareBackend::new(root(), "test".to_owned()).unwrap();
    assert_eq!(conformance::check_same_root(&backend, &software), Ok(()));
}

#[test]
fn a_key_that_the_tpm_cannot_hold_is_wrapped_under_its_root() {
    let (emulator, directory) = (SoftwareTpm::new(), scratch());
    let tpm = open(&emulator);
    TpmBackend::create_root(&tpm, directory.path(), &Protection::default()).unwrap();
    let backend = TpmBackend::open(tpm, directory.path(), Protection::default()).unwrap();
    let made = generate_wrapped(&backend, key_id(1), KeyAlgorithm::Ed25519).unwrap();
    assert_eq!(backend.open_key(key_id(1), &made.handle).unwrap().spki(), made.spki);
}

#[test]
fn keys_survive_a_restart_and_a_root_is_never_replaced() {
    let (mut emulator, directory) = (SoftwareTpm::new(), scratch());
    let made = {
        let tpm = open(&emulator);
        TpmBackend::create_root(&tpm, directory.path(), &pin("1357")).unwrap();
        let again = TpmBackend::create_root(&tpm, directory.path(), &pin("1357"));
        assert!(matches!(again, Err(BackendError::KeyExists { .. })), "{again:?}");
        let backend = TpmBackend::open(tpm, directory.path(), pin("1357")).unwrap();
        backend.generate_key_pair(key_id(1), KeyAlgorithm::P256).unwrap()
    };
    emulator.restart();
    let backend = TpmBackend::open(open(&emulator), directory.path(), pin("1357")).unwrap();
    assert_eq!(backend.open_key(key_id(1), &made.handle).unwrap().spki(), made.spki);
}

#[test]
fn a_wrong_pin_and_another_tpm_are_told_apart() {
    let (emulator, other, directory) = (SoftwareTpm::new(), SoftwareTpm::new(), scratch());
    TpmBackend::create_root(&open(&emulator), directory.path(), &pin("1357")).unwrap();
    let refused = TpmBackend::open(open(&emulator), directory.path(), pin("2468")).unwrap_err();
    assert_eq!(refused, BackendError::Token(TokenFault::Login));
    let refused = TpmBackend::open(open(&other), directory.path(), pin("1357")).unwrap_err();
    assert_eq!(refused, BackendError::OtherRoot);
    let nothing = TpmBackend::open(open(&other), scratch().path(), pin("1357")).unwrap_err();
    assert!(matches!(nothing, BackendError::MissingKey { .. }), "{nothing:?}");
}

#[test]
fn the_file_of_one_key_is_not_taken_for_anothers() {
    let (emulator, directory) = (SoftwareTpm::new(), scratch());
    let tpm = open(&emulator);
    TpmBackend::create_root(&tpm, directory.path(), &Protection::default()).unwrap();
    let backend = TpmBackend::open(tpm, directory.path(), Protection::default()).unwrap();
    let [one, other] = [1, 2].map(|number| {
        let made = backend.generate_key_pair(key_id(number), KeyAlgorithm::P256).unwrap();
        (made.handle, directory.path().join(format!("{}.tpm", key_id(number))))
    });
    std::fs::copy(&one.1, &other.1).unwrap();
    assert!(matches!(backend.open_key(key_id(2), &other.0), Err(BackendError::Handle)));
    assert!(backend.open_key(key_id(1), &one.0).is_ok());
}

#[test]
fn the_published_vectors_hold_in_the_tpm() {
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../vectors/derive.json")).unwrap();
    let vectors: serde_json::Value = serde_json::from_str(&text).unwrap();
    let emulator = SoftwareTpm::new();
    let tpm = open(&emulator);
    let none = Protection::default();
    let octets = |value: &serde_json::Value| hex::decode(value.as_str().unwrap()).unwrap();
    let mut checked = 0;
    for vector in vectors["vectors"].as_array().unwrap().iter().filter(|vector| vector["operation"] == "step") {
        let Ok(key) = <[u8; 32]>::try_from(octets(&vector["key"])) else { continue };
        let key = tpm.import_hmac_key(&SecretArray::fill(|out| *out = key), &none).unwrap();
        let message = [octets(&vector["info"]), vec![1]].concat();
        let code = tpm.hmac(&key, &none, &message).unwrap();
        let output = octets(&vector["output"]);
        assert_eq!(code.expose()[..output.len()], output, "{}", vector["name"]);
        checked += 1;
    }
    assert!(checked >= 10, "{checked} vectors fit");
}

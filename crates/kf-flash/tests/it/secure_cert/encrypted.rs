//! The one encrypted record.

use std::convert::Infallible;

use hmac::{Hmac, KeyInit, Mac};
use kf_flash::secure_cert::{
    HmacEfuseKey, KeyProtection, RecordCipher, RecordType, SecureCert, SecureCertError, SecureCertWriter, open_record,
};
use kf_key::SecretArray;
use sha2::Sha256;

pub(super) const EFUSE_KEY: [u8; 32] = [0x5c; 32];

pub(super) fn hmac(key: &[u8; 32], message: &[u8]) -> SecretArray<32> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
    mac.update(message);
    SecretArray::fill(|octets| *octets = mac.finalize().into_bytes().0)
}

fn cipher() -> RecordCipher {
    let key = HmacEfuseKey::fresh(SecretArray::fill(|key| *key = EFUSE_KEY));
    let (to_burn, cipher) = key.split::<Infallible>(|key, message| Ok(hmac(key.expose(), message))).unwrap();
    assert_eq!(to_burn.expose(), &EFUSE_KEY);
    cipher
}

pub(super) fn encrypted_image(value: &[u8]) -> Vec<u8> {
    let mut octets = vec![0; 0x800];
    let mut writer = SecureCertWriter::new(&mut octets).unwrap();
    writer.add(RecordType::DeviceCertificate, 0, b"certificate").unwrap();
    writer.add_encrypted(cipher(), RecordType::PrivateKey, 0, value).unwrap();
    writer.finish().unwrap();
    octets
}

#[test]
fn an_encrypted_record_opens_under_its_efuse_key_and_no_other() {
    let image = encrypted_image(b"a private key");
    let record = SecureCert::new(&image).unwrap().record(RecordType::PrivateKey, 0).unwrap().unwrap();
    assert_eq!(record.protection, KeyProtection::HmacEncrypted);
    assert_eq!(record.value.len(), 13 + 16);
    let mut buffer = [0; 64];
    let opened = open_record::<SecureCertError>(&record, &mut buffer, |message| Ok(hmac(&EFUSE_KEY, message)));
    assert_eq!(opened.unwrap(), b"a private key");
    let other = open_record::<SecureCertError>(&record, &mut buffer, |message| Ok(hmac(&[1; 32], message)));
    assert_eq!(other.err(), Some(SecureCertError::Refused));
    assert!(buffer[..13].iter().all(|octet| *octet == 0), "nothing unverified stays");
    let mut too_short = [0; 12];
    let short = open_record::<SecureCertError>(&record, &mut too_short, |message| Ok(hmac(&EFUSE_KEY, message)));
    assert_eq!(short.err(), Some(SecureCertError::BufferTooShort { needed: 13 }));
    let plain = SecureCert::new(&image).unwrap().record(RecordType::DeviceCertificate, 0).unwrap().unwrap();
    let not_encrypted = open_record::<SecureCertError>(&plain, &mut buffer, |message| Ok(hmac(&EFUSE_KEY, message)));
    assert_eq!(not_encrypted.err(), Some(SecureCertError::Refused));
}

#[test]
fn a_second_encrypted_record_in_one_image_is_refused_even_under_another_key() {
    let mut octets = [0; 0x800];
    let mut writer = SecureCertWriter::new(&mut octets).unwrap();
    writer.add_encrypted(cipher(), RecordType::PrivateKey, 0, b"one").unwrap();
    let second = writer.add_encrypted(cipher(), RecordType::PrivateKey, 1, b"two");
    assert_eq!(second, Err(SecureCertError::SecondEncryptedRecord));
    writer.finish().unwrap();
    assert_eq!(SecureCert::new(&octets).unwrap().records().count(), 2);
}

#[test]
fn an_encrypted_record_that_does_not_fit_leaves_no_plaintext() {
    let mut octets = [0; 0x40];
    let mut writer = SecureCertWriter::new(&mut octets).unwrap();
    let secret = [0x77; 40];
    assert_eq!(writer.add_encrypted(cipher(), RecordType::PrivateKey, 0, &secret), Err(SecureCertError::Full));
    assert!(!octets.contains(&0x77));
}

#[test]
fn two_records_under_one_key_would_give_away_what_differs_between_them() {
    // Why a second record is refused: key and IV are the same, and so is the key stream.
    let value = |image: &[u8]| {
        let record = SecureCert::new(image).unwrap().record(RecordType::PrivateKey, 0).unwrap().unwrap();
        record.value[..13].to_vec()
    };
    let (one, two) = (value(&encrypted_image(b"a private key")), value(&encrypted_image(b"another value")));
    let difference: Vec<u8> = one.iter().zip(&two).map(|(one, two)| one ^ two).collect();
    let known: Vec<u8> = b"a private key".iter().zip(b"another value").map(|(one, two)| one ^ two).collect();
    assert_eq!(difference, known);
}

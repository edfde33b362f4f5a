//! Samples that the tests of the rules start from: everything holds, one thing is then changed.

use std::collections::BTreeMap;

use kf_api::certificate::Certificate;
use kf_api::device::Device;
use kf_crypto::PrivateKey;
use kf_key::{
    AuthorityId, CertificateProfile, CertificateStatus, DeviceId, DeviceState, FacilityId, KeyAlgorithm, KeyProtection,
    ProductLineId, SerialNumber, UnixMillis,
};
use kf_pki::certificate::PresentedCertificate;
use kf_pki::request::{CertificationRequest, RequestedKey};

pub(crate) const NOW: UnixMillis = UnixMillis(1_800_000_000_000);
pub(crate) const OLD_KEY: [u8; 32] = [0xaa; 32];
pub(crate) const NEW_KEY: [u8; 32] = [0xbb; 32];

pub(crate) fn device_id(number: u8) -> DeviceId {
    DeviceId::from_parts(NOW, [number; 10])
}

pub(crate) fn line(number: u8) -> ProductLineId {
    ProductLineId::from_parts(NOW, [number; 10])
}

pub(crate) fn facility(number: u8) -> FacilityId {
    FacilityId::from_parts(NOW, [number; 10])
}

pub(crate) fn serial(number: u8) -> SerialNumber {
    SerialNumber::from_parts(NOW, [number; 16])
}

/// A Name with one CN, UTF8String.
pub(crate) fn subject(name: &str) -> Vec<u8> {
    let length = u8::try_from(name.len()).unwrap();
    let head = [0x30, length + 11, 0x31, length + 9, 0x30, length + 7, 0x06, 0x03, 0x55, 0x04, 0x03, 0x0c, length];
    [&head, name.as_bytes()].concat()
}

pub(crate) fn device() -> Device {
    Device {
        id: device_id(1),
        name: "pump-7".into(),
        facility: facility(1),
        product_line: line(1),
        state: DeviceState::Active,
        batch: None,
        attributes: BTreeMap::new(),
        protection: KeyProtection::Unknown,
        created: NOW.minus(UnixMillis::DAY),
        last_seen: None,
    }
}

pub(crate) fn presented() -> PresentedCertificate {
    PresentedCertificate {
        serial: Some(serial(1)),
        issuer: subject("issuing"),
        authority_key_identifier: None,
        subject: subject("pump-7"),
        subject_alt_name: Some(vec![0x30, 0x03, 0x86, 0x01, b'a']),
        spki_sha256: OLD_KEY,
        spki: Vec::new(),
        not_before: NOW.minus(UnixMillis::DAY),
        not_after: NOW.plus(UnixMillis::DAY),
    }
}

pub(crate) fn registered(profile: CertificateProfile) -> Certificate {
    Certificate {
        serial: serial(1),
        authority: AuthorityId::from_parts(NOW, [1; 10]),
        profile,
        device: Some(device_id(1)),
        operator: None,
        facility: Some(facility(1)),
        subject: "CN=pump-7".into(),
        spki_sha256: hex::encode(OLD_KEY),
        not_before: NOW.minus(UnixMillis::DAY),
        not_after: NOW.plus(UnixMillis::DAY),
        status: CertificateStatus::Good,
        revoked: None,
        reason: None,
    }
}

pub(crate) fn request(algorithm: KeyAlgorithm) -> CertificationRequest {
    let mut key = RequestedKey::from_spki(&PrivateKey::generate(KeyAlgorithm::P256).unwrap().spki()).unwrap();
    (key.algorithm, key.spki_sha256) = (algorithm, NEW_KEY);
    CertificationRequest {
        key,
        subject: vec![0x30, 0x00],
        subject_alt_name: None,
        challenge_password: None,
        der: Vec::new(),
    }
}

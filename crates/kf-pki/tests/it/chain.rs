//! Who may come in as a TLS client.

use kf_crypto::PrivateKey;
use kf_key::{CertificateProfile, KeyAlgorithm, UnixMillis};
use kf_pki::chain::{Currency, PathError, verify_client};

use crate::fleet::{Fleet, NOW, SIGNING, request};

fn verify(fleet: &Fleet, leaf: &[u8], now: UnixMillis) -> Result<Currency, PathError> {
    verify_client(leaf, &[&fleet.ca.issuer.certificate], &[&fleet.root.issuer.certificate], now)
}

#[test]
fn devices_and_operators_of_every_algorithm_are_clients() {
    for algorithm in SIGNING {
        let fleet = Fleet::new(algorithm);
        for profile in [CertificateProfile::IDevId, CertificateProfile::LDevId, CertificateProfile::Operator] {
            let (issued, _) = fleet.issue(profile);
            assert_eq!(verify(&fleet, &issued.der, NOW), Ok(Currency::Current), "{profile}");
            // An issuing CA is anchor enough.
            assert_eq!(verify_client(&issued.der, &[], &[&fleet.ca.issuer.certificate], NOW), Ok(Currency::Current));
        }
    }
}

#[test]
fn servers_responders_and_authorities_are_no_clients() {
    let fleet = Fleet::new(KeyAlgorithm::P256);
    for profile in [CertificateProfile::TlsServer, CertificateProfile::OcspSigner] {
        let (issued, _) = fleet.issue(profile);
        assert_eq!(verify(&fleet, &issued.der, NOW), Err(PathError::Untrusted), "{profile}");
    }
    assert_eq!(verify(&fleet, &fleet.ca.issuer.certificate, NOW), Err(PathError::Untrusted));
}

#[test]
fn a_path_to_a_foreign_root_or_with_a_link_missing_or_broken_is_refused() {
    let (fleet, other) = (Fleet::new(KeyAlgorithm::P256), Fleet::new(KeyAlgorithm::P256));
    let (issued, _) = fleet.issue(CertificateProfile::LDevId);
    assert_eq!(verify(&other, &issued.der, NOW), Err(PathError::Untrusted));
    let root: &[u8] = &fleet.root.issuer.certificate;
    assert_eq!(verify_client(&issued.der, &[], &[root], NOW), Err(PathError::Untrusted));
    assert_eq!(verify_client(&issued.der, &[], &[], NOW), Err(PathError::Untrusted));
    let mut broken = issued.der.clone();
    let last = broken.len() - 5;
    broken[last] ^= 1;
    assert_eq!(verify(&fleet, &broken, NOW), Err(PathError::Untrusted));
    let many = vec![root; 9];
    assert_eq!(verify_client(&issued.der, &many, &[root], NOW), Err(PathError::Untrusted));
}

#[test]
fn an_anchor_that_cannot_be_read_does_not_spoil_the_others() {
    let fleet = Fleet::new(KeyAlgorithm::P256);
    let (issued, _) = fleet.issue(CertificateProfile::LDevId);
    let anchors: [&[u8]; 2] = [b"nonsense", &fleet.ca.issuer.certificate];
    assert_eq!(verify_client(&issued.der, &[], &anchors, NOW), Ok(Currency::Current));
}

#[test]
fn an_expired_client_is_told_apart_from_an_untrusted_one() {
    let fleet = Fleet::new(KeyAlgorithm::P256);
    let key = PrivateKey::generate(KeyAlgorithm::P256).unwrap();
    let mut asked = request(CertificateProfile::LDevId, &key);
    asked.not_after = Some(NOW.minus(UnixMillis::SECOND));
    let issued = fleet.ca.issue(asked).unwrap();
    assert_eq!(verify(&fleet, &issued.der, NOW), Ok(Currency::Expired));
    let other = Fleet::new(KeyAlgorithm::P256);
    assert_eq!(verify(&other, &issued.der, NOW), Err(PathError::Untrusted));
    // The last moment itself is inside.
    assert_eq!(verify(&fleet, &issued.der, issued.facts.not_after), Ok(Currency::Current));
}

#[test]
fn a_client_from_the_future_is_not_yet_valid() {
    let fleet = Fleet::new(KeyAlgorithm::P256);
    let (issued, _) = fleet.issue(CertificateProfile::LDevId);
    let early = issued.facts.not_before.minus(UnixMillis::SECOND);
    assert_eq!(verify(&fleet, &issued.der, early), Err(PathError::NotYetValid));
    assert_eq!(verify(&fleet, b"nonsense", NOW), Err(PathError::Untrusted));
}

#[test]
fn a_manufacturers_idevid_made_by_another_library_is_a_client() {
    let root_key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
    let mut root = rcgen::CertificateParams::new([]).unwrap();
    root.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    root.not_before = rcgen::date_time_ymd(2024, 1, 1);
    root.not_after = rcgen::date_time_ymd(2060, 1, 1);
    let root_certificate = root.self_signed(&root_key).unwrap();
    let issuer = rcgen::Issuer::new(root, root_key);
    let device_key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    let mut device = rcgen::CertificateParams::new([]).unwrap();
    device.not_before = rcgen::date_time_ymd(2025, 1, 1);
    device.not_after = rcgen::date_time_ymd(2055, 1, 1);
    let device = device.signed_by(&device_key, &issuer).unwrap();
    assert_eq!(verify_client(device.der(), &[], &[root_certificate.der()], NOW), Ok(Currency::Current));
}

//! Whatever arrives: no panic, and nothing changed is taken for the original.

use std::sync::OnceLock;

use kf_key::{CertificateProfile, KeyAlgorithm};
use kf_pki::certificate::{PresentedCertificate, facts_of_tbs, recheck_tbs_certificate};
use kf_pki::chain::verify_client;
use kf_pki::cms::{certificates_of, certs_only};
use kf_pki::crl::{CrlScope, VerifiedCrl, recheck_tbs_cert_list};
use kf_pki::issuer::Issuer;
use kf_pki::ocsp::{OcspRequest, make_request as make_ocsp_request};
use kf_pki::request::{CertificationRequest, RequestedKey, make_request};
use proptest::prelude::*;

use crate::crl::{all_reasons, signed_crl};
use crate::fleet::{Fleet, NOW, serial};

struct Samples {
    fleet: Fleet,
    request: Vec<u8>,
    certificate: Vec<u8>,
    bundle: Vec<u8>,
    crl: Vec<u8>,
    ocsp_request: Vec<u8>,
}

fn samples() -> &'static Samples {
    static SAMPLES: OnceLock<Samples> = OnceLock::new();
    SAMPLES.get_or_init(|| {
        let fleet = Fleet::new(KeyAlgorithm::P256);
        let (issued, key) = fleet.issue(CertificateProfile::IDevId);
        Samples {
            request: make_request(&key, "pump").unwrap(),
            bundle: certs_only(&[&issued.der, &fleet.ca.issuer.certificate]),
            certificate: issued.der,
            crl: signed_crl(&fleet.ca, CrlScope::Shard(0), &all_reasons()),
            ocsp_request: make_ocsp_request(&fleet.ca.issuer, serial(), Some(&[1; 32])),
            fleet,
        }
    })
}

/// Hands octets to everything that reads octets.
fn read_everything(octets: &[u8]) {
    let fleet = &samples().fleet;
    let issuer = &fleet.ca.issuer;
    drop(CertificationRequest::from_body(octets));
    drop(CertificationRequest::from_der(octets));
    drop(RequestedKey::from_spki(octets));
    drop(PresentedCertificate::from_der(octets));
    drop(facts_of_tbs(octets));
    drop(Issuer::from_certificate(issuer.authority, octets, 4, "http://pki.example"));
    drop(OcspRequest::from_der(octets));
    drop(VerifiedCrl::from_der(octets, issuer, CrlScope::Shard(0), NOW));
    drop(certificates_of(octets));
    drop(kf_pki::name::to_rfc4514(octets));
    drop(kf_pki::pem::decode_all("CERTIFICATE", &String::from_utf8_lossy(octets)));
    let _reason = recheck_tbs_certificate(octets, &issuer.name, true);
    let _reason = recheck_tbs_cert_list(octets, &issuer.name);
    let _path = verify_client(octets, &[octets], &[octets, &issuer.certificate], NOW);
    let _path = verify_client(&samples().certificate, &[octets], &[octets], NOW);
}

#[test]
fn every_truncation_of_everything_is_read_without_panic() {
    let samples = samples();
    for sample in [&samples.request, &samples.certificate, &samples.bundle, &samples.crl, &samples.ocsp_request] {
        for length in 0..sample.len() {
            read_everything(&sample[..length]);
        }
    }
}

#[test]
fn no_flipped_bit_of_a_request_is_accepted() {
    let request = &samples().request;
    assert!(CertificationRequest::from_der(request).is_ok());
    for position in 0..request.len() {
        for bit in 0..8 {
            let mut changed = request.clone();
            changed[position] ^= 1 << bit;
            assert!(CertificationRequest::from_der(&changed).is_err(), "octet {position}, bit {bit}");
        }
    }
}

#[test]
fn no_flipped_bit_of_a_certificate_leads_to_an_anchor() {
    let samples = samples();
    for position in 0..samples.certificate.len() {
        let mut changed = samples.certificate.clone();
        changed[position] ^= 1;
        let path = verify_client(&changed, &[], &[&samples.fleet.ca.issuer.certificate], NOW);
        assert!(path.is_err(), "octet {position}");
    }
}

#[test]
fn lengths_that_promise_gigabytes_and_nesting_without_end_are_refused_at_once() {
    let mut nested = vec![0x30, 0x80];
    nested.resize(16_000, 0x30);
    let deep: Vec<u8> =
        (0..4_000u16).rev().flat_map(|depth| [&[0x30, 0x82][..], &(depth * 4).to_be_bytes()].concat()).collect();
    for octets in [vec![0x30, 0x84, 0x7f, 0xff, 0xff, 0xff], vec![0x30, 0x88, 0xff, 0, 0, 0, 0, 0, 0, 0], nested, deep]
    {
        read_everything(&octets);
        assert!(CertificationRequest::from_der(&octets).is_err());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn any_octets_are_read_without_panic(octets in proptest::collection::vec(any::<u8>(), 0..600)) {
        read_everything(&octets);
    }

    #[test]
    fn any_splice_into_a_valid_structure_is_read_without_panic(
        which in 0usize..5,
        at in any::<proptest::sample::Index>(),
        removed in 0usize..8,
        inserted in proptest::collection::vec(any::<u8>(), 0..8),
    ) {
        let samples = samples();
        let all = [&samples.request, &samples.certificate, &samples.bundle, &samples.crl, &samples.ocsp_request];
        let mut changed = all[which].clone();
        let at = at.index(changed.len());
        let end = (at + removed).min(changed.len());
        changed.splice(at..end, inserted);
        read_everything(&changed);
        if changed != samples.request {
            prop_assert!(CertificationRequest::from_der(&changed).is_err());
        }
    }
}

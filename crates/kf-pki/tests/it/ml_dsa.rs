//! ML-DSA in certificates, requests, CRLs and OCSP answers (RFC 9881) before PyPI's `cryptography` and before webpki.

use kf_crypto::PrivateKey;
use kf_key::{CertificateProfile, RevocationReason, SecretBytes};
use kf_pki::chain::{Currency, PathError, verify_client};
use kf_pki::crl::CrlScope;
use kf_pki::ocsp::{CertStatus, OcspRequest, Responder, make_request, respond, verify_response};
use kf_pki::request::{CertificationRequest, RequestError, make_request as make_csr};
use kf_pki::weak_key::check_key;
use kf_testkit::Python;

use crate::crl::{entry, signed_crl};
use crate::fleet::{Files, Fleet, NOW, POST_QUANTUM, request};
use crate::ocsp::later;

#[test]
fn cryptography_reads_and_verifies_what_we_make_and_we_take_its_request_and_its_key() {
    let python = Python::with_module("cryptography");
    for algorithm in POST_QUANTUM {
        let (files, fleet) = (Files::new(), Fleet::new(algorithm));
        let key = PrivateKey::generate(algorithm).unwrap();
        let issued = fleet.ca.issue(request(CertificateProfile::LDevId, &key)).unwrap();
        let list =
            signed_crl(&fleet.ca, CrlScope::Full, &[entry(issued.facts.serial, RevocationReason::KeyCompromise)]);
        files.put("root.cer", &fleet.root.issuer.certificate);
        files.put("ca.cer", &fleet.ca.issuer.certificate);
        files.put("leaf.cer", &issued.der);
        files.put("crl.crl", list);
        files.put("request.csr", make_csr(&key, "pump").unwrap());
        // Exposed to the program under test; the key is of this test alone.
        files.put("ours.key", key.to_pkcs8().unwrap().expose());
        let script = files.put("check.py", include_str!("ml_dsa.py"));
        let directory = files.path().to_str().unwrap();
        let serial = issued.facts.serial.to_string();
        let shown = python.tool().run(&[&script, directory, algorithm.name(), &serial]).expect_success().stdout_text();
        assert!(shown.starts_with("ok"), "{shown}");
        let theirs = std::fs::read(files.path().join("theirs.csr")).unwrap();
        let taken = CertificationRequest::from_body(&theirs).unwrap();
        assert_eq!(taken.key.algorithm, algorithm);
        assert_eq!(check_key(&taken.key, |_| false), Ok(()));
        let pkcs8 = SecretBytes::from_vec(std::fs::read(files.path().join("theirs.key")).unwrap());
        assert_eq!(PrivateKey::from_pkcs8(algorithm, &pkcs8).unwrap().spki(), taken.key.spki);
        let middle = theirs.len() / 2;
        let changed: Vec<u8> = theirs.iter().enumerate().map(|(at, octet)| octet ^ u8::from(at == middle)).collect();
        assert!(CertificationRequest::from_body(&changed).is_err());
    }
}

#[test]
fn a_request_whose_algorithm_is_not_that_of_its_key_proves_nothing() {
    let (key, other) = (PrivateKey::generate(POST_QUANTUM[0]).unwrap(), PrivateKey::generate(POST_QUANTUM[1]).unwrap());
    let mixed = kf_pki::request::make_request_with(other.algorithm(), &key.spki(), "", |tbs| key.sign(tbs).ok());
    let refused = CertificationRequest::from_der(&mixed.unwrap()).unwrap_err();
    assert_eq!(refused, RequestError::ProofOfPossession);
}

#[test]
fn paths_lead_through_authorities_of_ml_dsa_and_a_broken_signature_does_not() {
    for algorithm in POST_QUANTUM {
        let fleet = Fleet::new(algorithm);
        let (issued, _) = fleet.issue(CertificateProfile::LDevId);
        let (ca, root): (&[u8], &[u8]) = (&fleet.ca.issuer.certificate, &fleet.root.issuer.certificate);
        assert_eq!(verify_client(&issued.der, &[ca], &[root], NOW), Ok(Currency::Current));
        let mut broken = issued.der.clone();
        *broken.last_mut().unwrap() ^= 1;
        assert_eq!(verify_client(&broken, &[ca], &[root], NOW), Err(PathError::Untrusted));
    }
}

#[test]
fn an_answer_is_signed_by_a_responder_of_the_same_strength() {
    for algorithm in POST_QUANTUM {
        let fleet = Fleet::new(algorithm);
        let key = PrivateKey::generate(algorithm).unwrap();
        let certificate = fleet.ca.issue(request(CertificateProfile::OcspSigner, &key)).unwrap().der;
        let (issued, _) = fleet.issue(CertificateProfile::LDevId);
        let asked = make_request(&fleet.ca.issuer, issued.facts.serial, None);
        let asked = OcspRequest::from_der(&asked).unwrap();
        let answers: Vec<_> = asked.cert_ids.iter().map(|id| (id, CertStatus::Good)).collect();
        let der = respond(&Responder { certificate, key }, &answers, None, NOW, later()).unwrap();
        let found = verify_response(&der, &fleet.ca.issuer, issued.facts.serial, None, NOW);
        assert_eq!(found, Ok(CertStatus::Good));
        let stranger = Fleet::new(algorithm);
        assert!(verify_response(&der, &stranger.ca.issuer, issued.facts.serial, None, NOW).is_err());
    }
}

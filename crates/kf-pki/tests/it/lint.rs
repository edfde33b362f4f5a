//! pkilint over every profile, CRL and OCSP answer: no finding that is not explained here.

use kf_crypto::PrivateKey;
use kf_key::{CertificateProfile, RevocationReason};
use kf_pki::crl::CrlScope;
use kf_pki::ocsp::{CertStatus, OcspRequest, make_request, respond};
use kf_testkit::Python;

use crate::crl::{all_reasons, signed_crl};
use crate::fleet::{Files, Fleet, NOW, SIGNING, request};
use crate::ocsp::{later, responder};

/// Whether a finding is known and right as it is. Everything else fails the test.
fn is_explained(finding: &str) -> bool {
    let fields: Vec<&str> = finding.split('\t').collect();
    let [_file, severity, code, _path, message] = fields.as_slice() else { return false };
    match (*severity, *code) {
        // Says which method of RFC 5280 section 4.2.1.2 the subjectKeyIdentifier follows: not a complaint.
        ("INFO", "pkix.subject_key_identifier_method_1_identified") => message.is_empty(),
        _ => false,
    }
}

fn write_certificates(files: &Files, name: &str, fleet: &Fleet) {
    files.put(&format!("{name}-root.cer"), &fleet.root.issuer.certificate);
    files.put(&format!("{name}-issuing-ca.cer"), &fleet.ca.issuer.certificate);
    for profile in crate::fleet::END_ENTITIES {
        for algorithm in SIGNING {
            let key = PrivateKey::generate(algorithm).unwrap();
            let issued = fleet.ca.issue(request(profile, &key)).unwrap();
            files.put(&format!("{name}-{profile}-{algorithm}.cer"), issued.der);
        }
    }
}

fn write_crls(files: &Files, name: &str, fleet: &Fleet) {
    let entries = all_reasons();
    for (kind, scope, entries) in [
        ("shard", CrlScope::Shard(1), entries.as_slice()),
        ("full", CrlScope::Full, entries.as_slice()),
        ("empty-shard", CrlScope::Shard(0), &[]),
        ("empty-full", CrlScope::Full, &[]),
    ] {
        files.put(&format!("{name}-{kind}.crl"), signed_crl(&fleet.ca, scope, entries));
    }
}

fn write_answers(files: &Files, name: &str, fleet: &Fleet) {
    let responder = responder(fleet);
    let revoked = CertStatus::Revoked { at: NOW, reason: RevocationReason::KeyCompromise };
    for (kind, status) in [
        ("good", CertStatus::Good),
        ("revoked", revoked),
        ("never-issued", CertStatus::NeverIssued),
        ("unknown", CertStatus::Unknown),
    ] {
        for nonce in [None, Some(&[7u8; 16][..])] {
            let (issued, _) = fleet.issue(CertificateProfile::LDevId);
            let asked = make_request(&fleet.ca.issuer, issued.facts.serial, nonce);
            let asked = OcspRequest::from_der(&asked).unwrap();
            let answers = [(&asked.cert_ids[0], status)];
            let answer = respond(&responder, &answers, asked.nonce.as_deref(), NOW, later()).unwrap();
            let nonce = if nonce.is_some() { "nonce" } else { "plain" };
            files.put(&format!("{name}-{kind}-{nonce}.ocsp"), answer);
        }
    }
}

#[test]
fn pkilint_finds_nothing_that_is_not_explained() {
    let files = Files::new();
    for algorithm in SIGNING {
        let fleet = Fleet::new(algorithm);
        let name = algorithm.to_string();
        write_certificates(&files, &name, &fleet);
        write_crls(&files, &name, &fleet);
        write_answers(&files, &name, &fleet);
    }
    let directory = files.path().to_str().unwrap();
    let output = Python::with_module("pkilint").tool().run(&["-c", include_str!("lint.py"), directory]);
    let shown = output.expect_success().stdout_text();
    let (findings, count): (Vec<_>, Vec<_>) = shown.lines().partition(|line| !line.starts_with("linted\t"));
    let unexplained: Vec<_> = findings.iter().filter(|finding| !is_explained(finding)).collect();
    assert!(unexplained.is_empty(), "{unexplained:#?}");
    // 3 algorithms: 2 CAs, 5 profiles with 3 key algorithms, 4 CRLs, 8 answers.
    assert_eq!(count, ["linted\t87"]);
}

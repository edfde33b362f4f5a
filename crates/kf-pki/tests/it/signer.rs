//! What the signer sees for itself in what it is asked to sign.

use kf_crypto::PrivateKey;
use kf_key::{CertificateProfile, KeyAlgorithm, UnixMillis};
use kf_pki::certificate::{
    CertificateFacts, CheckedTbs, check_issuance, check_root, facts_of_tbs, recheck_tbs_certificate,
};
use kf_pki::crl::{CrlScope, EncodedEntry, check_crl, recheck_tbs_cert_list};

use crate::fleet::{END_ENTITIES, Fleet, NOW, SIGNING, request};

fn checked(fleet: &Fleet, profile: CertificateProfile, algorithm: KeyAlgorithm) -> CheckedTbs {
    let key = PrivateKey::generate(algorithm).unwrap();
    check_issuance(&fleet.ca.issuer, request(profile, &key)).unwrap()
}

fn crl_tbs(fleet: &Fleet) -> Vec<u8> {
    let none = std::iter::empty::<&EncodedEntry>();
    check_crl(&fleet.ca.issuer, CrlScope::Shard(0), 1, NOW, NOW.plus(UnixMillis::DAY), none).unwrap().tbs().to_vec()
}

#[test]
fn what_the_checks_made_passes_and_its_facts_are_read_back() {
    let fleet = Fleet::new(KeyAlgorithm::P384);
    for profile in END_ENTITIES {
        for algorithm in SIGNING {
            let checked = checked(&fleet, profile, algorithm);
            assert_eq!(recheck_tbs_certificate(checked.tbs(), &fleet.ca.issuer.name, false), Ok(()), "{profile}");
            assert_eq!(facts_of_tbs(checked.tbs()).as_ref(), Some(checked.facts()));
        }
    }
    assert_eq!(recheck_tbs_cert_list(&crl_tbs(&fleet), &fleet.ca.issuer.name), Ok(()));
}

#[test]
fn only_a_key_that_may_make_authorities_does() {
    let fleet = Fleet::new(KeyAlgorithm::P256);
    let key = PrivateKey::generate(KeyAlgorithm::P256).unwrap();
    let ca = check_issuance(&fleet.root.issuer, request(CertificateProfile::IssuingCa, &key)).unwrap();
    assert_eq!(recheck_tbs_certificate(ca.tbs(), &fleet.root.issuer.name, true), Ok(()));
    assert!(recheck_tbs_certificate(ca.tbs(), &fleet.root.issuer.name, false).is_err());
    let root = check_root(request(CertificateProfile::Root, &key)).unwrap();
    assert_eq!(recheck_tbs_certificate(root.tbs(), &fleet.root.issuer.name, true), Ok(()));
    assert!(recheck_tbs_certificate(root.tbs(), &fleet.root.issuer.name, false).is_err());
    let profiles: Vec<_> = [ca.tbs(), root.tbs()].map(|tbs| facts_of_tbs(tbs).unwrap().profile).into();
    assert_eq!(profiles, [CertificateProfile::IssuingCa, CertificateProfile::Root]);
}

#[test]
fn another_issuers_name_is_refused() {
    let fleet = Fleet::new(KeyAlgorithm::P256);
    let leaf = checked(&fleet, CertificateProfile::LDevId, KeyAlgorithm::P256);
    assert!(recheck_tbs_certificate(leaf.tbs(), &fleet.root.issuer.name, true).is_err());
    assert!(recheck_tbs_cert_list(&crl_tbs(&fleet), &fleet.root.issuer.name).is_err());
}

#[test]
fn a_list_is_no_certificate_and_neither_is_a_request_or_an_arbitrary_octet_string() {
    let fleet = Fleet::new(KeyAlgorithm::P256);
    let issuer = &fleet.ca.issuer.name;
    let leaf = checked(&fleet, CertificateProfile::LDevId, KeyAlgorithm::P256);
    assert!(recheck_tbs_certificate(&crl_tbs(&fleet), issuer, true).is_err());
    assert!(recheck_tbs_cert_list(leaf.tbs(), issuer).is_err());
    for octets in [&b""[..], b"message", &[0x30, 0], issuer] {
        assert!(recheck_tbs_certificate(octets, issuer, true).is_err());
        assert!(recheck_tbs_cert_list(octets, issuer).is_err());
        assert_eq!(facts_of_tbs(octets), None);
    }
}

#[test]
fn a_serial_number_of_another_form_is_refused() {
    let fleet = Fleet::new(KeyAlgorithm::P256);
    let leaf = checked(&fleet, CertificateProfile::LDevId, KeyAlgorithm::P256);
    let CertificateFacts { serial, .. } = leaf.facts();
    let at = leaf.tbs().windows(20).position(|window| window == serial.as_bytes()).unwrap();
    let mut changed = leaf.tbs().to_vec();
    changed[at] = 0x3f;
    assert!(recheck_tbs_certificate(&changed, &fleet.ca.issuer.name, false).is_err());
    assert_eq!(facts_of_tbs(&changed), None);
}

#[test]
fn an_empty_signature_completes_nothing() {
    let fleet = Fleet::new(KeyAlgorithm::P256);
    assert!(checked(&fleet, CertificateProfile::LDevId, KeyAlgorithm::P256).complete(&[]).is_err());
}

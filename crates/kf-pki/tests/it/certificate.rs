//! Certificates of every profile, before openssl, certtool and strongSwan.

use kf_crypto::PrivateKey;
use kf_key::{CertificateProfile, KeyAlgorithm, UnixMillis};
use kf_pki::certificate::{IssueRefusal, PresentedCertificate, Subject, check_issuance, check_root};
use kf_pki::issuer::Issuer;
use kf_pki::pem;
use proptest::prelude::*;

use crate::fleet::{END_ENTITIES, Files, Fleet, NOW, SIGNING, request, tool};

/// What `openssl x509 -text` shows.
fn text(der: &[u8]) -> String {
    tool("openssl").run_with_input(&["x509", "-inform", "DER", "-noout", "-text"], der).expect_success().stdout_text()
}

#[test]
fn every_profile_verifies_under_openssl_certtool_and_strongswan_for_every_algorithm() {
    for algorithm in SIGNING {
        let fleet = Fleet::new(algorithm);
        let files = Files::new();
        let root = files.put("root.pem", fleet.root.pem());
        let ca = files.put("ca.pem", fleet.ca.pem());
        let (root_der, ca_der) =
            (files.put("root.der", &fleet.root.issuer.certificate), files.put("ca.der", &fleet.ca.issuer.certificate));
        for profile in END_ENTITIES {
            let (issued, _) = fleet.issue(profile);
            let leaf = files.put("leaf.pem", pem::certificate(&issued.der));
            let leaf_der = files.put("leaf.der", &issued.der);
            let arguments = ["verify", "-x509_strict", "-CAfile", &root, "-untrusted", &ca, &leaf];
            drop(tool("openssl").run(&arguments).expect_success());
            let chain = files.put("chain.pem", pem::certificate(&issued.der) + &fleet.ca.pem());
            let arguments = ["--verify", "--load-ca-certificate", &root, "--infile", &chain];
            drop(tool("certtool").run(&arguments).expect_success().expect_text("The certificate is trusted"));
            let arguments = ["--verify", "--in", &leaf_der, "--cacert", &ca_der, "--cacert", &root_der];
            drop(tool("pki").run(&arguments).expect_success().expect_text("certificate trusted"));
        }
    }
}

#[test]
fn a_root_and_an_issuing_ca_carry_what_their_profiles_say() {
    let fleet = Fleet::new(KeyAlgorithm::P384);
    let root = text(&fleet.root.issuer.certificate);
    assert!(root.contains("CA:TRUE\n") && root.contains("Certificate Sign, CRL Sign\n"), "{root}");
    assert!(!root.contains("CRL Distribution Points"), "{root}");
    let ca = text(&fleet.ca.issuer.certificate);
    assert!(ca.contains("CA:TRUE, pathlen:0\n"), "{ca}");
    assert!(ca.contains(&format!("URI:{}\n", fleet.root.issuer.full_crl_url())), "{ca}");
    assert!(ca.contains(&format!("CA Issuers - URI:{}\n", fleet.root.issuer.certificate_url())), "{ca}");
    assert!(ca.contains("Issuer: O = Acme Fleet, CN = Acme Root\n"), "{ca}");
}

#[test]
fn an_ldevid_names_the_device_and_exactly_the_shard_of_its_serial_number() {
    let fleet = Fleet::new(KeyAlgorithm::P256);
    for shard in 0..crate::fleet::SHARDS {
        let (issued, _) = fleet.device_in(shard);
        let shown = text(&issued.der);
        assert!(shown.contains(&format!("URI:{}\n", fleet.ca.issuer.shard_url(shard))), "{shown}");
        assert_eq!(shown.matches(".crl\n").count(), 1);
        assert!(shown.contains("OCSP - URI:http://pki.fleet.example:8080/ocsp\n"));
        assert!(shown.contains("TLS Web Client Authentication\n") && !shown.contains("Server Authentication"));
        assert!(!shown.contains("Subject Alternative Name"), "{shown}");
        assert!(shown.contains("O = Acme Fleet, OU = pump-7, CN = pump 7-0001, serialNumber = "));
        assert!(issued.facts.subject.ends_with(",CN=pump 7-0001,OU=pump-7,O=Acme Fleet"), "{}", issued.facts.subject);
    }
}

#[test]
fn an_idevid_never_expires_and_carries_a_hardware_module_name() {
    let fleet = Fleet::new(KeyAlgorithm::P256);
    let (issued, _) = fleet.issue(CertificateProfile::IDevId);
    let shown = text(&issued.der);
    assert!(shown.contains("Not After : Dec 31 23:59:59 9999 GMT"), "{shown}");
    assert!(shown.contains("othername: "), "{shown}");
    let parsed = tool("openssl").run_with_input(&["asn1parse", "-inform", "DER"], &issued.der).expect_success();
    assert!(parsed.stdout_text().contains("GENERALIZEDTIME   :99991231235959Z"), "{}", parsed.stdout_text());
    let presented = PresentedCertificate::from_der(&issued.der).unwrap();
    assert_eq!(presented.not_after, issued.facts.not_after);
    let names = presented.subject_alt_name.unwrap();
    let names = tool("openssl").run_with_input(&["asn1parse", "-inform", "DER"], &names).expect_success().stdout_text();
    assert!(names.contains("1.3.6.1.5.5.7.8.4") || names.contains("id-on-hardwareModuleName"), "{names}");
    assert!(names.contains("OBJECT            :2.25."), "{names}");
}

#[test]
fn a_server_certificate_matches_its_names_and_addresses_and_no_others() {
    let fleet = Fleet::new(KeyAlgorithm::P256);
    let (issued, _) = fleet.issue(CertificateProfile::TlsServer);
    for (option, name, matches) in [
        ("-checkhost", "est.fleet.example", true),
        ("-checkhost", "evil.example", false),
        ("-checkip", "127.0.0.1", true),
        ("-checkip", "::1", true),
        ("-checkip", "10.0.0.1", false),
    ] {
        let arguments = ["x509", "-inform", "DER", "-noout", option, name];
        let shown = tool("openssl").run_with_input(&arguments, &issued.der).stdout_text();
        assert_eq!(shown.contains("does match certificate"), matches, "{shown}");
    }
}

#[test]
fn a_server_whose_names_are_all_long_has_an_empty_subject_and_a_critical_alt_name() {
    let fleet = Fleet::new(KeyAlgorithm::P256);
    let key = PrivateKey::generate(KeyAlgorithm::P256).unwrap();
    let mut asked = request(CertificateProfile::TlsServer, &key);
    asked.subject = Subject::Server { dns_names: vec![format!("{}.{}.example", "a".repeat(40), "b".repeat(40))] };
    let shown = text(&fleet.ca.issue(asked).unwrap().der);
    assert!(shown.contains("Subject: \n") && shown.contains("X509v3 Subject Alternative Name: critical"), "{shown}");
}

#[test]
fn an_ocsp_signer_is_marked_and_is_not_itself_checked() {
    let fleet = Fleet::new(KeyAlgorithm::P256);
    let shown = text(&fleet.issue(CertificateProfile::OcspSigner).0.der);
    assert!(shown.contains("OCSP Signing\n") && shown.contains("OCSP No Check"), "{shown}");
    assert!(!shown.contains("CRL Distribution Points"), "{shown}");
}

#[test]
fn what_was_issued_is_read_back_as_it_was_recorded() {
    let fleet = Fleet::new(KeyAlgorithm::Ed25519);
    for profile in END_ENTITIES {
        let (issued, key) = fleet.issue(profile);
        let presented = PresentedCertificate::from_der(&issued.der).unwrap();
        assert_eq!(presented.serial, Some(issued.facts.serial));
        assert_eq!(presented.spki, key.spki());
        assert_eq!(presented.spki_sha256, issued.facts.spki_sha256);
        assert_eq!((presented.not_before, presented.not_after), (issued.facts.not_before, issued.facts.not_after));
        assert_eq!(presented.issuer, fleet.ca.issuer.name.to_vec());
        assert_eq!(presented.authority_key_identifier.unwrap(), fleet.ca.issuer.key_identifier);
        assert_eq!(kf_pki::name::to_rfc4514(&presented.subject).unwrap(), issued.facts.subject);
        assert_eq!(issued.facts.signature_algorithm, KeyAlgorithm::Ed25519);
    }
}

#[test]
fn validity_is_in_whole_seconds_and_within_the_issuer() {
    let fleet = Fleet::new(KeyAlgorithm::P256);
    let key = PrivateKey::generate(KeyAlgorithm::P256).unwrap();
    let mut asked = request(CertificateProfile::LDevId, &key);
    asked.not_before = UnixMillis(asked.not_before.0 + 999);
    let issued = fleet.ca.issue(asked.clone()).unwrap();
    assert_eq!(issued.facts.not_before.0 % 1000, 0);
    asked.not_after = Some(fleet.ca.issuer.not_after.plus(1000));
    assert_eq!(fleet.ca.issue(asked.clone()).unwrap_err(), IssueRefusal::OutlivesIssuer);
    asked.not_after = Some(fleet.ca.issuer.not_after);
    assert!(fleet.ca.issue(asked).is_ok());
}

#[test]
fn lifetimes_outside_the_profile_are_refused() {
    let fleet = Fleet::new(KeyAlgorithm::P256);
    let key = PrivateKey::generate(KeyAlgorithm::P256).unwrap();
    for (profile, not_after) in [
        (CertificateProfile::LDevId, None),
        (CertificateProfile::LDevId, Some(NOW.minus(UnixMillis::HOUR))),
        (CertificateProfile::OcspSigner, Some(NOW.plus(91 * UnixMillis::DAY))),
        (CertificateProfile::TlsServer, Some(NOW.plus(900 * UnixMillis::DAY))),
        (CertificateProfile::IDevId, Some(UnixMillis(253_402_300_800_000))),
    ] {
        let mut asked = request(profile, &key);
        asked.not_after = not_after;
        assert_eq!(fleet.ca.issue(asked).unwrap_err(), IssueRefusal::Lifetime(profile));
    }
}

#[test]
fn names_that_do_not_fit_are_refused_by_field() {
    let fleet = Fleet::new(KeyAlgorithm::P256);
    let key = PrivateKey::generate(KeyAlgorithm::P256).unwrap();
    let server = |names: &[&str]| Subject::Server { dns_names: names.iter().map(|name| (*name).to_owned()).collect() };
    let operator = |name: &str| Subject::Operator { organization: "Acme".into(), name: name.into() };
    for (profile, subject, field) in [
        (CertificateProfile::TlsServer, server(&[]), "server name"),
        (CertificateProfile::TlsServer, server(&["a..b"]), "server name"),
        (CertificateProfile::TlsServer, server(&["good.example", "bad name"]), "server name"),
        (CertificateProfile::Operator, operator(""), "operator name"),
        (CertificateProfile::Operator, operator("a\u{0}b"), "operator name"),
        (CertificateProfile::Operator, operator(&"x".repeat(65)), "operator name"),
        (CertificateProfile::LDevId, operator("Eve"), "kind of subject"),
    ] {
        let mut asked = request(profile, &key);
        asked.subject = subject;
        assert_eq!(fleet.ca.issue(asked).unwrap_err(), IssueRefusal::Name { field });
    }
}

#[test]
fn an_issuing_ca_makes_no_ca_and_no_root_and_a_root_signs_only_itself() {
    let fleet = Fleet::new(KeyAlgorithm::P256);
    let key = PrivateKey::generate(KeyAlgorithm::P256).unwrap();
    let mut below = request(CertificateProfile::IssuingCa, &key);
    below.not_after = Some(NOW.plus(UnixMillis::DAY));
    assert_eq!(fleet.ca.issue(below).unwrap_err(), IssueRefusal::PathLength);
    let root = CertificateProfile::Root;
    assert_eq!(check_issuance(&fleet.root.issuer, request(root, &key)).unwrap_err(), IssueRefusal::Profile(root));
    let leaf = CertificateProfile::LDevId;
    assert_eq!(check_root(request(leaf, &key)).unwrap_err(), IssueRefusal::Profile(leaf));
}

#[test]
fn an_end_entity_is_no_issuer() {
    let fleet = Fleet::new(KeyAlgorithm::P256);
    let (issued, _) = fleet.issue(CertificateProfile::LDevId);
    assert!(Issuer::from_certificate(fleet.ca.issuer.authority, &issued.der, 1, "http://x.example").is_err());
    assert!(Issuer::from_certificate(fleet.ca.issuer.authority, b"nonsense", 1, "http://x.example").is_err());
}

#[test]
fn a_base_address_that_no_certificate_can_carry_is_refused() {
    let fleet = Fleet::new(KeyAlgorithm::P256);
    let key = PrivateKey::generate(KeyAlgorithm::P256).unwrap();
    let issuer = &fleet.ca.issuer;
    let strange = Issuer::from_certificate(issuer.authority, &issuer.certificate, 1, "http://pkï.example").unwrap();
    let refusal = check_issuance(&strange, request(CertificateProfile::LDevId, &key)).unwrap_err();
    assert_eq!(refusal, IssueRefusal::Name { field: "public base address" });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Whatever the registry holds, what is issued says the same when it is read back, and the signer takes it.
    #[test]
    fn any_names_times_and_serials_are_refused_or_come_back_unchanged(
        name in "\\PC{0,70}|[!-~]{1,64}",
        product_line in "[a-zA-Zäöü ,+=#\\\\-]{1,64}",
        random: [u8; 16],
        start in 0u64..8_000_000_000,
        length in prop::option::weighted(0.3, 0u64..400_000_000),
    ) {
        static FLEET: std::sync::OnceLock<(Fleet, PrivateKey)> = std::sync::OnceLock::new();
        let (fleet, key) =
            FLEET.get_or_init(|| (Fleet::new(KeyAlgorithm::P256), PrivateKey::generate(KeyAlgorithm::P256).unwrap()));
        let mut asked = request(CertificateProfile::IDevId, key);
        asked.serial = kf_key::SerialNumber::from_parts(NOW, random);
        asked.not_before = UnixMillis::from_seconds(start);
        asked.not_after = length.map(|length| UnixMillis::from_seconds(start + length));
        asked.subject = Subject::Device {
            organization: "Acme".into(),
            device: crate::fleet::device_id(),
            name,
            product_line,
        };
        if let Ok(issued) = fleet.ca.issue(asked.clone()) {
            let read = PresentedCertificate::from_der(&issued.der).unwrap();
            prop_assert_eq!(read.serial, Some(asked.serial));
            prop_assert_eq!((read.not_before, read.not_after), (issued.facts.not_before, issued.facts.not_after));
            prop_assert_eq!(read.not_before, asked.not_before);
            prop_assert_eq!(kf_pki::name::to_rfc4514(&read.subject), Some(issued.facts.subject));
            let checked = check_issuance(&fleet.ca.issuer, asked).unwrap();
            prop_assert_eq!(
                kf_pki::certificate::recheck_tbs_certificate(checked.tbs(), &fleet.ca.issuer.name, false),
                Ok(())
            );
        }
    }
}

//! certs-only CMS and CSR attributes before openssl, certtool and strongSwan.

use kf_key::{CertificateProfile, KeyAlgorithm};
use kf_pki::cms::{certificates_of, certs_only, csr_attributes};
use kf_pki::pem;
use kf_testkit::Tool;

use crate::fleet::{Files, Fleet};

#[test]
fn openssl_certtool_and_strongswan_read_our_bundles() {
    let fleet = Fleet::new(KeyAlgorithm::P256);
    let (issued, _) = fleet.issue(CertificateProfile::LDevId);
    let files = Files::new();
    for certificates in [
        vec![issued.der.as_slice()],
        vec![&fleet.ca.issuer.certificate, &fleet.root.issuer.certificate],
        vec![&issued.der, &fleet.ca.issuer.certificate, &fleet.root.issuer.certificate],
    ] {
        let bundle = certs_only(&certificates);
        let arguments = ["pkcs7", "-inform", "DER", "-print_certs"];
        let text = Tool::new("openssl").run_with_input(&arguments, &bundle).expect_success().stdout_text();
        let mut shown = pem::decode_all("CERTIFICATE", &text).unwrap();
        let mut expected: Vec<Vec<u8>> = certificates.iter().map(|der| der.to_vec()).collect();
        shown.sort();
        expected.sort();
        assert_eq!(shown, expected);
        let text = Tool::new("certtool").run_with_input(&["--p7-info", "--inder"], &bundle).expect_success().text();
        assert_eq!(text.matches("-----BEGIN CERTIFICATE-----").count(), certificates.len(), "{text}");
        let file = files.put("bundle.der", &bundle);
        let arguments = ["--pkcs7", "--show", "--in", &file];
        let text = Tool::new("pki").run(&arguments).expect_success().text();
        assert!(text.contains("subject:") || text.contains("-----BEGIN CERTIFICATE-----"), "{text}");
        let arguments = ["cms", "-cmsout", "-print", "-noout", "-inform", "DER"];
        let text = Tool::new("openssl").run_with_input(&arguments, &bundle).expect_success().text();
        assert!(text.contains("signerInfos:\n      <ABSENT>") || text.contains("<EMPTY>"), "{text}");
    }
}

#[test]
fn bundles_of_openssl_and_certtool_are_read() {
    let fleet = Fleet::new(KeyAlgorithm::P384);
    let files = Files::new();
    let both = files.put("both.pem", fleet.ca.pem() + &fleet.root.pem());
    let mut expected = vec![fleet.ca.issuer.certificate.to_vec(), fleet.root.issuer.certificate.to_vec()];
    expected.sort();
    let arguments = ["crl2pkcs7", "-nocrl", "-certfile", &both, "-outform", "DER"];
    let openssl = Tool::new("openssl").run(&arguments).expect_success().stdout;
    let arguments = ["--p7-generate", "--load-certificate", &both, "--outder"];
    let gnutls = Tool::new("certtool").run(&arguments).expect_success().stdout;
    for bundle in [openssl, gnutls] {
        assert_eq!(sorted(certificates_of(&bundle)).as_ref(), Some(&expected));
    }
}

fn sorted(certificates: Option<Vec<Vec<u8>>>) -> Option<Vec<Vec<u8>>> {
    certificates.map(|mut certificates| {
        certificates.sort();
        certificates
    })
}

#[test]
fn a_signed_message_is_no_bundle_of_certificates() {
    let fleet = Fleet::new(KeyAlgorithm::P256);
    let files = Files::new();
    let (issued, key) = fleet.issue(CertificateProfile::LDevId);
    let signer = files.put("signer.pem", pem::certificate(&issued.der));
    let pkcs8 = key.to_pkcs8().unwrap();
    // Exposed to the program under test; the key lives as long as this test.
    let key = files.put("signer.key", pem::encode("PRIVATE KEY", pkcs8.expose()));
    let arguments = ["cms", "-sign", "-signer", &signer, "-inkey", &key, "-outform", "DER"];
    let message = Tool::new("openssl").run_with_input(&arguments, b"hello").expect_success().stdout;
    assert_eq!(certificates_of(&message), None);
}

#[test]
fn csr_attributes_name_key_hash_and_extensions() {
    for (algorithm, expected) in [
        (KeyAlgorithm::P256, &["id-ecPublicKey", "prime256v1", "ecdsa-with-SHA256"][..]),
        (KeyAlgorithm::P384, &["id-ecPublicKey", "secp384r1", "ecdsa-with-SHA384"]),
        (KeyAlgorithm::Ed25519, &["ED25519"]),
        (KeyAlgorithm::Rsa3072, &["rsaEncryption", ":0C00", "sha256WithRSAEncryption"]),
    ] {
        let der = csr_attributes(&[algorithm, KeyAlgorithm::P256]);
        let arguments = ["asn1parse", "-inform", "DER", "-i"];
        let text = Tool::new("openssl").run_with_input(&arguments, &der).expect_success().stdout_text();
        for name in expected.iter().chain(&["Extension Request", "X509v3 Key Usage", "X509v3 Extended Key Usage"]) {
            assert!(text.contains(name), "{name}: {text}");
        }
    }
    assert!(!csr_attributes(&[]).is_empty());
}

//! Algorithms of keys and of key exchange, as clients see them.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use kf_api::product_line::EnrolmentPolicy;
use kf_key::KeyAlgorithm;
use kf_pki::request::RequestedKey;
use kf_testkit::Python;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, NamedGroup, RootCertStore};
use tokio_rustls::TlsConnector;

use crate::agent::Device;
use crate::rig::{Request, Rig};

fn allowing(algorithms: &[KeyAlgorithm]) -> EnrolmentPolicy {
    EnrolmentPolicy {
        allowed_algorithms: algorithms.to_vec(),
        ldevid_lifetime_hours: 2,
        renewal_grace_hours: 10,
        ..EnrolmentPolicy::default()
    }
}

fn algorithm_of(spki: &[u8]) -> KeyAlgorithm {
    RequestedKey::from_spki(spki).unwrap().algorithm
}

#[tokio::test(flavor = "multi_thread")]
async fn agents_enrol_sign_in_over_tls_and_renew_with_keys_of_ml_dsa() {
    for algorithm in [KeyAlgorithm::MlDsa44, KeyAlgorithm::MlDsa65, KeyAlgorithm::MlDsa87] {
        let device = Device::new(allowing(&[algorithm])).await;
        device.give_code().await;
        let (outcome, events) = device.once_with_key(algorithm.name()).await;
        assert!(outcome.is_valid && outcome.is_settled, "{algorithm}: {events:?}");
        let first = device.certificate();
        assert_eq!(algorithm_of(&first.spki), algorithm);
        device.pass_hours(2);
        let (outcome, events) = device.once_with_key(algorithm.name()).await;
        assert!(outcome.is_valid && outcome.is_settled, "{algorithm}: {events:?}");
        let second = device.certificate();
        assert_eq!(algorithm_of(&second.spki), algorithm);
        assert_ne!(first.spki, second.spki, "a new key, certified over a handshake that the old one signed");
        device.rig.stop().await;
    }
}

/// Makes a request with PyPI's `cryptography`.
const REQUEST: &str = "
import sys
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import mldsa
key = mldsa.MLDSA65PrivateKey.generate()
name = x509.Name([x509.NameAttribute(x509.oid.NameOID.COMMON_NAME, 'pump-1')])
request = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, None)
open(sys.argv[1], 'wb').write(request.public_bytes(serialization.Encoding.DER))
";
/// Verifies what came back.
const VERIFY: &str = "
import sys
from cryptography import x509
certificate, issuer = (x509.load_pem_x509_certificate(open(path, 'rb').read()) for path in sys.argv[1:3])
request = x509.load_der_x509_csr(open(sys.argv[3], 'rb').read())
certificate.verify_directly_issued_by(issuer)
assert certificate.public_key() == request.public_key()
";

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_cryptography_signed_with_ml_dsa_is_granted_over_est() {
    let rig = Rig::start_with(kf_server::Limits::default(), allowing(&[KeyAlgorithm::MlDsa65])).await;
    rig.device("pump-1").await;
    let code = rig.code("pump-1").await;
    let python = Python::with_module("cryptography");
    let der = rig.file("theirs.csr");
    drop(python.tool().run(&["-c", REQUEST, der.to_str().unwrap()]).expect_success());
    let base64 = rig.file("theirs.b64");
    std::fs::write(&base64, STANDARD.encode(std::fs::read(&der).unwrap())).unwrap();
    let request = Request { key: rig.file("none"), der: der.clone(), base64 };
    let answer = rig.est("/.well-known/est/pumps/simpleenroll", &["--user", &code], &request);
    let certificate = rig.certificate("pump-1", answer.expect(200));
    let issuer = rig.issuer().await;
    let paths = [&certificate, &issuer, &der].map(|path| path.to_str().unwrap().to_owned());
    drop(python.tool().run(&["-c", VERIFY, &paths[0], &paths[1], &paths[2]]).expect_success());
    // Where the line does not allow it, it is refused by name.
    let rig = Rig::start().await;
    rig.device("pump-1").await;
    let code = rig.code("pump-1").await;
    let refused = rig.est("/.well-known/est/pumps/simpleenroll", &["--user", &code], &request);
    assert!(refused.expect(400).text().contains("ml-dsa-65"), "{}", refused.text());
}

/// The group of a handshake between this client and the server.
async fn group(rig: &Rig, provider: CryptoProvider) -> NamedGroup {
    let pem = std::fs::read_to_string(rig.root()).unwrap();
    let mut roots = RootCertStore::empty();
    for der in kf_pki::pem::decode_all("CERTIFICATE", &pem).unwrap() {
        roots.add(CertificateDer::from(der)).unwrap();
    }
    let config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = tokio::net::TcpStream::connect(rig.https).await.unwrap();
    let name = ServerName::try_from("127.0.0.1").unwrap();
    let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap();
    stream.get_ref().1.negotiated_key_exchange_group().unwrap().name()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_hybrid_group_is_negotiated_with_who_has_it_and_the_metrics_count_what_was() {
    let rig = Rig::start().await;
    assert_eq!(group(&rig, aws_lc_rs::default_provider()).await, NamedGroup::X25519MLKEM768);
    let classic = CryptoProvider {
        kx_groups: vec![aws_lc_rs::kx_group::X25519, aws_lc_rs::kx_group::SECP256R1],
        ..aws_lc_rs::default_provider()
    };
    assert_eq!(group(&rig, classic).await, NamedGroup::X25519);
    let metrics = rig.api(&rig.owner_token, "GET", "/metrics", None).expect(200).text();
    for group in ["X25519MLKEM768", "X25519"] {
        let line = format!("keyfleet_tls_handshakes_total{{group=\"{group}\"}}");
        assert!(metrics.lines().any(|found| found.starts_with(&line)), "{line}: {metrics}");
    }
}

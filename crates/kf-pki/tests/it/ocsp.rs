//! OCSP answers before openssl and ocsptool, and a responder that we did not write before our client.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener};

use kf_crypto::PrivateKey;
use kf_key::{CertificateProfile, KeyAlgorithm, RevocationReason, SerialNumber, UnixMillis};
use kf_pki::ocsp::{
    CertStatus, IssuerHashes, OcspFailure, OcspRequest, Responder, failure, make_request, respond, verify_response,
};
use kf_pki::pem;
use proptest::prelude::*;

use crate::fleet::{Files, Fleet, NOW, SIGNING, request, serial, tool};

pub(crate) fn later() -> UnixMillis {
    NOW.plus(UnixMillis::HOUR)
}

pub(crate) fn responder(fleet: &Fleet) -> Responder {
    let key = PrivateKey::generate(KeyAlgorithm::P256).unwrap();
    let issued = fleet.ca.issue(request(CertificateProfile::OcspSigner, &key)).unwrap();
    Responder { certificate: issued.der, key }
}

fn revoked(reason: RevocationReason) -> CertStatus {
    CertStatus::Revoked { at: NOW.minus(UnixMillis::HOUR), reason }
}

/// An answer to what was asked, every CertID with this status.
fn answer(responder: &Responder, asked: &OcspRequest, status: CertStatus) -> Vec<u8> {
    let answers: Vec<_> = asked.cert_ids.iter().map(|cert_id| (cert_id, status)).collect();
    respond(responder, &answers, asked.nonce.as_deref(), NOW, later()).unwrap()
}

/// An answer to a request of ours.
fn answer_for(fleet: &Fleet, serial: SerialNumber, status: CertStatus, nonce: Option<&[u8]>) -> Vec<u8> {
    let asked = OcspRequest::from_der(&make_request(&fleet.ca.issuer, serial, nonce)).unwrap();
    answer(&responder(fleet), &asked, status)
}

struct Client {
    files: Files,
    ca: String,
    both: String,
    leaf: String,
}

impl Client {
    fn new(fleet: &Fleet, leaf: &[u8]) -> Self {
        let files = Files::new();
        let ca = files.put("ca.pem", fleet.ca.pem());
        let both = files.put("both.pem", fleet.ca.pem() + &fleet.root.pem());
        let leaf = files.put("leaf.pem", pem::certificate(leaf));
        Self { files, ca, both, leaf }
    }

    /// The request of `openssl ocsp`.
    fn openssl_request(&self, options: &[&str]) -> (String, Vec<u8>) {
        let path = self.files.path().join("request.der");
        let path = path.to_str().unwrap();
        let arguments = ["ocsp", "-issuer", &self.ca, "-cert", &self.leaf, "-reqout", path];
        // The certificate's CertID takes the hash named before it.
        let arguments = [&arguments[..1], options, &arguments[1..]].concat();
        drop(tool("openssl").run(&arguments).expect_success());
        (path.to_owned(), std::fs::read(path).unwrap())
    }

    /// Whether `openssl ocsp` takes an answer to its own request: signature, chain, and nonce if it sent one.
    fn openssl_verifies(&self, answer: &[u8]) -> kf_testkit::Output {
        let answer = self.files.put("answer.der", answer);
        let request = self.files.path().join("request.der");
        let request = request.to_str().unwrap();
        tool("openssl").run(&["ocsp", "-reqin", request, "-respin", &answer, "-CAfile", &self.both])
    }

    /// What `openssl ocsp` reads about the leaf in an answer. Given a certificate it would make a request of its own
    /// and miss its nonce, so that it is told to send none.
    fn openssl_reads(&self, hash: &str, answer: &[u8]) -> kf_testkit::Output {
        let answer = self.files.put("answer.der", answer);
        let fixed = ["-issuer", &self.ca, "-cert", &self.leaf, "-respin", &answer, "-CAfile", &self.both];
        tool("openssl").run(&[&["ocsp", "-no_nonce", hash][..], &fixed].concat())
    }
}

#[test]
fn openssl_verifies_every_status_with_both_hashes_with_and_without_nonce() {
    for algorithm in SIGNING {
        let fleet = Fleet::new(algorithm);
        let (issued, _) = fleet.issue(CertificateProfile::LDevId);
        let client = Client::new(&fleet, &issued.der);
        let responder = responder(&fleet);
        let hashes = IssuerHashes::of(&fleet.ca.issuer);
        for options in [&["-sha1"][..], &["-sha256"], &["-sha1", "-no_nonce"], &["-sha256", "-no_nonce"]] {
            let (_, request) = client.openssl_request(options);
            let asked = OcspRequest::from_der(&request).unwrap();
            assert_eq!(asked.nonce.is_none(), options.contains(&"-no_nonce"));
            assert_eq!(asked.cert_ids.len(), 1);
            assert!(asked.cert_ids[0].names(&hashes));
            assert_eq!(asked.cert_ids[0].serial, Some(issued.facts.serial));
            for (status, shown) in [
                (CertStatus::Good, ": good"),
                (revoked(RevocationReason::KeyCompromise), "Reason: keyCompromise"),
                (revoked(RevocationReason::Unspecified), ": revoked"),
                (CertStatus::NeverIssued, "Revocation Time: Jan  1 00:00:00 1970 GMT"),
                (CertStatus::Unknown, ": unknown"),
            ] {
                let reply = answer(&responder, &asked, status);
                let output = client.openssl_verifies(&reply).expect_success().expect_text("Response verify OK");
                assert!(!output.text().contains("WARNING"), "{}", output.text());
                let output = client.openssl_reads(options[0], &reply).expect_success();
                drop(output.expect_text("Response verify OK").expect_text(shown));
            }
        }
    }
}

#[test]
fn openssl_notices_a_nonce_that_is_not_its_own() {
    let fleet = Fleet::new(KeyAlgorithm::P256);
    let (issued, _) = fleet.issue(CertificateProfile::LDevId);
    let client = Client::new(&fleet, &issued.der);
    let (_, request) = client.openssl_request(&["-sha256"]);
    let mut asked = OcspRequest::from_der(&request).unwrap();
    *asked.nonce.as_mut().unwrap().last_mut().unwrap() ^= 1;
    let output = client.openssl_verifies(&answer(&responder(&fleet), &asked, CertStatus::Good));
    drop(output.expect_failure().expect_text("Nonce Verify error"));
}

/// Answers one POST with what `answer` makes of its body; returns the body.
fn answer_one_post(listener: &TcpListener, answer: impl FnOnce(&[u8]) -> Vec<u8>) -> Vec<u8> {
    let (mut stream, _) = listener.accept().unwrap();
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut length = 0;
    loop {
        let mut line = String::new();
        assert!(reader.read_line(&mut line).unwrap() > 0);
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse().unwrap();
        }
        if line.trim().is_empty() {
            break;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    let reply = answer(&body);
    let head = format!(
        "HTTP/1.0 200 OK\r\nContent-Type: application/ocsp-response\r\nContent-Length: {}\r\n\r\n",
        reply.len()
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(&reply).unwrap();
    body
}

#[test]
fn ocsptool_asks_over_http_and_finds_its_nonce() {
    let fleet = Fleet::new(KeyAlgorithm::P256);
    let (issued, _) = fleet.issue(CertificateProfile::LDevId);
    let client = Client::new(&fleet, &issued.der);
    let responder = responder(&fleet);
    for (status, shown) in [
        (CertStatus::Good, "good"),
        (revoked(RevocationReason::CessationOfOperation), "revoked"),
        (CertStatus::NeverIssued, "revoked"),
    ] {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let url = format!("--ask=http://{}/ocsp", listener.local_addr().unwrap());
        let (body, output) = std::thread::scope(|scope| {
            let server = scope.spawn(|| {
                answer_one_post(&listener, |body| answer(&responder, &OcspRequest::from_der(body).unwrap(), status))
            });
            let arguments = [&url, "--nonce", "--load-issuer", &client.ca, "--load-cert", &client.leaf];
            let output = tool("ocsptool").run(&arguments);
            (server.join().unwrap(), output)
        });
        let asked = OcspRequest::from_der(&body).unwrap();
        // GnuTLS sends 23 octets; ocsptool exits with an error when the nonce does not come back.
        assert_eq!(asked.nonce.unwrap().len(), 2 + 23);
        let text = output.text();
        assert!(text.contains("Verifying OCSP Response: Success") && text.contains(shown), "{text}");
        assert!(!text.contains("nonce does not match") && !text.contains("nonce missing"), "{text}");
    }
}

#[test]
fn ocsptool_verifies_an_answer_to_its_request() {
    let fleet = Fleet::new(KeyAlgorithm::P384);
    let (issued, _) = fleet.issue(CertificateProfile::LDevId);
    let client = Client::new(&fleet, &issued.der);
    let path = client.files.path().join("ocsptool.der");
    let path = path.to_str().unwrap();
    let arguments = ["--generate-request", "--load-issuer", &client.ca, "--load-cert", &client.leaf, "--outfile", path];
    drop(tool("ocsptool").run(&arguments).expect_success());
    let asked = OcspRequest::from_der(&std::fs::read(path).unwrap()).unwrap();
    assert!(asked.cert_ids[0].names(&IssuerHashes::of(&fleet.ca.issuer)));
    let reply = answer(&responder(&fleet), &asked, revoked(RevocationReason::CessationOfOperation));
    let reply = client.files.put("reply.der", reply);
    let arguments = ["--verify-response", "--load-trust", &client.ca, "--infile", &reply];
    drop(tool("ocsptool").run(&arguments).expect_success().expect_text("Success"));
    let shown = tool("ocsptool").run(&["--response-info", "--infile", &reply]).expect_success();
    drop(shown.expect_text("Certificate Status: revoked"));
}

#[test]
fn our_client_takes_the_answers_of_openssls_own_responder() {
    let fleet = Fleet::new(KeyAlgorithm::P256);
    let files = Files::new();
    let responder = responder(&fleet);
    let ca = files.put("ca.pem", fleet.ca.pem());
    let signer = files.put("signer.pem", pem::certificate(&responder.certificate));
    let key = responder.key.to_pkcs8().unwrap();
    // Exposed to the program under test; the key lives as long as this test.
    let key = files.put("signer.key", pem::encode("PRIVATE KEY", key.expose()));
    let (good, bad) = (serial(), serial());
    let upper = |serial: SerialNumber| serial.to_string().to_uppercase();
    let index = format!(
        "V\t270101000000Z\t\t{}\tunknown\t/CN=a\nR\t270101000000Z\t260531000000Z,keyCompromise\t{}\tunknown\t/CN=b\n",
        upper(good),
        upper(bad)
    );
    let index = files.put("index.txt", index);
    let reply = files.path().join("reply.der");
    for (serial, nonce) in [(good, Some(&[9u8; 32][..])), (bad, None)] {
        let request = files.put("request.der", make_request(&fleet.ca.issuer, serial, nonce));
        let arguments = [
            "ocsp",
            "-index",
            &index,
            "-CA",
            &ca,
            "-rsigner",
            &signer,
            "-rkey",
            &key,
            "-ndays",
            "1",
            "-reqin",
            &request,
            "-respout",
            reply.to_str().unwrap(),
        ];
        drop(tool("openssl").run(&arguments).expect_success());
        let status = verify_response(&std::fs::read(&reply).unwrap(), &fleet.ca.issuer, serial, nonce, NOW).unwrap();
        assert_eq!(status == CertStatus::Good, serial == good, "{status:?}");
        assert_eq!(
            matches!(status, CertStatus::Revoked { reason: RevocationReason::KeyCompromise, .. }),
            serial == bad
        );
    }
}

#[test]
fn our_client_reads_every_status_of_our_answers() {
    let fleet = Fleet::new(KeyAlgorithm::Ed25519);
    let serial = serial();
    for status in [
        CertStatus::Good,
        CertStatus::NeverIssued,
        CertStatus::Unknown,
        revoked(RevocationReason::CertificateHold),
        revoked(RevocationReason::Unspecified),
    ] {
        let der = answer_for(&fleet, serial, status, Some(b"nonce"));
        assert_eq!(verify_response(&der, &fleet.ca.issuer, serial, Some(b"nonce"), NOW), Ok(status));
    }
}

#[test]
fn our_client_refuses_answers_that_prove_nothing() {
    let fleet = Fleet::new(KeyAlgorithm::P256);
    let other = Fleet::new(KeyAlgorithm::P256);
    let serial = serial();
    let issuer = &fleet.ca.issuer;
    let good = answer_for(&fleet, serial, CertStatus::Good, Some(b"nonce"));
    let check = |der: &[u8], nonce: &[u8], now| verify_response(der, issuer, serial, Some(nonce), now);
    assert_eq!(check(&good, b"nonce", NOW), Ok(CertStatus::Good));
    assert!(check(&good, b"other", NOW).is_err());
    assert!(check(&good, b"nonce", NOW.minus(UnixMillis::HOUR)).is_err());
    assert!(check(&good, b"nonce", later().plus(UnixMillis::SECOND)).is_err());
    assert!(verify_response(&good, issuer, crate::fleet::serial(), Some(b"nonce"), NOW).is_err());
    assert!(verify_response(&good, &other.ca.issuer, serial, Some(b"nonce"), NOW).is_err());
    let plain = answer_for(&fleet, serial, CertStatus::Good, None);
    assert!(check(&plain, b"nonce", NOW).is_err());
    for refusal in
        [OcspFailure::MalformedRequest, OcspFailure::InternalError, OcspFailure::TryLater, OcspFailure::Unauthorized]
    {
        assert!(check(&failure(refusal), b"nonce", NOW).is_err());
    }
}

#[test]
fn a_device_cannot_answer_for_its_ca_and_an_expired_responder_neither() {
    let fleet = Fleet::new(KeyAlgorithm::P256);
    let serial = serial();
    let asked = OcspRequest::from_der(&make_request(&fleet.ca.issuer, serial, None)).unwrap();
    let (device, key) = fleet.issue(CertificateProfile::LDevId);
    let impostor = Responder { certificate: device.der, key };
    let der = answer(&impostor, &asked, CertStatus::Good);
    assert!(verify_response(&der, &fleet.ca.issuer, serial, None, NOW).is_err());
    let key = PrivateKey::generate(KeyAlgorithm::P256).unwrap();
    let mut old = request(CertificateProfile::OcspSigner, &key);
    old.not_after = Some(NOW.minus(UnixMillis::SECOND));
    let expired = Responder { certificate: fleet.ca.issue(old).unwrap().der, key };
    let der = answer(&expired, &asked, CertStatus::Good);
    assert!(verify_response(&der, &fleet.ca.issuer, serial, None, NOW).is_err());
}

#[test]
fn no_flipped_bit_of_an_answer_turns_revoked_into_anything_else() {
    let fleet = Fleet::new(KeyAlgorithm::P256);
    let serial = serial();
    let status = revoked(RevocationReason::KeyCompromise);
    let der = answer_for(&fleet, serial, status, None);
    for position in 0..der.len() {
        for bit in [0x01, 0x20, 0x80] {
            let mut changed = der.clone();
            changed[position] ^= bit;
            let read = verify_response(&changed, &fleet.ca.issuer, serial, None, NOW);
            assert!(read.is_err() || read == Ok(status), "octet {position}: {read:?}");
        }
    }
}

#[test]
fn several_certificates_are_answered_in_one_response() {
    let fleet = Fleet::new(KeyAlgorithm::P256);
    let (first, _) = fleet.issue(CertificateProfile::LDevId);
    let (second, _) = fleet.issue(CertificateProfile::IDevId);
    let client = Client::new(&fleet, &first.der);
    let other = client.files.put("second.pem", pem::certificate(&second.der));
    let (_, request) = client.openssl_request(&["-sha256", "-issuer", &client.ca, "-cert", &other]);
    let asked = OcspRequest::from_der(&request).unwrap();
    assert_eq!(asked.cert_ids.len(), 2);
    let reply = answer(&responder(&fleet), &asked, CertStatus::Good);
    for serial in [first.facts.serial, second.facts.serial] {
        assert_eq!(verify_response(&reply, &fleet.ca.issuer, serial, None, NOW), Ok(CertStatus::Good));
    }
}

#[test]
fn too_many_certificates_in_one_request_are_refused() {
    let fleet = Fleet::new(KeyAlgorithm::P256);
    let der = make_request(&fleet.ca.issuer, serial(), None);
    // One Request of the list, by its place in the outer structure.
    let one = &der[6..];
    let list = |count: usize| wrap(&wrap(&wrap(&one.repeat(count))));
    assert_eq!(OcspRequest::from_der(&list(16)).map(|asked| asked.cert_ids.len()), Ok(16));
    assert_eq!(OcspRequest::from_der(&list(17)), Err(OcspFailure::MalformedRequest));
    assert_eq!(OcspRequest::from_der(&list(0)), Err(OcspFailure::MalformedRequest));
    assert_eq!(OcspRequest::from_der(&[0x30; 5000]), Err(OcspFailure::MalformedRequest));
}

fn wrap(contents: &[u8]) -> Vec<u8> {
    der_element(0x30, contents)
}

fn der_element(tag: u8, contents: &[u8]) -> Vec<u8> {
    let [.., high, low] = contents.len().to_be_bytes();
    let length = match contents.len() {
        0..128 => vec![low],
        128..256 => vec![0x81, low],
        _ => vec![0x82, high, low],
    };
    [&[tag][..], &length, contents].concat()
}

/// A request whose nonce extension has exactly these contents.
fn request_with_nonce(fleet: &Fleet, contents: &[u8]) -> Vec<u8> {
    const NONCE_OID: [u8; 11] = [6, 9, 0x2b, 6, 1, 5, 5, 7, 0x30, 1, 2];
    let plain = make_request(&fleet.ca.issuer, serial(), None);
    let list = &plain[4..];
    let extension = wrap(&[&NONCE_OID[..], &der_element(4, contents)].concat());
    let extensions = der_element(0xa2, &wrap(&extension));
    wrap(&wrap(&[list, &extensions].concat()))
}

#[test]
fn nonces_are_echoed_as_sent_wrapped_or_bare_and_refused_outside_1_to_128_octets() {
    let fleet = Fleet::new(KeyAlgorithm::P256);
    for length in [1usize, 16, 23, 32, 127, 128] {
        for contents in [der_element(4, &vec![0xaa; length]), vec![0xaa; length]] {
            let asked = OcspRequest::from_der(&request_with_nonce(&fleet, &contents)).unwrap();
            assert_eq!(asked.nonce.as_deref(), Some(&contents[..]));
            let reply = answer(&responder(&fleet), &asked, CertStatus::Good);
            let echoed = der_element(4, &contents);
            assert!(reply.windows(echoed.len()).any(|window| window == echoed));
        }
    }
    for contents in [vec![], der_element(4, &[]), vec![0xaa; 129], der_element(4, &[0xaa; 129])] {
        let refused = OcspRequest::from_der(&request_with_nonce(&fleet, &contents));
        assert_eq!(refused, Err(OcspFailure::MalformedRequest), "{} octets", contents.len());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn any_octets_as_request_or_answer_are_refused_without_panic(octets: Vec<u8>) {
        let fleet = shared_fleet();
        prop_assert!(OcspRequest::from_der(&octets).is_err());
        prop_assert!(verify_response(&octets, &fleet.ca.issuer, serial(), None, NOW).is_err());
    }
}

fn shared_fleet() -> &'static Fleet {
    static FLEET: std::sync::OnceLock<Fleet> = std::sync::OnceLock::new();
    FLEET.get_or_init(|| Fleet::new(KeyAlgorithm::P256))
}

//! Requests made by openssl, keytool, certtool, strongSwan and rcgen; and ours before openssl and certtool.

use base64::Engine as _;
use kf_crypto::PrivateKey;
use kf_key::KeyAlgorithm;
use kf_pki::pem;
use kf_pki::request::{CertificationRequest, MAX_REQUEST_OCTETS, RequestError, RequestedKey, make_request};
use kf_pki::weak_key::check_key;
use kf_testkit::Tool;

use crate::fleet::{Files, SIGNING};

/// The options of `openssl req -newkey` for a kind of key.
const OPENSSL_KEYS: [(&[&str], KeyAlgorithm); 6] = [
    (&["ec", "-pkeyopt", "ec_paramgen_curve:P-256"], KeyAlgorithm::P256),
    (&["ec", "-pkeyopt", "ec_paramgen_curve:P-384"], KeyAlgorithm::P384),
    (&["ed25519"], KeyAlgorithm::Ed25519),
    (&["rsa:2048"], KeyAlgorithm::Rsa2048),
    (&["rsa:3072"], KeyAlgorithm::Rsa3072),
    (&["rsa:4096"], KeyAlgorithm::Rsa4096),
];

/// A request by `openssl req` with a new key and more options, in PEM.
fn openssl_req(files: &Files, key: &[&str], more: &[&str]) -> String {
    let key_file = files.path().join("openssl.key");
    let fixed = ["-subj", "/O=Acme/CN=pump 1", "-nodes", "-keyout", key_file.to_str().unwrap()];
    let arguments = [&["req", "-new", "-newkey"][..], key, &fixed, more].concat();
    Tool::new("openssl").run(&arguments).expect_success().stdout_text()
}

/// Another request with the key of the last one: RSA keys take long to make.
fn openssl_req_again(files: &Files, more: &[&str]) -> String {
    let key_file = files.path().join("openssl.key");
    let fixed = ["req", "-new", "-subj", "/O=Acme/CN=pump 1", "-key", key_file.to_str().unwrap()];
    Tool::new("openssl").run(&[&fixed[..], more].concat()).expect_success().stdout_text()
}

fn der_of(request: &str) -> Vec<u8> {
    pem::decode_all("CERTIFICATE REQUEST", request).unwrap().remove(0)
}

#[test]
fn openssl_requests_of_every_accepted_key_are_read_and_their_keys_pass() {
    let files = Files::new();
    for (key, algorithm) in OPENSSL_KEYS {
        let request = CertificationRequest::from_body(openssl_req(&files, key, &[]).as_bytes()).unwrap();
        assert_eq!(request.key.algorithm, algorithm);
        assert_eq!(kf_pki::name::to_rfc4514(&request.subject).unwrap(), "CN=pump 1,O=Acme");
        assert_eq!(check_key(&request.key, |_| false), Ok(()));
        assert_eq!(request.key, RequestedKey::from_spki(&request.key.spki).unwrap());
        let key_file = files.path().join("openssl.key");
        let arguments = ["pkey", "-in", key_file.to_str().unwrap(), "-pubout", "-outform", "DER"];
        assert_eq!(request.key.spki, Tool::new("openssl").run(&arguments).expect_success().stdout);
    }
}

#[test]
fn every_hash_on_every_curve_and_on_rsa_is_verified() {
    let files = Files::new();
    for (key, algorithm) in [OPENSSL_KEYS[0], OPENSSL_KEYS[1], OPENSSL_KEYS[3]] {
        drop(openssl_req(&files, key, &[]));
        for hash in ["-sha256", "-sha384", "-sha512"] {
            let request = openssl_req_again(&files, &[hash]);
            let read = CertificationRequest::from_body(request.as_bytes());
            assert_eq!(read.map(|request| request.key.algorithm), Ok(algorithm), "{hash}");
        }
    }
}

#[test]
fn der_pem_and_base64_with_any_white_space_are_the_same_request() {
    let files = Files::new();
    let text = openssl_req(&files, OPENSSL_KEYS[0].0, &[]);
    let der = der_of(&text);
    let single = base64::engine::general_purpose::STANDARD.encode(&der);
    let wrapped: Vec<&str> = single.as_bytes().chunks(76).map(|line| std::str::from_utf8(line).unwrap()).collect();
    let bodies = [
        der.clone(),
        text.clone().into_bytes(),
        text.replace('\n', "\r\n").into_bytes(),
        format!("Certificate Request:\n    Data:\n{text}").into_bytes(),
        single.clone().into_bytes(),
        format!("{single}\r\n").into_bytes(),
        wrapped.join("\r\n").into_bytes(),
        format!("\n\t {}\n", wrapped.join("\n  ")).into_bytes(),
    ];
    for body in bodies {
        assert_eq!(CertificationRequest::from_body(&body).unwrap().der, der);
    }
}

#[test]
fn bodies_that_hold_no_request_or_more_than_one_are_malformed() {
    let files = Files::new();
    let text = openssl_req(&files, OPENSSL_KEYS[0].0, &[]);
    let der = der_of(&text);
    let mut with_tail = der.clone();
    with_tail.push(0);
    let certificate = text.replace("CERTIFICATE REQUEST", "CERTIFICATE");
    for body in [
        vec![],
        b"\xff\xfe".to_vec(),
        b"not base64 at all!".to_vec(),
        b"MIIB".to_vec(),
        vec![0x30, 0x80, 0, 0],
        vec![0x30, 0x84, 0xff, 0xff, 0xff, 0xff],
        with_tail,
        der[..der.len() - 1].to_vec(),
        text.repeat(2).into_bytes(),
        certificate.into_bytes(),
    ] {
        assert_eq!(CertificationRequest::from_body(&body).unwrap_err(), RequestError::Malformed, "{body:?}");
    }
}

#[test]
fn a_body_past_the_limit_is_refused_before_it_is_read() {
    let body = vec![b'A'; MAX_REQUEST_OCTETS + 1];
    assert_eq!(CertificationRequest::from_body(&body).unwrap_err(), RequestError::TooLarge);
    assert_eq!(CertificationRequest::from_der(&body).unwrap_err(), RequestError::TooLarge);
}

#[test]
fn keys_and_signatures_that_are_not_accepted_are_named() {
    let files = Files::new();
    let (key, signature) = (RequestError::Unsupported("public key"), RequestError::Unsupported("signature algorithm"));
    let p256 = OPENSSL_KEYS[0].0;
    for (kind, more, refusal) in [
        (&["rsa:1024"][..], &[][..], &key),
        (&["rsa:2056"], &[], &key),
        (&["ec", "-pkeyopt", "ec_paramgen_curve:P-521"], &[], &key),
        (&["ec", "-pkeyopt", "ec_paramgen_curve:secp256k1"], &[], &key),
        (&["ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-pkeyopt", "ec_param_enc:explicit"], &[], &key),
        (&["ed448"], &[], &key),
        (&["rsa:2048"], &["-sha1"], &signature),
        (p256, &["-sha1"], &signature),
        (p256, &["-sha224"], &signature),
        (p256, &["-sha3-256"], &signature),
    ] {
        let request = openssl_req(&files, kind, more);
        assert_eq!(&CertificationRequest::from_body(request.as_bytes()).unwrap_err(), refusal, "{kind:?} {more:?}");
        if kind == ["rsa:2048"] {
            let request = openssl_req_again(&files, &["-sigopt", "rsa_padding_mode:pss", "-sha256"]);
            assert_eq!(&CertificationRequest::from_body(request.as_bytes()).unwrap_err(), refusal);
        }
    }
}

#[test]
fn requested_names_and_the_challenge_password_are_found() {
    let files = Files::new();
    let config = files.put(
        "req.cnf",
        "[req]\nprompt=no\ndistinguished_name=dn\nattributes=att\nreq_extensions=ext\n[dn]\nCN=pump\n\
         [att]\nchallengePassword=c2VjcmV0\n[ext]\nkeyUsage=digitalSignature\nsubjectAltName=DNS:a.example,URI:urn:x:y\n",
    );
    let key_file = files.path().join("key.pem");
    let arguments = [
        "req",
        "-new",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-config",
        &config,
        "-keyout",
        key_file.to_str().unwrap(),
    ];
    let text = Tool::new("openssl").run(&arguments).expect_success().stdout_text();
    let request = CertificationRequest::from_body(text.as_bytes()).unwrap();
    assert_eq!(request.challenge_password.as_deref(), Some("c2VjcmV0"));
    let names = request.subject_alt_name.unwrap();
    assert!(names.windows(9).any(|window| window == b"a.example"));
    assert_eq!(names.first(), Some(&0x30));
}

#[test]
fn keytool_requests_are_read() {
    for (options, algorithm) in [
        (&["-keyalg", "EC", "-groupname", "secp256r1"][..], KeyAlgorithm::P256),
        (&["-keyalg", "EC", "-groupname", "secp384r1"], KeyAlgorithm::P384),
        (&["-keyalg", "Ed25519"], KeyAlgorithm::Ed25519),
        (&["-keyalg", "RSA", "-keysize", "3072"], KeyAlgorithm::Rsa3072),
    ] {
        let files = Files::new();
        let password = files.put("password", "scratch-store");
        let store = files.path().join("store.p12");
        let common = ["-keystore", store.to_str().unwrap(), "-storepass:file", &password, "-alias", "device"];
        let keytool = Tool::new("keytool");
        // A JVM that lives for a second gains nothing from its optimising compiler.
        let java = ["-J-XX:TieredStopAtLevel=1", "-J-XX:+UseSerialGC"];
        let arguments = [&["-genkeypair", "-dname", "CN=pump 2, O=Acme"][..], options, &common, &java].concat();
        drop(keytool.run(&arguments).expect_success());
        let names = ["-certreq", "-ext", "SAN=dns:pump2.example"];
        let text = keytool.run(&[&names[..], &common, &java].concat()).expect_success().stdout_text();
        assert!(text.contains("BEGIN NEW CERTIFICATE REQUEST"), "{text}");
        let request = CertificationRequest::from_body(text.as_bytes()).unwrap();
        assert_eq!(request.key.algorithm, algorithm);
        assert!(request.subject_alt_name.is_some());
        assert_eq!(check_key(&request.key, |_| false), Ok(()));
    }
}

#[test]
fn requests_of_certtool_strongswan_and_rcgen_are_read() {
    let files = Files::new();
    let template = files.put("template", "cn = \"pump 3\"\ndns_name = pump3.example\nchallenge_password = abc\n");
    let arguments = ["--generate-privkey", "--key-type", "ecdsa", "--curve", "secp256r1", "--no-text"];
    let key = Tool::new("certtool").run(&arguments).expect_success().stdout;
    let key = files.put("gnutls.key", key);
    let arguments = ["--generate-request", "--load-privkey", &key, "--template", &template, "--no-text"];
    let text = Tool::new("certtool").run(&arguments).expect_success().stdout;
    let request = CertificationRequest::from_body(&text).unwrap();
    assert_eq!(request.challenge_password.as_deref(), Some("abc"));

    let pki = Tool::new("pki");
    let key = files.put("pki.key", pki.run(&["--gen", "--type", "ed25519"]).expect_success().stdout);
    let arguments = ["--req", "--type", "priv", "--in", &key, "--dn", "CN=pump 4", "--san", "pump4.example"];
    let request = CertificationRequest::from_body(&pki.run(&arguments).expect_success().stdout).unwrap();
    assert_eq!(request.key.algorithm, KeyAlgorithm::Ed25519);

    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
    let request = rcgen::CertificateParams::new(["pump5.example".to_owned()]).unwrap().serialize_request(&key).unwrap();
    let request = CertificationRequest::from_der(request.der()).unwrap();
    assert_eq!(request.key.algorithm, KeyAlgorithm::P384);
}

#[test]
fn our_requests_are_taken_by_openssl_and_certtool() {
    for algorithm in SIGNING {
        let key = PrivateKey::generate(algorithm).unwrap();
        for name in ["pump 6", ""] {
            let der = make_request(&key, name).unwrap();
            let arguments = ["req", "-inform", "DER", "-verify", "-noout", "-subject"];
            let shown = Tool::new("openssl").run_with_input(&arguments, &der).expect_success().text();
            assert!(shown.contains("verify OK"), "{shown}");
            assert_eq!(shown.contains("subject=CN = pump 6"), !name.is_empty(), "{shown}");
            let arguments = ["--crq-info", "--inder"];
            let shown = Tool::new("certtool").run_with_input(&arguments, &der).expect_success().text();
            assert!(shown.contains("Self signature: verified"), "{shown}");
            let read = CertificationRequest::from_der(&der).unwrap();
            assert_eq!(read.key.spki, key.spki());
            assert_eq!((read.subject_alt_name, read.challenge_password), (None, None));
        }
        assert!(make_request(&key, "a\nb").is_err());
        assert!(make_request(&key, &"x".repeat(65)).is_err());
    }
}

#[test]
fn a_request_signed_by_another_key_proves_no_possession() {
    let (own, other) =
        (PrivateKey::generate(KeyAlgorithm::P256).unwrap(), PrivateKey::generate(KeyAlgorithm::P256).unwrap());
    let request = make_request(&own, "pump").unwrap();
    let forged = make_request(&other, "pump").unwrap();
    // Their key in the other's request: everything but the point is the same.
    let point = |der: &[u8], key: &[u8]| der.windows(key.len()).position(|window| window == key).unwrap();
    let at = point(&forged, other.public_key());
    let mut stolen = forged.clone();
    stolen[at..at + own.public_key().len()].copy_from_slice(own.public_key());
    assert_eq!(CertificationRequest::from_der(&stolen).unwrap_err(), RequestError::ProofOfPossession);
    assert!(CertificationRequest::from_der(&request).is_ok());
}

//! `vectors/seal.json`: what the code says, and what `vectors/seal.py` finds with pycose, cbor2 and cryptography.

use std::fs;
use std::path::{Path, PathBuf};

use kf_derive::{ApplicationKey, DeviceKey, Sender, SoftwareKey};
use kf_key::{DeviceId, SecretArray};
use kf_seal::{
    Boot, KEY_ID_MAX_OCTETS, KeyId, MAX_ENVELOPE_OCTETS, Opener, SESSION, SealAlgorithm, Sealed, Sealer, Service,
};
use kf_testkit::Python;
use serde_json::{Value, json};

const DESCRIPTION: &str = "Sealed payloads: COSE_Encrypt0 (RFC 9052) with the protected parameters alg (1), kid (4) and \
kid context (10) and the unprotected parameter IV (5), in deterministic CBOR. All octets are in lower-case hexadecimal.";
const APPLICATION_KEY: &str = "Expand(Expand(device_key, session \"sealed\", epoch 0), application service, epoch 0); \
see derive.json for Expand and its info";
const SEALING_KEY: &str = "Expand(application_key, boot, context = sender 1 | boot_random 16, epoch 0), cut to the \
algorithm's key length";
const KID: &str = "version 1 (= 01) | device 16 | facility_epoch 4 | device_epoch 4 | sender 1 (device 01, server 02) | \
service 1..16, big endian";
const KID_CONTEXT: &str = "boot_number 4 | boot_random 16, big endian";
const IV: &str = "the first octets of boot_random | counter 4, big endian; 13 octets for alg 30, 12 for alg 1 and 24";
const REFUSED: &str = "envelopes that must not open with the keys of the first vector and the external_aad given here";

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

struct Case {
    name: &'static str,
    device_key: u8,
    key_id: KeyId,
    boot: (u32, [u8; 16]),
    algorithm: SealAlgorithm,
    counter: u32,
    external_aad: &'static [u8],
    plaintext: Vec<u8>,
}

impl Case {
    fn application(&self) -> ApplicationKey {
        let root =
            SecretArray::fill(|key| key.iter_mut().zip(self.device_key..).for_each(|(octet, value)| *octet = value));
        let device = DeviceKey::from_keyed_hmac(SoftwareKey::new(root));
        device.session(SESSION, 0).unwrap().application(self.key_id.service.as_bytes(), 0).unwrap()
    }

    fn envelope(&self) -> Vec<u8> {
        let boot = Boot::new(self.boot.0, self.boot.1).unwrap();
        let mut sealer = Sealer::new(&self.application(), self.key_id, boot, self.algorithm).unwrap();
        let mut out = vec![0; MAX_ENVELOPE_OCTETS];
        for _ in 0..self.counter {
            sealer.seal(b"", b"", &mut out).unwrap();
        }
        sealer.seal(&self.plaintext, self.external_aad, &mut out).unwrap().to_vec()
    }

    fn to_json(&self) -> Value {
        let KeyId { device, facility_epoch, device_epoch, session: _, sender, service } = self.key_id;
        let (boot_number, boot_random) = self.boot;
        let mut kid = [0; KEY_ID_MAX_OCTETS];
        let kid_octets = self.key_id.encode(&mut kid);
        let sealing_key = self.application().boot(&boot_random, sender, self.algorithm.into()).unwrap();
        let device_key: Vec<u8> = (self.device_key..).take(32).collect();
        let iv = [&boot_random[..self.algorithm.nonce_octets() - 4], &self.counter.to_be_bytes()].concat();
        json!({
            "name": self.name,
            "device_key": hex::encode(device_key),
            "device": hex::encode(device.as_bytes()),
            "facility_epoch": facility_epoch,
            "device_epoch": device_epoch,
            "sender": match sender { Sender::Device => "device", Sender::Server => "server" },
            "service": service.as_str(),
            "boot_number": boot_number,
            "boot_random": hex::encode(boot_random),
            "algorithm": self.algorithm.name(),
            "alg": self.algorithm.cose(),
            "counter": self.counter,
            "external_aad": hex::encode(self.external_aad),
            "plaintext": hex::encode(&self.plaintext),
            "application_key": hex::encode(self.application().into_secret().expose()),
            "sealing_key": hex::encode(sealing_key.expose()),
            "kid": hex::encode(&kid[..kid_octets]),
            "kid_context": hex::encode([&boot_number.to_be_bytes()[..], &boot_random].concat()),
            "iv": hex::encode(iv),
            "envelope": hex::encode(self.envelope()),
        })
    }
}

fn cases() -> Vec<Case> {
    let service = |label| Service::new(label).unwrap();
    let device = DeviceId::from_bytes(*b"\x01\x8b\xcf\xe5\x68\x00\x70\x00\x80\x00\x00\x01\x02\x03\x04\x05");
    let telemetry = KeyId {
        device,
        facility_epoch: 1,
        device_epoch: 1,
        session: None,
        sender: Sender::Device,
        service: service("telemetry"),
    };
    let commands = KeyId { sender: Sender::Server, service: service("commands"), ..telemetry };
    let extremes =
        KeyId { facility_epoch: u32::MAX, device_epoch: u32::MAX, service: service("0123456789abcdef"), ..telemetry };
    let one = |name, key_id, algorithm| Case {
        name,
        device_key: 0,
        key_id,
        boot: (1, *b"\x30\x31\x32\x33\x34\x35\x36\x37\x38\x39\x3a\x3b\x3c\x3d\x3e\x3f"),
        algorithm,
        counter: 0,
        external_aad: b"",
        plaintext: b"21.5 C".to_vec(),
    };
    let mut cases: Vec<Case> = SealAlgorithm::ALL
        .into_iter()
        .map(|algorithm| one(algorithm.name(), telemetry, algorithm))
        .chain(SealAlgorithm::ALL.into_iter().map(|algorithm| Case {
            boot: (7, *b"\x00\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x0d\x0e\x0f"),
            counter: 300,
            external_aad: b"fleet/commands",
            ..one("a command from the server, with a topic as external_aad", commands, algorithm)
        }))
        .collect();
    cases.push(Case { plaintext: Vec::new(), ..one("no plaintext", telemetry, SealAlgorithm::Aes128Ccm) });
    cases.push(Case {
        device_key: 0x80,
        boot: (u32::MAX, *b"\xff\xfe\xfd\xfc\xfb\xfa\xf9\xf8\xf7\xf6\xf5\xf4\xf3\xf2\xf1\xf0"),
        ..one("the longest service and the highest numbers", extremes, SealAlgorithm::Aes128Gcm)
    });
    cases.push(Case {
        plaintext: (0..1_000_u32).map(|index| index.to_be_bytes()[3]).collect(),
        ..one("a ciphertext with a length of two octets", telemetry, SealAlgorithm::ChaCha20Poly1305)
    });
    cases
}

/// (name, what is replaced, by what, external_aad), from the first vector.
const REFUSED_CASES: [(&str, &str, &str, &str); 9] = [
    ("other additional data", "", "", "6f74686572"),
    ("another device epoch", "0000000100000001", "0000000100000002", ""),
    ("the other direction", "0174656c656d65747279", "0274656c656d65747279", ""),
    ("another service of the same length", "74656c656d65747279", "74656c656d65747278", ""),
    ("another boot number", "0a5400000001", "0a5400000002", ""),
    ("a counter that is not the sealer's", "a1054d30313233343536373800000000", "a1054d30313233343536373800000001", ""),
    ("an indefinite array", "d083", "d09f", ""),
    ("a length that is not the shortest", "0458", "045900", ""),
    ("an algorithm with a tag of 8 octets", "a301181e04", "a3010a04", ""),
];

fn refused() -> Vec<Value> {
    let envelope = hex::encode(cases()[0].envelope());
    let changed = REFUSED_CASES.iter().map(|(name, from, to, external_aad)| {
        assert!(from.is_empty() || envelope.matches(from).count() == 1, "{name}: {envelope}");
        let envelope = if from.is_empty() { envelope.clone() } else { envelope.replace(from, to) };
        json!({"name": name, "envelope": envelope, "external_aad": external_aad})
    });
    let cut = &envelope[..envelope.len() - 2];
    let more = format!("{envelope}00");
    changed
        .chain([
            json!({"name": "the last octet is missing", "envelope": cut, "external_aad": ""}),
            json!({"name": "an octet behind the end", "envelope": more, "external_aad": ""}),
        ])
        .collect()
}

fn file() -> String {
    let document = json!({
        "description": DESCRIPTION,
        "format": {
            "application_key": APPLICATION_KEY,
            "sealing_key": SEALING_KEY,
            "kid": KID,
            "kid_context": KID_CONTEXT,
            "iv": IV,
            "refused": REFUSED,
        },
        "vectors": cases().iter().map(Case::to_json).collect::<Vec<_>>(),
        "refused": refused(),
    });
    serde_json::to_string_pretty(&document).unwrap() + "\n"
}

#[test]
fn the_published_vectors_are_what_the_code_does() {
    let published = fs::read_to_string(repository().join("vectors/seal.json")).unwrap_or_default();
    let found = file();
    if published != found {
        let copy = repository().join("target/seal.json");
        fs::write(&copy, found).unwrap();
        panic!("vectors/seal.json differs from what the code does: compare it with {}", copy.display());
    }
}

#[test]
fn every_published_vector_opens_and_none_of_the_refused_does() {
    for case in cases() {
        let envelope = case.envelope();
        let sealed = Sealed::parse(&envelope).unwrap();
        let mut out = vec![0; sealed.plaintext_octets()];
        let mut opener = Opener::new(&case.application(), &case.key_id, &sealed).unwrap();
        let authentic = opener.open(&sealed, case.external_aad, &mut out).unwrap();
        assert_eq!(authentic.mark().counter(), case.counter, "{}", case.name);
        assert_eq!(out, case.plaintext, "{}", case.name);
    }
    let first = &cases()[0];
    for refused in refused() {
        let envelope = hex::decode(refused["envelope"].as_str().unwrap()).unwrap();
        let aad = hex::decode(refused["external_aad"].as_str().unwrap()).unwrap();
        let Ok(sealed) = Sealed::parse(&envelope) else { continue };
        let opened = Opener::new(&first.application(), sealed.key_id(), &sealed)
            .and_then(|mut opener| opener.open(&sealed, &aad, &mut [0; 64]).map(drop));
        assert!(opened.is_err(), "{refused}");
    }
}

#[test]
fn an_independent_implementation_opens_every_published_vector() {
    let script = repository().join("vectors/seal.py");
    let file = repository().join("vectors/seal.json");
    let output = Python::with_module("pycose").tool().run(&[script.to_str().unwrap(), file.to_str().unwrap()]);
    assert!(output.success(), "{}", output.text());
}

#[test]
fn the_independent_implementation_notices_a_wrong_vector() {
    let script = repository().join("vectors/seal.py");
    let scratch = kf_testkit::scratch();
    for field in ["plaintext", "sealing_key", "kid", "iv", "application_key"] {
        let mut document: Value = serde_json::from_str(&file()).unwrap();
        let value = document["vectors"][3][field].as_str().unwrap().to_owned();
        let last = if value.ends_with('0') { "1" } else { "0" };
        document["vectors"][3][field] = json!(format!("{}{last}", &value[..value.len() - 1]));
        let wrong = scratch.path().join("wrong.json");
        fs::write(&wrong, document.to_string()).unwrap();
        let output = Python::with_module("pycose").tool().run(&[script.to_str().unwrap(), wrong.to_str().unwrap()]);
        assert!(!output.success(), "a wrong {field} was not noticed");
    }
}

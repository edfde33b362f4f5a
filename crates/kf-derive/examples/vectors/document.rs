//! The published vectors: inputs, `info` and output of every kind of step.

use std::collections::BTreeMap;

use kf_derive::{
    AeadAlgorithm, Algorithm, CounterMode, Info, KeyDerivationKey, KeyedHmac, Level, Purpose, Sender, SoftwareKey,
    extract,
};
use kf_key::SecretArray;
use serde::Serialize;

const README: [&str; 8] = [
    "Keys of Keyfleet's hierarchy. Octets are in lower-case hexadecimal; vectors/derive.py recomputes every output.",
    "step: output = HMAC-SHA-256(key, info || 01), its first 16 or 32 octets; that is HKDF-Expand (RFC 5869 section 2.3).",
    "counter-step: the same place by SP 800-108r1: HMAC-SHA-256(key, 00000001 || \"keyfleet-v1\" || 00 || info || L), \
     where L are the bits of the output in 4 octets.",
    "extract: output = HMAC-SHA-256(salt, input) (RFC 5869 section 2.2). given: the output is an input of the others.",
    "info = version 01 | level | algorithm | octets of the output (2) | n | purpose (n, ASCII) | m | context (m) | epoch (4).",
    "context = the values of inputs in the order facility_id, device_id, device_salt, sender, boot_random, \
     transcript_hash, label.",
    "parent names the vector whose output is the key, or the salt of an extract.",
    "rfc-5869: the first 32 octets of HKDF of the test cases in appendix A of RFC 5869.",
];

/// The file.
#[derive(Serialize)]
pub(crate) struct Document {
    format: &'static str,
    version: u32,
    readme: [&'static str; 8],
    codes: Codes,
    pub(crate) vectors: Vec<Vector>,
}

#[derive(Serialize)]
struct Codes {
    level: BTreeMap<&'static str, u8>,
    algorithm: BTreeMap<&'static str, u8>,
    key_octets: BTreeMap<&'static str, usize>,
    sender: BTreeMap<&'static str, u8>,
}

#[derive(Default, Serialize)]
pub(crate) struct Vector {
    pub(crate) name: String,
    operation: &'static str,
    #[serde(skip_serializing_if = "str::is_empty")]
    parent: &'static str,
    #[serde(flatten)]
    fields: BTreeMap<&'static str, String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    inputs: BTreeMap<&'static str, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    epoch: Option<u32>,
    pub(crate) output: String,
}

/// The inputs of a step, by name, in the order in which they make the context.
type Inputs<'a> = &'a [(&'static str, &'a [u8])];

#[derive(Clone, Copy)]
struct Place {
    level: Level,
    algorithm: Algorithm,
    purpose: Purpose,
}

/// A key from which others are derived.
const fn parent(level: Level) -> Place {
    Place { level, algorithm: Algorithm::HkdfSha256, purpose: Purpose::Derive }
}

const fn tag(level: Level) -> Place {
    Place { level, algorithm: Algorithm::HmacSha256, purpose: Purpose::Authenticate }
}

const fn cipher(level: Level, algorithm: Algorithm) -> Place {
    Place { level, algorithm, purpose: Purpose::Encrypt }
}

const fn wrapping(purpose: Purpose) -> Place {
    Place { level: Level::Wrapping, algorithm: Algorithm::Aes256Gcm, purpose }
}

/// A step: name, name of its parent, place, inputs, epoch.
type Step<'a> = (&'static str, &'static str, Place, Inputs<'a>, u32);

const FACILITY: (&str, &[u8]) = ("facility_id", b"\x01\x93\x00\x00\x00\x00\x70\x00\x80\x00\x00\x00\x00\x00\x00\xfa");
const OTHER_FACILITY: (&str, &[u8]) =
    ("facility_id", b"\x01\x93\x00\x00\x00\x00\x70\x00\x80\x00\x00\x00\x00\x00\x00\xfb");
const DEVICE: (&str, &[u8]) = ("device_id", b"\x01\x93\x00\x00\x00\x00\x70\x00\x80\x00\x00\x00\x00\x00\x00\xde");
const SALT: (&str, &[u8]) = ("device_salt", &[0x5a; 16]);
const OTHER_SALT: (&str, &[u8]) = ("device_salt", &[0x5b; 16]);
const BOOT: (&str, &[u8]) = ("boot_random", &[0xb0; 16]);
const FROM_DEVICE: (&str, &[u8]) = ("sender", &[Sender::Device.code()]);
const FROM_SERVER: (&str, &[u8]) = ("sender", &[Sender::Server.code()]);
const TRANSCRIPT: (&str, &[u8]) = ("transcript_hash", &[0x7a; 32]);
const LONGEST: (&str, &[u8]) = ("label", &[0xff; kf_derive::MAX_CONTEXT_OCTETS]);
const ROOT: &str = "fleet root";
const SITE: &str = "facility, epoch 1";
const UNIT: &str = "device, epoch 1";
const SEALED: &str = "session of sealed payloads";
const SERVICE: &str = "application telemetry";

const fn label(text: &'static str) -> (&'static str, &'static [u8]) {
    ("label", text.as_bytes())
}

/// Everything.
pub(crate) fn document() -> Document {
    let mut vectors = Vec::new();
    let root: Vec<u8> = (0..32).collect();
    vectors.push(other(ROOT, "given", &[], &root));
    vectors.push(other("fused key", "given", &[], &[0xf5; 32]));
    vectors.push(other("shared secret", "given", &[], &[0x2a; 32]));
    for step in ABOVE_DEVICES.iter().chain(BELOW_DEVICE).chain(RATCHET).copied() {
        expand(&mut vectors, step);
    }
    sealing(&mut vectors);
    mixed_session(&mut vectors);
    counter_mode(&mut vectors);
    rfc_5869(&mut vectors);
    Document { format: "keyfleet-derive-vectors", version: 1, readme: README, codes: codes(), vectors }
}

fn codes() -> Codes {
    let code = |level, algorithm, at| Info::new(level, algorithm, Purpose::Derive, b"", 0).unwrap().as_bytes()[at];
    Codes {
        level: Level::ALL.map(|level| (level.name(), code(level, Algorithm::HkdfSha256, 1))).into(),
        algorithm: Algorithm::ALL.map(|algorithm| (algorithm.name(), code(Level::Device, algorithm, 2))).into(),
        key_octets: Algorithm::ALL.map(|algorithm| (algorithm.name(), algorithm.key_octets())).into(),
        sender: [("device", Sender::Device.code()), ("server", Sender::Server.code())].into(),
    }
}

const KEY_CHECK: Place = Place { purpose: Purpose::KeyCheck, ..tag(Level::Wrapping) };

const ABOVE_DEVICES: &[Step<'static>] = &[
    ("wrapping of signature keys, epoch 1", ROOT, wrapping(Purpose::WrapSignatureKey), &[], 1),
    ("wrapping of the registry, epoch 1", ROOT, wrapping(Purpose::WrapRegistry), &[], 1),
    ("wrapping of the registry, epoch 2", ROOT, wrapping(Purpose::WrapRegistry), &[], 2),
    ("key check", ROOT, KEY_CHECK, &[], 0),
    ("wrapping under a fused key, epoch 7", "fused key", wrapping(Purpose::WrapReplaceableKey), &[], 7),
    (SITE, ROOT, parent(Level::Facility), &[FACILITY], 1),
    ("facility, epoch 2", ROOT, parent(Level::Facility), &[FACILITY], 2),
    ("facility, last epoch", ROOT, parent(Level::Facility), &[FACILITY], u32::MAX),
    ("another facility, epoch 1", ROOT, parent(Level::Facility), &[OTHER_FACILITY], 1),
    ("batch", SITE, parent(Level::Batch), &[label("2026-W47-3")], 1),
    ("device of a batch", "batch", parent(Level::Device), &[DEVICE, SALT], 1),
    (UNIT, SITE, parent(Level::Device), &[DEVICE, SALT], 1),
    ("device, epoch 2", SITE, parent(Level::Device), &[DEVICE, SALT], 2),
    ("device with another salt", SITE, parent(Level::Device), &[DEVICE, OTHER_SALT], 1),
    ("device under facility epoch 2", "facility, epoch 2", parent(Level::Device), &[DEVICE, SALT], 1),
];

const BELOW_DEVICE: &[Step<'static>] = &[
    ("storage", UNIT, cipher(Level::Storage, Algorithm::Aes256Gcm), &[label("config")], 1),
    ("storage without a label", UNIT, cipher(Level::Storage, Algorithm::Aes256Gcm), &[label("")], 1),
    ("acknowledgement", UNIT, tag(Level::Session), &[label("acknowledgement")], 1),
    (SEALED, UNIT, parent(Level::Session), &[label("sealed")], 0),
    ("session", UNIT, parent(Level::Session), &[label("session 42")], 1),
    ("session with the longest context", UNIT, parent(Level::Session), &[LONGEST], 1),
    (SERVICE, SEALED, parent(Level::Application), &[label("telemetry")], 0),
    ("application command", SEALED, parent(Level::Application), &[label("command")], 0),
    ("encryption, AES-256-GCM", "session", cipher(Level::Application, Algorithm::Aes256Gcm), &[label("telemetry")], 1),
    ("encryption, AES-128-CCM", "session", cipher(Level::Application, Algorithm::Aes128Ccm), &[label("telemetry")], 1),
    ("encryption, AES-128-GCM", "session", cipher(Level::Application, Algorithm::Aes128Gcm), &[label("telemetry")], 1),
    (
        "encryption, ChaCha20-Poly1305",
        "session",
        cipher(Level::Application, Algorithm::ChaCha20Poly1305),
        &[label("telemetry")],
        1,
    ),
    ("authentication", "session", tag(Level::Application), &[label("telemetry")], 1),
];

const RATCHET: &[Step<'static>] = &[
    ("ratchet, position 0", UNIT, parent(Level::Ratchet), &[], 0),
    ("ratchet, position 1", "ratchet, position 0", parent(Level::Ratchet), &[], 1),
    ("ratchet, position 2", "ratchet, position 1", parent(Level::Ratchet), &[], 2),
    ("session at ratchet position 2", "ratchet, position 2", parent(Level::Session), &[label("session 42")], 2),
];

fn sealing(vectors: &mut Vec<Vector>) {
    let steps: [(&'static str, _, AeadAlgorithm); 8] = [
        ("sealing by the device, AES-128-CCM", FROM_DEVICE, AeadAlgorithm::Aes128Ccm),
        ("sealing by the server, AES-128-CCM", FROM_SERVER, AeadAlgorithm::Aes128Ccm),
        ("sealing by the device, AES-128-GCM", FROM_DEVICE, AeadAlgorithm::Aes128Gcm),
        ("sealing by the server, AES-128-GCM", FROM_SERVER, AeadAlgorithm::Aes128Gcm),
        ("sealing by the device, AES-256-GCM", FROM_DEVICE, AeadAlgorithm::Aes256Gcm),
        ("sealing by the server, AES-256-GCM", FROM_SERVER, AeadAlgorithm::Aes256Gcm),
        ("sealing by the device, ChaCha20-Poly1305", FROM_DEVICE, AeadAlgorithm::ChaCha20Poly1305),
        ("sealing by the server, ChaCha20-Poly1305", FROM_SERVER, AeadAlgorithm::ChaCha20Poly1305),
    ];
    for (name, sender, algorithm) in steps {
        expand(vectors, (name, SERVICE, cipher(Level::Boot, algorithm.into()), &[sender, BOOT], 0));
    }
}

fn mixed_session(vectors: &mut Vec<Vector>) {
    expand(vectors, ("mixed session: salt", UNIT, parent(Level::Mix), &[], 3));
    let salt = hex::decode(output_of(vectors, "mixed session: salt")).unwrap();
    let mixed = extract(&salt, &[0x2a; 32]).into_secret();
    let fields: Inputs<'_> = &[("salt", &salt), ("input", &[0x2a; 32])];
    let extraction = other("mixed session: extract", "extract", fields, mixed.expose());
    vectors.push(Vector { parent: "mixed session: salt", ..extraction });
    let session = parent(Level::MixedSession);
    expand(vectors, ("mixed session", "mixed session: extract", session, &[TRANSCRIPT], 3));
}

fn counter_mode(vectors: &mut Vec<Vector>) {
    let [facility, device, session] = [Level::Facility, Level::Device, Level::Session].map(parent);
    let application = parent(Level::Application);
    let boot = |algorithm| cipher(Level::Boot, algorithm);
    let steps: [Step<'_>; 6] = [
        ("counter mode: facility", ROOT, facility, &[FACILITY], 1),
        ("counter mode: device", "counter mode: facility", device, &[DEVICE, SALT], 1),
        ("counter mode: session", "counter mode: device", session, &[label("sealed")], 0),
        ("counter mode: application", "counter mode: session", application, &[label("telemetry")], 0),
        (
            "counter mode: sealing, AES-128-CCM",
            "counter mode: application",
            boot(Algorithm::Aes128Ccm),
            &[FROM_DEVICE, BOOT],
            0,
        ),
        (
            "counter mode: sealing, ChaCha20-Poly1305",
            "counter mode: application",
            boot(Algorithm::ChaCha20Poly1305),
            &[FROM_DEVICE, BOOT],
            0,
        ),
    ];
    for step in steps {
        add(vectors, "counter-step", step, |key, info| CounterMode::new(key).derive(info).unwrap());
    }
}

/// Appendix A of RFC 5869: input, salt, info.
fn rfc_5869(vectors: &mut Vec<Vector>) {
    let count = |from: u8, to: u8| (from..to).collect::<Vec<u8>>();
    let (input, salt, info) = (vec![0x0b; 22], count(0, 13), count(0xf0, 0xfa));
    let long = (count(0, 0x50), count(0x60, 0xb0), (0xb0..=0xff).collect::<Vec<u8>>());
    let cases = [
        ("RFC 5869 A.1", input.clone(), salt, info),
        ("RFC 5869 A.2", long.0, long.1, long.2),
        ("RFC 5869 A.3", input, vec![], vec![]),
    ];
    for (name, input, salt, info) in cases {
        let key = extract(&salt, &input);
        let mut okm = [0; 32];
        key.hmac_sha256(&[info.as_slice(), &[1]].concat(), &mut okm).unwrap();
        let prk = key.into_secret();
        let fields: Inputs<'_> = &[("salt", &salt), ("input", &input), ("prk", prk.expose()), ("info", &info)];
        vectors.push(other(name, "rfc-5869", fields, &okm));
    }
}

fn expand(vectors: &mut Vec<Vector>, step: Step<'_>) {
    add(vectors, "step", step, |key, info| key.derive(info).unwrap());
}

fn add(
    vectors: &mut Vec<Vector>,
    operation: &'static str,
    (name, parent, place, inputs, epoch): Step<'_>,
    derive: impl Fn(SoftwareKey, &Info) -> SecretArray<32>,
) {
    let context: Vec<u8> = inputs.iter().flat_map(|(_, octets)| octets.iter().copied()).collect();
    let info = Info::new(place.level, place.algorithm, place.purpose, &context, epoch).unwrap();
    let key = output_of(vectors, parent);
    let octets = hex::decode(&key).unwrap();
    let secret = derive(SoftwareKey::new(SecretArray::fill(|key| key.copy_from_slice(&octets))), &info);
    let fields = [
        ("key", key),
        ("level", place.level.name().to_owned()),
        ("algorithm", place.algorithm.name().to_owned()),
        ("purpose", place.purpose.name().to_owned()),
        ("info", hex::encode(info.as_bytes())),
    ];
    vectors.push(Vector {
        name: name.to_owned(),
        operation,
        parent,
        fields: fields.into(),
        inputs: inputs.iter().map(|(name, octets)| (*name, hex::encode(octets))).collect(),
        epoch: Some(epoch),
        output: hex::encode(&secret.expose()[..place.algorithm.key_octets()]),
    });
}

fn output_of(vectors: &[Vector], name: &str) -> String {
    vectors.iter().find(|vector| vector.name == name).unwrap_or_else(|| panic!("no vector {name}")).output.clone()
}

fn other(name: &str, operation: &'static str, fields: Inputs<'_>, output: &[u8]) -> Vector {
    let fields = fields.iter().map(|(name, octets)| (*name, hex::encode(octets))).collect();
    Vector { name: name.to_owned(), operation, fields, output: hex::encode(output), ..Vector::default() }
}

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use kf_derive::{
    AeadAlgorithm, ApplicationKey, CounterMode, DeviceKey, FacilityKey, FleetRoot, FusedKey, Purpose, Sender,
    SoftwareHeld, SoftwareKey,
};
use kf_key::{DeviceId, FacilityId, SecretArray};

use crate::document;

fn vectors(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../vectors").join(name)
}

fn check(file: &Path) -> Output {
    let command = Command::new("python3").arg(vectors("derive.py")).arg(file).output();
    command.expect("python3 (Debian package python3) is needed")
}

#[test]
fn the_file_is_what_the_code_computes() {
    let text = fs::read_to_string(vectors("derive.json")).unwrap();
    let computed = serde_json::to_string_pretty(&document::document()).unwrap() + "\n";
    assert!(text == computed, "run: cargo run -q -p kf-derive --example vectors > vectors/derive.json");
}

#[test]
fn an_independent_program_recomputes_every_output() {
    let output = check(&vectors("derive.json"));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let count = document::document().vectors.len();
    assert!(count >= 40);
    assert_eq!(String::from_utf8_lossy(&output.stdout), format!("{count} vectors agree\n"));
}

#[test]
fn the_independent_program_notices_every_changed_field() {
    let whole: serde_json::Value = serde_json::from_str(&fs::read_to_string(vectors("derive.json")).unwrap()).unwrap();
    let file = std::env::temp_dir().join(format!("keyfleet-vectors-{}.json", std::process::id()));
    let refuses = |change: &dyn Fn(&mut serde_json::Value), what: &str| {
        let mut changed = whole.clone();
        change(&mut changed);
        if changed != whole {
            fs::write(&file, changed.to_string()).unwrap();
            assert!(!check(&file).status.success(), "{what}");
        }
    };
    let other_end = |text: &str| {
        let last = if text.ends_with('0') { '1' } else { '0' };
        format!("{}{last}", &text[..text.len().saturating_sub(1)])
    };
    for position in [12, 44, 54] {
        for field in ["output", "key", "salt", "input", "prk", "info", "algorithm", "level", "purpose", "operation"] {
            let change = |document: &mut serde_json::Value| {
                let value = document["vectors"][position].get_mut(field);
                value.into_iter().for_each(|value| *value = other_end(value.as_str().unwrap()).into());
            };
            refuses(&change, &format!("{field} of vector {position}"));
        }
        let epoch = |document: &mut serde_json::Value| {
            document["vectors"][position].get_mut("epoch").into_iter().for_each(|epoch| *epoch = 77.into());
        };
        refuses(&epoch, &format!("epoch of vector {position}"));
        let inputs = |document: &mut serde_json::Value| {
            let inputs = document["vectors"][position].get_mut("inputs").and_then(|inputs| inputs.as_object_mut());
            inputs.into_iter().flatten().for_each(|(_, value)| *value = other_end(value.as_str().unwrap()).into());
        };
        refuses(&inputs, &format!("inputs of vector {position}"));
    }
    fs::remove_file(file).unwrap();
}

struct Published(document::Document);

impl Published {
    fn output(&self, name: &str) -> Vec<u8> {
        let vector = self.0.vectors.iter().find(|vector| vector.name == name);
        hex::decode(&vector.unwrap_or_else(|| panic!("no vector {name}")).output).unwrap()
    }

    fn is(&self, name: &str, octets: &[u8]) {
        assert_eq!(hex::encode(octets), hex::encode(self.output(name)), "{name}");
    }

    fn key<K: SoftwareHeld>(&self, name: &str) -> K {
        K::from_secret(SecretArray::fill(|key| key.copy_from_slice(&self.output(name))))
    }
}

fn id(last: u8) -> [u8; 16] {
    [1, 0x93, 0, 0, 0, 0, 0x70, 0, 0x80, 0, 0, 0, 0, 0, 0, last]
}

const SALT: [u8; 16] = [0x5a; 16];

#[test]
fn the_typed_tree_gives_the_published_keys() {
    let published = Published(document::document());
    let root = FleetRoot::from_keyed_hmac(published.key::<SoftwareKey>("fleet root"));
    for (name, purpose, epoch) in [
        ("wrapping of signature keys, epoch 1", Purpose::WrapSignatureKey, 1),
        ("wrapping of the registry, epoch 2", Purpose::WrapRegistry, 2),
    ] {
        published.is(name, root.wrapping(purpose, epoch).unwrap().into_secret().expose());
    }
    let device_id = DeviceId::from_bytes(id(0xde));
    let facility = root.facility(FacilityId::from_bytes(id(0xfa)), 1).unwrap();
    let batch = facility.batch(b"2026-W47-3", 1).unwrap();
    published.is("device of a batch", batch.device(device_id, &SALT, 1).unwrap().into_secret().expose());
    published.is("batch", batch.into_secret().expose());
    published.is("device, epoch 2", facility.device(device_id, &SALT, 2).unwrap().into_secret().expose());
    let device = facility.device(device_id, &SALT, 1).unwrap();
    published.is("storage", device.storage(b"config", 1).unwrap().into_secret().expose());
    published.is("session", device.session(b"session 42", 1).unwrap().into_secret().expose());
    let longest = device.session(&[0xff; kf_derive::MAX_CONTEXT_OCTETS], 1).unwrap();
    published.is("session with the longest context", longest.into_secret().expose());
    let tag = device.authentication(b"acknowledgement", 1).unwrap().tag(&[b"message"]);
    let expected = hmac_of(&published.output("acknowledgement"), b"message");
    assert_eq!(tag, expected);
    published.is("device, epoch 1", device.into_secret().expose());
    let fused = FusedKey::new(published.key::<SoftwareKey>("fused key"));
    published.is("wrapping under a fused key, epoch 7", fused.wrapping(7).unwrap().into_secret().expose());
}

fn hmac_of(key: &[u8], message: &[u8]) -> [u8; 32] {
    let mut tag = [0; 32];
    let key = SoftwareKey::new(SecretArray::fill(|octets| octets.copy_from_slice(key)));
    let Ok(()) = kf_derive::KeyedHmac::hmac_sha256(&key, message, &mut tag);
    tag
}

const SEALING: [(&str, AeadAlgorithm); 4] = [
    ("AES-128-CCM", AeadAlgorithm::Aes128Ccm),
    ("AES-128-GCM", AeadAlgorithm::Aes128Gcm),
    ("AES-256-GCM", AeadAlgorithm::Aes256Gcm),
    ("ChaCha20-Poly1305", AeadAlgorithm::ChaCha20Poly1305),
];

#[test]
fn sessions_and_their_leaves_are_the_published_ones() {
    let published = Published(document::document());
    let device: DeviceKey = DeviceKey::from_keyed_hmac(published.key("device, epoch 1"));
    let application = device.session(b"sealed", 0).unwrap().application(b"telemetry", 0).unwrap();
    let session = device.session(b"session 42", 1).unwrap();
    for (name, algorithm) in SEALING {
        for (who, sender) in [("device", Sender::Device), ("server", Sender::Server)] {
            let key = application.boot(&[0xb0; 16], sender, algorithm).unwrap();
            published.is(&format!("sealing by the {who}, {name}"), key.expose());
        }
        let key = session.encryption(b"telemetry", algorithm, 1).unwrap();
        published.is(&format!("encryption, {name}"), key.expose());
    }
    published.is("application telemetry", application.into_secret().expose());
    let tag = session.authentication(b"telemetry", 1).unwrap().tag(&[b"message"]);
    assert_eq!(tag, hmac_of(&published.output("authentication"), b"message"));
}

#[test]
fn ratchet_and_mixed_session_are_the_published_ones() {
    let published = Published(document::document());
    let device = || -> DeviceKey { DeviceKey::from_keyed_hmac(published.key("device, epoch 1")) };
    let shared = SecretArray::fill(|secret| secret.fill(0x2a));
    let mixed = device().mixed_session(shared, &[0x7a; 32], 3).unwrap();
    published.is("mixed session", mixed.into_secret().expose());
    let mut ratchet = device().into_ratchet().unwrap();
    published.is("ratchet, position 0", ratchet.key().expose());
    ratchet.advance_to(2).unwrap();
    published.is("ratchet, position 2", ratchet.key().expose());
    published.is("session at ratchet position 2", ratchet.session(b"session 42").unwrap().into_secret().expose());
}

#[test]
fn the_typed_tree_in_counter_mode_gives_the_published_keys() {
    let published = Published(document::document());
    let root = FleetRoot::from_keyed_hmac(CounterMode::new(published.key::<SoftwareKey>("fleet root")));
    let facility: FacilityKey<_> = root.facility(FacilityId::from_bytes(id(0xfa)), 1).unwrap();
    let device = facility.device(DeviceId::from_bytes(id(0xde)), &SALT, 1).unwrap();
    let session = device.session(b"sealed", 0).unwrap();
    let application: ApplicationKey<_> = session.application(b"telemetry", 0).unwrap();
    for (name, algorithm) in [SEALING[0], SEALING[3]] {
        let key = application.boot(&[0xb0; 16], Sender::Device, algorithm).unwrap();
        published.is(&format!("counter mode: sealing, {name}"), key.expose());
    }
    published.is("counter mode: application", application.into_secret().expose());
    published.is("counter mode: device", device.into_secret().expose());
}

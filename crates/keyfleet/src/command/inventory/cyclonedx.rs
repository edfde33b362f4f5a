//! The inventory as a CycloneDX 1.6 CBOM (ECMA-424), written key by key: a fleet need not fit in memory.

use std::collections::BTreeSet;
use std::io::Write;

use kf_api::inventory::{InventoryKey, KeyPlace};
use kf_key::{KeyProtection, UnixMillis};
use serde_json::{Map, Value, json};

use crate::failure::Failure;
use crate::moment;
use crate::output::to_value;

/// What CycloneDX wants to know of an algorithm.
struct Algorithm {
    name: &'static str,
    primitive: &'static str,
    parameters: &'static str,
    curve: Option<&'static str>,
    functions: &'static [&'static str],
    oid: &'static str,
    classical_bits: u16,
    /// Category of NIST's call for post-quantum algorithms; 0: broken by a quantum computer.
    quantum_level: u8,
}

const SIGNS: &[&str] = &["sign", "verify"];

const ALGORITHMS: [Algorithm; 8] = [
    Algorithm {
        name: "hmac-sha-256",
        primitive: "mac",
        parameters: "256",
        curve: None,
        functions: &["keyderive", "tag"],
        oid: "1.2.840.113549.2.9",
        classical_bits: 256,
        quantum_level: 5,
    },
    Algorithm {
        name: "aes-256-gcm",
        primitive: "ae",
        parameters: "256",
        curve: None,
        functions: &["encrypt", "decrypt"],
        oid: "2.16.840.1.101.3.4.1.46",
        classical_bits: 256,
        quantum_level: 5,
    },
    signature("p-256", "256", Some("nist/P-256"), "1.2.840.10045.4.3.2", 128),
    signature("p-384", "384", Some("nist/P-384"), "1.2.840.10045.4.3.3", 192),
    signature("ed25519", "255", Some("other/Ed25519"), "1.3.101.112", 128),
    signature("rsa-2048", "2048", None, "1.2.840.113549.1.1.1", 112),
    signature("rsa-3072", "3072", None, "1.2.840.113549.1.1.1", 128),
    signature("rsa-4096", "4096", None, "1.2.840.113549.1.1.1", 128),
];

const fn signature(
    name: &'static str,
    parameters: &'static str,
    curve: Option<&'static str>,
    oid: &'static str,
    classical_bits: u16,
) -> Algorithm {
    Algorithm {
        name,
        primitive: "signature",
        parameters,
        curve,
        functions: SIGNS,
        oid,
        classical_bits,
        quantum_level: 0,
    }
}

/// A document under way.
pub(super) struct Document<W> {
    out: W,
    keys: u64,
    written: BTreeSet<&'static str>,
    first: bool,
}

fn refused(error: std::io::Error) -> Failure {
    Failure::Output(error)
}

impl<W: Write> Document<W> {
    /// Writes what comes before the keys.
    pub(super) fn begin(mut out: W, fleet: &str, now: UnixMillis) -> Result<Self, Failure> {
        let metadata = json!({
            "timestamp": moment::text(now),
            "tools": { "components": [
                { "type": "application", "name": "keyfleet", "version": env!("CARGO_PKG_VERSION") }
            ] },
            "component": { "type": "platform", "bom-ref": "fleet", "name": fleet },
        });
        let head = format!(
            "{{\"$schema\": \"http://cyclonedx.org/schema/bom-1.6.schema.json\", \"bomFormat\": \"CycloneDX\",\n\
             \"specVersion\": \"1.6\", \"version\": 1, \"metadata\": {metadata},\n\"components\": [\n"
        );
        out.write_all(head.as_bytes()).map_err(refused)?;
        Ok(Self { out, keys: 0, written: BTreeSet::new(), first: true })
    }

    /// Writes a key, and before the first of its kind the algorithm that it refers to.
    pub(super) fn key(&mut self, key: &InventoryKey) -> Result<(), Failure> {
        if let Some(algorithm) = ALGORITHMS.iter().find(|algorithm| algorithm.name == key.algorithm)
            && self.written.insert(algorithm.name)
        {
            self.component(&algorithm.component())?;
        }
        self.keys += 1;
        self.component(&component(key)?)
    }

    /// Ends the document; how many keys are in it.
    pub(super) fn end(mut self) -> Result<u64, Failure> {
        self.out.write_all(b"\n]}\n").and_then(|()| self.out.flush()).map_err(refused)?;
        Ok(self.keys)
    }

    fn component(&mut self, component: &Value) -> Result<(), Failure> {
        let before: &[u8] = if self.first { b"" } else { b",\n" };
        self.first = false;
        self.out.write_all(before).map_err(refused)?;
        serde_json::to_writer(&mut self.out, component).map_err(|error| refused(error.into()))
    }
}

impl Algorithm {
    fn component(&self) -> Value {
        let properties = given([
            ("primitive", Some(self.primitive.into())),
            ("parameterSetIdentifier", Some(self.parameters.into())),
            ("curve", self.curve.map(Value::from)),
            ("cryptoFunctions", Some(self.functions.into())),
            ("classicalSecurityLevel", Some(self.classical_bits.into())),
            ("nistQuantumSecurityLevel", Some(self.quantum_level.into())),
        ]);
        let crypto = json!({ "assetType": "algorithm", "algorithmProperties": properties, "oid": self.oid });
        json!({
            "type": "cryptographic-asset",
            "bom-ref": reference(self.name),
            "name": self.name,
            "cryptoProperties": crypto,
        })
    }
}

fn reference(algorithm: &str) -> String {
    format!("algorithm/{algorithm}")
}

fn component(key: &InventoryKey) -> Result<Value, Failure> {
    let is_secret = matches!(key.algorithm.as_str(), "hmac-sha-256" | "aes-256-gcm");
    let is_known = ALGORITHMS.iter().any(|algorithm| algorithm.name == key.algorithm);
    // "No end" has no form in RFC 3339, and means what an absent date means.
    let date = |at: Option<UnixMillis>| at.map(moment::text).filter(|text| text != "never").map(Value::from);
    let material = given([
        ("type", Some(if is_secret { "secret-key" } else { "private-key" }.into())),
        ("id", Some(key.key.as_str().into())),
        ("state", Some(key.state.name().into())),
        ("size", (key.size_bits > 0).then(|| key.size_bits.into())),
        ("algorithmRef", is_known.then(|| reference(&key.algorithm).into())),
        ("creationDate", date(key.created)),
        ("activationDate", date(key.activated)),
        ("expirationDate", date(key.expires)),
        ("securedBy", Some(json!({ "mechanism": mechanism(key) }))),
    ]);
    Ok(json!({
        "type": "cryptographic-asset",
        "bom-ref": key.key,
        "name": if key.name.is_empty() { &key.key } else { &key.name },
        "cryptoProperties": {
            "assetType": "related-crypto-material",
            "relatedCryptoMaterialProperties": material,
        },
        "properties": properties(key)?,
    }))
}

/// An object of the fields that have a value.
fn given<const N: usize>(fields: [(&str, Option<Value>); N]) -> Map<String, Value> {
    fields.into_iter().filter_map(|(field, value)| Some((field.to_owned(), value?))).collect()
}

const fn mechanism(key: &InventoryKey) -> &'static str {
    match (key.place, key.protection) {
        (KeyPlace::Hardware, _) | (_, KeyProtection::Token) => "HSM",
        (_, KeyProtection::Tpm) => "TPM",
        (_, KeyProtection::SecureElement) => "SecureElement",
        (_, KeyProtection::Wrapped) => "Software",
        (_, KeyProtection::Plain | KeyProtection::Unknown) => "None",
    }
}

/// What CycloneDX has no field for, under our own names.
fn properties(key: &InventoryKey) -> Result<Vec<Value>, Failure> {
    let fields = to_value(key)?;
    let mut found = Vec::new();
    for field in [
        "class",
        "key_type",
        "place",
        "protection",
        "strength_bits",
        "age_days",
        "uses",
        "protects",
        "verdict",
        "because",
        "facility",
        "product_line",
        "device",
        "certificate",
        "spki_sha256",
    ] {
        let text = match fields.get(field) {
            None | Some(Value::Null) => continue,
            Some(Value::String(text)) => text.clone(),
            Some(other) => other.to_string(),
        };
        found.push(json!({ "name": format!("keyfleet:{field}"), "value": text }));
    }
    Ok(found)
}

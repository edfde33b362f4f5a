//! `keyfleet inventory`, read back by what others wrote.

use std::collections::BTreeSet;

use kf_testkit::Python;
use serde_json::Value;

use crate::console::Fleet;

/// Validates against CycloneDX's own schema, strictly: unknown fields are refused.
const VALIDATE: &str = "
import sys
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
fault = JsonStrictValidator(SchemaVersion.V1_6).validate_str(sys.stdin.read())
sys.exit(0 if fault is None else str(fault)[:2000])
";

fn fleet() -> Fleet {
    let fleet = Fleet::start(&[]).with_device();
    let csr = fleet.request("thermo");
    let issue = ["certificate", "issue", "--profile", "ldevid", "--device", "thermo-0001", "--csr", &csr];
    drop(fleet.run(&issue).expect_success());
    fleet
}

#[test]
fn the_inventory_is_a_cyclonedx_document_by_cyclonedxs_own_schema_and_has_the_keys_of_the_json_form() {
    let fleet = fleet();
    let written = fleet.run(&["inventory", "--format", "cyclonedx"]).expect_success();
    let python = Python::with_cyclonedx_module("cyclonedx.validation.json, jsonschema");
    let check = |text: &[u8]| python.tool().run_with_input(&["-c", VALIDATE], text);
    drop(check(&written.stdout).expect_success());
    let text = written.stdout_text();
    let broken = text.replacen("\"state\":\"active\"", "\"state\":\"expired\"", 1);
    assert_ne!(broken, text);
    drop(check(broken.as_bytes()).expect_failure());

    let document: Value = serde_json::from_str(&text).unwrap();
    let components = document["components"].as_array().unwrap();
    let kind = |component: &Value| component["cryptoProperties"]["assetType"].as_str().unwrap().to_owned();
    let references: BTreeSet<_> = components.iter().map(|one| one["bom-ref"].as_str().unwrap()).collect();
    assert_eq!(references.len(), components.len(), "a bom-ref is given twice");
    let keys: BTreeSet<_> = components
        .iter()
        .filter(|component| kind(component) == "related-crypto-material")
        .map(|component| component["bom-ref"].as_str().unwrap())
        .collect();
    for key in components.iter().filter(|component| kind(component) == "related-crypto-material") {
        let material = &key["cryptoProperties"]["relatedCryptoMaterialProperties"];
        assert!(references.contains(material["algorithmRef"].as_str().unwrap()), "{key}");
    }
    let listed = fleet.json(&["inventory"]);
    let listed = listed["items"].as_array().unwrap();
    let device = listed.iter().find(|key| key["class"] == "ldevid-key").unwrap();
    assert_eq!((device["name"].as_str(), device["algorithm"].as_str()), (Some("thermo-0001"), Some("p-256")));
    // The TLS identity may have been renewed, and an OCSP responder made, between the two calls: both only add.
    let in_json: BTreeSet<_> = listed.iter().map(|key| key["key"].as_str().unwrap()).collect();
    assert!(keys.is_subset(&in_json), "{keys:?} {in_json:?}");
    assert!(keys.len() >= 10, "{keys:?}");
}

#[test]
fn the_inventory_is_filtered_and_other_nouns_have_no_cyclonedx_form() {
    let fleet = fleet();
    let csv = fleet.run(&["inventory", "--class", "ldevid-key", "--format", "csv"]).expect_success().stdout_text();
    let lines: Vec<_> = csv.lines().collect();
    assert_eq!(lines.len(), 2, "{csv}");
    assert!(lines[0].starts_with("key,name,class,key_type,state,algorithm"), "{csv}");
    let none = fleet.json(&["inventory", "--class", "ldevid-key", "--due-within", "30d"]);
    assert_eq!(none["items"], serde_json::json!([]), "a fresh certificate is renewed after two thirds of 90 days");
    let soon = fleet.json(&["inventory", "--class", "ldevid-key", "--due-within", "80d"]);
    assert_eq!(soon["items"].as_array().unwrap().len(), 1);
    let text = fleet.run(&["inventory", "--format", "text"]).expect_success().stdout_text();
    assert!(text.starts_with("CLASS"), "{text}");
    for wrong in [
        ["device", "list", "--format", "cyclonedx"].as_slice(),
        &["inventory", "--class", "keys"],
        &["inventory", "--verdict", "bad"],
        &["inventory", "--due-within", "soon"],
    ] {
        assert_eq!(fleet.run(wrong).code, Some(2), "{wrong:?}");
    }
}

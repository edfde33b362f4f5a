//! The auditor's pack: made by one who reads only, checked by programs that are not ours.

use std::fs;

use kf_testkit::Tool;
use serde_json::Value;

use crate::console::{Fleet, Succeeds as _, json as json_of};
use crate::fleet::{sign_up, sign_up_for};

fn lines(fleet: &Fleet, name: &str) -> Vec<Value> {
    let text = fs::read_to_string(fleet.path(name)).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// A fleet in which a version of an encryption key was destroyed, and a device was lost.
fn audited() -> Fleet {
    let fleet = Fleet::start(&[]).with_device();
    sign_up(&fleet, "bert", "fleet-operator");
    sign_up(&fleet, "ada", "auditor");
    fleet.run(&["encryption-key", "create", "patients", "--facility", "lyon"]).succeeds();
    fleet.run(&["encryption-key", "rotate", "patients", "--why", "yearly"]).succeeds();
    fleet.run(&["encryption-key", "minimum", "patients", "2"]).succeeds();
    let destroy = ["destroy", "encryption-version", "patients", "1", "--why", "rotated", "--yes", "--format", "json"];
    let waits = json_of(&fleet.run(&destroy));
    fleet.run_as("bert.toml", &["proposal", "approve", waits["proposal"].as_str().unwrap()]).succeeds();
    fleet.run(&["incident", "open", "--device", "thermo-0001", "--why", "lost"]).succeeds();
    fleet
}

#[test]
fn an_auditor_packs_what_happened_and_checks_it_with_programs_of_others() {
    let fleet = audited();
    let pack = ["evidence", "--from", "1d", "--out", "pack", "--framework", "pci-dss", "--framework", "cra"];
    fleet.run_as("ada.toml", &pack).succeeds();
    let manifest: Value = serde_json::from_slice(&fs::read(fleet.path("pack/manifest.json")).unwrap()).unwrap();
    assert_eq!(manifest["frameworks"][0]["name"], "PCI DSS v4.0.1");
    assert_eq!(manifest["counts"]["receipts"], 1);
    let receipt = &lines(&fleet, "pack/receipts.jsonl")[0];
    assert!(receipt["target"].as_str().unwrap().starts_with("encryption-version"), "{receipt}");
    assert_eq!(lines(&fleet, "pack/proposals.jsonl").len(), 1);
    let incident = lines(&fleet, "pack/incidents.jsonl")[0]["id"].as_str().unwrap().to_owned();
    assert!(fleet.path(&format!("pack/incidents/{incident}.json")).exists());
    let destroyed = |key: &Value| key["class"] == "data-encryption-key" && key["state"] == "destroyed";
    assert!(lines(&fleet, "pack/inventory.jsonl").iter().any(destroyed));
    let index = receipt["log_index"].as_u64().unwrap();
    assert!(lines(&fleet, "pack/entries.jsonl").iter().any(|record| record["index"] == index));

    let sums = Tool::new("sha256sum").directory(&fleet.path("pack"));
    sums.run(&["--quiet", "--strict", "-c", "SHA256SUMS"]).succeeds();
    let key = fleet.data().join("log.vkey");
    let verify = ["audit", "verify", "--log", "pack/log", "--verifier-key", key.to_str().unwrap(), "--format", "json"];
    let checked = json_of(&fleet.run_as("ada.toml", &verify).expect_success());
    assert_eq!((&checked["holds"], &checked["size"]), (&Value::Bool(true), &manifest["log"]["size"]));

    // What somebody changes afterwards is found by either.
    let entries = fs::read_to_string(fleet.path("pack/entries.jsonl")).unwrap().replace("yearly", "hourly");
    fs::write(fleet.path("pack/entries.jsonl"), entries).unwrap();
    let found = sums.run(&["--quiet", "-c", "SHA256SUMS"]);
    assert!(!found.success() && found.text().contains("entries.jsonl"), "{}", found.text());
    let again = fleet.run_as("ada.toml", &pack);
    assert!(again.code == Some(5) && again.stderr_text().contains("exists"), "{}", again.text());
}

#[test]
fn what_lies_outside_the_period_or_the_reader_s_scope_is_not_in_the_pack() {
    let fleet = audited();
    let past = ["evidence", "--from", "2020-01-01", "--to", "2020-12-31", "--out", "old"];
    fleet.run_as("ada.toml", &past).succeeds();
    for name in ["entries", "receipts", "proposals", "incidents"] {
        assert!(lines(&fleet, &format!("old/{name}.jsonl")).is_empty(), "{name}");
    }
    let backwards =
        fleet.run_as("ada.toml", &["evidence", "--from", "2021-01-01", "--to", "2020-01-01", "--out", "no"]);
    assert_eq!(backwards.code, Some(2), "{}", backwards.text());
    assert!(!fleet.path("no").exists());
    fleet.run(&["facility", "create", "paris"]).succeeds();
    sign_up_for(&fleet, "paula", "facility-operator", &["--facility", "paris"]);
    let packed = fleet.run_as("paula.toml", &["evidence", "--from", "1d", "--out", "paris"]);
    let left = fleet.path("paris").exists() || fleet.path("paris.draft").exists();
    assert!(!packed.success() && !left, "the log as a whole is not hers: {}", packed.text());
}

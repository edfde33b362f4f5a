//! The fields of every JSON answer, as `tests/shapes.txt` publishes them: scripts rely on these names.

use std::collections::BTreeSet;
use std::fs;

use serde_json::Value;

use crate::console::{Fleet, Succeeds as _, json};

/// Lines of `verb: field field …`. Fields may be added; one that goes or is renamed breaks somebody's script.
const PUBLISHED: &str = include_str!("../shapes.txt");

/// Paths of all fields, `[]` for the elements of an array; what lies below a map with free keys is left out.
fn paths(value: &Value, prefix: &str, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                let path = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
                found.insert(path.clone());
                if !["attributes", "detail", "entry"].contains(&key.as_str()) {
                    paths(value, &path, found);
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| paths(item, &format!("{prefix}[]"), found)),
        _ => {}
    }
}

fn shape(verb: &str, value: &Value) -> String {
    let mut found = BTreeSet::new();
    paths(value, "", &mut found);
    format!("{verb}: {}", found.into_iter().collect::<Vec<_>>().join(" "))
}

#[test]
fn every_json_answer_has_the_published_fields() {
    let fleet = Fleet::start(&[]).with_device();
    let csr = fleet.request("thermo");
    let issue = ["certificate", "issue", "--profile", "ldevid", "--device", "thermo-0001", "--csr", &csr];
    let issued = fleet.json(&issue);
    let serial = issued["serial"].as_str().unwrap().to_owned();
    fs::write(fleet.path("bad.csv"), "name,facility,product_line\nbad name,lyon,thermo\n").unwrap();
    let import = json(&fleet.run(&["device", "import", "bad.csv", "--format", "json"]));
    fleet.run(&["certificate", "revoke", &serial, "--reason", "superseded"]).succeeds();
    let mut shapes = vec![shape("certificate issue", &issued), shape("device import", &import)];
    for verb in [
        "whoami",
        "status",
        "facility list",
        "product-line list",
        "device list",
        "device show thermo-0001",
        "authority list",
        "certificate list",
        "operator list",
        "audit list",
        "audit verify",
        "proposal list",
        "epoch list --facility lyon",
        "epoch show --device thermo-0001",
        "epoch pins",
        "order list",
        "destroy list",
        "inventory --class log-key",
        "rotate --dry-run",
        "campaign create keys --kind device-key --facility lyon",
        "campaign show keys",
        "campaign list",
        "enrolment list",
        "code create thermo-0001",
        "code list thermo-0001",
        "token create owner",
        "token list owner",
        "revoke --device thermo-0001 --reason superseded --dry-run",
        "issuance start",
        "profile show",
        "doctor --list",
    ] {
        let arguments: Vec<&str> = verb.split(' ').collect();
        shapes.push(shape(verb, &fleet.json(&arguments)));
    }
    let shapes: String = shapes.iter().map(|line| format!("{line}\n")).collect();
    assert_eq!(shapes, PUBLISHED, "the answers and tests/shapes.txt differ; the answers are\n{shapes}");
}

//! Devices that leave, through the command line and the served API; and the customer, who has a file and a key and nothing else.

use std::fs;

use kf_testkit::Tool;
use serde_json::{Value, json};

use crate::console::{Fleet, Succeeds as _};

/// What a customer has of tools: hashes by Python, the signature by openssl. Prints `holds`, or fails.
const CUSTOMER: &str = r#"
import base64, hashlib, json, subprocess, sys
receipt, key = json.load(open(sys.argv[1])), sys.argv[2].strip()
note, signatures = receipt["checkpoint"].split("\n\n", 1)
note += "\n"
name, _, public = key.split("+", 2)
public = base64.b64decode(public)[1:]
signature = base64.b64decode(signatures.split()[2])[4:]
open("note", "w").write(note)
open("signature", "wb").write(signature)
open("key.der", "wb").write(bytes.fromhex("302a300506032b6570032100") + public)
subprocess.run(["openssl", "pkeyutl", "-verify", "-pubin", "-keyform", "DER", "-inkey", "key.der", "-rawin",
                "-in", "note", "-sigfile", "signature"], check=True, stdout=subprocess.DEVNULL)
origin, size, root = note.splitlines()[:3]
size, root = int(size), base64.b64decode(root)
sha = lambda octets: hashlib.sha256(octets).digest()
def node(hash, index, last, proof):
    for sibling in map(bytes.fromhex, proof):
        assert last, "too long"
        if index & 1 or index == last:
            hash = sha(b"\1" + sibling + hash)
            while index and not index & 1:
                index, last = index >> 1, last >> 1
        else:
            hash = sha(b"\1" + hash + sibling)
        index, last = index >> 1, last >> 1
    assert last == 0, "too short"
    return hash
for entry in receipt["timeline"]:
    assert node(sha(b"\0" + entry["leaf"].encode()), entry["index"], size - 1, entry["proof"]) == root
print("holds", len(receipt["timeline"]))
"#;

fn verifier_key(fleet: &Fleet) -> String {
    fs::read_to_string(fleet.data().join("log.vkey")).unwrap().trim().to_owned()
}

/// A fleet in which `thermo-0001` was scrapped, and its receipt in `receipt.json`.
fn scrapped() -> (Fleet, String) {
    let fleet = Fleet::start(&[]).with_device();
    let csr = fleet.request("thermo");
    fleet.run(&["certificate", "issue", "--profile", "ldevid", "--device", "thermo-0001", "--csr", &csr]).succeeds();
    let leave = ["device", "decommission", "thermo-0001", "--destroy-keys", "--why", "worn out", "--customer", "PO-7"];
    let dry = fleet.json(&[&leave[..], &["--dry-run"]].concat());
    assert_eq!((dry["proposal"].clone(), dry["plan"]["end"].clone()), (Value::Null, json!("scrapped")));
    let waits = fleet.run(&[&leave[..], &["--yes", "--format", "json"]].concat());
    assert_eq!(waits.code, Some(6), "{}", waits.text());
    let proposal = crate::console::json(&waits)["proposal"].as_str().unwrap().to_owned();
    let none = fleet.run(&["device", "receipt", "thermo-0001"]);
    assert_eq!(none.code, Some(3), "there is none before it is approved: {}", none.text());
    crate::fleet::sign_up(&fleet, "bert", "fleet-operator");
    fleet.run_as("bert.toml", &["proposal", "approve", &proposal]).succeeds();
    fleet.run(&["device", "receipt", "thermo-0001", "--out", "receipt.json"]).succeeds();
    let key = verifier_key(&fleet);
    (fleet, key)
}

#[test]
fn a_customer_checks_a_receipt_alone_with_our_tool_or_with_others() {
    let (fleet, key) = scrapped();
    let verdict = fleet.json(&["audit", "verify-receipt", "receipt.json", "--verifier-key", &key]);
    assert_eq!((verdict["holds"].clone(), verdict["findings"].clone()), (json!(true), json!([])));
    let acts: Vec<&str> =
        verdict["statements"].as_array().unwrap().iter().map(|entry| entry["act"].as_str().unwrap()).collect();
    assert!(acts.contains(&"proposal.approve") && acts.contains(&"ownership.end"), "{acts:?}");
    fs::write(fleet.path("customer.py"), CUSTOMER).unwrap();
    let said = Tool::new("python3").directory(&fleet.path(".")).run(&["customer.py", "receipt.json", &key]);
    assert!(said.expect_success().stdout_text().starts_with("holds "));
    let page = fleet.run(&["device", "receipt", "thermo-0001"]).expect_success();
    for part in ["RECEIPT: device thermo-0001 was scrapped", "PO-7", "bert (op_", "1 revoked", "so far: queued"] {
        assert!(page.stdout_text().contains(part), "{part} is missing in {}", page.stdout_text());
    }
    let listed = fleet.json(&["device", "receipt"]);
    assert_eq!(listed["items"][0]["device_name"], "thermo-0001");
}

#[test]
fn whatever_is_changed_in_a_receipt_is_found_and_named() {
    let (fleet, key) = scrapped();
    let receipt: Value = serde_json::from_str(&fs::read_to_string(fleet.path("receipt.json")).unwrap()).unwrap();
    let last = receipt["timeline"].as_array().unwrap().len() - 1;
    type Change = fn(&mut Value, usize);
    let changes: [(&str, Change); 10] = [
        ("idevid", |r, _| r["record"]["idevid"] = "lives".into()),
        ("approved_by", |r, _| r["record"]["approved_by"] = "nobody".into()),
        ("device_keys", |r, _| r["record"]["device_keys"] = "destroyed".into()),
        ("device", |r, _| r["record"]["device"] = "dev_00000000000000000000000000000000".into()),
        ("wipe", |r, _| r["wipe"] = "executed".into()),
        ("names no entry", |r, _| r["record"]["log_index"] = 0.into()),
        ("edited", |r, last| {
            let leaf = r["timeline"][last]["leaf"].as_str().unwrap().replace("worn out", "sold");
            r["timeline"][last]["leaf"] = leaf.into();
        }),
        ("does not stand there", |r, last| r["timeline"][last]["index"] = 0.into()),
        ("does not stand there", |r, last| r["timeline"][last]["proof"] = json!([])),
        ("entries, the checkpoint", |r, _| r["tree_size"] = 1.into()),
    ];
    for (found, change) in changes {
        let mut forged = receipt.clone();
        change(&mut forged, last);
        fs::write(fleet.path("forged.json"), forged.to_string()).unwrap();
        let refused =
            fleet.run(&["audit", "verify-receipt", "forged.json", "--verifier-key", &key, "--format", "json"]);
        assert_ne!(refused.code, Some(0), "{found}");
        assert!(refused.stdout_text().contains(found), "{found} is not named in {}", refused.text());
    }
    // Signed again, by somebody else.
    let mut forged = receipt.clone();
    forged["checkpoint"] = receipt["checkpoint"].as_str().unwrap().replace("\n\n", "\nx\n\n").into();
    fs::write(fleet.path("forged.json"), forged.to_string()).unwrap();
    let refused = fleet.run(&["audit", "verify-receipt", "forged.json", "--verifier-key", &key]);
    assert!(refused.stderr_text().contains("not signed by this key"), "{}", refused.text());
    let other = Fleet::start(&[]);
    let foreign = verifier_key(&other);
    let refused = fleet.run(&["audit", "verify-receipt", "receipt.json", "--verifier-key", &foreign]);
    assert!(refused.stderr_text().contains("not signed by this key"), "{}", refused.text());
}

#[test]
fn many_devices_leave_by_a_file_and_mistakes_in_it_are_named() {
    let fleet = Fleet::start(&[]).with_device();
    fleet.register("thermo-0002");
    fleet.register("thermo-0003");
    fs::write(fleet.path("rma.csv"), "device,replacement\nthermo-0001,thermo-0003\nthermo-0002,\n").unwrap();
    let dry = fleet.json(&["device", "rma", "--from", "rma.csv", "--why", "no signal", "--dry-run"]);
    assert_eq!((dry["plan"]["devices"].clone(), dry["plan"]["state"].clone()), (json!(2), json!("quarantined")));
    for (text, said) in [("device\n", "0 devices"), ("name\nx\n", "unknown field"), ("device\nnobody\n", "no device")] {
        fs::write(fleet.path("wrong.csv"), text).unwrap();
        let refused = fleet.run(&["device", "resell", "--from", "wrong.csv", "--why", "sold", "--dry-run"]);
        assert!(refused.code != Some(0) && refused.stderr_text().contains(said), "{said}: {}", refused.text());
    }
    let idle = fleet.run(&["device", "decommission", "thermo-0001", "--customer", "x", "--yes"]);
    assert_eq!(idle.code, Some(2), "{}", idle.text());
    let stolen = fleet.run(&["device", "report-stolen", "thermo-0002", "--why", "gone", "--yes", "--format", "json"]);
    assert_eq!(stolen.code, Some(6), "{}", stolen.text());
    assert_eq!(crate::console::json(&stolen)["stopped"], 1);
    let shown = fleet.json(&["device", "show", "thermo-0002"]);
    assert_eq!(shown["device"]["state"], "quarantined", "it waits for nobody");
}

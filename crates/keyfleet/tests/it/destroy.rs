//! `keyfleet destroy` against a served fleet. Devices that hold keys are in the tests of the use cases.

use crate::console::{Fleet, Succeeds as _};

#[test]
fn what_may_not_be_destroyed_is_refused_with_what_to_do_first() {
    let fleet = Fleet::start(&[]).with_device();
    let early = fleet.run(&["destroy", "device-key", "thermo-0001", "--why", "sold", "--dry-run"]);
    assert_eq!(early.code, Some(5), "{}", early.text());
    assert!(early.stderr_text().contains("keyfleet device decommission"), "{}", early.text());
    fleet.run(&["device", "decommission", "thermo-0001", "--why", "sold", "--yes"]).succeeds();
    let none = fleet.run(&["destroy", "device-key", "thermo-0001", "--why", "sold", "--dry-run"]);
    assert_eq!(none.code, Some(5), "it was never sent a key: {}", none.text());
    let unasked = fleet.run(&["destroy", "device-key", "thermo-0001", "--why", "sold"]);
    assert_eq!(unasked.code, Some(2), "nobody is there to be asked: {}", unasked.text());
    assert_eq!(fleet.json(&["destroy", "list"])["items"], serde_json::json!([]));
}

#[test]
fn a_retired_epoch_is_destroyed_once_a_second_person_agrees() {
    let fleet = Fleet::start(&[]).with_device();
    let destroy = ["destroy", "facility-epoch", "--facility", "lyon", "--epoch", "1", "--why", "site closed"];
    let early = fleet.run(&[&destroy[..], &["--dry-run"]].concat());
    assert!(early.stderr_text().contains("keyfleet epoch retire"), "{}", early.text());
    fleet.run(&["epoch", "advance", "--facility", "lyon"]).succeeds();
    fleet.run(&["epoch", "retire", "--facility", "lyon", "--epoch", "1"]).succeeds();
    let plan = fleet.json(&[&destroy[..], &["--dry-run"]].concat());
    assert_eq!((plan["plan"]["salts"].clone(), plan["plan"]["result"].clone()), (0.into(), "destroyed".into()));
    let waits = fleet.run(&[&destroy[..], &["--yes", "--format", "json"]].concat());
    assert_eq!(waits.code, Some(6), "{}", waits.text());
    let proposal = crate::console::json(&waits)["proposal"].as_str().unwrap().to_owned();
    crate::fleet::sign_up(&fleet, "bert", "fleet-operator");
    fleet.run_as("bert.toml", &["proposal", "approve", &proposal]).succeeds();
    let listed = fleet.json(&["destroy", "list"]);
    let id = listed["items"][0]["id"].as_str().unwrap();
    let receipt = fleet.json(&["destroy", "receipt", id]);
    assert!(receipt["approved_by"].as_str().unwrap().starts_with("bert ("), "{receipt}");
    fleet.run(&["audit", "verify"]).succeeds();
}

//! Break-glass as people hold it: age opens the envelope, and a profile is the session.

use kf_testkit::Tool;
use serde_json::json;

use crate::console::{Fleet, Succeeds as _, private};
use crate::escrow::person;
use crate::fleet::{sign_up, sign_up_for};

#[test]
fn an_envelope_is_made_by_two_opened_by_one_and_reviewed_by_two_others() {
    let fleet = Fleet::start(&[]).with_device();
    let folder = fleet.scratch.path();
    fleet.run(&["facility", "create", "paris"]).succeeds();
    fleet.run(&["device", "register", "p-1", "--facility", "paris", "--product-line", "thermo"]).succeeds();
    sign_up(&fleet, "bert", "fleet-operator");
    sign_up_for(&fleet, "ines", "facility-operator", &["--facility", "paris"]);
    let safe = person(folder, "safe");
    let create = [
        "break-glass",
        "create",
        "night",
        "--role",
        "facility-operator",
        "--facility",
        "lyon",
        "--recipient",
        &safe,
        "--why",
        "nights",
        "--format",
        "json",
    ];
    let waits = fleet.run(&create);
    assert_eq!(waits.code, Some(6), "{}", waits.text());
    let proposal = crate::console::json(&waits)["proposal"].as_str().unwrap().to_owned();
    assert_eq!(fleet.run(&["break-glass", "show", "night"]).code, Some(3), "it is not made yet");
    fleet.run_as("bert.toml", &["proposal", "approve", &proposal]).succeeds();
    fleet.run(&["break-glass", "show", "night", "--out", "night.age"]).succeeds();
    let explained = fleet.json(&["access", "explain", "ines", "device.suspend", "--facility", "lyon"]);
    assert_eq!(
        (explained["allowed"].clone(), explained["break_glass"][0].clone()),
        (json!(false), json!("night, for 60 minutes"))
    );

    let opened = Tool::new("age").directory(folder).run(&["-d", "-i", "safe.key", "night.age"]).expect_success();
    private(&fleet.path("secret"), &opened.stdout_text());
    let open = ["break-glass", "open", "--secret", "secret", "--why", "nobody answers", "--out", "session.toml"];
    let said = fleet.run_as("ines.toml", &open).expect_success();
    assert!(said.stderr_text().contains("everybody is told"), "{}", said.text());
    assert_eq!(fleet.run_as("ines.toml", &open).code, Some(5), "the profile is there");
    let again = ["break-glass", "open", "--secret", "secret", "--why", "again", "--out", "again.toml"];
    assert_eq!(fleet.run_as("bert.toml", &again).code, Some(5), "it opens once");
    fleet.run_as("session.toml", &["device", "suspend", "thermo-0001", "--why", "stop"]).succeeds();
    assert_eq!(fleet.run_as("session.toml", &["device", "show", "p-1"]).code, Some(3), "not even one's own site");
    assert_eq!(fleet.run_as("session.toml", &["device", "resume", "thermo-0001"]).code, Some(4));
    let status = fleet.run(&["status"]).expect_success().stdout_text();
    assert!(status.contains("break-glass `night` was opened by ines"), "{status}");
    let doctor = fleet.run(&["doctor"]);
    assert!(doctor.stdout_text().contains("break-glass"), "{}", doctor.text());

    fleet.run(&["break-glass", "end", "night", "--why", "back"]).succeeds();
    assert_eq!(fleet.run_as("session.toml", &["whoami"]).code, Some(4));
    let own = fleet.run_as("ines.toml", &["break-glass", "review", "night", "--why", "fine"]);
    assert_ne!(own.code, Some(0), "{}", own.text());
    fleet.run(&["break-glass", "review", "night", "--why", "right"]).succeeds();
    fleet.run_as("bert.toml", &["break-glass", "review", "night", "--why", "right"]).succeeds();
    let listed = fleet.json(&["break-glass", "list"]);
    assert_eq!(listed["items"][0]["state"], "reviewed");
    let status = fleet.run(&["status"]).expect_success().stdout_text();
    assert!(!status.contains("break-glass"), "{status}");
    fleet.run(&["audit", "verify"]).succeeds();
}

#[test]
fn the_scene_of_the_incident_holds_line_by_line() {
    let home = kf_testkit::scratch();
    let played = crate::console::keyfleet(home.path()).run(&["demo", "--scene", "incident", "--format", "json"]);
    let text = played.expect_success().stdout_text();
    let lines: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(lines.len() > 18 && lines.iter().all(|line| line["holds"] == true), "{text}");
    for step in ["theft", "incident", "stop", "settle", "elsewhere", "close", "audit"] {
        assert!(lines.iter().any(|line| line["step"] == step), "{step} is missing in {text}");
    }
}

//! `keyfleet backup` and `keyfleet restore`, with people who use `age`.

use std::fs;

use kf_testkit::Tool;

use crate::console::{Fleet, Succeeds as _, json};

/// A person with an identity of age; the recipient.
fn person(fleet: &Fleet, name: &str) -> String {
    let file = format!("{name}.key");
    let keygen = Tool::new("age-keygen").directory(fleet.scratch.path());
    keygen.run(&["-o", &file]).succeeds();
    keygen.run(&["-y", &file]).expect_success().stdout_text().trim().to_owned()
}

#[test]
fn a_fleet_whose_host_is_lost_comes_back_from_a_backup_and_its_sealed_root() {
    let mut fleet = Fleet::initialised(&[]).served().with_device();
    let (alice, bob) = (person(&fleet, "alice"), person(&fleet, "bob"));
    let none = fleet.run(&["backup", "create"]);
    assert_eq!(none.code, Some(5), "{}", none.text());
    let key = ["backup", "key", "create", "--recipient", &alice, "--recipient", &bob, "--out", "backup-key-1.age"];
    fleet.run(&key).succeeds();
    assert_eq!(fleet.run(&key).code, Some(5), "it overwrites nothing");
    let made = fleet.json(&["backup", "create", "--why", "nightly"]);
    let id = made["id"].as_str().unwrap().to_owned();
    assert_eq!(fleet.json(&["backup", "list"])["items"][0]["id"], made["id"]);
    fleet.run(&["audit", "verify"]).succeeds();
    let directory = made["directory"].as_str().unwrap();
    fs::rename(directory, fleet.path("tape")).unwrap();
    // The whole way with age alone: Bob opens the key, the key opens the backup.
    let age = Tool::new("age").directory(fleet.scratch.path());
    age.run(&["-d", "-i", "bob.key", "-o", "opened.key", "backup-key-1.age"]).succeeds();
    age.run(&["-d", "-i", "opened.key", "-o", "clear.sqlite", "tape/registry.sqlite.age"]).succeeds();
    assert!(fs::read(fleet.path("clear.sqlite")).unwrap().starts_with(b"SQLite format 3"));
    let keys = ["--key", "backup-key-1.age", "--identity", "alice.key"];
    fleet.run(&[&["backup", "verify", "tape"][..], &keys].concat()).succeeds();
    let in_use = fleet.run(&[&["restore", "--from", "tape"][..], &keys].concat());
    assert_eq!(in_use.code, Some(5), "{}", in_use.text());
    fleet.stop();
    fs::rename(fleet.data(), fleet.path("burnt")).unwrap();
    let restore = [&["restore", "--from", "tape"][..], &keys].concat();
    let dry = json(&fleet.run(&[&restore[..], &["--dry-run", "--format", "json"]].concat()));
    assert_eq!((dry["done"].clone(), dry["manifest"]["id"].clone()), (false.into(), id.clone().into()));
    assert!(!fleet.data().join("registry.sqlite").exists());
    let done = fleet.run(&restore).expect_success();
    assert!(done.stderr_text().contains("the root is not in a backup"), "{}", done.text());
    assert!(done.stderr_text().contains("undetectable"), "{}", done.text());
    for name in ["root.seal", "owner.token"] {
        fs::copy(fleet.path("burnt").join(name), fleet.data().join(name)).unwrap();
    }
    let fleet = fleet.served();
    let shown = fleet.json(&["device", "show", "thermo-0001"]);
    assert_eq!(shown["device"]["name"], "thermo-0001");
    let found = fleet.json(&["backup", "restored"]);
    assert_eq!((found["backup"].clone(), found["blind"].clone()), (id.into(), true.into()));
    assert_eq!(fleet.json(&["status"])["issuance"]["state"], "fenced");
    let accept = fleet.run(&["backup", "accept", "--why", "we asked every device", "--format", "json"]);
    assert_eq!(accept.code, Some(6), "{}", accept.text());
    fleet.run(&["audit", "verify"]).succeeds();
}

#[test]
fn a_chain_of_backups_is_checked_as_a_whole_and_gives_back_any_of_its_points() {
    let mut fleet = Fleet::initialised(&[]).served().with_device();
    let alice = person(&fleet, "alice");
    fleet.run(&["backup", "key", "create", "--recipient", &alice, "--out", "key.age"]).succeeds();
    let full = fleet.json(&["backup", "create", "--incremental"]);
    assert!(full["full_because"].as_str().unwrap().contains("no earlier backup"), "{full}");
    fleet.run(&["facility", "create", "nice"]).succeeds();
    let next = fleet.json(&["backup", "create", "--incremental", "--why", "hourly"]);
    assert_eq!(next["manifest"]["base"]["backup"], full["id"]);
    let listed = fleet.run(&["backup", "list"]).expect_success().stdout_text();
    assert!(listed.contains(full["id"].as_str().unwrap()), "{listed}");
    fleet.stop();
    fs::rename(fleet.data().join("backups"), fleet.path("tapes")).unwrap();
    fs::rename(fleet.data(), fleet.path("burnt")).unwrap();
    let keys = ["--key", "key.age", "--identity", "alice.key"];
    let verify = [&["backup", "verify", "tapes"][..], &keys].concat();
    let rows = json(&fleet.run(&[&verify[..], &["--format", "json"]].concat()));
    assert_eq!(rows["items"].as_array().unwrap().len(), 2, "{rows}");
    let restore = [&["restore", "--from", "tapes", "--dry-run", "--format", "json"][..], &keys].concat();
    let newest = json(&fleet.run(&restore));
    assert_eq!(newest["chain"], serde_json::json!([full["id"], next["id"]]));
    let entries = full["manifest"]["log_size"].to_string();
    let before = json(&fleet.run(&[&restore[..], &["--at-entry", &entries]].concat()));
    assert_eq!(before["chain"], serde_json::json!([full["id"]]));
    let none = fleet.run(&[&restore[..], &["--at", "2020-01-01"]].concat());
    assert!(none.code != Some(0) && none.text().contains("none lies before that point"), "{}", none.text());
    let unreadable = fleet.run(&[&restore[..], &["--at", "yesterday"]].concat());
    assert_eq!(unreadable.code, Some(2), "{}", unreadable.text());
    fs::remove_file(fleet.path("tapes").join(full["id"].as_str().unwrap()).join("manifest.json")).unwrap();
    let broken = fleet.run(&verify);
    assert!(broken.code != Some(0) && broken.text().contains("a link is missing"), "{}", broken.text());
}

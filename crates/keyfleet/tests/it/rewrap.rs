//! Data under an encryption key, as a program's operator sees it: encrypted, rotated, brought along in files, decrypted.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use kf_api::ciphertext::Ciphertext;
use serde_json::json;

use crate::console::{Fleet, Succeeds as _, json as json_of};
use crate::fleet::{sign_up, sign_up_for};

/// A fleet with a key, and a program that uses it as `clinic.toml`.
pub(crate) fn with_key() -> Fleet {
    let fleet = Fleet::start(&[]).with_device();
    fleet.run(&["encryption-key", "create", "patients", "--facility", "lyon"]).succeeds();
    fleet.run(&["encryption-key", "create", "staff", "--facility", "lyon"]).succeeds();
    sign_up_for(&fleet, "clinic", "application", &["--facility", "lyon"]);
    fleet
}

pub(crate) fn encrypted(fleet: &Fleet, key: &str, text: &str) -> String {
    fs::write(fleet.path("plain"), text).unwrap();
    let encrypt = ["encrypt", key, "plain", "--external-aad", "clinic"];
    fleet.run_as("clinic.toml", &encrypt).expect_success().stdout_text().trim().to_owned()
}

pub(crate) fn decrypted(fleet: &Fleet, ciphertext: &str) -> String {
    fs::write(fleet.path("cipher"), ciphertext).unwrap();
    fleet.run_as("clinic.toml", &["decrypt", "cipher", "--external-aad", "clinic"]).expect_success().stdout_text()
}

pub(crate) fn version(ciphertext: &str) -> u32 {
    ciphertext.parse::<Ciphertext>().unwrap().version
}

#[test]
fn a_rotation_brings_the_data_in_files_along_and_leaves_everything_else_as_it_was() {
    let fleet = with_key();
    let words: Vec<String> = (0..3).map(|number| encrypted(&fleet, "patients", &format!("patient {number}"))).collect();
    let other = encrypted(&fleet, "staff", "nurse");
    let table = format!("id,name,file\n1,Ann,{}\n2,Bob,\"{}\"\n3,Cid,{other}\n", words[0], words[1]);
    fs::write(fleet.path("table.csv"), &table).unwrap();
    fs::set_permissions(fleet.path("table.csv"), fs::Permissions::from_mode(0o640)).unwrap();
    let lines = format!("{}\n{}\n", json!({"file": words[2]}), json!({"note": "kfc1.not-a-ciphertext"}));
    fs::write(fleet.path("lines.jsonl"), &lines).unwrap();

    fleet.run(&["encryption-key", "rotate", "patients", "--newest", "1", "--why", "yearly"]).succeeds();
    let stale = fleet.run(&["encryption-key", "rotate", "patients", "--newest", "1"]);
    assert!(stale.code == Some(5) && stale.stderr_text().contains("newest version is 2"), "{}", stale.text());

    let rewrap = ["rewrap", "patients", "table.csv", "lines.jsonl", "--external-aad", "clinic", "--format", "json"];
    let counted = json_of(&fleet.run(&[&rewrap[..], &["--dry-run"]].concat()).expect_success());
    assert_eq!((&counted["ciphertexts"], &counted["changed"]), (&json!(3), &json!(0)));
    assert_eq!((&counted["by_version"], &counted["other_keys"]), (&json!({"1": 3}), &json!(1)));
    assert_eq!(fs::read_to_string(fleet.path("table.csv")).unwrap(), table, "a dry run changes nothing");

    let done = json_of(&fleet.run(&rewrap).expect_success());
    assert_eq!((&done["changed"], &done["newest"], &done["files"]), (&json!(3), &json!(0), &json!(2)));
    let after = fs::read_to_string(fleet.path("table.csv")).unwrap();
    let row =
        |number: usize| after.lines().nth(number).unwrap().rsplit(',').next().unwrap().trim_matches('"').to_owned();
    assert_eq!([version(&row(1)), version(&row(2)), version(&row(3))], [2, 2, 1]);
    assert_eq!([decrypted(&fleet, &row(1)), decrypted(&fleet, &row(2))], ["patient 0", "patient 1"]);
    assert_eq!(row(3), other, "ciphertexts of other keys are left alone");
    let mode = fs::metadata(fleet.path("table.csv")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o640);
    assert!(fs::read_to_string(fleet.path("lines.jsonl")).unwrap().contains("kfc1.not-a-ciphertext"));
    let again = json_of(&fleet.run(&rewrap).expect_success());
    assert_eq!((&again["changed"], &again["newest"]), (&json!(0), &json!(3)));
    let left: Vec<_> = fs::read_dir(fleet.scratch.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(!left.iter().any(|name| name.to_string_lossy().contains("draft")), "{left:?}");

    // A stream, and the end of the old version.
    let rewrap = ["rewrap", "patients", "-", "--external-aad", "clinic"];
    let piped = fleet
        .tool()
        .run_with_input(&[&["--data", fleet.data().to_str().unwrap()], &rewrap[..]].concat(), table.as_bytes())
        .expect_success();
    assert_eq!(piped.stdout_text().lines().count(), 4);
    assert!(piped.stderr_text().contains("2 changed"), "{}", piped.text());
    fleet.run(&["encryption-key", "minimum", "patients", "2"]).succeeds();
    sign_up(&fleet, "bert", "fleet-operator");
    let destroy = ["destroy", "encryption-version", "patients", "1", "--why", "rotated", "--yes", "--format", "json"];
    let waits = fleet.run(&destroy);
    let proposal = json_of(&waits)["proposal"].as_str().unwrap().to_owned();
    fleet.run_as("bert.toml", &["proposal", "approve", &proposal]).succeeds();
    let shown = fleet.json(&["encryption-key", "show", "patients"]);
    assert_eq!(shown["versions"][1]["state"], "destroyed", "{shown}");
    fs::write(fleet.path("cipher"), &words[0]).unwrap();
    let gone = fleet.run_as("clinic.toml", &["decrypt", "cipher", "--external-aad", "clinic"]);
    assert!(gone.code == Some(5) && gone.stderr_text().contains("below the minimum"), "{}", gone.text());
}

#[test]
fn a_ciphertext_that_was_changed_leaves_its_file_as_it_was_and_is_named_by_its_place() {
    let fleet = with_key();
    let good = encrypted(&fleet, "patients", "x");
    let mut parsed: Ciphertext = good.parse().unwrap();
    *parsed.iv_and_body.last_mut().unwrap() ^= 1;
    let file = format!("{good}\n{parsed}\n");
    fs::write(fleet.path("file"), &file).unwrap();
    fleet.run(&["encryption-key", "rotate", "patients"]).succeeds();
    let rewrap = ["rewrap", "patients", "file", "--external-aad", "clinic"];
    let refused = fleet.run(&rewrap);
    let place = format!("at octet {}", good.len() + 1);
    assert!(refused.code == Some(5) && refused.stderr_text().contains(&place), "{}", refused.text());
    assert_eq!(fs::read_to_string(fleet.path("file")).unwrap(), file);
    let kept = fleet.run(&[&rewrap[..], &["--keep-refused"]].concat());
    assert_eq!(kept.code, Some(5), "{}", kept.text());
    let after = fs::read_to_string(fleet.path("file")).unwrap();
    assert_eq!(version(after.lines().next().unwrap()), 2);
    assert_eq!(after.lines().nth(1), Some(parsed.to_string().as_str()));
}

#[test]
fn a_data_key_is_written_for_its_owner_alone_and_comes_back_from_its_ciphertext() {
    let fleet = with_key();
    let made = ["encryption-key", "data-key", "patients", "--external-aad", "clinic", "--out", "disk.key"];
    let ciphertext = fleet.run_as("clinic.toml", &made).expect_success().stdout_text();
    let key = fs::read(fleet.path("disk.key")).unwrap();
    assert_eq!(key.len(), 32);
    assert_eq!(fs::metadata(fleet.path("disk.key")).unwrap().permissions().mode() & 0o777, 0o600);
    fs::write(fleet.path("cipher"), ciphertext.trim()).unwrap();
    let decrypt = ["decrypt", "cipher", "--external-aad", "clinic", "--out", "again.key"];
    fleet.run_as("clinic.toml", &decrypt).succeeds();
    assert_eq!(fs::read(fleet.path("again.key")).unwrap(), key);
    let manages = fleet.run_as("clinic.toml", &["encryption-key", "rotate", "patients"]);
    assert_eq!(manages.code, Some(4), "{}", manages.text());
}

//! `keyfleet policy` and `keyfleet exposure`, which need no server.

use std::fs;

use kf_testkit::{Output, TempDir, scratch};
use serde_json::Value;

use crate::console::keyfleet;

fn run(home: &TempDir, arguments: &[&str]) -> Output {
    keyfleet(home.path()).run(arguments)
}

fn items(output: Output) -> Vec<Value> {
    let text = output.expect_success().stdout_text();
    let document: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
    document["items"].as_array().unwrap().clone()
}

#[test]
fn the_built_in_policy_has_a_rule_for_every_class_and_an_override_changes_its_facility_alone() {
    let home = scratch();
    let rules = items(run(&home, &["policy", "check", "--format", "json"]));
    assert_eq!(rules.len(), 19);
    let text = "version = 1\n[[override]]\nfacility = \"lyon\"\n[override.class.ldevid-key]\noriginator = \"30d\"\n";
    fs::write(home.path().join("policy.toml"), text).unwrap();
    let originator = |facility: &str| {
        let rules = items(run(&home, &["policy", "check", "policy.toml", "--facility", facility, "--format", "json"]));
        let rule = rules.into_iter().find(|rule| rule["class"] == "ldevid-key").unwrap();
        rule["originator"].as_str().unwrap().to_owned()
    };
    assert_eq!((originator("lyon").as_str(), originator("graz").as_str()), ("30d", "90d"));
}

#[test]
fn every_contradiction_of_a_policy_is_named_and_the_command_line_says_that_it_is_wrong() {
    let home = scratch();
    let text = "version = 1\n[class.ldevid-key]\noriginator = \"3y\"\nuses = 5\n";
    fs::write(home.path().join("policy.toml"), text).unwrap();
    let refused = run(&home, &["policy", "check", "policy.toml"]).expect_failure();
    let talk = refused.text();
    assert!(talk.contains("ldevid-key: originator: longer than the 2y that SP 800-57 recommends"), "{talk}");
    assert!(talk.contains("ldevid-key: uses, octets: they are not counted for keys of this class"), "{talk}");
    assert_eq!(refused.code, Some(2), "{talk}");
}

#[test]
fn presets_say_what_their_standard_demands_and_that_hipaa_has_no_clause_on_rotation() {
    let home = scratch();
    let presets = items(run(&home, &["policy", "presets", "--format", "json"]));
    let hipaa = presets.iter().find(|preset| preset["name"] == "hipaa").unwrap();
    assert!(hipaa["demands"].as_str().unwrap().contains("no clause on rotation"));
    assert_eq!(presets.len(), 5);
}

#[test]
fn exposure_compares_periods_by_the_published_formula() {
    let home = scratch();
    let question = ["exposure", "--octets-per-second", "10", "--devices", "3", "--detection", "7d"];
    let periods = ["--period", "30d", "--period", "1d", "--validity", "90d", "--format", "json"];
    let rows = items(run(&home, &[question.as_slice(), &periods].concat()));
    let number = |row: usize, field: &str| rows[row][field].as_f64().unwrap();
    // r S (T/2 + M - M^2/2T) with T = 30 d, M = 7 d.
    let expected = 30.0 * 86_400.0 * (15.0 + 7.0 - 49.0 / 60.0);
    assert!((number(0, "expected_octets") - expected).abs() < 1.0);
    assert!((number(0, "worst_octets") - 30.0 * 86_400.0 * 30.0).abs() < 1.0);
    assert_eq!((&rows[0]["outlived"], &rows[1]["outlived"]), (&Value::Bool(false), &Value::Bool(true)));
    // Relying parties that never ask believe the certificate for half its validity.
    assert_eq!((&rows[2]["kind"], number(2, "expected_seconds")), (&Value::from("certificate"), 45.0 * 86_400.0));
}

#[test]
fn a_simulated_year_holds_and_is_replayed_from_its_seed() {
    let home = scratch();
    let year = |seed: &str| {
        let arguments = ["simulate", "year", "--devices", "500", "--seed", seed, "--format", "json"];
        let text = run(&home, &arguments).expect_success().stdout_text();
        serde_json::from_str::<Value>(&text).unwrap()
    };
    let found = year("11");
    assert_eq!((found["holds"].clone(), found["devices"].clone()), (true.into(), 500.into()), "{found}");
    let invariants = found["invariants"].as_array().unwrap();
    assert_eq!(invariants.len(), 10);
    assert!(invariants.iter().all(|one| one["checked"].as_u64() > Some(0) && one["broken"] == 0), "{found}");
    assert_eq!(found, year("11"));
    assert_ne!(found, year("12"));
    assert_eq!(run(&home, &["simulate", "year", "--devices", "0"]).code, Some(2));
}

#[test]
fn a_question_without_an_answer_names_the_field() {
    let home = scratch();
    for (arguments, field) in [
        (["--period", "30d", "--detection", "soon"].as_slice(), "--detection"),
        (&["--detection", "7d"], "--period"),
        (&["--period", "0d", "--detection", "7d"], "--period"),
        (&["--period", "1d", "--detection", "7d", "--octets-per-second", "nan"], "octets per second"),
        (&["--period", "1d", "--detection", "7d", "--offline-share", "2", "--offline-gap", "1d"], "share of offline"),
    ] {
        let refused = run(&home, &[["exposure"].as_slice(), arguments].concat()).expect_failure();
        assert_eq!(refused.code, Some(2), "{}", refused.text());
        assert!(refused.text().contains(field), "{field}: {}", refused.text());
    }
}

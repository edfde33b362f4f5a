//! The factory station, as its users run it.

use std::collections::BTreeSet;

use kf_testkit::scratch;

use crate::console::keyfleet;

#[test]
fn a_batch_whose_station_loses_its_power_twenty_times_is_made_merged_and_balances_to_the_device() {
    let home = scratch();
    let demo = ["station", "demo", "--devices", "60", "--fixtures", "8", "--power-cuts", "20", "--format", "json"];
    let output = keyfleet(home.path()).run(&demo);
    let checks: Vec<serde_json::Value> =
        output.stdout_text().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(output.success() && checks.iter().all(|check| check["holds"] == true), "{}", output.text());
    let steps: BTreeSet<&str> = checks.iter().filter_map(|check| check["step"].as_str()).collect();
    for step in ["batch", "power", "shift", "records", "keys", "addresses", "boards", "labels", "import", "reconcile"] {
        assert!(steps.contains(step), "{step} is not checked: {steps:?}");
    }
    for step in ["registry", "enrol", "barred", "audit"] {
        assert!(steps.contains(step), "{step} is not checked: {steps:?}");
    }
    let power = checks.iter().find(|check| check["step"] == "power").unwrap();
    assert!(power["checked"].as_str().unwrap().starts_with("the station was killed 20 times"), "{power}");
}

#[test]
fn a_demonstration_on_a_real_fleet_is_refused() {
    let home = scratch();
    let refused = keyfleet(home.path()).run(&["--data", "fleet", "station", "demo"]);
    assert!(refused.text().contains("throw-away directory"), "{}", refused.text());
    assert!(!refused.success());
}

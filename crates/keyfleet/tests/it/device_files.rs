//! Import, export and listing of many devices.

use std::fs;

use crate::console::{Fleet, Succeeds as _, json};

fn csv(rows: std::ops::Range<u32>) -> String {
    let rows: String = rows.map(|number| format!("d-{number:04},lyon,thermo,b1,\"red, dark\"\n")).collect();
    format!("name,facility,product_line,batch,attr.color\n{rows}")
}

#[test]
fn an_import_in_pieces_numbers_rows_as_in_the_file_and_sending_it_again_resumes() {
    let fleet = Fleet::start(&[]).with_device();
    let text = format!("{}bad name,lyon,thermo,,\nd-9999,nowhere,thermo,,\n", csv(0..50));
    fs::write(fleet.path("devices.csv"), text).unwrap();
    let arguments = ["device", "import", "devices.csv", "--rows-per-call", "20", "--format", "json"];
    let dry = fleet.run(&[&arguments[..], &["--dry-run"]].concat());
    assert_eq!(dry.code, Some(6), "{}", dry.text());
    assert_eq!((json(&dry)["registered"].clone(), json(&dry)["dry_run"].clone()), (50.into(), true.into()));
    assert_eq!(fleet.json(&["device", "list", "--batch", "b1"])["items"].as_array().unwrap().len(), 0);

    let first = fleet.run(&arguments);
    assert_eq!(first.code, Some(6), "{}", first.text());
    let report = json(&first);
    assert_eq!((report["registered"].clone(), report["refused"].clone()), (50.into(), 2.into()));
    let rows: Vec<_> = report["errors"].as_array().unwrap().iter().map(|error| error["row"].clone()).collect();
    assert_eq!(rows, [51, 52]);
    for error in report["errors"].as_array().unwrap() {
        assert!(
            !error["field"].as_str().unwrap().is_empty() && !error["remedy"].as_str().unwrap().is_empty(),
            "{error}"
        );
    }

    let again = json(&fleet.run(&arguments));
    assert_eq!((again["registered"].clone(), again["already_there"].clone()), (0.into(), 50.into()));
    let from = fleet.run(&[&arguments[..], &["--from-row", "51"]].concat());
    assert_eq!(json(&from)["rows"], 2);
}

#[test]
fn an_export_is_imported_again_in_both_encodings() {
    let fleet = Fleet::start(&[]).with_device();
    fs::write(fleet.path("devices.csv"), csv(0..30)).unwrap();
    fleet.run(&["device", "import", "devices.csv"]).succeeds();
    for (format, name) in [("csv", "out.csv"), ("json", "out.json")] {
        fleet.run(&["device", "export", "--batch", "b1", "--format", format, "--out", name]).succeeds();
        let report = json(&fleet.run(&["device", "import", name, "--format", "json"]).expect_success());
        assert_eq!((report["rows"].clone(), report["already_there"].clone()), (30.into(), 30.into()), "{report}");
    }
    let text = fs::read_to_string(fleet.path("out.csv")).unwrap();
    assert!(
        text.starts_with("name,facility,product_line,batch,attr.color\n") && text.contains("\"red, dark\""),
        "{text}"
    );
}

#[test]
fn a_listing_pages_filters_and_streams() {
    let fleet = Fleet::start(&[]).with_device();
    fs::write(fleet.path("devices.csv"), csv(0..25)).unwrap();
    fleet.run(&["device", "import", "devices.csv"]).succeeds();
    let mut names = std::collections::BTreeSet::new();
    let mut after: Option<String> = None;
    for _page in 0..3 {
        let mut arguments = vec!["device", "list", "--batch", "b1", "--limit", "10"];
        if let Some(after) = &after {
            arguments.extend(["--after", after]);
        }
        let page = fleet.json(&arguments);
        for item in page["items"].as_array().unwrap() {
            assert!(names.insert(item["name"].as_str().unwrap().to_owned()), "a row was shown twice");
        }
        after = page["next"].as_str().map(str::to_owned);
    }
    assert_eq!((names.len(), after), (25, None));
    let all = fleet.json(&["device", "list", "--all", "--limit", "10"]);
    assert_eq!((all["items"].as_array().unwrap().len(), all.get("next")), (26, None));
    let prefix = fleet.json(&["device", "list", "--name-prefix", "thermo-", "--state", "registered"]);
    assert_eq!(prefix["items"].as_array().unwrap().len(), 1);
    let lines = fleet.run(&["device", "list", "--all", "--format", "csv"]).expect_success().stdout_text();
    assert_eq!(lines.lines().count(), 27);
    assert!(lines.starts_with("name,state,facility,product_line,batch,last_seen,id\n"), "{lines}");
    let table = fleet.run(&["device", "list", "--limit", "5"]).expect_success();
    assert!(table.stdout_text().contains("lyon") && table.stderr_text().contains("--after"), "{}", table.text());
    let none = fleet.json(&["device", "list", "--batch", "none"]);
    assert_eq!(none, serde_json::json!({ "items": [] }));
}

#[test]
fn an_act_on_several_devices_goes_on_after_a_failure_and_exits_with_6() {
    let fleet = Fleet::start(&[]).with_device();
    fleet.register("thermo-0002");
    let output = fleet.run(&[
        "device",
        "suspend",
        "thermo-0001",
        "nobody",
        "thermo-0002",
        "--why",
        "a test",
        "--format",
        "json",
    ]);
    assert_eq!(output.code, Some(6), "{}", output.text());
    assert_eq!(json(&output)["items"].as_array().unwrap().len(), 2);
    assert!(output.stderr_text().contains("nobody: error:"), "{}", output.text());
    for name in ["thermo-0001", "thermo-0002"] {
        assert_eq!(fleet.json(&["device", "show", name])["device"]["state"], "suspended");
    }
    fleet.run(&["device", "resume", "thermo-0001", "thermo-0002"]).succeeds();
    fleet.run(&["device", "decommission", "thermo-0002", "--yes", "--departure", "scrapped"]).succeeds();
    let back = fleet.run(&["device", "resume", "thermo-0002"]);
    assert_eq!(back.code, Some(5), "{}", back.text());
}

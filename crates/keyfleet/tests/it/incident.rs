//! The Verkada case, as operators live through it: one credential of a site and one factory station are stolen. Openssl says what
//! relying parties see, and a few lines of Python check the proofs of the report.

use std::fs;

use kf_testkit::{Output, Tool};
use serde_json::Value;

use crate::batch::{authorised, enrol, prepared, shift};
use crate::console::{Fleet, Succeeds as _, json};
use crate::fleet::{sign_up, sign_up_for};

/// Checks every inclusion proof of a report by RFC 6962 section 2.1.1 and RFC 9162 section 2.1.3.2.
const PROOFS: &str = r"
import base64, hashlib, json, sys

report = json.load(open(sys.argv[1]))
note = report['checkpoint'].split('\n')
assert int(note[1]) == report['tree_size']
root = base64.b64decode(note[2])

def node(left, right):
    return hashlib.sha256(b'\x01' + left + right).digest()

def holds(entry, leaf):
    value = hashlib.sha256(b'\x00' + leaf).digest()
    at, last = entry['index'], report['tree_size'] - 1
    for step in map(bytes.fromhex, entry['proof']):
        if last == 0:
            return False
        if at & 1 or at == last:
            value = node(step, value)
            while not at & 1 and at:
                at >>= 1
                last >>= 1
        else:
            value = node(value, step)
        at >>= 1
        last >>= 1
    return last == 0 and value == root

for entry in report['timeline']:
    leaf = entry['leaf'].encode()
    assert holds(entry, leaf), entry['index']
    assert not holds(entry, leaf + b' '), entry['index']
print(len(report['timeline']))
";

/// A certificate for a device, issued at the request of whoever the profile names; the file with it.
fn issue(fleet: &Fleet, profile: Option<&str>, device: &str, key: &str) -> String {
    let (csr, out) = (fleet.request(key), format!("{key}.pem"));
    let arguments = ["certificate", "issue", "--profile", "ldevid", "--device", device, "--csr", &csr, "--out", &out];
    match profile {
        Some(profile) => fleet.run_as(profile, &arguments).succeeds(),
        None => fleet.run(&arguments).succeeds(),
    }
    out
}

/// What `openssl ocsp` says, its answer verified under the root.
fn status(fleet: &Fleet, certificate: &str) -> String {
    if !fleet.path("issuing.pem").exists() {
        fleet.run(&["authority", "show", "issuing", "--out", "issuing.pem"]).succeeds();
    }
    let (root, url) = (fleet.data().join("root.pem"), format!("{}/ocsp", fleet.http));
    let ocsp =
        ["ocsp", "-issuer", "issuing.pem", "-cert", certificate, "-CAfile", root.to_str().unwrap(), "-url", &url];
    let output = Tool::new("openssl").directory(fleet.scratch.path()).run(&ocsp);
    let text = output.expect_success().expect_text("Response verify OK").stdout_text();
    let prefix = format!("{certificate}: ");
    text.lines().find_map(|line| line.strip_prefix(&prefix)).unwrap().trim().to_owned()
}

/// Everything of a facility that an incident could change, as the command line shows it.
fn everything_of(fleet: &Fleet, facility: &str) -> Vec<Value> {
    let mut all: Vec<Value> = ["device list", "certificate list", "epoch list"]
        .into_iter()
        .map(|verb| fleet.json(&[verb.split(' ').collect::<Vec<_>>(), vec!["--facility", facility]].concat()))
        .collect();
    let operators = fleet.json(&["operator", "list"])["items"].as_array().unwrap().clone();
    all.extend(operators.into_iter().filter(|one| one["name"] == "boris"));
    all
}

fn waits(output: &Output) -> String {
    assert_eq!(output.code, Some(6), "{}", output.text());
    json(output)["waits"][0].as_str().unwrap().to_owned()
}

#[test]
fn a_stolen_credential_and_a_stolen_station_end_as_a_closed_incident_and_the_other_sites_notice_nothing() {
    let (fleet, station) = prepared();
    fleet.run(&["facility", "create", "paris"]).succeeds();
    sign_up_for(&fleet, "ines", "facility-operator", &["--facility", "lyon"]);
    sign_up_for(&fleet, "boris", "facility-operator", &["--facility", "paris"]);
    sign_up(&fleet, "bert", "fleet-operator");
    for (name, facility) in [("l-1", "lyon"), ("l-2", "lyon"), ("p-1", "paris"), ("p-2", "paris")] {
        fleet.run(&["device", "register", name, "--facility", facility, "--product-line", "thermo"]).succeeds();
        issue(&fleet, None, name, name);
    }
    let (quota, document) = authorised(&fleet);
    fs::write(fleet.path("records.cbor"), shift(&fleet, &station, &quota, &document, false)).unwrap();
    fleet.run(&["batch", "import", "b-1", "records.cbor"]).succeeds();
    let idevid = ["--cert", "unit-0.pem", "--key", "unit-0.key"];
    enrol(&fleet, "unit-0.der", &idevid).expect_success().expect_text("status 200");
    let made = fleet.json(&["device", "show", "b-1-000001"]);
    let ldevid = made["certificates"].as_array().unwrap().iter().find(|one| one["profile"] == "ldevid").unwrap();
    let shown = fleet.json(&["certificate", "show", ldevid["serial"].as_str().unwrap()]);
    fs::write(fleet.path("unit-0-ldevid.pem"), shown["pem"].as_str().unwrap()).unwrap();
    let paris = everything_of(&fleet, "paris");

    // The thief, with the credential of ines.
    let since = fleet.json(&["audit", "list", "--limit", "1000"])["items"].as_array().unwrap().last().unwrap()["entry"]
        ["at"]
        .as_u64()
        .unwrap();
    let since = jiff::Timestamp::from_millisecond(i64::try_from(since + 1).unwrap()).unwrap().to_string();
    fleet.run_as("ines.toml", &["code", "create", "l-1", "--out", "stolen.code"]).succeeds();
    let thiefs = issue(&fleet, Some("ines.toml"), "l-2", "thief");
    let elsewhere = fleet.run_as("ines.toml", &["device", "show", "p-1"]);
    assert_eq!(elsewhere.code, Some(3), "a site's credential finds nothing elsewhere: {}", elsewhere.text());
    assert_eq!(status(&fleet, &thiefs), "good");

    let why = json(
        &fleet
            .run_as(
                "ines.toml",
                &["access", "explain", "ines", "device.read", "--facility", "lyon", "--format", "json"],
            )
            .expect_success(),
    );
    assert_eq!((why["allowed"].clone(), why["scope"].clone()), (true.into(), serde_json::json!(["lyon"])));
    let why = fleet.json(&["access", "explain", "ines", "certificate.revoke", "--facility", "paris"]);
    assert!(why["allowed"] == false && why["because"].to_string().contains("not in scope"), "{why}");
    assert_eq!(fleet.run_as("ines.toml", &["access", "explain", "boris", "device.read"]).code, Some(4));

    // Somebody notices.
    let open = ["incident", "open", "--operator", "ines", "--station", "line-1", "--since", &since];
    let dry = fleet.json(&[&open[..], &["--dry-run"]].concat());
    assert!(dry["incident"].is_null() && dry["radius"]["devices"] == 5, "{dry}");
    let opened = fleet.json(&[&open[..], &["--why", "a laptop and a station are gone"]].concat());
    let id = opened["incident"]["id"].as_str().unwrap().to_owned();
    let radius = &opened["radius"];
    assert_eq!(radius["facilities"].as_array().unwrap().len(), 1, "{radius}");
    assert_eq!(radius["facilities"][0]["name"], "lyon");
    let acts = radius["acts"].as_array().unwrap().iter().find(|acts| acts["name"] == "ines").unwrap();
    assert_eq!(acts["by_act"], serde_json::json!({ "certificate.issue": 1, "code.create": 1 }));
    let safe = radius["safe"].to_string();
    assert!(safe.contains("everything outside lyon") && safe.contains("other devices"), "{safe}");
    let again = fleet.json(&open);
    assert_eq!((again["already_open"].clone(), again["incident"]["id"].clone()), (true.into(), id.as_str().into()));
    assert_eq!(fleet.json(&["incident", "list"])["items"].as_array().unwrap().len(), 1);

    // One person stops it.
    let plan = json(&fleet.run_as("bert.toml", &["incident", "plan", &id, "--format", "json"]).expect_success());
    assert_eq!(plan["approved"], false);
    let stopped = fleet.run_as("bert.toml", &["incident", "run", &id, "--format", "json"]);
    assert!(waits(&stopped).contains("approve"), "{}", stopped.text());
    assert_eq!(fleet.run_as("ines.toml", &["whoami"]).code, Some(4), "the stolen credential is nobody's");
    assert_eq!(status(&fleet, &thiefs), "revoked", "on hold reads revoked");
    assert_eq!(status(&fleet, "unit-0-ldevid.pem"), "revoked");
    for untouched in ["l-1.pem", "p-1.pem", "p-2.pem"] {
        assert_eq!(status(&fleet, untouched), "good", "{untouched}");
    }
    assert_eq!(everything_of(&fleet, "paris"), paris);

    // Two people settle it.
    let own = fleet.run_as("bert.toml", &["incident", "approve", &id]);
    assert_eq!(own.code, Some(5), "nobody approves a plan of their own: {}", own.text());
    let wrong = fleet.run(&["incident", "approve", &id, "--plan", &"0".repeat(64)]);
    assert_eq!(wrong.code, Some(5), "{}", wrong.text());
    let sha256 = plan["plan_sha256"].as_str().unwrap();
    let approved = fleet.json(&["incident", "approve", &id, "--plan", sha256, "--why", "seen the empty rack"]);
    assert_eq!(approved["approved"], true);
    let ran = fleet.run_as("bert.toml", &["incident", "run", &id, "--format", "json"]).expect_success();
    assert!(json(&ran)["finished"] == true && ran.stderr_text().contains("step "), "{}", ran.text());
    let list = |verb: &[&str]| fleet.json(verb)["items"].as_array().unwrap().clone();
    let ended = list(&["device", "list", "--batch", "b-1"]);
    assert!(ended.len() == 5 && ended.iter().all(|device| device["state"] == "decommissioned"), "{ended:?}");
    let shown = fleet.json(&["certificate", "show", ldevid["serial"].as_str().unwrap()]);
    assert_eq!((shown["status"].clone(), shown["reason"].clone()), ("revoked".into(), "keyCompromise".into()));
    for (certificate, expected) in [
        (thiefs.as_str(), "revoked"),
        ("unit-0-ldevid.pem", "revoked"),
        ("l-1.pem", "good"),
        ("p-1.pem", "good"),
        ("p-2.pem", "good"),
    ] {
        assert_eq!(status(&fleet, certificate), expected, "{certificate}");
    }
    let import = fleet.run(&["batch", "import", "b-1", "records.cbor", "--format", "json"]);
    assert!(!import.success() || json(&import)["merged"] == 0, "{}", import.text());
    assert_eq!(
        everything_of(&fleet, "paris"),
        paris,
        "two devices, two certificates, one epoch, one operator: as they were"
    );

    close_and_report(&fleet, &id);
}

fn close_and_report(fleet: &Fleet, id: &str) {
    let early = fleet.run(&["incident", "close", id, "--verdict", "recovered"]);
    assert_eq!(early.code, Some(5), "hands are left: {}", early.text());
    let shown = fleet.json(&["incident", "show", id]);
    let steps = shown["plan"]["steps"].as_array().unwrap();
    let hands = steps.iter().filter(|step| step["state"] == "hand").map(|step| step["number"].to_string());
    let hands: Vec<String> = hands.flat_map(|number| ["--by-hand".to_owned(), number]).collect();
    let mut by_hand = vec!["incident", "run", id, "--why", "a new station stands there"];
    by_hand.extend(hands.iter().map(String::as_str));
    assert_eq!(fleet.json(&by_hand)["left"], 0);
    let closed = fleet.json(&["incident", "close", id, "--verdict", "recovered"]);
    assert_eq!((closed["state"].clone(), closed["verdict"].clone()), ("closed".into(), "recovered".into()));

    fleet.run(&["incident", "report", id, "--format", "json", "--out", "report.json"]).succeeds();
    let checked = Tool::new("python3").directory(fleet.scratch.path()).run(&["-c", PROOFS, "report.json"]);
    let entries: u32 = checked.expect_success().stdout_text().trim().parse().unwrap();
    assert!(entries > 20, "{entries} entries");
    let markdown = fleet.run(&["incident", "report", id]).expect_success().stdout_text();
    for part in ["| 24h |", "| 72h |", "| 14d |", "### What stays safe", "Approved by owner", "incident.close"] {
        assert!(markdown.contains(part), "{part}\n{markdown}");
    }
    fleet.run(&["audit", "verify"]).succeeds();
}

#[test]
fn a_drill_plays_the_loss_of_a_site_on_a_copy_and_leaves_the_running_fleet_as_it_is() {
    let fleet = Fleet::start(&[]).with_device();
    fleet.run(&["facility", "create", "paris"]).succeeds();
    for (name, facility) in [("l-1", "lyon"), ("l-2", "lyon"), ("p-1", "paris")] {
        fleet.run(&["device", "register", name, "--facility", facility, "--product-line", "thermo"]).succeeds();
        issue(&fleet, None, name, name);
    }
    let before = [everything_of(&fleet, "lyon"), everything_of(&fleet, "paris")];
    let entries = fleet.json(&["status"])["log_size"].clone();
    let report = fleet.json(&["drill", "--sample", "10"]);
    assert_eq!(report["passed"], true, "{report}");
    assert_eq!((report["hit"].clone(), report["devices"].clone()), (3.into(), 4.into()), "the largest facility");
    assert_eq!(report["sample"], 3, "each comes back with a fresh certificate");
    let timings = report["timings"].as_array().unwrap();
    assert!(
        timings.iter().any(|timing| timing["what"] == "stop issuance" && timing["limit_millis"] == 1_000),
        "{report}"
    );
    assert!(report["checks"].as_array().unwrap().iter().all(|check| check["holds"] == true), "{report}");
    assert_eq!([everything_of(&fleet, "lyon"), everything_of(&fleet, "paris")], before);
    assert_eq!(fleet.json(&["status"])["log_size"], entries, "nothing was written, not even to the log");
    assert_eq!(status(&fleet, "l-1.pem"), "good");
    fleet.run(&["drill", "--sample", "2", "--record"]).succeeds();
    let log = fleet.run(&["audit", "list", "--all"]).expect_success().stdout_text();
    assert!(log.contains("drill.record"), "{log}");
    let nobody = fleet.run(&["drill", "--facility", "atlantis"]);
    assert_eq!(nobody.code, Some(3), "{}", nobody.text());
}

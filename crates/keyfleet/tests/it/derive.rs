//! `keyfleet derive` against the published vectors.

use std::fs;

use kf_testkit::{Output, TempDir, Tool, scratch};
use serde_json::Value;

use crate::console::{json, keyfleet, private};

const FACILITY: [&str; 2] = ["--facility", "01930000-0000-7000-8000-0000000000fa"];
const DEVICE: [&str; 4] = ["--device", "dev_019300000000700080000000000000de", "--salt-file", "salt.hex"];
const BOOT: [&str; 2] = ["--boot-random", "b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0"];

/// A directory with the root and the salt of the vectors.
fn home() -> TempDir {
    let home = scratch();
    private(&home.path().join("root.hex"), &format!("{}\n", published("fleet root")));
    private(&home.path().join("salt.hex"), &"5a".repeat(16));
    home
}

fn published(name: &str) -> String {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../../vectors/derive.json");
    let document: Value = serde_json::from_str(&fs::read_to_string(file).unwrap()).unwrap();
    let vectors = document["vectors"].as_array().unwrap();
    let vector = vectors.iter().find(|vector| vector["name"] == name);
    vector.unwrap_or_else(|| panic!("no vector {name}"))["output"].as_str().unwrap().to_owned()
}

fn derive(home: &TempDir, arguments: &[&[&str]]) -> Output {
    keyfleet(home.path()).run(&[&["derive"], arguments.concat().as_slice()].concat())
}

#[test]
fn every_kind_of_place_gives_its_published_key() {
    let home = home();
    let facility = FACILITY.as_slice();
    let device = [facility, &DEVICE].concat();
    let sealing = |sender, algorithm| {
        [&device, ["--service", "telemetry"].as_slice(), &BOOT, &["--sender", sender, "--algorithm", algorithm]]
            .concat()
    };
    let session = ["--session", "session 42", "--session-epoch", "1"];
    let encryption = ["--service", "telemetry", "--service-epoch", "1", "--algorithm", "aes-128-gcm"];
    let cases: Vec<(&str, Vec<&str>)> = vec![
        ("facility, epoch 1", facility.to_vec()),
        ("facility, last epoch", [facility, &["--facility-epoch", "4294967295"]].concat()),
        ("batch", [facility, &["--batch", "2026-W47-3"]].concat()),
        ("device of a batch", [&device, ["--batch", "2026-W47-3"].as_slice()].concat()),
        ("device, epoch 2", [&device, ["--device-epoch", "2"].as_slice()].concat()),
        ("storage", [&device, ["--storage", "config"].as_slice()].concat()),
        ("session", [&device, session.as_slice()].concat()),
        ("application telemetry", [&device, ["--service", "telemetry"].as_slice()].concat()),
        ("encryption, AES-128-GCM", [&device, session.as_slice(), &encryption].concat()),
        ("ratchet, position 2", [&device, ["--ratchet", "2"].as_slice()].concat()),
        ("session at ratchet position 2", [&device, ["--ratchet", "2", "--session", "session 42"].as_slice()].concat()),
        ("sealing by the device, AES-128-CCM", sealing("device", "aes-128-ccm")),
        ("sealing by the server, ChaCha20-Poly1305", sealing("server", "chacha20-poly1305")),
        (
            "counter mode: sealing, AES-128-CCM",
            [sealing("device", "aes-128-ccm").as_slice(), &["--arrangement", "counter-mode"]].concat(),
        ),
    ];
    for (name, arguments) in cases {
        let output = derive(&home, &[&["--vector-root", "--format", "json"], &arguments]);
        assert_eq!(json(&output)["key"], Value::from(published(name)), "{name}: {}", output.text());
    }
}

#[test]
fn a_key_is_shown_only_on_request_and_never_its_parents() {
    let home = home();
    let device = published("device, epoch 1");
    let from_root = ["--root-file", "root.hex"];
    for format in ["table", "json", "csv"] {
        let hidden = derive(&home, &[&from_root, &FACILITY, &DEVICE, &["--format", format]]);
        assert!(hidden.success(), "{}", hidden.text());
        let shown = derive(&home, &[&from_root, &FACILITY, &DEVICE, &["--format", format, "--reveal"]]);
        assert!(shown.stdout_text().contains(&device), "{}", shown.text());
        for secret in [device.as_str(), &published("fleet root"), &published("facility, epoch 1")] {
            assert!(!hidden.text().contains(secret), "{}", hidden.text());
            assert!(secret == device || !shown.text().contains(secret), "{}", shown.text());
        }
    }
}

#[test]
fn two_sides_with_one_key_see_one_check_value() {
    let home = home();
    private(&home.path().join("device.hex"), &published("device, epoch 1"));
    let check = |arguments: &[&[&str]]| {
        let output = derive(&home, &[arguments.concat().as_slice(), &["--format", "json"]]);
        json(&output)["check"].as_str().unwrap_or_else(|| panic!("{}", output.text())).to_owned()
    };
    let service = ["--service", "telemetry"];
    let server = check(&[&["--root-file", "root.hex"], &FACILITY, &DEVICE, &service]);
    let on_device = check(&[&["--device-key-file", "device.hex"], &service]);
    assert_eq!(server, on_device);
    assert_ne!(server, check(&[&["--device-key-file", "device.hex"], &["--service", "command"]]));
    assert_eq!(server.len(), 16);
}

#[test]
fn a_root_comes_from_octets_standard_input_or_a_descriptor() {
    let home = home();
    let expected = published("facility, epoch 1");
    let octets: Vec<u8> = (0..32).collect();
    private(&home.path().join("root.bin"), "");
    fs::write(home.path().join("root.bin"), &octets).unwrap();
    let raw = derive(&home, &[&["--root-file", "root.bin", "--reveal"], &FACILITY]);
    assert!(raw.stdout_text().contains(&expected), "{}", raw.text());
    let arguments = [&["derive", "--root-file", "-", "--reveal"], FACILITY.as_slice()].concat();
    let piped = keyfleet(home.path()).run_with_input(&arguments, published("fleet root").as_bytes());
    assert!(piped.stdout_text().contains(&expected), "{}", piped.text());
    let command = format!(
        "exec {} derive --root-file /dev/fd/3 --reveal {} 3< <(cat root.hex)",
        env!("CARGO_BIN_EXE_keyfleet"),
        FACILITY.join(" ")
    );
    let descriptor = Tool::new("bash").directory(home.path()).run(&["-c", &command]);
    assert!(descriptor.stdout_text().contains(&expected), "{}", descriptor.text());
}

#[test]
fn every_step_is_listed_for_whoever_compares() {
    let home = home();
    let output = derive(&home, &[&["--vector-root", "--format", "json"], &FACILITY, &DEVICE, &["--service", "x"]]);
    let answer = json(&output);
    let levels: Vec<_> =
        answer["steps"].as_array().unwrap().iter().map(|step| step["level"].as_str().unwrap()).collect();
    assert_eq!(levels, ["facility", "device", "session", "application"]);
    assert_eq!(answer["steps"][3]["info"], answer["info"]);
}

#[test]
fn what_is_missing_or_wrong_is_named() {
    let home = home();
    fs::write(home.path().join("open.hex"), published("fleet root")).unwrap();
    private(&home.path().join("short.hex"), "00ff");
    let long = "x".repeat(81);
    let cases: Vec<(Vec<&str>, i32, &str)> = vec![
        (vec!["--vector-root"], 2, "--facility"),
        (FACILITY.to_vec(), 2, "--root-file"),
        ([&["--root-file", "open.hex"], FACILITY.as_slice()].concat(), 1, "chmod 600"),
        ([&["--root-file", "short.hex"], FACILITY.as_slice()].concat(), 1, "64 hexadecimal digits"),
        ([&["--root-file", "none.hex"], FACILITY.as_slice()].concat(), 3, "none.hex"),
        ([&["--vector-root", "--service", "x"], FACILITY.as_slice()].concat(), 2, "--device"),
        (
            [&["--vector-root", "--batch", long.as_str()], FACILITY.as_slice()].concat(),
            2,
            "--batch: the context has 81",
        ),
        ([&["--vector-root", "--ratchet", "4097"], FACILITY.as_slice(), &DEVICE].concat(), 2, "more than 4096 steps"),
    ];
    for (arguments, code, says) in cases {
        let output = derive(&home, &[&arguments]);
        assert_eq!(output.code, Some(code), "{arguments:?} {}", output.text());
        let said = output.stderr_text();
        assert!(said.contains(says) && said.contains("\n  try: "), "{arguments:?} {said}");
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn options_that_need_each_other_say_so() {
    let home = home();
    let cases: [(&[&str], &str); 6] = [
        (&["--device", DEVICE[1]], "--facility"),
        (&["--facility", FACILITY[1], "--device", DEVICE[1]], "--salt-file"),
        (&["--service", "x", "--boot-random", BOOT[1]], "--sender"),
        (&["--algorithm", "aes-128-ccm"], "--service"),
        (&["--facility", "dev_019300000000700080000000000000de"], "fac_"),
        (&["--root-file", "root.hex", "--vector-root"], "cannot be used with"),
    ];
    for (arguments, says) in cases {
        let output = derive(&home, &[arguments]);
        assert_eq!(output.code, Some(2), "{arguments:?} {}", output.text());
        assert!(output.stderr_text().contains(says), "{arguments:?} {}", output.text());
    }
}

//! A factory station between two boards: what it keeps of the one that it made.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use kf_derive::{FleetRoot, SoftwareKey};
use kf_key::{BatchId, FacilityId, SecretArray};
use kf_testkit::{KnownSecret, Running, search_memory};

use super::{assert_that_this_machine_dumps, leaves_a_core_dump, none_of, root_of, scalar};
use crate::line::{LineUp, STATION_PASSPHRASE};

const RECIPE: &str = "format = 1\nsku = \"gate-r1\"\nproduct_line = \"thermo\"\ntarget = \"linux\"\n\
                      [identity]\nalgorithm = \"p-256\"\norigin = \"station\"\nprotection = \"plain\"\n\
                      unsafe_plain_private_key = true\n[device_key]\ninject = true\n[label]\nserver = \"https://fleet.example\"\n";

/// A fixture that keeps what is written to its first board in the folder `board`, and waits for ever for a second board.
const FIXTURE: &str = r#"#!/usr/bin/env python3
import json, os, subprocess, sys
flash, left, folder = [], 1, "board"
ask = lambda count: sys.stdin.buffer.read(count)
def say(answer, octets=b""):
    sys.stdout.buffer.write(json.dumps(answer).encode() + b"\n" + octets)
    sys.stdout.buffer.flush()
def keep(name, octets):
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, name), "wb") as file:
        file.write(octets)
for line in sys.stdin.buffer:
    question = json.loads(line)
    match question["do"]:
        case "read" if left:
            left = 0
            say({"mac": "02:00:00:00:00:01", "board": "B-1"})
        case "read":
            print("the next board is awaited", file=sys.stderr, flush=True)
        case "noise":
            say({"none": True})
        case "write":
            flash = [(part, ask(part["length"])) for part in question["segments"]]
            for part, octets in flash:
                keep(part["name"], octets)
            keep("unlock", ask(question.get("unlock") or 0))
            say({})
        case "read-back":
            say({"segments": [part for part, _ in flash], "chip_state": {}}, b"".join(octets for _, octets in flash))
        case "prove":
            message = ask(question["octets"])
            sign = ["openssl", "dgst", "-sha256", "-sign", os.path.join(folder, "idevid.key")]
            signature = subprocess.run(sign, input=message, capture_output=True, check=True).stdout
            say({"octets": len(signature)}, signature)
        case "show":
            say({})
        case other:
            say({"error": other})
"#;

/// A station that has made one board and waits for the next, and the folder of that board.
fn between_two_boards(line: &LineUp) -> Running {
    let fixture = line.fleet.path("fixture.py");
    fs::write(&fixture, FIXTURE).unwrap();
    fs::set_permissions(&fixture, fs::Permissions::from_mode(0o700)).unwrap();
    let mut station = line.start(line.fleet.tool().with_core_dumps(), &["--fixture", fixture.to_str().unwrap()]);
    station.wait_for_line(|line| line == "the next board is awaited");
    station
}

/// Between its lines, the digits of a key in PEM.
fn digits(pem: &str) -> Vec<String> {
    pem.lines().filter(|line| !line.starts_with('-')).map(str::to_owned).collect()
}

fn of_the_board(folder: &Path) -> Vec<KnownSecret> {
    let pem = fs::read_to_string(folder.join("idevid.key")).unwrap();
    let pkcs8 = kf_pki::pem::decode_all("PRIVATE KEY", &pem).unwrap().remove(0);
    let unlock: [u8; 32] = fs::read(folder.join("unlock")).unwrap().try_into().unwrap();
    let sealed = fs::read(folder.join("device.key")).unwrap();
    let unlock_key = SecretArray::fill(|octets| *octets = unlock);
    let device_key = kf_crypto::open(&unlock_key, b"keyfleet station device key v1", &sealed).unwrap();
    let mut known = vec![
        KnownSecret::new("identity key", scalar(&pkcs8)),
        KnownSecret::new("what unlocks", &unlock),
        KnownSecret::new("device key", device_key.expose()),
    ];
    // The first line begins with what all such keys have in common.
    for line in digits(&pem).iter().skip(1) {
        known.push(KnownSecret::new("identity key, as text", line.as_bytes()));
    }
    known
}

/// What the station derives the keys of its devices from.
fn batch_key(line: &LineUp) -> SecretArray<32> {
    let shown = line.fleet.json(&["batch", "show", "b-1"]);
    let batch: BatchId = shown["id"].as_str().unwrap().parse().unwrap();
    let facility = line.fleet.json(&["facility", "show", "lyon"]);
    let facility: FacilityId = facility["id"].as_str().unwrap().parse().unwrap();
    let root = root_of(&line.fleet, "correct horse battery staple");
    let facility = FleetRoot::from_keyed_hmac(SoftwareKey::new(root)).facility(facility, 1).unwrap();
    facility.batch(batch.as_bytes(), 0).unwrap().into_secret()
}

/// The enrolment code on the label of the board, which waits in the spool for the printer.
fn code_of_the_label(folder: &Path) -> String {
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if let Ok(label) = serde_json::from_slice::<serde_json::Value>(&fs::read(path).unwrap())
                && let Some(code) = label["code"].as_str()
            {
                return code.to_owned();
            }
        }
    }
    panic!("there is no label");
}

#[test]
fn a_station_between_two_boards_keeps_nothing_of_the_keys_of_the_first_and_leaves_no_core_dump() {
    let line = LineUp::authorised(RECIPE, &["--allow-unsafe"]);
    assert_that_this_machine_dumps(line.fleet.scratch.path());
    let station = between_two_boards(&line);
    let mut known = of_the_board(&line.fleet.path("board"));
    known.push(KnownSecret::new("passphrase", STATION_PASSPHRASE.as_bytes()));
    known.push(KnownSecret::new("code on the label", code_of_the_label(&line.fleet.path("station")).as_bytes()));
    known.push(KnownSecret::new("batch key", batch_key(&line).expose()));
    let found = search_memory(station.id(), &known);
    assert!(found.count("batch key") > 0, "the search sees the key in use");
    let passed =
        ["passphrase", "code on the label", "identity key", "identity key, as text", "what unlocks", "device key"];
    none_of(&found, &passed, "the station");
    assert!(!leaves_a_core_dump(station));
}

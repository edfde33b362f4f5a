//! NVS through the C interface: from a partition that Espressif's generator made to one that its tool decrypts and that another
//! implementation mounts, with a C program in between that cuts the power everywhere.

use std::collections::BTreeMap;

use kf_flash::nvs::{NvsKeys, PAGE_OCTETS, Partition, remnants};
use kf_key::SecretArray;
use kf_testkit::{Python, Tool};
use serde_json::{Value, json};

use crate::chip_flash::{ChipFlash, key, start};
use crate::{c_file, compile, root};

const PAGES: usize = 4;

fn pattern(octets: usize, period: usize) -> Vec<u8> {
    (0..octets).map(|number| u8::try_from(number % period).unwrap()).collect()
}

/// What Espressif's module answers to a job.
fn espressif(job: &Value) -> Vec<u8> {
    let script = root().join("crates/kf-flash/tests/it/nvs/espressif_nvs.py");
    let python: &Tool = &Python::with_espressif_module("esp_idf_nvs_partition_gen").tool().clone();
    let answer = python.run_with_input(&[script.to_str().unwrap()], format!("{job}\n").as_bytes()).expect_success();
    let answer: Value = serde_json::from_str(&answer.stdout_text()).unwrap();
    hex::decode(answer["image"].as_str().unwrap_or_else(|| panic!("{answer}"))).unwrap()
}

/// The partition that the program begins with, under `keys` or in clear.
fn made(keys: Option<&[u8; 64]>) -> Vec<u8> {
    let table = hex::encode(pattern(5_000, 253));
    let wifi = json!([["ssid", "string", "plant floor"], ["password", "string", "correct horse battery staple"]]);
    let calib = json!([["offset", "i32", "-7"], ["serial", "u64", "81985529216486895"], ["table", "hex2bin", table]]);
    let last = json!([["channel", "u8", "11"]]);
    let image = espressif(&json!({
        "size": PAGES * PAGE_OCTETS, "keys": keys.map(hex::encode),
        "namespaces": [["calib", calib], ["wifi", wifi.as_array().unwrap().iter().chain(last.as_array().unwrap()).collect::<Vec<_>>()]],
    }));
    assert_eq!(image.len(), PAGES * PAGE_OCTETS);
    image
}

/// The operations of each act, and the partition in clear, by Espressif's tool.
fn run(keys: Option<[u8; 64]>) -> (BTreeMap<String, u32>, Vec<u8>) {
    let scratch = kf_testkit::scratch();
    let (before, after) = (scratch.path().join("before.bin"), scratch.path().join("after.bin"));
    std::fs::write(&before, made(keys.as_ref())).unwrap();
    let program = compile("gcc", "-std=c11", scratch.path(), &[c_file("nvs.c")]);
    let own = keys.map_or_else(|| "-".to_owned(), hex::encode);
    let program = program.deadline(std::time::Duration::from_secs(300));
    let printed =
        program.run(&[before.to_str().unwrap(), &own, after.to_str().unwrap()]).expect_success().stdout_text();
    let mut cuts = BTreeMap::new();
    let mut derived = [0; 64];
    for line in printed.lines() {
        let (what, found) = line.rsplit_once(' ').unwrap();
        if what == "keys" {
            hex::decode_to_slice(found, &mut derived).unwrap();
        } else {
            cuts.insert(what.to_owned(), found.parse().unwrap());
        }
    }
    let mut keys_partition = [0; PAGE_OCTETS];
    NvsKeys::from_secret(SecretArray::fill(|keys| *keys = derived)).unwrap().write_partition(&mut keys_partition);
    let encrypted = hex::encode(std::fs::read(after).unwrap());
    let plain = espressif(&json!({ "encrypted": encrypted, "keys": hex::encode(keys_partition) }));
    (cuts, plain)
}

/// As a device mounts it, by the crate esp-nvs; then it goes on writing.
fn check(plain: &[u8]) {
    let mut flash = ChipFlash::holding(plain);
    let mut nvs = start(&mut flash);
    let (wifi, calib, site) = (key("wifi"), key("calib"), key("site"));
    assert_eq!(nvs.get::<String>(&wifi, &key("ssid")).unwrap(), "plant floor");
    assert_eq!(nvs.get::<String>(&wifi, &key("password")).unwrap(), "x".repeat(3_600));
    assert_eq!(nvs.get::<String>(&site, &key("name")).unwrap(), "Lyon");
    assert_eq!(nvs.get::<i32>(&calib, &key("offset")).unwrap(), 8);
    assert_eq!(nvs.get::<u64>(&calib, &key("serial")).unwrap(), 0x0123_4567_89ab_cdef);
    assert_eq!(nvs.get::<u8>(&wifi, &key("channel")).unwrap(), 11);
    assert_eq!(nvs.get::<Vec<u8>>(&calib, &key("table")).unwrap(), pattern(40, 241));
    assert!(nvs.get::<Vec<u8>>(&calib, &key("k0")).is_err(), "it was removed");
    nvs.set(&calib, &key("offset"), 9_i32).unwrap();
    nvs.set(&site, &key("floor"), 2_u8).unwrap();
    drop(nvs);
    let mut nvs = start(&mut flash);
    assert_eq!(nvs.get::<i32>(&calib, &key("offset")).unwrap(), 9);
    assert_eq!(nvs.get::<u8>(&site, &key("floor")).unwrap(), 2);
}

#[test]
fn a_partition_that_c_adopts_writes_and_moves_loses_nothing_to_any_power_cut_and_is_mounted_by_others() {
    for keys in [None, Some(core::array::from_fn(|number| u8::try_from(number).unwrap()))] {
        let (cuts, plain) = run(keys);
        assert_eq!(cuts.len(), 9, "{cuts:?}");
        assert!(cuts.values().all(|cuts| *cuts > 20) && cuts.values().sum::<u32>() > 2_000, "{cuts:?}");
        assert_eq!(remnants(Partition::new(&plain).unwrap()).count(), 0, "nothing of what was replaced is left");
        check(&plain);
    }
}

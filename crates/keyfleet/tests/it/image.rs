//! `keyfleet image` on partitions that Espressif's generator made and keys that openssl made.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use kf_testkit::{Python, TempDir, Tool, scratch};
use serde_json::Value;

use crate::console::{json, keyfleet, private};

const PAGE: usize = 4096;
/// The value that the tests store, and then erase.
const PASSWORD: &str = "correct horse battery";

/// A directory with `nvs.bin`, made by Espressif's generator, and `keys.bin` when it is encrypted.
struct Dump {
    home: TempDir,
}

impl Dump {
    fn new(is_encrypted: bool) -> Self {
        let dump = Self { home: scratch() };
        let content = format!(
            "key,type,encoding,value\nwifi,namespace,,\nssid,data,string,lab\npassword,data,string,{PASSWORD}\n"
        );
        fs::write(dump.path("content.csv"), content).unwrap();
        let generator = |arguments: &[&str]| {
            let python = Python::with_espressif_module("esp_idf_nvs_partition_gen");
            let tool = python.tool().clone().directory(dump.home.path());
            let output = tool.run(&[&["-m", "esp_idf_nvs_partition_gen"], arguments].concat());
            drop(output.expect_success());
        };
        if is_encrypted {
            generator(&["generate-key", "--keyfile", "keys.bin"]);
            let keys = fs::read_dir(dump.path("keys")).unwrap().next().unwrap().unwrap().path();
            fs::rename(keys, dump.path("keys.bin")).unwrap();
            fs::set_permissions(dump.path("keys.bin"), fs::Permissions::from_mode(0o600)).unwrap();
            generator(&["encrypt", "content.csv", "nvs.bin", "0x3000", "--inputkey", "keys.bin"]);
        } else {
            generator(&["generate", "content.csv", "nvs.bin", "0x3000"]);
        }
        dump
    }

    fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    /// What `nvs_erase_key` does to the slots of the last item: their two bits in the state table become 00.
    fn erase_the_password(&self) {
        let mut image = fs::read(self.path("nvs.bin")).unwrap();
        // Slot 0 names the namespace, 1 and 2 hold `ssid`, 3 and 4 the password.
        for slot in [3, 4] {
            image[32 + slot / 4] &= !(0b11 << (slot % 4 * 2));
        }
        fs::write(self.path("nvs.bin"), image).unwrap();
    }

    fn run(&self, arguments: &[&str]) -> kf_testkit::Output {
        keyfleet(self.home.path()).run(&[&["image"], arguments].concat())
    }
}

fn findings(report: &Value) -> Vec<(&str, u64, u64)> {
    let place = |row: &Value, field: &str| row[field].as_u64().unwrap();
    let findings = report["findings"].as_array().unwrap().iter();
    findings.map(|row| (row["kind"].as_str().unwrap(), place(row, "offset"), place(row, "length"))).collect()
}

#[test]
fn an_image_with_a_private_key_is_refused_with_the_keys_offset() {
    let dump = Dump::new(false);
    let pem = Tool::new("openssl").run(&["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"]);
    let pem = pem.expect_success().stdout;
    let pem = pem.trim_ascii_end();
    let mut image = fs::read(dump.path("nvs.bin")).unwrap();
    let offset = 2 * PAGE + 100;
    image[offset..offset + pem.len()].copy_from_slice(pem);
    fs::write(dump.path("nvs.bin"), image).unwrap();
    let output = dump.run(&["check", "nvs.bin", "--format", "json"]);
    assert_eq!(output.code, Some(1), "{}", output.text());
    let report = json(&output);
    assert_eq!(findings(&report), [("private_key_pem", 8292, u64::try_from(pem.len()).unwrap())]);
    let structure = &report["structures"][0];
    assert_eq!((structure["kind"].as_str(), structure["offset"].as_u64()), (Some("nvs"), Some(0)), "{report}");
    assert!(structure["detail"].as_str().unwrap().starts_with("plain"), "{report}");
}

#[test]
fn an_image_without_a_secret_passes_and_an_encrypted_partition_is_told_from_a_plain_one() {
    let dump = Dump::new(true);
    let output = dump.run(&["check", "nvs.bin", "--format", "json"]).expect_success();
    let report = json(&output);
    assert!(findings(&report).is_empty(), "{report}");
    assert!(report["structures"][0]["detail"].as_str().unwrap().starts_with("encrypted"), "{report}");
    let keys = dump.run(&["check", "keys.bin", "--format", "json"]);
    assert_eq!(findings(&json(&keys)), [("nvs_keys", 0, 64)]);
}

#[test]
fn a_named_secret_is_found_and_not_printed() {
    let dump = Dump::new(false);
    private(&dump.path("password"), PASSWORD);
    let output = dump.run(&["check", "nvs.bin", "--secret", "wifi=password"]);
    assert_eq!(output.code, Some(1), "{}", output.text());
    assert!(output.text().contains("wifi, raw"), "{}", output.text());
    assert!(!output.text().contains("correct"), "{}", output.text());
}

#[test]
fn the_scalar_of_a_key_in_pem_is_found_where_it_lies_bare() {
    let dump = Dump::new(false);
    let openssl = Tool::new("openssl");
    let pem = openssl.run(&["ecparam", "-name", "prime256v1", "-genkey"]).expect_success().stdout;
    let der = openssl.run_with_input(&["ec", "-outform", "DER"], &pem).expect_success().stdout;
    // ECPrivateKey (RFC 5915): SEQUENCE, version 1, OCTET STRING of 32 octets from octet 7 on.
    let scalar = &der[7..39];
    private(&dump.path("key.pem"), std::str::from_utf8(&pem).unwrap());
    let mut image = vec![0xff; 2 * PAGE];
    image[5000..5032].copy_from_slice(scalar);
    fs::write(dump.path("image.bin"), image).unwrap();
    let output = dump.run(&["check", "image.bin", "--secret", "device=key.pem", "--format", "json"]);
    assert_eq!(findings(&json(&output)), [("secret", 5000, 32)]);
}

#[test]
fn what_erase_key_leaves_is_found_with_namespace_key_and_place_of_the_value() {
    let dump = Dump::new(false);
    let clean = dump.run(&["remnants", "nvs.bin", "--format", "json"]).expect_success();
    assert!(findings(&json(&clean)).is_empty());
    dump.erase_the_password();
    let output = dump.run(&["remnants", "nvs.bin", "--format", "json"]);
    assert_eq!(output.code, Some(1), "{}", output.text());
    let report = json(&output);
    // Header, state table, and three slots of 32 octets before it.
    assert_eq!(findings(&report), [("erased_item", 160, 64)]);
    let row = &report["findings"][0];
    assert_eq!((row["namespace"].as_str(), row["key"].as_str()), (Some("wifi"), Some("password")));
    assert_eq!((row["value_offset"].as_u64(), row["value_length"].as_u64()), (Some(192), Some(22)));
    assert!(!output.text().contains("correct"), "values are never printed: {}", output.text());
}

#[test]
fn an_encrypted_partition_is_opened_with_its_keys_and_says_so_without_them() {
    let dump = Dump::new(true);
    dump.erase_the_password();
    private(&dump.path("password"), PASSWORD);
    let shut = dump.run(&["remnants", "nvs.bin", "--format", "json"]);
    let report = json(&shut);
    assert_eq!(report["partitions"][0]["state"], "encrypted");
    assert!(report["findings"].as_array().unwrap().iter().all(|row| row["kind"] == "erased_octets"), "{report}");
    let arguments = ["remnants", "nvs.bin", "--nvs-keys", "keys.bin", "--secret", "wifi=password", "--format", "json"];
    let report = json(&dump.run(&arguments));
    assert_eq!(report["partitions"][0]["state"], "opened");
    assert_eq!(findings(&report), [("erased_item", 160, 64), ("secret", 192, 21)]);
}

#[test]
fn what_cannot_be_looked_through_is_refused_with_a_remedy() {
    let dump = Dump::new(false);
    fs::write(dump.path("open.key"), "00112233445566778899aabbccddeeff").unwrap();
    fs::set_permissions(dump.path("open.key"), fs::Permissions::from_mode(0o644)).unwrap();
    fs::write(dump.path("text.bin"), "no flash").unwrap();
    private(&dump.path("short.key"), "abc");
    let refused = |arguments: &[&str], told: &str| {
        let output = dump.run(arguments);
        assert!(!output.success(), "{arguments:?}");
        assert!(output.text().contains(told), "{arguments:?}: {}", output.text());
    };
    refused(&["check", "absent.bin"], "absent.bin");
    refused(&["check", "nvs.bin", "--secret", "key=open.key"], "chmod 600");
    refused(&["check", "nvs.bin", "--secret", "key=short.key"], "8 to 4096 octets");
    refused(&["check", "nvs.bin", "--secret", "short.key"], "NAME=FILE");
    refused(&["check", "nvs.bin", "--digest", "key=00:32"], "NAME=SHA256:OCTETS");
    refused(&["remnants", "text.bin"], "--offset and --length");
    refused(&["remnants", "nvs.bin", "--offset", "0", "--length", "0x4000"], "ends past the end");
    refused(&["remnants", "nvs.bin", "--offset", "0", "--length", "100"], "check --offset and --length");
    refused(&["remnants", "nvs.bin", "--hmac-key", "short.key"], "64 hexadecimal digits");
}

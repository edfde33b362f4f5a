//! What the station wrote, read by Espressif's own tools.

use std::fs;
use std::sync::Arc;

use kf_api::batch::Outcome;
use kf_batch::record::Record;
use kf_crypto::PrivateKey;
use kf_flash::flash_encryption::FlashCipher;
use kf_flash::nvs::{ItemType, Partition, Stored};
use kf_key::{KeyAlgorithm, SecretBytes};
use kf_station::fixture::{Board, Simulator, Supply};
use kf_testkit::{Python, scratch};
use serde_json::{Value, json};

use crate::esp32::{C3, scheme_a};
use crate::stage::{Disk, Stage};

/// Octets of the NVS partition of the recipes here.
const NVS_OCTETS: u32 = 0x6000;
const BOARDS: u32 = 6;
/// What the tests of the partitions themselves run.
const NVS_SCRIPT: &str = "../../../kf-flash/tests/it/nvs/espressif_nvs.py";

struct Made {
    stage: Stage,
    boards: Vec<(Board, Record)>,
}

/// Makes devices, each with its record.
fn make(recipe: &str) -> Made {
    let stage = Stage::new(recipe, BOARDS);
    let supply = Supply::new((1..=BOARDS).map(|number| Board::new(number, Some("esp32-c3"))));
    let (station, _) = stage.open(Disk::default()).unwrap();
    station.run(vec![Box::new(Simulator::new(Arc::clone(&supply), Arc::clone(&stage.target)))], &());
    assert_eq!(station.counts().good, BOARDS, "{:?}", station.counts());
    let records = stage.records(&mut station.into_file());
    let boards = supply.take_done().into_values().map(|(board, _)| {
        let mac = hex::decode(board.mac().replace(':', "")).unwrap();
        let is_its = |record: &&Record| record.hardware.iter().any(|hardware| hardware.value == mac);
        let record = records.iter().find(is_its).unwrap().clone();
        assert_eq!(record.outcome, Outcome::Passed);
        (board, record)
    });
    let boards = boards.collect();
    Made { stage, boards }
}

impl Made {
    fn chain(&self, record: &Record) -> String {
        let terms = &self.stage.authorised.quota.terms;
        let leaf = kf_pki::pem::certificate(record.certificate.as_ref().unwrap());
        leaf + &kf_pki::pem::certificate(&terms.authority_certificate)
    }

    fn anchor(&self) -> &[u8] {
        &self.stage.authorised.quota.terms.anchor
    }

    fn name(&self, record: &Record) -> String {
        self.stage.authorised.quota.terms.devices.name(record.device).unwrap()
    }
}

/// What a script answers to each job, one JSON object a line.
fn ask(module: &str, script: &str, jobs: &[Value]) -> Vec<Value> {
    let input: String = jobs.iter().map(|job| format!("{job}\n")).collect();
    let path = format!("{}/tests/it/{script}", env!("CARGO_MANIFEST_DIR"));
    let python = Python::with_espressif_module(module);
    let output = python.tool().run_with_input(&[path.as_str()], input.as_bytes()).expect_success();
    let answers: Vec<Value> = output.stdout_text().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(answers.len(), jobs.len());
    answers
}

fn octets(answer: &Value, name: &str) -> Vec<u8> {
    hex::decode(answer[name].as_str().unwrap_or_else(|| panic!("no {name} in {answer}"))).unwrap()
}

fn segment<'a>(board: &'a Board, name: &str) -> &'a [u8] {
    board.segments().iter().find(|segment| segment.name == name).unwrap().octets.expose()
}

fn blob(partition: &Partition<'_>, name: &str) -> Vec<u8> {
    let namespace = partition.namespace("keyfleet").unwrap().unwrap();
    let Some(Stored::Blob(blob)) = partition.value(namespace, name).unwrap() else { panic!("no {name}") };
    let mut out = vec![0; blob.len()];
    blob.copy_to(&mut out).unwrap();
    out
}

/// Whether the generator wrote a first chunk without octets, because a blob began at the last slot of a page: the one thing
/// in which the firmware and we differ from it.
fn has_an_empty_chunk(image: &[u8]) -> bool {
    let partition = Partition::new(image).unwrap();
    partition.items().any(|(_, entry)| entry.item_type == Some(ItemType::BlobData) && entry.value_octets() == Some(0))
}

/// Decrypts each NVS partition with Espressif's tool under `keys`, and has their generator write the same contents again.
fn check_nvs(made: &Made, keys: impl Fn(&Board) -> Value, has_chain: bool, has_key: bool) {
    let decrypt: Vec<Value> = made
        .boards
        .iter()
        .map(|(board, _)| json!({"encrypted": hex::encode(segment(board, "nvs")), "keys": keys(board)}))
        .collect();
    let plain: Vec<Vec<u8>> =
        ask("esp_idf_nvs_partition_gen", NVS_SCRIPT, &decrypt).iter().map(|answer| octets(answer, "image")).collect();
    let mut jobs = Vec::new();
    for ((_, record), image) in made.boards.iter().zip(&plain) {
        let partition = Partition::new(image).unwrap();
        let mut items = vec![
            json!(["name", "string", made.name(record)]),
            json!(["line", "string", "pump"]),
            json!(["server", "string", "https://rehearsal.invalid"]),
        ];
        if has_chain {
            items.push(json!(["anchor", "hex2bin", hex::encode(made.anchor())]));
            items.push(json!(["idevid_chain", "hex2bin", hex::encode(made.chain(record))]));
        }
        items.push(json!(["device_key", "hex2bin", hex::encode(blob(&partition, "device_key"))]));
        if has_key {
            let pkcs8 = blob(&partition, "idevid_key");
            check_key(&pkcs8, record);
            items.push(json!(["idevid_key", "hex2bin", hex::encode(pkcs8)]));
        }
        jobs.push(json!({"size": NVS_OCTETS, "keys": null, "namespaces": [["keyfleet", items]]}));
    }
    for (answer, image) in ask("esp_idf_nvs_partition_gen", NVS_SCRIPT, &jobs).iter().zip(&plain) {
        let theirs = octets(answer, "image");
        assert!(theirs == *image || has_an_empty_chunk(&theirs), "other octets than the generator's");
    }
}

fn check_key(pkcs8: &[u8], record: &Record) {
    let key = PrivateKey::from_pkcs8(KeyAlgorithm::P256, &SecretBytes::from_vec(pkcs8.to_vec())).unwrap();
    assert_eq!(kf_crypto::sha256(&key.spki()), record.key.unwrap().spki_sha256);
}

/// The keys that the chip derives from its fuse, by Espressif's generator.
fn keys_of_fuse(board: &Board) -> Value {
    let job = json!({"hmac_key": hex::encode(board.unlock().unwrap().expose())});
    let [answer] = &ask("esp_idf_nvs_partition_gen", NVS_SCRIPT, &[job])[..] else { panic!("one answer") };
    // The keys partition begins with them.
    answer["keys_partition"].as_str().unwrap()[..128].into()
}

#[test]
fn nvs_partitions_under_a_fused_key_are_those_of_espressifs_generator() {
    check_nvs(&make(C3), keys_of_fuse, true, true);
}

#[test]
fn nvs_partitions_with_a_keys_partition_are_those_of_espressifs_generator() {
    let made = make(&scheme_a());
    // The chip reads the keys through flash encryption, which the station turned on; espsecure does it alike (kf-flash's tests).
    let through_flash_encryption = |board: &Board| {
        let partition = board.segments().iter().find(|segment| segment.name == "nvs_keys").unwrap();
        let mut octets = partition.octets.expose().to_vec();
        let cipher = FlashCipher::aes_128(board.held().flash_key.as_ref().unwrap());
        cipher.decrypt(partition.offset, &mut octets).unwrap();
        hex::encode(&octets[..64]).into()
    };
    check_nvs(&made, through_flash_encryption, true, true);
}

#[test]
fn esp_secure_cert_is_read_by_espressifs_tool_and_opened_as_the_firmware_opens_it() {
    let recipe = C3.replace("[[fuse]]", "secure_cert = { offset = 0x10000, size = 0x2000 }\n[[fuse]]");
    let made = make(&recipe);
    let parse: Vec<Value> = made
        .boards
        .iter()
        .map(|(board, _)| {
            let fuse = hex::encode(board.unlock().unwrap().expose());
            json!({"parse": hex::encode(segment(board, "esp_secure_cert")), "efuse_key": fuse})
        })
        .collect();
    for ((_, record), answer) in made.boards.iter().zip(ask("esp_secure_cert", "espressif_secure_cert.py", &parse)) {
        let records = answer["records"].as_array().unwrap();
        assert!(records.iter().all(|record| record["valid"] == true), "{records:?}");
        let value = |kind: u8| {
            let found = records.iter().find(|record| record["type"] == kind).unwrap();
            hex::decode(found["value"].as_str().unwrap()).unwrap()
        };
        // PEM ends in a NUL, as mbedTLS wants it.
        assert_eq!(value(0), (kf_pki::pem::certificate(made.anchor()) + "\0").into_bytes());
        assert_eq!(value(1), (made.chain(record) + "\0").into_bytes());
        check_key(&octets(&answer, "private_key"), record);
    }
    check_nvs(&made, keys_of_fuse, false, false);
}

#[test]
fn the_chain_in_an_image_is_one_that_openssl_builds() {
    let made = make(C3);
    let folder = scratch();
    let path = |name: &str| folder.path().join(name);
    let terms = &made.stage.authorised.quota.terms;
    fs::write(path("factory.pem"), kf_pki::pem::certificate(&terms.factory_certificate)).unwrap();
    fs::write(path("batch.pem"), kf_pki::pem::certificate(&terms.authority_certificate)).unwrap();
    for (_, record) in &made.boards {
        let leaf = kf_pki::pem::certificate(record.certificate.as_ref().unwrap());
        fs::write(path("leaf.pem"), leaf).unwrap();
        let openssl = kf_testkit::Tool::new("openssl").directory(folder.path());
        let time = (crate::stage::NOW.0 / 1_000 + 60).to_string();
        let arguments = ["verify", "-attime", &time, "-CAfile", "factory.pem", "-untrusted", "batch.pem", "leaf.pem"];
        drop(openssl.run(&arguments).expect_success());
    }
}

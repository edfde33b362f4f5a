//! Ours and Espressif's builder and parser, octet for octet, over random records.

use kf_flash::secure_cert::{Integrity, RecordType, SecureCert, SecureCertError};
use kf_testkit::Python;
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Value, json};

use super::encrypted::{EFUSE_KEY, encrypted_image};
use super::round_trip::records;
use super::{Records, image};

/// What the vendor's tool answers to each job.
fn ask(jobs: &[Value]) -> Vec<Value> {
    let python = Python::with_espressif_module("esp_secure_cert");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/secure_cert/espressif_secure_cert.py");
    let input: String = jobs.iter().map(|job| format!("{job}\n")).collect();
    let folder = kf_testkit::scratch();
    let tool = python.tool().clone().directory(folder.path());
    let output = tool.run_with_input(&[script], input.as_bytes()).expect_success();
    let answers: Vec<Value> =
        output.stdout_text().lines().map(|line| serde_json::from_str(line).expect("one answer per line")).collect();
    assert_eq!(answers.len(), jobs.len());
    answers
}

fn octets(answer: &Value, name: &str) -> Vec<u8> {
    hex::decode(answer[name].as_str().unwrap_or_else(|| panic!("no {name} in {answer}"))).unwrap()
}

fn draw() -> Vec<Records> {
    let mut runner = TestRunner::new(Config::default());
    (0..100).map(|_| records().new_tree(&mut runner).unwrap().current()).collect()
}

#[test]
fn random_partitions_are_those_of_the_vendors_builder_octet_for_octet() {
    let samples = draw();
    let job = |records: &Records| {
        let records: Vec<_> =
            records.iter().map(|(kind, index, value)| json!([kind, index, hex::encode(value), 0])).collect();
        json!({"records": records})
    };
    for (records, answer) in samples.iter().zip(ask(&samples.iter().map(job).collect::<Vec<_>>())) {
        let (image, end) = image(records, 0x2000).unwrap();
        assert_eq!(answer["octets"], end);
        assert_eq!(octets(&answer, "image"), image);
    }
}

#[test]
fn the_vendors_parser_reads_ours() {
    let samples = draw();
    let images: Vec<_> = samples.iter().map(|records| image(records, 0x2000).unwrap()).collect();
    let jobs: Vec<_> = images.iter().map(|(image, _)| json!({"parse": hex::encode(image)})).collect();
    for (records, answer) in samples.iter().zip(ask(&jobs)) {
        let read = answer["records"].as_array().unwrap();
        assert_eq!(read.len(), records.len() + 1);
        for ((kind, index, value), read) in records.iter().zip(read) {
            assert_eq!(*read, json!([kind, index, hex::encode(value), 0, true]));
        }
    }
}

#[test]
fn an_integrity_record_and_end_mark_of_the_vendors_tool_are_read() {
    let (image, end) = image(&vec![(1, 0, vec![7; 33])], 0x2000).unwrap();
    let records_only = &image[..end];
    let appended = octets(&ask(&[json!({"append": hex::encode(records_only)})])[0], "image");
    assert!(appended.len() > end + 48, "with an end mark");
    assert_eq!(SecureCert::new(&appended).unwrap().integrity(), Ok(Integrity::Holds));
    assert_eq!(SecureCert::new(&appended).unwrap().records().count(), 3);
}

#[test]
fn a_record_with_a_wrong_crc_is_an_error_where_the_vendors_parser_exports_it() {
    let (mut image, _) = image(&vec![(1, 0, vec![7; 33])], 0x400).unwrap();
    image[20] ^= 1;
    let read = &ask(&[json!({"parse": hex::encode(&image)})])[0]["records"];
    assert_eq!(read[0][4], false);
    assert_eq!(read.as_array().unwrap().len(), 2, "the vendor's parser was mended: drop this test");
    let partition = SecureCert::new(&image).unwrap();
    assert_eq!(partition.record(RecordType::DeviceCertificate, 0).err(), Some(SecureCertError::Damaged { offset: 0 }));
    assert_eq!(partition.records().filter(Result::is_ok).count(), 0);
}

#[test]
fn the_encrypted_record_opens_with_another_implementation_as_the_firmware_opens_it() {
    let image = encrypted_image(b"a private key");
    let record = SecureCert::new(&image).unwrap().record(RecordType::PrivateKey, 0).unwrap().unwrap();
    let job = json!({"efuse_key": hex::encode(EFUSE_KEY), "record": hex::encode(record.value)});
    assert_eq!(octets(&ask(&[job])[0], "value"), b"a private key");
}

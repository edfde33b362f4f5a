//! The scanner: what is planted is found, where it is, in whatever pieces the image comes.

use kf_flash::nvs::{NvsKeys, PAGE_OCTETS, Value, Writer};
use kf_flash::scan::{
    BlockContent, Encoding, FindingKind, ImageReport, ImageTooLong, KeyFormat, MAX_IMAGE_OCTETS, NamedDigest,
    NamedSecret, Scanner, SecretListError, Secrets, StructureKind,
};
use kf_flash::secure_cert::{KeyProtection, RecordType};
use kf_key::{SecretArray, SecretBytes};
use kf_testkit::Tool;
use proptest::prelude::*;
use sha2::{Digest, Sha256};

use crate::partition_table::entries;

const SECRET: &[u8; 32] = b"\x01thirty-one octets of a secret.\xfe";

fn scan(image: &[u8], secrets: Secrets, piece: usize) -> ImageReport {
    let mut scanner = Scanner::new(secrets);
    image.chunks(piece).try_for_each(|piece| scanner.push(piece)).unwrap();
    scanner.finish()
}

fn named(name: &str, octets: &[u8]) -> NamedSecret {
    NamedSecret { name: name.to_owned(), octets: SecretBytes::from_vec(octets.to_vec()) }
}

fn secrets() -> Secrets {
    Secrets::new(vec![named("device key", SECRET)], Vec::new()).unwrap()
}

/// Octets that look random, and hold nothing.
fn noise(octets: usize) -> Vec<u8> {
    (0_u32..).flat_map(|count| Sha256::digest(count.to_le_bytes())).take(octets).collect()
}

fn kinds(report: &ImageReport) -> Vec<(&'static str, u64, u64)> {
    report.findings.iter().map(|finding| (finding.kind.name(), finding.offset, finding.octets)).collect()
}

/// A private key as openssl writes it: PEM, and DER of the same form.
fn openssl(arguments: &[&str], der: &[&str]) -> (Vec<u8>, Vec<u8>) {
    let openssl = Tool::new("openssl");
    let pem = openssl.run(arguments).expect_success().stdout;
    let der = openssl.run_with_input(der, &pem).expect_success().stdout;
    (pem, der)
}

#[test]
fn an_image_of_noise_holds_nothing_and_looks_random() {
    let report = scan(&noise(300_000), secrets(), 7777);
    assert_eq!((report.findings, report.structures, report.is_truncated), (Vec::new(), Vec::new(), false));
    assert_eq!(report.regions[0].content, BlockContent::LooksRandom);
    assert_eq!(report.octets, 300_000);
}

#[test]
fn private_keys_of_every_form_are_found_at_their_offsets_in_text_and_in_der() {
    let ec = ["ecparam", "-name", "prime256v1", "-genkey", "-noout"];
    let samples = [
        (openssl(&ec, &["ec", "-outform", "DER"]), KeyFormat::Sec1, "EC PRIVATE KEY"),
        (
            openssl(
                &["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"],
                &["pkcs8", "-topk8", "-nocrypt", "-outform", "DER"],
            ),
            KeyFormat::Pkcs8,
            "PRIVATE KEY",
        ),
        (
            openssl(&["genpkey", "-algorithm", "ED25519"], &["pkcs8", "-topk8", "-nocrypt", "-outform", "DER"]),
            KeyFormat::Pkcs8,
            "PRIVATE KEY",
        ),
        (
            openssl(&["genrsa", "-traditional", "2048"], &["rsa", "-traditional", "-outform", "DER"]),
            KeyFormat::Pkcs1,
            "RSA PRIVATE KEY",
        ),
        (
            openssl(&["genrsa", "4096"], &["pkcs8", "-topk8", "-nocrypt", "-outform", "DER"]),
            KeyFormat::Pkcs8,
            "PRIVATE KEY",
        ),
    ];
    let mut image = noise(70_000);
    let mut expected = Vec::new();
    for ((pem, der), format, label) in &samples {
        let pem = pem.strip_suffix(b"\n").unwrap_or(pem);
        expected.push((
            FindingKind::PrivateKeyPem { label: (*label).to_owned(), is_truncated: false },
            image.len(),
            pem.len(),
        ));
        image.extend_from_slice(pem);
        image.extend(noise(333));
        expected.push((FindingKind::PrivateKeyDer { format: *format }, image.len(), der.len()));
        image.extend_from_slice(der);
        image.extend(noise(60_001));
    }
    for piece in [4096, 65_536, 1_000_000] {
        let found = scan(&image, Secrets::default(), piece).findings;
        let found: Vec<_> = found
            .into_iter()
            .map(|finding| {
                (finding.kind, usize::try_from(finding.offset).unwrap(), usize::try_from(finding.octets).unwrap())
            })
            .collect();
        assert_eq!(found, expected, "in pieces of {piece}");
    }
}

#[test]
fn an_encrypted_key_and_one_without_an_end_are_found_and_a_certificate_is_not() {
    let text = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n\
        -----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n\
        -----BEGIN PRIVATE KEY-----\nAAAA";
    let report = scan(text, Secrets::default(), 10);
    let labels: Vec<_> = report
        .findings
        .iter()
        .map(|finding| match &finding.kind {
            FindingKind::PrivateKeyPem { label, is_truncated } => (label.as_str(), *is_truncated),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(labels, [("ENCRYPTED PRIVATE KEY", false), ("PRIVATE KEY", true)]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn a_fragment_of_eight_octets_and_more_is_found_anywhere_and_a_shorter_one_is_not(
        before in 0_usize..150_000, from in 0_usize..25, octets in 7_usize..33, piece in 1_usize..100_000,
    ) {
        let octets = octets.min(32 - from);
        let fragment = &SECRET[from..from + octets];
        // The octets beside it do not happen to be those of the secret.
        let image = [noise(before).as_slice(), &[0xaa], fragment, &[0xaa; 100]].concat();
        let found = scan(&image, secrets(), piece).findings;
        if octets < 8 {
            prop_assert_eq!(found, []);
        } else {
            prop_assert_eq!(found.len(), 1);
            prop_assert_eq!(found[0].offset, u64::try_from(before + 1).unwrap());
            let expected = FindingKind::Secret {
                name: "device key".to_owned(),
                encoding: Encoding::Raw,
                secret_offset: from,
                secret_octets: octets,
                is_whole: octets == 32,
            };
            prop_assert_eq!(&found[0].kind, &expected);
        }
    }

    #[test]
    fn no_image_makes_the_scanner_panic(image in proptest::collection::vec(any::<u8>(), 0..9000), piece in 1_usize..9000) {
        let _report = scan(&image, secrets(), piece);
    }
}

#[test]
fn a_secret_is_found_in_hexadecimal_in_base64_and_reversed() {
    let reversed: Vec<u8> = SECRET.iter().rev().copied().collect();
    let base64 = |octets: &[u8]| {
        let output = Tool::new("openssl").run_with_input(&["base64", "-A"], octets).expect_success();
        output.stdout_text().trim().as_bytes().to_vec()
    };
    let written = [
        (hex::encode(SECRET).into_bytes(), Encoding::HexLower),
        (hex::encode_upper(SECRET).into_bytes(), Encoding::HexUpper),
        (reversed, Encoding::Reversed),
        (base64(SECRET), Encoding::Base64),
        (base64(&[b"x".as_slice(), SECRET].concat()), Encoding::Base64),
        (base64(&[b"xy".as_slice(), SECRET, b"more"].concat()), Encoding::Base64),
    ];
    for (text, encoding) in written {
        let image = [noise(5000), text, noise(100)].concat();
        let report = scan(&image, secrets(), 4096);
        assert_eq!(report.findings.len(), 1, "{encoding:?}");
        let FindingKind::Secret { encoding: found, is_whole, .. } = &report.findings[0].kind else {
            panic!("no secret")
        };
        assert_eq!((*found, *is_whole), (encoding, true));
        assert!((5000..5005).contains(&report.findings[0].offset));
    }
}

#[test]
fn a_secret_is_found_by_its_digest_without_being_given() {
    let digest = || NamedDigest { name: "device key".to_owned(), sha256: Sha256::digest(SECRET).0, octets: 32 };
    let image = [noise(70_001).as_slice(), SECRET, &noise(500)].concat();
    let report = scan(&image, Secrets::new(Vec::new(), vec![digest()]).unwrap(), 4096);
    assert_eq!(kinds(&report), [("secret_digest", 70_001, 32)]);
    let image = [noise(100).as_slice(), &SECRET[1..], &noise(500)].concat();
    assert_eq!(kinds(&scan(&image, Secrets::new(Vec::new(), vec![digest()]).unwrap(), 4096)), []);
}

#[test]
fn secrets_that_cannot_be_looked_for_are_refused() {
    let one = |octets: &[u8]| Secrets::new(vec![named("s", octets)], Vec::new()).err();
    assert_eq!(one(&[1; 7]), Some(SecretListError::Length { name: "s".to_owned() }));
    assert_eq!(one(&[1; 4097]), Some(SecretListError::Length { name: "s".to_owned() }));
    assert_eq!(one(&[1; 16]), Some(SecretListError::Constant { name: "s".to_owned() }));
    let many = (0..1025).map(|number| named(&number.to_string(), SECRET)).collect();
    assert_eq!(Secrets::new(many, Vec::new()).err(), Some(SecretListError::TooMany));
    let long = (0..17).map(|number| named(&number.to_string(), &noise(4096))).collect();
    assert_eq!(Secrets::new(long, Vec::new()).err(), Some(SecretListError::TooLong));
    let digest = |octets| NamedDigest { name: "d".to_owned(), sha256: [0; 32], octets };
    let short = Secrets::new(Vec::new(), vec![digest(15)]).err();
    assert_eq!(short, Some(SecretListError::Length { name: "d".to_owned() }));
    let lengths = Secrets::new(Vec::new(), (16..21).map(digest).collect()).err();
    assert_eq!(lengths, Some(SecretListError::TooManyLengths));
    assert_eq!(format!("{:?}", secrets()), "Secrets(7 needles, 0 digests)");
}

/// An image with a partition table, NVS, its keys, `esp_secure_cert` and an application.
fn flash_image(nvs_keys: Option<&NvsKeys>) -> Vec<u8> {
    let mut image = vec![0xff; 0x2_0000];
    image[0..4].copy_from_slice(&[0xe9, 3, 2, 0x20]);
    image[23] = 1;
    image[32..64].copy_from_slice(&[0x55; 32]);
    let table = entries(&[
        ("nvs", 1, 2, 0x9000, 0x3000, 0),
        ("keys", 1, 4, 0xc000, 0x1000, 1),
        ("cert", 0x3f, 6, 0xd000, 0x2000, 0),
        ("app", 0, 0, 0x1_0000, 0x1_0000, 0),
    ]);
    image[0x8000..0x8000 + table.len()].copy_from_slice(&table);
    let mut writer = Writer::new(&mut image[0x9000..0xc000]).unwrap();
    let namespace = writer.namespace("factory").unwrap();
    writer.write(namespace, "key", Value::Blob(SECRET)).unwrap();
    writer.finish();
    if let Some(keys) = nvs_keys {
        keys.cipher().encrypt(&mut image[0x9000..0xc000]).unwrap();
        keys.write_partition((&mut image[0xc000..0xc000 + PAGE_OCTETS]).try_into().unwrap());
    }
    let mut writer = kf_flash::secure_cert::SecureCertWriter::new(&mut image[0xd000..0xf000]).unwrap();
    writer.add(RecordType::DeviceCertificate, 0, b"certificate").unwrap();
    writer.finish().unwrap();
    image[0x1_0000..0x1_0004].copy_from_slice(&[0xe9, 4, 2, 0x20]);
    image[0x1_0000 + 23] = 1;
    image[0x1_0020..0x1_0024].copy_from_slice(&0xabcd_5432_u32.to_le_bytes());
    image[0x1_0030..0x1_0036].copy_from_slice(b"v1.2.3");
    image[0x1_0036] = 0;
    image[0x1_0050..0x1_0055].copy_from_slice(b"blink");
    image[0x1_0055] = 0;
    image
}

fn keys() -> NvsKeys {
    NvsKeys::from_secret(SecretArray::fill(|keys: &mut [u8; 64]| keys.copy_from_slice(&noise(64)))).unwrap()
}

#[test]
fn the_structures_of_a_flash_image_are_listed_and_nvs_is_told_encrypted_or_plain() {
    for encrypted in [false, true] {
        let keys = keys();
        let report = scan(&flash_image(encrypted.then_some(&keys)), secrets(), 4097);
        let listed: Vec<_> =
            report.structures.iter().map(|structure| (structure.kind.name(), structure.offset)).collect();
        let expected = [
            ("firmware_image", 0),
            ("partition_table", 0x8000),
            ("nvs", 0x9000),
            ("secure_cert_record", 0xd000),
            ("secure_cert_record", 0xd020),
            ("application", 0x1_0000),
        ];
        assert_eq!(listed, expected);
        let StructureKind::PartitionTable { partitions, .. } = &report.structures[1].kind else { panic!("no table") };
        assert_eq!(
            partitions.iter().map(|entry| entry.purpose()).collect::<Vec<_>>(),
            ["nvs", "nvs_keys", "esp_secure_cert", "factory"]
        );
        assert!(partitions[1].is_encrypted && !partitions[0].is_encrypted);
        let StructureKind::Nvs { pages, readable_entries, unreadable_slots } = report.structures[2].kind else {
            panic!("no NVS")
        };
        assert_eq!((pages, readable_entries > 0, unreadable_slots > 0), (1, !encrypted, encrypted));
        let record = StructureKind::SecureCertRecord {
            record_type: RecordType::DeviceCertificate,
            index: 0,
            protection: KeyProtection::Clear,
        };
        assert_eq!(report.structures[3].kind, record);
        let application = StructureKind::Application { project: "blink".to_owned(), version: "v1.2.3".to_owned() };
        assert_eq!(report.structures[5].kind, application);
        // In clear the secret is found in its slot; encrypted it is not, but the keys beside it are.
        let expected = if encrypted { ("nvs_keys", 0xc000, 64) } else { ("secret", 0x9000 + 64 + 64, 32) };
        assert_eq!(kinds(&report), [expected]);
    }
}

#[test]
fn blank_and_programmed_regions_are_joined() {
    let image = [vec![0xff; 8192], noise(8192), vec![0; 4096], b"text ".repeat(1000)].concat();
    let report = scan(&image, Secrets::default(), 1000);
    let regions: Vec<_> = report.regions.iter().map(|region| (region.content, region.offset, region.octets)).collect();
    let expected = [
        (BlockContent::Blank, 0, 8192),
        (BlockContent::LooksRandom, 8192, 8192),
        (BlockContent::Zero, 16_384, 4096),
        (BlockContent::Plain, 20_480, 5000),
    ];
    assert_eq!(regions, expected);
}

#[test]
fn an_image_past_the_limit_is_refused() {
    let image = vec![0; usize::try_from(MAX_IMAGE_OCTETS).unwrap() + 1];
    assert_eq!(Scanner::new(Secrets::default()).push(&image), Err(ImageTooLong));
}

#[test]
fn an_empty_image_is_an_empty_report() {
    let report = scan(&[], secrets(), 1);
    assert_eq!((report.octets, report.findings.len(), report.regions.len()), (0, 0, 0));
}

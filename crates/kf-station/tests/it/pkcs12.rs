//! PKCS#12 files, opened by programs that we did not write.

use std::fs;
use std::sync::Arc;

use kf_crypto::PrivateKey;
use kf_key::{KeyAlgorithm, SecretBytes};
use kf_station::fixture::{Board, Simulator, Supply};
use kf_testkit::{Tool, scratch};

use crate::stage::{Disk, Stage};

const RECIPE: &str = r#"
format = 1
sku = "camera-r1"
product_line = "camera"
target = "file"
[identity]
algorithm = "p-256"
origin = "station"
protection = "sealed"
[file]
form = "pkcs12"
"#;

#[test]
fn openssl_and_java_open_the_file_with_the_passphrase_that_the_fixture_was_given_and_with_no_other() {
    let stage = Stage::new(RECIPE, 1);
    let supply = Supply::new([Board::new(1, None)]);
    let (station, _) = stage.open(Disk::default()).unwrap();
    station.run(vec![Box::new(Simulator::new(Arc::clone(&supply), Arc::clone(&stage.target)))], &());
    assert_eq!(station.counts().good, 1, "{:?}", station.counts());
    let records = stage.records(&mut station.into_file());
    let (board, _) = supply.take_done().into_values().next().unwrap();
    let file = board.segments().iter().find(|segment| segment.name == "device.p12").unwrap();

    let folder = scratch();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    fs::write(path("device.p12"), file.octets.expose()).unwrap();
    fs::write(path("passphrase"), hex::encode(board.unlock().unwrap().expose())).unwrap();
    fs::write(path("other"), "0".repeat(64)).unwrap();
    let open = |passphrase: &str| {
        let source = format!("file:{}", path(passphrase));
        Tool::new("openssl").run(&["pkcs12", "-in", &path("device.p12"), "-nodes", "-passin", &source])
    };
    let text = open("passphrase").expect_success().stdout_text();
    assert!(!open("other").success());
    let certificates = kf_pki::pem::decode_all("CERTIFICATE", &text).unwrap();
    let terms = &stage.authorised.quota.terms;
    assert_eq!(certificates, [records[0].certificate.clone().unwrap(), terms.authority_certificate.clone()]);
    let key = kf_pki::pem::decode_all("PRIVATE KEY", &text).unwrap().remove(0);
    let key = PrivateKey::from_pkcs8(KeyAlgorithm::P256, &SecretBytes::from_vec(key)).unwrap();
    assert_eq!(kf_crypto::sha256(&key.spki()), records[0].key.unwrap().spki_sha256);

    let keystore = path("device.p12");
    let list = ["-list", "-storetype", "PKCS12", "-keystore", &keystore, "-storepass:file", &path("passphrase")];
    let listed = Tool::new("keytool").run(&list).expect_success().stdout_text();
    assert!(listed.contains("PrivateKeyEntry"), "{listed}");
}

//! A revoked device is out: at a real Mosquitto that `serve` was configured for, seen with Mosquitto's own clients.

use std::fs;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;

use kf_broker::{MosquittoConfig, PublishedCrl};
use kf_crypto::PrivateKey;
use kf_key::{KeyAlgorithm, SecretBytes};
use kf_testkit::{Running, Tool, free_port};

use crate::console::{Fleet, Succeeds as _};

/// Mosquitto with a certificate of the fleet, its CRL, and the right to command for the server's connector only.
fn start_broker(fleet: &Fleet, port: u16) -> Running {
    start_broker_with(fleet, port, |_| {})
}

/// As [`start_broker`], with what `adjust` does to its files before it reads them.
pub(crate) fn start_broker_with(fleet: &Fleet, port: u16, adjust: impl FnOnce(&Path)) -> Running {
    let csr = fleet.request("broker");
    let issue = ["certificate", "issue", "--profile", "tls-server", "--dns-name", "localhost", "--csr", &csr];
    fleet.run(&[&issue[..], &["--out", "broker.pem"]].concat()).succeeds();
    let key_pem = fs::read_to_string(fleet.path("broker.key")).unwrap();
    let key = kf_pki::pem::decode_all("PRIVATE KEY", &key_pem).unwrap().remove(0);
    let authorities = fleet.json(&["authority", "list"]);
    let authorities = authorities["items"].as_array().unwrap();
    let issuing = authorities.iter().find(|authority| authority["kind"] == "issuing").unwrap();
    let url = format!("{}/crl/{}/full.crl", fleet.http, issuing["id"].as_str().unwrap());
    let crl = Tool::new("curl").run(&["-sSf", &url]).expect_success().stdout;
    let directory = fleet.path("mosquitto");
    fs::DirBuilder::new().mode(0o700).create(&directory).unwrap();
    let config = MosquittoConfig {
        port,
        client_authorities_pem: authorities.iter().map(|a| a["certificate_pem"].as_str().unwrap()).collect(),
        server_chain_pem: fs::read_to_string(fleet.path("broker.pem")).unwrap(),
        server_key: PrivateKey::from_pkcs8(KeyAlgorithm::P256, &SecretBytes::from_vec(key)).unwrap(),
        control_name: "keyfleet-server".to_owned(),
        crls: vec![PublishedCrl {
            authority: issuing["id"].as_str().unwrap().parse().unwrap(),
            pem: kf_pki::pem::encode("X509 CRL", &crl),
        }],
    };
    let files = config.write(&directory).unwrap();
    adjust(&directory);
    let mut broker = Tool::new("mosquitto").start(&["-c", files.config.to_str().unwrap()]);
    broker.wait_for_line(|line| line.contains("running"));
    fs::write(fleet.path("mosquitto.pid"), broker.id().to_string()).unwrap();
    broker
}

pub(crate) fn configure(fleet: &Fleet, port: u16) {
    let path = fleet.data().join("keyfleet.toml");
    let config = fs::read_to_string(&path).unwrap().replace("broker = []\n", "");
    let broker = format!(
        "\n[[broker]]\nkind = \"mosquitto\"\nname = \"mosquitto\"\ncrl_file = {:?}\npid_file = {:?}\n\
         address = \"127.0.0.1:{port}\"\nserver_name = \"localhost\"\n",
        fleet.path("mosquitto/crl.pem"),
        fleet.path("mosquitto.pid"),
    );
    fs::write(&path, config + &broker).unwrap();
}

#[test]
fn a_device_revoked_on_the_command_line_is_cut_at_mosquitto_and_does_not_come_back() {
    let mut fleet = Fleet::start(&[]).with_device();
    let port = free_port();
    let mut broker = start_broker(&fleet, port);
    fleet.stop();
    configure(&fleet, port);
    let fleet = fleet.served();

    let csr = fleet.request("thermo");
    let issue = ["certificate", "issue", "--profile", "ldevid", "--device", "thermo-0001", "--csr", &csr];
    fleet.run(&[&issue[..], &["--out", "thermo.pem"]].concat()).succeeds();
    let (port, root) = (port.to_string(), fleet.data().join("root.pem"));
    let session = [
        "-h",
        "localhost",
        "-p",
        &port,
        "--cafile",
        root.to_str().unwrap(),
        "--cert",
        "thermo.pem",
        "--key",
        "thermo.key",
        "-t",
        "devices/thermo-0001/up",
    ];
    let client = |program: &str| Tool::new(program).directory(fleet.scratch.path());
    // The client's own output is buffered when nobody watches; the broker's log is not.
    let _device = client("mosquitto_sub").start(&session);
    broker.wait_for_line(|line| line.contains("New client connected") && line.contains("as thermo-0001"));
    let checked = fleet.run(&["doctor", "--check", "broker-config"]);
    assert_eq!(checked.code, Some(0), "{}", checked.text());

    let done = fleet.json(&["revoke", "--device", "thermo-0001", "--reason", "keyCompromise", "--verify"]);
    let report = &done["brokers"][0];
    for step in ["crl_published", "reloaded", "session_cut", "verified"] {
        assert_eq!(report[step], true, "{step}: {done}");
    }
    assert!(report["failure"].is_null(), "{done}");
    broker.wait_for_line(|line| line.contains("Client thermo-0001") && line.contains("disconnect"));
    let back = client("mosquitto_pub").run(&[&session[..], &["-m", "hello"]].concat());
    drop(back.expect_failure());
    let status = fleet.json(&["device", "show", "thermo-0001"]);
    assert_eq!(status["certificates"][0]["status"], "revoked");
}

//! The device key at rest: wrapped by each kind of key source, the same at every start, and of no use to another.

use std::io::Write as _;
use std::os::fd::AsRawFd as _;
use std::path::Path;

use kf_agent::Config;
use kf_agent::key_source::{ElementKeys, KeySource as _, SoftwareKeys};
use kf_crypto::PrivateKey;
use kf_key::{KeyAlgorithm, SecretArray};
use kf_testkit::{Output, SoftHsm, Tool};

use crate::bench::{Bench, LONG, Reply, bench};
use crate::personalized::{element, personalized};

const DAMAGED: &str = "damaged, or was written under another seal key";

/// A configuration that has the vault opened; this server exchanges no keys.
fn config_text(bench: &Bench, key: &str) -> String {
    let pin = PrivateKey::generate(KeyAlgorithm::P256).unwrap().spki();
    std::fs::write(bench.path("delivery.pem"), kf_pki::pem::encode("PUBLIC KEY", &pin)).unwrap();
    std::fs::write(bench.path("code"), "ABCD-EFGH\n").unwrap();
    let more = "[bootstrap]\ncode_file = \"{dir}/code\"\n[device_key]\ndelivery_key_file = \"{dir}/delivery.pem\"\n";
    bench.config_text_with_key(key, more).replace("{dir}", bench.directory.path().to_str().unwrap())
}

/// Opens an agent; the words of its refusal.
fn open(bench: &Bench, key: &str) -> Result<(), String> {
    let config = Config::parse(&config_text(bench, key)).unwrap();
    crate::bench::open(&config, || bench.sink()).map(drop).map_err(|error| error.to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn under_a_seal_key_the_vault_opens_again_and_under_another_it_is_refused_and_kept() {
    let bench = bench(|_, _| Reply::Issue(LONG)).await;
    let seal = |octet: u8| {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&[octet; 32]).unwrap();
        file
    };
    let (ours, other) = (seal(1), seal(2));
    let key = |file: &std::fs::File| format!("seal_fd = {}", file.as_raw_fd());
    open(&bench, &key(&ours)).unwrap();
    let vault = std::fs::read(bench.path("state/vault")).unwrap();
    assert!(open(&bench, &key(&other)).unwrap_err().contains(DAMAGED));
    assert_eq!(std::fs::read(bench.path("state/vault")).unwrap(), vault);
    open(&bench, &key(&ours)).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn where_keys_may_rest_plain_the_wrapping_key_lies_in_a_file_of_its_own() {
    let bench = bench(|_, _| Reply::Issue(LONG)).await;
    open(&bench, "allow_plain_key = true").unwrap();
    let wrapping = std::fs::read(bench.path("state/wrapping-key")).unwrap();
    assert_eq!(wrapping.len(), 32);
    open(&bench, "allow_plain_key = true").unwrap();
    std::fs::write(bench.path("state/wrapping-key"), [7; 32]).unwrap();
    assert!(open(&bench, "allow_plain_key = true").unwrap_err().contains(DAMAGED));
}

#[test]
fn the_wrapping_key_of_a_seal_key_is_another_key_than_it_and_the_same_every_time() {
    let source = |octet: u8| SoftwareKeys::new(KeyAlgorithm::P256, Some(SecretArray::fill(|key| key.fill(octet))));
    let wrapping = |octet| source(octet).wrapping_key().unwrap().unwrap();
    assert!(wrapping(1).equals(&wrapping(1)));
    assert!(!wrapping(1).equals(&wrapping(2)) && !wrapping(1).equals(&SecretArray::fill(|key| key.fill(1))));
    assert!(SoftwareKeys::new(KeyAlgorithm::P256, None).wrapping_key().unwrap().is_none());
}

#[test]
fn a_secure_element_gives_the_same_wrapping_key_after_a_loss_of_power() {
    let chip = personalized();
    let wrapping = || ElementKeys::new(element(&chip)).unwrap().wrapping_key().unwrap().unwrap();
    let before = wrapping();
    chip.set_power(false);
    chip.set_power(true);
    assert!(wrapping().equals(&before));
}

#[cfg(feature = "tpm")]
#[tokio::test(flavor = "multi_thread")]
async fn a_tpm_releases_the_same_wrapping_key_after_a_restart() {
    let bench = bench(|_, _| Reply::Issue(LONG)).await;
    let mut tpm = kf_testkit::SoftwareTpm::new();
    let key = format!("kind = \"tpm\"\n[key.tpm]\naddress = \"{}\"\ndeadline_seconds = 60", tpm.address());
    open(&bench, &key).unwrap();
    tpm.restart();
    open(&bench, &key).unwrap();
    // Without what the TPM sealed there is no way back to what it wrapped.
    std::fs::remove_file(bench.path("state/storage-key")).unwrap();
    assert!(open(&bench, &key).unwrap_err().contains(DAMAGED));
}

fn once(bench: &Bench, token: &SoftHsm) -> Output {
    let module = SoftHsm::module();
    let key = format!(
        "kind = \"pkcs11\"\nseal_credential = \"pin\"\n[key.pkcs11]\nmodule = \"{}\"\ntoken = \"{}\"",
        module.display(),
        SoftHsm::LABEL
    );
    let config = bench.path("agent.toml");
    std::fs::write(&config, config_text(bench, &key)).unwrap();
    std::fs::write(bench.path("pin"), SoftHsm::PIN).unwrap();
    Tool::at(Path::new(env!("CARGO_BIN_EXE_keyfleet-agent")))
        .env(SoftHsm::VARIABLE, token.configuration())
        .env("CREDENTIALS_DIRECTORY", bench.directory.path())
        .run(&["once", "--config", config.to_str().unwrap()])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_wraps_with_a_secret_of_its_own_and_the_vault_is_worthless_without_it() {
    let bench = bench(|_, _| Reply::Issue(LONG)).await;
    let token = SoftHsm::new();
    let module = SoftHsm::module().to_str().unwrap();
    let secrets = |more: &[&str]| {
        let login = ["--module", module, "--token-label", SoftHsm::LABEL, "--login", "--pin", SoftHsm::PIN];
        token.tool("pkcs11-tool").run(&[&login[..], &["--type", "secrkey"], more].concat())
    };
    for _ in 0..2 {
        let output = once(&bench, &token);
        assert!(output.success(), "{}", output.text());
        let listed = secrets(&["--list-objects"]);
        assert_eq!(listed.text().matches("Secret Key Object").count(), 1, "{}", listed.text());
        assert!(listed.text().contains("never extractable"), "{}", listed.text());
    }
    let gone = secrets(&["--delete-object", "--label", "keyfleet-agent meter-1 wrapping"]);
    assert!(gone.success(), "{}", gone.text());
    let refused = once(&bench, &token);
    assert!(!refused.success() && refused.text().contains(DAMAGED), "{}", refused.text());
}

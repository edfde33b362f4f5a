//! The same back end against a second token, Kryoptic, which is built here. Its module reads its environment once, so
//! each scenario runs in a process of its own.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Once;
use std::time::Duration;

use kf_backend::{BackendError, KeyBackend, SoftwareBackend, TokenFault, conformance};
use kf_key::{KeyAlgorithm, KeyId, SecretArray, SecretBytes};
use kf_pkcs11::{TokenBackend, TokenConfig};
use kf_testkit::{Scenario, Tool, run_scenarios};

const CONFIGURATION: &str = "KRYOPTIC_CONF";
const LABEL: &str = "keyfleet-test";
// A scratch token guards nothing, so that its PINs may be known.
const PIN: &str = "13572468";
const SO_PIN: &str = "24681357";

const SCENARIOS: [Scenario; 4] = [
    ("the_token_conforms", the_token_conforms),
    ("token_and_software_derive_the_same_keys_from_one_root", token_and_software_derive_the_same),
    ("the_published_tree_is_derived_in_the_token_at_every_level", the_published_tree_is_derived_in_the_token),
    ("a_wrong_pin_is_refused_as_such", a_wrong_pin_is_refused_as_such),
];

fn main() -> ExitCode {
    let built = Once::new();
    run_scenarios(&SCENARIOS, |program| {
        built.call_once(build_module);
        let scratch = kf_testkit::scratch();
        (program.env(CONFIGURATION, new_token(scratch.path())), scratch)
    })
}

fn target() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/kryoptic")
}

fn module() -> PathBuf {
    target().canonicalize().unwrap().join("debug/libkryoptic_module.so")
}

/// Some minutes the first time, nothing afterwards.
fn build_module() {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/kryoptic-module/Cargo.toml");
    let arguments = ["build", "--quiet", "--locked", "--manifest-path", manifest.to_str().unwrap(), "--target-dir"];
    let status = std::process::Command::new("cargo").args(arguments).arg(target()).status();
    assert!(
        status.is_ok_and(|status| status.success()),
        "Kryoptic does not build: apt-get install libssl-dev libsqlite3-dev libclang-dev pkg-config"
    );
}

/// Initialises a token in `directory` and returns its configuration.
fn new_token(directory: &Path) -> PathBuf {
    let configuration = directory.join("token.conf");
    let database = directory.join("token.sql");
    let text = format!("[[slots]]\nslot = 1\ndbtype = \"sqlite\"\ndbargs = \"{}\"\n", database.display());
    std::fs::write(&configuration, text).unwrap();
    let module = module();
    let tool = Tool::new("pkcs11-tool").env(CONFIGURATION, &configuration);
    let common = ["--module", module.to_str().unwrap(), "--slot", "1", "--so-pin", SO_PIN];
    let label = ["--init-token", "--label", LABEL];
    let pin = ["--login", "--login-type", "so", "--init-pin", "--new-pin", PIN];
    for arguments in [label.as_slice(), &pin] {
        let output = tool.run(&[&common, arguments].concat());
        assert!(output.success(), "{}", output.text());
    }
    configuration
}

fn config(root_label: &str) -> TokenConfig {
    TokenConfig {
        module: module(),
        token: LABEL.to_owned(),
        root_label: root_label.to_owned(),
        reconnect_pause: Duration::ZERO,
    }
}

fn pin() -> SecretBytes {
    SecretBytes::from_vec(PIN.as_bytes().to_vec())
}

fn the_token_conforms() {
    TokenBackend::create_root(&config("root"), pin()).unwrap();
    let backend = TokenBackend::open(config("root"), pin()).unwrap();
    assert!(backend.capabilities().holds(KeyAlgorithm::P256) && backend.capabilities().holds(KeyAlgorithm::P384));
    conformance::check(&backend, [KeyId::from_bytes([1; 16]), KeyId::from_bytes([2; 16])]).unwrap();
}

fn token_and_software_derive_the_same() {
    let root = || SecretArray::<32>::fill(|octets| octets.fill(0x5a));
    TokenBackend::import_root(&config("root"), pin(), &root()).unwrap();
    let token = TokenBackend::open(config("root"), pin()).unwrap();
    conformance::check_same_root(&token, &SoftwareBackend::new(root(), "test".to_owned()).unwrap()).unwrap();
}

fn the_published_tree_is_derived_in_the_token() {
    let mut hosted = 0;
    let covered = conformance::check_vectors(&mut |key| {
        hosted += 1;
        let config = config(&format!("vector {hosted}"));
        TokenBackend::import_root(&config, pin(), key)?;
        Ok(Box::new(TokenBackend::open(config, pin())?))
    });
    let covered = covered.unwrap();
    assert!(covered.refused == 0 && covered.hosts >= 10 && covered.steps >= 40, "{covered:?}");
}

fn a_wrong_pin_is_refused_as_such() {
    TokenBackend::create_root(&config("root"), pin()).unwrap();
    let wrong = SecretBytes::from_vec(b"00000000".to_vec());
    let refused = TokenBackend::open(config("root"), wrong).unwrap_err();
    assert_eq!(refused, BackendError::Token(TokenFault::Login));
    TokenBackend::open(config("root"), pin()).unwrap();
}

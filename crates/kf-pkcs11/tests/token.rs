//! The back end against SoftHSM2. A PKCS#11 module reads its environment and is initialised once per process, so each
//! scenario runs in a process of its own, started by this program with itself and a scratch token.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use kf_backend::{BackendError, Deadline, KeyBackend, SoftwareBackend, TokenFault, conformance, generate_wrapped};
use kf_key::{KeyAlgorithm, KeyId, SecretArray, SecretBytes};
use kf_pkcs11::{TokenBackend, TokenConfig};
use kf_testkit::{Scenario, SoftHsm, Tool, run_scenarios};

const ROOT: &str = "test root";
const TOKENS: &str = "KEYFLEET_TEST_TOKENS";

const SCENARIOS: [Scenario; 13] = [
    ("the_token_conforms", the_token_conforms),
    ("token_and_software_derive_the_same_keys_from_one_root", token_and_software_derive_the_same),
    ("the_published_tree_is_derived_in_the_token_at_every_level", the_published_tree_is_derived_in_the_token),
    ("a_token_with_a_limit_on_its_time_fails_and_returns_alike", a_limited_token_fails_and_returns_alike),
    ("a_key_that_a_token_cannot_hold_is_wrapped_under_its_root", a_key_is_wrapped_under_the_token),
    ("a_root_is_never_replaced", a_root_is_never_replaced),
    ("keys_in_the_token_are_sensitive_and_never_extractable", keys_are_never_extractable),
    ("an_extractable_root_is_refused", an_extractable_root_is_refused),
    ("a_wrong_pin_is_tried_once", a_wrong_pin_is_tried_once),
    ("a_token_of_another_label_is_not_taken", a_token_of_another_label_is_not_taken),
    ("a_vanished_token_is_reported_and_used_again_when_it_returns", a_vanished_token_returns),
    ("a_killed_session_is_reopened_unseen", a_killed_session_is_reopened),
    ("a_token_that_other_processes_log_in_to_is_opened_each_time", a_busy_token_is_opened_each_time),
];

fn main() -> ExitCode {
    run_scenarios(&SCENARIOS, |program| {
        let token = SoftHsm::new();
        let program = program.env(SoftHsm::VARIABLE, token.configuration());
        (program.env(TOKENS, token.token_directory()), token)
    })
}

fn config() -> TokenConfig {
    TokenConfig {
        module: SoftHsm::module().to_owned(),
        token: SoftHsm::LABEL.to_owned(),
        root_label: ROOT.to_owned(),
        reconnect_pause: Duration::ZERO,
    }
}

fn pin() -> SecretBytes {
    SecretBytes::from_vec(SoftHsm::PIN.as_bytes().to_vec())
}

fn key(octet: u8) -> KeyId {
    KeyId::from_bytes([octet; 16])
}

fn backend() -> TokenBackend {
    TokenBackend::create_root(&config(), pin()).unwrap();
    TokenBackend::open(config(), pin()).unwrap()
}

fn tokens() -> PathBuf {
    PathBuf::from(std::env::var_os(TOKENS).unwrap())
}

/// What OpenSC's tool, logged in, says of the objects.
fn listed_objects() -> String {
    let module = SoftHsm::module().to_str().unwrap();
    let arguments = ["--module", module, "--token-label", SoftHsm::LABEL, "--login", "--pin", SoftHsm::PIN, "-O"];
    let output = Tool::new("pkcs11-tool").run(&arguments);
    assert!(output.success(), "{}", output.text());
    output.text()
}

fn the_token_conforms() {
    let backend = backend();
    // SoftHSM2 as Debian builds it offers all three; a suite that skipped one would prove less than it says.
    for algorithm in [KeyAlgorithm::P256, KeyAlgorithm::P384, KeyAlgorithm::Ed25519] {
        assert!(backend.capabilities().holds(algorithm), "{algorithm}");
    }
    conformance::check(&backend, [key(1), key(2)]).unwrap();
    let listed = listed_objects();
    assert!(!listed.contains("key_"), "the suite leaves no key pair behind: {listed}");
}

fn token_and_software_derive_the_same() {
    let root = || SecretArray::<32>::fill(|octets| octets.fill(0x5a));
    TokenBackend::import_root(&config(), pin(), &root()).unwrap();
    let token = TokenBackend::open(config(), pin()).unwrap();
    let software = SoftwareBackend::new(root(), "test".to_owned()).unwrap();
    conformance::check_same_root(&token, &software).unwrap();
}

/// Every parent of the published tree, at whatever level, as a non-extractable secret of the token.
fn the_published_tree_is_derived_in_the_token() {
    let mut hosted = 0;
    let covered = conformance::check_vectors(&mut |key| {
        hosted += 1;
        let config = TokenConfig { root_label: format!("vector {hosted}"), ..config() };
        TokenBackend::import_root(&config, pin(), key)?;
        Ok(Box::new(TokenBackend::open(config, pin())?))
    });
    let covered = covered.unwrap();
    assert_eq!(covered.refused, 0);
    assert!(covered.hosts >= 10 && covered.steps >= 40, "{covered:?}");
    let secrets = listed_objects().matches("Secret Key Object").count();
    assert_eq!(secrets, covered.hosts);
}

/// What a caller sees of a token that vanished is the same through the limit on its time, and so is its return.
fn a_limited_token_fails_and_returns_alike() {
    let limited = Deadline::new(Arc::new(backend()), Deadline::LIMIT).unwrap();
    conformance::check(&limited, [key(1), key(2)]).unwrap();
    let aside = tokens().with_extension("aside");
    std::fs::rename(tokens(), &aside).unwrap();
    std::fs::create_dir(tokens()).unwrap();
    let gone = limited.health().unwrap_err();
    assert!(matches!(gone, BackendError::Token(TokenFault::Gone { .. })), "{gone:?}");
    std::fs::remove_dir(tokens()).unwrap();
    std::fs::rename(&aside, tokens()).unwrap();
    limited.health().unwrap();
}

fn a_key_is_wrapped_under_the_token() {
    let backend = backend();
    let pair = generate_wrapped(&backend, key(1), KeyAlgorithm::Ed25519).unwrap();
    assert!(!pair.handle.is_hardware());
    let signature = backend.open_key(key(1), &pair.handle).unwrap().sign(b"message").unwrap();
    let (algorithm, public) = kf_crypto::public_key_of_spki(&pair.spki).unwrap();
    kf_crypto::verify(algorithm, public, b"message", &signature).unwrap();
    assert_eq!(backend.open_key(key(2), &pair.handle).err(), Some(BackendError::Handle));
}

fn a_root_is_never_replaced() {
    TokenBackend::create_root(&config(), pin()).unwrap();
    let again = TokenBackend::create_root(&config(), pin());
    assert_eq!(again, Err(BackendError::KeyExists { label: ROOT.to_owned() }));
    let over = TokenBackend::import_root(&config(), pin(), &SecretArray::fill(|octets| octets.fill(1)));
    assert_eq!(over, Err(BackendError::KeyExists { label: ROOT.to_owned() }));
}

fn keys_are_never_extractable() {
    let backend = backend();
    for (octet, algorithm) in [(1, KeyAlgorithm::P256), (2, KeyAlgorithm::P384), (3, KeyAlgorithm::Ed25519)] {
        backend.generate_key_pair(key(octet), algorithm).unwrap();
    }
    let taken = backend.generate_key_pair(key(1), KeyAlgorithm::P256);
    assert_eq!(taken, Err(BackendError::KeyExists { label: key(1).to_string() }));
    drop(backend);
    let listed = listed_objects();
    let protected = listed.matches("sensitive, always sensitive, never extractable, local").count();
    assert_eq!(protected, 4, "root and three private keys: {listed}");
    assert_eq!(listed.matches("extractable").count(), 4, "{listed}");
    // OpenSC's words for what a key may do: signatures only, no encryption, wrapping or derivation anywhere. Of secret
    // keys it names everything but the HMAC, so the root shows as "none".
    let usages: Vec<_> = listed.lines().filter_map(|line| line.trim().strip_prefix("Usage:")).map(str::trim).collect();
    assert_eq!(usages.len(), 7, "{listed}");
    let count = |word| usages.iter().filter(|usage| **usage == word).count();
    assert_eq!((count("sign"), count("verify"), count("none")), (3, 3, 1), "{usages:?}");
}

fn an_extractable_root_is_refused() {
    let module = SoftHsm::module().to_str().unwrap();
    let arguments = [
        "--module",
        module,
        "--token-label",
        SoftHsm::LABEL,
        "--login",
        "--pin",
        SoftHsm::PIN,
        "--keygen",
        "--key-type",
        "GENERIC:32",
        "--label",
        ROOT,
        "--extractable",
        "--usage-sign",
    ];
    let output = Tool::new("pkcs11-tool").run(&arguments);
    assert!(output.success(), "{}", output.text());
    let refused = TokenBackend::open(config(), pin()).unwrap_err();
    assert!(matches!(refused, BackendError::WeakObject { .. }), "{refused:?}");
}

fn a_wrong_pin_is_tried_once() {
    TokenBackend::create_root(&config(), pin()).unwrap();
    for _ in 0..2 {
        let wrong = SecretBytes::from_vec(b"00000000".to_vec());
        let refused = TokenBackend::open(config(), wrong).unwrap_err();
        assert_eq!(refused, BackendError::Token(TokenFault::Login));
    }
    let shown = format!("{:?}", TokenBackend::open(config(), pin()).unwrap());
    assert!(!shown.contains(SoftHsm::PIN), "{shown}");
}

fn a_token_of_another_label_is_not_taken() {
    let other = TokenConfig { token: "another".to_owned(), ..config() };
    let refused = TokenBackend::open(other, pin()).unwrap_err();
    assert_eq!(refused, BackendError::Token(TokenFault::Label { label: "another".to_owned(), found: 0 }));
    let missing = TokenBackend::open(config(), pin()).unwrap_err();
    assert_eq!(missing, BackendError::MissingKey { label: ROOT.to_owned() });
    let module = TokenConfig { module: "/nonexistent/module.so".into(), ..config() };
    assert_eq!(TokenBackend::open(module, pin()).unwrap_err(), BackendError::Token(TokenFault::Module));
}

fn a_vanished_token_returns() {
    let backend = backend();
    let pair = backend.generate_key_pair(key(1), KeyAlgorithm::P256).unwrap();
    let opened = backend.open_key(key(1), &pair.handle).unwrap();
    opened.sign(b"before").unwrap();
    let aside = tokens().with_extension("aside");
    std::fs::rename(tokens(), &aside).unwrap();
    std::fs::create_dir(tokens()).unwrap();
    let gone = opened.sign(b"while it is away").unwrap_err();
    assert!(matches!(gone, BackendError::Token(TokenFault::Gone { .. })), "{gone:?}");
    let gone = backend.health().unwrap_err();
    assert!(matches!(gone, BackendError::Token(TokenFault::Gone { .. })), "{gone:?}");
    std::fs::remove_dir(tokens()).unwrap();
    std::fs::rename(&aside, tokens()).unwrap();
    backend.health().unwrap();
    let signature = opened.sign(b"after").unwrap();
    let (algorithm, public) = kf_crypto::public_key_of_spki(&pair.spki).unwrap();
    kf_crypto::verify(algorithm, public, b"after", &signature).unwrap();
}

/// Logs out or ends every session of the module behind the back end's back, as a token does that resets.
fn a_killed_session_is_reopened() {
    let backend = backend();
    let pair = backend.generate_key_pair(key(1), KeyAlgorithm::P256).unwrap();
    let opened = backend.open_key(key(1), &pair.handle).unwrap();
    for is_logout in [true, false, true] {
        let module = cryptoki::context::Pkcs11::new(SoftHsm::module()).unwrap();
        if is_logout {
            let slots = module.get_slots_with_initialized_token().unwrap();
            slots.into_iter().for_each(|slot| module.open_rw_session(slot).unwrap().logout().unwrap());
        } else {
            module.finalize().unwrap();
        }
        opened.sign(b"message").unwrap();
        backend.health().unwrap();
    }
}

fn a_busy_token_is_opened_each_time() {
    drop(backend());
    let module = SoftHsm::module().to_str().unwrap();
    let login = ["--module", module, "--token-label", SoftHsm::LABEL, "--login", "--pin", SoftHsm::PIN, "-O"];
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _process in 0..2 {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    // Their own fate does not matter: OpenSC's tool looks once, and fails now and then.
                    drop(Tool::new("pkcs11-tool").run(&login));
                }
            });
        }
        let opened: Vec<_> = (0..100).map(|_time| TokenBackend::open(config(), pin()).map(drop)).collect();
        done.store(true, Ordering::Relaxed);
        let failed: Vec<_> = opened.into_iter().filter_map(Result::err).collect();
        assert!(failed.is_empty(), "{failed:?}");
    });
}

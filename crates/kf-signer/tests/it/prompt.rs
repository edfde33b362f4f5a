//! A passphrase typed at a terminal.

use std::path::Path;

use kf_testkit::Tool;

/// Kind and body of the signer's answer, and what the terminal showed.
fn type_passphrase(seal: &Path, first: &str, second: &str) -> (u64, String, String) {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/prompt.py");
    let program = env!("CARGO_BIN_EXE_keyfleet-signer");
    let output = Tool::new("python3").run(&[script, program, seal.to_str().unwrap(), first, second]);
    assert!(output.success(), "{}", output.text());
    let answer: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let text = |name: &str| answer[name].as_str().unwrap().to_owned();
    (answer["kind"].as_u64().unwrap(), text("body"), text("terminal"))
}

#[test]
fn a_new_passphrase_is_asked_for_twice_and_never_shown() {
    let directory = kf_testkit::scratch();
    let seal = directory.path().join("root.seal");
    let (kind, body, terminal) = type_passphrase(&seal, "correct horse battery", "correct horse battery");
    assert_eq!(kind, 0x80, "{body}");
    assert!(seal.exists());
    assert!(terminal.contains("root.seal: ") && terminal.contains("again: "), "{terminal}");
    assert!(!terminal.contains("horse"), "{terminal}");
}

#[test]
fn two_entries_that_differ_create_nothing() {
    let directory = kf_testkit::scratch();
    let seal = directory.path().join("root.seal");
    let (kind, body, _) = type_passphrase(&seal, "correct horse battery", "correct house battery");
    assert_eq!((kind, body.contains("the two entries differ")), (0x81, true), "{body}");
    assert!(!seal.exists());
}

//! What is refused, how it is said, and with which exit code. Nothing here needs a server.

use std::fs;

use kf_testkit::{Output, TempDir, scratch};

use crate::console::{Succeeds as _, keyfleet, private};

/// A profile that is sound as far as files go; nobody listens there.
fn home_with_profile() -> TempDir {
    let home = scratch();
    private(&home.path().join("token"), "kft_nothing");
    private(
        &home.path().join("cli.toml"),
        &format!(
            "server = \"https://127.0.0.1:1\"\nroot_fingerprint = \"{}\"\ntoken_file = \"token\"\n",
            "ab".repeat(32)
        ),
    );
    home
}

fn run(home: &TempDir, arguments: &[&str]) -> Output {
    let mut all = vec!["--profile", "cli.toml"];
    all.extend(arguments);
    keyfleet(home.path()).run(&all)
}

/// It failed with this code, said this on standard error with a remedy, and printed no data.
#[track_caller]
fn refused(output: &Output, code: i32, says: &str) {
    let text = output.text();
    assert_eq!(output.code, Some(code), "{text}");
    assert!(output.stderr_text().contains(says), "expected {says:?} in\n{text}");
    assert!(output.stderr_text().contains("error: "), "{text}");
    assert!(output.stderr_text().contains("\n  try: "), "no remedy in\n{text}");
    assert!(output.stdout.is_empty(), "data on standard output of a failed command\n{text}");
}

#[test]
fn without_a_profile_the_error_says_how_to_make_one() {
    let home = scratch();
    refused(&keyfleet(home.path()).run(&["device", "list"]), 1, "keyfleet profile create");
}

#[test]
fn a_server_that_does_not_answer_is_named() {
    let home = home_with_profile();
    refused(&run(&home, &["status"]), 1, "127.0.0.1:1 cannot be reached");
}

#[test]
fn a_token_that_others_may_read_is_not_used() {
    let home = home_with_profile();
    let token = home.path().join("token");
    fs::set_permissions(&token, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    refused(&run(&home, &["whoami"]), 1, "chmod 600");
}

#[test]
fn a_profile_never_sends_its_token_over_plain_http() {
    let home = home_with_profile();
    let path = home.path().join("cli.toml");
    let plain = fs::read_to_string(&path).unwrap().replace("https://", "http://");
    private(&path, &plain);
    refused(&run(&home, &["whoami"]), 1, "https");
}

#[test]
fn an_unknown_field_in_the_profile_is_named() {
    let home = home_with_profile();
    private(&home.path().join("cli.toml"), "server = \"https://127.0.0.1:1\"\npassword = \"x\"\n");
    refused(&run(&home, &["whoami"]), 1, "password");
}

#[test]
fn what_is_final_asks_for_a_flag_where_nobody_can_be_asked() {
    let home = home_with_profile();
    refused(&run(&home, &["device", "decommission", "d1"]), 2, "--yes");
    refused(&run(&home, &["revoke", "--batch", "b1", "--reason", "keyCompromise"]), 2, "--confirm b1");
    refused(&run(&home, &["revoke", "--facility", "lyon", "--reason", "superseded"]), 2, "--confirm lyon");
    let slip = ["revoke", "--authority", "ca1", "--reason", "cACompromise", "--confirm", "ca2"];
    refused(&run(&home, &slip), 2, "nothing was changed");
}

#[test]
fn a_hold_needs_no_confirmation_because_stopping_is_easy() {
    let home = home_with_profile();
    let output = run(&home, &["revoke", "--facility", "lyon", "--reason", "certificateHold"]);
    refused(&output, 1, "cannot be reached");
}

#[test]
fn nothing_is_overwritten() {
    let home = home_with_profile();
    let existing = home.path().join("there");
    fs::write(&existing, "precious").unwrap();
    for arguments in [
        &["token", "create", "anna", "--out", "there"][..],
        &["code", "create", "d1", "--out", "there"],
        &["code", "create", "d1", "--svg", "there"],
        &["device", "export", "--out", "there"],
        &["authority", "show", "root", "--out", "there"],
        &["certificate", "issue", "--profile", "ldevid", "--device", "d1", "--csr", "x", "--out", "there"],
        &["operator", "request-certificate", "anna", "--key", "there", "--csr", "x"],
        &[
            "profile",
            "create",
            "--server",
            "https://x",
            "--root-fingerprint",
            "ab",
            "--token-file",
            "token",
            "--file",
            "there",
        ],
    ] {
        refused(&run(&home, arguments), 5, "there exists");
    }
    assert_eq!(fs::read_to_string(existing).unwrap(), "precious");
}

#[test]
fn a_wrong_command_line_exits_with_2_and_prints_no_data() {
    let home = scratch();
    for arguments in [
        &["device", "frobnicate"][..],
        &["device", "list", "--limit", "0"],
        &["device", "list", "--limit", "1001"],
        &["device", "list", "--state", "broken"],
        &["device", "list", "--all", "--after", "x"],
        &["device", "register", "d1"],
        &["certificate", "issue", "--profile", "root", "--csr", "x"],
        &["certificate", "issue", "--profile", "ldevid", "--csr", "x"],
        &["certificate", "issue", "--profile", "tls-server", "--csr", "x"],
        &["certificate", "issue", "--profile", "operator", "--csr", "x"],
        &["certificate", "show", "12"],
        &["revoke", "--reason", "keyCompromise"],
        &["revoke", "--device", "a", "--batch", "b", "--reason", "keyCompromise"],
        &["revoke", "--device", "a", "--reason", "because"],
        &["enrolment", "approve", "prop_00000000000000000000000000000000"],
        &["issuance", "stop"],
        &["doctor", "--check", "no-such-check"],
        &["init", "--data", "d", "--seal", "pkcs11"],
        &["init", "--data", "d", "--passphrase-fd", "3", "--passphrase-file", "f"],
        &["--format", "xml", "status"],
    ] {
        let output = keyfleet(home.path()).run(arguments);
        assert_eq!(output.code, Some(2), "{arguments:?}: {}", output.text());
        assert!(output.stdout.is_empty(), "{arguments:?}");
        assert!(output.stderr_text().starts_with("error: "), "{arguments:?}: {}", output.text());
    }
}

#[test]
fn no_flag_takes_a_secret_as_its_value() {
    let home = scratch();
    for flag in ["--passphrase", "--pin", "--token", "--password"] {
        let output = keyfleet(home.path()).run(&["init", "--data", "d", flag, "secret"]);
        assert_eq!(output.code, Some(2), "{flag}");
    }
}

#[test]
fn broken_input_files_are_named_with_what_to_give_instead() {
    let home = home_with_profile();
    let file = |name: &str, contents: &str| fs::write(home.path().join(name), contents).unwrap();
    file("empty.csr", "nothing here");
    file("policy.toml", "lifetime = 3\n");
    file("keys.txt", "# comment\nnot a fingerprint\n");
    file("devices.txt", "name\n");
    let issue = ["certificate", "issue", "--profile", "ldevid", "--device", "d", "--csr", "empty.csr"];
    refused(&run(&home, &issue), 1, "openssl req -new");
    refused(&run(&home, &["certificate", "issue", "--profile", "ldevid", "--device", "d", "--csr", "no"]), 3, "no");
    refused(&run(&home, &["product-line", "create", "x", "--policy-file", "policy.toml"]), 1, "lifetime");
    refused(&run(&home, &["key", "block", "keys.txt"]), 2, "line 2");
    refused(&run(&home, &["key", "block", "--spki-sha256", "abc"]), 2, "64 hexadecimal digits");
    refused(&run(&home, &["device", "import", "devices.txt"]), 2, "--encoding");
    refused(&run(&home, &["certificate", "list", "--expires-before", "soon"]), 2, "30d");
}

#[test]
fn a_pipe_that_closes_early_is_no_failure() {
    let home = scratch();
    let binary = env!("CARGO_BIN_EXE_keyfleet");
    let script = format!("set -o pipefail; {binary} completions bash | head -1 >/dev/null");
    kf_testkit::Tool::new("bash").directory(home.path()).run(&["-c", &script]).succeeds();
}

//! Verbs that work on this host without a server: init, serve's refusals, the offline check of the log, doctor.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use kf_testkit::{SoftHsm, Tool, scratch};

use crate::console::{Fleet, Succeeds as _, json, keyfleet, private};

#[test]
fn init_without_a_terminal_names_the_flags_that_give_the_passphrase() {
    let home = scratch();
    let output = keyfleet(home.path()).run(&["init", "--data", "d"]);
    assert_eq!(output.code, Some(2), "{}", output.text());
    for flag in ["--passphrase-fd", "--passphrase-credential", "--passphrase-file"] {
        assert!(output.stderr_text().contains(flag), "{}", output.text());
    }
    assert!(!home.path().join("d").exists());
}

#[test]
fn init_says_what_it_would_make_and_makes_nothing() {
    let home = scratch();
    let output =
        keyfleet(home.path()).run(&["init", "--data", "d", "--dry-run", "--format", "json", "--name", "pki.example"]);
    let config = json(&output.expect_success());
    assert_eq!(config["listen"]["names"], serde_json::json!(["pki.example", "localhost", "127.0.0.1"]));
    assert!(!home.path().join("d").exists());
}

#[test]
fn init_makes_private_files_and_refuses_a_second_time() {
    let fleet = Fleet::initialised(&[]);
    let mode = |name: &str| fs::metadata(fleet.data().join(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(""), mode("owner.token"), mode("root.seal")), (0o700, 0o600, 0o600));
    let token = fs::read_to_string(fleet.data().join("owner.token")).unwrap();
    assert!(token.starts_with("kft_"), "{token}");
    let before = fs::read(fleet.data().join("root.pem")).unwrap();
    let again = fleet.run(&["init", "--passphrase-file", "passphrase"]);
    assert_eq!(again.code, Some(5), "{}", again.text());
    assert!(again.stderr_text().contains("already holds a fleet"));
    assert_eq!(fs::read(fleet.data().join("root.pem")).unwrap(), before);
    Tool::new("openssl")
        .run(&["x509", "-in", fleet.data().join("root.pem").to_str().unwrap(), "-noout", "-text"])
        .expect_success()
        .expect_text("CA:TRUE");
}

#[test]
fn an_init_that_was_cut_short_is_run_again_with_the_same_root() {
    let fleet = Fleet::initialised(&[]);
    let seal = fs::read(fleet.data().join("root.seal")).unwrap();
    let token = fs::read_to_string(fleet.data().join("owner.token")).unwrap();
    // The configuration is written last.
    fs::remove_file(fleet.data().join("keyfleet.toml")).unwrap();
    let again = fleet.run(&["init", "--passphrase-file", "passphrase"]).expect_success();
    assert!(again.stderr_text().contains("a root is there already"), "{}", again.text());
    assert_eq!(fs::read(fleet.data().join("root.seal")).unwrap(), seal);
    assert_ne!(fs::read_to_string(fleet.data().join("owner.token")).unwrap(), token);
}

#[test]
fn the_passphrase_may_come_from_a_descriptor() {
    let home = scratch();
    let binary = env!("CARGO_BIN_EXE_keyfleet");
    let script = format!("{binary} init --data d --passphrase-fd 7 7<<<'correct horse battery staple'");
    Tool::new("bash").directory(home.path()).run(&["-c", &script]).succeeds();
    let config = fs::read_to_string(home.path().join("d/keyfleet.toml")).unwrap();
    assert!(config.contains("unlock = \"prompt\""), "the number of a descriptor means nothing tomorrow:\n{config}");
    private(&home.path().join("other"), "incorrect horse");
    let wrong = keyfleet(home.path()).run(&[
        "serve",
        "--data",
        "d",
        "--passphrase-file",
        "other",
        "--listen",
        "127.0.0.1:0",
        "--listen-http",
        "127.0.0.1:0",
    ]);
    assert_eq!(wrong.code, Some(1), "{}", wrong.text());
    assert!(!wrong.text().contains("incorrect horse"), "a passphrase was printed");
    assert!(wrong.stderr_text().contains("\n  try: "), "{}", wrong.text());
}

#[test]
fn the_root_may_live_in_a_token() {
    let token = SoftHsm::new();
    let home = scratch();
    private(&home.path().join("pin"), SoftHsm::PIN);
    let module = SoftHsm::module();
    let tool = keyfleet(home.path()).env(SoftHsm::VARIABLE, token.configuration());
    let arguments = [
        "init",
        "--data",
        "d",
        "--seal",
        "pkcs11",
        "--pkcs11-module",
        module.to_str().unwrap(),
        "--pkcs11-token",
        SoftHsm::LABEL,
        "--pin-file",
        "pin",
    ];
    tool.run(&arguments).succeeds();
    assert!(!home.path().join("d/root.seal").exists());
    let config = fs::read_to_string(home.path().join("d/keyfleet.toml")).unwrap();
    assert!(config.contains("pkcs11") && !config.contains(SoftHsm::PIN), "{config}");
}

#[test]
fn serve_refuses_the_data_of_a_demonstration() {
    let fleet = Fleet::initialised(&[]);
    let path = fleet.data().join("keyfleet.toml");
    let config = fs::read_to_string(&path).unwrap();
    let demo = if config.contains("demo = false") {
        config.replace("demo = false", "demo = true")
    } else {
        format!("demo = true\n{config}")
    };
    fs::write(&path, demo).unwrap();
    let output = fleet.run(&["serve"]);
    assert_eq!(output.code, Some(2), "{}", output.text());
    assert!(output.stderr_text().contains("keyfleet demo"));
}

#[test]
fn the_command_line_on_the_host_finds_a_server_that_listens_elsewhere_than_configured() {
    let fleet = Fleet::initialised(&[]);
    let data = fleet.data();
    let mut server = fleet.tool().start(&["serve", "--data", data.to_str().unwrap(), "--listen", "127.0.0.1:0"]);
    server.wait_for_line(|line| line.starts_with("ready https="));
    fleet.run(&["status"]).succeeds();
    Tool::new("kill").run(&["-TERM", &server.id().to_string()]).succeeds();
    assert!(server.wait().success());
    assert!(!data.join("listening").exists(), "the note goes with the server");
    fs::write(data.join("listening"), "nowhere\n").unwrap();
    let refused = fleet.run(&["status"]);
    assert!(refused.stderr_text().contains("listening is not an address"), "{}", refused.text());
}

#[test]
fn serve_checks_a_configuration_without_starting() {
    let fleet = Fleet::initialised(&[]);
    fleet.run(&["serve", "--check-config"]).succeeds();
    let path = fleet.data().join("keyfleet.toml");
    let config = fs::read_to_string(&path).unwrap();
    fs::write(&path, format!("retention_days = 3\n{config}")).unwrap();
    let output = fleet.run(&["serve", "--check-config"]);
    assert_eq!(output.code, Some(2), "{}", output.text());
    assert!(output.stderr_text().contains("retention_days"), "{}", output.text());
}

#[test]
fn doctor_lists_its_checks_and_finds_planted_faults_with_their_remedies() {
    let fleet = Fleet::initialised(&[]);
    let listed = json(&fleet.run(&["doctor", "--list", "--format", "json"]).expect_success());
    assert!(listed["items"].as_array().unwrap().len() >= 25, "{listed}");
    fs::set_permissions(fleet.data().join("root.seal"), fs::Permissions::from_mode(0o644)).unwrap();
    let output = fleet.run(&["doctor", "--format", "json"]);
    assert_eq!(output.code, Some(12), "{}", output.text());
    let findings = json(&output);
    let named =
        |check: &str| findings["items"].as_array().unwrap().iter().find(|item| item["check"] == check).unwrap().clone();
    assert_eq!(named("permissions")["severity"], "ERROR");
    assert!(named("permissions")["fix"].as_str().unwrap().contains("chmod"));
    assert_eq!(named("witness")["severity"], "WARNING");
    assert_eq!(named("server")["severity"], "WARNING");
    assert_eq!(named("ocsp")["severity"], "SKIPPED");
    let one = fleet.run(&["doctor", "--check", "config"]);
    assert_eq!(one.code, Some(0), "{}", one.text());
}

//! The device's key in a PKCS#11 token. The module reads the environment, so the agent runs in a process of its own.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use kf_testkit::{Output, SoftHsm, Tool};

use crate::bench::{Bench, DUE, LONG, Reply, bench};

fn once(bench: &Bench, token: &SoftHsm, pin: &str) -> Output {
    let key = format!(
        "kind = \"pkcs11\"\nseal_credential = \"pin\"\n[key.pkcs11]\nmodule = \"{}\"\ntoken = \"{}\"",
        SoftHsm::module().display(),
        SoftHsm::LABEL
    );
    let config = bench.path("agent.toml");
    let text = bench.config_text_with_key(&key, "[bootstrap]\ncode_file = \"{dir}/code\"\n");
    std::fs::write(&config, text.replace("{dir}", bench.directory.path().to_str().unwrap())).unwrap();
    std::fs::write(bench.path("pin"), pin).unwrap();
    Tool::at(Path::new(env!("CARGO_BIN_EXE_keyfleet-agent")))
        .env(SoftHsm::VARIABLE, token.configuration())
        .env("CREDENTIALS_DIRECTORY", bench.directory.path())
        .run(&["once", "--config", config.to_str().unwrap()])
}

fn private_keys(token: &SoftHsm) -> usize {
    let module = SoftHsm::module().to_str().unwrap();
    let arguments = [
        "--module",
        module,
        "--token-label",
        SoftHsm::LABEL,
        "--login",
        "--pin",
        SoftHsm::PIN,
        "--list-objects",
        "--type",
        "privkey",
    ];
    let output = token.tool("pkcs11-tool").run(&arguments);
    assert!(output.success(), "{}", output.text());
    output.text().matches("Private Key Object").count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_enrols_and_renews_with_keys_in_its_token_and_destroys_old_ones() {
    let bench = bench(|_, number| Reply::Issue(if number == 0 { DUE } else { LONG })).await;
    let token = SoftHsm::new();
    std::fs::write(bench.path("code"), "ABCD-EFGH\n").unwrap();
    let output = once(&bench, &token, SoftHsm::PIN);
    assert!(output.success(), "{}", output.text());
    assert!(output.text().contains("renewed"), "{}", output.text());
    assert_eq!(private_keys(&token), 1, "the key of the first certificate is gone");
    let slot = std::fs::read_to_string(bench.path("state/current")).unwrap();
    let key = bench.path(&format!("state/{}/key", slot.trim()));
    assert_eq!(std::fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(String::from_utf8_lossy(&std::fs::read(&key).unwrap()).contains("keyfleet-agent meter-1 "));
    let output = once(&bench, &token, SoftHsm::PIN);
    assert!(output.success(), "{}", output.text());
    assert_eq!(bench.enrolments().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_pin_and_a_vanished_token_leave_the_state_as_it_is() {
    let bench = bench(|_, _| Reply::Issue(LONG)).await;
    let token = SoftHsm::new();
    std::fs::write(bench.path("code"), "ABCD-EFGH\n").unwrap();
    assert!(once(&bench, &token, SoftHsm::PIN).success());
    let leaf = bench.leaf_in_use();
    let refused = once(&bench, &token, "90909090");
    assert!(!refused.success() && refused.text().contains("refused the authorisation"), "{}", refused.text());
    assert!(!refused.text().contains("90909090"));
    let aside = token.token_directory().with_extension("aside");
    std::fs::rename(token.token_directory(), &aside).unwrap();
    std::fs::create_dir(token.token_directory()).unwrap();
    let gone = once(&bench, &token, SoftHsm::PIN);
    assert!(!gone.success() && gone.text().contains("does not answer"), "{}", gone.text());
    std::fs::remove_dir(token.token_directory()).unwrap();
    std::fs::rename(&aside, token.token_directory()).unwrap();
    assert!(once(&bench, &token, SoftHsm::PIN).success());
    assert_eq!(bench.leaf_in_use(), leaf);
    assert_eq!(bench.enrolments().len(), 1);
}

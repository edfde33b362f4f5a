//! The device's key in a TPM: enrolling, renewing, and every way in which the TPM can fail.

use std::collections::BTreeMap;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use kf_agent::key_source::{HardwareFault, KeyError};
use kf_agent::{Agent, Config};
use kf_testkit::SoftwareTpm;

use crate::bench::{Bench, DUE, LONG, Reply, bench, names};

const CODE: &str = "[bootstrap]\ncode_file = \"{dir}/code\"\n";

fn key_table(tpm: &SoftwareTpm, more: &str) -> String {
    format!("kind = \"tpm\"\n{more}\n[key.tpm]\naddress = \"{}\"\ndeadline_seconds = 60", tpm.address())
}

fn config(bench: &Bench, key: &str) -> Config {
    let text = bench.config_text_with_key(key, CODE);
    Config::parse(&text.replace("{dir}", bench.directory.path().to_str().unwrap())).unwrap()
}

/// A program that holds no connection of this process to a TPM: a TPM takes one client at a time, and two programs that each hold
/// the other's connection wait for each other for ever.
fn alone(tool: kf_testkit::Tool) -> kf_testkit::Tool {
    tool.without_inherited_files()
}

fn agent_program() -> kf_testkit::Tool {
    alone(kf_testkit::Tool::at(Path::new(env!("CARGO_BIN_EXE_keyfleet-agent"))))
}

fn open(bench: &Bench, key: &str) -> Result<Agent, HardwareFault> {
    match crate::bench::open(&config(bench, key), || bench.sink()) {
        Ok(agent) => Ok(agent),
        Err(failure) => {
            let source = failure.source().and_then(|source| source.downcast_ref::<KeyError>());
            match source {
                Some(KeyError::Hardware(fault)) => Err(*fault),
                other => panic!("{failure}: {other:?}"),
            }
        }
    }
}

/// Every file of the state directory.
fn state(bench: &Bench) -> BTreeMap<PathBuf, Vec<u8>> {
    fn walk(directory: &Path, found: &mut BTreeMap<PathBuf, Vec<u8>>) {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, found);
            } else {
                found.insert(path.clone(), std::fs::read(&path).unwrap());
            }
        }
    }
    let mut found = BTreeMap::new();
    walk(&bench.path("state"), &mut found);
    found
}

async fn enrolled(bench: &Bench, key: &str) {
    std::fs::write(bench.path("code"), "ABCD-EFGH\n").unwrap();
    let outcome = open(bench, key).unwrap().once().await;
    assert!(outcome.is_valid && outcome.is_settled, "{:?}", bench.take_events());
    bench.take_events();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_enrols_and_renews_with_keys_in_its_tpm() {
    let bench = bench(|_, number| Reply::Issue(if number == 0 { DUE } else { LONG })).await;
    let mut tpm = SoftwareTpm::new();
    std::fs::write(bench.path("code"), "ABCD-EFGH\n").unwrap();
    let outcome = open(&bench, &key_table(&tpm, "")).unwrap().once().await;
    assert!(outcome.is_valid && outcome.is_settled && !outcome.needs_attention);
    assert_eq!(names(&bench.take_events()), ["started", "enrolled", "renewed", "stopped"]);
    // The renewal was authenticated by the TPM: a client certificate that only its key can use.
    assert_eq!(bench.enrolments()[1].1.client_chain.len(), 2);
    tpm.restart();
    let outcome = open(&bench, &key_table(&tpm, "")).unwrap().once().await;
    assert!(outcome.is_valid);
    assert_eq!(names(&bench.take_events()), ["started", "stopped"]);
    assert_eq!(bench.enrolments().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_state_is_of_no_use_beside_another_tpm() {
    let bench = bench(|_, _| Reply::Issue(LONG)).await;
    let (tpm, other) = (SoftwareTpm::new(), SoftwareTpm::new());
    enrolled(&bench, &key_table(&tpm, "")).await;
    let before = state(&bench);
    assert_eq!(open(&bench, &key_table(&other, "")).err(), Some(HardwareFault::OtherDevice));
    assert_eq!(state(&bench), before);
    // What lies there is no private key.
    for (path, content) in &before {
        let curve = [0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
        let is_key = path.ends_with("key") && content.windows(curve.len()).any(|window| window == curve);
        assert!(!is_key, "{}", path.display());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tpm_that_is_gone_frozen_or_locked_is_told_apart_and_the_state_is_kept() {
    let bench = bench(|_, _| Reply::Issue(LONG)).await;
    let mut tpm = SoftwareTpm::new();
    let mut pin = tempfile::tempfile().unwrap();
    std::io::Write::write_all(&mut pin, b"1357").unwrap();
    let table = key_table(&tpm, &format!("seal_fd = {}", pin.as_raw_fd()));
    enrolled(&bench, &table).await;
    let before = state(&bench);

    tpm.kill();
    assert_eq!(open(&bench, &table).err(), Some(HardwareFault::Unreachable));
    tpm.restart();

    tpm.freeze();
    let started = Instant::now();
    let impatient = table.replace("deadline_seconds = 60", "deadline_seconds = 2");
    assert_eq!(open(&bench, &impatient).err(), Some(HardwareFault::Late));
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
    // Anew, because the given-up connection still stands in the emulator's only place.
    tpm.restart();

    let mut wrong = tempfile::tempfile().unwrap();
    std::io::Write::write_all(&mut wrong, b"2468").unwrap();
    let guess = key_table(&tpm, &format!("seal_fd = {}", wrong.as_raw_fd()));
    let mut faults = Vec::new();
    for _ in 0..8 {
        let fault = open(&bench, &guess).err().unwrap();
        faults.push(fault);
        if fault == HardwareFault::LockedOut {
            break;
        }
    }
    assert_eq!(faults.first(), Some(&HardwareFault::Authorization));
    assert_eq!(faults.last(), Some(&HardwareFault::LockedOut));
    assert_eq!(open(&bench, &table).err(), Some(HardwareFault::LockedOut), "the right value too");
    assert_eq!(state(&bench), before);
    assert!(tpm.tool("tpm2_dictionarylockout").run(&["-c"]).success());
    assert!(open(&bench, &table).unwrap().once().await.is_valid);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tpm_that_vanishes_under_a_running_agent_delays_it_and_costs_nothing() {
    let bench = bench(|_, number| Reply::Issue(if number == 0 { DUE } else { LONG })).await;
    let mut tpm = SoftwareTpm::new();
    let table = key_table(&tpm, "");
    std::fs::write(bench.path("code"), "ABCD-EFGH\n").unwrap();
    let agent = open(&bench, &table).unwrap();
    tpm.kill();
    let outcome = agent.once().await;
    assert!(!outcome.is_valid && !outcome.is_settled);
    assert!(names(&bench.take_events()).contains(&"retry".to_owned()));
    assert_eq!(bench.enrolments().len(), 0);
    tpm.restart();
    assert!(open(&bench, &table).unwrap().once().await.is_valid);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_boot_releases_nothing_until_it_is_approved() {
    let bench = bench(|_, _| Reply::Issue(LONG)).await;
    let tpm = SoftwareTpm::new();
    let run = |program: &str, arguments: &[&str]| {
        let output = alone(kf_testkit::Tool::new(program)).directory(bench.directory.path()).run(arguments);
        assert!(output.success(), "{program}: {}", output.text());
    };
    run("openssl", &["ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", "authority.key"]);
    run("openssl", &["ec", "-in", "authority.key", "-pubout", "-out", "authority.pem"]);
    let table = format!(
        "{}\npcrs = [0, 7, 16]\npolicy_authority_file = \"{}\"\napprovals_file = \"{}\"",
        key_table(&tpm, ""),
        bench.path("authority.pem").display(),
        bench.path("approvals.json").display()
    );
    let approve = || {
        std::fs::write(bench.path("agent.toml"), bench.config_text_with_key(&table, "")).unwrap();
        let agent = agent_program();
        let config = bench.path("agent.toml");
        let shown = agent.run(&["boot-state", "--config", config.to_str().unwrap()]);
        assert!(shown.success(), "{}", shown.text());
        let mut shown: serde_json::Value = serde_json::from_slice(&shown.stdout).unwrap();
        let message =
            base64::Engine::decode(&base64::prelude::BASE64_STANDARD, shown["approval_message"].as_str().unwrap());
        std::fs::write(bench.path("message"), message.unwrap()).unwrap();
        run("openssl", &["dgst", "-sha256", "-sign", "authority.key", "-out", "signature", "message"]);
        let signature = std::fs::read(bench.path("signature")).unwrap();
        shown.as_object_mut().unwrap().remove("approval_message");
        shown["signature"] = base64::Engine::encode(&base64::prelude::BASE64_STANDARD, signature).into();
        std::fs::write(bench.path("approvals.json"), serde_json::json!([shown]).to_string()).unwrap();
    };
    std::fs::write(bench.path("approvals.json"), "[]").unwrap();
    approve();
    // In a process of its own: the TPM takes one client at a time, and the next one is a tool.
    std::fs::write(bench.path("code"), "ABCD-EFGH\n").unwrap();
    let text = bench.config_text_with_key(&table, CODE).replace("{dir}", bench.directory.path().to_str().unwrap());
    std::fs::write(bench.path("once.toml"), text).unwrap();
    let agent = agent_program();
    let enrolled = agent.run(&["once", "--config", bench.path("once.toml").to_str().unwrap()]);
    assert!(enrolled.success(), "{}", enrolled.text());
    let before = state(&bench);
    let measured = tpm.tool("tpm2_pcrextend").run(&[format!("16:sha256={}", "ab".repeat(32)).as_str()]);
    assert!(measured.success(), "{}", measured.text());
    assert_eq!(open(&bench, &table).err(), Some(HardwareFault::BootState));
    assert_eq!(state(&bench), before);
    approve();
    assert!(open(&bench, &table).unwrap().once().await.is_valid);
    // An approval that somebody else signed.
    let text = std::fs::read_to_string(bench.path("approvals.json")).unwrap();
    run("openssl", &["ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", "stranger.key"]);
    run("openssl", &["dgst", "-sha256", "-sign", "stranger.key", "-out", "forged", "message"]);
    let mut forged: serde_json::Value = serde_json::from_str(&text).unwrap();
    let signature = std::fs::read(bench.path("forged")).unwrap();
    forged[0]["signature"] = base64::Engine::encode(&base64::prelude::BASE64_STANDARD, signature).into();
    std::fs::write(bench.path("approvals.json"), forged.to_string()).unwrap();
    assert_eq!(open(&bench, &table).err(), Some(HardwareFault::Approval));
    assert_eq!(state(&bench), before);
}

#[test]
fn a_volume_opens_with_the_key_from_the_tpm_and_in_the_right_boot_only() {
    let directory = kf_testkit::scratch();
    let tpm = SoftwareTpm::new();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let text = format!(
        "server = \"https://localhost\"\ndevice_name = \"gateway-1\"\nstate_dir = \"{}\"\n[trust]\nroot_file = \
         \"{}\"\n[key]\nkind = \"tpm\"\n[key.tpm]\naddress = \"{}\"\npcrs = [0, 16]\n",
        path("state"),
        path("root.pem"),
        tpm.address()
    );
    std::fs::write(path("agent.toml"), text).unwrap();
    std::fs::File::create(path("volume")).unwrap().set_len(24 * 1024 * 1024).unwrap();
    let agent = agent_program();
    let (config, file, volume) = (path("agent.toml"), path("volume.tpm"), path("volume"));
    let make = ["volume-key", "create", "--config", &config, "--file", &file];
    let made = agent.run(&make);
    assert!(made.success(), "{}", made.text());
    assert!(!agent.run(&make).success(), "an existing key is never overwritten");
    let cryptsetup = alone(kf_testkit::Tool::new("cryptsetup"));
    let program = cryptsetup.path().to_str().unwrap();
    let through = |more: &[&str]| {
        let mut arguments = vec!["volume-key", "run", "--config", &config, "--file", &file, "--", program];
        arguments.extend(more);
        agent.run(&arguments)
    };
    let quick = ["--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000", "--batch-mode"];
    let formatted = through(&[&["luksFormat", "--type", "luks2", "--key-file", "-"], &quick[..], &[&volume]].concat());
    assert!(formatted.success(), "{}", formatted.text());
    let test = ["luksOpen", "--test-passphrase", "--key-file", "-", &volume];
    let opened = through(&test);
    assert!(opened.success(), "{}", opened.text());
    let wrong = cryptsetup.run_with_input(&test, &[7; 32]);
    assert!(!wrong.success(), "any other key opens nothing");
    let measured = tpm.tool("tpm2_pcrextend").run(&[format!("16:sha256={}", "cd".repeat(32)).as_str()]);
    assert!(measured.success(), "{}", measured.text());
    let refused = through(&test);
    assert!(!refused.success() && refused.text().contains("another boot state"), "{}", refused.text());
}

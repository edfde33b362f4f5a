//! The program itself: arguments, exit status, lines on standard output.

use std::io::Write as _;
use std::os::fd::AsRawFd as _;
use std::path::Path;

use kf_testkit::{Output, Tool};

use crate::bench::{Bench, LONG, Reply, bench};

fn agent(arguments: &[&str]) -> Output {
    Tool::at(Path::new(env!("CARGO_BIN_EXE_keyfleet-agent"))).run(arguments)
}

fn lines(output: &Output) -> Vec<serde_json::Value> {
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

async fn run(verb: &'static str, config: String) -> Output {
    // The program blocks: the server of the test runs beside it.
    tokio::task::spawn_blocking(move || agent(&[verb, "--config", &config])).await.unwrap()
}

fn write_config(bench: &Bench, more: &str) -> String {
    let path = bench.path("agent.toml");
    std::fs::write(&path, bench.config_text(more)).unwrap();
    path.to_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn once_tells_in_json_lines_and_by_its_exit_status() {
    let bench = bench(|_, _| Reply::Issue(LONG)).await;
    let config = write_config(&bench, "[bootstrap]\ncode_file = \"{dir}/code\"\n");
    let helpless = run("once", config.clone()).await;
    assert_eq!(helpless.code, Some(1));
    assert_eq!(lines(&helpless)[2]["event"], "needs-attention");
    let empty = run("status", config.clone()).await;
    assert_eq!((empty.code, &lines(&empty)[0]["certificate"]), (Some(1), &serde_json::Value::Null));

    std::fs::write(bench.path("code"), "canary-code\n").unwrap();
    let enrolled = run("once", config.clone()).await;
    assert_eq!(enrolled.code, Some(0), "{enrolled:?}");
    let enrolled_lines = lines(&enrolled);
    assert_eq!(enrolled_lines[2]["event"], "enrolled");
    let status = run("status", config).await;
    assert_eq!(status.code, Some(0));
    let status_line = &lines(&status)[0];
    assert_eq!(status_line["certificate"]["sha256"], enrolled_lines[2]["sha256"]);
    assert_eq!(status_line["key_sealed"], false);
    for output in [helpless, enrolled, status] {
        let text = [output.stdout, output.stderr].concat();
        assert!(!String::from_utf8_lossy(&text).contains("canary"));
    }
}

#[test]
fn wrong_arguments_and_wrong_settings_are_told_on_standard_error() {
    assert_eq!(agent(&["run"]).code, Some(2));
    let missing = agent(&["once", "--config", "/no/such/file"]);
    assert_eq!(missing.code, Some(1));
    let text = String::from_utf8(missing.stderr).unwrap();
    assert!(text.starts_with("keyfleet-agent: the configuration /no/such/file cannot be read: "), "{text}");
    assert_eq!(agent(&["--version"]).code, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sealed_key_needs_its_seal_key_at_every_start() {
    let bench = bench(|_, _| Reply::Issue(LONG)).await;
    std::fs::write(bench.path("code"), "code").unwrap();
    let sealed_by = |octet: u8| {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&[octet; 32]).unwrap();
        let number = file.as_raw_fd();
        let text = bench.config_text("[bootstrap]\ncode_file = \"{dir}/code\"\n");
        let text = text.replace("allow_plain_key = true", &format!("seal_fd = {number}"));
        (file, kf_agent::Config::parse(&text).unwrap())
    };
    for (octet, enrolments) in [(1, 1), (1, 1), (2, 2)] {
        let (_file, config) = sealed_by(octet);
        let outcome = crate::bench::open(&config, || bench.sink()).unwrap().once().await;
        assert!(outcome.is_valid);
        // Under another seal key the identity cannot be used: the device enrols anew.
        assert_eq!(bench.enrolments().len(), enrolments);
    }
}

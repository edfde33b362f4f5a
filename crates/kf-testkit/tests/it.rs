//! The test support does what other tests rely on.

use std::time::Duration;

use kf_testkit::{SoftHsm, Tool, scratch};

#[test]
fn a_run_gets_its_input_and_returns_both_outputs_and_the_code() {
    let output = Tool::new("sh").run_with_input(&["-c", "cat; echo oops >&2; exit 3"], b"hello");
    assert_eq!(
        (output.code, output.stdout.as_slice(), output.stderr.as_slice()),
        (Some(3), &b"hello"[..], &b"oops\n"[..])
    );
}

#[test]
#[should_panic(expected = "apt-get install no-such-program")]
fn a_missing_program_is_reported_with_its_package() {
    drop(Tool::new("no-such-program"));
}

#[test]
#[should_panic(expected = "not finished after")]
fn a_run_past_its_deadline_is_killed_and_fails() {
    let _output = Tool::new("sleep").deadline(Duration::from_millis(50)).run(&["600"]);
}

#[test]
fn a_running_program_is_watched_by_its_lines() {
    let mut running = Tool::new("sh").start(&["-c", "echo one; echo ready >&2; exec cat"]);
    assert_eq!(running.wait_for_line(|line| line == "ready"), "ready");
}

#[test]
fn a_scratch_directory_is_gone_when_dropped() {
    let directory = scratch();
    let path = directory.path().to_owned();
    assert!(path.is_dir());
    drop(directory);
    assert!(!path.exists());
}

#[test]
fn a_scratch_token_is_seen_by_pkcs11_tool() {
    let token = SoftHsm::new();
    let module = SoftHsm::module().to_str().unwrap();
    token.tool("pkcs11-tool").run(&["--module", module, "-T"]).expect_success().expect_text(SoftHsm::LABEL);
}

//! What the agent takes from a small gateway.

use std::path::Path;

use kf_testkit::Tool;

use crate::bench::{LONG, Reply, bench};

/// A ceiling for the unoptimised program of the tests, in KiB.
const MOST_RESIDENT_KIB: u64 = 32 * 1024;

#[tokio::test(flavor = "multi_thread")]
async fn a_running_agent_stays_below_its_ceiling_of_memory() {
    let bench = bench(|_, _| Reply::Issue(LONG)).await;
    std::fs::write(bench.path("code"), "ABCD-EFGH\n").unwrap();
    let text = bench.config_text("[bootstrap]\ncode_file = \"{dir}/code\"\n");
    std::fs::write(bench.path("agent.toml"), text).unwrap();
    // `cargo xtask agent-size` has the program as it is shipped measured.
    let program = std::env::var_os("KEYFLEET_AGENT_PROGRAM");
    let program = program.unwrap_or_else(|| env!("CARGO_BIN_EXE_keyfleet-agent").into());
    let agent = Tool::at(Path::new(&program));
    let mut running = agent.start(&["run", "--config", bench.path("agent.toml").to_str().unwrap()]);
    running.wait_for_line(|line| line.contains("\"enrolled\""));
    let status = std::fs::read_to_string(format!("/proc/{}/status", running.id())).unwrap();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    let resident: u64 = resident.trim().trim_end_matches(" kB").parse().unwrap();
    println!("resident memory of keyfleet-agent after enrolling: {resident} KiB");
    assert!(resident > 1_024 && resident < MOST_RESIDENT_KIB, "{resident} KiB");
}

//! `keyfleet-agent`.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    kf_agent::main_with(std::env::args_os().skip(1).collect())
}

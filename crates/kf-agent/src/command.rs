//! The command line: `keyfleet-agent run|once|status --config FILE`.

use std::ffi::OsString;
use std::process::ExitCode;

/// Runs the agent with these arguments (without a program name) on a runtime of its own.
#[must_use]
#[allow(clippy::todo)]
pub fn main_with(arguments: Vec<OsString>) -> ExitCode {
    let _ = arguments;
    todo!()
}

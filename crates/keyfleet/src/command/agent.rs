//! `keyfleet agent`: the device agent in the same binary, for the demonstration.

use std::ffi::OsString;
use std::process::ExitCode;

pub(crate) fn run(arguments: Vec<OsString>) -> ExitCode {
    kf_agent::main_with(arguments)
}

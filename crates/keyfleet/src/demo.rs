//! The demonstration.

use std::process::ExitCode;

/// What the demonstration is asked for.
#[derive(Clone, Debug)]
pub(crate) struct DemoOptions {
    /// Leave the server up for exploring.
    pub(crate) keep: bool,
    /// How many devices.
    pub(crate) devices: u32,
    /// One JSON object per check instead of lines for people.
    pub(crate) json: bool,
}

/// Runs it.
pub(crate) fn run(options: DemoOptions) -> ExitCode {
    let DemoOptions { keep: _, devices: _, json: _ } = options;
    crate::output::say("error: the demonstration is not part of this build");
    ExitCode::FAILURE
}

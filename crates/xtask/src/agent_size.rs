//! `cargo xtask agent-size`: what the agent takes from a small gateway.

use std::path::Path;

use crate::process::{Failure, Result, cargo, command, output, run, target_directory};

/// A profile of its own: what fits a gateway is not what serves a fleet fastest.
const PROFILE: &str = "agent";
/// Where the test finds the program to be measured.
const PROGRAM: &str = "KEYFLEET_AGENT_PROGRAM";
const MEASURED: &str = "resident memory of keyfleet-agent after enrolling: ";

/// Builds the agent as it is shipped to a gateway, static and stripped, and prints its size and the resident memory of a running
/// one.
///
/// # Errors
/// When it does not build, does not enrol, or one of the figures is missing.
pub(crate) fn run_all() -> Result<()> {
    let remedy = "see the output above";
    let host = host()?;
    // With a target that is named, the flags are the program's and not those of what runs while it is built.
    let build = ["build", "--profile", PROFILE, "--package", "kf-agent", "--bin", "keyfleet-agent", "--target", &host];
    run(cargo().args(build).env("RUSTFLAGS", "-C target-feature=+crt-static"), remedy)?;
    let program = target_directory().join(&host).join(PROFILE).join("keyfleet-agent");
    let octets = size(&program)?;
    // The same run as in the tests, of this program: start, make a key, enrol over HTTPS, rest.
    let test = ["test", "--package", "kf-agent", "--test", "it", "footprint", "--", "--nocapture"];
    let said = output(cargo().args(test).env(PROGRAM, &program), remedy)?;
    let missing = || Failure::new("the test did not say how much memory the agent takes", remedy);
    let resident = said.lines().find_map(|line| line.strip_prefix(MEASURED)).ok_or_else(missing)?;
    let resident = resident.split_whitespace().next().ok_or_else(missing)?;
    println!("| keyfleet-agent, static and stripped, without TPM | {:.1} MiB |", mebibytes(octets));
    println!("| resident after enrolling | {resident} KiB |");
    Ok(())
}

/// The target that this machine compiles for by itself, as `rustc -vV` names it.
fn host() -> Result<String> {
    let said = output(command("rustc").arg("-vV"), "install Rust with rustup")?;
    let host = said.lines().find_map(|line| line.strip_prefix("host: ")).map(str::to_owned);
    host.ok_or_else(|| Failure::new("rustc does not say which target it is for", "install Rust with rustup"))
}

fn size(program: &Path) -> Result<u64> {
    let found = std::fs::metadata(program).map(|metadata| metadata.len());
    found.map_err(|error| Failure::new(format!("{} was not built: {error}", program.display()), "see the output above"))
}

/// To a tenth.
#[allow(clippy::cast_precision_loss, clippy::as_conversions, reason = "a figure of at most a few digits")]
fn mebibytes(octets: u64) -> f64 {
    octets as f64 / f64::from(1024 * 1024)
}

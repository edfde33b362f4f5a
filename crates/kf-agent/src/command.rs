//! The command line: `keyfleet-agent run|once|status --config FILE`.

use std::ffi::OsString;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use kf_pki::certificate::PresentedCertificate;
use rustix::process::{DumpableBehavior, set_dumpable_behavior};
use tokio::signal::unix::{SignalKind, signal};

use crate::agent::{Agent, RunOutcome};
use crate::config::Config;
use crate::disk::DirectoryDisk;
use crate::event::EventSink;
use crate::failure::{Failure, chain_of};
use crate::slots::{Slots, StoredSpare};

/// A device's identity: enrols over EST, renews in time, survives.
#[derive(Debug, Parser)]
#[command(name = "keyfleet-agent", version, no_binary_name = true)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Runs until SIGTERM or SIGINT; tells what happens as JSON lines on standard output
    Run(ConfigFile),
    /// Does what is due now and ends: 0 with a valid certificate, 75 when something is under way, 1 otherwise
    Once(ConfigFile),
    /// Shows what is stored as one JSON object; changes nothing
    Status(ConfigFile),
}

#[derive(Debug, clap::Args)]
struct ConfigFile {
    /// The configuration, TOML
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

/// EX_TEMPFAIL of sysexits.h.
const TRY_AGAIN: u8 = 75;

/// Runs the agent with these arguments (without a program name) on a runtime of its own.
#[must_use]
pub fn main_with(arguments: Vec<OsString>) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    match runtime {
        Ok(runtime) => runtime.block_on(run_with(arguments)),
        Err(error) => report(&format!("no event loop: {error}")),
    }
}

/// As [`main_with`], inside a runtime that is there already.
pub async fn run_with(arguments: Vec<OsString>) -> ExitCode {
    let arguments = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments,
        Err(error) => {
            // To standard output for --help and --version, to standard error otherwise.
            return match error.print() {
                Ok(()) if !error.use_stderr() => ExitCode::SUCCESS,
                _ => ExitCode::from(2),
            };
        }
    };
    // Keys are in this process: no core dump, no ptrace by others of this user.
    if let Err(errno) = set_dumpable_behavior(DumpableBehavior::NotDumpable) {
        return report(&format!("the process cannot be protected from dumps: {errno}"));
    }
    let log = tracing_subscriber::fmt().with_writer(std::io::stderr).with_max_level(tracing::Level::WARN);
    if log.try_init().is_err() {
        tracing::debug!("the log is set up already");
    }
    let outcome = match &arguments.verb {
        Verb::Run(file) => run(&file.config).await,
        Verb::Once(file) => once(&file.config).await,
        Verb::Status(file) => status(&file.config),
    };
    outcome.unwrap_or_else(|failure| report(&chain_of(&failure)))
}

fn report(text: &str) -> ExitCode {
    let line = format!("keyfleet-agent: {text}\n");
    // Nobody to tell when standard error is closed: the exit status remains.
    match std::io::stderr().write_all(line.as_bytes()) {
        Ok(()) | Err(_) => ExitCode::FAILURE,
    }
}

async fn run(config: &Path) -> Result<ExitCode, Failure> {
    let agent = Agent::open(Config::load(config)?, EventSink::stdout())?;
    let failed = |source| Failure::Source { field: "signals", source };
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let stop = async {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    agent.run(stop).await;
    Ok(ExitCode::SUCCESS)
}

async fn once(config: &Path) -> Result<ExitCode, Failure> {
    let outcome = Agent::open(Config::load(config)?, EventSink::stdout())?.once().await;
    Ok(match outcome {
        RunOutcome { needs_attention: true, .. } => ExitCode::FAILURE,
        RunOutcome { is_valid: true, is_settled: true, .. } => ExitCode::SUCCESS,
        RunOutcome { is_settled: false, .. } => ExitCode::from(TRY_AGAIN),
        RunOutcome { is_valid: false, .. } => ExitCode::FAILURE,
    })
}

fn status(config: &Path) -> Result<ExitCode, Failure> {
    let config = Config::load(config)?;
    let failed = |source| Failure::State { path: config.state_dir.clone(), source };
    let contents = Slots::new(DirectoryDisk::existing(&config.state_dir)).read().map_err(failed)?;
    let leaf = contents.in_use.as_ref().and_then(|stored| {
        let text = std::str::from_utf8(&stored.chain).ok()?;
        let der = kf_pki::pem::decode_all("CERTIFICATE", text)?.into_iter().next()?;
        let presented = PresentedCertificate::from_der(&der)?;
        Some(serde_json::json!({
            "sha256": kf_crypto::sha256(&der).iter().map(|octet| format!("{octet:02x}")).collect::<String>(),
            "not_before": presented.not_before,
            "not_after": presented.not_after,
        }))
    });
    let under_way = match contents.spare {
        StoredSpare::Empty => None,
        StoredSpare::Requested { .. } => Some("requested"),
        StoredSpare::Issued(_) => Some("issued, not proven"),
    };
    let is_enrolled = leaf.is_some();
    let shown = serde_json::json!({
        "device": config.device_name,
        "certificate": leaf,
        "under_way": under_way,
        "key_sealed": !config.key.allow_plain_key,
    });
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{shown}").map_err(|source| Failure::Source { field: "standard output", source })?;
    Ok(if is_enrolled { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

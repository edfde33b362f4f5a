//! The command line: `keyfleet-agent run|once|status --config FILE`.

use std::ffi::OsString;
use std::io::{Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use kf_key::SecretBytes;
use kf_pki::certificate::PresentedCertificate;
use rustix::process::{DumpableBehavior, set_dumpable_behavior};
use tokio::signal::unix::{SignalKind, signal};
use zeroize::Zeroizing;

use crate::agent::{Agent, RunOutcome};
use crate::config::{Config, ConfigError, KeyKind};
use crate::disk::DirectoryDisk;
use crate::event::EventSink;
use crate::failure::{Failure, chain_of};
use crate::slots::{Slots, StoredSpare};
use crate::volume_key;

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
    /// Shows the boot state that a policy authority can approve, as one JSON object
    BootState(ConfigFile),
    /// Records that the device keeps under its storage key; while the agent is stopped
    #[command(subcommand)]
    Record(RecordVerb),
    /// A key for an encrypted volume, held by the TPM
    #[command(subcommand)]
    VolumeKey(VolumeVerb),
}

#[derive(Debug, clap::Args)]
struct ConfigFile {
    /// The configuration, TOML
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Where the key lives, instead of what the configuration says
    #[arg(long, value_enum)]
    key: Option<KeyKind>,
}

impl ConfigFile {
    fn load(&self) -> Result<Config, ConfigError> {
        match self.key {
            None => Config::load(&self.config),
            Some(kind) => Config::load_with_key(&self.config, kind),
        }
    }
}

#[derive(Debug, Subcommand)]
enum RecordVerb {
    /// Keeps what comes on standard input, at most 256 octets
    Put(RecordPlace),
    /// Writes what is kept to standard output
    Get(RecordPlace),
}

#[derive(Debug, clap::Args)]
struct RecordPlace {
    /// The configuration, TOML
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Which record
    #[arg(value_name = "0-255")]
    number: u8,
}

#[derive(Debug, Subcommand)]
enum VolumeVerb {
    /// Has the TPM seal a fresh key; never over an existing file
    Create(VolumeFile),
    /// Runs a program with the key on its standard input, for example cryptsetup open --key-file -
    Run {
        #[command(flatten)]
        file: VolumeFile,
        /// The program by its absolute path, and its arguments
        #[arg(last = true, required = true, num_args = 1..=64)]
        command: Vec<OsString>,
    },
}

#[derive(Debug, clap::Args)]
struct VolumeFile {
    /// The configuration, TOML
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// The sealed key
    #[arg(long, value_name = "FILE")]
    file: PathBuf,
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
    if matches!(arguments.verb, Verb::Run(_)) && !kf_backend::lock_memory() {
        tracing::warn!("memory is not locked, and keys in it may be swapped out: raise LimitMEMLOCK, or have no swap");
    }
    let outcome = match &arguments.verb {
        Verb::Run(file) => run(file).await,
        Verb::Once(file) => once(file).await,
        Verb::Status(file) => status(file),
        Verb::BootState(file) => file.load().map_err(Failure::from).and_then(|config| boot_state(&config)),
        Verb::Record(RecordVerb::Put(place)) => put_record(place),
        Verb::Record(RecordVerb::Get(place)) => get_record(place),
        Verb::VolumeKey(VolumeVerb::Create(volume)) => {
            load(volume).and_then(|config| volume_key::create(&config.key, &volume.file))
        }
        Verb::VolumeKey(VolumeVerb::Run { file, command }) => {
            load(file).and_then(|config| volume_key::run(&config.key, &file.file, command))
        }
    };
    outcome.unwrap_or_else(|failure| report(&chain_of(&failure)))
}

fn load(volume: &VolumeFile) -> Result<Config, Failure> {
    Ok(Config::load_with_key(&volume.config, KeyKind::Tpm)?)
}

#[cfg(feature = "tpm")]
fn boot_state(config: &Config) -> Result<ExitCode, Failure> {
    let shown = crate::key_source::tpm::boot_state(&config.key)?;
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{shown}").map_err(|source| Failure::Source { field: "standard output", source })?;
    Ok(ExitCode::SUCCESS)
}

#[cfg(not(feature = "tpm"))]
fn boot_state(_config: &Config) -> Result<ExitCode, Failure> {
    Err(Failure::NotBuilt { field: "key.kind", value: "tpm", feature: "tpm" })
}

fn put_record(place: &RecordPlace) -> Result<ExitCode, Failure> {
    let agent = Agent::open(Config::load(&place.config)?, EventSink::stderr())?;
    let failed = |source| Failure::Source { field: "standard input", source };
    // Into its place at once: what grows, and what is read ahead, leaves copies behind.
    let mut input = std::fs::File::from(std::io::stdin().as_fd().try_clone_to_owned().map_err(failed)?);
    // One octet more than a record has, so that a longer one is refused and not cut.
    let mut octets = Zeroizing::new(vec![0; kf_device::protected::MAX_OCTETS.saturating_add(1)]);
    let mut length = 0;
    while let Some(rest) = octets.get_mut(length..).filter(|rest| !rest.is_empty()) {
        match input.read(rest) {
            Ok(0) => break,
            Ok(count) => length += count,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(failed(error)),
        }
    }
    let octets = octets.get(..length).unwrap_or_default();
    agent.put_record(place.number, &SecretBytes::fill(length, |place| place.copy_from_slice(octets)))?;
    Ok(ExitCode::SUCCESS)
}

fn get_record(place: &RecordPlace) -> Result<ExitCode, Failure> {
    let agent = Agent::open(Config::load(&place.config)?, EventSink::stderr())?;
    let Some(octets) = agent.read_record(place.number)? else {
        return Ok(report(&format!("nothing is kept under {}", place.number)));
    };
    let failed = |source| Failure::Source { field: "standard output", source };
    // Exposed to whom it is kept for.
    std::io::stdout().lock().write_all(octets.expose()).map_err(failed)?;
    Ok(ExitCode::SUCCESS)
}

fn report(text: &str) -> ExitCode {
    let line = format!("keyfleet-agent: {text}\n");
    // Nobody to tell when standard error is closed: the exit status remains.
    match std::io::stderr().write_all(line.as_bytes()) {
        Ok(()) | Err(_) => ExitCode::FAILURE,
    }
}

async fn run(file: &ConfigFile) -> Result<ExitCode, Failure> {
    let agent = Agent::open(file.load()?, EventSink::stdout())?;
    let failed = |source| Failure::Source { field: "signals", source };
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let stop = async {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    // The process ends so that nothing of the owner stays in its memory; whoever supervises it starts it again.
    Ok(if agent.run(stop).await.was_reset { ExitCode::from(TRY_AGAIN) } else { ExitCode::SUCCESS })
}

async fn once(file: &ConfigFile) -> Result<ExitCode, Failure> {
    let outcome = Agent::open(file.load()?, EventSink::stdout())?.once().await;
    Ok(match outcome {
        RunOutcome { was_reset: true, .. } => ExitCode::from(TRY_AGAIN),
        RunOutcome { needs_attention: true, .. } => ExitCode::FAILURE,
        RunOutcome { is_valid: true, is_settled: true, .. } => ExitCode::SUCCESS,
        RunOutcome { is_settled: false, .. } => ExitCode::from(TRY_AGAIN),
        RunOutcome { is_valid: false, .. } => ExitCode::FAILURE,
    })
}

fn status(file: &ConfigFile) -> Result<ExitCode, Failure> {
    let config = file.load()?;
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
        "wiped": config.state_dir.join("wiped").exists(),
    });
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{shown}").map_err(|source| Failure::Source { field: "standard output", source })?;
    Ok(if is_enrolled { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

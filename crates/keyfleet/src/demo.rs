//! `keyfleet demo`: a whole fleet from its root to the proof that a revoked device is out, on loopback, in a directory
//! that is thrown away. Nothing is simulated: the server, the signer, the broker and every device are what an operator
//! runs, the devices and the signer as processes of their own.

mod broker;
mod device;
pub(crate) mod incident;
mod proof;
mod report;
mod stage;
pub(crate) mod station;

use std::process::ExitCode;
use std::time::Duration;

use kf_api::revocation::{RevocationTarget, RevokeOutcome, RevokeRequest};
use kf_client::Method;
use kf_key::RevocationReason;

use broker::Broker;
use device::Devices;
use report::Report;
use stage::Stage;

/// The most devices: each is a process.
const MAX_DEVICES: u32 = 64;
/// How long a device may take to enrol and connect on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// Which broker the devices talk to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum BrokerChoice {
    /// Mosquitto where it is installed, else the built-in echo
    Auto,
    /// Mosquitto; fails where it is not installed
    Mosquitto,
    /// The built-in mutual-TLS echo
    Echo,
}

/// What the demonstration is asked for.
#[derive(Clone, Debug)]
pub(crate) struct DemoOptions {
    /// Leave the server up for exploring.
    pub(crate) keep: bool,
    /// How many devices.
    pub(crate) devices: u32,
    /// Which broker.
    pub(crate) broker: BrokerChoice,
    /// One JSON object per check instead of lines for people.
    pub(crate) json: bool,
}

/// Why the demonstration could not go on; what was checked until then has been printed.
#[derive(Debug, thiserror::Error)]
#[error("{step}: {problem}")]
pub(crate) struct DemoError {
    step: &'static str,
    problem: String,
}

/// Turns any error into one of this step, with its causes.
pub(crate) fn at<E: std::error::Error>(step: &'static str) -> impl Fn(E) -> DemoError {
    move |error| {
        let mut problem = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            problem = format!("{problem}: {cause}");
            source = cause.source();
        }
        DemoError { step, problem }
    }
}

pub(crate) fn failed(step: &'static str, problem: impl Into<String>) -> DemoError {
    DemoError { step, problem: problem.into() }
}

/// The first digits of a hash, for people.
fn first(fingerprint: &str) -> &str {
    fingerprint.get(..16).unwrap_or(fingerprint)
}

/// Runs it: success only if every check holds.
pub(crate) fn run(options: DemoOptions) -> ExitCode {
    let mut report = Report::new(options.json);
    run_with(&mut report, async |report| play(&options, report).await)
}

/// Runs a demonstration on an event loop of its own.
fn run_with(report: &mut Report, play: impl AsyncFnOnce(&mut Report) -> Result<(), DemoError>) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            crate::output::say(&format!("error: {error}"));
            return ExitCode::FAILURE;
        }
    };
    if let Err(error) = runtime.block_on(play(report)) {
        report.check(error.step, &error.problem, false);
    }
    report.close()
}

async fn play(options: &DemoOptions, report: &mut Report) -> Result<(), DemoError> {
    if !(2..=MAX_DEVICES).contains(&options.devices) {
        return Err(failed("options", format!("--devices takes 2 to {MAX_DEVICES}")));
    }
    let stage = Stage::set(report).await?;
    let names: Vec<String> = (1..=options.devices).map(|number| format!("thermo-{number:03}")).collect();
    let codes = stage.register(&names, report).await?;
    let broker = Broker::start(&stage, options.broker, report).await?;
    let mut devices = Devices::start(&stage, &broker, codes).await?;
    devices.wait_for_all("enrolled", PATIENCE).await?;
    proof::certificates(&stage, &names, report).await?;
    devices.wait_for_all("connected", PATIENCE).await?;
    devices.wait_for_all("published", PATIENCE).await?;
    report.check(
        "connect",
        &format!("{} devices hold mutual-TLS sessions at {}", names.len(), broker.describe()),
        true,
    );
    let Some(victim) = names.get(1) else { return Err(failed("options", "no second device")) };
    prove_revocation(&stage, &broker, &mut devices, victim, report).await?;
    proof::audit(&stage, victim, report).await?;
    if options.keep {
        stage.keep_up(broker.describe(), report).await?;
    }
    devices.stop().await;
    broker.stop().await;
    stage.strike().await;
    Ok(())
}

async fn prove_revocation(
    stage: &Stage,
    broker: &Broker,
    devices: &mut Devices,
    victim: &str,
    report: &mut Report,
) -> Result<(), DemoError> {
    proof::status_of(stage, victim, false, report).await?;
    let request = RevokeRequest {
        target: RevocationTarget::Device(victim.to_owned()),
        reason: RevocationReason::KeyCompromise,
        why: "demonstration: its key was found in a firmware dump".to_owned(),
        verify: true,
        dry_run: false,
    };
    devices.mark(victim);
    let outcome: RevokeOutcome =
        stage.owner.send_json(Method::POST, &stage.url("/v1/revocations"), &request).await.map_err(at("revoke"))?;
    let broker_verified = !outcome.brokers.is_empty() && outcome.brokers.iter().all(|broker| broker.verified);
    let trouble: Vec<_> = outcome.brokers.iter().filter_map(|broker| broker.failure.clone()).collect();
    let said = if trouble.is_empty() { String::new() } else { format!(" ({})", trouble.join("; ")) };
    report.check(
        "revoke",
        &format!("{victim} revoked (keyCompromise), log entry {}{said}", outcome.log_index.unwrap_or_default()),
        outcome.done && outcome.certificates == 1,
    );
    report.check(
        "broker",
        &format!("{} published the CRL, read it, cut the session and sees nobody of that name", broker.describe()),
        broker_verified,
    );
    proof::status_of(stage, victim, true, report).await?;
    proof::crl_carries(stage, victim, report).await?;
    let cut = devices.wait_for(victim, "disconnected", PATIENCE).await;
    report.check("session", &format!("the process of {victim} saw its live session end"), cut.is_ok());
    let refused = devices.wait_for(victim, "refused", PATIENCE).await;
    report.check("reconnect", &format!("the process of {victim} tried again and was refused"), refused.is_ok());
    let others = devices.others_still_publish(victim, PATIENCE).await;
    report.check("others", "every other device still publishes on its session", others);
    Ok(())
}

//! `keyfleet serve`.

mod brokers;
pub(crate) mod unlock;

use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Args, ValueEnum};
use kf_fleet::{DataDir, Fleet, FleetConfig, SystemClock};
use kf_server::{Limits, Listeners};
use kf_signer::SignerClient;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::api::Context;
use crate::failure::Failure;
use crate::output::{Names, object, say};
use crate::profile;
use unlock::Unlock;

/// How to serve.
#[derive(Debug, Args)]
pub(crate) struct Serve {
    /// HTTPS address instead of the configured one: EST and the API
    #[arg(long, value_name = "ADDR:PORT")]
    listen: Option<String>,
    /// Plain HTTP address instead of the configured one: CRLs, OCSP, CA certificates
    #[arg(long, value_name = "ADDR:PORT")]
    listen_http: Option<String>,
    /// Read and check the configuration, start nothing
    #[arg(long)]
    check_config: bool,
    /// How log lines are written to standard error
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    log: LogFormat,
    #[command(flatten)]
    unlock: Unlock,
}

/// How log lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// For people
    Text,
    /// One object a line
    Json,
}

pub(crate) fn run(context: &Context, serve: &Serve) -> Result<ExitCode, Failure> {
    let dir = context.data_dir()?;
    let mut config = load(&dir)?;
    let configured = config.listen.https.rsplit_once(':').and_then(|(_, port)| port.parse().ok());
    config.listen.https = serve.listen.clone().unwrap_or(config.listen.https);
    config.listen.http = serve.listen_http.clone().unwrap_or(config.listen.http);
    if config.demo {
        return Err(Failure::usage(
            format!("{} was made by `keyfleet demo` and is thrown away", dir.path().display()),
            "make a fleet of your own with `keyfleet init --data DIR`",
        ));
    }
    // Before anybody types a passphrase.
    drop(dir.rotation_policy(&config)?);
    if serve.check_config {
        say(&format!("{} is sound", dir.config_file().display()));
        object(context.format, &config, &Names::new())?;
        return Ok(ExitCode::SUCCESS);
    }
    serve.unlock.apply_to(&mut config.signer)?;
    start_log(serve.log);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(|error| {
        Failure::local(format!("no event loop: {error}"), "raise the limits on open files and processes")
    })?;
    runtime.block_on(until_stopped(dir, config, configured))?;
    Ok(ExitCode::SUCCESS)
}

fn load(dir: &DataDir) -> Result<FleetConfig, Failure> {
    if !dir.config_file().exists() {
        return Err(Failure::local(
            format!("{} holds no fleet", dir.path().display()),
            format!("keyfleet init --data {}", dir.path().display()),
        ));
    }
    Ok(dir.load_config()?)
}

/// Standard error carries the log; standard output stays free for the ready line.
fn start_log(format: LogFormat) {
    let builder = tracing_subscriber::fmt().with_writer(std::io::stderr).with_max_level(tracing::Level::INFO);
    match format {
        LogFormat::Text => {
            let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
            let colour = !unwanted && std::io::IsTerminal::is_terminal(&std::io::stderr());
            builder.with_ansi(colour).with_target(false).init();
        }
        LogFormat::Json => builder.json().init(),
    }
}

/// `configured`: the port that the command line on this host asks, unless another one is noted.
async fn until_stopped(dir: DataDir, config: FleetConfig, configured: Option<u16>) -> Result<(), Failure> {
    // Bound first: a port in use is found before anybody types a passphrase.
    let https = bind(&config.listen.https, "--listen").await?;
    let http = bind(&config.listen.http, "--listen-http").await?;
    let signer = SignerClient::spawn(unlock::signer_command(&dir, config.signer.clone(), false)).await?;
    let fleet = Fleet::open(dir.clone(), config, signer.clone(), Arc::new(SystemClock)).await?;
    for broker in brokers::open(&fleet).await? {
        fleet.attach_broker(broker);
    }
    warn_at_start(fleet.config());
    let (stop, stopped) = watch::channel(false);
    let background = tokio::spawn(Arc::clone(&fleet).run(stopped.clone()));
    let elsewhere = Some(local_address(&https)?).filter(|address| Some(address.port()) != configured);
    profile::note_address(dir.path(), elsewhere)?;
    announce(&fleet, &https, &http)?;
    let listeners = Listeners { https, http };
    let serving = tokio::spawn(kf_server::serve(Arc::clone(&fleet), listeners, Limits::default(), stopped));
    let outcome = wait(serving, stop).await;
    if let Err(error) = background.await {
        tracing::error!(%error, "the background work ended in a bug");
    }
    fleet.close().await;
    signer.shutdown().await;
    tracing::info!("stopped");
    outcome.and(profile::note_address(dir.path(), None))
}

/// Serves until a signal asks to stop; what is in flight is finished.
async fn wait(
    mut serving: tokio::task::JoinHandle<Result<(), kf_server::ServeError>>,
    stop: watch::Sender<bool>,
) -> Result<(), Failure> {
    let no_signal = |error| Failure::local(format!("signals cannot be received: {error}"), "report this");
    let mut terminate = signal(SignalKind::terminate()).map_err(no_signal)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(no_signal)?;
    let ended = tokio::select! {
        ended = &mut serving => Some(ended),
        _ = terminate.recv() => None,
        _ = interrupt.recv() => None,
    };
    tracing::info!("stopping");
    stop.send_replace(true);
    let ended = match ended {
        Some(ended) => ended,
        None => serving.await,
    };
    match ended {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => {
            let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
            Err(Failure::local(format!("{error}{cause}"), "see `keyfleet doctor`"))
        }
        Err(error) => Err(Failure::local(format!("the listeners ended in a bug: {error}"), "please report this")),
    }
}

async fn bind(address: &str, flag: &str) -> Result<TcpListener, Failure> {
    TcpListener::bind(address).await.map_err(|error| {
        Failure::local(
            format!("cannot listen on {address}: {error}"),
            format!("stop what listens there, or give another address with {flag}"),
        )
    })
}

/// What an operator should be told at every start, not once.
fn warn_at_start(config: &FleetConfig) {
    if config.witness_dir.is_none() {
        tracing::warn!(
            "no witness: a rollback of the database cannot be noticed; set witness_dir to a directory on another host"
        );
    }
    if config.single_control {
        tracing::warn!("single control: one person can do what otherwise needs two, after a delay");
    }
    if !config.signer.unlock.is_rereadable() {
        tracing::warn!("the signer cannot be restarted without a person: its secret is not in a file or credential");
    }
}

/// The ready line, on standard output: what scripts wait for, with the ports that were given.
fn announce(fleet: &Fleet, https: &TcpListener, http: &TcpListener) -> Result<(), Failure> {
    let (https, http) = (local_address(https)?, local_address(http)?);
    tracing::info!(fleet = fleet.config().fleet, %https, %http, "ready");
    crate::output::raw(format!("ready https={https} http={http}\n").as_bytes())
}

fn local_address(listener: &TcpListener) -> Result<SocketAddr, Failure> {
    listener.local_addr().map_err(|error| Failure::local(format!("no local address: {error}"), "report this"))
}

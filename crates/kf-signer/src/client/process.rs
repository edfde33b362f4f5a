//! The signer's process as the client sees it: started, watched, and started again.

use std::os::unix::net::UnixStream;
use std::process::ExitStatus;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tokio::sync::{oneshot, watch};

use super::Shared;
use super::link::{Ended, Link};
use crate::child::Hello;
use crate::protocol::{RequestKind, bug};
use crate::start::start;
use crate::{SignerCapabilities, SignerCommand, SignerError};

/// How long a start may take: Argon2id on a busy machine, or a slow token.
const START_DEADLINE: Duration = Duration::from_secs(60);
/// The same when somebody types a passphrase.
const PROMPT_DEADLINE: Duration = Duration::from_secs(600);
/// How long the process may take to finish once it is told to stop.
const EXIT_DEADLINE: Duration = Duration::from_secs(5);
/// Attempts to restart before giving up.
const MAX_ATTEMPTS: u32 = 5;
/// Pause before the first attempt to restart; doubles with each.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// A process that lived this long counts as healthy, and the attempts start anew.
const HEALTHY_LIFE: Duration = Duration::from_secs(60);

/// Reports the end of the process.
type Exited = oneshot::Receiver<std::io::Result<ExitStatus>>;

/// A started signer.
struct Started {
    link: Arc<Link>,
    ended: Ended,
    exited: Exited,
    capabilities: SignerCapabilities,
    process_id: u32,
}

/// Starts the signer and a task that watches it.
pub(super) async fn spawn(mut command: SignerCommand) -> Result<Arc<Shared>, SignerError> {
    let started = start_process(&command).await?;
    command.create_root = false;
    let shared = Shared::new(started.capabilities.clone(), Arc::clone(&started.link));
    shared.process_id.store(started.process_id, Ordering::Relaxed);
    drop(tokio::spawn(supervise(command, Arc::downgrade(&shared), started)));
    Ok(shared)
}

async fn start_process(command: &SignerCommand) -> Result<Started, SignerError> {
    let (ours, theirs) = UnixStream::pair().map_err(|error| start(&error))?;
    let (process_id, exited) = keep_process(command.to_command(theirs)?).await?;
    let (link, ended) = Link::open(ours)?;
    let hello = Hello { config: command.child_config(), create_root: command.create_root };
    let hello = serde_json::to_vec(&hello).map_err(|_cannot_fail| bug("hello"))?;
    let deadline = if command.waits_for_a_person() { PROMPT_DEADLINE } else { START_DEADLINE };
    let answer = link.call_within(RequestKind::Hello, &[&hello], deadline).await.map_err(|error| match error {
        SignerError::Unavailable => SignerError::Start("the signer's process ended or hangs".to_owned()),
        other => other,
    })?;
    let capabilities = serde_json::from_slice(&answer).map_err(|_syntax| bug("unreadable capabilities"))?;
    Ok(Started { link, ended, exited, capabilities, process_id })
}

/// Starts the process from a thread that lives as long as the process does: the signal that ends the child with its
/// parent (PR_SET_PDEATHSIG) is about the parent's thread, not its process.
async fn keep_process(mut command: std::process::Command) -> Result<(u32, Exited), SignerError> {
    let (report_start, started) = oneshot::channel();
    let (report_exit, exited) = oneshot::channel();
    let keeper = std::thread::Builder::new().name("signer-keeper".to_owned()).spawn(move || {
        let spawned = command.spawn();
        // Closes our copies of the child's descriptors; with them open its socket would never end.
        drop(command);
        match spawned {
            Ok(mut child) => {
                drop(report_start.send(Ok(child.id())));
                drop(report_exit.send(child.wait()));
            }
            Err(error) => drop(report_start.send(Err(error))),
        }
    });
    keeper.map_err(|error| start(&error))?;
    match started.await {
        Ok(Ok(process_id)) => Ok((process_id, exited)),
        Ok(Err(error)) => Err(start(&error)),
        Err(_gone) => Err(bug("the keeper of the signer ended")),
    }
}

/// Watches the process until the client is gone, shut down, or out of attempts.
async fn supervise(command: SignerCommand, shared: Weak<Shared>, mut started: Started) {
    let mut attempts = 0;
    loop {
        let born = Instant::now();
        let Started { link, ended, exited, process_id, capabilities: _ } = started;
        drop(link);
        let Some(stopping) = shared.upgrade().map(|client| client.is_stopping.subscribe()) else { return };
        let patience = tokio::select! {
            () = ended.wait() => EXIT_DEADLINE,
            () = overdue(stopping) => Duration::ZERO,
        };
        if let Some(client) = shared.upgrade() {
            client.set_link(None);
        }
        let status = wait_for_exit(process_id, exited, patience).await;
        if is_over(&shared) {
            return end(&shared);
        }
        tracing::error!(?status, "the signer's process ended");
        if born.elapsed() >= HEALTHY_LIFE {
            attempts = 0;
        }
        match restart(&command, &shared, &mut attempts).await {
            Some(again) => started = again,
            None => return end(&shared),
        }
    }
}

/// Resolves when the signer was told to stop, or its client dropped, and it had its time to finish.
async fn overdue(mut stopping: watch::Receiver<bool>) {
    // An error means that the client is gone.
    drop(stopping.wait_for(|stopping| *stopping).await);
    tokio::time::sleep(EXIT_DEADLINE).await;
}

/// Waits until the process has ended; kills one that hangs, so that no two of them hold the token.
async fn wait_for_exit(process_id: u32, mut exited: Exited, patience: Duration) -> Option<ExitStatus> {
    if let Ok(status) = tokio::time::timeout(patience, &mut exited).await {
        return status.ok()?.ok();
    }
    tracing::error!(process_id, "the signer's process hangs and is killed");
    // The keeper has not collected it yet, so that the number is still its own.
    let process = i32::try_from(process_id).ok().and_then(Pid::from_raw)?;
    if let Err(error) = kill_process(process, Signal::KILL) {
        tracing::error!(%error, process_id, "the signer's process cannot be killed");
    }
    tokio::time::timeout(EXIT_DEADLINE, exited).await.ok()?.ok()?.ok()
}

/// Whether the client is gone or was told to stop.
fn is_over(shared: &Weak<Shared>) -> bool {
    shared.upgrade().is_none_or(|client| *client.is_stopping.borrow())
}

fn end(shared: &Weak<Shared>) {
    if let Some(client) = shared.upgrade() {
        client.has_ended.send_replace(true);
    }
}

async fn restart(command: &SignerCommand, shared: &Weak<Shared>, attempts: &mut u32) -> Option<Started> {
    if !command.is_repeatable() {
        tracing::error!("the signer cannot be restarted without its passphrase; restart the server");
        return None;
    }
    while *attempts < MAX_ATTEMPTS && !is_over(shared) {
        tokio::time::sleep(FIRST_PAUSE * 2_u32.pow(*attempts)).await;
        *attempts += 1;
        match start_process(command).await {
            Ok(started) => {
                let client = shared.upgrade()?;
                client.restarts.fetch_add(1, Ordering::Relaxed);
                client.process_id.store(started.process_id, Ordering::Relaxed);
                client.set_link(Some(Arc::clone(&started.link)));
                if is_over(shared) {
                    // Told to stop while it started: whoever waits for the end must get it.
                    client.set_link(None);
                }
                tracing::warn!(attempt = *attempts, "the signer was restarted");
                return Some(started);
            }
            Err(error) => tracing::error!(%error, attempt = *attempts, "the signer does not restart"),
        }
    }
    tracing::error!("the signer does not restart; issuance stops until the server is restarted");
    None
}

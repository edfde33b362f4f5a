//! The signer's process as the client sees it: started, watched, and started again.

use std::os::unix::net::UnixStream;
use std::process::ExitStatus;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

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
/// How long the process may take to end once its socket is closed.
const EXIT_DEADLINE: Duration = Duration::from_secs(10);
/// Attempts to restart before giving up.
const MAX_ATTEMPTS: u32 = 5;
/// Pause before the first attempt to restart; doubles with each.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// A process that lived this long counts as healthy, and the attempts start anew.
const HEALTHY_LIFE: Duration = Duration::from_secs(60);

/// A started signer.
struct Started {
    link: Arc<Link>,
    ended: Ended,
    exited: oneshot::Receiver<std::io::Result<ExitStatus>>,
    capabilities: SignerCapabilities,
    process_id: u32,
}

/// Starts the signer and a task that watches it.
pub(super) async fn spawn(mut command: SignerCommand) -> Result<Arc<Shared>, SignerError> {
    let started = start_process(&command).await?;
    command.create_root = false;
    let shared = Shared::new(started.capabilities.clone(), Arc::clone(&started.link));
    shared.process_id.store(started.process_id, Ordering::Relaxed);
    drop(tokio::spawn(watch(command, Arc::downgrade(&shared), started)));
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
async fn keep_process(
    mut command: std::process::Command,
) -> Result<(u32, oneshot::Receiver<std::io::Result<ExitStatus>>), SignerError> {
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
async fn watch(command: SignerCommand, shared: Weak<Shared>, mut started: Started) {
    let mut attempts = 0;
    loop {
        let born = Instant::now();
        let Started { link, ended, exited, .. } = started;
        drop(link);
        ended.wait().await;
        if let Some(client) = shared.upgrade() {
            client.set_link(None);
        }
        let status = tokio::time::timeout(EXIT_DEADLINE, exited).await;
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

/// Whether the client is gone or was told to stop.
fn is_over(shared: &Weak<Shared>) -> bool {
    shared.upgrade().is_none_or(|client| client.is_stopping.load(Ordering::SeqCst))
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

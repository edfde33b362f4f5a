//! The signer's own process.

use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::process::ExitCode;

use serde::{Deserialize, Serialize};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::engine::Engine;
use crate::frame::{Inbox, encode};
use crate::protocol::{DONE, FAILED, REQUESTS, RequestKind, bug, encode_error};
use crate::serve::{read_frame, serve};
use crate::start::{open_backend, start};
use crate::{SignerConfig, SignerError, hardening};

/// Stack that is written over after the passphrase was read and the root opened.
const START_OCTETS: usize = 512 * 1024;

/// The first request.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Hello {
    pub(crate) config: SignerConfig,
    pub(crate) create_root: bool,
}

/// The signer's main function. Requests arrive on standard input, which is one end of a socket pair; it returns when
/// the other end is closed. Nothing is read from the command line.
#[must_use]
pub fn run_signer() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(%error, "the signer ends");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), SignerError> {
    hardening::harden().map_err(|error| start(&error))?;
    let stream = std::io::stdin().as_fd().try_clone_to_owned().map(UnixStream::from).map_err(|error| start(&error))?;
    let mut inbox = Inbox::new(REQUESTS);
    let hello = read_frame(&stream, &mut inbox).map_err(|error| start(&error))?;
    // The server went away before it said anything.
    let Some(hello) = hello else { return Ok(()) };
    let engine = kf_key::with_wiped_stack::<START_OCTETS, _>(|| greet(hello.kind, &hello.body));
    let _signals = ignore_signals().map_err(|error| start(&error))?;
    let answer = match &engine {
        Ok(engine) => {
            let capabilities =
                serde_json::to_vec(&engine.capabilities()).map_err(|_cannot_fail| bug("capabilities"))?;
            encode(hello.id, DONE, &[&capabilities])
        }
        Err(error) => encode(hello.id, FAILED, &[&encode_error(error)]),
    };
    let answer = answer.map_err(|error| start(&error))?;
    (&stream).write_all(&answer).map_err(|error| start(&error))?;
    serve(&engine?, &stream, inbox);
    Ok(())
}

fn greet(kind: u8, body: &[u8]) -> Result<Engine, SignerError> {
    if kind != RequestKind::Hello.code() {
        return Err(bug("the first request is not a hello"));
    }
    let hello: Hello = serde_json::from_slice(body).map_err(|_syntax| bug("unreadable hello"))?;
    let backend = open_backend(&hello.config, hello.create_root)?;
    Engine::new(backend, hello.config.ceilings).map_err(|error| start(&error))
}

/// A terminal's interrupt and a service manager's termination reach the whole group, the signer too. It must outlive
/// the server's last request, and ends with the socket. At the prompt, before this, an interrupt still ends it.
fn ignore_signals() -> std::io::Result<[Signal; 3]> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let _entered = runtime.enter();
    // A handler, once installed, stays for the life of the process, whether or not anybody listens.
    Ok([signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?, signal(SignalKind::hangup())?])
}

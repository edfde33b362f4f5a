//! A wipe: every key is destroyed, that they are gone is read back, and only then the receipt is sent.
//!
//! ```text
//! vault: counter and receipt, nothing else     one step, made by the SDK
//! `wiped`: the receipt                          from here on the agent does nothing but this
//! hardware keys, every other file               overwritten, removed, looked for
//! `wiped-done`                                  the hardware is not asked again
//! receipt sent, `wiped-told`                    the agent rests for ever
//! ```
//! Each step can be repeated, and is after a power cut. Overwriting a file does not reach the cells of a flash memory that
//! remaps; wrapped keys are worthless there once the wrapping key is gone.

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::path::Path;

use kf_device::enrolment::machine::{Spare, State};
use kf_exchange::order::OrderReport;
use kf_key::UnixMillis;

use super::duties::{NEVER, outcome_name};
use super::{Agent, LAST_SEEN, ROOT};
use crate::disk::{Disk as _, replace};
use crate::event::Event;
use crate::failure::chain_of;
use crate::key_source::SoftwareKeys;
use crate::secret_source::CodeSource;
use crate::vault::VaultError;

/// The file of the receipt.
pub(super) const WIPED: &str = "wiped";
/// Nothing is left.
pub(super) const WIPED_DONE: &str = "wiped-done";
/// The server has the receipt.
const WIPED_TOLD: &str = "wiped-told";
/// What may stay: no secrets.
const KEPT: [&str; 6] = [WIPED, WIPED_DONE, WIPED_TOLD, ROOT, LAST_SEEN, "lock"];
/// The deepest directory that is looked into.
pub(super) const MAX_DEPTH: usize = 4;
/// How long between attempts to finish, or to tell.
pub(super) const PAUSE: u64 = 60 * UnixMillis::SECOND;

/// Overwrites and removes every file below `directory` but those that `keeps` names.
pub(super) fn remove_all(directory: &Path, keeps: &dyn Fn(&Path) -> bool, depth: usize) -> io::Result<()> {
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        let path = entry.path();
        if entry.file_type()?.is_dir() {
            if depth > 0 {
                remove_all(&path, keeps, depth.saturating_sub(1))?;
            }
        } else if !keeps(&path) {
            overwrite_and_remove(&path)?;
        }
    }
    std::fs::File::open(directory)?.sync_all()
}

fn overwrite_and_remove(path: &Path) -> io::Result<()> {
    let octets = std::fs::symlink_metadata(path)?;
    if octets.is_file() {
        let mut file = OpenOptions::new().write(true).open(path)?;
        let length = usize::try_from(octets.len()).unwrap_or_default();
        file.write_all(&vec![0; length])?;
        file.sync_all()?;
    }
    std::fs::remove_file(path)
}

/// As [`overwrite_and_remove`]; a file that is not there is none.
pub(super) fn overwrite_and_remove_if_there(path: &Path) -> io::Result<()> {
    match overwrite_and_remove(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Whether nothing is left below `directory` but what `keeps` names.
pub(super) fn is_empty(directory: &Path, keeps: &dyn Fn(&Path) -> bool, depth: usize) -> io::Result<bool> {
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        let is_there = if entry.file_type()?.is_dir() {
            depth == 0 || !is_empty(&entry.path(), keeps, depth.saturating_sub(1))?
        } else {
            !keeps(&entry.path())
        };
        if is_there {
            return Ok(false);
        }
    }
    Ok(true)
}

impl Agent {
    /// Goes on with a wipe or a reset that was interrupted right after the step that counts: by a power cut, or by the disk.
    pub(super) fn resume_ending(&mut self) -> Result<(), VaultError> {
        let Some(duties) = &self.duties else { return Ok(()) };
        let receipt = duties.ring.vault().wiped()?;
        match receipt {
            Some(receipt) => self.destroy(&receipt),
            None => self.resume_reset()?,
        }
        Ok(())
    }

    /// Destroys every key and reads back. What fails is tried again; the receipt is not sent before.
    pub(super) fn destroy(&mut self, receipt: &[u8]) {
        self.wiped = Some(receipt.to_vec());
        self.stop_using_keys();
        if let Err(error) = replace(self.slots.disk(), WIPED, receipt) {
            self.retry("wipe", chain_of(&error));
        }
    }

    /// The telemetry ends, and nothing signs, seals or enrols any more.
    pub(super) fn stop_using_keys(&mut self) {
        self.in_use.send_replace(None);
        self.candidate = None;
        self.factory = None;
        self.code = CodeSource::None;
        self.state = State::new(None, Spare::Empty, false, false, false);
        if let Some(duties) = &self.duties {
            duties.ring.forget();
        }
    }

    /// The PIN, the authorisation value, the storage key that a TPM released: what held keys elsewhere has nothing of this device any
    /// more, and the process may live on.
    pub(super) fn forget_hardware(&mut self) {
        self.duties = None;
        self.keys = Box::new(SoftwareKeys::new(self.config.key.algorithm, None));
    }

    fn finish_destruction(&mut self) -> Result<Vec<String>, String> {
        let told = |error: &(dyn std::error::Error + 'static)| chain_of(error);
        let receipt = self.wiped.clone().unwrap_or_default();
        replace(self.slots.disk(), WIPED, &receipt).map_err(|error| told(&error))?;
        self.keys.destroy_all().map_err(|error| told(&error))?;
        let state_dir = self.config.state_dir.clone();
        let keeps = |path: &Path| {
            path.parent() == Some(state_dir.as_path())
                && KEPT.iter().any(|name| path.file_name().is_some_and(|found| found == *name))
        };
        remove_all(&state_dir, &keeps, MAX_DEPTH).map_err(|error| told(&error))?;
        if !is_empty(&state_dir, &keeps, MAX_DEPTH).map_err(|error| told(&error))? {
            return Err("files are left in the state directory".to_owned());
        }
        let bootstrap = &self.config.bootstrap;
        let elsewhere = [&bootstrap.idevid_key_file, &bootstrap.idevid_sealed_key_file, &bootstrap.code_file];
        let mut left = Vec::new();
        for path in elsewhere.into_iter().flatten() {
            if overwrite_and_remove_if_there(path).is_err() {
                left.push(path.display().to_string());
            }
        }
        replace(self.slots.disk(), WIPED_DONE, b"\n").map_err(|error| told(&error))?;
        self.forget_hardware();
        Ok(left)
    }

    /// Finishes the destruction and sends the receipt; says when to come again.
    pub(super) async fn tell_wiped(&mut self) -> UnixMillis {
        let again = self.clock.now().plus(PAUSE);
        let read = |agent: &mut Self, file| agent.slots.disk().read(file).ok().flatten();
        if read(self, WIPED_TOLD).is_some() {
            return NEVER;
        }
        if read(self, WIPED_DONE).is_none() {
            match self.finish_destruction() {
                Ok(left) => self.events.tell(&Event::Wiped { left }),
                Err(reason) => {
                    self.retry("wipe", reason);
                    return again;
                }
            }
        }
        let (Some(server), Some(receipt)) = (&self.server, &self.wiped) else { return again };
        match server.answer_order(receipt).await {
            Ok(()) => {
                if let Ok(OrderReport { counter, outcome, .. }) = OrderReport::claimed(receipt) {
                    self.events.tell(&Event::OrderAnswered { counter, outcome: outcome_name(outcome) });
                }
            }
            Err(refusal) if refusal.is_final() => self.events.tell(&Event::OrderRefused { reason: refusal.reason }),
            Err(refusal) => {
                self.retry("wipe", refusal.reason);
                return again;
            }
        }
        if let Err(error) = replace(self.slots.disk(), WIPED_TOLD, b"\n") {
            self.retry("wipe", chain_of(&error));
        }
        NEVER
    }
}

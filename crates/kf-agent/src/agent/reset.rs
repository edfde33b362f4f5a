//! A factory reset (RFC 8808): what this owner brought is destroyed, that it is gone is read back, and only then the receipt is sent. What
//! the maker did stays: the key and the certificate of the IDevID.
//!
//! ```text
//! vault: counters and receipt, nothing else    one step, made by the SDK
//! `remembered`: the counters                   for the vault of the next owner
//! `reset`: the receipt                         from here on the agent does nothing but this
//! hardware keys, every other file              overwritten, removed, looked for; the IDevID's are passed over
//! `reset-done`                                 the hardware is not asked again
//! receipt sent, `reset-told`                   known roots, and all of the above, are removed; the process ends, and its memory with it
//! ```
//! Each step can be repeated, and is after a power cut. The next start is that of a device that never enrolled.

use std::path::{Path, PathBuf};

use kf_device::order::ResetOrder;
use kf_exchange::IdentityKey;
use kf_exchange::order::OrderReport;
use kf_key::UnixMillis;

use super::duties::{NEVER, outcome_name};
use super::wipe::{MAX_DEPTH, PAUSE, is_empty, overwrite_and_remove_if_there, remove_all};
use super::{Agent, LAST_SEEN, OWNER, ROOT};
use crate::anchors::ANCHORS;
use crate::disk::{Disk as _, replace};
use crate::event::Event;
use crate::failure::chain_of;
use crate::vault::{REMEMBERED, VaultError};

/// The file of the receipt.
pub(super) const RESET: &str = "reset";
/// Nothing of the owner's keys is left.
pub(super) const RESET_DONE: &str = "reset-done";
/// The server has the receipt.
const RESET_TOLD: &str = "reset-told";
/// What stays until the receipt is sent: no secrets.
const KEPT: [&str; 7] = [RESET, RESET_DONE, REMEMBERED, ROOT, ANCHORS, LAST_SEEN, "lock"];

impl Agent {
    /// Carries the order out in the vault, which is the step that counts.
    pub(super) fn carry_out_reset<K: IdentityKey>(&mut self, order: ResetOrder, signer: &K) -> Result<(), VaultError> {
        let now = self.clock.now();
        let (receipt, remembered) = {
            let mut vault = self.ring()?.vault();
            let receipt = vault.reset(order, now, signer)?;
            (receipt.as_bytes().to_vec(), vault.remembered()?)
        };
        self.begin_reset(receipt, &remembered);
        Ok(())
    }

    /// Goes on with a reset that a power cut interrupted right after the step that counts.
    pub(super) fn resume_reset(&mut self) -> Result<(), VaultError> {
        let Some(duties) = &self.duties else { return Ok(()) };
        let found = {
            let mut vault = duties.ring.vault();
            vault.reset_receipt()?.map(|receipt| Ok::<_, VaultError>((receipt, vault.remembered()?))).transpose()?
        };
        if let Some((receipt, remembered)) = found {
            self.begin_reset(receipt, &remembered);
        }
        Ok(())
    }

    /// Nothing signs or seals any more. What fails here is done again: the vault has the receipt as well.
    fn begin_reset(&mut self, receipt: Vec<u8>, remembered: &[u8]) {
        let noted = replace(self.slots.disk(), REMEMBERED, remembered)
            .and_then(|()| replace(self.slots.disk(), RESET, &receipt));
        match noted {
            Ok(()) => {
                self.reset = Some(receipt);
                self.stop_using_keys();
            }
            Err(error) => self.retry("reset", chain_of(&error)),
        }
    }

    fn finish_reset(&mut self) -> Result<Vec<String>, String> {
        let told = |error: &(dyn std::error::Error + 'static)| chain_of(error);
        // Without it the vault opens no more, whatever is left of it in which cell.
        let owner = self.config.state_dir.join(OWNER);
        overwrite_and_remove_if_there(&owner).map_err(|error| told(&error))?;
        self.keys.destroy_all().map_err(|error| told(&error))?;
        let (state_dir, of_maker) = (self.config.state_dir.clone(), self.files_of_maker());
        let keeps = |path: &Path| {
            let is_kept = path.parent() == Some(state_dir.as_path())
                && KEPT.iter().any(|name| path.file_name().is_some_and(|found| found == *name));
            is_kept || path.canonicalize().is_ok_and(|path| of_maker.contains(&path))
        };
        remove_all(&state_dir, &keeps, MAX_DEPTH).map_err(|error| told(&error))?;
        if !is_empty(&state_dir, &keeps, MAX_DEPTH).map_err(|error| told(&error))? {
            return Err("files are left in the state directory".to_owned());
        }
        let mut left = Vec::new();
        for path in self.config.bootstrap.code_file.iter() {
            if overwrite_and_remove_if_there(path).is_err() {
                left.push(path.display().to_string());
            }
        }
        replace(self.slots.disk(), RESET_DONE, b"\n").map_err(|error| told(&error))?;
        self.forget_hardware();
        Ok(left)
    }

    /// The files of the IDevID, wherever they lie.
    fn files_of_maker(&self) -> Vec<PathBuf> {
        let bootstrap = &self.config.bootstrap;
        let files = [&bootstrap.idevid_key_file, &bootstrap.idevid_sealed_key_file, &bootstrap.idevid_chain_file];
        files.into_iter().flatten().filter_map(|path| path.canonicalize().ok()).collect()
    }

    /// Finishes the reset and sends the receipt; says when to come again.
    pub(super) async fn tell_reset(&mut self) -> UnixMillis {
        let again = self.clock.now().plus(PAUSE);
        if matches!(self.slots.disk().read(RESET_DONE), Ok(None) | Err(_)) {
            match self.finish_reset() {
                Ok(left) => self.events.tell(&Event::FactoryReset { left }),
                Err(reason) => {
                    self.retry("reset", reason);
                    return again;
                }
            }
        }
        if self.know_server().await.is_err() {
            return again;
        }
        let (Some(server), Some(receipt)) = (&self.server, &self.reset) else { return again };
        match server.answer_order(receipt).await {
            Ok(()) => {
                if let Ok(OrderReport { counter, outcome, .. }) = OrderReport::claimed(receipt) {
                    self.events.tell(&Event::OrderAnswered { counter, outcome: outcome_name(outcome) });
                }
            }
            // A server that never ordered it, because somebody has configured another one, stands in nobody's way.
            Err(refusal) if refusal.is_final() => self.events.tell(&Event::OrderRefused { reason: refusal.reason }),
            Err(refusal) => {
                self.retry("reset", refusal.reason);
                return again;
            }
        }
        match replace(self.slots.disk(), RESET_TOLD, b"\n").and_then(|()| forget_owner(self.slots.disk())) {
            Ok(()) => self.was_reset = true,
            Err(error) => self.retry("reset", chain_of(&error)),
        }
        NEVER
    }
}

/// What is left of a reset whose receipt was sent is removed; before anything else is read, so that no root of the former owner is believed.
pub(super) fn settle(disk: &mut crate::disk::DirectoryDisk) -> std::io::Result<()> {
    if disk.read(RESET_TOLD)?.is_some() { forget_owner(disk) } else { Ok(()) }
}

fn forget_owner(disk: &mut crate::disk::DirectoryDisk) -> std::io::Result<()> {
    for file in [ANCHORS, ROOT, RESET_DONE, RESET] {
        disk.remove(file)?;
    }
    disk.sync_directory("")?;
    disk.remove(RESET_TOLD)?;
    disk.sync_directory("")
}

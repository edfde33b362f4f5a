//! What is left: in the flash memory, and in the memory of the running device.

use kf_device::sealed::kf_seal::Sealed;
use kf_testkit::KnownSecret;

use super::{COMMANDS, Life, NAME, Outcome, SERVICE};
use crate::bridge::{Board, BridgeError, Command, Running};
use crate::remains::{CHIP, KEY};
use crate::server::ServerError;

/// Counters, the report of the wipe and the digest of a start-up test, in the journal's frames.
const MAX_LEFT_OCTETS: usize = 1_024;
/// The flash memory as the emulator keeps it, and as anybody reads it out of a chip.
const DUMP: &str = "flash.bin";

impl Life {
    /// Takes note of the keys that the device holds by now; none of them lies in the clear.
    pub(super) fn look_for_keys(&mut self, stage: &str) -> Outcome<()> {
        let cells = self.board.flash.cells();
        self.remains.collect(cells)?;
        let found = self.remains.found_in(cells).in_the_clear;
        if found > 0 {
            self.hold(&format!("no key in the clear after {stage}"), format!("{found} fragments"), false);
        }
        Ok(())
    }

    /// Keys in the memory of the device while it uses them and after it has, in one boot.
    pub(super) fn look_into_memory(&mut self) -> Outcome<()> {
        let (mut running, _) = self.board.start(&self.image)?;
        let envelope = running.tell(Command::Seal, &[SERVICE, b"while somebody looks"])?;
        let boot = *Sealed::parse(&envelope)?.boot().random();
        let known = || self.remains.in_memory(&self.folder, &[SERVICE, COMMANDS.as_bytes()], [&boot].into_iter());
        running.watch(known()?);
        running.tell(Command::Exchange, &[])?;
        // No order waits, but the session in which the device asks is signed by its key.
        running.tell(Command::Orders, &[])?;
        running.tell(Command::Recall, &[&[0]])?;
        running.tell(Command::Show, &[])?;
        let during: usize = running.seen().iter().map(|seen| seen.count(KEY)).sum();
        let after = running.search(&known()?)?;
        drop(running);
        let (chip, keys) = (after.count(CHIP), after.count(KEY));
        self.hold("the search of its memory sees keys in use", format!("{during} times"), during > 0);
        self.hold("the search of its memory sees its chip key", format!("{chip} times"), chip > 0);
        self.hold("fragments of keys in its memory after their use", keys.to_string(), keys == 0);
        Ok(())
    }

    /// Two people order the wipe; the device carries it out and signs that it has.
    pub(super) fn die(&mut self) -> Outcome<()> {
        self.hold_alive("the wipe")?;
        let asked = ["order", "create", "--device", NAME, "--act", "wipe", "--why", "sold", "--yes"];
        let proposal = self.fleet.propose(&asked)?;
        self.fleet.approve(&proposal)?;
        let waiting = self.progress()?;
        self.hold("the order before the device has answered", waiting.clone(), waiting == "queued");

        let receipt = self.obey_and_forget("the wipe")?;
        let cells = self.board.flash.cells();
        let left = cells.iter().filter(|cell| **cell != 0xff).count();
        self.hold("octets left after the wipe", left.to_string(), left <= MAX_LEFT_OCTETS && !receipt.is_empty());
        self.hold_dead()
    }

    /// Obeys the order that waits, whatever the power does; afterwards nothing of any key is in its flash memory or its RAM. The report.
    pub(super) fn obey_and_forget(&mut self, what: &str) -> Outcome<Vec<u8>> {
        let known = self.known()?;
        let (report, in_memory) = self.repeat(|running| {
            use_keys(running)?;
            let report = running.tell(Command::Orders, &[])?;
            // The power is still on: what was left in memory is there.
            Ok((report, running.search(&known)?))
        })?;
        let progress = self.progress()?;
        self.hold(&format!("{what} obeyed, and its receipt verified"), progress.clone(), progress == "executed");
        self.hold_nothing_in_memory(&format!("after {what}"), in_memory.count(CHIP), in_memory.count(KEY));
        let after = self.remains.found_in(self.board.flash.cells());
        let none = after.stored == 0 && after.in_the_clear == 0;
        let found = (after.stored + after.in_the_clear).to_string();
        self.hold(&format!("fragments of 8 octets after {what}"), found, none);
        let found = self.remnants()?;
        self.hold(&format!("`keyfleet image remnants` on its dump after {what}"), exit_code(found), !found);
        Ok(report)
    }

    /// The controls: what must not be found afterwards is found before.
    pub(super) fn hold_alive(&mut self, what: &str) -> Outcome<()> {
        let before = self.remains.found_in(self.board.flash.cells());
        let seen = self.remains.would_be_seen_in(self.board.flash.cells());
        let keys = self.remains.keys();
        // Two device keys and two identities at least: one of each before the rotation, one after.
        self.hold(&format!("keys known to the search before {what}"), keys.to_string(), keys >= 4);
        let found = format!("{} fragments, wrapped", before.stored);
        self.hold(&format!("the search sees what is there before {what}"), found, before.stored > 0 && seen);
        let found = self.remnants()?;
        self.hold(&format!("`keyfleet image remnants` sees it before {what}"), exit_code(found), found);
        Ok(())
    }

    fn hold_dead(&mut self) -> Outcome<()> {
        let known = self.known()?;
        let mut board = Board::new(&self.folder, None)?;
        let (mut running, _) = board.start(&self.image)?;
        let again = running.tell(Command::Seal, &[SERVICE, b"x"]);
        let seen = running.search(&known)?;
        drop(running);
        let refused = matches!(again, Err(BridgeError::Refused(_)));
        self.hold("a wiped device seals nothing", "refused".to_owned(), refused);
        self.hold_nothing_in_memory("at its next start", seen.count(CHIP), seen.count(KEY));
        Ok(())
    }

    fn hold_nothing_in_memory(&mut self, when: &str, chip: usize, keys: usize) {
        let found = format!("{keys}; of its chip key {chip}");
        self.hold(&format!("fragments of keys in its memory {when}"), found, keys == 0 && chip > 0);
    }

    /// What is looked for in its memory.
    fn known(&self) -> Outcome<Vec<KnownSecret>> {
        let boots = self.nonces.iter().map(|(boot, _)| boot);
        self.remains.in_memory(&self.folder, &[SERVICE, COMMANDS.as_bytes()], boots)
    }

    /// How the newest order stands.
    pub(super) fn progress(&self) -> Outcome<String> {
        let orders = self.fleet.json(&["order", "list", "--device", NAME])?;
        Ok(orders["items"][0]["progress"].as_str().unwrap_or_default().to_owned())
    }

    /// Whether `keyfleet image remnants` finds anything of any key in the dump of the flash memory.
    fn remnants(&self) -> Outcome<bool> {
        let dump = self.folder.join(DUMP);
        let secrets = self.remains.write(&self.fleet.path("secrets"))?;
        let dump = dump.to_string_lossy();
        let arguments: Vec<&str> =
            ["image", "remnants", &dump].into_iter().chain(secrets.iter().map(String::as_str)).collect();
        match self.fleet.run(&arguments) {
            Ok(_) => Ok(false),
            Err(ServerError::Failed { code: Some(1), .. }) => Ok(true),
            Err(other) => Err(other.into()),
        }
    }
}

fn exit_code(found: bool) -> String {
    format!("exit code {}", u8::from(found))
}

/// Seals, so that keys were in use in this boot. A device that is wiped already refuses.
fn use_keys(running: &mut Running<'_>) -> Result<(), BridgeError> {
    match running.tell(Command::Seal, &[SERVICE, b"the last"]) {
        Ok(_) | Err(BridgeError::Refused(_)) => Ok(()),
        Err(other) => Err(other),
    }
}

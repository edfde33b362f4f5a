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
        self.hold_alive()?;
        let asked = ["order", "create", "--device", NAME, "--act", "wipe", "--why", "sold", "--yes"];
        let proposal = self.fleet.propose(&asked)?;
        self.fleet.approve(&proposal)?;
        let waiting = self.progress()?;
        self.hold("the order before the device has answered", waiting.clone(), waiting == "queued");

        let known = self.known()?;
        let (receipt, in_memory) = self.repeat(|running| {
            use_keys(running)?;
            let receipt = running.tell(Command::Orders, &[])?;
            // The power is still on: what the wipe left in memory is there.
            Ok((receipt, running.search(&known)?))
        })?;
        let progress = self.progress()?;
        self.hold("wiped by order, and its receipt verified", progress.clone(), progress == "executed");
        self.hold_nothing_in_memory("when it was wiped", in_memory.count(CHIP), in_memory.count(KEY));

        let cells = self.board.flash.cells();
        let (after, left) = (self.remains.found_in(cells), cells.iter().filter(|cell| **cell != 0xff).count());
        let none = after.stored == 0 && after.in_the_clear == 0;
        self.hold("fragments of 8 octets after the wipe", (after.stored + after.in_the_clear).to_string(), none);
        self.hold("octets left after the wipe", left.to_string(), left <= MAX_LEFT_OCTETS && !receipt.is_empty());
        let found = self.remnants()?;
        self.hold("`keyfleet image remnants` on its dump", format!("exit code {}", u8::from(found)), !found);
        self.hold_dead()
    }

    /// The controls: what must not be found afterwards is found before.
    fn hold_alive(&mut self) -> Outcome<()> {
        let before = self.remains.found_in(self.board.flash.cells());
        let seen = self.remains.would_be_seen_in(self.board.flash.cells());
        let keys = self.remains.keys();
        // Two device keys and two identities at least: one of each before the rotation, one after.
        self.hold("keys known to the search", keys.to_string(), keys >= 4);
        self.hold(
            "the search sees what is there",
            format!("{} fragments, wrapped", before.stored),
            before.stored > 0 && seen,
        );
        let found = self.remnants()?;
        self.hold("`keyfleet image remnants` sees it too", format!("exit code {}", u8::from(found)), found);
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
    fn progress(&self) -> Outcome<String> {
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

/// Seals, so that keys were in use in this boot. A device that is wiped already refuses.
fn use_keys(running: &mut Running<'_>) -> Result<(), BridgeError> {
    match running.tell(Command::Seal, &[SERVICE, b"the last"]) {
        Ok(_) | Err(BridgeError::Refused(_)) => Ok(()),
        Err(other) => Err(other),
    }
}

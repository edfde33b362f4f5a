//! What is left in the flash memory.

use super::{Life, Outcome, SERVICE};
use crate::bridge::{Board, BridgeError, Command};

/// Counters and the digest of a start-up test, in the journal's frames: what a destroyed device still holds.
const MAX_LEFT_OCTETS: usize = 512;

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

    pub(super) fn die(&mut self) -> Outcome<()> {
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
        let answer = self.despite_cuts(Command::Destroy, &[])?;
        let cells = self.board.flash.cells();
        let (after, left) = (self.remains.found_in(cells), cells.iter().filter(|cell| **cell != 0xff).count());
        let none = after.stored == 0 && after.in_the_clear == 0;
        self.hold("fragments of 8 octets after destruction", (after.stored + after.in_the_clear).to_string(), none);
        self.hold("octets left after destruction", left.to_string(), left <= MAX_LEFT_OCTETS);
        self.hold("erasure read back by the device", "every bank".to_owned(), answer == [1]);
        let again = Board::new(&self.folder, None)?.start(&self.image)?.0.tell(Command::Seal, &[SERVICE, b"x"]);
        let refused = matches!(again, Err(BridgeError::Refused(_)));
        self.hold("a destroyed device seals nothing", "refused".to_owned(), refused);
        Ok(())
    }
}

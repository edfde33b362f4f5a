//! The line as a pure state machine: what happens to one device under test, and what is to be done next. No clock, no I/O.
//!
//! Every act that touches the outside (the token's counter, the signature of a certificate, the device) stands behind an
//! [`Entry`] of the journal that is durable first. [`Book`] is the fold of the entries; after a power cut it says of each
//! unit whether it is finished, can go on, or is scrap.
//!
//! ```text
//! Reading ─► Begun ─► Certifying ─► Writing ─► [Burning] ─► [Closing] ─► Finished     entries of the journal, in order
//!    │         │          │            │           │            └─ cut: only the port's lock is left, or was set: goes on
//!    │         │          │            │           └─ cut: all keys in the fuses: the rest is burnt; else scrap, board and all
//!    │         │          │            └─ cut: read back; whole and proven: goes on to Finished, else scrap
//!    │         │          └─ cut: the key was in memory only: scrap, the board is as it was
//!    │         └─ cut: nothing was signed or written: goes on under the same number
//!    └─ cut: nothing happened
//! ```
//! `Burning` and `Closing` are there when the recipe burns fuses, and closes the serial port.

mod book;
mod entry;

pub use book::{Book, BookError, Counts, Interrupted, MAX_CLOCK_BACK, Standing, Unit};
pub use entry::{Entry, FailReason, HardwareId, MAX_TEXT_OCTETS, Next};

/// What an operator sees of one fixture.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// No device is in the fixture.
    Waiting,
    /// MAC, serial number and fuses are being read.
    Reading,
    /// Keys and certificate are being made.
    Keying,
    /// The image is being written, fuses are being burnt.
    Burning,
    /// Read-back, scan, and the device's own signature.
    Verifying,
    /// Good.
    Pass,
    /// Not good; nothing of this station is in it, or it is scrap.
    Fail,
}

impl Stage {
    /// The word on the screen.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Reading => "reading",
            Self::Keying => "making keys",
            Self::Burning => "burning",
            Self::Verifying => "verifying",
            Self::Pass => "PASS",
            Self::Fail => "FAIL",
        }
    }
}

/// What is to be done now with the device under test.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Act {
    /// Read MAC, serial number and fuses.
    Read,
    /// Ask the book for a number and make the entry durable.
    Begin(HardwareId),
    /// Advance the token's counter to the unit.
    Count(u32),
    /// Make the key, or have the device make it.
    MakeKey,
    /// Journal what will be signed, then have the token sign the certificate.
    Certify,
    /// Journal what will be written, then write it.
    Write,
    /// Write once more what the journal has: it holds no secret, and an earlier life of the station may not have finished.
    WriteAgain,
    /// Read back and compare, look for keys in clear, read the fuses.
    ReadBack,
    /// Journal that fuses will be burnt, burn them, and see what they say; nothing where the recipe burns none.
    Burn,
    /// Have the device sign a challenge.
    Challenge,
    /// Journal that everything was checked, and close the serial port; nothing where the recipe leaves it open.
    Close,
    /// Sign the record and journal it.
    Finish,
    /// Sign the record of a scrapped unit and journal it.
    Scrap(FailReason),
    /// Show that it is good.
    ShowPass,
    /// Show why not and what to do next.
    ShowFail(FailReason),
}

/// What became of the last act.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was done.
    Done,
    /// The device told who it is.
    Identified(HardwareId),
    /// The book gave it a number.
    Numbered {
        /// Place in the quota, from 0.
        unit: u32,
        /// What an earlier life of the station did already.
        standing: Standing,
    },
    /// It was not done, and why.
    Failed(FailReason),
}

/// One device under test in one fixture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Reading,
    Beginning,
    Counting,
    Keying,
    Certifying,
    Writing,
    ReadingBack,
    Burning,
    Challenging,
    Closing,
    Finishing,
    Scrapping(FailReason),
    Passed,
    Failed(FailReason),
}

impl Line {
    /// A device was put into the fixture: what to do first.
    #[must_use]
    pub const fn start() -> (Self, Act) {
        (Self { state: State::Reading }, Act::Read)
    }

    /// What to do next. After [`Act::ShowPass`] or [`Act::ShowFail`] the same is answered for ever.
    pub fn next(&mut self, outcome: Outcome) -> Act {
        let (state, act) = step(self.state, outcome);
        self.state = state;
        act
    }

    /// What the operator sees.
    #[must_use]
    pub const fn stage(&self) -> Stage {
        match self.state {
            State::Reading => Stage::Reading,
            State::Beginning | State::Counting | State::Keying | State::Certifying => Stage::Keying,
            State::Writing | State::Burning | State::Closing => Stage::Burning,
            State::ReadingBack | State::Challenging | State::Finishing => Stage::Verifying,
            State::Passed => Stage::Pass,
            State::Scrapping(_) | State::Failed(_) => Stage::Fail,
        }
    }
}

fn step(state: State, outcome: Outcome) -> (State, Act) {
    use Outcome::{Done, Failed, Identified, Numbered};
    match (state, outcome) {
        (State::Passed, _) => (state, Act::ShowPass),
        (State::Failed(reason), _) => (state, Act::ShowFail(reason)),
        // Before a number is given nothing has happened that anybody must account for.
        (State::Reading | State::Beginning, Failed(reason)) => (State::Failed(reason), Act::ShowFail(reason)),
        (State::Reading, Identified(id)) => (State::Beginning, Act::Begin(id)),
        (State::Beginning, Numbered { unit, standing: Standing::Fresh }) => (State::Counting, Act::Count(unit)),
        (State::Beginning, Numbered { unit: _, standing: Standing::ReadBack }) => (State::ReadingBack, Act::ReadBack),
        (State::Beginning, Numbered { unit: _, standing: Standing::WriteAgain }) => (State::Writing, Act::WriteAgain),
        (State::Beginning, Numbered { unit: _, standing: Standing::Close }) => (State::Closing, Act::Close),
        (State::Counting, Done) => (State::Keying, Act::MakeKey),
        (State::Keying, Done) => (State::Certifying, Act::Certify),
        (State::Certifying, Done) => (State::Writing, Act::Write),
        (State::Writing, Done) => (State::ReadingBack, Act::ReadBack),
        (State::ReadingBack, Done) => (State::Burning, Act::Burn),
        (State::Burning, Done) => (State::Challenging, Act::Challenge),
        (State::Challenging, Done) => (State::Closing, Act::Close),
        (State::Closing, Done) => (State::Finishing, Act::Finish),
        (State::Finishing, Done) => (State::Passed, Act::ShowPass),
        // What became of the unit cannot be recorded: that says more than why it failed, and stops the fixture.
        (State::Scrapping(_), Failed(worse @ (FailReason::Journal | FailReason::JournalFull | FailReason::Token))) => {
            (State::Failed(worse), Act::ShowFail(worse))
        }
        (State::Scrapping(reason), Done | Failed(_)) => (State::Failed(reason), Act::ShowFail(reason)),
        // The journal is what failed: nothing more can be recorded, and the unit stands as it did after its last entry.
        (_, Failed(reason @ (FailReason::Journal | FailReason::JournalFull | FailReason::Token))) => {
            (State::Failed(reason), Act::ShowFail(reason))
        }
        (_, Failed(reason)) => (State::Scrapping(reason), Act::Scrap(reason)),
        (state, Done | Identified(_) | Numbered { .. }) => {
            let reason = FailReason::Bug;
            match state {
                State::Reading | State::Beginning => (State::Failed(reason), Act::ShowFail(reason)),
                _ => (State::Scrapping(reason), Act::Scrap(reason)),
            }
        }
    }
}

#[cfg(test)]
mod tests;

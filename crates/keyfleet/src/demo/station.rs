//! `keyfleet station demo`: a batch from its authorisation to its books, with the power cut again and again.
//!
//! The server, the station and the devices that enrol are what an operator runs, as processes of their own; the boards and their fixtures
//! are simulated, and lie in a directory, so that they survive the station. A power cut kills the station: in the middle of a
//! write of its journal, right after one, or after so many events. What is checked at the end is compared with what lies on
//! the boards, not only with what the station says of itself.

mod books;
mod enrolment;
mod server;
mod shift;

use std::process::ExitCode;

use super::report::Report;
use super::stage::Stage;
use super::{DemoError, failed};
use books::Books;
use shift::Shift;

/// The most devices: each board is a directory.
const MAX_DEVICES: u32 = 10_000;
/// The most power cuts: each is a start of the station.
const MAX_POWER_CUTS: u32 = 1_000;

/// What the demonstration is asked for.
#[derive(Clone, Debug)]
pub(crate) struct StationDemoOptions {
    /// How many devices the quota lists.
    pub(crate) devices: u32,
    /// How many fixtures work side by side.
    pub(crate) fixtures: u32,
    /// How often the power is cut.
    pub(crate) power_cuts: u32,
    /// Where the cuts lie.
    pub(crate) seed: u64,
    /// Leave the server up for exploring.
    pub(crate) keep: bool,
    /// One JSON object per check instead of lines for people.
    pub(crate) json: bool,
}

/// Numbers that look random and are the same for the same seed.
struct Chance {
    seed: u64,
    drawn: u64,
}

impl Chance {
    const fn of(seed: u64) -> Self {
        Self { seed, drawn: 0 }
    }

    /// A number below `limit`; 0 when that is 0.
    fn below(&mut self, limit: u32) -> u32 {
        let input = [self.seed.to_be_bytes(), self.drawn.to_be_bytes()].concat();
        self.drawn = self.drawn.wrapping_add(1);
        let [a, b, c, d, ..] = kf_crypto::sha256(&input);
        u32::from_be_bytes([a, b, c, d]).checked_rem(limit).unwrap_or(0)
    }
}

/// Runs it: success only if every check holds.
pub(crate) fn run(options: &StationDemoOptions) -> ExitCode {
    let mut report = Report::new(options.json);
    super::run_with(&mut report, async |report| play(options, report).await)
}

async fn play(options: &StationDemoOptions, report: &mut Report) -> Result<(), DemoError> {
    let StationDemoOptions { devices, fixtures, power_cuts, .. } = *options;
    if !(8..=MAX_DEVICES).contains(&devices) || !(1..=64).contains(&fixtures) || power_cuts > MAX_POWER_CUTS {
        let limits =
            format!("--devices takes 8 to {MAX_DEVICES}, --fixtures 1 to 64, --power-cuts up to {MAX_POWER_CUTS}");
        return Err(failed("options", limits));
    }
    let stage = Stage::set(report).await?;
    let shift = Shift::set(&stage, options)?;
    let authorised = server::authorise(&stage, &shift, devices, report).await?;
    let mut chance = Chance::of(options.seed);
    let counts = shift.work(&authorised, &mut chance, report).await?;
    let books = Books::open(&shift, &authorised, counts)?;
    books.check(&shift, report)?;
    server::import(&stage, &books, &mut chance, report).await?;
    server::reconcile(&stage, &books, report).await?;
    server::registry(&stage, &books, report).await?;
    enrolment::enrol(&stage, &shift, &books, report).await?;
    super::proof::log(&stage, report).await?;
    if options.keep {
        stage.keep_up(&format!("batch {}", authorised.name), report).await?;
    }
    stage.strike().await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_cuts_at_the_same_places() {
        let draw = |seed| {
            let mut chance = Chance::of(seed);
            (0..8).map(|_| chance.below(100)).collect::<Vec<_>>()
        };
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
        assert!(draw(7).iter().all(|number| *number < 100));
    }
}

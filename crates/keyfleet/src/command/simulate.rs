//! `keyfleet simulate`: the rules acted out, with invariants checked at every step.

use clap::Subcommand;
use kf_rotation::simulation::{Checked, MAX_DEVICES, year};

use crate::api::Context;
use crate::failure::Failure;
use crate::output::{Format, Listing, Names, object, say};

/// What can be acted out.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// A year of a mixed fleet: rotations, campaigns, sleeping devices, power cuts, wrong clocks; exit 0 if every invariant held
    Year {
        /// Devices, 1 to 1,000,000
        #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_DEVICES)))]
        devices: u32,
        /// The same seed gives the same year
        #[arg(long, value_name = "S", default_value_t = 1)]
        seed: u64,
    },
}

pub(crate) fn run(context: &Context, verb: &Verb) -> Result<(), Failure> {
    let Verb::Year { devices, seed } = verb;
    let found = year(*devices, *seed);
    if context.format == Format::Json {
        object(context.format, &found, &Names::new())?;
    } else {
        let mut listing = Listing::new(context.format, &["invariant", "checked", "broken", "first"]);
        listing.rows(&found.invariants, &Names::new())?;
        listing.end(None)?;
    }
    let steps: u64 = found.invariants.iter().map(|one| one.checked).sum();
    say(&format!("{} devices, {} days, seed {}: {steps} checks", found.devices, found.days, found.seed));
    if found.holds {
        return Ok(());
    }
    let is_broken = |one: &&Checked| one.broken > 0 || one.checked == 0;
    let broken: Vec<_> = found.invariants.iter().filter(is_broken).map(|one| one.invariant.name()).collect();
    Err(Failure::local(
        format!("broken: {}", broken.join(", ")),
        format!("report this with the seed: keyfleet simulate year --devices {devices} --seed {seed}"),
    ))
}

//! `keyfleet station demo`.

use std::process::ExitCode;

use clap::Args;

use crate::api::Context;
use crate::demo::station::StationDemoOptions;
use crate::failure::Failure;
use crate::output::{Format, say};

/// What the demonstration can be asked for.
#[derive(Debug, Args)]
pub(crate) struct Demo {
    /// How many devices the quota lists
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(8..=10_000))]
    devices: u32,
    /// How many simulated fixtures work side by side
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=64))]
    fixtures: u32,
    /// How often the power is cut
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(0..=1_000))]
    power_cuts: u32,
    /// Where the cuts lie [default: elsewhere each time]
    #[arg(long)]
    seed: Option<u64>,
    /// Leave the server up for exploring until it is interrupted
    #[arg(long)]
    keep: bool,
}

pub(super) fn run(context: &Context, demo: &Demo) -> Result<ExitCode, Failure> {
    if context.data.is_some() {
        return Err(Failure::usage(
            "the demonstration makes its own throw-away directory",
            "leave --data away, or set up a real station with `keyfleet station request`",
        ));
    }
    let Demo { devices, fixtures, power_cuts, seed, keep } = *demo;
    let drawn = || kf_crypto::random_array().map(u64::from_be_bytes);
    let seed = seed
        .map_or_else(drawn, Ok)
        .map_err(|_opaque| Failure::local("the system gives no random numbers".to_owned(), "give --seed"))?;
    say(&format!("seed {seed}"));
    let json = context.format == Format::Json;
    Ok(crate::demo::station::run(&StationDemoOptions { devices, fixtures, power_cuts, seed, keep, json }))
}

//! `keyfleet demo`.

use std::process::ExitCode;

use clap::Args;

use crate::api::Context;
use crate::demo::{BrokerChoice, DemoOptions};
use crate::failure::Failure;
use crate::output::Format;

/// What the demonstration can be asked for.
#[derive(Debug, Args)]
pub(crate) struct Demo {
    /// Leave the server up for exploring until it is interrupted
    #[arg(long)]
    keep: bool,
    /// How many devices
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=64))]
    devices: u32,
    /// Which broker the devices talk to
    #[arg(long, value_enum, default_value_t = BrokerChoice::Auto)]
    broker: BrokerChoice,
}

pub(crate) fn run(context: &Context, demo: &Demo) -> Result<ExitCode, Failure> {
    if context.data.is_some() {
        return Err(Failure::usage(
            "the demonstration makes its own throw-away directory",
            "leave --data away, or make a real fleet with `keyfleet init --data DIR`",
        ));
    }
    let Demo { keep, devices, broker } = *demo;
    Ok(crate::demo::run(DemoOptions { keep, devices, broker, json: context.format == Format::Json }))
}

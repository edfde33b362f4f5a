//! `keyfleet demo`.

use std::process::ExitCode;

use clap::{Args, ValueEnum};

use crate::api::Context;
use crate::demo::{BrokerChoice, DemoOptions};
use crate::failure::Failure;
use crate::output::Format;

/// What the demonstration can be asked for.
#[derive(Debug, Args)]
pub(crate) struct Demo {
    /// What is played
    #[arg(long, value_enum, default_value_t = Scene::Fleet)]
    scene: Scene,
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

/// What there is to be seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Scene {
    /// A fleet from its root to the proof that a revoked device is out
    Fleet,
    /// A site's credential and a factory station are stolen, and the other site notices nothing
    Incident,
}

pub(crate) fn run(context: &Context, demo: &Demo) -> Result<ExitCode, Failure> {
    if context.data.is_some() {
        return Err(Failure::usage(
            "the demonstration makes its own throw-away directory",
            "leave --data away, or make a real fleet with `keyfleet init --data DIR`",
        ));
    }
    let Demo { scene, keep, devices, broker } = *demo;
    if scene == Scene::Incident {
        if keep {
            return Err(Failure::usage("--keep is of the scene fleet", "leave it out"));
        }
        return Ok(crate::demo::incident::run(context.format == Format::Json));
    }
    Ok(crate::demo::run(DemoOptions { keep, devices, broker, json: context.format == Format::Json }))
}

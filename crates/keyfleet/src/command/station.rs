//! `keyfleet station`: the factory station. It works offline: nothing here talks to a server.

mod cut;
mod demo;
mod device;
mod directory;
mod label;
mod run;
mod scan;
mod screen;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Subcommand;
use serde::Serialize;

use crate::api::Context;
use crate::failure::Failure;
use crate::output::{Names, object, say};
use crate::{file, moment};
use directory::StationDirectory;
use kf_station::clock::{Clock as _, SystemClock};

/// What a station does.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Make the request for a batch: the public halves of this station's keys, which are made when there are none
    Request {
        /// The station's directory; made when missing
        #[arg(long, value_name = "DIR")]
        state: PathBuf,
        /// The station's name: that of the operator of role station
        #[arg(long)]
        name: String,
        /// A file that holds the passphrase of the station's keys, or the PIN of its token, readable by its owner only
        #[arg(long, value_name = "FILE")]
        passphrase_file: PathBuf,
        /// Keep the keys in a PKCS#11 token: its module
        #[arg(long, value_name = "FILE", requires = "pkcs11_token")]
        pkcs11_module: Option<PathBuf>,
        /// Keep the keys in a PKCS#11 token: its label
        #[arg(long, value_name = "LABEL", requires = "pkcs11_module")]
        pkcs11_token: Option<String>,
        /// Keep the keys in this machine's TPM: its address, such as device:/dev/tpmrm0
        #[arg(long, value_name = "ADDRESS", conflicts_with = "pkcs11_module")]
        tpm: Option<String>,
        /// Where to write the request; valid for a day
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
        /// Where to write the public key to register with `keyfleet operator create --role station`, PEM
        #[arg(long, value_name = "FILE")]
        public_key_out: Option<PathBuf>,
    },
    /// Make devices by a recipe, as far as the quota reaches
    Run(Box<run::Run>),
    /// Be the fixture of one device whose key is in a TPM, a token or a secure element here; a station asks on standard input
    Device(device::Device),
    /// Make a batch with simulated boards on this machine, cut the power again and again, and balance the books
    Demo(demo::Demo),
    /// Where the batches of this station stand
    Status {
        /// The station's directory
        #[arg(long, value_name = "DIR")]
        state: PathBuf,
    },
    /// Write the records and manifests of a batch, for `keyfleet batch import`
    Export {
        /// The station's directory
        #[arg(long, value_name = "DIR")]
        state: PathBuf,
        /// The batch, by name or id
        #[arg(long)]
        batch: String,
        /// Where to write them
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
}

pub(crate) use label::{Label, run as run_label};

pub(crate) fn run(context: &Context, verb: Verb) -> Result<ExitCode, Failure> {
    match verb {
        Verb::Request { state, name, passphrase_file, pkcs11_module, pkcs11_token, tpm, out, public_key_out } => {
            file::must_be_free(Some(&out))?;
            file::must_be_free(public_key_out.as_deref())?;
            let secret = directory::passphrase(&passphrase_file)?;
            let station = StationDirectory::create_or_open(&state, &name)?;
            if let (Some(module), Some(token)) = (&pkcs11_module, &pkcs11_token) {
                station.use_pkcs11(module, token)?;
            }
            if let Some(address) = &tpm {
                station.use_tpm(address)?;
            }
            let token = station.create_or_open_token(secret)?;
            request(token.as_ref(), &name, &out, public_key_out.as_deref()).map(|()| ExitCode::SUCCESS)
        }
        Verb::Run(run) => run::run(context, *run),
        Verb::Device(device) => device::run(&device),
        Verb::Demo(demo) => demo::run(context, &demo),
        Verb::Status { state } => status(context, &StationDirectory::open(&state)?).map(|()| ExitCode::SUCCESS),
        Verb::Export { state, batch, out } => {
            file::must_be_free(Some(&out))?;
            export(&StationDirectory::open(&state)?, &batch, &out).map(|()| ExitCode::SUCCESS)
        }
    }
}

fn request(
    token: &dyn kf_station::token::StationToken,
    name: &str,
    out: &std::path::Path,
    public_key_out: Option<&std::path::Path>,
) -> Result<(), Failure> {
    let local = |error: &dyn std::error::Error| Failure::local(error.to_string(), "look at the station's token");
    let request =
        kf_station::request::station_request(token, name, SystemClock.now()).map_err(|error| local(&error))?;
    if let Some(path) = public_key_out {
        let key = token.public_key(kf_station::token::StationKey::Identity).map_err(|error| local(&error))?;
        file::write_new(path, kf_pki::pem::encode("PUBLIC KEY", &key.spki()).as_bytes())?;
    }
    file::write_new(out, &request)?;
    say(&format!(
        "request written to {}, good for a day: `keyfleet batch create … --station-request {}`",
        out.display(),
        out.display()
    ));
    Ok(())
}

/// One batch of a station.
#[derive(Debug, Serialize)]
struct BatchStatus {
    name: String,
    planned: u32,
    good: u32,
    scrap: u32,
    rework: u32,
    open: u32,
    left: u32,
    refused: u32,
    expires: u64,
    is_closed: bool,
    balances: bool,
}

fn status(context: &Context, station: &StationDirectory) -> Result<(), Failure> {
    let mut batches = Vec::new();
    for batch in station.batches()? {
        let (terms, book) = batch.read()?;
        let counts = book.counts();
        batches.push(BatchStatus {
            name: terms.name,
            planned: counts.planned,
            good: counts.good,
            scrap: counts.scrap,
            rework: counts.rework,
            open: counts.open,
            left: counts.left,
            refused: counts.refused,
            expires: terms.expires.0,
            is_closed: book.is_final(),
            balances: counts.balance(),
        });
    }
    if batches.is_empty() {
        say("no batch was begun here; `keyfleet station request` makes the request for one");
    }
    let columns = ["name", "planned", "good", "scrap", "rework", "open", "left", "expires", "is_closed", "balances"];
    let mut listing = crate::output::Listing::new(context.format, &columns);
    listing.rows(&batches, &Names::new())?;
    listing.end(None)
}

fn export(station: &StationDirectory, batch: &str, out: &std::path::Path) -> Result<(), Failure> {
    let batch = station.batch(batch)?;
    let mut octets = Vec::new();
    let count = kf_station::ledger::export(&mut batch.journal_to_read()?, &mut octets)
        .map_err(|error| Failure::local(error.to_string(), "look at the journal's disk"))?;
    file::write_new(out, &octets)?;
    let now = moment::text(SystemClock.now());
    say(&format!("{count} records and manifests written to {} at {now}", out.display()));
    Ok(())
}

/// One object for people or programs.
fn show<T: Serialize>(context: &Context, item: &T) -> Result<(), Failure> {
    object(context.format, item, &Names::new())
}

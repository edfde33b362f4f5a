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
use directory::{BatchState, End, StationDirectory, of_token};
use kf_station::clock::{Clock as _, SystemClock};
use kf_station::generation;
use kf_station::token::{StationKey, StationToken};

/// What a station does.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Make the request for a batch: the public halves of fresh keys, and of those of the last request until its quota was taken
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
        /// Destroy the keys of the last request and draw others: its batch was cancelled, or its quota ended, before it was run
        #[arg(long)]
        fresh: bool,
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
    /// Give a batch up here that was cancelled at the server, or whose journal is lost: destroy its keys
    Cancel {
        /// The station's directory
        #[arg(long, value_name = "DIR")]
        state: PathBuf,
        /// The batch, by name or id
        #[arg(long)]
        batch: String,
        /// A file that holds the passphrase of the station's keys, or the PIN of its token, readable by its owner only
        #[arg(long, value_name = "FILE")]
        passphrase_file: PathBuf,
        /// The batch once more: nothing more can be made or signed of it
        #[arg(long, value_name = "BATCH")]
        confirm: Option<String>,
    },
    /// Where the batches of this station stand, and which keys it holds for them
    Status {
        /// The station's directory
        #[arg(long, value_name = "DIR")]
        state: PathBuf,
    },
    /// Write the records and manifests of a batch, and that its keys are destroyed, for `keyfleet batch import`
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
        Verb::Request {
            state,
            name,
            passphrase_file,
            pkcs11_module,
            pkcs11_token,
            tpm,
            fresh,
            out,
            public_key_out,
        } => {
            file::must_be_free(Some(&out))?;
            file::must_be_free(public_key_out.as_deref())?;
            let secret = directory::passphrase(&passphrase_file)?;
            let station = StationDirectory::create_or_open(&state, &name)?;
            let _lock = station.lock()?;
            if let (Some(module), Some(token)) = (&pkcs11_module, &pkcs11_token) {
                station.use_pkcs11(module, token)?;
            }
            if let Some(address) = &tpm {
                station.use_tpm(address)?;
            }
            let token = station.create_or_open_token(secret)?;
            station.settle(token.as_ref())?;
            station.end_closed(token.as_ref())?;
            if fresh {
                give_up(token.as_ref())?;
            }
            request(token.as_ref(), &name, &out, public_key_out.as_deref()).map(|()| ExitCode::SUCCESS)
        }
        Verb::Cancel { state, batch, passphrase_file, confirm } => {
            cancel(&StationDirectory::open(&state)?, &batch, &passphrase_file, confirm.as_deref())
                .map(|()| ExitCode::SUCCESS)
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
    token: &dyn StationToken,
    name: &str,
    out: &std::path::Path,
    public_key_out: Option<&std::path::Path>,
) -> Result<(), Failure> {
    let generation = generation::for_request(token).map_err(of_token)?;
    let request = kf_station::request::station_request(token, generation, name, SystemClock.now());
    let request = request.map_err(|error| Failure::local(error.to_string(), "look at the station's token"))?;
    if let Some(path) = public_key_out {
        let key = token.public_key(StationKey::Identity).map_err(of_token)?;
        file::write_new(path, kf_pki::pem::encode("PUBLIC KEY", &key.spki()).as_bytes())?;
    }
    file::write_new(out, &request)?;
    say(&format!(
        "request with the keys of generation {generation} written to {}, good for a day and one batch: \
         `keyfleet batch create … --station-request {}`",
        out.display(),
        out.display()
    ));
    Ok(())
}

fn give_up(token: &dyn StationToken) -> Result<(), Failure> {
    let destroyed = generation::give_up(token).map_err(of_token)?;
    say(&destroyed.map_or_else(
        || "no request waits for its quota: nothing is given up".to_owned(),
        |generation| format!("the keys of generation {generation} are destroyed"),
    ));
    Ok(())
}

fn cancel(
    station: &StationDirectory,
    name: &str,
    passphrase_file: &std::path::Path,
    confirm: Option<&str>,
) -> Result<(), Failure> {
    let batch = station.batch(name)?;
    if let BatchState::Ended(_) = batch.state()? {
        say(&format!("batch {name} had ended before, its keys (generation {}) are destroyed", batch.generation));
        return Ok(());
    }
    // Nobody is at work on it.
    let _journal = batch.journal()?;
    let act = format!("this destroys the keys of batch {name}, and nothing more can be made or signed of it");
    if confirm.is_none() && !crate::output::can_ask() {
        return Err(Failure::usage(format!("{act}; nobody can be asked here"), format!("give --confirm {name}")));
    }
    crate::ask::name(confirm, name, &act)?;
    let token = station.create_or_open_token(directory::passphrase(passphrase_file)?)?;
    let _lock = station.lock()?;
    batch.end(token.as_ref(), End::Cancelled)?;
    say(&format!("batch {name} is given up, its keys (generation {}) are destroyed", batch.generation));
    Ok(())
}

/// One batch of a station.
#[derive(Debug, Serialize)]
struct BatchStatus {
    name: String,
    state: &'static str,
    generation: u64,
    planned: u32,
    good: u32,
    scrap: u32,
    rework: u32,
    open: u32,
    left: u32,
    refused: u32,
    expires: u64,
    balances: bool,
}

fn status(context: &Context, station: &StationDirectory) -> Result<(), Failure> {
    let mut batches = Vec::new();
    let (found, damaged) = station.batches()?;
    for batch in found {
        let (terms, counts) = (batch.terms(), batch.counts(&batch.book()?));
        let state = match batch.state()? {
            BatchState::Open if terms.expires < SystemClock.now() => "expired",
            state => state.word(),
        };
        batches.push(BatchStatus {
            name: terms.name.clone(),
            state,
            generation: batch.generation.number(),
            planned: counts.planned,
            good: counts.good,
            scrap: counts.scrap,
            rework: counts.rework,
            open: counts.open,
            left: counts.left,
            refused: counts.refused,
            expires: terms.expires.0,
            balances: counts.balance(),
        });
    }
    if batches.is_empty() {
        say("no batch was begun here; `keyfleet station request` makes the request for one");
    }
    let columns =
        ["name", "state", "generation", "left", "planned", "good", "scrap", "rework", "open", "expires", "balances"];
    let mut listing = crate::output::Listing::new(context.format, &columns);
    listing.rows(&batches, &Names::new())?;
    listing.end(None)?;
    damaged.map_or(Ok(()), Err)
}

fn export(station: &StationDirectory, batch: &str, out: &std::path::Path) -> Result<(), Failure> {
    let batch = station.batch(batch)?;
    let mut octets = Vec::new();
    let mut journal = batch.journal_to_read()?.ok_or_else(|| {
        Failure::usage("nothing was made of this batch yet", "export it once `keyfleet station run` was started for it")
    })?;
    let count = kf_station::ledger::export(&mut journal, &mut octets)
        .map_err(|error| Failure::local(error.to_string(), "look at the journal's disk"))?;
    octets.extend(batch.receipt()?.unwrap_or_default());
    file::write_new(out, &octets)?;
    let now = moment::text(SystemClock.now());
    say(&format!("{count} records and manifests written to {} at {now}", out.display()));
    Ok(())
}

/// One object for people or programs.
fn show<T: Serialize>(context: &Context, item: &T) -> Result<(), Failure> {
    object(context.format, item, &Names::new())
}

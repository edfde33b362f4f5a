//! `keyfleet batch`.

mod import;

use std::path::PathBuf;

use base64::Engine as _;
use clap::{Args, Subcommand};
use kf_api::batch::{Batch, BatchFilter, BatchOutcome, CancelBatch, NewBatch, Reconciliation, StationPins};
use kf_api::revocation::RevokeOutcome;

use super::revoke::{judge, waiting};
use crate::api::{Context, Paging, list, segment};
use crate::failure::Failure;
use crate::output::{Format, Listing, Names, object, say};
use crate::{ask, file};

const COLUMNS: [&str; 9] =
    ["name", "state", "devices", "first_name", "last_name", "facility", "product_line", "issued", "expires"];
const CONFLICT_COLUMNS: [&str; 4] = ["sequence", "kind", "device", "other"];

/// What can be done with batches.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Authorise a batch: a quota for one station, and every device of it planned in the registry
    Create(Box<Create>),
    /// List batches, newest first
    List {
        #[command(flatten)]
        paging: Paging,
    },
    /// Show a batch
    Show {
        /// Batch (name or id)
        batch: String,
        /// Write the signed quota, which is carried to the station, to this new file
        #[arg(long, value_name = "FILE")]
        quota: Option<PathBuf>,
    },
    /// Merge what a station made; sending the same again changes nothing
    Import(import::Import),
    /// Compare what was planned with what was made: exit code 6 when the books do not balance
    Reconcile {
        /// Batch (name or id)
        batch: String,
    },
    /// End a batch: its CA, every certificate of its devices, and the devices
    Cancel(Cancel),
    /// What a station pins when it is set up: the key that signs quotas
    Pins {
        /// Write the key here, PEM, for `keyfleet station run --server-key`
        #[arg(long)]
        out: Option<PathBuf>,
    },
}

/// A batch to be authorised.
#[derive(Debug, Args)]
pub(crate) struct Create {
    /// Name of the batch
    name: String,
    /// Product line (name or id)
    #[arg(long)]
    product_line: String,
    /// Facility in which the devices are registered (name or id)
    #[arg(long)]
    facility: String,
    /// How many devices, 1 to 250,000
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=250_000))]
    count: u32,
    /// What the station handed in, signed with its identity key
    #[arg(long, value_name = "FILE")]
    station_request: PathBuf,
    /// SHA-256 of the one recipe that may run
    #[arg(long, value_name = "SHA256")]
    recipe: String,
    /// Profile of the certificates that the station issues
    #[arg(long)]
    profile: Option<kf_key::CertificateProfile>,
    /// Devices are named by this and a number [default: the name of the batch and a hyphen]
    #[arg(long, value_name = "PREFIX")]
    name_prefix: Option<String>,
    /// Number of the first device [default: 1]
    #[arg(long, value_name = "N")]
    first_number: Option<u64>,
    /// Digits of the number [default: 6]
    #[arg(long, value_name = "N")]
    digits: Option<u8>,
    /// Hours until the quota ends, 1 to 2,208 [default: 168]
    #[arg(long, value_name = "HOURS")]
    lifetime_hours: Option<u32>,
    /// Let devices with unsafe marks pass; they keep them for ever
    #[arg(long)]
    allow_unsafe: bool,
    /// Let devices enrol before their record has been merged
    #[arg(long)]
    allow_early_enrolment: bool,
    /// Write the signed quota, which is carried to the station, to this new file
    #[arg(long, value_name = "FILE")]
    quota: Option<PathBuf>,
    /// Why, for the log; at most 500 characters
    #[arg(long, default_value = "")]
    why: String,
    /// Say what would happen, change nothing
    #[arg(long)]
    dry_run: bool,
}

/// A batch to be ended.
#[derive(Debug, Args)]
pub(crate) struct Cancel {
    /// Batch (name or id)
    batch: String,
    /// Its station is stolen or copied: reason code keyCompromise
    #[arg(long, conflicts_with = "keep_made")]
    compromised: bool,
    /// Leave what was made, merged and without conflict as it is
    #[arg(long)]
    keep_made: bool,
    /// Why, for the log; at most 500 characters
    #[arg(long, default_value = "")]
    why: String,
    /// Say what would happen, change nothing
    #[arg(long)]
    dry_run: bool,
    /// Do not ask: devices and certificates of the batch do not come back
    #[arg(long)]
    yes: bool,
}

pub(crate) async fn run(context: &Context, verb: Verb) -> Result<(), Failure> {
    match verb {
        Verb::Create(create) => self::create(context, *create).await,
        Verb::List { paging } => {
            list::<Batch>(context, &mut context.api()?, "/v1/batches", BatchFilter::default(), &paging, &COLUMNS).await
        }
        Verb::Show { batch, quota } => show(context, &batch, quota).await,
        Verb::Import(import) => import::run(context, &import).await,
        Verb::Reconcile { batch } => reconcile(context, &batch).await,
        Verb::Cancel(cancel) => self::cancel(context, cancel).await,
        Verb::Pins { out } => {
            file::must_be_free(out.as_deref())?;
            let pins: StationPins = context.api()?.get("/v1/station/pins").await?;
            if let Some(path) = out {
                file::write_new(&path, pins.batch_key_pem.as_bytes())?;
            }
            object(context.format, &pins, &Names::new())
        }
    }
}

async fn create(context: &Context, create: Create) -> Result<(), Failure> {
    file::must_be_free(create.quota.as_deref())?;
    let request = file::read(&create.station_request)?;
    let new = NewBatch {
        name: create.name,
        product_line: create.product_line,
        facility: create.facility,
        profile: create.profile,
        count: create.count,
        name_prefix: create.name_prefix,
        first_number: create.first_number,
        digits: create.digits,
        station_request: base64::engine::general_purpose::STANDARD.encode(request),
        recipe_sha256: create.recipe,
        lifetime_hours: create.lifetime_hours,
        allow_unsafe: create.allow_unsafe,
        allow_early_enrolment: create.allow_early_enrolment,
        why: create.why,
        dry_run: create.dry_run,
    };
    let mut api = context.api_within(std::time::Duration::from_secs(300))?;
    let outcome: BatchOutcome = api.post("/v1/batches", &new).await?;
    if let (true, Some(path)) = (outcome.done, &create.quota) {
        let quota = api.get_raw(&format!("/v1/batches/{}/quota", outcome.batch.id)).await?;
        file::write_new(path, &quota)?;
    }
    object(context.format, &outcome, &Names::new())?;
    match &outcome.proposal {
        Some(proposal) => Err(waiting(proposal)),
        None => Ok(()),
    }
}

async fn show(context: &Context, batch: &str, quota: Option<PathBuf>) -> Result<(), Failure> {
    file::must_be_free(quota.as_deref())?;
    let mut api = context.api()?;
    let found: Batch = api.get(&format!("/v1/batches/{}", segment(batch))).await?;
    if let Some(path) = quota {
        let document = api.get_raw(&format!("/v1/batches/{}/quota", found.id)).await?;
        file::write_new(&path, &document)?;
    }
    object(context.format, &found, &Names::new())
}

async fn reconcile(context: &Context, batch: &str) -> Result<(), Failure> {
    let books: Reconciliation = context.api()?.get(&format!("/v1/batches/{}/reconciliation", segment(batch))).await?;
    if context.format == Format::Json {
        object(context.format, &books, &Names::new())?;
    } else {
        say(&format!(
            "{} planned: {} passed, {} scrapped, {} in rework, {} missing; {} records up to number {}",
            books.planned,
            books.passed,
            books.scrapped,
            books.rework,
            books.missing,
            books.records,
            books.last_sequence
        ));
        if let Some(at) = books.key_destroyed {
            say(&format!("the station destroyed the keys of this batch at {}, by its word", crate::moment::text(at)));
        }
        for gap in &books.gaps {
            say(&format!("records {} to {} are not here: import what the station still holds", gap.first, gap.last));
        }
        for manifest in books.manifests.iter().filter(|manifest| !manifest.agrees) {
            say(&format!("the manifest up to record {} does not agree with the records", manifest.last));
        }
        let mut listing = Listing::new(context.format, &CONFLICT_COLUMNS);
        listing.rows(&books.conflicts, &Names::new())?;
        if context.format == Format::Csv {
            listing.end(None)?;
        }
    }
    if books.balances {
        return Ok(());
    }
    Err(Failure::Partial {
        problem: format!(
            "the books of {} do not balance: {} conflicts, {} gaps",
            books.batch.name,
            books.conflict_count,
            books.gaps.len()
        ),
        remedy: "import what is missing; decide about the devices in conflict with `keyfleet device`".to_owned(),
    })
}

async fn cancel(context: &Context, cancel: Cancel) -> Result<(), Failure> {
    let Cancel { batch, compromised, keep_made, why, dry_run, yes } = cancel;
    if !dry_run {
        ask::consent(yes, &format!("this ends batch {batch} and what came of it"))?;
    }
    let request = CancelBatch { compromised, keep_made, why, dry_run };
    let path = format!("/v1/batches/{}/cancel", segment(&batch));
    let mut api = context.api_within(std::time::Duration::from_secs(300))?;
    let outcome: RevokeOutcome = api.post(&path, &request).await?;
    object(context.format, &outcome, &Names::new())?;
    judge(&outcome, dry_run)
}

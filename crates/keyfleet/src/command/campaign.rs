//! `keyfleet campaign`: a change taken to many devices, a few first, then in waves.

mod forecast;

use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use kf_api::PageRequest;
use kf_api::campaign::{
    Campaign, CampaignAct, CampaignActRequest, CampaignEdit, CampaignFilter, CampaignForecast, CampaignKind,
    CampaignMember, CampaignOutcome, CampaignPlan, CampaignStatus, FilterChange, MemberFilter, NewCampaign, PlanChange,
};

use kf_client::{KeyShare, Method};
use kf_key::{CampaignState, KeyAlgorithm, MemberState};
use kf_rotation::Period;
use serde::Serialize;
use serde_json::{Map, Value};

use super::revoke::waiting;
use crate::api::{Api, Context, Paging, list, names_for, segment};
use crate::failure::Failure;
use crate::output::{Format, Listing, Names, devices_bar, object, say, to_value};

const COLUMNS: [&str; 8] = ["name", "kind", "state", "wave", "version", "created", "ended", "id"];
const SIZE_COLUMNS: [&str; 10] = [
    "algorithm",
    "request",
    "certificate",
    "chain",
    "tls_client",
    "chain_throughout",
    "tls_client_throughout",
    "crl_entry",
    "ocsp_answer",
    "fleet_renewal",
];
const MEMBER_COLUMNS: [&str; 6] = ["name", "state", "wave", "offered", "ended", "last_seen"];
/// A large fleet is counted for an estimate.
const COUNTING: Duration = Duration::from_secs(600);
/// How often `show --follow` asks.
const FOLLOW: Duration = Duration::from_secs(2);

const EXAMPLES: &str = "\
A campaign asks a canary of devices first, then wave after wave, and stops by itself when too many of a wave fail. Devices act when
they ask for news: a device that sleeps is waited for, and shown by how long it has not been heard of.

Examples:
  # What would it take?
  keyfleet campaign create keys-2027 --kind device-key --facility lyon --dry-run
  keyfleet campaign create keys-2027 --kind device-key --facility lyon --canary 20 --wave 2000
  keyfleet campaign start keys-2027 --why \"yearly\"
  keyfleet campaign show keys-2027 --follow
  # More slowly
  keyfleet campaign pause keys-2027
  keyfleet campaign edit keys-2027 --wave 500 --per-minute 60 --why \"the uplink is full\"
  keyfleet campaign resume keys-2027
  # A draft, about other devices
  keyfleet campaign edit keys-2028 --facility graz --any product-line";

/// What can be done with campaigns.
#[derive(Debug, Subcommand)]
#[command(after_help = EXAMPLES)]
pub(crate) enum Verb {
    /// Make a campaign, as a draft: nothing is asked of any device
    Create(Box<Create>),
    /// Begin; waits for a second person where the devices are many, or orders are sent
    Start {
        #[command(flatten)]
        change: Change,
        /// Begin even if no device matches; it is completed at once then
        #[arg(long)]
        allow_empty: bool,
    },
    /// Ask nobody further for now; answers still count
    Pause(Change),
    /// Go on; past what it stopped for, or a gate that it waits at, with a second person's consent
    Resume(Change),
    /// Give it up: nobody further is asked, and its open orders are withdrawn; final
    Abort(Change),
    /// Change the plan of a draft, or of a campaign that is paused or stopped, and whom a draft is about; what is done stays
    Edit(Box<Edit>),
    /// Say what a campaign would take from here on: time, requests, and load over time
    Estimate {
        /// Name or id
        campaign: String,
    },
    /// Give it up, and take back what it has asked of devices that have not come for it; final
    Rollback(Change),
    /// Remove a draft; what has begun is given up and kept
    Delete(Change),
    /// Show a campaign and how far it has come
    Show {
        /// Name or id
        campaign: String,
        /// Stay until it ends or stops, with a progress bar where somebody looks
        #[arg(long)]
        follow: bool,
        /// List its devices instead
        #[arg(long, conflicts_with = "follow")]
        devices: bool,
        /// Only devices whose part stands so: waiting, offered, done, failed, skipped or taken-back
        #[arg(long, requires = "devices")]
        state: Option<StateArgument>,
        #[command(flatten)]
        paging: Paging,
    },
    /// List campaigns, newest first
    List {
        #[command(flatten)]
        paging: Paging,
    },
}

/// Whom a campaign is about; of one that has begun it stays.
#[derive(Debug, Args)]
pub(crate) struct Filter {
    /// Only devices of this facility (name or id)
    #[arg(long)]
    facility: Option<String>,
    /// Only devices of this product line (name or id)
    #[arg(long)]
    product_line: Option<String>,
    /// Only devices of this batch
    #[arg(long)]
    batch: Option<String>,
    /// Only devices whose names begin so
    #[arg(long, value_name = "PREFIX")]
    name_prefix: Option<String>,
}

/// A campaign to be made.
#[derive(Debug, Args)]
pub(crate) struct Create {
    /// Unique name
    name: String,
    /// What it asks of each device
    #[arg(long)]
    kind: KindArgument,
    /// Of kind certificate: the algorithm that the new identity keys are to have
    #[arg(long)]
    algorithm: Option<KeyAlgorithm>,
    #[command(flatten)]
    filter: Filter,
    /// Devices of the first wave
    #[arg(long, value_name = "N", default_value_t = CampaignPlan::default().canary)]
    canary: u32,
    /// Devices of each further wave
    #[arg(long, value_name = "N", default_value_t = CampaignPlan::default().wave)]
    wave: u32,
    /// Devices that are asked within a minute at most
    #[arg(long, value_name = "N", default_value_t = CampaignPlan::default().per_minute)]
    per_minute: u32,
    /// Each wave begins up to so much late [default: 1m]
    #[arg(long, value_name = "PERIOD", value_parser = seconds)]
    jitter: Option<u32>,
    /// Between the last question of a wave and the next wave [default: 1h]
    #[arg(long, value_name = "PERIOD", value_parser = seconds)]
    soak: Option<u32>,
    /// After so much a device that was asked counts as silent [default: 2d]
    #[arg(long, value_name = "PERIOD", value_parser = seconds)]
    patience: Option<u32>,
    /// Percent of a wave that may fail; one device more stops the campaign
    #[arg(long, value_name = "PERCENT", default_value_t = CampaignPlan::default().max_failed_percent)]
    max_failed: u8,
    /// Percent of a wave that must be done before the next one begins
    #[arg(long, value_name = "PERCENT", default_value_t = CampaignPlan::default().min_done_percent)]
    min_done: u8,
    /// Why, for the log; at most 500 characters
    #[arg(long, default_value = "")]
    why: String,
    /// Say what it would take, make nothing
    #[arg(long)]
    dry_run: bool,
}

/// Another plan, and another filter. What is not given stays.
#[derive(Debug, Args)]
pub(crate) struct Edit {
    /// Name or id
    campaign: String,
    #[command(flatten)]
    filter: Filter,
    /// Of a draft: whatever it is; may be given several times
    #[arg(long, value_name = "FIELD")]
    any: Vec<FilterField>,
    /// Devices of the first wave
    #[arg(long, value_name = "N")]
    canary: Option<u32>,
    /// Devices of each further wave
    #[arg(long, value_name = "N")]
    wave: Option<u32>,
    /// Devices that are asked within a minute at most
    #[arg(long, value_name = "N")]
    per_minute: Option<u32>,
    /// Each wave begins up to so much late
    #[arg(long, value_name = "PERIOD", value_parser = seconds)]
    jitter: Option<u32>,
    /// Between the last question of a wave and the next wave
    #[arg(long, value_name = "PERIOD", value_parser = seconds)]
    soak: Option<u32>,
    /// After so much a device that was asked counts as silent
    #[arg(long, value_name = "PERIOD", value_parser = seconds)]
    patience: Option<u32>,
    /// Percent of a wave that may fail; one device more stops the campaign
    #[arg(long, value_name = "PERCENT")]
    max_failed: Option<u8>,
    /// Percent of a wave that must be done before the next one begins
    #[arg(long, value_name = "PERCENT")]
    min_done: Option<u8>,
    /// Only if this is still its version, as `show` says it
    #[arg(long, value_name = "VERSION")]
    seen: Option<u32>,
    /// Why, for the log; at most 500 characters
    #[arg(long, default_value = "")]
    why: String,
    /// Say what it would take then, change nothing
    #[arg(long)]
    dry_run: bool,
}

/// A change of a campaign.
#[derive(Debug, Args)]
pub(crate) struct Change {
    /// Name or id
    campaign: String,
    /// Why, for the log; at most 500 characters
    #[arg(long, default_value = "")]
    why: String,
    /// Say what would happen, change nothing
    #[arg(long)]
    dry_run: bool,
}

/// A field of a filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum FilterField {
    /// Devices of any facility
    Facility,
    /// Devices of any product line
    ProductLine,
    /// Devices of any batch, or none
    Batch,
    /// Devices of any name
    NamePrefix,
}

/// What a campaign asks of each device.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum KindArgument {
    /// A new symmetric device key
    DeviceKey,
    /// A new identity key with its certificate, and the newest device key
    Certificate,
    /// To take up the root that succeeds the fleet's
    TrustAnchor,
    /// To re-encrypt what it keeps under a new storage key, and to destroy the old one
    Storage,
}

/// Where a device's part stands.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum StateArgument {
    /// Its turn has not come
    Waiting,
    /// Asked, and has not answered
    Offered,
    /// Done, with proof
    Done,
    /// Failed, with proof
    Failed,
    /// Barred, or with nothing to replace
    Skipped,
    /// Asked, and taken back before it came for it
    TakenBack,
}

impl From<StateArgument> for MemberState {
    fn from(state: StateArgument) -> Self {
        match state {
            StateArgument::Waiting => Self::Waiting,
            StateArgument::Offered => Self::Offered,
            StateArgument::Done => Self::Done,
            StateArgument::Failed => Self::Failed,
            StateArgument::Skipped => Self::Skipped,
            StateArgument::TakenBack => Self::TakenBack,
        }
    }
}

/// A length of time in whole seconds; `0s` for none.
fn seconds(text: &str) -> Result<u32, String> {
    if text == "0s" {
        return Ok(0);
    }
    let period: Period = text.parse().map_err(|error: kf_rotation::PeriodError| error.to_string())?;
    u32::try_from(period.milliseconds() / kf_key::UnixMillis::SECOND).map_err(|_too_long| "is too long".to_owned())
}

pub(crate) async fn run(context: &Context, verb: Verb) -> Result<(), Failure> {
    match verb {
        Verb::Create(create) => self::create(context, *create).await,
        Verb::Start { change, allow_empty } => act(context, CampaignAct::Start, change, allow_empty).await,
        Verb::Pause(change) => act(context, CampaignAct::Pause, change, false).await,
        Verb::Resume(change) => act(context, CampaignAct::Resume, change, false).await,
        Verb::Abort(change) => act(context, CampaignAct::Abort, change, false).await,
        Verb::Rollback(change) => act(context, CampaignAct::RollBack, change, false).await,
        Verb::Delete(change) => act(context, CampaignAct::Delete, change, false).await,
        Verb::Edit(edit) => self::edit(context, *edit).await,
        Verb::Estimate { campaign } => {
            let path = format!("{}/estimate", path(&campaign));
            let found: CampaignForecast = context.api_within(COUNTING)?.get(&path).await?;
            forecast::print(context, &found)
        }
        Verb::Show { campaign, devices: true, state, paging, .. } => {
            let path = format!("{}/devices", path(&campaign));
            let filter = MemberFilter { state: state.map(Into::into), ..MemberFilter::default() };
            list::<CampaignMember>(context, &mut context.api()?, &path, filter, &paging, &MEMBER_COLUMNS).await
        }
        Verb::Show { campaign, follow, .. } => {
            let mut api = context.api()?;
            let status =
                if follow { self::follow(&mut api, &campaign).await? } else { status(&mut api, &campaign).await? };
            let names = names_for(context.format, &mut api, &["facility"]).await;
            show(context, &status, &names)?;
            judge(&status, follow)
        }
        Verb::List { paging } => {
            let mut api = context.api()?;
            list::<Campaign>(context, &mut api, "/v1/campaigns", PageRequest::default(), &paging, &COLUMNS).await
        }
    }
}

fn path(campaign: &str) -> String {
    format!("/v1/campaigns/{}", segment(campaign))
}

async fn create(context: &Context, create: Create) -> Result<(), Failure> {
    let Create { name, kind, filter, canary, wave, per_minute, jitter, soak, .. } = create;
    let Create { patience, max_failed, min_done, algorithm, why, dry_run, .. } = create;
    let Filter { facility, product_line, batch, name_prefix } = filter;
    let otherwise = CampaignPlan::default();
    let new = NewCampaign {
        name,
        kind: match kind {
            KindArgument::DeviceKey => CampaignKind::DeviceKey,
            KindArgument::Certificate => CampaignKind::Certificate,
            KindArgument::TrustAnchor => CampaignKind::TrustAnchor,
            KindArgument::Storage => CampaignKind::Storage,
        },
        filter: CampaignFilter { facility, product_line, batch, name_prefix },
        plan: CampaignPlan {
            canary,
            wave,
            per_minute,
            jitter_seconds: jitter.unwrap_or(otherwise.jitter_seconds),
            soak_seconds: soak.unwrap_or(otherwise.soak_seconds),
            patience_seconds: patience.unwrap_or(otherwise.patience_seconds),
            max_failed_percent: max_failed,
            min_done_percent: min_done,
        },
        algorithm,
        why,
        dry_run,
    };
    let outcome: CampaignOutcome = context.api_within(COUNTING)?.post("/v1/campaigns", &new).await?;
    outcome_of(context, outcome)
}

/// An outcome; for people, what is a table in it as one.
fn outcome_of(context: &Context, mut outcome: CampaignOutcome) -> Result<(), Failure> {
    let Campaign { state, filter, .. } = &outcome.campaign;
    if *state == CampaignState::Draft && outcome.estimate.is_some_and(|estimate| estimate.devices == 0) {
        say(&format!(
            "no device that may enrol matches {filter}: as long as that is so it starts with --allow-empty only"
        ));
    }
    if context.format != Format::Table {
        return show(context, &outcome, &Names::new());
    }
    let (sizes, load) = (std::mem::take(&mut outcome.sizes), outcome.load.take());
    show(context, &outcome, &Names::new())?;
    if let Some(load) = load {
        forecast::load(context, &load)?;
    }
    if sizes.is_empty() {
        return Ok(());
    }
    say("\noctets of each algorithm, measured; `throughout`: where the CAs have it too");
    let mut listing = Listing::new(context.format, &SIZE_COLUMNS);
    listing.rows(&sizes, &Names::new())?;
    listing.end(None)?;
    for KeyShare { group, client, server } in kf_client::key_shares() {
        say(&format!("key shares of {group}: {client} from the client, {server} from the server"));
    }
    Ok(())
}

async fn act(context: &Context, act: CampaignAct, change: Change, allow_empty: bool) -> Result<(), Failure> {
    let Change { campaign, why, dry_run } = change;
    let request = CampaignActRequest { act, allow_empty, why, dry_run };
    let mut api = context.api_within(COUNTING)?;
    let outcome: CampaignOutcome = api.post(&format!("{}/act", path(&campaign)), &request).await?;
    told(context, outcome)
}

async fn edit(context: &Context, edit: Edit) -> Result<(), Failure> {
    let filter = filter_change(edit.filter, &edit.any)?;
    let Edit { campaign, canary, wave, per_minute, jitter, soak, patience, max_failed, min_done, .. } = edit;
    let plan = PlanChange {
        canary,
        wave,
        per_minute,
        jitter_seconds: jitter,
        soak_seconds: soak,
        patience_seconds: patience,
        max_failed_percent: max_failed,
        min_done_percent: min_done,
    };
    let change = CampaignEdit { plan, filter, version: edit.seen, why: edit.why, dry_run: edit.dry_run };
    let mut api = context.api_within(COUNTING)?;
    let outcome: CampaignOutcome = api.send(Method::PUT, &format!("{}/plan", path(&campaign)), &change).await?;
    told(context, outcome)
}

/// What is to change of the filter. A field is given, or said to be any, not both.
fn filter_change(filter: Filter, any: &[FilterField]) -> Result<FilterChange, Failure> {
    let field = |field: FilterField, name: &str, given: Option<String>| match (given, any.contains(&field)) {
        (Some(_), true) => {
            Err(Failure::usage(format!("--{name} is given, and --any {name} as well"), "give one of them"))
        }
        (given, is_any) => Ok(given.or(is_any.then(String::new))),
    };
    Ok(FilterChange {
        facility: field(FilterField::Facility, "facility", filter.facility)?,
        product_line: field(FilterField::ProductLine, "product-line", filter.product_line)?,
        batch: field(FilterField::Batch, "batch", filter.batch)?,
        name_prefix: field(FilterField::NamePrefix, "name-prefix", filter.name_prefix)?,
    })
}

/// Shows an outcome; what waits for a second person is no success to a script.
fn told(context: &Context, outcome: CampaignOutcome) -> Result<(), Failure> {
    let proposal = outcome.proposal;
    outcome_of(context, outcome)?;
    proposal.as_ref().map_or(Ok(()), |proposal| Err(waiting(proposal)))
}

/// One object; for people, what an answer is about stands beside the rest of it.
pub(super) fn show<T: Serialize>(context: &Context, item: &T, names: &Names) -> Result<(), Failure> {
    if context.format != Format::Table {
        return object(context.format, item, names);
    }
    let mut fields = Map::new();
    raise("", to_value(item)?, &mut fields);
    object(context.format, &fields, names)
}

fn raise(name: &str, value: Value, fields: &mut Map<String, Value>) {
    match value {
        Value::Object(inner) if name.is_empty() || matches!(name, "campaign" | "succession" | "rollback") => {
            inner.into_iter().for_each(|(key, value)| raise(&key, value, fields));
        }
        other => drop(fields.insert(name.to_owned(), other)),
    }
}

async fn status(api: &mut Api, campaign: &str) -> Result<CampaignStatus, Failure> {
    api.get(&path(campaign)).await
}

/// Asks again and again until nothing moves any more without a person.
async fn follow(api: &mut Api, campaign: &str) -> Result<CampaignStatus, Failure> {
    let bar = devices_bar();
    loop {
        let found = status(api, campaign).await?;
        let progress = &found.progress;
        bar.set_length(progress.devices);
        bar.set_position(progress.done + progress.failed + progress.skipped);
        bar.set_message(format!("wave {}, {} silent {}", found.campaign.wave, progress.silent, progress.waits_for));
        if found.campaign.state != CampaignState::Running || progress.waits_for == "gate" {
            bar.finish_and_clear();
            return Ok(found);
        }
        tokio::time::sleep(FOLLOW).await;
    }
}

/// A campaign that somebody followed and that did not do what it was for is a failure to a script.
fn judge(status: &CampaignStatus, follow: bool) -> Result<(), Failure> {
    let progress = &status.progress;
    if !follow || (status.campaign.state == CampaignState::Completed && progress.failed == 0) {
        return Ok(());
    }
    say(&format!("{} is {}", status.campaign.name, status.campaign.state.name()));
    Err(Failure::Partial {
        problem: format!("{} of {} devices are done", progress.done, progress.devices),
        remedy: "look at the others with `keyfleet campaign show --devices --state failed`".to_owned(),
    })
}

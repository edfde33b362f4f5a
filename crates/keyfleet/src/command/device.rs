//! `keyfleet device`.

mod claim;
mod export;
pub(crate) mod import;
mod ownership;
mod receipt;

use std::collections::BTreeMap;

use clap::{Args, Subcommand, ValueEnum};
use kf_api::device::{Departure, Device, DeviceAct, DeviceActRequest, DeviceFilter, DeviceHistory, NewDevice};
use kf_api::ownership::OwnershipEnd;
use kf_api::revocation::RevokeOutcome;
use kf_key::DeviceState;
use serde_json::json;

use crate::api::{Api, Context, Paging, list, names_for, segment};
use crate::ask;
use crate::command::revoke::judge;
use crate::failure::Failure;
use crate::output::{Format, Listing, Names, object, raw, say, to_value};

const COLUMNS: [&str; 7] = ["name", "state", "facility", "product_line", "batch", "last_seen", "id"];
const CERTIFICATE_COLUMNS: [&str; 5] = ["serial", "profile", "status", "not_before", "not_after"];
const EVENT_COLUMNS: [&str; 5] = ["index", "entry.at", "entry.act", "entry.who.name", "entry.why"];
/// The most devices named on one command line.
const MAX_DEVICES: usize = 1_000;

/// What can be done with devices.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Register a device
    Register(Register),
    /// List devices
    List {
        #[command(flatten)]
        filter: Filter,
        #[command(flatten)]
        paging: Paging,
    },
    /// Show a device with its certificates and everything that happened to it
    Show {
        /// Name or id
        device: String,
    },
    /// Hold a device's certificates; it may come back
    Suspend(Act),
    /// Hold a device's certificates and cut its sessions; it is under suspicion
    Quarantine(Act),
    /// Release a device from suspension or quarantine
    Resume(Act),
    /// Revoke a device's LDevIDs and bar its re-enrolment, in one act; final
    Decommission(Decommission),
    /// Sell devices on: this owner's keys die, the IDevID lives for the next owner; needs two people
    Resell(ownership::Leave),
    /// Send devices back: they wait in quarantine without this owner's keys, and others take their places; needs two people
    Rma(ownership::Rma),
    /// Say that devices are stolen: they are stopped at once, and two people let all of their keys die
    ReportStolen(ownership::Leave),
    /// Show the receipt for the customer of a device that left, or list the devices that left
    Receipt(ownership::Receipt),
    /// Move a device to another facility; needs two people
    Move {
        /// Name or id of the device
        device: String,
        /// Name or id of the facility it moves to
        #[arg(long)]
        to: String,
        /// Why, for the log
        #[arg(long, default_value = "")]
        why: String,
    },
    /// Let devices go, so that another facility may claim them by their labels
    Release(claim::Release),
    /// Claim a device by its label for a facility; it belongs there once it has enrolled
    Claim(claim::Claim),
    /// Register many devices from a file; sending it again resumes
    Import(import::Import),
    /// Write all matching devices, in the form that `import` reads
    Export(export::Export),
}

/// A device to be registered.
#[derive(Debug, Args)]
pub(crate) struct Register {
    /// Unique name, which becomes the common name of its certificates
    name: String,
    /// Name or id of the facility
    #[arg(long)]
    facility: String,
    /// Name or id of the product line
    #[arg(long)]
    product_line: String,
    /// The batch it was made in
    #[arg(long)]
    batch: Option<String>,
    /// A fact to keep; repeat for several
    #[arg(long = "attribute", value_name = "KEY=VALUE", value_parser = attribute)]
    attributes: Vec<(String, String)>,
}

/// Which devices.
#[derive(Debug, Default, Args)]
pub(crate) struct Filter {
    /// Name or id of the facility
    #[arg(long)]
    facility: Option<String>,
    /// Name or id of the product line
    #[arg(long)]
    product_line: Option<String>,
    /// registered, active, suspended, quarantined or decommissioned
    #[arg(long)]
    state: Option<DeviceState>,
    /// Batch
    #[arg(long)]
    batch: Option<String>,
    /// First characters of the name
    #[arg(long, value_name = "PREFIX")]
    name_prefix: Option<String>,
}

impl From<Filter> for DeviceFilter {
    fn from(filter: Filter) -> Self {
        let Filter { facility, product_line, state, batch, name_prefix } = filter;
        Self { facility, product_line, state, batch, name_prefix, after: None, limit: None }
    }
}

/// A change of state.
#[derive(Debug, Args)]
pub(crate) struct Act {
    /// Names or ids
    #[arg(required = true, value_name = "DEVICE", num_args = 1..=MAX_DEVICES)]
    devices: Vec<String>,
    /// Why, for the log; at most 500 characters
    #[arg(long, default_value = "")]
    why: String,
    /// Say what would happen, change nothing
    #[arg(long)]
    dry_run: bool,
}

/// The end of a device's life here.
#[derive(Debug, Args)]
pub(crate) struct Decommission {
    #[command(flatten)]
    act: Act,
    /// Why it leaves; scrapped and stolen devices lose their IDevID too
    #[arg(long, default_value = "retired")]
    departure: DepartureArgument,
    /// Let its keys die as well, with a receipt for the customer: it counts as scrapped, and takes two people
    #[arg(long, conflicts_with = "departure")]
    destroy_keys: bool,
    #[command(flatten)]
    terms: ownership::Terms,
    /// Do not ask: it is final
    #[arg(long)]
    yes: bool,
}

/// Why a device leaves.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum DepartureArgument {
    /// Sold, returned or retired: the IDevID stays good for the next owner
    Retired,
    /// Destroyed: the IDevID is revoked (cessationOfOperation)
    Scrapped,
    /// Stolen: the IDevID is revoked (keyCompromise)
    Stolen,
}

fn attribute(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("expected KEY=VALUE".to_owned()),
    }
}

pub(crate) async fn run(context: &Context, verb: Verb) -> Result<(), Failure> {
    match verb {
        Verb::Register(register) => self::register(context, register).await,
        Verb::List { filter, paging } => {
            let mut api = context.api()?;
            list::<Device>(context, &mut api, "/v1/devices", DeviceFilter::from(filter), &paging, &COLUMNS).await
        }
        Verb::Show { device } => show(context, &device).await,
        Verb::Suspend(act) => change(context, act, DeviceAct::Suspend, Departure::default()).await,
        Verb::Quarantine(act) => change(context, act, DeviceAct::Quarantine, Departure::default()).await,
        Verb::Resume(act) => change(context, act, DeviceAct::Resume, Departure::default()).await,
        Verb::Decommission(Decommission { act, departure, destroy_keys, terms, yes }) => {
            if !act.dry_run {
                ask::consent(yes, &format!("this decommissions {} for good", named(&act.devices)))?;
            }
            if destroy_keys {
                return ownership::scrap(context, act.devices, act.why, act.dry_run, terms).await;
            }
            terms.must_be_unset()?;
            let departure = match departure {
                DepartureArgument::Retired => Departure::Retired,
                DepartureArgument::Scrapped => Departure::Scrapped,
                DepartureArgument::Stolen => Departure::Stolen,
            };
            change(context, act, DeviceAct::Decommission, departure).await
        }
        Verb::Move { device, to, why } => {
            let path = format!("/v1/devices/{}/move", segment(&device));
            let outcome: RevokeOutcome = context.api()?.post(&path, &json!({ "facility": to, "why": why })).await?;
            object(context.format, &outcome, &Names::new())?;
            judge(&outcome, false)
        }
        Verb::Resell(leave) => ownership::end(context, OwnershipEnd::Resold, leave).await,
        Verb::Rma(rma) => ownership::rma(context, rma).await,
        Verb::ReportStolen(leave) => ownership::end(context, OwnershipEnd::Stolen, leave).await,
        Verb::Receipt(receipt) => ownership::receipt(context, receipt).await,
        Verb::Release(release) => claim::release(context, release).await,
        Verb::Claim(claim) => claim::claim(context, &claim).await,
        Verb::Import(import) => import::run(context, &import).await,
        Verb::Export(export) => export::run(context, export).await,
    }
}

fn named(devices: &[String]) -> String {
    match devices {
        [one] => one.clone(),
        many => format!("{} devices", many.len()),
    }
}

async fn register(context: &Context, register: Register) -> Result<(), Failure> {
    let Register { name, facility, product_line, batch, attributes } = register;
    let attributes: BTreeMap<String, String> = attributes.into_iter().collect();
    let mut api = context.api()?;
    let made: Device = api.post("/v1/devices", &NewDevice { name, facility, product_line, batch, attributes }).await?;
    let names = names_for(context.format, &mut api, &["facility", "product_line"]).await;
    object(context.format, &made, &names)
}

async fn show(context: &Context, device: &str) -> Result<(), Failure> {
    let history: DeviceHistory = context.api()?.get(&format!("/v1/devices/{}", segment(device))).await?;
    if context.format != Format::Table {
        return object(context.format, &history, &Names::new());
    }
    let names = Names::from([
        (history.device.facility.to_string(), history.facility_name.clone()),
        (history.device.product_line.to_string(), history.product_line_name.clone()),
    ]);
    object(context.format, &history.device, &names)?;
    raw(b"\n")?;
    let mut certificates = Listing::new(context.format, &CERTIFICATE_COLUMNS);
    certificates.rows(&history.certificates, &names)?;
    if certificates.written() > 0 {
        raw(b"\n")?;
    }
    Listing::new(context.format, &EVENT_COLUMNS).rows(&history.events, &names)
}

/// One act on each device; one that fails does not keep the others from theirs.
async fn change(context: &Context, act: Act, kind: DeviceAct, departure: Departure) -> Result<(), Failure> {
    let mut api = context.api()?;
    let Act { devices, why, dry_run } = act;
    let request = DeviceActRequest { act: kind, why, departure, dry_run };
    if let [device] = devices.as_slice() {
        let outcome = act_on(&mut api, device, &request).await?;
        object(context.format, &outcome, &Names::new())?;
        return judge(&outcome, dry_run);
    }
    let mut listing = Listing::new(context.format, &["device", "done", "certificates", "proposal", "log_index"]);
    let mut failed = 0_usize;
    for device in &devices {
        let outcome = act_on(&mut api, device, &request).await;
        match outcome {
            Ok(outcome) => {
                let mut row = to_value(&outcome)?;
                if let Some(fields) = row.as_object_mut() {
                    fields.insert("device".to_owned(), json!(device));
                }
                listing.rows(&[row], &Names::new())?;
                if let Err(failure) = judge(&outcome, dry_run) {
                    failed += 1;
                    say(&format!("{device}: {}", failure.text()));
                }
            }
            Err(failure) => {
                failed += 1;
                say(&format!("{device}: {}", failure.text()));
            }
        }
    }
    listing.end(None)?;
    if failed == 0 {
        return Ok(());
    }
    Err(Failure::Partial {
        problem: format!("{failed} of {} devices are not done", devices.len()),
        remedy: "see the reason of each above".to_owned(),
    })
}

async fn act_on(api: &mut Api, device: &str, request: &DeviceActRequest) -> Result<RevokeOutcome, Failure> {
    api.post(&format!("/v1/devices/{}/act", segment(device)), request).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attribute_has_a_key_and_may_have_any_value() {
        assert_eq!(attribute("note=a=b"), Ok(("note".to_owned(), "a=b".to_owned())));
        assert!(attribute("=x").is_err() && attribute("note").is_err());
    }
}

//! `keyfleet device resell`, `rma`, `report-stolen`, `decommission --destroy-keys`, and the receipt for the customer.

use std::path::PathBuf;

use clap::Args;
use kf_api::PageRequest;
use kf_api::ownership::{
    CustomerReceipt, EndedOwnership, LeavingDevice, MAX_LEAVING, OwnershipEnd, OwnershipOutcome, OwnershipRequest,
};
use serde::Deserialize;

use crate::api::{Context, Paging, list, segment};
use crate::ask;
use crate::command::revoke::waiting;
use crate::failure::Failure;
use crate::file;
use crate::output::{Format, Names, object, raw};

const LIST_COLUMNS: [&str; 8] =
    ["device_name", "end", "idevid", "device_keys", "order", "replacement", "approved_by", "at"];
const CSV_REMEDY: &str = "begin the file with a header line of device, or for rma device,replacement";

pub(super) const EXAMPLES: &str = "\
It is proposed, and a second person approves it (`keyfleet proposal approve`); then `keyfleet device receipt` has the receipt.

Examples:
  keyfleet device resell pump-17 --why \"sold to Acme\" --customer PO-4711 --dry-run
  keyfleet device rma pump-17 --replacement pump-99 --why \"no signal\"
  keyfleet device report-stolen --from stolen.csv --why \"break-in of 3 May\"
  keyfleet device receipt pump-17 --out pump-17.json";

/// Which devices leave.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Leave {
    /// Names or ids, all of one facility
    #[arg(value_name = "DEVICE", required_unless_present = "from", conflicts_with = "from", num_args = 1..=MAX_LEAVING)]
    devices: Vec<String>,
    /// CSV file with a column device (for rma also replacement); `-` is standard input
    #[arg(long, value_name = "FILE")]
    from: Option<PathBuf>,
    /// Why, for the log and the receipt; at most 500 characters
    #[arg(long)]
    why: String,
    #[command(flatten)]
    terms: Terms,
    /// Say which keys die and which live, change nothing
    #[arg(long)]
    dry_run: bool,
    /// Do not ask: keys that die do not come back
    #[arg(long)]
    yes: bool,
}

/// What may be said besides.
#[derive(Debug, Default, Args)]
pub(crate) struct Terms {
    /// The customer's own reference, for the receipt
    #[arg(long, value_name = "TEXT", default_value = "")]
    customer: String,
    /// Order the devices to wipe themselves, their IDevID's key too (without being asked: of scrapped and stolen ones)
    #[arg(long, overrides_with = "no_wipe")]
    wipe: bool,
    /// Give no such order
    #[arg(long, overrides_with = "wipe")]
    no_wipe: bool,
    /// Require that every device knows the order to destroy what its owner brought and to keep its IDevID (without being asked: of resold
    /// and returned ones that know it)
    #[arg(long, overrides_with = "no_factory_reset", conflicts_with = "wipe")]
    factory_reset: bool,
    /// Give no such order
    #[arg(long, overrides_with = "factory_reset")]
    no_factory_reset: bool,
    /// Say that the records of factory stations, in which salts lie sealed to the server, are erased wherever they were kept
    #[arg(long)]
    station_records_erased: bool,
}

impl Terms {
    /// Refuses what only makes sense where keys die.
    ///
    /// # Errors
    /// [`Failure::Usage`].
    pub(super) fn must_be_unset(&self) -> Result<(), Failure> {
        let Self { customer, wipe, no_wipe, factory_reset, no_factory_reset, station_records_erased } = self;
        let orders = [wipe, no_wipe, factory_reset, no_factory_reset].into_iter().any(|is_given| *is_given);
        if customer.is_empty() && !orders && !station_records_erased {
            return Ok(());
        }
        Err(Failure::usage("without --destroy-keys there is no receipt and no order", "add --destroy-keys"))
    }
}

/// A device that is returned.
#[derive(Debug, Args)]
pub(crate) struct Rma {
    #[command(flatten)]
    leave: Leave,
    /// The device that takes the place of the one that is named
    #[arg(long, value_name = "DEVICE", conflicts_with = "from")]
    replacement: Option<String>,
}

/// Which receipt.
#[derive(Debug, Args)]
pub(crate) struct Receipt {
    /// Name or id; without one, the devices that left are listed
    device: Option<String>,
    /// Write it here: as JSON, which `keyfleet audit verify-receipt` checks, where the name ends in .json, else as text to be printed
    #[arg(long, value_name = "FILE", requires = "device")]
    out: Option<PathBuf>,
    #[command(flatten)]
    paging: Paging,
}

/// A row of the file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CsvRow {
    device: String,
    #[serde(default)]
    replacement: Option<String>,
}

pub(super) async fn rma(context: &Context, rma: Rma) -> Result<(), Failure> {
    let Rma { leave, replacement } = rma;
    if replacement.is_some() && leave.devices.len() != 1 {
        let problem = "--replacement is of one device";
        return Err(Failure::usage(problem, "give --from with a column replacement for several"));
    }
    end_with(context, OwnershipEnd::Returned, leave, replacement).await
}

pub(super) async fn end(context: &Context, end: OwnershipEnd, leave: Leave) -> Result<(), Failure> {
    end_with(context, end, leave, None).await
}

/// `decommission --destroy-keys`: the same with what that verb has asked already.
pub(super) async fn scrap(
    context: &Context,
    devices: Vec<String>,
    why: String,
    dry_run: bool,
    terms: Terms,
) -> Result<(), Failure> {
    let leave = Leave { devices, from: None, why, terms, dry_run, yes: true };
    end_with(context, OwnershipEnd::Scrapped, leave, None).await
}

async fn end_with(
    context: &Context,
    end: OwnershipEnd,
    leave: Leave,
    replacement: Option<String>,
) -> Result<(), Failure> {
    let Leave { devices, from, why, terms, dry_run, yes } = leave;
    let devices = match from {
        Some(path) => rows_of(&path)?,
        None => devices.into_iter().map(|device| LeavingDevice { device, replacement: replacement.clone() }).collect(),
    };
    if !dry_run {
        let count = devices.len();
        let what = format!("this says that {count} devices are {}: keys die and do not come back", end.name());
        ask::consent(yes, &what)?;
    }
    let Terms { customer, wipe, no_wipe, factory_reset, no_factory_reset, station_records_erased } = terms;
    let wanted = |is: bool, is_not: bool| if is { Some(true) } else { is_not.then_some(false) };
    let (wipe, factory_reset) = (wanted(wipe, no_wipe), wanted(factory_reset, no_factory_reset));
    let request =
        OwnershipRequest { end, devices, why, customer, wipe, factory_reset, station_records_erased, dry_run };
    let outcome: OwnershipOutcome = context.api()?.post("/v1/ownership", &request).await?;
    object(context.format, &outcome, &Names::new())?;
    outcome.proposal.as_ref().map_or(Ok(()), |proposal| Err(waiting(proposal)))
}

fn rows_of(path: &std::path::Path) -> Result<Vec<LeavingDevice>, Failure> {
    let text = file::read_or_stdin(path)?;
    let wrong = |problem: String| Failure::usage(format!("{}: {problem}", path.display()), CSV_REMEDY);
    let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(text.as_slice());
    let mut rows = Vec::new();
    for row in reader.deserialize::<CsvRow>() {
        let CsvRow { device, replacement } = row.map_err(|error| wrong(error.to_string()))?;
        rows.push(LeavingDevice { device, replacement: replacement.filter(|text| !text.is_empty()) });
    }
    if rows.is_empty() || rows.len() > MAX_LEAVING {
        return Err(wrong(format!("{} devices are in it, 1 to {MAX_LEAVING} may be", rows.len())));
    }
    Ok(rows)
}

pub(super) async fn receipt(context: &Context, receipt: Receipt) -> Result<(), Failure> {
    let Receipt { device, out, paging } = receipt;
    let mut api = context.api()?;
    let Some(device) = device else {
        let page = PageRequest::default();
        return list::<EndedOwnership>(context, &mut api, "/v1/ownership", page, &paging, &LIST_COLUMNS).await;
    };
    let path = format!("/v1/ownership/{}/receipt", segment(&device));
    let receipt: CustomerReceipt = api.get(&path).await?;
    let Some(out) = out else {
        return match context.format {
            Format::Table => raw(super::receipt::text(&receipt).as_bytes()),
            format => object(format, &receipt, &Names::new()),
        };
    };
    let is_json = out.extension().is_some_and(|extension| extension == "json");
    let text = if is_json {
        let text = serde_json::to_string_pretty(&receipt);
        format!("{}\n", text.map_err(|error| Failure::Output(std::io::Error::other(error)))?)
    } else {
        super::receipt::text(&receipt)
    };
    file::write_new(&out, text.as_bytes())
}

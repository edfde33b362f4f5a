//! `keyfleet epoch`.

use clap::{ArgGroup, Args, Subcommand};
use kf_api::epoch::{DeviceKeys, DevicePins, EpochHolder, EpochOutcome, EpochRequest, FacilityEpoch};
use kf_api::{Page, PageRequest};

use super::revoke::waiting;
use crate::api::{Context, Paging, list, names_for, segment};
use crate::failure::Failure;
use crate::output::{Format, Listing, Names, object, raw};

const COLUMNS: [&str; 5] = ["epoch", "state", "devices", "created", "retired"];
const HOLDER_COLUMNS: [&str; 5] = ["name", "state", "key", "last_seen", "device"];
const KEY_COLUMNS: [&str; 6] = ["facility", "facility_epoch", "device_epoch", "state", "offered", "acknowledged"];

/// What can be done with key epochs.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// List the epochs of a facility
    List {
        /// Facility (name or id)
        #[arg(long)]
        facility: String,
    },
    /// Make a new epoch: every device of the facility, or the one device, gets a new key at its next exchange
    Advance(Advance),
    /// List the devices that keep an epoch from being retired
    Holders {
        /// Facility (name or id)
        #[arg(long)]
        facility: String,
        /// Its epoch
        #[arg(long)]
        epoch: u32,
        #[command(flatten)]
        paging: Paging,
    },
    /// Retire an epoch that no device holds any more but barred ones
    Retire {
        /// Facility (name or id)
        #[arg(long)]
        facility: String,
        /// Its epoch
        #[arg(long)]
        epoch: u32,
        /// Why, for the log; at most 500 characters
        #[arg(long, default_value = "")]
        why: String,
    },
    /// Show which keys a device was sent and which it holds
    Show {
        /// Device (name or id)
        #[arg(long)]
        device: String,
    },
    /// Print the public keys that devices pin, PEM: the delivery key, then the order key
    Pins,
}

/// Whose epoch advances.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("whose").required(true))]
pub(crate) struct Advance {
    /// Facility (name or id)
    #[arg(long, group = "whose")]
    facility: Option<String>,
    /// Device (name or id)
    #[arg(long, group = "whose")]
    device: Option<String>,
    /// Why, for the log; at most 500 characters
    #[arg(long, default_value = "")]
    why: String,
}

pub(crate) async fn run(context: &Context, verb: Verb) -> Result<(), Failure> {
    match verb {
        Verb::List { facility } => {
            let path = format!("/v1/facilities/{}/epochs", segment(&facility));
            let page: Page<FacilityEpoch> = context.api()?.get(&path).await?;
            let mut listing = Listing::new(context.format, &COLUMNS);
            listing.rows(&page.items, &Names::new())?;
            listing.end(None)
        }
        Verb::Advance(Advance { facility, device, why }) => {
            let path = match (facility, device) {
                (Some(facility), _) => format!("/v1/facilities/{}/epochs", segment(&facility)),
                (None, Some(device)) => format!("/v1/devices/{}/keys", segment(&device)),
                (None, None) => return Err(Failure::usage("nothing is named", "give one of --facility, --device")),
            };
            change(context, &path, why).await
        }
        Verb::Holders { facility, epoch, paging } => {
            let path = format!("/v1/facilities/{}/epochs/{epoch}/holders", segment(&facility));
            let mut api = context.api()?;
            list::<EpochHolder>(context, &mut api, &path, PageRequest::default(), &paging, &HOLDER_COLUMNS).await
        }
        Verb::Retire { facility, epoch, why } => {
            change(context, &format!("/v1/facilities/{}/epochs/{epoch}/retire", segment(&facility)), why).await
        }
        Verb::Show { device } => show(context, &device).await,
        Verb::Pins => {
            let pins: DevicePins = context.api()?.get("/v1/device/pins").await?;
            match context.format {
                Format::Table => raw(format!("{}{}", pins.delivery_key_pem, pins.order_key_pem).as_bytes()),
                other => object(other, &pins, &Names::new()),
            }
        }
    }
}

async fn change(context: &Context, path: &str, why: String) -> Result<(), Failure> {
    let outcome: EpochOutcome = context.api()?.post(path, &EpochRequest { why }).await?;
    object(context.format, &outcome, &Names::new())?;
    outcome.proposal.as_ref().map_or(Ok(()), |proposal| Err(waiting(proposal)))
}

async fn show(context: &Context, device: &str) -> Result<(), Failure> {
    let mut api = context.api()?;
    let keys: DeviceKeys = api.get(&format!("/v1/devices/{}/keys", segment(device))).await?;
    if context.format != Format::Table {
        return object(context.format, &keys, &Names::new());
    }
    let names = names_for(context.format, &mut api, &["facility"]).await;
    let epochs = keys.epochs.clone();
    object(context.format, &DeviceKeys { epochs: Vec::new(), ..keys }, &names)?;
    raw(b"\n")?;
    Listing::new(context.format, &KEY_COLUMNS).rows(&epochs, &names)
}

//! `keyfleet order`.

use clap::{Args, Subcommand, ValueEnum};
use kf_api::order::{Order, OrderAct, OrderCancellation, OrderFilter, OrderRequest};
use kf_api::revocation::RevokeOutcome;
use kf_key::OrderId;

use super::revoke::judge;
use crate::api::{Context, Paging, list};
use crate::ask;
use crate::failure::Failure;
use crate::output::{Names, object};

const COLUMNS: [&str; 9] =
    ["id", "device", "act", "counter", "progress", "created", "expires", "acknowledged", "ended"];

/// What can be done with orders to devices.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Propose an order; it is signed when a second person approves
    Create(Create),
    /// List orders, newest first
    List {
        /// Of this device alone (name or id)
        #[arg(long)]
        device: Option<String>,
        #[command(flatten)]
        paging: Paging,
    },
    /// Show an order
    Show {
        /// Identifier, `ord_...`
        order: OrderId,
    },
    /// Withdraw an order; a device that has fetched it may still obey
    Cancel {
        /// Identifier, `ord_...`
        order: OrderId,
        /// Why, for the log; at most 500 characters
        #[arg(long, default_value = "")]
        why: String,
    },
}

/// An order to be proposed.
#[derive(Debug, Args)]
pub(crate) struct Create {
    /// Device (name or id)
    #[arg(long)]
    device: String,
    /// What it is to do
    #[arg(long)]
    act: ActArgument,
    /// Hours from the approval until it expires, 1 to 8,760; 168 (a week) when absent
    #[arg(long, value_name = "HOURS")]
    lifetime_hours: Option<u32>,
    /// Why, for the log; at most 500 characters
    #[arg(long)]
    why: String,
    /// Do not ask: a wiped device does not come back
    #[arg(long)]
    yes: bool,
}

/// What a device is ordered to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ActArgument {
    /// Make a new identity key, have it certified, and fetch the newest device key
    Rotate,
    /// Destroy every key; a reset that leaves the IDevID is part of `device resell` and `device rma`
    Wipe,
}

pub(crate) async fn run(context: &Context, verb: Verb) -> Result<(), Failure> {
    match verb {
        Verb::Create(create) => self::create(context, create).await,
        Verb::List { device, paging } => {
            let filter = OrderFilter { device, after: None, limit: None };
            list::<Order>(context, &mut context.api()?, "/v1/orders", filter, &paging, &COLUMNS).await
        }
        Verb::Show { order } => {
            let found: Order = context.api()?.get(&format!("/v1/orders/{order}")).await?;
            object(context.format, &found, &Names::new())
        }
        Verb::Cancel { order, why } => {
            let path = format!("/v1/orders/{order}/cancel");
            let cancelled: Order = context.api()?.post(&path, &OrderCancellation { why }).await?;
            object(context.format, &cancelled, &Names::new())
        }
    }
}

async fn create(context: &Context, create: Create) -> Result<(), Failure> {
    let Create { device, act, lifetime_hours, why, yes } = create;
    let act = match act {
        ActArgument::Rotate => OrderAct::Rotate,
        ActArgument::Wipe => {
            ask::consent(yes, &format!("this proposes to destroy every key of {device}"))?;
            OrderAct::Wipe
        }
    };
    let request = OrderRequest { device, act, lifetime_hours, why };
    let outcome: RevokeOutcome = context.api()?.post("/v1/orders", &request).await?;
    object(context.format, &outcome, &Names::new())?;
    judge(&outcome, false)
}

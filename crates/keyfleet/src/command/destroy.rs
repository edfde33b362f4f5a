//! `keyfleet destroy`.

use clap::{Args, Subcommand};
use kf_api::PageRequest;
use kf_api::destruction::{DestructionOutcome, DestructionRequest, DestructionTarget, Receipt};
use kf_key::DestructionId;

use super::revoke::waiting;
use crate::api::{Context, Paging, list};
use crate::ask;
use crate::failure::Failure;
use crate::output::{Names, object};

const COLUMNS: [&str; 6] = ["id", "target", "salts", "result", "approved_by", "at"];

/// What can be destroyed, and what was.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Propose to destroy the symmetric keys of a decommissioned device, of all its epochs
    DeviceKey {
        /// Device (name or id)
        device: String,
        #[command(flatten)]
        terms: Terms,
    },
    /// Propose to destroy the keys of a retired key epoch of a facility
    FacilityEpoch {
        /// Facility (name or id)
        #[arg(long)]
        facility: String,
        /// Its epoch
        #[arg(long)]
        epoch: u32,
        #[command(flatten)]
        terms: Terms,
    },
    /// Propose to destroy the key of a CA, after it has signed its last CRLs, which never expire
    AuthorityKey {
        /// CA (name or id)
        authority: String,
        /// Say that certificates of it that have not expired stay as they are: nobody can revoke them afterwards
        #[arg(long)]
        certificates_stay: bool,
        #[command(flatten)]
        terms: Terms,
    },
    /// Propose to destroy a version of an encryption key that is below its minimum version
    EncryptionVersion {
        /// Name or id of the key
        key: String,
        /// The version
        #[arg(value_name = "VERSION")]
        number: u32,
        #[command(flatten)]
        terms: Terms,
    },
    /// Propose to destroy a version of the server's wrapping key under which nothing lies any more
    WrappingVersion {
        /// The version
        #[arg(value_name = "VERSION")]
        number: u32,
        #[command(flatten)]
        terms: Terms,
    },
    /// List receipts, newest first
    List {
        #[command(flatten)]
        paging: Paging,
    },
    /// Show a receipt
    Receipt {
        /// Identifier, `dst_...`
        id: DestructionId,
    },
}

/// What every destruction needs.
#[derive(Debug, Args)]
pub(crate) struct Terms {
    /// Why, for the log and the receipt; at most 500 characters
    #[arg(long)]
    why: String,
    /// Say that the records of factory stations, in which salts lie sealed to the server, are erased wherever they were kept
    #[arg(long)]
    station_records_erased: bool,
    /// Only say what would be wiped, what bars it, and what it does not reach
    #[arg(long)]
    dry_run: bool,
    /// Do not ask: what is destroyed does not come back
    #[arg(long)]
    yes: bool,
}

pub(crate) async fn run(context: &Context, verb: Verb) -> Result<(), Failure> {
    match verb {
        Verb::DeviceKey { device, terms } => {
            let what = format!("every key of {device}");
            propose(context, DestructionTarget::DeviceKey { device }, &what, terms).await
        }
        Verb::FacilityEpoch { facility, epoch, terms } => {
            let what = format!("the keys of epoch {epoch} of {facility}");
            propose(context, DestructionTarget::FacilityEpoch { facility, epoch }, &what, terms).await
        }
        Verb::AuthorityKey { authority, certificates_stay, terms } => {
            let what = format!("the key of the CA {authority}, which signs nothing afterwards");
            propose(context, DestructionTarget::AuthorityKey { authority, certificates_stay }, &what, terms).await
        }
        Verb::EncryptionVersion { key, number: version, terms } => {
            let what = format!("version {version} of {key}");
            propose(context, DestructionTarget::EncryptionVersion { key, version }, &what, terms).await
        }
        Verb::WrappingVersion { number: version, terms } => {
            let what = format!("version {version} of the wrapping key");
            propose(context, DestructionTarget::WrappingVersion { version }, &what, terms).await
        }
        Verb::List { paging } => {
            let page = PageRequest::default();
            list::<Receipt>(context, &mut context.api()?, "/v1/destructions", page, &paging, &COLUMNS).await
        }
        Verb::Receipt { id } => {
            let receipt: Receipt = context.api()?.get(&format!("/v1/destructions/{id}")).await?;
            object(context.format, &receipt, &Names::new())
        }
    }
}

async fn propose(context: &Context, target: DestructionTarget, what: &str, terms: Terms) -> Result<(), Failure> {
    let Terms { why, station_records_erased, dry_run, yes } = terms;
    if !dry_run {
        ask::consent(yes, &format!("this proposes to destroy {what}"))?;
    }
    let request = DestructionRequest { target, why, station_records_erased, dry_run };
    let outcome: DestructionOutcome = context.api()?.post("/v1/destructions", &request).await?;
    object(context.format, &outcome, &Names::new())?;
    outcome.proposal.as_ref().map_or(Ok(()), |proposal| Err(waiting(proposal)))
}

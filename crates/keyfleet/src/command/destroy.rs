//! `keyfleet destroy`.

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Subcommand};
use kf_api::PageRequest;
use kf_api::destruction::{
    DestructionOutcome, DestructionRequest, DestructionTarget, HeldElsewhere, Receipt, Sanitization, Statement,
};
use kf_fleet::{Clock as _, SystemClock};
use kf_key::DestructionId;

use super::revoke::waiting;
use crate::api::{Context, Paging, list};
use crate::ask;
use crate::failure::Failure;
use crate::moment;
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
    /// Propose to destroy a key that devices or stations pin, and that has a successor
    PinnedKey {
        /// Id of the key, `key_...`: `keyfleet inventory --class delivery-key`
        key: String,
        /// Say that those who have not proved that they hold its successor are left behind
        #[arg(long)]
        holders_stay: bool,
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
    /// Propose a receipt for keys that people have destroyed where this server does not reach, on their word
    Elsewhere {
        #[command(flatten)]
        statement: Box<Stated>,
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

/// What SP 800-88r2 section 4.6 asks of a certificate of sanitization.
#[derive(Debug, Args)]
pub(crate) struct Stated {
    /// Which keys
    #[arg(long, value_parser = named(&HeldElsewhere::ALL, HeldElsewhere::name))]
    keys: HeldElsewhere,
    /// What they were in: kind, maker, model and serial number, or where it was kept
    #[arg(long, value_name = "TEXT")]
    holder: String,
    /// How thoroughly (SP 800-88r2 section 3.1)
    #[arg(long, value_parser = named(&Sanitization::ALL, Sanitization::name))]
    method: Sanitization,
    /// How
    #[arg(long, value_name = "TEXT")]
    technique: String,
    /// With which tool, and its version
    #[arg(long, value_name = "TEXT")]
    tool: String,
    /// Who did it
    #[arg(long, value_name = "NAME")]
    carried_out_by: String,
    /// When: a date, a moment, or how long ago (2d, 3h)
    #[arg(long, value_name = "WHEN")]
    carried_out: String,
    /// How it was verified, and what that showed
    #[arg(long, value_name = "TEXT")]
    verification: String,
    /// Who verified it: somebody else
    #[arg(long, value_name = "NAME")]
    verified_by: String,
    /// The facility that they belonged to, whose people may then approve it
    #[arg(long)]
    facility: Option<String>,
}

/// Reads one of a list by its name.
fn named<T: Copy + Send + Sync + 'static>(
    all: &'static [T],
    name: fn(T) -> &'static str,
) -> impl TypedValueParser<Value = T> {
    let names = PossibleValuesParser::new(all.iter().map(|one| name(*one)));
    names.try_map(move |given| all.iter().copied().find(|one| name(*one) == given).ok_or("is none of them"))
}

impl Stated {
    fn into_target(self) -> Result<DestructionTarget, Failure> {
        let carried_out = moment::parse_past(&self.carried_out, SystemClock.now()).map_err(|problem| {
            let what = format!("--carried-out {}: {problem}", self.carried_out);
            Failure::usage(what, "for example --carried-out 2d")
        })?;
        let statement = Statement {
            keys: self.keys,
            holder: self.holder,
            method: self.method,
            technique: self.technique,
            tool: self.tool,
            carried_out_by: self.carried_out_by,
            carried_out,
            verification: self.verification,
            verified_by: self.verified_by,
        };
        Ok(DestructionTarget::Elsewhere { facility: self.facility, statement })
    }
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
            let what = format!("destroy every key of {device}");
            propose(context, DestructionTarget::DeviceKey { device }, &what, terms).await
        }
        Verb::FacilityEpoch { facility, epoch, terms } => {
            let what = format!("destroy the keys of epoch {epoch} of {facility}");
            propose(context, DestructionTarget::FacilityEpoch { facility, epoch }, &what, terms).await
        }
        Verb::AuthorityKey { authority, certificates_stay, terms } => {
            let what = format!("destroy the key of the CA {authority}, which signs nothing afterwards");
            let target = DestructionTarget::AuthorityKey { authority, certificates_stay, certificates: 0 };
            propose(context, target, &what, terms).await
        }
        Verb::PinnedKey { key, holders_stay, terms } => {
            let what = format!("destroy the key {key}, which serves nobody afterwards");
            propose(context, DestructionTarget::PinnedKey { key, holders_stay, holders: 0 }, &what, terms).await
        }
        Verb::EncryptionVersion { key, number: version, terms } => {
            let what = format!("destroy version {version} of {key}");
            propose(context, DestructionTarget::EncryptionVersion { key, version }, &what, terms).await
        }
        Verb::WrappingVersion { number: version, terms } => {
            let what = format!("destroy version {version} of the wrapping key");
            propose(context, DestructionTarget::WrappingVersion { version }, &what, terms).await
        }
        Verb::Elsewhere { statement, terms } => {
            let what = format!("record that people destroyed what {} held", statement.holder);
            propose(context, statement.into_target()?, &what, terms).await
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
        ask::consent(yes, &format!("this proposes to {what}"))?;
    }
    let request = DestructionRequest { target, why, station_records_erased, dry_run };
    let outcome: DestructionOutcome = context.api()?.post("/v1/destructions", &request).await?;
    object(context.format, &outcome, &Names::new())?;
    outcome.proposal.as_ref().map_or(Ok(()), |proposal| Err(waiting(proposal)))
}

//! `keyfleet authority`.

use std::path::PathBuf;

use clap::Subcommand;
use kf_api::PageRequest;
use kf_api::authority::{Authority, NewAuthority};
use kf_api::succession::{
    NewSuccession, SuccessionAct, SuccessionActRequest, SuccessionOutcome, SuccessionStatus, UnprovedDevice,
};
use kf_key::KeyAlgorithm;

use super::campaign::show;
use super::revoke::waiting;
use crate::api::{Context, Paging, list, names_for, segment};
use crate::failure::Failure;
use crate::file;
use crate::output::{Names, object, say};

const COLUMNS: [&str; 8] = ["name", "kind", "status", "algorithm", "not_after", "facility", "is_default", "id"];

const UNPROVED: [&str; 4] = ["name", "facility", "last_seen", "device"];
const ROLL_OVER: &str = "\
Examples:
  keyfleet authority succeed root --why \"the root ends next year\"
  keyfleet campaign create anchors --kind trust-anchor
  keyfleet campaign start anchors
  keyfleet authority trust root
  keyfleet authority switch root
  keyfleet authority retire issuing
  keyfleet authority retire root";

/// What can be done with certification authorities.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Create an issuing CA below the root
    Create {
        /// Unique name; becomes part of the common name
        name: String,
        /// Name or id of the facility it serves
        #[arg(long)]
        facility: Option<String>,
        /// p-256, p-384, ed25519, ml-dsa-44, ml-dsa-65 or ml-dsa-87; p-256 when absent
        #[arg(long)]
        algorithm: Option<KeyAlgorithm>,
        /// Lifetime in days, 1 to 7,300
        #[arg(long, value_name = "DAYS")]
        lifetime_days: Option<u32>,
        /// CRL shards, 1 to 256, fixed for the life of the CA
        #[arg(long, value_name = "N")]
        shard_count: Option<u16>,
        /// Make it the default of the fleet
        #[arg(long)]
        make_default: bool,
    },
    /// Make the successor of a root, with link certificates and successors of what is below it, or of an issuing CA
    #[command(after_help = ROLL_OVER)]
    Succeed {
        /// Name or id of the CA that is to be succeeded
        authority: String,
        /// Algorithm of the new keys; as before when absent
        #[arg(long)]
        algorithm: Option<KeyAlgorithm>,
        /// Lifetime in days; as before when absent
        #[arg(long, value_name = "DAYS")]
        lifetime_days: Option<u32>,
        /// Why, for the log; at most 500 characters
        #[arg(long, default_value = "")]
        why: String,
    },
    /// Show how far a succession is, and what part of the fleet trusts the new root
    Trust {
        /// Name or id of the old or the new CA
        authority: String,
        /// List the devices that have not proved that they trust it
        #[arg(long)]
        devices: bool,
        #[command(flatten)]
        paging: Paging,
    },
    /// Have the successor issue from now on
    Switch {
        /// Name or id of the old or the new CA
        authority: String,
        /// Why, for the log; at most 500 characters
        #[arg(long, default_value = "")]
        why: String,
        /// Say what would happen, change nothing
        #[arg(long)]
        dry_run: bool,
    },
    /// End a successor that has not taken over: it is revoked with all that is below it, and the old CA goes on
    Withdraw {
        /// Name or id of the old or the new CA
        authority: String,
        /// Go on although devices trust the new root, or were asked to; takes a second person
        #[arg(long)]
        although_trusted: bool,
        /// Why, for the log; at most 500 characters
        #[arg(long, default_value = "")]
        why: String,
        /// Say what would happen, change nothing
        #[arg(long)]
        dry_run: bool,
    },
    /// Hand the old CA out no more; its CRLs and OCSP answers go on until what it issued has expired
    Retire {
        /// Name or id of the old or the new CA
        authority: String,
        /// Go on although devices have not proved that they trust the new root; takes a second person
        #[arg(long)]
        strand: bool,
        /// Why, for the log; at most 500 characters
        #[arg(long, default_value = "")]
        why: String,
        /// Say what would happen, change nothing
        #[arg(long)]
        dry_run: bool,
    },
    /// List certification authorities
    List {
        #[command(flatten)]
        paging: Paging,
    },
    /// Show a certification authority with its certificate
    Show {
        /// Name or id
        authority: String,
        /// Write its certificate here, PEM
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
}

pub(crate) async fn run(context: &Context, verb: Verb) -> Result<(), Failure> {
    let mut api = context.api()?;
    match verb {
        Verb::Create { name, facility, algorithm, lifetime_days, shard_count, make_default } => {
            let new = NewAuthority { name, facility, algorithm, lifetime_days, shard_count, make_default };
            let made: Authority = api.post("/v1/authorities", &new).await?;
            let names = names_for(context.format, &mut api, &["facility", "issuer"]).await;
            object(context.format, &made, &names)
        }
        Verb::Succeed { authority, algorithm, lifetime_days, why } => {
            let new = NewSuccession { algorithm, lifetime_days, why };
            let made: SuccessionOutcome = api.post(&succession(&authority), &new).await?;
            show(context, &made, &Names::new())
        }
        Verb::Trust { authority, devices: true, paging } => {
            let path = format!("{}/unproved", succession(&authority));
            list::<UnprovedDevice>(context, &mut api, &path, PageRequest::default(), &paging, &UNPROVED).await
        }
        Verb::Trust { authority, .. } => {
            let found: SuccessionStatus = api.get(&succession(&authority)).await?;
            show(context, &found, &Names::new())
        }
        Verb::Switch { authority, why, dry_run } => {
            let request = SuccessionActRequest { why, dry_run, ..step(SuccessionAct::Switch) };
            act(context, &authority, &request).await
        }
        Verb::Retire { authority, strand, why, dry_run } => {
            let request = SuccessionActRequest { strand, why, dry_run, ..step(SuccessionAct::Retire) };
            act(context, &authority, &request).await
        }
        Verb::Withdraw { authority, although_trusted, why, dry_run } => {
            let request = SuccessionActRequest { although_trusted, why, dry_run, ..step(SuccessionAct::Withdraw) };
            act(context, &authority, &request).await
        }
        Verb::List { paging } => {
            list::<Authority>(context, &mut api, "/v1/authorities", PageRequest::default(), &paging, &COLUMNS).await
        }
        Verb::Show { authority, out } => {
            file::must_be_free(out.as_deref())?;
            let found: Authority = api.get(&format!("/v1/authorities/{}", segment(&authority))).await?;
            let names = names_for(context.format, &mut api, &["facility", "issuer"]).await;
            object(context.format, &found, &names)?;
            if let Some(out) = out {
                file::write_new(&out, found.certificate_pem.as_bytes())?;
                say(&format!("certificate written to {}", out.display()));
            }
            Ok(())
        }
    }
}

fn succession(authority: &str) -> String {
    format!("/v1/authorities/{}/succession", segment(authority))
}

const fn step(act: SuccessionAct) -> SuccessionActRequest {
    SuccessionActRequest { act, strand: false, although_trusted: false, why: String::new(), dry_run: false }
}

async fn act(context: &Context, authority: &str, request: &SuccessionActRequest) -> Result<(), Failure> {
    let path = format!("{}/act", succession(authority));
    let outcome: SuccessionOutcome = context.api()?.post(&path, request).await?;
    show(context, &outcome, &Names::new())?;
    outcome.proposal.as_ref().map_or(Ok(()), |proposal| Err(waiting(proposal)))
}

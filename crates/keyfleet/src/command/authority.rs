//! `keyfleet authority`.

use std::path::PathBuf;

use clap::Subcommand;
use kf_api::PageRequest;
use kf_api::authority::{Authority, NewAuthority};
use kf_key::KeyAlgorithm;

use crate::api::{Context, Paging, list, names_for, segment};
use crate::failure::Failure;
use crate::file;
use crate::output::{object, say};

const COLUMNS: [&str; 8] = ["name", "kind", "status", "algorithm", "not_after", "facility", "is_default", "id"];

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
        /// p-256, p-384 or ed25519; the fleet's when absent
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

//! `keyfleet audit`.

mod verify;

pub(crate) use verify::copy_log;

use clap::Subcommand;
use kf_api::audit::{AuditFilter, AuditRecord};

use crate::api::{Context, Paging, list};
use crate::failure::Failure;

const COLUMNS: [&str; 8] = [
    "index",
    "entry.at",
    "entry.who.name",
    "entry.who.role",
    "entry.act",
    "entry.phase",
    "entry.subjects",
    "entry.why",
];

/// What can be done with the log.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// List entries
    List {
        /// Only those about this: dev_..., fac_..., op_..., cert:SERIAL, spki:SHA256
        #[arg(long, value_name = "ID")]
        subject: Option<String>,
        #[command(flatten)]
        paging: Paging,
    },
    /// Check the whole log without trusting whoever keeps it: signature, tiles, entries, older checkpoints
    Verify(verify::Verify),
}

pub(crate) async fn run(context: &Context, verb: Verb) -> Result<(), Failure> {
    match verb {
        Verb::List { subject, paging } => {
            let mut api = context.api()?;
            let filter = AuditFilter { subject, after: None, limit: None };
            list::<AuditRecord>(context, &mut api, "/v1/audit", filter, &paging, &COLUMNS).await
        }
        Verb::Verify(wanted) => verify::run(context, wanted).await,
    }
}

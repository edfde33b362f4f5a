//! `keyfleet issuance`.

use clap::Subcommand;
use kf_api::status::{Issuance, IssuanceSwitch};
use kf_client::Method;

use crate::api::Context;
use crate::failure::Failure;
use crate::output::{Names, object};

/// What can be done with issuance.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Stop issuing certificates in the whole fleet, at once; revocation goes on
    Stop {
        /// Why, for the log and for whoever is refused
        #[arg(long)]
        why: String,
    },
    /// Issue again
    Start {
        /// Why, for the log
        #[arg(long, default_value = "")]
        why: String,
    },
}

pub(crate) async fn run(context: &Context, verb: Verb) -> Result<(), Failure> {
    let switch = match verb {
        Verb::Stop { why } => IssuanceSwitch { run: false, why },
        Verb::Start { why } => IssuanceSwitch { run: true, why },
    };
    let issuance: Issuance = context.api()?.send(Method::PUT, "/v1/issuance", &switch).await?;
    object(context.format, &issuance, &Names::new())
}

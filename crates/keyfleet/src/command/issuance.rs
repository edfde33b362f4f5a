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
    /// Stop issuing certificates in the whole fleet or for a facility, at once; revocation goes on
    Stop {
        /// For the devices of this facility alone (name or id)
        #[arg(long)]
        facility: Option<String>,
        /// Why, for the log and for whoever is refused
        #[arg(long)]
        why: String,
    },
    /// Issue again
    Start {
        /// For the devices of this facility alone (name or id)
        #[arg(long)]
        facility: Option<String>,
        /// Why, for the log
        #[arg(long, default_value = "")]
        why: String,
    },
}

pub(crate) async fn run(context: &Context, verb: Verb) -> Result<(), Failure> {
    let switch = match verb {
        Verb::Stop { why, facility } => IssuanceSwitch { run: false, why, facility },
        Verb::Start { why, facility } => IssuanceSwitch { run: true, why, facility },
    };
    let issuance: Issuance = context.api()?.send(Method::PUT, "/v1/issuance", &switch).await?;
    object(context.format, &issuance, &Names::new())
}

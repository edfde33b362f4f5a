//! `keyfleet access`.

use clap::Subcommand;
use kf_access::Action;
use kf_api::access::{AccessExplained, AccessQuestion};
use kf_api::operator::Role;
use serde::Serialize;

use crate::api::Context;
use crate::failure::Failure;
use crate::output::{Listing, Names, object};

/// What can be asked.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Why an operator may do something, or not
    Explain {
        /// Name or id of the operator
        who: String,
        /// The action as refusals name it, for example certificate.revoke
        what: String,
        /// At this facility (name or id); for the fleet as a whole when absent
        #[arg(long)]
        facility: Option<String>,
    },
    /// Every action, the roles that may do it, and when it takes a second person; without a server
    List,
}

#[derive(Serialize)]
struct Row {
    action: &'static str,
    roles: Vec<&'static str>,
    second_person: &'static str,
}

pub(crate) async fn run(context: &Context, verb: Verb) -> Result<(), Failure> {
    match verb {
        Verb::Explain { who, what, facility } => {
            let question = AccessQuestion { who, action: what, facility };
            let explained: AccessExplained = context.api()?.query("/v1/access", &question).await?;
            object(context.format, &explained, &Names::new())
        }
        Verb::List => {
            let row = |action: &Action| Row {
                action: action.name(),
                roles: Role::ALL.iter().filter(|role| action.allowed_to(**role)).map(|role| role.name()).collect(),
                second_person: action.second_person(),
            };
            let rows: Vec<Row> = Action::ALL.iter().map(row).collect();
            let mut listing = Listing::new(context.format, &["action", "roles", "second_person"]);
            listing.rows(&rows, &Names::new())?;
            listing.end(None)
        }
    }
}

//! `keyfleet facility`.

use clap::Subcommand;
use kf_api::PageRequest;
use kf_api::facility::{Facility, NewFacility};

use crate::api::{Context, Paging, list, segment};
use crate::failure::Failure;
use crate::output::{Names, object};

const COLUMNS: [&str; 4] = ["name", "description", "created", "id"];

/// What can be done with facilities.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Create a facility
    Create {
        /// Unique name: a-z, 0-9, `-`, `.`, `_`
        name: String,
        /// Free text
        #[arg(long, default_value = "")]
        description: String,
    },
    /// List facilities
    List {
        #[command(flatten)]
        paging: Paging,
    },
    /// Show a facility
    Show {
        /// Name or id
        facility: String,
    },
}

pub(crate) async fn run(context: &Context, verb: Verb) -> Result<(), Failure> {
    let mut api = context.api()?;
    match verb {
        Verb::Create { name, description } => {
            let made: Facility = api.post("/v1/facilities", &NewFacility { name, description }).await?;
            object(context.format, &made, &Names::new())
        }
        Verb::List { paging } => {
            list::<Facility>(context, &mut api, "/v1/facilities", PageRequest::default(), &paging, &COLUMNS).await
        }
        Verb::Show { facility } => {
            let found: Facility = api.get(&format!("/v1/facilities/{}", segment(&facility))).await?;
            object(context.format, &found, &Names::new())
        }
    }
}

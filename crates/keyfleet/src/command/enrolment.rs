//! `keyfleet enrolment`.

use clap::Subcommand;
use kf_api::PageRequest;
use kf_api::enrolment::{Enrolment, EnrolmentDecision};
use kf_key::EnrolmentId;

use crate::api::{Context, Paging, list};
use crate::failure::Failure;
use crate::output::{Names, object};

const COLUMNS: [&str; 5] = ["id", "device_name", "spki_sha256", "requested", "state"];

/// What can be done with enrolments that wait.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// List enrolments that wait for a person
    List {
        #[command(flatten)]
        paging: Paging,
    },
    /// Grant one: compare the key's SHA-256 with what the installer sees first
    Approve {
        /// Identifier, `enr_...`
        enrolment: EnrolmentId,
        /// Why, for the log
        #[arg(long, default_value = "")]
        why: String,
    },
    /// Refuse one
    Refuse {
        /// Identifier, `enr_...`
        enrolment: EnrolmentId,
        /// Why, for the log
        #[arg(long, default_value = "")]
        why: String,
    },
}

pub(crate) async fn run(context: &Context, verb: Verb) -> Result<(), Failure> {
    let mut api = context.api()?;
    let (enrolment, decision) = match verb {
        Verb::List { paging } => {
            let all = PageRequest::default();
            return list::<Enrolment>(context, &mut api, "/v1/enrolments", all, &paging, &COLUMNS).await;
        }
        Verb::Approve { enrolment, why } => (enrolment, EnrolmentDecision { approve: true, why }),
        Verb::Refuse { enrolment, why } => (enrolment, EnrolmentDecision { approve: false, why }),
    };
    let decided: Enrolment = api.post(&format!("/v1/enrolments/{enrolment}/decision"), &decision).await?;
    object(context.format, &decided, &Names::new())
}

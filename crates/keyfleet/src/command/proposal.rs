//! `keyfleet proposal`.

use clap::Subcommand;
use kf_api::PageRequest;
use kf_api::proposal::{Proposal, ProposalDecision};
use kf_key::ProposalId;

use crate::api::{Context, Paging, list};
use crate::failure::Failure;
use crate::output::{Names, object};

const COLUMNS: [&str; 9] =
    ["id", "state", "act.act", "devices", "certificates", "proposer_name", "created", "expires", "effective"];

/// What can be done with proposals.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// List proposals
    List {
        #[command(flatten)]
        paging: Paging,
    },
    /// Show a proposal
    Show {
        /// Identifier, `prop_...`
        proposal: ProposalId,
    },
    /// Approve somebody else's proposal, which carries it out
    Approve {
        /// Identifier, `prop_...`
        proposal: ProposalId,
        /// Why, for the log
        #[arg(long, default_value = "")]
        why: String,
    },
    /// Cancel a proposal
    Cancel {
        /// Identifier, `prop_...`
        proposal: ProposalId,
        /// Why, for the log
        #[arg(long, default_value = "")]
        why: String,
    },
}

pub(crate) async fn run(context: &Context, verb: Verb) -> Result<(), Failure> {
    let mut api = context.api()?;
    let (proposal, decision) = match verb {
        Verb::List { paging } => {
            let all = PageRequest::default();
            return list::<Proposal>(context, &mut api, "/v1/proposals", all, &paging, &COLUMNS).await;
        }
        Verb::Show { proposal } => {
            let found: Proposal = api.get(&format!("/v1/proposals/{proposal}")).await?;
            return object(context.format, &found, &Names::new());
        }
        Verb::Approve { proposal, why } => (proposal, ProposalDecision { approve: true, why }),
        Verb::Cancel { proposal, why } => (proposal, ProposalDecision { approve: false, why }),
    };
    let decided: Proposal = api.post(&format!("/v1/proposals/{proposal}/decision"), &decision).await?;
    object(context.format, &decided, &Names::new())
}

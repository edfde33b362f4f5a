//! Acts that wait for a second person, or for a day in single-control mode.

use kf_access::Principal;
use kf_api::proposal::{Proposal, ProposalDecision};
use kf_api::{Page, PageRequest};
use kf_key::ProposalId;

use crate::{Fleet, FleetError};

impl Fleet {
    /// Proposals the caller may see, newest first.
    ///
    /// # Errors
    /// [`FleetError::Denied`].
    pub async fn proposal_list(&self, who: &Principal, page: PageRequest) -> Result<Page<Proposal>, FleetError> {
        let _ = (who, page);
        todo!()
    }

    /// One proposal.
    ///
    /// # Errors
    /// [`FleetError::NotFound`].
    pub async fn proposal_show(&self, who: &Principal, proposal: ProposalId) -> Result<Proposal, FleetError> {
        let _ = (who, proposal);
        todo!()
    }

    /// Approves (and carries out) or cancels. Nobody approves an own proposal; everybody in scope may cancel.
    ///
    /// # Errors
    /// [`FleetError::NotFound`], [`FleetError::Denied`], [`FleetError::Conflict`] when it was decided or has lapsed.
    pub async fn proposal_decide(
        &self,
        who: &Principal,
        proposal: ProposalId,
        decision: ProposalDecision,
    ) -> Result<Proposal, FleetError> {
        let _ = (who, proposal, decision);
        todo!()
    }
}

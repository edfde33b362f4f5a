//! Acts that wait for a second person, or for the delay of single-control mode.

use kf_access::Visibility;
use kf_api::proposal::{Proposal, ProposalState};
use kf_api::{Page, PageRequest};
use kf_key::{FacilityId, OperatorId, ProposalId, UnixMillis};

use crate::{Audit, Logged, Store, StoreError};

/// A decision on a proposal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProposalChange {
    /// The proposal.
    pub id: ProposalId,
    /// The state the caller saw.
    pub seen: ProposalState,
    /// The new state. `Done` may become `Failed` when the rules then refuse the act; other ends are final.
    pub to: ProposalState,
    /// Who decided; absent for the server.
    pub by: Option<OperatorId>,
}

impl Store {
    /// Adds a proposal. `facility` is the one it concerns, where it is one: its operators see it.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] on `id`.
    pub async fn insert_proposal(
        &self,
        proposal: Proposal,
        facility: Option<FacilityId>,
        audit: impl Into<Audit>,
    ) -> Result<Logged<()>, StoreError> {
        let _ = (proposal, facility, audit.into());
        todo!()
    }

    /// Decides a proposal: exactly one of two concurrent decisions succeeds.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; [`StoreError::IllegalState`] when it is not as the caller saw it or cannot become this.
    pub async fn change_proposal(
        &self,
        change: ProposalChange,
        audit: impl Into<Audit>,
    ) -> Result<Logged<Proposal>, StoreError> {
        let _ = (change, audit.into());
        todo!()
    }

    /// A proposal by id, with its facility; `None` also when it lies outside `visibility`.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn proposal(&self, id: ProposalId, visibility: &Visibility) -> Result<Option<Proposal>, StoreError> {
        let _ = (id, visibility);
        todo!()
    }

    /// Proposals, newest first, of one state or of all.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn proposals(
        &self,
        state: Option<ProposalState>,
        visibility: &Visibility,
        page: &PageRequest,
    ) -> Result<Page<Proposal>, StoreError> {
        let _ = (state, visibility, page);
        todo!()
    }

    /// Waiting proposals of single-control mode whose delay is over at `now`, oldest first, at most 100.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn due_proposals(&self, now: UnixMillis) -> Result<Vec<Proposal>, StoreError> {
        let _ = now;
        todo!()
    }

    /// Waiting proposals that nobody approved before they lapsed at `now`, oldest first, at most 100.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn lapsed_proposals(&self, now: UnixMillis) -> Result<Vec<Proposal>, StoreError> {
        let _ = now;
        todo!()
    }
}

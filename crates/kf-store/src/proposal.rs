//! Acts that wait for a second person, or for the delay of single-control mode.

use kf_access::Visibility;
use kf_api::proposal::{Proposal, ProposalState, ProposedAct};
use kf_api::{Page, PageRequest};
use kf_key::{FacilityId, OperatorId, ProposalId, UnixMillis};

use rusqlite::Row;
use rusqlite::types::Value;

use crate::act::{Act, Class};
use crate::column::{self, Coded, integer, millis};
use crate::listing::{BAD_CURSOR, Branch, Listing, next_of, scopes};
use crate::sql::{self, in_scope, scope};
use crate::{Audit, Logged, Store, StoreError};

macro_rules! columns {
    () => {
        "SELECT id, state, act, devices, certificates, proposer, proposer_name, decided_by, created, expires, effective
            FROM proposal"
    };
}
pub(crate) use columns;

pub(crate) fn proposal_row(row: &Row<'_>) -> rusqlite::Result<Proposal> {
    Ok(Proposal {
        id: column::id(row, 0)?,
        state: column::coded(row, 1)?,
        act: column::json(row, 2)?,
        devices: column::count(row, 3)?,
        certificates: column::count(row, 4)?,
        proposer: column::id(row, 5)?,
        proposer_name: row.get(6)?,
        decided_by: column::optional_id(row, 7)?,
        created: column::time(row, 8)?,
        expires: column::time(row, 9)?,
        effective: column::optional_time(row, 10)?,
    })
}

const fn state_name(state: ProposalState) -> &'static str {
    match state {
        ProposalState::Waiting => "waiting",
        ProposalState::Done => "done",
        ProposalState::Cancelled => "cancelled",
        ProposalState::Expired => "expired",
        ProposalState::Failed => "failed",
    }
}

/// Decides a proposal that waits.
///
/// # Errors
/// [`StoreError::NotFound`]; [`StoreError::IllegalState`] when it does not wait any more.
pub(crate) fn decide(act: &mut Act<'_>, change: ProposalChange) -> Result<Proposal, StoreError> {
    let ProposalChange { id, to, by } = change;
    let found = act.one(concat!(columns!(), " WHERE id = ?1"), [id.as_bytes()], proposal_row)?;
    let mut proposal = found.ok_or(StoreError::NotFound { what: "proposal" })?;
    if proposal.state != ProposalState::Waiting || to == ProposalState::Waiting {
        return Err(StoreError::IllegalState {
            what: "proposal",
            found: state_name(proposal.state).into(),
            expected: state_name(ProposalState::Waiting).into(),
        });
    }
    proposal.state = to;
    proposal.decided_by = by;
    let decided_by = by.as_ref().map(OperatorId::as_bytes);
    act.execute(
        "UPDATE proposal SET state = ?2, decided_by = ?3 WHERE id = ?1",
        (id.as_bytes(), to.code(), decided_by),
    )?;
    Ok(proposal)
}

/// A decision on a proposal that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProposalChange {
    /// The proposal.
    pub id: ProposalId,
    /// The new state, which is final.
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
        // A restored registry is fenced until it is accepted, which is an act of two people.
        let is_acceptance = matches!(proposal.act, ProposedAct::AcceptRestored { .. });
        let class = if is_acceptance { Class::Reserved } else { Class::Ordinary };
        self.logged(class, audit.into(), move |act| {
            let Proposal { id, act: proposed, devices, certificates, proposer, proposer_name, .. } = &proposal;
            let Proposal { decided_by, created, expires, effective, state, .. } = &proposal;
            let proposed = serde_json::to_string(proposed)
                .map_err(|_detail| StoreError::Invalid { field: "act", problem: "cannot be written down" })?;
            let sql =
                "INSERT INTO proposal (id, state, act, devices, certificates, proposer, proposer_name, decided_by,
                created, expires, effective, facility) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)";
            act.execute(
                sql,
                (
                    id.as_bytes(),
                    state.code(),
                    proposed,
                    integer(*devices),
                    integer(*certificates),
                    proposer.as_bytes(),
                    proposer_name,
                    decided_by.as_ref().map(OperatorId::as_bytes),
                    millis(*created),
                    millis(*expires),
                    effective.map(millis),
                    facility.as_ref().map(FacilityId::as_bytes),
                ),
            )?;
            Ok(())
        })
        .await
    }

    /// Decides a proposal: exactly one of two concurrent decisions succeeds.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; [`StoreError::IllegalState`] when it does not wait any more.
    pub async fn change_proposal(
        &self,
        change: ProposalChange,
        audit: impl Into<Audit>,
    ) -> Result<Logged<Proposal>, StoreError> {
        self.logged(Class::Reserved, audit.into(), move |act| decide(act, change)).await
    }

    /// A proposal by id, with its facility; `None` also when it lies outside `visibility`.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn proposal(&self, id: ProposalId, visibility: &Visibility) -> Result<Option<Proposal>, StoreError> {
        let sql = concat!(columns!(), " WHERE id = ?2 AND ", in_scope!("facility"));
        self.read(|connection| sql::one(connection, sql, (scope(visibility), id.as_bytes()), proposal_row))
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
        let before = match &page.after {
            None => Value::Blob(vec![0xff; 17]),
            Some(text) => {
                let id = text.parse::<ProposalId>().map_err(|_detail| BAD_CURSOR)?;
                Value::Blob(id.as_bytes().to_vec())
            }
        };
        let states: Vec<_> = match state {
            None => ProposalState::CODES.iter().map(|(code, _)| *code).collect(),
            Some(state) => vec![state.code()],
        };
        let branches = states.into_iter().flat_map(|state| {
            scopes(visibility).into_iter().map(move |facility| {
                Branch::new("proposal")
                    .with("state = ?", state)
                    .with_optional("facility = ?", facility.map(|id| id.as_bytes().to_vec()))
            })
        });
        let listing = Listing::descending("id", branches.collect());
        let rows = usize::try_from(page.rows()).unwrap_or(usize::MAX);
        self.read_at_once(|connection| {
            let mut items = Vec::new();
            for key in listing.keys(connection, before, rows + 1)? {
                items.extend(sql::one(connection, concat!(columns!(), " WHERE id = ?1"), [key], proposal_row)?);
            }
            let next = next_of(&mut items, rows, |last: &Proposal| last.id.to_string());
            Ok(Page { items, next })
        })
    }

    /// Waiting proposals of single-control mode whose delay is over at `now` and that have not lapsed, oldest first, at most 100.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn due_proposals(&self, now: UnixMillis) -> Result<Vec<Proposal>, StoreError> {
        let sql = concat!(columns!(), " WHERE state = 1 AND effective <= ?1 AND expires >= ?1 ORDER BY id LIMIT 100");
        self.read(|connection| sql::all(connection, sql, [millis(now)], proposal_row))
    }

    /// Waiting proposals that nobody approved, or nothing could carry out, before they lapsed at `now`, oldest first, at
    /// most 100.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn lapsed_proposals(&self, now: UnixMillis) -> Result<Vec<Proposal>, StoreError> {
        let sql = concat!(columns!(), " WHERE state = 1 AND expires < ?1 ORDER BY id LIMIT 100");
        self.read(|connection| sql::all(connection, sql, [millis(now)], proposal_row))
    }
}

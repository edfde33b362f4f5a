//! Acts that wait for a second person.

use axum::extract::State;
use kf_api::PageRequest;
use kf_api::proposal::ProposalDecision;

use super::extract::{AppState, Asked, Caller, Json, Named};
use super::{Answer, app, ok};

pub(super) async fn list(
    State(state): State<AppState>,
    Caller(who): Caller,
    Asked(page): Asked<PageRequest>,
) -> Answer {
    ok(&app(&state)?.fleet.proposal_list(&who, page).await?)
}

pub(super) async fn show(State(state): State<AppState>, Caller(who): Caller, id: Named) -> Answer {
    ok(&app(&state)?.fleet.proposal_show(&who, id.parse("id")?).await?)
}

pub(super) async fn decide(
    State(state): State<AppState>,
    Caller(who): Caller,
    id: Named,
    Json(decision): Json<ProposalDecision>,
) -> Answer {
    ok(&app(&state)?.fleet.proposal_decide(&who, id.parse("id")?, decision).await?)
}

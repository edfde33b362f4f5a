//! Enrolment codes, and enrolments that wait for a person.

use axum::extract::State;
use kf_api::PageRequest;
use kf_api::enrolment::{CodeRequest, EnrolmentDecision};
use serde::Deserialize;

use super::extract::{AppState, Asked, Caller, Json, Named};
use super::{Answer, app, created, done, ok};

pub(super) async fn create(
    State(state): State<AppState>,
    Caller(who): Caller,
    Json(request): Json<CodeRequest>,
) -> Answer {
    created(&app(&state)?.fleet.code_create(&who, request).await?)
}

/// Whose codes.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CodeQuery {
    device: String,
}

pub(super) async fn list(State(state): State<AppState>, Caller(who): Caller, Asked(query): Asked<CodeQuery>) -> Answer {
    ok(&app(&state)?.fleet.code_list(&who, &query.device).await?)
}

pub(super) async fn withdraw(State(state): State<AppState>, Caller(who): Caller, id: Named) -> Answer {
    app(&state)?.fleet.code_withdraw(&who, id.parse("id")?).await?;
    done()
}

pub(super) async fn list_enrolments(
    State(state): State<AppState>,
    Caller(who): Caller,
    Asked(page): Asked<PageRequest>,
) -> Answer {
    ok(&app(&state)?.fleet.enrolment_list(&who, page).await?)
}

pub(super) async fn decide_enrolment(
    State(state): State<AppState>,
    Caller(who): Caller,
    id: Named,
    Json(decision): Json<EnrolmentDecision>,
) -> Answer {
    ok(&app(&state)?.fleet.enrolment_decide(&who, id.parse("id")?, decision).await?)
}

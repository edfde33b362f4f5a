//! Operators, their tokens, and who is calling.

use axum::extract::State;
use kf_api::PageRequest;
use kf_api::operator::{NewOperator, TokenRequest};
use serde::Deserialize;

use super::extract::{AppState, Asked, Caller, Json, Named};
use super::{Answer, app, created, done, ok};

pub(super) async fn who_am_i(State(state): State<AppState>, Caller(who): Caller) -> Answer {
    ok(&app(&state)?.fleet.who_am_i(&who))
}

pub(super) async fn list(
    State(state): State<AppState>,
    Caller(who): Caller,
    Asked(page): Asked<PageRequest>,
) -> Answer {
    ok(&app(&state)?.fleet.operator_list(&who, page).await?)
}

pub(super) async fn create(State(state): State<AppState>, Caller(who): Caller, Json(new): Json<NewOperator>) -> Answer {
    created(&app(&state)?.fleet.operator_create(&who, new).await?)
}

/// Whether an operator may sign in.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EnableRequest {
    enabled: bool,
    #[serde(default)]
    why: String,
}

pub(super) async fn enable(
    State(state): State<AppState>,
    Caller(who): Caller,
    Named(operator): Named,
    Json(request): Json<EnableRequest>,
) -> Answer {
    ok(&app(&state)?.fleet.operator_enable(&who, &operator, request.enabled, request.why).await?)
}

pub(super) async fn create_token(
    State(state): State<AppState>,
    Caller(who): Caller,
    Json(request): Json<TokenRequest>,
) -> Answer {
    created(&app(&state)?.fleet.token_create(&who, request).await?)
}

/// Whose tokens.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TokenQuery {
    operator: String,
}

pub(super) async fn list_tokens(
    State(state): State<AppState>,
    Caller(who): Caller,
    Asked(query): Asked<TokenQuery>,
) -> Answer {
    ok(&app(&state)?.fleet.token_list(&who, &query.operator).await?)
}

pub(super) async fn withdraw_token(State(state): State<AppState>, Caller(who): Caller, id: Named) -> Answer {
    app(&state)?.fleet.token_withdraw(&who, id.parse("id")?).await?;
    done()
}

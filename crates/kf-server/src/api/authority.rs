//! Certification authorities.

use axum::extract::State;
use kf_api::PageRequest;
use kf_api::authority::NewAuthority;

use super::extract::{AppState, Asked, Caller, Json, Named};
use super::{Answer, app, created, ok};

pub(super) async fn list(
    State(state): State<AppState>,
    Caller(who): Caller,
    Asked(page): Asked<PageRequest>,
) -> Answer {
    ok(&app(&state)?.fleet.authority_list(&who, page).await?)
}

pub(super) async fn create(
    State(state): State<AppState>,
    Caller(who): Caller,
    Json(new): Json<NewAuthority>,
) -> Answer {
    created(&app(&state)?.fleet.authority_create(&who, new).await?)
}

pub(super) async fn show(State(state): State<AppState>, Caller(who): Caller, Named(authority): Named) -> Answer {
    ok(&app(&state)?.fleet.authority_show(&who, &authority).await?)
}

//! Certification authorities.

use axum::extract::State;
use kf_api::PageRequest;
use kf_api::authority::NewAuthority;
use kf_api::succession::{NewSuccession, SuccessionActRequest};

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

pub(super) async fn succession(State(state): State<AppState>, Caller(who): Caller, Named(authority): Named) -> Answer {
    ok(&app(&state)?.fleet.succession_show(&who, &authority).await?)
}

pub(super) async fn succeed(
    State(state): State<AppState>,
    Caller(who): Caller,
    Named(authority): Named,
    Json(new): Json<NewSuccession>,
) -> Answer {
    created(&app(&state)?.fleet.succession_create(&who, &authority, new).await?)
}

pub(super) async fn succession_act(
    State(state): State<AppState>,
    Caller(who): Caller,
    Named(authority): Named,
    Json(request): Json<SuccessionActRequest>,
) -> Answer {
    ok(&app(&state)?.fleet.succession_act(&who, &authority, request).await?)
}

pub(super) async fn unproved(
    State(state): State<AppState>,
    Caller(who): Caller,
    Named(authority): Named,
    Asked(page): Asked<PageRequest>,
) -> Answer {
    ok(&app(&state)?.fleet.succession_unproved(&who, &authority, page).await?)
}

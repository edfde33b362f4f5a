//! Break-glass credentials.

use axum::extract::State;
use kf_api::PageRequest;
use kf_api::break_glass::{BreakGlassOpening, BreakGlassRequest, NewBreakGlass};

use super::extract::{AppState, Asked, Caller, Json, Named};
use super::{Answer, app, created, ok};

pub(super) async fn list(
    State(state): State<AppState>,
    Caller(who): Caller,
    Asked(page): Asked<PageRequest>,
) -> Answer {
    ok(&app(&state)?.fleet.break_glass_list(&who, page).await?)
}

pub(super) async fn create(
    State(state): State<AppState>,
    Caller(who): Caller,
    Json(new): Json<NewBreakGlass>,
) -> Answer {
    created(&app(&state)?.fleet.break_glass_create(&who, new).await?)
}

pub(super) async fn open(
    State(state): State<AppState>,
    Caller(who): Caller,
    Json(opening): Json<BreakGlassOpening>,
) -> Answer {
    created(&app(&state)?.fleet.break_glass_open(&who, opening).await?)
}

pub(super) async fn show(State(state): State<AppState>, Caller(who): Caller, Named(name): Named) -> Answer {
    ok(&app(&state)?.fleet.break_glass_show(&who, &name).await?)
}

pub(super) async fn sealed(State(state): State<AppState>, Caller(who): Caller, Named(name): Named) -> Answer {
    ok(&app(&state)?.fleet.break_glass_sealed(&who, &name).await?)
}

pub(super) async fn end(
    State(state): State<AppState>,
    Caller(who): Caller,
    Named(name): Named,
    Json(request): Json<BreakGlassRequest>,
) -> Answer {
    ok(&app(&state)?.fleet.break_glass_end(&who, &name, request.why).await?)
}

pub(super) async fn review(
    State(state): State<AppState>,
    Caller(who): Caller,
    Named(name): Named,
    Json(request): Json<BreakGlassRequest>,
) -> Answer {
    ok(&app(&state)?.fleet.break_glass_review(&who, &name, request.why).await?)
}

pub(super) async fn withdraw(
    State(state): State<AppState>,
    Caller(who): Caller,
    Named(name): Named,
    Json(request): Json<BreakGlassRequest>,
) -> Answer {
    ok(&app(&state)?.fleet.break_glass_withdraw(&who, &name, request.why).await?)
}

//! Destruction of keys, and the receipts.

use axum::extract::State;
use kf_api::PageRequest;
use kf_api::destruction::DestructionRequest;

use super::extract::{AppState, Asked, Caller, Json, Named};
use super::{Answer, app, created, ok};

pub(super) async fn list(
    State(state): State<AppState>,
    Caller(who): Caller,
    Asked(page): Asked<PageRequest>,
) -> Answer {
    ok(&app(&state)?.fleet.destruction_list(&who, page).await?)
}

pub(super) async fn create(
    State(state): State<AppState>,
    Caller(who): Caller,
    Json(request): Json<DestructionRequest>,
) -> Answer {
    created(&app(&state)?.fleet.destroy(&who, request).await?)
}

pub(super) async fn show(State(state): State<AppState>, Caller(who): Caller, id: Named) -> Answer {
    ok(&app(&state)?.fleet.destruction_show(&who, id.parse("id")?).await?)
}

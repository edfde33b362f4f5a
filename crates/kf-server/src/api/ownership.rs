//! Devices that leave who has them, and the receipts for customers.

use axum::extract::State;
use kf_api::PageRequest;
use kf_api::ownership::OwnershipRequest;

use super::extract::{AppState, Asked, Caller, Json, Named};
use super::{Answer, app, created, ok};

pub(super) async fn list(
    State(state): State<AppState>,
    Caller(who): Caller,
    Asked(page): Asked<PageRequest>,
) -> Answer {
    ok(&app(&state)?.fleet.ownership_list(&who, page).await?)
}

pub(super) async fn end(
    State(state): State<AppState>,
    Caller(who): Caller,
    Json(request): Json<OwnershipRequest>,
) -> Answer {
    created(&app(&state)?.fleet.ownership_end(&who, request).await?)
}

pub(super) async fn receipt(State(state): State<AppState>, Caller(who): Caller, Named(device): Named) -> Answer {
    ok(&app(&state)?.fleet.ownership_receipt(&who, &device).await?)
}

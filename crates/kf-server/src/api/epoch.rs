//! Key epochs of facilities and devices.

use axum::extract::State;
use kf_api::epoch::EpochRequest;
use kf_api::{Page, PageRequest};

use super::extract::{AppState, Asked, Caller, Json, Named, Numbered};
use super::{Answer, app, created, ok};

pub(super) async fn list(State(state): State<AppState>, Caller(who): Caller, Named(facility): Named) -> Answer {
    ok(&Page { items: app(&state)?.fleet.epoch_list(&who, &facility).await?, next: None })
}

pub(super) async fn advance_facility(
    State(state): State<AppState>,
    Caller(who): Caller,
    Named(facility): Named,
    Json(request): Json<EpochRequest>,
) -> Answer {
    created(&app(&state)?.fleet.epoch_advance_facility(&who, &facility, request.why).await?)
}

pub(super) async fn holders(
    State(state): State<AppState>,
    Caller(who): Caller,
    epoch: Numbered,
    Asked(page): Asked<PageRequest>,
) -> Answer {
    ok(&app(&state)?.fleet.epoch_holders(&who, &epoch.name, epoch.number, page).await?)
}

pub(super) async fn retire(
    State(state): State<AppState>,
    Caller(who): Caller,
    epoch: Numbered,
    Json(request): Json<EpochRequest>,
) -> Answer {
    ok(&app(&state)?.fleet.epoch_retire(&who, &epoch.name, epoch.number, request.why).await?)
}

pub(super) async fn device_keys(State(state): State<AppState>, Caller(who): Caller, Named(device): Named) -> Answer {
    ok(&app(&state)?.fleet.device_keys(&who, &device).await?)
}

pub(super) async fn advance_device(
    State(state): State<AppState>,
    Caller(who): Caller,
    Named(device): Named,
    Json(request): Json<EpochRequest>,
) -> Answer {
    created(&app(&state)?.fleet.epoch_advance_device(&who, &device, request.why).await?)
}

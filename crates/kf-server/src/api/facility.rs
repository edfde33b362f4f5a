//! Facilities.

use axum::extract::State;
use kf_api::PageRequest;
use kf_api::facility::NewFacility;

use super::extract::{AppState, Asked, Caller, Json, Named};
use super::{Answer, app, created, ok};

pub(super) async fn list(
    State(state): State<AppState>,
    Caller(who): Caller,
    Asked(page): Asked<PageRequest>,
) -> Answer {
    ok(&app(&state)?.fleet.facility_list(&who, page).await?)
}

pub(super) async fn create(State(state): State<AppState>, Caller(who): Caller, Json(new): Json<NewFacility>) -> Answer {
    created(&app(&state)?.fleet.facility_create(&who, new).await?)
}

pub(super) async fn show(State(state): State<AppState>, Caller(who): Caller, Named(facility): Named) -> Answer {
    ok(&app(&state)?.fleet.facility_show(&who, &facility).await?)
}

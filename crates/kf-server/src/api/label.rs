//! Labels of devices that stations made.

use axum::extract::State;
use kf_api::label::{ClaimRequest, ReleaseRequest};

use super::extract::{AppState, Caller, Json};
use super::{Answer, app, ok};

pub(super) async fn release(
    State(state): State<AppState>,
    Caller(who): Caller,
    Json(request): Json<ReleaseRequest>,
) -> Answer {
    ok(&app(&state)?.fleet.device_release(&who, request).await?)
}

pub(super) async fn claim(
    State(state): State<AppState>,
    Caller(who): Caller,
    Json(request): Json<ClaimRequest>,
) -> Answer {
    ok(&app(&state)?.fleet.device_claim(&who, request).await?)
}

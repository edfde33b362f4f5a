//! Rotation by policy.

use axum::extract::State;
use kf_api::rotation::RotateRequest;

use super::extract::{AppState, Caller, Json};
use super::{Answer, app, ok};

pub(super) async fn rotate(
    State(state): State<AppState>,
    Caller(who): Caller,
    Json(request): Json<RotateRequest>,
) -> Answer {
    ok(&app(&state)?.fleet.rotate(&who, request).await?)
}

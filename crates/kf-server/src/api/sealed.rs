//! Sealed payloads.

use axum::extract::State;
use kf_api::sealed::{OpenRequest, SealRequest};

use super::extract::{AppState, Caller, Json};
use super::{Answer, app, ok};

pub(super) async fn open(
    State(state): State<AppState>,
    Caller(who): Caller,
    Json(request): Json<OpenRequest>,
) -> Answer {
    ok(&app(&state)?.fleet.open_sealed(&who, request).await?)
}

pub(super) async fn seal(
    State(state): State<AppState>,
    Caller(who): Caller,
    Json(request): Json<SealRequest>,
) -> Answer {
    ok(&app(&state)?.fleet.seal_payload(&who, request).await?)
}

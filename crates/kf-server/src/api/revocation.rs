//! Revocation.

use axum::extract::State;
use kf_api::revocation::RevokeRequest;

use super::extract::{AppState, Caller, Json};
use super::{Answer, app, ok};

pub(super) async fn revoke(
    State(state): State<AppState>,
    Caller(who): Caller,
    Json(request): Json<RevokeRequest>,
) -> Answer {
    ok(&app(&state)?.fleet.revoke(&who, request).await?)
}

//! Escrows: what ceremonies made, uses of shares, releases.

use axum::extract::State;
use kf_api::Page;
use kf_api::escrow::{Escrow, EscrowRequest, ShareUseRequest};

use super::extract::{AppState, Caller, Json, Named};
use super::{Answer, app, created, done, ok};

pub(super) async fn list(State(state): State<AppState>, Caller(who): Caller) -> Answer {
    ok(&Page { items: app(&state)?.fleet.escrow_list(&who).await?, next: None })
}

pub(super) async fn create(State(state): State<AppState>, Caller(who): Caller, Json(escrow): Json<Escrow>) -> Answer {
    created(&app(&state)?.fleet.escrow_create(&who, escrow).await?)
}

pub(super) async fn release(
    State(state): State<AppState>,
    Caller(who): Caller,
    Named(ceremony): Named,
    Json(request): Json<EscrowRequest>,
) -> Answer {
    created(&app(&state)?.fleet.escrow_release(&who, &ceremony, request.why).await?)
}

pub(super) async fn use_share(
    State(state): State<AppState>,
    Caller(who): Caller,
    Named(ceremony): Named,
    Json(request): Json<ShareUseRequest>,
) -> Answer {
    app(&state)?.fleet.escrow_use(&who, &ceremony, request).await?;
    done()
}

pub(super) async fn rehearsed(
    State(state): State<AppState>,
    Caller(who): Caller,
    Named(ceremony): Named,
    Json(request): Json<EscrowRequest>,
) -> Answer {
    ok(&app(&state)?.fleet.escrow_rehearsed(&who, &ceremony, request.why).await?)
}

//! The state of the server, the issuance switch, metrics.

use axum::extract::State;
use http::StatusCode;
use kf_access::{Action, Target, authorize};
use kf_api::status::IssuanceSwitch;
use kf_fleet::FleetError;

use super::extract::{AppState, Caller, Json};
use super::{Answer, app, of, ok};
use crate::metering;

pub(super) async fn show(State(state): State<AppState>, Caller(who): Caller) -> Answer {
    ok(&app(&state)?.fleet.status(&who).await?)
}

pub(super) async fn switch_issuance(
    State(state): State<AppState>,
    Caller(who): Caller,
    Json(switch): Json<IssuanceSwitch>,
) -> Answer {
    ok(&app(&state)?.fleet.issuance_switch(&who, switch).await?)
}

/// Metrics belong to whoever may see the state of the server.
pub(super) async fn metrics(State(state): State<AppState>, Caller(who): Caller) -> Answer {
    authorize(&who, Action::StatusRead, Target::Fleet).map_err(FleetError::from)?;
    let text = metering::render(&*app(&state)?).await;
    Ok(of(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", text.into_bytes()))
}

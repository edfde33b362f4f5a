//! Drills that were held.

use axum::extract::State;
use kf_api::PageRequest;
use kf_api::drill::DrillReport;

use super::extract::{AppState, Asked, Caller, Json};
use super::{Answer, app, created, ok};

pub(super) async fn list(
    State(state): State<AppState>,
    Caller(who): Caller,
    Asked(page): Asked<PageRequest>,
) -> Answer {
    ok(&app(&state)?.fleet.drill_list(&who, page).await?)
}

pub(super) async fn record(
    State(state): State<AppState>,
    Caller(who): Caller,
    Json(report): Json<DrillReport>,
) -> Answer {
    created(&app(&state)?.fleet.drill_record(&who, report).await?)
}

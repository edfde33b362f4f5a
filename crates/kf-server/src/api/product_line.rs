//! Product lines.

use axum::extract::State;
use kf_api::PageRequest;
use kf_api::product_line::{EnrolmentPolicy, NewProductLine};

use super::extract::{AppState, Asked, Caller, Json, Named};
use super::{Answer, app, created, ok};

pub(super) async fn list(
    State(state): State<AppState>,
    Caller(who): Caller,
    Asked(page): Asked<PageRequest>,
) -> Answer {
    ok(&app(&state)?.fleet.product_line_list(&who, page).await?)
}

pub(super) async fn create(
    State(state): State<AppState>,
    Caller(who): Caller,
    Json(new): Json<NewProductLine>,
) -> Answer {
    created(&app(&state)?.fleet.product_line_create(&who, new).await?)
}

pub(super) async fn show(State(state): State<AppState>, Caller(who): Caller, Named(line): Named) -> Answer {
    ok(&app(&state)?.fleet.product_line_show(&who, &line).await?)
}

pub(super) async fn set_policy(
    State(state): State<AppState>,
    Caller(who): Caller,
    Named(line): Named,
    Json(policy): Json<EnrolmentPolicy>,
) -> Answer {
    ok(&app(&state)?.fleet.product_line_set_policy(&who, &line, policy).await?)
}

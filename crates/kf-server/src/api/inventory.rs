//! The key inventory.

use axum::extract::State;
use kf_api::inventory::InventoryFilter;

use super::extract::{AppState, Asked, Caller};
use super::{Answer, app, ok};

pub(super) async fn list(
    State(state): State<AppState>,
    Caller(who): Caller,
    Asked(filter): Asked<InventoryFilter>,
) -> Answer {
    ok(&app(&state)?.fleet.inventory(&who, filter).await?)
}

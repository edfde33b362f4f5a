//! Why somebody may do something, or not.

use axum::extract::State;
use kf_api::access::AccessQuestion;

use super::extract::{AppState, Asked, Caller};
use super::{Answer, app, ok};

pub(super) async fn explain(
    State(state): State<AppState>,
    Caller(who): Caller,
    Asked(question): Asked<AccessQuestion>,
) -> Answer {
    ok(&app(&state)?.fleet.access_explain(&who, question).await?)
}

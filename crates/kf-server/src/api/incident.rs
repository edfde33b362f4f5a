//! Incidents: opening, planning, agreeing, running, reporting, closing.

use axum::extract::State;
use kf_api::incident::{ApprovalRequest, IncidentClosing, IncidentFilter, NewIncident, PlanRequest, RunRequest};

use super::extract::{AppState, Asked, Caller, Json, Named};
use super::{Answer, app, created, ok};

pub(super) async fn list(
    State(state): State<AppState>,
    Caller(who): Caller,
    Asked(filter): Asked<IncidentFilter>,
) -> Answer {
    ok(&app(&state)?.fleet.incident_list(&who, filter).await?)
}

pub(super) async fn open(State(state): State<AppState>, Caller(who): Caller, Json(new): Json<NewIncident>) -> Answer {
    let opened = app(&state)?.fleet.incident_open(&who, new).await?;
    if opened.dry_run || opened.already_open { ok(&opened) } else { created(&opened) }
}

pub(super) async fn show(State(state): State<AppState>, Caller(who): Caller, id: Named) -> Answer {
    ok(&app(&state)?.fleet.incident_show(&who, id.parse("id")?).await?)
}

pub(super) async fn plan(
    State(state): State<AppState>,
    Caller(who): Caller,
    id: Named,
    Json(request): Json<PlanRequest>,
) -> Answer {
    ok(&app(&state)?.fleet.incident_plan(&who, id.parse("id")?, request).await?)
}

pub(super) async fn approve(
    State(state): State<AppState>,
    Caller(who): Caller,
    id: Named,
    Json(request): Json<ApprovalRequest>,
) -> Answer {
    ok(&app(&state)?.fleet.incident_approve(&who, id.parse("id")?, request).await?)
}

pub(super) async fn run(
    State(state): State<AppState>,
    Caller(who): Caller,
    id: Named,
    Json(request): Json<RunRequest>,
) -> Answer {
    ok(&app(&state)?.fleet.incident_run(&who, id.parse("id")?, request).await?)
}

pub(super) async fn report(State(state): State<AppState>, Caller(who): Caller, id: Named) -> Answer {
    ok(&app(&state)?.fleet.incident_report(&who, id.parse("id")?).await?)
}

pub(super) async fn close(
    State(state): State<AppState>,
    Caller(who): Caller,
    id: Named,
    Json(closing): Json<IncidentClosing>,
) -> Answer {
    ok(&app(&state)?.fleet.incident_close(&who, id.parse("id")?, closing).await?)
}

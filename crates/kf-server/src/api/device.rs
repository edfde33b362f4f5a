//! Devices.

use axum::extract::{Request, State};
use kf_api::device::{DeviceActRequest, DeviceFilter, ImportFormat, NewDevice};
use serde::Deserialize;

use super::extract::{AppState, Asked, Caller, Json, Named};
use super::{Answer, app, created, ok};
use crate::body;

pub(super) async fn list(
    State(state): State<AppState>,
    Caller(who): Caller,
    Asked(filter): Asked<DeviceFilter>,
) -> Answer {
    ok(&app(&state)?.fleet.device_list(&who, filter).await?)
}

pub(super) async fn register(State(state): State<AppState>, Caller(who): Caller, Json(new): Json<NewDevice>) -> Answer {
    created(&app(&state)?.fleet.device_register(&who, new).await?)
}

/// How an import is to be read.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ImportQuery {
    format: ImportFormat,
    #[serde(default)]
    dry_run: bool,
}

pub(super) async fn import(
    State(state): State<AppState>,
    Caller(who): Caller,
    Asked(query): Asked<ImportQuery>,
    request: Request,
) -> Answer {
    let app = app(&state)?;
    let _place = app.import_place()?;
    let (parts, body) = request.into_parts();
    let text = body::read(&parts.headers, body, app.limits.import_octets, app.limits.import_body).await?;
    ok(&app.fleet.device_import(&who, query.format, &text, query.dry_run).await?)
}

pub(super) async fn show(State(state): State<AppState>, Caller(who): Caller, Named(device): Named) -> Answer {
    ok(&app(&state)?.fleet.device_show(&who, &device).await?)
}

pub(super) async fn act(
    State(state): State<AppState>,
    Caller(who): Caller,
    Named(device): Named,
    Json(request): Json<DeviceActRequest>,
) -> Answer {
    ok(&app(&state)?.fleet.device_act(&who, &device, request).await?)
}

/// Where a device moves to.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct MoveRequest {
    facility: String,
    #[serde(default)]
    why: String,
}

pub(super) async fn change_facility(
    State(state): State<AppState>,
    Caller(who): Caller,
    Named(device): Named,
    Json(request): Json<MoveRequest>,
) -> Answer {
    ok(&app(&state)?.fleet.device_move(&who, &device, &request.facility, request.why).await?)
}

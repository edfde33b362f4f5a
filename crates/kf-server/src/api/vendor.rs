//! Manufacturers of devices made elsewhere.

use axum::extract::{Request, State};
use kf_api::PageRequest;
use kf_api::vendor::{NewVendor, VendorImport};
use serde::Deserialize;

use super::extract::{AppState, Asked, Caller, Json, Named};
use super::{Answer, app, created, ok};
use crate::body;
use crate::failure::Failure;

pub(super) async fn list(
    State(state): State<AppState>,
    Caller(who): Caller,
    Asked(page): Asked<PageRequest>,
) -> Answer {
    ok(&app(&state)?.fleet.vendor_list(&who, page).await?)
}

pub(super) async fn create(State(state): State<AppState>, Caller(who): Caller, Json(new): Json<NewVendor>) -> Answer {
    created(&app(&state)?.fleet.vendor_create(&who, new).await?)
}

pub(super) async fn show(State(state): State<AppState>, Caller(who): Caller, Named(vendor): Named) -> Answer {
    ok(&app(&state)?.fleet.vendor_show(&who, &vendor).await?)
}

/// Why the trust ends.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WithdrawRequest {
    #[serde(default)]
    why: String,
}

pub(super) async fn withdraw(
    State(state): State<AppState>,
    Caller(who): Caller,
    Named(vendor): Named,
    Json(request): Json<WithdrawRequest>,
) -> Answer {
    ok(&app(&state)?.fleet.vendor_withdraw(&who, &vendor, &request.why).await?)
}

pub(super) async fn devices(
    State(state): State<AppState>,
    Caller(who): Caller,
    Named(vendor): Named,
    Asked(page): Asked<PageRequest>,
) -> Answer {
    ok(&app(&state)?.fleet.vendor_devices(&who, &vendor, page).await?)
}

pub(super) async fn import(
    State(state): State<AppState>,
    Caller(who): Caller,
    Named(vendor): Named,
    request: Request,
) -> Answer {
    let app = app(&state)?;
    let _place = app.import_place()?;
    let (parts, body) = request.into_parts();
    let text = body::read(&parts.headers, body, app.limits.import_octets, app.limits.import_body).await?;
    let import: VendorImport = serde_json::from_slice(&text).map_err(|error| {
        Failure::invalid("body", &error.to_string(), "send the JSON object that this address expects")
    })?;
    ok(&app.fleet.vendor_import(&who, &vendor, import).await?)
}

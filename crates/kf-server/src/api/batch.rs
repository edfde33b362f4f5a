//! Batches of factory stations.

use axum::extract::{Request, State};
use http::StatusCode;
use kf_api::batch::{BatchFilter, CancelBatch, NewBatch};
use serde::Deserialize;

use super::extract::{AppState, Asked, Caller, Json, Named};
use super::{Answer, app, created, of, ok};
use crate::body;
use crate::failure::Failure;

/// A CBOR sequence (RFC 8742).
const SEQUENCE: &str = "application/cbor-seq";
/// RFC 9052 section 2.
const COSE: &str = "application/cose";

pub(super) async fn list(
    State(state): State<AppState>,
    Caller(who): Caller,
    Asked(filter): Asked<BatchFilter>,
) -> Answer {
    ok(&app(&state)?.fleet.batch_list(&who, filter).await?)
}

pub(super) async fn create(State(state): State<AppState>, Caller(who): Caller, Json(new): Json<NewBatch>) -> Answer {
    created(&app(&state)?.fleet.batch_create(&who, new).await?)
}

pub(super) async fn show(State(state): State<AppState>, Caller(who): Caller, Named(batch): Named) -> Answer {
    ok(&app(&state)?.fleet.batch_show(&who, &batch).await?)
}

/// What is carried to the station.
pub(super) async fn quota(State(state): State<AppState>, Caller(who): Caller, Named(batch): Named) -> Answer {
    Ok(of(StatusCode::OK, COSE, app(&state)?.fleet.batch_quota(&who, &batch).await?))
}

pub(super) async fn reconcile(State(state): State<AppState>, Caller(who): Caller, Named(batch): Named) -> Answer {
    ok(&app(&state)?.fleet.batch_reconcile(&who, &batch).await?)
}

pub(super) async fn cancel(
    State(state): State<AppState>,
    Caller(who): Caller,
    Named(batch): Named,
    Json(request): Json<CancelBatch>,
) -> Answer {
    ok(&app(&state)?.fleet.batch_cancel(&who, &batch, request).await?)
}

/// How an import is to be treated.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ImportQuery {
    #[serde(default)]
    dry_run: bool,
}

pub(super) async fn import(
    State(state): State<AppState>,
    Caller(who): Caller,
    Named(batch): Named,
    Asked(query): Asked<ImportQuery>,
    request: Request,
) -> Answer {
    let app = app(&state)?;
    let _place = app.import_place()?;
    let (parts, body) = request.into_parts();
    if !body::has_media_type(&parts.headers, SEQUENCE) {
        return Err(Failure::unsupported_media_type(SEQUENCE));
    }
    let sequence = body::read(&parts.headers, body, app.limits.batch_octets, app.limits.import_body).await?;
    ok(&app.fleet.batch_import(&who, &batch, sequence.to_vec(), query.dry_run).await?)
}

/// What a station pins when it is set up.
pub(super) async fn pins(State(state): State<AppState>, Caller(who): Caller) -> Answer {
    ok(&app(&state)?.fleet.station_pins(&who).await?)
}

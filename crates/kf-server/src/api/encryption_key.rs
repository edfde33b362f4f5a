//! Keys with which the server encrypts for others.

use axum::extract::{Request, State};
use kf_api::PageRequest;
use kf_api::encryption_key::{
    CipherRequest, DataKeyRequest, EncryptRequest, EncryptionKeyFilter, NewEncryptionKey, RaiseMinimum, RotateKey,
};
use serde::de::DeserializeOwned;

use super::extract::{AppState, Asked, Caller, Json, Named};
use super::{Answer, app, created, ok};
use crate::app::App;
use crate::body;
use crate::failure::Failure;

pub(super) async fn list(
    State(state): State<AppState>,
    Caller(who): Caller,
    Asked(filter): Asked<EncryptionKeyFilter>,
) -> Answer {
    let EncryptionKeyFilter { facility, after, limit } = filter;
    let page = PageRequest { after, limit };
    ok(&app(&state)?.fleet.encryption_key_list(&who, facility.as_deref(), page).await?)
}

pub(super) async fn create(
    State(state): State<AppState>,
    Caller(who): Caller,
    Json(new): Json<NewEncryptionKey>,
) -> Answer {
    created(&app(&state)?.fleet.encryption_key_create(&who, new).await?)
}

pub(super) async fn show(State(state): State<AppState>, Caller(who): Caller, Named(key): Named) -> Answer {
    ok(&app(&state)?.fleet.encryption_key_show(&who, &key).await?)
}

pub(super) async fn rotate(
    State(state): State<AppState>,
    Caller(who): Caller,
    Named(key): Named,
    Json(request): Json<RotateKey>,
) -> Answer {
    created(&app(&state)?.fleet.encryption_key_rotate(&who, &key, request).await?)
}

pub(super) async fn raise_minimum(
    State(state): State<AppState>,
    Caller(who): Caller,
    Named(key): Named,
    Json(request): Json<RaiseMinimum>,
) -> Answer {
    ok(&app(&state)?.fleet.encryption_key_raise_minimum(&who, &key, request).await?)
}

/// A batch of data, larger than other bodies.
pub(super) async fn batch<T: DeserializeOwned>(app: &App, request: Request) -> Result<T, Failure> {
    let (parts, body) = request.into_parts();
    if !body::has_media_type(&parts.headers, "application/json") {
        return Err(Failure::unsupported_media_type("application/json"));
    }
    let text = body::read(&parts.headers, body, app.limits.data_octets, app.limits.body).await?;
    serde_json::from_slice(&text)
        .map_err(|error| Failure::invalid("body", &error.to_string(), "send the JSON object that this address expects"))
}

pub(super) async fn encrypt(
    State(state): State<AppState>,
    Caller(who): Caller,
    Named(key): Named,
    request: Request,
) -> Answer {
    let app = app(&state)?;
    let batch: EncryptRequest = batch(&app, request).await?;
    ok(&app.fleet.data_encrypt(&who, &key, batch).await?)
}

pub(super) async fn decrypt(
    State(state): State<AppState>,
    Caller(who): Caller,
    Named(key): Named,
    request: Request,
) -> Answer {
    let app = app(&state)?;
    let batch: CipherRequest = batch(&app, request).await?;
    ok(&app.fleet.data_decrypt(&who, &key, batch).await?)
}

pub(super) async fn rewrap(
    State(state): State<AppState>,
    Caller(who): Caller,
    Named(key): Named,
    request: Request,
) -> Answer {
    let app = app(&state)?;
    let batch: CipherRequest = batch(&app, request).await?;
    ok(&app.fleet.data_rewrap(&who, &key, batch).await?)
}

pub(super) async fn data_keys(
    State(state): State<AppState>,
    Caller(who): Caller,
    Named(key): Named,
    Json(request): Json<DataKeyRequest>,
) -> Answer {
    created(&app(&state)?.fleet.data_keys(&who, &key, request).await?)
}

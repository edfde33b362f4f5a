//! Objects that programs store.

use axum::extract::{Request, State};
use kf_api::PageRequest;
use kf_api::object::PutObject;

use super::encryption_key::batch;
use super::extract::{AppState, Asked, Caller, Named, Pair};
use super::{Answer, app, done, ok};

pub(super) async fn list(
    State(state): State<AppState>,
    Caller(who): Caller,
    Named(key): Named,
    Asked(page): Asked<PageRequest>,
) -> Answer {
    ok(&app(&state)?.fleet.object_list(&who, &key, page).await?)
}

pub(super) async fn show(State(state): State<AppState>, Caller(who): Caller, Pair(key, name): Pair) -> Answer {
    ok(&app(&state)?.fleet.object_show(&who, &key, &name).await?)
}

pub(super) async fn put(
    State(state): State<AppState>,
    Caller(who): Caller,
    Pair(key, name): Pair,
    request: Request,
) -> Answer {
    let app = app(&state)?;
    let object: PutObject = batch(&app, request).await?;
    ok(&app.fleet.object_put(&who, &key, &name, object).await?)
}

pub(super) async fn content(State(state): State<AppState>, Caller(who): Caller, Pair(key, name): Pair) -> Answer {
    ok(&app(&state)?.fleet.object_get(&who, &key, &name).await?)
}

pub(super) async fn delete(State(state): State<AppState>, Caller(who): Caller, Pair(key, name): Pair) -> Answer {
    app(&state)?.fleet.object_delete(&who, &key, &name).await?;
    done()
}

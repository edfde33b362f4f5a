//! Backups, their keys, and the acceptance of a registry that was restored.

use axum::extract::State;
use kf_api::backup::{BackupRequest, NewBackup, NewBackupKey};
use kf_api::{Page, PageRequest};

use super::extract::{AppState, Asked, Caller, Json, Named};
use super::{Answer, app, created, ok};

pub(super) async fn list_keys(State(state): State<AppState>, Caller(who): Caller) -> Answer {
    ok(&Page { items: app(&state)?.fleet.backup_key_list(&who).await?, next: None })
}

pub(super) async fn create_key(
    State(state): State<AppState>,
    Caller(who): Caller,
    Json(new): Json<NewBackupKey>,
) -> Answer {
    created(&app(&state)?.fleet.backup_key_create(&who, new).await?)
}

pub(super) async fn list(
    State(state): State<AppState>,
    Caller(who): Caller,
    Asked(page): Asked<PageRequest>,
) -> Answer {
    ok(&app(&state)?.fleet.backup_list(&who, page).await?)
}

pub(super) async fn create(State(state): State<AppState>, Caller(who): Caller, Json(new): Json<NewBackup>) -> Answer {
    created(&app(&state)?.fleet.backup_create(&who, new).await?)
}

pub(super) async fn show(State(state): State<AppState>, Caller(who): Caller, id: Named) -> Answer {
    ok(&app(&state)?.fleet.backup_show(&who, id.parse("id")?).await?)
}

pub(super) async fn retire(
    State(state): State<AppState>,
    Caller(who): Caller,
    id: Named,
    Json(request): Json<BackupRequest>,
) -> Answer {
    created(&app(&state)?.fleet.backup_retire(&who, id.parse("id")?, request.why).await?)
}

pub(super) async fn restored(State(state): State<AppState>, Caller(who): Caller) -> Answer {
    ok(&app(&state)?.fleet.restored(&who).await?)
}

pub(super) async fn accept(
    State(state): State<AppState>,
    Caller(who): Caller,
    Json(request): Json<BackupRequest>,
) -> Answer {
    created(&app(&state)?.fleet.restored_accept(&who, request.why).await?)
}

//! The log.

use axum::extract::State;
use http::StatusCode;
use kf_api::audit::AuditFilter;

use super::extract::{AppState, Asked, Caller, Named};
use super::{Answer, app, of, ok};

pub(super) async fn list(
    State(state): State<AppState>,
    Caller(who): Caller,
    Asked(filter): Asked<AuditFilter>,
) -> Answer {
    ok(&app(&state)?.fleet.audit_list(&who, filter).await?)
}

/// A published file of the log. The fleet checks the path against the grammar of tlog-tiles before it touches a file.
pub(super) async fn file(State(state): State<AppState>, Caller(who): Caller, Named(path): Named) -> Answer {
    let octets = app(&state)?.fleet.audit_file(&who, &path).await?;
    Ok(of(StatusCode::OK, "application/octet-stream", octets))
}

/// Public: without it nobody outside could verify anything.
pub(super) async fn verifier_key(State(state): State<AppState>) -> Answer {
    let key = app(&state)?.fleet.audit_verifier_key();
    Ok(of(StatusCode::OK, "text/plain; charset=utf-8", format!("{key}\n").into_bytes()))
}

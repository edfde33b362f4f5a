//! Certificates, and keys that are never certified.

use axum::extract::State;
use kf_api::certificate::{CertificateFilter, IssueRequest};
use kf_key::SerialNumber;
use serde::{Deserialize, Serialize};

use super::extract::{AppState, Asked, Caller, Json, Named};
use super::{Answer, app, created, ok};
use crate::failure::Failure;

pub(super) async fn list(
    State(state): State<AppState>,
    Caller(who): Caller,
    Asked(filter): Asked<CertificateFilter>,
) -> Answer {
    ok(&app(&state)?.fleet.certificate_list(&who, filter).await?)
}

pub(super) async fn issue(
    State(state): State<AppState>,
    Caller(who): Caller,
    Json(request): Json<IssueRequest>,
) -> Answer {
    let dry_run = request.dry_run;
    let certificate = app(&state)?.fleet.certificate_issue(&who, request).await?;
    if dry_run { ok(&certificate) } else { created(&certificate) }
}

pub(super) async fn show(State(state): State<AppState>, Caller(who): Caller, serial: Named) -> Answer {
    let serial: SerialNumber = serial.parse("serial")?;
    ok(&app(&state)?.fleet.certificate_show(&who, serial).await?)
}

/// Keys to be refused from now on.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct BlockRequest {
    spki_sha256: Vec<String>,
    #[serde(default)]
    why: String,
}

/// How many of them were new.
#[derive(Serialize)]
struct Blocked {
    added: u64,
}

pub(super) async fn block_keys(
    State(state): State<AppState>,
    Caller(who): Caller,
    Json(request): Json<BlockRequest>,
) -> Answer {
    let keys: Vec<[u8; 32]> = request
        .spki_sha256
        .iter()
        .map(|text| {
            let octets = hex::decode(text).ok().and_then(|octets| octets.try_into().ok());
            octets.ok_or_else(|| {
                Failure::invalid(
                    "spki_sha256",
                    &format!("`{text}` is not a SHA-256"),
                    "send 64 hexadecimal digits per key: the SHA-256 of its SubjectPublicKeyInfo",
                )
            })
        })
        .collect::<Result<_, _>>()?;
    ok(&Blocked { added: app(&state)?.fleet.key_block(&who, keys, request.why).await? })
}

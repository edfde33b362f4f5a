//! Proof that a device's key lives in its TPM. Asked by devices, with what they enrol with.

use axum::extract::{FromRequestParts, State};
use http::request::Parts;
use kf_api::endorsement::{EndorsementAnswer, EndorsementRequest};
use kf_fleet::EndorsementClaim;

use super::extract::{AppState, Json, Named};
use super::{Answer, app, created};
use crate::authorization;
use crate::failure::Failure;
use crate::peer::Peer;

/// A device: its session, and who it claims to be. Established before a body is read.
pub(super) struct Device {
    peer: Peer,
    claim: EndorsementClaim,
}

impl FromRequestParts<AppState> for Device {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, Failure> {
        let peer = parts.extensions.get::<Peer>().cloned().ok_or_else(Failure::internal)?;
        let credential = authorization::enrolment(&parts.headers, peer.certificate.is_some())?;
        let claim = app(state)?.fleet.endorsement_claim(peer.as_tls_client(), credential).await?;
        Ok(Self { peer, claim })
    }
}

pub(super) async fn challenge(
    State(state): State<AppState>,
    Device { peer, claim }: Device,
    Json(request): Json<EndorsementRequest>,
) -> Answer {
    created(&app(&state)?.fleet.endorsement_challenge(peer.as_tls_client(), claim, &request).await?)
}

pub(super) async fn answer(
    State(state): State<AppState>,
    Device { peer, claim }: Device,
    id: Named,
    Json(answer): Json<EndorsementAnswer>,
) -> Answer {
    created(&app(&state)?.fleet.endorsement_answer(peer.as_tls_client(), claim, &id.0, &answer).await?)
}

//! Key exchanges. No credential is asked for: a message authenticates itself, or is refused.

use axum::extract::{Request, State};
use bytes::Bytes;
use http::StatusCode;
use kf_api::PageRequest;

use super::extract::{AppState, Asked, Caller, Named};
use super::{Answer, app, of, ok};
use crate::app::App;
use crate::body;
use crate::failure::Failure;

/// The media type of a message.
pub(super) const CBOR: &str = "application/cbor";

/// One message in, one message out.
pub(super) async fn exchange(State(state): State<AppState>, request: Request) -> Answer {
    let app = app(&state)?;
    let message = message(&app, request).await?;
    Ok(of(StatusCode::OK, CBOR, app.fleet.device_exchange(&message).await?))
}

/// As [`exchange`], for a mixed session.
pub(super) async fn session(State(state): State<AppState>, request: Request) -> Answer {
    let app = app(&state)?;
    let message = message(&app, request).await?;
    Ok(of(StatusCode::OK, CBOR, app.fleet.device_session(&message).await?))
}

async fn message(app: &App, request: Request) -> Result<Bytes, Failure> {
    let (parts, body) = request.into_parts();
    if !body::has_media_type(&parts.headers, CBOR) {
        return Err(Failure::unsupported_media_type(CBOR));
    }
    body::read(&parts.headers, body, app.limits.message_octets, app.limits.body).await
}

/// The public keys that devices pin. Public: they are no secret, and firmware is built with them.
pub(super) async fn pins(State(state): State<AppState>) -> Answer {
    ok(&app(&state)?.fleet.device_pins()?)
}

/// The media type of one message after the other (RFC 8742).
const CBOR_SEQUENCE: &str = "application/cbor-seq";

/// How the keys that devices pin were succeeded. Public, as those are: each link proves itself.
pub(super) async fn successions(State(state): State<AppState>) -> Answer {
    Ok(of(StatusCode::OK, CBOR_SEQUENCE, app(&state)?.fleet.device_successions()))
}

/// Devices that have not proved that they hold a newer key than this one.
pub(super) async fn needed_by(
    State(state): State<AppState>,
    Caller(who): Caller,
    Named(key): Named,
    Asked(page): Asked<PageRequest>,
) -> Answer {
    ok(&app(&state)?.fleet.pinned_key_needed_by(&who, &key, page).await?)
}

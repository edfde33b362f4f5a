//! Orders to devices: what operators do with them, how a device fetches the next one, and its answer.

use axum::extract::{Extension, Request, State};
use axum::response::IntoResponse as _;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use kf_api::order::{
    ACTS_HEADER, ALGORITHM_HEADER, ANCHOR_HEADER, ANCHORS_HEADER, ORDER_KEY_HEADER, OrderAct, OrderCancellation,
    OrderFilter, OrderRequest, RENEWAL_HEADER, STORAGE_HEADER,
};
use kf_fleet::{Knows, News};

use super::exchange::CBOR;
use super::extract::{AppState, Asked, Caller, Json, Named};
use super::{Answer, app, created, done, of, ok};
use crate::app::App;
use crate::body;
use crate::failure::Failure;
use crate::peer::Peer;

pub(super) async fn list(
    State(state): State<AppState>,
    Caller(who): Caller,
    Asked(filter): Asked<OrderFilter>,
) -> Answer {
    ok(&app(&state)?.fleet.order_list(&who, filter).await?)
}

pub(super) async fn create(
    State(state): State<AppState>,
    Caller(who): Caller,
    Json(request): Json<OrderRequest>,
) -> Answer {
    created(&app(&state)?.fleet.order_create(&who, request).await?)
}

pub(super) async fn show(State(state): State<AppState>, Caller(who): Caller, id: Named) -> Answer {
    ok(&app(&state)?.fleet.order_show(&who, id.parse("id")?).await?)
}

pub(super) async fn cancel(
    State(state): State<AppState>,
    Caller(who): Caller,
    id: Named,
    Json(cancellation): Json<OrderCancellation>,
) -> Answer {
    ok(&app(&state)?.fleet.order_cancel(&who, id.parse("id")?, cancellation.why).await?)
}

/// The oldest order that waits for the device of the TLS session, or 204; beside either, the root that it is to take up or to let go
/// of, and what asks for a new storage key or a new certificate. A device that knows nothing of these headers is as well served as before they
/// were there.
pub(super) async fn due(State(state): State<AppState>, Extension(peer): Extension<Peer>, headers: HeaderMap) -> Answer {
    let app = app(&state)?;
    let acts = headers.get_all(ACTS_HEADER).iter().filter_map(|acts| acts.to_str().ok());
    let knows_reset = acts.flat_map(str::split_ascii_whitespace).any(|act| act == OrderAct::FactoryReset.name());
    let knows = Knows {
        reset: knows_reset,
        renewal: headers.contains_key(RENEWAL_HEADER),
        storage: headers.contains_key(STORAGE_HEADER),
        order_key: headers.get(ORDER_KEY_HEADER).and_then(|value| value.to_str().ok()),
        roots: headers.get(ANCHORS_HEADER).and_then(|value| value.to_str().ok()),
    };
    let News { order, algorithm, anchor, gone_anchor, storage, renewal, order_key } =
        app.fleet.device_news(peer.as_tls_client(), knows).await?;
    let mut answer = match order {
        Some(message) => of(StatusCode::OK, CBOR, message),
        None => StatusCode::NO_CONTENT.into_response(),
    };
    let algorithm = algorithm.map(|algorithm| algorithm.name().to_owned());
    let beside = [
        (ALGORITHM_HEADER, algorithm),
        (ANCHOR_HEADER, anchor),
        (ANCHORS_HEADER, gone_anchor),
        (ORDER_KEY_HEADER, order_key),
        (STORAGE_HEADER, storage),
        (RENEWAL_HEADER, renewal),
    ];
    for (name, value) in beside {
        if let Some(value) = value.and_then(|value| HeaderValue::from_str(&value).ok()) {
            answer.headers_mut().insert(HeaderName::from_static(name), value);
        }
    }
    Ok(answer)
}

/// A device's statement that its data at rest lie under a new storage key, which its identity key signed.
pub(super) async fn storage(State(state): State<AppState>, request: Request) -> Answer {
    let app = app(&state)?;
    let message = message_of(&app, request).await?;
    app.fleet.device_storage_moved(&message).await?;
    done()
}

async fn message_of(app: &App, request: Request) -> Result<Vec<u8>, Failure> {
    let (parts, body) = request.into_parts();
    if !body::has_media_type(&parts.headers, CBOR) {
        return Err(Failure::unsupported_media_type(CBOR));
    }
    Ok(body::read(&parts.headers, body, app.limits.message_octets, app.limits.body).await?.to_vec())
}

/// A device's answer to an order, which its identity key signed.
pub(super) async fn outcome(State(state): State<AppState>, request: Request) -> Answer {
    let app = app(&state)?;
    let message = message_of(&app, request).await?;
    app.fleet.device_order_outcome(&message).await?;
    done()
}

//! The API under `/v1`, and `/metrics`: one table of routes, from which both the router and the tests that enumerate it
//! are made.

mod access;
mod audit;
mod authority;
mod backup;
mod batch;
mod break_glass;
mod campaign;
mod certificate;
mod code;
mod destruction;
mod device;
mod drill;
mod encryption_key;
mod endorsement;
mod epoch;
mod escrow;
mod event;
mod exchange;
mod extract;
mod facility;
mod incident;
mod inventory;
mod label;
mod object;
mod operator;
mod order;
mod ownership;
mod product_line;
mod proposal;
mod revocation;
mod rotation;
mod sealed;
mod status;
mod vendor;

use std::sync::{Arc, Weak};

use axum::Router;
use axum::body::Body;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{delete, get, post, put};
use bytes::Bytes;
use http::{HeaderName, Request, StatusCode};
use kf_key::SecretBytes;
use serde::Serialize;
use tower::ServiceExt as _;

use crate::app::App;
use crate::failure::Failure;
use crate::reply::{Reply, reply, wiped};
use extract::AppState;

/// The most octets of an answer that is collected before it is sent; every answer of the API is in memory already.
const MAX_ANSWER: usize = 256 * 1024 * 1024;

macro_rules! routes {
    ($($method:ident $path:literal => $handler:path, $access:literal;)+) => {
        /// Every route of the API: method, path, and who may ask (`operator`: any authenticated operator whose role and
        /// scope allow it; `device`: a device that says who it is; `public`: anybody; `message`: anybody, with a message that
        /// authenticates itself).
        pub const ROUTES: &[(&str, &str, &str)] = &[$((stringify!($method), $path, $access)),+];

        fn routed() -> Router<AppState> {
            Router::new()$(.route($path, $method($handler)))+
        }
    };
}

routes! {
    get    "/v1/whoami"                         => operator::who_am_i, "operator";
    get    "/v1/status"                         => status::show, "operator";
    put    "/v1/issuance"                       => status::switch_issuance, "operator";
    get    "/v1/facilities"                     => facility::list, "operator";
    post   "/v1/facilities"                     => facility::create, "operator";
    get    "/v1/facilities/{facility}"          => facility::show, "operator";
    get    "/v1/product-lines"                  => product_line::list, "operator";
    post   "/v1/product-lines"                  => product_line::create, "operator";
    get    "/v1/product-lines/{line}"           => product_line::show, "operator";
    put    "/v1/product-lines/{line}/policy"    => product_line::set_policy, "operator";
    get    "/v1/devices"                        => device::list, "operator";
    post   "/v1/devices"                        => device::register, "operator";
    post   "/v1/devices/import"                 => device::import, "operator";
    post   "/v1/devices/release"                => label::release, "operator";
    post   "/v1/devices/claim"                  => label::claim, "operator";
    get    "/v1/devices/{device}"               => device::show, "operator";
    post   "/v1/devices/{device}/act"           => device::act, "operator";
    post   "/v1/devices/{device}/move"          => device::change_facility, "operator";
    get    "/v1/devices/{device}/keys"          => epoch::device_keys, "operator";
    post   "/v1/devices/{device}/keys"          => epoch::advance_device, "operator";
    get    "/v1/facilities/{facility}/epochs"   => epoch::list, "operator";
    post   "/v1/facilities/{facility}/epochs"   => epoch::advance_facility, "operator";
    get    "/v1/facilities/{facility}/epochs/{epoch}/holders" => epoch::holders, "operator";
    post   "/v1/facilities/{facility}/epochs/{epoch}/retire" => epoch::retire, "operator";
    post   "/v1/device/exchange"                => exchange::exchange, "message";
    post   "/v1/device/session"                 => exchange::session, "message";
    get    "/v1/device/orders"                  => order::due, "device";
    post   "/v1/device/orders/outcome"          => order::outcome, "message";
    post   "/v1/device/storage"                 => order::storage, "message";
    get    "/v1/batches"                        => batch::list, "operator";
    post   "/v1/batches"                        => batch::create, "operator";
    get    "/v1/batches/{batch}"                => batch::show, "operator";
    get    "/v1/batches/{batch}/quota"          => batch::quota, "operator";
    post   "/v1/batches/{batch}/records"        => batch::import, "operator";
    get    "/v1/batches/{batch}/reconciliation" => batch::reconcile, "operator";
    post   "/v1/batches/{batch}/cancel"         => batch::cancel, "operator";
    get    "/v1/station/pins"                   => batch::pins, "operator";
    get    "/v1/vendors"                        => vendor::list, "operator";
    post   "/v1/vendors"                        => vendor::create, "operator";
    get    "/v1/vendors/{vendor}"               => vendor::show, "operator";
    post   "/v1/vendors/{vendor}/withdraw"      => vendor::withdraw, "operator";
    get    "/v1/vendors/{vendor}/devices"       => vendor::devices, "operator";
    post   "/v1/vendors/{vendor}/devices"       => vendor::import, "operator";
    get    "/v1/orders"                         => order::list, "operator";
    post   "/v1/orders"                         => order::create, "operator";
    get    "/v1/orders/{id}"                    => order::show, "operator";
    post   "/v1/orders/{id}/cancel"             => order::cancel, "operator";
    get    "/v1/campaigns"                      => campaign::list, "operator";
    post   "/v1/campaigns"                      => campaign::create, "operator";
    get    "/v1/campaigns/{campaign}"           => campaign::show, "operator";
    get    "/v1/campaigns/{campaign}/devices"   => campaign::members, "operator";
    post   "/v1/campaigns/{campaign}/act"       => campaign::act, "operator";
    get    "/v1/campaigns/{campaign}/estimate"  => campaign::estimate, "operator";
    put    "/v1/campaigns/{campaign}/plan"      => campaign::edit, "operator";
    post   "/v1/rotation"                       => rotation::rotate, "operator";
    get    "/v1/inventory"                      => inventory::list, "operator";
    get    "/v1/destructions"                   => destruction::list, "operator";
    post   "/v1/destructions"                   => destruction::create, "operator";
    get    "/v1/destructions/{id}"              => destruction::show, "operator";
    get    "/v1/ownership"                      => ownership::list, "operator";
    post   "/v1/ownership"                      => ownership::end, "operator";
    get    "/v1/ownership/{device}/receipt"     => ownership::receipt, "operator";
    get    "/v1/backup-keys"                    => backup::list_keys, "operator";
    post   "/v1/backup-keys"                    => backup::create_key, "operator";
    get    "/v1/backups"                        => backup::list, "operator";
    post   "/v1/backups"                        => backup::create, "operator";
    get    "/v1/backups/{id}"                   => backup::show, "operator";
    post   "/v1/backups/{id}/retire"            => backup::retire, "operator";
    get    "/v1/restored"                       => backup::restored, "operator";
    post   "/v1/restored/accept"                => backup::accept, "operator";
    get    "/v1/escrows"                        => escrow::list, "operator";
    post   "/v1/escrows"                        => escrow::create, "operator";
    post   "/v1/escrows/{ceremony}/release"     => escrow::release, "operator";
    post   "/v1/escrows/{ceremony}/uses"        => escrow::use_share, "operator";
    post   "/v1/escrows/{ceremony}/rehearsals"  => escrow::rehearsed, "operator";
    get    "/v1/device/pins"                    => exchange::pins, "public";
    get    "/v1/device/successions"             => exchange::successions, "public";
    get    "/v1/pinned-keys/{key}/devices"      => exchange::needed_by, "operator";
    get    "/v1/authorities"                    => authority::list, "operator";
    post   "/v1/authorities"                    => authority::create, "operator";
    get    "/v1/authorities/{authority}"        => authority::show, "operator";
    get    "/v1/authorities/{authority}/succession" => authority::succession, "operator";
    post   "/v1/authorities/{authority}/succession" => authority::succeed, "operator";
    post   "/v1/authorities/{authority}/succession/act" => authority::succession_act, "operator";
    get    "/v1/authorities/{authority}/succession/unproved" => authority::unproved, "operator";
    get    "/v1/certificates"                   => certificate::list, "operator";
    post   "/v1/certificates"                   => certificate::issue, "operator";
    get    "/v1/certificates/{serial}"          => certificate::show, "operator";
    post   "/v1/revocations"                    => revocation::revoke, "operator";
    post   "/v1/blocked-keys"                   => certificate::block_keys, "operator";
    post   "/v1/codes"                          => code::create, "operator";
    get    "/v1/codes"                          => code::list, "operator";
    delete "/v1/codes/{id}"                     => code::withdraw, "operator";
    post   "/v1/device/endorsement"             => endorsement::challenge, "device";
    post   "/v1/device/endorsement/{id}"        => endorsement::answer, "device";
    get    "/v1/enrolments"                     => code::list_enrolments, "operator";
    post   "/v1/enrolments/{id}/decision"       => code::decide_enrolment, "operator";
    get    "/v1/operators"                      => operator::list, "operator";
    post   "/v1/operators"                      => operator::create, "operator";
    post   "/v1/operators/{operator}/enable"    => operator::enable, "operator";
    post   "/v1/tokens"                         => operator::create_token, "operator";
    get    "/v1/tokens"                         => operator::list_tokens, "operator";
    delete "/v1/tokens/{id}"                    => operator::withdraw_token, "operator";
    get    "/v1/proposals"                      => proposal::list, "operator";
    get    "/v1/proposals/{id}"                 => proposal::show, "operator";
    post   "/v1/proposals/{id}/decision"        => proposal::decide, "operator";
    get    "/v1/access"                         => access::explain, "operator";
    get    "/v1/drills"                         => drill::list, "operator";
    post   "/v1/drills"                         => drill::record, "operator";
    get    "/v1/break-glass"                    => break_glass::list, "operator";
    post   "/v1/break-glass"                    => break_glass::create, "operator";
    post   "/v1/break-glass/open"               => break_glass::open, "operator";
    get    "/v1/break-glass/{name}"             => break_glass::show, "operator";
    get    "/v1/break-glass/{name}/sealed"      => break_glass::sealed, "operator";
    post   "/v1/break-glass/{name}/end"         => break_glass::end, "operator";
    post   "/v1/break-glass/{name}/review"      => break_glass::review, "operator";
    post   "/v1/break-glass/{name}/withdraw"    => break_glass::withdraw, "operator";
    get    "/v1/incidents"                      => incident::list, "operator";
    post   "/v1/incidents"                      => incident::open, "operator";
    get    "/v1/incidents/{id}"                 => incident::show, "operator";
    post   "/v1/incidents/{id}/plan"            => incident::plan, "operator";
    post   "/v1/incidents/{id}/approve"         => incident::approve, "operator";
    post   "/v1/incidents/{id}/run"             => incident::run, "operator";
    get    "/v1/incidents/{id}/report"          => incident::report, "operator";
    post   "/v1/incidents/{id}/close"           => incident::close, "operator";
    post   "/v1/open"                           => sealed::open, "operator";
    post   "/v1/seal"                           => sealed::seal, "operator";
    get    "/v1/encryption-keys"                => encryption_key::list, "operator";
    post   "/v1/encryption-keys"                => encryption_key::create, "operator";
    get    "/v1/encryption-keys/{key}"          => encryption_key::show, "operator";
    post   "/v1/encryption-keys/{key}/rotate"   => encryption_key::rotate, "operator";
    put    "/v1/encryption-keys/{key}/minimum-version" => encryption_key::raise_minimum, "operator";
    post   "/v1/encryption-keys/{key}/encrypt"  => encryption_key::encrypt, "operator";
    post   "/v1/encryption-keys/{key}/decrypt"  => encryption_key::decrypt, "operator";
    post   "/v1/encryption-keys/{key}/rewrap"   => encryption_key::rewrap, "operator";
    post   "/v1/encryption-keys/{key}/data-keys" => encryption_key::data_keys, "operator";
    get    "/v1/encryption-keys/{key}/objects"  => object::list, "operator";
    get    "/v1/encryption-keys/{key}/objects/{name}" => object::show, "operator";
    put    "/v1/encryption-keys/{key}/objects/{name}" => object::put, "operator";
    delete "/v1/encryption-keys/{key}/objects/{name}" => object::delete, "operator";
    get    "/v1/encryption-keys/{key}/objects/{name}/content" => object::content, "operator";
    get    "/v1/audit"                          => audit::list, "operator";
    get    "/v1/events"                         => event::follow, "operator";
    get    "/v1/audit/log/{*path}"              => audit::file, "operator";
    get    "/v1/audit/verifier-key"             => audit::verifier_key, "public";
    get    "/metrics"                           => status::metrics, "operator";
}

/// The router. It holds the shared state weakly, because the shared state holds it.
pub(crate) fn router(app: Weak<App>) -> Router {
    routed()
        .fallback(|| async { Failure::not_found() })
        .method_not_allowed_fallback(|| async { Failure::method_not_allowed("") })
        .with_state(AppState(app))
}

/// Answers a request to the API.
pub(crate) async fn answer(router: &Router, request: Request<Body>) -> Reply {
    let Ok(response) = router.clone().oneshot(request).await;
    let (parts, body) = response.into_parts();
    match axum::body::to_bytes(body, MAX_ANSWER).await {
        Ok(body) => Reply::from_parts(parts, http_body_util::Full::new(body)),
        Err(_) => Failure::internal().into_problem(),
    }
}

/// What a handler answers.
type Answer = Result<Response, Failure>;

/// 200 with JSON.
fn ok<T: Serialize>(value: &T) -> Answer {
    json(StatusCode::OK, value)
}

/// 201 with JSON.
///
/// What is made may come with a secret that is shown once: the body is written in its final size, because one that grows leaves
/// copies behind, and wiped once it is sent.
fn created<T: Serialize>(value: &T) -> Answer {
    let failed = |error| {
        tracing::error!(%error, "an answer could not be encoded");
        Failure::internal()
    };
    let mut size = Size(0);
    serde_json::to_writer(&mut size, value).map_err(failed)?;
    let mut outcome = Ok(());
    let body = SecretBytes::fill(size.0, |body| outcome = serde_json::to_writer(body, value));
    outcome.map_err(failed)?;
    Ok(with_type(StatusCode::CREATED, "application/json", wiped(body)))
}

/// Counts what is written.
struct Size(usize);

impl std::io::Write for Size {
    fn write(&mut self, octets: &[u8]) -> std::io::Result<usize> {
        self.0 = self.0.saturating_add(octets.len());
        Ok(octets.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// 204.
fn done() -> Answer {
    Ok(StatusCode::NO_CONTENT.into_response())
}

fn json<T: Serialize>(status: StatusCode, value: &T) -> Answer {
    let body = serde_json::to_vec(value).map_err(|error| {
        tracing::error!(%error, "an answer could not be encoded");
        Failure::internal()
    })?;
    Ok(of(status, "application/json", body))
}

fn of(status: StatusCode, content_type: &'static str, body: Vec<u8>) -> Response {
    with_type(status, content_type, body.into())
}

fn with_type(status: StatusCode, content_type: &'static str, body: Bytes) -> Response {
    let mut reply = reply(status, content_type, body);
    // Answers depend on who asks, and some carry a bearer secret once.
    reply.headers_mut().insert(NO_STORE.0, http::HeaderValue::from_static(NO_STORE.1));
    reply.map(Body::new)
}

const NO_STORE: (HeaderName, &str) = (http::header::CACHE_CONTROL, "no-store");

/// Upgrades the state; it lives as long as any connection does.
fn app(state: &AppState) -> Result<Arc<App>, Failure> {
    state.0.upgrade().ok_or_else(Failure::internal)
}

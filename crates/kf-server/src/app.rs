//! What all requests share, and how one of them is answered.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use axum::Router;
use http::{HeaderName, Request};
use hyper::body::Incoming;
use kf_fleet::{Fleet, FleetError};
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::sync::{Semaphore, SemaphorePermit, watch};

use crate::failure::Failure;
use crate::limits::Limits;
use crate::peer::Peer;
use crate::reply::{Reply, with_header};
use crate::surface::Surface;
use crate::{api, authority, crl, est, health, metering, ocsp};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// What all requests share.
pub(crate) struct App {
    pub(crate) fleet: Arc<Fleet>,
    pub(crate) limits: Limits,
    imports: Semaphore,
    followers: Semaphore,
    /// Turns true when the server stops, or its sender goes.
    pub(crate) stop: watch::Receiver<bool>,
    pub(crate) metrics: PrometheusHandle,
    pub(crate) ready_answers: ocsp::ReadyAnswers,
    answered: metering::Requests,
    router: Router,
    /// Random at start, so that ids of two runs do not meet in one log.
    request_base: u64,
    requests: AtomicU64,
}

impl App {
    /// # Errors
    /// When the random source fails.
    pub(crate) fn new(
        fleet: Arc<Fleet>,
        limits: Limits,
        metrics: PrometheusHandle,
        stop: watch::Receiver<bool>,
    ) -> Result<Arc<Self>, FleetError> {
        let request_base = u64::from_be_bytes(kf_crypto::random_array::<8>()?);
        Ok(Arc::new_cyclic(|app| Self {
            router: api::router(app.clone()),
            fleet,
            limits,
            imports: Semaphore::new(limits.imports),
            followers: Semaphore::new(limits.followers),
            stop,
            metrics,
            ready_answers: ocsp::ReadyAnswers::default(),
            answered: metering::Requests::new(),
            request_base,
            requests: AtomicU64::new(0),
        }))
    }

    /// A place for an import. Each holds what it was sent in memory, so there are few at a time.
    ///
    /// # Errors
    /// 429 when all are taken.
    pub(crate) fn import_place(&self) -> Result<SemaphorePermit<'_>, Failure> {
        self.imports.try_acquire().map_err(|_taken| {
            Failure::new(http::StatusCode::TOO_MANY_REQUESTS, "too-many", "other imports are running").retry_after(10)
        })
    }

    /// A place for somebody who waits for events.
    ///
    /// # Errors
    /// 429 when all are taken.
    pub(crate) fn follower_place(&self) -> Result<SemaphorePermit<'_>, Failure> {
        self.followers.try_acquire().map_err(|_taken| {
            Failure::new(http::StatusCode::TOO_MANY_REQUESTS, "too-many", "others wait for events").retry_after(10)
        })
    }

    fn next_request_id(&self) -> String {
        let number = self.requests.fetch_add(1, Ordering::Relaxed);
        format!("{:016x}", self.request_base.wrapping_add(number))
    }

    /// Answers a request. What is signed in itself is answered here and now; everything that can change the fleet runs
    /// in a task of its own, so that a client that hangs up does not cut an act in half, and a panic there costs one
    /// answer of 500 and nothing else.
    pub(crate) async fn answer(self: Arc<Self>, peer: Peer, request: Request<Incoming>) -> Reply {
        let begun = Instant::now();
        let name = Surface::of(request.uri().path()).name();
        if let Some(reply) = self.answer_public(&peer, &request).await {
            self.answered.count(name, reply.status(), begun.elapsed());
            // Nobody asks about an answer that was right, and these are the answers that must cost little.
            let in_order = reply.status().is_success() || reply.status() == http::StatusCode::NOT_MODIFIED;
            return if in_order { reply } else { with_header(reply, REQUEST_ID, &self.next_request_id()) };
        }
        let id = self.next_request_id();
        let (method, address) = (request.method().clone(), peer.address);
        let app = Arc::clone(&self);
        let reply = isolated(name, async move { app.answer_act(peer, request).await }).await;
        let spent = begun.elapsed();
        self.answered.count(name, reply.status(), spent);
        tracing::info!(
            id,
            surface = name,
            %method,
            status = reply.status().as_u16(),
            milliseconds = u64::try_from(spent.as_millis()).unwrap_or(u64::MAX),
            peer = %address,
            "request"
        );
        with_header(reply, REQUEST_ID, &id)
    }

    /// The surfaces that need no identity and no body.
    async fn answer_public(&self, peer: &Peer, request: &Request<Incoming>) -> Option<Reply> {
        let surface = Surface::of(request.uri().path());
        if !peer.secure && !surface.may_be_plain() {
            return Some(Failure::needs_https().into_problem());
        }
        let is_get = request.method() == http::Method::GET || request.method() == http::Method::HEAD;
        let headers = request.headers();
        match surface {
            Surface::Ocsp("") if request.method() == http::Method::POST => None,
            Surface::Ocsp(encoded) if is_get && !encoded.is_empty() => Some(ocsp::get(self, encoded, headers).await),
            Surface::Ocsp("") => Some(Failure::method_not_allowed("POST").into_problem()),
            _ if !is_get && !matches!(surface, Surface::Est(..) | Surface::Api | Surface::Nothing) => {
                Some(Failure::method_not_allowed("GET, HEAD").into_problem())
            }
            Surface::Ocsp(_) => Some(Failure::not_found().into_problem()),
            Surface::Crl(rest) => Some(crl::get(self, rest, headers).await),
            Surface::AuthorityCertificate(rest) => Some(authority::certificate(self, rest, headers)),
            Surface::Live => Some(health::live()),
            Surface::Ready => Some(health::ready(self).await),
            Surface::Nothing => Some(Failure::not_found().into_problem()),
            Surface::Est(..) | Surface::Api => None,
        }
    }

    /// The surfaces with a body or an identity.
    async fn answer_act(&self, peer: Peer, request: Request<Incoming>) -> Reply {
        let (parts, body) = request.into_parts();
        let path = parts.uri.path().to_owned();
        match Surface::of(&path) {
            Surface::Est(label, Some(operation)) => {
                let exchange = est::Exchange { app: self, peer: &peer, label, headers: &parts.headers };
                exchange.answer(operation, &parts.method, body).await
            }
            Surface::Est(_, None) => Failure::not_found().into_text(),
            Surface::Ocsp(_) => ocsp::post(self, &parts.headers, body).await,
            _ => {
                let mut request = Request::from_parts(parts, axum::body::Body::new(body));
                request.extensions_mut().insert(peer);
                api::answer(&self.router, request).await
            }
        }
    }
}

/// Runs `work` in a task of its own, which a client that hangs up does not end; a panic in it becomes an answer of 500.
async fn isolated(surface: &'static str, work: impl Future<Output = Reply> + Send + 'static) -> Reply {
    match tokio::spawn(work).await {
        Ok(reply) => reply,
        Err(error) => {
            tracing::error!(surface, panicked = error.is_panic(), "a request ended in a bug");
            metering::panicked();
            Failure::internal().into_problem()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_costs_one_answer_and_what_was_begun_outlives_its_client() {
        let reply = isolated("test", async { panic!("on purpose") }).await;
        assert_eq!(reply.status(), http::StatusCode::INTERNAL_SERVER_ERROR);

        let (done, ended) = tokio::sync::oneshot::channel();
        let client = isolated("test", async move {
            tokio::task::yield_now().await;
            done.send(()).unwrap();
            health::live()
        });
        let mut client = Box::pin(client);
        tokio::select! {
            biased;
            _ = client.as_mut() => panic!("answered before it was polled twice"),
            () = std::future::ready(()) => {}
        }
        drop(client);
        ended.await.unwrap();
    }
}

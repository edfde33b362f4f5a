//! One connection, from its first octet to its last.

use std::convert::Infallible;
use std::future::Future;
use std::net::IpAddr;
use std::sync::Arc;

use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::watch;

use crate::app::App;
use crate::metering;
use crate::pace::{Pace, Paced};
use crate::peer::Peer;
use crate::tls::{self, Accepted, Tls};

/// The most header lines in a request.
const MAX_HEADERS: usize = 64;

/// Serves one connection of the HTTPS listener.
pub(crate) async fn serve_https(
    (app, tls): (Arc<App>, Arc<Tls>),
    stream: TcpStream,
    address: IpAddr,
    pace: Arc<Pace>,
    stop: watch::Receiver<bool>,
) {
    match tokio::time::timeout(app.limits.handshake, tls.accept(stream)).await {
        Ok(Ok(Accepted { stream, certificate, proved })) => {
            metering::handshake(tls::group_of(&stream));
            let peer = Peer { address, secure: true, certificate };
            if let (Some(root), Some(certificate)) = (proved, &peer.certificate) {
                app.fleet.note_trust(certificate, root, peer.as_tls_client()).await;
            }
            serve(app, peer, stream, pace, stop).await;
        }
        Ok(Err(error)) => {
            metering::handshake_failed();
            tracing::debug!(peer = %address, %error, "no connection");
        }
        Err(_) => {
            metering::handshake_failed();
            tracing::debug!(peer = %address, "the handshake did not end in time");
        }
    }
}

/// Serves one connection of the plain HTTP listener.
pub(crate) async fn serve_http(
    app: Arc<App>,
    stream: TcpStream,
    address: IpAddr,
    pace: Arc<Pace>,
    stop: watch::Receiver<bool>,
) {
    serve(app, Peer { address, secure: false, certificate: None }, stream, pace, stop).await;
}

async fn serve<S>(app: Arc<App>, peer: Peer, stream: S, pace: Arc<Pace>, mut stop: watch::Receiver<bool>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (limits, address) = (app.limits, peer.address);
    let stream = TokioIo::new(Paced::new(stream, Arc::clone(&pace), limits));
    let service = service_fn(move |request: Request<Incoming>| {
        pace.request_begins();
        let (app, peer, pace) = (Arc::clone(&app), peer.clone(), Arc::clone(&pace));
        async move {
            let reply = app.answer(peer, request).await;
            pace.request_ends();
            Ok::<_, Infallible>(reply)
        }
    });
    let mut connection = std::pin::pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            // The stream keeps the deadlines; see `pace`.
            .header_read_timeout(None)
            .max_buf_size(limits.head_octets)
            .max_headers(MAX_HEADERS)
            // Clients that close their half after the request still want the answer.
            .half_close(true)
            // strongSwan compares header names letter by letter.
            .title_case_headers(true)
            .serve_connection(stream, service)
    );
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = until_stop_or(&mut stop, tokio::time::sleep(limits.connection_age)) => {
            // The answer in flight is finished, no further request is read.
            connection.as_mut().graceful_shutdown();
            // A client that takes the last answer octet by octet is cut in the end.
            tokio::time::timeout(limits.connection_age, connection).await.unwrap_or(Ok(()))
        }
    };
    if let Err(error) = ended {
        tracing::debug!(peer = %address, %error, "the connection ended early");
    }
}

async fn until_stop_or(stop: &mut watch::Receiver<bool>, age: impl Future<Output = ()>) {
    tokio::select! {
        // A sender that is gone is as good as a stop.
        _ = stop.wait_for(|stop| *stop) => {}
        () = age => {}
    }
}

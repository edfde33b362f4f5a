//! The listeners: accept, limit, isolate, stop.

use std::collections::VecDeque;
use std::future::Future;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use kf_fleet::{Fleet, FleetError};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::{AbortHandle, JoinSet};

use crate::app::App;
use crate::connection::{serve_http, serve_https};
use crate::limits::Limits;
use crate::metering;
use crate::pace::Pace;
use crate::tls::Tls;

/// After accept fails (out of file descriptors), how long to wait before the next try.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// The sockets to listen on, bound by the caller.
#[derive(Debug)]
pub struct Listeners {
    /// HTTPS: everything.
    pub https: TcpListener,
    /// Plain HTTP: CRLs, OCSP answers, CA certificates, `/livez`.
    pub http: TcpListener,
}

/// Why the server could not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// The fleet has no identity for the listener.
    #[error("no certificate for the HTTPS listener")]
    Identity(#[source] FleetError),
    /// Another metrics recorder was installed in this process.
    #[error("another metrics recorder is installed in this process")]
    Metrics,
}

/// Serves until `stop` becomes true or its sender goes: then nothing new is accepted, and what is in flight is given
/// [`Limits::drain`] to finish.
///
/// # Errors
/// [`ServeError`] when it cannot start. Once it serves, it ends only by `stop`.
pub async fn serve(
    fleet: Arc<Fleet>,
    listeners: Listeners,
    limits: Limits,
    stop: watch::Receiver<bool>,
) -> Result<(), ServeError> {
    let metrics = metering::install().ok_or(ServeError::Metrics)?;
    let tls = Tls::new(Arc::clone(&fleet)).await.map_err(ServeError::Identity)?;
    let app = App::new(fleet, limits, metrics, stop.clone()).map_err(ServeError::Identity)?;
    let renewal = tokio::spawn(Arc::clone(&tls).keep_current(limits.identity_check, stop.clone()));
    let (https, http) = {
        let (app_of_https, app_of_http) = (Arc::clone(&app), app);
        let (stop_of_https, stop_of_http) = (stop.clone(), stop.clone());
        (
            accept("https", listeners.https, limits, stop.clone(), move |stream, address, pace| {
                let shared = (Arc::clone(&app_of_https), Arc::clone(&tls));
                serve_https(shared, stream, address, pace, stop_of_https.clone())
            }),
            accept("http", listeners.http, limits, stop, move |stream, address, pace| {
                serve_http(Arc::clone(&app_of_http), stream, address, pace, stop_of_http.clone())
            }),
        )
    };
    tokio::join!(https, http);
    renewal.abort();
    Ok(())
}

/// Accepts connections, at most [`Limits::connections`] at a time, each in its own task: a panic in one ends that one.
async fn accept<F, C>(name: &'static str, listener: TcpListener, limits: Limits, stop: watch::Receiver<bool>, serve: F)
where
    F: Fn(TcpStream, IpAddr, Arc<Pace>) -> C,
    C: Future<Output = ()> + Send + 'static,
{
    let mut crowd = Crowd::new(limits.connections);
    let mut connections = JoinSet::new();
    while let Some((stream, address, place)) = next(&listener, &mut crowd, stop.clone()).await {
        // Answers are small and complete: waiting to fill a segment only costs time.
        drop(stream.set_nodelay(true));
        let pace = Pace::new();
        let connection = serve(stream, address, Arc::clone(&pace));
        let handle = connections.spawn(async move {
            let _open = Open::new(name);
            connection.await;
            drop(place);
        });
        crowd.admit(handle, pace);
        while let Some(ended) = connections.try_join_next() {
            note_panic(name, &ended);
        }
    }
    drop(listener);
    let drained = tokio::time::timeout(limits.drain, async {
        while let Some(ended) = connections.join_next().await {
            note_panic(name, &ended);
        }
    });
    if drained.await.is_err() {
        tracing::warn!(listener = name, cut = connections.len(), "connections were cut at the end of the drain period");
    }
    connections.shutdown().await;
}

/// The next connection and its place; `None` once the server stops.
async fn next(
    listener: &TcpListener,
    crowd: &mut Crowd,
    mut stop: watch::Receiver<bool>,
) -> Option<(TcpStream, IpAddr, OwnedSemaphorePermit)> {
    let accepted = async {
        loop {
            match listener.accept().await {
                Ok((stream, address)) => {
                    let place = crowd.place().await?;
                    return Some((stream, address.ip().to_canonical(), place));
                }
                Err(error) => {
                    tracing::warn!(%error, "accept failed");
                    tokio::time::sleep(ACCEPT_AGAIN).await;
                }
            }
        }
    };
    tokio::select! {
        biased;
        _ = stop.wait_for(|stop| *stop) => None,
        accepted = accepted => accepted,
    }
}

/// The open connections of a listener, oldest first.
struct Crowd {
    limit: usize,
    places: Arc<Semaphore>,
    open: VecDeque<(AbortHandle, Arc<Pace>)>,
}

impl Crowd {
    fn new(limit: usize) -> Self {
        Self { limit, places: Arc::new(Semaphore::new(limit)), open: VecDeque::new() }
    }

    /// A place for one more. When all are taken, the oldest connection that is not being answered gives up its own: a
    /// client that finishes its request soon is not kept out by thousands that never do. When all are being answered,
    /// the newcomer waits.
    async fn place(&mut self) -> Option<OwnedSemaphorePermit> {
        if let Ok(place) = Arc::clone(&self.places).try_acquire_owned() {
            return Some(place);
        }
        self.forget_ended();
        if let Some(oldest) = self.open.iter().position(|(_, pace)| !pace.is_busy())
            && let Some((handle, _)) = self.open.remove(oldest)
        {
            handle.abort();
            metering::cut_for_another();
        }
        Arc::clone(&self.places).acquire_owned().await.ok()
    }

    fn admit(&mut self, handle: AbortHandle, pace: Arc<Pace>) {
        if self.open.len() >= self.limit.saturating_mul(2) {
            self.forget_ended();
        }
        self.open.push_back((handle, pace));
    }

    fn forget_ended(&mut self) {
        self.open.retain(|(handle, _)| !handle.is_finished());
    }
}

fn note_panic(listener: &'static str, ended: &Result<(), tokio::task::JoinError>) {
    if ended.as_ref().is_err_and(tokio::task::JoinError::is_panic) {
        metering::panicked();
        tracing::error!(listener, "a connection ended in a bug");
    }
}

/// Counts a connection while it is open, however it ends.
struct Open(&'static str);

impl Open {
    fn new(listener: &'static str) -> Self {
        metering::connections(listener, 1.0);
        Self(listener)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        metering::connections(self.0, -1.0);
    }
}

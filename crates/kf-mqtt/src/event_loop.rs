//! Connecting, and what is told to the caller.

use std::io;
use std::time::Duration;

use rumqttc::mqttbytes::v4::{ConnAck, Packet};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::client::{Request, Settings};
use crate::error::MqttError;
use crate::session::Session;

/// How long each step of connecting may take: TCP, the handshake, CONNACK.
const STEP_DEADLINE: Duration = Duration::from_secs(10);

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A packet has come. CONNACK is told once, and only when it accepts; a message with QoS 1 is acknowledged already.
    Incoming(Packet),
    /// DISCONNECT was sent as asked, and the session is over. Another poll connects again.
    Disconnected,
}

/// Holds at most one session.
pub struct EventLoop {
    settings: Settings,
    requests: mpsc::Receiver<Request>,
    session: Option<Session<TlsStream<TcpStream>>>,
}

impl std::fmt::Debug for EventLoop {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EventLoop").field("is_connected", &self.session.is_some()).finish_non_exhaustive()
    }
}

impl EventLoop {
    pub(crate) const fn new(settings: Settings, requests: mpsc::Receiver<Request>) -> Self {
        Self { settings, requests, session: None }
    }

    /// Connects if there is no session, and else goes on until something happened. A session lives only while it is
    /// polled: a caller that stops for longer than `keep_alive` loses it.
    ///
    /// Safe to cancel: no octet of a session is lost, and a connection that was not yet accepted is closed.
    ///
    /// # Errors
    /// [`MqttError`]: there is no session, or no longer. Another poll connects again, at once; the caller waits first.
    pub async fn poll(&mut self) -> Result<Event, MqttError> {
        let Some(session) = &mut self.session else {
            let (session, accepted) = connect(&self.settings).await?;
            self.session = Some(session);
            return Ok(Event::Incoming(Packet::ConnAck(accepted)));
        };
        let outcome = session.next(&mut self.requests).await;
        if !matches!(outcome, Ok(Event::Incoming(_))) {
            self.session = None;
            // What was meant for this session must not surprise the next.
            for _ in 0..self.requests.max_capacity() {
                if self.requests.try_recv().is_err() {
                    break;
                }
            }
        }
        outcome
    }
}

async fn connect(settings: &Settings) -> Result<(Session<TlsStream<TcpStream>>, ConnAck), MqttError> {
    let host = || MqttError::Host { host: settings.host.chars().take(80).collect() };
    let name = ServerName::try_from(settings.host.clone()).map_err(|_invalid| host())?;
    let tcp = in_time("TCP connection", TcpStream::connect((settings.host.as_str(), settings.port)));
    let stream = tcp.await?.map_err(MqttError::Connect)?;
    // A packet must not wait for the acknowledgement of the one before it.
    stream.set_nodelay(true).map_err(MqttError::Connect)?;
    let stream = handshake(settings, name, stream).await?;
    accept(settings, stream).await
}

async fn handshake<S>(settings: &Settings, name: ServerName<'static>, stream: S) -> Result<TlsStream<S>, MqttError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let work = TlsConnector::from(settings.tls.clone()).connect(name, stream);
    in_time("TLS handshake", work).await?.map_err(|source: io::Error| MqttError::Handshake(source))
}

async fn accept<S>(settings: &Settings, stream: S) -> Result<(Session<S>, ConnAck), MqttError>
where
    S: AsyncRead + AsyncWrite,
{
    in_time("CONNACK", Session::open(stream, settings)).await?
}

async fn in_time<T>(step: &'static str, work: impl Future<Output = T>) -> Result<T, MqttError> {
    tokio::time::timeout(STEP_DEADLINE, work).await.map_err(|_elapsed| MqttError::Timeout { step })
}

#[cfg(test)]
mod tests;

//! The echo server.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use der::Decode as _;
use rustls::ServerConfig;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use x509_cert::Certificate;

use super::session_table::SessionTable;
use crate::connector::{BrokerConnector, Cut, PublishedCrl};
use crate::tls::common_name;
use crate::{BrokerError, TlsIdentity, crl_bundle, device_name};

/// The most octets of a line.
const MAX_LINE_OCTETS: u64 = 4 * 1024;
/// How long a handshake may take.
const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(10);
/// How long a session may be silent.
const IDLE_DEADLINE: Duration = Duration::from_secs(300);
/// The most CRLs of one publication.
const MAX_CRLS: usize = 4_096;

/// Settings of an echo server.
#[derive(Debug)]
pub struct EchoSettings {
    /// Name in reports.
    pub name: String,
    /// Where to listen; port 0 picks one.
    pub listen: SocketAddr,
    /// The server's certificate and the roots of its clients.
    pub identity: TlsIdentity,
    /// The CRLs to begin with; with none every client is refused.
    pub crls: Vec<PublishedCrl>,
    /// The most sessions at a time.
    pub max_sessions: usize,
}

/// The built-in mutual-TLS line echo; it ends when this is dropped.
#[derive(Debug)]
pub struct EchoBroker {
    shared: Arc<Shared>,
    address: SocketAddr,
    accepting: JoinHandle<()>,
}

struct Shared {
    name: String,
    identity: TlsIdentity,
    max_sessions: usize,
    /// CRLs that were published and not yet read.
    published: Mutex<Vec<Vec<u8>>>,
    /// What new sessions are judged by; `None` refuses everyone.
    config: Mutex<Option<Arc<ServerConfig>>>,
    sessions: Mutex<SessionTable>,
    changed: watch::Sender<()>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("name", &self.name).finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing panics while holding one; each value is replaced as a whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl EchoBroker {
    /// Listens and serves until dropped.
    ///
    /// # Errors
    /// [`BrokerError`].
    pub async fn start(settings: EchoSettings) -> Result<Self, BrokerError> {
        let EchoSettings { name, listen, identity, crls, max_sessions } = settings;
        let unreachable =
            |error: io::Error| BrokerError::Unreachable { address: listen.to_string(), reason: error.to_string() };
        let listener = TcpListener::bind(listen).await.map_err(unreachable)?;
        let address = listener.local_addr().map_err(unreachable)?;
        let shared = Arc::new(Shared {
            name,
            identity,
            max_sessions,
            published: Mutex::default(),
            config: Mutex::default(),
            sessions: Mutex::default(),
            changed: watch::Sender::new(()),
        });
        if !crls.is_empty() {
            shared.publish(&crls)?;
            shared.reload()?;
        }
        let accepting = tokio::spawn(accept(listener, shared.clone()));
        Ok(Self { shared, address, accepting })
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Names of the devices that are connected.
    #[must_use]
    pub fn connected(&self) -> Vec<String> {
        lock(&self.shared.sessions).names()
    }

    /// Waits until a device is connected, or no longer is; `false` when that did not happen in time.
    pub async fn wait_until(&self, device_name: &str, connected: bool, deadline: Duration) -> bool {
        let mut changes = self.shared.changed.subscribe();
        let wait = async {
            while lock(&self.shared.sessions).is_connected(device_name) != connected {
                if changes.changed().await.is_err() {
                    return false;
                }
            }
            true
        };
        tokio::time::timeout(deadline, wait).await.unwrap_or(false)
    }
}

impl Drop for EchoBroker {
    fn drop(&mut self) {
        self.accepting.abort();
        *lock(&self.shared.sessions) = SessionTable::default();
    }
}

impl Shared {
    fn publish(&self, crls: &[PublishedCrl]) -> Result<(), BrokerError> {
        if crls.len() > MAX_CRLS {
            return Err(BrokerError::CrlBundleTooLarge { limit_octets: crl_bundle::MAX_BUNDLE_OCTETS });
        }
        crl_bundle::bundle(crls)?;
        let decode = |crl: &PublishedCrl| match der::pem::decode_vec(crl.pem.trim().as_bytes()) {
            Ok(("X509 CRL", der)) => Ok(der),
            _ => Err(BrokerError::Crl { authority: crl.authority.to_string() }),
        };
        *lock(&self.published) = crls.iter().map(decode).collect::<Result<_, _>>()?;
        Ok(())
    }

    fn reload(&self) -> Result<(), BrokerError> {
        let crls = lock(&self.published).clone();
        if crls.is_empty() {
            return Err(BrokerError::Refused { command: "reload", reason: "no CRL has been published".to_owned() });
        }
        let config = self.identity.server_config(crls)?;
        *lock(&self.config) = Some(config);
        Ok(())
    }

    fn leave(&self, number: u64) {
        lock(&self.sessions).leave(number);
        self.changed.send_replace(());
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    // Handshakes in progress count against the same limit as sessions, so that none of them can be piled up.
    let places = Arc::new(tokio::sync::Semaphore::new(shared.max_sessions.min(65_536)));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _peer)) => {
                let shared = shared.clone();
                tokio::spawn(async move {
                    if let Err(error) = serve(stream, &shared).await {
                        tracing::debug!(broker = shared.name, %error, "session ended");
                    }
                    drop(place);
                });
            }
            // Out of descriptors, or the peer is gone already: let the sessions that are there go on.
            Err(error) => {
                tracing::warn!(broker = shared.name, %error, "accept");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn serve(stream: TcpStream, shared: &Shared) -> io::Result<()> {
    let Some(config) = lock(&shared.config).clone() else {
        return Err(io::Error::other("refused: no CRL has been published"));
    };
    let handshake = TlsAcceptor::from(config).accept(stream);
    let stream = tokio::time::timeout(HANDSHAKE_DEADLINE, handshake).await??;
    let name = peer_name(&stream).ok_or_else(|| io::Error::other("refused: a certificate without a usable name"))?;
    let entered = lock(&shared.sessions).enter(&name, shared.max_sessions);
    let Some((number, mut is_cut)) = entered else {
        return Err(io::Error::other("refused: barred, or too many sessions"));
    };
    shared.changed.send_replace(());
    let outcome = tokio::select! {
        _cut = is_cut.changed() => Err(io::Error::other("cut")),
        outcome = echo(stream) => outcome,
    };
    shared.leave(number);
    outcome
}

async fn echo(stream: TlsStream<TcpStream>) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    let mut line = Vec::new();
    loop {
        line.clear();
        let mut limited = (&mut stream).take(MAX_LINE_OCTETS);
        let read = tokio::time::timeout(IDLE_DEADLINE, limited.read_until(b'\n', &mut line)).await??;
        if read == 0 {
            return Ok(());
        }
        if line.last() != Some(&b'\n') {
            return Err(io::Error::other("a line without an end, or a too long one"));
        }
        stream.get_mut().write_all(&line).await?;
        stream.get_mut().flush().await?;
    }
}

/// The common name of the client's certificate, which the handshake has verified.
fn peer_name(stream: &TlsStream<TcpStream>) -> Option<String> {
    let (_tcp, session) = stream.get_ref();
    let certificate = Certificate::from_der(session.peer_certificates()?.first()?).ok()?;
    let name = common_name(&certificate)?;
    device_name::check(&name).ok().map(|()| name)
}

#[async_trait]
impl BrokerConnector for EchoBroker {
    fn name(&self) -> &str {
        &self.shared.name
    }

    async fn publish_crls(&self, crls: &[PublishedCrl]) -> Result<(), BrokerError> {
        self.shared.publish(crls)
    }

    async fn reload(&self) -> Result<(), BrokerError> {
        self.shared.reload()
    }

    async fn admit(&self, device_name: &str) -> Result<(), BrokerError> {
        self.readmit(device_name).await
    }

    async fn cut(&self, device_name: &str) -> Result<Cut, BrokerError> {
        device_name::check(device_name)?;
        let cut = lock(&self.shared.sessions).cut(device_name);
        self.shared.changed.send_replace(());
        Ok(if cut > 0 { Cut::Closed } else { Cut::NoSession })
    }

    async fn verify_gone(&self, device_name: &str, deadline: Duration) -> Result<bool, BrokerError> {
        device_name::check(device_name)?;
        Ok(self.wait_until(device_name, false, deadline).await)
    }

    async fn readmit(&self, device_name: &str) -> Result<(), BrokerError> {
        device_name::check(device_name)?;
        lock(&self.shared.sessions).allow(device_name);
        Ok(())
    }
}

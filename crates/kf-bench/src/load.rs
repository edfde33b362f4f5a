//! A client that costs as little as possible: it writes prepared HTTP/1.1 requests and reads the answers by
//! Content-Length.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustls::ClientConfig;
use rustls::client::Resumption;
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::error::BenchError;

/// The most octets of an answer's head.
const MAX_HEAD_OCTETS: usize = 16 * 1_024;

/// A client certificate with its key, PKCS#8.
#[derive(Clone)]
pub(crate) struct Identity {
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) key: Vec<u8>,
}

/// A TLS client without resumption: every connection is a full handshake.
pub(crate) fn connector(root: &[u8], identity: Option<Identity>) -> Result<TlsConnector, BenchError> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from(root.to_vec())).map_err(BenchError::failed("the root of the server"))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(BenchError::failed("the TLS client"))?
        .with_root_certificates(roots);
    let mut config = match identity {
        None => builder.with_no_client_auth(),
        Some(Identity { chain, key }) => builder
            .with_client_auth_cert(chain, PrivatePkcs8KeyDer::from(key).into())
            .map_err(BenchError::failed("the client's certificate"))?,
    };
    config.resumption = Resumption::disabled();
    Ok(TlsConnector::from(Arc::new(config)))
}

/// An answer.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Vec<u8>,
}

/// One GET.
pub(crate) fn get(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n").into_bytes()
}

/// One POST.
pub(crate) fn post(path: &str, content_type: &str, extra: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: {content_type}\r\ncontent-length: {length}\r\n{extra}\r\n"
    );
    let mut request = head.into_bytes();
    request.extend_from_slice(body);
    request
}

/// Where requests go.
#[derive(Clone)]
pub(crate) struct Target {
    pub(crate) address: SocketAddr,
    /// `None`: plain HTTP.
    pub(crate) tls: Option<TlsConnector>,
}

/// A connection over either transport.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

impl Target {
    pub(crate) async fn connect(&self) -> Result<Box<dyn Stream>, BenchError> {
        let tcp = TcpStream::connect(self.address).await.map_err(BenchError::io("connecting"))?;
        tcp.set_nodelay(true).map_err(BenchError::io("TCP_NODELAY"))?;
        let Some(tls) = &self.tls else { return Ok(Box::new(tcp)) };
        let name = ServerName::try_from("localhost").map_err(BenchError::failed("the server's name"))?;
        Ok(Box::new(tls.connect(name, tcp).await.map_err(BenchError::io("the TLS handshake"))?))
    }
}

/// Sends one request and reads its answer.
pub(crate) async fn exchange(stream: &mut dyn Stream, request: &[u8]) -> Result<Answer, BenchError> {
    stream.write_all(request).await.map_err(BenchError::io("sending a request"))?;
    stream.flush().await.map_err(BenchError::io("sending a request"))?;
    let mut read = Vec::with_capacity(4_096);
    let head = loop {
        if let Some(end) = read.windows(4).position(|window| window == b"\r\n\r\n") {
            break end + 4;
        }
        let octets = stream.read_buf(&mut read).await.map_err(BenchError::io("reading an answer"))?;
        if octets == 0 || read.len() > MAX_HEAD_OCTETS {
            return Err(BenchError::Failed { what: "reading an answer", why: "it has no end of its head".to_owned() });
        }
    };
    let (status, length) = parse_head(read.get(..head).unwrap_or_default())?;
    let mut body = read.split_off(head);
    let is_whole = |body: &[u8]| match length {
        Length::Octets(octets) => body.len() >= octets,
        Length::Chunked => body.ends_with(b"0\r\n\r\n"),
    };
    while !is_whole(&body) {
        if stream.read_buf(&mut body).await.map_err(BenchError::io("reading an answer"))? == 0 {
            return Err(BenchError::Failed { what: "reading an answer", why: "it ends too early".to_owned() });
        }
    }
    let body = if matches!(length, Length::Chunked) { without_chunks(&body) } else { body };
    Ok(Answer { status, body })
}

/// Where a body ends.
#[derive(Clone, Copy)]
enum Length {
    Octets(usize),
    Chunked,
}

/// Joins the chunks of a body (RFC 9112 section 7.1).
fn without_chunks(mut body: &[u8]) -> Vec<u8> {
    let mut joined = Vec::new();
    while let Some(end) = body.windows(2).position(|window| window == b"\r\n") {
        let (line, rest) = body.split_at(end);
        let length = usize::from_str_radix(String::from_utf8_lossy(line).trim(), 16).unwrap_or(0);
        let Some((chunk, after)) = rest.get(2..).and_then(|rest| rest.split_at_checked(length)) else { break };
        if length == 0 {
            break;
        }
        joined.extend_from_slice(chunk);
        body = after.strip_prefix(b"\r\n").unwrap_or(after);
    }
    joined
}

fn parse_head(head: &[u8]) -> Result<(u16, Length), BenchError> {
    let text = String::from_utf8_lossy(head);
    let no_status = || BenchError::Failed { what: "reading an answer", why: format!("no status in {text}") };
    let status = text.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or_else(no_status)?;
    let field = |wanted: &str| {
        let mut fields = text.lines().filter_map(|line| line.split_once(':'));
        fields.find(|(name, _)| name.eq_ignore_ascii_case(wanted)).map(|(_, value)| value.trim())
    };
    let length = match field("transfer-encoding") {
        Some("chunked") => Length::Chunked,
        _ => Length::Octets(field("content-length").and_then(|value| value.parse().ok()).unwrap_or(0)),
    };
    Ok((status, length))
}

/// Sends one request on a connection of its own and reads a JSON answer; the status must be one of success.
pub(crate) async fn ask_json(target: &Target, request: &[u8]) -> Result<serde_json::Value, BenchError> {
    let mut stream = target.connect().await?;
    let answer = exchange(&mut stream, request).await?;
    if !(200..300).contains(&answer.status) {
        let why = format!("status {}: {}", answer.status, String::from_utf8_lossy(&answer.body));
        return Err(BenchError::Failed { what: "a request", why });
    }
    if answer.body.is_empty() {
        return Ok(serde_json::Value::Null);
    }
    serde_json::from_slice(&answer.body).map_err(BenchError::failed("reading an answer"))
}

/// Whether connections are kept.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Connections {
    /// One connection per request.
    Fresh,
    /// One connection per lane.
    Kept,
}

/// A request, and whose TLS identity it needs.
pub(crate) struct Call {
    pub(crate) target: Target,
    pub(crate) request: Vec<u8>,
}

/// Sends all calls in `lanes` lanes at a time; each must be answered with 200.
pub(crate) async fn send_all(calls: Arc<Vec<Call>>, lanes: usize, connections: Connections) -> Result<(), BenchError> {
    let next = Arc::new(AtomicUsize::new(0));
    let mut running = tokio::task::JoinSet::new();
    for _ in 0..lanes {
        running.spawn(lane(Arc::clone(&calls), Arc::clone(&next), connections));
    }
    while let Some(ended) = running.join_next().await {
        ended.map_err(BenchError::failed("a lane of the load"))??;
    }
    Ok(())
}

async fn lane(calls: Arc<Vec<Call>>, next: Arc<AtomicUsize>, connections: Connections) -> Result<(), BenchError> {
    let mut kept = None;
    while let Some(call) = calls.get(next.fetch_add(1, Ordering::Relaxed)) {
        let mut stream = match kept.take() {
            Some(stream) => stream,
            None => call.target.connect().await?,
        };
        let answer = exchange(&mut stream, &call.request).await?;
        if answer.status != 200 {
            let why = format!("status {}: {}", answer.status, String::from_utf8_lossy(&answer.body));
            return Err(BenchError::Failed { what: "a request", why });
        }
        if connections == Connections::Kept {
            kept = Some(stream);
        }
    }
    Ok(())
}

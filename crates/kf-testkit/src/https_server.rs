//! A small HTTPS server whose answers a test writes: for clients of ours, before and beside the real server.

use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, RootCertStore, ServerConfig, SignatureScheme};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, UnixTime};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use crate::IssuedIdentity;

/// Whom the TLS layer lets in.
#[derive(Clone, Debug)]
pub enum ClientCheck {
    /// Anybody, with or without a certificate, expired or not: the handler sees the chain and decides.
    Anybody,
    /// Only certificates that lead to one of these roots, DER.
    Roots(Vec<Vec<u8>>),
}

/// A request as it arrived.
#[derive(Clone, Debug)]
pub struct Received {
    /// Method.
    pub method: String,
    /// Path and query.
    pub path: String,
    /// Header fields.
    pub headers: HeaderMap,
    /// Body.
    pub body: Vec<u8>,
    /// The client's certificates, DER.
    pub client_chain: Vec<Vec<u8>>,
    /// Which connection it came on, counted from 0.
    pub connection: u64,
}

/// What to answer.
#[derive(Clone, Debug)]
pub enum Answer {
    /// A response.
    Response {
        /// Status.
        status: u16,
        /// Header fields.
        headers: Vec<(&'static str, String)>,
        /// Body.
        body: Vec<u8>,
    },
    /// The connection is closed without an answer.
    HangUp,
    /// Nothing, ever.
    Silence,
}

impl Answer {
    /// A status and a body.
    #[must_use]
    pub fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self::Response { status, headers: Vec::new(), body: body.into() }
    }

    /// With one more header field.
    #[must_use]
    pub fn header(mut self, name: &'static str, value: &str) -> Self {
        if let Self::Response { headers, .. } = &mut self {
            headers.push((name, value.to_owned()));
        }
        self
    }
}

type Handler = dyn Fn(Received) -> Answer + Send + Sync;

/// A running server on loopback; it ends when dropped.
#[derive(Debug)]
pub struct HttpsServer {
    address: SocketAddr,
    accepting: JoinHandle<()>,
}

impl HttpsServer {
    /// Listens under `identity`; every request goes to `handler`.
    ///
    /// # Panics
    /// When it cannot listen, or the identity is not one.
    pub async fn start(
        identity: &IssuedIdentity,
        check: ClientCheck,
        handler: impl Fn(Received) -> Answer + Send + Sync + 'static,
    ) -> Self {
        let acceptor = TlsAcceptor::from(Arc::new(server_config(identity, check)));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a loopback port");
        let address = listener.local_addr().expect("the address of a listener");
        let handler: Arc<Handler> = Arc::new(handler);
        let accepting = tokio::spawn(async move {
            let next = AtomicU64::new(0);
            while let Ok((stream, _peer)) = listener.accept().await {
                let connection = next.fetch_add(1, Ordering::Relaxed);
                tokio::spawn(serve(stream, acceptor.clone(), handler.clone(), connection));
            }
        });
        Self { address, accepting }
    }

    /// `https://localhost:port`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("https://localhost:{}", self.address.port())
    }

    /// Its port on 127.0.0.1.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.address.port()
    }
}

impl Drop for HttpsServer {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn serve(stream: TcpStream, acceptor: TlsAcceptor, handler: Arc<Handler>, connection: u64) {
    // A client that is refused, or leaves, is the test's subject: it sees that at its own end.
    let Ok(stream) = acceptor.accept(stream).await else { return };
    let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
    let client_chain: Vec<Vec<u8>> = chain.iter().map(|der| der.to_vec()).collect();
    let service = service_fn(move |request| answer(request, handler.clone(), client_chain.clone(), connection));
    let served = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
    served.unwrap_or_default();
}

async fn answer(
    request: Request<Incoming>,
    handler: Arc<Handler>,
    client_chain: Vec<Vec<u8>>,
    connection: u64,
) -> io::Result<Response<Full<Bytes>>> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map_err(io::Error::other)?.to_bytes().to_vec();
    let path = head.uri.path_and_query().map(ToString::to_string).unwrap_or_default();
    let method = head.method.to_string();
    match handler(Received { method, path, headers: head.headers, body, client_chain, connection }) {
        Answer::Response { status, headers, body } => {
            let mut response = Response::builder().status(status);
            for (name, value) in headers {
                response = response.header(name, value);
            }
            response.body(Full::from(body)).map_err(io::Error::other)
        }
        Answer::HangUp => Err(io::Error::other("hang up")),
        Answer::Silence => {
            let never: Infallible = std::future::pending().await;
            match never {}
        }
    }
}

fn server_config(identity: &IssuedIdentity, check: ClientCheck) -> ServerConfig {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier: Arc<dyn ClientCertVerifier> = match check {
        ClientCheck::Anybody => Arc::new(AcceptAnybody(provider.clone())),
        ClientCheck::Roots(roots) => {
            let mut store = RootCertStore::empty();
            for root in roots {
                store.add(CertificateDer::from(root)).expect("a root certificate");
            }
            WebPkiClientVerifier::builder_with_provider(Arc::new(store), provider.clone()).build().expect("roots")
        }
    };
    let chain = identity.chain.iter().map(|der| CertificateDer::from(der.clone())).collect();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(identity.pkcs8.clone()));
    ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("protocol versions")
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .expect("a server identity")
}

#[derive(Debug)]
struct AcceptAnybody(Arc<CryptoProvider>);

impl ClientCertVerifier for AcceptAnybody {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn verify_client_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

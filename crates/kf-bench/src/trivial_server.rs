//! H and G: the stack of kf-server (tokio, rustls with aws-lc, hyper) answering `ok`, as a process of its own.

use std::convert::Infallible;
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::error::BenchError;
use crate::figure::{Aim, Figure};
use crate::load::{Call, Connections, Identity, Target, connector, get, send_all};
use crate::measure::{Effort, alternate, cpu_time_of, micros};

/// Requests in flight at the same time.
pub(crate) const LANES: usize = 16;

/// The yardstick server, running; ends when dropped.
pub(crate) struct TrivialServer {
    child: Child,
    tls: Target,
    plain: Target,
    _folder: tempfile::TempDir,
}

impl Drop for TrivialServer {
    fn drop(&mut self) {
        // Nothing is to be done when it has ended by itself.
        let _already_ended = self.child.kill();
        let _already_reaped = self.child.wait();
    }
}

impl TrivialServer {
    pub(crate) fn start() -> Result<Self, BenchError> {
        let folder = tempfile::tempdir().map_err(BenchError::io("a scratch folder"))?;
        let (root, identity) = write_identities(folder.path())?;
        let program = std::env::current_exe().map_err(BenchError::io("the path of this program"))?;
        let mut child = Command::new(program)
            .arg("trivial-server")
            .arg(folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(BenchError::io("starting the yardstick server"))?;
        let mut lines = BufReader::new(child.stdout.take().ok_or_else(no_address)?).lines();
        let mut address = || -> Result<SocketAddr, BenchError> {
            lines.next().and_then(Result::ok).and_then(|line| line.parse().ok()).ok_or_else(no_address)
        };
        let tls = Target { address: address()?, tls: Some(connector(&root, Some(identity))?) };
        let plain = Target { address: address()?, tls: None };
        Ok(Self { child, tls, plain, _folder: folder })
    }

    /// H, seconds of the server's CPU time.
    pub(crate) fn handshakes(&self, runtime: &tokio::runtime::Runtime, requests: u32) -> Result<f64, BenchError> {
        self.requests(runtime, &self.tls, requests, Connections::Fresh)
    }

    /// G over plain HTTP, seconds of the server's CPU time.
    pub(crate) fn plain_gets(&self, runtime: &tokio::runtime::Runtime, requests: u32) -> Result<f64, BenchError> {
        self.requests(runtime, &self.plain, requests, Connections::Kept)
    }

    fn requests(
        &self,
        runtime: &tokio::runtime::Runtime,
        target: &Target,
        requests: u32,
        connections: Connections,
    ) -> Result<f64, BenchError> {
        let calls = (0..requests).map(|_| Call { target: target.clone(), request: get("/") }).collect();
        server_cpu(self.child.id(), requests, || runtime.block_on(send_all(Arc::new(calls), LANES, connections)))
    }
}

fn no_address() -> BenchError {
    BenchError::Failed { what: "the yardstick server", why: "it printed no address".to_owned() }
}

/// CPU seconds per operation that the process `server` and its children spent on `round`.
pub(crate) fn server_cpu(
    server: u32,
    operations: u32,
    round: impl FnOnce() -> Result<(), BenchError>,
) -> Result<f64, BenchError> {
    let before = cpu_time_of(server)?;
    round()?;
    Ok((cpu_time_of(server)?.saturating_sub(before)).as_secs_f64() / f64::from(operations))
}

/// A run time for clients.
pub(crate) fn runtime() -> Result<tokio::runtime::Runtime, BenchError> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(BenchError::io("the run time"))
}

pub(crate) fn measure(effort: &Effort) -> Result<Vec<Figure>, BenchError> {
    let server = TrivialServer::start()?;
    let runtime = runtime()?;
    let costs = alternate(
        effort.rounds,
        &mut [&mut || server.handshakes(&runtime, 250 * effort.scale), &mut || {
            server.plain_gets(&runtime, 10_000 * effort.scale)
        }],
    )?;
    let names = ["full mutual TLS + GET (H)", "GET over plain kept-alive HTTP (G)"];
    Ok(names
        .into_iter()
        .zip(costs)
        .map(|(name, cost)| Figure::value(name, micros(cost), "us server CPU", Aim::None))
        .collect())
}

const CERTIFICATE: &str = "server.der";
const KEY: &str = "server.key.der";
const ROOT: &str = "root.der";

/// Writes what the server needs; returns the root and a client's identity. Chains are as long as the fleet's: leaf,
/// issuing CA, root.
fn write_identities(folder: &Path) -> Result<(Vec<u8>, Identity), BenchError> {
    let fail = BenchError::failed::<rcgen::Error>;
    let key = || KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(fail("a key"));
    let authority = |name: &str| -> Result<CertificateParams, BenchError> {
        let mut params = CertificateParams::new(Vec::new()).map_err(fail("a CA"))?;
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Ok(params)
    };
    let root = CertifiedIssuer::self_signed(authority("yardstick root")?, key()?).map_err(fail("a root"))?;
    let issuing =
        CertifiedIssuer::signed_by(authority("yardstick issuing CA")?, key()?, &root).map_err(fail("an issuing CA"))?;
    let leaf = |name: &str, key: &KeyPair| -> Result<Vec<CertificateDer<'static>>, BenchError> {
        let params = CertificateParams::new(vec![name.to_owned()]).map_err(fail("a certificate"))?;
        let certificate = params.signed_by(key, &issuing).map_err(fail("a certificate"))?;
        Ok(vec![certificate.der().clone(), issuing.der().clone()])
    };
    let (server_key, client_key) = (key()?, key()?);
    let write = |name: &str, bytes: &[u8]| fs::write(folder.join(name), bytes).map_err(BenchError::io(name));
    for (index, certificate) in leaf("localhost", &server_key)?.iter().enumerate() {
        write(&format!("{index}-{CERTIFICATE}"), certificate)?;
    }
    write(KEY, server_key.serialized_der())?;
    write(ROOT, root.der())?;
    let identity = Identity { chain: leaf("client", &client_key)?, key: client_key.serialize_der() };
    Ok((root.der().to_vec(), identity))
}

/// The server process: prints two addresses, then serves until it is ended.
pub(crate) fn serve(folder: &Path) -> Result<(), BenchError> {
    let acceptor = acceptor(folder)?;
    runtime()?.block_on(async move {
        let listen = async || TcpListener::bind("127.0.0.1:0").await.map_err(BenchError::io("listening"));
        let (tls, plain) = (listen().await?, listen().await?);
        for listener in [&tls, &plain] {
            println!("{}", listener.local_addr().map_err(BenchError::io("the own address"))?);
        }
        loop {
            tokio::select! {
                accepted = tls.accept() => {
                    let (acceptor, (stream, _)) = (acceptor.clone(), accepted.map_err(BenchError::io("accepting"))?);
                    tokio::spawn(async move {
                        stream.set_nodelay(true).ok();
                        // A client that goes away in the handshake shows in the client's own result.
                        if let Ok(stream) = acceptor.accept(stream).await {
                            answer(TokioIo::new(stream)).await;
                        }
                    });
                }
                accepted = plain.accept() => {
                    let (stream, _): (TcpStream, _) = accepted.map_err(BenchError::io("accepting"))?;
                    stream.set_nodelay(true).ok();
                    tokio::spawn(answer(TokioIo::new(stream)));
                }
            }
        }
    })
}

async fn answer(io: impl hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static) {
    let service = service_fn(async |_request: Request<Incoming>| {
        Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(b"ok"))))
    });
    // A client that goes away shows in the client's own result.
    let _client_gone = hyper::server::conn::http1::Builder::new().serve_connection(io, service).await;
}

fn acceptor(folder: &Path) -> Result<TlsAcceptor, BenchError> {
    let read = |name: &str| fs::read(folder.join(name)).map_err(BenchError::io(name));
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from(read(ROOT)?)).map_err(BenchError::failed("the root"))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
        .build()
        .map_err(BenchError::failed("the verifier of clients"))?;
    let chain = ["0", "1"]
        .into_iter()
        .map(|index| read(&format!("{index}-{CERTIFICATE}")).map(CertificateDer::from))
        .collect::<Result<_, _>>()?;
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(BenchError::failed("the TLS server"))?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, PrivatePkcs8KeyDer::from(read(KEY)?).into())
        .map_err(BenchError::failed("the TLS server"))?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

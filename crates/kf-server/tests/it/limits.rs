//! Slow, huge, broken and many: what a listener must survive.

use std::sync::Arc;
use std::time::Duration;

use kf_api::product_line::EnrolmentPolicy;
use kf_server::Limits;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::rig::Rig;

/// Longer than any deadline of a test: reached only when the server fails to act.
const PATIENCE: Duration = Duration::from_secs(30);
/// A deadline that a test waits for. Each test shortens only the one it is about: a busy machine misses the others.
const SHORT: Duration = Duration::from_millis(200);

async fn rig(limits: Limits) -> Rig {
    Rig::start_with(limits, EnrolmentPolicy::default()).await
}

async fn tls(rig: &Rig, pair: Option<(&std::path::Path, &std::path::Path)>) -> TlsStream<TcpStream> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(rig.root()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let config = match pair {
        Some((certificate, key)) => {
            let chain = CertificateDer::pem_file_iter(certificate).unwrap().map(Result::unwrap).collect();
            config.with_client_auth_cert(chain, PrivateKeyDer::from_pem_file(key).unwrap()).unwrap()
        }
        None => config.with_no_client_auth(),
    };
    let stream = TcpStream::connect(rig.https).await.unwrap();
    TlsConnector::from(Arc::new(config)).connect(ServerName::try_from("127.0.0.1").unwrap(), stream).await.unwrap()
}

/// Everything until the server closes, however it does.
async fn rest(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut octets = Vec::new();
    let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut octets)).await.expect("the server did not close");
    drop(read);
    String::from_utf8_lossy(&octets).into_owned()
}

/// Sends a request and reads one answer off a connection that stays open.
async fn exchange(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), request: &[u8]) -> (u16, String) {
    stream.write_all(request).await.unwrap();
    let mut octets = Vec::new();
    let read = async {
        loop {
            octets.push(stream.read_u8().await.unwrap());
            if octets.ends_with(b"\r\n\r\n") {
                break;
            }
        }
        let head = String::from_utf8(octets).unwrap();
        let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")).unwrap().parse().unwrap();
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await.unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), String::from_utf8_lossy(&body).into_owned())
    };
    tokio::time::timeout(PATIENCE, read).await.expect("no answer")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_finish_its_head_is_cut_on_both_listeners() {
    let rig = rig(Limits { head: SHORT, ..Limits::default() }).await;
    let mut plain = TcpStream::connect(rig.http).await.unwrap();
    plain.write_all(b"GET /livez HTTP/1.1\r\nHost: x\r\nX-").await.unwrap();
    assert!(!rest(&mut plain).await.contains("200"));
    let mut secure = tls(&rig, None).await;
    secure.write_all(b"GET /livez HTTP/1.1\r\nHost: x\r\nX-").await.unwrap();
    assert!(!rest(&mut secure).await.contains("200"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_begins_no_handshake_is_cut() {
    let rig = rig(Limits { handshake: SHORT, ..Limits::default() }).await;
    let mut stream = TcpStream::connect(rig.https).await.unwrap();
    assert_eq!(rest(&mut stream).await, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_connection_is_closed() {
    let rig = rig(Limits { idle: SHORT, ..Limits::default() }).await;
    let mut stream = TcpStream::connect(rig.http).await.unwrap();
    let (status, _) = exchange(&mut stream, b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert_eq!(status, 200);
    assert_eq!(rest(&mut stream).await, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_does_not_end_in_time_is_answered_with_408() {
    let rig = rig(Limits { body: SHORT, ..Limits::default() }).await;
    let mut stream = TcpStream::connect(rig.http).await.unwrap();
    stream.write_all(b"POST /ocsp HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nab").await.unwrap();
    let answer = rest(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_breaks_off_does_nothing() {
    let rig = rig(Limits::default()).await;
    let mut stream = TcpStream::connect(rig.http).await.unwrap();
    stream.write_all(b"POST /ocsp HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nab").await.unwrap();
    stream.shutdown().await.unwrap();
    assert!(!rest(&mut stream).await.contains(" 200 "));
    assert_eq!(rig.curl(&[&rig.http_url("/livez")]).status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gigantic_body_is_refused_before_it_is_read_declared_or_not() {
    let rig = rig(Limits::default()).await;
    let est = "POST /.well-known/est/pumps/simpleenroll HTTP/1.1\r\nHost: x\r\nAuthorization: Basic YTpi\r\n";
    let declared = format!("{est}Content-Length: 1000000000\r\n\r\n");
    let mut stream = tls(&rig, None).await;
    stream.write_all(declared.as_bytes()).await.unwrap();
    assert!(rest(&mut stream).await.starts_with("HTTP/1.1 413 "));

    let mut stream = tls(&rig, None).await;
    stream.write_all(format!("{est}Transfer-Encoding: chunked\r\n\r\n").as_bytes()).await.unwrap();
    let chunk = [b"4000\r\n".to_vec(), vec![b'A'; 0x4000], b"\r\n".to_vec()].concat();
    for _ in 0..8 {
        // The server may have hung up already.
        drop(stream.write_all(&chunk).await);
    }
    let answer = rest(&mut stream).await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 413 "), "{answer}");
    let rig_is_well = rig.curl(&[&rig.https_url("/livez")]);
    assert_eq!(rig_is_well.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_cannot_make_the_api_read_a_body() {
    let rig = rig(Limits::default()).await;
    let mut stream = tls(&rig, None).await;
    let head = "POST /v1/devices/import?format=csv HTTP/1.1\r\nHost: x\r\nContent-Length: 60000000\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    assert!(rest(&mut stream).await.starts_with("HTTP/1.1 401 "));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_beyond_its_limit_is_refused() {
    let rig = rig(Limits::default()).await;
    let long = format!("GET /livez HTTP/1.1\r\nHost: x\r\nX-Long: {}\r\n\r\n", "a".repeat(20_000));
    let many = format!("GET /livez HTTP/1.1\r\nHost: x\r\n{}\r\n", "X: y\r\n".repeat(100));
    for head in [long, many] {
        let mut stream = TcpStream::connect(rig.http).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        let answer = rest(&mut stream).await;
        assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_http_or_not_tls_ends_that_connection_only() {
    let rig = rig(Limits::default()).await;
    for address in [rig.http, rig.https] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"\x00\x01\x02 rubbish\r\n\r\n").await.unwrap();
        assert!(!rest(&mut stream).await.contains("200"));
    }
    let mut stream = TcpStream::connect(rig.https).await.unwrap();
    stream.write_all(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    assert!(!rest(&mut stream).await.contains("200"));
    assert_eq!(rig.curl(&[&rig.https_url("/livez")]).status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_clients_give_way_to_one_that_finishes_its_request() {
    let rig = rig(Limits { connections: 50, ..Limits::default() }).await;
    let mut slow = Vec::new();
    for address in [rig.http, rig.https] {
        for _ in 0..120 {
            let mut stream = TcpStream::connect(address).await.unwrap();
            // The server may have cut it already for the next one.
            drop(stream.write_all(b"GET /livez HT").await);
            slow.push(stream);
        }
    }
    for url in [rig.http_url("/livez"), rig.https_url("/livez")] {
        assert_eq!(rig.curl(&["--max-time", "5", &url]).status, 200);
    }
    assert_eq!(rest(&mut slow[0]).await, "", "the oldest was not cut");
}

#[tokio::test(flavor = "multi_thread")]
async fn while_all_connections_are_being_answered_a_newcomer_waits() {
    let rig = rig(Limits { connections: 2, ..Limits::default() }).await;
    let mut busy = Vec::new();
    for _ in 0..2 {
        let mut stream = TcpStream::connect(rig.http).await.unwrap();
        // The interim answer proves that the server is waiting for this body.
        let head = b"POST /ocsp HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n";
        stream.write_all(head).await.unwrap();
        let mut interim = [0; 25];
        stream.read_exact(&mut interim).await.unwrap();
        assert_eq!(&interim, b"HTTP/1.1 100 Continue\r\n\r\n");
        busy.push(stream);
    }
    let mut third = TcpStream::connect(rig.http).await.unwrap();
    third.write_all(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    assert!(tokio::time::timeout(SHORT, third.read_u8()).await.is_err(), "the third connection was served");
    // A flood on plain HTTP leaves HTTPS alone.
    assert_eq!(rig.curl(&[&rig.https_url("/livez")]).status, 200);
    drop(busy);
    let served = tokio::time::timeout(PATIENCE, third.read_u8()).await;
    assert_eq!(served.expect("no place was freed").unwrap(), b'H');
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_revoked_meanwhile_is_refused_on_the_open_connection() {
    let rig = rig(Limits::default()).await;
    let (request, certificate) = rig.enrolled("pump-1").await;
    let mut stream = tls(&rig, Some((&certificate, &request.key))).await;
    let post = |rig: &Rig| {
        let body = std::fs::read_to_string(rig.renewal().base64).unwrap();
        format!(
            "POST /.well-known/est/pumps/simplereenroll HTTP/1.1\r\nHost: x\r\nContent-Type: application/pkcs10\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        )
    };
    let (status, text) = exchange(&mut stream, post(&rig).as_bytes()).await;
    assert_eq!(status, 200, "{text}");
    rig.revoke(rig.serial(&certificate)).await;
    let (status, text) = exchange(&mut stream, post(&rig).as_bytes()).await;
    assert!(matches!(status, 401 | 403), "{status} {text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn when_it_stops_idle_connections_close_and_new_ones_are_refused() {
    let rig = rig(Limits::default()).await;
    let mut idle = TcpStream::connect(rig.http).await.unwrap();
    assert_eq!(exchange(&mut idle, b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n").await.0, 200);
    rig.tell_to_stop();
    assert_eq!(rest(&mut idle).await, "");
    let address = rig.http;
    rig.stop().await;
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn when_it_stops_what_is_in_flight_is_finished() {
    let rig = rig(Limits::default()).await;
    let mut stream = TcpStream::connect(rig.http).await.unwrap();
    stream.write_all(b"POST /ocsp HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nab").await.unwrap();
    // Another connection's answer proves that the server runs; the first one's body is still open.
    assert_eq!(rig.curl(&[&rig.http_url("/livez")]).status, 200);
    rig.tell_to_stop();
    stream.write_all(b"cd").await.unwrap();
    assert!(rest(&mut stream).await.starts_with("HTTP/1.1 200 "));
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn when_it_stops_a_request_that_does_not_end_is_cut() {
    let rig = rig(Limits { drain: SHORT, ..Limits::default() }).await;
    let mut stream = TcpStream::connect(rig.http).await.unwrap();
    stream.write_all(b"POST /ocsp HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nab").await.unwrap();
    assert_eq!(rig.curl(&[&rig.http_url("/livez")]).status, 200);
    tokio::time::timeout(PATIENCE, rig.stop()).await.expect("the server did not stop");
    assert!(!rest(&mut stream).await.contains("200"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_modern_client_gets_the_hybrid_post_quantum_group() {
    let rig = rig(Limits::default()).await;
    let stream = tls(&rig, None).await;
    let group = stream.get_ref().1.negotiated_key_exchange_group().unwrap().name();
    assert_eq!(group, rustls::NamedGroup::X25519MLKEM768);
}

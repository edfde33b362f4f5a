//! The built-in echo server.

use kf_broker::{BrokerConnector, Cut, EchoBroker, EchoSettings};
use kf_testkit::{ForeignAuthority, IssuedIdentity};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::fleet::{DEADLINE, client_tls, crl, identity};

async fn start(authority: &ForeignAuthority, with_crl: bool) -> EchoBroker {
    let server = authority.issue_server(&["localhost"]);
    let settings = EchoSettings {
        name: "echo".to_owned(),
        listen: "127.0.0.1:0".parse().unwrap(),
        identity: identity(authority, &server),
        crls: if with_crl { vec![crl(authority, &[])] } else { Vec::new() },
        max_sessions: 8,
    };
    EchoBroker::start(settings).await.unwrap()
}

type Session = BufReader<TlsStream<TcpStream>>;

async fn say(session: &mut Session, text: &str) -> Option<String> {
    session.get_mut().write_all(format!("{text}\n").as_bytes()).await.ok()?;
    let mut answer = String::new();
    let read = tokio::time::timeout(DEADLINE, session.read_line(&mut answer)).await.unwrap().ok()?;
    (read > 0).then(|| answer.trim_end().to_owned())
}

/// A session in which a line has come back; `None` when the server refused.
async fn connect(broker: &EchoBroker, authority: &ForeignAuthority, device: &IssuedIdentity) -> Option<Session> {
    let connector = TlsConnector::from(client_tls(authority, device));
    let stream = TcpStream::connect(broker.address()).await.unwrap();
    let stream = connector.connect(ServerName::try_from("localhost").unwrap(), stream).await.ok()?;
    let mut session = BufReader::new(stream);
    (say(&mut session, "hello").await? == "hello").then_some(session)
}

#[tokio::test]
async fn a_revoked_device_is_cut_and_does_not_come_back_until_its_hold_is_released() {
    let authority = ForeignAuthority::new();
    let broker = start(&authority, true).await;
    let (good, bad) = (authority.issue_client("good"), authority.issue_client("bad"));
    let mut good_session = connect(&broker, &authority, &good).await.unwrap();
    let mut bad_session = connect(&broker, &authority, &bad).await.unwrap();
    assert_eq!(broker.connected(), ["bad", "good"]);

    let report = broker.enforce(&[crl(&authority, &[bad.serial])], &["bad"], DEADLINE).await;
    assert!(report.crl_published && report.reloaded && report.session_cut && report.verified, "{report:?}");
    assert_eq!(report.failure, None);
    assert_eq!(say(&mut bad_session, "still there?").await, None);
    assert!(connect(&broker, &authority, &bad).await.is_none());
    assert_eq!(say(&mut good_session, "and me?").await.as_deref(), Some("and me?"));

    broker.publish_crls(&[crl(&authority, &[])]).await.unwrap();
    broker.reload().await.unwrap();
    broker.readmit("bad").await.unwrap();
    assert!(connect(&broker, &authority, &bad).await.is_some());
}

#[tokio::test]
async fn a_new_crl_keeps_out_who_is_revoked_even_without_a_cut() {
    let authority = ForeignAuthority::new();
    let broker = start(&authority, true).await;
    let device = authority.issue_client("meter");
    assert!(connect(&broker, &authority, &device).await.is_some());
    broker.publish_crls(&[crl(&authority, &[device.serial])]).await.unwrap();
    broker.reload().await.unwrap();
    assert!(connect(&broker, &authority, &device).await.is_none());
}

#[tokio::test]
async fn without_any_crl_everyone_is_refused() {
    let authority = ForeignAuthority::new();
    let broker = start(&authority, false).await;
    assert!(connect(&broker, &authority, &authority.issue_client("meter")).await.is_none());
    assert!(broker.reload().await.is_err());
    let report = broker.enforce(&[], &["meter"], DEADLINE).await;
    assert!(!report.crl_published && !report.reloaded && !report.verified, "{report:?}");
    assert!(report.failure.is_some());
}

#[tokio::test]
async fn a_device_of_another_fleet_is_refused() {
    let (authority, stranger) = (ForeignAuthority::new(), ForeignAuthority::new());
    let broker = start(&authority, true).await;
    let device = stranger.issue_client("meter");
    let connector = TlsConnector::from({
        let mut identity = identity(&stranger, &device);
        identity.roots = vec![authority.root_der()];
        identity.client_config().unwrap()
    });
    let stream = TcpStream::connect(broker.address()).await.unwrap();
    let session = connector.connect(ServerName::try_from("localhost").unwrap(), stream).await;
    let answered = match session {
        Ok(stream) => say(&mut BufReader::new(stream), "hello").await,
        Err(_refused) => None,
    };
    assert_eq!(answered, None);
}

#[tokio::test]
async fn a_line_without_end_closes_the_session() {
    let authority = ForeignAuthority::new();
    let broker = start(&authority, true).await;
    let mut session = connect(&broker, &authority, &authority.issue_client("meter")).await.unwrap();
    assert_eq!(say(&mut session, &"x".repeat(8_000)).await, None);
    assert!(broker.wait_until("meter", false, DEADLINE).await);
}

#[tokio::test]
async fn cutting_reports_whether_there_was_a_session() {
    let authority = ForeignAuthority::new();
    let broker = start(&authority, true).await;
    assert_eq!(broker.cut("meter").await.unwrap(), Cut::NoSession);
    broker.admit("meter").await.unwrap();
    let _session = connect(&broker, &authority, &authority.issue_client("meter")).await.unwrap();
    assert_eq!(broker.cut("meter").await.unwrap(), Cut::Closed);
    assert!(broker.cut("no/such").await.is_err());
}

//! Connecting over real TLS, to brokers that accept, refuse, stay silent or are not there.

use std::error::Error as _;
use std::net::Ipv4Addr;
use std::sync::Arc;

use bytes::BytesMut;
use kf_testkit::{Answer, ClientCheck, ForeignAuthority, HttpsServer, IssuedIdentity, free_port};
use rumqttc::mqttbytes::v4::{ConnectReturnCode, Publish};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::{AlertDescription, ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::{Client, QoS, open};

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

fn chain_and_key(issued: &IssuedIdentity) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
    let chain = issued.chain.iter().cloned().map(CertificateDer::from).collect();
    (chain, PrivateKeyDer::try_from(issued.pkcs8.clone()).unwrap())
}

fn settings(authority: &ForeignAuthority, client: &IssuedIdentity, port: u16) -> Settings {
    let mut roots = RootCertStore::empty();
    roots.add(authority.root_der().into()).unwrap();
    let (chain, key) = chain_and_key(client);
    let tls = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)
        .unwrap();
    Settings {
        client_id: "meter-1".to_owned(),
        host: "localhost".to_owned(),
        port,
        keep_alive: Duration::from_secs(30),
        max_packet_octets: 1_024,
        tls: Arc::new(tls),
    }
}

/// A broker that accepts one connection after the other.
struct Broker {
    listener: TcpListener,
    acceptor: TlsAcceptor,
}

impl Broker {
    async fn new(authority: &ForeignAuthority) -> Self {
        let (chain, key) = chain_and_key(&authority.issue_server(&["localhost"]));
        let tls = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        Self { listener, acceptor: TlsAcceptor::from(Arc::new(tls)) }
    }

    async fn accept(&self) -> BrokerSession {
        let (stream, _peer) = self.listener.accept().await.unwrap();
        let stream = self.acceptor.accept(stream).await.unwrap();
        let mut session = BrokerSession { stream, received: BytesMut::new() };
        assert!(matches!(session.expect().await, Packet::Connect(_)));
        let mut octets = BytesMut::new();
        ConnAck::new(ConnectReturnCode::Success, false).write(&mut octets).unwrap();
        session.stream.write_all(&octets).await.unwrap();
        session.stream.flush().await.unwrap();
        session
    }
}

struct BrokerSession {
    stream: tokio_rustls::server::TlsStream<TcpStream>,
    received: BytesMut,
}

impl BrokerSession {
    async fn expect(&mut self) -> Packet {
        loop {
            if let Ok(packet) = Packet::read(&mut self.received, usize::MAX) {
                return packet;
            }
            assert_ne!(self.stream.read_buf(&mut self.received).await.unwrap(), 0, "the client has gone");
        }
    }
}

async fn connected(events: &mut EventLoop, broker: &Broker) -> BrokerSession {
    let (event, session) = tokio::join!(events.poll(), broker.accept());
    assert!(matches!(event.unwrap(), Event::Incoming(Packet::ConnAck(_))));
    session
}

async fn bench() -> (Client, EventLoop, Broker) {
    let authority = ForeignAuthority::new();
    let broker = Broker::new(&authority).await;
    let port = broker.listener.local_addr().unwrap().port();
    let (client, events) = open(settings(&authority, &authority.issue_client("meter-1"), port), 8);
    (client, events, broker)
}

#[tokio::test]
async fn what_was_queued_for_a_session_that_ended_is_not_sent_in_the_next() {
    let (client, mut events, broker) = bench().await;
    drop(connected(&mut events, &broker).await);
    client.publish("a", QoS::AtLeastOnce, "stale").await.unwrap();
    let outcome = events.poll().await;
    assert!(matches!(outcome, Err(MqttError::Closed(_))), "{outcome:?}");
    let mut session = connected(&mut events, &broker).await;
    client.publish("a", QoS::AtMostOnce, "fresh").await.unwrap();
    let (outcome, packet) = tokio::join!(
        async {
            client.disconnect().await.unwrap();
            events.poll().await
        },
        session.expect(),
    );
    assert_eq!(outcome.unwrap(), Event::Disconnected);
    let fresh = Publish::new("a", rumqttc::mqttbytes::QoS::AtMostOnce, "fresh");
    assert_eq!(packet, Packet::Publish(fresh));
    assert_eq!(session.expect().await, Packet::Disconnect);
}

#[tokio::test]
async fn a_refused_certificate_shows_as_the_alert_at_the_end_of_the_sources() {
    let authority = ForeignAuthority::new();
    let check = ClientCheck::Roots(vec![authority.root_der()]);
    let server = HttpsServer::start(&authority.issue_server(&["localhost"]), check, |_| Answer::HangUp).await;
    let stranger = ForeignAuthority::new().issue_client("meter-1");
    let (_client, mut events) = open(settings(&authority, &stranger, server.port()), 8);
    let error = events.poll().await.unwrap_err();
    assert!(matches!(error, MqttError::Transport(_) | MqttError::Handshake(_)), "{error:?}");
    assert!(error.source().is_some_and(|source| source.is::<io::Error>()));
    let alert = kf_client::alert_in(&error);
    assert!(
        matches!(alert, Some(AlertDescription::UnknownCA | AlertDescription::DecryptError)),
        "{alert:?} in {error:?}"
    );
}

#[tokio::test]
async fn a_broker_with_a_strange_certificate_is_refused_before_connect_is_sent() {
    let authority = ForeignAuthority::new();
    let (_client, mut events, broker) = {
        let broker = Broker::new(&ForeignAuthority::new()).await;
        let port = broker.listener.local_addr().unwrap().port();
        let (client, events) = open(settings(&authority, &authority.issue_client("meter-1"), port), 8);
        (client, events, broker)
    };
    let refuse = async {
        let (stream, _peer) = broker.listener.accept().await.unwrap();
        assert!(broker.acceptor.accept(stream).await.is_err());
    };
    let (outcome, ()) = tokio::join!(events.poll(), refuse);
    assert!(matches!(outcome, Err(MqttError::Handshake(_))), "{outcome:?}");
}

#[tokio::test]
async fn nobody_there_and_a_host_that_is_none_are_told_apart() {
    let authority = ForeignAuthority::new();
    let mut settings = settings(&authority, &authority.issue_client("meter-1"), free_port());
    let (_client, mut events) = open(settings.clone(), 8);
    assert!(matches!(events.poll().await, Err(MqttError::Connect(_))));
    settings.host = "not a host".to_owned();
    let (_client, mut events) = open(settings, 8);
    assert!(matches!(events.poll().await, Err(MqttError::Host { .. })));
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_says_nothing_is_given_up_at_each_step() {
    let authority = ForeignAuthority::new();
    let settings = settings(&authority, &authority.issue_client("meter-1"), 1);
    let (ours, _theirs) = tokio::io::duplex(64 * 1024);
    let start = Instant::now();
    let outcome = handshake(&settings, ServerName::try_from("localhost").unwrap(), ours).await.map(drop);
    assert!(matches!(outcome, Err(MqttError::Timeout { step: "TLS handshake" })), "{outcome:?}");
    assert_eq!(start.elapsed().as_secs(), STEP_DEADLINE.as_secs());
    let (ours, _theirs) = tokio::io::duplex(1_024);
    let outcome = accept(&settings, ours).await.map(drop);
    assert!(matches!(outcome, Err(MqttError::Timeout { step: "CONNACK" })), "{outcome:?}");
    assert_eq!(start.elapsed().as_secs(), 2 * STEP_DEADLINE.as_secs());
}

//! Sessions over a pipe in memory; the broker's side is written out here, with the same codec.

use std::sync::Arc;

use proptest::prelude::*;
use rumqttc::mqttbytes::v4::{PingResp, Publish, SubAck};
use tokio::io::DuplexStream;

use super::*;
use crate::client::{Client, RequestError};

const KEEP_ALIVE: Duration = Duration::from_secs(30);
const MAX_PACKET_OCTETS: usize = 1_024;

fn settings() -> Settings {
    let tls = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    Settings {
        client_id: "meter-1".to_owned(),
        host: "localhost".to_owned(),
        port: 1,
        keep_alive: KEEP_ALIVE,
        max_packet_octets: MAX_PACKET_OCTETS,
        tls: Arc::new(tls),
    }
}

/// The broker's end of the pipe.
struct Broker {
    stream: DuplexStream,
    received: BytesMut,
}

impl Broker {
    async fn expect(&mut self) -> Packet {
        loop {
            match Packet::read(&mut self.received, usize::MAX) {
                Ok(packet) => return packet,
                Err(CodecError::InsufficientBytes(_)) => {}
                Err(error) => panic!("the client sent no packet: {error}"),
            }
            assert_ne!(self.stream.read_buf(&mut self.received).await.unwrap(), 0, "the client has gone");
        }
    }

    async fn say(&mut self, packet: Packet) {
        let mut octets = BytesMut::new();
        packet.write(&mut octets, usize::MAX).unwrap();
        self.stream.write_all(&octets).await.unwrap();
    }
}

fn pipe() -> (DuplexStream, Broker) {
    let (ours, theirs) = tokio::io::duplex(256);
    (ours, Broker { stream: theirs, received: BytesMut::new() })
}

fn message(qos: QoS, identifier: u16) -> Packet {
    let mut publish = Publish::new("devices/meter-1/down", qos, "on");
    publish.pkid = identifier;
    Packet::Publish(publish)
}

/// What `open` says when the broker answers CONNECT with `octets` and closes.
async fn opened_with(octets: &[u8]) -> Result<ConnAck, MqttError> {
    let (ours, mut broker) = pipe();
    let settings = settings();
    let answer = async {
        assert!(matches!(broker.expect().await, Packet::Connect(_)));
        broker.stream.write_all(octets).await.unwrap();
        drop(broker);
    };
    let (opened, ()) = tokio::join!(Session::open(ours, &settings), answer);
    opened.map(|(_session, accepted)| accepted)
}

/// A session that is up, the queue it sends from, and the broker.
struct Bench {
    session: Session<DuplexStream>,
    client: Client,
    requests: mpsc::Receiver<Request>,
    broker: Broker,
}

impl Bench {
    async fn new() -> Self {
        let (ours, mut broker) = pipe();
        let settings = settings();
        let accept = async {
            let Packet::Connect(connect) = broker.expect().await else { panic!("no CONNECT") };
            assert_eq!((connect.client_id.as_str(), connect.keep_alive, connect.clean_session), ("meter-1", 30, true));
            broker.say(Packet::ConnAck(ConnAck::new(ConnectReturnCode::Success, false))).await;
        };
        let (opened, ()) = tokio::join!(Session::open(ours, &settings), accept);
        let (client, requests) = Client::with_queue(128, MAX_PACKET_OCTETS);
        Self { session: opened.unwrap().0, client, requests, broker }
    }

    async fn next(&mut self) -> Result<Event, MqttError> {
        self.session.next(&mut self.requests).await
    }
}

#[tokio::test]
async fn a_refusal_tells_its_code() {
    for (octet, expected) in [
        (1, ConnectReturnCode::RefusedProtocolVersion),
        (2, ConnectReturnCode::BadClientId),
        (3, ConnectReturnCode::ServiceUnavailable),
        (4, ConnectReturnCode::BadUserNamePassword),
        (5, ConnectReturnCode::NotAuthorized),
    ] {
        let outcome = opened_with(&[0x20, 2, 0, octet]).await;
        assert!(matches!(outcome, Err(MqttError::Refused { code }) if code == expected), "{outcome:?}");
    }
    assert!(matches!(opened_with(&[0x20, 2, 0, 6]).await, Err(MqttError::Malformed(_))));
}

#[tokio::test]
async fn a_close_before_acceptance_is_not_a_refusal_by_connack() {
    // Nothing; a truncated CONNACK.
    for octets in [&[][..], &[0x20, 2, 0]] {
        let outcome = opened_with(octets).await;
        let Err(error @ MqttError::ClosedBeforeAcceptance(_)) = outcome else { panic!("{outcome:?}") };
        let source = std::error::Error::source(&error).and_then(|source| source.downcast_ref::<io::Error>());
        assert_eq!(source.unwrap().kind(), io::ErrorKind::UnexpectedEof);
    }
}

#[tokio::test]
async fn only_connack_may_come_first() {
    let outcome = opened_with(&[0xd0, 0]).await;
    assert!(matches!(outcome, Err(MqttError::Unexpected { packet: "PINGRESP" })), "{outcome:?}");
}

#[tokio::test]
async fn a_packet_that_announces_too_much_is_refused_before_it_is_read() {
    // PUBLISH of 1,025 octets, of which only the header is ever sent.
    let mut bench = Bench::new().await;
    bench.broker.stream.write_all(&[0x30, 0x81, 0x08]).await.unwrap();
    let outcome = bench.next().await;
    assert!(matches!(outcome, Err(MqttError::TooLarge { octets: 1_025, limit_octets: 1_024 })), "{outcome:?}");
}

#[tokio::test]
async fn a_length_that_never_ends_is_refused() {
    let mut bench = Bench::new().await;
    bench.broker.stream.write_all(&[0x30, 0xff, 0xff, 0xff, 0xff, 0x01]).await.unwrap();
    assert!(matches!(bench.next().await, Err(MqttError::Malformed(_))));
}

#[tokio::test]
async fn a_stream_that_ends_within_a_packet_is_closed_not_malformed() {
    let mut bench = Bench::new().await;
    bench.broker.stream.write_all(&[0x30, 20, 0, 3, b'a']).await.unwrap();
    drop(std::mem::replace(&mut bench.broker.stream, tokio::io::duplex(1).0));
    assert!(matches!(bench.next().await, Err(MqttError::Closed(_))));
}

#[tokio::test]
async fn a_message_with_qos_1_is_acknowledged_and_one_with_qos_2_refused() {
    let mut bench = Bench::new().await;
    bench.broker.say(message(QoS::AtLeastOnce, 7)).await;
    assert_eq!(bench.next().await.unwrap(), Event::Incoming(message(QoS::AtLeastOnce, 7)));
    bench.broker.say(message(QoS::AtMostOnce, 0)).await;
    assert_eq!(bench.next().await.unwrap(), Event::Incoming(message(QoS::AtMostOnce, 0)));
    bench.broker.say(message(QoS::ExactlyOnce, 8)).await;
    let outcome = bench.next().await;
    assert!(matches!(outcome, Err(MqttError::Unexpected { packet: "PUBLISH with QoS 2" })), "{outcome:?}");

    let mut bench = Bench::new().await;
    bench.broker.say(message(QoS::AtLeastOnce, 9)).await;
    bench.next().await.unwrap();
    let Bench { session, requests, broker, .. } = &mut bench;
    tokio::select! {
        outcome = session.next(requests) => panic!("{outcome:?}"),
        packet = broker.expect() => assert_eq!(packet, Packet::PubAck(PubAck::new(9))),
    }
}

#[tokio::test]
async fn requests_go_out_in_order_and_their_answers_come_back() {
    let mut bench = Bench::new().await;
    bench.client.try_subscribe_many(&["a/+", "b/#"], crate::QoS::AtMostOnce).unwrap();
    bench.client.publish("a/b", crate::QoS::AtLeastOnce, "1").await.unwrap();
    let Bench { session, requests, broker, .. } = &mut bench;
    let serve = async {
        let Packet::Subscribe(subscribe) = broker.expect().await else { panic!("no SUBSCRIBE") };
        assert_eq!(subscribe.filters.iter().map(|filter| filter.path.as_str()).collect::<Vec<_>>(), ["a/+", "b/#"]);
        let Packet::Publish(publish) = broker.expect().await else { panic!("no PUBLISH") };
        assert_eq!((publish.topic.as_str(), publish.qos, &publish.payload[..]), ("a/b", QoS::AtLeastOnce, &b"1"[..]));
        assert_ne!(publish.pkid, subscribe.pkid);
        broker.say(Packet::SubAck(SubAck::new(subscribe.pkid, Vec::from([0.try_into().unwrap(); 2])))).await;
        broker.say(Packet::PubAck(PubAck::new(publish.pkid))).await;
    };
    let listen = async {
        assert!(matches!(session.next(requests).await.unwrap(), Event::Incoming(Packet::SubAck(_))));
        assert!(matches!(session.next(requests).await.unwrap(), Event::Incoming(Packet::PubAck(_))));
    };
    tokio::join!(serve, listen);
    bench.broker.say(Packet::PubAck(PubAck::new(99))).await;
    assert!(matches!(bench.next().await, Err(MqttError::Unexpected { packet: "PUBACK" })));
}

#[tokio::test]
async fn unacknowledged_messages_hold_back_further_ones() {
    let mut bench = Bench::new().await;
    for _ in 0..=MAX_IN_FLIGHT {
        bench.client.publish("a", crate::QoS::AtLeastOnce, "").await.unwrap();
    }
    let Bench { session, requests, broker, .. } = &mut bench;
    let all_but_one = async {
        for number in 1..=MAX_IN_FLIGHT {
            let Packet::Publish(publish) = broker.expect().await else { panic!("no PUBLISH") };
            assert_eq!(usize::from(publish.pkid), number);
        }
        broker.say(Packet::PubAck(PubAck::new(1))).await;
    };
    let listen = async { session.next(requests).await.unwrap() };
    let ((), event) = tokio::join!(all_but_one, listen);
    assert_eq!(event, Event::Incoming(Packet::PubAck(PubAck::new(1))));
    assert_eq!(bench.requests.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_ping_follows_every_silence_of_the_keep_alive() {
    let mut bench = Bench::new().await;
    let start = Instant::now();
    for number in 1..=3 {
        let Bench { session, requests, broker, .. } = &mut bench;
        let answer = async {
            assert_eq!(broker.expect().await, Packet::PingReq);
            assert_eq!(start.elapsed().as_secs(), number * KEEP_ALIVE.as_secs());
            let mut octets = BytesMut::new();
            PingResp.write(&mut octets).unwrap();
            broker.stream.write_all(&octets).await.unwrap();
        };
        let (event, ()) = tokio::join!(session.next(requests), answer);
        assert_eq!(event.unwrap(), Event::Incoming(Packet::PingResp));
    }
}

#[tokio::test(start_paused = true)]
async fn a_ping_without_an_answer_ends_the_session() {
    let mut bench = Bench::new().await;
    let start = Instant::now();
    assert!(matches!(bench.next().await, Err(MqttError::PingUnanswered)));
    assert_eq!(start.elapsed().as_secs(), (KEEP_ALIVE + ANSWER_DEADLINE).as_secs());
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_was_there_in_time_counts_however_late_the_caller_is() {
    let mut bench = Bench::new().await;
    let Bench { session, requests, broker, .. } = &mut bench;
    tokio::select! {
        outcome = session.next(requests) => panic!("{outcome:?}"),
        packet = broker.expect() => assert_eq!(packet, Packet::PingReq),
    }
    bench.broker.say(Packet::PingResp).await;
    tokio::time::advance(ANSWER_DEADLINE * 3).await;
    assert_eq!(bench.next().await.unwrap(), Event::Incoming(Packet::PingResp));
}

#[tokio::test]
async fn cancelling_loses_no_octet_of_what_comes_or_goes() {
    let mut bench = Bench::new().await;
    // More than the pipe holds: it goes in parts.
    let payload = vec![b'x'; MAX_PACKET_OCTETS - 100];
    bench.client.publish("a/b", crate::QoS::AtMostOnce, payload.clone()).await.unwrap();
    let mut octets = BytesMut::new();
    message(QoS::AtMostOnce, 0).write(&mut octets, usize::MAX).unwrap();
    for octet in &octets[..octets.len() - 1] {
        bench.broker.stream.write_all(&[*octet]).await.unwrap();
        tokio::select! {
            biased;
            outcome = bench.session.next(&mut bench.requests) => panic!("{outcome:?}"),
            () = tokio::task::yield_now() => {}
        }
    }
    bench.broker.stream.write_all(&octets[octets.len() - 1..]).await.unwrap();
    assert_eq!(bench.next().await.unwrap(), Event::Incoming(message(QoS::AtMostOnce, 0)));
    let Bench { session, requests, broker, .. } = &mut bench;
    tokio::select! {
        outcome = session.next(requests) => panic!("{outcome:?}"),
        packet = broker.expect() => {
            assert!(matches!(packet, Packet::Publish(publish) if publish.payload[..] == payload[..]));
        }
    }
}

#[tokio::test]
async fn leaving_sends_disconnect_and_is_told() {
    let mut bench = Bench::new().await;
    bench.client.disconnect().await.unwrap();
    assert_eq!(bench.next().await.unwrap(), Event::Disconnected);
    assert_eq!(bench.broker.expect().await, Packet::Disconnect);
    assert_eq!(bench.broker.stream.read_buf(&mut bench.broker.received).await.unwrap(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_reads_nothing_cannot_hold_back_the_end() {
    let mut bench = Bench::new().await;
    bench.client.publish("a", crate::QoS::AtMostOnce, vec![0; 512]).await.unwrap();
    bench.client.disconnect().await.unwrap();
    let start = Instant::now();
    assert!(matches!(bench.next().await, Err(MqttError::PingUnanswered)));
    assert_eq!(start.elapsed().as_secs(), (KEEP_ALIVE + ANSWER_DEADLINE).as_secs());
}

#[tokio::test]
async fn requests_that_mqtt_or_the_limits_forbid_are_not_queued() {
    let (client, requests) = Client::with_queue(1, MAX_PACKET_OCTETS);
    let qos = crate::QoS::AtLeastOnce;
    let long = "x".repeat(MAX_STRING_OCTETS + 1);
    for topic in ["", "a/+", "a/#", "a\0b", long.as_str()] {
        assert!(matches!(client.publish(topic, qos, "").await, Err(RequestError::Topic { .. })), "{topic:.9}");
    }
    for filter in ["", "a/#/b", "a+", "a\0b", long.as_str()] {
        assert!(matches!(client.subscribe(filter, qos).await, Err(RequestError::Topic { .. })), "{filter:.9}");
    }
    assert_eq!(client.try_subscribe_many(&[], qos), Err(RequestError::NoFilter));
    // Fixed header 3, topic 2 + 1, identifier 2.
    let largest = MAX_PACKET_OCTETS - 8;
    let refused = client.publish("a", qos, vec![0; largest + 1]).await;
    assert_eq!(refused, Err(RequestError::TooLarge { octets: 1_025, limit_octets: 1_024 }));
    assert_eq!(client.publish("a", qos, vec![0; largest]).await, Ok(()));
    assert_eq!(client.try_subscribe_many(&["a"], qos), Err(RequestError::Full));
    drop(requests);
    assert_eq!(client.try_subscribe_many(&["a"], qos), Err(RequestError::Ended));
    assert_eq!(client.publish("a", qos, "").await, Err(RequestError::Ended));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn no_octets_of_a_broker_make_a_session_panic(
        first in any::<u8>(),
        body in proptest::collection::vec(any::<u8>(), 0..64),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let length = u8::try_from(body.len()).unwrap();
            let octets = [&[first, length][..], &body].concat();
            opened_with(&octets).await.map(drop).unwrap_or_default();
            let mut bench = Bench::new().await;
            bench.broker.stream.write_all(&octets).await.unwrap();
            drop(std::mem::replace(&mut bench.broker.stream, tokio::io::duplex(1).0));
            // It ends after at most one event: the stream holds one frame.
            if bench.next().await.is_ok() {
                prop_assert!(bench.next().await.is_err());
            }
            Ok(())
        })?;
    }
}

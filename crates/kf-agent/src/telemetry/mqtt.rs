//! MQTT 3.1.1 over mutual TLS.

use std::time::Duration;

use rumqttc::{AsyncClient, ConnectionError, Event as MqttEvent, EventLoop, MqttOptions, Packet, QoS};
use rumqttc::{NetworkOptions, TlsConfiguration, Transport};
use tokio::sync::watch;

use super::{Ending, Session, before_acceptance, io_kind};
use crate::event::Event;
use crate::failure::chain_of;

/// The most octets of a packet.
const MAX_PACKET_OCTETS: usize = 64 * 1024;

pub(super) async fn hold(session: &Session<'_>, counter: &mut u64) -> Ending {
    let settings = session.settings;
    let mut options = MqttOptions::new(session.device_name, settings.host.clone(), settings.port);
    options.set_transport(Transport::tls_with_config(TlsConfiguration::Rustls(session.tls.clone())));
    options.set_keep_alive(Duration::from_secs(30));
    options.set_clean_session(true);
    options.set_max_packet_size(MAX_PACKET_OCTETS, MAX_PACKET_OCTETS);
    let (client, mut events) = AsyncClient::new(options, 8);
    let mut network = NetworkOptions::new();
    network.set_tcp_nodelay(true);
    events.set_network_options(network);
    let topic = settings.topic.clone().unwrap_or_else(|| format!("devices/{}/up", session.device_name));
    let acknowledged = watch::Sender::new(None);
    let first = *counter;
    // Neither future is dropped before the session ends: the event loop must not be cancelled between two packets.
    let ending = tokio::select! {
        ending = listen(session, events, &acknowledged, first) => ending,
        () = publish(session, &client, &topic, acknowledged.subscribe(), first) => {
            Ending::Disconnected("the client has ended".to_owned())
        }
    };
    *counter = acknowledged.borrow().unwrap_or(first);
    ending
}

/// Follows the session; `acknowledged` becomes the number of the last acknowledged message once the session is up.
async fn listen(
    session: &Session<'_>,
    mut events: EventLoop,
    acknowledged: &watch::Sender<Option<u64>>,
    first: u64,
) -> Ending {
    loop {
        match events.poll().await {
            Ok(MqttEvent::Incoming(Packet::ConnAck(_))) => {
                session.events.tell(&Event::Connected { broker: session.broker() });
                acknowledged.send_replace(Some(first));
            }
            Ok(MqttEvent::Incoming(Packet::PubAck(_))) => {
                let counter = acknowledged.borrow().unwrap_or(first).saturating_add(1);
                session.events.tell(&Event::Published { counter });
                acknowledged.send_replace(Some(counter));
            }
            Ok(_) => {}
            Err(error) if acknowledged.borrow().is_some() => return Ending::Disconnected(after_acceptance(&error)),
            Err(error) => return refused(&error),
        }
    }
}

fn after_acceptance(error: &ConnectionError) -> String {
    kf_client::alert_in(error).map_or_else(|| chain_of(error), |alert| format!("TLS alert {alert:?}"))
}

fn refused(error: &ConnectionError) -> Ending {
    match error {
        ConnectionError::ConnectionRefused(code) => Ending::Refused(format!("CONNACK {code:?}")),
        // The peer closed between the handshake and CONNACK.
        ConnectionError::MqttState(_) if kf_client::alert_in(error).is_none() && io_kind(error).is_none() => {
            Ending::Refused(format!("closed before it was accepted: {}", chain_of(error)))
        }
        _ => before_acceptance(error),
    }
}

/// Publishes one message per interval, each after the one before it was acknowledged.
async fn publish(
    session: &Session<'_>,
    client: &AsyncClient,
    topic: &str,
    mut acknowledged: watch::Receiver<Option<u64>>,
    first: u64,
) {
    let mut next = first;
    if acknowledged.wait_for(Option::is_some).await.is_err() {
        return;
    }
    let mut interval = session.interval();
    loop {
        interval.tick().await;
        next = next.saturating_add(1);
        if client.publish(topic, QoS::AtLeastOnce, false, session.message(next)).await.is_err() {
            return;
        }
        if acknowledged.wait_for(|done| *done >= Some(next)).await.is_err() {
            return;
        }
    }
}

//! MQTT 3.1.1 over mutual TLS.

use std::time::Duration;

use kf_mqtt::{Client, Event as MqttEvent, EventLoop, MqttError, Packet, QoS, Settings};
use tokio::sync::watch;

use super::{Ending, Session, before_acceptance};
use crate::event::Event;
use crate::failure::chain_of;

/// The most octets of a packet.
const MAX_PACKET_OCTETS: usize = 64 * 1024;
/// How long without a ping.
const KEEP_ALIVE: Duration = Duration::from_secs(30);

pub(super) async fn hold(session: &Session<'_>, counter: &mut u64) -> Ending {
    let settings = session.settings;
    let (client, events) = kf_mqtt::open(
        Settings {
            client_id: session.device_name.to_owned(),
            host: settings.host.clone(),
            port: settings.port,
            keep_alive: KEEP_ALIVE,
            max_packet_octets: MAX_PACKET_OCTETS,
            tls: session.tls.clone(),
        },
        8,
    );
    let topic = settings.topic.clone().unwrap_or_else(|| format!("devices/{}/up", session.device_name));
    let acknowledged = watch::Sender::new(None);
    let first = *counter;
    // Neither future is dropped before the session ends: a session lives only while its event loop is polled.
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

fn after_acceptance(error: &MqttError) -> String {
    kf_client::alert_in(error).map_or_else(|| chain_of(error), |alert| format!("TLS alert {alert:?}"))
}

fn refused(error: &MqttError) -> Ending {
    match error {
        MqttError::Refused { code } => Ending::Refused(format!("CONNACK {code:?}")),
        _ => before_acceptance(error),
    }
}

/// Publishes one message per interval, each after the one before it was acknowledged.
async fn publish(
    session: &Session<'_>,
    client: &Client,
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
        if client.publish(topic, QoS::AtLeastOnce, session.message(next)).await.is_err() {
            return;
        }
        if acknowledged.wait_for(|done| *done >= Some(next)).await.is_err() {
            return;
        }
    }
}

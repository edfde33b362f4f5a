//! MQTT 3.1.1 over mutual TLS.

use std::time::Duration;

use kf_mqtt::{Client, Event as MqttEvent, EventLoop, MqttError, Packet, QoS, Settings};
use tokio::sync::watch;

use super::{Ending, Outbox, Session, before_acceptance};
use crate::event::Event;
use crate::failure::chain_of;

/// The most octets of a packet.
const MAX_PACKET_OCTETS: usize = 64 * 1024;
/// How long without a ping.
const KEEP_ALIVE: Duration = Duration::from_secs(30);

pub(super) async fn hold(session: &Session<'_>, outbox: &mut Outbox) -> Ending {
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
    let topic = topic_of(session);
    let acknowledged = watch::Sender::new(None);
    // Neither future is dropped before the session ends: a session lives only while its event loop is polled.
    tokio::select! {
        ending = listen(session, events, &client, &acknowledged) => ending,
        () = publish(session, &client, &topic, acknowledged.subscribe(), outbox) => {
            Ending::Disconnected("the client has ended".to_owned())
        }
    }
}

fn topic_of(session: &Session<'_>) -> String {
    let Session { settings, device_name, .. } = session;
    match (&settings.topic, &settings.sealed) {
        (Some(topic), _) => topic.clone(),
        (None, Some(sealed)) => format!("devices/{device_name}/sealed/{}", sealed.service),
        (None, None) => format!("devices/{device_name}/up"),
    }
}

/// Follows the session; `acknowledged` becomes the number of acknowledged messages once the session is up.
async fn listen(
    session: &Session<'_>,
    mut events: EventLoop,
    client: &Client,
    acknowledged: &watch::Sender<Option<u64>>,
) -> Ending {
    loop {
        match events.poll().await {
            Ok(MqttEvent::Incoming(Packet::ConnAck(_))) => {
                session.events.tell(&Event::Connected { broker: session.broker() });
                if let Some(orders) = session.orders
                    && let Err(error) = client.try_subscribe_many(&[&orders.topic], QoS::AtLeastOnce)
                {
                    tracing::warn!(%error, "orders are not heard at the broker");
                }
                acknowledged.send_replace(Some(0));
            }
            Ok(MqttEvent::Incoming(Packet::PubAck(_))) => {
                acknowledged.send_modify(|done| *done = done.map(|done| done.saturating_add(1)));
            }
            Ok(MqttEvent::Incoming(Packet::Publish(message))) => {
                let arrivals = session.orders.filter(|orders| orders.topic == message.topic);
                // What does not fit comes by the next question to the server.
                if arrivals.is_some_and(|orders| orders.arrivals.try_send(message.payload.to_vec()).is_err()) {
                    tracing::warn!("an order was left to be fetched: too many at once");
                }
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

/// Publishes one message after the other, each when the one before was acknowledged.
async fn publish(
    session: &Session<'_>,
    client: &Client,
    topic: &str,
    mut acknowledged: watch::Receiver<Option<u64>>,
    outbox: &mut Outbox,
) {
    if acknowledged.wait_for(Option::is_some).await.is_err() {
        return;
    }
    let mut sent = 0_u64;
    loop {
        let message = outbox.next(session.events).await;
        sent = sent.saturating_add(1);
        if client.publish(topic, QoS::AtLeastOnce, message).await.is_err() {
            return;
        }
        if acknowledged.wait_for(|done| *done >= Some(sent)).await.is_err() {
            return;
        }
        outbox.acknowledged(session.events);
    }
}

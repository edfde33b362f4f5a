//! Messages to a broker under the device's identity: a counter that shows that it works, and that it stops working when
//! the device is revoked; or sealed messages of others. Orders come the other way.

mod echo;
mod mqtt;
mod outbox;

use std::sync::Arc;
use std::time::Duration;

use kf_client::{Client, alert_in};
use rustls::ClientConfig;
use tokio::sync::{mpsc, watch};

use crate::clock::Clock;
use crate::config::{Telemetry, TelemetryKind};
use crate::event::{Event, EventSink};
use crate::failure::chain_of;
use crate::identity::Identity;

/// The first wait before another attempt to connect.
const FIRST_WAIT: Duration = Duration::from_millis(200);

/// An identity and whom it believes.
#[derive(Debug)]
pub(crate) struct Material {
    pub(crate) identity: Identity,
    pub(crate) roots: Vec<Vec<u8>>,
}

pub(crate) use outbox::{CounterOutbox, Outbox, SealedOutbox};

/// Where orders come from at the broker, and where they go.
pub(crate) struct OrderInlet {
    pub(crate) topic: String,
    pub(crate) arrivals: mpsc::Sender<Vec<u8>>,
}

/// What is told the broker and what is heard from it.
pub(crate) struct Traffic {
    pub(crate) outbox: Outbox,
    pub(crate) orders: Option<OrderInlet>,
}

pub(crate) type MaterialReceiver = watch::Receiver<Option<Arc<Material>>>;

/// How a session ended.
#[derive(Debug, PartialEq, Eq)]
enum Ending {
    /// Nobody answered.
    Unreachable(String),
    /// The broker did not let us in.
    Refused(String),
    /// It was up and is no longer.
    Disconnected(String),
    /// There is a new identity to connect with.
    IdentityChanged,
}

/// One session's surroundings.
struct Session<'a> {
    settings: &'a Telemetry,
    device_name: &'a str,
    tls: Arc<ClientConfig>,
    events: &'a EventSink,
    orders: Option<&'a OrderInlet>,
}

/// Connects, publishes, and connects again, for as long as the agent runs.
pub(crate) async fn run(
    settings: Telemetry,
    device_name: String,
    clock: Clock,
    events: EventSink,
    mut material: MaterialReceiver,
    traffic: Traffic,
) {
    let Traffic { mut outbox, orders } = traffic;
    let longest = Duration::from_millis(settings.reconnect_max_millis.into());
    let mut wait = FIRST_WAIT.min(longest);
    loop {
        let Ok(current) = material.wait_for(Option::is_some).await.map(|current| current.clone()) else { return };
        let Some(current) = current else { continue };
        let ending = match tls_config(&current, &clock) {
            Err(reason) => Ending::Unreachable(reason),
            Ok(tls) => {
                let orders = orders.as_ref();
                let session = Session { settings: &settings, device_name: &device_name, tls, events: &events, orders };
                tokio::select! {
                    ending = session.hold(&mut outbox) => ending,
                    changed = material.changed() => match changed {
                        Ok(()) => Ending::IdentityChanged,
                        Err(_agent_ended) => return,
                    },
                }
            }
        };
        let was_up = matches!(ending, Ending::Disconnected(_) | Ending::IdentityChanged);
        match ending {
            Ending::Unreachable(reason) => events.tell(&Event::Unreachable { reason }),
            Ending::Refused(reason) => events.tell(&Event::Refused { reason }),
            Ending::Disconnected(reason) => events.tell(&Event::Disconnected { reason }),
            Ending::IdentityChanged => {
                events.tell(&Event::Disconnected { reason: "a new certificate is in use".to_owned() });
                continue;
            }
        }
        wait = if was_up { FIRST_WAIT.min(longest) } else { wait };
        tokio::select! {
            () = tokio::time::sleep(jittered(wait)) => {}
            changed = material.changed() => if changed.is_err() { return },
        }
        wait = wait.saturating_mul(2).min(longest);
    }
}

/// Three quarters to all of a wait.
fn jittered(wait: Duration) -> Duration {
    let [octet] = kf_crypto::random_array::<1>().unwrap_or_default();
    wait.saturating_mul(768 + u32::from(octet)) / 1_024
}

fn tls_config(material: &Material, clock: &Clock) -> Result<Arc<ClientConfig>, String> {
    let Material { identity, roots } = material;
    let client = Client::builder()
        .roots(roots.clone())
        .identity(identity.chain.clone(), identity.key.clone())
        .time(Arc::new(clock.clone()))
        .build();
    client.map_err(|error| chain_of(&error))?.tls_config().ok_or_else(|| "no anchors".to_owned())
}

impl Session<'_> {
    async fn hold(&self, outbox: &mut Outbox) -> Ending {
        match self.settings.kind {
            TelemetryKind::Mqtt => mqtt::hold(self, outbox).await,
            TelemetryKind::Echo => echo::hold(self, outbox).await,
        }
    }

    fn broker(&self) -> String {
        format!("{}:{}", self.settings.host, self.settings.port)
    }
}

/// How often the counter is told.
pub(crate) fn interval(settings: &Telemetry) -> tokio::time::Interval {
    let mut interval = tokio::time::interval(Duration::from_millis(settings.interval_millis.into()));
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    interval
}

fn message(device_name: &str, counter: u64) -> String {
    serde_json::json!({ "device": device_name, "counter": counter }).to_string()
}

/// What an error before the broker's acceptance means. With TLS 1.3 a refused certificate shows at the first read, and
/// the alert may be lost in a reset connection: a session that was closed before it began counts as refused.
fn before_acceptance(error: &(dyn std::error::Error + 'static)) -> Ending {
    if let Some(alert) = alert_in(error) {
        return Ending::Refused(format!("TLS alert {alert:?}"));
    }
    let text = chain_of(error);
    match io_kind(error) {
        Some(
            std::io::ErrorKind::ConnectionReset
            | std::io::ErrorKind::ConnectionAborted
            | std::io::ErrorKind::BrokenPipe
            | std::io::ErrorKind::UnexpectedEof,
        ) => Ending::Refused(format!("closed before it was accepted: {text}")),
        _ => Ending::Unreachable(text),
    }
}

fn io_kind(error: &(dyn std::error::Error + 'static)) -> Option<std::io::ErrorKind> {
    const MAX_DEPTH: usize = 8;
    let mut current = Some(error);
    for _ in 0..MAX_DEPTH {
        let error = current?;
        if let Some(io) = error.downcast_ref::<std::io::Error>() {
            return Some(io.kind());
        }
        current = error.source();
    }
    None
}

//! The connector's own session at the broker: it carries commands and listens to the log.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kf_mqtt::{Client, Event, EventLoop, Packet, QoS, Settings};
use rustls::ClientConfig;
use serde_json::Value;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::dynamic_security::{Batch, parse_response};
use super::log_line::{self, LogLine};
use super::sessions::Sessions;
use crate::BrokerError;

const CONTROL_TOPIC: &str = "$CONTROL/dynamic-security/v1";
const RESPONSE_TOPIC: &str = "$CONTROL/dynamic-security/v1/response";
const LOG_TOPICS: [&str; 3] = ["$SYS/broker/log/N", "$SYS/broker/log/I", "$SYS/broker/log/E"];
/// The most octets of a packet in either direction.
const MAX_PACKET_OCTETS: usize = 256 * 1024;
/// How long without a ping.
const KEEP_ALIVE: Duration = Duration::from_secs(20);
/// The most error lines that are kept.
const MAX_ERROR_LINES: usize = 16;
/// How long a step waits for the session to be there at all.
const CONNECT_DEADLINE: Duration = Duration::from_secs(3);
const FIRST_RECONNECT_WAIT: Duration = Duration::from_millis(250);
const LAST_RECONNECT_WAIT: Duration = Duration::from_secs(30);

/// Where the broker listens and as whom to connect.
#[derive(Clone)]
pub(crate) struct Endpoint {
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) tls: Arc<ClientConfig>,
}

impl Endpoint {
    fn settings(&self, client_id: &str) -> Settings {
        Settings {
            client_id: client_id.to_owned(),
            host: self.host.clone(),
            port: self.port,
            keep_alive: KEEP_ALIVE,
            max_packet_octets: MAX_PACKET_OCTETS,
            tls: self.tls.clone(),
        }
    }

    fn address(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }
}

/// What a command found on the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CommandOutcome {
    /// The broker's log spoke of a session that it closed by command.
    pub(crate) closed_session: bool,
}

#[derive(Debug, Default)]
struct State {
    ready: bool,
    last_failure: String,
    answer: Option<(u64, Vec<Value>)>,
    sessions: Sessions,
    log_lines: u64,
    closed_by_command: u64,
    reloads: u64,
    subscribe_acknowledgements: u64,
    /// Messages of this session, and how many of them the broker has acknowledged.
    published: u64,
    acknowledged: u64,
    error_lines: Vec<String>,
}

struct Shared {
    state: Mutex<State>,
    changed: watch::Sender<()>,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while holding it; if it did, the counters would still be whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connected session; commands go one at a time.
pub(crate) struct ControlChannel {
    endpoint: Endpoint,
    client: Client,
    shared: Arc<Shared>,
    turn: tokio::sync::Mutex<u64>,
    task: JoinHandle<()>,
}

impl Drop for ControlChannel {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl ControlChannel {
    /// Begins to connect, and to connect again whenever the session ends. Needs a tokio runtime.
    pub(crate) fn open(endpoint: Endpoint, client_id: &str) -> Self {
        let (client, events) = kf_mqtt::open(endpoint.settings(client_id), 16);
        let shared = Arc::new(Shared { state: Mutex::default(), changed: watch::Sender::new(()) });
        let task = tokio::spawn(listen(events, client.clone(), shared.clone()));
        Self { endpoint, client, shared, turn: tokio::sync::Mutex::new(0), task }
    }

    /// Ends the session for good; commands in progress fail.
    pub(crate) fn close(&self) {
        self.task.abort();
        let mut state = self.shared.state();
        state.ready = false;
        state.last_failure = "the session has been replaced".to_owned();
        drop(state);
        self.shared.changed.send_replace(());
    }

    /// Waits until `look` finds what it wants in the state.
    async fn wait_for<T>(&self, deadline: Duration, mut look: impl FnMut(&mut State) -> Option<T>) -> Option<T> {
        let mut changes = self.shared.changed.subscribe();
        let found = async {
            loop {
                if let Some(found) = look(&mut self.shared.state()) {
                    return Some(found);
                }
                changes.changed().await.ok()?;
            }
        };
        tokio::time::timeout(deadline, found).await.ok().flatten()
    }

    async fn wait_ready(&self, deadline: Duration) -> Result<(), BrokerError> {
        let ready = self.wait_for(deadline.min(CONNECT_DEADLINE), |state| state.ready.then_some(())).await;
        ready.ok_or_else(|| BrokerError::Unreachable {
            address: self.endpoint.address(),
            reason: self.shared.state().last_failure.clone(),
        })
    }

    /// Sends a batch of commands and checks the answers.
    pub(crate) async fn command(&self, batch: &Batch, deadline: Duration) -> Result<CommandOutcome, BrokerError> {
        let mut turn = self.turn.lock().await;
        self.wait_ready(deadline).await?;
        *turn = turn.wrapping_add(1);
        let correlation = *turn;
        let closed_before = {
            let mut state = self.shared.state();
            state.answer = None;
            state.published = state.published.saturating_add(1);
            state.closed_by_command
        };
        let message = batch.message(correlation);
        self.client
            .publish(CONTROL_TOPIC, QoS::AtLeastOnce, message)
            .await
            .map_err(|error| self.unreachable(&error))?;
        let answer = self.wait_for(deadline, |state| match state.answer.take() {
            Some((number, answer)) if number == correlation => Some(Ok(answer)),
            _ if !state.ready => Some(Err(state.last_failure.clone())),
            _ => None,
        });
        match answer.await {
            Some(Ok(responses)) => batch.check(&responses)?,
            Some(Err(reason)) => {
                return Err(BrokerError::Unreachable { address: self.endpoint.address(), reason });
            }
            None => return Err(BrokerError::Timeout { step: "command" }),
        }
        Ok(CommandOutcome { closed_session: self.shared.state().closed_by_command != closed_before })
    }

    /// Publishes a message; returns when the broker has acknowledged it.
    pub(crate) async fn publish(&self, topic: &str, message: &[u8], deadline: Duration) -> Result<(), BrokerError> {
        let _turn = self.turn.lock().await;
        self.wait_ready(deadline).await?;
        let number = {
            let mut state = self.shared.state();
            state.published = state.published.saturating_add(1);
            state.published
        };
        self.client.publish(topic, QoS::AtLeastOnce, message).await.map_err(|error| self.unreachable(&error))?;
        let taken = self.wait_for(deadline, |state| match state.ready {
            false => Some(Err(state.last_failure.clone())),
            true => (state.acknowledged >= number).then_some(Ok(())),
        });
        match taken.await {
            Some(Ok(())) => Ok(()),
            Some(Err(reason)) => Err(BrokerError::Unreachable { address: self.endpoint.address(), reason }),
            None => Err(BrokerError::Timeout { step: "publish" }),
        }
    }

    /// One trip around the broker's loop, by a subscription that changes nothing.
    pub(crate) async fn round_trip(&self, deadline: Duration) -> Result<(), BrokerError> {
        let _turn = self.turn.lock().await;
        self.wait_ready(deadline).await?;
        let before = self.shared.state().subscribe_acknowledgements;
        let [topic, ..] = LOG_TOPICS;
        self.client.subscribe(topic, QoS::AtMostOnce).await.map_err(|error| self.unreachable(&error))?;
        let done = self.wait_for(deadline, |state| (state.subscribe_acknowledgements != before).then_some(()));
        done.await.ok_or(BrokerError::Timeout { step: "round trip" })
    }

    fn unreachable(&self, error: &kf_mqtt::RequestError) -> BrokerError {
        BrokerError::Unreachable { address: self.endpoint.address(), reason: error.to_string() }
    }

    /// Whether the broker's log reaches us.
    pub(crate) fn hears_log(&self) -> bool {
        self.shared.state().log_lines > 0
    }

    /// How often the broker said that it reads its configuration again.
    pub(crate) fn reloads(&self) -> u64 {
        self.shared.state().error_lines.clear();
        self.shared.state().reloads
    }

    /// Waits for one more reload than `before`.
    pub(crate) async fn wait_reload(&self, before: u64, deadline: Duration) -> bool {
        self.wait_for(deadline, |state| (state.reloads != before).then_some(())).await.is_some()
    }

    /// The error lines since [`ControlChannel::reloads`] was called.
    pub(crate) fn errors(&self) -> Vec<String> {
        self.shared.state().error_lines.clone()
    }

    /// Begins to watch a name; `false` when too many are watched.
    pub(crate) fn watch(&self, device_name: &str) -> bool {
        self.shared.state().sessions.watch(device_name)
    }

    pub(crate) fn forget(&self, device_name: &str) {
        self.shared.state().sessions.forget(device_name);
    }

    /// Whether the name holds a session; `None` when it is not watched, or no longer.
    pub(crate) fn is_connected(&self, device_name: &str) -> Option<bool> {
        self.shared.state().sessions.is_connected(device_name)
    }

    /// Waits until the name holds no session.
    pub(crate) async fn wait_gone(&self, device_name: &str, deadline: Duration) -> bool {
        let gone = |state: &mut State| (state.sessions.is_connected(device_name) == Some(false)).then_some(());
        self.wait_for(deadline, gone).await.is_some()
    }
}

async fn listen(mut events: EventLoop, client: Client, shared: Arc<Shared>) {
    let mut wait = FIRST_RECONNECT_WAIT;
    loop {
        match events.poll().await {
            Ok(Event::Incoming(Packet::ConnAck(_))) => {
                wait = FIRST_RECONNECT_WAIT;
                let [notices, information, errors] = LOG_TOPICS;
                let filters = [notices, information, errors, RESPONSE_TOPIC];
                if let Err(error) = client.try_subscribe_many(&filters, QoS::AtMostOnce) {
                    shared.state().last_failure = error.to_string();
                }
            }
            Ok(Event::Incoming(Packet::SubAck(_))) => {
                let mut state = shared.state();
                state.ready = true;
                state.subscribe_acknowledgements = state.subscribe_acknowledgements.wrapping_add(1);
            }
            Ok(Event::Incoming(Packet::PubAck(_))) => {
                let mut state = shared.state();
                state.acknowledged = state.acknowledged.saturating_add(1);
            }
            Ok(Event::Incoming(Packet::Publish(publish))) => {
                observe(&mut shared.state(), &publish.topic, &publish.payload);
            }
            Ok(_) => continue,
            Err(error) => {
                {
                    let mut state = shared.state();
                    state.ready = false;
                    state.log_lines = 0;
                    (state.published, state.acknowledged) = (0, 0);
                    state.sessions.interrupted();
                    state.last_failure = reason(&error);
                }
                shared.changed.send_replace(());
                tokio::time::sleep(wait).await;
                wait = wait.saturating_mul(2).min(LAST_RECONNECT_WAIT);
            }
        }
        shared.changed.send_replace(());
    }
}

fn observe(state: &mut State, topic: &str, payload: &[u8]) {
    if topic == RESPONSE_TOPIC {
        if let Some(answer) = parse_response(payload) {
            state.answer = Some(answer);
        }
        return;
    }
    state.log_lines = state.log_lines.saturating_add(1);
    let text = String::from_utf8_lossy(payload);
    let line = log_line::parse(&text);
    match line {
        LogLine::Reloading => state.reloads = state.reloads.wrapping_add(1),
        LogLine::Ended { by_command: true, .. } => state.closed_by_command = state.closed_by_command.wrapping_add(1),
        LogLine::LoadError(error) if state.error_lines.len() < MAX_ERROR_LINES => {
            state.error_lines.push(error.chars().take(200).collect());
        }
        _ => {}
    }
    state.sessions.observe(&line);
}

/// An error and its sources in one line.
fn reason(error: &kf_mqtt::MqttError) -> String {
    const MAX_DEPTH: usize = 8;
    let first: &dyn std::error::Error = error;
    let chain = std::iter::successors(Some(first), |error| error.source()).take(MAX_DEPTH);
    chain.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// Connects under the client identifier `client_id`, which makes the broker close the session that holds it (MQTT 3.1.1
/// section 3.1.4, MQTT-3.1.4-2), and leaves again.
pub(crate) async fn take_over(endpoint: &Endpoint, client_id: &str, deadline: Duration) -> Result<(), BrokerError> {
    let (client, mut events) = kf_mqtt::open(endpoint.settings(client_id), 4);
    let unreachable = |reason: String| BrokerError::Unreachable { address: endpoint.address(), reason };
    let visit = async {
        loop {
            match events.poll().await.map_err(|error| unreachable(reason(&error)))? {
                Event::Incoming(Packet::ConnAck(_)) => {
                    client.disconnect().await.map_err(|error| unreachable(error.to_string()))?;
                }
                Event::Disconnected => return Ok(()),
                _ => {}
            }
        }
    };
    tokio::time::timeout(deadline, visit).await.map_err(|_elapsed| BrokerError::Timeout { step: "take over" })?
}

//! `keyfleet relay`: sealed topics of a broker that nobody trusts become plain topics of a local one.
//!
//! Three things run side by side: a session that receives, calls that open, a session that publishes. Between the first
//! two lies a queue with a limit. A message is acknowledged to the first broker when it is received, so what a stop, a
//! full queue or a lost answer of the server costs is not sent again; what was opened is published until the second
//! broker acknowledges it.

mod destination;
mod source;
mod totals;

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use clap::Args;
use kf_api::sealed::{MAX_PAYLOADS, OpenAnswer, OpenOutcome, OpenRefusal, OpenRequest, SealedPayload};
use kf_client::{Client, TlsKey};
use kf_mqtt::Settings;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use crate::api::{Api, Context};
use crate::failure::Failure;
use crate::output::say;
use crate::profile::{certificates, private_key};
use destination::{Destination, Message};
use source::{Received, Source};
use totals::Totals;

/// The most octets of a sealed payload, rounded up: what is larger is refused here.
const MAX_ENVELOPE_OCTETS: usize = 17 * 1024;
/// The most octets of a packet of MQTT.
const MAX_PACKET_OCTETS: usize = 64 * 1024;
const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// How long to wait before the first further attempt at something that failed, and at most.
const FIRST_REST: Duration = Duration::from_millis(500);
const LONGEST_REST: Duration = Duration::from_secs(30);
/// How long a stopped relay goes on with what it has received.
const LAST_WORK: Duration = Duration::from_secs(5);
/// Requests that wait for a session of MQTT.
const MAX_WAITING: usize = 2 * MAX_PAYLOADS;

/// From where to where.
#[derive(Debug, Args)]
pub(crate) struct Relay {
    /// The broker of the sealed topics, as its certificate names it
    #[arg(long, value_name = "HOST:PORT")]
    broker: Address,
    /// The CA certificates that the broker's must descend from, PEM
    #[arg(long, value_name = "FILE")]
    ca: PathBuf,
    /// The relay's certificate with its chain, PEM, leaf first
    #[arg(long, value_name = "FILE")]
    cert: PathBuf,
    /// Its private key, PKCS#8 PEM, readable by its owner only
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// The sealed topics: filters of MQTT, 1 to 16
    #[arg(long, value_name = "FILTER", required = true)]
    from: Vec<String>,
    /// Plain topics are TO/DEVICE/SERVICE, with the authentic names, whatever topic the payload came by
    #[arg(long, value_name = "TOPIC")]
    to: String,
    /// The broker of the plain topics [default: the same]
    #[arg(long, value_name = "HOST:PORT")]
    to_broker: Option<Address>,
    /// CA certificates of that broker [default: --ca]
    #[arg(long, value_name = "FILE")]
    to_ca: Option<PathBuf>,
    /// The relay's certificate there [default: --cert]
    #[arg(long, value_name = "FILE", requires = "to_key")]
    to_cert: Option<PathBuf>,
    /// Its private key [default: --key]
    #[arg(long, value_name = "FILE", requires = "to_cert")]
    to_key: Option<PathBuf>,
    /// Identifier of the receiving session; the publishing one adds `-out`
    #[arg(long, value_name = "ID", default_value = "keyfleet-relay")]
    client_id: String,
    /// Senders bind payloads to their topic as external additional data
    #[arg(long)]
    bind_topic: bool,
    /// Messages that may wait to be opened; what comes when it is full is dropped and counted
    #[arg(long, value_name = "N", default_value_t = 1_024, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    queue: u32,
}

/// A broker.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Address {
    host: String,
    port: u16,
}

impl std::str::FromStr for Address {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        const WANTED: &str = "write HOST:PORT, for example broker.example:8883";
        let (host, port) = text.rsplit_once(':').ok_or(WANTED)?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let port = port.parse().map_err(|_not_a_port| WANTED)?;
        if host.is_empty() { Err(WANTED) } else { Ok(Self { host: host.to_owned(), port }) }
    }
}

impl Address {
    fn settings(&self, client_id: String, tls: Arc<rustls::ClientConfig>) -> Settings {
        let Self { host, port } = self.clone();
        Settings { client_id, host, port, keep_alive: KEEP_ALIVE, max_packet_octets: MAX_PACKET_OCTETS, tls }
    }
}

fn tls(ca: &Path, cert: &Path, key: &Path) -> Result<Arc<rustls::ClientConfig>, Failure> {
    let key: Arc<dyn TlsKey> = Arc::new(private_key(key)?);
    let client = Client::builder().roots(certificates(ca)?).identity(certificates(cert)?, key).build()?;
    client.tls_config().ok_or_else(|| Failure::local("no TLS settings", "give --ca, --cert and --key"))
}

pub(crate) async fn run(context: &Context, relay: Relay) -> Result<(), Failure> {
    if relay.from.len() > 16 {
        return Err(Failure::usage("more than 16 filters", "start another relay for the others"));
    }
    if relay.to.is_empty() || relay.to.contains(['+', '#', '\0']) {
        return Err(Failure::usage("--to is no topic", "give the beginning of the plain topics, for example plain"));
    }
    let totals = RefCell::new(Totals::default());
    let outcome = relay_until_stopped(context, &relay, &totals).await;
    let printed = totals.borrow().print(context.format);
    outcome.and(printed)
}

async fn relay_until_stopped(context: &Context, relay: &Relay, totals: &RefCell<Totals>) -> Result<(), Failure> {
    let mut api = context.api()?;
    // What is wrong with the profile shows here, not with the first message.
    let _who: kf_api::operator::WhoAmI = api.get("/v1/whoami").await?;
    let from_tls = tls(&relay.ca, &relay.cert, &relay.key)?;
    let to_tls = tls(
        relay.to_ca.as_ref().unwrap_or(&relay.ca),
        relay.to_cert.as_ref().unwrap_or(&relay.cert),
        relay.to_key.as_ref().unwrap_or(&relay.key),
    )?;
    let to_broker = relay.to_broker.as_ref().unwrap_or(&relay.broker);
    let destination = Destination::new();
    let (to_client, to_events) =
        kf_mqtt::open(to_broker.settings(format!("{}-out", relay.client_id), to_tls), MAX_WAITING);
    let (client, events) = kf_mqtt::open(relay.broker.settings(relay.client_id.clone(), from_tls), 8);
    let (sender, receiver) = mpsc::channel(usize::try_from(relay.queue).unwrap_or(1));
    let source = Source { client, events, filters: &relay.from, queue: sender, totals };
    let opening = Opening { api, relay, totals, destination: &destination, client: &to_client };
    let mut stop = stop_signals()?;

    let mut publishing = std::pin::pin!(destination.keep(to_events));
    let mut forwarding = std::pin::pin!(opening.forward(receiver));
    {
        let receiving = std::pin::pin!(source.receive());
        tokio::select! {
            failure = receiving => return Err(failure),
            () = &mut publishing => {}
            done = &mut forwarding => return done,
            () = &mut stop => {}
        }
    }
    // The queue has lost its sender: what it holds is the last work.
    tokio::select! {
        () = &mut publishing => Ok(()),
        done = &mut forwarding => done,
        () = tokio::time::sleep(LAST_WORK) => Ok(()),
    }
}

/// Resolves when the process is to end.
fn stop_signals() -> Result<std::pin::Pin<Box<dyn Future<Output = ()>>>, Failure> {
    let listen = |kind| {
        signal(kind).map_err(|error| Failure::local(format!("no signals: {error}"), "raise the limit on open files"))
    };
    let (mut terminate, mut interrupt) = (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?);
    Ok(Box::pin(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    }))
}

/// What opens and hands on.
struct Opening<'a> {
    api: Api,
    relay: &'a Relay,
    totals: &'a RefCell<Totals>,
    destination: &'a Destination,
    client: &'a kf_mqtt::Client,
}

impl Opening<'_> {
    /// Works until the queue has no sender any longer and is empty.
    async fn forward(mut self, mut queue: mpsc::Receiver<Received>) -> Result<(), Failure> {
        let mut batch = Vec::with_capacity(MAX_PAYLOADS);
        while queue.recv_many(&mut batch, MAX_PAYLOADS).await > 0 {
            let payloads = self.payloads(&mut batch);
            if payloads.is_empty() {
                continue;
            }
            let answer = self.open(&OpenRequest { payloads }).await?;
            let messages = self.judged(answer);
            self.destination.publish(self.client, &messages, self.totals).await;
        }
        Ok(())
    }

    fn payloads(&self, batch: &mut Vec<Received>) -> Vec<SealedPayload> {
        let fitting = |received: &Received| received.payload.len() <= MAX_ENVELOPE_OCTETS;
        let bound = |topic: String| if self.relay.bind_topic { BASE64_STANDARD.encode(topic) } else { String::new() };
        let mut payloads = Vec::with_capacity(batch.len());
        for received in batch.drain(..) {
            if !fitting(&received) {
                self.totals.borrow_mut().refused(OpenRefusal::Malformed, "too large for a sealed payload");
                continue;
            }
            let envelope = BASE64_STANDARD.encode(received.payload);
            payloads.push(SealedPayload { envelope, external_aad: bound(received.topic) });
        }
        payloads
    }

    /// Asks the server until it answers. What only a person can mend ends the relay.
    async fn open(&mut self, request: &OpenRequest) -> Result<OpenAnswer, Failure> {
        let mut rest = FIRST_REST;
        loop {
            match self.api.post("/v1/open", request).await {
                Ok(answer) => return Ok(answer),
                Err(failure) if failure.is_passing() => {
                    say(&format!("the server does not open payloads, again in {} ms: {failure}", rest.as_millis()));
                    tokio::time::sleep(rest).await;
                    rest = (rest * 2).min(LONGEST_REST);
                }
                Err(failure) => return Err(failure),
            }
        }
    }

    fn judged(&self, answer: OpenAnswer) -> Vec<Message> {
        let mut messages = Vec::with_capacity(answer.payloads.len());
        for outcome in answer.payloads {
            match outcome {
                OpenOutcome::Opened(opened) => {
                    let topic = format!("{}/{}/{}", self.relay.to, opened.device_name, opened.service);
                    let payload = BASE64_STANDARD.decode(opened.plaintext).unwrap_or_default();
                    messages.push(Message { topic, payload });
                }
                OpenOutcome::Refused { refusal, problem } => self.totals.borrow_mut().refused(refusal, &problem),
            }
        }
        messages
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_host_and_a_port() {
        let address = |host: &str, port| Ok(Address { host: host.to_owned(), port });
        assert_eq!("broker.example:8883".parse(), address("broker.example", 8_883));
        assert_eq!("[::1]:1".parse(), address("::1", 1));
        for wrong in ["", "broker", ":1", "broker:", "broker:65536"] {
            assert!(wrong.parse::<Address>().is_err(), "{wrong}");
        }
    }
}

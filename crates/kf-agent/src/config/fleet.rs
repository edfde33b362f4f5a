//! What the device does for its fleet beside keeping a certificate: the device key, orders, sealed telemetry.

use std::path::PathBuf;

use kf_seal::{SealAlgorithm, Service};
use serde::Deserialize;

use super::{Config, ConfigError, TelemetryKind, refuse};

/// The symmetric key of the device, which comes by an authenticated exchange.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeviceKeySettings {
    /// The pinned delivery key, PEM: `keyfleet epoch pins`. A second key in it is the successor.
    pub delivery_key_file: PathBuf,
    /// Seconds between exchanges that ask for a newer key, 1 to 31,536,000 (a year).
    #[serde(default = "a_day")]
    pub refresh_seconds: u32,
}

/// Orders that the device obeys.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Orders {
    /// The pinned order key, PEM: `keyfleet epoch pins`.
    pub order_key_file: PathBuf,
    /// Seconds between questions to the server, 1 to 31,536,000 (a year).
    #[serde(default = "a_quarter_of_an_hour")]
    pub poll_seconds: u32,
    /// The topic at the telemetry's broker where orders come as well, `devices/<name>/orders` when absent; empty: none.
    #[serde(default)]
    pub topic: Option<String>,
    /// Whether orders to rotate are obeyed; if not they are declined.
    #[serde(default = "yes")]
    pub allow_rotate: bool,
    /// Whether orders to wipe are obeyed; if not they are declined.
    #[serde(default = "yes")]
    pub allow_wipe: bool,
    /// Whether orders to go back to the state of the factory are obeyed; if not they are declined.
    #[serde(default = "yes")]
    pub allow_factory_reset: bool,
}

/// Which session the sealing keys lie under.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SealingSession {
    /// Derived from the device key: opened by the server at any later time.
    #[default]
    Derived,
    /// Agreed with fresh ephemeral keys: opened while the session lives, by nobody afterwards.
    Mixed,
}

/// Sealed messages instead of the counter.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SealedTelemetry {
    /// What the messages are for: 1 to 16 characters of `a-z`, `0-9`, `-`.
    #[serde(default = "telemetry")]
    pub service: String,
    /// `aes-128-ccm`, `aes-128-gcm` or `chacha20-poly1305`.
    #[serde(default = "ccm")]
    pub algorithm: String,
    /// A Unix stream socket, made with mode 0660: each line written to it is one message.
    #[serde(default)]
    pub socket: Option<PathBuf>,
    /// Whether each line of standard input is a message.
    #[serde(default)]
    pub stdin: bool,
    /// Messages that wait while there is no broker, 1 to 65,536; then the oldest is dropped.
    #[serde(default = "queue")]
    pub queue: u32,
    /// `derived` or `mixed`.
    #[serde(default)]
    pub session: SealingSession,
    /// Seconds after which a mixed session is replaced, 1 to 43,200.
    #[serde(default = "an_hour")]
    pub session_seconds: u32,
}

const fn a_day() -> u32 {
    86_400
}

const fn an_hour() -> u32 {
    3_600
}

const fn a_quarter_of_an_hour() -> u32 {
    900
}

const fn yes() -> bool {
    true
}

const fn queue() -> u32 {
    1_024
}

fn telemetry() -> String {
    "telemetry".to_owned()
}

fn ccm() -> String {
    SealAlgorithm::Aes128Ccm.name().to_owned()
}

/// Seconds of a year.
const MAX_SECONDS: u32 = 31_536_000;

impl SealedTelemetry {
    pub(crate) fn service(&self) -> Option<Service> {
        Service::new(&self.service).ok()
    }

    pub(crate) fn algorithm(&self) -> Option<SealAlgorithm> {
        SealAlgorithm::ALL.into_iter().find(|algorithm| algorithm.name() == self.algorithm)
    }

    fn check(&self) -> Result<(), ConfigError> {
        if self.service().is_none() {
            return Err(refuse("telemetry.sealed.service", "1 to 16 characters of a-z, 0-9 and `-`"));
        }
        if self.algorithm().is_none() {
            return Err(refuse("telemetry.sealed.algorithm", "aes-128-ccm, aes-128-gcm or chacha20-poly1305"));
        }
        if self.socket.is_none() && !self.stdin {
            return Err(refuse("telemetry.sealed", "give a socket, or stdin = true: where messages come from"));
        }
        if self.socket.as_ref().is_some_and(|path| !path.is_absolute()) {
            return Err(refuse("telemetry.sealed.socket", "an absolute path"));
        }
        if !(1..=65_536).contains(&self.queue) {
            return Err(refuse("telemetry.sealed.queue", "1 to 65,536"));
        }
        if !(1..=43_200).contains(&self.session_seconds) {
            return Err(refuse(
                "telemetry.sealed.session_seconds",
                "1 to 43,200: the server forgets a session after a day",
            ));
        }
        Ok(())
    }
}

impl Config {
    /// What hangs together among these sections.
    pub(super) fn check_fleet(&self) -> Result<(), ConfigError> {
        if let Some(settings) = &self.device_key
            && !(1..=MAX_SECONDS).contains(&settings.refresh_seconds)
        {
            return Err(refuse("device_key.refresh_seconds", "1 to 31,536,000"));
        }
        if let Some(orders) = &self.orders {
            if !(1..=MAX_SECONDS).contains(&orders.poll_seconds) {
                return Err(refuse("orders.poll_seconds", "1 to 31,536,000"));
            }
            if orders.topic.as_ref().is_some_and(|topic| topic.contains(['+', '#', '\0'])) {
                return Err(refuse("orders.topic", "a topic without `+` and `#`"));
            }
        }
        if (self.device_key.is_some() || self.orders.is_some()) && self.key.algorithm != kf_key::KeyAlgorithm::P256 {
            return Err(refuse("key.algorithm", "exchanges and orders are signed with a p-256 key"));
        }
        let Some(telemetry) = &self.telemetry else { return Ok(()) };
        let Some(sealed) = &telemetry.sealed else { return Ok(()) };
        if telemetry.kind != TelemetryKind::Mqtt {
            return Err(refuse("telemetry.sealed", "sealed messages travel over kind = \"mqtt\""));
        }
        if self.device_key.is_none() {
            return Err(refuse("telemetry.sealed", "messages are sealed under the device key: configure device_key"));
        }
        sealed.check()
    }

    /// The topic of orders at the broker, if there is one.
    pub(crate) fn order_topic(&self) -> Option<String> {
        let orders = self.orders.as_ref()?;
        let topic = orders.topic.clone().unwrap_or_else(|| format!("devices/{}/orders", self.device_name));
        (!topic.is_empty()).then_some(topic)
    }
}

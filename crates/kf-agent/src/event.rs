//! What the agent tells: one JSON object per line on standard output.

use std::io::Write as _;
use std::sync::{Arc, Mutex, PoisonError};

use kf_key::UnixMillis;
use serde::Serialize;

/// Something that happened. No secret is ever part of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", rename_all_fields = "snake_case", tag = "event")]
#[non_exhaustive]
pub enum Event {
    /// The agent runs.
    Started {
        /// Name of the device.
        device: String,
        /// Version of the agent.
        version: &'static str,
    },
    /// A key of the server that succeeds the one before is held from now on.
    ServerKey {
        /// `delivery` or `order`.
        role: &'static str,
        /// SHA-256 of its SubjectPublicKeyInfo, hexadecimal.
        sha256: String,
    },
    /// The private key lies unwrapped in its file, as the configuration allows.
    KeyNotSealed,
    /// A first certificate, or a new one after a long absence, is in use.
    Enrolled(CertificateSeen),
    /// A renewed certificate is in use.
    Renewed(CertificateSeen),
    /// The request waits for a person's approval.
    Pending {
        /// When it will be asked again, in seconds.
        retry_after_seconds: u64,
    },
    /// The server refused a request.
    EnrolmentRefused {
        /// What the device showed: `code`, `idevid` or `certificate`.
        credential: &'static str,
        /// HTTP status, 0 when the refusal came in the TLS handshake.
        status: u16,
        /// The server's words.
        reason: String,
    },
    /// Something failed that will be tried again.
    Retry {
        /// What was tried.
        step: &'static str,
        /// In how many seconds at least.
        after_seconds: u64,
        /// What went wrong.
        reason: String,
    },
    /// Somebody has to act; the agent goes on trying once in a while.
    NeedsAttention {
        /// What is the matter.
        reason: String,
        /// What to do.
        remedy: String,
    },
    /// The hook ran.
    Hook {
        /// Whether it ended with success in time.
        succeeded: bool,
        /// How it ended.
        outcome: String,
    },
    /// The telemetry session is up.
    Connected {
        /// Host and port.
        broker: String,
    },
    /// A message was sent and acknowledged.
    Published {
        /// Its number.
        counter: u64,
    },
    /// The telemetry session ended.
    Disconnected {
        /// Why, as far as this side can tell.
        reason: String,
    },
    /// The broker refused the session.
    Refused {
        /// Its alert or return code, as far as it came through.
        reason: String,
    },
    /// Nobody answers at the broker's address.
    Unreachable {
        /// Why.
        reason: String,
    },
    /// A device key is in use and the server knows of it.
    DeviceKey {
        /// Epoch of its facility.
        facility_epoch: u32,
        /// Epoch of the device.
        device_epoch: u32,
    },
    /// A mixed session was agreed.
    SessionAgreed {
        /// Its identifier, hexadecimal.
        session: String,
    },
    /// A message was sealed, sent and acknowledged by the broker.
    SealedPublished {
        /// Number of the boot.
        boot: u32,
        /// How many, since the agent started.
        count: u64,
    },
    /// Messages were dropped because too many waited.
    Dropped {
        /// How many since the last such event.
        messages: u64,
    },
    /// A message was not taken: it is too long, or no text line.
    MessageRefused {
        /// Why.
        reason: String,
    },
    /// An order was verified; it is obeyed or declined from here on.
    Order {
        /// `rotate` or `wipe`.
        act: &'static str,
        /// Its counter.
        counter: u64,
    },
    /// The server asks for a new identity key and certificate, by no order.
    RenewalAsked,
    /// What came is no order that this device obeys.
    OrderRefused {
        /// Why.
        reason: String,
    },
    /// The server has the signed answer to an order.
    OrderAnswered {
        /// Its counter.
        counter: u64,
        /// `done`, `failed` or `declined`.
        outcome: &'static str,
    },
    /// What the device keeps lies under a new storage key, the old one is destroyed, and the server knows.
    StorageMoved {
        /// The version in use.
        version: u32,
        /// Records under it.
        records: u32,
    },
    /// Roots that take over from one that the device knows are believed from now on.
    TrustAdded {
        /// SHA-256 of each, hexadecimal.
        roots: Vec<String>,
    },
    /// Roots that were retired are believed no more.
    TrustDropped {
        /// SHA-256 of each, hexadecimal.
        roots: Vec<String>,
    },
    /// Every key is destroyed, by order.
    Wiped {
        /// Files with keys that this process may not remove: destroy them by hand.
        left: Vec<String>,
    },
    /// Every key that the owner brought is destroyed, by order; the IDevID is not.
    FactoryReset {
        /// Files with secrets that this process may not remove: destroy them by hand.
        left: Vec<String>,
    },
    /// The agent ends.
    Stopped,
}

/// A certificate in an event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CertificateSeen {
    /// SHA-256 of its DER, hexadecimal.
    pub sha256: String,
    /// First moment of validity.
    pub not_before: UnixMillis,
    /// Last moment of validity.
    pub not_after: UnixMillis,
    /// When it will be renewed.
    pub renew_at: UnixMillis,
}

/// Where events go. Cheap to clone.
#[derive(Clone)]
pub struct EventSink(Arc<dyn Fn(&Event) + Send + Sync>);

impl std::fmt::Debug for EventSink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("EventSink")
    }
}

impl EventSink {
    /// Gives every event to `take`.
    pub fn new(take: impl Fn(&Event) + Send + Sync + 'static) -> Self {
        Self(Arc::new(take))
    }

    /// One JSON object per line on standard output, each line at once.
    #[must_use]
    pub fn stdout() -> Self {
        let turn = Mutex::new(());
        Self::new(move |event| {
            let Ok(mut line) = serde_json::to_vec(event) else { return };
            line.push(b'\n');
            let _turn = turn.lock().unwrap_or_else(PoisonError::into_inner);
            let mut stdout = std::io::stdout().lock();
            // Whoever listened has gone: the identity matters more than the telling.
            if stdout.write_all(&line).and_then(|()| stdout.flush()).is_err() {
                tracing::debug!("standard output is closed");
            }
        })
    }

    /// The same on standard error, where standard output is for data.
    #[must_use]
    pub fn stderr() -> Self {
        Self::new(|event| {
            let Ok(mut line) = serde_json::to_vec(event) else { return };
            line.push(b'\n');
            if std::io::stderr().lock().write_all(&line).is_err() {
                tracing::debug!("standard error is closed");
            }
        })
    }

    /// Tells.
    pub fn tell(&self, event: &Event) {
        (self.0)(event);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_flat_object_with_its_name_first() {
        let text = |event: &Event| serde_json::to_string(event).unwrap();
        assert_eq!(text(&Event::Connected { broker: "h:1".to_owned() }), r#"{"event":"connected","broker":"h:1"}"#);
        assert_eq!(text(&Event::KeyNotSealed), r#"{"event":"key-not-sealed"}"#);
        let seen = CertificateSeen {
            sha256: "00".to_owned(),
            not_before: UnixMillis(1),
            not_after: UnixMillis(3),
            renew_at: UnixMillis(2),
        };
        let expected = r#"{"event":"renewed","sha256":"00","not_before":1,"not_after":3,"renew_at":2}"#;
        assert_eq!(text(&Event::Renewed(seen)), expected);
        let pending = Event::Pending { retry_after_seconds: 5 };
        assert_eq!(text(&pending), r#"{"event":"pending","retry_after_seconds":5}"#);
    }
}

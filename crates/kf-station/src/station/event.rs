//! What a station tells while it works.

use serde::Serialize;

use crate::line::{FailReason, Stage};

/// A change at one fixture.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Event {
    /// The fixture.
    pub fixture: String,
    /// Where the device stands.
    pub stage: &'static str,
    /// The device's name, once it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// Its MAC, once it was read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mac: Option<String>,
    /// Why it did not pass.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<FailReason>,
    /// What the operator does next.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<&'static str>,
    /// How long the attempt took, in milliseconds, at its end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub took_millis: Option<u64>,
}

impl Event {
    pub(super) fn new(fixture: &str, stage: Stage) -> Self {
        Self {
            fixture: fixture.to_owned(),
            stage: stage.word(),
            device: None,
            mac: None,
            reason: None,
            next: None,
            took_millis: None,
        }
    }
}

/// Whoever watches: a screen, a log, nobody.
pub trait Watch: Sync {
    /// Something changed.
    fn tell(&self, event: &Event);
}

impl Watch for () {
    fn tell(&self, _event: &Event) {}
}

//! `keyfleet-agent`: a device's identity on Linux. It makes the key, enrols over EST (RFC 7030), renews at two thirds
//! of the lifetime, proves a new certificate before it lets go of the old one, and survives power loss and long absence.
//!
//! What it decides is a pure function of what is stored, the time and a random number ([`kf_device::enrolment::machine`], which a microcontroller runs too); what it stores goes
//! through a disk whose every step can fail ([`slots`]). The key stays behind [`key_source::KeySource`], so that a TPM or a
//! token can take its place.
#![forbid(unsafe_code)]

mod agent;
mod anchors;
mod chain;
mod clock;
mod command;
mod config;
mod device_api;
pub mod disk;
mod enrolment;
mod event;
mod failure;
mod hook;
mod identity;
mod key_ring;
pub mod key_source;
mod message_queue;
mod secret_source;
pub mod slots;
mod telemetry;
mod vault;
mod volume_key;

pub use agent::{Agent, RunOutcome};
pub use command::{main_with, run_with};
pub use config::{
    Config, ConfigError, DeviceKeySettings, KeyKind, Orders, SealedTelemetry, SealingSession, Telemetry, TelemetryKind,
};
pub use event::{Event, EventSink};

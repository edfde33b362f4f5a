//! An MQTT 3.1.1 client over TLS: what a device and a broker's connector need, and no more.
//!
//! A [`Client`] queues requests; an [`EventLoop`] connects, sends them, and tells what comes back. It is driven by
//! [`EventLoop::poll`]: without a session a poll makes one, with a session it goes on until there is something to tell.
//! The packets are read and written by `rumqttc`'s codec; the stream is ours, so that TLS runs on the one provider.
//!
//! What it is not: every session is a clean one (section 3.1.2.4), and what was queued or unacknowledged when it ended
//! is forgotten: who needs an answer waits for it and asks again. No QoS 2, no will, no user name, no retained messages.
//!
//! Limits: the octets of a packet in either direction ([`Settings::max_packet_octets`]), the requests that wait, the
//! packets that await an acknowledgement, and the time of every step of connecting and of the answer to a ping.
#![forbid(unsafe_code)]

mod client;
mod error;
mod event_loop;
mod session;

pub use client::{Client, QoS, RequestError, Settings, open};
pub use error::MqttError;
pub use event_loop::{Event, EventLoop};
pub use rumqttc::mqttbytes::v4::{ConnectReturnCode, Packet, SubscribeReasonCode};

//! Broker connectors: what makes a revoked device stop.
//!
//! A CRL alone leaves the open session up; a cut alone lets the device come back at once. So [`BrokerConnector::enforce`]
//! always goes in one order: publish the CRLs, have the broker read them, cut the session, look at the broker until the
//! device is gone. Each step is reported by itself ([`kf_api::revocation::BrokerReport`]).
//!
//! Connectors: [`BrokerConnector`] is implemented for Mosquitto and for the built-in mutual-TLS echo server.
#![forbid(unsafe_code)]

mod connector;
mod error;

pub use connector::{BrokerConnector, Cut, PublishedCrl};
pub use error::BrokerError;

//! Broker connectors: what makes a revoked device stop.
//!
//! A CRL alone leaves the open session up; a cut alone lets the device come back at once. So [`BrokerConnector::enforce`]
//! always goes in one order: publish the CRLs, have the broker read them, cut the session, look at the broker until the
//! device is gone. Each step is reported by itself ([`kf_api::revocation::BrokerReport`]).
//!
//! Connectors: [`Mosquitto`], and [`EchoBroker`], the built-in mutual-TLS line echo for machines without a broker.
#![forbid(unsafe_code)]

mod connector;
mod crl_bundle;
mod device_name;
mod echo;
mod error;
mod mosquitto;
mod tls;

pub use connector::{BrokerConnector, Cut, PublishedCrl};
pub use crl_bundle::MAX_BUNDLE_OCTETS;
pub use echo::{EchoBroker, EchoSettings};
pub use error::BrokerError;
pub use mosquitto::{
    BrokerProcess, Control, CutBy, DeviceTopics, Mosquitto, MosquittoConfig, MosquittoFiles, MosquittoProcess,
    MosquittoSettings, find_mosquitto,
};
pub use tls::TlsIdentity;

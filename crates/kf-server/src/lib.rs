//! The HTTP surfaces of Keyfleet: EST (RFC 7030, 8951, 9908), OCSP (RFC 6960, 5019), CRLs and CA certificates
//! (RFC 5280), the API under `/v1`, health and metrics. Everything is translated into a use case of `kf_fleet` and its
//! outcome back into HTTP: nothing is decided here but what HTTP itself needs (limits, media types, caching).
//!
//! Two listeners: HTTPS (TLS 1.3 and 1.2, optional client certificates) carries everything; plain HTTP carries only what
//! is signed in itself (CRLs, OCSP answers, CA certificates) and `/livez`. Only HTTP/1.1 and 1.0 are spoken.
//!
//! A client's identity comes from its TLS session, in-process; no header can claim one.
#![forbid(unsafe_code)]

mod api;
mod app;
mod authority;
mod authorization;
mod body;
mod conditional;
mod connection;
mod crl;
mod est;
mod failure;
mod health;
mod limits;
mod metering;
mod ocsp;
mod pace;
mod peer;
mod reply;
mod serve;
mod surface;
mod tls;

pub use api::ROUTES;
pub use limits::Limits;
pub use serve::{Listeners, ServeError, serve};

//! The HTTPS client of the command line and the agent: mutual TLS with an explicit provider and explicit anchors, one
//! deadline for a whole call, a limit on every body, typed problems (RFC 9457) and EST (RFC 7030).
//!
//! What it never does: read the platform's trust store, follow redirects, resume a TLS session (a resumed session skips
//! the server's revocation check), or send a password or token over plain HTTP.
#![forbid(unsafe_code)]

mod address;
mod client;
mod error;
pub mod est;
mod identity;
mod json;
mod session;
mod tls;
mod trust;

pub use client::{Client, ClientBuilder, DEFAULT_BODY_LIMIT_OCTETS, DEFAULT_DEADLINE, Response};
pub use error::{ClientError, alert_in};
pub use identity::TlsKey;
pub use session::Session;
pub use tls::{KeyShare, key_shares, provider};
pub use trust::Anchors;

pub use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
pub use rustls::time_provider::TimeProvider;

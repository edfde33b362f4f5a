//! The server as clients that we did not write see it: curl, openssl, strongSwan, GnuTLS; and as those see it who mean
//! it harm.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod agent;
mod algorithms;
mod api;
mod batch;
mod caching;
mod duties;
mod enumeration;
mod est;
mod exchange;
mod expired;
mod limits;
mod ocsp;
#[cfg(feature = "secure-element")]
#[path = "../../../kf-agent/tests/it/personalized.rs"]
mod personalized;
mod reset;
mod rig;
mod strongswan;
mod succession;
mod tls;
#[cfg(feature = "tpm")]
mod tpm;

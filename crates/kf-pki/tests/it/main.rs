//! What kf-pki makes is read by programs that we did not write, and what they make is read here.
// Fixtures outside `#[test]` functions fail a test by panicking.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod certificate;
mod chain;
mod cms;
mod crl;
mod fleet;
mod lint;
mod malformed;
mod ml_dsa;
mod ocsp;
mod request;
mod signer;
mod succession;

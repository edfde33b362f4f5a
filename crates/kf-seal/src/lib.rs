//! Sealed payloads: COSE_Encrypt0 under keys of the hierarchy (RFC 9052).
#![no_std]
#![warn(missing_docs)]

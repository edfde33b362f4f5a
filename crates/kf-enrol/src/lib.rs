//! Enrolment decisions: who proved what, for which device, with which key. Pure rules: the facts, the policy and the
//! time are arguments; what comes out is a grant or a typed refusal that names the field and the remedy.
//!
//! - [`bootstrap`]: a device's first certificate, by IDevID, one-time code or station voucher (RFC 7030 section 4.2.1);
//! - [`renewal`]: the next one, by the one it holds (RFC 7030 section 4.2.2);
//! - [`code`], [`claim`], [`voucher`]: the texts that carry a bootstrap;
//! - [`endorsement`]: a key that is shown to live in the device's TPM;
//! - [`manifest`]: secure elements that a manufacturer provisioned;
//! - [`limit`]: how often a guess may fail.
//!
//! What this crate is not: it stores nothing, verifies no certificate path (`kf_pki::chain`), judges no key as weak
//! (`kf_pki::weak_key`) and signs no certificate.
#![forbid(unsafe_code)]

pub mod bootstrap;
pub mod claim;
pub mod code;
pub mod endorsement;
pub mod limit;
pub mod manifest;
mod name;
mod refusal;
pub mod renewal;
pub mod voucher;

pub use refusal::{Refusal, RefusalClass};

#[cfg(test)]
mod sample;

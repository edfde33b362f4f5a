//! The SDK of a device: entropy with health tests, storage that survives power cuts, keys, sealed payloads, enrolment,
//! rotation and destruction, without a socket, a clock or an allocator.
//!
//! Everything the hardware does is a trait that the firmware implements: [`entropy::Noise`] for the noise source,
//! [`storage::Flash`] for erase-block memory. Everything that must survive power loss goes
//! through [`storage::Store`].
//!
//! States are types. A seed for a key comes from a [`entropy::Source`] that is [`entropy::Healthy`], and from nothing
//! else; secrets do not print, cannot be cloned, and are wiped when dropped.
#![no_std]
#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod asn1;
pub mod certificate;
pub mod derivation;
pub mod destruction;
pub mod enrolment;
pub mod entropy;
mod error;
pub mod exchange;
pub mod identity;
#[cfg(feature = "nvs")]
pub mod nvs;
pub mod order;
pub mod pin;
pub mod protected;
mod record;
pub mod sealed;
pub mod session;
pub mod storage;
pub mod trust;
pub mod wrap;

pub use error::{BootError, KeyError, PayloadError};

#[cfg(doctest)]
mod misuse;

#[cfg(test)]
extern crate std;

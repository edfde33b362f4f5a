//! Secure elements of the ATECC608 class over I2C.
//!
//! - [`Element`]: one chip behind `embedded-hal`'s `I2c` and `DelayNs`. It knows the chip's configuration and checks what
//!   a slot permits before it sends a command ([`policy`]);
//! - [`config`] and [`layout`]: the configuration zone as types, and the layouts that we recommend or know;
//! - [`lock`] and [`personalize`]: what cannot be undone is an order that is spent, and the way from a blank chip to a
//!   finished one goes on after a power cut at any command;
//! - [`held`]: keys in the chip as the device SDK uses them;
//! - `backend` (feature of that name): the key back end of an agent or a server; `linux`: the bus `/dev/i2c-N`.
//!
//! Written from public documents (the complete data sheet of the ATECC508A, the public ones of the provisioned ATECC608
//! variants) and tested against an emulator of ours and an independent driver, on no real chip. Secure boot, MAC,
//! CheckMac, DeriveKey, PrivWrite and the single-wire interface are not covered.
//!
//! What leaves the chip crosses the bus in the clear: signatures and public keys, but also derived keys, shared secrets and
//! random numbers. Whoever can listen on the two wires reads these; the keys in the slots never cross them, except when
//! they are injected, which is encrypted once the data zone is locked.
#![no_std]
#![forbid(unsafe_code)]
#![warn(missing_docs)]

#[cfg(feature = "backend")]
extern crate std;

#[cfg(feature = "backend")]
mod backend;
pub mod certificate;
pub mod config;
#[cfg(feature = "backend")]
mod directory;
mod element;
mod error;
pub mod held;
pub mod layout;
mod link;
#[cfg(feature = "linux")]
mod linux;
pub mod lock;
mod memory;
pub mod personalize;
pub mod policy;
mod wire;

#[cfg(feature = "backend")]
pub use backend::{ElementBackend, Roles};
pub use element::{Counter, DEFAULT_ADDRESS, Element, MAX_COUNT};
pub use error::Error;
#[cfg(feature = "linux")]
pub use linux::{LinuxElement, open_linux};
pub use memory::{MAX_DATA_OCTETS, TransportKey};
pub use wire::{Opcode, crc16};

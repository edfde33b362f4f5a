//! What a factory station and the server say to each other about a batch, and the rules by which the server merges what was
//! made. Pure: time, randomness and what is known already are arguments.
//!
//! ```text
//! station                                                                       server
//!   station request   its keys: batch CA (CSR), transport, record                 ->
//!   <-                quota     what may be made, the batch CA's certificate, the batch key sealed to the transport key
//!   record …          one per device, chained to the quota and to each other      ->
//!   manifest          how many, and the head of the chain                         ->
//! ```
//!
//! All four are COSE_Sign1 with ES256 in one shape ([`frame`]), canonical CBOR inside: what decodes is encoded again and must be
//! the same octets. Records travel as a CBOR sequence (RFC 8742), manifests among them.
//!
//! A *batch* is a number of devices of one product line that one *station* makes by one *recipe*. The *quota* lists them: nothing
//! else can come of the batch, whatever the station does.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod codec;
pub mod device_list;
pub mod frame;
pub mod key;
pub mod keys_destroyed;
pub mod life;
pub mod manifest;
pub mod merge;
pub mod quota;
pub mod record;
pub mod salt;
pub mod station_request;

pub use frame::{FormatError, Kind, Signed, Unsigned};
pub use key::P256Key;

#[cfg(test)]
mod sample;
#[cfg(test)]
mod tests;

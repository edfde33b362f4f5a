//! Flash images of the ESP32 family, written and read octet for octet as Espressif's own tools do.
//!
//! * [`nvs`]: the key-value partition of ESP-IDF, plain and encrypted, with what erased entries leave behind.
//! * [`secure_cert`]: the partition with a device's certificates and key references.
//! * [`flash_encryption`]: AES-XTS over flash addresses, as the S2 and later chips do it.
//! * [`partition_table`]: what lies where.
//! * `fuse` (feature `alloc`): plans of what to burn, checked against a chip, and read-back.
//! * `scan` (feature `alloc`): what an image holds, and which secrets lie in it in clear.
//!
//! Nothing here is random, reads a file or talks to a chip: keys come in as [`kf_key::SecretArray`], images go in and out
//! as octets. Reading needs no allocator.
//!
//! What none of this proves is real silicon: it was compared with the vendor's generators, readers and virtual chips.
#![no_std]
#![forbid(unsafe_code)]
#![warn(missing_docs)]

#[cfg(any(feature = "alloc", test))]
extern crate alloc;

mod octets;

pub mod flash_encryption;
#[cfg(feature = "alloc")]
pub mod fuse;
pub mod nvs;
pub mod partition_table;
#[cfg(feature = "alloc")]
pub mod scan;
pub mod secure_cert;

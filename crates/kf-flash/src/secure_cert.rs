//! `esp_secure_cert`: the read-only partition with a device's certificates and key references (type 3f, usually at d000,
//! 2000 octets long), in its TLV format.
//!
//! ```text
//! record = magic ba5eba11 u32 | flags u8 | 3 reserved | type u8 | index u8 | length u16
//!          | value | zeroes to 16 | CRC-32 of everything before
//! ```
//!
//! Numbers are little endian; a record is a multiple of 16 octets, and records follow each other without a gap. The last
//! one is an integrity record, the SHA-256 of all before it.
//!
//! * [`SecureCertWriter`] lays a partition out in a buffer of the caller.
//! * [`SecureCert`] reads one. A record whose CRC is wrong is an error, never a record.
//!
//! A private key does not lie in this partition in clear, unless somebody calls [`danger::add_private_key_in_clear`]. What
//! there is instead: a key in an eFuse block that the ECDSA peripheral signs with, a key derived from an eFuse key and a
//! salt, or one record encrypted under a key that the HMAC peripheral derives.
//!
//! # One encrypted record per eFuse key
//! The firmware derives AES-GCM key *and* IV from the eFuse key and two fixed messages, so that every encrypted record of
//! one device would use the same pair, and two ciphertexts under it give away both plaintexts and the authentication key
//! (SP 800-38D section 8). Hence [`RecordCipher`]: made together with the eFuse key it belongs to, spent by the one
//! record it encrypts.
//!
//! ```compile_fail,E0382
//! # use kf_flash::secure_cert::*;
//! # fn f(cipher: RecordCipher, writer: &mut SecureCertWriter<'_>, key: &[u8]) -> Result<(), SecureCertError> {
//! writer.add_encrypted(cipher, RecordType::PrivateKey, 0, key)?;
//! writer.add_encrypted(cipher, RecordType::PrivateKey, 1, key)?; // use of moved value
//! # Ok(())
//! # }
//! ```

mod cipher;
mod error;
mod reader;
mod record;
mod writer;

pub use cipher::{HMAC_IV_MESSAGE, HMAC_KEY_MESSAGE, HmacEfuseKey, RecordCipher, open_record};
pub use error::SecureCertError;
pub use reader::{Integrity, SecureCert};
pub use record::{KeyProtection, Record, RecordType};
pub use writer::SecureCertWriter;

/// What the partition usually measures.
pub const PARTITION_OCTETS: usize = 0x2000;
/// Where it usually is.
pub const USUAL_OFFSET: u32 = 0xd000;
/// What begins a record.
pub const MAGIC: u32 = 0xba5e_ba11;
/// The highest index of a record.
pub const MAX_INDEX: u8 = 16;
/// The most octets of a partition that is read or written: 1 MiB, far more than any layout gives it.
pub const MAX_PARTITION_OCTETS: usize = 1 << 20;

const HEADER_OCTETS: usize = 12;
const CRC_OCTETS: usize = 4;
const ALIGNMENT: usize = 16;
const TAG_OCTETS: usize = 16;

/// What can hurt.
pub mod danger {
    use super::{KeyProtection, RecordType, SecureCertError, SecureCertWriter};

    /// Adds a private key that everybody who reads the flash has. The device is marked for it in the registry, for ever.
    ///
    /// # Errors
    /// As [`SecureCertWriter::add`].
    pub fn add_private_key_in_clear(
        writer: &mut SecureCertWriter<'_>,
        index: u8,
        key: &[u8],
    ) -> Result<(), SecureCertError> {
        writer.put(RecordType::PrivateKey, index, KeyProtection::Clear, &[key])
    }
}

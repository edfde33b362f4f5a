//! What can be wrong with the partition, or with what should go into it.

use core::fmt;

use super::{MAX_INDEX, MAX_PARTITION_OCTETS};

/// Why a partition or a record was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SecureCertError {
    /// The partition has no octets, or more than [`MAX_PARTITION_OCTETS`], or none of whole records fit.
    PartitionSize {
        /// How many octets there are.
        octets: usize,
    },
    /// The CRC of the record is wrong, or it reaches past the end of the partition.
    Damaged {
        /// Where the record begins.
        offset: usize,
    },
    /// What follows the last record is neither a record nor blank.
    Trailing {
        /// Where it begins.
        offset: usize,
    },
    /// Records have an index of 0 to [`MAX_INDEX`].
    Index {
        /// What was given.
        index: u8,
    },
    /// There is a record of this type and index already.
    Duplicate,
    /// A record holds at most 65,535 octets.
    ValueTooLong {
        /// How many octets there are.
        octets: usize,
    },
    /// There is no room left in the partition.
    Full,
    /// The image has an encrypted record already: a second one under one eFuse key would reuse its nonce.
    SecondEncryptedRecord,
    /// A private key goes into a partition encrypted, derived or in an eFuse, not in clear.
    PrivateKeyInClear,
    /// The integrity record is written by `finish`, and only there.
    IntegrityIsWrittenLast,
    /// The ciphertext does not open under this key.
    Refused,
    /// The buffer is shorter than the value.
    BufferTooShort {
        /// Octets of the value.
        needed: usize,
    },
}

impl fmt::Display for SecureCertError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PartitionSize { octets } => {
                write!(f, "an esp_secure_cert partition has 16 to {MAX_PARTITION_OCTETS} octets, not {octets}")
            }
            Self::Damaged { offset } => write!(f, "the record at {offset:#x} is damaged: its CRC is wrong"),
            Self::Trailing { offset } => write!(f, "after the last record, at {offset:#x}, the partition is not blank"),
            Self::Index { index } => write!(f, "a record has an index of 0 to {MAX_INDEX}, not {index}"),
            Self::Duplicate => f.write_str("there is a record of this type and index already: use another index"),
            Self::ValueTooLong { octets } => write!(f, "a record holds at most 65535 octets, not {octets}"),
            Self::Full => f.write_str("the partition is full: enlarge it in the partition table"),
            Self::SecondEncryptedRecord => f.write_str(
                "there is an encrypted record already, and all of one device share a nonce: burn another eFuse key, or \
                 put both values into one record",
            ),
            Self::PrivateKeyInClear => f.write_str("a private key does not go into flash in clear: encrypt it"),
            Self::IntegrityIsWrittenLast => f.write_str("the integrity record is written when the image is finished"),
            Self::Refused => f.write_str("the record does not open under this key"),
            Self::BufferTooShort { needed } => write!(f, "the value has {needed} octets: give a longer buffer"),
        }
    }
}

impl core::error::Error for SecureCertError {}

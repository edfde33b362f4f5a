//! What can be wrong with a partition, or with what should go into one.

use core::fmt;

/// Why a partition, a value or a key was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum NvsError {
    /// The octets are no whole number of pages, or none, or more than [`super::MAX_PARTITION_OCTETS`].
    PartitionSize {
        /// How many octets there are.
        octets: usize,
    },
    /// A partition that a device writes to has at least three pages; this one is for reading only.
    TooSmallToWrite {
        /// How many pages there are.
        pages: usize,
    },
    /// A key or the name of a namespace has 1 to 15 octets and no NUL.
    Name,
    /// The key is already in this namespace. The vendor's generator writes it twice, and the firmware then sees one of them.
    DuplicateKey,
    /// There are 254 namespaces already.
    TooManyNamespaces,
    /// Text holds a NUL, which would end it early.
    NulInText,
    /// The value is longer than its type allows.
    ValueTooLong {
        /// Its length in octets.
        octets: usize,
        /// The most octets.
        limit: usize,
    },
    /// There is no room left: give the partition more pages.
    Full,
    /// What was asked for is not there.
    NotFound,
    /// A value is there, but not whole. It is never returned.
    Damaged(DamagedValue),
    /// The buffer is shorter than the value.
    BufferTooShort {
        /// Octets of the value.
        needed: usize,
    },
    /// The keys partition is blank: the device would make its own keys on its first boot.
    BlankKeys,
    /// The CRC of the keys partition is wrong.
    KeysChecksum,
    /// Encryption key and tweak key are equal, which XTS forbids (IEEE 1619, FIPS 140-3 IG C.I), or one is all one octet.
    WeakKeys,
}

/// What is wrong with a stored value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DamagedValue {
    /// The CRC over the value is wrong.
    Checksum,
    /// The entry says more octets than its slots hold.
    Length,
    /// A chunk of the blob is missing.
    MissingChunk {
        /// Its number, from 0.
        number: u8,
    },
    /// The chunks add up to another length than the index says.
    BlobLength,
    /// Text does not end in NUL or is no UTF-8.
    Text,
}

impl fmt::Display for NvsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PartitionSize { octets } => {
                write!(f, "an NVS partition is a whole number of 4096-octet pages, up to 16 MiB, not {octets} octets")
            }
            Self::TooSmallToWrite { pages } => {
                write!(
                    f,
                    "a partition that the device writes to has at least 3 pages, not {pages}: enlarge it, or mark it readonly"
                )
            }
            Self::Name => f.write_str("a key or namespace has 1 to 15 octets and no NUL: shorten it"),
            Self::DuplicateKey => f.write_str("this key is in the namespace already: write each key once"),
            Self::TooManyNamespaces => f.write_str("a partition has at most 254 namespaces"),
            Self::NulInText => f.write_str("text holds a NUL: store it as a blob"),
            Self::ValueTooLong { octets, limit } => {
                write!(f, "the value has {octets} octets, at most {limit} are allowed")
            }
            Self::Full => f.write_str("the partition is full: give it more pages"),
            Self::NotFound => f.write_str("no such namespace or key"),
            Self::Damaged(why) => write!(f, "the stored value is damaged: {why}"),
            Self::BufferTooShort { needed } => write!(f, "the value has {needed} octets: give a longer buffer"),
            Self::BlankKeys => f.write_str("the keys partition is blank"),
            Self::KeysChecksum => f.write_str("the CRC of the keys partition is wrong: it is damaged, or encrypted"),
            Self::WeakKeys => f.write_str("the two XTS keys are equal or constant: draw 64 fresh random octets"),
        }
    }
}

impl fmt::Display for DamagedValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Checksum => f.write_str("wrong CRC"),
            Self::Length => f.write_str("longer than its slots"),
            Self::MissingChunk { number } => write!(f, "chunk {number} is missing"),
            Self::BlobLength => f.write_str("the chunks do not add up to the blob's length"),
            Self::Text => f.write_str("text without its closing NUL, or no UTF-8"),
        }
    }
}

impl core::error::Error for NvsError {}
impl core::error::Error for DamagedValue {}

//! Errors that several modules share.

use core::fmt;

use crate::storage::{CounterError, StorageError};
use crate::wrap::WrapError;

/// Why there is no key, or why it was not stored. `F`: of the flash memory, `W`: of the chip that wraps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum KeyError<F, W> {
    /// The store.
    Storage(StorageError<F>),
    /// The wrapping key.
    Wrap(WrapError<W>),
    /// There is none.
    Missing,
    /// There is one already.
    Occupied,
    /// The seed is no private key of the curve, once in 2^32: take another seed.
    DrawAgain,
    /// The certificate is not for the key of this slot.
    OtherKey,
    /// The certificate cannot be read, or is longer than the store takes.
    Certificate,
    /// The ratchet cannot go there: it only goes forward, and not too far at once.
    Ratchet(kf_derive::RatchetError),
}

impl<F, W> fmt::Display for KeyError<F, W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Storage(_) => "the storage did not hold the key",
            Self::Wrap(_) => "the key was not wrapped or unwrapped",
            Self::Missing => "there is no such key",
            Self::Occupied => "there is a key already",
            Self::DrawAgain => "the seed is no private key: take another seed",
            Self::OtherKey => "the certificate is for another key",
            Self::Certificate => "the certificate cannot be read",
            Self::Ratchet(_) => "the ratchet cannot go there",
        })
    }
}

impl<F: fmt::Debug, W: fmt::Debug> core::error::Error for KeyError<F, W> {}

impl<F, W> From<StorageError<F>> for KeyError<F, W> {
    fn from(error: StorageError<F>) -> Self {
        Self::Storage(error)
    }
}

impl<F, W> From<WrapError<W>> for KeyError<F, W> {
    fn from(error: WrapError<W>) -> Self {
        Self::Wrap(error)
    }
}

impl<F, W> From<kf_derive::RatchetError> for KeyError<F, W> {
    fn from(error: kf_derive::RatchetError) -> Self {
        Self::Ratchet(error)
    }
}

/// Why a payload of the server was not given out. `F`: of the flash memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PayloadError<F> {
    /// It is no sealed payload.
    Malformed(kf_seal::ParseError),
    /// It does not open, or is for another key.
    Open(kf_seal::OpenError),
    /// It was opened before, or may have been.
    Replay(kf_seal::ReplayError),
    /// The record of what was opened is damaged: nothing opens until the device has a new epoch and a new record.
    DamagedRecord,
    /// The store.
    Storage(StorageError<F>),
    /// A defect of this crate.
    Bug,
}

impl<F> fmt::Display for PayloadError<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(error) => error.fmt(f),
            Self::Open(error) => error.fmt(f),
            Self::Replay(error) => error.fmt(f),
            Self::DamagedRecord => kf_seal::CorruptReplay.fmt(f),
            Self::Storage(_) => f.write_str("the storage did not take note of the payload"),
            Self::Bug => f.write_str("a defect of the SDK: please report this"),
        }
    }
}

impl<F: fmt::Debug> core::error::Error for PayloadError<F> {}

/// Why nothing can be sealed. `F`: of the flash memory, `N`: of the noise source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum BootError<F, N> {
    /// The counter of starts.
    Counter(CounterError<F>),
    /// The noise source.
    Entropy(crate::entropy::EntropyError<N>),
    /// The random octets are all the same.
    StuckRandom,
    /// A defect of this crate.
    Bug,
    /// The sealer.
    Seal(kf_seal::SealError),
}

impl<F, N> fmt::Display for BootError<F, N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Counter(_) => "the counter of starts gave no number",
            Self::Entropy(_) => "the noise source gave no random octets",
            Self::StuckRandom => "the random octets are all the same",
            Self::Bug => "a defect of the SDK: please report this",
            Self::Seal(_) => "the sealer was refused",
        })
    }
}

impl<F: fmt::Debug, N: fmt::Debug> core::error::Error for BootError<F, N> {}

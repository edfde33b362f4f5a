//! Keys that come over an authenticated exchange: the first device key, a new epoch, another facility, and sessions
//! that the root cannot recompute. The protocol is [`kf_exchange`]; here its random octets come from a healthy source,
//! and what it delivers is durable before it is acknowledged.
//!
//! ```text
//! begin -> AwaitChallenge -prove-> AwaitDelivery -open-> Delivered -keep-> Kept -finish-> HeldKey, the old key erased
//! ```
//! After a power cut between `keep` and `finish` the server may have retired the old epoch or not. Run another exchange:
//! it delivers the same key, and ends where this one would have.

use core::fmt;

use kf_exchange::{AwaitChallenge, AwaitDone, Delivered, Ephemeral, Message, PublicKey, Purpose, Refusal, Refused};
use kf_key::DeviceId;

use crate::derivation::{HeldKey, Injected, store_next};
use crate::entropy::{EntropyError, Healthy, Noise, Nonce, Source};
use crate::error::KeyError;
use crate::storage::{Erasure, Flash, Integrity, Store};
use crate::wrap::WrapKey;

pub use kf_exchange;

/// Why an exchange did not begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BeginError<N> {
    /// The noise source.
    Entropy(EntropyError<N>),
    /// The protocol; [`Refusal::DrawAgain`] once in 2^32.
    Exchange(Refusal),
}

impl<N> fmt::Display for BeginError<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Entropy(_) => "the noise source gave no random octets",
            Self::Exchange(_) => "the exchange did not begin",
        })
    }
}

impl<N: fmt::Debug> core::error::Error for BeginError<N> {}

/// Begins an exchange with an ephemeral key and a nonce drawn now. `knows` is the delivery key that the device holds
/// ([`Pin::key`](crate::pin::Pin::key)), by which it asks to be answered.
///
/// # Errors
/// [`BeginError`].
pub fn begin<N: Noise>(
    purpose: Purpose,
    knows: &PublicKey,
    source: &mut Source<N, Healthy>,
) -> Result<(AwaitChallenge<Ephemeral>, Message), BeginError<N::Error>> {
    let ephemeral = Ephemeral::from_random(source.random().map_err(BeginError::Entropy)?);
    let nonce = source.random::<16>().map_err(BeginError::Entropy)?;
    // Not secret: it is sent in the clear.
    AwaitChallenge::start_by(purpose, ephemeral.map_err(BeginError::Exchange)?, *nonce.expose(), Some(knows))
        .map_err(BeginError::Exchange)
}

/// A delivered key that is stored and read back, and not in use yet.
#[derive(Debug)]
pub struct Kept {
    device: DeviceId,
    done: AwaitDone,
}

/// Why a delivered key was not kept. `F`: of the flash memory, `W`: of the chip that wraps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeepError<F, W> {
    /// It was not stored.
    Key(KeyError<F, W>),
    /// It was stored, and not acknowledged.
    Exchange(Refusal),
}

impl<F, W> fmt::Display for KeepError<F, W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Key(_) => "the delivered key was not stored",
            Self::Exchange(_) => "the delivered key was not acknowledged",
        })
    }
}

impl<F: fmt::Debug, W: fmt::Debug> core::error::Error for KeepError<F, W> {}

/// Stores a delivered key beside the one in use, reads it back, and only then makes the acknowledgement, to be sent until
/// an answer comes.
///
/// # Errors
/// [`KeepError`].
pub fn keep<F: Flash, I: Integrity, W: WrapKey>(
    delivered: Delivered,
    device: DeviceId,
    store: &mut Store<F, I>,
    wrap: &W,
    nonce: Nonce,
) -> Result<(Kept, Message), KeepError<F::Error, W::Error>> {
    let injected = Injected { device, place: delivered.place(), key: delivered.key() };
    store_next(store, wrap, injected, nonce).map_err(KeepError::Key)?;
    let (_key, done, message) = delivered.acknowledge().map_err(KeepError::Exchange)?;
    Ok((Kept { device, done }, message))
}

impl Kept {
    /// The server knows: the new key becomes the one in use and the old one is erased.
    ///
    /// # Errors
    /// With everything as it was when the answer does not hold ([`FinishError::Refused`]).
    pub fn finish<F: Flash, I: Integrity, W: WrapKey>(
        self,
        answer: &[u8],
        store: &mut Store<F, I>,
        wrap: &W,
    ) -> Result<(HeldKey, Erasure), FinishError<F::Error, W::Error>> {
        let Self { device, done } = self;
        match done.finish(answer) {
            Ok(()) => HeldKey::adopt(store, wrap, device).map_err(FinishError::Key),
            Err(Refused { state, error }) => {
                let kf_exchange::ExchangeError::Refused(refusal) = error;
                Err(FinishError::Refused { kept: Self { device, done: state }, refusal })
            }
        }
    }
}

/// Why a kept key did not become the one in use.
#[derive(Debug)]
pub enum FinishError<F, W> {
    /// The answer does not hold.
    Refused {
        /// To go on with.
        kept: Kept,
        /// Why.
        refusal: Refusal,
    },
    /// The store or the wrapping key.
    Key(KeyError<F, W>),
}

impl<F, W> fmt::Display for FinishError<F, W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Refused { .. } => "the answer to the acknowledgement does not hold",
            Self::Key(_) => "the new key did not become the one in use",
        })
    }
}

impl<F: fmt::Debug, W: fmt::Debug> core::error::Error for FinishError<F, W> {}

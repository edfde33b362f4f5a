//! Why a message is refused.

use core::fmt;

/// Why a message is refused. Everything before [`Refusal::Unauthentic`] can be told from the octets alone; nothing after a
/// secret was used is told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refusal {
    /// More octets than any message has.
    TooLong,
    /// Not a message, or not in its one encoding.
    Malformed,
    /// Another version of the protocol, or another suite.
    Version,
    /// A message, but not the one that is due.
    OutOfOrder,
    /// A purpose that is not known, or not the one of this exchange.
    Purpose,
    /// Not a point of P-256, or the point at infinity.
    PublicKey,
    /// The message belongs to another session.
    OtherSession,
    /// The server signs with a key that the device has not pinned.
    UnpinnedServer,
    /// Signature, MAC or sealed key do not hold. Says no more on purpose.
    Unauthentic,
    /// The delivered key is older than the one that the device holds.
    OlderKey,
    /// The 32 octets given are no P-256 scalar, which happens once in 2^32: draw again.
    DrawAgain,
    /// The holder of the ephemeral key did not answer.
    Agreement,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TooLong => "the message is too long",
            Self::Malformed => "not a message of the exchange",
            Self::Version => "another version or suite of the exchange",
            Self::OutOfOrder => "not the message that is due",
            Self::Purpose => "another purpose",
            Self::PublicKey => "not a public key on P-256",
            Self::OtherSession => "the message belongs to another session",
            Self::UnpinnedServer => "the server signs with a key that is not pinned",
            Self::Unauthentic => "the message is not authentic",
            Self::OlderKey => "the delivered key is older than the one held",
            Self::DrawAgain => "the random octets are no scalar of P-256; draw again",
            Self::Agreement => "the holder of the ephemeral key did not answer",
        })
    }
}

impl core::error::Error for Refusal {}

/// A refused message, or what the holder of a private key says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExchangeError<E> {
    /// The message.
    Refused(Refusal),
    /// The holder of the private key did not answer.
    Holder(E),
}

impl<E> From<Refusal> for ExchangeError<E> {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl<E> fmt::Display for ExchangeError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(refusal) => refusal.fmt(f),
            Self::Holder(_) => f.write_str("the holder of the private key did not answer"),
        }
    }
}

impl<E: core::error::Error + 'static> core::error::Error for ExchangeError<E> {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            Self::Refused(_) => None,
            Self::Holder(holder) => Some(holder),
        }
    }
}

/// A step that did not happen: why, and the state as it was before, to go on with.
pub struct Refused<S, E = core::convert::Infallible> {
    /// The state, unchanged.
    pub state: S,
    /// Why.
    pub error: ExchangeError<E>,
}

impl<S, E: fmt::Debug> fmt::Debug for Refused<S, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Refused").field(&self.error).finish()
    }
}

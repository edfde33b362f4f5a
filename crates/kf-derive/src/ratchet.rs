//! The epoch ratchet of a device: a chain of keys that only goes forward.

use core::fmt;

use kf_key::SecretArray;

use crate::arrangement::SoftwareHeld;
use crate::hierarchy::{DeriveError, DeviceKey, SessionKey, step};
use crate::info::{ContextTooLong, Level};
use crate::keyed_hmac::SoftwareKey;

/// Why a ratchet did not advance. It stays where it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RatchetError {
    /// The caller asked for a position that is behind, or for the present one: a request that was replayed, or a clock
    /// that went back. What is behind is wiped, so there is no way to obey.
    NotAhead {
        /// Where the ratchet is.
        position: u32,
        /// What was asked for.
        requested: u32,
    },
    /// The caller asked for more steps than one call may take: a clock that jumped, or a forged request.
    TooFar {
        /// Where the ratchet is.
        position: u32,
        /// What was asked for.
        requested: u32,
    },
    /// A bug of ours: a step has no context that could be too long.
    Context(ContextTooLong),
}

impl fmt::Display for RatchetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAhead { position, requested } => {
                write!(f, "the ratchet is at position {position} and cannot go to {requested}; it only goes forward")
            }
            Self::TooFar { position, requested } => write!(
                f,
                "position {requested} is more than {} steps from {position}; check the clock, or advance in parts",
                Ratchet::<SoftwareKey>::MAX_STEPS
            ),
            Self::Context(too_long) => too_long.fmt(f),
        }
    }
}

impl core::error::Error for RatchetError {}

/// A one-way chain below a device key. The key of the next position is derived from the present one, which is then
/// wiped: whoever takes the device learns nothing of the positions that it has left behind.
///
/// ```text
/// key 0     = Expand(device key, info of level Ratchet, epoch 0)        the device key is wiped
/// key n + 1 = Expand(key n, info of level Ratchet, epoch n + 1)         key n is wiped
/// ```
///
/// It protects against who takes the *device*. Who holds the root recomputes every position; against that only a
/// mixed session helps ([`DeviceKey::mixed_session`]).
///
/// To advance durably: advance, write position and key to storage over the old ones, then use the new sessions. When
/// power fails before the write, the old position is read back and the same steps lead to the same key.
#[derive(Debug)]
pub struct Ratchet<K = SoftwareKey> {
    key: K,
    position: u32,
}

impl<K: SoftwareHeld> DeviceKey<K> {
    /// Starts the ratchet at position 0. The device key is spent. There is none for a key that a chip holds: the chip
    /// would keep the start of the chain.
    ///
    /// # Errors
    /// [`RatchetError::Context`], which cannot occur.
    pub fn into_ratchet(self) -> Result<Ratchet<K>, RatchetError> {
        Ok(Ratchet { key: next(&self.0, 0)?, position: 0 })
    }
}

impl<K: SoftwareHeld> Ratchet<K> {
    /// The most steps of one call: at a step an hour five months, on a microcontroller two seconds.
    pub const MAX_STEPS: u32 = 4096;

    /// A ratchet read back from storage.
    #[must_use]
    pub fn resume(key: SecretArray<32>, position: u32) -> Self {
        Self { key: K::from_secret(key), position }
    }

    /// Where the ratchet is.
    #[must_use]
    pub const fn position(&self) -> u32 {
        self.position
    }

    /// The key of the present position, to be stored in place of the one before.
    #[must_use]
    pub fn key(&self) -> &SecretArray<32> {
        self.key.secret()
    }

    /// Goes forward to `position` and wipes every key on the way. Returns the number of steps.
    ///
    /// # Errors
    /// [`RatchetError`]; the ratchet then stays where it was.
    pub fn advance_to(&mut self, position: u32) -> Result<u32, RatchetError> {
        let behind = RatchetError::NotAhead { position: self.position, requested: position };
        let steps = position.checked_sub(self.position).filter(|steps| *steps > 0).ok_or(behind)?;
        if steps > Self::MAX_STEPS {
            return Err(RatchetError::TooFar { position: self.position, requested: position });
        }
        let first = self.position + 1;
        let mut key = next(&self.key, first)?;
        for passed in (first..position).map(|before| before + 1) {
            key = next(&key, passed)?;
        }
        self.key = key;
        self.position = position;
        Ok(steps)
    }

    /// The key of a session at the present position.
    ///
    /// # Errors
    /// [`RatchetError::Context`].
    pub fn session(&self, session: &[u8]) -> Result<SessionKey<K>, RatchetError> {
        step(&self.key, Level::Session, session, self.position).map(SessionKey).map_err(context)
    }
}

fn next<K: SoftwareHeld>(key: &K, position: u32) -> Result<K, RatchetError> {
    step(key, Level::Ratchet, &[], position).map_err(context)
}

fn context(error: DeriveError<core::convert::Infallible>) -> RatchetError {
    match error {
        DeriveError::Context(too_long) => RatchetError::Context(too_long),
        DeriveError::Holder(never) => match never {},
    }
}

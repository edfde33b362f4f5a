//! Sessions whose keys cannot be recomputed from the root.

use core::fmt;

use kf_key::SecretArray;

use crate::arrangement::{KeyDerivationKey, SoftwareHeld};
use crate::hierarchy::{DeriveError, DeviceKey, SessionKey, step};
use crate::info::Level;
use crate::keyed_hmac::extract;

/// Why there is no mixed session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MixError<E> {
    /// The other side: its public key is of small order, so the shared secret is all zero (RFC 7748 section 6.1).
    SmallOrder,
    /// A step of the derivation.
    Derive(DeriveError<E>),
}

impl<E> fmt::Display for MixError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SmallOrder => {
                f.write_str("the key agreement gave an all-zero secret; the other public key is refused")
            }
            Self::Derive(error) => error.fmt(f),
        }
    }
}

impl<E: core::error::Error + 'static> core::error::Error for MixError<E> {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            Self::SmallOrder => None,
            Self::Derive(error) => error.source(),
        }
    }
}

impl<K: KeyDerivationKey> DeviceKey<K> {
    /// The key of a session into which both sides mixed fresh ephemeral keys:
    ///
    /// ```text
    /// salt        = Expand(device key, info of level Mix, no context)
    /// mixed       = Extract(salt, shared secret)                                      SP 800-56C, two steps
    /// session key = Expand(mixed, info of level MixedSession, context = transcript hash)
    /// ```
    ///
    /// `shared_secret` is the output of X25519 or of ECDH on P-256 with an ephemeral key on each side; it is wiped. Who
    /// learns the root or the device key later cannot recompute the session; who holds neither cannot take part.
    /// `transcript_hash` is SHA-256 over everything that both sides sent, their public keys included.
    ///
    /// # Errors
    /// [`MixError`].
    pub fn mixed_session(
        &self,
        shared_secret: SecretArray<32>,
        transcript_hash: &[u8; 32],
        epoch: u32,
    ) -> Result<SessionKey<K::Child>, MixError<K::Error>> {
        if shared_secret.equals(&SecretArray::fill(|_zero| ())) {
            return Err(MixError::SmallOrder);
        }
        let salt = step(&self.0, Level::Mix, &[], epoch).map_err(MixError::Derive)?.into_secret();
        // Exposed to Extract.
        let mixed = extract(salt.expose(), shared_secret.expose());
        drop((salt, shared_secret));
        let mixed = K::Child::from_secret(mixed.into_secret());
        match step(&mixed, Level::MixedSession, transcript_hash, epoch) {
            Ok(session) => Ok(SessionKey(session)),
            Err(DeriveError::Context(too_long)) => Err(MixError::Derive(DeriveError::Context(too_long))),
            Err(DeriveError::Holder(never)) => match never {},
        }
    }
}

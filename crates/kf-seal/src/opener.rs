//! The receiving side.

use core::fmt;

use kf_derive::{ApplicationKey, KeyDerivationKey};
use zeroize::Zeroize;

use crate::MAX_EXTERNAL_AAD_OCTETS;
use crate::boot::BootId;
use crate::cipher::Cipher;
use crate::envelope::{ENC_STRUCTURE_OCTETS, Sealed, enc_structure};
use crate::key_id::{KeyId, Mismatch};
use crate::replay::{Accepted, Mark};
use crate::{SealAlgorithm, replay};

/// How many failed openings an [`Opener`] answers; see [`MESSAGES_PER_BOOT`](crate::MESSAGES_PER_BOOT) for the bound
/// that this belongs to.
pub const FAILURES_PER_OPENER: u32 = 1 << 20;

/// Why nothing was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenError {
    /// The envelope is for another key than the opener's.
    Mismatch(Mismatch),
    /// The envelope is of another boot or algorithm than the opener's.
    OtherBoot,
    /// It does not open. No more is known, whatever the reason.
    Refused,
    /// The opener has refused [`FAILURES_PER_OPENER`] envelopes.
    TooManyFailures,
    /// The plaintext does not fit.
    BufferTooSmall {
        /// Octets needed.
        needed: usize,
    },
    /// More than [`MAX_EXTERNAL_AAD_OCTETS`].
    ExternalAadTooLarge {
        /// Octets given.
        octets: usize,
    },
    /// This build lacks the algorithm.
    AlgorithmNotBuilt,
    /// The holder of the application key did not answer.
    Holder,
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mismatch(mismatch) => mismatch.fmt(f),
            Self::OtherBoot => f.write_str("the payload is of another boot than the key"),
            Self::Refused => f.write_str("the sealed payload does not open"),
            Self::TooManyFailures => {
                write!(f, "{FAILURES_PER_OPENER} payloads of this boot did not open: bar the boot")
            }
            Self::BufferTooSmall { needed } => write!(f, "the buffer is too small: the plaintext has {needed} octets"),
            Self::ExternalAadTooLarge { octets } => {
                write!(f, "the additional data has {octets} octets; at most {MAX_EXTERNAL_AAD_OCTETS} are allowed")
            }
            Self::AlgorithmNotBuilt => f.write_str("this build has not the algorithm: switch its feature on"),
            Self::Holder => f.write_str("the holder of the application key did not answer"),
        }
    }
}

impl core::error::Error for OpenError {}

/// Opens the messages of one boot.
pub struct Opener {
    cipher: Cipher,
    algorithm: SealAlgorithm,
    key_id: KeyId,
    boot: BootId,
    failures: u32,
}

impl fmt::Debug for Opener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Opener({:?}, {:?}, {:?})", self.key_id, self.algorithm, self.boot)
    }
}

impl Opener {
    /// For the boot of `sealed`, if its key is `expected`, where `application` was derived.
    ///
    /// # Errors
    /// [`OpenError::Mismatch`], [`OpenError::AlgorithmNotBuilt`], [`OpenError::Holder`].
    pub fn new<K: KeyDerivationKey>(
        application: &ApplicationKey<K>,
        expected: &KeyId,
        sealed: &Sealed<'_>,
    ) -> Result<Self, OpenError> {
        sealed.key_id().require(expected).map_err(OpenError::Mismatch)?;
        let (algorithm, boot) = (sealed.algorithm(), *sealed.boot());
        let key =
            application.boot(boot.random(), expected.sender, algorithm.into()).map_err(|_holder| OpenError::Holder)?;
        let cipher = Cipher::new(algorithm, &key).ok_or(OpenError::AlgorithmNotBuilt)?;
        Ok(Self { cipher, algorithm, key_id: *expected, boot, failures: 0 })
    }

    /// Opens `sealed` into the front of `out`. What comes back is authentic and may be a replay: it gives its plaintext
    /// out once the replay window has accepted its mark. After a refusal nothing of the plaintext is in `out`.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open<'out>(
        &mut self,
        sealed: &Sealed<'_>,
        external_aad: &[u8],
        out: &'out mut [u8],
    ) -> Result<Authentic<'out>, OpenError> {
        sealed.key_id().require(&self.key_id).map_err(OpenError::Mismatch)?;
        if *sealed.boot() != self.boot || sealed.algorithm() != self.algorithm {
            return Err(OpenError::OtherBoot);
        }
        if self.failures >= FAILURES_PER_OPENER {
            return Err(OpenError::TooManyFailures);
        }
        let mut octets = [0; ENC_STRUCTURE_OCTETS];
        let aad = enc_structure(&mut octets, sealed.protected(), external_aad)
            .ok_or(OpenError::ExternalAadTooLarge { octets: external_aad.len() })?;
        let (ciphertext, tag) = sealed.ciphertext();
        let needed = ciphertext.len();
        let plaintext = out.get_mut(..needed).ok_or(OpenError::BufferTooSmall { needed })?;
        plaintext.copy_from_slice(ciphertext);
        let nonce = self.boot.nonce(self.algorithm, sealed.counter());
        if self.cipher.decrypt(nonce.as_bytes(), aad, plaintext, tag).is_err() {
            plaintext.zeroize();
            self.failures += 1;
            return Err(OpenError::Refused);
        }
        Ok(Authentic { plaintext, mark: Mark::new(self.boot, sealed.counter()) })
    }
}

/// A message that opened and that no replay window has seen yet.
pub struct Authentic<'out> {
    plaintext: &'out mut [u8],
    mark: Mark,
}

impl fmt::Debug for Authentic<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Authentic({} octets, {:?})", self.plaintext.len(), self.mark)
    }
}

impl<'out> Authentic<'out> {
    /// What to show the replay window.
    #[must_use]
    pub const fn mark(&self) -> &Mark {
        &self.mark
    }

    /// The plaintext, once `accepted` says that this very message is new. Make the window durable first.
    ///
    /// # Errors
    /// [`NotAccepted`](replay::NotAccepted) when `accepted` is of another message; the plaintext is then wiped.
    pub fn release(self, accepted: &Accepted) -> Result<&'out [u8], replay::NotAccepted> {
        if accepted.is_of(&self.mark) {
            return Ok(self.plaintext);
        }
        self.plaintext.zeroize();
        Err(replay::NotAccepted)
    }
}

#[cfg(test)]
mod tests;

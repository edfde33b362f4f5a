//! The sending side.

use core::fmt;

use kf_derive::{ApplicationKey, KeyDerivationKey};

use crate::algorithm::{SealAlgorithm, TAG_OCTETS};
use crate::boot::{Boot, BootId};
use crate::cipher::Cipher;
use crate::envelope::{ENC_STRUCTURE_OCTETS, Protected, enc_structure, write_front};
use crate::key_id::KeyId;
use crate::{MAX_EXTERNAL_AAD_OCTETS, MAX_PLAINTEXT_OCTETS};

/// How many messages one boot seals. At 2^20 messages of at most 2^10 blocks, and as many failed openings
/// ([`FAILURES_PER_OPENER`](crate::FAILURES_PER_OPENER)), the advantage of an attacker over one key stays below 2^-64,
/// with every algorithm:
///
/// - AES-CCM processes each block twice: (2 · 2^10 · 2^20)^2 / 2^129 = 2^-67 for confidentiality, 2^-65 for integrity
///   (RFC 9001 appendix B.2 with these numbers; RFC 9147 section 4.5.3 allows 2^23 records of 2^10 blocks).
/// - AES-GCM: (2^10 · 2^20)^2 / 2^129 = 2^-69 (RFC 9001 appendix B.1; SP 800-38D section 8.3 allows 2^32 invocations).
/// - ChaCha20-Poly1305 has no limit of confidentiality that matters; its integrity is the number of forgeries times
///   2^10 · 2^-103 (RFC 9147 section 4.5.3 and RFC 9001 section 6.6 allow 2^36 forgeries).
///
/// At one message a second a boot lasts twelve days. A new one costs 16 random octets, one HMAC and one step of the
/// persistent counter; the sender need not restart for it.
pub const MESSAGES_PER_BOOT: u32 = 1 << 20;

/// Why nothing was sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SealError {
    /// More than [`MAX_PLAINTEXT_OCTETS`].
    PlaintextTooLarge {
        /// Octets given.
        octets: usize,
    },
    /// More than [`MAX_EXTERNAL_AAD_OCTETS`].
    ExternalAadTooLarge {
        /// Octets given.
        octets: usize,
    },
    /// The envelope does not fit.
    BufferTooSmall {
        /// Octets needed; for a buffer of no use at all, the most that could be.
        needed: usize,
    },
    /// This boot has sealed [`MESSAGES_PER_BOOT`] messages.
    BootExhausted,
    /// This build lacks the algorithm.
    AlgorithmNotBuilt,
    /// The holder of the application key did not answer.
    Holder,
    /// A defect of this crate or of a cipher below it.
    Bug,
}

impl fmt::Display for SealError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PlaintextTooLarge { octets } => {
                write!(f, "the plaintext has {octets} octets; at most {MAX_PLAINTEXT_OCTETS} are sealed at once")
            }
            Self::ExternalAadTooLarge { octets } => {
                write!(f, "the additional data has {octets} octets; at most {MAX_EXTERNAL_AAD_OCTETS} are allowed")
            }
            Self::BufferTooSmall { needed } => write!(f, "the buffer is too small: the envelope has {needed} octets"),
            Self::BootExhausted => write!(
                f,
                "this boot has sealed {MESSAGES_PER_BOOT} messages: step the boot counter, draw 16 random octets, and \
                 make a new sealer"
            ),
            Self::AlgorithmNotBuilt => f.write_str("this build has not the algorithm: switch its feature on"),
            Self::Holder => f.write_str("the holder of the application key did not answer"),
            Self::Bug => f.write_str("the cipher refused its own input: please report this"),
        }
    }
}

impl core::error::Error for SealError {}

/// Seals the messages of one boot, one service and one direction. It alone holds the counter, so it cannot be copied:
///
/// ```compile_fail,E0599
/// fn twice(sealer: &kf_seal::Sealer) -> kf_seal::Sealer {
///     sealer.clone()
/// }
/// ```
pub struct Sealer {
    cipher: Cipher,
    algorithm: SealAlgorithm,
    protected: Protected,
    boot: BootId,
    /// Of the next message; never more than [`MESSAGES_PER_BOOT`].
    counter: u32,
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sealer({:?}, {:?}, {} sealed)", self.algorithm, self.boot, self.counter)
    }
}

impl Sealer {
    /// Starts a boot below `application`, which the caller derived at the place that `key_id` names.
    ///
    /// # Errors
    /// [`SealError::AlgorithmNotBuilt`], [`SealError::Holder`].
    #[allow(clippy::needless_pass_by_value, reason = "one boot makes one sealer")]
    pub fn new<K: KeyDerivationKey>(
        application: &ApplicationKey<K>,
        key_id: KeyId,
        boot: Boot,
        algorithm: SealAlgorithm,
    ) -> Result<Self, SealError> {
        let boot = boot.id();
        let key =
            application.boot(boot.random(), key_id.sender, algorithm.into()).map_err(|_holder| SealError::Holder)?;
        let cipher = Cipher::new(algorithm, &key).ok_or(SealError::AlgorithmNotBuilt)?;
        let protected = Protected::encode(algorithm, &key_id, &boot).ok_or(SealError::Bug)?;
        Ok(Self { cipher, algorithm, protected, boot, counter: 0 })
    }

    /// Messages that this boot still seals. Start the next boot in good time.
    #[must_use]
    pub const fn remaining(&self) -> u32 {
        MESSAGES_PER_BOOT.saturating_sub(self.counter)
    }

    /// Seals `plaintext` into the front of `out` and returns the envelope. `external_aad` is not sent; the opener must
    /// give the same octets.
    ///
    /// A call that failed has used no counter (but for [`SealError::Bug`]) and left no plaintext in `out`.
    ///
    /// # Errors
    /// [`SealError`].
    pub fn seal<'out>(
        &mut self,
        plaintext: &[u8],
        external_aad: &[u8],
        out: &'out mut [u8],
    ) -> Result<&'out [u8], SealError> {
        if plaintext.len() > MAX_PLAINTEXT_OCTETS {
            return Err(SealError::PlaintextTooLarge { octets: plaintext.len() });
        }
        if self.counter >= MESSAGES_PER_BOOT {
            return Err(SealError::BootExhausted);
        }
        let mut octets = [0; ENC_STRUCTURE_OCTETS];
        let aad = enc_structure(&mut octets, self.protected.as_bytes(), external_aad)
            .ok_or(SealError::ExternalAadTooLarge { octets: external_aad.len() })?;
        let nonce = self.boot.nonce(self.algorithm, self.counter);
        let inner = plaintext.len() + TAG_OCTETS;
        let most = plaintext.len() + crate::MAX_OVERHEAD_OCTETS;
        let front = write_front(out, self.protected.as_bytes(), &nonce, inner)
            .ok_or(SealError::BufferTooSmall { needed: most })?;
        let envelope =
            out.get_mut(..front + inner).ok_or(SealError::BufferTooSmall { needed: front.saturating_add(inner) })?;
        let (ciphertext, tag) = envelope.split_at_mut(front + plaintext.len());
        let ciphertext = ciphertext.get_mut(front..).ok_or(SealError::Bug)?;
        ciphertext.copy_from_slice(plaintext);
        // Spent before the cipher sees the nonce: whatever happens from here on, no other message gets it.
        self.counter += 1;
        match self.cipher.encrypt(nonce.as_bytes(), aad, ciphertext) {
            Ok(found) => tag.copy_from_slice(&found),
            Err(_refused) => {
                ciphertext.fill(0);
                return Err(SealError::Bug);
            }
        }
        Ok(envelope)
    }
}

#[cfg(test)]
mod tests;

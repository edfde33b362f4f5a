//! The boot: the part of a sender's life that shares one sealing key.

use core::fmt;

use crate::algorithm::{MAX_NONCE_OCTETS, SealAlgorithm};

/// Octets of the boot's identifier on the wire: number and random.
pub(crate) const BOOT_ID_OCTETS: usize = 20;

/// Names a boot: public, part of every envelope.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct BootId {
    number: u32,
    random: [u8; 16],
}

impl BootId {
    /// The persistent counter of the sender at the start of the boot.
    #[must_use]
    pub const fn number(&self) -> u32 {
        self.number
    }

    /// The random octets that the sealing key was derived with.
    #[must_use]
    pub const fn random(&self) -> &[u8; 16] {
        &self.random
    }

    pub(crate) fn to_bytes(self) -> [u8; BOOT_ID_OCTETS] {
        let mut bytes = [0; BOOT_ID_OCTETS];
        let (number, random) = bytes.split_at_mut(4);
        number.copy_from_slice(&self.number.to_be_bytes());
        random.copy_from_slice(&self.random);
        bytes
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (number, random) = bytes.split_first_chunk()?;
        Some(Self { number: u32::from_be_bytes(*number), random: random.try_into().ok()? })
    }

    /// The nonce of one message, in the deterministic construction of SP 800-38D section 8.2.1: a fixed field, here the
    /// front of the boot's random octets, and the counter as the invocation field. The key alone makes the nonce
    /// unique; a fixed field that differs between boots keeps an attacker who collects messages of many keys from
    /// testing one guessed key against all of them at once.
    pub(crate) fn nonce(&self, algorithm: SealAlgorithm, counter: u32) -> Nonce {
        let mut nonce = Nonce { octets: [0; MAX_NONCE_OCTETS], length: algorithm.nonce_octets() };
        let fixed = nonce.length.saturating_sub(4);
        let octets = self.random.iter().take(fixed).copied().chain(counter.to_be_bytes());
        nonce.octets.iter_mut().zip(octets).for_each(|(place, octet)| *place = octet);
        nonce
    }
}

impl fmt::Debug for BootId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "boot {} (", self.number)?;
        self.random.iter().try_for_each(|octet| write!(f, "{octet:02x}"))?;
        f.write_str(")")
    }
}

pub(crate) struct Nonce {
    octets: [u8; MAX_NONCE_OCTETS],
    length: usize,
}

impl Nonce {
    pub(crate) fn as_bytes(&self) -> &[u8] {
        self.octets.get(..self.length).unwrap_or_default()
    }
}

/// Random octets that are all the same, as a source gives that is stuck or was never started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StuckRandom;

impl fmt::Display for StuckRandom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("all random octets of the boot are the same: check the noise source")
    }
}

impl core::error::Error for StuckRandom {}

/// A boot that nothing has been sealed under yet. Neither Clone nor Copy, and spent by [`Sealer::new`](crate::Sealer::new),
/// so that one draw of random octets makes one sealer:
///
/// ```compile_fail,E0599
/// let boot = kf_seal::Boot::new(1, [0x5a; 16]).unwrap();
/// let again = boot.clone();
/// ```
#[derive(Debug)]
pub struct Boot(BootId);

impl Boot {
    /// `number` is the next value of a counter that survives power loss and never goes down; `random` are 128 bits drawn
    /// now, from a source that passed its health tests. A draw must be used once.
    ///
    /// # Errors
    /// [`StuckRandom`].
    pub fn new(number: u32, random: [u8; 16]) -> Result<Self, StuckRandom> {
        let [first, ..] = random;
        if random.iter().all(|octet| *octet == first) {
            return Err(StuckRandom);
        }
        Ok(Self(BootId { number, random }))
    }

    /// Its public name.
    #[must_use]
    pub const fn id(&self) -> BootId {
        self.0
    }
}

//! How often one key may seal: the bounds of the AEADs, as numbers that an engine can count to.
//!
//! A key that is used past its bound does not break with a bang; each further message adds to the chance that an attacker
//! wins. The chance accepted here is the one of QUIC, 2^-57 per key (RFC 9001 section 6.6 and appendix B).

use kf_key::UnixMillis;
use serde::{Deserialize, Serialize};

/// An AEAD together with how its nonces are made, which is what its bound depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Sealing {
    /// AES-GCM with nonces of 96 random bits: SP 800-38D section 8.3.
    GcmRandomNonce,
    /// AES-GCM with nonces that count.
    GcmCounter,
    /// AES-CCM with nonces that count.
    CcmCounter,
    /// ChaCha20-Poly1305 with nonces that count.
    ChaCha20Poly1305,
}

/// Octets of a block of AES.
const BLOCK_OCTETS: u64 = 16;

/// The most blocks under one key of AES-GCM: 2^35, whose square over 2^127 is 2^-57 (RFC 9001 appendix B.1.1).
const GCM_BLOCKS: u64 = 1 << 35;

/// The most blocks under one key of AES-CCM: 2^33.5, since the MAC calls the block cipher once more for each block, and
/// confidentiality and integrity share the chance (RFC 9001 appendix B.2). The root of 2^67.
const CCM_BLOCKS: u64 = 12_148_001_999;

impl Sealing {
    /// The most messages that one key may seal, each of at most `message_octets` octets of plaintext and associated
    /// data together.
    ///
    /// - random nonces: 2^32 invocations whatever their length (SP 800-38D section 8.3), or fewer if the blocks run out;
    /// - nonces that count: as many as the blocks allow; with packets of 2^11 octets these are QUIC's 2^28 for GCM and
    ///   2^26.5 for CCM, with 2^16 octets 2^23 and 2^21.5;
    /// - ChaCha20-Poly1305: no bound of confidentiality below the counter; 2^48 messages here, so that a counter that
    ///   runs away is noticed.
    #[must_use]
    pub fn max_messages(self, message_octets: u32) -> u64 {
        let blocks = Self::blocks(u64::from(message_octets));
        match self {
            Self::GcmRandomNonce => (GCM_BLOCKS / blocks).min(1 << 32),
            Self::GcmCounter => GCM_BLOCKS / blocks,
            Self::CcmCounter => CCM_BLOCKS / blocks,
            Self::ChaCha20Poly1305 => 1 << 48,
        }
    }

    /// The most blocks of 16 octets, plaintext and associated data together with one more for each message, that one key
    /// may seal; for messages of different lengths. Unbounded for ChaCha20-Poly1305.
    #[must_use]
    pub const fn max_blocks(self) -> u64 {
        match self {
            Self::GcmRandomNonce | Self::GcmCounter => GCM_BLOCKS,
            Self::CcmCounter => CCM_BLOCKS,
            Self::ChaCha20Poly1305 => u64::MAX,
        }
    }

    /// The blocks that a message of so many octets costs.
    #[must_use]
    pub const fn blocks(message_octets: u64) -> u64 {
        // One block more for the counter of the tag; a message of nothing costs that one.
        message_octets.div_ceil(BLOCK_OCTETS) + 1
    }

    /// How long a key lasts at a steady rate, milliseconds; saturating. Never, for a rate of zero.
    #[must_use]
    pub fn lasts(self, message_octets: u32, messages_per_second: u32) -> Option<u64> {
        if messages_per_second == 0 {
            return None;
        }
        let seconds = self.max_messages(message_octets) / u64::from(messages_per_second);
        Some(seconds.saturating_mul(UnixMillis::SECOND))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 9001 section 6.6 and appendix B, within the one block that this module adds for the tag.
    #[test]
    fn the_limits_are_those_of_quic_for_packets_of_its_size() {
        for (sealing, octets, power) in [
            (Sealing::GcmCounter, 1 << 11, 28.0),
            (Sealing::GcmCounter, 1 << 16, 23.0),
            (Sealing::CcmCounter, 1 << 11, 26.5),
            (Sealing::CcmCounter, 1 << 16, 21.5),
        ] {
            let messages = u32::try_from(sealing.max_messages(octets)).expect("fits");
            let found = f64::from(messages).log2();
            assert!((found - power).abs() < 0.02, "{sealing:?}: 2^{found} instead of 2^{power}");
        }
    }

    #[test]
    fn the_root_is_one() {
        assert_eq!(u128::from(CCM_BLOCKS), (1_u128 << 67).isqrt());
    }

    #[test]
    fn random_nonces_end_at_two_to_the_thirty_two_whatever_the_length() {
        assert_eq!(Sealing::GcmRandomNonce.max_messages(0), 1 << 32);
        assert_eq!(Sealing::GcmRandomNonce.max_messages(64), 1 << 32);
        assert_eq!(Sealing::GcmRandomNonce.max_messages(112), 1 << 32);
        assert!(Sealing::GcmRandomNonce.max_messages(u32::MAX) < 1 << 32);
        // One message a second: 136 years; a hundred: 497 days.
        let days = |rate| Sealing::GcmRandomNonce.lasts(64, rate).map(|time| time / UnixMillis::DAY);
        assert_eq!(days(1), Some(49_710));
        assert_eq!(days(100), Some(497));
        assert_eq!(days(0), None);
    }

    #[test]
    fn longer_messages_never_raise_a_limit() {
        for sealing in [Sealing::GcmRandomNonce, Sealing::GcmCounter, Sealing::CcmCounter, Sealing::ChaCha20Poly1305] {
            for octets in [0, 1, 15, 16, 17, 1_024, 1 << 20] {
                assert!(sealing.max_messages(octets) >= sealing.max_messages(octets * 2 + 1), "{sealing:?} {octets}");
                assert!(sealing.max_messages(octets) > 0);
            }
        }
    }
}

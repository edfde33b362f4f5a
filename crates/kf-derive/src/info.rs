//! The `info` of one derivation step.

use core::fmt;

/// The most octets of an encoded `info`. Two SHA-256 blocks behind the key block, and within one transfer of every
/// secure element that offers a keyed HMAC.
pub const MAX_INFO_OCTETS: usize = 127;

/// The most octets of a context: what is left when the purpose is the longest one.
pub const MAX_CONTEXT_OCTETS: usize = 80;

const VERSION: u8 = 1;

/// The level of the key that a step yields: one code per kind of place, so that no two kinds share an `info`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
#[allow(missing_docs, reason = "the names are those of the hierarchy")]
pub enum Level {
    Facility = 1,
    Batch = 2,
    Device = 3,
    Session = 4,
    Application = 5,
    Storage = 6,
    Wrapping = 7,
    Boot = 8,
    Ratchet = 9,
    Mix = 10,
    MixedSession = 11,
}

/// What the derived key is used with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Algorithm {
    /// A further derivation step: HKDF-Expand with SHA-256.
    HkdfSha256 = 1,
    /// AES-256-GCM (SP 800-38D).
    Aes256Gcm = 2,
    /// HMAC-SHA-256 (FIPS 198-1).
    HmacSha256 = 3,
    /// AES-128-CCM with a nonce of 13 octets and a tag of 16 (SP 800-38C; COSE's AES-CCM-16-128-128).
    Aes128Ccm = 4,
    /// AES-128-GCM (SP 800-38D).
    Aes128Gcm = 5,
    /// ChaCha20-Poly1305 (RFC 8439).
    ChaCha20Poly1305 = 6,
}

impl Algorithm {
    /// Every algorithm.
    pub const ALL: [Self; 6] =
        [Self::HkdfSha256, Self::Aes256Gcm, Self::HmacSha256, Self::Aes128Ccm, Self::Aes128Gcm, Self::ChaCha20Poly1305];

    /// The name used in vectors, configuration and answers.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::HkdfSha256 => "hkdf-sha256",
            Self::Aes256Gcm => "aes-256-gcm",
            Self::HmacSha256 => "hmac-sha256",
            Self::Aes128Ccm => "aes-128-ccm",
            Self::Aes128Gcm => "aes-128-gcm",
            Self::ChaCha20Poly1305 => "chacha20-poly1305",
        }
    }

    /// Octets of a key: what is kept of the 32 of one HMAC, from the front. The number is part of `info`, so a short
    /// key is no prefix of a long one.
    #[must_use]
    pub const fn key_octets(self) -> usize {
        match self {
            Self::HkdfSha256 | Self::Aes256Gcm | Self::HmacSha256 | Self::ChaCha20Poly1305 => 32,
            Self::Aes128Ccm | Self::Aes128Gcm => 16,
        }
    }
}

/// What a key is for. Each purpose is a separate Expand call, never a further block of another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Purpose {
    /// Deriving the keys of the next level.
    Derive,
    /// Wrapping private signature keys of certification authorities and of the log.
    WrapSignatureKey,
    /// Wrapping secrets of the registry, such as device salts.
    WrapRegistry,
    /// Wrapping the replaceable key that lies under a key that a chip holds for good.
    WrapReplaceableKey,
    /// Encrypting application data.
    Encrypt,
    /// Authenticating application data.
    Authenticate,
    /// Making the private half of a key agreement, so that somebody can encrypt to a place of the tree.
    Agree,
    /// A value that shows that the key is the same as before and is used for nothing else.
    KeyCheck,
}

impl Purpose {
    /// Every purpose.
    pub const ALL: [Self; 8] = [
        Self::Derive,
        Self::WrapSignatureKey,
        Self::WrapRegistry,
        Self::WrapReplaceableKey,
        Self::Encrypt,
        Self::Authenticate,
        Self::Agree,
        Self::KeyCheck,
    ];

    /// The text in the encoding.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Derive => "derive",
            Self::WrapSignatureKey => "wrap signature key",
            Self::WrapRegistry => "wrap registry",
            Self::WrapReplaceableKey => "wrap replaceable",
            Self::Encrypt => "encrypt",
            Self::Authenticate => "authenticate",
            Self::Agree => "agree",
            Self::KeyCheck => "key check",
        }
    }
}

/// A context longer than [`MAX_CONTEXT_OCTETS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ContextTooLong {
    /// Octets given.
    pub octets: usize,
}

impl fmt::Display for ContextTooLong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the context has {} octets; at most {MAX_CONTEXT_OCTETS} are allowed", self.octets)
    }
}

impl core::error::Error for ContextTooLong {}

/// One encoded `info`: which key, at which place of the tree, for what, in which epoch. The encoding is injective:
///
/// ```text
/// version 1 | level 1 | algorithm 1 | key octets 2 | n 1 | purpose n | m 1 | context m | epoch 4     (big endian)
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Info {
    octets: [u8; MAX_INFO_OCTETS + 1],
    length: usize,
    level: Level,
    key_octets: u8,
}

impl fmt::Debug for Info {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Info({} octets)", self.length)
    }
}

impl Info {
    /// Encodes one step.
    ///
    /// # Errors
    /// [`ContextTooLong`].
    // Inlined, so that the lengths of a place are known where it is named: half the cost of an encoding.
    #[inline]
    pub fn new(
        level: Level,
        algorithm: Algorithm,
        purpose: Purpose,
        context: &[u8],
        epoch: u32,
    ) -> Result<Self, ContextTooLong> {
        let too_long = ContextTooLong { octets: context.len() };
        if context.len() > MAX_CONTEXT_OCTETS {
            return Err(too_long);
        }
        let context_length = u8::try_from(context.len()).map_err(|_out_of_range| too_long)?;
        let key_octets = u8::try_from(algorithm.key_octets()).map_err(|_out_of_range| too_long)?;
        let purpose = purpose.name().as_bytes();
        let purpose_length = u8::try_from(purpose.len()).map_err(|_out_of_range| too_long)?;
        let mut info = Self { octets: [0; MAX_INFO_OCTETS + 1], length: 0, level, key_octets };
        let head = [VERSION, level.code(), algorithm.code(), 0, key_octets, purpose_length];
        let [e0, e1, e2, e3] = epoch.to_be_bytes();
        let places = info.octets.split_first_chunk_mut().ok_or(too_long)?;
        *places.0 = head;
        let (place, rest) = places.1.split_at_mut_checked(purpose.len()).ok_or(too_long)?;
        place.copy_from_slice(purpose);
        let (place, rest) = rest.split_first_mut().ok_or(too_long)?;
        *place = context_length;
        let (place, rest) = rest.split_at_mut_checked(context.len()).ok_or(too_long)?;
        place.copy_from_slice(context);
        // The octet behind info makes it the message of a keyed HMAC.
        *rest.first_chunk_mut().ok_or(too_long)? = [e0, e1, e2, e3, 0x01];
        info.length = head.len() + purpose.len() + 1 + context.len() + 4;
        Ok(info)
    }

    /// Reads an encoded `info` back; `None` unless it is one that [`Info::new`] writes.
    #[must_use]
    pub fn decode(octets: &[u8]) -> Option<Self> {
        let [VERSION, level, algorithm, _, _, rest @ ..] = octets else { return None };
        let (purpose, rest) = counted(rest)?;
        let (context, epoch) = counted(rest)?;
        let level = Level::ALL.into_iter().find(|known| known.code() == *level)?;
        let algorithm = Algorithm::ALL.into_iter().find(|known| known.code() == *algorithm)?;
        let purpose = Purpose::ALL.into_iter().find(|known| known.name().as_bytes() == purpose)?;
        let info = Self::new(level, algorithm, purpose, context, u32::from_be_bytes(epoch.try_into().ok()?)).ok()?;
        (info.as_bytes() == octets).then_some(info)
    }

    /// The level of the key at this place.
    #[must_use]
    pub const fn level(&self) -> Level {
        self.level
    }

    /// Octets of the key at this place: 16 or 32, as its algorithm has it.
    #[must_use]
    pub const fn key_octets(&self) -> u8 {
        self.key_octets
    }

    /// The octets of `info`.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.octets.get(..self.length).unwrap_or_default()
    }

    /// The message for a keyed HMAC: `info || 0x01`, which makes the tag the first block of HKDF-Expand
    /// (RFC 5869 section 2.3).
    #[must_use]
    pub fn hmac_message(&self) -> &[u8] {
        self.octets.get(..=self.length).unwrap_or_default()
    }
}

/// As many octets as the first one says, and what follows.
fn counted(octets: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = octets.split_first()?;
    rest.split_at_checked(usize::from(*length))
}

impl Level {
    /// Every level.
    pub const ALL: [Self; 11] = [
        Self::Facility,
        Self::Batch,
        Self::Device,
        Self::Session,
        Self::Application,
        Self::Storage,
        Self::Wrapping,
        Self::Boot,
        Self::Ratchet,
        Self::Mix,
        Self::MixedSession,
    ];

    /// The name used in vectors and answers.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Facility => "facility",
            Self::Batch => "batch",
            Self::Device => "device",
            Self::Session => "session",
            Self::Application => "application",
            Self::Storage => "storage",
            Self::Wrapping => "wrapping",
            Self::Boot => "boot",
            Self::Ratchet => "ratchet",
            Self::Mix => "mix",
            Self::MixedSession => "mixed-session",
        }
    }

    #[allow(clippy::as_conversions, reason = "a fieldless enum with explicit codes")]
    const fn code(self) -> u8 {
        self as u8
    }
}

impl Algorithm {
    #[allow(clippy::as_conversions, reason = "a fieldless enum with explicit codes")]
    const fn code(self) -> u8 {
        self as u8
    }
}

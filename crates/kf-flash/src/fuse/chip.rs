//! The chips, and what each can do.

use core::fmt;
use core::str::FromStr;

/// A chip of the family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum ChipFamily {
    Esp32,
    Esp32S2,
    Esp32S3,
    Esp32C2,
    Esp32C3,
    Esp32C5,
    Esp32C6,
    Esp32C61,
    Esp32H2,
    Esp32P4,
}

/// What a key block is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum KeyPurpose {
    /// Nothing of the hardware; software reads it.
    User,
    /// A private key of the ECDSA peripheral.
    EcdsaKey,
    /// First half of a 512-bit flash encryption key.
    XtsAes256Key1,
    /// Second half of a 512-bit flash encryption key.
    XtsAes256Key2,
    /// A 256-bit flash encryption key.
    XtsAes128Key,
    /// An HMAC key for the digital signature peripheral and for JTAG.
    HmacDownAll,
    /// An HMAC key that opens JTAG again.
    HmacDownJtag,
    /// An HMAC key for the digital signature peripheral.
    HmacDownDigitalSignature,
    /// An HMAC key that software asks: NVS encryption, the key hierarchy below a device.
    HmacUp,
    /// The digest of a secure boot key; there are three.
    SecureBootDigest0,
    /// The second one.
    SecureBootDigest1,
    /// The third one.
    SecureBootDigest2,
}

/// No chip has this name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownChip;

/// No key block has this purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownPurpose;

impl ChipFamily {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Esp32,
        Self::Esp32S2,
        Self::Esp32S3,
        Self::Esp32C2,
        Self::Esp32C3,
        Self::Esp32C5,
        Self::Esp32C6,
        Self::Esp32C61,
        Self::Esp32H2,
        Self::Esp32P4,
    ];

    /// Its name for esptool and espefuse.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Esp32 => "esp32",
            Self::Esp32S2 => "esp32s2",
            Self::Esp32S3 => "esp32s3",
            Self::Esp32C2 => "esp32c2",
            Self::Esp32C3 => "esp32c3",
            Self::Esp32C5 => "esp32c5",
            Self::Esp32C6 => "esp32c6",
            Self::Esp32C61 => "esp32c61",
            Self::Esp32H2 => "esp32h2",
            Self::Esp32P4 => "esp32p4",
        }
    }

    /// How many blocks `BLOCK_KEYn` it has. The first ESP32 has three blocks of another kind, which plans do not burn.
    #[must_use]
    pub const fn key_blocks(self) -> u8 {
        match self {
            Self::Esp32 => 0,
            Self::Esp32C2 => 1,
            _ => 6,
        }
    }

    /// Whether software can ask for an HMAC under a key that it cannot read.
    #[must_use]
    pub const fn has_hmac(self) -> bool {
        !matches!(self, Self::Esp32 | Self::Esp32C2 | Self::Esp32C61)
    }

    /// Whether it signs with a private key that software cannot read.
    #[must_use]
    pub const fn has_ecdsa(self) -> bool {
        matches!(self, Self::Esp32C5 | Self::Esp32C61 | Self::Esp32H2 | Self::Esp32P4)
    }

    /// Whether it has the digital signature peripheral (RSA).
    #[must_use]
    pub const fn has_digital_signature(self) -> bool {
        self.has_hmac()
    }

    /// Whether flash encryption takes a 512-bit key.
    #[must_use]
    pub const fn has_xts_aes_256(self) -> bool {
        matches!(self, Self::Esp32S2 | Self::Esp32S3 | Self::Esp32P4)
    }

    /// Whether a key block can have this purpose.
    #[must_use]
    pub const fn supports(self, purpose: KeyPurpose) -> bool {
        match purpose {
            KeyPurpose::User | KeyPurpose::XtsAes128Key => self.key_blocks() > 0,
            KeyPurpose::EcdsaKey => self.has_ecdsa(),
            KeyPurpose::XtsAes256Key1 | KeyPurpose::XtsAes256Key2 => self.has_xts_aes_256(),
            KeyPurpose::HmacDownAll
            | KeyPurpose::HmacDownJtag
            | KeyPurpose::HmacDownDigitalSignature
            | KeyPurpose::HmacUp => self.has_hmac(),
            KeyPurpose::SecureBootDigest0 | KeyPurpose::SecureBootDigest1 | KeyPurpose::SecureBootDigest2 => {
                self.key_blocks() == 6
            }
        }
    }

    /// Whether this block can have this purpose: on several chips the last one cannot hold a key of flash encryption or of
    /// the ECDSA peripheral. Refused on all, because no plan needs it.
    #[must_use]
    pub const fn block_supports(self, block: u8, purpose: KeyPurpose) -> bool {
        let is_last = block == 5;
        let is_reversed = matches!(
            purpose,
            KeyPurpose::XtsAes128Key | KeyPurpose::XtsAes256Key1 | KeyPurpose::XtsAes256Key2 | KeyPurpose::EcdsaKey
        );
        block < self.key_blocks() && self.supports(purpose) && !(is_last && is_reversed)
    }
}

impl fmt::Display for ChipFamily {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for ChipFamily {
    type Err = UnknownChip;

    fn from_str(name: &str) -> Result<Self, UnknownChip> {
        Self::ALL.into_iter().find(|chip| chip.name() == name).ok_or(UnknownChip)
    }
}

impl KeyPurpose {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::User,
        Self::EcdsaKey,
        Self::XtsAes256Key1,
        Self::XtsAes256Key2,
        Self::XtsAes128Key,
        Self::HmacDownAll,
        Self::HmacDownJtag,
        Self::HmacDownDigitalSignature,
        Self::HmacUp,
        Self::SecureBootDigest0,
        Self::SecureBootDigest1,
        Self::SecureBootDigest2,
    ];

    /// Its name for espefuse.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::User => "USER",
            Self::EcdsaKey => "ECDSA_KEY",
            Self::XtsAes256Key1 => "XTS_AES_256_KEY_1",
            Self::XtsAes256Key2 => "XTS_AES_256_KEY_2",
            Self::XtsAes128Key => "XTS_AES_128_KEY",
            Self::HmacDownAll => "HMAC_DOWN_ALL",
            Self::HmacDownJtag => "HMAC_DOWN_JTAG",
            Self::HmacDownDigitalSignature => "HMAC_DOWN_DIGITAL_SIGNATURE",
            Self::HmacUp => "HMAC_UP",
            Self::SecureBootDigest0 => "SECURE_BOOT_DIGEST0",
            Self::SecureBootDigest1 => "SECURE_BOOT_DIGEST1",
            Self::SecureBootDigest2 => "SECURE_BOOT_DIGEST2",
        }
    }

    /// Whether software must not read the block. Digests are public, and secure boot cannot use one it cannot read.
    #[must_use]
    pub const fn is_secret(self) -> bool {
        !matches!(self, Self::User | Self::SecureBootDigest0 | Self::SecureBootDigest1 | Self::SecureBootDigest2)
    }

    /// Whether flash encryption uses it.
    #[must_use]
    pub const fn is_flash_encryption(self) -> bool {
        matches!(self, Self::XtsAes128Key | Self::XtsAes256Key1 | Self::XtsAes256Key2)
    }

    /// The purpose of the secure boot digest of this number, 0 to 2.
    #[must_use]
    pub const fn secure_boot_digest(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::SecureBootDigest0),
            1 => Some(Self::SecureBootDigest1),
            2 => Some(Self::SecureBootDigest2),
            _ => None,
        }
    }

    /// Whether secure boot uses it.
    #[must_use]
    pub const fn is_secure_boot(self) -> bool {
        matches!(self, Self::SecureBootDigest0 | Self::SecureBootDigest1 | Self::SecureBootDigest2)
    }
}

impl fmt::Display for KeyPurpose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for KeyPurpose {
    type Err = UnknownPurpose;

    fn from_str(name: &str) -> Result<Self, UnknownPurpose> {
        // Newer chips tell curves apart; P-256 is the one that firmware of this project uses.
        let name = if name == "ECDSA_KEY_P256" { "ECDSA_KEY" } else { name };
        Self::ALL.into_iter().find(|purpose| purpose.name() == name).ok_or(UnknownPurpose)
    }
}

impl fmt::Display for UnknownChip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no such chip; known are")?;
        ChipFamily::ALL.iter().try_for_each(|chip| write!(f, " {chip}"))
    }
}

impl fmt::Display for UnknownPurpose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no such purpose of a key block; known are")?;
        KeyPurpose::ALL.iter().try_for_each(|purpose| write!(f, " {purpose}"))
    }
}

impl core::error::Error for UnknownChip {}
impl core::error::Error for UnknownPurpose {}

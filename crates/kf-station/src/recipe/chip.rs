//! What a recipe needs to know of the chips of the ESP32 family.

use kf_flash::fuse::ChipFamily;

/// A chip.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chip {
    /// ESP32, the first.
    Esp32,
    /// ESP32-S2.
    Esp32S2,
    /// ESP32-S3.
    Esp32S3,
    /// ESP32-C3.
    Esp32C3,
    /// ESP32-C6.
    Esp32C6,
    /// ESP32-H2.
    Esp32H2,
}

impl Chip {
    const ALL: [(Self, &'static str); 6] = [
        (Self::Esp32, "esp32"),
        (Self::Esp32S2, "esp32-s2"),
        (Self::Esp32S3, "esp32-s3"),
        (Self::Esp32C3, "esp32-c3"),
        (Self::Esp32C6, "esp32-c6"),
        (Self::Esp32H2, "esp32-h2"),
    ];

    /// The chip of this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|(_, known)| *known == name).map(|(chip, _)| chip)
    }

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::ALL.into_iter().find(|(chip, _)| *chip == self).map_or("esp32", |(_, name)| name)
    }

    /// The chip as its fuses know it.
    #[must_use]
    pub const fn family(self) -> ChipFamily {
        match self {
            Self::Esp32 => ChipFamily::Esp32,
            Self::Esp32S2 => ChipFamily::Esp32S2,
            Self::Esp32S3 => ChipFamily::Esp32S3,
            Self::Esp32C3 => ChipFamily::Esp32C3,
            Self::Esp32C6 => ChipFamily::Esp32C6,
            Self::Esp32H2 => ChipFamily::Esp32H2,
        }
    }

    /// All names, for people.
    pub(super) fn names() -> String {
        Self::ALL.map(|(_, name)| name).join(", ")
    }

    /// Whether it has the HMAC peripheral, which the first ESP32 has not.
    #[must_use]
    pub const fn has_hmac_peripheral(self) -> bool {
        !matches!(self, Self::Esp32)
    }

    /// Key blocks in its fuses: BLOCK1 to 3 of the first ESP32, BLOCK_KEY0 to 5 of the others.
    #[must_use]
    pub const fn key_blocks(self) -> u8 {
        if matches!(self, Self::Esp32) { 3 } else { 6 }
    }
}

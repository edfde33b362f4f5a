//! What a chip says of itself.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use serde::Deserialize;

use super::chip::{ChipFamily, KeyPurpose};

/// The most octets of a summary: the longest that espefuse prints today is a fifth of it.
pub const MAX_SUMMARY_OCTETS: usize = 256 << 10;

/// The fuses of one chip that say what it protects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChipState {
    /// Which chip was asked.
    pub chip: ChipFamily,
    /// Whether flash is encrypted.
    pub flash_encryption: FlashEncryption,
    /// Whether only signed firmware starts.
    pub has_secure_boot: bool,
    /// Whether the JTAG pins, and JTAG over USB where the chip has it, are off for good.
    pub is_jtag_off: bool,
    /// What the boot ROM still does over its serial port.
    pub download_mode: DownloadMode,
    /// Its key blocks, by number.
    pub key_blocks: Vec<KeyBlock>,
    /// Whether the bits that hide key blocks from software can still be set.
    pub can_hide_keys: bool,
    /// Which of the three digests of secure boot are revoked, so that nobody burns a key of their own there.
    pub revoked_digests: [bool; 3],
}

/// Whether flash is encrypted, and whether that can still be undone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FlashEncryption {
    /// Flash is plain.
    Off,
    /// On, but the chip still encrypts whatever it is sent, or flash can be made plain again.
    Development,
    /// On for good.
    Release,
}

/// What the boot ROM does for whoever reaches its serial port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DownloadMode {
    /// Reads and writes flash and memory, runs code.
    Open,
    /// Writes flash only.
    Secure,
    /// Nothing.
    Off,
}

/// One key block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyBlock {
    /// The number in `BLOCK_KEYn`.
    pub number: u8,
    /// What it is for; `None` for a purpose that this does not know.
    pub purpose: Option<KeyPurpose>,
    /// Whether software can read it.
    pub is_readable: bool,
    /// Whether more of its bits can be set.
    pub is_writable: bool,
    /// Whether it reads as all zeroes. A block that cannot be read reads so, too.
    pub reads_as_empty: bool,
    /// What is in it, where its purpose is public: the digest of a secure boot key.
    pub digest: Option<[u8; 32]>,
}

impl KeyBlock {
    /// Whether nothing was ever burnt here, as far as one can see.
    #[must_use]
    pub fn is_unused(&self) -> bool {
        self.reads_as_empty && self.is_readable && self.is_writable && self.purpose == Some(KeyPurpose::User)
    }
}

/// Why a summary was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SummaryError {
    /// It is longer than [`MAX_SUMMARY_OCTETS`].
    TooLong,
    /// It is no JSON object of fuses.
    Json,
    /// A fuse that the chip must have is not in it: another chip, or another tool.
    Missing {
        /// Its name.
        fuse: String,
    },
    /// The value of a fuse is no hexadecimal number.
    Value {
        /// Its name.
        fuse: String,
    },
    /// A fuse that decides cannot be read. Nothing is taken for protected that was not seen.
    Unreadable {
        /// Its name.
        fuse: String,
    },
}

/// One fuse as espefuse prints it. What else it prints is of no interest.
#[derive(Deserialize)]
struct Fuse {
    raw_value: String,
    readable: bool,
    writeable: bool,
    #[serde(default)]
    value: serde_json::Value,
}

struct Summary(BTreeMap<String, Fuse>);

impl ChipState {
    /// A chip on which nothing was ever burnt.
    #[must_use]
    pub fn fresh(chip: ChipFamily) -> Self {
        let block = |number| KeyBlock {
            number,
            purpose: Some(KeyPurpose::User),
            is_readable: true,
            is_writable: true,
            reads_as_empty: true,
            digest: None,
        };
        Self {
            chip,
            flash_encryption: FlashEncryption::Off,
            has_secure_boot: false,
            is_jtag_off: false,
            download_mode: DownloadMode::Open,
            key_blocks: (0..chip.key_blocks()).map(block).collect(),
            can_hide_keys: true,
            revoked_digests: [false; 3],
        }
    }

    /// Reads what `espefuse --chip CHIP summary --format json` printed, whatever stands before the first brace.
    ///
    /// # Errors
    /// [`SummaryError`]: a state is never guessed.
    pub fn from_summary(chip: ChipFamily, text: &str) -> Result<Self, SummaryError> {
        if text.len() > MAX_SUMMARY_OCTETS {
            return Err(SummaryError::TooLong);
        }
        let object = text.find('{').and_then(|start| text.get(start..)).ok_or(SummaryError::Json)?;
        let fuses = serde_json::Deserializer::from_str(object).into_iter().next();
        let fuses = Summary(fuses.and_then(Result::ok).ok_or(SummaryError::Json)?);
        if chip == ChipFamily::Esp32 { first_esp32(&fuses) } else { later_chip(chip, &fuses) }
    }

    /// The key block of this number, if the chip has it.
    #[must_use]
    pub fn key_block(&self, number: u8) -> Option<&KeyBlock> {
        self.key_blocks.iter().find(|block| block.number == number)
    }

    /// Blocks that hold a key of this purpose.
    pub fn blocks_for(&self, purpose: KeyPurpose) -> impl Iterator<Item = &KeyBlock> {
        self.key_blocks.iter().filter(move |block| block.purpose == Some(purpose))
    }

    /// Whether a secret key can be read by software: a block with a secret purpose that is not hidden.
    #[must_use]
    pub fn has_readable_key(&self) -> bool {
        let is_secret = |block: &&KeyBlock| block.purpose.is_some_and(KeyPurpose::is_secret);
        self.key_blocks.iter().filter(is_secret).any(|block| block.is_readable)
    }
}

fn later_chip(chip: ChipFamily, fuses: &Summary) -> Result<ChipState, SummaryError> {
    let count = fuses.bits("SPI_BOOT_CRYPT_CNT")?;
    let is_manual_off = fuses.is_set("DIS_DOWNLOAD_MANUAL_ENCRYPT")?;
    let is_count_final = count == 7 || !fuses.fuse("SPI_BOOT_CRYPT_CNT")?.writeable;
    let is_on = count.count_ones() % 2 == 1;
    let download_mode = if fuses.is_set("DIS_DOWNLOAD_MODE")? {
        DownloadMode::Off
    } else if fuses.is_set("ENABLE_SECURITY_DOWNLOAD")? {
        DownloadMode::Secure
    } else {
        DownloadMode::Open
    };
    let pads = if chip == ChipFamily::Esp32S2 { "HARD_DIS_JTAG" } else { "DIS_PAD_JTAG" };
    let has_usb_jtag = !matches!(chip, ChipFamily::Esp32S2 | ChipFamily::Esp32C2);
    let is_jtag_off = fuses.is_set(pads)? && (!has_usb_jtag || fuses.is_set("DIS_USB_JTAG")?);
    let key_blocks = (0..chip.key_blocks()).map(|number| key_block(chip, fuses, number)).collect::<Result<_, _>>()?;
    Ok(ChipState {
        chip,
        flash_encryption: match (is_on, is_count_final && is_manual_off) {
            (false, _) => FlashEncryption::Off,
            (true, false) => FlashEncryption::Development,
            (true, true) => FlashEncryption::Release,
        },
        has_secure_boot: fuses.is_set("SECURE_BOOT_EN")?,
        is_jtag_off,
        download_mode,
        key_blocks,
        can_hide_keys: fuses.fuse("RD_DIS")?.writeable,
        revoked_digests: revoked_digests(chip, fuses)?,
    })
}

fn revoked_digests(chip: ChipFamily, fuses: &Summary) -> Result<[bool; 3], SummaryError> {
    if !chip.supports(KeyPurpose::SecureBootDigest0) {
        return Ok([false; 3]);
    }
    let is_revoked = |number: u8| fuses.is_set(&alloc::format!("SECURE_BOOT_KEY_REVOKE{number}"));
    Ok([is_revoked(0)?, is_revoked(1)?, is_revoked(2)?])
}

/// The first ESP32 has fuses of its own. Its blocks of keys are not listed, because no plan burns them.
fn first_esp32(fuses: &Summary) -> Result<ChipState, SummaryError> {
    let count = fuses.bits("FLASH_CRYPT_CNT")?;
    let is_on = count.count_ones() % 2 == 1;
    let is_count_final = count == 0x7f || !fuses.fuse("FLASH_CRYPT_CNT")?.writeable;
    let is_download_plain = fuses.is_set("DISABLE_DL_ENCRYPT")? && fuses.is_set("DISABLE_DL_DECRYPT")?;
    Ok(ChipState {
        chip: ChipFamily::Esp32,
        flash_encryption: match (is_on, is_count_final && is_download_plain) {
            (false, _) => FlashEncryption::Off,
            (true, false) => FlashEncryption::Development,
            (true, true) => FlashEncryption::Release,
        },
        has_secure_boot: fuses.is_set("ABS_DONE_0")? || fuses.is_set("ABS_DONE_1")?,
        is_jtag_off: fuses.is_set("JTAG_DISABLE")?,
        download_mode: if fuses.is_set("UART_DOWNLOAD_DIS")? { DownloadMode::Off } else { DownloadMode::Open },
        key_blocks: Vec::new(),
        can_hide_keys: fuses.fuse("RD_DIS")?.writeable,
        revoked_digests: [false; 3],
    })
}

fn key_block(chip: ChipFamily, fuses: &Summary, number: u8) -> Result<KeyBlock, SummaryError> {
    let block = fuses.fuse(&alloc::format!("BLOCK_KEY{number}"))?;
    let purpose = if chip == ChipFamily::Esp32C2 {
        // It has one block and no purposes: a block that holds something is one of flash encryption.
        let is_empty = block.readable && is_zero(&block.raw_value);
        Some(if is_empty { KeyPurpose::User } else { KeyPurpose::XtsAes128Key })
    } else {
        let fuse = alloc::format!("KEY_PURPOSE_{number}");
        let found = fuses.fuse(&fuse)?;
        let name = found.value.as_str().ok_or(SummaryError::Value { fuse })?;
        name.parse().ok()
    };
    let is_public = block.readable && purpose.is_some_and(KeyPurpose::is_secure_boot);
    Ok(KeyBlock {
        number,
        purpose,
        is_readable: block.readable,
        is_writable: block.writeable,
        reads_as_empty: is_zero(&block.raw_value),
        digest: if is_public { digest(&block.value) } else { None },
    })
}

/// Octets as espefuse prints them: two digits each, with spaces. A block with errors in its coding has text behind them.
fn digest(value: &serde_json::Value) -> Option<[u8; 32]> {
    let mut digest = [0; 32];
    let mut words = value.as_str()?.split(' ');
    for octet in &mut digest {
        *octet = u8::from_str_radix(words.next()?, 16).ok()?;
    }
    words.next().is_none().then_some(digest)
}

fn is_zero(raw: &str) -> bool {
    raw.trim_start_matches("0x").bytes().all(|digit| digit == b'0')
}

impl Summary {
    fn fuse(&self, name: &str) -> Result<&Fuse, SummaryError> {
        self.0.get(name).ok_or_else(|| SummaryError::Missing { fuse: name.into() })
    }

    /// The value of a fuse of at most 32 bits.
    fn bits(&self, name: &str) -> Result<u32, SummaryError> {
        let fuse = self.fuse(name)?;
        if !fuse.readable {
            return Err(SummaryError::Unreadable { fuse: name.into() });
        }
        let digits = fuse.raw_value.strip_prefix("0x").unwrap_or_default();
        u32::from_str_radix(digits, 16).map_err(|_digits| SummaryError::Value { fuse: name.into() })
    }

    fn is_set(&self, name: &str) -> Result<bool, SummaryError> {
        self.bits(name).map(|bits| bits != 0)
    }
}

impl fmt::Display for SummaryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong => write!(f, "the summary of the fuses is longer than {MAX_SUMMARY_OCTETS} octets"),
            Self::Json => f.write_str("this is not what `espefuse summary --format json` prints"),
            Self::Missing { fuse } => write!(f, "the summary has no fuse {fuse}: is it of the chip that was named?"),
            Self::Value { fuse } => write!(f, "the value of the fuse {fuse} is not understood"),
            Self::Unreadable { fuse } => write!(f, "the fuse {fuse} cannot be read, so its state is not known"),
        }
    }
}

impl core::error::Error for SummaryError {}

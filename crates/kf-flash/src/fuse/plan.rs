//! What to burn, in which order.

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use alloc::{format, vec};
use core::fmt;

use super::chip::{ChipFamily, KeyPurpose};
use super::state::{ChipState, DownloadMode, FlashEncryption, KeyBlock};

/// The most steps of a plan.
const MAX_STEPS: usize = 32;

/// One step. None can be undone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BurnStep {
    /// Burns a key, sets its purpose, protects it from writing and, when it is a secret, from reading.
    Key {
        /// The number in `BLOCK_KEYn`.
        block: u8,
        /// What for.
        purpose: KeyPurpose,
    },
    /// Turns something off, or on, for good.
    Lock(Lock),
}

/// What is set for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lock {
    /// Flash encryption, in release mode: it cannot be turned off again, and the boot ROM encrypts nothing that it is sent.
    FlashEncryptionRelease,
    /// Secure boot. The boot loader write-protects the bits that hide keys on its next start, so that no secret key is burnt
    /// after it.
    SecureBoot,
    /// The bits that hide keys from software are write-protected, so that nobody hides the digest that secure boot needs.
    ReadProtection,
    /// JTAG: the pins, and over USB where the chip has it.
    Jtag,
    /// The download mode of the boot ROM writes flash only.
    SecureDownload,
    /// No download mode at all: nobody mends this device over its serial port.
    Download,
    /// The place of a secure boot digest, 0 to 2, that the plan does not use: nobody else burns a key of theirs there.
    SpareDigest(u8),
}

/// Steps that were checked against a chip, in order. Made by [`BurnPlan::check`] only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BurnPlan {
    chip: ChipFamily,
    steps: Vec<BurnStep>,
}

/// Why a plan was refused. Nothing was burnt.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FuseError {
    /// A plan has at most 32 steps.
    TooManySteps,
    /// The chip that was read is another one than the plan is for.
    OtherChip {
        /// The one that was read.
        found: ChipFamily,
    },
    /// This chip cannot have a key of this purpose in this block.
    Unsupported {
        /// The block.
        block: u8,
        /// What for.
        purpose: KeyPurpose,
    },
    /// The block holds a key already, or the plan burns it twice.
    BlockInUse {
        /// The block.
        block: u8,
    },
    /// Two blocks would have a purpose of which the hardware takes one.
    PurposeTwice {
        /// What for.
        purpose: KeyPurpose,
    },
    /// Secure boot comes before this step, and would leave the key readable or flash plain.
    AfterSecureBoot {
        /// The step, from 0.
        step: usize,
    },
    /// The chip no longer lets keys be hidden, because secure boot is on.
    KeysCannotBeHidden,
    /// Flash encryption without a key for it, in the chip or in the plan.
    NoFlashEncryptionKey,
    /// A 512-bit key of flash encryption takes both of its halves.
    HalfAKey,
    /// Secure boot without the digest of a key, in the chip or in the plan: nothing would ever start again.
    NoSecureBootDigest,
    /// The step comes after download mode was closed, so that espefuse can no longer carry it out.
    AfterDownloadOff {
        /// The step, from 0.
        step: usize,
    },
    /// The chip has this already.
    Done(Lock),
    /// The chip has no such thing, or this does not plan it for that chip.
    UnsupportedLock(Lock),
}

impl BurnPlan {
    /// Checks `steps` in their order against the chip as it was read.
    ///
    /// # Errors
    /// [`FuseError`], for the first step that must not be.
    pub fn check(chip: ChipFamily, state: &ChipState, steps: &[BurnStep]) -> Result<Self, FuseError> {
        if steps.len() > MAX_STEPS {
            return Err(FuseError::TooManySteps);
        }
        if state.chip != chip {
            return Err(FuseError::OtherChip { found: state.chip });
        }
        for (number, step) in steps.iter().enumerate() {
            let before = steps.get(..number).unwrap_or_default();
            let is_port_closed =
                |step: &BurnStep| matches!(step, BurnStep::Lock(Lock::Download | Lock::SecureDownload));
            if before.iter().any(is_port_closed) || state.download_mode != DownloadMode::Open {
                return Err(FuseError::AfterDownloadOff { step: number });
            }
            match *step {
                BurnStep::Key { block, purpose } => check_key(state, before, block, purpose)?,
                BurnStep::Lock(lock) => check_lock(state, before, lock)?,
            }
        }
        let purposes = |purpose| purposes(state, steps).any(|found| found == purpose);
        if purposes(KeyPurpose::XtsAes256Key1) != purposes(KeyPurpose::XtsAes256Key2) {
            return Err(FuseError::HalfAKey);
        }
        Ok(Self { chip, steps: steps.to_vec() })
    }

    /// What is left of `steps` on a chip on which an earlier attempt was interrupted: checked like a plan of its own. A step counts
    /// as done only when the chip shows all of it.
    ///
    /// # Errors
    /// [`FuseError`]; a block that was begun and not finished is [`FuseError::BlockInUse`].
    pub fn resume(chip: ChipFamily, state: &ChipState, steps: &[BurnStep]) -> Result<Self, FuseError> {
        let left: Vec<BurnStep> = steps.iter().filter(|step| !step.is_done(state)).copied().collect();
        Self::check(chip, state, &left)
    }

    /// The chip it is for.
    #[must_use]
    pub const fn chip(&self) -> ChipFamily {
        self.chip
    }

    /// The steps in order. Each is irreversible.
    #[must_use]
    pub fn steps(&self) -> &[BurnStep] {
        &self.steps
    }
}

/// Every purpose that a block has or will have.
fn purposes(state: &ChipState, steps: &[BurnStep]) -> impl Iterator<Item = KeyPurpose> {
    let burnt = state.key_blocks.iter().filter(|block| !block.is_unused()).filter_map(|block| block.purpose);
    let planned = steps.iter().filter_map(|step| match step {
        BurnStep::Key { purpose, .. } => Some(*purpose),
        BurnStep::Lock(_) => None,
    });
    burnt.chain(planned)
}

fn check_key(state: &ChipState, before: &[BurnStep], block: u8, purpose: KeyPurpose) -> Result<(), FuseError> {
    if !state.chip.block_supports(block, purpose) {
        return Err(FuseError::Unsupported { block, purpose });
    }
    let is_planned = before.iter().any(|step| matches!(step, BurnStep::Key { block: other, .. } if *other == block));
    if is_planned || !state.key_block(block).is_some_and(KeyBlock::is_unused) {
        return Err(FuseError::BlockInUse { block });
    }
    // Software asks for an HMAC key by its block; of every other purpose the hardware takes the first block it finds.
    let takes_one = !matches!(purpose, KeyPurpose::User | KeyPurpose::HmacUp | KeyPurpose::EcdsaKey);
    if takes_one && purposes(state, before).any(|other| other == purpose) {
        return Err(FuseError::PurposeTwice { purpose });
    }
    if purpose.is_secret() {
        if before.contains(&BurnStep::Lock(Lock::SecureBoot)) || state.has_secure_boot {
            return Err(FuseError::AfterSecureBoot { step: before.len() });
        }
        if before.contains(&BurnStep::Lock(Lock::ReadProtection)) || !state.can_hide_keys {
            return Err(FuseError::KeysCannotBeHidden);
        }
    }
    Ok(())
}

fn check_lock(state: &ChipState, before: &[BurnStep], lock: Lock) -> Result<(), FuseError> {
    if state.chip == ChipFamily::Esp32 {
        return Err(FuseError::UnsupportedLock(lock));
    }
    let is_done = before.contains(&BurnStep::Lock(lock)) || BurnStep::Lock(lock).is_done(state);
    if is_done {
        return Err(FuseError::Done(lock));
    }
    match lock {
        Lock::FlashEncryptionRelease => {
            if before.contains(&BurnStep::Lock(Lock::SecureBoot)) || state.has_secure_boot {
                return Err(FuseError::AfterSecureBoot { step: before.len() });
            }
            let has_key = purposes(state, before).any(KeyPurpose::is_flash_encryption);
            if has_key { Ok(()) } else { Err(FuseError::NoFlashEncryptionKey) }
        }
        Lock::SpareDigest(number) => {
            let purpose = KeyPurpose::secure_boot_digest(number).filter(|purpose| state.chip.supports(*purpose));
            // A digest that is in use would be revoked with it.
            let is_spare = purpose.is_some_and(|purpose| purposes(state, before).all(|other| other != purpose));
            if is_spare { Ok(()) } else { Err(FuseError::UnsupportedLock(lock)) }
        }
        Lock::SecureBoot if state.chip == ChipFamily::Esp32C2 => Err(FuseError::UnsupportedLock(lock)),
        Lock::SecureBoot if !purposes(state, before).any(KeyPurpose::is_secure_boot) => {
            Err(FuseError::NoSecureBootDigest)
        }
        _ => Ok(()),
    }
}

fn is_revoked(state: &ChipState, number: u8) -> bool {
    state.revoked_digests.get(usize::from(number)).copied().unwrap_or(false)
}

impl BurnStep {
    /// Whether the chip shows all of it. What a digest should be is for the caller to compare.
    #[must_use]
    pub fn is_done(&self, state: &ChipState) -> bool {
        match *self {
            Self::Key { block, purpose } => state.key_block(block).is_some_and(|block| {
                block.purpose == Some(purpose)
                    && !block.is_writable
                    && block.is_readable != purpose.is_secret()
                    && (purpose.is_secret() || !block.reads_as_empty)
            }),
            Self::Lock(lock) => match lock {
                Lock::FlashEncryptionRelease => state.flash_encryption == FlashEncryption::Release,
                Lock::SecureBoot => state.has_secure_boot,
                Lock::ReadProtection => !state.can_hide_keys,
                Lock::Jtag => state.is_jtag_off,
                Lock::SecureDownload => state.download_mode != DownloadMode::Open,
                Lock::Download => state.download_mode == DownloadMode::Off,
                Lock::SpareDigest(number) => is_revoked(state, number),
            },
        }
    }

    /// The arguments of espefuse after its options, with `key_file` where a key is burnt. The file is the one way into
    /// espefuse: keep it in memory (a memfd, or `/dev/shm` with mode 600), never on a disk.
    #[must_use]
    pub fn espefuse(&self, chip: ChipFamily, key_file: &str) -> Vec<String> {
        match self {
            Self::Key { block, purpose } => {
                let block = format!("BLOCK_KEY{block}");
                let words = ["burn-key", &block, key_file, purpose.name()];
                words.map(ToString::to_string).to_vec()
            }
            Self::Lock(Lock::ReadProtection) => ["write-protect-efuse", "RD_DIS"].map(ToString::to_string).to_vec(),
            Self::Lock(lock) => {
                let fuses =
                    lock.fuses(chip).into_iter().flat_map(|(fuse, value)| [fuse.to_string(), value.to_string()]);
                core::iter::once("burn-efuse".to_string()).chain(fuses).collect()
            }
        }
    }
}

impl Lock {
    /// The fuses it sets, and to what; none where protection is set for a fuse.
    #[must_use]
    pub fn fuses(self, chip: ChipFamily) -> Vec<(&'static str, u8)> {
        let has_usb_jtag = !matches!(chip, ChipFamily::Esp32S2 | ChipFamily::Esp32C2);
        match self {
            Self::FlashEncryptionRelease => vec![("DIS_DOWNLOAD_MANUAL_ENCRYPT", 1), ("SPI_BOOT_CRYPT_CNT", 7)],
            Self::SecureBoot => vec![("SECURE_BOOT_EN", 1)],
            Self::ReadProtection => Vec::new(),
            Self::Jtag if chip == ChipFamily::Esp32S2 => vec![("HARD_DIS_JTAG", 1)],
            Self::Jtag if has_usb_jtag => vec![("DIS_PAD_JTAG", 1), ("DIS_USB_JTAG", 1)],
            Self::Jtag => vec![("DIS_PAD_JTAG", 1)],
            Self::SecureDownload => vec![("ENABLE_SECURITY_DOWNLOAD", 1)],
            Self::Download => vec![("DIS_DOWNLOAD_MODE", 1)],
            Self::SpareDigest(0) => vec![("SECURE_BOOT_KEY_REVOKE0", 1)],
            Self::SpareDigest(1) => vec![("SECURE_BOOT_KEY_REVOKE1", 1)],
            Self::SpareDigest(_) => vec![("SECURE_BOOT_KEY_REVOKE2", 1)],
        }
    }
}

impl fmt::Display for Lock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::SpareDigest(0) => "secure boot digest 0 revoked",
            Self::SpareDigest(1) => "secure boot digest 1 revoked",
            Self::SpareDigest(_) => "secure boot digest 2 revoked",
            Self::FlashEncryptionRelease => "flash encryption (release mode)",
            Self::SecureBoot => "secure boot",
            Self::ReadProtection => "no further key can be hidden",
            Self::Jtag => "JTAG off",
            Self::SecureDownload => "secure download mode",
            Self::Download => "download mode off",
        })
    }
}

impl fmt::Display for BurnStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key { block, purpose } => write!(f, "burn a key of purpose {purpose} into BLOCK_KEY{block}"),
            Self::Lock(lock) => write!(f, "set for good: {lock}"),
        }
    }
}

impl fmt::Display for FuseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooManySteps => write!(f, "a plan has at most {MAX_STEPS} steps"),
            Self::OtherChip { found } => write!(f, "the chip is an {found}: use a recipe for it"),
            Self::Unsupported { block, purpose } => {
                write!(f, "this chip has no {purpose} in BLOCK_KEY{block}: choose another block, or another chip")
            }
            Self::BlockInUse { block } => {
                write!(f, "BLOCK_KEY{block} is in use: choose another block, or scrap the chip")
            }
            Self::PurposeTwice { purpose } => write!(f, "there is a key of purpose {purpose} already"),
            Self::AfterSecureBoot { step } => {
                write!(f, "step {step} comes after secure boot: flash encryption and its key come first")
            }
            Self::KeysCannotBeHidden => f.write_str("keys can no longer be hidden from software on this chip"),
            Self::NoFlashEncryptionKey => f.write_str("flash encryption needs a key block: burn one before it"),
            Self::HalfAKey => f.write_str("XTS_AES_256 needs both halves of its key"),
            Self::NoSecureBootDigest => f.write_str("secure boot needs the digest of a key: burn one before it"),
            Self::AfterDownloadOff { step } => {
                write!(f, "step {step} comes after download mode was closed: make it the last one")
            }
            Self::Done(lock) => write!(f, "the chip has this already: {lock}"),
            Self::UnsupportedLock(lock) => write!(f, "not planned for this chip: {lock}"),
        }
    }
}

impl core::error::Error for FuseError {}

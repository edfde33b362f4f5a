//! Fuses: what a recipe burns, in which order, and what must be read back before a device passes.
//!
//! Keys come first, each hidden and protected in the same step; then what makes the chip use them; the serial port last, because
//! nothing is burnt or read through it afterwards. Steps that make secure boot safe come with it: the places of digests that are not
//! used are revoked, and the bits that hide key blocks are protected, so that nobody hides the digest.

use kf_flash::fuse::{BurnStep, KeyPurpose, Lock};
use serde::{Deserialize, Serialize};

use super::{Recipe, RecipeError, value};

/// How many digests secure boot has a place for.
const DIGESTS: u8 = 3;

/// What a fuse block is burnt for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FusePurpose {
    /// Upstream key of the HMAC peripheral.
    HmacUp,
    /// Key of flash encryption, AES-128.
    XtsAes128Key,
    /// Digest of the first key whose signatures secure boot accepts.
    SecureBootDigest0,
    /// Of a second one.
    SecureBootDigest1,
    /// Of a third one.
    SecureBootDigest2,
}

impl FusePurpose {
    /// The purpose as the chip knows it.
    #[must_use]
    pub const fn of_chip(self) -> KeyPurpose {
        match self {
            Self::HmacUp => KeyPurpose::HmacUp,
            Self::XtsAes128Key => KeyPurpose::XtsAes128Key,
            Self::SecureBootDigest0 => KeyPurpose::SecureBootDigest0,
            Self::SecureBootDigest1 => KeyPurpose::SecureBootDigest1,
            Self::SecureBootDigest2 => KeyPurpose::SecureBootDigest2,
        }
    }
}

/// A fuse block to burn. Burning cannot be undone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fuse {
    /// Key block, 0 to 5.
    pub block: u8,
    /// What for.
    pub purpose: FusePurpose,
    /// SHA-256 of the public key, for secure boot.
    pub digest: Option<[u8; 32]>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FuseFile {
    block: u8,
    purpose: FusePurpose,
    digest: Option<String>,
}

/// What is done with the serial port, last of all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PortLock {
    /// The boot ROM still writes flash, and reads nothing.
    Secure,
    /// It does nothing any more: nobody mends the device over this port.
    Off,
}

/// What is set for good once the keys are in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FuseLocks {
    /// Flash encryption, in release mode. Takes a block for its key.
    pub flash_encryption: bool,
    /// Secure boot. Takes a block for at least one digest.
    pub secure_boot: bool,
    /// JTAG off: pins, and USB where the chip has it.
    pub jtag: bool,
    /// The serial port.
    pub download_mode: Option<PortLock>,
}

/// What must be read back from the fuses before a device passes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ChipState {
    /// Flash encryption is on for good.
    pub flash_encryption: bool,
    /// Secure boot is on.
    pub secure_boot: bool,
    /// JTAG is off for good.
    pub jtag_disabled: bool,
    /// Download mode is off or secure.
    pub download_mode_locked: bool,
    /// The keys that the recipe burns can be neither read by software nor changed, and digests are the recipe's. Demanded of every
    /// chip that one was burnt into.
    pub keys_hidden: bool,
    /// The secure element is locked: configuration, data, and the slots that the recipe locks. Demanded of every device with
    /// target `secure-element`.
    pub element_locked: bool,
}

impl ChipState {
    /// What is demanded and not there; `None` when all is.
    #[must_use]
    pub const fn missing_from(&self, found: &Self) -> Option<&'static str> {
        if self.flash_encryption && !found.flash_encryption {
            return Some("flash encryption");
        }
        if self.secure_boot && !found.secure_boot {
            return Some("secure boot");
        }
        if self.jtag_disabled && !found.jtag_disabled {
            return Some("JTAG lock");
        }
        if self.download_mode_locked && !found.download_mode_locked {
            return Some("download mode lock");
        }
        if self.keys_hidden && !found.keys_hidden {
            return Some("hidden keys");
        }
        if self.element_locked && !found.element_locked {
            return Some("locks of the secure element");
        }
        None
    }
}

/// A fuse as the recipe has it.
pub(super) fn fuse_of(file: &FuseFile) -> Result<Fuse, RecipeError> {
    let wrong =
        || value("fuse.digest", "64 hexadecimal digits for purposes secure-boot-digest0 to 2, and for no other");
    let digest = match (&file.digest, file.purpose.of_chip().is_secure_boot()) {
        (Some(text), true) => {
            let mut digest = [0; 32];
            hex::decode_to_slice(text, &mut digest).map_err(|_digits| wrong())?;
            Some(digest)
        }
        (None, false) => None,
        (Some(_), false) | (None, true) => return Err(wrong()),
    };
    Ok(Fuse { block: file.block, purpose: file.purpose, digest })
}

impl Recipe {
    /// Whether fuses are burnt.
    #[must_use]
    pub fn burns_fuses(&self) -> bool {
        !self.fuses.is_empty() || self.locks != FuseLocks::default()
    }

    /// Everything that is burnt but the lock of the serial port, in order.
    #[must_use]
    pub fn burn_steps(&self) -> Vec<BurnStep> {
        let keys = |is_secret: bool| {
            let wanted = self.fuses.iter().filter(move |fuse| fuse.purpose.of_chip().is_secret() == is_secret);
            wanted.map(|fuse| BurnStep::Key { block: fuse.block, purpose: fuse.purpose.of_chip() })
        };
        let lock = |is_set: bool, lock: Lock| is_set.then_some(BurnStep::Lock(lock));
        let is_used = |number: u8| {
            let purpose = KeyPurpose::secure_boot_digest(number);
            self.fuses.iter().any(|fuse| Some(fuse.purpose.of_chip()) == purpose)
        };
        let spare = (0..DIGESTS).filter(|number| self.locks.secure_boot && !is_used(*number));
        keys(true)
            .chain(lock(self.locks.flash_encryption, Lock::FlashEncryptionRelease))
            .chain(keys(false))
            .chain(spare.map(|number| BurnStep::Lock(Lock::SpareDigest(number))))
            .chain(lock(self.locks.secure_boot, Lock::SecureBoot))
            .chain(lock(self.locks.secure_boot, Lock::ReadProtection))
            .chain(lock(self.locks.jtag, Lock::Jtag))
            .collect()
    }

    /// What closes the serial port, after everything was checked.
    #[must_use]
    pub fn port_step(&self) -> Option<BurnStep> {
        self.locks.download_mode.map(|mode| {
            BurnStep::Lock(match mode {
                PortLock::Secure => Lock::SecureDownload,
                PortLock::Off => Lock::Download,
            })
        })
    }

    /// What the fuses of a device must show before it passes.
    #[must_use]
    pub fn demanded(&self) -> ChipState {
        let (state, locks) = (self.chip_state, self.locks);
        ChipState {
            flash_encryption: state.flash_encryption || locks.flash_encryption,
            secure_boot: state.secure_boot || locks.secure_boot,
            jtag_disabled: state.jtag_disabled || locks.jtag,
            download_mode_locked: state.download_mode_locked || locks.download_mode.is_some(),
            keys_hidden: state.keys_hidden || !self.fuses.is_empty(),
            element_locked: state.element_locked || self.secure_element.is_some(),
        }
    }

    /// The same before the serial port is closed.
    #[must_use]
    pub fn demanded_with_open_port(&self) -> ChipState {
        let download_mode_locked = self.chip_state.download_mode_locked && self.locks.download_mode.is_none();
        ChipState { download_mode_locked, ..self.demanded() }
    }
}

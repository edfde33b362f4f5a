//! What a recipe cannot say: fields that do not fit each other, the target or the chip.

use kf_flash::fuse::{BurnPlan, ChipState as Fuses, FuseError};
use kf_key::KeyAlgorithm;

use super::{
    ChipState, ELEMENT_IDENTITY_SLOT, FileForm, FuseLocks, FusePurpose, Identity, KeyOrigin, MAX_FUSES, Protection,
    Recipe, RecipeError, TargetKind, value,
};

impl Recipe {
    pub(super) fn check_identity(&self, unsafe_flag: bool) -> Result<(), RecipeError> {
        let Identity { algorithm, origin, protection, slot: _ } = self.identity;
        if !matches!(algorithm, KeyAlgorithm::P256 | KeyAlgorithm::P384 | KeyAlgorithm::Ed25519) {
            return Err(value("identity.algorithm", "p-256, p-384 or ed25519"));
        }
        if origin == KeyOrigin::Station && algorithm != KeyAlgorithm::P256 {
            return Err(value("identity.algorithm", "a key that is made in the station is p-256"));
        }
        let is_plain = protection == Protection::Plain;
        if is_plain && !unsafe_flag {
            return Err(value(
                "identity.protection",
                "a private key in clear is refused; choose another protection, or set \
                 identity.unsafe_plain_private_key = true, which marks every device for ever",
            ));
        }
        if unsafe_flag && !is_plain {
            return Err(value("identity.unsafe_plain_private_key", "only goes with protection = \"plain\""));
        }
        let born_in_device = origin == KeyOrigin::Device;
        if (protection == Protection::Hardware) != born_in_device && self.target != TargetKind::Hook {
            return Err(value(
                "identity.origin",
                "a key in hardware is born there (origin = \"device\"), any other in the station",
            ));
        }
        Ok(())
    }

    pub(super) fn check_target(&self) -> Result<(), RecipeError> {
        let protection = self.identity.protection;
        let fits = match self.target {
            TargetKind::Esp32 => {
                matches!(protection, Protection::NvsHmac | Protection::NvsKeys | Protection::Plain)
            }
            TargetKind::Linux => matches!(protection, Protection::Sealed | Protection::Plain),
            TargetKind::Tpm | TargetKind::Pkcs11 | TargetKind::SecureElement => protection == Protection::Hardware,
            TargetKind::File => matches!(protection, Protection::Sealed | Protection::Plain),
            TargetKind::Hook => matches!(protection, Protection::Hardware | Protection::Plain),
        };
        if !fits {
            return Err(value("identity.protection", format!("not possible for target {}", self.target.name())));
        }
        self.check_element()?;
        self.check_file_system()?;
        let takes_key = matches!(self.target, TargetKind::Esp32 | TargetKind::Linux | TargetKind::SecureElement);
        if self.injects_device_key && !takes_key {
            // It would be derived and recorded, and be nowhere.
            return Err(value("device_key.inject", "only for the targets esp32, linux and secure-element"));
        }
        let is_esp32 = self.target == TargetKind::Esp32;
        if self.layout.is_some() != is_esp32 {
            return Err(value("layout", "needed for target esp32, and for no other"));
        }
        if (self.target == TargetKind::File) != self.file_form.is_some() {
            return Err(value("file.form", "needed for target file, and for no other"));
        }
        if (self.target == TargetKind::Hook) == self.hook.is_empty() {
            return Err(value("hook", "program and arguments, needed for target hook, and for no other"));
        }
        match (self.target, self.file_form, protection) {
            (TargetKind::File, Some(FileForm::Pkcs12), Protection::Sealed)
            | (TargetKind::File, Some(FileForm::Pem | FileForm::Der), Protection::Plain) => Ok(()),
            (TargetKind::File, ..) => {
                Err(value("file.form", "pem and der hold keys in clear (protection plain), pkcs12 holds them sealed"))
            }
            _ => self.check_chip(),
        }
    }

    fn check_chip(&self) -> Result<(), RecipeError> {
        let (Some(chip), Some(layout)) = (self.chip, &self.layout) else { return Ok(()) };
        let protection = self.identity.protection;
        if protection == Protection::NvsHmac && !chip.has_hmac_peripheral() {
            return Err(value("identity.protection", format!("{} has no HMAC peripheral: use nvs-keys", chip.name())));
        }
        if (protection == Protection::NvsKeys) != layout.nvs_keys.is_some() {
            return Err(value("layout.nvs_keys", "needed for protection nvs-keys, and for no other"));
        }
        if protection == Protection::NvsKeys && !self.demanded().flash_encryption {
            return Err(value(
                "chip_state.flash_encryption",
                "protection nvs-keys is none without flash encryption: set it, or lock.flash_encryption, to true",
            ));
        }
        Ok(())
    }

    fn check_file_system(&self) -> Result<(), RecipeError> {
        const SIZES: std::ops::RangeInclusive<u32> = 512 * 1024..=16 * 1024 * 1024;
        let Some(plan) = self.file_system else { return Ok(()) };
        if self.target != TargetKind::Linux {
            return Err(value("file_system", "only goes with target linux"));
        }
        if !SIZES.contains(&plan.size) || !plan.size.is_multiple_of(4096) {
            return Err(value("file_system.size", "octets, a multiple of 4096 from 524288 to 16777216"));
        }
        Ok(())
    }

    fn check_element(&self) -> Result<(), RecipeError> {
        let is_element = self.target == TargetKind::SecureElement;
        if self.secure_element.is_some() != is_element {
            return Err(value("secure_element", "only goes with target secure-element"));
        }
        if is_element && self.identity.algorithm != KeyAlgorithm::P256 {
            return Err(value("identity.algorithm", "a secure element makes keys of p-256"));
        }
        if is_element && self.identity.slot.is_some_and(|slot| slot != ELEMENT_IDENTITY_SLOT) {
            return Err(value("identity.slot", "the identity of a secure element is in slot 0"));
        }
        Ok(())
    }

    pub(super) fn check_fuses(&self) -> Result<(), RecipeError> {
        let Some(chip) = self.chip else {
            let has_none = self.fuses.is_empty() && self.locks == FuseLocks::default();
            return if has_none && self.chip_state == ChipState::default() {
                Ok(())
            } else {
                Err(value("fuse", "only chips of the ESP32 family have fuses here"))
            };
        };
        if self.fuses.len() > MAX_FUSES {
            return Err(value("fuse", format!("at most {MAX_FUSES}")));
        }
        let mut blocks: Vec<u8> = self.fuses.iter().map(|fuse| fuse.block).collect();
        blocks.sort_unstable();
        blocks.dedup();
        if blocks.len() != self.fuses.len() {
            return Err(value("fuse.block", "a block can be burnt once"));
        }
        if blocks.iter().any(|block| *block >= chip.key_blocks()) {
            return Err(value(
                "fuse.block",
                format!("{} has the key blocks 0 to {}", chip.name(), chip.key_blocks().saturating_sub(1)),
            ));
        }
        let hmac = self.fuses.iter().filter(|fuse| fuse.purpose == FusePurpose::HmacUp).count();
        if hmac > 0 && !chip.has_hmac_peripheral() {
            return Err(value("fuse.purpose", format!("{} has no HMAC peripheral", chip.name())));
        }
        if hmac != usize::from(self.identity.protection == Protection::NvsHmac) {
            return Err(value("fuse.purpose", "protection nvs-hmac takes exactly one block hmac-up, any other none"));
        }
        self.check_burn_plan(chip)
    }

    /// The whole plan against a chip on which nothing was burnt: what the hardware cannot do, or not in this order, is refused before
    /// any hardware is there.
    fn check_burn_plan(&self, chip: super::Chip) -> Result<(), RecipeError> {
        let steps: Vec<_> = self.burn_steps().into_iter().chain(self.port_step()).collect();
        let checked = BurnPlan::check(chip.family(), &Fuses::fresh(chip.family()), &steps);
        checked.map(drop).map_err(|error| {
            let of_locks = matches!(
                error,
                FuseError::UnsupportedLock(_) | FuseError::NoFlashEncryptionKey | FuseError::NoSecureBootDigest
            );
            value(if of_locks { "lock" } else { "fuse" }, error.to_string())
        })
    }
}

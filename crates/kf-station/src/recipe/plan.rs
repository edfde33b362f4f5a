//! The plan of a recipe: its steps in order, as text for a reviewer, and the hash that is approved.

use std::fmt::Write as _;

use kf_crypto::Sha256;

use kf_flash::fuse::{BurnStep, KeyPurpose, Lock};

use super::{FileForm, KeyOrigin, Partition, Protection, Recipe, TargetKind};

/// Separates these hashes from hashes of anything else.
const HASH_LABEL: &[u8] = b"keyfleet station plan v1\0";

/// One step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// What is done.
    pub text: String,
    /// Whether it can be undone.
    pub is_reversible: bool,
}

/// What a recipe does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The steps, in order.
    pub steps: Vec<Step>,
    /// What a person must know before approving.
    pub warnings: Vec<&'static str>,
    /// SHA-256 of the steps, the warnings and the SKU: what is approved.
    pub hash: [u8; 32],
}

impl Plan {
    pub(super) fn of(recipe: &Recipe) -> Self {
        let mut steps = Vec::new();
        let mut add = |is_reversible: bool, text: String| steps.push(Step { text, is_reversible });
        add(true, "read MAC, serial number and fuses; refuse a device that has an identity".to_owned());
        let algorithm = recipe.identity.algorithm;
        element_steps(recipe, &mut add);
        match recipe.identity.origin {
            KeyOrigin::Station => {
                add(true, format!("make a {algorithm} key in the station, from its token's generator"))
            }
            KeyOrigin::Device => {
                add(true, format!("have the device make a {algorithm} key{} and sign a request", slot(recipe)))
            }
        }
        add(true, format!("issue an IDevID for product line {}", recipe.product_line));
        if recipe.injects_device_key && recipe.secure_element.is_none() {
            add(true, "derive the device key from the batch key and 16 fresh random octets".to_owned());
        }
        write_steps(recipe, &mut add);
        element_locks(recipe, &mut add);
        add(true, "read back what was written and compare it".to_owned());
        add(true, "look for private keys in clear in the image".to_owned());
        recipe.burn_steps().iter().for_each(|step| add(false, burn_text(recipe, step)));
        let state = recipe.demanded_with_open_port();
        for (demanded, what) in [
            (state.flash_encryption, "flash encryption"),
            (state.secure_boot, "secure boot"),
            (state.jtag_disabled, "the JTAG lock"),
            (state.download_mode_locked, "the download mode lock"),
            (state.keys_hidden, "that its keys can be neither read nor changed"),
            (state.element_locked, "that its secure element is locked, and which slots,"),
        ] {
            if demanded {
                add(true, format!("read back {what} from the fuses"));
            }
        }
        add(true, "have the device sign a challenge with its key".to_owned());
        if let Some(step) = recipe.port_step() {
            add(false, burn_text(recipe, &step));
            add(true, "read back the download mode lock from the fuses".to_owned());
        }
        if let Some(label) = &recipe.label {
            add(true, format!("print a label with a claim for {}", label.server));
        }
        if let Some(sha256) = recipe.firmware_sha256 {
            add(true, format!("record that the line flashed firmware {}", hex::encode(sha256)));
        }
        add(true, "sign the record".to_owned());
        let warnings = warnings(recipe);
        let hash = hash(recipe, &steps, &warnings);
        Self { steps, warnings, hash }
    }

    /// The plan for people.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        for (number, step) in self.steps.iter().enumerate() {
            let mark = if step.is_reversible { "" } else { "  [CANNOT BE UNDONE]" };
            // Writing to a string cannot fail.
            let _written = writeln!(text, "{:>3}. {}{mark}", number.saturating_add(1), step.text);
        }
        for warning in &self.warnings {
            let _written = writeln!(text, "  !  {warning}");
        }
        text
    }

    /// The hash, 64 hexadecimal digits.
    #[must_use]
    pub fn hash_text(&self) -> String {
        hex::encode(self.hash)
    }

    /// What a person types before something is burnt: `BURN` and the first twelve digits of the hash.
    #[must_use]
    pub fn burn_phrase(&self) -> String {
        let mut phrase = self.hash_text();
        phrase.truncate(12);
        format!("BURN {phrase}")
    }
}

/// One step at the fuses.
fn burn_text(recipe: &Recipe, step: &BurnStep) -> String {
    let digest = |block: u8| recipe.fuses.iter().find(|fuse| fuse.block == block).and_then(|fuse| fuse.digest);
    match step {
        BurnStep::Key { block, purpose } if purpose.is_secure_boot() => {
            let digest = hex::encode(digest(*block).unwrap_or_default());
            format!("burn BLOCK_KEY{block} with {digest} for {}, write-protected", purpose.name())
        }
        BurnStep::Key { block, purpose: KeyPurpose::HmacUp } => {
            format!("burn BLOCK_KEY{block} with the key that opens the image for HMAC_UP, read- and write-protected")
        }
        BurnStep::Key { block, purpose } => {
            format!("burn BLOCK_KEY{block} with a fresh key for {}, read- and write-protected", purpose.name())
        }
        BurnStep::Lock(lock) => {
            let chip = recipe.chip.map(super::Chip::family);
            let fuses = chip.map(|chip| lock.fuses(chip)).unwrap_or_default();
            let fuses: Vec<String> = fuses.iter().map(|(fuse, value)| format!("{fuse} = {value}")).collect();
            let fuses =
                if *lock == Lock::ReadProtection { "RD_DIS write-protected".to_owned() } else { fuses.join(", ") };
            format!("set for good: {lock} ({fuses})")
        }
    }
}

fn slot(recipe: &Recipe) -> String {
    recipe.identity.slot.map_or_else(String::new, |slot| format!(" in slot 0x{slot:x}"))
}

/// What is done with a secure element before it makes its key.
fn element_steps(recipe: &Recipe, add: &mut impl FnMut(bool, String)) {
    if recipe.secure_element.is_none() {
        return;
    }
    add(true, "write the configuration of the secure element".to_owned());
    add(false, "lock the configuration zone of the secure element".to_owned());
    add(
        true,
        "write the transport key, derived from the batch key and the chip's serial number, into slot 6".to_owned(),
    );
    add(false, "lock the data zone of the secure element".to_owned());
    let root = if recipe.injects_device_key {
        "derive the device key from the batch key and 16 fresh random octets, and write it into slot 5, encrypted"
    } else {
        "write a fresh root key that nobody keeps into slot 5, encrypted"
    };
    add(true, root.to_owned());
}

/// What is locked in a secure element once its certificate is in it.
fn element_locks(recipe: &Recipe, add: &mut impl FnMut(bool, String)) {
    let Some(plan) = recipe.secure_element else { return };
    add(false, "lock slot 0: no other identity key is ever made in it".to_owned());
    if plan.lock_certificate {
        add(false, "lock the slots of the certificate".to_owned());
    }
    if !recipe.injects_device_key {
        add(false, "lock slot 5: its root key only ever wraps".to_owned());
    }
}

fn write_steps(recipe: &Recipe, add: &mut impl FnMut(bool, String)) {
    let place = |partition: Partition| format!("at 0x{:x}, {} octets", partition.offset, partition.size);
    match (recipe.target, &recipe.layout) {
        (TargetKind::Esp32, Some(layout)) => {
            let chip = recipe.chip.map_or("esp32", |chip| chip.name());
            let form = match recipe.identity.protection {
                Protection::NvsHmac => "encrypted (XTS-AES, keys from the HMAC peripheral)",
                Protection::NvsKeys => "encrypted (XTS-AES, keys partition)",
                _ => "in clear",
            };
            add(true, format!("write the NVS partition of {chip}, {form}, {}", place(layout.nvs)));
            if let Some(partition) = layout.nvs_keys {
                let how =
                    if recipe.locks.flash_encryption { ", encrypted under the key of flash encryption" } else { "" };
                add(true, format!("write the NVS keys partition {}{how}", place(partition)));
            }
            if let Some(partition) = layout.secure_cert {
                let what = match recipe.identity.protection {
                    Protection::NvsHmac => {
                        "anchor, certificate chain and private key, encrypted by the HMAC peripheral's key,"
                    }
                    _ => "anchor and certificate chain",
                };
                add(true, format!("write {what} into esp_secure_cert {}", place(partition)));
            }
        }
        (TargetKind::Linux, _) => {
            let place = recipe
                .file_system
                .map_or_else(String::new, |plan| format!(" in an ext4 file system of {} octets", plan.size));
            add(true, format!("write the state directory of keyfleet-agent{place}"));
        }
        (TargetKind::Tpm, _) => {
            add(true, "write the state directory of keyfleet-agent, its key being in the TPM".to_owned())
        }
        (TargetKind::Pkcs11, _) => add(
            true,
            "store the certificate beside the token's key, and write the state directory of keyfleet-agent".to_owned(),
        ),
        (TargetKind::SecureElement, _) => {
            add(true, "write the certificate into slot 8, and as far as it is longer into 9, 10, 11 and 15".to_owned());
        }
        (TargetKind::File, _) => {
            let form = match recipe.file_form {
                Some(FileForm::Pkcs12) => "a PKCS#12 file",
                Some(FileForm::Der) => "DER files",
                Some(FileForm::Pem) | None => "PEM files",
            };
            add(true, format!("write key and certificate as {form}"));
        }
        (TargetKind::Hook, _) => add(true, format!("run {}", recipe.hook.join(" "))),
        (TargetKind::Esp32, None) => {}
    }
}

fn warnings(recipe: &Recipe) -> Vec<&'static str> {
    let mut warnings = Vec::new();
    if recipe.identity.protection == Protection::Plain {
        warnings.push(
            "UNSAFE: the private key lies in clear; whoever reads the flash has it. Every record says so for ever",
        );
    }
    match recipe.target {
        TargetKind::File if recipe.file_form == Some(FileForm::Pkcs12) => {
            warnings.push("a PKCS#12 file is as safe as its passphrase: kept beside the file it protects nothing");
        }
        TargetKind::File => warnings.push("the key is a file: any copy of it is the device"),
        TargetKind::Hook => {
            warnings.push("a program of the line's own does the writing: what it leaves behind is not known here")
        }
        TargetKind::Esp32 | TargetKind::Linux | TargetKind::Tpm | TargetKind::Pkcs11 | TargetKind::SecureElement => {}
    }
    if recipe.secure_element.is_some() {
        warnings.push("a secure element is locked: one that was locked with another batch's keys is scrap");
    }
    if recipe.burns_fuses() {
        warnings.push("fuses are burnt: a board that fails afterwards is scrap");
    }
    if recipe.locks.flash_encryption {
        warnings.push("flash is encrypted for good: the fixture encrypts the firmware under the key that it is given");
    }
    if recipe.locks.secure_boot {
        warnings.push("only firmware signed by the keys of the digests ever starts: lose them and no board is updated");
    }
    if recipe.locks.download_mode == Some(super::PortLock::Off) {
        warnings.push("download mode is off: no board is ever mended over its serial port");
    }
    warnings
}

fn hash(recipe: &Recipe, steps: &[Step], warnings: &[&str]) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(HASH_LABEL);
    let mut part = |text: &str| {
        // Each part behind its length, so that no two plans run together to one text.
        hash.update(&u64::try_from(text.len()).unwrap_or(u64::MAX).to_be_bytes());
        hash.update(text.as_bytes());
    };
    part(&recipe.sku);
    part(recipe.target.name());
    for step in steps {
        part(if step.is_reversible { "step" } else { "burn" });
        part(&step.text);
    }
    warnings.iter().for_each(|warning| part(warning));
    hash.finish()
}

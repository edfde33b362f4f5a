//! A recipe: one reviewed TOML file per SKU. It is parsed into types that cannot say anything that does not fit the chip;
//! the plan that is printed, hashed and approved is made from those types, never from the text.

mod check;
mod chip;
mod fuse;
mod plan;

pub use chip::Chip;
pub use fuse::{ChipState, Fuse, FuseLocks, FusePurpose, PortLock};
use fuse::{FuseFile, fuse_of};
pub use plan::{Plan, Step};

use kf_key::KeyAlgorithm;
use serde::{Deserialize, Serialize};

/// The most octets of a recipe.
pub const MAX_RECIPE_OCTETS: usize = 64 * 1024;
/// Partitions begin and end at the erase unit of flash.
const ERASE_UNIT: u32 = 4096;
/// NVS needs three pages to be written to (ESP-IDF, "NVS: minimum partition size").
const MIN_NVS_OCTETS: u32 = 3 * ERASE_UNIT;
/// The largest flash of the family.
const MAX_FLASH_OCTETS: u32 = 128 * 1024 * 1024;
/// The slot of the identity in a secure element's layout.
const ELEMENT_IDENTITY_SLOT: u32 = 0;
/// The most fuse blocks that a recipe burns: as many as the chip has.
const MAX_FUSES: usize = 6;

/// Why a recipe is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RecipeError {
    /// Larger than [`MAX_RECIPE_OCTETS`].
    #[error("a recipe has at most {MAX_RECIPE_OCTETS} octets")]
    TooLarge,
    /// Not TOML, an unknown field, or a value of the wrong type.
    #[error("the recipe is not valid: {0}")]
    Syntax(String),
    /// A value that cannot work, alone or with this chip.
    #[error("`{field}`: {reason}")]
    Value {
        /// Which field.
        field: &'static str,
        /// What is wrong with it and what to write.
        reason: String,
    },
}

/// What is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TargetKind {
    /// Flash partitions of a chip of the ESP32 family.
    Esp32,
    /// The state directory of `keyfleet-agent`, its key sealed.
    Linux,
    /// A gateway whose key is born in its TPM 2.0.
    Tpm,
    /// A device whose key is born in a PKCS#11 token.
    Pkcs11,
    /// A device whose key is born in a secure element of the ATECC608 class, which is locked on the line.
    SecureElement,
    /// Files: PEM, DER or PKCS#12.
    File,
    /// A program of the line's own gets certificate and request.
    Hook,
}

/// Where the private key of the IDevID is born.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KeyOrigin {
    /// In the station, and injected.
    Station,
    /// In the device, which signs a request and never shows it.
    Device,
}

/// How the private key rests in the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Protection {
    /// In an encrypted NVS partition, its keys derived by the HMAC peripheral from a fused key.
    NvsHmac,
    /// In an encrypted NVS partition, its keys in a partition that only flash encryption protects.
    NvsKeys,
    /// Sealed (AES-256-GCM) under a key that the device is given at each start.
    Sealed,
    /// In a TPM, a token or a secure element.
    Hardware,
    /// In clear. Marks the device for ever.
    Plain,
}

/// How files for a generic target are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FileForm {
    /// PEM files.
    Pem,
    /// DER files.
    Der,
    /// One PKCS#12 file.
    Pkcs12,
}

/// The IDevID.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Algorithm of its key.
    pub algorithm: KeyAlgorithm,
    /// Where the key is born.
    pub origin: KeyOrigin,
    /// How it rests.
    pub protection: Protection,
    /// The slot, handle or label that holds it.
    pub slot: Option<u32>,
}

/// A flash partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Partition {
    /// Octets from the start of the flash, a multiple of 4096.
    pub offset: u32,
    /// Octets, a multiple of 4096.
    pub size: u32,
}

/// The partitions that the station writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// NVS with the keys.
    pub nvs: Partition,
    /// `esp_secure_cert` with the certificate chain.
    pub secure_cert: Option<Partition>,
    /// NVS keys, for [`Protection::NvsKeys`].
    pub nvs_keys: Option<Partition>,
}

/// How a secure element leaves the line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ElementPlan {
    /// Whether the slots of the certificate are locked.
    pub lock_certificate: bool,
}

/// The file system of a Linux device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileSystemPlan {
    /// Octets, a multiple of 4096, 512 KiB to 16 MiB; from 4 MiB on it has a journal.
    pub size: u32,
}

/// What is printed on the label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelPlan {
    /// `https://host[:port]` of the server that the device will enrol at.
    pub server: String,
}

/// A recipe that fits its chip.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recipe {
    /// The stock keeping unit: 1 to 64 characters of `a-z A-Z 0-9 . - _`.
    pub sku: String,
    /// Name of the product line.
    pub product_line: String,
    /// What is made.
    pub target: TargetKind,
    /// The chip, for [`TargetKind::Esp32`].
    pub chip: Option<Chip>,
    /// The IDevID.
    pub identity: Identity,
    /// Whether the symmetric device key, derived from the batch key and a fresh salt, is injected.
    pub injects_device_key: bool,
    /// The partitions, for [`TargetKind::Esp32`].
    pub layout: Option<Layout>,
    /// What is burnt.
    pub fuses: Vec<Fuse>,
    /// What is set for good, after the keys are burnt.
    pub locks: FuseLocks,
    /// What the chip must show before it passes.
    pub chip_state: ChipState,
    /// The file system that the files go into, for [`TargetKind::Linux`]; `None`: the files themselves.
    pub file_system: Option<FileSystemPlan>,
    /// What becomes of the secure element, for [`TargetKind::SecureElement`].
    pub secure_element: Option<ElementPlan>,
    /// The label; `None`: none is printed.
    pub label: Option<LabelPlan>,
    /// How files are written, for [`TargetKind::File`].
    pub file_form: Option<FileForm>,
    /// Program and arguments, for [`TargetKind::Hook`].
    pub hook: Vec<String>,
    /// SHA-256 of the firmware that the line flashes beside what the station writes. It stands in every record; the station does not
    /// see that firmware.
    pub firmware_sha256: Option<[u8; 32]>,
    /// How long one step of a fixture may take, in seconds.
    pub deadline_seconds: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    format: u32,
    sku: String,
    product_line: String,
    target: TargetKind,
    chip: Option<String>,
    identity: IdentityFile,
    #[serde(default)]
    device_key: DeviceKeyFile,
    layout: Option<LayoutFile>,
    #[serde(default)]
    fuse: Vec<FuseFile>,
    #[serde(default)]
    lock: FuseLocks,
    #[serde(default)]
    chip_state: ChipState,
    secure_element: Option<ElementPlan>,
    file_system: Option<FileSystemPlan>,
    label: Option<LabelFile>,
    file: Option<FileFile>,
    #[serde(default)]
    hook: Vec<String>,
    firmware_sha256: Option<String>,
    #[serde(default = "default_deadline")]
    deadline_seconds: u32,
}

const fn default_deadline() -> u32 {
    60
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct IdentityFile {
    algorithm: KeyAlgorithm,
    origin: KeyOrigin,
    protection: Protection,
    slot: Option<u32>,
    #[serde(default)]
    unsafe_plain_private_key: bool,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct DeviceKeyFile {
    inject: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LayoutFile {
    nvs: Partition,
    secure_cert: Option<Partition>,
    nvs_keys: Option<Partition>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LabelFile {
    server: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileFile {
    form: FileForm,
}

fn value(field: &'static str, reason: impl Into<String>) -> RecipeError {
    RecipeError::Value { field, reason: reason.into() }
}

impl Recipe {
    /// Reads a recipe and checks it against its chip.
    ///
    /// # Errors
    /// [`RecipeError`], naming the field.
    pub fn parse(text: &str) -> Result<Self, RecipeError> {
        if text.len() > MAX_RECIPE_OCTETS {
            return Err(RecipeError::TooLarge);
        }
        let file: File = toml::from_str(text).map_err(|error| RecipeError::Syntax(error.to_string()))?;
        if file.format != 1 {
            return Err(value("format", "this program knows format 1"));
        }
        check_name("sku", &file.sku)?;
        check_name("product_line", &file.product_line)?;
        if !(1..=3600).contains(&file.deadline_seconds) {
            return Err(value("deadline_seconds", "1 to 3600"));
        }
        let chip = chip_of(&file)?;
        let layout = file.layout.as_ref().map(layout_of).transpose()?;
        let recipe = Self {
            sku: file.sku,
            product_line: file.product_line,
            target: file.target,
            chip,
            identity: Identity {
                algorithm: file.identity.algorithm,
                origin: file.identity.origin,
                protection: file.identity.protection,
                slot: file.identity.slot,
            },
            injects_device_key: file.device_key.inject,
            layout,
            fuses: file.fuse.iter().map(fuse_of).collect::<Result<_, _>>()?,
            locks: file.lock,
            chip_state: file.chip_state,
            file_system: file.file_system,
            secure_element: match file.target {
                TargetKind::SecureElement => Some(file.secure_element.unwrap_or_default()),
                _ => file.secure_element,
            },
            label: file.label.map(label_of).transpose()?,
            file_form: file.file.map(|file| file.form),
            hook: file.hook,
            firmware_sha256: file.firmware_sha256.as_deref().map(firmware_of).transpose()?,
            deadline_seconds: file.deadline_seconds,
        };
        recipe.check_identity(file.identity.unsafe_plain_private_key)?;
        recipe.check_target()?;
        recipe.check_fuses()?;
        Ok(recipe)
    }

    /// What will be done, in order, and its hash.
    #[must_use]
    pub fn plan(&self) -> Plan {
        Plan::of(self)
    }

    /// Whether something is burnt or locked that cannot be undone.
    #[must_use]
    pub fn burns(&self) -> bool {
        self.burns_fuses() || self.secure_element.is_some()
    }

    /// Whether the image is of the quota and the certificate alone, so that it can be made and written again after a power
    /// cut: no secret goes into it.
    #[must_use]
    pub fn is_rewritable(&self) -> bool {
        let injects = self.injects_device_key && self.secure_element.is_none();
        self.identity.origin == KeyOrigin::Device && !injects && !self.burns_fuses()
    }
}

impl TargetKind {
    /// The word of the recipe.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Esp32 => "esp32",
            Self::Linux => "linux",
            Self::Tpm => "tpm",
            Self::Pkcs11 => "pkcs11",
            Self::SecureElement => "secure-element",
            Self::File => "file",
            Self::Hook => "hook",
        }
    }
}

fn check_name(field: &'static str, name: &str) -> Result<(), RecipeError> {
    let is_name = (1..=64).contains(&name.len())
        && name.bytes().all(|octet| octet.is_ascii_alphanumeric() || matches!(octet, b'.' | b'-' | b'_'));
    if is_name { Ok(()) } else { Err(value(field, "1 to 64 characters of a-z, A-Z, 0-9, `.`, `-`, `_`")) }
}

fn chip_of(file: &File) -> Result<Option<Chip>, RecipeError> {
    match (&file.chip, file.target) {
        (Some(name), TargetKind::Esp32) => {
            Chip::from_name(name).map(Some).ok_or_else(|| value("chip", format!("unknown; one of {}", Chip::names())))
        }
        (None, TargetKind::Esp32) => Err(value("chip", format!("needed for target esp32: one of {}", Chip::names()))),
        (Some(_), _) => Err(value("chip", "only goes with target esp32")),
        (None, _) => Ok(None),
    }
}

fn layout_of(file: &LayoutFile) -> Result<Layout, RecipeError> {
    check_partition("layout.nvs", file.nvs, MIN_NVS_OCTETS)?;
    let mut all = vec![file.nvs];
    for (field, partition) in [("layout.secure_cert", file.secure_cert), ("layout.nvs_keys", file.nvs_keys)] {
        if let Some(partition) = partition {
            check_partition(field, partition, ERASE_UNIT)?;
            all.push(partition);
        }
    }
    all.sort_by_key(|partition| partition.offset);
    let overlap = all.windows(2).any(|pair| match pair {
        [one, next] => one.offset.saturating_add(one.size) > next.offset,
        _ => false,
    });
    if overlap {
        return Err(value("layout", "partitions overlap"));
    }
    Ok(Layout { nvs: file.nvs, secure_cert: file.secure_cert, nvs_keys: file.nvs_keys })
}

fn check_partition(field: &'static str, partition: Partition, minimum: u32) -> Result<(), RecipeError> {
    let Partition { offset, size } = partition;
    let is_aligned = offset.is_multiple_of(ERASE_UNIT) && size.is_multiple_of(ERASE_UNIT);
    let is_inside = offset.checked_add(size).is_some_and(|end| end <= MAX_FLASH_OCTETS);
    if is_aligned && is_inside && (minimum..=1024 * 1024).contains(&size) {
        return Ok(());
    }
    Err(value(field, format!("offset and size are multiples of 4096, the size {minimum} to 1048576")))
}

fn firmware_of(text: &str) -> Result<[u8; 32], RecipeError> {
    let mut sha256 = [0; 32];
    let wrong = |_error| value("firmware_sha256", "64 hexadecimal digits, as sha256sum prints them");
    hex::decode_to_slice(text, &mut sha256).map_err(wrong)?;
    Ok(sha256)
}

fn label_of(file: LabelFile) -> Result<LabelPlan, RecipeError> {
    let is_address = file.server.starts_with("https://")
        && file.server.len() <= 200
        && file.server.bytes().all(|octet| octet.is_ascii_graphic());
    if is_address { Ok(LabelPlan { server: file.server }) } else { Err(value("label.server", "https://host[:port]")) }
}

#[cfg(test)]
mod tests;

//! The emulated chip's one-time programmable memory: two files in the folder of a device.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use kf_key::{DeviceId, SecretArray};
use serde::{Deserialize, Serialize};

use crate::bridge::BridgeError;

/// What the designer of the board declares about its noise source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum NoiseState {
    /// A physical noise source, and it is on.
    PhysicalOn,
    /// Pseudo-random only.
    PseudoRandomOnly,
    /// Nobody knows.
    Unknown,
}

/// Names and pins: nothing secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Fuses {
    /// As the registry knows the device.
    pub(crate) device: DeviceId,
    /// Its name.
    pub(crate) name: String,
    /// Its product line, which is the label of its EST service.
    pub(crate) label: String,
    /// SHA-256 of the root's certificate, in hexadecimal.
    pub(crate) anchor: String,
    /// About the noise source.
    pub(crate) noise: NoiseState,
    /// SubjectPublicKeyInfo of the server's delivery key, base64; empty for none.
    #[serde(default)]
    pub(crate) delivery: String,
    /// That of the order key.
    #[serde(default)]
    pub(crate) orders: String,
}

const FUSES: &str = "fuses.json";
const CHIP_KEY: &str = "chip.key";

impl Fuses {
    /// Burns the fuses of a new device in `folder`: the chip makes its own key.
    ///
    /// # Errors
    /// When the folder exists already, or cannot be written.
    pub(crate) fn burn(&self, folder: &Path) -> Result<(), BridgeError> {
        std::fs::create_dir(folder)?;
        let key = SecretArray::<32>::try_fill(|key| crate::noise::fill(key))?;
        let mut file = std::fs::OpenOptions::new();
        let mut file = file.write(true).create_new(true).mode(0o600).open(folder.join(CHIP_KEY))?;
        // Exposed to the file that stands for the fuses.
        file.write_all(key.expose())?;
        Ok(std::fs::write(folder.join(FUSES), serde_json::to_string_pretty(self)?)?)
    }

    /// The fuses of the device in `folder`.
    ///
    /// # Errors
    /// When they cannot be read.
    pub(crate) fn read(folder: &Path) -> Result<Self, BridgeError> {
        Ok(serde_json::from_str(&std::fs::read_to_string(folder.join(FUSES))?)?)
    }

    /// The chip's key, for whoever looks into the flash memory with the chip in hand.
    ///
    /// # Errors
    /// When it cannot be read or has another length.
    pub(crate) fn chip_key(folder: &Path) -> Result<SecretArray<32>, BridgeError> {
        let mut file = std::fs::File::open(folder.join(CHIP_KEY))?;
        Ok(SecretArray::try_fill(|key| std::io::Read::read_exact(&mut file, key))?)
    }

    /// The frame that a device reads when it starts.
    ///
    /// # Errors
    /// When the chip's key cannot be read, or a pin is not base64.
    pub(crate) fn frame(&self, folder: &Path) -> Result<Vec<u8>, BridgeError> {
        let Self { device, name, label, anchor, noise, delivery, orders } = self;
        let key = std::fs::read(folder.join(CHIP_KEY))?;
        let noise = match noise {
            NoiseState::PhysicalOn => 1,
            NoiseState::PseudoRandomOnly => 2,
            NoiseState::Unknown => 3,
        };
        let decode = |text: &str| BASE64_STANDARD.decode(text).map_err(|_form| BridgeError::Pin);
        let anchor = hex::decode(anchor).map_err(|_form| BridgeError::Pin)?;
        let fields: [&[u8]; 8] = [
            device.as_bytes(),
            name.as_bytes(),
            label.as_bytes(),
            &key,
            &anchor,
            &[noise],
            &decode(delivery)?,
            &decode(orders)?,
        ];
        crate::bridge::fields(&fields)
    }
}

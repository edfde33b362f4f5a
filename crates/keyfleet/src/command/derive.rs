//! `keyfleet derive`: one key of the hierarchy from explicit inputs, without a server.

mod input;
mod place;

use std::path::PathBuf;

use clap::{ArgGroup, Args, ValueEnum};
use kf_derive::{AeadAlgorithm, CounterMode, Info, SoftwareHeld, SoftwareKey};
use kf_key::{DeviceId, FacilityId, SecretArray};
use serde::Serialize;

use crate::api::Context;
use crate::command::derive::place::{Place, places};
use crate::failure::Failure;
use crate::output::{self, Format, Names};

const EXAMPLES: &str = "\
The key is that of the deepest level named. Each level needs its identifier and its epoch; the order on the command
line does not matter. Without --reveal the key itself is not shown, only its place and a check value by which two
sides can see that they have the same one.

Examples:
  # The published vector of a device; its root is no secret
  keyfleet derive --vector-root --facility 01930000-0000-7000-8000-0000000000fa \\
      --device 01930000-0000-7000-8000-0000000000de --salt-file salt.hex
  # A sealing key of a real device, compared by its check value
  keyfleet derive --root-file root.hex --facility FAC --device DEV --salt-file salt.hex --service telemetry \\
      --boot-random b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0 --sender device --algorithm aes-128-ccm
  # The root from another program, through a descriptor
  keyfleet derive --root-file /dev/fd/3 --facility FAC 3< <(gpg --decrypt root.gpg)";

/// Inputs of one derivation. Keys and salts are read from files, never from arguments.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, group = ArgGroup::new("start").args(["root_file", "device_key_file", "vector_root"]))]
pub(crate) struct Derive {
    /// The fleet root: 32 octets or 64 hexadecimal digits, readable by its owner only; `-` is standard input. Without
    /// any start it is asked for
    #[arg(long, value_name = "FILE")]
    root_file: Option<PathBuf>,
    /// Start from a device key instead, as a device has it
    #[arg(long, value_name = "FILE", conflicts_with_all = ["facility", "batch", "device"])]
    device_key_file: Option<PathBuf>,
    /// The root of the published vectors, 00 01 .. 1f: no secret, so the key is shown
    #[arg(long)]
    vector_root: bool,
    /// How steps are computed
    #[arg(long, value_enum, default_value_t)]
    arrangement: Arrangement,
    #[command(flatten)]
    above: AboveDevice,
    #[command(flatten)]
    below: BelowDevice,
    /// Show the key itself on standard output
    #[arg(long)]
    reveal: bool,
}

/// From the root to a device.
#[derive(Debug, Args)]
struct AboveDevice {
    /// The facility: `fac_...` or a UUID
    #[arg(long, value_parser = input::identifier::<FacilityId>)]
    facility: Option<FacilityId>,
    /// Its epoch
    #[arg(long, value_name = "N", default_value_t = 1, requires = "facility")]
    facility_epoch: u32,
    /// The batch of a station
    #[arg(long, value_name = "LABEL", requires = "facility")]
    batch: Option<String>,
    /// Its epoch
    #[arg(long, value_name = "N", default_value_t = 1, requires = "batch")]
    batch_epoch: u32,
    /// The device: `dev_...` or a UUID
    #[arg(long, value_parser = input::identifier::<DeviceId>, requires_all = ["facility", "salt_file"])]
    device: Option<DeviceId>,
    /// Its epoch
    #[arg(long, value_name = "N", default_value_t = 1, requires = "device")]
    device_epoch: u32,
    /// Its salt: 16 octets or 32 hexadecimal digits, readable by its owner only
    #[arg(long, value_name = "FILE", requires = "device")]
    salt_file: Option<PathBuf>,
}

/// From a device to what is encrypted.
#[derive(Debug, Args)]
struct BelowDevice {
    /// The key that wraps data at rest, by its label
    #[arg(long, value_name = "LABEL", conflicts_with_all = ["session", "service", "ratchet"])]
    storage: Option<String>,
    /// Its epoch
    #[arg(long, value_name = "N", default_value_t = 1, requires = "storage")]
    storage_epoch: u32,
    /// Advance the device's ratchet to this position first
    #[arg(long, value_name = "POSITION")]
    ratchet: Option<u32>,
    /// The session [default with --service: `sealed`]
    #[arg(long, value_name = "LABEL")]
    session: Option<String>,
    /// Its epoch [default: 0, or the position of the ratchet]
    #[arg(long, value_name = "N", requires = "session", conflicts_with = "ratchet")]
    session_epoch: Option<u32>,
    /// The service, for example telemetry
    #[arg(long, value_name = "LABEL")]
    service: Option<String>,
    /// Its epoch
    #[arg(long, value_name = "N", default_value_t = 0, requires = "service")]
    service_epoch: u32,
    /// The 128 random bits of a boot: 32 hexadecimal digits
    #[arg(long, value_name = "HEX", value_parser = input::boot_random, requires_all = ["service", "sender", "algorithm"])]
    boot_random: Option<[u8; 16]>,
    /// Who seals
    #[arg(long, value_enum, requires = "boot_random")]
    sender: Option<Sender>,
    /// What the key is for; without it the key of a service is one from which sealing keys are derived
    #[arg(long, value_enum, requires = "service")]
    algorithm: Option<Algorithm>,
}

/// How steps are computed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Arrangement {
    /// HKDF-Expand (RFC 5869)
    #[default]
    HkdfExpand,
    /// SP 800-108r1 counter mode
    CounterMode,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Sender {
    /// To the server
    Device,
    /// To the device
    Server,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
#[value(rename_all = "verbatim")]
enum Algorithm {
    #[value(name = "aes-128-ccm")]
    Aes128Ccm,
    #[value(name = "aes-128-gcm")]
    Aes128Gcm,
    #[value(name = "aes-256-gcm")]
    Aes256Gcm,
    #[value(name = "chacha20-poly1305")]
    ChaCha20Poly1305,
}

impl From<Algorithm> for AeadAlgorithm {
    fn from(algorithm: Algorithm) -> Self {
        match algorithm {
            Algorithm::Aes128Ccm => Self::Aes128Ccm,
            Algorithm::Aes128Gcm => Self::Aes128Gcm,
            Algorithm::Aes256Gcm => Self::Aes256Gcm,
            Algorithm::ChaCha20Poly1305 => Self::ChaCha20Poly1305,
        }
    }
}

/// What is shown of a key.
#[derive(Debug, Serialize)]
struct Derived {
    level: &'static str,
    algorithm: &'static str,
    octets: usize,
    arrangement: &'static str,
    /// `info` of the last step.
    info: String,
    /// The first 8 octets of SHA-256 over a prefix and the key.
    check: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    steps: Vec<Step>,
}

/// One step on the way, for whoever compares with another program.
#[derive(Debug, Serialize)]
struct Step {
    level: &'static str,
    algorithm: &'static str,
    purpose: &'static str,
    epoch: u32,
    info: String,
}

pub(crate) fn run(context: &Context, derive: &Derive) -> Result<(), Failure> {
    let places = places(derive)?;
    let start = input::start(derive)?;
    let Some((last, info)) = places.last() else { return Err(place::nothing_named()) };
    let infos = || places.iter().map(|(_, info)| info);
    let (arrangement, secret) = match derive.arrangement {
        Arrangement::HkdfExpand => ("hkdf-expand", walk(&SoftwareKey::new(start), infos())),
        Arrangement::CounterMode => ("counter-mode", walk(&CounterMode::new(SoftwareKey::new(start)), infos())),
    };
    let secret = secret.ok_or_else(place::nothing_named)?;
    // Exposed to make a check value, and to be shown to whoever asked for that.
    let key = secret.expose().get(..last.algorithm.key_octets()).unwrap_or_default();
    let is_json = context.format == Format::Json;
    let derived = Derived {
        level: last.level.name(),
        algorithm: last.algorithm.name(),
        octets: key.len(),
        arrangement,
        info: hex::encode(info.as_bytes()),
        check: check_value(key),
        key: (derive.reveal || derive.vector_root).then(|| hex::encode(key)),
        steps: if is_json { places.iter().map(Step::from).collect() } else { Vec::new() },
    };
    output::object(context.format, &derived, &Names::new())
}

impl From<&(Place, Info)> for Step {
    fn from((place, info): &(Place, Info)) -> Self {
        Self {
            level: place.level.name(),
            algorithm: place.algorithm.name(),
            purpose: place.purpose.name(),
            epoch: place.epoch,
            info: hex::encode(info.as_bytes()),
        }
    }
}

/// From the start to the last place. `None` without any place.
fn walk<'a, K: SoftwareHeld>(start: &K, infos: impl Iterator<Item = &'a Info>) -> Option<SecretArray<32>> {
    let mut key: Option<K> = None;
    for info in infos {
        let Ok(next) = key.as_ref().unwrap_or(start).derive(info);
        key = Some(K::from_secret(next));
    }
    key.map(SoftwareHeld::into_secret)
}

/// Shows that two keys are the same without showing them. Nobody can search through keys of 128 bits.
fn check_value(key: &[u8]) -> String {
    let digest = kf_crypto::sha256(&[b"keyfleet check value", key].concat());
    hex::encode(digest.first_chunk::<8>().unwrap_or(&[0; 8]))
}

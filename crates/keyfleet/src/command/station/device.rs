//! `keyfleet station device`: one device whose key is born in hardware, as a fixture's program. It runs where that hardware is: on
//! the station, or on the device itself behind `ssh`.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::str::FromStr;

use clap::Args;
use kf_station::clock::{Clock as _, SystemClock};
use kf_station::fixture::{DeviceFixture, Fixture, TokenHolder, serve};
use kf_station::recipe::{Recipe, TargetKind};

use super::directory;
use crate::failure::Failure;

/// Where one device's key is.
#[derive(Debug, Args)]
pub(crate) struct Device {
    /// Where: tpm=ADDRESS, pkcs11=LABEL or element=BUS[@ADDRESS]
    #[arg(value_name = "KIND=PLACE")]
    place: Place,
    /// The directory that the device's files are written to
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// The PKCS#11 module, for pkcs11
    #[arg(long, value_name = "FILE")]
    module: Option<PathBuf>,
    /// A file that holds the PIN of the device's token, readable by its owner only, for pkcs11
    #[arg(long, value_name = "FILE")]
    pin_file: Option<PathBuf>,
    /// Which fixture of the station this is; a station gives it
    #[arg(hide = true)]
    number: Option<u32>,
}

/// A kind of key holder and which one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// A TPM, by its address for the TPM2 software stack.
    Tpm(String),
    /// A token, by its label.
    Pkcs11(String),
    /// A secure element: its bus, and its address on it.
    Element(PathBuf, u8),
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let forms = || "tpm=device:/dev/tpmrm0, pkcs11=LABEL, or element=/dev/i2c-1[@0x60]".to_owned();
        let (kind, place) = text.split_once('=').filter(|(_, place)| !place.is_empty()).ok_or_else(forms)?;
        match kind {
            "tpm" => Ok(Self::Tpm(place.to_owned())),
            "pkcs11" => Ok(Self::Pkcs11(place.to_owned())),
            "element" => {
                let (bus, address) = place.split_once('@').unwrap_or((place, DEFAULT_ADDRESS));
                let digits = address.strip_prefix("0x").ok_or_else(forms)?;
                let address = u8::from_str_radix(digits, 16).ok().filter(|address| (0x08..=0x77).contains(address));
                Ok(Self::Element(bus.into(), address.ok_or_else(forms)?))
            }
            _ => Err(forms()),
        }
    }
}

/// Of a secure element fresh from the maker.
const DEFAULT_ADDRESS: &str = "0x60";

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tpm(address) => write!(f, "tpm={address}"),
            Self::Pkcs11(label) => write!(f, "pkcs11={label}"),
            Self::Element(bus, address) => write!(f, "element={}@{address:#04x}", bus.display()),
        }
    }
}

impl Place {
    /// Whether a recipe makes its keys there.
    ///
    /// # Errors
    /// [`Failure`], naming the target that would.
    pub(super) fn check(&self, recipe: &Recipe) -> Result<(), Failure> {
        let target = match self {
            Self::Tpm(_) => TargetKind::Tpm,
            Self::Pkcs11(_) => TargetKind::Pkcs11,
            Self::Element(..) => TargetKind::SecureElement,
        };
        if recipe.target == target {
            return Ok(());
        }
        Err(Failure::usage(
            format!("the recipe is for target {}, {self} is not", recipe.target.name()),
            format!("give a recipe with target = \"{}\"", target.name()),
        ))
    }
}

pub(super) fn run(device: &Device) -> Result<ExitCode, Failure> {
    let mut fixture = open(device)?;
    // Without the buffers of the standard streams, which would keep keys that pass.
    let (input, output) = (file_of(std::io::stdin())?, file_of(std::io::stdout())?);
    serve(fixture.as_mut(), input, output)
        .map(|()| ExitCode::SUCCESS)
        .map_err(|error| Failure::local(error.to_string(), "let a station start it: `keyfleet station run --device`"))
}

fn file_of(stream: impl AsFd) -> Result<File, Failure> {
    let owned = stream.as_fd().try_clone_to_owned();
    owned.map(File::from).map_err(|error| Failure::file("use", Path::new("the standard streams"), error))
}

fn open(device: &Device) -> Result<Box<dyn Fixture>, Failure> {
    let directory = device.out.clone();
    let failed = |error| Failure::file("write to", &device.out, error);
    match &device.place {
        Place::Tpm(address) => {
            let holder = tpm(address)?;
            Ok(Box::new(DeviceFixture::new(holder, directory).map_err(failed)?))
        }
        Place::Pkcs11(label) => {
            let (Some(module), Some(pin)) = (&device.module, &device.pin_file) else {
                return Err(Failure::usage("a token needs its module and its PIN", "give --module and --pin-file"));
            };
            let pin = directory::passphrase(pin)?;
            let holder = TokenHolder::open(module.clone(), label.clone(), pin, SystemClock.now()).map_err(|error| {
                Failure::local(crate::failure::chain_of(&error), "look at the token and at the PIN in the file")
            })?;
            Ok(Box::new(DeviceFixture::new(Box::new(holder), directory).map_err(failed)?))
        }
        Place::Element(bus, address) => {
            let host = DeviceFixture::without_key(directory).map_err(failed)?;
            element(host, bus, *address)
        }
    }
}

#[cfg(feature = "tpm")]
fn tpm(address: &str) -> Result<Box<dyn kf_station::fixture::KeyHolder>, Failure> {
    let holder = kf_station::fixture::TpmHolder::open(address)
        .map_err(|error| Failure::local(crate::failure::chain_of(&error), "look at the TPM and its address"))?;
    Ok(Box::new(holder))
}

#[cfg(not(feature = "tpm"))]
fn tpm(_address: &str) -> Result<Box<dyn kf_station::fixture::KeyHolder>, Failure> {
    Err(not_built("TPMs", "tpm"))
}

#[cfg(feature = "secure-element")]
#[allow(clippy::unnecessary_wraps, reason = "the other build refuses")]
fn element(host: DeviceFixture, bus: &Path, address: u8) -> Result<Box<dyn Fixture>, Failure> {
    Ok(Box::new(kf_station::fixture::element_on_bus(Box::new(host), bus, address)))
}

#[cfg(not(feature = "secure-element"))]
fn element(_host: DeviceFixture, _bus: &Path, _address: u8) -> Result<Box<dyn Fixture>, Failure> {
    Err(not_built("secure elements", "secure-element"))
}

#[cfg(not(all(feature = "tpm", feature = "secure-element")))]
fn not_built(what: &str, feature: &str) -> Failure {
    Failure::usage(format!("this program was built without {what}"), format!("build it with `--features {feature}`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_read_as_it_is_written_and_anything_else_is_refused_with_the_forms() {
        for text in ["tpm=device:/dev/tpmrm0", "pkcs11=gateway 7", "element=/dev/i2c-1@0x35"] {
            assert_eq!(text.parse::<Place>().unwrap().to_string(), text);
        }
        assert_eq!("element=/dev/i2c-1".parse(), Ok(Place::Element("/dev/i2c-1".into(), 0x60)));
        for text in ["", "tpm", "tpm=", "usb=1", "element=/dev/i2c-1@96", "element=/dev/i2c-1@0x78"] {
            assert!(text.parse::<Place>().unwrap_err().contains("pkcs11=LABEL"), "{text}");
        }
    }
}

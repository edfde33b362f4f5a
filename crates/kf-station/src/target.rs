//! What a device is to hold, turned into an image.

mod esp32;
mod file_system;
mod files;
mod held;
mod linux;

pub use esp32::Esp32Target;
pub use files::FileTarget;
pub use held::HeldTarget;
pub use linux::LinuxTarget;

use std::sync::Arc;

use kf_crypto::PrivateKey;
use kf_key::{DeviceId, SecretArray};

use crate::image::{Image, Segment};
use crate::recipe::{KeyOrigin, Recipe, TargetKind};

/// What the image of one device is made of.
#[derive(Debug)]
pub struct Material<'a> {
    /// Identifier.
    pub device: DeviceId,
    /// Name.
    pub name: &'a str,
    /// Product line: the EST label.
    pub product_line: &'a str,
    /// `https://host[:port]` of the server.
    pub server: &'a str,
    /// The CA certificate that the device pins, DER.
    pub anchor: &'a [u8],
    /// The IDevID and what leads to the factory CA, DER, leaf first.
    pub chain: &'a [Vec<u8>],
    /// The private key, if it was made in the station.
    pub key: Option<&'a PrivateKey>,
    /// The symmetric device key, if it is injected.
    pub device_key: Option<&'a SecretArray<32>>,
    /// 32 fresh random octets, for what unlocks the image.
    pub random: &'a SecretArray<32>,
    /// The key of flash encryption, where the station turns that on: what only flash encryption protects is encrypted under it.
    pub flash_key: Option<&'a SecretArray<32>>,
}

/// What a device holds where no image reaches: in its fuses, or wherever it is given at each start.
#[derive(Debug, Default)]
pub struct Protected {
    /// What opens the image.
    pub unlock: Option<SecretArray<32>>,
    /// The key of flash encryption.
    pub flash_key: Option<SecretArray<32>>,
}

/// Why an image is not made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TargetError {
    /// It does not fit its partition.
    #[error("the {0} does not fit its partition: enlarge it in the recipe")]
    DoesNotFit(&'static str),
    /// The certificate is longer than the slots of the secure element.
    #[error("the certificate does not fit the secure element: shorten the names of organization and product line")]
    Certificate,
    /// The recipe makes the key in the device, or the other way round.
    #[error("the key is not where the recipe says")]
    Key,
    /// The provider.
    #[error("a cryptographic operation failed")]
    Crypto,
    /// e2fsprogs did not make the file system.
    #[error("the file system was not made: install e2fsprogs")]
    FileSystem,
    /// There is no space to make it.
    #[error("the disk is full: free space")]
    DiskFull,
    /// This station does not make such images.
    #[error("this station does not make images for target {0}")]
    Unsupported(&'static str),
}

/// Makes images, and reads them as the device does.
pub trait Target: Send + Sync + std::fmt::Debug {
    /// The image of a device.
    ///
    /// # Errors
    /// [`TargetError`].
    fn image(&self, material: &Material<'_>) -> Result<Image, TargetError>;

    /// The identity key, found in what is on the device as the device itself finds it; `None` when it is not there.
    fn open(&self, segments: &[Segment], held: &Protected) -> Option<PrivateKey>;
}

/// The target of a recipe.
///
/// # Errors
/// [`TargetError::Unsupported`].
pub fn of_recipe(recipe: &Recipe) -> Result<Arc<dyn Target>, TargetError> {
    match recipe.target {
        TargetKind::Linux => Ok(Arc::new(LinuxTarget::of(recipe))),
        TargetKind::File => FileTarget::of(recipe).map(|target| -> Arc<dyn Target> { Arc::new(target) }),
        TargetKind::Esp32 => Esp32Target::of(recipe).map(|target| -> Arc<dyn Target> { Arc::new(target) }),
        TargetKind::Tpm | TargetKind::Pkcs11 | TargetKind::SecureElement => Ok(Arc::new(HeldTarget::of(recipe))),
        TargetKind::Hook if recipe.identity.origin == KeyOrigin::Device => Ok(Arc::new(HeldTarget::of(recipe))),
        TargetKind::Hook => Err(TargetError::Unsupported("hook with a key of the station")),
    }
}

fn pem_chain(chain: &[Vec<u8>]) -> Vec<u8> {
    chain.iter().map(|der| kf_pki::pem::certificate(der)).collect::<String>().into_bytes()
}

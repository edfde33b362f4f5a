//! A fixture: what holds a device under test and talks to it.

mod burn;
mod deadline;
mod device;
mod element;
mod espefuse;
mod noise;
mod program;
mod serve;
mod simulator;
mod token_holder;
#[cfg(feature = "tpm")]
mod tpm_holder;
mod wire;

pub use burn::{BurnOrder, OrderedStep};
pub use deadline::Deadline;
pub use device::{DeviceFixture, HeldKey, KeyHolder};
#[cfg(feature = "secure-element")]
pub use element::element_on_bus;
pub(crate) use element::locks_text;
pub use element::{ElementFixture, ElementOrder, OpenElement};
pub use espefuse::{Espefuse, EspefuseCommand};
pub use noise::{DeviceNoise, NOISE_OCTETS};
pub(crate) use noise::{Verdict as NoiseVerdict, judge};
pub use program::Program;
pub use serve::serve;
pub use simulator::{Board, BoardState, Fault, Simulator, Supply};
pub use token_holder::TokenHolder;
#[cfg(feature = "tpm")]
pub use tpm_holder::TpmHolder;

use kf_key::{KeyAlgorithm, SecretArray};

use crate::image::{Image, Segment};
use crate::line::Next;
use crate::recipe::ChipState;

/// Why a fixture did not do what was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FixtureError {
    /// It did not answer in time, now or earlier: it is out of service.
    #[error("the fixture did not answer in time")]
    Hang,
    /// Its program ended: it is out of service.
    #[error("the fixture's program ended")]
    Gone,
    /// It or the device reported an error.
    #[error("the fixture or the device failed")]
    Failed,
    /// The disk that its files go to is full.
    #[error("the disk that the device's files go to is full")]
    DiskFull,
    /// The device cannot do that.
    #[error("the device cannot do that")]
    Unsupported,
    /// Something in it was burnt or locked for another unit, and cannot be undone.
    #[error("the device was burnt or locked for another unit")]
    Spent,
}

/// What a device tells before anything is written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// MAC address or chip identifier.
    pub mac: String,
    /// The number on the board; may be empty.
    pub board: String,
    /// Name of the chip, where the device has one that recipes know.
    pub chip: Option<String>,
    /// Serial number of its secure element, where it has one.
    pub element: Option<String>,
    /// What its fuses say.
    pub chip_state: ChipState,
}

/// One fixture. Calls block for as long as the hardware takes; [`Deadline`] makes them end.
pub trait Fixture: Send {
    /// Waits for the next device and reads it; `None` when none will come.
    ///
    /// # Errors
    /// [`FixtureError`].
    fn read(&mut self) -> Result<Option<Reading>, FixtureError>;

    /// Has the device make a key pair and sign a PKCS#10 request, DER.
    ///
    /// # Errors
    /// [`FixtureError`].
    fn make_key(&mut self, algorithm: KeyAlgorithm, slot: Option<u32>) -> Result<Vec<u8>, FixtureError>;

    /// Takes the device's secure element from blank, or from wherever power was cut, to a fresh identity key that it made
    /// itself. Its configuration and its data zone are locked on the way, which cannot be undone. Gives a PKCS#10 request, DER.
    ///
    /// # Errors
    /// [`FixtureError`]; [`FixtureError::Spent`] for a chip that was locked with something else.
    fn personalize(&mut self, _order: &ElementOrder) -> Result<Vec<u8>, FixtureError> {
        Err(FixtureError::Unsupported)
    }

    /// What is known of the random source of the key that the device has just made.
    ///
    /// # Errors
    /// [`FixtureError`].
    fn noise(&mut self) -> Result<DeviceNoise, FixtureError> {
        Ok(DeviceNoise::NotTestable)
    }

    /// Writes an image. A secure element is locked as the image says.
    ///
    /// # Errors
    /// [`FixtureError`].
    fn write(&mut self, image: &Image) -> Result<(), FixtureError>;

    /// Burns fuses, in order, and gives what they say afterwards. Cannot be undone.
    ///
    /// # Errors
    /// [`FixtureError`]; [`FixtureError::Spent`] for a chip in which something else was burnt.
    fn burn(&mut self, _order: &BurnOrder) -> Result<ChipState, FixtureError> {
        Err(FixtureError::Unsupported)
    }

    /// Reads back everything that was written, and the fuses.
    ///
    /// # Errors
    /// [`FixtureError`].
    fn read_back(&mut self) -> Result<(Vec<Segment>, ChipState), FixtureError>;

    /// Has the device sign a message with its identity key: DER for ECDSA.
    ///
    /// # Errors
    /// [`FixtureError`].
    fn prove(&mut self, message: &[u8]) -> Result<Vec<u8>, FixtureError>;

    /// Destroys the keys of a device that did not pass, and looks that they are gone.
    ///
    /// # Errors
    /// [`FixtureError`]: then nothing is known to be gone.
    fn destroy(&mut self) -> Result<Destruction, FixtureError> {
        Err(FixtureError::Unsupported)
    }

    /// Shows the operator what became of the device, which is then taken out. A lamp, where there is one.
    fn show(&mut self, _verdict: Verdict) {}
}

/// What became of the keys of a device that did not pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destruction {
    /// By which method, or why not: at most 128 octets.
    pub method: String,
    /// Whether they were looked for afterwards and not found.
    pub is_verified: bool,
}

impl Destruction {
    /// Gone, and looked for.
    #[must_use]
    pub fn verified(method: impl Into<String>) -> Self {
        Self { method: method.into(), is_verified: true }
    }

    /// Not known to be gone.
    #[must_use]
    pub fn unverified(why: impl Into<String>) -> Self {
        Self { method: why.into(), is_verified: false }
    }
}

fn of_disk(error: &std::io::Error) -> FixtureError {
    if crate::disk::is_full(error) { FixtureError::DiskFull } else { FixtureError::Failed }
}

pub(crate) fn copy_key(key: &SecretArray<32>) -> SecretArray<32> {
    // Exposed to the copy.
    SecretArray::fill(|out| *out = *key.expose())
}

/// What became of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Good.
    Pass,
    /// Not good, and what the operator does with it.
    Fail(Next),
}

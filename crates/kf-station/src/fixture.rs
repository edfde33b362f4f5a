//! A fixture: what holds a device under test and talks to it.

mod deadline;
mod device;
mod element;
mod espefuse;
mod program;
mod serve;
mod simulator;
mod token_holder;
#[cfg(feature = "tpm")]
mod tpm_holder;

pub use deadline::Deadline;
pub use device::{DeviceFixture, HeldKey, KeyHolder};
#[cfg(feature = "secure-element")]
pub use element::element_on_bus;
pub(crate) use element::locks_text;
pub use element::{ElementFixture, ElementOrder, OpenElement};
pub use espefuse::{Espefuse, EspefuseCommand};
pub use program::Program;
pub use serve::serve;
pub use simulator::{Board, BoardState, Fault, Simulator, Supply};
pub use token_holder::TokenHolder;
#[cfg(feature = "tpm")]
pub use tpm_holder::TpmHolder;

use kf_key::{KeyAlgorithm, SecretArray};

use crate::image::{Image, Segment};
use crate::line::Next;
use crate::recipe::{ChipState, Fuse};

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

    /// Writes an image. A secure element is locked as the image says.
    ///
    /// # Errors
    /// [`FixtureError`].
    fn write(&mut self, image: &Image) -> Result<(), FixtureError>;

    /// Burns fuses; the key of a block for the HMAC peripheral is what unlocks the image. Cannot be undone.
    ///
    /// # Errors
    /// [`FixtureError`].
    fn burn(&mut self, fuses: &[Fuse], unlock: Option<&SecretArray<32>>) -> Result<(), FixtureError>;

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

    /// Shows the operator what became of the device, which is then taken out. A lamp, where there is one.
    fn show(&mut self, _verdict: Verdict) {}
}

/// What became of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Good.
    Pass,
    /// Not good, and what the operator does with it.
    Fail(Next),
}

//! Simulated flash: raw NOR flash, and a translation layer above it as in eMMC, SD cards and USB sticks.
//!
//! Both keep every octet that was ever written until a block is erased, show all of it raw, wear out, and lose power in the
//! middle of any operation, so that a test can ask what is left of a key after it was overwritten, trimmed, moved or
//! destroyed.

mod nor;
mod translation;

pub use nor::{FlashFault, NorFlash};
pub use translation::{CardShape, SECTOR_OCTETS, TranslatedFlash};

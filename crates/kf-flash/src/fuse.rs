//! eFuses: what a chip has, what a plan burns, and what is read back.
//!
//! A fuse goes from 0 to 1 and never back. So a [`BurnPlan`] is checked as a whole before its first step, against the chip
//! as it was read ([`ChipState`]), and every refusal says which step and why:
//!
//! * a key block that holds something is never written again;
//! * flash encryption comes before secure boot, whose enabling write-protects the bits that hide keys from software;
//! * what a chip does not have (HMAC peripheral, ECDSA peripheral, 256-bit flash encryption, a sixth key block) is refused
//!   before hardware is touched.
//!
//! Plans are data. They are carried out by `espefuse`, a program of its own, for which [`BurnStep::espefuse`] gives the
//! arguments; what a chip then says of itself is read from `espefuse summary --format json`.

mod chip;
mod plan;
mod state;

pub use chip::{ChipFamily, KeyPurpose, UnknownChip, UnknownPurpose};
pub use plan::{BurnPlan, BurnStep, FuseError, Lock};
pub use state::{ChipState, DownloadMode, FlashEncryption, KeyBlock, MAX_SUMMARY_OCTETS, SummaryError};

//! The C interface of the device SDK; `include/keyfleet.h` is its contract. Every pointer and length is checked, nothing
//! panics across the boundary, and the only memory is the caller's.
#![no_std]
#![warn(missing_docs)]
#![allow(unsafe_code, reason = "a C interface; each use has its safety comment")]

#[cfg(not(target_os = "none"))]
extern crate std;

mod derivation;
mod handle;
mod noise;
mod pointer;
mod sealing;
mod status;

pub use derivation::kf_derive;
pub use handle::Held;
pub use noise::{HeldNoise, HookFailed, Hooks, kf_noise_key, kf_noise_start, kf_noise_wipe};
pub use sealing::{HeldSealer, Place, kf_hazmat_sealer_begin, kf_open, kf_seal, kf_sealer_begin, kf_sealer_wipe};
pub use status::kf_status_text;

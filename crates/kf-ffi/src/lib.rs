//! The C interface of the device SDK; `include/keyfleet.h` is its contract. Every pointer and length is checked, nothing
//! panics across the border, and the only memory is the caller's.
//!
//! A call takes its pointers apart in one place ([`border!`]) and then works with references; what it does is in
//! `kf-device`. The hardware is a table of hooks ([`Hooks`]).
#![no_std]
#![warn(missing_docs)]
#![allow(unsafe_code, reason = "a C interface; each use has its safety comment")]

#[cfg(not(target_os = "none"))]
extern crate std;

/// A function of the header: the pointers that it takes, each checked, and what it does with them.
macro_rules! border {
    (
        $(#[$doc:meta])*
        $name:ident($($argument:ident: $kind:ty),* $(,)?) takes { $($taken:ident = $take:expr),* $(,)? } $act:block
    ) => {
        $(#[$doc])*
        ///
        /// # Safety
        /// Every pointer is NULL or valid as the header says.
        #[allow(clippy::too_many_arguments, reason = "C has no slices")]
        // SAFETY: no other symbol of this name exists: the prefix is ours.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name($($argument: $kind),*) -> i32 {
            crate::status::border(|| {
                $(
                    // SAFETY: by the caller's promise.
                    #[allow(unused_mut, reason = "not every handle is changed")]
                    let mut $taken = unsafe { $take }?;
                )*
                $act
            })
        }
    };
}

mod derivation;
mod destruction;
mod device;
mod enrolment;
mod exchange;
mod handle;
mod hooks;
mod identity;
mod layout;
mod nvs;
mod order;
mod pin;
mod pointer;
mod protected;
mod ratchet;
mod sealing;
mod status;
mod trust;

pub use derivation::{
    KeyPlaceOfC, kf_derive, kf_derive_counter_mode, kf_device_key_inject, kf_device_key_place, kf_extract,
    kf_hmac_sha256, kf_info, kf_storage_key,
};
pub use destruction::{kf_crypto_erase, kf_destroy};
pub use device::{
    Device, kf_declare_noise, kf_evidence, kf_format, kf_next_number, kf_random, kf_record_get, kf_record_put,
    kf_record_remove, kf_start, kf_stop, kf_test_noise,
};
pub use enrolment::{
    Enrolling, EstOfC, RequestOfC, kf_enrolment_answer, kf_enrolment_begin, kf_enrolment_end, kf_enrolment_next,
};
pub use exchange::{Exchanging, kf_exchange_begin, kf_exchange_end, kf_exchange_session_key, kf_exchange_step};
pub use handle::Held;
pub use hooks::{BoardOfC, Hooks};
pub use identity::{
    kf_identity_adopt, kf_identity_certificate, kf_identity_certify, kf_identity_discard, kf_identity_grade,
    kf_identity_make, kf_identity_public_key, kf_identity_request, kf_identity_sign, kf_identity_sign_digest,
};
#[doc(hidden)]
pub use layout::{Layout, layouts};
pub use nvs::{
    NvsOfC, kf_nvs_adopt, kf_nvs_format, kf_nvs_get, kf_nvs_keys, kf_nvs_put, kf_nvs_remove, kf_nvs_settle, kf_nvs_step,
};
pub use order::{
    Ordered, kf_order_accept, kf_order_end, kf_order_factory_reset, kf_order_report, kf_order_wipe, kf_reset_report,
    kf_reset_told, kf_wipe_report,
};
pub use pin::kf_pin_take_up;
pub use protected::{
    Protecting, kf_protected_begin, kf_protected_end, kf_protected_get, kf_protected_open, kf_protected_put,
    kf_protected_report, kf_protected_step, kf_protected_version,
};
pub use ratchet::{
    Ratcheting, kf_ratchet_advance, kf_ratchet_begin, kf_ratchet_end, kf_ratchet_load, kf_ratchet_position,
    kf_ratchet_session_key,
};
pub use sealing::{
    HeldSealer, Place, kf_hazmat_open, kf_hazmat_sealer_begin, kf_open, kf_seal, kf_sealer_begin, kf_sealer_wipe,
};
#[doc(hidden)]
pub use status::codes;
pub use status::{HookFailed, kf_status_text};
pub use trust::{kf_roots, kf_roots_remaining, kf_roots_take_up};

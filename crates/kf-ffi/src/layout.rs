//! What the header says of sizes and places, as this library has it: for the test that holds the two together.

use core::mem::{offset_of, size_of};

use kf_device::exchange::kf_exchange::MAX_MESSAGE_OCTETS;

use crate::derivation::KeyPlaceOfC;
use crate::device::Device;
use crate::enrolment::{Enrolling, EstOfC, RequestOfC};
use crate::exchange::Exchanging;
use crate::handle::{Held, InHandle};
use crate::hooks::{BoardOfC, Hooks};
use crate::nvs::NvsOfC;
use crate::order::Ordered;
use crate::protected::Protecting;
use crate::ratchet::Ratcheting;
use crate::sealing::{HeldSealer, Place};

/// Octets of a type of the header or the offset of a field: the expression in C, and what it must be.
#[doc(hidden)]
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs, reason = "for a test")]
pub struct Layout {
    pub expression: &'static str,
    pub octets: usize,
    /// Of a handle: what of it is used.
    pub used: usize,
}

const fn handle<T: InHandle>(expression: &'static str) -> Layout {
    Layout { expression, octets: T::WORDS * 8, used: size_of::<Held<T>>() }
}

macro_rules! structures {
    ($($expression:literal $octets:expr;)+) => {
        [$(Layout { expression: $expression, octets: $octets, used: $octets },)+]
    };
}

/// Every size and offset that C relies on.
#[doc(hidden)]
pub fn layouts() -> impl Iterator<Item = Layout> {
    let handles = [
        handle::<Device>("sizeof(kf_device)"),
        handle::<HeldSealer>("sizeof(kf_sealer)"),
        handle::<Exchanging>("sizeof(kf_exchange)"),
        handle::<Enrolling>("sizeof(kf_enrolment)"),
        handle::<Ordered>("sizeof(kf_order)"),
        handle::<Ratcheting>("sizeof(kf_ratchet)"),
        handle::<Protecting>("sizeof(kf_protected)"),
    ];
    let structures = structures! {
        "sizeof(kf_hooks)" size_of::<Hooks>();
        "offsetof(kf_hooks, revoke)" offset_of!(Hooks, revoke);
        "offsetof(kf_hooks, chip_hmac)" offset_of!(Hooks, chip_hmac);
        "sizeof(kf_board)" size_of::<BoardOfC>();
        "offsetof(kf_board, noise_millibits)" offset_of!(BoardOfC, noise_millibits);
        "offsetof(kf_board, medium)" offset_of!(BoardOfC, medium);
        "offsetof(kf_board, tags)" offset_of!(BoardOfC, tags);
        "sizeof(kf_nvs)" size_of::<NvsOfC>();
        "offsetof(kf_nvs, erase)" offset_of!(NvsOfC, erase);
        "offsetof(kf_nvs, pages)" offset_of!(NvsOfC, pages);
        "sizeof(kf_key_place)" size_of::<KeyPlaceOfC>();
        "offsetof(kf_key_place, device_epoch)" offset_of!(KeyPlaceOfC, device_epoch);
        "sizeof(kf_place)" size_of::<Place>();
        "offsetof(kf_place, service)" offset_of!(Place, service);
        "sizeof(kf_est)" size_of::<EstOfC>();
        "offsetof(kf_est, anchor)" offset_of!(EstOfC, anchor);
        "offsetof(kf_est, renew_now)" offset_of!(EstOfC, renew_now);
        "sizeof(kf_request)" size_of::<RequestOfC>();
        "offsetof(kf_request, body_length)" offset_of!(RequestOfC, body_length);
        "offsetof(kf_request, reason)" offset_of!(RequestOfC, reason);
        "KF_EVIDENCE_OCTETS" kf_entropy::Evidence::OCTETS;
        "KF_MESSAGE_OCTETS" MAX_MESSAGE_OCTETS;
        "KF_REQUEST_OCTETS" kf_device::enrolment::REQUEST_OCTETS;
        "KF_INFO_OCTETS" kf_derive::MAX_INFO_OCTETS;
        "KF_CERTIFICATE_OCTETS" kf_device::certificate::MAX_CERTIFICATE_OCTETS;
        "KF_PLAINTEXT_OCTETS" kf_seal::MAX_PLAINTEXT_OCTETS;
        "KF_ENVELOPE_OVERHEAD_OCTETS" kf_seal::MAX_OVERHEAD_OCTETS;
        "KF_PUBLIC_KEY_OCTETS" 91;
        "KF_ROOTS_OCTETS" crate::trust::ROOTS_OCTETS;
        "KF_NVS_VALUE_OCTETS" crate::nvs::VALUE_OCTETS;
        "KF_PROTECTED_OCTETS" kf_device::protected::MAX_OCTETS;
    };
    handles.into_iter().chain(structures)
}

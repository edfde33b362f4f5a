//! Credential activation: a device shows that its key lives in the TPM whose endorsement key (EK) it is known by (TPM
//! 2.0 Part 1 section 24; TCG EK Credential Profile 2.5).
//!
//! The device names its EK and the public area of its key. The server believes the EK because a TPM maker's CA
//! certified it or because its hash is registered ([`EndorsementKey::accept`]), checks that the public area is that of a
//! signature key which was made in a TPM and cannot leave it ([`AttestedKey`]), and encrypts a secret to that EK and that
//! key ([`make_credential`]). Only a TPM that holds both decrypts it ([`Challenges::answer`]). A stolen enrolment code is
//! then not enough: the thief lacks the TPM.

mod challenge;
mod credential;
mod key;

pub use challenge::{Challenge, Challenges, LIFETIME as CHALLENGE_LIFETIME, MAX_CHALLENGES};
pub use credential::{Credential, make_credential};
pub use key::{AttestedKey, EndorsementKey, MAX_PUBLIC_AREA_OCTETS};

use kf_api::product_line::EndorsementPolicy;

use crate::Refusal;

/// Everything that decides whether a key may carry a certificate of a line that demands a TPM.
#[derive(Clone, Copy, Debug)]
pub struct Endorsed<'a> {
    /// What the line demands; nothing when absent.
    pub policy: Option<&'a EndorsementPolicy>,
    /// SHA-256 of the EK (SubjectPublicKeyInfo) that is registered for the device.
    pub registered: Option<[u8; 32]>,
    /// SHA-256 of the EK under which the device proved the key, once it did.
    pub proven: Option<[u8; 32]>,
}

impl Endorsed<'_> {
    /// Whether the key may be certified.
    ///
    /// # Errors
    /// [`Refusal::KeyNotEndorsed`].
    pub fn decide(&self) -> Result<(), Refusal> {
        match (self.policy, self.proven, self.registered) {
            (None, ..) => Ok(()),
            (Some(_), Some(proven), Some(registered)) if proven == registered => Ok(()),
            // Proven when first-use binding was allowed, and nothing registered since.
            (Some(_), Some(_), None) => Ok(()),
            _ => Err(Refusal::KeyNotEndorsed),
        }
    }
}

//! Enrolment and renewal over EST (RFC 7030) without a socket.
//!
//! What to do next is decided by [`machine::decide`], from what is stored, what has happened and what time it is;
//! [`Enrolment`] puts it into requests for whatever transport the firmware has, and answers back into outcomes. The
//! transport carries a method, a path, a content type and a body, and brings back a status, a Retry-After and a body.
//!
//! ```text
//! MakeRequest   Candidate::generate                                     in the slot that is not in use
//! Enrol(how)    GET cacerts, then POST simpleenroll (code) or simplereenroll (certificate in use)
//!               Authorities::read, issued, Candidate::certify
//! Prove         GET cacerts over TLS with the new certificate
//! Adopt         Certified::adopt
//! ```
//! TLS to the server must verify it; where a gateway terminates TLS, or the firmware's stack does not look closely, the
//! [`Anchor`](crate::certificate::Anchor) still holds: a certificate is taken only if P-256 signatures lead from it to the pinned root.

pub mod machine;
pub mod schedule;

mod base64;
mod certification_request;
mod est;

use kf_key::UnixMillis;

use crate::certificate::Certificate;
use crate::identity::Slot;
use crate::storage::{Flash, Integrity, StorageError, Store};
use machine::{Outcome, Spare, State, Step, Validity};

pub use certification_request::{REQUEST_OCTETS, certification_request};
pub use est::{
    Answer, Authorities, EstError, MAX_AUTHORIZATION_OCTETS, MAX_PATH_OCTETS, Method, Operation, Path, Service,
    basic_authorization, body, issued, outcome_of,
};

/// The state of a device that enrols and renews.
#[derive(Clone, Debug)]
pub struct Enrolment {
    state: State,
}

impl Enrolment {
    /// The state as the store has it after a start. `octets` takes a certificate at a time.
    ///
    /// # Errors
    /// Of the store; [`StorageError::Corrupt`] also for a stored certificate that cannot be read.
    pub fn load<F: Flash, I: Integrity>(
        store: &mut Store<F, I>,
        has_code: bool,
        has_idevid: bool,
        octets: &mut [u8],
    ) -> Result<Self, StorageError<F::Error>> {
        let in_use = match Slot::in_use(store)? {
            Some(slot) => slot.validity(store, octets)?,
            None => None,
        };
        let slot = Slot::spare(store)?;
        let spare = match (slot.validity(store, octets)?, slot.has_key(store)?) {
            (Some(validity), _) => Spare::Issued(validity),
            (None, true) => Spare::Requested,
            (None, false) => Spare::Empty,
        };
        Ok(Self { state: State::new(in_use, spare, has_code, has_idevid, false) })
    }

    /// What to do next. `now` comes from whatever clock the device has; without one nothing is ever due for renewal but
    /// by order.
    #[must_use]
    pub fn next(&self, now: UnixMillis) -> Step {
        machine::decide(&self.state, now)
    }

    /// Takes note of how a step went. `random` spreads the waits of a fleet.
    pub fn observe(&mut self, outcome: Outcome, now: UnixMillis, random: u64) {
        self.state.observe(outcome, now, random);
    }

    /// Makes the device renew at once, as an order to rotate asks for.
    pub const fn renew_now(&mut self) {
        if let Some(validity) = &mut self.state.in_use {
            validity.renew_at = UnixMillis(0);
        }
    }

    /// The whole state, to be shown.
    #[must_use]
    pub const fn state(&self) -> &State {
        &self.state
    }
}

/// The validity of a certificate and when to renew it. The certificate itself is the random number: spread over a
/// fleet, and the same after every restart.
#[must_use]
pub fn validity_of(certificate: &Certificate<'_>) -> Validity {
    let (not_before, not_after) = (certificate.not_before(), certificate.not_after());
    let [a, b, c, d, e, f, g, h, ..] = certificate.fingerprint();
    let renew_at = schedule::renew_at(not_before, not_after, u64::from_be_bytes([a, b, c, d, e, f, g, h]));
    Validity { not_before, not_after, renew_at }
}

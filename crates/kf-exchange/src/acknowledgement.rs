//! The device says, under the new key, that it holds it; the server says, under the same key, that it knows.

use core::fmt;

use kf_derive::{AuthenticationKey, DeviceKey, SessionKey};
use kf_key::DeviceId;

use crate::codec::Message;
use crate::message::{AcknowledgementMessage, DoneMessage, Part};
use crate::place::KeyPlace;
use crate::refusal::{Refusal, Refused};
use crate::transcript::{Label, equal};

/// Label of the authentication key below the device key or session key.
const LABEL: &[u8] = b"exchange";

fn of_device_key(key: &DeviceKey) -> Result<AuthenticationKey, Refusal> {
    key.authentication(LABEL, 0).map_err(|_too_long| Refusal::Malformed)
}

fn of_session_key(key: &SessionKey) -> Result<AuthenticationKey, Refusal> {
    key.authentication(LABEL, 0).map_err(|_too_long| Refusal::Malformed)
}

fn tag(key: &AuthenticationKey, label: Label, session: &[u8; 16], device: DeviceId, place: KeyPlace) -> [u8; 32] {
    key.tag(&[&label.prefix(), session, device.as_bytes(), &place.to_octets()])
}

fn acknowledge_under(
    key: &AuthenticationKey,
    session: [u8; 16],
    device: DeviceId,
    place: KeyPlace,
) -> Result<(AwaitDone, Message), Refusal> {
    let mac = tag(key, Label::ACKNOWLEDGE, &session, device, place);
    let message = AcknowledgementMessage { session, device, place, mac }.encode()?;
    Ok((AwaitDone { session, mac: tag(key, Label::DONE, &session, device, place) }, message))
}

pub(crate) fn acknowledge(
    session: [u8; 16],
    device: DeviceId,
    place: KeyPlace,
    key: &DeviceKey,
) -> Result<(AwaitDone, Message), Refusal> {
    acknowledge_under(&of_device_key(key)?, session, device, place)
}

pub(crate) fn acknowledge_session(
    session: [u8; 16],
    device: DeviceId,
    place: KeyPlace,
    key: &SessionKey,
) -> Result<(AwaitDone, Message), Refusal> {
    acknowledge_under(&of_session_key(key)?, session, device, place)
}

/// An exchange of which the device has acknowledged the key.
pub struct AwaitDone {
    session: [u8; 16],
    mac: [u8; 32],
}

impl fmt::Debug for AwaitDone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AwaitDone")
    }
}

impl AwaitDone {
    /// The exchange: what names a mixed session from then on.
    #[must_use]
    pub const fn session(&self) -> [u8; 16] {
        self.session
    }

    /// Ends the exchange: the server has recorded that the device holds the key.
    ///
    /// # Errors
    /// [`Refused`], with the state as it was: [`Refusal::OtherSession`], [`Refusal::Unauthentic`], those of reading.
    pub fn finish(self, message: &[u8]) -> Result<(), Refused<Self>> {
        let checked = DoneMessage::decode(message).and_then(|said| {
            if said.session != self.session {
                Err(Refusal::OtherSession)
            } else if equal(&said.mac, &self.mac) {
                Ok(())
            } else {
                Err(Refusal::Unauthentic)
            }
        });
        checked.map_err(|refusal| Refused { state: self, error: refusal.into() })
    }
}

/// A device's acknowledgement as the server reads it. It stands by itself: no state of the exchange is needed, so it may
/// come after a restart of the server, and come twice. What it says stays true, because a place is never used for a
/// second key.
#[derive(Clone, Debug)]
pub struct Acknowledgement(AcknowledgementMessage);

impl Acknowledgement {
    /// Reads one.
    ///
    /// # Errors
    /// Those of reading.
    pub fn read(message: &[u8]) -> Result<Self, Refusal> {
        AcknowledgementMessage::decode(message).map(Self)
    }

    /// The exchange that it ends.
    #[must_use]
    pub const fn session(&self) -> [u8; 16] {
        self.0.session
    }

    /// The device that it claims to be from.
    #[must_use]
    pub const fn device(&self) -> DeviceId {
        self.0.device
    }

    /// The key that it claims to acknowledge.
    #[must_use]
    pub const fn place(&self) -> KeyPlace {
        self.0.place
    }

    /// Checks it under the device key of [`Acknowledgement::place`]; returns the answer, to be sent when the
    /// acknowledgement is durable.
    ///
    /// # Errors
    /// [`Refusal::Unauthentic`].
    pub fn verify(&self, key: &DeviceKey) -> Result<Message, Refusal> {
        self.verify_under(&of_device_key(key)?)
    }

    /// As [`Acknowledgement::verify`], for a session.
    ///
    /// # Errors
    /// [`Refusal::Unauthentic`].
    pub fn verify_session(&self, key: &SessionKey) -> Result<Message, Refusal> {
        self.verify_under(&of_session_key(key)?)
    }

    fn verify_under(&self, key: &AuthenticationKey) -> Result<Message, Refusal> {
        let AcknowledgementMessage { session, device, place, mac } = &self.0;
        if !equal(mac, &tag(key, Label::ACKNOWLEDGE, session, *device, *place)) {
            return Err(Refusal::Unauthentic);
        }
        DoneMessage { session: *session, mac: tag(key, Label::DONE, session, *device, *place) }.encode()
    }
}

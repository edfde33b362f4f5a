//! The server's side.

use core::fmt;

use kf_derive::{DeviceKey, SessionKey};
use kf_key::{DeviceId, SecretArray};

use crate::codec::Message;
use crate::device::{mixed_session, seal};
use crate::identity::{IdentityKey, KeyAgreement, PublicKey};
use crate::message::{Challenge, Hello, Part, Proof, Purpose};
use crate::place::KeyPlace;
use crate::refusal::{ExchangeError, Refusal, Refused};
use crate::transcript::{Label, Schedule, Transcript, equal};

/// An exchange of which the server has sent the challenge. The ephemeral secret is gone already; what is left are the
/// keys made from it. Keep it under its session identifier, forget it when it is spent or a minute old.
pub struct AwaitProof {
    session: [u8; 16],
    purpose: Purpose,
    schedule: Schedule,
    transcript: Transcript,
}

impl fmt::Debug for AwaitProof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AwaitProof({:?})", self.purpose)
    }
}

/// Who a proof claims to be from: what a server must look up before it can check the proof. Nothing is proved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClaimedIdentity {
    /// The session.
    pub session: [u8; 16],
    /// The device.
    pub device: DeviceId,
    /// SHA-256 of the SubjectPublicKeyInfo of its identity key.
    pub spki_sha256: [u8; 32],
}

impl ClaimedIdentity {
    /// Reads it from a proof.
    ///
    /// # Errors
    /// Those of reading.
    pub fn read(proof: &[u8]) -> Result<Self, Refusal> {
        Proof::decode(proof).map(|said| Self { session: said.session, device: said.device, spki_sha256: said.key })
    }
}

impl AwaitProof {
    /// Answers a hello. `session` are 16 fresh random octets, `ephemeral` is fresh and spent here.
    ///
    /// # Errors
    /// Those of reading; [`ExchangeError::Holder`] of the delivery key.
    pub fn challenge<K: IdentityKey, A: KeyAgreement>(
        hello: &[u8],
        delivery_key: &K,
        session: [u8; 16],
        ephemeral: A,
    ) -> Result<(Self, Message), ExchangeError<K::Error>> {
        let said = Hello::decode(hello)?;
        let purpose = said.purpose()?;
        let theirs = PublicKey::from_sec1(&said.ephemeral)?;
        let server = delivery_key.public_key().spki_sha256();
        let mut challenge = Challenge {
            session,
            ephemeral: ephemeral.public_key().to_sec1(),
            server: *server.first_chunk().ok_or(Refusal::Malformed)?,
            signature: [0; 64],
            mac: [0; 32],
        };
        let shared = ephemeral.agree(&theirs).map_err(|_holder| Refusal::Agreement)?;
        drop(ephemeral);
        let before = Transcript::begin().then(hello);
        let transcript = before.then(challenge.signed()?.as_bytes());
        let schedule = Schedule::new(transcript, &shared);
        let to_be_signed = transcript.to_be_signed(Label::SERVER_SIGNS);
        challenge.signature = delivery_key.sign(&to_be_signed).map_err(ExchangeError::Holder)?;
        challenge.mac = schedule.mac(Label::SERVER_MAC, transcript, &[&server, &challenge.signature]);
        let message = challenge.encode()?;
        let transcript = before.then(message.as_bytes());
        Ok((Self { session, purpose, schedule, transcript }, message))
    }

    /// The session identifier.
    #[must_use]
    pub const fn session(&self) -> [u8; 16] {
        self.session
    }

    /// What the device wants.
    #[must_use]
    pub const fn purpose(&self) -> Purpose {
        self.purpose
    }

    /// Checks a proof against the device and identity key that the registry gives for [`ClaimedIdentity`].
    ///
    /// # Errors
    /// [`Refused`], with the state as it was: [`Refusal::OtherSession`], [`Refusal::Unauthentic`] for everything that
    /// does not hold, those of reading.
    pub fn verify(self, proof: &[u8], device: DeviceId, identity: &PublicKey) -> Result<Authenticated, Refused<Self>> {
        match self.verified(proof, device, identity) {
            Ok(transcript) => Ok(Authenticated {
                session: self.session,
                purpose: self.purpose,
                device,
                schedule: self.schedule,
                transcript,
            }),
            Err(refusal) => Err(Refused { state: self, error: refusal.into() }),
        }
    }

    fn verified(&self, proof: &[u8], device: DeviceId, identity: &PublicKey) -> Result<Transcript, Refusal> {
        let said = Proof::decode(proof)?;
        if said.session != self.session {
            return Err(Refusal::OtherSession);
        }
        let transcript = self.transcript.then(said.signed()?.as_bytes());
        let key = identity.spki_sha256();
        let mac = self.schedule.mac(Label::DEVICE_MAC, transcript, &[device.as_bytes(), &key, &said.signature]);
        let signed = identity.verifies(&transcript.to_be_signed(Label::DEVICE_SIGNS), &said.signature);
        let is_theirs = said.device == device && said.key == key;
        if is_theirs & signed & equal(&mac, &said.mac) { Ok(transcript.then(proof)) } else { Err(Refusal::Unauthentic) }
    }
}

/// An exchange whose device has proved who it is. Spent by the one delivery that it is good for.
pub struct Authenticated {
    session: [u8; 16],
    purpose: Purpose,
    device: DeviceId,
    schedule: Schedule,
    transcript: Transcript,
}

impl fmt::Debug for Authenticated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Authenticated({}, {:?})", self.device, self.purpose)
    }
}

impl Authenticated {
    /// The session identifier.
    #[must_use]
    pub const fn session(&self) -> [u8; 16] {
        self.session
    }

    /// Who it is.
    #[must_use]
    pub const fn device(&self) -> DeviceId {
        self.device
    }

    /// What it wants.
    #[must_use]
    pub const fn purpose(&self) -> Purpose {
        self.purpose
    }

    /// Delivers a device key.
    ///
    /// # Errors
    /// [`Refusal::Purpose`] when the device asked for a session.
    pub fn deliver(self, place: KeyPlace, key: &SecretArray<32>) -> Result<Message, Refusal> {
        if self.purpose != Purpose::Delivery {
            return Err(Refusal::Purpose);
        }
        seal(&self.schedule, self.transcript, self.session, place, Some(key))
    }

    /// Opens a session under the device key that the device holds at `place`. Nothing that is sent or stored suffices to
    /// compute the session's key again.
    ///
    /// # Errors
    /// [`Refusal::Purpose`] when the device asked for a delivery.
    pub fn open_session(self, place: KeyPlace, device_key: &DeviceKey) -> Result<(SessionKey, Message), Refusal> {
        if self.purpose != Purpose::Session {
            return Err(Refusal::Purpose);
        }
        let session = mixed_session(&self.schedule, self.transcript, device_key)?;
        let message = seal(&self.schedule, self.transcript, self.session, place, None)?;
        Ok((session, message))
    }
}

//! The device's side.

use core::fmt;

use aes_gcm::aead::AeadInOut;
use aes_gcm::{Aes128Gcm, KeyInit};
use kf_derive::{DeviceKey, SessionKey, SoftwareKey};
use kf_key::{DeviceId, SecretArray};
use minicbor::Decoder;
use zeroize::Zeroize;

use crate::acknowledgement::{AwaitDone, acknowledge, acknowledge_session};
use crate::codec::{Message, Out, Written, array, decode, items};
use crate::identity::{IdentityKey, KeyAgreement, PublicKey};
use crate::message::{Challenge, DeliveryMessage, Hello, MAX_SEALED_OCTETS, Part, Proof, Purpose};
use crate::place::KeyPlace;
use crate::refusal::{ExchangeError, Refusal, Refused};
use crate::transcript::{Label, Schedule, Transcript, equal};

/// An exchange of which the device has sent the hello.
pub struct AwaitChallenge<A> {
    ephemeral: A,
    purpose: Purpose,
    transcript: Transcript,
}

impl<A> fmt::Debug for AwaitChallenge<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AwaitChallenge({:?})", self.purpose)
    }
}

impl<A: KeyAgreement> AwaitChallenge<A> {
    /// Opens an exchange. `ephemeral` and `nonce` are fresh and used for nothing else.
    ///
    /// # Errors
    /// None today; the encoder's.
    pub fn start(purpose: Purpose, ephemeral: A, nonce: [u8; 16]) -> Result<(Self, Message), Refusal> {
        Self::start_by(purpose, ephemeral, nonce, None)
    }

    /// As [`AwaitChallenge::start`], naming the newest delivery key that the device holds. The server answers by that key as
    /// long as it has it, and the proof that follows shows that the device knows it: name no key before it is stored durably.
    ///
    /// # Errors
    /// None today; the encoder's.
    pub fn start_by(
        purpose: Purpose,
        ephemeral: A,
        nonce: [u8; 16],
        knows: Option<&PublicKey>,
    ) -> Result<(Self, Message), Refusal> {
        let knows = knows.and_then(|key| key.spki_sha256().first_chunk().copied());
        let hello = Hello::new(purpose, nonce, ephemeral.public_key().to_sec1(), knows).encode()?;
        let transcript = Transcript::begin().then(hello.as_bytes());
        Ok((Self { ephemeral, purpose, transcript }, hello))
    }

    /// Checks the server's challenge against the pinned delivery keys (at most four are looked at) and proves to it who
    /// the device is.
    ///
    /// # Errors
    /// [`Refused`], with the state as it was: [`Refusal::UnpinnedServer`], [`Refusal::Unauthentic`], those of reading;
    /// [`ExchangeError::Holder`] of the identity key.
    pub fn prove<K: IdentityKey>(
        self,
        challenge: &[u8],
        pins: &[PublicKey],
        device: DeviceId,
        identity: &K,
    ) -> Result<(AwaitDelivery, Message), Refused<Self, K::Error>> {
        match self.proved(challenge, pins, device, identity) {
            Ok(next) => Ok(next),
            Err(error) => Err(Refused { state: self, error }),
        }
    }

    fn proved<K: IdentityKey>(
        &self,
        challenge: &[u8],
        pins: &[PublicKey],
        device: DeviceId,
        identity: &K,
    ) -> Result<(AwaitDelivery, Message), ExchangeError<K::Error>> {
        let (schedule, said) = self.check(challenge, pins)?;
        let session = said.session;
        let mut proof =
            Proof { session, device, key: identity.public_key().spki_sha256(), signature: [0; 64], mac: [0; 32] };
        let transcript = self.transcript.then(challenge).then(proof.signed()?.as_bytes());
        let to_be_signed = transcript.to_be_signed(Label::DEVICE_SIGNS);
        proof.signature = identity.sign(&to_be_signed).map_err(ExchangeError::Holder)?;
        let identity: [&[u8]; 3] = [device.as_bytes(), &proof.key, &proof.signature];
        proof.mac = schedule.mac(Label::DEVICE_MAC, transcript, &identity);
        let message = proof.encode()?;
        let transcript = transcript.then(message.as_bytes());
        Ok((AwaitDelivery { session, device, purpose: self.purpose, schedule, transcript }, message))
    }

    /// The server's signature and MAC hold.
    fn check(&self, challenge: &[u8], pins: &[PublicKey]) -> Result<(Schedule, Challenge), Refusal> {
        let said = Challenge::decode(challenge)?;
        let theirs = PublicKey::from_sec1(&said.ephemeral)?;
        let pinned = |pin: &&PublicKey| pin.spki_sha256().starts_with(&said.server);
        let server = pins.iter().take(MAX_PINS).find(pinned).ok_or(Refusal::UnpinnedServer)?;
        let shared = self.ephemeral.agree(&theirs).map_err(|_holder| Refusal::Agreement)?;
        let transcript = self.transcript.then(said.signed()?.as_bytes());
        let schedule = Schedule::new(transcript, &shared);
        let mac = schedule.mac(Label::SERVER_MAC, transcript, &[&server.spki_sha256(), &said.signature]);
        let signed = server.verifies(&transcript.to_be_signed(Label::SERVER_SIGNS), &said.signature);
        if signed && equal(&mac, &said.mac) { Ok((schedule, said)) } else { Err(Refusal::Unauthentic) }
    }
}

/// Pins that are looked at: the key in use, its successor, and room for one of each more.
const MAX_PINS: usize = 4;

/// An exchange of which the device has sent its proof.
pub struct AwaitDelivery {
    session: [u8; 16],
    device: DeviceId,
    purpose: Purpose,
    schedule: Schedule,
    transcript: Transcript,
}

impl fmt::Debug for AwaitDelivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AwaitDelivery({:?})", self.purpose)
    }
}

/// What was sealed. The key is absent in a session, for which the device holds it already.
struct Sealed {
    place: KeyPlace,
    key: Option<[u8; 32]>,
}

impl Drop for Sealed {
    fn drop(&mut self) {
        self.key.zeroize();
    }
}

fn write_sealed(sealed: &Sealed, out: &mut Out<'_>) -> Written {
    out.array(if sealed.key.is_some() { 4 } else { 3 })?;
    sealed.place.write(out)?;
    match &sealed.key {
        Some(key) => out.bytes(key)?.ok(),
        None => Ok(()),
    }
}

fn read_sealed(input: &mut Decoder<'_>) -> Result<Sealed, Refusal> {
    let items = items(input)?;
    let malformed = |_reason: minicbor::decode::Error| Refusal::Malformed;
    let place = KeyPlace::read(input).map_err(malformed)?;
    match items {
        3 => Ok(Sealed { place, key: None }),
        4 => Ok(Sealed { place, key: Some(array(input).map_err(malformed)?) }),
        _ => Err(Refusal::Malformed),
    }
}

/// A key for one message: derived from a transcript that no other message has, so its nonce is constant.
fn delivery_cipher(schedule: &Schedule, transcript: Transcript) -> Option<Aes128Gcm> {
    let key = schedule.expand(Label::DELIVERY, transcript).into_secret();
    // Exposed to the cipher.
    key.expose().first_chunk::<16>().map(|key| Aes128Gcm::new(key.into()))
}

/// Seals what the server delivers.
pub(crate) fn seal(
    schedule: &Schedule,
    transcript: Transcript,
    session: [u8; 16],
    place: KeyPlace,
    key: Option<&SecretArray<32>>,
) -> Result<Message, Refusal> {
    // Exposed to the ciphertext for the device.
    let sealed = Sealed { place, key: key.map(|key| *key.expose()) };
    let plain = Message::encode(|out| write_sealed(&sealed, out))?;
    let mut octets = [0; MAX_SEALED_OCTETS];
    let text = octets.get_mut(..plain.as_bytes().len()).ok_or(Refusal::TooLong)?;
    text.copy_from_slice(plain.as_bytes());
    drop(plain);
    let cipher = delivery_cipher(schedule, transcript).ok_or(Refusal::Malformed)?;
    let tag = cipher.encrypt_inout_detached(&NONCE.into(), transcript.as_bytes(), (&mut *text).into());
    let tag = match tag {
        Ok(tag) => tag,
        Err(_opaque) => {
            octets.zeroize();
            return Err(Refusal::TooLong);
        }
    };
    DeliveryMessage::new(session, text, &tag).encode()
}

const NONCE: [u8; 12] = [0; 12];

impl AwaitDelivery {
    /// Opens a delivery. `held` is where the device's key lies now, absent before the first one.
    ///
    /// # Errors
    /// [`Refused`], with the state as it was: [`Refusal::Unauthentic`], [`Refusal::OlderKey`], [`Refusal::Purpose`] in an
    /// exchange for a session, those of reading.
    pub fn open(self, message: &[u8], held: Option<&KeyPlace>) -> Result<Delivered, Refused<Self>> {
        match self.opened(Purpose::Delivery, message) {
            Ok(sealed) if held.is_some_and(|held| !held.may_become(&sealed.place)) => {
                Err(Refused { state: self, error: Refusal::OlderKey.into() })
            }
            Ok(mut sealed) => {
                let Some(key) = &mut sealed.key else {
                    return Err(Refused { state: self, error: Refusal::Unauthentic.into() });
                };
                let secret = SecretArray::fill(|secret| secret.copy_from_slice(key));
                key.zeroize();
                Ok(Delivered { session: self.session, device: self.device, place: sealed.place, key: secret })
            }
            Err(refusal) => Err(Refused { state: self, error: refusal.into() }),
        }
    }

    /// Opens the server's half of a session under `device_key`, which lies at `held`. The session's key cannot be
    /// recomputed from the root or from the device key: the ephemeral secrets of both sides are part of it and are gone.
    ///
    /// # Errors
    /// As [`AwaitDelivery::open`]; [`Refusal::OlderKey`] when the server means another key than the one held.
    pub fn open_session(
        self,
        message: &[u8],
        held: &KeyPlace,
        device_key: &DeviceKey,
    ) -> Result<(SessionKey, AwaitDone, Message), Refused<Self>> {
        let made = self.opened(Purpose::Session, message).and_then(|sealed| {
            if sealed.place != *held {
                return Err(Refusal::OlderKey);
            }
            let session = mixed_session(&self.schedule, self.transcript, device_key)?;
            let (done, message) = acknowledge_session(self.session, self.device, sealed.place, &session)?;
            Ok((session, done, message))
        });
        made.map_err(|refusal| Refused { state: self, error: refusal.into() })
    }

    fn opened(&self, purpose: Purpose, message: &[u8]) -> Result<Sealed, Refusal> {
        let said = DeliveryMessage::decode(message)?;
        if said.session != self.session {
            return Err(Refusal::OtherSession);
        }
        if purpose != self.purpose {
            return Err(Refusal::Purpose);
        }
        let mut octets = [0; MAX_SEALED_OCTETS + 16];
        let sealed = self.plain(&said, &mut octets);
        octets.zeroize();
        sealed.filter(|sealed| sealed.key.is_some() == (purpose == Purpose::Delivery)).ok_or(Refusal::Unauthentic)
    }

    fn plain(&self, said: &DeliveryMessage, octets: &mut [u8; MAX_SEALED_OCTETS + 16]) -> Option<Sealed> {
        let (text, tag) = said.sealed().split_last_chunk::<16>()?;
        let plain = octets.get_mut(..text.len())?;
        plain.copy_from_slice(text);
        let cipher = delivery_cipher(&self.schedule, self.transcript)?;
        cipher
            .decrypt_inout_detached(&NONCE.into(), self.transcript.as_bytes(), (&mut *plain).into(), tag.into())
            .ok()?;
        decode(plain, read_sealed, write_sealed).ok()
    }
}

/// The key of a session that both ephemeral secrets and the device key are part of.
pub(crate) fn mixed_session(
    schedule: &Schedule,
    transcript: Transcript,
    device_key: &DeviceKey,
) -> Result<SessionKey, Refusal> {
    let mix = schedule.expand(Label::MIX, transcript).into_secret();
    device_key.mixed_session(mix, transcript.as_bytes(), 0).map_err(|_unlikely| Refusal::Unauthentic)
}

/// A device key that arrived. Store it, read it back, then acknowledge; until then the server expects the old one too.
pub struct Delivered {
    session: [u8; 16],
    device: DeviceId,
    place: KeyPlace,
    key: SecretArray<32>,
}

impl fmt::Debug for Delivered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Delivered({:?})", self.place)
    }
}

impl Delivered {
    /// Where the key lies: to be stored with it.
    #[must_use]
    pub const fn place(&self) -> KeyPlace {
        self.place
    }

    /// The key: to be stored. It comes out of [`Delivered::acknowledge`] ready for use.
    #[must_use]
    pub const fn key(&self) -> &SecretArray<32> {
        &self.key
    }

    /// Says to the server that the key is stored. Only then may the server retire the old epoch, so call it when the key
    /// would survive the loss of power at this moment. If the answer does not come, send the same message again; after a
    /// restart, run another exchange, which delivers the same key.
    ///
    /// # Errors
    /// None today; the encoder's.
    pub fn acknowledge(self) -> Result<(DeviceKey, AwaitDone, Message), Refusal> {
        let key = DeviceKey::from_keyed_hmac(SoftwareKey::new(self.key));
        let (done, message) = acknowledge(self.session, self.device, self.place, &key)?;
        Ok((key, done, message))
    }
}

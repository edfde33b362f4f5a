//! The server's half of key exchanges: device keys leave this process encrypted to the device that proved who it is, and
//! in no other way.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use kf_derive::DeviceKey;
use kf_exchange::{
    Acknowledgement, Authenticated, AwaitProof, ClaimedIdentity, Ephemeral, ExchangeError, IdentityKey, KeyPlace,
    PublicKey, Refusal, signature_from_der,
};
use kf_key::{KeyId, SecretArray};

use super::keys::LoadedKey;
use super::{Engine, malformed};
use crate::derivation::DeviceKeyPlace;
use crate::protocol::{Fields, bug};
use crate::{KeyPurpose, SignerError, SignerRefusal};

/// How long a device may take to answer a challenge.
const LIFETIME: Duration = Duration::from_secs(60);
/// Challenges that wait for an answer; the oldest one gives way. Anybody can cause one, at the ceiling of the delivery key.
const MAX_SESSIONS: usize = 4_096;
/// Wrong answers to one challenge. The honest one may still come after a few forged ones.
const MAX_FAILURES: u8 = 8;

/// Challenges that wait for an answer.
#[derive(Default)]
pub(super) struct Sessions(Mutex<BTreeMap<[u8; 16], Session>>);

struct Session {
    waiting: AwaitProof,
    since: Instant,
    failures: u8,
}

impl Sessions {
    fn add(&self, waiting: AwaitProof, now: Instant) {
        let mut sessions = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if sessions.len() >= MAX_SESSIONS {
            sessions.retain(|_, session| now.duration_since(session.since) < LIFETIME);
        }
        if sessions.len() >= MAX_SESSIONS {
            let oldest = sessions.iter().min_by_key(|(_, session)| session.since).map(|(id, _)| *id);
            oldest.and_then(|id| sessions.remove(&id));
        }
        sessions.insert(waiting.session(), Session { waiting, since: now, failures: 0 });
    }

    /// Out of the map while it is being checked, so that no challenge is answered twice.
    fn take(&self, id: &[u8; 16], now: Instant) -> Option<Session> {
        let mut sessions = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        sessions.remove(id).filter(|session| now.duration_since(session.since) < LIFETIME)
    }

    fn put_back(&self, waiting: AwaitProof, since: Instant, failures: u8) {
        if failures < MAX_FAILURES {
            let mut sessions = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            sessions.insert(waiting.session(), Session { waiting, since, failures });
        }
    }
}

/// A loaded key as the exchange wants one.
pub(super) struct Held<'a> {
    id: KeyId,
    loaded: &'a LoadedKey,
    public: PublicKey,
}

impl<'a> Held<'a> {
    pub(super) fn new(id: KeyId, loaded: &'a LoadedKey) -> Result<Self, SignerError> {
        let public =
            PublicKey::from_spki(loaded.spki()).map_err(|_other_curve| bug("a key of devices is not P-256"))?;
        Ok(Self { id, loaded, public })
    }
}

impl IdentityKey for Held<'_> {
    type Error = SignerError;

    fn public_key(&self) -> PublicKey {
        self.public
    }

    fn sign(&self, message: &[u8]) -> Result<[u8; 64], SignerError> {
        let der = self.loaded.sign(self.id, message, Instant::now())?;
        signature_from_der(&der).map_err(|_unlikely| bug("signature encoding"))
    }
}

pub(super) fn refused(refusal: Refusal) -> SignerError {
    SignerError::Refused(SignerRefusal::Exchange(refusal.to_string()))
}

/// A device that has proved who it is, and its key.
pub(super) struct Proved {
    pub(super) place: DeviceKeyPlace,
    pub(super) key: DeviceKey,
    pub(super) authenticated: Authenticated,
}

/// What the exchange says, or the key.
pub(super) fn refused_or_held(error: ExchangeError<SignerError>) -> SignerError {
    match error {
        ExchangeError::Refused(refusal) => refused(refusal),
        ExchangeError::Holder(error) => error,
    }
}

impl DeviceKeyPlace {
    pub(super) const fn without_device(self) -> KeyPlace {
        let Self { facility, facility_epoch, device_epoch, .. } = self;
        KeyPlace { facility, facility_epoch, device_epoch }
    }
}

impl Engine {
    /// Answers a hello.
    pub(super) fn challenge(&self, mut fields: Fields<'_>) -> Result<Vec<u8>, SignerError> {
        let key = fields.key().ok_or_else(malformed)?;
        let loaded = self.loaded(key)?;
        loaded.require(&[KeyPurpose::Delivery])?;
        let held = Held::new(key, &loaded)?;
        let session = kf_crypto::random_array().map_err(|_source| bug("random source"))?;
        let (waiting, message) =
            AwaitProof::challenge(fields.rest(), &held, session, ephemeral()?).map_err(refused_or_held)?;
        self.sessions.add(waiting, Instant::now());
        Ok(message.as_bytes().to_vec())
    }

    /// Checks a proof and seals the device's key for it.
    pub(super) fn deliver(&self, fields: Fields<'_>) -> Result<Vec<u8>, SignerError> {
        let Proved { place, key, authenticated } = self.proved(fields)?;
        let message = authenticated.deliver(place.without_device(), &key.into_secret()).map_err(refused)?;
        Ok(message.as_bytes().to_vec())
    }

    /// Checks a proof; its challenge is then spent.
    pub(super) fn proved(&self, mut fields: Fields<'_>) -> Result<Proved, SignerError> {
        let place = DeviceKeyPlace::read(&mut fields).ok_or_else(malformed)?;
        let spki = fields.prefixed().ok_or_else(malformed)?;
        let wrapped_salt = fields.prefixed().ok_or_else(malformed)?;
        let proof = fields.rest();
        let claimed = ClaimedIdentity::read(proof).map_err(refused)?;
        let identity = PublicKey::from_spki(spki).map_err(refused)?;
        // Before the session is spent: what can fail for want of a token must not cost it.
        let key = self.device_key(place, wrapped_salt)?;
        let session = self
            .sessions
            .take(&claimed.session, Instant::now())
            .ok_or_else(|| SignerError::Refused(SignerRefusal::Exchange("no such session is open".to_owned())))?;
        let Session { waiting, since, failures } = session;
        match waiting.verify(proof, place.device, &identity) {
            Ok(authenticated) => Ok(Proved { place, key, authenticated }),
            Err(not_theirs) => {
                self.sessions.put_back(not_theirs.state, since, failures + 1);
                Err(refused(Refusal::Unauthentic))
            }
        }
    }

    /// Checks an acknowledgement; returns the answer to it.
    pub(super) fn acknowledge(&self, mut fields: Fields<'_>) -> Result<Vec<u8>, SignerError> {
        let place = DeviceKeyPlace::read(&mut fields).ok_or_else(malformed)?;
        let wrapped_salt = fields.prefixed().ok_or_else(malformed)?;
        let said = Acknowledgement::read(fields.rest()).map_err(refused)?;
        if said.device() != place.device || said.place() != place.without_device() {
            return Err(refused(Refusal::Unauthentic));
        }
        let message = said.verify(&self.device_key(place, wrapped_salt)?).map_err(refused)?;
        Ok(message.as_bytes().to_vec())
    }
}

fn ephemeral() -> Result<Ephemeral, SignerError> {
    // One draw in 2^32 is no scalar; three in a row are a broken source.
    for _ in 0..3 {
        let random = SecretArray::try_fill(|octets: &mut [u8; 32]| {
            *octets = kf_crypto::random_array().map_err(|_source| bug("random source"))?;
            Ok::<(), SignerError>(())
        })?;
        if let Ok(ephemeral) = Ephemeral::from_random(random) {
            return Ok(ephemeral);
        }
    }
    Err(bug("random source"))
}

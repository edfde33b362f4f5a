//! Sessions into which both sides mixed fresh ephemeral keys. Their keys are in the memory of this process and nowhere
//! else: what ends here cannot be opened by anybody again, with the root or without.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use kf_derive::SessionKey;
use kf_exchange::{Acknowledgement, Refusal};
use kf_key::{DeviceId, SecretBytes};

use super::exchange::{Proved, refused};
use super::{Engine, malformed};
use crate::derivation::{DeviceKeyPlace, SESSION_LIFETIME, is_service};
use crate::protocol::{Fields, bug};
use crate::{SignerError, SignerRefusal};

/// How long a session waits for its acknowledgement.
const WAIT: Duration = Duration::from_secs(60);
/// The most sessions; the oldest one gives way. A device has one that it acknowledged, and one that waits.
const MAX_SESSIONS: usize = 16_384;

/// Sessions by their identifier.
#[derive(Default)]
pub(super) struct MixedSessions(Mutex<BTreeMap<[u8; 16], Mixed>>);

struct Mixed {
    key: SessionKey,
    place: DeviceKeyPlace,
    since: Instant,
    is_acknowledged: bool,
}

impl Mixed {
    fn is_over(&self, now: Instant) -> bool {
        let lifetime = if self.is_acknowledged { SESSION_LIFETIME } else { WAIT };
        now.duration_since(self.since) >= lifetime
    }
}

impl MixedSessions {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<[u8; 16], Mixed>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, id: [u8; 16], key: SessionKey, place: DeviceKeyPlace, now: Instant) {
        let mut sessions = self.lock();
        // Another one of the same device that waits is given up: an unanswered exchange was begun again.
        sessions
            .retain(|_, known| !known.is_over(now) && (known.is_acknowledged || known.place.device != place.device));
        if sessions.len() >= MAX_SESSIONS {
            let oldest = sessions.iter().min_by_key(|(_, known)| known.since).map(|(id, _)| *id);
            oldest.and_then(|id| sessions.remove(&id));
        }
        sessions.insert(id, Mixed { key, place, since: now, is_acknowledged: false });
    }

    /// The answer to an acknowledgement, which ends the session that the device had before.
    fn acknowledge(
        &self,
        id: &[u8; 16],
        place: DeviceKeyPlace,
        said: &Acknowledgement,
        now: Instant,
    ) -> Result<Vec<u8>, SignerError> {
        let mut sessions = self.lock();
        let known = sessions.get_mut(id).filter(|known| !known.is_over(now)).ok_or_else(unknown)?;
        if known.place != place {
            return Err(refused(Refusal::Unauthentic));
        }
        let answer = said.verify_session(&known.key).map_err(refused)?;
        known.is_acknowledged = true;
        sessions.retain(|other, known| other == id || known.place.device != place.device);
        Ok(answer.as_bytes().to_vec())
    }

    fn application(
        &self,
        id: &[u8; 16],
        device: DeviceId,
        service: &[u8],
        now: Instant,
    ) -> Result<SecretBytes, SignerError> {
        let sessions = self.lock();
        let known = sessions.get(id).filter(|known| known.is_acknowledged && !known.is_over(now));
        let known = known.filter(|known| known.place.device == device).ok_or_else(unknown)?;
        let key = known.key.application(service, 0).map_err(|_too_long| bug("application context"))?.into_secret();
        // Exposed to the answer, which the serving loop wipes.
        Ok(SecretBytes::from_vec(key.expose().to_vec()))
    }
}

fn unknown() -> SignerError {
    SignerError::Refused(SignerRefusal::Exchange("no such mixed session is open".to_owned()))
}

impl Engine {
    /// Checks a proof and opens a session under the device's key.
    pub(super) fn open_session(&self, fields: Fields<'_>) -> Result<Vec<u8>, SignerError> {
        let Proved { place, key, authenticated } = self.proved(fields)?;
        let id = authenticated.session();
        let (session, message) = authenticated.open_session(place.without_device(), &key).map_err(refused)?;
        self.mixed.add(id, session, place, Instant::now());
        Ok(message.as_bytes().to_vec())
    }

    /// Checks the acknowledgement of a session; returns the answer to it.
    pub(super) fn acknowledge_session(&self, mut fields: Fields<'_>) -> Result<Vec<u8>, SignerError> {
        let place = DeviceKeyPlace::read(&mut fields).ok_or_else(malformed)?;
        let said = Acknowledgement::read(fields.rest()).map_err(refused)?;
        if said.device() != place.device || said.place() != place.without_device() {
            return Err(refused(Refusal::Unauthentic));
        }
        self.mixed.acknowledge(&said.session(), place, &said, Instant::now())
    }

    /// The application key of a service in a session.
    pub(super) fn derive_session(&self, mut fields: Fields<'_>) -> Result<SecretBytes, SignerError> {
        let id = fields.array().ok_or_else(malformed)?;
        let device = fields.array().map(DeviceId::from_bytes).ok_or_else(malformed)?;
        let service = fields.rest();
        if !is_service(service) {
            return Err(SignerError::Refused(SignerRefusal::Content("not a label of a service".to_owned())));
        }
        self.mixed.application(&id, device, service, Instant::now())
    }

    /// Forgets a session.
    pub(super) fn end_session(&self, mut fields: Fields<'_>) -> Result<Vec<u8>, SignerError> {
        let id: [u8; 16] = fields.array().ok_or_else(malformed)?;
        fields.end().ok_or_else(malformed)?;
        self.mixed.lock().remove(&id);
        Ok(Vec::new())
    }
}

#[cfg(test)]
mod tests {
    use kf_derive::SoftwareKey;
    use kf_key::{FacilityId, SecretArray};

    use super::*;

    fn place(device: u64) -> DeviceKeyPlace {
        let mut octets = [0; 16];
        octets[8..].copy_from_slice(&device.to_be_bytes());
        let facility = FacilityId::from_bytes([1; 16]);
        DeviceKeyPlace { facility, facility_epoch: 1, device: DeviceId::from_bytes(octets), device_epoch: 1 }
    }

    fn key() -> SessionKey {
        SessionKey::from_keyed_hmac(SoftwareKey::new(SecretArray::fill(|key| key.fill(7))))
    }

    fn id(number: u64) -> [u8; 16] {
        *place(number).device.as_bytes()
    }

    fn acknowledged(sessions: &MixedSessions, number: u64) {
        sessions.lock().get_mut(&id(number)).unwrap().is_acknowledged = true;
    }

    fn is_open(sessions: &MixedSessions, number: u64, now: Instant) -> bool {
        sessions.application(&id(number), place(number).device, b"telemetry", now).is_ok()
    }

    #[test]
    fn a_session_lives_for_its_time_once_it_is_acknowledged_and_for_a_minute_before() {
        let (sessions, now) = (MixedSessions::default(), Instant::now());
        sessions.add(id(1), key(), place(1), now);
        assert!(!is_open(&sessions, 1, now));
        acknowledged(&sessions, 1);
        assert!(is_open(&sessions, 1, now + SESSION_LIFETIME - Duration::from_secs(1)));
        assert!(!is_open(&sessions, 1, now + SESSION_LIFETIME));
        sessions.add(id(2), key(), place(2), now);
        sessions.add(id(3), key(), place(3), now + WAIT);
        assert_eq!(
            sessions.lock().keys().copied().collect::<Vec<_>>(),
            [id(1), id(3)],
            "the second one waited too long"
        );
    }

    #[test]
    fn the_number_of_sessions_is_bounded_and_the_oldest_gives_way() {
        let (sessions, now) = (MixedSessions::default(), Instant::now());
        let most = u64::try_from(MAX_SESSIONS).unwrap();
        {
            // Filled by hand: each call looks at all of them.
            let mut filled = sessions.lock();
            for number in 0..most {
                let since = now + Duration::from_nanos(number);
                filled.insert(id(number), Mixed { key: key(), place: place(number), since, is_acknowledged: true });
            }
        }
        sessions.add(id(most), key(), place(most), now + Duration::from_secs(1));
        assert_eq!(sessions.lock().len(), MAX_SESSIONS);
        assert!(!is_open(&sessions, 0, now) && is_open(&sessions, 1, now));
    }
}

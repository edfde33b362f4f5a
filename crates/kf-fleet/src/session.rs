//! Mixed sessions: agreed by an exchange of the purpose *session*, under keys that both sides mixed fresh ephemeral keys
//! into. The keys are in the signer's memory; here is whose they are, until when, and what was seen under them. Nothing
//! of a session is on a disk but the fact that it was: its replay window may live in memory because its key does, and
//! whatever ends the one ends the other.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Mutex, MutexGuard, PoisonError};

use kf_access::Visibility;
use kf_api::operator::Credential;
use kf_api::sealed::OpenRefusal;
use kf_derive::Sender;
use kf_exchange::{Acknowledgement, ClaimedIdentity, Kind, Refusal};
use kf_key::{DeviceId, DeviceState, FacilityId, UnixMillis};
use kf_seal::{Accepted, KeyId, Mark, Replay, ReplayError, Service};
use kf_signer::{DeviceProof, SESSION_LIFETIME};
use kf_store::device_key::KeyPlace;
use kf_store::sealed::{BOOTS_REMEMBERED, SealedRefusal};

use crate::claim::with_place;
use crate::enrolment::device_principal;
use crate::entry::Entry;
use crate::exchange::{Claimant, place_of, refused, signer_error, unreadable};
use crate::{Fleet, FleetError};

/// The most sessions; the oldest one gives way, as in the signer.
const MAX_SESSIONS: usize = 16_384;
/// The most services with a replay window in one session.
const MAX_SERVICES: usize = 8;
/// Milliseconds that a session waits for its acknowledgement.
const WAIT: u64 = 60 * UnixMillis::SECOND;

type Window = Replay<BOOTS_REMEMBERED>;
type SessionId = [u8; 16];

/// How many sessions are looked at in one turn for whether their device key still stands: all of most fleets, and no more than some
/// milliseconds of a large one.
const LOOKED_AT: usize = 256;

/// Sessions by their identifier.
#[derive(Default)]
pub(crate) struct Sessions {
    open: Mutex<BTreeMap<SessionId, Session>>,
    /// The last one that was looked at.
    looked_at: Mutex<SessionId>,
}

#[derive(Clone)]
struct Session {
    device: DeviceId,
    place: KeyPlace,
    facility: FacilityId,
    since: UnixMillis,
    is_acknowledged: bool,
    windows: BTreeMap<Service, Window>,
    uses: u64,
}

/// A session that is over.
pub(crate) struct Ended {
    id: SessionId,
    device: DeviceId,
    facility: FacilityId,
    uses: u64,
    was_open: bool,
}

impl Session {
    fn is_over(&self, now: UnixMillis) -> bool {
        let lifetime = u64::try_from(SESSION_LIFETIME.as_millis()).unwrap_or(u64::MAX);
        now.since(self.since) >= if self.is_acknowledged { lifetime } else { WAIT }
    }
}

impl Sessions {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<SessionId, Session>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next ones in turn, with the keys that they lie under.
    fn some(&self) -> Vec<(SessionId, DeviceId, KeyPlace)> {
        let mut looked_at = self.looked_at.lock().unwrap_or_else(PoisonError::into_inner);
        let sessions = self.lock();
        let behind = (Bound::Excluded(*looked_at), Bound::Unbounded);
        let next = sessions.range(behind).chain(sessions.range(..=*looked_at)).take(LOOKED_AT);
        let next: Vec<_> = next.map(|(id, session)| (*id, session.device, session.place)).collect();
        if let Some((id, ..)) = next.last() {
            *looked_at = *id;
        }
        next
    }

    /// Takes out what is over at `now`, or `fits`.
    fn take(&self, now: UnixMillis, fits: impl Fn(&SessionId, &Session) -> bool) -> Vec<Ended> {
        let mut ended = Vec::new();
        self.lock().retain(|id, session| {
            let stays = !session.is_over(now) && !fits(id, session);
            if !stays {
                let Session { device, facility, uses, is_acknowledged, .. } = *session;
                ended.push(Ended { id: *id, device, facility, uses, was_open: is_acknowledged });
            }
            stays
        });
        ended
    }

    fn oldest_if_full(&self) -> Option<SessionId> {
        let sessions = self.lock();
        if sessions.len() < MAX_SESSIONS {
            return None;
        }
        sessions.iter().min_by_key(|(_, session)| session.since).map(|(id, _)| *id)
    }

    fn find(&self, id: &SessionId, now: UnixMillis) -> Option<Session> {
        self.lock().get(id).filter(|session| !session.is_over(now)).cloned()
    }

    /// Whether payloads of this key may be opened.
    pub(crate) fn is_open(&self, key_id: &KeyId, now: UnixMillis) -> bool {
        let Some(id) = &key_id.session else { return false };
        self.find(id, now).is_some_and(|session| {
            let KeyPlace { facility_epoch, device_epoch, .. } = session.place;
            session.is_acknowledged
                && session.device == key_id.device
                && (facility_epoch, device_epoch) == (key_id.facility_epoch, key_id.device_epoch)
        })
    }

    /// Takes note of a message that opened.
    pub(crate) fn accept(&self, key_id: &KeyId, mark: &Mark) -> Result<Accepted, SealedRefusal> {
        let mut sessions = self.lock();
        let session = key_id.session.as_ref().and_then(|id| sessions.get_mut(id)).ok_or(SealedRefusal::Unknown)?;
        let is_new = !session.windows.contains_key(&key_id.service);
        if is_new && session.windows.len() >= MAX_SERVICES {
            return Err(SealedRefusal::Replay(ReplayError::TooOld));
        }
        let window = session.windows.entry(key_id.service).or_insert_with(Window::new);
        let accepted = window.accept(mark).map_err(SealedRefusal::Replay)?;
        session.uses = session.uses.saturating_add(1);
        Ok(accepted)
    }

    fn count(&self) -> usize {
        self.lock().values().filter(|session| session.is_acknowledged).count()
    }
}

/// What an opener is told of a session that is not there.
pub(crate) const NO_SESSION: (OpenRefusal, &str) =
    (OpenRefusal::UnknownSession, "the session is over, or was never agreed here; its key is gone");

fn key_id(device: DeviceId, place: KeyPlace) -> Result<KeyId, FleetError> {
    let service = Service::new("session").map_err(|_label| FleetError::Bug("a label of ours"))?;
    let KeyPlace { facility_epoch, device_epoch, .. } = place;
    Ok(KeyId { device, facility_epoch, device_epoch, session: None, sender: Sender::Device, service })
}

impl Fleet {
    /// Answers one message of an exchange for a mixed session. Anybody may send one: it authenticates itself, or is refused.
    ///
    /// # Errors
    /// As [`Fleet::device_exchange`].
    pub async fn device_session(&self, message: &[u8]) -> Result<Vec<u8>, FleetError> {
        match kf_exchange::peek(message).map_err(unreadable)? {
            Kind::Hello => self.answer_hello(message).await,
            Kind::Proof => self.open_session(message).await,
            Kind::Acknowledgement => self.acknowledge_session(message).await,
            _ => Err(unreadable(Refusal::OutOfOrder)),
        }
    }

    /// Proof in, this side of the session out. It is under the key that the device acknowledged last.
    async fn open_session(&self, proof: &[u8]) -> Result<Vec<u8>, FleetError> {
        let claimed = ClaimedIdentity::read(proof).map_err(unreadable)?;
        let Some(Claimant { device, spki }) = self.claimant(claimed.device, &claimed.spki_sha256)? else {
            tracing::info!(device = %claimed.device, "a session was refused: no such device, barred, or another key");
            return Err(refused());
        };
        let Some((place, salt)) = self.store.newest_held_key(device.id)? else {
            tracing::info!(device = %device.id, "a session was refused: the device has acknowledged no key");
            return Err(refused());
        };
        if let Err(reason) = self.store.sealed_key(&key_id(device.id, place)?, &Visibility::Fleet)? {
            tracing::info!(device = %device.id, ?reason, "a session was refused: its device key may not be used");
            return Err(refused());
        }
        let given = DeviceProof { place: place_of(device.id, place), spki: &spki, wrapped_salt: &salt, proof };
        let answer = self.signer.exchange_open_session(given).await.map_err(|error| {
            tracing::info!(device = %device.id, %error, "a session was refused");
            signer_error(error)
        })?;
        self.note_challenge_answered(&device, &claimed.session).await?;
        let now = self.now();
        let full = self.sessions.oldest_if_full();
        let gone = self
            .sessions
            .take(now, |id, known| Some(*id) == full || (!known.is_acknowledged && known.device == device.id));
        let session = Session {
            device: device.id,
            place,
            facility: device.facility,
            since: now,
            is_acknowledged: false,
            windows: BTreeMap::new(),
            uses: 0,
        };
        self.sessions.lock().insert(claimed.session, session);
        self.end_sessions(gone).await?;
        Ok(answer)
    }

    /// Acknowledgement in, done out. It may come again as long as the session lives.
    async fn acknowledge_session(&self, message: &[u8]) -> Result<Vec<u8>, FleetError> {
        let said = Acknowledgement::read(message).map_err(unreadable)?;
        let now = self.now();
        // A session that this process does not know has no replay window: the signer may still have its key.
        let found = self.sessions.find(&said.session(), now).filter(|known| known.device == said.device());
        let device = self.store.device(said.device(), &Visibility::Fleet)?;
        let (Some(found), Some(device)) = (found, device) else {
            tracing::info!(device = %said.device(), "an acknowledgement was refused: no such session");
            return Err(refused());
        };
        if let Err(reason) = self.store.sealed_key(&key_id(device.id, found.place)?, &Visibility::Fleet)? {
            tracing::info!(device = %device.id, ?reason, "an acknowledgement of a session was refused");
            return Err(refused());
        }
        let place = place_of(device.id, found.place);
        let answer = self.signer.acknowledge_session(place, message).await.map_err(|error| {
            tracing::info!(device = %device.id, %error, "an acknowledgement of a session was refused");
            signer_error(error)
        })?;
        if !found.is_acknowledged {
            let who = device_principal(&device, Credential::Certificate);
            let entry = with_place(Entry::done(&who, "session.open", now).about(device.id), &found.place);
            self.store.append_log(entry.with("session", hex::encode(said.session())).build()).await?;
            let replaced = self.sessions.take(now, |id, known| *id != said.session() && known.device == device.id);
            if let Some(session) = self.sessions.lock().get_mut(&said.session()) {
                session.is_acknowledged = true;
            }
            self.end_sessions(replaced).await?;
            self.store.touch_device(device.id, now);
        }
        Ok(answer)
    }

    /// Ends what has lived for its time, and what fell with its device key.
    pub(crate) async fn turn_sessions(&self) -> Result<(), FleetError> {
        let fallen = self.fallen_sessions()?;
        let over = self.sessions.take(self.now(), |id, _| fallen.contains(id));
        metrics::gauge!("keyfleet_mixed_sessions").set(u32::try_from(self.sessions.count()).unwrap_or(u32::MAX));
        self.end_sessions(over).await
    }

    /// Sessions under device keys that will never be used again. Those of a device that is suspended wait: it may be back.
    fn fallen_sessions(&self) -> Result<Vec<SessionId>, FleetError> {
        let mut fallen = Vec::new();
        for (id, device, place) in self.sessions.some() {
            match self.store.sealed_key(&key_id(device, place)?, &Visibility::Fleet)? {
                Ok(_) => {}
                Err(SealedRefusal::Barred(state)) if state != DeviceState::Decommissioned => {}
                Err(_for_good) => fallen.push(id),
            }
        }
        Ok(fallen)
    }

    /// Forgets the keys of sessions that are over, here and in the signer, and logs how often each was used.
    async fn end_sessions(&self, ended: Vec<Ended>) -> Result<(), FleetError> {
        for Ended { id, device, facility, uses, was_open } in ended {
            self.openers.forget(&id);
            if let Err(error) = self.signer.end_session(&id).await {
                // It forgets by itself when the time is over.
                tracing::warn!(%error, "the signer was not told that a session is over");
            }
            if was_open {
                let entry = Entry::done(&Self::server_principal(), "session.end", self.now())
                    .about(device)
                    .at_facility(Some(facility))
                    .with("session", hex::encode(id))
                    .with("opened", uses);
                self.store.append_log(entry.build()).await?;
            }
        }
        Ok(())
    }
}

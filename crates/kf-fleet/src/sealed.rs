//! Sealed payloads: opened by deriving the device's key again, and sealed for devices.
//!
//! A payload is opened in this order: take the envelope apart; find the key that it names within the caller's scope; have
//! the signer derive the application key; open; make the note of the replay window durable, after checking again in the
//! same transaction that the key may still be used; and only then give the plaintext out.

mod command;
mod openers;
mod uses;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use kf_access::{Action, Permit, Principal, Target, Visibility, authorize};
use kf_api::sealed::{MAX_PAYLOADS, OpenAnswer, OpenOutcome, OpenRefusal, OpenRequest, Opened, SealedPayload};
use kf_derive::{ApplicationKey, Sender, SoftwareKey};
use kf_seal::{Accepted, Authentic, KeyId, MAX_ENVELOPE_OCTETS, MAX_EXTERNAL_AAD_OCTETS, OpenError, Opener, Sealed};
use kf_signer::{DeviceKeyPlace, SealingKey, SignerError, SignerRefusal};
use kf_store::sealed::{SealedKey, SealedRefusal};

use crate::session::NO_SESSION;
use crate::{Fleet, FleetError};

pub(crate) use openers::Openers;

/// A payload decoded from base64.
struct Received {
    envelope: Vec<u8>,
    external_aad: Vec<u8>,
    plaintext: Vec<u8>,
}

/// A payload that opened and that the replay window has not seen yet.
struct Attempt<'a> {
    key_id: KeyId,
    key: SealedKey,
    authentic: Authentic<'a>,
}

/// Why a payload is not opened: for the caller, who may be anyone that holds a credential.
struct Refusal {
    refusal: OpenRefusal,
    problem: String,
}

impl Refusal {
    fn new(refusal: OpenRefusal, problem: impl ToString) -> Self {
        Self { refusal, problem: problem.to_string() }
    }
}

impl From<OpenError> for Refusal {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::ExternalAadTooLarge { .. } => {
                let problem = format!("external_aad has more than {MAX_EXTERNAL_AAD_OCTETS} octets");
                Self::new(OpenRefusal::Malformed, problem)
            }
            error => Self::new(OpenRefusal::NotAuthentic, error),
        }
    }
}

impl From<SealedRefusal> for Refusal {
    fn from(refused: SealedRefusal) -> Self {
        match refused {
            SealedRefusal::Unknown => {
                Self::new(OpenRefusal::UnknownKey, "there is no such device here, or it never had this key")
            }
            SealedRefusal::Barred(state) => Self::new(OpenRefusal::Barred, format!("the device is {}", state.name())),
            SealedRefusal::Superseded => {
                Self::new(OpenRefusal::Superseded, "the device has acknowledged a newer key than this one")
            }
            SealedRefusal::EpochRetired => {
                Self::new(OpenRefusal::Superseded, "the key epoch of the facility is retired")
            }
            SealedRefusal::Replay(kf_seal::ReplayError::Replayed) => {
                Self::new(OpenRefusal::Replayed, kf_seal::ReplayError::Replayed)
            }
            SealedRefusal::Replay(too_old) => Self::new(OpenRefusal::TooOld, too_old),
            SealedRefusal::DamagedWindow => Self::new(OpenRefusal::DamagedRecord, kf_seal::CorruptReplay),
        }
    }
}

/// Stack that is written over after payload keys were used on it: more than the ciphers take.
const STACK_OCTETS: usize = 64 * 1024;

/// The ciphers of payloads are in pure Rust and leave round keys in frames that are gone.
fn on_a_wiped_stack<T>(work: impl FnOnce() -> T) -> T {
    kf_key::with_wiped_stack::<STACK_OCTETS, T>(work)
}

impl Fleet {
    /// Opens sealed payloads of devices that the caller may see. Each is judged by itself; what is refused says why.
    ///
    /// # Errors
    /// [`FleetError::Denied`]; [`FleetError::Invalid`] for what is not base64; [`FleetError::Signer`];
    /// [`FleetError::StoreFull`] and [`FleetError::Fenced`], because a payload that cannot be noted is not opened.
    pub async fn open_sealed(&self, who: &Principal, request: OpenRequest) -> Result<OpenAnswer, FleetError> {
        let permit = authorize(who, Action::PayloadOpen, Target::Visible)?;
        if request.payloads.is_empty() || request.payloads.len() > MAX_PAYLOADS {
            let problem = format!("{} at once", request.payloads.len());
            return Err(FleetError::invalid("payloads", problem, format!("send 1 to {MAX_PAYLOADS}")));
        }
        let mut received = Vec::with_capacity(request.payloads.len());
        for payload in &request.payloads {
            received.push(decode(payload)?);
        }
        let mut attempts = Vec::with_capacity(received.len());
        for payload in &mut received {
            attempts.push(self.attempt(who, permit.visibility(), payload).await?);
        }
        let payloads = self.release(&permit, attempts).await?;
        for outcome in &payloads {
            let name = match outcome {
                OpenOutcome::Opened(_) => "opened",
                OpenOutcome::Refused { refusal, .. } => refusal.name(),
            };
            metrics::counter!("keyfleet_sealed_payloads_total", "outcome" => name).increment(1);
        }
        Ok(OpenAnswer { payloads })
    }

    /// Everything up to the replay window.
    async fn attempt<'a>(
        &self,
        who: &Principal,
        visibility: &Visibility,
        payload: &'a mut Received,
    ) -> Result<Result<Attempt<'a>, Refusal>, FleetError> {
        let Received { envelope, external_aad, plaintext } = payload;
        let sealed = match Sealed::parse(envelope) {
            Ok(sealed) => sealed,
            Err(error) => return Ok(Err(Refusal::new(OpenRefusal::Malformed, error))),
        };
        let key_id = *sealed.key_id();
        if key_id.sender != Sender::Device {
            return Ok(Err(Refusal::new(OpenRefusal::Direction, "the payload was sealed by the server, for a device")));
        }
        let key = match self.store.sealed_key(&key_id, visibility)? {
            Ok(key) => key,
            Err(refused) => return Ok(Err(refused.into())),
        };
        authorize(who, Action::PayloadOpen, Target::Facility(key.owner))?;
        if key_id.session.is_some() && !self.sessions.is_open(&key_id, self.now()) {
            return Ok(Err(Refusal::new(NO_SESSION.0, NO_SESSION.1)));
        }
        plaintext.resize(sealed.plaintext_octets(), 0);
        let opened = self.decipher(&key_id, &key, &sealed, external_aad, plaintext).await?;
        Ok(opened.map(|authentic| Attempt { key_id, key, authentic }))
    }

    /// Opens with the key of the envelope's boot, derived or remembered.
    async fn decipher<'a>(
        &self,
        key_id: &KeyId,
        key: &SealedKey,
        sealed: &Sealed<'_>,
        external_aad: &[u8],
        plaintext: &'a mut [u8],
    ) -> Result<Result<Authentic<'a>, Refusal>, FleetError> {
        if !self.openers.has(sealed) {
            let application = match &key_id.session {
                None => self.application_key(key_id, key).await?,
                Some(session) => match self.session_key(session, key_id).await? {
                    Some(application) => application,
                    None => return Ok(Err(Refusal::new(NO_SESSION.0, NO_SESSION.1))),
                },
            };
            match on_a_wiped_stack(|| Opener::new(&application, key_id, sealed).map(Box::new)) {
                Ok(opener) => self.openers.keep(sealed, opener),
                Err(error) => return Ok(Err(error.into())),
            }
        }
        // Another caller's keys may have taken its place in between; then the sender has to wait, not the server.
        let opened = on_a_wiped_stack(|| self.openers.open(sealed, external_aad, plaintext));
        let opened = opened.unwrap_or(Err(OpenError::TooManyFailures));
        Ok(opened.map_err(Refusal::from))
    }

    /// The application key of a mixed session; `None` when the signer has forgotten the session.
    async fn session_key(&self, session: &[u8; 16], key_id: &KeyId) -> Result<Option<ApplicationKey>, FleetError> {
        match self.signer.derive_session(session, key_id.device, key_id.service.as_str()).await {
            Ok(secret) => Ok(Some(ApplicationKey::from_keyed_hmac(SoftwareKey::new(secret)))),
            Err(SignerError::Refused(SignerRefusal::Exchange(_))) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    async fn application_key(&self, key_id: &KeyId, key: &SealedKey) -> Result<ApplicationKey, FleetError> {
        let place = DeviceKeyPlace {
            facility: key.facility,
            facility_epoch: key_id.facility_epoch,
            device: key_id.device,
            device_epoch: key_id.device_epoch,
        };
        let wanted = SealingKey { place, wrapped_salt: &key.salt, service: key_id.service.as_str() };
        let secret = self.signer.derive_sealing(wanted).await?;
        Ok(ApplicationKey::from_keyed_hmac(SoftwareKey::new(secret)))
    }

    /// As the registry does it for a key of the tree: that the device may still be heard is asked again, and the window
    /// takes note. It is as durable as the key of the session.
    fn accept_in_session(
        &self,
        attempt: &Attempt<'_>,
        visibility: &Visibility,
    ) -> Result<Result<Accepted, SealedRefusal>, FleetError> {
        Ok(match self.store.sealed_key(&attempt.key_id, visibility)? {
            Ok(_) => self.sessions.accept(&attempt.key_id, attempt.authentic.mark()),
            Err(refused) => Err(refused),
        })
    }

    /// Has the replay window take note of what opened, and gives out what it accepted.
    async fn release(
        &self,
        permit: &Permit,
        attempts: Vec<Result<Attempt<'_>, Refusal>>,
    ) -> Result<Vec<OpenOutcome>, FleetError> {
        let stored = attempts.iter().flatten().filter(|attempt| attempt.key_id.session.is_none());
        let marks: Vec<_> = stored.map(|attempt| (attempt.key_id, *attempt.authentic.mark())).collect();
        let now = self.now();
        let verdicts = match marks.len() {
            0 => Vec::new(),
            _ => self.store.accept_sealed(marks, permit.visibility().clone(), now).await?,
        };
        let mut verdicts = verdicts.into_iter();
        let mut outcomes = Vec::with_capacity(attempts.len());
        for attempt in attempts {
            let outcome = match attempt {
                Ok(attempt) => match match attempt.key_id.session {
                    None => verdicts.next().ok_or(FleetError::Bug("a payload without a verdict"))?,
                    Some(_) => self.accept_in_session(&attempt, permit.visibility())?,
                } {
                    Ok(accepted) => {
                        self.store.touch_device(attempt.key_id.device, now);
                        Ok(opened(attempt, &accepted)?)
                    }
                    Err(refused) => Err(refused.into()),
                },
                Err(refusal) => Err(refusal),
            };
            outcomes.push(match outcome {
                Ok(opened) => OpenOutcome::Opened(opened),
                Err(Refusal { refusal, problem }) => OpenOutcome::Refused { refusal, problem },
            });
        }
        Ok(outcomes)
    }
}

fn opened(attempt: Attempt<'_>, accepted: &Accepted) -> Result<Opened, FleetError> {
    let Attempt { key_id, key, authentic } = attempt;
    let mark = *authentic.mark();
    let plaintext = authentic.release(accepted).map_err(|_other| FleetError::Bug("the verdict of another payload"))?;
    let KeyId { device, facility_epoch, device_epoch, session, sender: _, service } = key_id;
    Ok(Opened {
        device,
        device_name: key.device_name,
        facility: key.owner,
        service: service.as_str().to_owned(),
        facility_epoch,
        device_epoch,
        session: session.map(hex::encode),
        boot_number: mark.boot().number(),
        counter: mark.counter(),
        plaintext: BASE64_STANDARD.encode(plaintext),
    })
}

fn decode(payload: &SealedPayload) -> Result<Received, FleetError> {
    Ok(Received {
        envelope: octets("envelope", &payload.envelope, MAX_ENVELOPE_OCTETS)?,
        external_aad: octets("external_aad", &payload.external_aad, MAX_EXTERNAL_AAD_OCTETS)?,
        plaintext: Vec::new(),
    })
}

/// Octets of a field in base64.
pub(crate) fn octets(field: &str, text: &str, limit: usize) -> Result<Vec<u8>, FleetError> {
    let octets = BASE64_STANDARD.decode(text).map_err(|_detail| {
        FleetError::invalid(field, "is not base64", "send base64 with padding (RFC 4648 section 4), in one line")
    })?;
    if octets.len() > limit {
        let problem = format!("has {} octets", octets.len());
        return Err(FleetError::invalid(field, problem, format!("send at most {limit}")));
    }
    Ok(octets)
}

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
use kf_signer::{DeviceKeyPlace, SealingKey};
use kf_store::sealed::{SealedKey, SealedRefusal};

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
        plaintext.resize(sealed.plaintext_octets(), 0);
        Ok(match self.decipher(&key_id, &key, &sealed, external_aad, plaintext).await? {
            Ok(authentic) => Ok(Attempt { key_id, key, authentic }),
            Err(OpenError::ExternalAadTooLarge { .. }) => {
                let problem = format!("external_aad has more than {MAX_EXTERNAL_AAD_OCTETS} octets");
                Err(Refusal::new(OpenRefusal::Malformed, problem))
            }
            Err(error) => Err(Refusal::new(OpenRefusal::NotAuthentic, error)),
        })
    }

    /// Opens with the key of the envelope's boot, derived or remembered.
    async fn decipher<'a>(
        &self,
        key_id: &KeyId,
        key: &SealedKey,
        sealed: &Sealed<'_>,
        external_aad: &[u8],
        plaintext: &'a mut [u8],
    ) -> Result<Result<Authentic<'a>, OpenError>, FleetError> {
        if !self.openers.has(sealed) {
            let application = self.application_key(key_id, key).await?;
            match Opener::new(&application, key_id, sealed) {
                Ok(opener) => self.openers.keep(sealed, opener),
                Err(error) => return Ok(Err(error)),
            }
        }
        // Another caller's keys may have taken its place in between; then the sender has to wait, not the server.
        Ok(self.openers.open(sealed, external_aad, plaintext).unwrap_or(Err(OpenError::TooManyFailures)))
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

    /// Has the replay window take note of what opened, and gives out what it accepted.
    async fn release(
        &self,
        permit: &Permit,
        attempts: Vec<Result<Attempt<'_>, Refusal>>,
    ) -> Result<Vec<OpenOutcome>, FleetError> {
        let marks = attempts.iter().flatten().map(|attempt| (attempt.key_id, *attempt.authentic.mark())).collect();
        let now = self.now();
        let mut verdicts = self.store.accept_sealed(marks, permit.visibility().clone(), now).await?.into_iter();
        let mut outcomes = Vec::with_capacity(attempts.len());
        for attempt in attempts {
            let outcome = match attempt {
                Ok(attempt) => match verdicts.next().ok_or(FleetError::Bug("a payload without a verdict"))? {
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
    let KeyId { device, facility_epoch, device_epoch, sender: _, service } = key_id;
    Ok(Opened {
        device,
        device_name: key.device_name,
        facility: key.owner,
        service: service.as_str().to_owned(),
        facility_epoch,
        device_epoch,
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
fn octets(field: &str, text: &str, limit: usize) -> Result<Vec<u8>, FleetError> {
    let octets = BASE64_STANDARD.decode(text).map_err(|_detail| {
        FleetError::invalid(field, "is not base64", "send base64 with padding (RFC 4648 section 4), in one line")
    })?;
    if octets.len() > limit {
        let problem = format!("has {} octets", octets.len());
        return Err(FleetError::invalid(field, problem, format!("send at most {limit}")));
    }
    Ok(octets)
}

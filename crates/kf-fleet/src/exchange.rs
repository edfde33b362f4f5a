//! Key exchanges with devices. Messages authenticate themselves; what is decided here is who gets which key, and nothing
//! leaves before it is recorded.

use kf_access::Visibility;
use kf_api::certificate::Certificate;
use kf_api::device::Device;
use kf_api::epoch::EpochState;
use kf_api::operator::Credential;
use kf_exchange::{Acknowledgement, ClaimedIdentity, Kind, Refusal};
use kf_key::{CertificateProfile, CertificateStatus, DeviceId};
use kf_pki::certificate::PresentedCertificate;
use kf_signer::{DeviceKeyPlace, DeviceProof, SignerError, SignerRefusal};
use kf_store::device_key::{Acknowledged, KeyPlace};

use crate::claim::{acknowledgement_entry, with_place};
use crate::enrolment::device_principal;
use crate::entry::Entry;
use crate::{Fleet, FleetError};

/// How long a client waits when the delivery key has reached its ceiling.
const CEILING_RETRY_SECONDS: u32 = 60;

/// One answer for everything that does not hold after a claim was made: whether the device exists, is barred, has another
/// key, or forged a signature is nobody's to learn.
pub(crate) fn refused() -> FleetError {
    FleetError::Forbidden {
        field: "message".into(),
        problem: "the exchange is refused".into(),
        remedy: "begin a new exchange; if that is refused too, an operator sees why in the server's log".into(),
    }
}

pub(crate) fn unreadable(refusal: Refusal) -> FleetError {
    FleetError::invalid("message", refusal.to_string(), "send one message of the exchange as application/cbor")
}

pub(crate) fn signer_error(error: SignerError) -> FleetError {
    match error {
        SignerError::Refused(SignerRefusal::Exchange(_)) => refused(),
        SignerError::Rate { .. } => FleetError::TooMany { retry_after_seconds: CEILING_RETRY_SECONDS },
        other => other.into(),
    }
}

/// A device and the identity key that it says it has.
pub(crate) struct Claimant {
    pub(crate) device: Device,
    pub(crate) spki: Vec<u8>,
}

impl Fleet {
    /// Answers one message of a key exchange. Anybody may send one: it authenticates itself, or is refused.
    ///
    /// # Errors
    /// [`FleetError::Invalid`] for what is no message; [`FleetError::Forbidden`], without a reason, for one that does not
    /// hold; [`FleetError::Conflict`] when the registry changed in between; [`FleetError::TooMany`].
    pub async fn device_exchange(&self, message: &[u8]) -> Result<Vec<u8>, FleetError> {
        match kf_exchange::peek(message).map_err(unreadable)? {
            Kind::Hello => self.answer_hello(message).await,
            Kind::Proof => self.deliver(message).await,
            Kind::Acknowledgement => self.acknowledge(message).await,
            _ => Err(unreadable(Refusal::OutOfOrder)),
        }
    }

    /// Hello in, challenge out.
    pub(crate) async fn answer_hello(&self, hello: &[u8]) -> Result<Vec<u8>, FleetError> {
        let key = self.challenging_key(kf_exchange::named_key(hello).map_err(unreadable)?)?;
        let challenge = self.signer.exchange_challenge(key, hello).await.map_err(|error| match error {
            // No secret is involved yet, and whoever writes a client wants to know.
            SignerError::Refused(SignerRefusal::Exchange(reason)) => {
                FleetError::invalid("message", reason, "send the first message of an exchange")
            }
            other => signer_error(other),
        })?;
        self.note_challenge(&challenge, key);
        Ok(challenge)
    }

    /// Proof in, delivery out.
    async fn deliver(&self, proof: &[u8]) -> Result<Vec<u8>, FleetError> {
        let claimed = ClaimedIdentity::read(proof).map_err(unreadable)?;
        let Some(Claimant { device, spki }) = self.claimant(claimed.device, &claimed.spki_sha256)? else {
            tracing::info!(device = %claimed.device, "a key exchange was refused: no such device, barred, or another key");
            return Err(refused());
        };
        let next = self.store.delivery(device.id)?.ok_or(FleetError::Bug("a device without delivery"))?;
        let due = self.due_device_key(&device, &next)?;
        let salt = match next.salt {
            Some(salt) => salt,
            None => self.signer.new_device_salt(device.id).await?,
        };
        let seen = next.place.device_epoch;
        let place = KeyPlace { device_epoch: seen.saturating_add(u32::from(due.is_some())), ..next.place };
        let given = DeviceProof { place: place_of(device.id, place), spki: &spki, wrapped_salt: &salt, proof };
        let delivery = self.signer.exchange_deliver(given).await.map_err(|error| {
            tracing::info!(device = %device.id, %error, "a key exchange was refused");
            signer_error(error)
        })?;
        self.note_challenge_answered(&device, &claimed.session).await?;
        if let Some(reason) = due {
            self.advance_due_device(&device, seen, reason).await?;
        }
        let who = device_principal(&device, Credential::Certificate);
        let now = self.now();
        let entry = with_place(Entry::done(&who, "key.deliver", now).about(device.id), &place);
        self.store.offer_device_key(device.id, place, salt, now, entry.build()).await?;
        self.store.touch_device(device.id, now);
        Ok(delivery)
    }

    /// Acknowledgement in, done out.
    async fn acknowledge(&self, message: &[u8]) -> Result<Vec<u8>, FleetError> {
        let said = Acknowledgement::read(message).map_err(unreadable)?;
        let kf_exchange::KeyPlace { facility, facility_epoch, device_epoch } = said.place();
        let place = KeyPlace { facility, facility_epoch, device_epoch };
        let stored = self.store.device_key(said.device(), facility_epoch, device_epoch, &Visibility::Fleet)?;
        let device = self.store.device(said.device(), &Visibility::Fleet)?;
        let (Some(stored), Some(device)) = (stored, device) else { return Err(refused()) };
        if stored.place != place || stored.epoch == EpochState::Retired || !device.state.may_enrol() {
            tracing::info!(device = %device.id, "an acknowledgement was refused: barred, or of a key that is gone");
            return Err(refused());
        }
        let answer = self.signer.exchange_acknowledge(place_of(device.id, place), &stored.salt, message).await;
        let answer = answer.map_err(|error| {
            tracing::info!(device = %device.id, %error, "an acknowledgement was refused");
            signer_error(error)
        })?;
        let who = device_principal(&device, Credential::Certificate);
        let now = self.now();
        let before = self.facility_before(&device, facility)?;
        let entry = acknowledgement_entry(&who, &device, &place, before, now);
        match self.store.acknowledge_device_key(device.id, place, now, entry.build()).await? {
            Acknowledged::First(_) => tracing::info!(device = %device.id, "a device holds its new key"),
            Acknowledged::Again => {}
        }
        self.store.touch_device(device.id, now);
        Ok(answer)
    }

    /// The device, if it may have keys and this is the key of a good LDevID of its own.
    pub(crate) fn claimant(&self, device: DeviceId, spki_sha256: &[u8; 32]) -> Result<Option<Claimant>, FleetError> {
        let Some(device) = self.store.device(device, &Visibility::Fleet)? else { return Ok(None) };
        if !device.state.may_enrol() {
            return Ok(None);
        }
        let wanted = hex::encode(spki_sha256);
        let now = self.now();
        let spki = self.identity_key(device.id, |found| {
            found.spki_sha256 == wanted && found.status == CertificateStatus::Good && now < found.not_after
        })?;
        Ok(spki.map(|spki| Claimant { device, spki }))
    }

    /// The SubjectPublicKeyInfo in the newest LDevID of a device that fits.
    pub(crate) fn identity_key(
        &self,
        device: DeviceId,
        fits: impl Fn(&Certificate) -> bool,
    ) -> Result<Option<Vec<u8>>, FleetError> {
        let certificates = self.store.certificates_of_device(device, &Visibility::Fleet)?;
        let fits = |found: &Certificate| found.profile == CertificateProfile::LDevId && fits(found);
        let Some(certificate) = certificates.into_iter().find(fits) else { return Ok(None) };
        let stored = self.store.certificate(certificate.serial, &Visibility::Fleet)?;
        let stored = stored.ok_or(FleetError::Bug("a certificate without body"))?;
        let parsed = PresentedCertificate::from_der(&stored.der).ok_or(FleetError::Bug("a stored certificate"))?;
        Ok(Some(parsed.spki))
    }
}

pub(crate) const fn place_of(device: DeviceId, place: KeyPlace) -> DeviceKeyPlace {
    let KeyPlace { facility, facility_epoch, device_epoch } = place;
    DeviceKeyPlace { facility, facility_epoch, device, device_epoch }
}

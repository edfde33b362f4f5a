//! A label that a station printed, from the factory to whoever installs the device: let go, claimed, taken.
//!
//! Three things make a device somebody's: its owner lets it go, an installer with the label and a scope claims it, and the
//! device proves the key that the station saw. A photographed label is not enough, and neither is a stolen device.

use kf_access::{Action, Principal, Target, Visibility, authorize};
use kf_api::device::Device;
use kf_api::label::{ClaimRequest, Label, LabelState, ReleaseRequest, Released};
use kf_api::operator::Credential;
use kf_enrol::code::EnrolmentCode;
use kf_enrol::limit::device_must_wait;
use kf_key::{CodeId, DeviceState, UnixMillis};
use kf_pki::request::RequestedKey;
use kf_store::label::{LabelRecord, NewClaim};

use crate::enrolment::{Claim, device_principal};
use crate::entry::Entry;
use crate::fence::Line;
use crate::naming::check_why;
use crate::{Fleet, FleetError};

/// How long a claim waits for the device.
const CLAIM_LIFETIME: u64 = 7 * UnixMillis::DAY;

impl Fleet {
    /// Lets a device go, or all of a batch, so that another facility may claim it by its label.
    ///
    /// # Errors
    /// [`FleetError::NotFound`] for a device without a label, [`FleetError::Conflict`] when it was let go before,
    /// [`FleetError::Invalid`] unless exactly one of device and batch is named, [`FleetError::Denied`].
    pub async fn device_release(&self, who: &Principal, request: ReleaseRequest) -> Result<Released, FleetError> {
        check_why(&request.why)?;
        let now = self.now();
        match (&request.device, &request.batch) {
            (Some(device), None) => {
                let device = self.find_device(device, &who.visibility())?;
                authorize(who, Action::DeviceRelease, Target::Facility(device.facility))?;
                let entry = Entry::done(who, "device.release", now)
                    .about(device.id)
                    .at_facility(Some(device.facility))
                    .because(&request.why);
                self.store.release_device(device.id, who.id.clone(), now, entry.build()).await?;
                Ok(Released { devices: 1 })
            }
            (None, Some(batch)) => {
                let batch = self.batch_show(who, batch).await?;
                authorize(who, Action::DeviceRelease, Target::Facility(batch.facility))?;
                let entry = Entry::done(who, "device.release", now)
                    .about(batch.id)
                    .at_facility(Some(batch.facility))
                    .because(&request.why);
                let released = self.store.release_batch(batch.id, who.id.clone(), now, entry.build()).await?;
                Ok(Released { devices: released.value })
            }
            _ => Err(FleetError::invalid("device", "name a device or a batch", "give exactly one of them")),
        }
    }

    /// Claims a device by its label for a facility. It belongs there once it has proved its key, by enrolling with its IDevID,
    /// or with the code of the label and that key.
    ///
    /// # Errors
    /// [`FleetError::NotFound`] for a wrong label, whatever is wrong with it; [`FleetError::TooMany`] after wrong codes;
    /// [`FleetError::Conflict`] when the device was not let go, or is taken; [`FleetError::Denied`].
    pub async fn device_claim(&self, who: &Principal, request: ClaimRequest) -> Result<Label, FleetError> {
        let facility = self.find_facility(&request.facility, &who.visibility())?;
        authorize(who, Action::DeviceClaim, Target::Facility(facility.id))?;
        // The device is another facility's until it is taken: whether it exists is told only to who holds its label.
        let wrong = || FleetError::NotFound("label");
        let device = self.store.device_by_name(&request.device, &Visibility::Fleet)?.ok_or_else(wrong)?;
        let attempts = self.store.failed_attempts(device.id)?;
        if let Some(retry_after_seconds) = device_must_wait(attempts.count, attempts.last, self.now()) {
            return Err(FleetError::TooMany { retry_after_seconds });
        }
        let record = self.store.label(device.id)?.ok_or_else(wrong)?;
        // Exposed to be hashed: the hash is what the registry keeps.
        let is_right = EnrolmentCode::parse(request.code.expose().as_bytes())
            .is_ok_and(|code| code.hash() == record.hash)
            && request.key_sha256.as_ref().is_none_or(|key| key.eq_ignore_ascii_case(&record.label.key_sha256));
        if !is_right {
            self.store.count_failed_attempt(device.id, self.now()).await?;
            return Err(wrong());
        }
        self.check_claim(who, &device, facility.id, &record)?;
        let now = self.now();
        let claim = NewClaim {
            device: device.id,
            facility: facility.id,
            code: CodeId::from_parts(now, kf_crypto::random_array()?),
            at: now,
            expires: now.plus(CLAIM_LIFETIME),
        };
        let entry = self
            .evidence(Entry::done(who, "device.claim", now))
            .about(device.id)
            .about(device.facility)
            .at_facility(Some(facility.id))
            .with("from", device.facility)
            .with("expires", claim.expires.0);
        self.store.claim_device(claim, entry.build()).await?;
        Ok(self.store.label(device.id)?.ok_or_else(wrong)?.label)
    }

    /// What a claim presupposes besides the label.
    fn check_claim(
        &self,
        who: &Principal,
        device: &Device,
        to: kf_key::FacilityId,
        record: &LabelRecord,
    ) -> Result<(), FleetError> {
        if record.label.state == LabelState::Taken {
            let problem = format!("`{}` has been claimed before", device.name);
            return Err(FleetError::conflict("device", problem, "have its owner move it, or decommission it"));
        }
        let waits = record.resold && device.state == DeviceState::Suspended;
        if !device.state.may_enrol() && !waits {
            let problem = format!("`{}` is {}", device.name, device.state);
            return Err(FleetError::conflict("device", problem, "have its owner resume it first"));
        }
        if to == device.facility {
            return Ok(());
        }
        let Some(released_by) = record.released_by.as_deref() else {
            return Err(FleetError::conflict(
                "device",
                format!("the owner of `{}` has not let it go", device.name),
                "ask them: `keyfleet device release`",
            ));
        };
        // Across facilities it takes two people: who lets go, and who takes.
        if released_by == who.id && !self.config.single_control {
            return Err(FleetError::conflict(
                "device",
                "who let the device go cannot claim it for another facility as well".to_owned(),
                "have somebody else claim it",
            ));
        }
        Ok(())
    }

    /// The device of an enrolment that is about to be granted. One that was claimed moves to who claimed it, if it just proved
    /// the key that the station saw.
    pub(crate) async fn taken(&self, claim: &Claim, key: &RequestedKey) -> Result<Device, FleetError> {
        let device = &claim.device;
        let now = self.now();
        let Some(record) = self.store.label(device.id)? else { return Ok(device.clone()) };
        let is_open =
            record.label.state == LabelState::Claimed && record.label.expires.is_some_and(|expires| now <= expires);
        let proves = claim.presented_key() == Some(record.key) || key.spki_sha256 == record.key;
        if !is_open || !proves || !(device.state.may_enrol() || record.resold) {
            return Ok(device.clone());
        }
        let entry = Entry::done(&device_principal(device, Credential::Certificate), "device.take", now)
            .about(device.id)
            .about(device.facility)
            .at_facility(record.label.facility);
        self.store.complete_claim(device.id, device.facility, now, entry.build()).await?;
        let arrived = self.store.device(device.id, &Visibility::Fleet)?.ok_or(FleetError::NotFound("device"))?;
        // It may have been suspended by whoever sold it.
        self.fence.note_lines([Line::DeviceState { device: arrived.id, state: arrived.state, at: now }]);
        Ok(arrived)
    }
}

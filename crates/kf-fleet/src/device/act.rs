//! Acts that change a device's place in the fleet: its state and its certificates in one act.

use kf_access::{Action, Permit, Principal, Stake, Target, authorize};
use kf_api::device::{Departure, Device, DeviceAct, DeviceActRequest};
use kf_api::proposal::ProposedAct;
use kf_api::revocation::{RevocationTarget, RevokeOutcome};
use kf_key::{DeviceState, FacilityId, RevocationReason};
use kf_store::device::{CertificateEffect, DeviceChange, DeviceTarget};

use crate::entry::Entry;
use crate::naming::check_why;
use crate::proposal::Consent;
use crate::revocation::nothing_done;
use crate::{Fleet, FleetError};

impl Fleet {
    /// Suspends, quarantines, resumes or decommissions a device: its state and its certificates in one act.
    ///
    /// # Errors
    /// [`FleetError::NotFound`], [`FleetError::Conflict`] for a step that the device's state does not allow.
    pub async fn device_act(
        &self,
        who: &Principal,
        device: &str,
        request: DeviceActRequest,
    ) -> Result<RevokeOutcome, FleetError> {
        check_why(&request.why)?;
        let found = self.find_device(device, &who.visibility())?;
        let permit = authorize(who, action_of(request.act), Target::Facility(found.facility))?;
        let change = self.change_of(&found, request.act, request.departure)?;
        let (devices, certificates) = self.store.count_device_change(&change, permit.visibility())?;
        if request.dry_run {
            return Ok(RevokeOutcome { certificates, devices, ..nothing_done() });
        }
        let permanent = request.act == DeviceAct::Decommission;
        let stake = Stake { permanent, devices, crosses_facilities: false, kills_authority: false };
        let act = ProposedAct::Decommission {
            target: RevocationTarget::Device(found.id.to_string()),
            departure: request.departure,
            why: request.why.clone(),
        };
        if let Some(waiting) = self.propose_if_needed(who, act, stake, certificates, Some(found.facility)).await? {
            return Ok(waiting);
        }
        let said = (act_name(request.act), request.why.as_str());
        self.carry_out_change(who, change, (permit, Some(found.facility)), said, &Consent::NotNeeded).await
    }

    /// Moves a device to another facility. Crosses facilities, so it waits for a second person.
    ///
    /// # Errors
    /// [`FleetError::NotFound`], [`FleetError::Denied`].
    pub async fn device_move(
        &self,
        who: &Principal,
        device: &str,
        facility: &str,
        why: String,
    ) -> Result<RevokeOutcome, FleetError> {
        check_why(&why)?;
        let found = self.find_device(device, &who.visibility())?;
        authorize(who, Action::DeviceMove, Target::Fleet)?;
        let to = self.find_facility(facility, &who.visibility())?;
        if to.id == found.facility {
            return Err(FleetError::conflict("facility", "the device is there already", "name another facility"));
        }
        let stake = Stake { permanent: false, devices: 1, crosses_facilities: true, kills_authority: false };
        let act = ProposedAct::MoveDevice { device: found.id.to_string(), facility: to.id.to_string(), why };
        match self.propose_if_needed(who, act, stake, 0, None).await? {
            Some(waiting) => Ok(waiting),
            None => Err(FleetError::Bug("a move across facilities asked for no second person")),
        }
    }

    /// Carries out an approved move.
    pub(crate) async fn carry_out_move(
        &self,
        who: &Principal,
        device: &str,
        facility: &str,
        why: &str,
        consent: &Consent,
    ) -> Result<RevokeOutcome, FleetError> {
        authorize(who, Action::DeviceMove, Target::Fleet)?;
        let found = self.find_device(device, &who.visibility())?;
        let to = self.find_facility(facility, &who.visibility())?;
        let entry = self
            .evidence(Entry::done(who, "device.move", self.now()))
            .about(found.id)
            .about(found.facility)
            .about(to.id)
            .at_facility(Some(to.id))
            .because(why);
        let logged = self.store.move_device(found.id, found.facility, to.id, consent.with(entry.build())).await?;
        Ok(RevokeOutcome { done: true, devices: 1, log_index: Some(logged.index), ..nothing_done() })
    }

    /// Carries out an approved decommissioning.
    pub(crate) async fn carry_out_decommission(
        &self,
        who: &Principal,
        target: &RevocationTarget,
        departure: Departure,
        why: &str,
        consent: &Consent,
    ) -> Result<RevokeOutcome, FleetError> {
        let (change, scope, facility) = self.decommission_of(who, target, departure)?;
        let permit = authorize(who, Action::DeviceDecommission, scope)?;
        self.carry_out_change(who, change, (permit, facility), ("device.decommission", why), consent).await
    }

    /// What decommissioning a device, batch or facility comes to.
    pub(crate) fn decommission_of(
        &self,
        who: &Principal,
        target: &RevocationTarget,
        departure: Departure,
    ) -> Result<(DeviceChange, Target, Option<FacilityId>), FleetError> {
        let visibility = who.visibility();
        let (devices, scope, facility) = match target {
            RevocationTarget::Device(reference) => {
                let found = self.find_device(reference, &visibility)?;
                let target = DeviceTarget::Device { id: found.id, seen: found.state };
                (target, Target::Facility(found.facility), Some(found.facility))
            }
            RevocationTarget::Batch(batch) => (DeviceTarget::Batch(batch.clone()), Target::Visible, None),
            RevocationTarget::Facility(reference) => {
                let facility = self.find_facility(reference, &visibility)?.id;
                (DeviceTarget::Facility(facility), Target::Facility(facility), Some(facility))
            }
            RevocationTarget::Certificate(_) | RevocationTarget::Authority(_) => {
                return Err(FleetError::invalid("target", "is not a device, batch or facility", "name one of these"));
            }
        };
        let certificates = effect_of(DeviceAct::Decommission, departure);
        let change = DeviceChange { target: devices, to: DeviceState::Decommissioned, certificates, at: self.now() };
        Ok((change, scope, facility))
    }

    fn change_of(&self, device: &Device, act: DeviceAct, departure: Departure) -> Result<DeviceChange, FleetError> {
        let to = match act {
            DeviceAct::Suspend => DeviceState::Suspended,
            DeviceAct::Quarantine => DeviceState::Quarantined,
            DeviceAct::Resume => DeviceState::Active,
            DeviceAct::Decommission => DeviceState::Decommissioned,
        };
        let resumes_from_nothing =
            act == DeviceAct::Resume && !matches!(device.state, DeviceState::Suspended | DeviceState::Quarantined);
        if resumes_from_nothing || device.state.transition(to).is_err() {
            return Err(FleetError::conflict(
                "act",
                format!("device `{}` is {}; {} is not a step from there", device.name, device.state, act_name(act)),
                "look at it with `keyfleet device show`",
            ));
        }
        let target = DeviceTarget::Device { id: device.id, seen: device.state };
        Ok(DeviceChange { target, to, certificates: effect_of(act, departure), at: self.now() })
    }

    pub(crate) async fn carry_out_change(
        &self,
        who: &Principal,
        change: DeviceChange,
        (permit, facility): (Permit, Option<FacilityId>),
        (act, why): (&str, &str),
        consent: &Consent,
    ) -> Result<RevokeOutcome, FleetError> {
        let about = match &change.target {
            DeviceTarget::Device { id, .. } => id.to_string(),
            DeviceTarget::Batch(batch) => format!("batch:{batch}"),
            DeviceTarget::Facility(facility) => facility.to_string(),
        };
        let entry = self
            .evidence(Entry::done(who, act, self.now()))
            .about(about)
            .at_facility(facility)
            .because(why)
            .with("state", change.to);
        let logged =
            self.store.change_devices(change, permit.visibility().clone(), consent.with(entry.build())).await?;
        self.after_status_changes(logged, false).await
    }
}

const fn action_of(act: DeviceAct) -> Action {
    match act {
        DeviceAct::Suspend | DeviceAct::Quarantine => Action::DeviceSuspend,
        DeviceAct::Resume => Action::DeviceResume,
        DeviceAct::Decommission => Action::DeviceDecommission,
    }
}

const fn act_name(act: DeviceAct) -> &'static str {
    match act {
        DeviceAct::Suspend => "device.suspend",
        DeviceAct::Quarantine => "device.quarantine",
        DeviceAct::Resume => "device.resume",
        DeviceAct::Decommission => "device.decommission",
    }
}

/// What becomes of a device's certificates. A retired device keeps its IDevID for the next owner.
const fn effect_of(act: DeviceAct, departure: Departure) -> CertificateEffect {
    match act {
        DeviceAct::Suspend | DeviceAct::Quarantine => CertificateEffect::Hold,
        DeviceAct::Resume => CertificateEffect::Release,
        DeviceAct::Decommission => {
            let idevid = match departure {
                Departure::Retired => None,
                Departure::Scrapped => Some(RevocationReason::CessationOfOperation),
                Departure::Stolen => Some(RevocationReason::KeyCompromise),
            };
            let ldevid = match departure {
                Departure::Stolen => RevocationReason::KeyCompromise,
                Departure::Retired | Departure::Scrapped => RevocationReason::CessationOfOperation,
            };
            CertificateEffect::Revoke { ldevid, idevid }
        }
    }
}

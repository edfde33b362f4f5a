//! Key epochs of facilities and devices: who sees them, who makes a new one, and when the old one may go.

use kf_access::{Action, Principal, Stake, Target, Visibility, authorize};
use kf_api::device::Device;
use kf_api::epoch::{DeviceKeyState, DeviceKeys, EpochHolder, EpochOutcome, EpochState, FacilityEpoch};
use kf_api::facility::Facility;
use kf_api::proposal::ProposedAct;
use kf_api::{Page, PageRequest};
use kf_key::FacilityId;

use crate::entry::Entry;
use crate::naming::check_why;
use crate::proposal::Consent;
use crate::{Fleet, FleetError};

/// Devices named in a refusal; all of them are in the listing.
const MAX_NAMED: u32 = 5;

impl Fleet {
    /// The epochs of a facility, newest first.
    ///
    /// # Errors
    /// [`FleetError::NotFound`], [`FleetError::Denied`].
    pub async fn epoch_list(&self, who: &Principal, facility: &str) -> Result<Vec<FacilityEpoch>, FleetError> {
        let facility = self.epoch_facility(who, facility, Action::EpochRead)?;
        Ok(self.store.facility_epochs(facility.id, &who.visibility())?)
    }

    /// The devices that keep an epoch from being retired: not barred, and holding its key or offered it without an answer.
    ///
    /// # Errors
    /// [`FleetError::NotFound`], [`FleetError::Denied`].
    pub async fn epoch_holders(
        &self,
        who: &Principal,
        facility: &str,
        epoch: u32,
        page: PageRequest,
    ) -> Result<Page<EpochHolder>, FleetError> {
        let facility = self.epoch_facility(who, facility, Action::EpochRead)?;
        self.epoch_of(facility.id, epoch)?;
        Ok(self.store.epoch_holders(facility.id, epoch, &who.visibility(), &page)?)
    }

    /// Which keys a device was sent, and which one comes next.
    ///
    /// # Errors
    /// [`FleetError::NotFound`], [`FleetError::Denied`].
    pub async fn device_keys(&self, who: &Principal, device: &str) -> Result<DeviceKeys, FleetError> {
        let device = self.epoch_device(who, device, Action::EpochRead)?;
        let next = self.store.delivery(device.id)?.ok_or(FleetError::NotFound("device"))?;
        Ok(DeviceKeys {
            device: device.id,
            facility: next.place.facility,
            facility_epoch: next.place.facility_epoch,
            device_epoch: next.place.device_epoch,
            up_to_date: next.acknowledged,
            epochs: self.store.device_key_epochs(device.id, &who.visibility())?,
        })
    }

    /// Gives a facility a new key epoch: each of its devices gets a new key at its next exchange. Permanent for all of
    /// them, so it waits for a second person where there are many.
    ///
    /// # Errors
    /// [`FleetError::NotFound`], [`FleetError::Denied`], [`FleetError::Conflict`] while one is pending.
    pub async fn epoch_advance_facility(
        &self,
        who: &Principal,
        facility: &str,
        why: String,
    ) -> Result<EpochOutcome, FleetError> {
        check_why(&why)?;
        let facility = self.epoch_facility(who, facility, Action::EpochAdvance)?;
        self.epoch_to_follow(facility.id)?;
        let devices = self.devices_of(facility.id)?;
        let act = ProposedAct::AdvanceFacilityEpoch { facility: facility.id.to_string(), why: why.clone() };
        if let Some(waiting) = self.propose_epoch(who, act, devices, facility.id).await? {
            return Ok(waiting);
        }
        self.carry_out_facility_advance(who, &facility.id.to_string(), &why, &Consent::NotNeeded).await
    }

    /// Carries out an advance that needs nobody's consent any more.
    pub(crate) async fn carry_out_facility_advance(
        &self,
        who: &Principal,
        facility: &str,
        why: &str,
        consent: &Consent,
    ) -> Result<EpochOutcome, FleetError> {
        let facility = self.epoch_facility(who, facility, Action::EpochAdvance)?;
        let seen = self.epoch_to_follow(facility.id)?;
        self.advance_behind(who, facility.id, seen, why, consent).await
    }

    /// Advances, if `seen` is still the newest epoch: of two who ask for the same one, one makes it.
    pub(crate) async fn advance_behind(
        &self,
        who: &Principal,
        facility: FacilityId,
        seen: u32,
        why: &str,
        consent: &Consent,
    ) -> Result<EpochOutcome, FleetError> {
        let now = self.now();
        let entry = self
            .evidence(Entry::done(who, "epoch.advance", now))
            .about(facility)
            .at_facility(Some(facility))
            .because(why)
            .with("facility_epoch", seen.saturating_add(1));
        let logged = self.store.advance_facility_epoch(facility, seen, now, consent.with(entry.build())).await?;
        let devices = self.devices_of(facility)?;
        Ok(done(logged.value, devices, logged.index))
    }

    /// As [`Fleet::epoch_advance_facility`], for whoever has looked at the epochs before: refused when `seen` is not the
    /// newest any more.
    pub(crate) async fn epoch_advance_behind(
        &self,
        who: &Principal,
        facility: FacilityId,
        seen: u32,
        why: &str,
    ) -> Result<EpochOutcome, FleetError> {
        let facility = self.epoch_facility(who, &facility.to_string(), Action::EpochAdvance)?;
        if self.epoch_to_follow(facility.id)? != seen {
            return Err(FleetError::conflict(
                "facility",
                format!("epoch {seen} of `{}` has a successor already", facility.name),
                "nothing is left to be done: somebody else was first",
            ));
        }
        let devices = self.devices_of(facility.id)?;
        let act = ProposedAct::AdvanceFacilityEpoch { facility: facility.id.to_string(), why: why.to_owned() };
        if let Some(waiting) = self.propose_epoch(who, act, devices, facility.id).await? {
            return Ok(waiting);
        }
        self.advance_behind(who, facility.id, seen, why, &Consent::NotNeeded).await
    }

    /// Gives one device a new key epoch.
    ///
    /// # Errors
    /// [`FleetError::Conflict`] for a device that was never sent a key; [`FleetError::NotFound`], [`FleetError::Denied`].
    pub async fn epoch_advance_device(
        &self,
        who: &Principal,
        device: &str,
        why: String,
    ) -> Result<EpochOutcome, FleetError> {
        check_why(&why)?;
        let device = self.epoch_device(who, device, Action::EpochAdvance)?;
        self.device_epoch(&device)?;
        let act = ProposedAct::AdvanceDeviceEpoch { device: device.id.to_string(), why: why.clone() };
        if let Some(waiting) = self.propose_epoch(who, act, 1, device.facility).await? {
            return Ok(waiting);
        }
        self.carry_out_device_advance(who, &device.id.to_string(), &why, &Consent::NotNeeded).await
    }

    /// As [`Fleet::carry_out_facility_advance`], for a device.
    pub(crate) async fn carry_out_device_advance(
        &self,
        who: &Principal,
        device: &str,
        why: &str,
        consent: &Consent,
    ) -> Result<EpochOutcome, FleetError> {
        let device = self.epoch_device(who, device, Action::EpochAdvance)?;
        let seen = self.device_epoch(&device)?;
        let entry = self
            .evidence(Entry::done(who, "epoch.advance", self.now()))
            .about(device.id)
            .at_facility(Some(device.facility))
            .because(why)
            .with("device_epoch", seen.saturating_add(1));
        let logged = self.store.advance_device_epoch(device.id, seen, consent.with(entry.build())).await?;
        Ok(done(logged.value, 1, logged.index))
    }

    /// Retires an epoch: nothing is derived under it any more. What stays behind are barred devices that held its key;
    /// where they are many, it waits for a second person.
    ///
    /// # Errors
    /// [`FleetError::Conflict`] naming devices that hold it and are not barred; [`FleetError::NotFound`],
    /// [`FleetError::Denied`].
    pub async fn epoch_retire(
        &self,
        who: &Principal,
        facility: &str,
        epoch: u32,
        why: String,
    ) -> Result<EpochOutcome, FleetError> {
        check_why(&why)?;
        let facility = self.epoch_facility(who, facility, Action::EpochAdvance)?;
        let found = self.retirable(who, &facility, epoch)?;
        let act = ProposedAct::RetireEpoch { facility: facility.id.to_string(), epoch, why: why.clone() };
        if let Some(waiting) = self.propose_epoch(who, act, found.devices, facility.id).await? {
            return Ok(waiting);
        }
        self.carry_out_retirement(who, &facility.id.to_string(), epoch, &why, &Consent::NotNeeded).await
    }

    /// Carries out a retirement that needs nobody's consent any more. The store asks again who holds the epoch, inside
    /// its transaction.
    pub(crate) async fn carry_out_retirement(
        &self,
        who: &Principal,
        facility: &str,
        epoch: u32,
        why: &str,
        consent: &Consent,
    ) -> Result<EpochOutcome, FleetError> {
        let facility = self.epoch_facility(who, facility, Action::EpochAdvance)?;
        let found = self.retirable(who, &facility, epoch)?;
        let now = self.now();
        let entry = self
            .evidence(Entry::done(who, "epoch.retire", now))
            .about(facility.id)
            .at_facility(Some(facility.id))
            .because(why)
            .with("facility_epoch", epoch)
            .with("barred_devices", found.devices);
        let logged = self.store.retire_facility_epoch(facility.id, epoch, now, consent.with(entry.build())).await?;
        Ok(done(epoch, found.devices, logged.index))
    }

    /// The epoch, if nobody who is not barred holds it.
    fn retirable(&self, who: &Principal, facility: &Facility, epoch: u32) -> Result<FacilityEpoch, FleetError> {
        let found = self.epoch_of(facility.id, epoch)?;
        if found.state != EpochState::Current || !self.is_pending(facility.id)? {
            return Err(FleetError::conflict(
                "epoch",
                "only an epoch that a newer one follows can be retired, and only once",
                "look with `keyfleet epoch list`, and make a newer one with `keyfleet epoch advance` first",
            ));
        }
        let page = PageRequest { after: None, limit: Some(MAX_NAMED) };
        let holders = self.store.epoch_holders(facility.id, epoch, &who.visibility(), &page)?;
        if holders.items.is_empty() {
            return Ok(found);
        }
        let mut names: Vec<_> = holders.items.into_iter().map(|holder| holder.name).collect();
        if holders.next.is_some() {
            names.push("…".to_owned());
        }
        Err(FleetError::conflict(
            "epoch",
            format!("devices still hold a key of it: {}", names.join(", ")),
            format!(
                "wait until they have acknowledged the new one, or bar them; `keyfleet epoch holders --facility {} \
                 --epoch {epoch}` lists all",
                facility.name
            ),
        ))
    }

    /// A facility in which the caller may do this.
    pub(crate) fn epoch_facility(
        &self,
        who: &Principal,
        facility: &str,
        action: Action,
    ) -> Result<Facility, FleetError> {
        let found = self.find_facility(facility, &who.visibility())?;
        authorize(who, action, Target::Facility(found.id))?;
        Ok(found)
    }

    /// A device to which the caller may do this.
    pub(crate) fn epoch_device(&self, who: &Principal, device: &str, action: Action) -> Result<Device, FleetError> {
        let found = self.find_device(device, &who.visibility())?;
        authorize(who, action, Target::Facility(found.facility))?;
        Ok(found)
    }

    fn epoch_of(&self, facility: FacilityId, epoch: u32) -> Result<FacilityEpoch, FleetError> {
        let epochs = self.store.facility_epochs(facility, &Visibility::Fleet)?;
        let found = epochs.into_iter().find(|found| found.epoch == epoch);
        found.ok_or(FleetError::NotFound("key epoch"))
    }

    fn is_pending(&self, facility: FacilityId) -> Result<bool, FleetError> {
        Ok(self.store.newest_facility_epoch(facility)?.1 == EpochState::Pending)
    }

    /// The epoch that a new one would follow.
    fn epoch_to_follow(&self, facility: FacilityId) -> Result<u32, FleetError> {
        let (newest, state) = self.store.newest_facility_epoch(facility)?;
        if state == EpochState::Pending {
            return Err(FleetError::conflict(
                "facility",
                format!("epoch {newest} is still pending"),
                "retire the one before with `keyfleet epoch retire` when all devices have acknowledged it",
            ));
        }
        Ok(newest)
    }

    /// The epoch of a device that was sent a key.
    pub(crate) fn device_epoch(&self, device: &Device) -> Result<u32, FleetError> {
        let next = self.store.delivery(device.id)?.ok_or(FleetError::NotFound("device"))?;
        if next.salt.is_none() {
            return Err(FleetError::conflict(
                "device",
                format!("`{}` was never sent a key", device.name),
                "nothing is to be replaced: its first exchange delivers a fresh one",
            ));
        }
        Ok(next.place.device_epoch)
    }

    fn devices_of(&self, facility: FacilityId) -> Result<u64, FleetError> {
        let counts = self.store.device_counts(&Visibility::Facilities([facility].into()))?;
        Ok(counts.into_iter().filter(|(state, _)| state.may_enrol()).map(|(_, count)| count).sum())
    }

    async fn propose_epoch(
        &self,
        who: &Principal,
        act: ProposedAct,
        devices: u64,
        facility: FacilityId,
    ) -> Result<Option<EpochOutcome>, FleetError> {
        let stake = Stake { permanent: true, devices, crosses_facilities: false, kills_authority: false };
        let waiting = self.propose_if_needed(who, act, stake, 0, Some(facility)).await?;
        Ok(waiting.map(|waiting| EpochOutcome {
            done: false,
            proposal: waiting.proposal,
            epoch: None,
            devices,
            log_index: None,
        }))
    }

    /// The facility whose key a device held before, if it acknowledged one of another facility than this.
    pub(crate) fn facility_before(
        &self,
        device: &Device,
        facility: FacilityId,
    ) -> Result<Option<FacilityId>, FleetError> {
        let epochs = self.store.device_key_epochs(device.id, &Visibility::Fleet)?;
        let held = epochs.into_iter().find(|epoch| epoch.state == DeviceKeyState::Held);
        Ok(held.map(|held| held.facility).filter(|held| *held != facility))
    }
}

const fn done(epoch: u32, devices: u64, log_index: u64) -> EpochOutcome {
    EpochOutcome { done: true, proposal: None, epoch: Some(epoch), devices, log_index: Some(log_index) }
}

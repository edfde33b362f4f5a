//! Carrying out what two people agreed to, for one device after the other. Every step may be repeated, and a start after a crash
//! repeats those that are not through: the approval is the intent, the record of each device the outcome.
//!
//! ```text
//! noted           which devices leave, so that their salts are found
//! out of service  state, LDevIDs, IDevID, codes: one commit for each device
//! released        the label of one that was sold
//! replaced        what the replacement takes over
//! ordered         to wipe itself or to go back to the state of the factory, where that was asked for
//! destroyed       all salts: fence, wipe, search, receipt
//! recorded        with the log entry from which the customer's receipt is made
//! ```

use kf_access::{Action, Target, Visibility, authorize};
use kf_api::PageRequest;
use kf_api::destruction::Receipt;
use kf_api::device::Device;
use kf_api::order::{Order, OrderAct};
use kf_api::ownership::{EndedOwnership, LeavingDevice, OwnershipEnd};
use kf_api::proposal::{Proposal, ProposedAct};
use kf_key::{CertificateProfile, CertificateStatus, DeviceId, DeviceState, FacilityId, RevocationReason};
use kf_store::destruction::Salts;
use kf_store::device::{CertificateEffect, DeviceChange, DeviceTarget};

use super::effect_of;
use crate::destruction::Terms;
use crate::entry::Entry;
use crate::proposal::Consent;
use crate::{Fleet, FleetError};

/// How long an order to destroy waits for its device, hours: four weeks.
const ORDER_LIFETIME_HOURS: u32 = 672;
/// Serial numbers that a record names.
const MAX_SERIALS: usize = 20;

/// An approved end of an ownership, taken apart.
struct Approved<'a> {
    proposal: &'a Proposal,
    end: OwnershipEnd,
    facility: FacilityId,
    devices: &'a [LeavingDevice],
    customer: &'a str,
    wipe: bool,
    factory_reset: bool,
    salts: u64,
    station_records_erased: bool,
    why: &'a str,
}

impl<'a> Approved<'a> {
    fn of(proposal: &'a Proposal) -> Result<Self, FleetError> {
        let ProposedAct::EndOwnership {
            end,
            facility,
            devices,
            customer,
            wipe,
            factory_reset,
            salts,
            station_records_erased,
            why,
        } = &proposal.act
        else {
            return Err(FleetError::Bug("the end of an ownership that is none"));
        };
        Ok(Self {
            proposal,
            end: *end,
            facility: *facility,
            devices,
            customer,
            wipe: *wipe,
            factory_reset: *factory_reset,
            salts: *salts,
            station_records_erased: *station_records_erased,
            why,
        })
    }

    fn replacement_of(&self, device: DeviceId) -> Option<DeviceId> {
        let id = device.to_string();
        let leaving = self.devices.iter().find(|leaving| leaving.device == id)?;
        leaving.replacement.as_ref()?.parse().ok()
    }
}

impl Fleet {
    /// Carries out what was approved. What a disk or a reader hinders now is tried again at every turn.
    pub(crate) async fn carry_out_ownership(&self, proposal: &Proposal) {
        if let Err(error) = self.finish_ownership(proposal).await {
            tracing::error!(proposal = %proposal.id, error = %error, "devices that leave are not through; it goes on");
        }
    }

    /// Finishes what was approved and is not through: after a crash, or because something hindered it.
    /// One that is hindered does not keep the others.
    pub(crate) async fn finish_ownerships(&self) -> Result<(), FleetError> {
        let mut hindered = None;
        for proposal in self.store.open_ownerships()? {
            if let Err(error) = self.finish_ownership(&proposal).await {
                hindered.get_or_insert(error);
            }
        }
        hindered.map_or(Ok(()), Err)
    }

    async fn finish_ownership(&self, proposal: &Proposal) -> Result<(), FleetError> {
        // Whoever approved it and the background would both order the device, and it obeys one of two orders.
        let _turn = self.ownership_turn.lock().await;
        if self.store.is_through(proposal.id)? {
            return Ok(());
        }
        let approved = Approved::of(proposal)?;
        let ids: Vec<DeviceId> = approved.devices.iter().filter_map(|leaving| leaving.device.parse().ok()).collect();
        self.store.begin_ownership(proposal.id, approved.facility, ids).await?;
        let leaving = self.store.leaving(proposal.id)?;
        let mut orders = Vec::with_capacity(leaving.len());
        for id in &leaving {
            let found = self.store.device(*id, &Visibility::Fleet)?;
            let device = found.ok_or(FleetError::Bug("a leaving device that is not there"))?;
            orders.push(self.take_out(&approved, &device).await?);
        }
        // An epoch more or less is nothing to a salt: where none is left, all that is to do is the receipt.
        let destroyed = self.destroy_salts(&approved).await?;
        for (id, order) in leaving.iter().zip(orders) {
            let record = self.record_of(&approved, *id, order, destroyed.as_ref())?;
            let entry = self.record_entry(&record).build();
            self.store.record_ownership(record, entry).await?;
        }
        Ok(())
    }

    /// Everything about one device but its keys; the order that it was given.
    async fn take_out(&self, approved: &Approved<'_>, device: &Device) -> Result<Option<Order>, FleetError> {
        if device.facility != approved.facility {
            return Ok(None);
        }
        let why = format!("{}: {}", approved.end.name(), approved.why);
        self.leave(device, approved.end.state(), effect_of(approved.end), &why).await?;
        let server = Self::server_principal();
        if approved.end == OwnershipEnd::Resold {
            let entry = Entry::done(&server, "device.release", self.now())
                .about(device.id)
                .about(approved.proposal.id)
                .at_facility(Some(device.facility))
                .because(&why);
            let by = approved.proposal.proposer.to_string();
            self.store.release_resold(device.id, by, self.now(), entry.build()).await?;
        }
        if let Some(new) = approved.replacement_of(device.id) {
            let entry = Entry::done(&server, "device.replace", self.now())
                .about(device.id)
                .about(new)
                .about(approved.proposal.id)
                .at_facility(Some(device.facility))
                .because(&why);
            self.store.replace_device(device.id, new, entry.build()).await?;
        }
        // Ordered before, it stays ordered: the device may have changed its program since.
        if let Some(order) = self.order_of(device.id, &approved.proposal.id.to_string())? {
            return Ok(Some(order));
        }
        let act = if approved.wipe {
            OrderAct::Wipe
        } else if approved.factory_reset && self.store.knows_reset(device.id)? {
            OrderAct::FactoryReset
        } else {
            return Ok(None);
        };
        self.destroying_order(approved, device, act).await.map(Some)
    }

    /// Takes a device out of service, unless that was done before the process ended.
    async fn leave(
        &self,
        device: &Device,
        to: DeviceState,
        certificates: CertificateEffect,
        why: &str,
    ) -> Result<(), FleetError> {
        let is_there = device.state == to || device.state == DeviceState::Decommissioned;
        let found = self.store.certificates_of_device(device.id, &Visibility::Fleet)?;
        let is_live = |profile, status: CertificateStatus| {
            found.iter().any(|certificate| certificate.profile == profile && certificate.status == status)
        };
        let CertificateEffect::Revoke { idevid, .. } = certificates else {
            return Err(FleetError::Bug("a device leaves and keeps its certificates"));
        };
        let held = is_live(CertificateProfile::IDevId, CertificateStatus::Held);
        let good = is_live(CertificateProfile::IDevId, CertificateStatus::Good);
        let idevid_is_settled = match idevid {
            None => !held,
            Some(RevocationReason::CertificateHold) => !good,
            Some(_) => !good && !held,
        };
        let ldevids_are_gone = !is_live(CertificateProfile::LDevId, CertificateStatus::Good)
            && !is_live(CertificateProfile::LDevId, CertificateStatus::Held);
        if is_there && (device.state == DeviceState::Decommissioned || (ldevids_are_gone && idevid_is_settled)) {
            return Ok(());
        }
        let server = Self::server_principal();
        let permit = authorize(&server, Action::DeviceDecommission, Target::Facility(device.facility))?;
        let target = DeviceTarget::Device { id: device.id, seen: device.state };
        let change = DeviceChange { target, to, certificates, at: self.now() };
        let act = match to {
            DeviceState::Suspended => "device.suspend",
            DeviceState::Quarantined => "device.quarantine",
            _ => "device.decommission",
        };
        let place = (permit, Some(device.facility));
        self.carry_out_change(&server, change, place, (act, why), &Consent::NotNeeded).await?;
        Ok(())
    }

    /// The same for a registry of before, in which it has not left yet.
    pub(crate) async fn leave_again(&self, device: &Device, state: DeviceState, why: &str) -> Result<(), FleetError> {
        let idevid = (state == DeviceState::Quarantined).then_some(RevocationReason::CertificateHold);
        let effect = CertificateEffect::Revoke { ldevid: RevocationReason::CessationOfOperation, idevid };
        self.leave(device, state, effect, why).await
    }

    /// The order to destroy what the device holds, signed once: one of before a crash is found again by the proposal that it names.
    async fn destroying_order(
        &self,
        approved: &Approved<'_>,
        device: &Device,
        act: OrderAct,
    ) -> Result<Order, FleetError> {
        let mark = approved.proposal.id.to_string();
        let why = format!("{} ({mark})", approved.end.name());
        let (server, id) = (Self::server_principal(), device.id.to_string());
        let terms = (ORDER_LIFETIME_HOURS, why.as_str());
        self.carry_out_order(&server, &id, act, terms, &Consent::NotNeeded).await?;
        self.order_of(device.id, &mark)?.ok_or(FleetError::Bug("an order that was not kept"))
    }

    fn order_of(&self, device: DeviceId, mark: &str) -> Result<Option<Order>, FleetError> {
        let page = PageRequest { after: None, limit: Some(kf_api::page::MAX_LIMIT) };
        let orders = self.store.orders(Some(device), &Visibility::Fleet, &page)?.items;
        Ok(orders.into_iter().find(|order| order.act != OrderAct::Rotate && order.why.contains(mark)))
    }

    /// Destroys the keys of all devices of the proposal; `None` where none was ever sent one.
    async fn destroy_salts(&self, approved: &Approved<'_>) -> Result<Option<Receipt>, FleetError> {
        let salts = Salts::Ownership(approved.proposal.id);
        if approved.salts == 0 && self.store.count_salts(salts)?.wipeable == 0 {
            return Ok(None);
        }
        let terms = Terms {
            salts,
            facility: approved.facility,
            station_records_erased: approved.station_records_erased,
            why: approved.why,
        };
        self.destroy_under(approved.proposal, approved.salts, terms).await.map(Some)
    }

    fn record_of(
        &self,
        approved: &Approved<'_>,
        id: DeviceId,
        order: Option<Order>,
        destroyed: Option<&Receipt>,
    ) -> Result<EndedOwnership, FleetError> {
        let device = self.store.device(id, &Visibility::Fleet)?.ok_or(FleetError::Bug("a leaving device"))?;
        let certificates = self.store.certificates_of_device(id, &Visibility::Fleet)?;
        let of = |profile| certificates.iter().filter(move |found| found.profile == profile);
        let idevid = match of(CertificateProfile::IDevId).map(|found| found.status).next() {
            None => "none",
            Some(CertificateStatus::Good) => "lives",
            Some(CertificateStatus::Held) => "on hold",
            Some(CertificateStatus::Revoked) => "revoked",
        };
        let was_sent = !self.store.device_key_epochs(id, &Visibility::Fleet)?.is_empty();
        let destroyed = destroyed.filter(|_| was_sent && device.facility == approved.facility);
        let mut exceptions = destroyed.map_or_else(Vec::new, |receipt| receipt.exceptions.clone());
        if order.is_none() {
            exceptions.push("the device was not ordered to destroy what it holds itself".to_owned());
            if approved.factory_reset {
                exceptions.push("its program has not said that it knows the order to reset".to_owned());
            }
        }
        if device.facility != approved.facility {
            exceptions.push("the device went to another facility first, where nothing was done".to_owned());
        }
        Ok(EndedOwnership {
            device: id,
            device_name: device.name,
            proposal: approved.proposal.id,
            end: approved.end,
            facility: approved.facility,
            customer: approved.customer.to_owned(),
            why: approved.why.to_owned(),
            proposed_by: format!("{} ({})", approved.proposal.proposer_name, approved.proposal.proposer),
            approved_by: self.approver(approved.proposal.decided_by)?,
            at: self.now(),
            ldevids: of(CertificateProfile::LDevId).take(MAX_SERIALS).map(|found| found.serial.to_string()).collect(),
            idevid: idevid.to_owned(),
            device_keys: destroyed.map_or("none", |receipt| receipt.result.name()).to_owned(),
            destruction: destroyed.map(|receipt| receipt.id),
            order_act: order.as_ref().map(|order| order.act),
            order: order.map(|order| order.id),
            replacement: approved.replacement_of(id),
            claimable: self.store.label(id)?.is_some_and(|label| label.resold),
            exceptions,
            log_index: None,
        })
    }

    fn record_entry(&self, record: &EndedOwnership) -> Entry {
        let mut entry = self
            .evidence(Entry::done(&Self::server_principal(), "ownership.end", record.at))
            .about(record.device)
            .about(record.proposal)
            .at_facility(Some(record.facility))
            .because(&record.why)
            .with("device", &record.device_name)
            .with("end", record.end.name())
            .with("ldevids_revoked", record.ldevids.join(", "))
            .with("idevid", &record.idevid)
            .with("device_keys", &record.device_keys)
            .with("proposed_by", &record.proposed_by)
            .with("approved_by", &record.approved_by)
            .with("exceptions", record.exceptions.join("; "));
        let optional = [
            ("customer", Some(record.customer.clone()).filter(|customer| !customer.is_empty())),
            ("destruction", record.destruction.map(|id| id.to_string())),
            ("order", record.order.map(|id| id.to_string())),
            ("order_act", record.order_act.map(|act| act.name().to_owned())),
            ("replacement", record.replacement.map(|id| id.to_string())),
        ];
        for (key, value) in optional {
            if let Some(value) = value {
                entry = entry.with(key, value);
            }
        }
        match record.replacement {
            Some(replacement) => entry.about(replacement),
            None => entry,
        }
    }
}

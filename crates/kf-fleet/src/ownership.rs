//! Devices that leave who has them: scrapped, sold, returned, stolen.
//!
//! Nothing here is an act of its own: a device is stopped, its certificates are revoked, its keys destroyed and an order is given
//! as anybody would. What is added is the order of these acts, one approval for all of them, and a receipt for the customer.
//! What stops waits for nobody; the rest is permanent, destroys keys, and so takes two people.

mod finish;
mod receipt;

use std::collections::BTreeSet;

use kf_access::{Action, Principal, Target, Visibility, authorize};
use kf_api::destruction::DestructionResult;
use kf_api::device::{Departure, Device, DeviceAct, DeviceActRequest};
use kf_api::ownership::{
    Fate, KeyFate, LeavingDevice, MAX_LEAVING, OwnershipEnd, OwnershipOutcome, OwnershipPlan, OwnershipRequest,
};
use kf_api::proposal::ProposedAct;
use kf_key::{
    BackupId, CertificateProfile, CertificateStatus, DeviceId, DeviceState, FacilityId, ProposalId, RevocationReason,
};
use kf_store::destruction::Salts;
use kf_store::device::CertificateEffect;

use crate::naming::{check_text, check_why};
use crate::{Fleet, FleetError};

/// The longest reference of a customer.
const MAX_CUSTOMER: usize = 128;

/// Devices that may leave, of one facility.
pub(crate) struct Leaving {
    facility: FacilityId,
    devices: Vec<(Device, Option<Device>)>,
}

impl Fleet {
    /// Says that devices leave who has them: what must stop stops at once, and the rest is proposed; or says what would happen.
    /// Sent again, it goes on where it was cut short.
    ///
    /// # Errors
    /// [`FleetError::Invalid`], [`FleetError::NotFound`], [`FleetError::Denied`]; [`FleetError::Conflict`] for a device that has left
    /// for good, or a replacement that cannot take its place.
    pub async fn ownership_end(
        &self,
        who: &Principal,
        request: OwnershipRequest,
    ) -> Result<OwnershipOutcome, FleetError> {
        check_why(&request.why)?;
        check_text("customer", &request.customer, MAX_CUSTOMER)?;
        if request.why.trim().is_empty() {
            return Err(FleetError::invalid("why", "is missing", "say why the device leaves"));
        }
        let OwnershipRequest { end, devices, why, customer, wipe, factory_reset, station_records_erased, dry_run } =
            request;
        let leaving = self.leaving_devices(who, end, &devices)?;
        let wipe = wipe.unwrap_or(end.wipes());
        check_reset(end, wipe, factory_reset)?;
        if factory_reset == Some(true) {
            self.require_reset_known(&leaving)?;
        }
        let factory_reset = factory_reset.unwrap_or(end.resets() && !wipe);
        let plan = self.plan_ownership(end, &leaving, (wipe, factory_reset), station_records_erased)?;
        if dry_run {
            return Ok(OwnershipOutcome { proposal: None, stopped: 0, plan });
        }
        let stopped = if end == OwnershipEnd::Stolen { self.stop_stolen(who, &leaving, &why).await? } else { 0 };
        let act = ProposedAct::EndOwnership {
            end,
            facility: leaving.facility,
            devices: leaving.devices.iter().map(identified).collect(),
            customer,
            wipe,
            factory_reset,
            salts: count_of(&plan, DEVICE_KEYS),
            station_records_erased,
            why,
        };
        let control = self.dual_control().always(self.now());
        let waiting = self.propose(who, act, control, (plan.devices, 0), Some(leaving.facility)).await?;
        Ok(OwnershipOutcome { proposal: waiting.and_then(|waiting| waiting.proposal), stopped, plan })
    }

    /// The devices, if the caller may let them leave like this and they can.
    pub(crate) fn leaving_devices(
        &self,
        who: &Principal,
        end: OwnershipEnd,
        devices: &[LeavingDevice],
    ) -> Result<Leaving, FleetError> {
        if devices.is_empty() || devices.len() > MAX_LEAVING {
            let problem = format!("{} devices are named", devices.len());
            return Err(FleetError::invalid("devices", problem, format!("name 1 to {MAX_LEAVING}")));
        }
        let mut found: Vec<(Device, Option<Device>)> = Vec::with_capacity(devices.len());
        let mut seen = BTreeSet::new();
        for LeavingDevice { device, replacement } in devices {
            let device = self.find_device(device, &who.visibility())?;
            authorize(who, Action::DeviceDecommission, Target::Facility(device.facility))?;
            authorize(who, Action::KeyDestroy, Target::Facility(device.facility))?;
            check_leaving(&device)?;
            if !seen.insert(device.id) {
                let problem = format!("`{}` is named twice", device.name);
                return Err(FleetError::invalid("devices", problem, "name each device once"));
            }
            let replacement = match replacement {
                None => None,
                Some(reference) => Some(self.replacement_of(who, end, &device, reference)?),
            };
            found.push((device, replacement));
        }
        let facility = found.first().map(|(device, _)| device.facility);
        let facility = facility.ok_or(FleetError::Bug("no device leaves"))?;
        if let Some((other, _)) = found.iter().find(|(device, _)| device.facility != facility) {
            let problem = format!("`{}` is at another facility than the first one", other.name);
            return Err(FleetError::invalid("devices", problem, "ask once for each facility"));
        }
        Ok(Leaving { facility, devices: found })
    }

    fn replacement_of(
        &self,
        who: &Principal,
        end: OwnershipEnd,
        device: &Device,
        reference: &str,
    ) -> Result<Device, FleetError> {
        if end != OwnershipEnd::Returned {
            let problem = format!("a device that is {} is not replaced here", end.name());
            return Err(FleetError::invalid("replacement", problem, "leave it out, or use `keyfleet device rma`"));
        }
        let found = self.find_device(reference, &who.visibility())?;
        authorize(who, Action::DeviceRegister, Target::Facility(found.facility))?;
        let problem = if found.id == device.id {
            "a device does not replace itself".to_owned()
        } else if !found.state.may_enrol() {
            format!("`{}` is {}", found.name, found.state)
        } else if found.facility != device.facility || found.product_line != device.product_line {
            format!("`{}` is of another facility or product line than `{}`", found.name, device.name)
        } else {
            return Ok(found);
        };
        let remedy = "register a device of the same facility and product line, or move it there first";
        Err(FleetError::conflict("replacement", problem, remedy))
    }

    /// Thieves are stopped at once: certificates on hold, the IDevID too, and sessions cut.
    async fn stop_stolen(&self, who: &Principal, leaving: &Leaving, why: &str) -> Result<u64, FleetError> {
        let mut stopped = 0;
        for (device, _) in &leaving.devices {
            if device.state == DeviceState::Quarantined {
                continue;
            }
            let request = DeviceActRequest {
                act: DeviceAct::Quarantine,
                why: why.to_owned(),
                departure: Departure::default(),
                dry_run: false,
            };
            self.device_act(who, &device.id.to_string(), request).await?;
            stopped += 1;
        }
        Ok(stopped)
    }

    /// Each of them has said that its program knows the order to reset.
    fn require_reset_known(&self, leaving: &Leaving) -> Result<(), FleetError> {
        for (device, _) in &leaving.devices {
            if !self.store.knows_reset(device.id)? {
                let problem = format!("the program of `{}` has not said that it knows the order to reset", device.name);
                let remedy =
                    "update it and let it ask for orders once; or order a wipe, which takes the key of its IDevID too";
                return Err(FleetError::conflict("factory_reset", problem, remedy));
            }
        }
        Ok(())
    }

    fn plan_ownership(
        &self,
        end: OwnershipEnd,
        leaving: &Leaving,
        (wipe, factory_reset): (bool, bool),
        station_records_erased: bool,
    ) -> Result<OwnershipPlan, FleetError> {
        let mut counts = Counts::default();
        let mut barred_by: BTreeSet<BackupId> = BTreeSet::new();
        for (device, _) in &leaving.devices {
            let certificates = self.store.certificates_of_device(device.id, &Visibility::Fleet)?;
            let live = certificates.iter().filter(|found| found.status != CertificateStatus::Revoked);
            for certificate in live {
                match certificate.profile {
                    CertificateProfile::LDevId => counts.ldevids += 1,
                    CertificateProfile::IDevId => counts.idevids += 1,
                    _ => {}
                }
            }
            counts.labels += u64::from(self.store.label(device.id)?.is_some());
            let knows = factory_reset && self.store.knows_reset(device.id)?;
            *(if knows { &mut counts.resets } else { &mut counts.not_reset }) += 1;
            let salts = Salts::Device(device.id);
            if self.store.salt_made(device.id)?.is_none() {
                continue;
            }
            counts.salts += 1;
            counts.of_stations += u64::from(self.is_of_a_station(device.id)?);
            barred_by.extend(self.backups_with(salts)?);
        }
        let is_barred = !barred_by.is_empty() || (counts.of_stations > 0 && !station_records_erased);
        Ok(OwnershipPlan {
            end,
            facility: leaving.facility,
            devices: u64::try_from(leaving.devices.len()).unwrap_or(u64::MAX),
            state: end.state(),
            fates: fates(end, &counts, wipe, factory_reset),
            result: if is_barred { DestructionResult::Barred } else { DestructionResult::Destroyed },
            barred_by: barred_by.into_iter().collect(),
            exceptions: self.not_reached(&counts),
        })
    }

    /// What neither wiping nor revoking reaches.
    fn not_reached(&self, counts: &Counts) -> Vec<String> {
        let mut exceptions = self.always_excepted(Salts::Ownership(ProposalId::from_bytes([0; 16])));
        if counts.of_stations > 0 {
            exceptions.push(format!(
                "{} salts were made by a factory station, whose records hold them sealed to this server",
                counts.of_stations
            ));
        }
        exceptions
    }

    /// Whether a factory station made the device's salt: then it lies in the station's record as well.
    fn is_of_a_station(&self, device: DeviceId) -> Result<bool, FleetError> {
        let epochs = self.store.device_key_epochs(device, &Visibility::Fleet)?;
        Ok(epochs.iter().any(|found| found.device_epoch == 0))
    }
}

/// What can be asked for together.
fn check_reset(end: OwnershipEnd, wipe: bool, factory_reset: Option<bool>) -> Result<(), FleetError> {
    let problem = match factory_reset {
        Some(true) if wipe => "a wipe takes everything that a reset would, and the IDevID's key".to_owned(),
        Some(true) if !end.resets() => format!("a device that is {} has no next owner", end.name()),
        _ => return Ok(()),
    };
    Err(FleetError::invalid(
        "factory_reset",
        problem,
        "leave it out; or leave the wipe out, of a device that is resold or returned",
    ))
}

/// A device leaves once; one that is suspended or quarantined may leave, for that is what came before.
fn check_leaving(device: &Device) -> Result<(), FleetError> {
    if device.state != DeviceState::Decommissioned {
        return Ok(());
    }
    Err(FleetError::conflict(
        "device",
        format!("`{}` has left for good", device.name),
        "`keyfleet device receipt` shows with what; keys that it left behind die by `keyfleet destroy device-key`",
    ))
}

/// By their ids, so that nobody renames anything between proposal and approval.
fn identified((device, replacement): &(Device, Option<Device>)) -> LeavingDevice {
    LeavingDevice { device: device.id.to_string(), replacement: replacement.as_ref().map(|found| found.id.to_string()) }
}

#[derive(Default)]
struct Counts {
    ldevids: u64,
    idevids: u64,
    salts: u64,
    of_stations: u64,
    labels: u64,
    /// Devices that are ordered to reset, and those that are not.
    resets: u64,
    not_reset: u64,
}

const DEVICE_KEYS: &str = "device keys, of all their epochs";

fn count_of(plan: &OwnershipPlan, what: &str) -> u64 {
    plan.fates.iter().find(|fate| fate.what == what).and_then(|fate| fate.count).unwrap_or(0)
}

/// What dies and what lives, in the order in which it happens.
fn fates(end: OwnershipEnd, counts: &Counts, wipe: bool, factory_reset: bool) -> Vec<KeyFate> {
    let row = |what: &str, count: Option<u64>, fate: Fate, because: &str| KeyFate {
        what: what.to_owned(),
        count,
        fate,
        because: because.to_owned(),
    };
    let (idevid, idevid_why) = match end {
        OwnershipEnd::Scrapped => (Fate::Dies, "revoked (cessationOfOperation): there is nobody left to use it"),
        OwnershipEnd::Stolen => (Fate::Dies, "on hold at once, then revoked (keyCompromise)"),
        OwnershipEnd::Resold => (Fate::Lives, "it says who made the device, and the next owner admits it by that"),
        OwnershipEnd::Returned => (Fate::Held, "on hold until the device is readmitted or scrapped"),
    };
    let copies = |count, fate, because: &str| row("storage key and copies on the device", count, fate, because);
    let (resets, not_reset) = (Some(counts.resets), Some(counts.not_reset));
    let of_devices = match (wipe, factory_reset) {
        (true, _) => {
            vec![copies(
                None,
                Fate::DiesByOrder,
                "a signed order to wipe; until the device has answered it, nobody knows",
            )]
        }
        (false, true) => {
            let reset =
                "a signed order to reset, which leaves the IDevID; until the device has answered it, nobody knows";
            let too_old = "its program has not said that it knows the order to reset: update it, or order a wipe, which \
                           takes the key of the IDevID too";
            let rows = [copies(resets, Fate::DiesByOrder, reset), copies(not_reset, Fate::NotReached, too_old)];
            rows.into_iter().filter(|row| row.count != Some(0)).collect()
        }
        (false, false) => vec![copies(None, Fate::NotReached, "no order was asked for")],
    };
    let mut fates = vec![
        row("LDevIDs", Some(counts.ldevids), Fate::Dies, "revoked for good, as OCSP and CRL say within a second"),
        row("enrolment codes and waiting enrolments", None, Fate::Dies, "withdrawn and refused"),
        row("IDevIDs", Some(counts.idevids), idevid, idevid_why),
        row(DEVICE_KEYS, Some(counts.salts), Fate::Dies, "the salt is wiped, without which nobody derives them"),
    ];
    fates.extend(of_devices);
    let epochs = "they are no secret of a device, and others use them";
    fates.push(row("key epochs of the facility", None, Fate::Lives, epochs));
    if end == OwnershipEnd::Resold {
        let why = "released: whoever holds the label claims the device, which then proves the key that the station saw";
        fates.push(row("labels", Some(counts.labels), Fate::Lives, why));
    }
    fates
}

/// What becomes of certificates, in the very act that takes a device out of service.
const fn effect_of(end: OwnershipEnd) -> CertificateEffect {
    let ldevid = match end {
        OwnershipEnd::Stolen => RevocationReason::KeyCompromise,
        OwnershipEnd::Scrapped | OwnershipEnd::Resold | OwnershipEnd::Returned => {
            RevocationReason::CessationOfOperation
        }
    };
    let idevid = match end {
        OwnershipEnd::Scrapped => Some(RevocationReason::CessationOfOperation),
        OwnershipEnd::Stolen => Some(RevocationReason::KeyCompromise),
        OwnershipEnd::Resold => None,
        OwnershipEnd::Returned => Some(RevocationReason::CertificateHold),
    };
    CertificateEffect::Revoke { ldevid, idevid }
}

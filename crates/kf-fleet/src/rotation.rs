//! The rotation engine: the pure sweep over what the registry says, and its operations carried out one by one, each in a
//! transaction with its log entry.
//!
//! Nothing is kept between two runs. What is due follows from state, policy and time; what was done has changed the
//! state, so that a run that was cut short is finished by the next one, and a run after it finds nothing to do. Facilities
//! are looked at, their devices are not: a device whose own key is due is told at its next exchange.

mod encryption;
mod log_key;
mod pinned_key;
mod wrapping;

use kf_access::{Action, Principal, Target, Visibility, authorize};
use kf_api::PageRequest;
use kf_api::device::Device;
use kf_api::epoch::{EpochOutcome, EpochState};
use kf_api::inventory::InventoryFilter;
use kf_api::rotation::{RotateRequest, RotationOperation, RotationOutcome, RotationReport, RotationStep};
use kf_key::{FacilityId, KeyRole, KeyState, UnixMillis};
use kf_rotation::sweep::{KeyFacts, Operation, Reason, Successor, due, sweep};
use kf_rotation::{KeyClass, Scope};
use kf_store::device_key::Delivery;
use kf_store::inventory::EpochRow;

use crate::entry::Entry;
use crate::naming::check_why;
use crate::proposal::Consent;
use crate::{Fleet, FleetError};

/// The most acts of one run.
const MAX_ACTS: u32 = 10_000;
/// Epochs that are read at a time.
const EPOCHS_AT_A_TIME: u32 = 1_000;
/// How often the server itself looks, where it may.
const INTERVAL: u64 = UnixMillis::HOUR;

/// Classes of which a key that is due is only named: people succeed it, or nothing does here.
const BY_HAND: [KeyClass; 3] = [KeyClass::FleetRootKey, KeyClass::RootAuthorityKey, KeyClass::IssuingAuthorityKey];

/// Classes of the server's own keys whose successor is made when somebody wants it.
const ON_DEMAND: [KeyClass; 5] = [
    KeyClass::WrappingKey,
    KeyClass::LogKey,
    KeyClass::DeliveryKey,
    KeyClass::OrderKey,
    KeyClass::BatchAuthorisationKey,
];

/// Why a run leaves a key alone.
const fn left_to_people(class: KeyClass) -> &'static str {
    match class {
        KeyClass::RootAuthorityKey | KeyClass::IssuingAuthorityKey => {
            "people see to it, step by step: `keyfleet authority succeed`"
        }
        _ => "this server has no mechanism that replaces it",
    }
}

/// Who carries operations out, and why.
struct Run<'a> {
    who: &'a Principal,
    why: &'a str,
    dry_run: bool,
    /// The only class that is looked at.
    class: Option<KeyClass>,
    /// Acts that may still be made.
    left: u32,
    report: RotationReport,
}

impl Fleet {
    /// Carries out what the policy asks for now, as far as the caller may and the server can.
    ///
    /// # Errors
    /// [`FleetError::Invalid`], [`FleetError::NotFound`] for the facility, [`FleetError::Denied`]. A step that is refused
    /// is in the report with its reason, and does not keep the others from theirs.
    pub async fn rotate(&self, who: &Principal, request: RotateRequest) -> Result<RotationReport, FleetError> {
        check_why(&request.why)?;
        let limit = request.limit.unwrap_or(MAX_ACTS);
        if !(1..=MAX_ACTS).contains(&limit) {
            return Err(FleetError::invalid("limit", format!("{limit} is out of range"), "use 1 to 10000"));
        }
        let action = if request.dry_run { Action::EpochRead } else { Action::EpochAdvance };
        let facility = match &request.facility {
            Some(reference) => Some(self.epoch_facility(who, reference, action)?.id),
            None => None,
        };
        let permit = authorize(who, action, Target::Visible)?;
        let report = RotationReport { dry_run: request.dry_run, items: Vec::new(), more: false };
        let class = class_of(&request)?;
        let mut run = Run { who, why: &request.why, dry_run: request.dry_run, class, left: limit, report };
        if run.wants(KeyClass::FacilityKey) {
            self.rotate_facilities(&mut run, facility, permit.visibility()).await?;
        }
        if !run.report.more && run.wants(KeyClass::DataEncryptionKey) {
            self.rotate_encryption_keys(&mut run, facility, permit.visibility()).await?;
        }
        if facility.is_none() && *permit.visibility() == Visibility::Fleet {
            self.rotate_server_keys(&mut run, request.now).await?;
            self.name_by_hand(&mut run).await?;
        }
        Ok(run.report)
    }

    /// The server's own keys. Whoever may not make their successors is shown what is due, and changes nothing.
    async fn rotate_server_keys(&self, run: &mut Run<'_>, wanted: bool) -> Result<(), FleetError> {
        if !run.report.more && run.wants(KeyClass::WrappingKey) && (run.dry_run || self.may_manage_server_keys(run)) {
            self.rotate_wrapping(run, wanted).await?;
        }
        if !run.report.more && run.wants(KeyClass::LogKey) && (run.dry_run || self.may_manage_server_keys(run)) {
            self.rotate_log_key(run, wanted).await?;
        }
        for role in KeyRole::ALL {
            let may = run.dry_run || self.may_manage_server_keys(run);
            if !run.report.more && run.wants(crate::pinned_key::class_of(role)) && may {
                self.rotate_pinned_keys(run, role, wanted).await?;
            }
        }
        Ok(())
    }

    async fn rotate_facilities(
        &self,
        run: &mut Run<'_>,
        facility: Option<FacilityId>,
        visibility: &Visibility,
    ) -> Result<(), FleetError> {
        let mut after = None;
        loop {
            let epochs = self.store.epochs_after(facility, visibility, after, EPOCHS_AT_A_TIME)?;
            let Some(last) = epochs.last() else { return Ok(()) };
            after = Some((last.facility, last.epoch));
            for epoch in epochs.iter().filter(|epoch| epoch.state != EpochState::Retired) {
                self.rotate_epoch(run, epoch).await?;
                if run.report.more {
                    return Ok(());
                }
            }
        }
    }

    async fn rotate_epoch(&self, run: &mut Run<'_>, epoch: &EpochRow) -> Result<(), FleetError> {
        let facility = self.store.facility(epoch.facility, &Visibility::Fleet)?;
        let facility = facility.ok_or(FleetError::Bug("an epoch of no facility"))?;
        let scope = Scope { facility: Some(&facility.name), product_line: None };
        let rule = self.policy.rule(KeyClass::FacilityKey, scope);
        let held = epoch.succeeded && self.keeps_epoch(run.who, epoch)?;
        let facts = epoch_facts(epoch, held);
        for operation in sweep(&facts, &rule, self.now()) {
            let Some((operation, reason)) = act_of(operation) else { continue };
            let acts = matches!(operation, RotationOperation::MakeSuccessor | RotationOperation::Retire);
            if acts && !run.dry_run && run.left == 0 {
                run.report.more = true;
                return Ok(());
            }
            let mut step = RotationStep {
                key: format!("{}/{}", epoch.facility, epoch.epoch),
                name: format!("{} epoch {}", facility.name, epoch.epoch),
                class: KeyClass::FacilityKey.name().to_owned(),
                facility: Some(epoch.facility),
                operation,
                because: reason.map_or_else(String::new, |reason| reason.to_string()),
                remaining: None,
                outcome: if acts { RotationOutcome::Planned } else { RotationOutcome::Waits },
                problem: String::new(),
                proposal: None,
                log_index: None,
            };
            if acts && !run.dry_run {
                run.left -= 1;
                let why = if run.why.is_empty() { format!("policy: {}", step.because) } else { run.why.to_owned() };
                let outcome = self.carry_out_rotation(run.who, epoch, operation, &why).await;
                conclude(&mut step, outcome)?;
            }
            run.report.items.push(step);
        }
        Ok(())
    }

    /// Whether somebody keeps an epoch from being retired: for the server, any device that may hold it; for a person, who
    /// answers for what barred devices lose, one that is not barred.
    fn keeps_epoch(&self, who: &Principal, epoch: &EpochRow) -> Result<bool, FleetError> {
        if *who == Self::server_principal() {
            return Ok(self.store.epoch_is_held(epoch.facility, epoch.epoch)?);
        }
        let page = PageRequest { after: None, limit: Some(1) };
        Ok(!self.store.epoch_holders(epoch.facility, epoch.epoch, &who.visibility(), &page)?.items.is_empty())
    }

    async fn carry_out_rotation(
        &self,
        who: &Principal,
        epoch: &EpochRow,
        operation: RotationOperation,
        why: &str,
    ) -> Result<EpochOutcome, FleetError> {
        let is_server = *who == Self::server_principal();
        match operation {
            // The server acts by a policy that people have reviewed, and does nothing that takes a key from anybody.
            RotationOperation::MakeSuccessor if is_server => {
                self.advance_behind(who, epoch.facility, epoch.epoch, why, &Consent::NotNeeded).await
            }
            RotationOperation::MakeSuccessor => self.epoch_advance_behind(who, epoch.facility, epoch.epoch, why).await,
            _ if is_server => {
                self.carry_out_retirement(who, &epoch.facility.to_string(), epoch.epoch, why, &Consent::NotNeeded).await
            }
            _ => self.epoch_retire(who, &epoch.facility.to_string(), epoch.epoch, why.to_owned()).await,
        }
    }

    /// Names what is due and is not replaced by a run.
    async fn name_by_hand(&self, run: &mut Run<'_>) -> Result<(), FleetError> {
        for class in BY_HAND {
            if !run.wants(class) {
                continue;
            }
            let filter = InventoryFilter {
                class: Some(class.name().to_owned()),
                due_before: Some(self.now()),
                ..InventoryFilter::default()
            };
            for key in self.inventory(run.who, filter).await?.items {
                run.report.items.push(RotationStep {
                    key: key.key,
                    name: key.name,
                    class: key.class,
                    facility: key.facility,
                    operation: RotationOperation::ByHand,
                    because: key.because,
                    remaining: None,
                    outcome: RotationOutcome::Waits,
                    problem: left_to_people(class).to_owned(),
                    proposal: None,
                    log_index: None,
                });
            }
        }
        Ok(())
    }

    /// The server's own run, where the configuration lets it: what time and policy ask for, once an hour.
    pub(crate) async fn turn_rotation(&self) -> Result<(), FleetError> {
        if !self.config.rotation_automatic || !self.rotation_turn.is_due(self.now(), INTERVAL) {
            return Ok(());
        }
        let who = Self::server_principal();
        let report = RotationReport { dry_run: false, items: Vec::new(), more: false };
        let mut run = Run { who: &who, why: "", dry_run: false, class: None, left: MAX_ACTS, report };
        self.rotate_facilities(&mut run, None, &Visibility::Fleet).await?;
        if !run.report.more {
            self.rotate_encryption_keys(&mut run, None, &Visibility::Fleet).await?;
        }
        self.rotate_server_keys(&mut run, false).await?;
        for step in &run.report.items {
            match step.outcome {
                RotationOutcome::Done => tracing::info!(key = step.key, because = step.because, "rotated by policy"),
                RotationOutcome::Refused => tracing::warn!(key = step.key, problem = step.problem, "not rotated"),
                _ => {}
            }
        }
        Ok(())
    }

    /// Why the key of a device that asks is due, if it is: then it is to be given one of a new epoch of its own. Nothing is
    /// written, because nobody has proved yet who asks.
    pub(crate) fn due_device_key(&self, device: &Device, next: &Delivery) -> Result<Option<Reason>, FleetError> {
        // A newer key waits for it already, or it has none that could be too old.
        if !next.acknowledged {
            return Ok(None);
        }
        let facility = self.store.facility(device.facility, &Visibility::Fleet)?;
        let line = self.store.product_line(device.product_line)?;
        let scope = Scope {
            facility: facility.as_ref().map(|facility| facility.name.as_str()),
            product_line: line.as_ref().map(|line| line.name.as_str()),
        };
        let rule = self.policy.rule(KeyClass::DeviceKey, scope);
        let epochs = self.store.device_key_epochs(device.id, &Visibility::Fleet)?;
        let place = (next.place.facility_epoch, next.place.device_epoch);
        let held = epochs.iter().find(|epoch| (epoch.facility_epoch, epoch.device_epoch) == place);
        let facts = KeyFacts {
            class: KeyClass::DeviceKey,
            state: KeyState::Active,
            activated: held.and_then(|held| held.acknowledged),
            uses: 0,
            octets: 0,
            events: &[],
            successor: Successor::None,
            protected: 1,
        };
        Ok(due(&facts, &rule, self.now()))
    }

    /// Records the new epoch of a device whose key was due and who has proved that it is who asks.
    ///
    /// # Errors
    /// [`FleetError::Conflict`] when its epoch is another by now: it begins a new exchange.
    pub(crate) async fn advance_due_device(
        &self,
        device: &Device,
        seen: u32,
        reason: Reason,
    ) -> Result<(), FleetError> {
        let entry = Entry::done(&Self::server_principal(), "epoch.advance", self.now())
            .about(device.id)
            .at_facility(Some(device.facility))
            .because(&format!("policy: {reason}"))
            .with("device_epoch", seen.saturating_add(1));
        self.store.advance_device_epoch(device.id, seen, entry.build()).await?;
        Ok(())
    }
}

impl Run<'_> {
    fn wants(&self, class: KeyClass) -> bool {
        self.class.is_none_or(|only| only == class)
    }
}

/// The class that a run is about.
fn class_of(request: &RotateRequest) -> Result<Option<KeyClass>, FleetError> {
    let class = match &request.class {
        None => None,
        Some(text) => Some(text.parse::<KeyClass>().map_err(|error| {
            FleetError::invalid("class", error.to_string(), "use one of the names of `keyfleet policy check`")
        })?),
    };
    if request.now && !class.is_some_and(|class| ON_DEMAND.contains(&class)) {
        let names = ON_DEMAND.map(KeyClass::name).join(", ");
        return Err(FleetError::invalid(
            "now",
            "makes successors of the server's own keys alone",
            format!(
                "name one of {names} as the class; a facility has `keyfleet epoch advance`, an encryption key \
                 `keyfleet encryption-key rotate`"
            ),
        ));
    }
    Ok(class)
}

/// When the server last looked, in this life of the process.
#[derive(Default)]
pub(crate) struct RotationTurn(std::sync::Mutex<Option<UnixMillis>>);

impl RotationTurn {
    /// Whether it is time; if so it counts as done. A clock that went back makes it time.
    fn is_due(&self, now: UnixMillis, interval: u64) -> bool {
        let mut last = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if last.is_some_and(|last| last <= now && now.since(last) < interval) {
            return false;
        }
        *last = Some(now);
        true
    }
}

fn epoch_facts(epoch: &EpochRow, held: bool) -> KeyFacts<'static> {
    KeyFacts {
        class: KeyClass::FacilityKey,
        state: KeyState::Active,
        activated: Some(epoch.created),
        uses: 0,
        octets: 0,
        events: &[],
        successor: if epoch.succeeded { Successor::Active } else { Successor::None },
        protected: u64::from(held),
    }
}

/// What an operation of the sweep is to a facility's epoch; `None` for what needs no act of its own: an epoch that has a
/// successor is given out to nobody any more.
const fn act_of(operation: Operation) -> Option<(RotationOperation, Option<Reason>)> {
    match operation {
        Operation::MakeSuccessor(reason) => Some((RotationOperation::MakeSuccessor, Some(reason))),
        Operation::Destroy(reason) => Some((RotationOperation::Retire, Some(reason))),
        Operation::Reprotect(_) => Some((RotationOperation::AwaitDevices, None)),
        _ => None,
    }
}

/// Writes an outcome down. What is wrong with the server itself ends the run.
impl Run<'_> {
    /// Whether a successor is made now: the step, and why, for the log. Otherwise it is listed as planned, or is left for another run.
    fn begin(&mut self, step: RotationStep) -> Option<(RotationStep, String)> {
        let step = RotationStep { outcome: RotationOutcome::Planned, ..step };
        if self.dry_run {
            self.report.items.push(step);
            return None;
        }
        if self.left == 0 {
            self.report.more = true;
            return None;
        }
        self.left -= 1;
        let why = if self.why.is_empty() { format!("policy: {}", step.because) } else { self.why.to_owned() };
        Some((step, why))
    }

    /// Lists a step that was begun; of a successor that was made, the index of its entry.
    fn made(&mut self, mut step: RotationStep, outcome: Result<u64, FleetError>) -> Result<(), FleetError> {
        let outcome = outcome.map(|index| EpochOutcome {
            done: true,
            proposal: None,
            epoch: None,
            devices: 0,
            log_index: Some(index),
        });
        conclude(&mut step, outcome)?;
        self.report.items.push(step);
        Ok(())
    }
}

fn conclude(step: &mut RotationStep, outcome: Result<EpochOutcome, FleetError>) -> Result<(), FleetError> {
    match outcome {
        Ok(done) => {
            step.outcome = if done.done { RotationOutcome::Done } else { RotationOutcome::WaitsForApproval };
            step.proposal = done.proposal;
            step.log_index = done.log_index;
        }
        Err(FleetError::Conflict { field, problem, remedy }) => {
            step.outcome = RotationOutcome::Refused;
            step.problem = format!("{field}: {problem}; {remedy}");
        }
        Err(FleetError::Denied(denied)) => {
            step.outcome = RotationOutcome::Refused;
            step.problem = denied.to_string();
        }
        Err(error) => return Err(error),
    }
    Ok(())
}

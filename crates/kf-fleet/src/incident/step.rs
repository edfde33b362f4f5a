//! What the steps of a plan do: the same acts that people use one by one. Each does no harm when it is done again.

use kf_access::{Action, Principal, Target, authorize};
use kf_api::PageRequest;
use kf_api::batch::{BatchState, CancelBatch};
use kf_api::incident::{PlanStep, StepAct};
use kf_api::operator::Role;
use kf_api::proposal::ProposalState;
use kf_api::revocation::{RevocationTarget, RevokeOutcome};
use kf_key::{
    BatchId, CertificateStatus, CodeId, DeviceId, DeviceState, FacilityId, OperatorId, RevocationReason, SerialNumber,
    TokenId,
};
use kf_store::device::{CertificateEffect, DeviceChange, DeviceTarget};
use kf_store::incident::HoldTarget;

use crate::entry::Entry;
use crate::fence::Line;
use crate::proposal::Consent;
use crate::{Fleet, FleetError};

/// What came of a step.
pub(super) struct Came {
    /// For people.
    pub(super) outcome: String,
    /// Devices changed, where that says something about the rate.
    pub(super) devices: Option<u64>,
    /// Index of the log entry of the act.
    pub(super) index: Option<u64>,
}

impl Came {
    fn of(outcome: impl Into<String>) -> Self {
        Self { outcome: outcome.into(), devices: None, index: None }
    }

    fn at(index: u64, outcome: impl Into<String>) -> Self {
        Self { outcome: outcome.into(), devices: None, index: Some(index) }
    }

    fn many(outcome: &RevokeOutcome, what: &str) -> Self {
        let RevokeOutcome { certificates, devices, log_index, .. } = outcome;
        let text = format!("{devices} devices, {certificates} certificates {what}");
        Self { outcome: text, devices: Some(*devices), index: *log_index }
    }
}

impl Fleet {
    /// Does what a step asks for.
    pub(super) async fn do_step(&self, who: &Principal, step: &PlanStep, why: &str) -> Result<Came, FleetError> {
        match &step.step {
            StepAct::StopFacilityIssuance { facility } => {
                self.hold(who, HoldTarget::Facility(*facility), true, why).await
            }
            StepAct::StopAuthorityIssuance { authority } => {
                self.hold(who, HoldTarget::Authority(*authority), true, why).await
            }
            StepAct::StartFacilityIssuance { facility } => {
                self.hold(who, HoldTarget::Facility(*facility), false, why).await
            }
            StepAct::DisableOperator { operator } => self.shut_out(who, *operator, why).await,
            StepAct::WithdrawTokens { operator, token } => self.withdraw_tokens(who, *operator, *token, why).await,
            StepAct::WithdrawCodes { codes } => self.withdraw_codes(who, codes).await,
            StepAct::CancelProposals { operator } => self.cancel_proposals(who, *operator, why).await,
            StepAct::HoldCertificates { serials } => {
                self.each_certificate(who, serials, RevocationReason::CertificateHold, why).await
            }
            StepAct::RevokeCertificates { serials } => {
                self.each_certificate(who, serials, RevocationReason::KeyCompromise, why).await
            }
            StepAct::SuspendDevice { device } => self.suspend_one(who, *device, why).await,
            StepAct::SuspendBatch { batch } => {
                let target = DeviceTarget::Batch(batch.clone());
                self.suspend_many(who, target, step.facility, why).await
            }
            StepAct::SuspendFacility { facility } => {
                self.suspend_many(who, DeviceTarget::Facility(*facility), step.facility, why).await
            }
            StepAct::CutSessions { .. } => self.cut_sessions().await,
            StepAct::BlockKey { spki_sha256 } => {
                let new = self.key_block(who, vec![super::spki_of(spki_sha256)?], why.to_owned()).await?;
                Ok(Came::of(if new == 0 { "was blocked already" } else { "blocked" }))
            }
            StepAct::RevokeDevice { device } => {
                let target = RevocationTarget::Device(device.to_string());
                self.revoke_many(who, target, RevocationReason::KeyCompromise, why).await
            }
            StepAct::RevokeFacility { facility } => {
                let target = RevocationTarget::Facility(facility.to_string());
                self.revoke_many(who, target, RevocationReason::KeyCompromise, why).await
            }
            StepAct::RevokeBatch { batch } => {
                let target = RevocationTarget::Batch(batch.clone());
                self.revoke_many(who, target, RevocationReason::KeyCompromise, why).await
            }
            StepAct::RevokeAuthority { authority } => {
                let target = RevocationTarget::Authority(authority.to_string());
                self.revoke_many(who, target, RevocationReason::CaCompromise, why).await
            }
            StepAct::CancelBatch { batch } => self.cancel_stolen(who, *batch, why).await,
            StepAct::AdvanceFacilityEpoch { facility, beyond } => {
                self.advance_beyond(who, *facility, *beyond, why).await
            }
            StepAct::AdvanceDeviceEpoch { device, beyond } => {
                let found = self.epoch_device(who, &device.to_string(), Action::EpochAdvance)?;
                if self.device_epoch(&found)? > *beyond {
                    return Ok(Came::of("a newer epoch was there already"));
                }
                let outcome = self.carry_out_device_advance(who, &device.to_string(), why, &Consent::NotNeeded).await?;
                let epoch = outcome.epoch.unwrap_or_default();
                Ok(Came { index: outcome.log_index, ..Came::of(format!("device epoch {epoch}")) })
            }
            StepAct::ByHand { .. } => Err(FleetError::Bug("a step by hand was run")),
        }
    }

    /// Stops issuance for the devices of a facility, or lets it go on.
    pub(crate) async fn hold_facility_issuance(
        &self,
        who: &Principal,
        facility: FacilityId,
        stop: bool,
        why: &str,
    ) -> Result<(), FleetError> {
        self.hold(who, HoldTarget::Facility(facility), stop, why).await.map(|_came| ())
    }

    /// Stops issuance for a facility or by a CA, or lets it go on.
    pub(super) async fn hold(
        &self,
        who: &Principal,
        target: HoldTarget,
        stop: bool,
        why: &str,
    ) -> Result<Came, FleetError> {
        let (action, act) =
            if stop { (Action::IssuanceStop, "issuance.stop") } else { (Action::IssuanceStart, "issuance.start") };
        let facility = match target {
            HoldTarget::Facility(facility) => Some(facility),
            HoldTarget::Authority(_) => None,
        };
        authorize(who, action, super::target_of(facility))?;
        if self.store.issuance_held(target)?.is_some() == stop {
            return Ok(Came::of(if stop { "was stopped already" } else { "was going on already" }));
        }
        let about = match target {
            HoldTarget::Facility(facility) => facility.to_string(),
            HoldTarget::Authority(authority) => authority.to_string(),
        };
        let now = self.now();
        let entry = self.evidence(Entry::done(who, act, now)).about(about).at_facility(facility).because(why);
        let held = stop.then(|| (why.to_owned(), now));
        let logged = self.store.hold_issuance(target, held, entry.build()).await?;
        let authority = match target {
            HoldTarget::Facility(_) => None,
            HoldTarget::Authority(authority) => Some(authority),
        };
        self.tell_witness([Line::Issuance { facility, authority, stopped: stop.then(|| why.to_owned()), at: now }]);
        Ok(Came::at(logged.index, if stop { "stopped" } else { "goes on" }))
    }

    async fn shut_out(&self, who: &Principal, operator: OperatorId, why: &str) -> Result<Came, FleetError> {
        self.check_shut_out(who, operator)?;
        let _owners = crate::operator::OWNERS.lock().await;
        let found = self.store.operator(operator)?.ok_or(FleetError::NotFound("operator"))?;
        if !found.enabled {
            return Ok(Came::of("was disabled already"));
        }
        if found.role == Role::Owner && !self.another_owner_is_enabled(operator)? {
            return Err(FleetError::conflict(
                "operator",
                format!("`{}` is the last enabled owner", found.name),
                "create another owner first",
            ));
        }
        let mut entry =
            Entry::done(who, "operator.disable", self.now()).about(operator).because(why).with("name", &found.name);
        if let [facility] = found.facilities.as_slice() {
            entry = entry.at_facility(Some(*facility));
        }
        let logged = self.store.set_operator_enabled(operator, false, entry.build()).await?;
        self.tell_witness([Line::Operator { operator, enabled: false, at: self.now() }]);
        Ok(Came::at(logged.index, format!("{} is disabled", found.name)))
    }

    async fn withdraw_tokens(
        &self,
        who: &Principal,
        operator: OperatorId,
        only: Option<TokenId>,
        why: &str,
    ) -> Result<Came, FleetError> {
        self.check_shut_out(who, operator)?;
        let tokens = self.store.tokens_of_operator(operator)?;
        let meant = |id: TokenId| only.is_none_or(|only| only == id);
        let mut count = 0_u64;
        let mut index = None;
        for token in tokens.into_iter().filter(|token| !token.withdrawn && meant(token.id)) {
            let entry = Entry::done(who, "token.withdraw", self.now()).about(token.id).about(operator).because(why);
            index = Some(self.store.withdraw_token(token.id, entry.build()).await?.index);
            self.tell_witness([Line::TokenWithdrawn { token: token.id, at: self.now() }]);
            count += 1;
        }
        Ok(Came { index, ..Came::of(format!("{count} tokens withdrawn")) })
    }

    async fn withdraw_codes(&self, who: &Principal, codes: &[CodeId]) -> Result<Came, FleetError> {
        let mut count = 0_u64;
        for code in codes {
            match self.code_withdraw(who, *code).await {
                Ok(()) => count += 1,
                // Used or withdrawn: there is nothing to withdraw any more.
                Err(FleetError::Conflict { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Came::of(format!(
            "{count} codes withdrawn, {} were used or withdrawn",
            number(codes.len()).saturating_sub(count)
        )))
    }

    async fn cancel_proposals(&self, who: &Principal, operator: OperatorId, why: &str) -> Result<Came, FleetError> {
        let permit = authorize(who, Action::ProposalDecide, Target::Visible)?;
        let mut page = PageRequest { after: None, limit: Some(kf_api::page::MAX_LIMIT) };
        let mut count = 0_u64;
        loop {
            let found = self.store.proposals(Some(ProposalState::Waiting), permit.visibility(), &page)?;
            for proposal in found.items.iter().filter(|proposal| proposal.proposer == operator) {
                self.end_proposal(who, proposal, ProposalState::Cancelled, why).await?;
                count += 1;
            }
            page.after = found.next;
            if page.after.is_none() {
                return Ok(Came::of(format!("{count} proposals cancelled")));
            }
        }
    }

    async fn each_certificate(
        &self,
        who: &Principal,
        serials: &[SerialNumber],
        reason: RevocationReason,
        why: &str,
    ) -> Result<Came, FleetError> {
        let (mut count, mut index) = (0_u64, None);
        for serial in serials {
            let found = self.store.certificate(*serial, &who.visibility())?;
            let status = found.ok_or(FleetError::NotFound("certificate"))?.certificate.status;
            let there = match reason {
                RevocationReason::CertificateHold => status != CertificateStatus::Good,
                _ => status == CertificateStatus::Revoked,
            };
            if there {
                continue;
            }
            let resolved = self.resolve_revocation(who, &RevocationTarget::Certificate(*serial), reason)?;
            let outcome = self.carry_out_revocation(who, resolved, (why, false), &Consent::NotNeeded).await?;
            count += outcome.certificates;
            index = outcome.log_index;
        }
        Ok(Came {
            index,
            ..Came::of(format!(
                "{count} certificates changed, {} were so already",
                number(serials.len()).saturating_sub(count)
            ))
        })
    }

    async fn suspend_one(&self, who: &Principal, device: DeviceId, why: &str) -> Result<Came, FleetError> {
        let found = self.find_device(&device.to_string(), &who.visibility())?;
        if !found.state.may_enrol() {
            return Ok(Came::of(format!("was {} already", found.state)));
        }
        let target = DeviceTarget::Device { id: device, seen: found.state };
        self.suspend_many(who, target, Some(found.facility), why).await
    }

    async fn suspend_many(
        &self,
        who: &Principal,
        target: DeviceTarget,
        facility: Option<FacilityId>,
        why: &str,
    ) -> Result<Came, FleetError> {
        let permit = authorize(who, Action::DeviceSuspend, super::target_of(facility))?;
        let change =
            DeviceChange { target, to: DeviceState::Suspended, certificates: CertificateEffect::Hold, at: self.now() };
        let outcome = self
            .carry_out_change(who, change, (permit, facility), ("device.suspend", why), &Consent::NotNeeded)
            .await?;
        Ok(Came::many(&outcome, "suspended, on hold"))
    }

    async fn revoke_many(
        &self,
        who: &Principal,
        target: RevocationTarget,
        reason: RevocationReason,
        why: &str,
    ) -> Result<Came, FleetError> {
        let resolved = self.resolve_revocation(who, &target, reason)?;
        let outcome = self.carry_out_revocation(who, resolved, (why, false), &Consent::NotNeeded).await?;
        Ok(Came::many(&outcome, "revoked"))
    }

    async fn cancel_stolen(&self, who: &Principal, batch: BatchId, why: &str) -> Result<Came, FleetError> {
        let batch = batch.to_string();
        let (stored, _) = self.batch_for(who, &batch, Action::BatchCancel)?;
        if stored.batch.state == BatchState::Compromised {
            return Ok(Came::of("had ended as compromised already"));
        }
        let request = CancelBatch { compromised: true, ..CancelBatch::default() };
        let outcome = self.carry_out_cancellation(who, &batch, &request, why, &Consent::NotNeeded).await?;
        Ok(Came::many(&outcome, "ended with the batch"))
    }

    async fn advance_beyond(
        &self,
        who: &Principal,
        facility: FacilityId,
        beyond: u32,
        why: &str,
    ) -> Result<Came, FleetError> {
        let (newest, _) = self.store.newest_facility_epoch(facility)?;
        if newest > beyond {
            return Ok(Came::of(format!("epoch {newest} was there already")));
        }
        let outcome = self.carry_out_facility_advance(who, &facility.to_string(), why, &Consent::NotNeeded).await?;
        let epoch = outcome.epoch.unwrap_or_default();
        Ok(Came { index: outcome.log_index, ..Came::of(format!("epoch {epoch}, for devices at their next exchange")) })
    }

    /// Tells the brokers of what waits, and asks whether they confirmed it.
    async fn cut_sessions(&self) -> Result<Came, FleetError> {
        self.sign_due_crls().await;
        let brokers = self.attached_brokers().len();
        if brokers == 0 {
            return Ok(Came::of("no broker is attached: CRL and OCSP say it to whoever asks"));
        }
        self.turn_brokers().await;
        if self.broker_queue.is_settled() {
            return Ok(Came::of(format!("{brokers} brokers say that the devices are gone")));
        }
        Err(FleetError::conflict(
            "broker",
            "not every broker has confirmed that the devices are gone",
            "put the broker right and run the plan again; it is told again in the background",
        ))
    }
}

fn number(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

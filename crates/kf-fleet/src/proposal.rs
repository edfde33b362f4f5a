//! Acts that wait for a second person, or for a day in single-control mode.

use kf_access::{Action, Control, Principal, Stake, Target, Visibility, authorize};
use kf_api::proposal::{Proposal, ProposalDecision, ProposalState, ProposedAct};
use kf_api::revocation::RevokeOutcome;
use kf_api::{Page, PageRequest};
use kf_key::{FacilityId, OperatorId, ProposalId, UnixMillis};
use kf_log::AuditEntry;
use kf_store::Audit;
use kf_store::proposal::ProposalChange;

use crate::break_glass::is_behind_glass;
use crate::campaign::Seen;
use crate::entry::Entry;
use crate::naming::check_why;
use crate::revocation::nothing_done;
use crate::{Fleet, FleetError};

impl Fleet {
    /// Proposals the caller may see, newest first.
    ///
    /// # Errors
    /// [`FleetError::Denied`].
    pub async fn proposal_list(&self, who: &Principal, page: PageRequest) -> Result<Page<Proposal>, FleetError> {
        let permit = authorize(who, Action::ProposalRead, Target::Visible)?;
        Ok(self.store.proposals(None, permit.visibility(), &page)?)
    }

    /// One proposal.
    ///
    /// # Errors
    /// [`FleetError::NotFound`].
    pub async fn proposal_show(&self, who: &Principal, proposal: ProposalId) -> Result<Proposal, FleetError> {
        let permit = authorize(who, Action::ProposalRead, Target::Visible)?;
        self.store.proposal(proposal, permit.visibility())?.ok_or(FleetError::NotFound("proposal"))
    }

    /// Approves (and carries out) or cancels. Nobody approves an own proposal; everybody in scope may cancel.
    ///
    /// # Errors
    /// [`FleetError::NotFound`], [`FleetError::Denied`], [`FleetError::Conflict`] when it was decided or has lapsed.
    pub async fn proposal_decide(
        &self,
        who: &Principal,
        proposal: ProposalId,
        decision: ProposalDecision,
    ) -> Result<Proposal, FleetError> {
        check_why(&decision.why)?;
        let permit = authorize(who, Action::ProposalDecide, Target::Visible)?;
        let found = self.store.proposal(proposal, permit.visibility())?.ok_or(FleetError::NotFound("proposal"))?;
        if found.state != ProposalState::Waiting || found.expires <= self.now() {
            return Err(FleetError::conflict("proposal", "it does not wait any more", "propose the act again"));
        }
        if !decision.approve {
            return self.end_proposal(who, &found, ProposalState::Cancelled, &decision.why).await;
        }
        self.may_approve(who, &found)?;
        self.approve(who, found, &decision.why).await
    }

    /// A second person is another operator, in whose own scope the act lies; a delay is not shortened by anybody.
    fn may_approve(&self, who: &Principal, proposal: &Proposal) -> Result<(), FleetError> {
        if who.id == proposal.proposer.to_string() {
            return Err(FleetError::conflict(
                "proposal",
                "you proposed it yourself",
                "ask a second person with the scope for it",
            ));
        }
        if proposal.effective.is_some() {
            return Err(FleetError::conflict(
                "proposal",
                "it waits for its delay, not for a person",
                "wait, or cancel it",
            ));
        }
        Ok(())
    }

    /// Decision and act are one commit, so that two approvals carry it out once and a crash leaves both or neither. What the
    /// rules refuse turns the proposal into `Failed`; what the machine hinders lets it wait.
    async fn approve(&self, who: &Principal, proposal: Proposal, why: &str) -> Result<Proposal, FleetError> {
        self.check_proposed(who, &proposal.act).await?;
        let decided = match &proposal.act {
            ProposedAct::Destroy { .. }
            | ProposedAct::EndOwnership { .. }
            | ProposedAct::RetireBackup { .. }
            | ProposedAct::ReleaseEscrow { .. } => {
                return self.approve_outside(who, &proposal, why).await;
            }
            _ => self.carry_out(who, &proposal, &self.consent(who, &proposal, why)).await,
        };
        let after = self.store.proposal(proposal.id, &Visibility::Fleet)?.ok_or(FleetError::NotFound("proposal"))?;
        match decided {
            Ok(()) => Ok(after),
            Err(error) if after.state == ProposalState::Done => {
                tracing::warn!(proposal = %after.id, error = %error, "an approved act was done, and something after it failed");
                Ok(after)
            }
            Err(error) if error.is_refusal() && after.state == ProposalState::Waiting => {
                tracing::warn!(proposal = %after.id, error = %error, "an approved act was refused");
                let entry = Entry::done(who, "proposal.fail", self.now()).about(after.id).with("error", &error);
                let change = ProposalChange { id: after.id, to: ProposalState::Failed, by: who.id.parse().ok() };
                self.store.change_proposal(change, entry.build()).await?;
                Err(error)
            }
            Err(error) => Err(error),
        }
    }

    /// What is done outside the registry, in files or by people, is decided first; a crash between leaves it to the next start.
    async fn approve_outside(&self, who: &Principal, proposal: &Proposal, why: &str) -> Result<Proposal, FleetError> {
        let done = self.end_proposal(who, proposal, ProposalState::Done, why).await?;
        match &done.act {
            ProposedAct::Destroy { .. } => self.carry_out_destruction(&done).await,
            ProposedAct::EndOwnership { .. } => self.carry_out_ownership(&done).await,
            ProposedAct::RetireBackup { .. } => {
                if let Err(error) = self.finish_backup_retirements().await {
                    tracing::error!(proposal = %done.id, error = %error, "a backup is not retired; it is tried again");
                }
            }
            // The approval is all: whoever has the shares uses them under it, each logged.
            _ => {}
        }
        Ok(done)
    }

    fn consent(&self, who: &Principal, proposal: &Proposal, why: &str) -> Consent {
        let (change, entry) = self.decision(who, proposal, ProposalState::Done, why);
        Consent::Given(Box::new((change, entry)))
    }

    /// Asks, before the decision is recorded, whether the approver's own scope covers the act.
    async fn check_proposed(&self, who: &Principal, act: &ProposedAct) -> Result<(), FleetError> {
        match act {
            ProposedAct::Revoke { target, reason, .. } => {
                self.resolve_revocation(who, target, *reason)?;
            }
            ProposedAct::Decommission { target, departure, .. } => {
                let (_, scope, _) = self.decommission_of(who, target, *departure)?;
                authorize(who, Action::DeviceDecommission, scope)?;
            }
            ProposedAct::MoveDevice { .. } => {
                authorize(who, Action::DeviceMove, Target::Fleet)?;
            }
            ProposedAct::AdvanceFacilityEpoch { facility, .. } | ProposedAct::RetireEpoch { facility, .. } => {
                self.epoch_facility(who, facility, Action::EpochAdvance)?;
            }
            ProposedAct::AdvanceDeviceEpoch { device, .. } => {
                self.epoch_device(who, device, Action::EpochAdvance)?;
            }
            ProposedAct::StartCampaign { campaign, .. }
            | ProposedAct::EditCampaign { campaign, .. }
            | ProposedAct::RollBackCampaign { campaign, .. } => {
                self.managed_campaign(who, campaign)?;
            }
            ProposedAct::OrderDevice { device, .. } => {
                self.epoch_device(who, device, Action::OrderCreate)?;
            }
            ProposedAct::RetireBackup { backup, .. } => {
                self.backup_to_retire(who, *backup)?;
            }
            ProposedAct::ReleaseEscrow { ceremony, .. } => {
                self.escrow_to_release(who, ceremony)?;
            }
            ProposedAct::AcceptRestored { .. } => {
                self.acceptable_restored(who).await?;
            }
            ProposedAct::RetireAuthority { authority, .. } => {
                self.succession_to_retire(who, *authority)?;
            }
            ProposedAct::WithdrawAuthority { authority, .. } => {
                self.successor_to_withdraw(who, *authority)?;
            }
            ProposedAct::Destroy { target, station_records_erased, .. } => {
                self.destruction_of(who, target, *station_records_erased)?;
            }
            ProposedAct::EndOwnership { end, devices, .. } => {
                self.leaving_devices(who, *end, devices)?;
            }
            ProposedAct::CreateBreakGlass { new } => {
                self.break_glass_to_make(who, new)?;
            }
            ProposedAct::CreateBatch { batch, received, .. } => {
                self.plan_batch(who, batch, *received)?;
            }
            ProposedAct::CancelBatch { batch, .. } => {
                self.batch_for(who, batch, Action::BatchCancel)?;
            }
        }
        Ok(())
    }

    async fn carry_out(&self, who: &Principal, proposal: &Proposal, consent: &Consent) -> Result<(), FleetError> {
        match &proposal.act {
            ProposedAct::Revoke { target, reason, why } => {
                let resolved = self.resolve_revocation(who, target, *reason)?;
                self.carry_out_revocation(who, resolved, (why, false), consent).await.map(drop)
            }
            ProposedAct::Decommission { target, departure, why } => {
                self.carry_out_decommission(who, target, *departure, why, consent).await.map(drop)
            }
            ProposedAct::MoveDevice { device, facility, why } => {
                self.carry_out_move(who, device, facility, why, consent).await.map(drop)
            }
            ProposedAct::AdvanceFacilityEpoch { facility, why } => {
                self.carry_out_facility_advance(who, facility, why, consent).await.map(drop)
            }
            ProposedAct::AdvanceDeviceEpoch { device, why } => {
                self.carry_out_device_advance(who, device, why, consent).await.map(drop)
            }
            ProposedAct::OrderDevice { device, order, lifetime_hours, why } => {
                self.carry_out_order(who, device, *order, (*lifetime_hours, why), consent).await.map(drop)
            }
            ProposedAct::CreateBatch { batch, received, why } => {
                self.carry_out_batch(who, batch, *received, why, consent).await.map(drop)
            }
            ProposedAct::CancelBatch { batch, request, why } => {
                self.carry_out_cancellation(who, batch, request, why, consent).await.map(drop)
            }
            ProposedAct::StartCampaign { campaign, state, wave, version, allow_empty, why } => {
                let seen = Seen { state: *state, wave: *wave, version: *version, allow_empty: *allow_empty };
                self.carry_out_campaign(who, campaign, seen, why, consent).await.map(drop)
            }
            ProposedAct::EditCampaign { campaign, version, plan, why } => {
                self.carry_out_edit(who, campaign, (*version, *plan, None), why, consent).await.map(drop)
            }
            ProposedAct::RollBackCampaign { campaign, why } => {
                self.carry_out_rollback(who, campaign, why, consent).await.map(drop)
            }
            ProposedAct::RetireEpoch { facility, epoch, why } => {
                self.carry_out_retirement(who, facility, *epoch, why, consent).await.map(drop)
            }
            ProposedAct::CreateBreakGlass { new } => self.carry_out_break_glass(who, proposal, new, consent).await,
            ProposedAct::AcceptRestored { why } => self.carry_out_acceptance(who, why, consent).await.map(drop),
            ProposedAct::RetireAuthority { authority, stranded, why } => {
                self.carry_out_retirement_of_root(who, *authority, (*stranded, why), consent).await.map(drop)
            }
            ProposedAct::WithdrawAuthority { authority, trusting, why } => {
                self.carry_out_withdrawal(who, *authority, (*trusting, why), consent).await.map(drop)
            }
            ProposedAct::Destroy { .. }
            | ProposedAct::EndOwnership { .. }
            | ProposedAct::RetireBackup { .. }
            | ProposedAct::ReleaseEscrow { .. } => {
                Err(FleetError::Bug("what is done outside the registry has no commit to share"))
            }
        }
    }

    /// Carries out at once what one person may (`None`), or records a proposal.
    pub(crate) async fn propose_if_needed(
        &self,
        who: &Principal,
        act: ProposedAct,
        stake: Stake,
        certificates: u64,
        facility: Option<FacilityId>,
    ) -> Result<Option<RevokeOutcome>, FleetError> {
        let control = match self.dual_control().control(stake, self.now()) {
            // Behind broken glass one person stops, and ends what is in their scope, at any scale; the roles and the list of
            // `Action::in_break_glass` say what.
            _ if is_behind_glass(who) && !stake.crosses_facilities && !stake.kills_authority => Control::Single,
            control => control,
        };
        self.propose(who, act, control, (stake.devices, certificates), facility).await
    }

    /// Records a proposal, unless one person may act at once (`None`).
    pub(crate) async fn propose(
        &self,
        who: &Principal,
        act: ProposedAct,
        control: Control,
        (devices, certificates): (u64, u64),
        facility: Option<FacilityId>,
    ) -> Result<Option<RevokeOutcome>, FleetError> {
        let now = self.now();
        let (expires, effective) = match control {
            Control::Single => return Ok(None),
            Control::Second { expires } => (expires, None),
            Control::Delayed { effective } => (effective.plus(7 * UnixMillis::DAY), Some(effective)),
        };
        let proposer: OperatorId =
            who.id.parse().map_err(|_not_an_operator| FleetError::Bug("the server proposed an act"))?;
        let proposal = Proposal {
            id: ProposalId::from_parts(now, kf_crypto::random_array()?),
            act,
            devices,
            certificates,
            proposer,
            proposer_name: who.name.clone(),
            decided_by: None,
            created: now,
            expires,
            effective,
            state: ProposalState::Waiting,
        };
        let id = proposal.id;
        let entry = self
            .evidence(Entry::done(who, "proposal.create", now))
            .about(id)
            .at_facility(facility)
            .with("act", act_name(&proposal.act))
            .with("devices", devices)
            .with("certificates", certificates);
        self.store.insert_proposal(proposal, facility, entry.build()).await?;
        Ok(Some(RevokeOutcome { proposal: Some(id), certificates, devices, ..nothing_done() }))
    }

    /// Carries out delayed acts that nobody cancelled, in the name of who proposed them, and lapses the others.
    pub(crate) async fn turn_proposals(&self) -> Result<(), FleetError> {
        let server = Self::server_principal();
        for proposal in self.store.due_proposals(self.now())? {
            if let Err(error) = self.approve(&server, proposal, "the delay of single control is over").await {
                tracing::warn!(error = %error, "a delayed act was not carried out");
            }
        }
        for proposal in self.store.lapsed_proposals(self.now())? {
            self.end_proposal(&server, &proposal, ProposalState::Expired, "nobody approved in time").await?;
        }
        Ok(())
    }

    pub(crate) async fn end_proposal(
        &self,
        who: &Principal,
        proposal: &Proposal,
        to: ProposalState,
        why: &str,
    ) -> Result<Proposal, FleetError> {
        let (change, entry) = self.decision(who, proposal, to, why);
        Ok(self.store.change_proposal(change, entry).await?.value)
    }

    /// A decision, and its entry.
    fn decision(
        &self,
        who: &Principal,
        proposal: &Proposal,
        to: ProposalState,
        why: &str,
    ) -> (ProposalChange, AuditEntry) {
        let act = match to {
            ProposalState::Done => "proposal.approve",
            ProposalState::Cancelled => "proposal.cancel",
            _ => "proposal.lapse",
        };
        let entry = self
            .evidence(Entry::done(who, act, self.now()))
            .about(proposal.id)
            .because(why)
            .with("proposer", proposal.proposer)
            .with("act", act_name(&proposal.act));
        (ProposalChange { id: proposal.id, to, by: who.id.parse().ok() }, entry.build())
    }
}

/// Whose consent an act is carried out with.
#[derive(Debug)]
pub(crate) enum Consent {
    /// One person may do it, or what asked for consent is recorded elsewhere.
    NotNeeded,
    /// It was proposed: the approval, with its entry, commits together with the act or not at all.
    Given(Box<(ProposalChange, AuditEntry)>),
}

impl Consent {
    /// What is committed with the act.
    pub(crate) fn with(&self, act: AuditEntry) -> Audit {
        let audit = Audit::from(act);
        match self {
            Self::NotNeeded => audit,
            Self::Given(decision) => {
                let (change, entry) = &**decision;
                audit.deciding(*change, entry.clone())
            }
        }
    }
}

const fn act_name(act: &ProposedAct) -> &'static str {
    match act {
        ProposedAct::Revoke { .. } => "certificate.revoke",
        ProposedAct::Decommission { .. } => "device.decommission",
        ProposedAct::MoveDevice { .. } => "device.move",
        ProposedAct::AdvanceFacilityEpoch { .. } | ProposedAct::AdvanceDeviceEpoch { .. } => "epoch.advance",
        ProposedAct::RetireEpoch { .. } => "epoch.retire",
        ProposedAct::RetireAuthority { .. } => "authority.retire",
        ProposedAct::WithdrawAuthority { .. } => "authority.withdraw",
        ProposedAct::OrderDevice { .. } => "order.create",
        ProposedAct::StartCampaign { .. } => "campaign.start",
        ProposedAct::EditCampaign { .. } => "campaign.edit",
        ProposedAct::RollBackCampaign { .. } => "campaign.roll-back",
        ProposedAct::Destroy { .. } => "key.destroy",
        ProposedAct::EndOwnership { .. } => "ownership.end",
        ProposedAct::CreateBreakGlass { .. } => "break-glass.create",
        ProposedAct::RetireBackup { .. } => "backup.retire",
        ProposedAct::AcceptRestored { .. } => "restore.accept",
        ProposedAct::ReleaseEscrow { .. } => "escrow.release",
        ProposedAct::CreateBatch { .. } => "batch.create",
        ProposedAct::CancelBatch { .. } => "batch.cancel",
    }
}

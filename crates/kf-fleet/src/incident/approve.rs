//! Plans: made by one person, agreed to by another.

use kf_access::{Action, Principal, Scope, authorize};
use kf_api::incident::{
    Approval, ApprovalRequest, Hit, Incident, Plan, PlanRequest, PlanStanding, PlanStep, StepAct, StepControl,
    StepStanding, StepState,
};
use kf_incident::{Permission, permission};
use kf_key::{IncidentId, OperatorId, UnixMillis};
use kf_store::incident::{StepRow, StoredPlan};

use crate::entry::Entry;
use crate::naming::check_why;
use crate::{Fleet, FleetError};

/// How long an approval counts. A day, and not the week of a proposal: what is agreed to is a state of a fleet under attack.
pub(crate) const APPROVAL_LIFETIME: u64 = UnixMillis::DAY;

/// The name of a step in the registry: what it does, so that a plan made anew finds its steps again.
pub(crate) fn step_key(step: &StepAct) -> Result<[u8; 32], FleetError> {
    let text = serde_json::to_vec(step).map_err(|_unwritable| FleetError::Bug("a step that cannot be written"))?;
    Ok(kf_crypto::sha256(&text))
}

impl Fleet {
    /// Makes the plan of an incident from what registry and log say now, and puts it in force. The same plan again changes
    /// nothing; another one makes every approval void.
    ///
    /// # Errors
    /// [`FleetError::NotFound`], [`FleetError::Denied`], [`FleetError::Conflict`] when it is closed.
    pub async fn incident_plan(
        &self,
        who: &Principal,
        id: IncidentId,
        request: PlanRequest,
    ) -> Result<PlanStanding, FleetError> {
        let incident = self.open_incident_for(who, id, Action::IncidentManage)?;
        let (plan, sha256) = self.fresh_plan(&incident)?;
        let now = self.now();
        let planned_by: OperatorId =
            who.id.parse().map_err(|_not_an_operator| FleetError::Bug("the server planned an incident"))?;
        let effective = self.config.single_control.then(|| now.plus(self.dual_control().delay));
        let stored = self.store.incident_plan(id)?;
        let fresh = match stored {
            Some(stored) if stored.sha256 == sha256 => return self.standing_of(&incident, stored),
            _ => StoredPlan { plan, sha256, planned_by, planned_by_name: who.name.clone(), planned: now, effective },
        };
        if !request.dry_run {
            let permanent = fresh.plan.steps.iter().filter(|step| step.control == StepControl::Two).count();
            let entry = self
                .evidence(Entry::done(who, "incident.plan", now))
                .about(id)
                .at_facility(incident.facility)
                .with("plan_sha256", &fresh.sha256)
                .with("steps", fresh.plan.steps.len())
                .with("permanent", permanent);
            self.store.set_incident_plan(fresh.clone(), entry.build()).await?;
        }
        self.standing_of(&incident, fresh)
    }

    /// Agrees to the plan that is in force, as the second person.
    ///
    /// # Errors
    /// [`FleetError::Conflict`] for whoever made it, for another plan than the one in force, for one that registry and log
    /// no longer bear out, and in single-control mode; [`FleetError::NotFound`], [`FleetError::Denied`] also for a step
    /// that lies outside the approver's scope.
    pub async fn incident_approve(
        &self,
        who: &Principal,
        id: IncidentId,
        request: ApprovalRequest,
    ) -> Result<PlanStanding, FleetError> {
        check_why(&request.why)?;
        let incident = self.open_incident_for(who, id, Action::IncidentApprove)?;
        let stored = self.plan_in_force(id)?;
        let operator: OperatorId =
            who.id.parse().map_err(|_not_an_operator| FleetError::Bug("the server approved an incident"))?;
        self.may_agree((operator, who.break_glass.is_some()), &stored, &request)?;
        if self.fresh_plan(&incident)?.1 != stored.sha256 {
            return Err(plan_changed());
        }
        for step in stored.plan.steps.iter().filter(|step| step.control == StepControl::Two) {
            match self.check_step(who, step) {
                // What may not be done behind glass waits for somebody else, and does not hold up the rest.
                Err(FleetError::Denied(_)) if who.break_glass.is_some() => {}
                checked => checked?,
            }
        }
        let now = self.now();
        let approval = Approval {
            operator,
            name: who.name.clone(),
            break_glass: who.break_glass,
            plan_sha256: stored.sha256.clone(),
            at: now,
            expires: now.plus(APPROVAL_LIFETIME),
            why: request.why.clone(),
        };
        let entry = self
            .evidence(Entry::done(who, "incident.approve", now))
            .about(id)
            .at_facility(incident.facility)
            .because(&request.why)
            .with("plan_sha256", &stored.sha256)
            .with("planned_by", stored.planned_by)
            .with("expires", approval.expires.0);
        self.store.approve_incident_plan(id, approval, entry.build()).await?;
        self.standing_of(&incident, stored)
    }

    fn may_agree(
        &self,
        (operator, behind_glass): (OperatorId, bool),
        stored: &StoredPlan,
        request: &ApprovalRequest,
    ) -> Result<(), FleetError> {
        let conflict = |problem: &str, remedy: &str| Err(FleetError::conflict("plan", problem, remedy));
        if stored.effective.is_some() {
            return conflict("it waits for its delay, not for a person", "wait, or make another plan");
        }
        if stored.planned_by == operator && !behind_glass {
            return conflict("you made it yourself", "ask a second person with the scope for it");
        }
        if stored.sha256 != request.plan_sha256 {
            return conflict(
                "another plan is in force by now",
                "read it with `keyfleet incident show`, then approve it",
            );
        }
        Ok(())
    }

    /// The plan as registry and log give it now, and its digest.
    pub(crate) fn fresh_plan(&self, incident: &Incident) -> Result<(Plan, String), FleetError> {
        let facts = self.incident_facts(incident)?;
        let plan = kf_incident::plan(incident, &facts, &self.incident_rates()?);
        let sha256 = kf_incident::plan_sha256(incident, &plan);
        Ok((plan, sha256))
    }

    pub(crate) fn plan_in_force(&self, id: IncidentId) -> Result<StoredPlan, FleetError> {
        self.store
            .incident_plan(id)?
            .ok_or_else(|| FleetError::conflict("plan", "none was made yet", "make one with `keyfleet incident plan`"))
    }

    pub(crate) fn plan_standing(&self, incident: &Incident) -> Result<Option<PlanStanding>, FleetError> {
        self.store.incident_plan(incident.id)?.map(|stored| self.standing_of(incident, stored)).transpose()
    }

    /// A plan with its approvals and how far it is.
    pub(crate) fn standing_of(&self, incident: &Incident, stored: StoredPlan) -> Result<PlanStanding, FleetError> {
        let rows = self.store.incident_steps(incident.id)?;
        let permitted = self.permission_of(incident, &stored)? == Permission::Given;
        let StoredPlan { plan, sha256, planned_by, planned_by_name, planned, effective } = stored;
        let estimated_seconds = plan.steps.iter().filter_map(|step| step.estimate.seconds).sum();
        let steps = plan.steps.into_iter().map(|step| standing(step, &rows)).collect::<Result<_, _>>()?;
        Ok(PlanStanding {
            approvals: self.store.incident_approvals(incident.id, &sha256)?,
            plan_sha256: sha256,
            planned_by,
            planned_by_name,
            planned,
            effective,
            approved: permitted,
            steps,
            estimated_seconds,
        })
    }

    /// Whether permanent steps may be run now. Approvals of people who are disabled by now, or whose credential turned out to
    /// be a subject, do not count.
    pub(crate) fn permission_of(&self, incident: &Incident, stored: &StoredPlan) -> Result<Permission, FleetError> {
        let mut approvals = Vec::new();
        for approval in self.store.incident_approvals(incident.id, &stored.sha256)? {
            let enabled = self.store.operator(approval.operator)?.is_some_and(|operator| operator.enabled);
            let subject = incident.subjects.iter().any(|subject| match &subject.hit {
                Hit::Operator(id) | Hit::Station(id) => *id == approval.operator,
                _ => false,
            });
            if enabled && !subject {
                approvals.push(approval);
            }
        }
        Ok(permission(&stored.sha256, stored.planned_by, &approvals, stored.effective, self.now()))
    }

    /// Whether somebody may do a step, by the action that it would take without an incident.
    pub(crate) fn check_step(&self, who: &Principal, step: &PlanStep) -> Result<(), FleetError> {
        let (action, target) = match &step.step {
            StepAct::StopFacilityIssuance { facility } => (Action::IssuanceStop, Some(*facility)),
            StepAct::StopAuthorityIssuance { .. } => (Action::IssuanceStop, None),
            StepAct::StartFacilityIssuance { facility } => (Action::IssuanceStart, Some(*facility)),
            StepAct::DisableOperator { operator } | StepAct::WithdrawTokens { operator, .. } => {
                return self.check_shut_out(who, *operator);
            }
            StepAct::WithdrawCodes { .. } => (Action::CodeManage, step.facility),
            StepAct::CancelProposals { .. } => (Action::ProposalDecide, step.facility),
            StepAct::HoldCertificates { .. } => (Action::CertificateHold, step.facility),
            StepAct::RevokeCertificates { .. } => (Action::CertificateRevoke, step.facility),
            StepAct::SuspendDevice { .. } | StepAct::SuspendBatch { .. } | StepAct::SuspendFacility { .. } => {
                (Action::DeviceSuspend, step.facility)
            }
            StepAct::CutSessions { .. } => (Action::CertificateHold, step.facility),
            StepAct::BlockKey { .. } => (Action::KeyBlock, None),
            StepAct::RevokeDevice { .. } | StepAct::RevokeFacility { .. } | StepAct::RevokeBatch { .. } => {
                (Action::CertificateRevoke, step.facility)
            }
            StepAct::RevokeAuthority { .. } => (Action::AuthorityRevoke, None),
            StepAct::CancelBatch { .. } => (Action::BatchCancel, step.facility),
            StepAct::AdvanceFacilityEpoch { .. } | StepAct::AdvanceDeviceEpoch { .. } => {
                (Action::EpochAdvance, step.facility)
            }
            StepAct::ByHand { .. } => (Action::IncidentManage, step.facility),
        };
        authorize(who, action, super::target_of(target))?;
        Ok(())
    }

    /// Who may shut an operator out: somebody whose scope contains the operator's, and for an owner another owner.
    pub(crate) fn check_shut_out(&self, who: &Principal, operator: OperatorId) -> Result<(), FleetError> {
        use kf_api::operator::Role;
        let found = self.store.operator(operator)?.ok_or(FleetError::NotFound("operator"))?;
        if found.facilities.is_empty() {
            authorize(who, Action::OperatorShutOut, kf_access::Target::Fleet)?;
        }
        for facility in &found.facilities {
            authorize(who, Action::OperatorShutOut, kf_access::Target::Facility(*facility))?;
        }
        if found.role == Role::Owner && who.role != Role::Owner {
            return Err(FleetError::Forbidden {
                field: "operator".into(),
                problem: format!("{} is an owner", found.name),
                remedy: "another owner runs the plan".into(),
            });
        }
        debug_assert!(who.scope == Scope::Fleet || !found.facilities.is_empty(), "the scope was asked for above");
        Ok(())
    }
}

/// The refusal of a plan that registry and log no longer bear out.
pub(crate) fn plan_changed() -> FleetError {
    FleetError::conflict(
        "plan",
        "the fleet has changed since it was made: it would touch other things than were agreed to",
        "make it anew with `keyfleet incident plan`, and have it approved",
    )
}

/// A step with how far it is.
fn standing(step: PlanStep, rows: &[StepRow]) -> Result<StepStanding, FleetError> {
    let key = step_key(&step.step)?;
    let row = rows.iter().find(|row| row.step == key);
    let state = match row {
        Some(StepRow { ended: Some(_), .. }) => StepState::Done,
        _ if step.control == StepControl::Hand => StepState::Hand,
        Some(_) => StepState::Begun,
        None => StepState::Waiting,
    };
    Ok(StepStanding {
        step,
        state,
        outcome: row.and_then(|row| row.outcome.clone()),
        begun: row.map(|row| row.begun),
        ended: row.and_then(|row| row.ended),
        log_index: row.and_then(|row| row.index),
    })
}

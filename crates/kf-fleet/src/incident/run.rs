//! Runs of plans.
//!
//! Each step is begun and ended in commits of their own, and its act lies between them. Whatever moment a run is cut short at, the next
//! one does the step again that has no end; every act is one that does no harm the second time.

use kf_access::{Action, Principal};
use kf_api::incident::{
    Incident, IncidentClosing, PlanStep, RunOutcome, RunRequest, StepControl, StepStanding, StepState, Verdict,
};
use kf_incident::{Next, next};
use kf_key::IncidentId;
use kf_log::Phase;
use kf_store::incident::{StepEnd, StoredPlan};

use super::approve::{plan_changed, step_key};
use super::step::Came;
use crate::entry::Entry;
use crate::naming::check_why;
use crate::{Fleet, FleetError};

/// Held by a run: two at once would do each step twice. Nobody waits here who only stops something one by one.
static RUNS: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

impl Fleet {
    /// Does what the plan in force asks for, as far as that goes without a person, and says what it waits for.
    ///
    /// # Errors
    /// [`FleetError::NotFound`], [`FleetError::Denied`], [`FleetError::Conflict`] without a plan; what keeps the registry from
    /// being written. What was done before an error stays done, and the next run goes on there.
    pub async fn incident_run(
        &self,
        who: &Principal,
        id: IncidentId,
        request: RunRequest,
    ) -> Result<RunOutcome, FleetError> {
        check_why(&request.why)?;
        let _one = RUNS.lock().await;
        let incident = self.open_incident_for(who, id, Action::IncidentManage)?;
        let stored = self.plan_in_force(id)?;
        let mut done = self.record_by_hand(who, &incident, &stored, &request).await?;
        let mut out_of_reach = Vec::new();
        let most = request.at_most.map_or(usize::MAX, |most| usize::try_from(most.max(1)).unwrap_or(usize::MAX));
        let (mut more, mut run) = (false, 0_usize);
        let waits = loop {
            let steps = self.standing_of(&incident, stored.clone())?.steps;
            let permission = self.permission_of(&incident, &stored)?;
            let number = match next(&steps, &permission, &out_of_reach) {
                Next::Do(_) if run >= most => {
                    more = true;
                    break Vec::new();
                }
                Next::Do(number) => number,
                Next::Waits(waits) => break waits,
                Next::Finished => break Vec::new(),
            };
            let step = steps.iter().map(|standing| &standing.step).find(|step| step.number == number);
            let step = step.ok_or(FleetError::Bug("a step that is not in its plan"))?;
            match self.run_step(who, &incident, &stored, step).await? {
                None => {
                    done.push(number);
                    run += 1;
                }
                Some(why) => out_of_reach.push((number, why)),
            }
        };
        let steps = self.standing_of(&incident, stored)?.steps;
        let left = steps.iter().filter(|step| step.state != StepState::Done);
        let finished = left.clone().all(|step| step.state == StepState::Hand);
        let left = u64::try_from(left.count()).unwrap_or(u64::MAX);
        let done = steps.into_iter().filter(|standing| done.contains(&standing.step.number)).collect();
        Ok(RunOutcome { incident: id, done, left, finished, more, waits })
    }

    /// Does one step; why not, where that is for people to mend.
    async fn run_step(
        &self,
        who: &Principal,
        incident: &Incident,
        stored: &StoredPlan,
        step: &PlanStep,
    ) -> Result<Option<String>, FleetError> {
        if let Err(error) = self.check_step(who, step) {
            return blocked(error);
        }
        if step.control == StepControl::Two && self.fresh_plan(incident)?.1 != stored.sha256 {
            return blocked(plan_changed());
        }
        let key = step_key(&step.step)?;
        let entry = |phase: Phase| {
            let entry = Entry::done(who, "incident.step", self.now()).phase(phase);
            self.evidence(entry)
                .about(incident.id)
                .at_facility(incident.facility)
                .with("plan_sha256", &stored.sha256)
                .with("step", step.number)
                .with("what", &step.what)
        };
        self.store.begin_incident_step(incident.id, key, self.now(), entry(Phase::Intent).build()).await?;
        let why = format!("incident {}: {}", incident.id, incident.why);
        let why: String = why.chars().take(500).collect();
        let Came { outcome, devices, index } = match self.do_step(who, step, &why).await {
            Ok(came) => came,
            Err(error) => return blocked(error),
        };
        let mut entry = entry(Phase::Outcome).with("outcome", &outcome);
        if let Some(index) = index {
            entry = entry.with("log_index", index);
        }
        let end = StepEnd { incident: incident.id, step: key, at: self.now(), outcome, devices };
        self.store.end_incident_step(end, entry.build()).await?;
        Ok(None)
    }

    /// Records what people did by hand; the numbers of the steps.
    async fn record_by_hand(
        &self,
        who: &Principal,
        incident: &Incident,
        stored: &StoredPlan,
        request: &RunRequest,
    ) -> Result<Vec<u32>, FleetError> {
        if !request.by_hand.is_empty() && request.why.trim().is_empty() {
            return Err(FleetError::invalid("why", "is missing", "say what was done by hand"));
        }
        let mut recorded = Vec::new();
        for number in &request.by_hand {
            let steps = self.standing_of(incident, stored.clone())?.steps;
            let standing = steps.into_iter().find(|standing| standing.step.number == *number);
            let standing = standing.filter(|standing| standing.step.control == StepControl::Hand).ok_or_else(|| {
                FleetError::invalid(
                    "by_hand",
                    format!("step {number} is not one that is done by hand"),
                    "see `keyfleet incident show`: steps of control `hand`",
                )
            })?;
            if standing.state == StepState::Done {
                continue;
            }
            let key = step_key(&standing.step.step)?;
            let entry = |phase: Phase| {
                Entry::done(who, "incident.step", self.now())
                    .phase(phase)
                    .about(incident.id)
                    .at_facility(incident.facility)
                    .because(&request.why)
                    .with("step", number)
                    .with("what", &standing.step.what)
                    .with("by_hand", true)
                    .build()
            };
            self.store.begin_incident_step(incident.id, key, self.now(), entry(Phase::Intent)).await?;
            let outcome = format!("by hand, says {}: {}", who.name, request.why);
            let outcome = outcome.chars().take(240).collect();
            let end = StepEnd { incident: incident.id, step: key, at: self.now(), outcome, devices: None };
            self.store.end_incident_step(end, entry(Phase::Outcome)).await?;
            recorded.push(*number);
        }
        Ok(recorded)
    }

    /// Closes an incident. `recovered` means that every step is done, those by hand included.
    ///
    /// # Errors
    /// [`FleetError::Conflict`] naming what is left; [`FleetError::Invalid`] without a reason for the other verdicts.
    pub async fn incident_close(
        &self,
        who: &Principal,
        id: IncidentId,
        closing: IncidentClosing,
    ) -> Result<Incident, FleetError> {
        check_why(&closing.why)?;
        let incident = self.open_incident_for(who, id, Action::IncidentManage)?;
        match closing.verdict {
            Verdict::Recovered => self.check_recovered(&incident)?,
            Verdict::Accepted | Verdict::FalseAlarm if closing.why.trim().is_empty() => {
                return Err(FleetError::invalid("why", "is missing", "say why the incident ends here"));
            }
            Verdict::Accepted | Verdict::FalseAlarm => {}
        }
        let now = self.now();
        let closed = Incident {
            state: kf_api::incident::IncidentState::Closed,
            closed: Some(now),
            verdict: Some(closing.verdict),
            closing: Some(closing.why.clone()),
            ..incident
        };
        let verdict = serde_json::to_value(closing.verdict).ok().and_then(|text| text.as_str().map(str::to_owned));
        let entry = self
            .evidence(Entry::done(who, "incident.close", now))
            .about(id)
            .at_facility(closed.facility)
            .because(&closing.why)
            .with("verdict", verdict.unwrap_or_default());
        self.store.close_incident(closed.clone(), entry.build()).await?;
        Ok(closed)
    }

    fn check_recovered(&self, incident: &Incident) -> Result<(), FleetError> {
        let stored = self.plan_in_force(incident.id)?;
        let steps = self.standing_of(incident, stored)?.steps;
        let left = |standing: &StepStanding| standing.state != StepState::Done;
        let left: Vec<_> =
            steps.iter().filter(|standing| left(standing)).map(|one| one.step.number.to_string()).collect();
        if left.is_empty() {
            return Ok(());
        }
        Err(FleetError::conflict(
            "verdict",
            format!("steps {} are not done", left.join(", ")),
            "run the plan, record what was done by hand (`keyfleet incident run --by-hand N`), or close it as accepted with the reason",
        ))
    }
}

/// An error that people can mend becomes what the run waits for; the others end it.
fn blocked(error: FleetError) -> Result<Option<String>, FleetError> {
    match error {
        FleetError::Conflict { field, problem, remedy } | FleetError::Forbidden { field, problem, remedy } => {
            Ok(Some(format!("{field}: {problem}; {remedy}")))
        }
        FleetError::Denied(denied) => Ok(Some(format!("{denied}: somebody with the scope for it runs the plan"))),
        FleetError::NotFound(what) => {
            Ok(Some(format!("there is no {what} for you: somebody with the scope for it runs the plan")))
        }
        other => Err(other),
    }
}

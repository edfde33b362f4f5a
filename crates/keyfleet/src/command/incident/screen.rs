//! Incidents for people.

use std::fmt::Write as _;

use kf_api::incident::{
    BlastRadius, IncidentDetail, IncidentOpened, PlanStanding, RunOutcome, StepControl, StepStanding, StepState,
};

use crate::moment;
use crate::output::printable;

/// Adds a line without what a terminal would obey; writing to a string cannot fail.
macro_rules! line {
    ($text:expr, $($argument:tt)*) => {
        let _written = writeln!($text, "{}", printable(&format!($($argument)*)));
    };
}

pub(super) fn opened(opened: &IncidentOpened) -> String {
    let mut text = String::new();
    if let Some(incident) = &opened.incident {
        line!(text, "{} may have begun {}", incident.id, moment::text(incident.since));
    }
    radius(&mut text, &opened.radius);
    text
}

pub(super) fn detail(detail: &IncidentDetail) -> String {
    let incident = &detail.incident;
    let mut text = String::new();
    line!(text, "{} {}", incident.id, incident.state.name());
    let subjects: Vec<_> = incident.subjects.iter().map(|subject| subject.name.as_str()).collect();
    line!(text, "about       {}", subjects.join(", "));
    line!(text, "since       {}", moment::text(incident.since));
    line!(text, "opened      {} by {}: {}", moment::text(incident.opened), incident.opened_by_name, incident.why);
    if let (Some(closed), Some(verdict)) = (incident.closed, incident.verdict) {
        let closing = incident.closing.as_deref().map(|closing| format!(": {closing}")).unwrap_or_default();
        line!(text, "closed      {}, {}{closing}", moment::text(closed), verdict.name());
    }
    radius(&mut text, &detail.radius);
    match &detail.plan {
        Some(standing) => text.push_str(&plan(standing)),
        None => {
            line!(text, "no plan yet: keyfleet incident plan {}", incident.id);
        }
    }
    text
}

fn radius(text: &mut String, radius: &BlastRadius) {
    line!(text, "reaches     {} devices, {} certificates", radius.devices, radius.certificates);
    for facility in &radius.facilities {
        line!(text, "  at        {}: {} of {} devices", facility.name, facility.devices, facility.of_devices);
    }
    for keys in &radius.keys {
        line!(text, "  keys      {} × {} ({}): {}", keys.keys, keys.class, keys.reach.name(), keys.why);
    }
    for window in &radius.windows {
        let (from, until) = (moment::text(window.from), moment::text(window.until));
        line!(text, "  data      {}: {from} to {until}; {}", window.what, window.why);
    }
    for acts in &radius.acts {
        let by_act: Vec<_> = acts.by_act.iter().map(|(act, count)| format!("{count} × {act}")).collect();
        let by_act = if by_act.is_empty() { "nothing by the log".to_owned() } else { by_act.join(", ") };
        line!(text, "  acts      {} of {}: {by_act}", acts.entries, acts.name);
    }
    for safe in &radius.safe {
        line!(text, "  safe      {}: {}", safe.what, safe.why);
    }
    for unknown in &radius.unknown {
        line!(text, "  unknown   {unknown}");
    }
}

pub(super) fn plan(plan: &PlanStanding) -> String {
    let mut text = String::new();
    line!(text, "plan {} by {}, {}", plan.plan_sha256, plan.planned_by_name, moment::text(plan.planned));
    for standing in &plan.steps {
        step(&mut text, standing);
    }
    let estimated = moment::period(plan.estimated_seconds);
    line!(text, "about {estimated} without hands and devices (an estimate)");
    for approval in &plan.approvals {
        line!(text, "approved by {} until {}", approval.name, moment::text(approval.expires));
    }
    let is_open = |step: &StepStanding| step.step.control == StepControl::Two && step.state != StepState::Done;
    match (plan.approved, plan.effective) {
        _ if !plan.steps.iter().any(is_open) => {}
        (true, _) => {
            line!(text, "permanent steps may be run");
        }
        (false, Some(effective)) => {
            line!(text, "single control: permanent steps may be run from {}", moment::text(effective));
        }
        (false, None) => {
            line!(text, "permanent steps wait for a second person: keyfleet incident approve");
        }
    }
    text
}

fn step(text: &mut String, standing: &StepStanding) {
    let state = match standing.state {
        StepState::Waiting => "waits",
        StepState::Begun => "begun",
        StepState::Done => "done",
        StepState::Hand => "hand",
    };
    let control = match standing.step.control {
        StepControl::One => "at once",
        StepControl::Two => "two people",
        StepControl::Hand => "by hand",
    };
    let outcome = standing.outcome.as_deref().map(|outcome| format!(": {outcome}")).unwrap_or_default();
    line!(text, "{:>3} {state:5} {control:10} {}{outcome}", standing.step.number, standing.step.what);
    line!(text, "                     because {}", standing.step.why);
}

pub(super) fn ran(outcome: &RunOutcome) -> String {
    let mut text = String::new();
    line!(text, "{} steps done, {} left", outcome.done.len(), outcome.left);
    for waits in &outcome.waits {
        line!(text, "waits: {waits}");
    }
    if outcome.finished && outcome.left > 0 {
        line!(text, "what is left is by hand: keyfleet incident show {}", outcome.incident);
    }
    if outcome.finished && outcome.left == 0 {
        line!(text, "everything is done: keyfleet incident close {} --verdict recovered", outcome.incident);
    }
    text
}

//! A report for people, in Markdown.

use std::fmt::Write as _;

use kf_api::incident::{IncidentReport, StepState};
use kf_key::UnixMillis;

/// The report as Markdown. `moment` writes a moment; what came from people is made harmless.
#[must_use]
pub fn markdown(report: &IncidentReport, moment: impl Fn(UnixMillis) -> String) -> String {
    let mut text = String::new();
    head(&mut text, report, &moment);
    reach(&mut text, report, &moment);
    steps(&mut text, report, &moment);
    timeline(&mut text, report, &moment);
    text
}

/// Adds a line; writing to a string cannot fail.
macro_rules! line {
    ($text:expr, $($argument:tt)*) => { let _written = writeln!($text, $($argument)*); };
}

/// One line, without what Markdown or HTML would act on.
fn plain(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '|' | '*' | '_' | '`' | '[' | ']' | '\\' | '#' => safe.extend(['\\', c]),
            '<' => safe.push_str("&lt;"),
            '&' => safe.push_str("&amp;"),
            c if c.is_control() => safe.push(' '),
            c => safe.push(c),
        }
    }
    safe
}

fn head(text: &mut String, report: &IncidentReport, moment: &impl Fn(UnixMillis) -> String) {
    let incident = &report.incident;
    line!(text, "# Incident {} of {}\n", incident.id, plain(&report.fleet));
    let subjects: Vec<_> = incident.subjects.iter().map(|subject| plain(&subject.name)).collect();
    line!(text, "- Subjects: {}", subjects.join(", "));
    line!(text, "- May have begun: {}", moment(incident.since));
    line!(
        text,
        "- Opened: {} by {}: {}",
        moment(incident.opened),
        plain(&incident.opened_by_name),
        plain(&incident.why)
    );
    match (incident.closed, incident.verdict) {
        (Some(closed), Some(verdict)) => {
            let closing =
                incident.closing.as_deref().map(|closing| format!(": {}", plain(closing))).unwrap_or_default();
            line!(text, "- Closed: {}, verdict {}{closing}", moment(closed), verdict.name());
        }
        _ => {
            line!(text, "- State: {}", incident.state.name());
        }
    }
    if report.single_control {
        line!(text, "- Control: one person runs this fleet; a delay stood for the second one");
    }
    line!(text, "- This report: {}, proofs against a tree of {} entries\n", moment(report.at), report.tree_size);
    line!(text, "## Duties (Regulation (EU) 2024/2847 article 14)\n");
    line!(text, "| report | due | what |\n| --- | --- | --- |");
    for duty in &report.duties {
        let due = duty.due.map_or_else(|| "when a corrective measure is there".to_owned(), moment);
        line!(text, "| {} | {due} | {} |", duty.name, plain(&duty.what));
    }
    line!(text, "");
}

fn reach(text: &mut String, report: &IncidentReport, moment: &impl Fn(UnixMillis) -> String) {
    let radius = &report.radius;
    line!(text, "## What it reaches\n");
    line!(text, "{} devices, {} certificates.\n", radius.devices, radius.certificates);
    for facility in &radius.facilities {
        line!(text, "- {}: {} of {} devices", plain(&facility.name), facility.devices, facility.of_devices);
    }
    for keys in &radius.keys {
        line!(text, "- {} × {} ({}): {}", keys.keys, keys.class, keys.reach.name(), plain(&keys.why));
    }
    for window in &radius.windows {
        let (from, until) = (moment(window.from), moment(window.until));
        line!(text, "- {}: {from} to {until}, {} devices; {}", plain(&window.what), window.devices, plain(&window.why));
    }
    for acts in &radius.acts {
        let by_act: Vec<_> = acts.by_act.iter().map(|(act, count)| format!("{count} × {act}")).collect();
        line!(
            text,
            "- {} did {} things{}{} ({})",
            plain(&acts.name),
            acts.entries,
            if by_act.is_empty() { "" } else { ": " },
            by_act.join(", "),
            plain(&acts.note)
        );
    }
    line!(text, "\n### What stays safe\n");
    for safe in &radius.safe {
        line!(text, "- {}: {}", plain(&safe.what), plain(&safe.why));
    }
    if !radius.unknown.is_empty() {
        line!(text, "\n### What registry and log cannot tell\n");
    }
    for unknown in &radius.unknown {
        line!(text, "- {}", plain(unknown));
    }
    line!(text, "");
}

fn steps(text: &mut String, report: &IncidentReport, moment: &impl Fn(UnixMillis) -> String) {
    let Some(plan) = &report.plan else { return };
    line!(text, "## What was done\n");
    line!(text, "Plan `{}`, made by {} at {}.", plan.plan_sha256, plain(&plan.planned_by_name), moment(plan.planned));
    for approval in &plan.approvals {
        line!(text, "Approved by {} at {}: {}.", plain(&approval.name), moment(approval.at), plain(&approval.why));
    }
    line!(text, "\n| step | what | state | when | outcome | log |\n| --- | --- | --- | --- | --- | --- |");
    for standing in &plan.steps {
        let state = match standing.state {
            StepState::Waiting => "waits",
            StepState::Begun => "begun",
            StepState::Done => "done",
            StepState::Hand => "by hand",
        };
        let when = standing.ended.map(moment).unwrap_or_default();
        let outcome = plain(standing.outcome.as_deref().unwrap_or_default());
        let index = standing.log_index.map(|index| index.to_string()).unwrap_or_default();
        let (number, what) = (standing.step.number, plain(&standing.step.what));
        line!(text, "| {number} | {what} | {state} | {when} | {outcome} | {index} |");
    }
    line!(text, "");
}

fn timeline(text: &mut String, report: &IncidentReport, moment: &impl Fn(UnixMillis) -> String) {
    line!(text, "## Timeline\n");
    line!(text, "Each line is an entry of the log; the JSON form of this report has its inclusion proof.\n");
    line!(text, "| log | when | who | act | what |\n| --- | --- | --- | --- | --- |");
    for entry in &report.timeline {
        let (when, who) = (moment(entry.at), plain(&entry.who));
        line!(text, "| {} | {when} | {who} | {} | {} |", entry.index, plain(&entry.act), plain(&entry.what));
    }
    line!(text, "\n## Checkpoint\n\n```\n{}\n```", report.checkpoint.trim_end());
}

//! What is to be done now.

use kf_api::incident::{Approval, StepControl, StepPhase, StepStanding, StepState};
use kf_key::{OperatorId, UnixMillis};

/// What comes next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// This step, by its number.
    Do(u32),
    /// Nothing can be done before this.
    Waits(Vec<String>),
    /// Every step that is not by hand is done.
    Finished,
}

/// Whether permanent steps may be run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Permission {
    /// A second person agreed to this very plan, and still does; or the delay of single control is over.
    Given,
    /// Not yet, or not any more, for this reason.
    Missing(String),
}

/// The step to be done now. `out_of_reach` are steps that whoever runs the plan may not do, with why.
///
/// Stopping steps do not wait for each other. A permanent one waits for all of them, for approval, and for what stands
/// before it.
#[must_use]
pub fn next(steps: &[StepStanding], permission: &Permission, out_of_reach: &[(u32, String)]) -> Next {
    let blocked = |number: u32| out_of_reach.iter().find(|(blocked, _)| *blocked == number).map(|(_, why)| why);
    let mut waits = Vec::new();
    for standing in steps.iter().filter(|standing| standing.state != StepState::Done) {
        let step = &standing.step;
        let stopping = step.phase == StepPhase::Stop;
        if step.control == StepControl::Hand {
            // What is by hand holds up permanent steps only where it stands before them in their own phase.
            if step.phase == StepPhase::Settle && waits.is_empty() {
                waits.push(format!("step {}, by hand: {}", step.number, step.what));
            }
            continue;
        }
        if !waits.is_empty() && !stopping {
            break;
        }
        if let Some(why) = blocked(step.number) {
            waits.push(format!("step {}: {why}", step.number));
            continue;
        }
        match (step.control, permission) {
            (StepControl::Two, Permission::Missing(why)) => {
                waits.push(why.clone());
                break;
            }
            _ => return Next::Do(step.number),
        }
    }
    if waits.is_empty() { Next::Finished } else { Next::Waits(waits) }
}

/// Whether permanent steps may be run: by an approval of this plan that has not expired, by somebody who neither made the
/// plan nor is a subject of the incident; in single-control mode from `effective` on. Behind broken glass the maker of a plan may agree to
/// it: that is what it is broken for.
#[must_use]
pub fn permission(
    plan_sha256: &str,
    planned_by: OperatorId,
    approvals: &[Approval],
    effective: Option<UnixMillis>,
    now: UnixMillis,
) -> Permission {
    if let Some(effective) = effective {
        return if now >= effective {
            Permission::Given
        } else {
            Permission::Missing("the delay of single control is not over".to_owned())
        };
    }
    let of_this: Vec<_> = approvals
        .iter()
        .filter(|approval| approval.plan_sha256 == plan_sha256)
        .filter(|approval| approval.operator != planned_by || approval.break_glass.is_some())
        .collect();
    if of_this.iter().any(|approval| (approval.at..=approval.expires).contains(&now)) {
        return Permission::Given;
    }
    Permission::Missing(if of_this.is_empty() {
        "nobody but its maker has agreed to this plan: another operator runs `keyfleet incident approve`".to_owned()
    } else {
        "the approval has expired: another operator runs `keyfleet incident approve` again".to_owned()
    })
}

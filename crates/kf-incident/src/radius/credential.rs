//! Credentials of operators.

use kf_access::Action;
use kf_api::incident::{ActsDone, BlastRadius};
use kf_api::operator::Role;

use super::{add_serials, safe, window};
use crate::facts::{CredentialFacts, Facts};

/// Actions with which a thief makes something that outlives the credential, or undoes a stop.
const CONSEQUENTIAL: [Action; 14] = [
    Action::CertificateIssueDevice,
    Action::CertificateIssueServer,
    Action::CertificateIssueOperator,
    Action::CodeManage,
    Action::OperatorManage,
    Action::DeviceRegister,
    Action::DeviceResume,
    Action::CertificateRelease,
    Action::DeviceMove,
    Action::BatchCreate,
    Action::PayloadOpen,
    Action::PayloadSeal,
    Action::ProposalDecide,
    Action::VendorManage,
];

pub(super) fn credential(facts: &Facts, hit: &CredentialFacts, radius: &mut BlastRadius) {
    let CredentialFacts { operator, only, acts, entries, by_act, first, issued, .. } = hit;
    for certificate in super::live(issued).chain(super::live(&hit.certificates)) {
        radius.certificates += 1;
        add_serials(&[certificate.serial], radius);
    }
    let whose =
        if only.is_some() { "entries by this token" } else { "entries by this operator, whatever the credential" };
    let read = acts.len();
    let note = if u64::try_from(read).unwrap_or(u64::MAX) < *entries {
        format!("{whose}; only the first {read} were looked at for what they made")
    } else {
        whose.to_owned()
    };
    radius.acts.push(ActsDone {
        operator: operator.id,
        name: operator.name.clone(),
        entries: *entries,
        by_act: by_act.clone(),
        first: first.clone(),
        last_index: acts.last().map(|act| act.index),
        note,
    });
    let scope = if hit.scope.is_empty() { "the whole fleet".to_owned() } else { hit.scope.join(", ") };
    if Action::PayloadOpen.allowed_to(operator.role) && hit.scope_devices > 0 {
        let what = format!("payloads of devices of {scope}, had the server open them");
        let why = "the role opens payloads through the server; it never holds a key, so it ends when it is disabled";
        radius.windows.push(window(facts, what, hit.scope_devices, facts.since, why));
    }
    let could: Vec<_> = CONSEQUENTIAL.iter().filter(|action| action.allowed_to(operator.role)).collect();
    let could: Vec<_> = could.into_iter().map(|action| action.name()).collect();
    radius.unknown.push(format!(
        "what {} read in {scope}: reading is not logged, so take it as known; what the role {} can do beyond reading is in \
         the log ({})",
        operator.name,
        operator.role.name(),
        could.join(", ")
    ));
    scoped_safe(hit, radius);
}

fn scoped_safe(hit: &CredentialFacts, radius: &mut BlastRadius) {
    let CredentialFacts { operator, scope, .. } = hit;
    if !scope.is_empty() {
        safe(
            radius,
            format!("everything outside {}", scope.join(", ")),
            format!(
                "the scope of {} ends there: what lies outside is not found by it, let alone changed",
                operator.name
            ),
        );
    }
    if matches!(operator.role, Role::Owner | Role::FleetOperator) {
        safe(
            radius,
            "permanent acts at scale by this credential alone",
            "they wait for a second person, and nobody approves an own proposal",
        );
    }
    safe(radius, format!("every private and symmetric key, from {}", operator.name), "no role exports a key");
}

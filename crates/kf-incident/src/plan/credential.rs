//! Steps for credentials, and for what was done with them.

use std::collections::BTreeMap;

use kf_api::certificate::Certificate;
use kf_api::incident::{StepAct, StepPhase};
use kf_api::operator::Operator;
use kf_key::{CodeId, FacilityId, OperatorId, SerialNumber, TokenId};

use super::{Draft, Extent};
use crate::facts::{Act, CredentialFacts};

/// Codes in one step.
const CODES_PER_STEP: usize = 1_000;
/// Acts that stop something or only read: nothing of them needs to be undone in a hurry.
const STOPS: [&str; 12] = [
    "certificate.hold",
    "certificate.revoke",
    "device.suspend",
    "device.quarantine",
    "issuance.stop",
    "code.withdraw",
    "token.withdraw",
    "operator.disable",
    "proposal.cancel",
    "key.block",
    "order.cancel",
    "incident.open",
];
/// Acts for which the plan has a step of its own.
const HANDLED: [&str; 5] = ["certificate.issue", "code.create", "operator.create", "token.create", "proposal.create"];

/// Locks an operator out: no sign-in, no tokens, no proposals that wait.
pub(super) fn lock_out(draft: &mut Draft<'_>, operator: &Operator, facility: Option<FacilityId>, why: &str) {
    let (id, name, extent) = (operator.id, &operator.name, Extent::nobody(facility));
    let what = format!("disable {name} ({})", operator.role.name());
    draft.stop(StepAct::DisableOperator { operator: id }, extent, what, why);
    draft.stop(
        StepAct::WithdrawTokens { operator: id, token: None },
        extent,
        format!("withdraw every token of {name}"),
        "they stay withdrawn when the operator is enabled again",
    );
    cancel_proposals(draft, operator, facility);
}

fn cancel_proposals(draft: &mut Draft<'_>, operator: &Operator, facility: Option<FacilityId>) {
    draft.stop(
        StepAct::CancelProposals { operator: operator.id },
        Extent::nobody(facility),
        format!("cancel what {} proposed and nobody approved", operator.name),
        "somebody might approve what a thief proposed",
    );
}

pub(super) fn credential(draft: &mut Draft<'_>, hit: &CredentialFacts) {
    let CredentialFacts { operator, only, certificates, acts, issued, .. } = hit;
    let facility = match operator.facilities.as_slice() {
        [one] => Some(*one),
        _ => None,
    };
    let serials = |certificates: &[Certificate]| -> Vec<SerialNumber> {
        certificates.iter().map(|certificate| certificate.serial).collect()
    };
    match only {
        None => {
            let why = "the thief signs in with it; effective at the next request";
            lock_out(draft, operator, facility, why);
            let whose = format!("with which {} signs in", operator.name);
            draft.certificates(&serials(certificates), facility, &whose, "their keys may be known to others");
        }
        Some(token) => {
            draft.stop(
                StepAct::WithdrawTokens { operator: operator.id, token: Some(*token) },
                Extent::nobody(facility),
                format!("withdraw the token {token} of {}", operator.name),
                "the thief signs in with it; effective at the next request",
            );
            cancel_proposals(draft, operator, facility);
        }
    }
    draft.certificates(
        &serials(issued),
        facility,
        &format!("issued at the request of {} since it may have leaked", operator.name),
        "the key in them may be the thief's",
    );
    made(draft, operator, acts, facility);
    review(draft, operator, acts, facility);
}

/// Undoes what gives access: codes, operators, tokens.
fn made(draft: &mut Draft<'_>, operator: &Operator, acts: &[Act], facility: Option<FacilityId>) {
    let subjects = |act: &str| -> Vec<&String> {
        acts.iter().filter(|done| done.act == act).flat_map(|done| &done.subjects).collect()
    };
    let codes: Vec<CodeId> = subjects("code.create").into_iter().filter_map(|text| text.parse().ok()).collect();
    for part in codes.chunks(CODES_PER_STEP) {
        draft.stop(
            StepAct::WithdrawCodes { codes: part.to_vec() },
            Extent::nobody(facility),
            format!("withdraw {} one-time codes that {} made", part.len(), operator.name),
            "whoever has a code enrols a device",
        );
    }
    for made in subjects("operator.create").into_iter().filter_map(|text| text.parse::<OperatorId>().ok()) {
        draft.stop(
            StepAct::DisableOperator { operator: made },
            Extent::nobody(None),
            format!("disable {made}, whom {} made", operator.name),
            "it may be the thief's way back in",
        );
    }
    for done in acts.iter().filter(|done| done.act == "token.create") {
        let token = done.subjects.iter().find_map(|text| text.parse::<TokenId>().ok());
        let whose = done.subjects.iter().find_map(|text| text.parse::<OperatorId>().ok());
        if let (Some(token), Some(whose)) = (token, whose) {
            draft.stop(
                StepAct::WithdrawTokens { operator: whose, token: Some(token) },
                Extent::nobody(None),
                format!("withdraw the token {token}, which {} made", operator.name),
                "it may be the thief's way back in",
            );
        }
    }
}

/// What else was done: people look at it.
fn review(draft: &mut Draft<'_>, operator: &Operator, acts: &[Act], facility: Option<FacilityId>) {
    let mut left: BTreeMap<&str, u64> = BTreeMap::new();
    for act in acts.iter().map(|act| act.act.as_str()) {
        if !STOPS.contains(&act) && !HANDLED.contains(&act) {
            *left.entry(act).or_default() += 1;
        }
    }
    if left.is_empty() {
        return;
    }
    let listed: Vec<_> = left.iter().map(|(act, count)| format!("{count} × {act}")).collect();
    draft.by_hand(
        StepPhase::Recover,
        format!("review acts of {}", operator.name),
        facility,
        format!("look at what {} did since, and undo what a thief did: {}", operator.name, listed.join(", ")),
        "only people can tell the owner's acts from the thief's",
    );
}

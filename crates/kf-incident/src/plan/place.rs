//! Steps for batches, stations, facilities and CAs.

use kf_api::authority::AuthorityKind;
use kf_api::incident::{StepAct, StepPhase};
use kf_key::FacilityId;

use super::{Draft, Extent, credential};
use crate::facts::{AuthorityFacts, BatchFacts, DeviceSet, FacilityFacts, StationFacts};

/// Steps for a batch. Within the plan of a facility (`only`), a batch with devices elsewhere is left to people: ending it would reach
/// another facility.
pub(super) fn batch(draft: &mut Draft<'_>, hit: &BatchFacts, only: Option<FacilityId>) {
    let BatchFacts { batch, set, elsewhere } = hit;
    let name = &batch.name;
    if only.is_some() && *elsewhere > 0 {
        draft.by_hand(
            StepPhase::Recover,
            format!("decide about batch {name}"),
            only,
            format!("decide with those who have its devices: `keyfleet batch cancel {name} --compromised`"),
            "some of its devices are at other facilities, which this plan does not touch",
        );
        return;
    }
    let facility = (*elsewhere == 0).then_some(batch.facility);
    let extent = Extent { facility, devices: set.devices };
    if only.is_none() {
        draft.stop(
            StepAct::SuspendBatch { batch: name.clone() },
            extent,
            format!("suspend every device of batch {name}: certificates on hold"),
            "it can be undone, and locks out whatever was made with the keys of the batch",
        );
        draft.cut_sessions(facility, &format!("batch {name}"));
    }
    draft.settle(
        StepAct::CancelBatch { batch: batch.id },
        extent,
        format!("end batch {name} as compromised: its CA, its certificates, its devices"),
        "its keys are at the station; nothing that they certify or wrap can be told from the thief's",
    );
}

/// Steps for devices that were registered with a name as their batch.
pub(super) fn label(draft: &mut Draft<'_>, name: &str, set: &DeviceSet) {
    let facility = match set.facilities.as_slice() {
        [one] => Some(one.facility),
        _ => None,
    };
    let extent = Extent { facility, devices: set.devices };
    draft.stop(
        StepAct::SuspendBatch { batch: name.to_owned() },
        extent,
        format!("suspend every device of batch {name}: certificates on hold"),
        "it can be undone, and locks all of them out of enrolment, renewal and the brokers",
    );
    draft.cut_sessions(facility, &format!("batch {name}"));
    draft.settle(
        StepAct::RevokeBatch { batch: name.to_owned() },
        extent,
        format!("revoke every LDevID of every device of batch {name} (keyCompromise)"),
        "private keys that others may have stay known to them",
    );
    draft.by_hand(
        StepPhase::Recover,
        format!("examine the devices of batch {name}"),
        facility,
        "examine the devices, and `keyfleet device resume` each that is sound".to_owned(),
        "whether a board can be trusted again is seen at the board",
    );
}

pub(super) fn station(draft: &mut Draft<'_>, hit: &StationFacts) {
    credential::credential(draft, &hit.credential);
    for own in &hit.batches {
        batch(draft, own, None);
    }
    let name = &hit.credential.operator.name;
    draft.by_hand(
        StepPhase::Recover,
        format!("replace station {name}"),
        None,
        "set up another station with a key of its own (`keyfleet operator create --role station`) and authorise the batch anew"
            .to_owned(),
        "a disabled station is not enabled again: its voucher key is known to others",
    );
}

pub(super) fn facility(draft: &mut Draft<'_>, hit: &FacilityFacts) {
    let FacilityFacts { facility, set, epoch, operators, batches, .. } = hit;
    let (id, name) = (facility.id, &facility.name);
    let extent = Extent::of(id, set.devices);
    for operator in operators.iter().filter(|operator| operator.facilities == [id]) {
        let why = "its scope is this facility alone, and its credential was there";
        credential::lock_out(draft, operator, Some(id), why);
    }
    draft.stop(
        StepAct::StopFacilityIssuance { facility: id },
        Extent::nobody(Some(id)),
        format!("issue nothing for devices of {name}; the other facilities go on"),
        "whoever has a device or a credential from there could otherwise have a fresh certificate",
    );
    draft.stop(
        StepAct::SuspendFacility { facility: id },
        extent,
        format!("suspend every device of {name}: certificates on hold"),
        "it can be undone, and locks all of them out of enrolment, renewal and the brokers",
    );
    draft.cut_sessions(Some(id), name);
    draft.settle(
        StepAct::RevokeFacility { facility: id },
        extent,
        format!("revoke every LDevID of every device of {name} (keyCompromise)"),
        "private keys that others may have read stay known to them",
    );
    for own in batches {
        batch(draft, own, Some(id));
    }
    draft.settle(
        StepAct::AdvanceFacilityEpoch { facility: id, beyond: *epoch },
        extent,
        format!("give {name} a new key epoch: every device gets a new symmetric key at its next exchange"),
        "the device keys of the old epoch may be known to others; the new ones cannot be derived from them",
    );
    draft.add(
        StepPhase::Recover,
        StepAct::StartFacilityIssuance { facility: id },
        Extent::nobody(Some(id)),
        format!("issue for devices of {name} again"),
        "its devices are suspended one and all: none enrols before somebody resumes it",
    );
    draft.by_hand(
        StepPhase::Recover,
        format!("examine the devices of {name}"),
        Some(id),
        format!(
            "examine the devices, and `keyfleet device resume` each that is sound: it bootstraps anew with its IDevID or a fresh code; \
             of {} devices {} were seen in the last day",
            set.devices, set.seen_lately
        ),
        "whether a board can be trusted again is seen at the board",
    );
    draft.by_hand(
        StepPhase::Recover,
        format!("retire the old epoch of {name}"),
        Some(id),
        format!("`keyfleet epoch retire --facility {name} --epoch {epoch}` when nobody holds it any more"),
        "until then the server opens payloads under it",
    );
}

pub(super) fn authority(draft: &mut Draft<'_>, hit: &AuthorityFacts) {
    let AuthorityFacts { authority, devices, .. } = hit;
    let (id, name) = (authority.id, &authority.name);
    let (phase, facility) = (StepPhase::Settle, None);
    draft.stop(
        StepAct::StopAuthorityIssuance { authority: id },
        Extent::nobody(None),
        format!("issue nothing under {name}"),
        "what is issued now would be revoked in a moment; holding what it issued would not stop certificates that a thief makes elsewhere",
    );
    if authority.kind != AuthorityKind::Issuing {
        draft.by_hand(
            phase,
            format!("replace {name}"),
            facility,
            "set up a new fleet (`keyfleet init`) and bring its root to every relying party and device".to_owned(),
            "a root that somebody else has cannot vouch for its successor (`keyfleet authority succeed`): he would make one too",
        );
        return;
    }
    draft.by_hand(
        phase,
        format!("succeed {name}"),
        facility,
        "create the successor: `keyfleet authority create NAME --make-default`; relying parties trust the root and need nothing".to_owned(),
        "revoking the CA ends every certificate under it: without a successor nothing comes back",
    );
    draft.settle(
        StepAct::RevokeAuthority { authority: id },
        Extent { facility, devices: *devices },
        format!("revoke everything that {name} issued, and {name} itself (cACompromise)"),
        "a certificate that the thief makes is in no registry: only the revocation of the CA stops it",
    );
    draft.by_hand(
        StepPhase::Recover,
        format!("enrol the devices of {name} anew"),
        facility,
        format!("{devices} devices enrol anew, with an IDevID of another CA, a code or a voucher"),
        "a renewal needs a certificate that is good, and none under this CA is",
    );
}

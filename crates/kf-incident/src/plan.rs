//! What to do, in which order.

mod credential;
mod place;

use kf_api::incident::{Estimate, Incident, Plan, PlanStep, StepAct, StepControl, StepPhase};
use kf_key::{FacilityId, SerialNumber};
use serde::Serialize;

use crate::facts::{DeviceFacts, Facts, HitFacts, KeyFacts, Rates};

/// Serial numbers in one step; more are several steps.
const SERIALS_PER_STEP: usize = 1_000;
/// What one act on one row takes, with its commit: rounded up to a second.
const ONE_ACT_SECONDS: u64 = 1;

/// The plan: stop first, in the order in which a thief is locked out (credentials, what they made, issuance, devices), then what is
/// permanent, then the way back. A step that two subjects ask for is there once.
#[must_use]
pub fn plan(incident: &Incident, facts: &Facts, rates: &Rates) -> Plan {
    let mut draft = Draft { rates, steps: Vec::new() };
    for hit in &facts.hits {
        match hit {
            HitFacts::Device(hit) => device(&mut draft, hit),
            HitFacts::Key(hit) => key(&mut draft, hit),
            HitFacts::Batch(hit) => place::batch(&mut draft, hit, None),
            HitFacts::Label { name, set } => place::label(&mut draft, name, set),
            HitFacts::Station(hit) => place::station(&mut draft, hit),
            HitFacts::Facility(hit) => place::facility(&mut draft, hit),
            HitFacts::Authority(hit) => place::authority(&mut draft, hit),
            HitFacts::Credential(hit) => credential::credential(&mut draft, hit),
        }
    }
    Plan { incident: incident.id, steps: draft.ordered() }
}

/// What is agreed to: everything but the estimates and the wording.
#[derive(Serialize)]
struct Agreed<'a> {
    v: u8,
    incident: &'a Incident,
    steps: Vec<AgreedStep<'a>>,
}

#[derive(Serialize)]
struct AgreedStep<'a> {
    phase: StepPhase,
    step: &'a StepAct,
    facility: Option<FacilityId>,
    devices: u64,
    control: StepControl,
}

/// SHA-256 of what two people agree to, hexadecimal: the subjects, when it may have begun, and every step with its target, its
/// place, the most devices it touches, and who it takes. Estimates are no part of it.
#[must_use]
pub fn plan_sha256(incident: &Incident, plan: &Plan) -> String {
    // What changes in an incident without changing what is agreed to.
    let incident = Incident { plan_sha256: None, closed: None, verdict: None, closing: None, ..incident.clone() };
    let steps = plan
        .steps
        .iter()
        .map(|PlanStep { number: _, phase, step, what: _, why: _, facility, devices, control, estimate: _ }| {
            AgreedStep { phase: *phase, step, facility: *facility, devices: *devices, control: *control }
        })
        .collect();
    let text = serde_json::to_vec(&Agreed { v: 1, incident: &incident, steps }).unwrap_or_default();
    hex::encode(kf_crypto::sha256(&text))
}

/// A plan under construction.
struct Draft<'a> {
    rates: &'a Rates,
    steps: Vec<PlanStep>,
}

/// Where a step is confined, and how many devices it touches.
#[derive(Clone, Copy)]
struct Extent {
    facility: Option<FacilityId>,
    devices: u64,
}

impl Extent {
    const fn of(facility: FacilityId, devices: u64) -> Self {
        Self { facility: Some(facility), devices }
    }

    const fn nobody(facility: Option<FacilityId>) -> Self {
        Self { facility, devices: 0 }
    }
}

impl Draft<'_> {
    fn add(&mut self, phase: StepPhase, step: StepAct, extent: Extent, what: String, why: &str) {
        let control = match (&step, phase) {
            (StepAct::ByHand { .. }, _) => StepControl::Hand,
            (_, StepPhase::Stop) => StepControl::One,
            (_, StepPhase::Settle | StepPhase::Recover) => StepControl::Two,
        };
        let estimate = self.estimate(&step, extent.devices);
        let Extent { facility, devices } = extent;
        let why = why.to_owned();
        self.steps.push(PlanStep { number: 0, phase, step, what, why, facility, devices, control, estimate });
    }

    fn stop(&mut self, step: StepAct, extent: Extent, what: String, why: &str) {
        self.add(StepPhase::Stop, step, extent, what, why);
    }

    fn settle(&mut self, step: StepAct, extent: Extent, what: String, why: &str) {
        self.add(StepPhase::Settle, step, extent, what, why);
    }

    fn by_hand(&mut self, phase: StepPhase, task: String, facility: Option<FacilityId>, what: String, why: &str) {
        self.add(phase, StepAct::ByHand { task }, Extent::nobody(facility), what, why);
    }

    /// Hold now, revoke with approval.
    fn certificates(&mut self, serials: &[SerialNumber], facility: Option<FacilityId>, whose: &str, why: &str) {
        for part in serials.chunks(SERIALS_PER_STEP) {
            let (extent, serials) = (Extent::nobody(facility), part.to_vec());
            let what = format!("put {} certificates on hold: {whose}", part.len());
            self.stop(StepAct::HoldCertificates { serials: serials.clone() }, extent, what, why);
            let what = format!("revoke them for good (keyCompromise): {} certificates, {whose}", part.len());
            self.settle(StepAct::RevokeCertificates { serials }, extent, what, why);
        }
    }

    fn cut_sessions(&mut self, facility: Option<FacilityId>, whose: &str) {
        self.stop(
            StepAct::CutSessions { facility },
            Extent::nobody(facility),
            format!("see at every broker that no session is left: {whose}"),
            "a session that was opened before outlives its certificate; the brokers say themselves that it is gone",
        );
    }

    fn estimate(&self, step: &StepAct, devices: u64) -> Estimate {
        if matches!(step, StepAct::ByHand { .. }) {
            return Estimate { seconds: None, measured: false };
        }
        let Rates { devices_per_second, measured } = *self.rates;
        let seconds = devices.div_ceil(devices_per_second.max(1)).max(ONE_ACT_SECONDS);
        Estimate { seconds: Some(seconds), measured: measured && devices > 0 }
    }

    /// Each step once, in order, numbered.
    fn ordered(self) -> Vec<PlanStep> {
        let mut steps: Vec<PlanStep> = Vec::with_capacity(self.steps.len());
        for step in self.steps {
            if !steps.iter().any(|known| known.step == step.step) {
                steps.push(step);
            }
        }
        steps.sort_by_key(|step| (step.phase, rank(&step.step)));
        for (number, step) in (1..).zip(&mut steps) {
            step.number = number;
        }
        steps
    }
}

/// The order within a phase; steps of one rank stay as they were added.
const fn rank(step: &StepAct) -> u8 {
    match step {
        StepAct::DisableOperator { .. } => 0,
        StepAct::WithdrawTokens { .. } => 1,
        StepAct::CancelProposals { .. } => 2,
        StepAct::WithdrawCodes { .. } => 3,
        StepAct::StopFacilityIssuance { .. } | StepAct::StopAuthorityIssuance { .. } => 4,
        StepAct::HoldCertificates { .. } => 5,
        StepAct::SuspendDevice { .. } | StepAct::SuspendBatch { .. } | StepAct::SuspendFacility { .. } => 6,
        StepAct::CutSessions { .. } => 7,
        // In the phase of what is permanent, what is to be done by hand comes first: a CA needs its successor before it dies.
        StepAct::ByHand { .. } => 8,
        StepAct::BlockKey { .. } => 9,
        StepAct::RevokeCertificates { .. } => 10,
        StepAct::RevokeDevice { .. } | StepAct::RevokeFacility { .. } | StepAct::RevokeBatch { .. } => 11,
        StepAct::CancelBatch { .. } => 12,
        StepAct::RevokeAuthority { .. } => 13,
        StepAct::AdvanceFacilityEpoch { .. } | StepAct::AdvanceDeviceEpoch { .. } => 14,
        StepAct::StartFacilityIssuance { .. } => 15,
    }
}

fn device(draft: &mut Draft<'_>, hit: &DeviceFacts) {
    let DeviceFacts { device, epoch, .. } = hit;
    let extent = Extent::of(device.facility, 1);
    let name = &device.name;
    draft.stop(
        StepAct::SuspendDevice { device: device.id },
        extent,
        format!("suspend {name}: its certificates on hold"),
        "it can be undone, and locks the device out of enrolment, renewal and the brokers",
    );
    draft.cut_sessions(Some(device.facility), name);
    draft.settle(
        StepAct::RevokeDevice { device: device.id },
        extent,
        format!("revoke every LDevID of {name} (keyCompromise)"),
        "a private key that others may have stays known to them",
    );
    if let Some(beyond) = *epoch {
        draft.settle(
            StepAct::AdvanceDeviceEpoch { device: device.id, beyond },
            extent,
            format!("give {name} a new device epoch"),
            "the thief may have its symmetric key; the next one is derived with another epoch",
        );
    }
    draft.by_hand(
        StepPhase::Recover,
        format!("examine {name}"),
        Some(device.facility),
        format!(
            "examine {name}; then `keyfleet device resume {name}`, or `keyfleet device decommission {name} --reason theft`"
        ),
        "whether the board can be trusted again is seen at the board",
    );
}

fn key(draft: &mut Draft<'_>, hit: &KeyFacts) {
    let facility = match hit.set.facilities.as_slice() {
        [one] => Some(one.facility),
        _ => None,
    };
    let serials: Vec<_> = hit.certificates.iter().map(|certificate| certificate.serial).collect();
    let whose = hit.holder.clone().unwrap_or_else(|| "the key".to_owned());
    draft.certificates(&serials, facility, &whose, "others have the private key");
    if !serials.is_empty() {
        draft.cut_sessions(facility, &whose);
    }
    draft.settle(
        StepAct::BlockKey { spki_sha256: hit.spki_sha256.clone() },
        Extent::nobody(None),
        format!("never certify the key {} again", hit.spki_sha256),
        "whoever has it could otherwise ask for a certificate with it",
    );
}

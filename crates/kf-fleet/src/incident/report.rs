//! Reports: what registry and log say, with proofs.

use kf_access::{Action, Principal, Visibility};
use kf_api::PageRequest;
use kf_api::audit::AuditRecord;
use kf_api::incident::{Incident, IncidentReport, PlanStanding, StepState, TimelineEntry};
use kf_key::{IncidentId, UnixMillis};
use kf_log::hash::leaf_hash;
use kf_log::proof::inclusion_proof;

use crate::{Fleet, FleetError};

/// Entries of a timeline, and pages in which they are read.
const MAX_PAGES: u32 = 20;

impl Fleet {
    /// The report of an incident as of now: every entry about it, each with its proof against the newest checkpoint.
    ///
    /// # Errors
    /// [`FleetError::NotFound`], [`FleetError::Denied`], [`FleetError::Signer`] when no checkpoint can be signed.
    pub async fn incident_report(&self, who: &Principal, id: IncidentId) -> Result<IncidentReport, FleetError> {
        let (incident, permit) = self.incident_for(who, id, Action::IncidentRead)?;
        self.log.publish(&self.store, &self.signer).await?;
        let checkpoint = self.store.checkpoint()?.ok_or(FleetError::NotFound("checkpoint"))?;
        let plan = self.plan_standing(&incident)?;
        let timeline = self.timeline(&incident, permit.visibility(), checkpoint.size)?;
        Ok(IncidentReport {
            fleet: self.config.fleet.clone(),
            at: self.now(),
            radius: self.radius(&incident)?,
            duties: kf_incident::duties(incident.opened, corrected(plan.as_ref())),
            incident,
            plan,
            timeline,
            checkpoint: checkpoint.note,
            tree_size: checkpoint.size,
            single_control: self.config.single_control,
        })
    }

    /// Entries about the incident, and those of the acts of its steps.
    fn timeline(
        &self,
        incident: &Incident,
        visibility: &Visibility,
        size: u64,
    ) -> Result<Vec<TimelineEntry>, FleetError> {
        let subject = incident.id.to_string();
        let mut records: Vec<AuditRecord> = Vec::new();
        let mut page = PageRequest { after: None, limit: Some(kf_api::page::MAX_LIMIT) };
        for _ in 0..MAX_PAGES {
            let found = self.store.log_list(Some(&subject), visibility, &page)?;
            records.extend(found.items);
            page.after = found.next;
            if page.after.is_none() {
                break;
            }
        }
        let mut indices: Vec<u64> = records.iter().map(|record| record.index).collect();
        // What a step of this very incident did is part of it, whoever may see the act's own entry elsewhere.
        indices.extend(records.iter().filter_map(|record| detail(&record.entry, "log_index")?.parse::<u64>().ok()));
        indices.sort_unstable();
        indices.dedup();
        indices.retain(|index| *index < size);
        indices.into_iter().map(|index| self.timeline_entry(index, size)).collect()
    }

    pub(crate) fn timeline_entry(&self, index: u64, size: u64) -> Result<TimelineEntry, FleetError> {
        let leaf =
            self.store.log_entries(index..index.saturating_add(1))?.pop().ok_or(FleetError::NotFound("entry"))?;
        let entry: serde_json::Value =
            serde_json::from_slice(&leaf).map_err(|_not_json| FleetError::Bug("a log entry that is not JSON"))?;
        let proof = inclusion_proof(&self.store, index, size)
            .map_err(|_detail| FleetError::Bug("a log whose tiles do not reach its checkpoint"))?;
        let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
        let what = ["outcome", "what", "verdict", "reason"].into_iter().find_map(|key| detail(&entry, key));
        let why = entry.get("why").map(text).unwrap_or_default();
        Ok(TimelineEntry {
            index,
            at: UnixMillis(entry.get("at").and_then(serde_json::Value::as_u64).unwrap_or_default()),
            who: entry.pointer("/who/name").map(text).unwrap_or_default(),
            act: entry.get("act").map(text).unwrap_or_default(),
            what: what.filter(|what| !what.is_empty()).unwrap_or(why),
            leaf_sha256: hex::encode(leaf_hash(&leaf)),
            proof: proof.iter().map(hex::encode).collect(),
            leaf: String::from_utf8(leaf).map_err(|_not_text| FleetError::Bug("a log entry that is not text"))?,
        })
    }
}

fn detail(entry: &serde_json::Value, key: &str) -> Option<String> {
    entry.get("detail")?.get(key)?.as_str().map(str::to_owned)
}

/// When the last step was done, if all that a run does are.
fn corrected(plan: Option<&PlanStanding>) -> Option<UnixMillis> {
    let steps = &plan?.steps;
    let open = steps.iter().any(|step| matches!(step.state, StepState::Waiting | StepState::Begun));
    if open { None } else { steps.iter().filter_map(|step| step.ended).max() }
}

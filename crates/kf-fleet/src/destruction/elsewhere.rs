//! Keys that end where this server does not reach. It takes two people's word for it, and says that it is no more than that.

use kf_access::{Action, Principal, Target, Visibility, authorize};
use kf_api::destruction::{DestructionPlan, DestructionResult, DestructionTarget, Receipt, Sanitization, Statement};
use kf_api::proposal::Proposal;

use super::Found;
use crate::naming::check_text;
use crate::{Fleet, FleetError};

/// As long as a text of a statement may be, characters.
const MAX_TEXT: usize = 500;

/// The method in the words of the standard.
const fn method(method: Sanitization) -> &'static str {
    match method {
        Sanitization::Clear => "clear (SP 800-88r2 section 3.1.1)",
        Sanitization::Purge => "purge (SP 800-88r2 section 3.1.2)",
        Sanitization::Destroy => "destroy (SP 800-88r2 section 3.1.3)",
    }
}

impl Fleet {
    pub(super) fn find_elsewhere(
        &self,
        who: &Principal,
        facility: Option<&str>,
        statement: &Statement,
    ) -> Result<Found, FleetError> {
        let facility =
            facility.map(|name| self.find_facility(name, &who.visibility())).transpose()?.map(|found| found.id);
        authorize(who, Action::KeyDestroy, facility.map_or(Target::Fleet, Target::Facility))?;
        self.check_statement(statement)?;
        let facility_id = facility.map(|id| id.to_string());
        let target = DestructionTarget::Elsewhere { facility: facility_id, statement: statement.clone() };
        let plan = DestructionPlan { facility, ..plan_of(statement) };
        Ok(Found { target, facility, plan })
    }

    fn check_statement(&self, statement: &Statement) -> Result<(), FleetError> {
        let Statement { holder, technique, tool, carried_out_by, verification, verified_by, .. } = statement;
        for (field, text) in [
            ("holder", holder),
            ("technique", technique),
            ("tool", tool),
            ("carried_out_by", carried_out_by),
            ("verification", verification),
            ("verified_by", verified_by),
        ] {
            check_text(field, text, MAX_TEXT)?;
            if text.trim().is_empty() {
                return Err(FleetError::invalid(
                    field,
                    "is missing",
                    "a receipt without it is worth nothing: state it",
                ));
            }
        }
        // Nobody verifies an own work.
        if carried_out_by.trim().to_lowercase() == verified_by.trim().to_lowercase() {
            return Err(FleetError::invalid(
                "verified_by",
                "is who carried it out",
                "have somebody else verify it, and name them",
            ));
        }
        if statement.carried_out > self.now() {
            return Err(FleetError::invalid("carried_out", "lies ahead", "state it once it is done"));
        }
        Ok(())
    }

    /// Writes the receipt of what was stated, once a second person has agreed to it.
    pub(super) async fn finish_elsewhere(
        &self,
        proposal: &Proposal,
        (facility, statement): (Option<&str>, &Statement),
        why: &str,
    ) -> Result<Receipt, FleetError> {
        let facility = facility.map(|id| self.find_facility(id, &Visibility::Fleet)).transpose()?.map(|found| found.id);
        let plan = DestructionPlan { facility, ..plan_of(statement) };
        let Statement { verification, verified_by, carried_out_by, carried_out, tool, .. } = statement;
        let receipt = Receipt {
            method: method(statement.method).to_owned(),
            tool: tool.clone(),
            holder: Some(format!("{verification} (verified by {verified_by})")),
            ..self.receipt_of(proposal, plan, why, (0, None))?
        };
        let entry = self
            .receipt_entry(&receipt)
            .with("holder", receipt.holder.as_deref().unwrap_or_default())
            .with("carried_out_by", carried_out_by)
            .with("carried_out", carried_out.0);
        Ok(self.store.record_destruction(receipt, entry.build()).await?.value)
    }
}

fn plan_of(statement: &Statement) -> DestructionPlan {
    let Statement { keys, holder, technique, carried_out_by, .. } = statement;
    DestructionPlan {
        target: format!("elsewhere {}: {holder}", keys.name()),
        facility: None,
        salts: 0,
        result: DestructionResult::Stated,
        barred_by: Vec::new(),
        barred_otherwise: false,
        technique: technique.clone(),
        exceptions: vec![format!(
            "stated by people, done by {carried_out_by}: this server held no such key and saw nothing of it"
        )],
    }
}

//! Keys that devices and stations pin: the successor is made when it is due or when somebody wants it; who still needs an old one
//! is counted.

use kf_api::rotation::{RotationOperation, RotationOutcome, RotationStep};
use kf_key::{KeyId, KeyRole};
use kf_rotation::Scope;
use kf_rotation::sweep::{KeyFacts, Operation, Successor, sweep};

use super::Run;
use crate::pinned_key::{PinnedKey, class_of};
use crate::{Fleet, FleetError};

impl Fleet {
    /// Looks at each key of a role. `wanted`: the next one is made although it is not due.
    pub(super) async fn rotate_pinned_keys(
        &self,
        run: &mut Run<'_>,
        role: KeyRole,
        wanted: bool,
    ) -> Result<(), FleetError> {
        let keys = self.pinned_keys();
        let newest = keys.newest(role).map(|key| key.id);
        // The first key that stations pin is made with the first batch; devices have theirs from the beginning.
        if newest.is_none() && wanted && (role != KeyRole::Batch || !keys.of(role).is_empty()) {
            let step = step(None, role, RotationOperation::MakeSuccessor, "asked for, and none is left");
            return self.make_successor(run, (role, None), step).await;
        }
        let rule = self.policy.rule(class_of(role), Scope::default());
        for key in keys.of(role).iter().filter(|key| key.is_active()) {
            let is_newest = newest == Some(key.id);
            let record = self.store.key(key.id)?.ok_or(FleetError::Bug("a pinned key without a record"))?;
            let behind = if is_newest { 1 } else { self.store.behind_pinned_key(key.id, role)? };
            let facts = KeyFacts {
                class: class_of(role),
                state: key.state,
                activated: record.activated,
                uses: self.store.key_uses(key.id)?,
                octets: 0,
                events: &[],
                successor: if is_newest { Successor::None } else { Successor::Active },
                protected: behind,
            };
            let operations = sweep(&facts, &rule, self.now());
            let is_due = operations.iter().any(|operation| matches!(operation, Operation::MakeSuccessor(_)));
            if is_newest && wanted && !is_due {
                let step = step(Some(key), role, RotationOperation::MakeSuccessor, "asked for");
                self.make_successor(run, (role, newest), step).await?;
            }
            for operation in operations {
                match operation {
                    Operation::MakeSuccessor(reason) => {
                        let because = reason.to_string();
                        let step = step(Some(key), role, RotationOperation::MakeSuccessor, &because);
                        self.make_successor(run, (role, newest), step).await?;
                    }
                    Operation::Reprotect(remaining) => {
                        let because = "its successor is made";
                        let step = step(Some(key), role, RotationOperation::AwaitDevices, because);
                        run.report.items.push(RotationStep { remaining: Some(remaining), ..step });
                    }
                    Operation::Destroy(reason) => {
                        let mut step = step(Some(key), role, RotationOperation::Destroy, &reason.to_string());
                        step.problem = format!("propose it: `keyfleet destroy pinned-key {}`", key.id);
                        run.report.items.push(RotationStep { remaining: Some(0), ..step });
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    }

    async fn make_successor(
        &self,
        run: &mut Run<'_>,
        (role, seen): (KeyRole, Option<KeyId>),
        step: RotationStep,
    ) -> Result<(), FleetError> {
        let Some((step, why)) = run.begin(step) else { return Ok(()) };
        let outcome = self.succeed_pinned_key(run.who, (role, seen), &why).await;
        run.made(step, outcome)
    }
}

fn step(key: Option<&PinnedKey>, role: KeyRole, operation: RotationOperation, because: &str) -> RotationStep {
    RotationStep {
        key: key.map_or_else(String::new, |key| key.id.to_string()),
        name: role.name().to_owned(),
        class: class_of(role).name().to_owned(),
        facility: None,
        operation,
        because: because.to_owned(),
        remaining: None,
        outcome: RotationOutcome::Waits,
        problem: String::new(),
        proposal: None,
        log_index: None,
    }
}

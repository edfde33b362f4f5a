//! Versions of the wrapping key: made when they are due or when somebody wants it; what is left under an old one is counted.

use kf_access::{Action, Target, authorize};
use kf_api::rotation::{RotationOperation, RotationOutcome, RotationStep};
use kf_key::KeyState;
use kf_rotation::sweep::{KeyFacts, Operation, Successor, sweep};
use kf_rotation::{KeyClass, Scope};
use kf_store::wrapping::WrappingVersion;

use super::Run;
use crate::{Fleet, FleetError};

const CLASS: KeyClass = KeyClass::WrappingKey;

impl Fleet {
    /// Looks at each version. `wanted`: the next one is made although it is not due.
    pub(super) async fn rotate_wrapping(&self, run: &mut Run<'_>, wanted: bool) -> Result<(), FleetError> {
        let versions = self.wrapping_versions()?;
        let newest = versions.last().map(|last| last.version);
        for version in &versions {
            let is_newest = Some(version.version) == newest;
            let remaining = if version.state == KeyState::Destroyed {
                0
            } else {
                self.store.wrapped_under(version.version)?.total()
            };
            let rule = self.policy.rule(CLASS, Scope::default());
            let facts = facts_of(version, is_newest, remaining);
            let operations = sweep(&facts, &rule, self.now());
            let is_due = operations.iter().any(|operation| matches!(operation, Operation::MakeSuccessor(_)));
            if is_newest && wanted && !is_due {
                self.make_wrapping(run, version, "asked for", remaining).await?;
            }
            for operation in operations {
                match operation {
                    Operation::MakeSuccessor(reason) => {
                        self.make_wrapping(run, version, &reason.to_string(), remaining).await?;
                    }
                    Operation::Reprotect(_) => run.report.items.push(step(
                        version,
                        RotationOperation::Reprotect,
                        "its successor has taken over",
                        remaining,
                    )),
                    Operation::Destroy(reason) => {
                        let mut step = step(version, RotationOperation::Destroy, &reason.to_string(), remaining);
                        step.problem = format!("propose it: `keyfleet destroy wrapping-version {}`", version.version);
                        run.report.items.push(step);
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    }

    async fn make_wrapping(
        &self,
        run: &mut Run<'_>,
        version: &WrappingVersion,
        because: &str,
        remaining: u64,
    ) -> Result<(), FleetError> {
        let step = step(version, RotationOperation::MakeSuccessor, because, remaining);
        let Some((step, why)) = run.begin(step) else { return Ok(()) };
        let outcome = self.advance_wrapping(run.who, version.version, &why).await;
        run.made(step, outcome)
    }

    /// Whether the caller may make successors of the server's own keys.
    pub(super) fn may_manage_server_keys(&self, run: &Run<'_>) -> bool {
        *run.who == Self::server_principal() || authorize(run.who, Action::ServerKeyManage, Target::Fleet).is_ok()
    }
}

fn facts_of(version: &WrappingVersion, is_newest: bool, remaining: u64) -> KeyFacts<'static> {
    KeyFacts {
        class: CLASS,
        state: version.state,
        activated: Some(version.created),
        uses: 0,
        octets: 0,
        events: &[],
        successor: if is_newest { Successor::None } else { Successor::Active },
        protected: remaining,
    }
}

fn step(version: &WrappingVersion, operation: RotationOperation, because: &str, remaining: u64) -> RotationStep {
    RotationStep {
        key: format!("wrap:{}", version.version),
        name: format!("wrapping key version {}", version.version),
        class: CLASS.name().to_owned(),
        facility: None,
        operation,
        because: because.to_owned(),
        remaining: Some(remaining),
        outcome: RotationOutcome::Waits,
        problem: String::new(),
        proposal: None,
        log_index: None,
    }
}

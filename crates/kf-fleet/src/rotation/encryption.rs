//! Encryption keys that are due: the next version takes over.

use kf_access::{Action, Visibility};
use kf_api::PageRequest;
use kf_api::encryption_key::{EncryptionKey, KeyVersion};
use kf_api::epoch::EpochOutcome;
use kf_api::rotation::{RotationOperation, RotationOutcome, RotationStep};
use kf_key::FacilityId;
use kf_rotation::sweep::{KeyFacts, Operation, Successor, sweep};
use kf_rotation::{KeyClass, Scope};

use super::{Run, conclude};
use crate::{Fleet, FleetError};

/// Keys that are read at a time.
const KEYS_AT_A_TIME: u32 = 1_000;

impl Fleet {
    /// Makes new versions of encryption keys whose newest is due, by its age or by its encryptions. What becomes of the older ones is
    /// for those to say who know where the data is: the minimum version.
    pub(super) async fn rotate_encryption_keys(
        &self,
        run: &mut Run<'_>,
        facility: Option<FacilityId>,
        visibility: &Visibility,
    ) -> Result<(), FleetError> {
        let mut page = PageRequest { after: None, limit: Some(KEYS_AT_A_TIME) };
        loop {
            let found = self.store.encryption_keys(facility, visibility, &page)?;
            for key in &found.items {
                self.rotate_encryption_key(run, key).await?;
                if run.report.more {
                    return Ok(());
                }
            }
            if found.next.is_none() {
                return Ok(());
            }
            page.after = found.next;
        }
    }

    async fn rotate_encryption_key(&self, run: &mut Run<'_>, key: &EncryptionKey) -> Result<(), FleetError> {
        for version in key.versions.iter().filter(|version| version.version < key.newest_version && version.objects > 0)
        {
            run.report.items.push(reprotect(key, version));
        }
        let Some(newest) = key.versions.iter().find(|version| version.version == key.newest_version) else {
            return Ok(());
        };
        let facility = self.store.facility(key.facility, &Visibility::Fleet)?;
        let facility = facility.ok_or(FleetError::Bug("an encryption key of no facility"))?;
        let scope = Scope { facility: Some(&facility.name), product_line: None };
        let rule = self.policy.rule(KeyClass::DataEncryptionKey, scope);
        let due = sweep(&facts(newest), &rule, self.now()).into_iter().find_map(|operation| match operation {
            Operation::MakeSuccessor(reason) => Some(reason),
            _ => None,
        });
        let Some(reason) = due else { return Ok(()) };
        if !run.dry_run && run.left == 0 {
            run.report.more = true;
            return Ok(());
        }
        let mut step = RotationStep {
            key: format!("{}/{}", key.id, newest.version),
            name: format!("{} version {}", key.name, newest.version),
            class: KeyClass::DataEncryptionKey.name().to_owned(),
            facility: Some(key.facility),
            operation: RotationOperation::MakeSuccessor,
            because: reason.to_string(),
            remaining: None,
            outcome: RotationOutcome::Planned,
            problem: String::new(),
            proposal: None,
            log_index: None,
        };
        if !run.dry_run {
            run.left -= 1;
            let why = if run.why.is_empty() { format!("policy: {reason}") } else { run.why.to_owned() };
            conclude(&mut step, self.rotate_due_version(run, key, &why).await)?;
        }
        run.report.items.push(step);
        Ok(())
    }

    async fn rotate_due_version(
        &self,
        run: &Run<'_>,
        key: &EncryptionKey,
        why: &str,
    ) -> Result<EpochOutcome, FleetError> {
        if *run.who != Self::server_principal() {
            self.encryption_key_for(run.who, &key.id.to_string(), Action::EncryptionKeyManage)?;
        }
        let index = self.rotate_version(run.who, key, why).await?;
        Ok(EpochOutcome { done: true, proposal: None, epoch: None, devices: 0, log_index: Some(index) })
    }
}

/// What is left under an older version; the server moves it by itself.
fn reprotect(key: &EncryptionKey, version: &KeyVersion) -> RotationStep {
    RotationStep {
        key: format!("{}/{}", key.id, version.version),
        name: format!("{} version {}", key.name, version.version),
        class: KeyClass::DataEncryptionKey.name().to_owned(),
        facility: Some(key.facility),
        operation: RotationOperation::Reprotect,
        because: "its successor has taken over".to_owned(),
        remaining: Some(version.objects),
        outcome: RotationOutcome::Waits,
        problem: String::new(),
        proposal: None,
        log_index: None,
    }
}

fn facts(version: &KeyVersion) -> KeyFacts<'static> {
    KeyFacts {
        class: KeyClass::DataEncryptionKey,
        state: version.state,
        activated: Some(version.created),
        uses: version.encryptions,
        octets: 0,
        events: &[],
        successor: Successor::None,
        // Whether something is left under it, nobody here knows.
        protected: 1,
    }
}

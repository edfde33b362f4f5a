//! The destruction of a version of the wrapping key: what ends in its file, and what that means for backups.

use kf_access::{Action, Principal, Target, authorize};
use kf_api::backup::{Backup, BackupState};
use kf_api::destruction::{DestructionOutcome, DestructionPlan, DestructionResult, DestructionTarget, Receipt};
use kf_api::proposal::{Proposal, ProposedAct};
use kf_key::KeyState;
use kf_signer::FIRST_VERSION;
use kf_store::wrapping::WrappingVersion;

use crate::entry::Entry;
use crate::fence::Line;
use crate::{Fleet, FleetError};

const TECHNIQUE: &str = "the sealed form of the version is overwritten where it lies and its file written anew without it, at the \
    witness as well; the files are searched for every run of 8 octets of it; the signer opens nothing under it any more";

impl Fleet {
    /// Proposes the destruction of a version under which nothing lies, or says what it would do.
    pub(super) async fn destroy_wrapping(
        &self,
        who: &Principal,
        version: u32,
        why: String,
        dry_run: bool,
    ) -> Result<DestructionOutcome, FleetError> {
        let plan = self.wrapping_to_destroy(who, version)?;
        if dry_run {
            return Ok(DestructionOutcome { proposal: None, plan });
        }
        let target = DestructionTarget::WrappingVersion { version };
        let act = ProposedAct::Destroy { target, station_records_erased: false, why };
        let control = self.dual_control().always(self.now());
        let waiting = self.propose(who, act, control, (0, 0), None).await?;
        Ok(DestructionOutcome { proposal: waiting.and_then(|waiting| waiting.proposal), plan })
    }

    /// What the destruction of a version would do, if the caller may destroy it and nothing lies under it.
    pub(super) fn wrapping_to_destroy(&self, who: &Principal, version: u32) -> Result<DestructionPlan, FleetError> {
        authorize(who, Action::KeyDestroy, Target::Fleet)?;
        let versions = self.wrapping_versions()?;
        let found = versions.iter().find(|found| found.version == version);
        let found = found.ok_or(FleetError::NotFound("version of the wrapping key"))?;
        match found.state {
            KeyState::Destroyed => {
                let remedy = "`keyfleet destroy list` shows the receipts";
                return Err(FleetError::conflict("version", "is destroyed already", remedy));
            }
            KeyState::Active => {
                let remedy = "make the next one first: `keyfleet rotate --class wrapping-key --now`";
                return Err(FleetError::conflict("version", "is the newest, which wraps", remedy));
            }
            _ => {}
        }
        let left = self.store.wrapped_under(version)?.total();
        if left > 0 {
            return Err(FleetError::conflict(
                "version",
                format!("{left} rows still lie under version {version}"),
                "the server moves them in the background: `keyfleet rotate --class wrapping-key --dry-run` shows how many are \
                 left",
            ));
        }
        self.plan_wrapping(version)
    }

    fn plan_wrapping(&self, version: u32) -> Result<DestructionPlan, FleetError> {
        let is_derived = version == FIRST_VERSION;
        let mut exceptions = Vec::new();
        if is_derived {
            exceptions.push(
                "version 1 is derived from the root: the server opens nothing under it any more, and whoever has the root \
                 and a backup from its time still can"
                    .to_owned(),
            );
        } else {
            exceptions
                .push("copies of `wrapping.keys` that somebody made by hand; they open with the root alone".to_owned());
        }
        let ended = self.backups_ended_by(version)?;
        if !ended.is_empty() {
            exceptions.push(format!(
                "backups that no longer give back any key once this is done: {}",
                ended.iter().map(|backup| backup.id.to_string()).collect::<Vec<_>>().join(", ")
            ));
        }
        exceptions.push(
            "blocks that the file system has given up and flash memory below it: encrypt the disk, and purge it when it is \
             retired"
                .to_owned(),
        );
        if !self.log.has_witness() {
            exceptions
                .push("no witness: a file that is brought back from before would open again, unnoticed".to_owned());
        }
        let result = if is_derived { DestructionResult::Barred } else { DestructionResult::Destroyed };
        Ok(DestructionPlan {
            target: describe(version),
            facility: None,
            salts: 0,
            result,
            barred_by: Vec::new(),
            barred_otherwise: is_derived,
            technique: TECHNIQUE.to_owned(),
            exceptions,
        })
    }

    /// Carries out what was approved; every step can be repeated.
    pub(super) async fn finish_wrapping(
        &self,
        proposal: &Proposal,
        version: u32,
        why: &str,
    ) -> Result<Receipt, FleetError> {
        let plan = self.plan_wrapping(version)?;
        let is_gone = self.wrapping.is_destroyed(version);
        if !is_gone && self.store.wrapped_under(version)?.total() > 0 {
            return Err(FleetError::Bug("something lies under a version of the wrapping key that is to be destroyed"));
        }
        self.fence.add(&[Line::WrappingVersion { version, at: self.now() }])?;
        let scan = self.wrapping.destroy(version)?;
        self.signer.end_wrapping(version).await?;
        let entry = Entry::done(&Self::server_principal(), "wrapping.destroy", self.now())
            .about(format!("wrap:{version}"))
            .because(why);
        self.store.destroy_wrapping(version, is_gone, self.now(), self.evidence(entry).build()).await?;
        let receipt = self.receipt_of(proposal, plan, why, (proposal.devices, Some(scan)))?;
        let entry = self.receipt_entry(&receipt).build();
        let receipt = self.store.record_destruction(receipt, entry).await?.value;
        // Backups that held nothing else bar no other destruction any more.
        self.settle_destructions().await?;
        Ok(receipt)
    }

    /// Ends again what the witness knows to be ended.
    pub(super) async fn keep_wrapping_destroyed(&self, version: u32) -> Result<(), FleetError> {
        if self.wrapping.is_destroyed(version) {
            return Ok(());
        }
        tracing::warn!(version, "a destroyed version of the wrapping key was destroyed again");
        self.wrapping.destroy(version)?;
        self.signer.end_wrapping(version).await?;
        self.reconcile_wrapping().await
    }

    /// Whether nothing in a backup can be opened any more: every version that something in it may lie under is gone.
    pub(super) fn backup_is_dead(&self, backup: &Backup) -> Result<bool, FleetError> {
        Ok(is_dead(backup, &self.wrapping_versions()?, None))
    }

    fn backups_ended_by(&self, version: u32) -> Result<Vec<Backup>, FleetError> {
        let versions = self.wrapping_versions()?;
        let mut ended = Vec::new();
        for id in self.store.openable_backups(kf_key::UnixMillis(0))? {
            let backup = self.store.backup(id)?.filter(|backup| backup.state == BackupState::Openable);
            ended.extend(
                backup.filter(|backup| !is_dead(backup, &versions, None) && is_dead(backup, &versions, Some(version))),
            );
        }
        Ok(ended)
    }
}

/// Whether every version that was there when a backup was made is gone, or would be without `also`. The first, which the root
/// gives, never is.
fn is_dead(backup: &Backup, versions: &[WrappingVersion], also: Option<u32>) -> bool {
    let mut there = versions.iter().filter(|version| {
        version.created <= backup.created && version.destroyed.is_none_or(|destroyed| destroyed > backup.created)
    });
    there.all(|version| {
        version.version != FIRST_VERSION && (version.destroyed.is_some() || also == Some(version.version))
    })
}

pub(super) fn describe(version: u32) -> String {
    format!("wrapping-version {version}")
}

#[cfg(test)]
mod tests {
    use kf_key::{BackupId, UnixMillis};

    use super::*;

    fn version(number: u32, created: u64, destroyed: Option<u64>) -> WrappingVersion {
        WrappingVersion {
            version: number,
            state: if destroyed.is_some() { KeyState::Destroyed } else { KeyState::Deactivated },
            created: UnixMillis(created),
            deactivated: None,
            destroyed: destroyed.map(UnixMillis),
        }
    }

    fn made_at(at: u64) -> Backup {
        Backup {
            id: BackupId::from_bytes([1; 16]),
            key_version: 1,
            state: BackupState::Openable,
            created: UnixMillis(at),
            directory: String::new(),
            manifest: None,
            retired: None,
            full_because: None,
        }
    }

    #[test]
    fn a_backup_is_dead_once_every_version_of_its_time_is_gone_and_never_while_the_root_alone_opens_it() {
        let versions = [version(1, 0, Some(30)), version(2, 20, Some(60)), version(3, 50, None)];
        for (at, dead) in [(10, false), (25, false), (35, true), (55, false), (70, false)] {
            assert_eq!(is_dead(&made_at(at), &versions, None), dead, "made at {at}");
        }
        assert!(is_dead(&made_at(55), &versions, Some(3)), "once version 3 is gone too");
    }
}

//! Destruction of keys: proposed by one person, approved by another, carried out step by step, and receipted.
//!
//! The approval is the intent. Then: the fence at the witness, the wipe, the files, the receipt. Each step can be repeated, so that
//! a start after a crash finishes what was approved; and the fence comes first, so that no registry that is restored later
//! holds what a receipt says is gone.

mod authority;
mod elsewhere;
mod pinned_key;
mod wrapping;

use kf_access::{Action, Principal, Target, Visibility, authorize};
use kf_api::backup::BackupState;
use kf_api::destruction::{
    DestructionOutcome, DestructionPlan, DestructionRequest, DestructionResult, DestructionTarget, FileScan, Receipt,
};
use kf_api::epoch::EpochState;
use kf_api::proposal::{Proposal, ProposedAct};
use kf_api::{Page, PageRequest};
use kf_key::{BackupId, DestructionId, DeviceId, DeviceState, EncryptionKeyId, FacilityId, OperatorId, UnixMillis};
use kf_store::destruction::Salts;

use crate::entry::Entry;
use crate::fence::Line;
use crate::naming::check_why;
use crate::{Fleet, FleetError};

const METHOD: &str =
    "purge (SP 800-88r2 section 3.1.2): cryptographic erase of derived keys, by wiping what they are derived from";
const TECHNIQUE: &str = "the wrapped salts are deleted with their pages overwritten, the write-ahead log is written back and cut, \
    and the files are searched for every run of 8 octets of them";

/// What is destroyed under an approved proposal, and on which word.
pub(crate) struct Terms<'a> {
    pub(crate) salts: Salts,
    pub(crate) facility: FacilityId,
    pub(crate) station_records_erased: bool,
    pub(crate) why: &'a str,
}

/// A destruction that was found and allowed.
struct Found {
    /// By its identifier, so that nobody renames it between proposal and approval.
    target: DestructionTarget,
    /// The facility whose people may approve it; `None`: only those of the fleet.
    facility: Option<FacilityId>,
    plan: DestructionPlan,
}

impl Fleet {
    /// Proposes a destruction, which is never one person's act; or says what it would do.
    ///
    /// # Errors
    /// [`FleetError::Invalid`] without a reason, [`FleetError::Conflict`] for keys in use, [`FleetError::NotFound`],
    /// [`FleetError::Denied`].
    pub async fn destroy(
        &self,
        who: &Principal,
        request: DestructionRequest,
    ) -> Result<DestructionOutcome, FleetError> {
        check_why(&request.why)?;
        if request.why.trim().is_empty() {
            return Err(FleetError::invalid("why", "is missing", "say why the keys are destroyed"));
        }
        let DestructionRequest { target, why, station_records_erased, dry_run } = request;
        if let DestructionTarget::WrappingVersion { version } = target {
            return self.destroy_wrapping(who, version, why, dry_run).await;
        }
        let found = self.find_destruction(who, &target, station_records_erased)?;
        if dry_run {
            return Ok(DestructionOutcome { proposal: None, plan: found.plan });
        }
        let act = ProposedAct::Destroy { target: found.target, station_records_erased, why };
        let control = self.dual_control().always(self.now());
        let waiting = self.propose(who, act, control, (found.plan.salts, 0), found.facility).await?;
        let proposal = waiting.and_then(|waiting| waiting.proposal);
        Ok(DestructionOutcome { proposal, plan: found.plan })
    }

    /// Receipts that the caller may see, newest first.
    ///
    /// # Errors
    /// [`FleetError::Denied`].
    pub async fn destruction_list(&self, who: &Principal, page: PageRequest) -> Result<Page<Receipt>, FleetError> {
        let permit = authorize(who, Action::DestructionRead, Target::Visible)?;
        Ok(self.store.destructions(permit.visibility(), &page)?)
    }

    /// One receipt.
    ///
    /// # Errors
    /// [`FleetError::NotFound`].
    pub async fn destruction_show(&self, who: &Principal, id: DestructionId) -> Result<Receipt, FleetError> {
        let permit = authorize(who, Action::DestructionRead, Target::Visible)?;
        self.store.destruction(id, permit.visibility())?.ok_or(FleetError::NotFound("receipt"))
    }

    /// Asks whether the caller may destroy this, and whether it may be destroyed.
    pub(crate) fn destruction_of(
        &self,
        who: &Principal,
        target: &DestructionTarget,
        station_records_erased: bool,
    ) -> Result<(), FleetError> {
        if let DestructionTarget::WrappingVersion { version } = target {
            return self.wrapping_to_destroy(who, *version).map(drop);
        }
        if let DestructionTarget::AuthorityKey { authority, certificates, .. } = target {
            // The number that was proposed, and not one more.
            return self.find_authority_destruction(who, authority, *certificates).map(drop);
        }
        if let DestructionTarget::PinnedKey { key, holders, .. } = target {
            return self.find_pinned_key_destruction(who, key, *holders).map(drop);
        }
        self.find_destruction(who, target, station_records_erased).map(drop)
    }

    fn find_destruction(
        &self,
        who: &Principal,
        target: &DestructionTarget,
        station_records_erased: bool,
    ) -> Result<Found, FleetError> {
        let (salts, target, facility) = match target {
            DestructionTarget::DeviceKey { device } => {
                let device = self.epoch_device(who, device, Action::KeyDestroy)?;
                if device.state != DeviceState::Decommissioned {
                    return Err(FleetError::conflict(
                        "device",
                        format!("{} is {} and may still need its keys", device.name, device.state.name()),
                        "decommission it first: `keyfleet device decommission`",
                    ));
                }
                (Salts::Device(device.id), format!("device-key {}", device.id), device.facility)
            }
            DestructionTarget::FacilityEpoch { facility, epoch } => {
                let facility = self.epoch_facility(who, facility, Action::KeyDestroy)?;
                let epochs = self.store.facility_epochs(facility.id, &Visibility::Fleet)?;
                let found = epochs.into_iter().find(|found| found.epoch == *epoch);
                if found.ok_or(FleetError::NotFound("key epoch"))?.state != EpochState::Retired {
                    return Err(FleetError::conflict(
                        "epoch",
                        format!("epoch {epoch} of {} is not retired", facility.name),
                        "retire it first: `keyfleet epoch retire`",
                    ));
                }
                (Salts::Epoch(facility.id, *epoch), format!("facility-epoch {} {epoch}", facility.id), facility.id)
            }
            DestructionTarget::EncryptionVersion { key, version } => {
                let key = self.destroyable_version(who, key, *version)?;
                let salts = Salts::EncryptionVersion(key.id, *version);
                (salts, describe(salts), key.facility)
            }
            DestructionTarget::AuthorityKey { authority, certificates_stay, .. } => {
                let agreed = if *certificates_stay { u64::MAX } else { 0 };
                return self.find_authority_destruction(who, authority, agreed);
            }
            DestructionTarget::PinnedKey { key, holders_stay, .. } => {
                let agreed = if *holders_stay { u64::MAX } else { 0 };
                return self.find_pinned_key_destruction(who, key, agreed);
            }
            DestructionTarget::Elsewhere { facility, statement } => {
                return self.find_elsewhere(who, facility.as_deref(), statement);
            }
            DestructionTarget::WrappingVersion { .. } => return Err(FleetError::Bug("a wrapping key has no salts")),
        };
        let plan = self.plan_destruction(salts, &target, facility, station_records_erased)?;
        if plan.salts == 0 && matches!(salts, Salts::Device(_)) {
            return Err(FleetError::conflict(
                "device",
                "it has no key here: none was ever sent, or it was destroyed before",
                "`keyfleet destroy list` shows the receipts",
            ));
        }
        Ok(Found { target: identified(salts)?, facility: Some(facility), plan })
    }

    /// What a destruction would do, as things stand.
    pub(crate) fn plan_destruction(
        &self,
        salts: Salts,
        target: &str,
        facility: FacilityId,
        station_records_erased: bool,
    ) -> Result<DestructionPlan, FleetError> {
        let counts = self.store.count_salts(salts)?;
        let barred_by = self.backups_with(salts)?;
        let mut exceptions = self.always_excepted(salts);
        let mut is_barred = false;
        if counts.in_service > 0 {
            is_barred = true;
            exceptions.push(format!(
                "{} devices are in service and keep their salts: with the root, keys of this epoch could be derived \
                 again until each of them is decommissioned and destroyed",
                counts.in_service
            ));
        }
        if counts.in_station_records > 0 {
            is_barred |= !station_records_erased;
            let said =
                if station_records_erased { "said to be erased by the proposer" } else { "not known to be erased" };
            exceptions.push(format!(
                "{} salts were made by a factory station, whose records hold them sealed to this server: {said}",
                counts.in_station_records
            ));
        }
        let result =
            if is_barred || !barred_by.is_empty() { DestructionResult::Barred } else { DestructionResult::Destroyed };
        Ok(DestructionPlan {
            target: target.to_owned(),
            facility: Some(facility),
            salts: counts.wipeable,
            result,
            barred_by,
            barred_otherwise: is_barred,
            technique: TECHNIQUE.to_owned(),
            exceptions,
        })
    }

    /// What no destruction in a database reaches.
    pub(crate) fn always_excepted(&self, salts: Salts) -> Vec<String> {
        let copies = match salts {
            Salts::EncryptionVersion(..) => "data keys and plaintexts that programs have been given",
            _ => "copies that devices hold: order them to wipe, and see `keyfleet order list`",
        };
        let mut exceptions = vec![
            copies.to_owned(),
            "blocks that the file system has given up and flash memory below it: encrypt the disk, and purge it when it \
             is retired"
                .to_owned(),
        ];
        if !self.log.has_witness() {
            exceptions.push(
                "no witness: a registry that is restored from before would hold the salts again, unnoticed".to_owned(),
            );
        }
        exceptions
    }

    /// Backups that can still be opened and hold these salts.
    pub(crate) fn backups_with(&self, salts: Salts) -> Result<Vec<BackupId>, FleetError> {
        let Some(first) = self.store.first_offer(salts)? else { return Ok(Vec::new()) };
        let mut opening = Vec::new();
        for id in self.store.openable_backups(first)? {
            let is_dead = match self.store.backup(id)? {
                Some(backup) => self.backup_is_dead(&backup)?,
                None => false,
            };
            opening.extend((!is_dead).then_some(id));
        }
        Ok(opening)
    }

    /// Carries out what was approved. What a disk or a reader hinders now is tried again at every turn.
    pub(crate) async fn carry_out_destruction(&self, proposal: &Proposal) {
        if let Err(error) = self.finish_destruction(proposal).await {
            tracing::error!(proposal = %proposal.id, error = %error, "a destruction is not finished; it is tried again");
        }
    }

    /// Finishes what was approved and has no receipt: after a crash, or because something hindered it.
    pub(crate) async fn finish_destructions(&self) -> Result<(), FleetError> {
        for proposal in self.store.open_destructions()? {
            self.finish_destruction(&proposal).await?;
        }
        Ok(())
    }

    async fn finish_destruction(&self, proposal: &Proposal) -> Result<Receipt, FleetError> {
        let ProposedAct::Destroy { target, station_records_erased, why } = &proposal.act else {
            return Err(FleetError::Bug("a destruction that is none"));
        };
        // Who approves and the background work may come at the same time: the second finds the receipt.
        let _turn = self.destruction_turn.lock().await;
        if let Some(receipt) = self.store.destruction_of(proposal.id)? {
            return Ok(receipt);
        }
        if let DestructionTarget::AuthorityKey { authority, .. } = target {
            return self.finish_authority_destruction(proposal, authority, why).await;
        }
        if let DestructionTarget::PinnedKey { key, holders, .. } = target {
            return self.finish_pinned_key(proposal, (key, *holders), why).await;
        }
        if let DestructionTarget::WrappingVersion { version } = target {
            return self.finish_wrapping(proposal, *version, why).await;
        }
        if let DestructionTarget::Elsewhere { facility, statement } = target {
            return self.finish_elsewhere(proposal, (facility.as_deref(), statement), why).await;
        }
        let (salts, facility) = self.salts_of(target)?;
        if let Salts::EncryptionVersion(key, version) = salts {
            self.refuse_objects(&self.encryption_key_again(key)?, version)?;
        }
        let terms = Terms { salts, facility, station_records_erased: *station_records_erased, why };
        if let Salts::Epoch(facility, epoch) = salts {
            self.fence.add(&[Line::FacilityEpoch { facility, epoch, at: self.now() }])?;
        }
        self.destroy_under(proposal, proposal.devices, terms).await
    }

    /// Wipes what an approved proposal is about, `expected` salts as it says, and records the receipt. There is one receipt per
    /// proposal, whatever happened in between.
    pub(crate) async fn destroy_under(
        &self,
        proposal: &Proposal,
        expected: u64,
        terms: Terms<'_>,
    ) -> Result<Receipt, FleetError> {
        if let Some(receipt) = self.store.destruction_of(proposal.id)? {
            return Ok(receipt);
        }
        let Terms { salts, facility, station_records_erased, why } = terms;
        let described = describe(salts);
        let plan = self.plan_destruction(salts, &described, facility, station_records_erased)?;
        let (wiped, verification) = self.wipe(salts, expected, why).await?;
        // After a crash they may have been wiped before: then the proposal says how many there were.
        let receipt = self.receipt_of(proposal, plan, why, (wiped.max(expected), verification))?;
        let entry = self.receipt_entry(&receipt).build();
        Ok(self.store.record_destruction(receipt, entry).await?.value)
    }

    /// The receipt of a proposal that was carried out.
    fn receipt_of(
        &self,
        proposal: &Proposal,
        plan: DestructionPlan,
        why: &str,
        (salts, verification): (u64, Option<FileScan>),
    ) -> Result<Receipt, FleetError> {
        let now = self.now();
        Ok(Receipt {
            id: DestructionId::from_parts(now, kf_crypto::random_array()?),
            proposal: proposal.id,
            target: plan.target,
            facility: plan.facility,
            salts,
            result: plan.result,
            method: METHOD.to_owned(),
            technique: plan.technique,
            tool: format!("keyfleet {}, SQLite {}", env!("CARGO_PKG_VERSION"), kf_store::engine_version()),
            proposed_by: format!("{} ({})", proposal.proposer_name, proposal.proposer),
            approved_by: self.approver(proposal.decided_by)?,
            why: why.to_owned(),
            at: now,
            verification,
            holder: None,
            last_lists: Vec::new(),
            barred_by: plan.barred_by,
            barred_otherwise: plan.barred_otherwise,
            exceptions: plan.exceptions,
            settled: None,
            log_index: None,
        })
    }

    /// Wipes, and shows that nothing is left in the files: what the witness must know, then the wipe, then the search. How many
    /// salts were wiped now; fewer than `expected` when an earlier life of this process wiped the others.
    async fn wipe(&self, salts: Salts, expected: u64, why: &str) -> Result<(u64, Option<FileScan>), FleetError> {
        let (mut wiped, mut fragments) = (0, 0);
        let mut verification: Option<FileScan> = None;
        loop {
            let found = self.store.wipeable_salts(salts)?;
            let at = self.now();
            if found.is_empty() {
                break;
            }
            let lines: Vec<Line> = match salts {
                Salts::EncryptionVersion(key, version) => vec![Line::EncryptionVersion { key, version, at }],
                _ => self.lines_of(salts, found.devices(), at)?,
            };
            self.fence.add(&lines)?;
            // The search must find what is there, or that it finds nothing afterwards says nothing.
            let before = self.store.search_salts(&found).await?.fragments_after;
            if before == 0 {
                return Err(FleetError::Bug("the search for salts did not find them where they were"));
            }
            let entry = Entry::done(&Self::server_principal(), "key.wipe", at).about(describe(salts)).because(why);
            wiped += self.store.wipe_salts(salts, at, self.evidence(entry).build()).await?;
            fragments += before;
            for device in found.devices() {
                self.openers.forget_device(*device);
            }
            if let Salts::EncryptionVersion(key, version) = salts {
                self.materials.forget(key, version);
            }
            let scan = self.store.scrub(Some(&found)).await?;
            let rebuilt = scan.rebuilt || verification.is_some_and(|earlier| earlier.rebuilt);
            verification = Some(FileScan { fragments_before: Some(fragments), rebuilt, ..scan });
        }
        if wiped < expected {
            // Of those that were wiped before there is nothing left to search for.
            verification = Some(self.store.scrub(None).await?);
        }
        Ok((wiped, verification))
    }

    /// What the witness must know before these salts are wiped.
    fn lines_of(&self, salts: Salts, devices: &[DeviceId], at: UnixMillis) -> Result<Vec<Line>, FleetError> {
        let line = |device: &DeviceId| {
            let state = match salts {
                Salts::Ownership(_) => self.store.device(*device, &Visibility::Fleet)?.map(|found| found.state),
                _ => None,
            };
            let state = state.filter(|state| *state != DeviceState::Decommissioned);
            Ok(Line::DeviceKey { device: *device, at, state })
        };
        devices.iter().map(line).collect()
    }

    fn receipt_entry(&self, receipt: &Receipt) -> Entry {
        let list = |items: &[String]| items.join("; ");
        let backups: Vec<String> = receipt.barred_by.iter().map(ToString::to_string).collect();
        let mut entry = self
            .evidence(Entry::done(&Self::server_principal(), "key.destroy", receipt.at))
            .about(receipt.id)
            .about(receipt.proposal)
            .at_facility(receipt.facility)
            .because(&receipt.why)
            .with("target", &receipt.target)
            .with("salts", receipt.salts)
            .with("result", receipt.result.name())
            .with("method", &receipt.method)
            .with("technique", &receipt.technique)
            .with("tool", &receipt.tool)
            .with("proposed_by", &receipt.proposed_by)
            .with("approved_by", &receipt.approved_by)
            .with("barred_by", list(&backups))
            .with("exceptions", list(&receipt.exceptions));
        if let Some(FileScan { files, octets, fragments_before, fragments_after, rebuilt }) = receipt.verification {
            let before = fragments_before.map_or_else(|| "unknown".to_owned(), |before| before.to_string());
            entry = entry.with(
                "verification",
                format!("{files} files, {octets} octets; fragments before {before}, after {fragments_after}; rebuilt {rebuilt}"),
            );
        }
        // A device is a subject of its own, so that its history shows what became of its keys.
        match receipt.target.split_once(' ') {
            Some(("device-key", device)) => entry.about(device),
            Some(("encryption-version", version)) => {
                version.split_once(' ').map_or(entry.clone(), |(key, _)| entry.about(key))
            }
            _ => entry,
        }
    }

    fn salts_of(&self, target: &DestructionTarget) -> Result<(Salts, FacilityId), FleetError> {
        Ok(match target {
            DestructionTarget::DeviceKey { device } => {
                let device = self.find_device(device, &Visibility::Fleet)?;
                (Salts::Device(device.id), device.facility)
            }
            DestructionTarget::FacilityEpoch { facility, epoch } => {
                let facility = self.find_facility(facility, &Visibility::Fleet)?.id;
                (Salts::Epoch(facility, *epoch), facility)
            }
            DestructionTarget::EncryptionVersion { key, version } => {
                let key = self.find_encryption_key(key, &Visibility::Fleet)?;
                (Salts::EncryptionVersion(key.id, *version), key.facility)
            }
            DestructionTarget::AuthorityKey { .. } | DestructionTarget::PinnedKey { .. } => {
                return Err(FleetError::Bug("a key pair has no salt"));
            }
            DestructionTarget::Elsewhere { .. } => return Err(FleetError::Bug("what is elsewhere has no salt here")),
            DestructionTarget::WrappingVersion { .. } => return Err(FleetError::Bug("a wrapping key has no salts")),
        })
    }

    /// Turns `barred` into `destroyed` where the last backup that barred it is retired.
    pub(crate) async fn settle_destructions(&self) -> Result<(), FleetError> {
        let mut after = None;
        loop {
            let barred = self.store.barred_destructions(after)?;
            let Some(last) = barred.last() else { return Ok(()) };
            after = Some(last.id);
            for receipt in barred {
                self.settle(&receipt).await?;
            }
        }
    }

    async fn settle(&self, receipt: &Receipt) -> Result<(), FleetError> {
        if receipt.barred_otherwise {
            return Ok(());
        }
        for backup in &receipt.barred_by {
            let found = self.store.backup(*backup)?;
            let opens = match found {
                None => true,
                Some(found) => found.state == BackupState::Openable && !self.backup_is_dead(&found)?,
            };
            if opens {
                return Ok(());
            }
        }
        let now = self.now();
        let entry = Entry::done(&Self::server_principal(), "key.destroy.settle", now)
            .about(receipt.id)
            .about(receipt.proposal)
            .at_facility(receipt.facility)
            .because("every backup that barred it is retired, or opens no more")
            .with("target", &receipt.target)
            .with("result", DestructionResult::Destroyed.name());
        self.store.settle_destruction(receipt.id, now, self.evidence(entry).build()).await?;
        Ok(())
    }

    pub(crate) fn approver(&self, who: Option<OperatorId>) -> Result<String, FleetError> {
        let Some(id) = who else { return Ok("nobody: the delay of single control was over".to_owned()) };
        let name = self.store.operator(id)?.map_or_else(String::new, |operator| operator.name);
        Ok(format!("{name} ({id})"))
    }

    /// Destroys again what the witness knows to be destroyed: the registry may have been restored from before. Then finishes
    /// what was approved here.
    pub(crate) async fn keep_destroyed(&self) -> Result<(), FleetError> {
        let (mut devices, mut epochs) = (std::collections::BTreeMap::new(), std::collections::BTreeSet::new());
        let mut authorities = std::collections::BTreeSet::new();
        let (mut minima, mut versions) = (std::collections::BTreeMap::new(), std::collections::BTreeSet::new());
        let (mut wrapping, mut log_keys) = (std::collections::BTreeSet::new(), Vec::new());
        let mut pinned = std::collections::BTreeSet::new();
        self.fence.for_each_line(|line| match line {
            Line::DeviceKey { device, at, state } => drop(devices.insert(device, (at, state))),
            Line::FacilityEpoch { facility, epoch, .. } => drop(epochs.insert((facility, epoch))),
            Line::EncryptionMinimum { key, version, .. } => drop(minima.insert(key, version)),
            Line::EncryptionVersion { key, version, .. } => drop(versions.insert((key, version))),
            Line::AuthorityKey { authority, .. } => drop(authorities.insert(authority)),
            Line::WrappingVersion { version, .. } => drop(wrapping.insert(version)),
            Line::LogKey { key, .. } => log_keys.push(key),
            Line::PinnedKey { key, .. } => drop(pinned.insert(key)),
            Line::Certificate { .. }
            | Line::DeviceState { .. }
            | Line::BatchEnded { .. }
            | Line::KeyBlocked { .. }
            | Line::Issuance { .. }
            | Line::Operator { .. }
            | Line::TokenWithdrawn { .. }
            | Line::BreakGlassOpened { .. }
            | Line::Backup { .. }
            | Line::BackupRetired { .. } => {}
        })?;
        let why = "the witness knows that it was destroyed: this registry is of before";
        // They end with their turn, once another one signs.
        self.log.note_destroyed(log_keys);
        for version in wrapping {
            self.keep_wrapping_destroyed(version).await?;
        }
        for key in pinned {
            self.end_pinned_key_again(key, why).await?;
        }
        for authority in authorities {
            self.end_authority_again(authority, why).await?;
        }
        for (facility, epoch) in epochs {
            self.bar_again(facility, epoch, why).await?;
        }
        for (device, (at, state)) in devices {
            self.wipe_again(device, at, state, why).await?;
        }
        for (key, version) in minima {
            self.raise_again(key, version, why).await?;
        }
        for (key, version) in versions {
            let salts = Salts::EncryptionVersion(key, version);
            if self.store.count_salts(salts)?.wipeable > 0 {
                tracing::warn!(%key, version, "a destroyed version of an encryption key was destroyed again");
                self.wipe(salts, 0, why).await?;
            }
        }
        self.finish_destructions().await
    }

    async fn raise_again(&self, key: EncryptionKeyId, version: u32, why: &str) -> Result<(), FleetError> {
        let Some(found) = self.store.encryption_key(key, &Visibility::Fleet)? else { return Ok(()) };
        if found.minimum_version >= version {
            return Ok(());
        }
        let entry = Entry::done(&Self::server_principal(), "encryption-key.raise-minimum", self.now())
            .about(key)
            .at_facility(Some(found.facility))
            .because(why)
            .with("from", found.minimum_version)
            .with("to", version);
        self.store.bar_versions_below(key, version, entry.build()).await?;
        tracing::warn!(%key, version, "the minimum version of an encryption key was raised again");
        Ok(())
    }

    async fn bar_again(&self, facility: FacilityId, epoch: u32, why: &str) -> Result<(), FleetError> {
        if self.store.facility(facility, &Visibility::Fleet)?.is_none() {
            return Ok(());
        }
        let now = self.now();
        let entry = Entry::done(&Self::server_principal(), "epoch.retire", now)
            .about(facility)
            .at_facility(Some(facility))
            .because(why)
            .with("facility_epoch", epoch);
        if self.store.bar_facility_epoch(facility, epoch, now, entry.build()).await? {
            tracing::warn!(%facility, epoch, "a destroyed key epoch was barred again");
        }
        Ok(())
    }

    async fn wipe_again(
        &self,
        device: DeviceId,
        at: UnixMillis,
        state: Option<DeviceState>,
        why: &str,
    ) -> Result<(), FleetError> {
        let Some(found) = self.store.device(device, &Visibility::Fleet)? else { return Ok(()) };
        // A salt that was made since is its next owner's.
        if self.store.salt_made(device)?.is_none_or(|made| made > at) {
            return Ok(());
        }
        let left = state.unwrap_or(DeviceState::Decommissioned);
        if found.state != DeviceState::Decommissioned && found.state != left {
            // Its keys could be destroyed only after it had left, which this registry does not know either.
            self.leave_again(&found, left, why).await?;
        }
        self.store.note_salt_wiped(device, at).await?;
        self.wipe(Salts::Device(device), 0, why).await?;
        tracing::warn!(%device, "the keys of a device, which were destroyed before, were destroyed again");
        Ok(())
    }
}

/// The target by its identifier, so that nobody renames it between proposal and approval.
fn identified(salts: Salts) -> Result<DestructionTarget, FleetError> {
    Ok(match salts {
        Salts::Device(device) => DestructionTarget::DeviceKey { device: device.to_string() },
        Salts::Ownership(_) => return Err(FleetError::Bug("the end of an ownership is proposed as what it is")),
        Salts::Epoch(facility, epoch) => DestructionTarget::FacilityEpoch { facility: facility.to_string(), epoch },
        Salts::EncryptionVersion(key, version) => {
            DestructionTarget::EncryptionVersion { key: key.to_string(), version }
        }
    })
}

fn describe(salts: Salts) -> String {
    match salts {
        Salts::Device(device) => format!("device-key {device}"),
        Salts::Ownership(proposal) => format!("ownership {proposal}"),
        Salts::Epoch(facility, epoch) => format!("facility-epoch {facility} {epoch}"),
        Salts::EncryptionVersion(key, version) => format!("encryption-version {key} {version}"),
    }
}

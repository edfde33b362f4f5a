//! The end of a key that devices or stations pin, once its successor serves everybody, or two people agree to a number of those
//! whom it does not.
//!
//! The approval is the intent. Then: the fence at the witness, the end of the key where it is held, the end of its record, the
//! search, the receipt. Each step can be repeated, and a start finishes what was approved.

use kf_access::{Action, Principal, Target, authorize};
use kf_api::destruction::{DestructionPlan, DestructionResult, DestructionTarget, FileScan, Receipt};
use kf_api::proposal::Proposal;
use kf_key::{KeyId, KeyRole, KeyState};
use kf_signer::SignerError;
use kf_store::key::KeyRecord;
use kf_store::pinned_key::PinnedKeyEnd;

use super::Found;
use super::authority::{METHOD_HARDWARE, METHOD_SOFTWARE};
use crate::entry::Entry;
use crate::fence::Line;
use crate::pinned_key::class_of;
use crate::{Fleet, FleetError};

const TECHNIQUE_SOFTWARE: &str = "the signer forgets the key; its wrapped form is deleted with its page overwritten, the write-ahead log is \
    written back and cut, and the files are searched for every run of 8 octets of it";
const TECHNIQUE_HARDWARE: &str = "both halves of the pair are destroyed where they are held, and asked for again";

impl Fleet {
    /// What the end of a key that somebody pins would do, if the caller may end it, it has a successor, and at most `agreed`
    /// still need it.
    pub(super) fn find_pinned_key_destruction(
        &self,
        who: &Principal,
        key: &str,
        agreed: u64,
    ) -> Result<Found, FleetError> {
        authorize(who, Action::KeyDestroy, Target::Fleet)?;
        let (id, role) = self.find_pinned_key(key)?;
        let class = class_of(role).name();
        let keys = self.pinned_keys();
        let found = keys.of(role).iter().find(|key| key.id == id);
        let found = found.ok_or(FleetError::NotFound("key that somebody pins"))?;
        if found.state == KeyState::Destroyed {
            return Err(FleetError::conflict(
                "key",
                "is destroyed already",
                "`keyfleet destroy list` shows the receipts",
            ));
        }
        if keys.newest(role).is_none_or(|newest| newest.id <= id) {
            return Err(FleetError::conflict(
                "key",
                format!("is the newest {class}: nothing takes its place"),
                format!("make its successor first: `keyfleet rotate --class {class} --now`"),
            ));
        }
        let behind = self.store.behind_pinned_key(id, role)?;
        if behind > agreed {
            return Err(FleetError::conflict(
                "key",
                format!("{behind} {} have not proved that they hold its successor", holders(role)),
                format!(
                    "they take it up when they come, `keyfleet rotate --class {class} --dry-run` counts them; or leave them \
                     behind: --holders-stay, for exactly that number"
                ),
            ));
        }
        let plan = self.plan_pinned_key(id, role)?;
        let target = DestructionTarget::PinnedKey { key: id.to_string(), holders_stay: behind > 0, holders: behind };
        Ok(Found { target, facility: None, plan })
    }

    fn plan_pinned_key(&self, id: KeyId, role: KeyRole) -> Result<DestructionPlan, FleetError> {
        let record = self.pinned_record(id)?;
        let is_wrapped = self.was_wrapped(&record);
        let barred_by = if is_wrapped { self.store.openable_backups(record.created)? } else { Vec::new() };
        let behind = self.store.behind_pinned_key(id, role)?;
        let mut exceptions = Vec::new();
        if behind > 0 {
            exceptions.push(format!(
                "{behind} {} have not proved that they hold its successor: each has to take it up, by the links that are handed \
                 out or by hand, before this server serves it again",
                holders(role)
            ));
        }
        exceptions.push("what it signed stays as it is: orders and quotas are believed until they expire".to_owned());
        exceptions.extend(self.excepted_by_holder(is_wrapped));
        if !self.log.has_witness() && is_wrapped {
            exceptions.push(
                "no witness: a registry that is restored from before would hold the key again, unnoticed".to_owned(),
            );
        }
        let result = if barred_by.is_empty() { DestructionResult::Destroyed } else { DestructionResult::Barred };
        Ok(DestructionPlan {
            target: format!("pinned-key {id}"),
            facility: None,
            salts: 1,
            result,
            barred_by,
            barred_otherwise: false,
            technique: if is_wrapped { TECHNIQUE_SOFTWARE } else { TECHNIQUE_HARDWARE }.to_owned(),
            exceptions,
        })
    }

    fn pinned_record(&self, id: KeyId) -> Result<KeyRecord, FleetError> {
        self.store.key(id)?.ok_or(FleetError::Bug("a pinned key without a record"))
    }

    /// Carries out what was approved; every step can be repeated.
    pub(super) async fn finish_pinned_key(
        &self,
        proposal: &Proposal,
        (key, agreed): (&str, u64),
        why: &str,
    ) -> Result<Receipt, FleetError> {
        let (id, role) = self.find_pinned_key(key)?;
        let plan = self.plan_pinned_key(id, role)?;
        let record = self.pinned_record(id)?;
        let is_wrapped = self.was_wrapped(&record);
        let (holder, verification) = self.end_pinned_key(&record, (role, agreed), why).await?;
        let receipt = Receipt {
            method: if is_wrapped { METHOD_SOFTWARE } else { METHOD_HARDWARE }.to_owned(),
            holder,
            ..self.receipt_of(proposal, plan, why, (1, verification))?
        };
        let entry =
            self.receipt_entry(&receipt).about(id).with("holder", receipt.holder.as_deref().unwrap_or_default());
        Ok(self.store.record_destruction(receipt, entry.build()).await?.value)
    }

    /// The fence, the end of the key where it is held, and the end of its record; what its holder then said, and the search.
    async fn end_pinned_key(
        &self,
        record: &KeyRecord,
        (role, agreed): (KeyRole, u64),
        why: &str,
    ) -> Result<(Option<String>, Option<FileScan>), FleetError> {
        if record.state == KeyState::Destroyed {
            // It went in an earlier life of this process, and there is nothing left to search for.
            return Ok((None, Some(self.store.scrub(None).await?)));
        }
        let _turn = self.pinned_turn.lock().await;
        let behind = self.store.behind_pinned_key(record.id, role)?;
        if behind > agreed {
            return Err(FleetError::conflict(
                "key",
                format!("{behind} {} need it by now, and {agreed} were agreed to", holders(role)),
                "propose it again for the number of today",
            ));
        }
        self.fence.add(&[Line::PinnedKey { key: record.id, at: self.now() }])?;
        let wrapped = self.store.wrapped_key(record.id)?;
        let before = match &wrapped {
            Some(wrapped) => self.store.search_salts(wrapped).await?.fragments_after,
            None => 0,
        };
        if wrapped.is_some() && before == 0 {
            return Err(FleetError::Bug("the search for a wrapped key did not find it where it was"));
        }
        let holder = self.end_pinned_where_held(record).await?;
        let entry = Entry::done(&Self::server_principal(), "pinned-key.end", self.now())
            .about(record.id)
            .because(why)
            .with("role", role.name());
        let end = PinnedKeyEnd { key: record.id, role, agreed, at: self.now() };
        self.store.destroy_pinned_key(end, self.evidence(entry).build()).await?;
        self.reload_pinned_keys()?;
        let scan = self.store.scrub(wrapped.as_ref()).await?;
        Ok((holder, Some(FileScan { fragments_before: wrapped.is_some().then_some(before), ..scan })))
    }

    /// Ends the key at the signer, and asks for it again where a token or TPM holds it; what it then said.
    async fn end_pinned_where_held(&self, record: &KeyRecord) -> Result<Option<String>, FleetError> {
        let handle = crate::authority::handle_of(record)?;
        self.signer.destroy_key(record.id).await?;
        if !handle.is_hardware() {
            return Ok(None);
        }
        match self.signer.load_anew(record.id, &handle).await {
            Ok(()) => Err(FleetError::Bug("the holder of a key still has it after it destroyed it")),
            Err(SignerError::Unavailable) => Err(FleetError::Signer(SignerError::Unavailable)),
            Err(gone) => Ok(Some(gone.to_string())),
        }
    }

    /// Ends again what the witness knows to be ended, in a registry that was restored from before: whoever needs it.
    pub(super) async fn end_pinned_key_again(&self, key: KeyId, why: &str) -> Result<(), FleetError> {
        let Some(record) = self.store.key(key)?.filter(|record| record.state != KeyState::Destroyed) else {
            return Ok(());
        };
        let Some(role) = crate::pinned_key::role_of(&record) else { return Ok(()) };
        self.end_pinned_key(&record, (role, u64::MAX), why).await?;
        tracing::warn!(%key, "a key that devices or stations pin, which was destroyed before, was destroyed again");
        Ok(())
    }
}

const fn holders(role: KeyRole) -> &'static str {
    match role {
        KeyRole::Delivery | KeyRole::Order => "devices",
        KeyRole::Batch => "stations",
    }
}

//! The end of a CA's key. Before it, the CA says its last word: every list it has is signed once more, never to expire.
//!
//! The approval is the intent. Then: the fence at the witness, the last lists here and at the witness, the end of the key where
//! it is held, the end of its record, the search, the receipt. Each step can be repeated, and a start finishes what was approved.

use std::sync::Arc;

use kf_access::{Action, Principal, Target, authorize};
use kf_api::destruction::{DestructionPlan, DestructionResult, DestructionTarget, FileScan, LastList, Receipt};
use kf_api::proposal::Proposal;
use kf_backend::BackendKind;
use kf_key::AuthorityId;
use kf_rotation::succession::{KeyEndFacts, may_end_key};
use kf_signer::SignerError;
use kf_store::final_crl::FinalCrl;
use kf_store::key::{KeyMaterial, KeyRecord};

use super::Found;
use crate::authority::Known;
use crate::authority::succession::hindered;
use crate::entry::Entry;
use crate::fence::Line;
use crate::{Fleet, FleetError};

pub(super) const METHOD_SOFTWARE: &str =
    "purge (SP 800-88r2 section 3.1.2): cryptographic erase of a wrapped key, by wiping what was wrapped";
pub(super) const METHOD_HARDWARE: &str =
    "purge (SP 800-88r2 section 3.1.2): destruction of the key object by the device that holds it";
const TECHNIQUE_SOFTWARE: &str = "last CRLs signed; the signer forgets the key; its wrapped form is deleted with its page overwritten, the \
    write-ahead log is written back and cut, and the files are searched for every run of 8 octets of it";
const TECHNIQUE_HARDWARE: &str =
    "last CRLs signed; both halves of the pair are destroyed where they are held, and asked for again";
/// How often last lists are signed again because a revocation came while they were.
const MAX_ROUNDS: u32 = 5;

impl Fleet {
    pub(super) fn find_authority_destruction(
        &self,
        who: &Principal,
        authority: &str,
        agreed: u64,
    ) -> Result<Found, FleetError> {
        authorize(who, Action::KeyDestroy, Target::Fleet)?;
        let known = self.find_authority(authority)?;
        let record = &known.record;
        if record.key_destroyed.is_some() {
            return Err(FleetError::conflict(
                "authority",
                format!("the key of `{}` is destroyed", record.name),
                "`keyfleet destroy list` shows the receipt",
            ));
        }
        let living = self.store.living_certificates(record.id, self.now())?.certificates;
        let succession = self.authorities().lineage.from(record.id).map(|handover| handover.succession.state);
        let facts = KeyEndFacts { is_default: record.is_default, succession, living, agreed };
        may_end_key(&facts).map_err(|hindrance| hindered(&record.name, hindrance))?;
        let plan = self.plan_authority_destruction(&known)?;
        let target = DestructionTarget::AuthorityKey {
            authority: record.id.to_string(),
            certificates_stay: living > 0,
            certificates: living,
        };
        Ok(Found { target, facility: None, plan })
    }

    fn plan_authority_destruction(&self, known: &Known) -> Result<DestructionPlan, FleetError> {
        let key = self.key_of(known)?;
        let is_wrapped = self.was_wrapped(&key);
        let barred_by = if is_wrapped { self.store.openable_backups(key.created)? } else { Vec::new() };
        let living = self.store.living_certificates(known.record.id, self.now())?;
        let mut exceptions = vec![
            "status after this: its last CRLs, which do not expire, say it for ever; OCSP answers end with the responder's \
             certificate, within a day"
                .to_owned(),
        ];
        if living.certificates > 0 {
            exceptions.push(format!(
                "{} certificates stay as they are until they expire: nobody can revoke them any more",
                living.certificates
            ));
        }
        exceptions.extend(self.excepted_by_holder(is_wrapped));
        if !self.log.has_witness() && is_wrapped {
            exceptions.push(
                "no witness: a registry that is restored from before would hold the key again, unnoticed".to_owned(),
            );
        }
        let result = if barred_by.is_empty() { DestructionResult::Destroyed } else { DestructionResult::Barred };
        Ok(DestructionPlan {
            target: format!("authority-key {}", known.record.id),
            facility: known.record.facility,
            salts: 1,
            result,
            barred_by,
            barred_otherwise: false,
            technique: if is_wrapped { TECHNIQUE_SOFTWARE } else { TECHNIQUE_HARDWARE }.to_owned(),
            exceptions,
        })
    }

    /// What the end of a key does not reach, by where it is held.
    pub(super) fn excepted_by_holder(&self, is_wrapped: bool) -> Option<String> {
        let said = match (is_wrapped, self.signer.capabilities().backend) {
            (true, _) => {
                "blocks that the file system has given up and flash memory below it: encrypt the disk, and purge it when it \
                 is retired"
            }
            (false, BackendKind::Tpm) => {
                "copies of the key's file: they are of use to this TPM alone; clear its owner hierarchy to end them too"
            }
            (false, _) => "copies that the token's maker lets it give away: backups and clones of the token",
        };
        Some(said.to_owned())
    }

    fn key_of(&self, known: &Known) -> Result<KeyRecord, FleetError> {
        self.store.key(known.record.key)?.ok_or(FleetError::Bug("authority without key"))
    }

    /// Whether the registry holds the key, or held it: then backups may hold it too. A back end in hardware wraps no key of a CA.
    pub(super) fn was_wrapped(&self, key: &KeyRecord) -> bool {
        match key.material {
            KeyMaterial::Wrapped(_) => true,
            KeyMaterial::Token(_) => false,
            KeyMaterial::Destroyed => !self.signer.capabilities().needs_preimage_record,
        }
    }

    /// Finishes the destruction of a CA's key; the receipt.
    pub(super) async fn finish_authority_destruction(
        &self,
        proposal: &Proposal,
        authority: &str,
        why: &str,
    ) -> Result<Receipt, FleetError> {
        let known = self.find_authority(authority)?;
        let plan = self.plan_authority_destruction(&known)?;
        let key = self.key_of(&known)?;
        let is_wrapped = self.was_wrapped(&key);
        let done = self.end_authority_key(&known, &key, why).await?;
        let lists = self.store.final_crls(known.record.id)?;
        let receipt = Receipt {
            method: if is_wrapped { METHOD_SOFTWARE } else { METHOD_HARDWARE }.to_owned(),
            holder: done.holder,
            last_lists: lists.iter().map(last_list).collect(),
            ..self.receipt_of(proposal, plan, why, (1, done.verification))?
        };
        let entry = self
            .receipt_entry(&receipt)
            .about(known.record.id)
            .with("last_lists", receipt.last_lists.len())
            .with("holder", receipt.holder.as_deref().unwrap_or_default());
        Ok(self.store.record_destruction(receipt, entry.build()).await?.value)
    }

    /// The fence, the last lists, the end of the key where it is held, and the end of its record.
    async fn end_authority_key(&self, known: &Arc<Known>, key: &KeyRecord, why: &str) -> Result<Ended, FleetError> {
        let authority = known.record.id;
        let mut ended = Ended::default();
        if key.material != KeyMaterial::Destroyed {
            self.fence.add(&[Line::AuthorityKey { authority, at: self.now() }])?;
            self.say_the_last_word(known, why).await?;
            let wrapped = self.store.wrapped_key(key.id)?;
            let before = match &wrapped {
                Some(wrapped) => self.store.search_salts(wrapped).await?.fragments_after,
                None => 0,
            };
            if wrapped.is_some() && before == 0 {
                return Err(FleetError::Bug("the search for a wrapped key did not find it where it was"));
            }
            ended.holder = self.end_where_held(known, key).await?;
            let entry = Entry::done(&Self::server_principal(), "key.wipe", self.now())
                .about(authority)
                .about(key.id)
                .because(why);
            self.store.destroy_authority_key(authority, self.now(), self.evidence(entry).build()).await?;
            if let Some(wrapped) = wrapped {
                let scan = self.store.scrub(Some(&wrapped)).await?;
                ended.verification = Some(FileScan { fragments_before: Some(before), ..scan });
            }
        } else {
            // It went in an earlier life of this process, and there is nothing left to search for.
            ended.verification = Some(self.store.scrub(None).await?);
        }
        self.close_board(authority)?;
        self.reload_authorities()?;
        Ok(ended)
    }

    /// Ends the key at the signer, and asks for it again where a token or TPM holds it; what it then said.
    async fn end_where_held(&self, known: &Known, key: &KeyRecord) -> Result<Option<String>, FleetError> {
        let handle = crate::authority::handle_of(key)?;
        self.signer.register_key(
            key.id,
            handle.clone(),
            crate::authority::facts_of(known.record.kind, &known.issuer.name),
        );
        self.signer.destroy_key(key.id).await?;
        if !handle.is_hardware() {
            return Ok(None);
        }
        match self.signer.load_anew(key.id, &handle).await {
            Ok(()) => Err(FleetError::Bug("the holder of a key still has it after it destroyed it")),
            Err(SignerError::Unavailable) => Err(FleetError::Signer(SignerError::Unavailable)),
            Err(gone) => Ok(Some(gone.to_string())),
        }
    }

    /// Signs the last lists and keeps them, here and at the witness. Where the key was ended by an earlier life of this process,
    /// the lists are there already.
    async fn say_the_last_word(&self, known: &Known, why: &str) -> Result<(), FleetError> {
        let authority = known.record.id;
        if let Some(lists) = self.last_lists_at_witness(known)? {
            // The registry is of before: what the CA said last is known elsewhere, and it is never said twice.
            return self.keep_last_lists(authority, lists, why).await;
        }
        self.ensure_board(known)?;
        for _ in 0..MAX_ROUNDS {
            let before = self.status_changes_of(authority);
            match self.sign_last_lists(known).await {
                Ok(lists) => self.keep_last_lists(authority, lists, why).await?,
                Err(FleetError::Signer(SignerError::Backend(said)))
                    if !self.store.final_crls(authority)?.is_empty() =>
                {
                    tracing::warn!(%authority, said, "the key of a CA signs no more: its last lists were signed before");
                    break;
                }
                Err(error) => return Err(error),
            }
            if self.status_changes_of(authority) == before {
                break;
            }
        }
        self.fence.keep_last_lists(authority, &self.store.final_crls(authority)?)
    }

    async fn keep_last_lists(&self, authority: AuthorityId, lists: Vec<FinalCrl>, why: &str) -> Result<(), FleetError> {
        let numbers: Vec<String> = lists.iter().map(|list| list.number.to_string()).collect();
        let entry = Entry::done(&Self::server_principal(), "authority.close", self.now())
            .about(authority)
            .because(why)
            .with("crl_numbers", numbers.join(" "));
        self.store.keep_final_crls(authority, lists, self.evidence(entry).build()).await?;
        Ok(())
    }

    /// Ends again what the witness knows to be ended, in a registry that was restored from before.
    pub(super) async fn end_authority_again(&self, authority: AuthorityId, why: &str) -> Result<(), FleetError> {
        let Some(known) = self.authorities().get(authority).cloned() else { return Ok(()) };
        if known.record.key_destroyed.is_some() {
            return Ok(());
        }
        let key = self.key_of(&known)?;
        self.end_authority_key(&known, &key, why).await?;
        tracing::warn!(%authority, "the key of a CA, which was destroyed before, was destroyed again");
        Ok(())
    }
}

/// What the end of a key came to.
#[derive(Default)]
struct Ended {
    holder: Option<String>,
    verification: Option<FileScan>,
}

fn last_list(list: &FinalCrl) -> LastList {
    LastList { shard: list.shard, number: list.number, sha256: hex::encode(kf_crypto::sha256(&list.der)) }
}

//! What a start does about a registry that was restored from before: by `keyfleet restore`, by hand, or by whoever wanted
//! something forgotten.
//!
//! The log is put back from the witness, so that it goes on and never forks. What stops things is put back from the fence.
//! What else happened since is lost and counted; the server stays fenced until two people have looked and accepted it.

mod book;
mod stopped;

use std::collections::{BTreeMap, BTreeSet};

use kf_access::{Action, Principal, Target, authorize};
use kf_api::backup::{Backup, BackupManifest, BackupOutcome, BackupState, Restored};
use kf_api::proposal::ProposedAct;
use kf_api::revocation::RevokeOutcome;
use kf_key::{OperatorId, TokenId, UnixMillis};
use kf_signer::SignerClient;
use kf_store::Store;
use kf_store::revocation::StatusChange;
use serde::{Deserialize, Serialize};

use crate::backup::SEAL_CONTEXT;
use crate::entry::Entry;
use crate::fence::{FenceKeeper, Line};
use crate::log_publisher::{LogPublisher, local};
use crate::naming::check_why;
use crate::proposal::Consent;
use crate::revocation::nothing_done;
use crate::{DataDir, Fleet, FleetError};
use book::Book;

/// The entry that every backup lacks: the one that says that it is whole.
const RECORDED: &str = "backup.create";
/// Certificates that are stopped again in one commit.
const STOPPED_AT_ONCE: usize = 10_000;

/// What `keyfleet restore` leaves for the next start.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Marker {
    /// The manifest, as it was sealed.
    pub(crate) manifest: String,
    /// Its seal, hexadecimal.
    pub(crate) seal: String,
}

/// Compares the registry with what is kept outside, and puts back what may be put back. Fences the store where something
/// is lost.
pub(crate) async fn recover(
    dir: &DataDir,
    store: &Store,
    signer: &SignerClient,
    log: &LogPublisher,
    fence: &FenceKeeper,
    now: UnixMillis,
) -> Result<(), FleetError> {
    let manifest = read_marker(dir, signer).await?;
    let book = Book::read(fence)?;
    let missing = log.missing(store)?;
    let is_behind = manifest.is_some() || missing.is_some() || store.restored()?.is_some();
    let is_behind = is_behind || log.compare_with_witness(store)?.is_some();
    let pending = store.restored()?;
    let mut is_lossy = pending.is_some() && manifest.is_some();
    let mut restored = pending.unwrap_or(Restored { found: now, ..Restored::default() });
    if let Some(missing) = missing {
        if restored.has == 0 {
            restored.had = missing.from;
        }
        restored.has = missing.from + u64::try_from(missing.entries.len()).unwrap_or(0);
        count_acts(&missing.entries, &mut restored.lost);
        let lossy = restored.lost.keys().any(|act| act != RECORDED);
        is_lossy |= lossy;
        store.import_log(missing, lossy.then(|| restored.clone())).await?;
    }
    if is_behind {
        let stopped = stop_again(store, &book, &mut restored, now).await?;
        is_lossy |= stopped > 0;
        is_lossy |= stopped::stop_again(store, &book, &mut restored, now).await?;
        is_lossy |= shut_out_again(store, &book, &mut restored, now).await?;
        is_lossy |= void_opened(store, &book, now).await?;
        keep_backups(store, &book, now).await?;
    }
    note_unknown(store, fence, &book)?;
    note_shut_out(store, fence, &book, now)?;
    stopped::note(store, fence, &book, (is_behind, now))?;
    if let Some(manifest) = &manifest {
        restored.backup = Some(manifest.id);
        restored.blind = !log.has_witness();
        is_lossy |= restored.blind;
        let entry = Entry::done(&Fleet::server_principal(), "backup.restore", now)
            .about(manifest.id)
            .with("log_size", manifest.log_size)
            .with("witness", if restored.blind { "none: what was lost cannot be known" } else { "compared" });
        store.keep_backup(restored_from(store, manifest)?, entry.build()).await?;
    }
    if is_lossy {
        let entry = Entry::done(&Fleet::server_principal(), "restore.find", now)
            .with("had", restored.had)
            .with("has", restored.has)
            .with("stopped_again", restored.stopped)
            .with("devices_stopped_again", restored.devices)
            .with("operators_disabled_again", restored.operators)
            .with("tokens_withdrawn_again", restored.tokens)
            .with(
                "lost",
                restored.lost.iter().map(|(act, count)| format!("{act} {count}")).collect::<Vec<_>>().join(", "),
            );
        store.keep_restored(restored, entry.build()).await?;
    }
    if manifest.is_some() {
        let path = dir.restored_marker();
        std::fs::remove_file(&path).map_err(|error| local(&path, &error))?;
    }
    if let Some(restored) = store.restored()? {
        store.fence(explain(&restored));
    }
    Ok(())
}

/// The manifest of the backup that was restored, once the root has recognised its seal.
async fn read_marker(dir: &DataDir, signer: &SignerClient) -> Result<Option<BackupManifest>, FleetError> {
    let path = dir.restored_marker();
    let text = match std::fs::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(local(&path, &error)),
    };
    let foreign = |problem: &str| {
        FleetError::invalid(
            "backup",
            problem.to_owned(),
            "empty the data directory and restore a backup of this fleet; nothing was served from this one",
        )
    };
    let marker: Marker = serde_json::from_slice(&text).map_err(|_detail| foreign("restored.json is damaged"))?;
    let seal = hex::decode(&marker.seal).map_err(|_digits| foreign("restored.json is damaged"))?;
    let sealed = signer.unwrap(SEAL_CONTEXT, &seal).await;
    let is_ours = sealed.is_ok_and(|digest| digest.equals(&kf_crypto::sha256(marker.manifest.as_bytes())));
    if !is_ours {
        return Err(foreign(
            "its manifest was not sealed by the root of this fleet: it is of another fleet, or made up",
        ));
    }
    let manifest = serde_json::from_str(&marker.manifest).map_err(|_detail| foreign("its manifest cannot be read"))?;
    Ok(Some(manifest))
}

/// Counts entries by what they say was done.
pub(crate) fn count_acts(entries: &[Vec<u8>], lost: &mut BTreeMap<String, u64>) {
    for entry in entries {
        let act =
            serde_json::from_slice::<kf_log::AuditEntry>(entry).map_or_else(|_| "unknown".into(), |entry| entry.act);
        *lost.entry(act).or_default() += 1;
    }
}

async fn stop_again(store: &Store, book: &Book, restored: &mut Restored, now: UnixMillis) -> Result<u64, FleetError> {
    let stopped: Vec<StatusChange> =
        book.certificates.values().filter(|change| change.revoked.is_some()).copied().collect();
    let mut count = 0;
    for chunk in stopped.chunks(STOPPED_AT_ONCE) {
        let entry = Entry::done(&Fleet::server_principal(), "certificate.revoke", now)
            .because("the witness knows that they were revoked or held: this registry is of before");
        let stopped = store.stop_again(chunk.to_vec(), restored.clone(), entry.build()).await?;
        restored.stopped += stopped;
        count += stopped;
    }
    if count > 0 {
        tracing::warn!(
            certificates = count,
            "certificates were stopped again that a restored registry did not know of"
        );
    }
    Ok(count)
}

/// Disables again who was disabled, and withdraws again what was withdrawn. Whether there was anything.
async fn shut_out_again(
    store: &Store,
    book: &Book,
    restored: &mut Restored,
    now: UnixMillis,
) -> Result<bool, FleetError> {
    let disabled: Vec<OperatorId> =
        book.operators.iter().filter(|(_, enabled)| !**enabled).map(|(operator, _)| *operator).collect();
    let withdrawn: Vec<TokenId> = book.withdrawn.iter().copied().collect();
    let entry = Entry::done(&Fleet::server_principal(), "operator.disable", now)
        .because("the witness knows that they were shut out: this registry is of before");
    let shut_out = store.shut_out_again(disabled, withdrawn, restored.clone(), entry.build()).await?;
    if let Some(found) = shut_out {
        tracing::warn!(operators = found.operators, tokens = found.tokens, "operators and tokens were shut out again");
        *restored = found;
        return Ok(true);
    }
    Ok(false)
}

/// Voids break-glass credentials that were opened: their secrets may be known. Whether there was one.
async fn void_opened(store: &Store, book: &Book, now: UnixMillis) -> Result<bool, FleetError> {
    let mut any = false;
    for credential in &book.opened {
        let entry = Entry::done(&Fleet::server_principal(), "break-glass.withdraw", now)
            .about(*credential)
            .because("the witness knows that it was opened: this registry is of before");
        any |= store.void_break_glass(*credential, now, entry.build()).await?;
    }
    Ok(any)
}

/// Backups that the registry does not know of may hold what it destroys later.
async fn keep_backups(store: &Store, book: &Book, now: UnixMillis) -> Result<(), FleetError> {
    for (id, (key_version, at, is_retired)) in &book.backups {
        let state = if *is_retired { BackupState::Retired } else { BackupState::Openable };
        let known = store.backup(*id)?;
        if known.as_ref().is_some_and(|known| known.state == state || known.state == BackupState::Retired) {
            continue;
        }
        let fresh = Backup {
            id: *id,
            key_version: *key_version,
            state,
            created: *at,
            directory: String::new(),
            manifest: None,
            retired: None,
            full_because: None,
        };
        let backup = Backup { state, retired: is_retired.then_some(now), ..known.unwrap_or(fresh) };
        let entry =
            Entry::done(&Fleet::server_principal(), "backup.find", now).about(*id).because("the witness knows of it");
        store.keep_backup(backup, entry.build()).await?;
    }
    Ok(())
}

/// Tells the witness of what is stopped here and not known there: a crash came between.
fn note_unknown(store: &Store, fence: &FenceKeeper, book: &Book) -> Result<(), FleetError> {
    let mut unknown = Vec::new();
    for authority in store.authorities()? {
        store.for_each_revoked(authority.id, &mut |entry| {
            let known = book.certificates.get(&entry.serial).and_then(|change| change.revoked);
            if known.is_none_or(|(_, reason)| reason != entry.reason) {
                unknown.push(entry.as_change(authority.id));
            }
        })?;
    }
    fence.note(&unknown);
    fence.write_noted()
}

/// Tells the witness who is shut out here and not known there, or let in again: a crash came between.
fn note_shut_out(store: &Store, fence: &FenceKeeper, book: &Book, at: UnixMillis) -> Result<(), FleetError> {
    let (operators, tokens) = store.shut_out()?;
    let disabled: BTreeSet<OperatorId> = operators.iter().copied().collect();
    let unknown = operators.iter().filter(|operator| book.operators.get(operator) != Some(&false));
    fence.note_lines(unknown.map(|operator| Line::Operator { operator: *operator, enabled: false, at }));
    // The registry is not of before, or they would have been disabled again.
    let enabled = book.operators.iter().filter(|(operator, enabled)| !**enabled && !disabled.contains(operator));
    let enabled: Vec<OperatorId> = enabled.map(|(operator, _)| *operator).collect();
    for operator in enabled {
        if store.operator(operator)?.is_some() && store.restored()?.is_none() {
            fence.note_lines([Line::Operator { operator, enabled: true, at }]);
        }
    }
    let unknown = tokens.into_iter().filter(|token| !book.withdrawn.contains(token));
    fence.note_lines(unknown.map(|token| Line::TokenWithdrawn { token, at }));
    fence.write_noted()
}

/// What the registry shall know of the backup that it is from: it still exists.
fn restored_from(store: &Store, manifest: &BackupManifest) -> Result<Backup, FleetError> {
    let known = store.backup(manifest.id)?;
    let directory = known.map_or_else(String::new, |known| known.directory);
    Ok(Backup {
        id: manifest.id,
        key_version: manifest.key_version,
        state: BackupState::Openable,
        created: manifest.created,
        directory,
        manifest: Some(manifest.clone()),
        retired: None,
        full_because: None,
    })
}

fn explain(restored: &Restored) -> String {
    let Restored { had, has, stopped, devices, operators, tokens, blind, .. } = restored;
    if *blind {
        return "the registry was restored and there is no witness: what was revoked or destroyed since the backup is not \
                known, and a rollback is undetectable; look, then `keyfleet backup accept`"
            .to_owned();
    }
    format!(
        "the registry was restored from before: {} acts since then are in the log and not in the registry, {stopped} \
         certificates, {devices} devices, {operators} operators and {tokens} tokens were stopped again; look at `keyfleet backup restored`, then `keyfleet backup accept`",
        has.saturating_sub(*had)
    )
}

impl Fleet {
    /// What a restored registry has lost; `None` when there is nothing to accept.
    ///
    /// # Errors
    /// [`FleetError::Denied`].
    pub async fn restored(&self, who: &Principal) -> Result<Option<Restored>, FleetError> {
        authorize(who, Action::BackupRead, Target::Fleet)?;
        Ok(self.store.restored()?)
    }

    /// Proposes to take a restored registry into service. Two people's act, or one person's and a day's.
    ///
    /// # Errors
    /// [`FleetError::Conflict`] when there is nothing to accept, or the log does not fit the witness.
    pub async fn restored_accept(&self, who: &Principal, why: String) -> Result<BackupOutcome, FleetError> {
        check_why(&why)?;
        self.acceptable_restored(who).await?;
        let control = self.dual_control().always(self.now());
        let waiting = self.propose(who, ProposedAct::AcceptRestored { why }, control, (0, 0), None).await?;
        let proposal = waiting.and_then(|waiting| waiting.proposal);
        let proposal = proposal.ok_or(FleetError::Bug("accepting asked for no second person"))?;
        Ok(BackupOutcome { proposal, increments: Vec::new() })
    }

    /// Asks whether the caller may accept, and whether there is something that can be accepted.
    pub(crate) async fn acceptable_restored(&self, who: &Principal) -> Result<(), FleetError> {
        authorize(who, Action::RestoreAccept, Target::Fleet)?;
        if self.store.restored()?.is_none() {
            return Err(FleetError::conflict(
                "registry",
                "it was not restored from before, or was accepted already",
                "nothing is to be done; `keyfleet status` shows what keeps it from issuing",
            ));
        }
        let unfit = self.log.compare_with_witness(&self.store)?.or(self.fence.compare(&self.store).await?);
        match unfit {
            None => Ok(()),
            Some(why) => Err(FleetError::conflict(
                "registry",
                why,
                "bring the log of the lost server (`log` in its data directory, or in the witness) to the witness, or \
                 restore a newer backup",
            )),
        }
    }

    /// Carries out an acceptance that was approved.
    pub(crate) async fn carry_out_acceptance(
        &self,
        who: &Principal,
        why: &str,
        consent: &Consent,
    ) -> Result<RevokeOutcome, FleetError> {
        let entry = self.evidence(Entry::done(who, "restore.accept", self.now())).because(why);
        let logged = self.store.accept_restored(consent.with(entry.build())).await?;
        self.store.unfence();
        tracing::warn!(codes_withdrawn = logged.value, "a restored registry was accepted");
        Ok(RevokeOutcome { done: true, log_index: Some(logged.index), ..nothing_done() })
    }
}

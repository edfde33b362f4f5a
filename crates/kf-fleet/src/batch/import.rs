//! What a station made comes home: each record once, whoever sends it, however often, in any order.

use std::collections::BTreeSet;
use std::sync::Arc;

use kf_access::{Action, Principal};
use kf_api::batch::{BatchConflict, BatchImport, BatchState, ConflictKind, Outcome, RefusedItem};
use kf_api::certificate::Certificate;
use kf_batch::frame::{Kind, Signed, document_hash, split_item};
use kf_batch::keys_destroyed::KeysDestroyed;
use kf_batch::manifest::Manifest;
use kf_batch::merge::{BatchFacts, Link, certificate, judge};
use kf_batch::quota::{Quota, quota_hash};
use kf_batch::record::{CLAIM_CODE_SLOT, KeyOrigin, Record};
use kf_batch::{FormatError, P256Key};
use kf_key::{CertificateProfile, CertificateStatus, KeyId, KeyProtection};
use kf_pki::certificate::PresentedCertificate;
use kf_pki::issuer::Issuer;
use kf_pki::request::RequestedKey;
use kf_signer::BatchPlace;
use kf_store::batch::{KeysDestroyedRow, ManifestRow, MergeRow, Merged, MergedOne, StoredBatch};

use super::authorise::identity_of;
use crate::entry::Entry;
use crate::{Fleet, FleetError};

/// The most items of one import, which is one transaction.
const MAX_ITEMS: usize = 1_024;
/// The most octets of one import.
const MAX_OCTETS: usize = 4 * 1024 * 1024;
/// Conflicts and refused items that a report names; all are counted.
const MAX_NAMED: usize = 1_000;

/// A batch opened for import.
struct Opened {
    stored: StoredBatch,
    quota: Quota,
    issuer: Issuer,
    quota_hash: [u8; 32],
    /// The key that signed the quota.
    server_key: KeyId,
    /// The key by which its station is known.
    identity: Option<P256Key>,
}

/// What an item turned out to be.
enum Item {
    Record(Box<Judged>),
    Manifest(Box<Manifest>, Vec<u8>),
    KeysDestroyed(Box<KeysDestroyed>, Vec<u8>),
    Refused(String),
}

/// A record whose signature holds.
struct Judged {
    record: Record,
    hash: [u8; 32],
    document: Vec<u8>,
    conflicts: Vec<ConflictKind>,
    certificate: Option<Certificate>,
    key: Option<RequestedKey>,
}

fn bad(error: FormatError) -> String {
    match error {
        FormatError::OtherKey => "it is signed by another key than that of the batch's station".into(),
        other => other.to_string(),
    }
}

impl Opened {
    fn read(&self, item: &[u8]) -> Item {
        let key: &P256Key = &self.quota.terms.record_key;
        let is_manifest = Signed::read(Kind::Manifest, item).is_ok();
        if is_manifest {
            return match Manifest::verify(item, key) {
                Ok(manifest) if manifest.batch == self.stored.batch.id => {
                    Item::Manifest(Box::new(manifest), item.to_vec())
                }
                Ok(_) => Item::Refused("it is a manifest of another batch".into()),
                Err(error) => Item::Refused(bad(error)),
            };
        }
        if Signed::read(Kind::KeysDestroyed, item).is_ok() {
            return self.read_keys_destroyed(item);
        }
        match Record::verify(item, key) {
            Ok(record) if record.batch == self.stored.batch.id => Item::Record(Box::new(self.judge(record, item))),
            Ok(_) => Item::Refused("it is a record of another batch".into()),
            Err(error) => Item::Refused(bad(error)),
        }
    }

    /// That the keys of this batch, and no others, were destroyed: the station's word for it.
    fn read_keys_destroyed(&self, item: &[u8]) -> Item {
        let Some(identity) = &self.identity else {
            return Item::Refused("the key of the batch's station is not on record any more".into());
        };
        let destroyed = match KeysDestroyed::verify(item, identity) {
            Ok(destroyed) => destroyed,
            Err(error) => return Item::Refused(bad(error)),
        };
        let terms = &self.quota.terms;
        let authority = <[u8; 65]>::try_from(self.issuer.public_key.as_ref()).ok();
        let authority = authority.and_then(|point| P256Key::from_point(point).ok());
        let keys = authority.map(|key| [key, terms.record_key, terms.transport_key].map(|key| key.spki_sha256()));
        if destroyed.batch != self.stored.batch.id || keys != Some(destroyed.keys) {
            return Item::Refused("it is about the keys of another batch".into());
        }
        Item::KeysDestroyed(Box::new(destroyed), item.to_vec())
    }

    fn judge(&self, record: Record, document: &[u8]) -> Judged {
        let facts = BatchFacts {
            terms: &self.quota.terms,
            issuer: &self.issuer,
            quota_hash: self.quota_hash,
            is_cancelled: self.stored.batch.state != BatchState::Open,
        };
        let conflicts = judge(&record, &facts);
        let certified = certificate(&record, &facts).and_then(Result::ok).map(|facts| Certificate {
            serial: facts.serial,
            authority: self.stored.authority,
            profile: CertificateProfile::IDevId,
            device: Some(record.device),
            operator: None,
            facility: Some(self.stored.batch.facility),
            subject: facts.subject,
            spki_sha256: hex::encode(facts.spki_sha256),
            not_before: facts.not_before,
            not_after: facts.not_after,
            status: CertificateStatus::Good,
            revoked: None,
            reason: None,
        });
        let key = record.certificate.as_deref().and_then(PresentedCertificate::from_der);
        let key = key.and_then(|presented| RequestedKey::from_spki(&presented.spki).ok());
        Judged {
            hash: document_hash(document),
            document: document.to_vec(),
            // Nothing of a batch that has ended is taken on.
            certificate: certified.filter(|_| !facts.is_cancelled),
            record,
            conflicts,
            key,
        }
    }
}

impl Fleet {
    /// Merges records and manifests of a batch: a CBOR sequence of signed documents, at most 1,024 and 4 MiB, in one
    /// transaction. Sending the same again changes nothing, so a large file is sent in pieces, and again when in doubt.
    ///
    /// # Errors
    /// [`FleetError::Invalid`] when the octets are no such sequence, before anything is written; single items are in the
    /// report. [`FleetError::NotFound`], [`FleetError::Denied`].
    pub async fn batch_import(
        self: &Arc<Self>,
        who: &Principal,
        batch: &str,
        sequence: Vec<u8>,
        dry_run: bool,
    ) -> Result<BatchImport, FleetError> {
        let (stored, _) = self.batch_for(who, batch, Action::BatchImport)?;
        let mut opened = open(stored, &self.batch_keys()?)?;
        let station = self.store.operator_by_name(&opened.quota.terms.station_name)?;
        opened.identity = station.as_ref().and_then(identity_of);
        let count = count_items(&sequence)?;
        let opened = Arc::new(opened);
        let reader = Arc::clone(&opened);
        // Two signatures are verified per record: not on a thread that serves connections.
        let items = tokio::task::spawn_blocking(move || read_items(&reader, &sequence));
        let items = items.await.map_err(|_panic| FleetError::Bug("reading an import"))?;
        let mut report = BatchImport { dry_run, items: count, ..BatchImport::default() };
        let mut records = Vec::new();
        let mut manifests = Vec::new();
        let mut receipts = Vec::new();
        for (number, item) in (1..).zip(items) {
            match item {
                Item::Record(judged) => records.push(*judged),
                Item::Manifest(manifest, document) => manifests.push((*manifest, document)),
                Item::KeysDestroyed(destroyed, document) => receipts.push((*destroyed, document)),
                Item::Refused(problem) => {
                    report.refused_count += 1;
                    if report.refused.len() < MAX_NAMED {
                        report.refused.push(RefusedItem { item: number, problem });
                    }
                }
            }
        }
        self.merge(who, &opened, records, &mut report).await?;
        for (manifest, document) in manifests {
            self.merge_manifest(who, &opened, manifest, document, &mut report).await?;
        }
        for (destroyed, document) in receipts {
            self.merge_keys_destroyed(who, &opened, &destroyed, document, &mut report).await?;
        }
        Ok(report)
    }

    async fn merge(
        &self,
        who: &Principal,
        opened: &Opened,
        records: Vec<Judged>,
        report: &mut BatchImport,
    ) -> Result<(), FleetError> {
        let batch = opened.stored.batch.id;
        let places: Vec<_> = records.iter().map(|judged| (judged.record.sequence, judged.hash)).collect();
        let mut known = self.store.known_records(batch, &places)?;
        let before = records.len();
        // One record twice in one import counts once, too.
        let fresh: Vec<_> = records.into_iter().filter(|judged| known.insert(judged.hash)).collect();
        report.already_there += u64::try_from(before - fresh.len()).unwrap_or(0);
        if report.dry_run {
            report.merged += u64::try_from(fresh.len()).unwrap_or(0);
            let found = fresh.iter().flat_map(|judged| {
                judged.conflicts.iter().map(|kind| BatchConflict {
                    sequence: judged.record.sequence,
                    kind: *kind,
                    device: Some(judged.record.device),
                    other: None,
                })
            });
            name_conflicts(report, found.collect());
            return Ok(());
        }
        if fresh.is_empty() {
            return Ok(());
        }
        let rows = self.rows(who, opened, fresh).await?;
        let merged = self.store.merge_records(batch, opened.quota_hash, rows, self.now()).await?;
        self.note_quota_used(who, &opened.stored.batch, opened.server_key).await?;
        self.after_merge(merged, report)
    }

    /// The rows to be merged: salts opened, keys looked at.
    async fn rows(&self, who: &Principal, opened: &Opened, fresh: Vec<Judged>) -> Result<Vec<MergeRow>, FleetError> {
        let terms = &opened.quota.terms;
        let place = BatchPlace { facility: terms.facility, facility_epoch: terms.facility_epoch, batch: terms.batch };
        let sealed: Vec<_> =
            fresh.iter().filter_map(|judged| Some((judged.record.device, judged.record.salt.clone()?))).collect();
        let salts = if sealed.is_empty() { Vec::new() } else { self.signer.open_salts(place, &sealed).await? };
        let mut salts = salts.into_iter();
        let mut rows = Vec::with_capacity(fresh.len());
        for judged in fresh {
            let Judged { record, hash, document, mut conflicts, certificate, key } = judged;
            let salt = match &record.salt {
                None => None,
                Some(_) => {
                    let opened = salts.next().flatten();
                    if opened.is_none() {
                        conflicts.push(ConflictKind::Salt);
                    }
                    opened.map(|salt| (salt, terms.facility_epoch))
                }
            };
            let certificate = certificate.filter(|_| {
                let is_good = key.as_ref().is_some_and(|key| self.check_requested_key(key, None).is_ok());
                if !is_good {
                    conflicts.push(ConflictKind::BadKey);
                }
                is_good
            });
            let entry = self.made_entry(who, opened, &record, hash, certificate.as_ref());
            rows.push(MergeRow {
                link: Link::of(&record, hash),
                outcome: record.outcome,
                document,
                key: record.key.map(|key| key.spki_sha256),
                certificate: certificate.zip(record.certificate),
                protection: protection(record.key.map(|key| key.origin)),
                salt,
                label: record
                    .fingerprints
                    .iter()
                    .find(|fingerprint| fingerprint.slot == CLAIM_CODE_SLOT)
                    .map(|fingerprint| fingerprint.value),
                hardware: record.hardware.into_iter().map(|one| (one.kind.code(), one.value)).collect(),
                unsafe_marks: record.unsafe_marks,
                conflicts,
                entry: entry.build(),
            });
        }
        Ok(rows)
    }

    fn made_entry(
        &self,
        who: &Principal,
        opened: &Opened,
        record: &Record,
        hash: [u8; 32],
        certificate: Option<&Certificate>,
    ) -> Entry {
        let is_planned = opened.quota.terms.devices.position(record.device).is_some();
        let act = match record.outcome {
            // Whoever it names has nothing to do with it.
            _ if !is_planned => "batch.stranger",
            Outcome::Passed => "device.made",
            Outcome::Scrapped => "device.scrap",
            Outcome::Rework => "device.rework",
        };
        let mut entry = Entry::done(who, act, self.now())
            .about(record.device)
            .about(record.batch)
            .at_facility(Some(opened.stored.batch.facility))
            .because(record.reason.as_deref().unwrap_or(""))
            .with("record_sha256", hex::encode(hash))
            .with("sequence", record.sequence)
            .with("made", record.at.0)
            .with("fixture", &record.fixture)
            .with("operator", &record.operator);
        if let Some(certificate) = certificate {
            entry = entry.about(format!("cert:{}", certificate.serial));
            entry = entry.about(format!("spki:{}", certificate.spki_sha256));
        }
        if !record.unsafe_marks.is_empty() {
            entry = entry.with("unsafe", record.unsafe_marks.join(", "));
        }
        entry
    }

    async fn merge_manifest(
        &self,
        who: &Principal,
        opened: &Opened,
        manifest: Manifest,
        document: Vec<u8>,
        report: &mut BatchImport,
    ) -> Result<(), FleetError> {
        if report.dry_run {
            report.manifests += 1;
            return Ok(());
        }
        let hash = document_hash(&document);
        let entry = Entry::done(who, "batch.manifest", self.now())
            .about(manifest.batch)
            .at_facility(Some(opened.stored.batch.facility))
            .with("manifest_sha256", hex::encode(hash))
            .with("last", manifest.last)
            .with("passed", manifest.counts.passed)
            .with("scrapped", manifest.counts.scrapped)
            .with("rework", manifest.counts.rework)
            .with("operator", &manifest.operator);
        let row = ManifestRow { manifest, hash, document, entry: entry.build() };
        let merged = self.store.merge_manifest(opened.stored.batch.id, opened.quota_hash, row, self.now()).await?;
        match merged.rows.first() {
            Some(MergedOne::Now) => report.manifests += 1,
            _ => report.already_there += 1,
        }
        self.after_merge(Merged { rows: Vec::new(), ..merged }, report)
    }

    async fn merge_keys_destroyed(
        &self,
        who: &Principal,
        opened: &Opened,
        destroyed: &KeysDestroyed,
        document: Vec<u8>,
        report: &mut BatchImport,
    ) -> Result<(), FleetError> {
        if report.dry_run {
            report.receipts += 1;
            return Ok(());
        }
        let hash = document_hash(&document);
        let mut entry = Entry::done(who, "batch.keys-destroyed", self.now())
            .about(destroyed.batch)
            .at_facility(Some(opened.stored.batch.facility))
            .with("receipt_sha256", hex::encode(hash))
            .with("generation", destroyed.generation)
            .with("method", &destroyed.method)
            .with("given_up", destroyed.is_given_up)
            .with("at", destroyed.at.0);
        for key in destroyed.keys {
            entry = entry.about(format!("spki:{}", hex::encode(key)));
        }
        let row = KeysDestroyedRow { hash, destroyed: destroyed.at, document, entry: entry.build() };
        match self.store.merge_keys_destroyed(opened.stored.batch.id, row).await? {
            MergedOne::Now => report.receipts += 1,
            MergedOne::Before => report.already_there += 1,
        }
        Ok(())
    }

    fn after_merge(&self, merged: Merged, report: &mut BatchImport) -> Result<(), FleetError> {
        for one in &merged.rows {
            match one {
                MergedOne::Now => report.merged += 1,
                MergedOne::Before => report.already_there += 1,
            }
        }
        name_conflicts(report, merged.conflicts);
        self.enter_revoked(&merged.revoked)?;
        self.broker_queue.push(&merged.revoked.changes);
        Ok(())
    }
}

fn open(stored: StoredBatch, server_keys: &[(KeyId, P256Key)]) -> Result<Opened, FleetError> {
    let opened = server_keys.iter().find_map(|(id, key)| Some((*id, Quota::open(&stored.quota, key).ok()?)));
    let (server_key, quota) = opened.ok_or(FleetError::Bug("a stored quota"))?;
    let issuer = quota.terms.issuer().map_err(|_not_an_issuer| FleetError::Bug("a stored batch CA"))?;
    let quota_hash = quota_hash(&stored.quota);
    Ok(Opened { stored, quota, issuer, quota_hash, server_key, identity: None })
}

/// Looks at the whole before anything is believed.
fn count_items(sequence: &[u8]) -> Result<u64, FleetError> {
    let refused = |problem: String| {
        FleetError::invalid("body", problem, "send a station's records as they are, at most 1024 and 4 MiB at a time")
    };
    if sequence.len() > MAX_OCTETS {
        return Err(refused("is longer than 4 MiB".into()));
    }
    let (mut rest, mut count) = (sequence, 0usize);
    while !rest.is_empty() {
        match split_item(rest) {
            Ok(Some(split)) => rest = split.rest,
            Ok(None) => return Err(refused(format!("breaks off in item {}", count + 1))),
            Err(error) => return Err(refused(format!("item {}: {error}", count + 1))),
        }
        count += 1;
        if count > MAX_ITEMS {
            return Err(refused("has more than 1024 items".into()));
        }
    }
    Ok(u64::try_from(count).unwrap_or(u64::MAX))
}

fn read_items(opened: &Opened, sequence: &[u8]) -> Vec<Item> {
    let mut rest = sequence;
    let mut items = Vec::new();
    while let Ok(Some(split)) = split_item(rest) {
        items.push(opened.read(split.item));
        rest = split.rest;
    }
    items
}

fn name_conflicts(report: &mut BatchImport, found: Vec<BatchConflict>) {
    report.conflict_count += u64::try_from(found.len()).unwrap_or(0);
    let room = MAX_NAMED.saturating_sub(report.conflicts.len());
    let distinct: BTreeSet<_> = found.into_iter().take(room).collect();
    report.conflicts.extend(distinct);
}

const fn protection(origin: Option<KeyOrigin>) -> KeyProtection {
    match origin {
        Some(KeyOrigin::SecureElement) => KeyProtection::SecureElement,
        Some(KeyOrigin::Device | KeyOrigin::StationToken) => KeyProtection::Wrapped,
        None => KeyProtection::Unknown,
    }
}

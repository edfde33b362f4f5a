//! Merging records: each one exactly once, and what it means for the devices that it touches.

use std::collections::BTreeSet;

use kf_access::Visibility;
use kf_api::batch::{BatchConflict, ConflictKind, MadeState, Outcome};
use kf_api::certificate::Certificate;
use kf_batch::life::{Made, follow};
use kf_batch::merge::{Link, Neighbours, judge_link, judge_manifest};
use kf_key::{BatchId, DeviceId, DeviceState, FacilityId, KeyProtection, RevocationReason, UnixMillis};
use kf_log::AuditEntry;

use super::{octets_or_none, require_state};
use crate::act::{Act, Class};
use crate::certificate::{KeyHolder, key_standing};
use crate::column::{self, Coded, integer, millis};
use crate::device::change::carry_out;
use crate::device::{CertificateEffect, DeviceChange, DeviceTarget};
use crate::revocation::Revoked;
use crate::{Audit, Store, StoreError, sql};

/// Records of one merge.
const MAX_ROWS: usize = 1_024;
const MAX_DOCUMENT_OCTETS: usize = 8 * 1024;
/// The mark of a public key; those of hardware have the codes of `kf_batch::record::HardwareKind`.
const KEY_MARK: u8 = 3;
/// The mark of an IDevID that a record brought, by its serial number.
const CERTIFICATE_MARK: u8 = 4;
/// The device epoch of a key that a station injected.
const PROVISIONED: u32 = 0;
/// The most devices that one record can bring into conflict: those with its sequence or identifiers.
const MAX_TOUCHED: u32 = 1_000;

/// A record whose signature holds, with what the rules say of it by itself.
#[derive(Clone, Debug)]
pub struct MergeRow {
    /// Its place in the chain.
    pub link: Link,
    /// What came of the device.
    pub outcome: Outcome,
    /// The record as it was signed.
    pub document: Vec<u8>,
    /// SHA-256 of the SubjectPublicKeyInfo of the key that was made.
    pub key: Option<[u8; 32]>,
    /// The IDevID, when it is as it must be: facts (status good) and DER.
    pub certificate: Option<(Certificate, Vec<u8>)>,
    /// How the key is protected.
    pub protection: KeyProtection,
    /// The salt of the symmetric key, wrapped by the signer, and the epoch of the facility's key above it.
    pub salt: Option<(Vec<u8>, u32)>,
    /// Hash of the one-time code on the device's label.
    pub label: Option<[u8; 32]>,
    /// Identifiers of the hardware: kind and value.
    pub hardware: Vec<(u8, Vec<u8>)>,
    /// Unsafe marks.
    pub unsafe_marks: Vec<String>,
    /// What is wrong with the record by itself.
    pub conflicts: Vec<ConflictKind>,
    /// Its log entry, completed with `detail.conflicts`.
    pub entry: AuditEntry,
}

/// A manifest whose signature holds.
#[derive(Clone, Debug)]
pub struct ManifestRow {
    /// What it says.
    pub manifest: kf_batch::manifest::Manifest,
    /// SHA-256 of the signed manifest.
    pub hash: [u8; 32],
    /// The manifest as it was signed.
    pub document: Vec<u8>,
    /// Its log entry.
    pub entry: AuditEntry,
}

/// What a station signed when it had destroyed the keys of a batch.
#[derive(Clone, Debug)]
pub struct KeysDestroyedRow {
    /// SHA-256 of the signed document.
    pub hash: [u8; 32],
    /// When, by its word.
    pub destroyed: UnixMillis,
    /// The document as it was signed.
    pub document: Vec<u8>,
    /// Its log entry.
    pub entry: AuditEntry,
}

/// What became of one record or manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MergedOne {
    /// Merged.
    Now,
    /// It was there; nothing was written.
    Before,
}

/// What a merge did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Merged {
    /// Row by row.
    pub rows: Vec<MergedOne>,
    /// Conflicts that were not known before.
    pub conflicts: Vec<BatchConflict>,
    /// Certificates whose status changed.
    pub revoked: Revoked,
}

/// One merge at work.
struct Merge<'a, 'b> {
    act: &'a mut Act<'b>,
    batch: BatchId,
    quota_hash: [u8; 32],
    at: UnixMillis,
    merged: Merged,
}

fn link_row(row: &rusqlite::Row<'_>) -> rusqlite::Result<Link> {
    Ok(Link {
        sequence: column::count(row, 0)?,
        hash: row.get(1)?,
        previous: row.get(2)?,
        at: column::time(row, 3)?,
        device: column::id(row, 4)?,
    })
}

impl Merge<'_, '_> {
    /// The records with a sequence from `first` to `last`.
    fn links(&self, first: u64, last: u64) -> Result<Vec<Link>, StoreError> {
        let sql = "SELECT sequence, hash, previous, at, device FROM batch_record
            WHERE batch = ?1 AND sequence BETWEEN ?2 AND ?3 LIMIT ?4";
        self.act.all(sql, (self.batch.as_bytes(), integer(first), integer(last), MAX_TOUCHED), link_row)
    }

    fn record(&mut self, row: &MergeRow) -> Result<MergedOne, StoreError> {
        let link = &row.link;
        let around = self.links(link.sequence.saturating_sub(1), link.sequence.saturating_add(1))?;
        if around.iter().any(|other| other.hash == link.hash) {
            return Ok(MergedOne::Before);
        }
        self.insert(row)?;
        let mut found: Vec<BatchConflict> = Vec::new();
        let device = Some(link.device);
        let own = |kind| BatchConflict { sequence: link.sequence, kind, device, other: None };
        found.extend(row.conflicts.iter().copied().map(own));
        found.extend(self.conflicts_of_chain(link, &around)?);
        if !row.conflicts.contains(&ConflictKind::OutsideQuota) {
            let life = follow(&self.records_of(link.device)?);
            found.extend(life.conflicts.iter().map(|(sequence, kind)| BatchConflict {
                sequence: *sequence,
                kind: *kind,
                device,
                other: None,
            }));
            found.extend(self.marks(row)?);
            found.extend(self.keep_what_was_made(row, life.state)?);
        }
        let kinds: BTreeSet<&str> = found.iter().map(|conflict| conflict.kind.name()).collect();
        let mut touched: BTreeSet<DeviceId> = found.iter().filter_map(|conflict| conflict.device).collect();
        touched.insert(link.device);
        self.note(found)?;
        for device in touched {
            self.settle(device)?;
        }
        let audit = Audit::from(row.entry.clone());
        let audit = if kinds.is_empty() {
            audit
        } else {
            audit.with_detail("conflicts", kinds.into_iter().collect::<Vec<_>>().join(" "))
        };
        self.act.log(&audit)?;
        Ok(MergedOne::Now)
    }

    fn insert(&self, row: &MergeRow) -> Result<(), StoreError> {
        if row.document.len() > MAX_DOCUMENT_OCTETS {
            return Err(StoreError::Invalid { field: "record", problem: "at most 8,192 octets" });
        }
        let MergeRow { link, outcome, document, .. } = row;
        self.act.execute("INSERT INTO batch_record_body (document) VALUES (?1)", [document])?;
        let body = self.act.connection().last_insert_rowid();
        let sql = "INSERT INTO batch_record (batch, sequence, hash, previous, at, device, outcome, body)
            VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";
        let Link { sequence, hash, previous, at, device } = link;
        let (sequence, at) = (integer(*sequence), millis(*at));
        let batch = self.batch.as_bytes();
        self.act.execute(sql, (batch, sequence, hash, previous, at, device.as_bytes(), outcome.code(), body))?;
        Ok(())
    }

    /// What the chain says, for every device that has a record at a sequence in question.
    fn conflicts_of_chain(&self, link: &Link, around: &[Link]) -> Result<Vec<BatchConflict>, StoreError> {
        let at = |sequence| -> Vec<Link> { around.iter().filter(|one| one.sequence == sequence).copied().collect() };
        let (before, same, mut after) =
            (at(link.sequence.wrapping_sub(1)), at(link.sequence), at(link.sequence.saturating_add(1)));
        let sql = "SELECT head FROM batch_manifest WHERE batch = ?1 AND last = ?2 LIMIT ?3";
        let heads: Vec<[u8; 32]> =
            self.act.all(sql, (self.batch.as_bytes(), integer(link.sequence), MAX_TOUCHED), |row| row.get(0))?;
        // A manifest that ends here says what was before the record after this one.
        after.extend(heads.iter().map(|head| Link {
            sequence: link.sequence.saturating_add(1),
            hash: [0; 32],
            previous: *head,
            at: UnixMillis(u64::MAX),
            device: link.device,
        }));
        let around = Neighbours { before: &before, same: &same, after: &after };
        let mut found = Vec::new();
        for (sequence, kind) in judge_link(link, around, self.quota_hash) {
            found.extend(self.at_sequence(sequence, kind)?);
        }
        Ok(found)
    }

    /// A conflict of every device that has a record at this sequence; of none in particular where there is none.
    fn at_sequence(&self, sequence: u64, kind: ConflictKind) -> Result<Vec<BatchConflict>, StoreError> {
        let devices: BTreeSet<_> = self.links(sequence, sequence)?.into_iter().map(|link| link.device).collect();
        let of = |device| BatchConflict { sequence, kind, device, other: None };
        if devices.is_empty() {
            return Ok(vec![of(None)]);
        }
        Ok(devices.into_iter().map(|device| of(Some(device))).collect())
    }

    fn records_of(&self, device: DeviceId) -> Result<Vec<Made>, StoreError> {
        let sql = "SELECT sequence, hash, outcome FROM batch_record INDEXED BY batch_record_by_device
            WHERE batch = ?1 AND device = ?2 ORDER BY sequence LIMIT ?3";
        self.act.all(sql, (self.batch.as_bytes(), device.as_bytes(), MAX_TOUCHED), |row| {
            Ok(Made { sequence: column::count(row, 0)?, hash: row.get(1)?, outcome: column::coded(row, 2)? })
        })
    }

    /// Notes what must be of one device only, and says who else has it. Within a batch that concerns both; a device of another
    /// batch is left alone, because otherwise a stolen station could reach it by copying its address. A board has the addresses of
    /// the device that it became: one that failed as one unit may come back from repair as another.
    fn marks(&self, row: &MergeRow) -> Result<Vec<BatchConflict>, StoreError> {
        let link = &row.link;
        let keys = row.key.iter().map(|key| (KEY_MARK, key.as_slice()));
        let hardware = row
            .hardware
            .iter()
            .filter(|_| row.outcome == Outcome::Passed)
            .map(|(kind, value)| (*kind, value.as_slice()));
        let mut found = Vec::new();
        for (kind, value) in keys.chain(hardware) {
            let sql = "INSERT OR IGNORE INTO batch_mark (kind, value, device, batch) VALUES (?1, ?2, ?3, ?4)";
            self.act.execute(sql, (kind, value, link.device.as_bytes(), self.batch.as_bytes()))?;
            let sql = "SELECT device, batch FROM batch_mark WHERE kind = ?1 AND value = ?2 AND device <> ?3 LIMIT ?4";
            let others: Vec<(DeviceId, BatchId)> =
                self.act.all(sql, (kind, value, link.device.as_bytes(), MAX_TOUCHED), |row| {
                    Ok((column::id(row, 0)?, column::id(row, 1)?))
                })?;
            let what = match kind {
                1 => ConflictKind::SameAddress,
                2 => ConflictKind::SameSerial,
                _ => ConflictKind::SameKey,
            };
            for (other, batch) in others {
                let sequence = self.first_sequence(link.device)?;
                found.push(BatchConflict { sequence, kind: what, device: Some(link.device), other: Some(other) });
                if batch == self.batch {
                    let sequence = self.first_sequence(other)?;
                    found.push(BatchConflict { sequence, kind: what, device: Some(other), other: Some(link.device) });
                }
            }
        }
        Ok(found)
    }

    /// The sequence by which a conflict between devices is named, whichever of their records came first.
    fn first_sequence(&self, device: DeviceId) -> Result<u64, StoreError> {
        let sql = "SELECT min(sequence) FROM batch_record WHERE batch = ?1 AND device = ?2";
        let first =
            self.act.one(sql, (self.batch.as_bytes(), device.as_bytes()), |row| row.get::<_, Option<i64>>(0))?;
        Ok(first.flatten().and_then(|first| u64::try_from(first).ok()).unwrap_or(0))
    }

    /// Keeps certificate, key, salt and marks of a device of the quota.
    fn keep_what_was_made(&mut self, row: &MergeRow, state: MadeState) -> Result<Vec<BatchConflict>, StoreError> {
        let device = row.link.device;
        let sql = "INSERT INTO batch_made (batch, device, state) VALUES (?1, ?2, ?3)
            ON CONFLICT (batch, device) DO UPDATE SET state = excluded.state";
        self.act.execute(sql, (self.batch.as_bytes(), device.as_bytes(), state.code()))?;
        for mark in &row.unsafe_marks {
            let sql = "INSERT OR IGNORE INTO device_unsafe (device, mark, at) VALUES (?1, ?2, ?3)";
            self.act.execute(sql, (device.as_bytes(), mark, millis(self.at)))?;
        }
        if row.outcome == Outcome::Passed {
            let sql = "UPDATE device SET protection = ?2 WHERE id = ?1 AND protection <> ?2";
            self.act.execute(sql, (device.as_bytes(), row.protection.code()))?;
            self.keep_salt(row)?;
            if let (Some(hash), Some(key)) = (row.label, row.key) {
                crate::label::keep(self.act, device, &hash, &key)?;
            }
        }
        // What did not pass is not certified; of what was scrapped the certificate is kept, to be revoked.
        let counts = matches!(row.outcome, Outcome::Passed | Outcome::Scrapped);
        let Some((certificate, der)) = row.certificate.as_ref().filter(|_| counts) else { return Ok(Vec::new()) };
        let conflict = |kind| BatchConflict { sequence: row.link.sequence, kind, device: Some(device), other: None };
        let spki = column::sha256_of_hex("spki_sha256", &certificate.spki_sha256)?;
        let standing = key_standing(self.act.connection(), &spki)?;
        let is_free = standing.holder.is_none_or(|holder| holder == KeyHolder::Device(device));
        let mut found = Vec::new();
        if standing.is_blocked || !is_free {
            return Ok(vec![conflict(ConflictKind::BadKey)]);
        }
        let sql = "INSERT OR IGNORE INTO batch_mark (kind, value, device, batch) VALUES (?1, ?2, ?3, ?4)";
        let mark = (CERTIFICATE_MARK, certificate.serial.as_bytes(), device.as_bytes(), self.batch.as_bytes());
        self.act.execute(sql, mark)?;
        // One that enrolled before, with a certificate that no record speaks of: somebody else has the batch CA.
        let sql =
            "SELECT 1 FROM certificate c WHERE c.device = ?1 AND c.profile = 3 AND c.authority = ?2 AND c.serial <> ?3
            AND NOT EXISTS (SELECT 1 FROM batch_mark m WHERE m.kind = ?4 AND m.value = c.serial AND m.device = ?1)";
        let own =
            (device.as_bytes(), certificate.authority.as_bytes(), certificate.serial.as_bytes(), CERTIFICATE_MARK);
        if self.act.exists(sql, own)? {
            found.push(conflict(ConflictKind::MadeTwice));
        }
        let sql = "SELECT b.der FROM certificate c JOIN certificate_body b ON b.body = c.body WHERE c.serial = ?1";
        let there: Option<Vec<u8>> = self.act.one(sql, [certificate.serial.as_bytes()], |row| row.get(0))?;
        match there {
            // It enrolled before its record was merged.
            Some(known) if known == *der => Ok(found),
            Some(_) => Ok(vec![conflict(ConflictKind::Certificate)]),
            None => {
                let facility = self.facility_of(device)?;
                let certificate = Certificate { facility: Some(facility), ..certificate.clone() };
                crate::certificate::issuance::insert_with_key(self.act, &certificate, der, None)?;
                Ok(found)
            }
        }
    }

    /// The key that the station injected: its place, and the salt without which nobody derives it again.
    fn keep_salt(&self, row: &MergeRow) -> Result<(), StoreError> {
        let Some((salt, facility_epoch)) = &row.salt else { return Ok(()) };
        let device = row.link.device.as_bytes();
        let sql = "INSERT OR IGNORE INTO device_key (device, salt, device_epoch, made) VALUES (?1, ?2, 1, ?3)";
        if self.act.execute(sql, (device, salt, millis(self.at)))? == 0 {
            return Ok(());
        }
        let sql = "INSERT OR IGNORE INTO device_key_epoch
            (device, device_epoch, facility_epoch, facility, state, offered, acknowledged)
            SELECT ?1, ?2, ?6, b.facility, ?3, ?4, ?4 FROM batch b WHERE b.id = ?5";
        let held = kf_api::epoch::DeviceKeyState::Held.code();
        let params = (device, PROVISIONED, held, millis(self.at), self.batch.as_bytes(), facility_epoch);
        self.act.execute(sql, params)?;
        Ok(())
    }

    fn facility_of(&self, device: DeviceId) -> Result<FacilityId, StoreError> {
        let sql = "SELECT facility FROM device WHERE id = ?1";
        let found = self.act.one(sql, [device.as_bytes()], |row| column::id(row, 0))?;
        found.ok_or(StoreError::NotFound { what: "device" })
    }

    /// Writes conflicts that are not known yet.
    fn note(&mut self, found: Vec<BatchConflict>) -> Result<(), StoreError> {
        for conflict in found {
            let sql = "INSERT OR IGNORE INTO batch_conflict (batch, sequence, kind, device, other, found)
                VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
            let (device, other) = (octets_or_none(conflict.device.as_ref()), octets_or_none(conflict.other.as_ref()));
            let (sequence, kind) = (integer(conflict.sequence), conflict.kind.code());
            let batch = self.batch.as_bytes();
            if self.act.execute(sql, (batch, sequence, kind, device, other, millis(self.at)))? == 1 {
                self.merged.conflicts.push(conflict);
            }
        }
        Ok(())
    }

    /// Brings a device of this batch to where its records and conflicts put it.
    fn settle(&mut self, device: DeviceId) -> Result<(), StoreError> {
        let sql = "SELECT d.state, m.state, EXISTS (SELECT 1 FROM batch_conflict c
                WHERE c.batch = m.batch AND c.device = m.device),
                EXISTS (SELECT 1 FROM certificate i WHERE i.device = d.id AND i.profile = 3)
            FROM batch_made m JOIN device d ON d.id = m.device WHERE m.batch = ?1 AND m.device = ?2";
        let found = self.act.one(sql, (self.batch.as_bytes(), device.as_bytes()), |row| {
            let states: (DeviceState, MadeState) = (column::coded(row, 0)?, column::coded(row, 1)?);
            Ok((states, row.get::<_, bool>(2)?, row.get::<_, bool>(3)?))
        })?;
        // Whoever is not of this batch is none of its business.
        let Some(((seen, made), has_conflict, has_certificate)) = found else { return Ok(()) };
        if made == MadeState::Scrapped {
            self.bar_keys(device)?;
        }
        let (to, certificates) = match made {
            MadeState::Scrapped => {
                let ended = RevocationReason::CessationOfOperation;
                (DeviceState::Decommissioned, CertificateEffect::Revoke { ldevid: ended, idevid: Some(ended) })
            }
            _ if has_conflict => (DeviceState::Quarantined, CertificateEffect::Hold),
            MadeState::Rework if has_certificate => (DeviceState::Suspended, CertificateEffect::Hold),
            _ => return Ok(()),
        };
        let is_stronger = to == DeviceState::Suspended && seen == DeviceState::Quarantined;
        if is_stronger || seen.transition(to).is_err() {
            // It is there, or further, and a certificate may have come since.
            return self.stop_certificates(device, made);
        }
        let target = DeviceTarget::Device { id: device, seen };
        let change = DeviceChange { target, to, certificates, at: self.at };
        let revoked = carry_out(self.act, &change, &Visibility::Fleet)?;
        self.merged.revoked.add(revoked);
        Ok(())
    }

    fn stop_certificates(&mut self, device: DeviceId, made: MadeState) -> Result<(), StoreError> {
        let reason = match made {
            MadeState::Scrapped => RevocationReason::CessationOfOperation,
            _ => RevocationReason::CertificateHold,
        };
        let revocation = crate::revocation::Revocation {
            selection: crate::revocation::Selection::Device(device),
            profiles: crate::revocation::Profiles::Device,
            reason,
            at: self.at,
        };
        let revoked = crate::revocation::change(self.act, &revocation, &Visibility::Fleet)?;
        self.merged.revoked.add(revoked);
        Ok(())
    }

    /// The keys of a scrapped device are never certified again.
    fn bar_keys(&self, device: DeviceId) -> Result<(), StoreError> {
        let sql = "INSERT OR IGNORE INTO blocked_spki (sha256, at)
            SELECT value, ?3 FROM batch_mark WHERE device = ?1 AND kind = ?2 AND batch = ?4";
        self.act.execute(sql, (device.as_bytes(), KEY_MARK, millis(self.at), self.batch.as_bytes()))?;
        // Nobody derives its symmetric key again.
        let sql = "DELETE FROM device_key WHERE device = ?1";
        self.act.execute(sql, [device.as_bytes()])?;
        Ok(())
    }

    fn manifest(&mut self, row: &ManifestRow) -> Result<MergedOne, StoreError> {
        let ManifestRow { manifest, hash, document, entry } = row;
        let last = self.links(manifest.last, manifest.last)?;
        let sql = "INSERT OR IGNORE INTO batch_manifest
            (batch, last, hash, head, passed, scrapped, rework, at, is_final, document)
            VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)";
        let counts = manifest.counts;
        let (passed, scrapped, rework) = (integer(counts.passed), integer(counts.scrapped), integer(counts.rework));
        let (last_sequence, at) = (integer(manifest.last), millis(manifest.at));
        let batch = self.batch.as_bytes();
        let head = manifest.head;
        let params = (batch, last_sequence, hash, head, passed, scrapped, rework, at, manifest.is_final, document);
        if self.act.execute(sql, params)? == 0 {
            return Ok(MergedOne::Before);
        }
        let mut found = Vec::new();
        if let Some((sequence, kind)) = judge_manifest(manifest, &last, self.quota_hash) {
            found = self.at_sequence(sequence, kind)?;
        }
        let touched: BTreeSet<DeviceId> = found.iter().filter_map(|conflict| conflict.device).collect();
        self.note(found)?;
        for device in touched {
            self.settle(device)?;
        }
        self.act.log(&Audit::from(entry.clone()))?;
        Ok(MergedOne::Now)
    }
}

impl Store {
    /// Merges records (at most 1,024) in one transaction, each with its log entry: a record that is there already writes
    /// nothing. `quota_hash` is that of the signed quota.
    ///
    /// # Errors
    /// Only when nothing at all could be written.
    pub async fn merge_records(
        &self,
        batch: BatchId,
        quota_hash: [u8; 32],
        rows: Vec<MergeRow>,
        at: UnixMillis,
    ) -> Result<Merged, StoreError> {
        self.write(Class::Ordinary, move |act| {
            if rows.len() > MAX_ROWS {
                return Err(StoreError::Invalid { field: "records", problem: "at most 1,024 at once" });
            }
            require_state(act, batch)?;
            let mut merge = Merge { act, batch, quota_hash, at, merged: Merged::default() };
            for row in &rows {
                let one = merge.record(row)?;
                merge.merged.rows.push(one);
            }
            Ok(merge.merged)
        })
        .await
    }

    /// Keeps a manifest with its log entry; one that is there already writes nothing.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn merge_manifest(
        &self,
        batch: BatchId,
        quota_hash: [u8; 32],
        row: ManifestRow,
        at: UnixMillis,
    ) -> Result<Merged, StoreError> {
        self.write(Class::Ordinary, move |act| {
            require_state(act, batch)?;
            let mut merge = Merge { act, batch, quota_hash, at, merged: Merged::default() };
            let one = merge.manifest(&row)?;
            merge.merged.rows.push(one);
            Ok(merge.merged)
        })
        .await
    }

    /// Keeps what a station signed when it had destroyed the keys of a batch, with its log entry; one that is there already writes
    /// nothing.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn merge_keys_destroyed(&self, batch: BatchId, row: KeysDestroyedRow) -> Result<MergedOne, StoreError> {
        self.write(Class::Ordinary, move |act| {
            require_state(act, batch)?;
            let sql = "INSERT OR IGNORE INTO batch_keys_destroyed (batch, hash, at, document) VALUES (?1, ?2, ?3, ?4)";
            let KeysDestroyedRow { hash, destroyed, document, entry } = &row;
            if act.execute(sql, (batch.as_bytes(), hash, millis(*destroyed), document))? == 0 {
                return Ok(MergedOne::Before);
            }
            act.log(&Audit::from(entry.clone()))?;
            Ok(MergedOne::Now)
        })
        .await
    }

    /// Which of these hashes are those of records of the batch that are here.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn known_records(&self, batch: BatchId, records: &[(u64, [u8; 32])]) -> Result<BTreeSet<[u8; 32]>, StoreError> {
        let sql = "SELECT 1 FROM batch_record WHERE batch = ?1 AND sequence = ?2 AND hash = ?3";
        self.read(|connection| {
            let mut known = BTreeSet::new();
            for (sequence, hash) in records {
                if sql::exists(connection, sql, (batch.as_bytes(), integer(*sequence), hash))? {
                    known.insert(*hash);
                }
            }
            Ok(known)
        })
    }
}

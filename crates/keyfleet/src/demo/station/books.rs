//! What the station exported, held against itself, against the station's counts, and against what lies on the boards.

use std::collections::{BTreeMap, BTreeSet};

use kf_api::batch::Outcome;
use kf_batch::device_list::DeviceList;
use kf_batch::frame::{document_hash, split_item};
use kf_batch::keys_destroyed::KeysDestroyed;
use kf_batch::manifest::Manifest;
use kf_batch::quota::quota_hash;
use kf_batch::record::{HardwareKind, Record};
use kf_key::DeviceId;

use super::super::report::Report;
use super::super::{DemoError, at};
use super::server::Authorised;
use super::shift::{Counts, Shift, names_in};

/// The records of a batch.
pub(super) struct Books {
    /// Name of the batch.
    pub(super) batch: String,
    /// Identifier of the batch.
    pub(super) id: String,
    /// The devices of the quota.
    pub(super) devices: DeviceList,
    /// Records, manifests and the receipt for the keys as they were signed, in order.
    pub(super) items: Vec<Vec<u8>>,
    /// The records, verified.
    pub(super) records: Vec<Record>,
    /// What the station counted.
    pub(super) counts: Counts,
    /// What the station says of the keys of the batch.
    destroyed: Vec<KeysDestroyed>,
    is_chain: bool,
}

/// A board that was found to be a device of the batch.
pub(super) struct Found {
    pub(super) number: u32,
    pub(super) device: DeviceId,
}

/// What lies on the boards.
#[derive(Default)]
struct Inventory {
    good: Vec<Found>,
    barred: Vec<Found>,
    unknown: Vec<u32>,
}

impl Books {
    /// Exports the records and verifies every signature.
    pub(super) fn open(shift: &Shift, authorised: &Authorised, counts: Counts) -> Result<Self, DemoError> {
        const STEP: &str = "records";
        let terms = &authorised.quota.terms;
        let exported = shift.export(&terms.name)?;
        let mut books = Self {
            batch: terms.name.clone(),
            id: terms.batch.to_string(),
            devices: terms.devices.clone(),
            items: Vec::new(),
            records: Vec::new(),
            counts,
            destroyed: Vec::new(),
            is_chain: true,
        };
        let (mut rest, mut head) = (exported.as_slice(), quota_hash(&authorised.signed));
        while let Some(split) = split_item(rest).map_err(at(STEP))? {
            books.items.push(split.item.to_vec());
            rest = split.rest;
            if Manifest::verify(split.item, &terms.record_key).is_ok_and(|manifest| manifest.head == head) {
                continue;
            }
            if let Ok(destroyed) = KeysDestroyed::claimed(split.item) {
                books.destroyed.push(destroyed);
                continue;
            }
            let record = Record::verify(split.item, &terms.record_key).map_err(at(STEP))?;
            let sequence = u64::try_from(books.records.len()).unwrap_or(u64::MAX).saturating_add(1);
            books.is_chain &= record.sequence == sequence && record.previous == head;
            head = document_hash(split.item);
            books.records.push(record);
        }
        books.is_chain &= rest.is_empty();
        Ok(books)
    }

    /// How each device that was begun ended: the outcome of its last record, and its key.
    pub(super) fn endings(&self) -> BTreeMap<DeviceId, (Outcome, [u8; 32])> {
        let ending = |record: &Record| (record.outcome, record.key.map_or([0; 32], |key| key.spki_sha256));
        self.records.iter().map(|record| (record.device, ending(record))).collect()
    }

    fn passed(&self) -> impl Iterator<Item = &Record> {
        self.records.iter().filter(|record| record.outcome == Outcome::Passed)
    }

    /// Every check that needs no server.
    pub(super) fn check(&self, shift: &Shift, report: &mut Report) -> Result<(), DemoError> {
        let manifests = self.items.len().saturating_sub(self.records.len() + self.destroyed.len());
        report.check(
            "records",
            &format!(
                "{} records and {manifests} manifests, each signed, one unbroken chain from the quota on",
                self.records.len()
            ),
            self.is_chain && manifests > 0,
        );
        let left = shift.batch_keys()?;
        report.check(
            "keys",
            &format!(
                "the station closed the batch: {} of its keys are left, and it signed that they are gone",
                left.len()
            ),
            left.is_empty() && matches!(self.destroyed.as_slice(), [one] if one.batch.to_string() == self.id),
        );
        self.check_endings(report);
        self.check_twice(report);
        self.check_boards(shift, report)?;
        let mut passed: Vec<String> = self
            .passed()
            .filter_map(|record| self.devices.name(record.device))
            .map(|name| format!("{name}.json"))
            .collect();
        passed.sort();
        let ready = names_in(&shift.labels(&self.id).join("ready"))?;
        report.check(
            "labels",
            &format!("{} labels may be printed, those of the devices that passed", ready.len()),
            ready == passed,
        );
        Ok(())
    }

    fn check_endings(&self, report: &mut Report) {
        let endings = self.endings();
        let count = |outcome| endings.values().filter(|(ending, _)| *ending == outcome).count();
        let (passed, scrapped, rework) = (count(Outcome::Passed), count(Outcome::Scrapped), count(Outcome::Rework));
        let is_number = |found: usize, counted: u32| u32::try_from(found).is_ok_and(|found| found == counted);
        let Counts { planned, good, scrap, left, .. } = self.counts;
        report.check(
            "records",
            &format!("every device that was begun has its record: {passed} passed, {scrapped} scrapped, {rework} open"),
            is_number(passed, good)
                && is_number(scrapped, scrap)
                && rework == 0
                && is_number(endings.len(), planned.saturating_sub(left)),
        );
    }

    fn check_twice(&self, report: &mut Report) {
        let mut keys: Vec<[u8; 32]> = Vec::new();
        for record in &self.records {
            keys.extend(record.key.map(|key| key.spki_sha256));
            keys.extend(record.fingerprints.iter().map(|fingerprint| fingerprint.value));
        }
        report.check(
            "keys",
            &format!(
                "{} identity keys, device keys and codes were made, those of failed attempts included; none twice",
                keys.len()
            ),
            is_set(&keys) && !keys.is_empty(),
        );
        let addresses: Vec<&[u8]> = self.passed().filter_map(address).collect();
        let devices: Vec<DeviceId> = self.passed().map(|record| record.device).collect();
        report.check(
            "addresses",
            &format!("{} devices passed, each once, no two with one hardware address", devices.len()),
            is_set(&addresses) && is_set(&devices) && addresses.len() == devices.len(),
        );
    }

    /// Reads every board as its own firmware would, and asks the records whose key that is.
    fn inventory(&self, shift: &Shift) -> Result<Inventory, DemoError> {
        let by_key: BTreeMap<[u8; 32], &Record> =
            self.records.iter().filter_map(|record| Some((record.key?.spki_sha256, record))).collect();
        let mut inventory = Inventory::default();
        for number in 1..=shift.boards {
            let board = shift.board(number)?;
            let Some(key) = shift.target.open(board.segments(), board.held()) else {
                if board.has_passed() {
                    inventory.unknown.push(number);
                }
                continue;
            };
            let record = by_key.get(&kf_crypto::sha256(&key.spki()));
            let mac = hex::decode(board.mac().replace(':', "")).unwrap_or_default();
            let record = record.filter(|record| address(record) == Some(mac.as_slice()));
            let found = record.map(|record| (Found { number, device: record.device }, record.outcome));
            match found {
                Some((found, Outcome::Passed)) => inventory.good.push(found),
                Some((found, _)) if !board.has_passed() => inventory.barred.push(found),
                Some(_) | None => inventory.unknown.push(number),
            }
        }
        Ok(inventory)
    }

    fn check_boards(&self, shift: &Shift, report: &mut Report) -> Result<(), DemoError> {
        let Inventory { good, barred, unknown } = self.inventory(shift)?;
        let on_boards: BTreeSet<DeviceId> = good.iter().map(|found| found.device).collect();
        let in_records: BTreeSet<DeviceId> = self.passed().map(|record| record.device).collect();
        report.check(
            "boards",
            &format!(
                "{} boards read: {} hold the key of their passed record, {} a key that a record bars, {} a key nobody knows",
                shift.boards,
                good.len(),
                barred.len(),
                unknown.len()
            ),
            unknown.is_empty() && on_boards == in_records && good.len() == on_boards.len(),
        );
        Ok(())
    }

    /// Boards that are devices now, and boards with a key that is barred.
    pub(super) fn boards(&self, shift: &Shift) -> Result<(Vec<Found>, Vec<Found>), DemoError> {
        let Inventory { good, barred, .. } = self.inventory(shift)?;
        Ok((good, barred))
    }
}

fn address(record: &Record) -> Option<&[u8]> {
    let hardware = record.hardware.iter().find(|hardware| hardware.kind == HardwareKind::Address);
    hardware.map(|hardware| hardware.value.as_slice())
}

fn is_set<T: Ord>(all: &[T]) -> bool {
    all.iter().collect::<BTreeSet<_>>().len() == all.len()
}

#[cfg(test)]
mod tests;

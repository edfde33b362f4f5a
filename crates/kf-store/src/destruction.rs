//! Destruction of keys: what is wiped, the search for what is left of it in the files, and the receipts.

use kf_access::Visibility;
use kf_api::destruction::{DestructionResult, FileScan, Receipt};
use kf_api::proposal::Proposal;
use kf_api::{Page, PageRequest};
use kf_key::{BackupId, DestructionId, DeviceId, EncryptionKeyId, FacilityId, KeyId, ProposalId, UnixMillis};
use rusqlite::types::Value;
use rusqlite::{Connection, Row};

use crate::act::{Act, Class};
use crate::column::{self, Coded, integer, millis};
use crate::connection::cut_wal;
use crate::key::KeyMaterial;
use crate::listing::{BAD_CURSOR, Branch, Listing, next_of, scopes};
use crate::remnant::Fragments;
use crate::sql::{self, in_scope, scope};
use crate::{Audit, Logged, Store, StoreError};

/// The most devices whose salts are wiped in one transaction.
pub const MAX_WIPED: usize = 10_000;

/// Which salts are to be wiped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Salts {
    /// That of one device, which is out of service.
    Device(DeviceId),
    /// Those of every decommissioned device that ever held a key of this epoch.
    Epoch(FacilityId, u32),
    /// Those of the devices that leave by this proposal; they are out of service.
    Ownership(ProposalId),
    /// No salt: the wrapped material of a version of an encryption key.
    EncryptionVersion(EncryptionKeyId, u32),
}

/// What there is to be wiped, and what stays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SaltCounts {
    /// Salts of decommissioned devices.
    pub wipeable: u64,
    /// Salts of devices that are in service or may be again.
    pub in_service: u64,
    /// Of the wipeable ones: also in a record of the station that made the device, sealed to this server.
    pub in_station_records: u64,
}

/// Wrapped salts, as they lie in the files. Debug does not print them.
pub struct WrappedSalts {
    devices: Vec<DeviceId>,
    salts: Vec<Vec<u8>>,
}

impl WrappedSalts {
    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.salts.is_empty()
    }

    /// Whose they are; material of an encryption key is of no device.
    #[must_use]
    pub fn devices(&self) -> &[DeviceId] {
        &self.devices
    }
}

impl std::fmt::Debug for WrappedSalts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} wrapped salts", self.salts.len())
    }
}

/// The devices of [`Salts`], as a subquery with `?1` and `?2`.
fn devices(salts: Salts) -> (&'static str, Vec<u8>, u32) {
    match salts {
        Salts::Device(device) => ("SELECT ?1 WHERE ?2 = 0", device.as_bytes().to_vec(), 0),
        Salts::Epoch(facility, epoch) => (
            "SELECT device FROM device_key_epoch WHERE facility = ?1 AND facility_epoch = ?2",
            facility.as_bytes().to_vec(),
            epoch,
        ),
        Salts::Ownership(proposal) => {
            // Those that are still where they were when it was proposed.
            let devices = "SELECT o.device FROM ownership o JOIN device l ON l.id = o.device
                WHERE o.proposal = ?1 AND l.facility = o.facility AND ?2 = 0";
            (devices, proposal.as_bytes().to_vec(), 0)
        }
        Salts::EncryptionVersion(..) => ("SELECT ?1 WHERE ?2 < 0", Vec::new(), 0),
    }
}

/// The states in which salts may be wiped, in the codes of [`column`]: of an epoch those of decommissioned devices. What leaves
/// to be of use to somebody else is suspended or quarantined, and is sent no key either.
const fn out_of_service(salts: Salts) -> &'static str {
    match salts {
        Salts::Device(_) | Salts::Ownership(_) => "d.state IN (3, 4, 5)",
        Salts::Epoch(..) | Salts::EncryptionVersion(..) => "d.state = 5",
    }
}

fn wipeable(connection: &Connection, salts: Salts) -> Result<Vec<(DeviceId, Vec<u8>)>, StoreError> {
    let (devices, owner, epoch) = devices(salts);
    let left = out_of_service(salts);
    let sql = format!(
        "SELECT k.device, k.salt FROM device_key k JOIN device d ON d.id = k.device
            WHERE {left} AND k.device IN ({devices}) ORDER BY k.device LIMIT ?3"
    );
    let most = integer(u64::try_from(MAX_WIPED).unwrap_or(u64::MAX));
    sql::all(connection, &sql, (owner, epoch, most), |row| Ok((column::id(row, 0)?, row.get(1)?)))
}

/// A salt that is made after this is younger, whatever the clock says then.
fn note_wiped(act: &Act<'_>, device: DeviceId, at: UnixMillis) -> Result<(), StoreError> {
    let sql = "INSERT INTO device_key_wiped (device, at) VALUES (?1, ?2)
        ON CONFLICT (device) DO UPDATE SET at = max(at, excluded.at)";
    act.execute(sql, (device.as_bytes(), millis(at)))?;
    Ok(())
}

fn receipt_row(row: &Row<'_>) -> rusqlite::Result<Receipt> {
    column::json(row, 0)
}

fn write_receipt(receipt: &Receipt) -> Result<String, StoreError> {
    serde_json::to_string(receipt).map_err(|_detail| StoreError::Invalid { field: "receipt", problem: "is unwritable" })
}

impl Store {
    /// What a destruction of these salts would wipe and what would stay.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn count_salts(&self, salts: Salts) -> Result<SaltCounts, StoreError> {
        if let Salts::EncryptionVersion(key, version) = salts {
            let found = self.encryption_version(key, version)?.and_then(|found| found.material);
            return Ok(SaltCounts { wipeable: u64::from(found.is_some()), ..SaltCounts::default() });
        }
        let (devices, owner, epoch) = devices(salts);
        let left = out_of_service(salts);
        let sql = format!(
            "SELECT count(*) FILTER (WHERE {left}), count(*) FILTER (WHERE NOT ({left})),
                count(*) FILTER (WHERE {left} AND EXISTS
                    (SELECT 1 FROM device_key_epoch e WHERE e.device = k.device AND e.device_epoch = 0))
                FROM device_key k JOIN device d ON d.id = k.device WHERE k.device IN ({devices})"
        );
        self.read(|connection| {
            let counts = sql::one(connection, &sql, (owner, epoch), |row| {
                Ok(SaltCounts {
                    wipeable: column::count(row, 0)?,
                    in_service: column::count(row, 1)?,
                    in_station_records: column::count(row, 2)?,
                })
            })?;
            Ok(counts.unwrap_or_default())
        })
    }

    /// When the first key of these devices was sent: no backup of before holds their salts. `None`: never.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn first_offer(&self, salts: Salts) -> Result<Option<UnixMillis>, StoreError> {
        if let Salts::EncryptionVersion(key, version) = salts {
            let sql = "SELECT created FROM encryption_key_version WHERE key = ?1 AND version = ?2";
            return self
                .read(|connection| sql::one(connection, sql, (key.as_bytes(), version), |row| column::time(row, 0)));
        }
        let (devices, owner, epoch) = devices(salts);
        let sql = format!("SELECT min(offered) FROM device_key_epoch WHERE device IN ({devices})");
        self.read(|connection| {
            Ok(sql::one(connection, &sql, (owner, epoch), |row| column::optional_time(row, 0))?.flatten())
        })
    }

    /// The salts that [`Store::wipe_salts`] would wipe first, at most [`MAX_WIPED`].
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn wipeable_salts(&self, salts: Salts) -> Result<WrappedSalts, StoreError> {
        if let Salts::EncryptionVersion(key, version) = salts {
            let found = self.encryption_version(key, version)?.and_then(|found| found.material);
            return Ok(WrappedSalts { devices: Vec::new(), salts: found.into_iter().map(|found| found.0).collect() });
        }
        self.read(|connection| {
            let (devices, salts) = wipeable(connection, salts)?.into_iter().unzip();
            Ok(WrappedSalts { devices, salts })
        })
    }

    /// The wrapped key, where the registry holds it: to be searched for before and after its end.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn wrapped_key(&self, key: KeyId) -> Result<Option<WrappedSalts>, StoreError> {
        Ok(match self.key(key)?.map(|found| found.material) {
            Some(KeyMaterial::Wrapped(octets)) => Some(WrappedSalts { devices: Vec::new(), salts: vec![octets] }),
            _ => None,
        })
    }

    /// Wipes at most [`MAX_WIPED`] salts of decommissioned devices, and the records of stations in which they lie sealed:
    /// the hashes of the records stay, so that their chain can still be followed. How many were wiped; nothing is logged
    /// where there was none.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn wipe_salts(&self, salts: Salts, at: UnixMillis, audit: impl Into<Audit>) -> Result<u64, StoreError> {
        let audit = audit.into();
        self.write(Class::Reserved, move |act| {
            if let Salts::EncryptionVersion(key, version) = salts {
                let wiped = crate::encryption_key::destroy_version(act, key, version, at)?;
                if wiped {
                    act.log(&audit.with_detail("salts", 1))?;
                }
                return Ok(u64::from(wiped));
            }
            let found = wipeable(act.connection(), salts)?;
            for (device, _) in &found {
                act.execute("DELETE FROM device_key WHERE device = ?1", [device.as_bytes()])?;
                note_wiped(act, *device, at)?;
                // A record has its salt in clear to nobody, but this server can open it.
                let sql = "UPDATE batch_record_body SET document = x'' WHERE body IN
                    (SELECT body FROM batch_record WHERE device = ?1 AND batch IN
                        (SELECT batch FROM batch_made WHERE device = ?1))";
                act.execute(sql, [device.as_bytes()])?;
            }
            let count = u64::try_from(found.len()).unwrap_or(u64::MAX);
            if count > 0 {
                act.log(&audit.with_detail("salts", count))?;
            }
            Ok(count)
        })
        .await
    }

    /// Searches the database file and its write-ahead log for pieces of these salts.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub async fn search_salts(&self, salts: &WrappedSalts) -> Result<FileScan, StoreError> {
        self.search(Fragments::of(&salts.salts)).await
    }

    async fn search(&self, fragments: Fragments) -> Result<FileScan, StoreError> {
        let store = self.clone();
        let found = tokio::task::spawn_blocking(move || store.search_files(&fragments)).await;
        found.map_err(|_panic| StoreError::Io { what: "the search of the files ended early".into() })?
    }

    /// Makes what was wiped disappear from the files, and shows that it has: the write-ahead log is written back and cut, and
    /// where the search still finds a piece, or where there is nothing to search for any more, every page is written anew.
    ///
    /// # Errors
    /// [`StoreError::Busy`] while a reader keeps the write-ahead log; [`StoreError::Io`], and when something is left.
    pub async fn scrub(&self, salts: Option<&WrappedSalts>) -> Result<FileScan, StoreError> {
        self.alone(cut_wal).await?;
        let mut scan = match salts {
            Some(salts) => self.search_salts(salts).await?,
            None => FileScan { fragments_after: 1, ..FileScan::default() },
        };
        if scan.fragments_after > 0 {
            self.alone(|connection| {
                connection.execute_batch("VACUUM")?;
                cut_wal(connection)
            })
            .await?;
            scan = self.search(Fragments::of(salts.map_or(&[], |salts| &salts.salts))).await?;
            scan.rebuilt = true;
        }
        if scan.fragments_after > 0 {
            return Err(StoreError::Io { what: format!("{} pieces of wiped salts are left", scan.fragments_after) });
        }
        Ok(scan)
    }

    /// Approved destructions without a receipt, oldest first, at most 100: approved and not finished.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn open_destructions(&self) -> Result<Vec<Proposal>, StoreError> {
        let sql = concat!(
            crate::proposal::columns!(),
            " WHERE state = 2 AND json_extract(act, '$.act') = 'destroy'
                AND NOT EXISTS (SELECT 1 FROM destruction d WHERE d.proposal = proposal.id) ORDER BY id LIMIT 100"
        );
        self.read(|connection| sql::all(connection, sql, [], crate::proposal::proposal_row))
    }

    /// Records a receipt, with the log entry that says the same.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] for a second one of a proposal.
    pub async fn record_destruction(
        &self,
        receipt: Receipt,
        audit: impl Into<Audit>,
    ) -> Result<Logged<Receipt>, StoreError> {
        let audit = audit.into();
        self.write(Class::Reserved, move |act| {
            let index = act.log(&audit)?;
            let receipt = Receipt { log_index: Some(index), ..receipt.clone() };
            let sql = "INSERT INTO destruction (id, proposal, facility, result, receipt) VALUES (?1, ?2, ?3, ?4, ?5)";
            let facility = receipt.facility.as_ref().map(FacilityId::as_bytes);
            let text = write_receipt(&receipt)?;
            let params = (receipt.id.as_bytes(), receipt.proposal.as_bytes(), facility, receipt.result.code(), text);
            act.execute(sql, params)?;
            Ok(Logged { value: receipt, index })
        })
        .await
    }

    /// A receipt; `None` also when it lies outside `visibility`.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn destruction(&self, id: DestructionId, visibility: &Visibility) -> Result<Option<Receipt>, StoreError> {
        let sql = concat!("SELECT receipt FROM destruction WHERE id = ?2 AND ", in_scope!("facility"));
        self.read(|connection| sql::one(connection, sql, (scope(visibility), id.as_bytes()), receipt_row))
    }

    /// The receipt of an approved proposal, once there is one.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn destruction_of(&self, proposal: ProposalId) -> Result<Option<Receipt>, StoreError> {
        let sql = "SELECT receipt FROM destruction WHERE proposal = ?1";
        self.read(|connection| sql::one(connection, sql, [proposal.as_bytes()], receipt_row))
    }

    /// Notes that the witness knows of a wipe at `at`, which a clock that was set back would not reach.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn note_salt_wiped(&self, device: DeviceId, at: UnixMillis) -> Result<(), StoreError> {
        self.write(Class::Reserved, move |act| note_wiped(act, device, at)).await
    }

    /// Receipts, newest first.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn destructions(&self, visibility: &Visibility, page: &PageRequest) -> Result<Page<Receipt>, StoreError> {
        let before = match &page.after {
            None => Value::Blob(vec![0xff; 17]),
            Some(text) => Value::Blob(text.parse::<DestructionId>().map_err(|_detail| BAD_CURSOR)?.as_bytes().to_vec()),
        };
        let branches = scopes(visibility).into_iter().map(|facility| {
            Branch::new("destruction").with_optional("facility = ?", facility.map(|id| id.as_bytes().to_vec()))
        });
        let listing = Listing::descending("id", branches.collect());
        let rows = usize::try_from(page.rows()).unwrap_or(usize::MAX);
        self.read_at_once(|connection| {
            let mut items = Vec::new();
            for key in listing.keys(connection, before, rows + 1)? {
                let sql = "SELECT receipt FROM destruction WHERE id = ?1";
                items.extend(sql::one(connection, sql, [key], receipt_row)?);
            }
            let next = next_of(&mut items, rows, |last: &Receipt| last.id.to_string());
            Ok(Page { items, next })
        })
    }

    /// Receipts of what is still barred, oldest first, at most 1,000 after `after`.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn barred_destructions(&self, after: Option<DestructionId>) -> Result<Vec<Receipt>, StoreError> {
        let sql = "SELECT receipt FROM destruction WHERE result = 2 AND id > ?1 ORDER BY id LIMIT 1000";
        let after = after.as_ref().map_or(&[][..], |id| &id.as_bytes()[..]);
        self.read(|connection| sql::all(connection, sql, [after], receipt_row))
    }

    /// Turns `barred` into `destroyed`, because nothing bars it any more.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] when it is not barred (any more).
    pub async fn settle_destruction(
        &self,
        id: DestructionId,
        at: UnixMillis,
        audit: impl Into<Audit>,
    ) -> Result<Logged<Receipt>, StoreError> {
        self.logged(Class::Reserved, audit.into(), move |act| {
            let sql = "SELECT receipt FROM destruction WHERE id = ?1 AND result = 2";
            let found: Option<Receipt> = act.one(sql, [id.as_bytes()], receipt_row)?;
            let found = found.ok_or(StoreError::NotFound { what: "barred destruction" })?;
            let receipt = Receipt { result: DestructionResult::Destroyed, settled: Some(at), ..found };
            let sql = "UPDATE destruction SET result = ?2, receipt = ?3 WHERE id = ?1";
            act.execute(sql, (id.as_bytes(), receipt.result.code(), write_receipt(&receipt)?))?;
            Ok(receipt)
        })
        .await
    }

    /// Retires an epoch that a witness knows to be destroyed, in a registry that was restored from before: whatever its
    /// state, and with a newer epoch in its place where there is none. Whether it was not retired yet.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] for a facility that is not there.
    pub async fn bar_facility_epoch(
        &self,
        facility: FacilityId,
        epoch: u32,
        at: UnixMillis,
        audit: impl Into<Audit>,
    ) -> Result<bool, StoreError> {
        let audit = audit.into();
        self.write(Class::Reserved, move |act| {
            act.require_facility(facility)?;
            let sql = "SELECT 1 FROM facility_epoch WHERE facility = ?1 AND epoch = ?2 AND state = 3";
            if act.exists(sql, (facility.as_bytes(), epoch))? {
                return Ok(false);
            }
            let sql = "INSERT INTO facility_epoch (facility, epoch, state, created, retired) VALUES (?1, ?2, 3, ?3, ?3)
                ON CONFLICT (facility, epoch) DO UPDATE SET state = 3, retired = excluded.retired";
            act.execute(sql, (facility.as_bytes(), epoch, millis(at)))?;
            // What lies below a destroyed epoch was retired before it, or could not have been.
            let sql = "UPDATE facility_epoch SET state = 3, retired = ?3
                WHERE facility = ?1 AND epoch < ?2 AND state <> 3";
            act.execute(sql, (facility.as_bytes(), epoch, millis(at)))?;
            let sql = "UPDATE facility_epoch SET state = 2 WHERE facility = ?1 AND epoch =
                (SELECT max(epoch) FROM facility_epoch WHERE facility = ?1 AND epoch > ?2)";
            if act.execute(sql, (facility.as_bytes(), epoch))? == 0 {
                let sql = "INSERT INTO facility_epoch (facility, epoch, state, created) VALUES (?1, ?2, 2, ?3)";
                act.execute(sql, (facility.as_bytes(), epoch.saturating_add(1), millis(at)))?;
            }
            act.log(&audit)?;
            Ok(true)
        })
        .await
    }

    /// Backups that can still be opened and were made at `since` or later, oldest first, at most 1,000.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn openable_backups(&self, since: UnixMillis) -> Result<Vec<BackupId>, StoreError> {
        // Identifiers begin with their time.
        let from = BackupId::from_parts(since, [0; 10]);
        let sql =
            "SELECT id FROM backup WHERE state = 1 AND substr(id, 1, 6) >= substr(?1, 1, 6) ORDER BY id LIMIT 1000";
        self.read(|connection| sql::all(connection, sql, [from.as_bytes()], |row| column::id(row, 0)))
    }
}

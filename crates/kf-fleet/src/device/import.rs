//! Registration of many devices from a file.

mod rows;

use std::collections::BTreeMap;

use kf_access::{Action, Principal, Target, Visibility, authorize};
use kf_api::device::{Device, ImportFormat, ImportReport, NewDevice, RowError};
use kf_key::{FacilityId, ProductLineId};
use kf_log::AuditEntry;
use kf_store::device::Registration;

use super::{check_new_device, name_in_use, registration_entry};
use crate::naming::shortened;
use crate::{Fleet, FleetError};
pub(crate) use rows::BadRow;
use rows::{MAX_ROWS, Rows};

/// Rows in one transaction.
const CHUNK: usize = 1_000;
/// Refused rows that the report names; all are counted.
const MAX_ERRORS: usize = 1_000;
/// Facilities and product lines whose look-up is remembered during one import.
const MAX_REMEMBERED: usize = 4_096;

impl Fleet {
    /// Registers many devices, in transactions of 1,000 rows, each row with its log entry, which names the import by the
    /// SHA-256 of its text. At most 64 MiB and 1,000,000 rows; sending the same file again resumes. A dry run checks
    /// the same and writes nothing.
    ///
    /// # Errors
    /// [`FleetError::Invalid`] when the text as a whole cannot be read, before anything is written; single rows are in the
    /// report. [`FleetError::Denied`]. [`FleetError::StoreFull`] and the like part-way: the rows before stay registered.
    pub async fn device_import(
        &self,
        who: &Principal,
        format: ImportFormat,
        text: &[u8],
        dry_run: bool,
    ) -> Result<ImportReport, FleetError> {
        authorize(who, Action::DeviceRegister, Target::Visible)?;
        check_whole(format, text).await?;
        let mut import = Import::new(self, who, text, dry_run);
        let mut rows = Rows::new(format, text)?;
        while let Some(row) = rows.next_row()? {
            import.take(row)?;
            if import.chunk.len() >= CHUNK {
                import.flush().await?;
            } else if import.report.rows.is_multiple_of(1_000) {
                tokio::task::yield_now().await;
            }
        }
        import.flush().await?;
        Ok(import.report)
    }
}

/// Reads the text once from end to end, so that a text that breaks off in the middle registers nothing.
async fn check_whole(format: ImportFormat, text: &[u8]) -> Result<(), FleetError> {
    const STEP: u64 = 10_000;
    let mut rows = Rows::new(format, text)?;
    let mut count = 0;
    loop {
        let passed = rows.skip(STEP)?;
        count += passed;
        if count > MAX_ROWS {
            return Err(FleetError::invalid(
                "body",
                format!("more than {MAX_ROWS} rows"),
                "split the file; rows that are there already are passed over",
            ));
        }
        if passed < STEP {
            return Ok(());
        }
        tokio::task::yield_now().await;
    }
}

/// An import under way.
struct Import<'a> {
    fleet: &'a Fleet,
    who: &'a Principal,
    visibility: Visibility,
    /// SHA-256 of the text, which names the import in the log.
    digest: String,
    /// The row in which a name occurred first, by the first half of the name's SHA-256: 16 octets for a million names.
    seen: BTreeMap<[u8; 16], u64>,
    facilities: BTreeMap<String, Result<FacilityId, BadRow>>,
    lines: BTreeMap<String, Result<ProductLineId, BadRow>>,
    chunk: Vec<(u64, Device, AuditEntry)>,
    report: ImportReport,
}

impl<'a> Import<'a> {
    fn new(fleet: &'a Fleet, who: &'a Principal, text: &[u8], dry_run: bool) -> Self {
        Self {
            fleet,
            who,
            visibility: who.visibility(),
            digest: hex::encode(kf_crypto::sha256(text)),
            seen: BTreeMap::new(),
            facilities: BTreeMap::new(),
            lines: BTreeMap::new(),
            chunk: Vec::with_capacity(CHUNK),
            report: ImportReport { dry_run, ..ImportReport::default() },
        }
    }

    /// Checks a row; one that may be registered joins the chunk.
    fn take(&mut self, row: Result<NewDevice, BadRow>) -> Result<(), FleetError> {
        self.report.rows += 1;
        let number = self.report.rows;
        match self.device_of_row(number, row)? {
            Ok(device) => {
                let entry = registration_entry(self.who, &device, device.created)
                    .with("import", &self.digest)
                    .with("row", number)
                    .build();
                self.chunk.push((number, device, entry));
            }
            Err(bad) => self.refuse(number, bad),
        }
        Ok(())
    }

    /// A device from a row, or why not. The outer error ends the import: it is not the row's.
    fn device_of_row(
        &mut self,
        number: u64,
        row: Result<NewDevice, BadRow>,
    ) -> Result<Result<Device, BadRow>, FleetError> {
        let new = match row {
            Ok(new) => new,
            Err(bad) => return Ok(Err(bad)),
        };
        if let Err(error) = check_new_device(&new) {
            return bad_row(error).map(Err);
        }
        if let Err(bad) = self.check_not_repeated(number, &new.name) {
            return Ok(Err(bad));
        }
        let facility = match self.facility(&new.facility)? {
            Ok(facility) => facility,
            Err(bad) => return Ok(Err(bad)),
        };
        let line = match self.line(&new.product_line)? {
            Ok(line) => line,
            Err(bad) => return Ok(Err(bad)),
        };
        self.fleet.device_of(new, facility, line).map(Ok)
    }

    fn check_not_repeated(&mut self, number: u64, name: &str) -> Result<(), BadRow> {
        let mut key = [0; 16];
        key.iter_mut().zip(kf_crypto::sha256(name.as_bytes())).for_each(|(to, from)| *to = from);
        match self.seen.entry(key) {
            std::collections::btree_map::Entry::Vacant(place) => {
                place.insert(number);
                Ok(())
            }
            std::collections::btree_map::Entry::Occupied(place) => Err(BadRow {
                field: "name".into(),
                problem: format!("row {} has the same name", place.get()),
                remedy: "give every device a name of its own".into(),
            }),
        }
    }

    /// The facility of a row, if the caller may register devices there.
    fn facility(&mut self, reference: &str) -> Result<Result<FacilityId, BadRow>, FleetError> {
        if let Some(known) = self.facilities.get(reference) {
            return Ok(known.clone());
        }
        let found = self.fleet.find_facility(reference, &self.visibility).and_then(|facility| {
            authorize(self.who, Action::DeviceRegister, Target::Facility(facility.id))?;
            Ok(facility.id)
        });
        let found = match found {
            Ok(id) => Ok(id),
            Err(error) => Err(bad_reference("facility", reference, error)?),
        };
        remember(&mut self.facilities, reference, found.clone());
        Ok(found)
    }

    fn line(&mut self, reference: &str) -> Result<Result<ProductLineId, BadRow>, FleetError> {
        if let Some(known) = self.lines.get(reference) {
            return Ok(known.clone());
        }
        let found = match self.fleet.find_product_line(reference) {
            Ok(line) => Ok(line.id),
            Err(error) => Err(bad_reference("product_line", reference, error)?),
        };
        remember(&mut self.lines, reference, found.clone());
        Ok(found)
    }

    /// Registers the chunk, or in a dry run compares it with the registry.
    async fn flush(&mut self) -> Result<(), FleetError> {
        let chunk = std::mem::take(&mut self.chunk);
        if chunk.is_empty() {
            return Ok(());
        }
        let numbers: Vec<u64> = chunk.iter().map(|(number, ..)| *number).collect();
        let outcomes = if self.report.dry_run {
            tokio::task::yield_now().await;
            chunk.iter().map(|(_, device, _)| self.compare(device)).collect::<Result<Vec<_>, _>>()?
        } else {
            let rows = chunk.into_iter().map(|(_, device, entry)| (device, entry)).collect();
            self.fleet.store.register_devices(rows).await?
        };
        if outcomes.len() != numbers.len() {
            return Err(FleetError::Bug("rows without outcome"));
        }
        for (number, outcome) in numbers.into_iter().zip(outcomes) {
            match outcome {
                Registration::Registered { .. } => self.report.registered += 1,
                Registration::AlreadyThere { same_facts: true, .. } => self.report.already_there += 1,
                Registration::AlreadyThere { same_facts: false, .. } => self.refuse(number, bad_row(name_in_use())?),
                Registration::Refused(error) => self.refuse(number, bad_row(error.into())?),
            }
        }
        Ok(())
    }

    /// What registering a device would come to.
    fn compare(&self, device: &Device) -> Result<Registration, FleetError> {
        // The name is unique in the whole fleet, so the comparison looks further than the caller; the answer does not.
        Ok(match self.fleet.store.device_by_name(&device.name, &Visibility::Fleet)? {
            None => Registration::Registered { index: 0 },
            Some(there) => Registration::AlreadyThere { id: there.id, same_facts: same_facts(&there, device) },
        })
    }

    fn refuse(&mut self, row: u64, bad: BadRow) {
        self.report.refused += 1;
        if self.report.errors.len() < MAX_ERRORS {
            let BadRow { field, problem, remedy } = bad;
            self.report.errors.push(RowError { row, field, problem, remedy });
        }
    }
}

/// Whether two devices were registered with the same facts; what happened to them since plays no part.
fn same_facts(a: &Device, b: &Device) -> bool {
    a.name == b.name
        && a.facility == b.facility
        && a.product_line == b.product_line
        && a.batch == b.batch
        && a.attributes == b.attributes
}

fn remember<T>(known: &mut BTreeMap<String, T>, reference: &str, found: T) {
    if known.len() >= MAX_REMEMBERED {
        known.clear();
    }
    known.insert(reference.to_owned(), found);
}

/// An error that is a row's own; the others end the import.
pub(crate) fn bad_row(error: FleetError) -> Result<BadRow, FleetError> {
    match error {
        FleetError::Invalid { field, problem, remedy } | FleetError::Conflict { field, problem, remedy } => {
            Ok(BadRow { field, problem, remedy })
        }
        FleetError::NotFound(what) => Ok(BadRow {
            field: what.into(),
            problem: format!("there is no such {what} here"),
            remedy: "create it first, or correct the name".into(),
        }),
        other => Err(other),
    }
}

/// As [`bad_row`], for the name of something that must exist.
fn bad_reference(field: &str, reference: &str, error: FleetError) -> Result<BadRow, FleetError> {
    match error {
        FleetError::NotFound(_) | FleetError::Denied(_) => Ok(BadRow {
            field: field.into(),
            problem: format!("there is no {field} `{}` in which you may register devices", shortened(reference)),
            remedy: format!("create the {field} first, or correct its name"),
        }),
        other => bad_row(other),
    }
}

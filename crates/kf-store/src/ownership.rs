//! Devices that leave who has them: which proposal they leave by, and what came of it.

use kf_access::Visibility;
use kf_api::ownership::EndedOwnership;
use kf_api::proposal::Proposal;
use kf_api::{Page, PageRequest};
use kf_key::{DeviceId, FacilityId, ProposalId};

use crate::act::Class;
use crate::column::{self, integer};
use crate::listing::{BAD_CURSOR, next_of};
use crate::sql::{self, in_scope, scope};
use crate::{Audit, Logged, Store, StoreError, device};

/// The most records of one device that are shown.
const MAX_OF_DEVICE: i64 = 100;
/// The most facts that are kept with a device.
const MAX_ATTRIBUTES: usize = 32;

impl Store {
    /// Notes which devices of a facility leave by an approved proposal; noting them again changes nothing. The approval is in the log, and so
    /// will be what comes of each.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn begin_ownership(
        &self,
        proposal: ProposalId,
        facility: FacilityId,
        devices: Vec<DeviceId>,
    ) -> Result<(), StoreError> {
        self.write(Class::Reserved, move |act| {
            for device in &devices {
                let sql = "INSERT OR IGNORE INTO ownership (proposal, device, facility)
                    SELECT ?1, id, ?3 FROM device WHERE id = ?2";
                act.execute(sql, (proposal.as_bytes(), device.as_bytes(), facility.as_bytes()))?;
            }
            Ok(())
        })
        .await
    }

    /// Devices that leave by this proposal and have no record yet, in the order in which they were noted.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn leaving(&self, proposal: ProposalId) -> Result<Vec<DeviceId>, StoreError> {
        let sql = "SELECT device FROM ownership WHERE proposal = ?1 AND record IS NULL ORDER BY id";
        self.read(|connection| sql::all(connection, sql, [proposal.as_bytes()], |row| column::id(row, 0)))
    }

    /// Approved proposals by which devices leave, and that are not finished, oldest first, at most 100.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn open_ownerships(&self) -> Result<Vec<Proposal>, StoreError> {
        let sql = concat!(
            crate::proposal::columns!(),
            " WHERE state = 2 AND json_extract(act, '$.act') = 'end-ownership'
                AND (EXISTS (SELECT 1 FROM ownership o WHERE o.proposal = proposal.id AND o.record IS NULL)
                    OR NOT EXISTS (SELECT 1 FROM ownership o WHERE o.proposal = proposal.id)) ORDER BY id LIMIT 100"
        );
        self.read(|connection| sql::all(connection, sql, [], crate::proposal::proposal_row))
    }

    /// Whether every device of an approved end of ownership has its record.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn is_through(&self, proposal: ProposalId) -> Result<bool, StoreError> {
        let sql =
            "SELECT 1 FROM (SELECT count(*) AS leaving, count(record) AS through FROM ownership WHERE proposal = ?1)
            WHERE leaving > 0 AND leaving = through";
        self.read(|connection| sql::exists(connection, sql, [proposal.as_bytes()]))
    }

    /// Records what came of one device, with the log entry that says the same.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] when it does not leave by this proposal, or has a record.
    pub async fn record_ownership(
        &self,
        record: EndedOwnership,
        audit: impl Into<Audit>,
    ) -> Result<Logged<EndedOwnership>, StoreError> {
        let audit = audit.into();
        self.write(Class::Reserved, move |act| {
            let index = act.log(&audit)?;
            let record = EndedOwnership { log_index: Some(index), ..record.clone() };
            let text = serde_json::to_string(&record)
                .map_err(|_detail| StoreError::Invalid { field: "record", problem: "is unwritable" })?;
            let sql = "UPDATE ownership SET record = ?3 WHERE proposal = ?1 AND device = ?2 AND record IS NULL";
            match act.execute(sql, (record.proposal.as_bytes(), record.device.as_bytes(), text))? {
                0 => Err(StoreError::NotFound { what: "leaving device" }),
                _ => Ok(Logged { value: record, index }),
            }
        })
        .await
    }

    /// What came of a device, newest first, at most 100. Whoever sees the facility that it left sees the record, wherever the
    /// device is now.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn ownerships_of(&self, device: DeviceId, visibility: &Visibility) -> Result<Vec<EndedOwnership>, StoreError> {
        let sql = concat!(
            "SELECT record FROM ownership WHERE device = ?2 AND record IS NOT NULL AND ",
            in_scope!("facility"),
            " ORDER BY id DESC LIMIT ?3"
        );
        let params = (scope(visibility), device.as_bytes(), MAX_OF_DEVICE);
        self.read(|connection| sql::all(connection, sql, params, |row| column::json(row, 0)))
    }

    /// What came of devices, oldest first.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn ownerships(&self, visibility: &Visibility, page: &PageRequest) -> Result<Page<EndedOwnership>, StoreError> {
        let after = match &page.after {
            None => 0,
            Some(text) => text.parse::<u64>().map_err(|_detail| BAD_CURSOR)?,
        };
        let sql = concat!(
            "SELECT id, record FROM ownership WHERE id > ?2 AND record IS NOT NULL AND ",
            in_scope!("facility"),
            " ORDER BY id LIMIT ?3"
        );
        let params = (scope(visibility), integer(after), integer(u64::from(page.rows()).saturating_add(1)));
        let mut rows: Vec<(u64, EndedOwnership)> = self.read(|connection| {
            sql::all(connection, sql, params, |row| Ok((column::count(row, 0)?, column::json(row, 1)?)))
        })?;
        let most = usize::try_from(page.rows()).unwrap_or(usize::MAX);
        let next = next_of(&mut rows, most, |last: &(u64, EndedOwnership)| last.0.to_string());
        Ok(Page { items: rows.into_iter().map(|(_, record)| record).collect(), next })
    }

    /// A device takes the place of another: it gets what is noted of the other and not of itself. False, and nothing logged, when it
    /// has everything.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn replace_device(
        &self,
        old: DeviceId,
        new: DeviceId,
        audit: impl Into<Audit>,
    ) -> Result<bool, StoreError> {
        let audit = audit.into();
        self.write(Class::Ordinary, move |act| {
            let found = |id| device::in_transaction(act, id)?.ok_or(StoreError::NotFound { what: "device" });
            let (old, new) = (found(old)?, found(new)?);
            let mut attributes = new.attributes.clone();
            let replaces = ("replaces".to_owned(), old.name);
            for (key, value) in std::iter::once(replaces).chain(old.attributes) {
                if attributes.len() < MAX_ATTRIBUTES {
                    attributes.entry(key).or_insert(value);
                }
            }
            if attributes == new.attributes {
                return Ok(false);
            }
            let text = serde_json::to_string(&attributes)
                .map_err(|_detail| StoreError::Invalid { field: "attributes", problem: "cannot be written" })?;
            act.execute("UPDATE device SET attributes = ?2 WHERE id = ?1", (new.id.as_bytes(), text))?;
            act.log(&audit)?;
            Ok(true)
        })
        .await
    }
}

//! Bootstrap: enrolment codes, vouchers, and enrolments that wait for a person.

use kf_access::Visibility;
use kf_api::enrolment::{Code, Enrolment, EnrolmentState};
use kf_api::{Page, PageRequest};
use kf_key::{CodeId, DeviceId, EnrolmentId, UnixMillis};

use rusqlite::{Connection, Row};

use crate::act::{Act, Class};
use crate::column::{self, Coded, millis, sha256_of_hex};
use crate::listing::{BAD_CURSOR, next_of};
use crate::sql::{self, in_scope, scope};
use crate::{Audit, Logged, Store, StoreError};

/// Enrolments of one device that may wait at the same time, each with a key of its own.
const MAX_WAITING: u64 = 16;

macro_rules! code_columns {
    () => {
        "SELECT id, device, hash, expires, used, used_with, withdrawn, bound FROM code"
    };
}

macro_rules! columns {
    () => {
        "SELECT e.id, e.device, d.name, e.spki, e.requested, e.state FROM enrolment e JOIN device d ON d.id = e.device"
    };
}

pub(crate) fn code_row(row: &Row<'_>) -> rusqlite::Result<CodeRecord> {
    Ok(CodeRecord {
        code: Code {
            id: column::id(row, 0)?,
            device: column::id(row, 1)?,
            expires: column::time(row, 3)?,
            key_sha256: row.get::<_, Option<[u8; 32]>>(7)?.map(hex::encode),
            used: column::optional_time(row, 4)?,
            withdrawn: row.get(6)?,
        },
        hash: row.get(2)?,
        used_with: row.get(5)?,
    })
}

fn enrolment_row(row: &Row<'_>) -> rusqlite::Result<Enrolment> {
    Ok(Enrolment {
        id: column::id(row, 0)?,
        device: column::id(row, 1)?,
        device_name: row.get(2)?,
        spki_sha256: hex::encode(row.get::<_, [u8; 32]>(3)?),
        requested: column::time(row, 4)?,
        state: column::coded(row, 5)?,
    })
}

fn attempts_row(row: &Row<'_>) -> rusqlite::Result<FailedAttempts> {
    Ok(FailedAttempts { count: row.get(0)?, last: column::optional_time(row, 1)? })
}

/// The word for a state in refusals.
pub(crate) const fn state_name(state: EnrolmentState) -> &'static str {
    match state {
        EnrolmentState::Waiting => "waiting",
        EnrolmentState::Approved => "approved",
        EnrolmentState::Refused => "refused",
        EnrolmentState::Issued => "issued",
    }
}

fn require_device(act: &Act<'_>, device: DeviceId) -> Result<(), StoreError> {
    if act.exists("SELECT 1 FROM device WHERE id = ?1", [device.as_bytes()])? {
        Ok(())
    } else {
        Err(StoreError::NotFound { what: "device" })
    }
}

fn find(connection: &Connection, device: DeviceId, spki: &[u8; 32]) -> Result<Option<Enrolment>, StoreError> {
    let sql = concat!(columns!(), " WHERE e.device = ?1 AND e.spki = ?2");
    sql::one(connection, sql, (device.as_bytes(), spki), enrolment_row)
}

/// A code as the store keeps it: hashed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CodeRecord {
    /// The code without its secret.
    pub code: Code,
    /// Hash of the secret; how it is made is the caller's business.
    pub hash: [u8; 32],
    /// SHA-256 of the SubjectPublicKeyInfo it was used with.
    pub used_with: Option<[u8; 32]>,
}

/// Failed attempts to use a code of a device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FailedAttempts {
    /// How many since the last success.
    pub count: u32,
    /// When the last one was.
    pub last: Option<UnixMillis>,
}

impl Store {
    /// Adds an enrolment code.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] for the device; [`StoreError::Conflict`] on `id` or `code`.
    pub async fn insert_code(&self, code: CodeRecord, audit: impl Into<Audit>) -> Result<Logged<()>, StoreError> {
        self.logged(Class::Ordinary, audit.into(), move |act| {
            let CodeRecord { code, hash, used_with: _ } = &code;
            require_device(act, code.device)?;
            let sql = "INSERT INTO code (id, device, hash, expires, withdrawn) VALUES (?1, ?2, ?3, ?4, 0)";
            act.execute(sql, (code.id.as_bytes(), code.device.as_bytes(), hash, millis(code.expires)))?;
            Ok(())
        })
        .await
    }

    /// The codes of a device, newest first, at most 100, used, withdrawn and expired ones included.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn codes_of_device(&self, device: DeviceId) -> Result<Vec<CodeRecord>, StoreError> {
        let sql = concat!(code_columns!(), " WHERE device = ?1 ORDER BY id DESC LIMIT 100");
        self.read(|connection| sql::all(connection, sql, [device.as_bytes()], code_row))
    }

    /// A code by id.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn code(&self, id: CodeId) -> Result<Option<CodeRecord>, StoreError> {
        let sql = concat!(code_columns!(), " WHERE id = ?1");
        self.read(|connection| sql::one(connection, sql, [id.as_bytes()], code_row))
    }

    /// Withdraws a code that was not used yet.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; [`StoreError::IllegalState`] when it is used or withdrawn.
    pub async fn withdraw_code(&self, id: CodeId, audit: impl Into<Audit>) -> Result<Logged<()>, StoreError> {
        self.logged(Class::Reserved, audit.into(), move |act| {
            let sql = "UPDATE code SET withdrawn = 1 WHERE id = ?1 AND withdrawn = 0 AND used IS NULL";
            if act.execute(sql, [id.as_bytes()])? == 1 {
                return Ok(());
            }
            let sql = "SELECT withdrawn FROM code WHERE id = ?1";
            match act.one(sql, [id.as_bytes()], |row| row.get::<_, bool>(0))? {
                None => Err(StoreError::NotFound { what: "code" }),
                Some(withdrawn) => Err(StoreError::IllegalState {
                    what: "code",
                    found: if withdrawn { "withdrawn" } else { "used" }.into(),
                    expected: "unused".into(),
                }),
            }
        })
        .await
    }

    /// Counts a failed attempt and says how many there are now. Durable, so that a restart does not forget; not logged.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn count_failed_attempt(&self, device: DeviceId, at: UnixMillis) -> Result<FailedAttempts, StoreError> {
        self.write(Class::Reserved, move |act| {
            let sql = "INSERT INTO failed_attempt (device, count, last) VALUES (?1, 1, ?2)
                ON CONFLICT (device) DO UPDATE SET count = min(count + 1, 4294967295), last = max(last, excluded.last)
                RETURNING count, last";
            let attempts = act.one(sql, (device.as_bytes(), millis(at)), attempts_row)?;
            Ok(attempts.unwrap_or_default())
        })
        .await
    }

    /// Failed attempts on a device's codes; an issuance on a code sets them back to zero.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn failed_attempts(&self, device: DeviceId) -> Result<FailedAttempts, StoreError> {
        let sql = "SELECT count, last FROM failed_attempt WHERE device = ?1";
        self.read(|connection| Ok(sql::one(connection, sql, [device.as_bytes()], attempts_row)?.unwrap_or_default()))
    }

    /// Whether a voucher was used.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn voucher_used(&self, id: &str) -> Result<bool, StoreError> {
        self.read(|connection| sql::exists(connection, "SELECT 1 FROM voucher WHERE id = ?1", [id]))
    }

    /// Notes that a device with this key waits for a person, or finds what was noted before: the same device with the
    /// same key is one enrolment, and asking again changes nothing and logs nothing.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] for the device; [`StoreError::Invalid`] when more than 16 enrolments of it wait.
    pub async fn request_enrolment(
        &self,
        enrolment: Enrolment,
        audit: impl Into<Audit>,
    ) -> Result<Enrolment, StoreError> {
        let audit = audit.into();
        self.write(Class::Ordinary, move |act| {
            let spki = sha256_of_hex("spki_sha256", &enrolment.spki_sha256)?;
            if let Some(found) = find(act.connection(), enrolment.device, &spki)? {
                return Ok(found);
            }
            require_device(act, enrolment.device)?;
            let sql = "SELECT count(*) FROM enrolment WHERE device = ?1 AND state = 1";
            let waiting = act.one(sql, [enrolment.device.as_bytes()], |row| column::count(row, 0))?.unwrap_or(0);
            if waiting >= MAX_WAITING {
                return Err(StoreError::Invalid { field: "device", problem: "16 enrolments of it wait already" });
            }
            let sql = "INSERT INTO enrolment (id, device, spki, requested, state) VALUES (?1, ?2, ?3, ?4, 1)";
            let requested = millis(enrolment.requested);
            act.execute(sql, (enrolment.id.as_bytes(), enrolment.device.as_bytes(), spki, requested))?;
            act.log(&audit)?;
            find(act.connection(), enrolment.device, &spki)?.ok_or(StoreError::NotFound { what: "enrolment" })
        })
        .await
    }

    /// The enrolment of a device with this key.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn enrolment_of(&self, device: DeviceId, spki_sha256: &[u8; 32]) -> Result<Option<Enrolment>, StoreError> {
        self.read(|connection| find(connection, device, spki_sha256))
    }

    /// An enrolment by id; `None` also when its device lies outside `visibility`.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn enrolment(&self, id: EnrolmentId, visibility: &Visibility) -> Result<Option<Enrolment>, StoreError> {
        let sql = concat!(columns!(), " WHERE e.id = ?2 AND ", in_scope!("d.facility"));
        self.read(|connection| sql::one(connection, sql, (scope(visibility), id.as_bytes()), enrolment_row))
    }

    /// Enrolments in this state, oldest first.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn enrolments(
        &self,
        state: EnrolmentState,
        visibility: &Visibility,
        page: &PageRequest,
    ) -> Result<Page<Enrolment>, StoreError> {
        let after = match &page.after {
            None => Vec::new(),
            Some(text) => text.parse::<EnrolmentId>().map_err(|_detail| BAD_CURSOR)?.as_bytes().to_vec(),
        };
        // Few wait at any time: the index by state is the range, the facility is looked up.
        let sql = concat!(
            columns!(),
            " WHERE e.state = ?2 AND e.id > ?3 AND ",
            in_scope!("d.facility"),
            " ORDER BY e.id LIMIT ?4"
        );
        let rows = usize::try_from(page.rows()).unwrap_or(usize::MAX);
        let params = (scope(visibility), state.code(), after, page.rows() + 1);
        let mut items = self.read(|connection| sql::all(connection, sql, params, enrolment_row))?;
        let next = next_of(&mut items, rows, |last| last.id.to_string());
        Ok(Page { items, next })
    }

    /// A person's decision on a waiting enrolment: `Approved` or `Refused`.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] (also outside `visibility`); [`StoreError::IllegalState`] when it does not wait.
    pub async fn decide_enrolment(
        &self,
        id: EnrolmentId,
        to: EnrolmentState,
        visibility: Visibility,
        audit: impl Into<Audit>,
    ) -> Result<Logged<Enrolment>, StoreError> {
        self.logged(Class::Ordinary, audit.into(), move |act| {
            if !matches!(to, EnrolmentState::Approved | EnrolmentState::Refused) {
                return Err(StoreError::Invalid { field: "state", problem: "a decision approves or refuses" });
            }
            let sql = concat!(columns!(), " WHERE e.id = ?2 AND ", in_scope!("d.facility"));
            let found = act.one(sql, (scope(&visibility), id.as_bytes()), enrolment_row)?;
            let mut enrolment = found.ok_or(StoreError::NotFound { what: "enrolment" })?;
            if enrolment.state != EnrolmentState::Waiting {
                return Err(StoreError::IllegalState {
                    what: "enrolment",
                    found: state_name(enrolment.state).into(),
                    expected: state_name(EnrolmentState::Waiting).into(),
                });
            }
            act.execute("UPDATE enrolment SET state = ?2 WHERE id = ?1", (id.as_bytes(), to.code()))?;
            enrolment.state = to;
            Ok(enrolment)
        })
        .await
    }
}

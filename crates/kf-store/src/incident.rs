//! Incidents: what they are about, their plans, approvals, and how far each step is.
//!
//! A step is begun and ended in commits of their own, each with its log entry; the act lies between them. A step that was begun
//! and has no end is done again: see [`Store::begin_incident_step`].

mod facts;

use kf_access::Visibility;
use kf_api::incident::{Approval, Incident, IncidentState, Plan};
use kf_api::{Page, PageRequest};
use kf_key::{AuthorityId, FacilityId, IncidentId, OperatorId, ProposalId, UnixMillis};
use rusqlite::{Connection, Row};

use crate::act::{Act, Class};
use crate::column::{self, Coded, integer, millis};
use crate::listing::{BAD_CURSOR, next_of};
use crate::sql::{self, in_scope, scope};
use crate::{Audit, Logged, Store, StoreError};

pub use facts::{ActorEntries, Devices};

const MAX_DOCUMENT_OCTETS: usize = 65_536;
const MAX_PLAN_OCTETS: usize = 4 << 20;
const MAX_OUTCOME_OCTETS: usize = 1_000;

/// What became of opening an incident.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Opening {
    /// It is new.
    Opened(u64),
    /// The same is open already.
    AlreadyOpen(Box<Incident>),
    /// The same is open already, and may have begun earlier than was known.
    Widened(Box<Incident>, u64),
}

/// A plan as somebody made it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredPlan {
    /// The steps.
    pub plan: Plan,
    /// What is agreed to, hexadecimal.
    pub sha256: String,
    /// Who made it.
    pub planned_by: OperatorId,
    /// Their name.
    pub planned_by_name: String,
    /// When.
    pub planned: UnixMillis,
    /// In single-control mode: when its permanent steps may be run.
    pub effective: Option<UnixMillis>,
}

/// How far a step is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepRow {
    /// SHA-256 of what the step does.
    pub step: [u8; 32],
    /// When it was begun.
    pub begun: UnixMillis,
    /// When it was done.
    pub ended: Option<UnixMillis>,
    /// What came of it.
    pub outcome: Option<String>,
    /// Index of the log entry that says so.
    pub index: Option<u64>,
}

/// The end of a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepEnd {
    /// The incident.
    pub incident: IncidentId,
    /// SHA-256 of what the step does.
    pub step: [u8; 32],
    /// When.
    pub at: UnixMillis,
    /// What came of it, at most 1,000 octets.
    pub outcome: String,
    /// Devices that it changed, where that says something about the rate.
    pub devices: Option<u64>,
}

/// What nothing is issued for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HoldTarget {
    /// Devices of a facility.
    Facility(FacilityId),
    /// Anybody, by this CA.
    Authority(AuthorityId),
}

impl HoldTarget {
    const fn octets(&self) -> &[u8; 16] {
        match self {
            Self::Facility(id) => id.as_bytes(),
            Self::Authority(id) => id.as_bytes(),
        }
    }
}

fn incident_row(row: &Row<'_>) -> rusqlite::Result<Incident> {
    column::json(row, 0)
}

fn by_id(connection: &Connection, id: IncidentId) -> Result<Incident, StoreError> {
    let sql = "SELECT document FROM incident WHERE id = ?1";
    sql::one(connection, sql, [id.as_bytes()], incident_row)?.ok_or(StoreError::NotFound { what: "incident" })
}

/// The incident, which must be open.
fn open_one(act: &Act<'_>, id: IncidentId) -> Result<Incident, StoreError> {
    let found = by_id(act.connection(), id)?;
    match found.state {
        IncidentState::Open => Ok(found),
        IncidentState::Closed => {
            Err(StoreError::IllegalState { what: "incident", found: "closed".into(), expected: "open".into() })
        }
    }
}

fn text_of<T: serde::Serialize>(value: &T, field: &'static str, limit: usize) -> Result<String, StoreError> {
    let text = serde_json::to_string(value).map_err(|_detail| StoreError::Invalid { field, problem: "unwritable" })?;
    if text.len() > limit {
        return Err(StoreError::Invalid { field, problem: "is too large: name fewer subjects" });
    }
    Ok(text)
}

fn write_document(act: &Act<'_>, incident: &Incident) -> Result<(), StoreError> {
    let document = text_of(incident, "incident", MAX_DOCUMENT_OCTETS)?;
    let sql = "UPDATE incident SET document = ?2, state = ?3 WHERE id = ?1";
    act.execute(sql, (incident.id.as_bytes(), document, incident.state.code()))?;
    Ok(())
}

/// An incident about to be opened: the row, and what the log says when it is new or only widened.
#[derive(Clone, Debug)]
pub struct NewRow {
    /// The incident.
    pub incident: Incident,
    /// Digest of its subjects.
    pub subjects: [u8; 32],
    /// The entry when it is new.
    pub opened: Audit,
    /// The entry when it was open and may have begun earlier.
    pub widened: Audit,
}

fn open(act: &mut Act<'_>, new: &NewRow) -> Result<Opening, StoreError> {
    let NewRow { incident, subjects, opened, widened } = new;
    let sql = "SELECT document FROM incident WHERE subjects = ?1 AND state = 1";
    if let Some(mut found) = act.one(sql, [subjects], incident_row)? {
        if incident.since >= found.since {
            return Ok(Opening::AlreadyOpen(Box::new(found)));
        }
        found.since = incident.since;
        write_document(act, &found)?;
        let index = act.log(widened)?;
        return Ok(Opening::Widened(Box::new(found), index));
    }
    let document = text_of(incident, "incident", MAX_DOCUMENT_OCTETS)?;
    let sql = "INSERT INTO incident (id, state, subjects, facility, document) VALUES (?1, ?2, ?3, ?4, ?5)";
    let facility = incident.facility.as_ref().map(FacilityId::as_bytes);
    act.execute(sql, (incident.id.as_bytes(), incident.state.code(), subjects, facility, document))?;
    Ok(Opening::Opened(act.log(opened)?))
}

impl Store {
    /// Opens an incident, unless the same one is open. Works on a full disk, as everything that stops something.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn open_incident(&self, new: NewRow) -> Result<Opening, StoreError> {
        self.write(Class::Reserved, move |act| open(act, &new)).await
    }

    /// The open incident with these subjects.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn incident_of(&self, subjects: &[u8; 32]) -> Result<Option<Incident>, StoreError> {
        let sql = "SELECT document FROM incident WHERE subjects = ?1 AND state = 1";
        self.read(|connection| sql::one(connection, sql, [subjects], incident_row))
    }

    /// An incident; `None` also when it lies outside `visibility`.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn incident(&self, id: IncidentId, visibility: &Visibility) -> Result<Option<Incident>, StoreError> {
        let sql = concat!("SELECT document FROM incident WHERE id = ?2 AND ", in_scope!("facility"));
        self.read(|connection| sql::one(connection, sql, (scope(visibility), id.as_bytes()), incident_row))
    }

    /// Incidents, newest first.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn incidents(&self, visibility: &Visibility, page: &PageRequest) -> Result<Page<Incident>, StoreError> {
        let before = match &page.after {
            None => vec![0xff; 17],
            Some(text) => text.parse::<IncidentId>().map_err(|_detail| BAD_CURSOR)?.as_bytes().to_vec(),
        };
        let sql = concat!(
            "SELECT document FROM incident WHERE id < ?2 AND ",
            in_scope!("facility"),
            " ORDER BY id DESC LIMIT ?3"
        );
        let rows = usize::try_from(page.rows()).unwrap_or(usize::MAX);
        let params = (scope(visibility), before, page.rows() + 1);
        let mut items = self.read(|connection| sql::all(connection, sql, params, incident_row))?;
        let next = next_of(&mut items, rows, |last| last.id.to_string());
        Ok(Page { items, next })
    }

    /// Puts a plan in force. Approvals of another one count no more, because they name what they approved.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; [`StoreError::IllegalState`] when it is closed; [`StoreError::Invalid`] for a plan over
    /// 4 MiB.
    pub async fn set_incident_plan(&self, plan: StoredPlan, audit: impl Into<Audit>) -> Result<Logged<()>, StoreError> {
        self.logged(Class::Reserved, audit.into(), move |act| {
            let StoredPlan { plan, sha256, planned_by, planned_by_name, planned, effective } = &plan;
            let mut incident = open_one(act, plan.incident)?;
            incident.plan_sha256 = Some(sha256.clone());
            write_document(act, &incident)?;
            let text = text_of(plan, "plan", MAX_PLAN_OCTETS)?;
            let sql = "UPDATE incident SET plan = ?2, plan_sha256 = ?3, planned_by = ?4, planned_by_name = ?5,
                planned = ?6, effective = ?7 WHERE id = ?1";
            let by = planned_by.as_bytes();
            let effective = effective.map(millis);
            let id = plan.incident.as_bytes();
            act.execute(sql, (id, text, sha256, by, planned_by_name, millis(*planned), effective))?;
            Ok(())
        })
        .await
    }

    /// The plan in force.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn incident_plan(&self, id: IncidentId) -> Result<Option<StoredPlan>, StoreError> {
        let sql = "SELECT plan, plan_sha256, planned_by, planned_by_name, planned, effective FROM incident
            WHERE id = ?1 AND plan IS NOT NULL";
        self.read(|connection| {
            sql::one(connection, sql, [id.as_bytes()], |row| {
                Ok(StoredPlan {
                    plan: column::json(row, 0)?,
                    sha256: row.get(1)?,
                    planned_by: column::id(row, 2)?,
                    planned_by_name: row.get(3)?,
                    planned: column::time(row, 4)?,
                    effective: column::optional_time(row, 5)?,
                })
            })
        })
    }

    /// Records an approval of the plan in force.
    ///
    /// # Errors
    /// [`StoreError::IllegalState`] when another plan is in force by now, or the incident is closed.
    pub async fn approve_incident_plan(
        &self,
        id: IncidentId,
        approval: Approval,
        audit: impl Into<Audit>,
    ) -> Result<Logged<()>, StoreError> {
        self.logged(Class::Reserved, audit.into(), move |act| {
            let incident = open_one(act, id)?;
            let Approval { operator, name, break_glass, plan_sha256, at, expires, why } = &approval;
            if incident.plan_sha256.as_ref() != Some(plan_sha256) {
                return Err(StoreError::IllegalState {
                    what: "plan",
                    found: incident.plan_sha256.unwrap_or_default(),
                    expected: plan_sha256.clone(),
                });
            }
            let sql = "INSERT OR REPLACE INTO incident_approval
                (incident, at, operator, name, plan_sha256, expires, why, break_glass)
                VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";
            let (begin, end) = (millis(*at), millis(*expires));
            let glass = break_glass.as_ref().map(ProposalId::as_bytes);
            act.execute(sql, (id.as_bytes(), begin, operator.as_bytes(), name, plan_sha256, end, why, glass))?;
            Ok(())
        })
        .await
    }

    /// The approvals of a plan, oldest first, at most 100.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn incident_approvals(&self, id: IncidentId, plan_sha256: &str) -> Result<Vec<Approval>, StoreError> {
        let sql = "SELECT operator, name, plan_sha256, at, expires, why, break_glass FROM incident_approval
            WHERE incident = ?1 AND plan_sha256 = ?2 ORDER BY at DESC LIMIT 100";
        self.read(|connection| {
            let mut found = sql::all(connection, sql, (id.as_bytes(), plan_sha256), |row| {
                Ok(Approval {
                    operator: column::id(row, 0)?,
                    name: row.get(1)?,
                    plan_sha256: row.get(2)?,
                    at: column::time(row, 3)?,
                    expires: column::time(row, 4)?,
                    why: row.get(5)?,
                    break_glass: column::optional_id(row, 6)?,
                })
            })?;
            found.reverse();
            Ok(found)
        })
    }

    /// Records that a step is about to be done. Beginning one that was begun and has no end changes nothing but the log, so
    /// that a run after a crash says so.
    ///
    /// # Errors
    /// [`StoreError::IllegalState`] when it has an end, or the incident is closed.
    pub async fn begin_incident_step(
        &self,
        id: IncidentId,
        step: [u8; 32],
        at: UnixMillis,
        audit: impl Into<Audit>,
    ) -> Result<Logged<()>, StoreError> {
        self.logged(Class::Reserved, audit.into(), move |act| {
            open_one(act, id)?;
            let sql = "INSERT INTO incident_step (incident, step, begun) VALUES (?1, ?2, ?3)
                ON CONFLICT (incident, step) DO UPDATE SET begun = begun WHERE ended IS NULL";
            match act.execute(sql, (id.as_bytes(), step, millis(at)))? {
                1 => Ok(()),
                _ => Err(StoreError::IllegalState { what: "step", found: "done".into(), expected: "not done".into() }),
            }
        })
        .await
    }

    /// Records what came of a step.
    ///
    /// # Errors
    /// [`StoreError::IllegalState`] when it was not begun, or has an end.
    pub async fn end_incident_step(&self, end: StepEnd, audit: impl Into<Audit>) -> Result<Logged<()>, StoreError> {
        let audit = audit.into();
        self.write(Class::Reserved, move |act| {
            let StepEnd { incident, step, at, outcome, devices } = &end;
            if outcome.len() > MAX_OUTCOME_OCTETS {
                return Err(StoreError::Invalid { field: "outcome", problem: "at most 1,000 octets" });
            }
            let index = act.log(&audit)?;
            let sql = "UPDATE incident_step SET ended = ?3, outcome = ?4, devices = ?5, idx = ?6
                WHERE incident = ?1 AND step = ?2 AND ended IS NULL";
            let changed = act.execute(
                sql,
                (incident.as_bytes(), step, millis(*at), outcome, devices.map(integer), integer(index)),
            )?;
            match changed {
                1 => Ok(Logged { value: (), index }),
                _ => Err(StoreError::IllegalState { what: "step", found: "done".into(), expected: "begun".into() }),
            }
        })
        .await
    }

    /// How far the steps of an incident are, of every plan that it had.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn incident_steps(&self, id: IncidentId) -> Result<Vec<StepRow>, StoreError> {
        let sql = "SELECT step, begun, ended, outcome, idx FROM incident_step WHERE incident = ?1";
        self.read(|connection| {
            sql::all(connection, sql, [id.as_bytes()], |row| {
                let index = match row.get::<_, Option<i64>>(4)? {
                    None => None,
                    Some(_) => Some(column::count(row, 4)?),
                };
                Ok(StepRow {
                    step: row.get(0)?,
                    begun: column::time(row, 1)?,
                    ended: column::optional_time(row, 2)?,
                    outcome: row.get(3)?,
                    index,
                })
            })
        })
    }

    /// Closes an incident.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; [`StoreError::IllegalState`] when it is closed.
    pub async fn close_incident(&self, closed: Incident, audit: impl Into<Audit>) -> Result<Logged<()>, StoreError> {
        self.logged(Class::Reserved, audit.into(), move |act| {
            let found = open_one(act, closed.id)?;
            let Incident { closed, verdict, closing, .. } = &closed;
            let (closed, verdict, closing) = (*closed, *verdict, closing.clone());
            write_document(act, &Incident { state: IncidentState::Closed, closed, verdict, closing, ..found })
        })
        .await
    }

    /// Stops issuance for a facility or by a CA (why), or lets it go on (`None`). In force for every issuance that commits
    /// afterwards.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn hold_issuance(
        &self,
        target: HoldTarget,
        why: Option<(String, UnixMillis)>,
        audit: impl Into<Audit>,
    ) -> Result<Logged<()>, StoreError> {
        self.logged(Class::Reserved, audit.into(), move |act| {
            match &why {
                None => act.execute("DELETE FROM issuance_hold WHERE target = ?1", [target.octets()])?,
                Some((why, at)) => {
                    let sql = "INSERT INTO issuance_hold (target, why, at) VALUES (?1, ?2, ?3)
                        ON CONFLICT (target) DO UPDATE SET why = excluded.why";
                    act.execute(sql, (target.octets(), why, millis(*at)))?
                }
            };
            Ok(())
        })
        .await
    }

    /// Why nothing is issued for this facility or by this CA, if that is so.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn issuance_held(&self, target: HoldTarget) -> Result<Option<String>, StoreError> {
        let sql = "SELECT why FROM issuance_hold WHERE target = ?1";
        self.read(|connection| sql::one(connection, sql, [target.octets()], |row| row.get(0)))
    }

    /// How many facilities and CAs nothing is issued for.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn issuance_holds(&self) -> Result<u64, StoreError> {
        let sql = "SELECT count(*) FROM issuance_hold";
        let count = self.read(|connection| sql::one(connection, sql, [], |row| column::count(row, 0)))?;
        Ok(count.unwrap_or(0))
    }
}

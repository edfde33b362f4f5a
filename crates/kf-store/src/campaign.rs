//! Campaigns, and the part of each device in them.
//!
//! A device's part changes together with what is asked of it (the new epoch, the signed order) in one transaction, so that
//! nobody is asked twice whatever is cut short. What came of it is read from where the device proved it: the key that it
//! acknowledged, the order that it answered. Tallies are kept, not counted.

pub(crate) mod asked;
mod member;
pub(crate) mod renewal;
mod rollback;
mod storage;

use kf_access::Visibility;
use kf_api::campaign::{Campaign, CampaignFilter, CampaignPlan};
use kf_api::{Page, PageRequest};
use kf_key::{CampaignId, CampaignState, FacilityId, MemberState, UnixMillis};
use rusqlite::Row;

use crate::act::{Act, Class};
use crate::column::{self, Coded, count, millis};
use crate::listing::{BAD_CURSOR, next_of};
use crate::sql::{self, in_scope, scope};
use crate::{Audit, Logged, Store, StoreError};

pub use asked::AskedPart;
pub use member::{Ended, Evidence, MAX_MEMBERS, OpenMember, Place, Release};
pub use rollback::{Asked, Outstanding, Revocable};
pub use storage::StorageStatement;

macro_rules! columns {
    () => {
        "SELECT id, name, kind, state, reason, filter, plan, why, facility, created, started, ended, wave, begins,
            chosen_after, chosen, forgiven, gate_open, last_release, settled, algorithm, version FROM campaign"
    };
}

/// A campaign with what its course needs and nobody else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredCampaign {
    /// The campaign.
    pub campaign: Campaign,
    /// The page of devices that comes next while they are chosen.
    pub chosen_after: Option<String>,
    /// Whether all have been chosen.
    pub chosen: bool,
    /// Failures of the wave under way that somebody has looked at.
    pub forgiven: u64,
    /// Whether somebody has opened the gate of the wave under way.
    pub gate_open: bool,
    /// When a device was last asked.
    pub last_release: Option<UnixMillis>,
    /// Whether nothing is left of it that a device could still obey: for one that was given up.
    pub settled: bool,
}

/// What came of a wave, or of a whole campaign, by state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Count {
    /// The wave; 0 for devices whose turn has not come.
    pub wave: u32,
    /// The state.
    pub state: MemberState,
    /// How many.
    pub devices: u64,
}

/// A step of a campaign's life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CampaignChange {
    /// The campaign.
    pub id: CampaignId,
    /// The state the caller saw.
    pub seen: CampaignState,
    /// The new state.
    pub to: CampaignState,
    /// Why, to be shown with it.
    pub reason: String,
    /// When.
    pub at: UnixMillis,
}

/// Another plan for a campaign that asks nobody at the moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlanEdit {
    /// The campaign.
    pub id: CampaignId,
    /// The state the caller saw.
    pub seen: CampaignState,
    /// The version the caller saw.
    pub version: u32,
    /// The whole plan as it is to be.
    pub plan: CampaignPlan,
    /// Of a draft: the whole filter as it is to be, with the facility that it names, where it changes.
    pub filter: Option<(CampaignFilter, Option<FacilityId>)>,
}

fn campaign_row(row: &Row<'_>) -> rusqlite::Result<StoredCampaign> {
    Ok(StoredCampaign {
        campaign: Campaign {
            id: column::id(row, 0)?,
            name: row.get(1)?,
            kind: column::coded(row, 2)?,
            state: column::coded(row, 3)?,
            reason: row.get(4)?,
            filter: column::json::<CampaignFilter>(row, 5)?,
            plan: column::json::<CampaignPlan>(row, 6)?,
            version: row.get(21)?,
            algorithm: column::optional_coded(row, 20)?,
            why: row.get(7)?,
            facility: column::optional_id(row, 8)?,
            created: column::time(row, 9)?,
            started: column::optional_time(row, 10)?,
            ended: column::optional_time(row, 11)?,
            wave: row.get(12)?,
            begins: column::optional_time(row, 13)?,
        },
        chosen_after: row.get(14)?,
        chosen: row.get(15)?,
        forgiven: count(row, 16)?,
        gate_open: row.get(17)?,
        last_release: column::optional_time(row, 18)?,
        settled: row.get(19)?,
    })
}

fn unwritable(field: &'static str) -> StoreError {
    StoreError::Invalid { field, problem: "cannot be written down" }
}

fn found(act: &Act<'_>, id: CampaignId) -> Result<StoredCampaign, StoreError> {
    let sql = concat!(columns!(), " WHERE id = ?1");
    act.one(sql, [id.as_bytes()], campaign_row)?.ok_or(StoreError::NotFound { what: "campaign" })
}

/// Refuses unless the campaign is in this state: whatever happens to devices happens to those of a running one.
fn require(act: &Act<'_>, id: CampaignId, state: CampaignState) -> Result<StoredCampaign, StoreError> {
    let campaign = found(act, id)?;
    if campaign.campaign.state == state {
        return Ok(campaign);
    }
    Err(StoreError::IllegalState {
        what: "campaign",
        found: campaign.campaign.state.name().into(),
        expected: state.name().into(),
    })
}

fn failures(act: &Act<'_>, id: CampaignId, wave: u32) -> Result<u64, StoreError> {
    let sql = "SELECT count FROM campaign_count WHERE campaign = ?1 AND wave = ?2 AND state = ?3";
    let failed = act.one(sql, (id.as_bytes(), wave, MemberState::Failed.code()), |row| count(row, 0))?;
    Ok(failed.unwrap_or_default())
}

impl Store {
    /// Adds a campaign, as a draft.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] on `name` or `id`.
    pub async fn insert_campaign(&self, campaign: Campaign, audit: impl Into<Audit>) -> Result<Logged<()>, StoreError> {
        self.logged(Class::Ordinary, audit.into(), move |act| {
            let Campaign { id, name, kind, filter, plan, algorithm, why, facility, created, .. } = &campaign;
            let filter = serde_json::to_string(filter).map_err(|_detail| unwritable("filter"))?;
            let plan = serde_json::to_string(plan).map_err(|_detail| unwritable("plan"))?;
            let sql = "INSERT INTO campaign (id, name, kind, state, reason, filter, plan, why, facility, created, wave,
                chosen, forgiven, gate_open, settled, algorithm, version)
                VALUES (?1, ?2, ?3, ?4, '', ?5, ?6, ?7, ?8, ?9, 0, 0, 0, 0, 0, ?10, 1)";
            let state = CampaignState::Draft.code();
            let facility = facility.as_ref().map(FacilityId::as_bytes);
            let (created, algorithm) = (millis(*created), algorithm.map(Coded::code));
            let (id, kind) = (id.as_bytes(), kind.code());
            act.execute(sql, (id, name, kind, state, filter, plan, why, facility, created, algorithm))?;
            Ok(())
        })
        .await
    }

    /// Changes the state of a campaign by the one transition function. Going on after it had stopped itself forgives the
    /// failures of the wave under way and opens its gate.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; [`StoreError::IllegalState`] when it is not as the caller saw it, or cannot become this.
    pub async fn change_campaign(
        &self,
        change: CampaignChange,
        audit: impl Into<Audit>,
    ) -> Result<Logged<Campaign>, StoreError> {
        // Stopping goes on when the disk is full.
        let class = if change.to == CampaignState::Running { Class::Ordinary } else { Class::Reserved };
        self.logged(class, audit.into(), move |act| {
            let CampaignChange { id, seen, to, reason, at } = &change;
            let stored = require(act, *id, *seen)?;
            seen.transition(*to).map_err(|illegal| StoreError::IllegalState {
                what: "campaign",
                found: illegal.from.name().into(),
                expected: format!("one that can become {}", illegal.to.name()),
            })?;
            let ended = to.is_final().then_some(millis(*at));
            let goes_on = *to == CampaignState::Running && *seen == CampaignState::Stopped;
            let forgiven = if goes_on { failures(act, *id, stored.campaign.wave)? } else { stored.forgiven };
            // What is to be taken back is left to do, also of one that had been given up and settled.
            let sql = "UPDATE campaign SET state = ?2, reason = ?3, started = coalesce(started, ?4), ended = ?5,
                forgiven = ?6, gate_open = ?7, settled = 0 WHERE id = ?1";
            let started = (*to == CampaignState::Running).then_some(millis(*at));
            let gate_open = goes_on || stored.gate_open;
            let params = (id.as_bytes(), to.code(), reason, started, ended, column::integer(forgiven), gate_open);
            act.execute(sql, params)?;
            Ok(found(act, *id)?.campaign)
        })
        .await
    }

    /// Gives a campaign that asks nobody at the moment another plan, a draft also another filter, and its next version.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; [`StoreError::IllegalState`] when it is not as the caller saw it, or asks devices.
    pub async fn edit_campaign(&self, edit: PlanEdit, audit: impl Into<Audit>) -> Result<Logged<Campaign>, StoreError> {
        self.logged(Class::Ordinary, audit.into(), move |act| {
            let PlanEdit { id, seen, version, plan, filter } = &edit;
            let stored = require(act, *id, *seen)?;
            if !seen.is_editable() || (filter.is_some() && *seen != CampaignState::Draft) {
                let expected = if filter.is_some() { "draft" } else { "draft, paused or stopped" };
                return Err(StoreError::IllegalState {
                    what: "campaign",
                    found: seen.name().into(),
                    expected: expected.into(),
                });
            }
            if stored.campaign.version != *version {
                return Err(StoreError::IllegalState {
                    what: "version of the campaign",
                    found: stored.campaign.version.to_string(),
                    expected: version.to_string(),
                });
            }
            let plan = serde_json::to_string(plan).map_err(|_detail| unwritable("plan"))?;
            act.execute("UPDATE campaign SET plan = ?2, version = version + 1 WHERE id = ?1", (id.as_bytes(), plan))?;
            if let Some((filter, facility)) = filter {
                let filter = serde_json::to_string(filter).map_err(|_detail| unwritable("filter"))?;
                let facility = facility.as_ref().map(FacilityId::as_bytes);
                let sql = "UPDATE campaign SET filter = ?2, facility = ?3 WHERE id = ?1";
                act.execute(sql, (id.as_bytes(), filter, facility))?;
            }
            Ok(found(act, *id)?.campaign)
        })
        .await
    }

    /// Removes a draft. What has begun is kept for good: it has asked devices.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; [`StoreError::IllegalState`] when it is no draft (any more).
    pub async fn delete_campaign(&self, id: CampaignId, audit: impl Into<Audit>) -> Result<Logged<()>, StoreError> {
        self.logged(Class::Ordinary, audit.into(), move |act| {
            require(act, id, CampaignState::Draft)?;
            act.execute("DELETE FROM campaign WHERE id = ?1", [id.as_bytes()])?;
            Ok(())
        })
        .await
    }

    /// Begins the next wave of a running campaign.
    ///
    /// # Errors
    /// [`StoreError::IllegalState`] when it does not run, or `seen` is not its wave any more.
    pub async fn begin_wave(
        &self,
        id: CampaignId,
        seen: u32,
        begins: UnixMillis,
        audit: impl Into<Audit>,
    ) -> Result<Logged<()>, StoreError> {
        self.logged(Class::Ordinary, audit.into(), move |act| {
            let stored = require(act, id, CampaignState::Running)?;
            if stored.campaign.wave != seen {
                return Err(StoreError::IllegalState {
                    what: "wave of the campaign",
                    found: stored.campaign.wave.to_string(),
                    expected: seen.to_string(),
                });
            }
            let sql = "UPDATE campaign SET wave = wave + 1, begins = ?2, forgiven = 0, gate_open = 0 WHERE id = ?1";
            act.execute(sql, (id.as_bytes(), millis(begins)))?;
            Ok(())
        })
        .await
    }

    /// Lets a running campaign go past the gate of its wave.
    ///
    /// # Errors
    /// [`StoreError::IllegalState`] when it does not run.
    pub async fn open_gate(&self, id: CampaignId, audit: impl Into<Audit>) -> Result<Logged<Campaign>, StoreError> {
        self.logged(Class::Ordinary, audit.into(), move |act| {
            let stored = require(act, id, CampaignState::Running)?;
            act.execute("UPDATE campaign SET gate_open = 1 WHERE id = ?1", [id.as_bytes()])?;
            Ok(stored.campaign)
        })
        .await
    }

    /// Notes that nothing is left to do of a campaign that was given up or rolled back.
    ///
    /// # Errors
    /// [`StoreError::IllegalState`] when it was neither.
    pub async fn settle_campaign(&self, id: CampaignId, audit: impl Into<Audit>) -> Result<Logged<()>, StoreError> {
        self.logged(Class::Reserved, audit.into(), move |act| {
            if found(act, id)?.campaign.state != CampaignState::RolledBack {
                require(act, id, CampaignState::Aborted)?;
            }
            act.execute("UPDATE campaign SET settled = 1 WHERE id = ?1", [id.as_bytes()])?;
            Ok(())
        })
        .await
    }

    /// A campaign by id; `None` also when it lies outside `visibility`.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn campaign(&self, id: CampaignId, visibility: &Visibility) -> Result<Option<StoredCampaign>, StoreError> {
        let sql = concat!(columns!(), " WHERE id = ?2 AND ", in_scope!("facility"));
        self.read(|connection| sql::one(connection, sql, (scope(visibility), id.as_bytes()), campaign_row))
    }

    /// A campaign by name.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn campaign_by_name(&self, name: &str, visibility: &Visibility) -> Result<Option<StoredCampaign>, StoreError> {
        let sql = concat!(columns!(), " WHERE name = ?2 AND ", in_scope!("facility"));
        self.read(|connection| sql::one(connection, sql, (scope(visibility), name), campaign_row))
    }

    /// Campaigns, newest first.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn campaigns(&self, visibility: &Visibility, page: &PageRequest) -> Result<Page<Campaign>, StoreError> {
        let before = match &page.after {
            None => vec![0xff; 17],
            Some(text) => text.parse::<CampaignId>().map_err(|_detail| BAD_CURSOR)?.as_bytes().to_vec(),
        };
        let sql = concat!(columns!(), " WHERE id < ?2 AND ", in_scope!("facility"), " ORDER BY id DESC LIMIT ?3");
        let params = (scope(visibility), before, page.rows() + 1);
        let mut items: Vec<Campaign> = self.read(|connection| {
            sql::all(connection, sql, params, |row| campaign_row(row).map(|stored| stored.campaign))
        })?;
        let rows = usize::try_from(page.rows()).unwrap_or(usize::MAX);
        let next = next_of(&mut items, rows, |last| last.id.to_string());
        Ok(Page { items, next })
    }

    /// Campaigns in which something may happen: running ones, those whose devices may still answer, and those that were given
    /// up or rolled back and have something left.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn live_campaigns(&self, limit: u32) -> Result<Vec<StoredCampaign>, StoreError> {
        // The codes of running, paused, stopped; aborted and rolled back.
        let sql =
            concat!(columns!(), " WHERE state IN (2, 3, 4) OR (state IN (5, 7) AND settled = 0) ORDER BY id LIMIT ?1");
        self.read(|connection| sql::all(connection, sql, [limit], campaign_row))
    }

    /// The tallies of a campaign.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn campaign_counts(&self, id: CampaignId) -> Result<Vec<Count>, StoreError> {
        let sql = "SELECT wave, state, count FROM campaign_count WHERE campaign = ?1 ORDER BY wave, state";
        self.read(|connection| {
            sql::all(connection, sql, [id.as_bytes()], |row| {
                Ok(Count { wave: row.get(0)?, state: column::coded(row, 1)?, devices: count(row, 2)? })
            })
        })
    }
}

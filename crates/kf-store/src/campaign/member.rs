//! The part of each device in a campaign.

use std::collections::BTreeMap;

use kf_access::Visibility;
use kf_api::campaign::{CampaignKind, CampaignMember, SilenceByAge};
use kf_api::order::{Order, OrderState};
use kf_api::{Page, PageRequest};
use kf_key::{CampaignId, CampaignState, DeviceId, DeviceState, MemberState, OrderId, UnixMillis};
use kf_log::AuditEntry;
use rusqlite::Row;

use super::{found, require};
use crate::act::{Act, Class};
use crate::column::{self, Coded, count, integer, millis};
use crate::listing::{BAD_CURSOR, next_of};
use crate::sql::{self, in_scope, scope};
use crate::{Audit, Logged, Store, StoreError};

/// The most members in one call.
pub const MAX_MEMBERS: usize = 1_000;

/// What is asked of one device.
#[derive(Clone, Debug)]
pub enum Release {
    /// Its own key epoch advances behind `seen`; its next exchange delivers the key.
    Epoch {
        /// The device.
        device: DeviceId,
        /// The epoch the caller saw.
        seen: u32,
        /// The log entry.
        entry: AuditEntry,
    },
    /// It is ordered to do something.
    Order {
        /// The order, as it was signed.
        order: Order,
        /// Its signed octets.
        message: Vec<u8>,
        /// The log entry.
        entry: AuditEntry,
    },
    /// It is told of what is wanted when it next asks for news: a new root, or a new storage key.
    News {
        /// The device.
        device: DeviceId,
        /// The log entry.
        entry: AuditEntry,
    },
    /// Nothing: it is barred, or has nothing to replace.
    Skip {
        /// The device.
        device: DeviceId,
        /// The log entry.
        entry: AuditEntry,
    },
}

/// The place of a device in the order of release.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    pub(super) slot: i64,
    pub(super) device: DeviceId,
}

impl Place {
    /// The device.
    #[must_use]
    pub const fn device(&self) -> DeviceId {
        self.device
    }
}

/// A device that was asked, with what is known of its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenMember {
    /// The device, with its place among those that were asked.
    pub place: Place,
    /// Its state.
    pub state: DeviceState,
    /// When it was asked.
    pub offered: UnixMillis,
    /// What it has proved.
    pub evidence: Evidence,
}

/// What a device has proved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Evidence {
    /// Nothing yet.
    None,
    /// It holds the key that it was to fetch, or a newer one.
    HoldsKey,
    /// It verifies the server by the new root.
    TrustsRoot,
    /// It signed that its data lie under a new storage key, and the old one is destroyed.
    MovedStorage,
    /// Its order stands so.
    Order(OrderState),
}

/// What came of a device's part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// The device, with its place.
    pub place: Place,
    /// `Done`, `Failed` or `Skipped`.
    pub to: MemberState,
    /// Whether it signed that it would not.
    pub declined: bool,
}

pub(super) fn counted(
    act: &Act<'_>,
    campaign: CampaignId,
    wave: u32,
    state: MemberState,
    by: i64,
) -> Result<(), StoreError> {
    let sql = "INSERT INTO campaign_count (campaign, wave, state, count) VALUES (?1, ?2, ?3, ?4)
        ON CONFLICT (campaign, wave, state) DO UPDATE SET count = count + excluded.count";
    act.execute(sql, (campaign.as_bytes(), wave, state.code(), by))?;
    Ok(())
}

/// Those whose turn has not come (1), in their order, of the campaign `?1`: `campaign c CROSS JOIN campaign_device m` and more before it.
macro_rules! waiting {
    () => {
        "WHERE c.id = ?1 AND m.campaign = c.id AND m.slot >= c.turn AND m.state = 1 ORDER BY m.slot, m.device"
    };
}
pub(super) use waiting;

/// Notes that devices were asked, and where the first is that waits now.
pub(super) fn released(act: &Act<'_>, campaign: CampaignId, at: UnixMillis) -> Result<(), StoreError> {
    let first = concat!("SELECT m.slot FROM campaign c CROSS JOIN campaign_device m ", waiting!(), " LIMIT 1");
    let first: Option<i64> = act.one(first, [campaign.as_bytes()], |row| row.get(0))?;
    let sql = "UPDATE campaign SET last_release = ?2, turn = ?3 WHERE id = ?1";
    act.execute(sql, (campaign.as_bytes(), millis(at), first.unwrap_or(i64::MAX)))?;
    Ok(())
}

pub(super) fn member(
    act: &Act<'_>,
    campaign: CampaignId,
    device: DeviceId,
) -> Result<Option<(MemberState, u32)>, StoreError> {
    let sql = "SELECT state, wave FROM campaign_device WHERE campaign = ?1 AND device = ?2";
    act.one(sql, (campaign.as_bytes(), device.as_bytes()), |row| Ok((column::coded(row, 0)?, row.get(1)?)))
}

/// What a device was asked for, to be found again.
enum Target {
    Epoch(u32),
    Order(OrderId),
    News,
    Nothing,
}

/// Takes a device that is waiting into a wave.
fn take(
    act: &Act<'_>,
    (campaign, wave): (CampaignId, u32),
    device: DeviceId,
    target: &Target,
    at: UnixMillis,
) -> Result<(), StoreError> {
    let (epoch, order) = match target {
        Target::Epoch(epoch) => (Some(*epoch), None),
        Target::Order(order) => (None, Some(order.as_bytes())),
        Target::News | Target::Nothing => (None, None),
    };
    let is_asked = !matches!(target, Target::Nothing);
    let to = if is_asked { MemberState::Offered } else { MemberState::Skipped };
    let sql =
        "UPDATE campaign_device SET state = ?3, wave = ?4, epoch = ?5, device_order = ?6, offered = ?7, ended = ?8
        WHERE campaign = ?1 AND device = ?2 AND state = 1";
    let (offered, ended) = (is_asked.then_some(millis(at)), (!is_asked).then_some(millis(at)));
    act.execute(sql, (campaign.as_bytes(), device.as_bytes(), to.code(), wave, epoch, order, offered, ended))?;
    counted(act, campaign, 0, MemberState::Waiting, -1)?;
    counted(act, campaign, wave, to, 1)
}

fn is_waiting(act: &Act<'_>, campaign: CampaignId, device: DeviceId) -> Result<bool, StoreError> {
    Ok(member(act, campaign, device)?.is_some_and(|(state, _)| state == MemberState::Waiting))
}

/// Carries one release out; `false` when it does not fit any more, and then nothing was written.
fn release(act: &mut Act<'_>, place: (CampaignId, u32), one: &Release, at: UnixMillis) -> Result<bool, StoreError> {
    let (entry, device) = match one {
        Release::Epoch { device, entry, .. } | Release::News { device, entry } | Release::Skip { device, entry } => {
            (entry, *device)
        }
        Release::Order { order, entry, .. } => (entry, order.device),
    };
    if !is_waiting(act, place.0, device)? {
        return Ok(false);
    }
    let target = match one {
        Release::Epoch { seen, .. } => {
            let Some(next) = crate::device_key::advance(act, device, *seen)? else { return Ok(false) };
            Target::Epoch(next)
        }
        Release::Order { order, message, .. } => {
            let sql = "SELECT 1 FROM device_order WHERE device = ?1 AND counter = ?2";
            if act.exists(sql, (device.as_bytes(), integer(order.counter)))? {
                return Ok(false);
            }
            crate::order::insert(act, order, message)?;
            Target::Order(order.id)
        }
        Release::News { .. } => Target::News,
        Release::Skip { .. } => Target::Nothing,
    };
    take(act, place, device, &target, at)?;
    act.log(&entry.clone().into())?;
    Ok(true)
}

/// Ends the part of a device that was asked; its wave, or nothing where it was not. Of those that were asked (2) every end is one step.
fn conclude(
    act: &Act<'_>,
    (campaign, newest): (CampaignId, u32),
    Place { slot, device }: Place,
    to: MemberState,
    at: UnixMillis,
) -> Result<Option<u32>, StoreError> {
    // Most are of the wave under way. For rows that a statement gives back SQLite opens a table in memory.
    let sql = "UPDATE campaign_device SET state = ?4, ended = ?5
        WHERE campaign = ?1 AND slot = ?2 AND device = ?3 AND state = 2 AND wave = ?6";
    let params = (campaign.as_bytes(), slot, device.as_bytes(), to.code(), millis(at), newest);
    if act.execute(sql, params)? > 0 {
        return Ok(Some(newest));
    }
    let sql = "UPDATE campaign_device SET state = ?4, ended = ?5
        WHERE campaign = ?1 AND slot = ?2 AND device = ?3 AND state = 2 RETURNING wave";
    act.one(sql, (campaign.as_bytes(), slot, device.as_bytes(), to.code(), millis(at)), |row| row.get(0))
}

impl Store {
    /// Takes further devices into a running campaign, each once, with their places in the order of release. `seen` is the
    /// page of devices that this was, `after` the next one; `None` when there are no more.
    ///
    /// # Errors
    /// [`StoreError::IllegalState`] when it does not run, or goes on from elsewhere: somebody else chose as well.
    pub async fn choose_members(
        &self,
        campaign: CampaignId,
        seen: Option<String>,
        members: Vec<(DeviceId, u64)>,
        after: Option<String>,
        audit: impl Into<Audit>,
    ) -> Result<Logged<u64>, StoreError> {
        self.logged(Class::Ordinary, audit.into(), move |act| {
            if members.len() > MAX_MEMBERS {
                return Err(StoreError::Invalid { field: "members", problem: "at most 1,000 at once" });
            }
            let stored = require(act, campaign, CampaignState::Running)?;
            if stored.chosen || stored.chosen_after != seen {
                return Err(StoreError::IllegalState {
                    what: "campaign",
                    found: "further on".into(),
                    expected: "where its devices were last chosen".into(),
                });
            }
            let sql = "INSERT INTO campaign_device (campaign, device, slot, state, wave) VALUES (?1, ?2, ?3, 1, 0)
                ON CONFLICT DO NOTHING";
            let mut added = 0;
            for (device, slot) in &members {
                added += act.execute(sql, (campaign.as_bytes(), device.as_bytes(), integer(*slot)))?;
            }
            counted(act, campaign, 0, MemberState::Waiting, i64::try_from(added).unwrap_or(i64::MAX))?;
            let sql = "UPDATE campaign SET chosen_after = coalesce(?2, chosen_after), chosen = ?3 WHERE id = ?1";
            act.execute(sql, (campaign.as_bytes(), &after, after.is_none()))?;
            Ok(u64::try_from(added).unwrap_or_default())
        })
        .await
    }

    /// The next devices whose turn it is.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn waiting_members(&self, campaign: CampaignId, limit: u32) -> Result<Vec<DeviceId>, StoreError> {
        let sql = concat!("SELECT m.device FROM campaign c CROSS JOIN campaign_device m ", waiting!(), " LIMIT ?2");
        self.read(|connection| sql::all(connection, sql, (campaign.as_bytes(), limit), |row| column::id(row, 0)))
    }

    /// Asks devices, each with its log entry, all in one transaction. How many of them were still waiting.
    ///
    /// # Errors
    /// [`StoreError::IllegalState`] when the campaign does not run, or is in another wave.
    pub async fn release_members(
        &self,
        campaign: CampaignId,
        wave: u32,
        releases: Vec<Release>,
        at: UnixMillis,
    ) -> Result<u64, StoreError> {
        self.write(Class::Ordinary, move |act| {
            if releases.len() > MAX_MEMBERS {
                return Err(StoreError::Invalid { field: "releases", problem: "at most 1,000 at once" });
            }
            let stored = require(act, campaign, CampaignState::Running)?;
            if stored.campaign.wave != wave {
                return Err(StoreError::IllegalState {
                    what: "wave of the campaign",
                    found: stored.campaign.wave.to_string(),
                    expected: wave.to_string(),
                });
            }
            let mut released = 0;
            for one in &releases {
                released += u64::from(release(act, (campaign, wave), one, at)?);
            }
            self::released(act, campaign, at)?;
            Ok(released)
        })
        .await
    }

    /// Devices that were asked, in the order in which they were, after one of them, each with what it has proved since.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn open_members(
        &self,
        (campaign, kind): (CampaignId, CampaignKind),
        after: Option<Place>,
        limit: u32,
    ) -> Result<Vec<OpenMember>, StoreError> {
        // The state of a key that is held is 2. A key of an epoch before the one asked for proves nothing.
        // A renewal that was asked for by a word (`behind`) is proved where the device polls, and nothing here speaks of it.
        let sql = "SELECT m.device, d.state, m.offered,
            CASE WHEN m.epoch IS NULL THEN 0 ELSE EXISTS (SELECT 1 FROM device_key_epoch k WHERE k.device = m.device
                AND k.state = 2 AND k.device_epoch >= m.epoch) END, o.state,
            CASE WHEN ?5 <> 3 THEN 0 ELSE EXISTS (SELECT 1 FROM device_trust t
                JOIN succession s ON s.successor = t.root AND s.state IN (1, 2) WHERE t.device = m.device) END,
            CASE WHEN ?5 <> 4 THEN 0 ELSE EXISTS (SELECT 1 FROM device_storage g
                WHERE g.device = m.device AND g.campaign = m.campaign) END, m.slot
            FROM campaign_device m JOIN device d ON d.id = m.device
            LEFT JOIN device_order o ON o.id = m.device_order
            WHERE m.campaign = ?1 AND m.state = 2 AND (m.slot, m.device) > (?2, ?3) ORDER BY m.slot, m.device LIMIT ?4";
        let (slot, device) =
            after.map_or((-1, Vec::new()), |Place { slot, device }| (slot, device.as_bytes().to_vec()));
        let params = (campaign.as_bytes(), slot, device, limit, kind.code());
        self.read(|connection| sql::all(connection, sql, params, open_row))
    }

    /// Writes down what came of devices that were asked, with a log entry that counts them; those of which that was written down
    /// already are left alone. How many were not.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn conclude_members(
        &self,
        campaign: CampaignId,
        ended: Vec<Ended>,
        at: UnixMillis,
        audit: impl Into<Audit>,
    ) -> Result<u64, StoreError> {
        let audit = audit.into();
        self.write(Class::Reserved, move |act| {
            let newest = found(act, campaign)?.campaign.wave;
            let mut tallies: BTreeMap<(u32, u8), (MemberState, i64)> = BTreeMap::new();
            let mut changed = 0_u64;
            for Ended { place, to, .. } in ended.iter().take(MAX_MEMBERS) {
                if !MemberState::Offered.may_become(*to) {
                    continue;
                }
                let Some(wave) = conclude(act, (campaign, newest), *place, *to, at)? else { continue };
                for (state, by) in [(MemberState::Offered, -1), (*to, 1)] {
                    tallies.entry((wave, state.code())).or_insert((state, 0)).1 += by;
                }
                changed += 1;
            }
            if changed == 0 {
                return Ok(0);
            }
            let of = |state| tallies.values().filter(|(of, _)| *of == state).map(|(_, by)| by).sum::<i64>().to_string();
            let facts = [MemberState::Done, MemberState::Failed, MemberState::Skipped].map(|to| (to.name(), of(to)));
            for ((wave, _), (state, by)) in &tallies {
                counted(act, campaign, *wave, *state, *by)?;
            }
            act.log(&audit.with_details(facts))?;
            Ok(changed)
        })
        .await
    }

    /// Devices of a wave that were asked until `until` and have not answered, and when the one that was asked longest ago
    /// after that was asked. Without a wave: of the whole campaign.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn silent_members(
        &self,
        campaign: CampaignId,
        wave: Option<u32>,
        until: UnixMillis,
    ) -> Result<(u64, Option<UnixMillis>), StoreError> {
        let sql = "SELECT count(*) FILTER (WHERE offered <= ?3), min(offered) FILTER (WHERE offered > ?3)
            FROM campaign_device WHERE campaign = ?1 AND state = 2 AND (?2 IS NULL OR wave = ?2)";
        let found = self.read(|connection| {
            sql::one(connection, sql, (campaign.as_bytes(), wave, millis(until)), |row| {
                Ok((count(row, 0)?, column::optional_time(row, 1)?))
            })
        })?;
        Ok(found.unwrap_or_default())
    }

    /// The devices that were asked and have not answered, by when they were last heard of.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn unheard_members(&self, campaign: CampaignId, now: UnixMillis) -> Result<SilenceByAge, StoreError> {
        let sql = "SELECT d.last_seen FROM campaign_device m JOIN device d ON d.id = m.device
            WHERE m.campaign = ?1 AND m.state = 2";
        self.read(|connection| {
            let mut ages = SilenceByAge::default();
            sql::all(connection, sql, [campaign.as_bytes()], |row| {
                let bucket = match column::optional_time(row, 0)?.map(|seen| now.since(seen) / UnixMillis::DAY) {
                    None => &mut ages.never,
                    Some(0) => &mut ages.day,
                    Some(1..=6) => &mut ages.week,
                    Some(7..=29) => &mut ages.month,
                    Some(_) => &mut ages.longer,
                };
                *bucket += 1;
                Ok(())
            })?;
            Ok(ages)
        })
    }

    /// Devices whose turn has not come, and how many of them were not heard of since `since`.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn waiting_and_asleep(&self, campaign: CampaignId, since: UnixMillis) -> Result<(u64, u64), StoreError> {
        let sql = "SELECT count(*), count(*) FILTER (WHERE d.last_seen IS NULL OR d.last_seen < ?2)
            FROM campaign_device m JOIN device d ON d.id = m.device WHERE m.campaign = ?1 AND m.state = 1";
        let found = self.read(|connection| {
            sql::one(connection, sql, (campaign.as_bytes(), millis(since)), |row| Ok((count(row, 0)?, count(row, 1)?)))
        })?;
        Ok(found.unwrap_or_default())
    }

    /// The orders of a campaign that are open, to be withdrawn with it.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn open_campaign_orders(&self, campaign: CampaignId, limit: u32) -> Result<Vec<OrderId>, StoreError> {
        let sql = "SELECT o.id FROM campaign_device m JOIN device_order o ON o.id = m.device_order
            WHERE m.campaign = ?1 AND m.state = 2 AND o.state = 1 LIMIT ?2";
        self.read(|connection| sql::all(connection, sql, (campaign.as_bytes(), limit), |row| column::id(row, 0)))
    }

    /// The devices of a campaign, in the order of their ids.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn members(
        &self,
        campaign: CampaignId,
        state: Option<MemberState>,
        visibility: &Visibility,
        page: &PageRequest,
    ) -> Result<Page<CampaignMember>, StoreError> {
        let after = match &page.after {
            None => Vec::new(),
            Some(text) => text.parse::<DeviceId>().map_err(|_detail| BAD_CURSOR)?.as_bytes().to_vec(),
        };
        let sql = concat!(
            "SELECT m.device, d.name, m.state, m.wave, m.offered, m.ended, d.last_seen, o.id
            FROM campaign_device m JOIN device d ON d.id = m.device LEFT JOIN device_order o ON o.id = m.device_order
            WHERE m.campaign = ?2 AND m.device > ?3 AND (?4 IS NULL OR m.state = ?4) AND ",
            in_scope!("d.facility"),
            " ORDER BY m.device LIMIT ?5"
        );
        let params = (scope(visibility), campaign.as_bytes(), after, state.map(Coded::code), page.rows() + 1);
        let mut items = self.read(|connection| sql::all(connection, sql, params, member_row))?;
        let rows = usize::try_from(page.rows()).unwrap_or(usize::MAX);
        let next = next_of(&mut items, rows, |last| last.device.to_string());
        Ok(Page { items, next })
    }
}

fn open_row(row: &Row<'_>) -> rusqlite::Result<OpenMember> {
    let order = column::optional_coded::<OrderState>(row, 4)?;
    let [holds_key, trusts_root, moved_storage] = [row.get(3)?, row.get(5)?, row.get(6)?];
    let evidence = match order {
        _ if holds_key => Evidence::HoldsKey,
        _ if trusts_root => Evidence::TrustsRoot,
        _ if moved_storage => Evidence::MovedStorage,
        Some(state) => Evidence::Order(state),
        None => Evidence::None,
    };
    Ok(OpenMember {
        place: Place { slot: row.get(7)?, device: column::id(row, 0)? },
        state: column::coded(row, 1)?,
        offered: column::time(row, 2)?,
        evidence,
    })
}

fn member_row(row: &Row<'_>) -> rusqlite::Result<CampaignMember> {
    Ok(CampaignMember {
        device: column::id(row, 0)?,
        name: row.get(1)?,
        state: column::coded(row, 2)?,
        wave: row.get(3)?,
        offered: column::optional_time(row, 4)?,
        ended: column::optional_time(row, 5)?,
        last_seen: column::optional_time(row, 6)?,
        order: column::optional_id(row, 7)?,
    })
}

//! Taking back what a campaign has asked of devices that have not come for it.

use kf_key::{CampaignId, CampaignState, DeviceId, MemberState, OrderId, UnixMillis};
use kf_log::AuditEntry;
use rusqlite::Row;

use super::member::{MAX_MEMBERS, counted, member};
use super::require;
use crate::act::{Act, Class};
use crate::column::{self, Coded, millis};
use crate::sql;
use crate::{Store, StoreError};

/// Whether a device has proved that it trusts the root that its campaign (of kind 3) is about, told or not: it may have found it at
/// a renewal. The root is that of the succession that goes on, prepared (1) or switched (2).
macro_rules! trusts {
    () => {
        "EXISTS (SELECT 1 FROM campaign c CROSS JOIN device_trust t ON t.device = m.device
            JOIN succession s ON s.successor = t.root AND s.state IN (1, 2) WHERE c.id = m.campaign AND c.kind = 3)"
    };
}

/// A part that can be taken back: asked (2), and the device has not come for it. An epoch of which no key was sent, and that is
/// still the device's newest; an open order (1) that nobody was given; anything else of which the device was not told.
macro_rules! revocable {
    () => {
        concat!(
            "m.campaign = ?1 AND m.state = 2 AND CASE
            WHEN m.epoch IS NOT NULL THEN EXISTS (SELECT 1 FROM device_key k WHERE k.device = m.device
                AND k.device_epoch = m.epoch) AND NOT EXISTS (SELECT 1 FROM device_key_epoch e WHERE e.device = m.device
                AND e.device_epoch >= m.epoch)
            WHEN m.device_order IS NOT NULL THEN EXISTS (SELECT 1 FROM device_order o WHERE o.id = m.device_order
                AND o.state = 1 AND o.sent IS NULL AND o.delivered IS NULL AND o.acknowledged IS NULL)
            ELSE m.told IS NULL AND NOT ",
            trusts!(),
            " END"
        )
    };
}

/// What a device was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// A new epoch of its own key.
    Epoch(u32),
    /// An order.
    Order(OrderId),
    /// To take something up when it next asks for news.
    News,
}

/// A part that can be taken back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Revocable {
    /// The device.
    pub device: DeviceId,
    /// What it was asked for.
    pub asked: Asked,
}

/// What can be taken back of a campaign now, and what cannot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outstanding {
    /// Devices that were asked, and have not come for it or been told.
    pub revocable: u64,
    /// Devices that were asked, have it or were told, and have not answered.
    pub fetched: u64,
    /// Devices that were asked, and have proved that they trust the root, which is not counted yet.
    pub trusting: u64,
}

fn asked_row(row: &Row<'_>) -> rusqlite::Result<Revocable> {
    let asked = match (row.get::<_, Option<u32>>(1)?, column::optional_id(row, 2)?) {
        (Some(epoch), _) => Asked::Epoch(epoch),
        (None, Some(order)) => Asked::Order(order),
        (None, None) => Asked::News,
    };
    Ok(Revocable { device: column::id(row, 0)?, asked })
}

/// Takes one part back; `false` when the device has come for it in between, and then nothing was written.
fn take_back(act: &Act<'_>, campaign: CampaignId, one: Revocable, at: UnixMillis) -> Result<bool, StoreError> {
    let Revocable { device, asked } = one;
    let sql = concat!("SELECT 1 FROM campaign_device m WHERE m.device = ?2 AND ", revocable!());
    if !act.exists(sql, (campaign.as_bytes(), device.as_bytes()))? {
        return Ok(false);
    }
    match asked {
        // No key of this epoch was ever sent, so its number names none when it comes again.
        Asked::Epoch(epoch) => {
            let sql = "UPDATE device_key SET device_epoch = device_epoch - 1 WHERE device = ?1 AND device_epoch = ?2";
            act.execute(sql, (device.as_bytes(), epoch))?;
        }
        Asked::Order(order) => crate::order::cancel(act, order, at)?,
        Asked::News => {}
    }
    let Some((_, wave)) = member(act, campaign, device)? else { return Ok(false) };
    let sql = "UPDATE campaign_device SET state = ?3, ended = ?4 WHERE campaign = ?1 AND device = ?2";
    act.execute(sql, (campaign.as_bytes(), device.as_bytes(), MemberState::TakenBack.code(), millis(at)))?;
    counted(act, campaign, wave, MemberState::Offered, -1)?;
    counted(act, campaign, wave, MemberState::TakenBack, 1)?;
    Ok(true)
}

impl Store {
    /// How many of those who were asked have not come for it, how many have and did not answer, and how many have done it since the
    /// answers were counted.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn outstanding(&self, campaign: CampaignId) -> Result<Outstanding, StoreError> {
        let all = "SELECT coalesce(sum(count), 0) FROM campaign_count WHERE campaign = ?1 AND state = 2";
        let free = concat!("SELECT count(*) FROM campaign_device m WHERE ", revocable!());
        let trusting =
            concat!("SELECT count(*) FROM campaign_device m WHERE m.campaign = ?1 AND m.state = 2 AND ", trusts!());
        self.read(|connection| {
            let number = |sql| sql::one(connection, sql, [campaign.as_bytes()], |row| column::count(row, 0));
            let [all, revocable, trusting] =
                [number(all)?, number(free)?, number(trusting)?].map(Option::unwrap_or_default);
            Ok(Outstanding { revocable, fetched: all.saturating_sub(revocable).saturating_sub(trusting), trusting })
        })
    }

    /// The next parts that can be taken back.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn revocable_members(&self, campaign: CampaignId, limit: u32) -> Result<Vec<Revocable>, StoreError> {
        let sql = concat!(
            "SELECT m.device, m.epoch, m.device_order FROM campaign_device m WHERE ",
            revocable!(),
            " ORDER BY m.slot LIMIT ?2"
        );
        self.read(|connection| sql::all(connection, sql, (campaign.as_bytes(), limit), asked_row))
    }

    /// Takes parts of a campaign that is rolled back, each with its log entry, back in one transaction. How many had not been
    /// fetched in between.
    ///
    /// # Errors
    /// [`StoreError::IllegalState`] when the campaign is not rolled back.
    pub async fn take_back(
        &self,
        campaign: CampaignId,
        parts: Vec<(Revocable, AuditEntry)>,
        at: UnixMillis,
    ) -> Result<u64, StoreError> {
        self.write(Class::Ordinary, move |act| {
            require(act, campaign, CampaignState::RolledBack)?;
            let mut taken = 0;
            for (one, entry) in parts.iter().take(MAX_MEMBERS) {
                if take_back(act, campaign, *one, at)? {
                    act.log(&entry.clone().into())?;
                    taken += 1;
                }
            }
            Ok(taken)
        })
        .await
    }
}

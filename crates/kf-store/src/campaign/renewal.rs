//! Renewals that a campaign asks for without an order: who is asked and told, and which issuance answers.

use kf_api::order::Order;
use kf_key::{CampaignId, CampaignState, DeviceId, DeviceState, MemberState, UnixMillis};

use super::member::{MAX_MEMBERS, Place, counted, released, waiting};
use super::require;
use crate::act::{Act, Class};
use crate::column::{self, millis};
use crate::sql;
use crate::{Audit, Logged, Store, StoreError};

/// The campaign that an issuance answers, as part of the statement that says whether it may happen: ?4 is the device. Going on (2),
/// paused (3), stopped (4); of kind certificate (2); asked (2), by no order.
macro_rules! answered_campaign {
    () => {
        "(SELECT min(c.id) FROM campaign c CROSS JOIN campaign_device m ON m.campaign = c.id AND m.device = ?4
            WHERE c.state BETWEEN 2 AND 4 AND c.kind = 2 AND m.state = 2 AND m.behind IS NOT NULL)"
    };
}
pub(crate) use answered_campaign;

/// Whether the campaign has asked this device, by no order so far.
fn is_asked(act: &Act<'_>, campaign: CampaignId, device: DeviceId) -> Result<bool, StoreError> {
    let sql = "SELECT 1 FROM campaign_device WHERE campaign = ?1 AND device = ?2 AND state = 2 AND behind IS NOT NULL
        AND device_order IS NULL";
    act.exists(sql, (campaign.as_bytes(), device.as_bytes()))
}

impl Store {
    /// The next devices whose turn it is, each with its place and its state.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn waiting_states(
        &self,
        campaign: CampaignId,
        limit: u32,
    ) -> Result<Vec<(Place, Option<DeviceState>)>, StoreError> {
        let sql = concat!(
            "SELECT m.device, d.state, m.slot FROM campaign c CROSS JOIN campaign_device m LEFT JOIN device d ON d.id = m.device ",
            waiting!(),
            " LIMIT ?2"
        );
        self.read(|connection| {
            sql::all(connection, sql, (campaign.as_bytes(), limit), |row| {
                Ok((Place { slot: row.get(2)?, device: column::id(row, 0)? }, column::optional_coded(row, 1)?))
            })
        })
    }

    /// Asks devices for a new identity key and certificate, all in one transaction with one log entry that names them.
    ///
    /// # Errors
    /// [`StoreError::IllegalState`] when the campaign does not run, is in another wave, or one of the devices does not wait any
    /// more; then none of them is asked.
    pub async fn ask_renewals(
        &self,
        campaign: CampaignId,
        wave: u32,
        devices: Vec<Place>,
        at: UnixMillis,
        audit: impl Into<Audit>,
    ) -> Result<Logged<()>, StoreError> {
        self.logged(Class::Ordinary, audit.into(), move |act| {
            if devices.is_empty() || devices.len() > MAX_MEMBERS {
                return Err(StoreError::Invalid { field: "devices", problem: "1 to 1,000 at once" });
            }
            let stored = require(act, campaign, CampaignState::Running)?;
            if stored.campaign.wave != wave {
                return Err(StoreError::IllegalState {
                    what: "wave of the campaign",
                    found: stored.campaign.wave.to_string(),
                    expected: wave.to_string(),
                });
            }
            let sql = "SELECT coalesce(max(body), 0) FROM certificate_body";
            let behind: i64 = act.one(sql, [], |row| row.get(0))?.unwrap_or_default();
            let sql = "UPDATE campaign_device SET state = 2, wave = ?4, offered = ?5, behind = ?6
                WHERE campaign = ?1 AND slot = ?2 AND device = ?3 AND state = 1";
            for Place { slot, device } in &devices {
                let params = (campaign.as_bytes(), slot, device.as_bytes(), wave, millis(at), behind);
                if act.execute(sql, params)? != 1 {
                    return Err(StoreError::IllegalState {
                        what: "device of the campaign",
                        found: "taken into a wave".into(),
                        expected: "waiting".into(),
                    });
                }
            }
            let number = i64::try_from(devices.len()).unwrap_or(i64::MAX);
            counted(act, campaign, 0, MemberState::Waiting, -number)?;
            counted(act, campaign, wave, MemberState::Offered, number)?;
            released(act, campaign, at)
        })
        .await
    }

    /// Notes, before the first device is told, that devices of a campaign are being told; `false` when it does not go on. `mark` names
    /// this round of telling, see [`Store::note_all_told`].
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn begin_telling(&self, campaign: CampaignId, mark: i64) -> Result<bool, StoreError> {
        self.write(Class::Ordinary, move |act| {
            let sql = "UPDATE campaign SET telling = ?2 WHERE id = ?1 AND state = 2";
            Ok(act.execute(sql, (campaign.as_bytes(), mark))? > 0)
        })
        .await
    }

    /// Notes which devices were told, and that a round of telling is over, where it is.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn note_all_told(
        &self,
        campaign: CampaignId,
        ended: Option<i64>,
        devices: Vec<DeviceId>,
        at: UnixMillis,
    ) -> Result<(), StoreError> {
        // It happened; a full disk does not undo it.
        self.write(Class::Reserved, move |act| {
            let sql = "UPDATE campaign_device SET told = ?3 WHERE campaign = ?1 AND device = ?2 AND state = 2 AND told IS NULL";
            for device in &devices {
                act.execute(sql, (campaign.as_bytes(), device.as_bytes(), millis(at)))?;
            }
            // Another round may have begun meanwhile, with a number of its own.
            let sql = "UPDATE campaign SET telling = NULL WHERE id = ?1 AND telling = ?2";
            act.execute(sql, (campaign.as_bytes(), ended))?;
            Ok(())
        })
        .await
    }

    /// After a server was cut off while devices were being told: whoever was asked may have been told. How many campaigns that was
    /// about.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn assume_told(&self, at: UnixMillis) -> Result<u64, StoreError> {
        let sql = "SELECT 1 FROM campaign WHERE telling IS NOT NULL LIMIT 1";
        if !self.read(|connection| sql::exists(connection, sql, []))? {
            return Ok(0);
        }
        self.write(Class::Reserved, move |act| {
            let sql = "UPDATE campaign_device SET told = ?1 WHERE state = 2 AND epoch IS NULL AND device_order IS NULL AND told IS NULL
                AND campaign IN (SELECT id FROM campaign WHERE telling IS NOT NULL)";
            act.execute(sql, [millis(at)])?;
            let campaigns = act.execute("UPDATE campaign SET telling = NULL WHERE telling IS NOT NULL", [])?;
            Ok(u64::try_from(campaigns).unwrap_or_default())
        })
        .await
    }

    /// Gives a device that was asked, and does not know how to be, an order that was signed; `false` when the campaign does not ask
    /// it any more, or another order to it was signed meanwhile.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn order_renewal(
        &self,
        campaign: CampaignId,
        order: Order,
        message: Vec<u8>,
        audit: impl Into<Audit>,
    ) -> Result<bool, StoreError> {
        let audit = audit.into();
        self.write(Class::Ordinary, move |act| {
            let runs = "SELECT 1 FROM campaign WHERE id = ?1 AND state = 2";
            let taken = "SELECT 1 FROM device_order WHERE device = ?1 AND counter = ?2";
            if !act.exists(runs, [campaign.as_bytes()])?
                || !is_asked(act, campaign, order.device)?
                || act.exists(taken, (order.device.as_bytes(), column::integer(order.counter)))?
            {
                return Ok(false);
            }
            crate::order::insert(act, &order, &message)?;
            let sql = "UPDATE campaign_device SET device_order = ?3 WHERE campaign = ?1 AND device = ?2";
            act.execute(sql, (campaign.as_bytes(), order.device.as_bytes(), order.id.as_bytes()))?;
            act.log(&audit)?;
            Ok(true)
        })
        .await
    }
}

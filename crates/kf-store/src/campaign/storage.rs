//! Campaigns for new storage keys: who is to be told, who knows what to do, and what devices have signed.

use kf_key::{CampaignId, DeviceId, UnixMillis};

use crate::act::Class;
use crate::column::{count, millis};
use crate::sql;
use crate::{Audit, Store, StoreError};

/// What a device signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StorageStatement {
    /// The device.
    pub device: DeviceId,
    /// The campaign that asked for it.
    pub campaign: CampaignId,
    /// The version of its storage key that is in use since.
    pub version: u32,
    /// Records that lie under it.
    pub records: u32,
    /// What the erasure of the version before is worth, by its name.
    pub erasure: String,
}

impl Store {
    /// Notes that a device that was asked has asked for news, and whether its program knows what to do; `false` when that was known.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn note_told(
        &self,
        campaign: CampaignId,
        device: DeviceId,
        aware: bool,
        at: UnixMillis,
        audit: impl Into<Audit>,
    ) -> Result<bool, StoreError> {
        let audit = audit.into();
        self.write(Class::Ordinary, move |act| {
            let sql = "UPDATE campaign_device SET aware = ?3, told = CASE WHEN ?3 THEN coalesce(told, ?4) ELSE told END
                WHERE campaign = ?1 AND device = ?2 AND state = 2 AND aware IS NOT ?3";
            let is_new = act.execute(sql, (campaign.as_bytes(), device.as_bytes(), aware, millis(at)))? > 0;
            if is_new {
                act.log(&audit)?;
            }
            Ok(is_new)
        })
        .await
    }

    /// Records what a device signed; `false` when that was known.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] when no campaign has asked this device for it.
    pub async fn note_storage(
        &self,
        statement: StorageStatement,
        at: UnixMillis,
        audit: impl Into<Audit>,
    ) -> Result<bool, StoreError> {
        let audit = audit.into();
        self.write(Class::Ordinary, move |act| {
            let StorageStatement { device, campaign, version, records, erasure } = &statement;
            // Whose turn has not come (1) was not asked.
            let sql = "SELECT 1 FROM campaign_device m JOIN campaign c ON c.id = m.campaign
                WHERE m.campaign = ?1 AND m.device = ?2 AND c.kind = 4 AND m.state <> 1";
            if !act.exists(sql, (campaign.as_bytes(), device.as_bytes()))? {
                return Err(StoreError::NotFound { what: "campaign" });
            }
            let sql = "INSERT INTO device_storage (device, campaign, version, records, erasure, at)
                VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT DO NOTHING";
            let params = (device.as_bytes(), campaign.as_bytes(), version, records, erasure, millis(at));
            let is_new = act.execute(sql, params)? > 0;
            if is_new {
                act.log(&audit)?;
            }
            Ok(is_new)
        })
        .await
    }

    /// Devices that were asked, have asked for news since, and whose programs do not know what to do.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn unaware_members(&self, campaign: CampaignId) -> Result<u64, StoreError> {
        let sql = "SELECT count(*) FROM campaign_device WHERE campaign = ?1 AND state = 2 AND aware = 0";
        let found = self.read(|connection| sql::one(connection, sql, [campaign.as_bytes()], |row| count(row, 0)))?;
        Ok(found.unwrap_or_default())
    }
}

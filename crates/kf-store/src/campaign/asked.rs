//! What campaigns have asked of one device.
//!
//! Which of two certificates is the later one is read from the order in which they were recorded. Serial numbers follow the
//! clock, which can be set back.

use kf_api::campaign::CampaignKind;
use kf_key::{CampaignId, CampaignState, DeviceId, KeyAlgorithm};
use rusqlite::Connection;

use super::Place;
use crate::column;
use crate::{StoreError, sql};

/// The most campaigns that ask one device at a time, as far as it is told of them.
const MAX_ASKING: u32 = 16;

/// The part of a device in a campaign that has asked it by no order or beside one, and has not counted its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AskedPart {
    /// The campaign.
    pub campaign: CampaignId,
    /// The device, with its place in it.
    pub place: Place,
    /// What it asks for.
    pub kind: CampaignKind,
    /// Running, paused or stopped.
    pub state: CampaignState,
    /// The algorithm that the device is asked to change to.
    pub algorithm: Option<KeyAlgorithm>,
    /// Whether it was asked for a new certificate by a word, and has no order for it.
    pub is_by_word: bool,
    /// Whether the device has been told.
    pub is_told: bool,
    /// Whether its program knows what to do, where it has said so.
    pub is_aware: Option<bool>,
    /// Whether the answer is there. Of a certificate: the one that the device shows was recorded after it was asked, is good, and
    /// is for a key that it had none for before. Of a storage key: the device has signed that it moved.
    pub is_answered: bool,
}

impl AskedPart {
    /// Whether its campaign goes on or is paused.
    #[must_use]
    pub const fn is_open(&self) -> bool {
        matches!(self.state, CampaignState::Running | CampaignState::Paused)
    }
}

/// The certificate with which a device asks.
pub(crate) struct Shown {
    /// Where it stands in the order in which certificates were recorded.
    pub(crate) body: i64,
    /// Its key, SHA-256.
    pub(crate) spki: [u8; 32],
    /// Whether it is good.
    pub(crate) is_good: bool,
}

/// The parts of a device that are open (2), in campaigns that go on (2), are paused (3) or have stopped (4), oldest first.
pub(crate) fn of(connection: &Connection, device: DeviceId, shown: &Shown) -> Result<Vec<AskedPart>, StoreError> {
    // A certificate that is good and was recorded later (?2, or nothing), for a key that none of those before is for.
    let sql = "SELECT c.id, c.kind, c.state, c.algorithm, m.behind IS NOT NULL AND m.device_order IS NULL,
            m.told IS NOT NULL, m.aware, CASE
            WHEN m.behind IS NOT NULL AND m.device_order IS NULL THEN ?2 > m.behind
                AND NOT EXISTS (SELECT 1 FROM certificate o CROSS JOIN certificate_body p ON p.body = o.body
                    WHERE o.device = ?1 AND o.body <= m.behind AND p.spki = ?4)
            WHEN c.kind = 4 THEN EXISTS (SELECT 1 FROM device_storage s WHERE s.device = ?1 AND s.campaign = c.id)
            ELSE 0 END, m.slot
        FROM campaign c CROSS JOIN campaign_device m ON m.campaign = c.id AND m.device = ?1
        WHERE c.state IN (2, 3, 4) AND m.state = 2 ORDER BY c.id LIMIT ?3";
    let later = if shown.is_good { shown.body } else { 0 };
    let params = (device.as_bytes(), later, MAX_ASKING, shown.spki);
    sql::all(connection, sql, params, |row| {
        Ok(AskedPart {
            campaign: column::id(row, 0)?,
            place: Place { slot: row.get(8)?, device },
            kind: column::coded(row, 1)?,
            state: column::coded(row, 2)?,
            algorithm: column::optional_coded(row, 3)?,
            is_by_word: row.get(4)?,
            is_told: row.get(5)?,
            is_aware: row.get(6)?,
            is_answered: row.get(7)?,
        })
    })
}

/// The codes that the statements of campaigns name.
#[cfg(test)]
mod tests {
    use super::*;
    use crate::column::Coded;
    use kf_key::{CertificateStatus, MemberState};

    #[test]
    fn the_codes_in_the_statements_are_those_of_the_states() {
        assert_eq!((MemberState::Waiting.code(), MemberState::Offered.code()), (1, 2));
        let live = [CampaignState::Running, CampaignState::Paused, CampaignState::Stopped].map(Coded::code);
        let kinds = [CampaignKind::Certificate, CampaignKind::TrustAnchor, CampaignKind::Storage].map(Coded::code);
        assert_eq!((live, kinds), ([2, 3, 4], [2, 3, 4]));
        assert_eq!(CertificateStatus::Good.code(), 1);
    }
}

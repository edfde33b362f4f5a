//! New storage keys: a device is told when it asks for news, and signs that it has done it. What it keeps, the server never sees.

use kf_access::Visibility;
use kf_api::campaign::CampaignKind;
use kf_api::device::Device;
use kf_api::operator::Credential;
use kf_exchange::PublicKey;
use kf_exchange::storage::StorageReport;
use kf_key::{CampaignId, DeviceId};
use kf_store::campaign::{AskedPart, StorageStatement};

use crate::enrolment::device_principal;
use crate::entry::Entry;
use crate::exchange::{refused, unreadable};
use crate::{Fleet, FleetError};

impl Fleet {
    /// What a device's statement is to name, 32 hexadecimal digits, where a campaign that goes on or is paused asks it for a new
    /// storage key. `is_aware`: the device said that its program knows what to do. One that does not is noted, and told nothing.
    pub(crate) async fn storage_of(
        &self,
        device: &Device,
        asked: &[AskedPart],
        is_aware: bool,
    ) -> Result<Option<String>, FleetError> {
        let mut parts = asked.iter().filter(|part| part.kind == CampaignKind::Storage && part.is_open());
        let Some(part) = parts.find(|part| !part.is_answered) else { return Ok(None) };
        let campaign = part.campaign;
        let told = is_aware.then(|| hex::encode(campaign.as_bytes()));
        if part.is_aware == Some(is_aware) {
            return Ok(told);
        }
        let now = self.now();
        let act = if is_aware { "storage.tell" } else { "storage.unknown" };
        let entry = Entry::done(&device_principal(device, Credential::Certificate), act, now)
            .about(device.id)
            .about(campaign)
            .at_facility(Some(device.facility));
        self.store.note_told(campaign, device.id, is_aware, now, entry.build()).await?;
        Ok(told)
    }

    /// Records a device's statement, signed with an identity key that it was ever certified for.
    ///
    /// # Errors
    /// [`FleetError::Invalid`] for what cannot be read; [`FleetError::Forbidden`], without a reason, for what the device did not
    /// sign; [`FleetError::NotFound`] when nobody asked it.
    pub async fn device_storage_moved(&self, message: &[u8]) -> Result<(), FleetError> {
        let claimed = StorageReport::claimed(message).map_err(unreadable)?;
        let Some(device) = self.store.device(claimed.device, &Visibility::Fleet)? else { return Err(refused()) };
        if !self.identity_key_that(device.id, |key| StorageReport::verify(message, key).is_ok())? {
            tracing::info!(device = %device.id, "a statement about storage was refused: not signed by the device");
            return Err(refused());
        }
        let StorageReport { version, records, erasure, request, at, .. } = claimed;
        let (campaign, now) = (CampaignId::from_bytes(request), self.now());
        let entry = Entry::done(&device_principal(&device, Credential::Certificate), "storage.move", now)
            .about(device.id)
            .about(campaign)
            .at_facility(Some(device.facility))
            .with("version", version)
            .with("records", records)
            .with("erasure", erasure.name())
            .with("device_time", at.0);
        let erasure = erasure.name().to_owned();
        let statement = StorageStatement { device: device.id, campaign, version, records, erasure };
        self.store.note_storage(statement, now, entry.build()).await?;
        Ok(())
    }

    /// Whether a device's newest identity key signs statements: those are of P-256.
    pub(super) fn signs_statements(&self, device: DeviceId) -> Result<bool, FleetError> {
        let spki = self.identity_key(device, |_| true)?;
        Ok(spki.is_some_and(|spki| PublicKey::from_spki(&spki).is_ok()))
    }
}

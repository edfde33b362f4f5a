//! Keys of devices: those of their certificates, and their symmetric keys by epoch.

use kf_api::PageRequest;
use kf_api::certificate::Certificate;
use kf_api::device::Device;
use kf_api::epoch::{DeviceKeyEpoch, DeviceKeyState};
use kf_api::inventory::KeyPlace;
use kf_key::{CertificateProfile, KeyState, UnixMillis};
use kf_rotation::KeyClass;
use kf_store::device::DeviceQuery;
use kf_store::inventory::Destroyed;

use super::row::{Algorithm, Row};
use super::server::{certificate_state, with_certificate};
use super::{Asked, Reading};
use crate::{Fleet, FleetError};

/// Devices that are read for a page of 100 keys and more: most have three keys.
const KEYS_PER_DEVICE: u32 = 3;

impl Fleet {
    /// The keys of the next devices. All keys of a device are on one page, so that a page may be longer than asked for.
    pub(super) fn device_rows(&self, asked: &Asked, cursor: &str) -> Result<Reading, FleetError> {
        let query = DeviceQuery {
            facility: asked.facility,
            product_line: asked.product_line,
            page: PageRequest {
                after: (!cursor.is_empty()).then(|| cursor.to_owned()),
                limit: Some((asked.rows / KEYS_PER_DEVICE).max(1)),
            },
            ..DeviceQuery::default()
        };
        let page = self.store.devices(&query, &asked.visibility)?;
        let mut rows = Vec::new();
        for device in page.items {
            rows.extend(self.keys_of(&device, asked)?);
        }
        Ok((rows, page.next))
    }

    fn keys_of(&self, device: &Device, asked: &Asked) -> Result<Vec<Row>, FleetError> {
        let wants = |class| asked.class.is_none_or(|asked| asked == class);
        let gone = if device.state.may_enrol() { Destroyed::default() } else { self.store.destroyed_at(device.id)? };
        let mut rows = Vec::new();
        if wants(KeyClass::IDevIdKey) || wants(KeyClass::LDevIdKey) {
            let certificates = self.store.certificates_of_device(device.id, &asked.visibility)?;
            let newest = certificates.iter().find(|one| one.profile == CertificateProfile::LDevId);
            let newest = newest.map(|certificate| certificate.serial);
            for certificate in &certificates {
                let is_newest = newest.is_none_or(|newest| newest == certificate.serial);
                rows.push(self.identity_row(device, certificate, is_newest, gone)?);
            }
        }
        if wants(KeyClass::DeviceKey) {
            let epochs = self.store.device_key_epochs(device.id, &asked.visibility)?;
            rows.extend(epochs.iter().map(|epoch| epoch_row(device, epoch, gone.of_owner)));
        }
        Ok(rows)
    }

    fn identity_row(
        &self,
        device: &Device,
        certificate: &Certificate,
        is_newest: bool,
        gone: Destroyed,
    ) -> Result<Row, FleetError> {
        let is_ldevid = certificate.profile == CertificateProfile::LDevId;
        let wiped = if is_ldevid { gone.of_owner } else { gone.every };
        let class = if is_ldevid { KeyClass::LDevIdKey } else { KeyClass::IDevIdKey };
        let state = match certificate_state(certificate, self.now()) {
            KeyState::Compromised => KeyState::Compromised,
            state => destroyed(wiped, certificate.serial.issued()).unwrap_or(state),
        };
        let algorithm = self.algorithm_of(certificate)?;
        let row = Row::new(format!("cert:{}", certificate.serial), device.name.clone(), class, state, algorithm);
        let succeeded = is_ldevid && !is_newest;
        let row = Row { succeeded, product_line: Some(device.product_line), ..with_certificate(row, certificate) };
        Ok(Row { place: KeyPlace::Device, protection: device.protection, facility: Some(device.facility), ..row })
    }
}

/// Proof that a key is gone: the device signed, after it was made, that every key of its kind is.
fn destroyed(wiped: Option<UnixMillis>, made: UnixMillis) -> Option<KeyState> {
    wiped.filter(|wiped| *wiped >= made).map(|_| KeyState::Destroyed)
}

fn epoch_row(device: &Device, epoch: &DeviceKeyEpoch, wiped: Option<UnixMillis>) -> Row {
    let state = match epoch.state {
        DeviceKeyState::Offered => KeyState::PreActivation,
        DeviceKeyState::Held => KeyState::Active,
        DeviceKeyState::Superseded => KeyState::Deactivated,
    };
    let key = format!("{}/{}.{}", device.id, epoch.facility_epoch, epoch.device_epoch);
    let state = destroyed(wiped, epoch.offered).unwrap_or(state);
    let row = Row::new(key, device.name.clone(), KeyClass::DeviceKey, state, Algorithm::Hmac);
    Row {
        place: KeyPlace::Device,
        protection: device.protection,
        created: Some(epoch.offered),
        activated: epoch.acknowledged,
        succeeded: epoch.state == DeviceKeyState::Superseded,
        facility: Some(device.facility),
        product_line: Some(device.product_line),
        device: Some(device.id),
        ..row
    }
}

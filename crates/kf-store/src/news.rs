//! What a device that asks is told: who it is by its certificate, and what waits for it, in one look at the registry. Devices ask
//! all day, and each read of its own costs more than what it looks up.

use kf_access::Visibility;
use kf_api::device::Device;
use kf_api::order::Order;
use kf_key::{SerialNumber, UnixMillis};
use rusqlite::Connection;

use crate::campaign::{AskedPart, asked};
use crate::certificate::{StoredCertificate, stored};
use crate::{Store, StoreError, device, order, sql};

/// A device as its certificate names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Its certificate.
    pub certificate: StoredCertificate,
    /// The device.
    pub device: Device,
}

/// What waits for a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// Campaigns that have asked it, oldest first.
    pub asked: Vec<AskedPart>,
    /// The oldest order that it is to obey, with its signed octets.
    pub order: Option<(Order, Vec<u8>)>,
    /// Whether its program is noted as one that knows the order to reset.
    pub knows_reset: bool,
}

impl Store {
    /// The device that holds a certificate.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn holder(&self, serial: SerialNumber) -> Result<Option<Holder>, StoreError> {
        self.read(|connection| sql::at_once(connection, || holder(connection, serial)))
    }

    /// The device that holds a certificate, and what waits for it at `now`; `knows_reset`: what it says of itself.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn news(
        &self,
        serial: SerialNumber,
        knows_reset: bool,
        now: UnixMillis,
    ) -> Result<Option<(Holder, Waiting)>, StoreError> {
        self.read(|connection| {
            sql::at_once(connection, || {
                let Some(found) = holder(connection, serial)? else { return Ok(None) };
                let device = found.device.id;
                let asked = asked::of(connection, device, serial)?;
                let order = order::due(connection, device, knows_reset, now)?;
                let knows_reset = order::knows_reset(connection, device)?;
                Ok(Some((found, Waiting { asked, order, knows_reset })))
            })
        })
    }
}

fn holder(connection: &Connection, serial: SerialNumber) -> Result<Option<Holder>, StoreError> {
    let Some(certificate) = stored(connection, serial, &Visibility::Fleet)? else { return Ok(None) };
    let Some(id) = certificate.certificate.device else { return Ok(None) };
    let device = device::by_id(connection, id, &Visibility::Fleet)?;
    Ok(device.map(|device| Holder { certificate, device }))
}

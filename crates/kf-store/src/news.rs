//! What a device that asks is told: who it is by its certificate, and what waits for it, in one look at the registry. Devices ask
//! all day, and each read of its own costs more than what it looks up.

use kf_api::device::Device;
use kf_api::order::Order;
use kf_key::{SerialNumber, UnixMillis};
use rusqlite::Row;

use crate::campaign::AskedPart;
use crate::campaign::asked::{self, Shown};
use crate::certificate::{StoredCertificate, certificate_row, columns};
use crate::device::device_from;
use crate::{Store, StoreError, order, sql};

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

/// A certificate with the device that it names, and what else stands in the row: the certificate's columns from 0, the device's from 14.
macro_rules! holder {
    ($more:literal) => {
        concat!(
            columns!(
                ", b.der, d.id, d.name, d.facility, d.product_line, d.state, d.batch, d.attributes, d.protection, d.created,
                d.last_seen",
                $more
            ),
            " JOIN device d ON d.id = c.device WHERE c.serial = ?1"
        )
    };
}

fn holder_row(row: &Row<'_>) -> rusqlite::Result<Holder> {
    let certificate = StoredCertificate { certificate: certificate_row(row)?, der: row.get(13)? };
    Ok(Holder { certificate, device: device_from(row, 14)? })
}

impl Store {
    /// The device that holds a certificate.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn holder(&self, serial: SerialNumber) -> Result<Option<Holder>, StoreError> {
        self.read(|connection| sql::one(connection, holder!(""), [serial.as_bytes()], holder_row))
    }

    /// The device that holds a certificate, and what waits for it at `now`; `knows_reset`: what it says of itself. Nearly always nothing
    /// waits, and one statement has said so.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn news(
        &self,
        serial: SerialNumber,
        knows_reset: bool,
        now: UnixMillis,
    ) -> Result<Option<(Holder, Waiting)>, StoreError> {
        // Whether its program is noted as one that knows the order to reset; whether it has an open order (1); whether a campaign
        // goes on (2), is paused (3) or has stopped (4); the certificate as a campaign judges it.
        let sql = holder!(
            ", EXISTS (SELECT 1 FROM device_knows_reset k WHERE k.device = d.id),
            EXISTS (SELECT 1 FROM device_order o WHERE o.device = d.id AND o.state = 1),
            EXISTS (SELECT 1 FROM campaign g WHERE g.state BETWEEN 2 AND 4), c.body"
        );
        self.read(|connection| {
            sql::at_once(connection, || {
                let found = sql::one(connection, sql, [serial.as_bytes()], |row| {
                    let shown = Shown { body: row.get(27)?, spki: row.get(7)?, is_good: row.get::<_, u8>(10)? == 1 };
                    let [knows_reset, is_ordered, may_be_asked] = [row.get(24)?, row.get(25)?, row.get(26)?];
                    Ok((holder_row(row)?, shown, knows_reset, is_ordered, may_be_asked))
                })?;
                let Some((found, shown, is_noted, is_ordered, may_be_asked)) = found else { return Ok(None) };
                let device = found.device.id;
                let asked = if may_be_asked { asked::of(connection, device, &shown)? } else { Vec::new() };
                let order = if is_ordered { order::due(connection, device, knows_reset, now)? } else { None };
                Ok(Some((found, Waiting { asked, order, knows_reset: is_noted })))
            })
        })
    }
}

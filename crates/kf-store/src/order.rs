//! Orders to devices, as they were signed, and what became of them.

use kf_access::Visibility;
use kf_api::order::{Order, OrderState};
use kf_api::{Page, PageRequest};
use kf_key::{DeviceId, OrderId, UnixMillis};
use rusqlite::{Connection, Row};

use crate::act::{Act, Class};
use crate::column::{self, Coded, integer, millis};
use crate::listing::{BAD_CURSOR, next_of};
use crate::sql::{self, in_scope, scope};
use crate::{Audit, Logged, Store, StoreError};

const MAX_MESSAGE_OCTETS: usize = 1_024;

macro_rules! columns {
    () => {
        "SELECT o.id, o.device, o.act, o.counter, o.state, o.created, o.expires, o.delivered, o.ended, o.why,
            o.sent, o.acknowledged FROM device_order o JOIN device d ON d.id = o.device"
    };
}

fn order_row(row: &Row<'_>) -> rusqlite::Result<Order> {
    Ok(Order {
        id: column::id(row, 0)?,
        device: column::id(row, 1)?,
        act: column::coded(row, 2)?,
        counter: column::count(row, 3)?,
        state: column::coded(row, 4)?,
        created: column::time(row, 5)?,
        expires: column::time(row, 6)?,
        progress: None,
        sent: column::optional_time(row, 10)?,
        delivered: column::optional_time(row, 7)?,
        acknowledged: column::optional_time(row, 11)?,
        ended: column::optional_time(row, 8)?,
        why: row.get(9)?,
    })
}

/// The oldest order that a device is still to obey at `now`, with its signed octets. An order to reset is passed over where the device's
/// program, by what it says when it asks, does not know it, and for good once a later order has left: its counter would be refused, and stand in the way.
pub(crate) fn due(
    connection: &Connection,
    device: DeviceId,
    knows_reset: bool,
    now: UnixMillis,
) -> Result<Option<(Order, Vec<u8>)>, StoreError> {
    let sql = "SELECT o.id, o.device, o.act, o.counter, o.state, o.created, o.expires, o.delivered, o.ended, o.why,
        o.sent, o.acknowledged, o.message FROM device_order o
        WHERE o.device = ?1 AND o.state = 1 AND o.expires >= ?2 AND (o.act <> 3
            OR (?3 AND NOT EXISTS (SELECT 1 FROM device_order l WHERE l.device = o.device AND l.counter > o.counter
                    AND coalesce(l.sent, l.delivered, l.acknowledged) IS NOT NULL)))
        ORDER BY o.counter LIMIT 1";
    let params = (device.as_bytes(), millis(now), knows_reset);
    sql::one(connection, sql, params, |row| Ok((order_row(row)?, row.get(12)?)))
}

/// See [`Store::knows_reset`].
pub(crate) fn knows_reset(connection: &Connection, device: DeviceId) -> Result<bool, StoreError> {
    sql::exists(connection, "SELECT 1 FROM device_knows_reset WHERE device = ?1", [device.as_bytes()])
}

/// An answer that is there already, and a first one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answered {
    /// The first, with the index of its log entry.
    First(u64),
    /// The same as before; nothing was written.
    Again,
}

fn illegal(found: OrderState, expected: &str) -> StoreError {
    StoreError::IllegalState { what: "order", found: found.name().into(), expected: expected.into() }
}

fn by_counter(act: &Act<'_>, device: DeviceId, counter: u64) -> Result<Order, StoreError> {
    let sql = concat!(columns!(), " WHERE o.device = ?1 AND o.counter = ?2");
    act.one(sql, (device.as_bytes(), integer(counter)), order_row)?.ok_or(StoreError::NotFound { what: "order" })
}

fn end(act: &Act<'_>, id: OrderId, to: OrderState, at: UnixMillis) -> Result<(), StoreError> {
    let sql = "UPDATE device_order SET state = ?2, ended = ?3 WHERE id = ?1";
    act.execute(sql, (id.as_bytes(), to.code(), millis(at)))?;
    Ok(())
}

/// Withdraws an order that is open: part of rolling a campaign back.
pub(crate) fn cancel(act: &Act<'_>, id: OrderId, at: UnixMillis) -> Result<(), StoreError> {
    end(act, id, OrderState::Cancelled, at)
}

/// Adds an order that was signed; part of a campaign's release as well.
pub(crate) fn insert(act: &Act<'_>, order: &Order, message: &[u8]) -> Result<(), StoreError> {
    if message.is_empty() || message.len() > MAX_MESSAGE_OCTETS {
        return Err(StoreError::Invalid { field: "message", problem: "1 to 1,024 octets" });
    }
    let Order { id, device, act: what, counter, state, created, expires, delivered, ended, why, .. } = order;
    if !act.exists("SELECT 1 FROM device WHERE id = ?1", [device.as_bytes()])? {
        return Err(StoreError::NotFound { what: "device" });
    }
    let sql = "INSERT INTO device_order (id, device, act, counter, state, created, expires, delivered, ended, why,
        message) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)";
    act.execute(
        sql,
        (
            id.as_bytes(),
            device.as_bytes(),
            what.code(),
            integer(*counter),
            state.code(),
            millis(*created),
            millis(*expires),
            delivered.map(millis),
            ended.map(millis),
            why,
            message,
        ),
    )?;
    Ok(())
}

impl Store {
    /// The counter of the next order to a device.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn next_order_counter(&self, device: DeviceId) -> Result<u64, StoreError> {
        let sql = "SELECT coalesce(max(counter), 0) + 1 FROM device_order WHERE device = ?1";
        let next =
            self.read(|connection| sql::one(connection, sql, [device.as_bytes()], |row| column::count(row, 0)))?;
        Ok(next.unwrap_or(1))
    }

    /// Adds an order that was signed.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] on `counter` when another order took it in between; [`StoreError::NotFound`].
    pub async fn insert_order(
        &self,
        order: Order,
        message: Vec<u8>,
        audit: impl Into<Audit>,
    ) -> Result<Logged<()>, StoreError> {
        self.logged(Class::Reserved, audit.into(), move |act| insert(act, &order, &message)).await
    }

    /// An order; `None` also when its device lies outside `visibility`.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn order(&self, id: OrderId, visibility: &Visibility) -> Result<Option<Order>, StoreError> {
        let sql = concat!(columns!(), " WHERE o.id = ?2 AND ", in_scope!("d.facility"));
        self.read(|connection| sql::one(connection, sql, (scope(visibility), id.as_bytes()), order_row))
    }

    /// Orders, newest first, of one device or of all.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn orders(
        &self,
        device: Option<DeviceId>,
        visibility: &Visibility,
        page: &PageRequest,
    ) -> Result<Page<Order>, StoreError> {
        let before = match &page.after {
            None => vec![0xff; 17],
            Some(text) => text.parse::<OrderId>().map_err(|_detail| BAD_CURSOR)?.as_bytes().to_vec(),
        };
        let sql = concat!(
            columns!(),
            " WHERE (?2 IS NULL OR o.device = ?2) AND o.id < ?3 AND ",
            in_scope!("d.facility"),
            " ORDER BY o.id DESC LIMIT ?4"
        );
        let device = device.as_ref().map(DeviceId::as_bytes);
        let rows = usize::try_from(page.rows()).unwrap_or(usize::MAX);
        let params = (scope(visibility), device, before, page.rows() + 1);
        let mut items = self.read(|connection| sql::all(connection, sql, params, order_row))?;
        let next = next_of(&mut items, rows, |last| last.id.to_string());
        Ok(Page { items, next })
    }

    /// Whether a device's program has said, when it last asked for orders, that it knows the order to reset.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn knows_reset(&self, device: DeviceId) -> Result<bool, StoreError> {
        self.read(|connection| knows_reset(connection, device))
    }

    /// Notes whether a device's program knows the order to reset; what is noted already writes nothing and logs nothing.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn note_reset_known(
        &self,
        device: DeviceId,
        knows: bool,
        at: UnixMillis,
        audit: impl Into<Audit>,
    ) -> Result<Option<u64>, StoreError> {
        let audit = audit.into();
        self.write(Class::Ordinary, move |act| {
            let changed = if knows {
                let sql = "INSERT OR IGNORE INTO device_knows_reset (device, since) VALUES (?1, ?2)";
                act.execute(sql, (device.as_bytes(), millis(at)))?
            } else {
                act.execute("DELETE FROM device_knows_reset WHERE device = ?1", [device.as_bytes()])?
            };
            if changed == 0 { Ok(None) } else { act.log(&audit).map(Some) }
        })
        .await
    }

    /// Puts another signature over the same order in the place of `before`: the device obeys another order key by now.
    ///
    /// # Errors
    /// [`StoreError::IllegalState`] when it is not open, or not as the caller saw it; [`StoreError::Invalid`].
    pub async fn sign_order_again(
        &self,
        id: OrderId,
        before: Vec<u8>,
        message: Vec<u8>,
        audit: impl Into<Audit>,
    ) -> Result<Logged<()>, StoreError> {
        self.logged(Class::Reserved, audit.into(), move |act| {
            if message.is_empty() || message.len() > MAX_MESSAGE_OCTETS {
                return Err(StoreError::Invalid { field: "message", problem: "1 to 1,024 octets" });
            }
            let sql = "UPDATE device_order SET message = ?3 WHERE id = ?1 AND message = ?2 AND state = ?4";
            match act.execute(sql, (id.as_bytes(), &before, &message, OrderState::Open.code()))? {
                0 => Err(illegal(OrderState::Cancelled, "open, with the signature that was seen")),
                _ => Ok(()),
            }
        })
        .await
    }

    /// Notes the first time that a device fetches an order; a repetition writes nothing and logs nothing.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn deliver_order(
        &self,
        id: OrderId,
        at: UnixMillis,
        audit: impl Into<Audit>,
    ) -> Result<Option<u64>, StoreError> {
        let audit = audit.into();
        self.write(Class::Reserved, move |act| {
            let sql = "SELECT state FROM device_order WHERE id = ?1";
            let state = act.one(sql, [id.as_bytes()], |row| column::coded::<OrderState>(row, 0))?;
            match state {
                None => return Err(StoreError::NotFound { what: "order" }),
                Some(OrderState::Open) => {}
                Some(other) => return Err(illegal(other, "open")),
            }
            let sql = "UPDATE device_order SET delivered = ?2 WHERE id = ?1 AND delivered IS NULL";
            if act.execute(sql, (id.as_bytes(), millis(at)))? == 0 {
                return Ok(None);
            }
            act.log(&audit).map(Some)
        })
        .await
    }

    /// Orders that no broker took and no device has acknowledged, oldest first, each with its device's name and its signed
    /// octets.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn unsent_orders(&self, now: UnixMillis, limit: u32) -> Result<Vec<(Order, String, Vec<u8>)>, StoreError> {
        let sql = "SELECT o.id, o.device, o.act, o.counter, o.state, o.created, o.expires, o.delivered, o.ended, o.why,
            o.sent, o.acknowledged, d.name, o.message FROM device_order o JOIN device d ON d.id = o.device
            WHERE o.state = 1 AND o.sent IS NULL AND o.acknowledged IS NULL AND o.expires >= ?1
                AND (o.act <> 3 OR EXISTS (SELECT 1 FROM device_knows_reset k WHERE k.device = o.device))
            ORDER BY o.id LIMIT ?2";
        self.read(|connection| {
            sql::all(connection, sql, (millis(now), limit), |row| Ok((order_row(row)?, row.get(12)?, row.get(13)?)))
        })
    }

    /// Notes the first time that a broker took an order; a repetition writes nothing and logs nothing.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn send_order(
        &self,
        id: OrderId,
        at: UnixMillis,
        audit: impl Into<Audit>,
    ) -> Result<Option<u64>, StoreError> {
        let audit = audit.into();
        self.write(Class::Reserved, move |act| {
            let sql = "UPDATE device_order SET sent = ?2 WHERE id = ?1 AND sent IS NULL";
            if act.execute(sql, (id.as_bytes(), millis(at)))? == 0 {
                return Ok(None);
            }
            act.log(&audit).map(Some)
        })
        .await
    }

    /// Notes that a device has signed that it has an order; a repetition writes nothing and logs nothing.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; [`StoreError::Invalid`] for another act than was ordered.
    pub async fn acknowledge_order(
        &self,
        device: DeviceId,
        counter: u64,
        what: kf_api::order::OrderAct,
        at: UnixMillis,
        audit: impl Into<Audit>,
    ) -> Result<Answered, StoreError> {
        let audit = audit.into();
        self.write(Class::Reserved, move |act| {
            let order = by_counter(act, device, counter)?;
            if order.act != what {
                return Err(StoreError::Invalid { field: "outcome", problem: "not an answer to this order" });
            }
            if order.acknowledged.is_some() {
                return Ok(Answered::Again);
            }
            act.execute("UPDATE device_order SET acknowledged = ?2 WHERE id = ?1", (order.id.as_bytes(), millis(at)))?;
            act.log(&audit).map(Answered::First)
        })
        .await
    }

    /// Withdraws an open order.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; [`StoreError::IllegalState`] when it is not open.
    pub async fn cancel_order(
        &self,
        id: OrderId,
        at: UnixMillis,
        audit: impl Into<Audit>,
    ) -> Result<Logged<Order>, StoreError> {
        self.logged(Class::Reserved, audit.into(), move |act| {
            let sql = concat!(columns!(), " WHERE o.id = ?1");
            let order = act.one(sql, [id.as_bytes()], order_row)?.ok_or(StoreError::NotFound { what: "order" })?;
            if order.state != OrderState::Open {
                return Err(illegal(order.state, "open"));
            }
            end(act, id, OrderState::Cancelled, at)?;
            Ok(Order { state: OrderState::Cancelled, ended: Some(at), ..order })
        })
        .await
    }

    /// Records a device's answer to an order. What happened happened: an answer to an order that was cancelled after the
    /// device had fetched it counts.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; [`StoreError::IllegalState`] for a second, different answer, for another act than was
    /// ordered, and for an order that never left the server.
    pub async fn answer_order(
        &self,
        answer: OrderAnswer,
        at: UnixMillis,
        audit: impl Into<Audit>,
    ) -> Result<Answered, StoreError> {
        let audit = audit.into();
        self.write(Class::Reserved, move |act| {
            let OrderAnswer { device, counter, act: what, outcome, was_tried } = answer;
            let order = by_counter(act, device, counter)?;
            let is_outcome = matches!(outcome, OrderState::Done | OrderState::Failed | OrderState::Declined);
            if !is_outcome || order.act != what {
                return Err(StoreError::Invalid { field: "outcome", problem: "not an answer to this order" });
            }
            match order.state {
                state if state == outcome => return Ok(Answered::Again),
                OrderState::Open | OrderState::Cancelled
                    if was_tried || order.sent.or(order.delivered).or(order.acknowledged).is_some() => {}
                state => return Err(illegal(state, "delivered and not answered")),
            }
            end(act, order.id, outcome, at)?;
            act.log(&audit).map(Answered::First)
        })
        .await
    }
}

/// What a device says of an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OrderAnswer {
    /// The device, proved.
    pub device: DeviceId,
    /// Counter of the order.
    pub counter: u64,
    /// What was ordered.
    pub act: kf_api::order::OrderAct,
    /// `Done`, `Failed` or `Declined`.
    pub outcome: OrderState,
    /// Whether a broker is being given the order, and may have passed it on before that was noted.
    pub was_tried: bool,
}

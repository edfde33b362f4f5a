//! Orders of the fleet: rotate, wipe. An order is obeyed at most once: its counter is durable before anything is done,
//! and for a wipe in the very step that wipes.

use core::fmt;

use kf_exchange::order::{Order, OrderAct, OrderOutcome, OrderRefusal, OrderReport};
use kf_exchange::{ExchangeError, IdentityKey, MAX_MESSAGE_OCTETS, Message, PublicKey};
use kf_key::{DeviceId, UnixMillis};

use crate::record;
use crate::storage::{Change, CounterError, Erasure, Flash, HighWater, Integrity, StorageError, Store};

/// Why an order is not carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum OrderError<F, K = core::convert::Infallible> {
    /// It is not for this device, not authentic, expired or a replay.
    Refused(OrderRefusal),
    /// The store, in which the counter lies.
    Storage(StorageError<F>),
    /// The report was not signed.
    Report(ExchangeError<K>),
}

impl<F, K> fmt::Display for OrderError<F, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Refused(_) => "the order is refused",
            Self::Storage(_) => "the storage did not hold the counter of the order",
            Self::Report(_) => "the report was not signed",
        })
    }
}

impl<F: fmt::Debug, K: fmt::Debug> core::error::Error for OrderError<F, K> {}

/// The order key that the device has pinned, and whose orders it obeys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OrderKey {
    /// The key.
    pub key: PublicKey,
    /// This device.
    pub device: DeviceId,
}

/// An order that is to be carried out.
#[derive(Debug)]
#[must_use]
pub enum Accepted {
    /// Its counter is durable: renew the identity ([`Enrolment::renew_now`](crate::enrolment::Enrolment::renew_now)) and
    /// fetch the newest device key, then report.
    Rotate(RotateOrder),
    /// Nothing has happened yet.
    Wipe(WipeOrder),
}

/// An order to rotate.
#[derive(Debug)]
pub struct RotateOrder(Order);

/// An order to wipe, spent by carrying it out.
#[derive(Debug)]
pub struct WipeOrder(Order);

impl OrderKey {
    /// Verifies an order, and makes the counter of one to rotate durable. `now` may be the latest time that the device
    /// has seen proof of.
    ///
    /// # Errors
    /// [`OrderError::Refused`], [`OrderError::Storage`].
    pub fn accept<F: Flash, I: Integrity>(
        &self,
        message: &[u8],
        now: UnixMillis,
        store: &mut Store<F, I>,
    ) -> Result<Accepted, OrderError<F::Error>> {
        let mut last = HighWater::open(store, record::ORDERS).map_err(counter_error)?;
        let order = Order::verify(message, &self.key, self.device, last.last(), now).map_err(OrderError::Refused)?;
        match order.act {
            OrderAct::Rotate => {
                last.raise(store, order.counter).map_err(counter_error)?;
                Ok(Accepted::Rotate(RotateOrder(order)))
            }
            OrderAct::Wipe => Ok(Accepted::Wipe(WipeOrder(order))),
        }
    }
}

fn counter_error<F, K>(error: CounterError<F>) -> OrderError<F, K> {
    match error {
        CounterError::Storage(error) => OrderError::Storage(error),
        // An order that was verified is above the last one.
        CounterError::NotAbove { last } => OrderError::Refused(OrderRefusal::WentBackwards { last }),
        CounterError::Exhausted => OrderError::Refused(OrderRefusal::Replayed),
    }
}

const fn report_of(order: &Order, outcome: OrderOutcome, at: UnixMillis) -> OrderReport {
    OrderReport { act: order.act, device: order.device, counter: order.counter, outcome, at }
}

impl RotateOrder {
    /// Its counter, to be stored by a device that restarts before it can report.
    #[must_use]
    pub const fn counter(&self) -> u64 {
        self.0.counter
    }

    /// The last moment at which it may be obeyed.
    #[must_use]
    pub const fn expires(&self) -> UnixMillis {
        self.0.expires
    }

    /// The signed report of what became of it.
    ///
    /// # Errors
    /// [`ExchangeError`] of the identity key.
    pub fn report<K: IdentityKey>(
        self,
        outcome: OrderOutcome,
        at: UnixMillis,
        identity: &K,
    ) -> Result<Message, ExchangeError<K::Error>> {
        report_of(&self.0, outcome, at).sign(identity)
    }
}

impl WipeOrder {
    /// Its counter.
    #[must_use]
    pub const fn counter(&self) -> u64 {
        self.0.counter
    }

    /// Makes its counter durable and signs that it is not carried out: the device's policy forbids it.
    ///
    /// # Errors
    /// [`OrderError`].
    pub fn decline<K: IdentityKey, F: Flash, I: Integrity>(
        self,
        at: UnixMillis,
        identity: &K,
        store: &mut Store<F, I>,
    ) -> Result<Message, OrderError<F::Error, K::Error>> {
        let mut last = HighWater::open(store, record::ORDERS).map_err(counter_error)?;
        last.raise(store, self.0.counter).map_err(counter_error)?;
        report_of(&self.0, OrderOutcome::Declined, at).sign(identity).map_err(OrderError::Report)
    }

    /// Signs the report with the identity key, and then, in one step that a power cut cannot divide, replaces everything
    /// in the store by the order's counter and that report. Cut before, nothing has happened and the order can come
    /// again; cut after, [`wipe_report`] has the report to be sent.
    ///
    /// # Errors
    /// [`OrderError`].
    pub fn carry_out<K: IdentityKey, F: Flash, I: Integrity>(
        self,
        at: UnixMillis,
        identity: &K,
        store: &mut Store<F, I>,
    ) -> Result<(Message, Erasure), OrderError<F::Error, K::Error>> {
        let report = report_of(&self.0, OrderOutcome::Done, at).sign(identity).map_err(OrderError::Report)?;
        let counter = self.0.counter.to_be_bytes();
        let keep = [Change::Put(record::ORDERS, &counter), Change::Put(record::WIPED, report.as_bytes())];
        let erasure = store.wipe(&keep).map_err(OrderError::Storage)?;
        Ok((report, erasure))
    }
}

/// The report of a wipe, to be sent until the server has it; `None` when this device was not wiped.
///
/// # Errors
/// Of the store.
pub fn wipe_report<'a, F: Flash, I: Integrity>(
    store: &mut Store<F, I>,
    octets: &'a mut [u8; MAX_MESSAGE_OCTETS],
) -> Result<Option<&'a [u8]>, StorageError<F::Error>> {
    Ok(store.read(record::WIPED, octets)?.and_then(|length| octets.get(..length)))
}

//! Orders of the fleet: rotate, wipe, factory reset. An order is obeyed at most once: its counter is durable before anything is done,
//! and for a wipe or a reset in the very step that destroys.
//!
//! | | wipe | factory reset |
//! |---|---|---|
//! | keys, certificates, roots, records of the owner | erased | erased |
//! | records of the maker ([`RecordId::FIRST_OF_MAKER`](crate::storage::RecordId::FIRST_OF_MAKER)) | erased | stay |
//! | counter of boots | erased | stays: a nonce is never used twice, and it is no secret |
//! | afterwards the device | is dead | enrols as one that never did, with its IDevID |

mod parted;

use core::fmt;

use kf_exchange::order::{Order, OrderAct, OrderOutcome, OrderRefusal, OrderReport};
use kf_exchange::{ExchangeError, IdentityKey, MAX_MESSAGE_OCTETS, Message, PublicKey};
use kf_key::{DeviceId, UnixMillis};

use crate::record;
use crate::storage::{Change, CounterError, Erasure, Flash, HighWater, Integrity, StorageError, Store};
use parted::{Owner, Parted};

pub use parted::{MAX_PARTED, Remembered};

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

/// The order key whose orders the device obeys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OrderKey {
    /// The key: [`Pin::key`](crate::pin::Pin::key).
    pub key: PublicKey,
    /// The key in the firmware or the configuration, which it succeeded ([`Pin::factory`](crate::pin::Pin::factory)); the same one
    /// where none did.
    pub factory: PublicKey,
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
    /// Nothing has happened yet.
    FactoryReset(ResetOrder),
}

/// An order to rotate.
#[derive(Debug)]
pub struct RotateOrder(Order);

/// An order to wipe, spent by carrying it out.
#[derive(Debug)]
pub struct WipeOrder(Order);

/// An order to destroy what this owner brought, spent by carrying it out.
#[derive(Debug)]
pub struct ResetOrder {
    order: Order,
    /// Whose order it is: the counters that follow are another owner's.
    owner: Owner,
}

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
        // What this key ordered before a reset is as old as ever.
        let owner = Owner::of(self);
        let before = Parted::load(store).map_err(OrderError::Storage)?.counter_of(&owner);
        let highest = last.last().max(before);
        let order = Order::verify(message, &self.key, self.device, highest, now).map_err(OrderError::Refused)?;
        match order.act {
            OrderAct::Rotate => {
                last.raise(store, order.counter).map_err(counter_error)?;
                Ok(Accepted::Rotate(RotateOrder(order)))
            }
            OrderAct::Wipe => Ok(Accepted::Wipe(WipeOrder(order))),
            OrderAct::FactoryReset => Ok(Accepted::FactoryReset(ResetOrder { order, owner })),
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

/// Makes the counter durable and signs that the order is not carried out.
fn decline<K: IdentityKey, F: Flash, I: Integrity>(
    order: &Order,
    at: UnixMillis,
    identity: &K,
    store: &mut Store<F, I>,
) -> Result<Message, OrderError<F::Error, K::Error>> {
    let mut last = HighWater::open(store, record::ORDERS).map_err(counter_error)?;
    last.raise(store, order.counter).map_err(counter_error)?;
    report_of(order, OrderOutcome::Declined, at).sign(identity).map_err(OrderError::Report)
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
        decline(&self.0, at, identity, store)
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

impl ResetOrder {
    /// Its counter.
    #[must_use]
    pub const fn counter(&self) -> u64 {
        self.order.counter
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
        decline(&self.order, at, identity, store)
    }

    /// Signs the report with the identity key in use, which this owner certified, and then, in one step that a power cut cannot
    /// divide, leaves nothing in the store but the maker's records, the counter of boots, the owner's last counter, and that report. Cut before, nothing has
    /// happened and the order can come again; cut after, [`reset_report`] has the report to be sent.
    ///
    /// # Errors
    /// [`OrderError`].
    pub fn carry_out<K: IdentityKey, F: Flash, I: Integrity>(
        self,
        at: UnixMillis,
        identity: &K,
        store: &mut Store<F, I>,
    ) -> Result<(Message, Erasure), OrderError<F::Error, K::Error>> {
        let Self { order, owner } = self;
        let report = report_of(&order, OrderOutcome::Done, at).sign(identity).map_err(OrderError::Report)?;
        let parted = Parted::load(store).map_err(OrderError::Storage)?.with(&owner, order.counter);
        let with = [Change::Put(record::PARTED, parted.as_bytes()), Change::Put(record::RESET, report.as_bytes())];
        let keeps = |id: crate::storage::RecordId| id == record::BOOTS || id.is_of_maker();
        let erasure = store.retain(keeps, &with).map_err(OrderError::Storage)?;
        Ok((report, erasure))
    }
}

/// The report of a factory reset, to be sent to the server that ordered it; `None` when there was none, or that server has it. It stands in
/// nobody's way: the device may enrol with whoever is next.
///
/// # Errors
/// Of the store.
pub fn reset_report<'a, F: Flash, I: Integrity>(
    store: &mut Store<F, I>,
    octets: &'a mut [u8; MAX_MESSAGE_OCTETS],
) -> Result<Option<&'a [u8]>, StorageError<F::Error>> {
    Ok(store.read(record::RESET, octets)?.and_then(|length| octets.get(..length)))
}

/// The server has the report, or never wants it: it is forgotten.
///
/// # Errors
/// Of the store.
pub fn forget_reset_report<F: Flash, I: Integrity>(store: &mut Store<F, I>) -> Result<(), StorageError<F::Error>> {
    match store.read(record::RESET, &mut []) {
        Ok(None) => Ok(()),
        Ok(Some(_)) | Err(StorageError::Buffer { .. }) => store.update(&[Change::Remove(record::RESET)]),
        Err(error) => Err(error),
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

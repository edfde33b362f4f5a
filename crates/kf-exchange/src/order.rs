//! Orders of the fleet to one device, signed by the order key, and the device's signed answers.
//!
//! ```text
//! order   = COSE_Sign1(order key,    [1, act, device, counter, expires])        external data "keyfleet order v1"
//! outcome = COSE_Sign1(identity key, [1, act, device, counter, outcome, at])    external data "keyfleet outcome v1"
//! ```
//!
//! A device keeps the highest counter that it has seen, durably, and writes it *before* it acts: an order is obeyed at most
//! once, and a device whose counter is lost or older than its orders obeys none.

use core::fmt;

use kf_key::{DeviceId, UnixMillis};
use minicbor::Decoder;

use crate::codec::{Message, Out, Written, array, decode, items};
use crate::cose::{SignError, Signed, sign};
use crate::identity::{IdentityKey, PublicKey};
use crate::refusal::{ExchangeError, Refusal};

const ORDER: &[u8] = b"keyfleet order v1";
const OUTCOME: &[u8] = b"keyfleet outcome v1";
const VERSION: u8 = 1;

/// What a device is ordered to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OrderAct {
    /// Make a new identity key, have it certified, and fetch the newest device key.
    Rotate,
    /// Destroy every key and read back that they are gone. Nothing undoes it.
    Wipe,
    /// Destroy what this owner brought, and leave what the maker did: the IDevID. The device is as it left the factory
    /// (RFC 8808), and enrols anew.
    FactoryReset,
}

impl OrderAct {
    /// Every act.
    pub const ALL: [Self; 3] = [Self::Rotate, Self::Wipe, Self::FactoryReset];

    /// The number in an order.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Rotate => 1,
            Self::Wipe => 2,
            Self::FactoryReset => 3,
        }
    }

    fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|act| act.code() == code)
    }
}

/// An order. One that came from [`Order::verify`] is to be obeyed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Order {
    /// What to do.
    pub act: OrderAct,
    /// Who is to do it.
    pub device: DeviceId,
    /// Higher than that of every order before to this device.
    pub counter: u64,
    /// The last moment at which it may be obeyed.
    pub expires: UnixMillis,
}

/// Why an order is not obeyed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum OrderRefusal {
    /// It cannot be read, or the signature does not hold.
    Message(Refusal),
    /// It is signed by a key that is not the order key.
    OtherKey,
    /// It is for another device.
    OtherDevice,
    /// It has been seen: its counter is the last one.
    Replayed,
    /// Its counter is lower than the last one.
    WentBackwards {
        /// The last counter.
        last: u64,
    },
    /// It is too late.
    Expired,
}

impl fmt::Display for OrderRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Message(refusal) => refusal.fmt(f),
            Self::OtherKey => f.write_str("the order is signed by another key than the order key"),
            Self::OtherDevice => f.write_str("the order is for another device"),
            Self::Replayed => f.write_str("the order has been seen before"),
            Self::WentBackwards { last } => write!(f, "the order is older than the last one, whose counter is {last}"),
            Self::Expired => f.write_str("the order has expired"),
        }
    }
}

impl core::error::Error for OrderRefusal {}

fn malformed(_reason: minicbor::decode::Error) -> Refusal {
    Refusal::Malformed
}

/// Signs a payload, with the errors of an exchange.
pub(crate) fn signed_with<K: IdentityKey>(
    kind: &[u8],
    payload: &Message,
    key: &K,
) -> Result<Message, ExchangeError<K::Error>> {
    sign(kind, payload, key).map_err(|error| match error {
        SignError::Refused(refusal) => ExchangeError::Refused(refusal),
        SignError::Holder(holder) => ExchangeError::Holder(holder),
    })
}

impl Order {
    fn write(&self, out: &mut Out<'_>) -> Written {
        out.array(5)?.u8(VERSION)?.u8(self.act.code())?.bytes(self.device.as_bytes())?;
        out.u64(self.counter)?.u64(self.expires.0)?.ok()
    }

    fn read(input: &mut Decoder<'_>) -> Result<Self, Refusal> {
        let items = items(input)?;
        if input.u8().map_err(malformed)? != VERSION {
            return Err(Refusal::Version);
        }
        if items != 5 {
            return Err(Refusal::Malformed);
        }
        Ok(Self {
            act: OrderAct::from_code(input.u8().map_err(malformed)?).ok_or(Refusal::Purpose)?,
            device: DeviceId::from_bytes(array(input).map_err(malformed)?),
            counter: input.u64().map_err(malformed)?,
            expires: UnixMillis(input.u64().map_err(malformed)?),
        })
    }

    /// Signs it.
    ///
    /// # Errors
    /// [`ExchangeError::Holder`] of the order key.
    pub fn sign<K: IdentityKey>(&self, order_key: &K) -> Result<Message, ExchangeError<K::Error>> {
        let payload = Message::encode(|out| self.write(out))?;
        signed_with(ORDER, &payload, order_key)
    }

    /// An order that `device` is to obey: signed by `order_key`, for this device, newer than `last_counter`, and not
    /// expired at `now`. A device without a clock gives the latest time that it has seen proof of, which errs on the side
    /// of obeying; the counter bounds what that can do. Nothing but the signature is looked at before the signature.
    ///
    /// # Errors
    /// [`OrderRefusal`].
    pub fn verify(
        message: &[u8],
        order_key: &PublicKey,
        device: DeviceId,
        last_counter: u64,
        now: UnixMillis,
    ) -> Result<Self, OrderRefusal> {
        let signed = Signed::read(message).map_err(OrderRefusal::Message)?;
        if !signed.is_by(order_key) {
            return Err(OrderRefusal::OtherKey);
        }
        let payload = signed.verify(ORDER, order_key).map_err(OrderRefusal::Message)?;
        let order = decode(payload, Self::read, Self::write).map_err(OrderRefusal::Message)?;
        if order.device != device {
            return Err(OrderRefusal::OtherDevice);
        }
        if order.counter == last_counter {
            return Err(OrderRefusal::Replayed);
        }
        if order.counter < last_counter {
            return Err(OrderRefusal::WentBackwards { last: last_counter });
        }
        if now > order.expires {
            return Err(OrderRefusal::Expired);
        }
        Ok(order)
    }
}

/// Whether a message names `key` as its signer. Nothing is verified.
#[must_use]
pub fn is_by(message: &[u8], key: &PublicKey) -> bool {
    Signed::read(message).is_ok_and(|signed| signed.is_by(key))
}

/// What became of an order on the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OrderOutcome {
    /// Carried out.
    Done,
    /// Begun, and not completed.
    Failed,
    /// Not begun: the device's policy forbids it.
    Declined,
    /// Verified and about to be begun: not the last word on it.
    Received,
}

impl OrderOutcome {
    /// Every outcome.
    pub const ALL: [Self; 4] = [Self::Done, Self::Failed, Self::Declined, Self::Received];

    const fn code(self) -> u8 {
        match self {
            Self::Done => 1,
            Self::Failed => 2,
            Self::Declined => 3,
            Self::Received => 4,
        }
    }

    fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|outcome| outcome.code() == code)
    }
}

/// A device's answer to an order. The answers to `Wipe` and `FactoryReset` are signed before the identity key goes, and sent
/// afterwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OrderReport {
    /// What was ordered.
    pub act: OrderAct,
    /// Who answers.
    pub device: DeviceId,
    /// Counter of the order.
    pub counter: u64,
    /// What became of it.
    pub outcome: OrderOutcome,
    /// When, by the device's clock; 0 when it has none.
    pub at: UnixMillis,
}

impl OrderReport {
    fn write(&self, out: &mut Out<'_>) -> Written {
        out.array(6)?.u8(VERSION)?.u8(self.act.code())?.bytes(self.device.as_bytes())?;
        out.u64(self.counter)?.u8(self.outcome.code())?.u64(self.at.0)?.ok()
    }

    fn read(input: &mut Decoder<'_>) -> Result<Self, Refusal> {
        let items = items(input)?;
        if input.u8().map_err(malformed)? != VERSION {
            return Err(Refusal::Version);
        }
        if items != 6 {
            return Err(Refusal::Malformed);
        }
        Ok(Self {
            act: OrderAct::from_code(input.u8().map_err(malformed)?).ok_or(Refusal::Purpose)?,
            device: DeviceId::from_bytes(array(input).map_err(malformed)?),
            counter: input.u64().map_err(malformed)?,
            outcome: OrderOutcome::from_code(input.u8().map_err(malformed)?).ok_or(Refusal::Purpose)?,
            at: UnixMillis(input.u64().map_err(malformed)?),
        })
    }

    /// Signs it with the device's identity key.
    ///
    /// # Errors
    /// [`ExchangeError::Holder`] of the identity key.
    pub fn sign<K: IdentityKey>(&self, identity: &K) -> Result<Message, ExchangeError<K::Error>> {
        let payload = Message::encode(|out| self.write(out))?;
        signed_with(OUTCOME, &payload, identity)
    }

    /// What a message claims, to look up the device that must have signed it. Nothing is proved.
    ///
    /// # Errors
    /// Those of reading.
    pub fn claimed(message: &[u8]) -> Result<Self, Refusal> {
        let signed = Signed::read(message)?;
        decode(signed.unverified_payload(), Self::read, Self::write)
    }

    /// The answer, if `identity` signed it.
    ///
    /// # Errors
    /// [`Refusal::Unauthentic`], those of reading.
    pub fn verify(message: &[u8], identity: &PublicKey) -> Result<Self, Refusal> {
        let signed = Signed::read(message)?;
        decode(signed.verify(OUTCOME, identity)?, Self::read, Self::write)
    }
}

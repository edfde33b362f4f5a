//! Orders to devices.

use kf_key::{DeviceId, OrderId, UnixMillis};
use serde::{Deserialize, Serialize};

/// Beside an answer to a device that asks for orders: the SHA-256, hexadecimal, of a root that it is to take up from
/// `cacerts`, by the link that its own root has signed (RFC 7030 section 4.1.3).
pub const ANCHOR_HEADER: &str = "keyfleet-anchor";

/// Header of a device's poll, where it holds more than one root: the SHA-256 of each, hexadecimal, separated by spaces. In the answer:
/// the one of them that is handed out no more, because it was retired or withdrawn. The device reads from `cacerts` whether it is so.
pub const ANCHORS_HEADER: &str = "keyfleet-anchors";

/// Header of a device's poll: its program knows campaigns of kind `storage`. In the answer: the request, 32 hexadecimal digits, that its
/// statement is to name.
pub const STORAGE_HEADER: &str = "keyfleet-storage";

/// Header of a device's poll: SHA-256, hexadecimal, of the order key (SubjectPublicKeyInfo) that it obeys. In the answer: that of the
/// newest one; when it is another, the device takes it up from `GET /v1/device/successions`.
pub const ORDER_KEY_HEADER: &str = "keyfleet-order-key";

/// Header of a device's poll: its program renews when this asks for it. In the answer: the campaign, 32 hexadecimal digits, that asks.
pub const RENEWAL_HEADER: &str = "keyfleet-renewal";

/// Header of a device's poll: acts, separated by spaces, that its program knows besides those that every program does. An act that is not
/// among them is not ordered: a device refuses what it does not know, and never comes to what waits behind it.
pub const ACTS_HEADER: &str = "keyfleet-acts";

/// Beside an order to rotate: the algorithm that the new identity key is to have, by its name here.
pub const ALGORITHM_HEADER: &str = "keyfleet-algorithm";

/// What a device is ordered to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OrderAct {
    /// Make a new identity key, have it certified, and fetch the newest device key.
    Rotate,
    /// Destroy every key. Nothing undoes it.
    Wipe,
    /// Destroy what this owner brought, and leave the maker's IDevID (RFC 8808). Only part of the end of an ownership.
    FactoryReset,
}

impl OrderAct {
    /// The name in requests and answers.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Rotate => "rotate",
            Self::Wipe => "wipe",
            Self::FactoryReset => "factory-reset",
        }
    }
}

/// Where an order stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OrderState {
    /// Waits for the device, until it expires.
    Open,
    /// The device carried it out.
    Done,
    /// The device began it and could not complete it.
    Failed,
    /// The device's policy forbids it.
    Declined,
    /// Withdrawn. A device that had fetched it before may still obey, and then it is `Done`.
    Cancelled,
}

impl OrderState {
    /// The name in requests and answers.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Declined => "declined",
            Self::Cancelled => "cancelled",
        }
    }
}

/// How far an order has come, as far as the server has evidence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OrderProgress {
    /// Nothing has left the server.
    Queued,
    /// A broker took it, or the device was given it when it asked; whether it arrived is not known.
    Sent,
    /// The device has signed that it has it.
    Acknowledged,
    /// The device has signed that it carried it out.
    Executed,
    /// The device has signed that it could not complete it.
    Failed,
    /// The device has signed that its policy forbids it.
    Declined,
    /// Withdrawn.
    Cancelled,
    /// It expired, and no outcome has come. One may still come.
    NeverAnswered,
}

/// An order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// Identifier.
    pub id: OrderId,
    /// Who is to obey.
    pub device: DeviceId,
    /// What to do.
    pub act: OrderAct,
    /// Higher than that of every order before to this device.
    pub counter: u64,
    /// Where it stands.
    pub state: OrderState,
    /// When it was signed.
    pub created: UnixMillis,
    /// The last moment at which the device obeys it.
    pub expires: UnixMillis,
    /// How far it has come.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub progress: Option<OrderProgress>,
    /// When a broker first took it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub sent: Option<UnixMillis>,
    /// When the device was first given it because it asked.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub delivered: Option<UnixMillis>,
    /// When the device's signed word came that it has it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub acknowledged: Option<UnixMillis>,
    /// When the device's answer came, or the order was cancelled.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub ended: Option<UnixMillis>,
    /// Why, in the words of who proposed it.
    pub why: String,
}

impl Order {
    /// The same, with its progress at `now`.
    #[must_use]
    pub fn judged(mut self, now: UnixMillis) -> Self {
        self.progress = Some(match self.state {
            OrderState::Done => OrderProgress::Executed,
            OrderState::Failed => OrderProgress::Failed,
            OrderState::Declined => OrderProgress::Declined,
            OrderState::Cancelled => OrderProgress::Cancelled,
            OrderState::Open if now > self.expires => OrderProgress::NeverAnswered,
            OrderState::Open if self.acknowledged.is_some() => OrderProgress::Acknowledged,
            OrderState::Open if self.sent.is_some() || self.delivered.is_some() => OrderProgress::Sent,
            OrderState::Open => OrderProgress::Queued,
        });
        self
    }
}

/// An order to be proposed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OrderRequest {
    /// Name or id of the device.
    pub device: String,
    /// What to do.
    pub act: OrderAct,
    /// Hours from the approval until it expires, 1 to 8,760; 168 (a week) when absent.
    #[serde(default)]
    pub lifetime_hours: Option<u32>,
    /// Why, for the log.
    #[serde(default)]
    pub why: String,
}

/// Which orders to list.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OrderFilter {
    /// Name or id of a device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// The `next` of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    /// Rows wanted, 1 to 1,000; 100 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}

/// An order to be withdrawn.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OrderCancellation {
    /// Why, for the log.
    #[serde(default)]
    pub why: String,
}

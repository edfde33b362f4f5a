//! What waits for a device that asks: an order, a new root, a new storage key, a new certificate. One question, one answer, and one
//! look at the registry for it.

use kf_api::certificate::Certificate;
use kf_api::device::Device;
use kf_key::{KeyAlgorithm, UnixMillis};
use kf_store::news::Holder;

use crate::tls::ClientCertificate;
use crate::{Fleet, FleetError, TlsClient};

/// What a device's program said that it knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Knows<'a> {
    /// To go back to the state of the factory.
    pub reset: bool,
    /// To renew when it is asked by no order.
    pub renewal: bool,
    /// To put what it keeps under a new storage key.
    pub storage: bool,
    /// The order key that it obeys, SHA-256, hexadecimal, where it says so.
    pub order_key: Option<&'a str>,
    /// The roots that it holds, SHA-256, hexadecimal, separated by spaces, where it holds more than one.
    pub roots: Option<&'a str>,
}

/// What waits for a device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct News {
    /// The oldest order, COSE_Sign1.
    pub order: Option<Vec<u8>>,
    /// Beside an order to rotate: the algorithm that its new identity key is to have.
    pub algorithm: Option<KeyAlgorithm>,
    /// The SHA-256, hexadecimal, of the root that it is to take up.
    pub anchor: Option<String>,
    /// The same of a root that it said it holds, and that is handed out no more.
    pub gone_anchor: Option<String>,
    /// What its statement is to name, 32 hexadecimal digits, where it is asked for a new storage key.
    pub storage: Option<String>,
    /// The campaign, 32 hexadecimal digits, that asks it for a new identity key and certificate.
    pub renewal: Option<String>,
    /// The newest order key, SHA-256, hexadecimal, for a device that said which one it obeys.
    pub order_key: Option<String>,
}

/// How old the last sighting of a device is at least when its poll is noted as the next one. Ages are shown by days; a poll that wrote
/// each time would cost more than it asks.
const SIGHTING: u64 = UnixMillis::HOUR;

/// A device as its TLS session proved it.
pub(crate) struct Proved {
    /// As the handshake hands it on, DER.
    pub(crate) shown: ClientCertificate,
    pub(crate) certificate: Certificate,
    pub(crate) device: Device,
}

/// Whether the registry's certificate is the very one that the session showed.
pub(crate) fn is_shown(holder: &Holder, shown: &ClientCertificate) -> bool {
    *holder.certificate.der == *shown.der
}

/// Something that a poll leaves in the registry. A full disk, and a registry that is behind its witness, do not keep an order from its
/// device: what could not be noted is noted with a later poll.
fn noted<T: Default>(what: &'static str, outcome: Result<T, FleetError>) -> Result<T, FleetError> {
    match outcome {
        Err(error @ (FleetError::StoreFull | FleetError::Fenced(_))) => {
            tracing::warn!(what, %error, "a poll of a device left no note; it is answered");
            Ok(T::default())
        }
        other => other,
    }
}

impl Fleet {
    /// What waits for the device of this TLS session. That the certificate with which it asks is one that a campaign asked for, is
    /// the proof that it uses it. The status of that certificate plays no part: a device whose certificate is on hold is the first
    /// that may have to be wiped, and an order is no secret. The answer goes by what this poll says, not by what could be noted of it.
    ///
    /// # Errors
    /// [`FleetError::Unauthenticated`] without a certificate of a device of ours.
    pub async fn device_news(&self, client: TlsClient<'_>, knows: Knows<'_>) -> Result<News, FleetError> {
        let shown = client.certificate.ok_or(FleetError::Unauthenticated)?;
        let serial = shown.serial.ok_or(FleetError::Unauthenticated)?;
        let found = self.store.news(serial, knows.reset, self.now())?.filter(|(holder, _)| is_shown(holder, shown));
        let (holder, mut waiting) = found.ok_or(FleetError::Unauthenticated)?;
        let proved =
            Proved { shown: shown.clone(), certificate: holder.certificate.certificate, device: holder.device };
        let device = &proved.device;
        let now = self.now();
        if device.last_seen.is_none_or(|seen| now.since(seen) > SIGHTING) {
            self.store.touch_device(device.id, now);
        }
        if waiting.knows_reset != knows.reset {
            noted("whether it knows the order to reset", self.note_reset_known(device, knows.reset).await)?;
        }
        let obeyed = knows.order_key.and_then(|fingerprint| self.obeyed_order_key(fingerprint));
        if let Some(key) = obeyed {
            noted("which order key it obeys", self.note_obeyed(device, key).await)?;
        }
        let renewal = self.renewal_of(&proved, &waiting.asked, knows.renewal).await;
        let renewal = noted("that it was asked to renew", renewal)?;
        if renewal.is_ordered {
            let again = self.store.news(serial, knows.reset, self.now())?.ok_or(FleetError::Unauthenticated)?;
            waiting = again.1;
        }
        let order = self.order_due(&proved, waiting.order, obeyed).await?;
        let anchor = self.anchor_of(device.id, &waiting.asked).await;
        let storage = self.storage_of(device, &waiting.asked, knows.storage).await;
        let algorithm = waiting.asked.iter().rev().filter(|part| part.is_open()).find_map(|part| part.algorithm);
        Ok(News {
            algorithm: algorithm.filter(|_| order.is_some()),
            order,
            anchor: noted("that it was told of a root", anchor)?,
            gone_anchor: knows.roots.and_then(|held| self.gone_anchor_of(held)),
            storage: noted("that it was asked for a storage key", storage)?,
            renewal: renewal.told_by.map(|campaign| hex::encode(campaign.as_bytes())),
            order_key: knows.order_key.and_then(|_| self.newest_order_key()),
        })
    }
}

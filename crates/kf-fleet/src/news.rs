//! What waits for a device that asks: an order, a new root, a new storage key, a new certificate. One question, one answer.

use kf_api::certificate::Certificate;
use kf_api::device::Device;
use kf_key::KeyAlgorithm;
use kf_pki::certificate::PresentedCertificate;

use crate::{Fleet, FleetError, TlsClient};

/// What a device's program said that it knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Knows {
    /// To renew when it is asked by no order.
    pub renewal: bool,
    /// To put what it keeps under a new storage key.
    pub storage: bool,
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
    /// What its statement is to name, 32 hexadecimal digits, where it is asked for a new storage key.
    pub storage: Option<String>,
    /// The campaign, 32 hexadecimal digits, that asks it for a new identity key and certificate.
    pub renewal: Option<String>,
}

/// A device as its TLS session proved it.
pub(crate) struct Proved {
    pub(crate) presented: PresentedCertificate,
    pub(crate) certificate: Certificate,
    pub(crate) device: Device,
}

impl Fleet {
    /// Who asks.
    pub(crate) fn proved_device(&self, client: TlsClient<'_>) -> Result<Proved, FleetError> {
        let (presented, certificate, device) = self.device_of_certificate(client)?;
        Ok(Proved { presented, certificate, device })
    }

    /// What waits for the device of this TLS session. That the certificate with which it asks is one that a campaign asked for, is
    /// the proof that it uses it.
    ///
    /// # Errors
    /// [`FleetError::Unauthenticated`] without a certificate of a device of ours.
    pub async fn device_news(&self, client: TlsClient<'_>, knows: Knows) -> Result<News, FleetError> {
        let proved = self.proved_device(client)?;
        let renewal = self.renewal_of(&proved, knows.renewal).await?;
        let order = self.order_due(&proved).await?;
        let device = proved.device;
        Ok(News {
            algorithm: if order.is_some() { self.store.asked_algorithm(device.id)? } else { None },
            order,
            anchor: self.anchor_of(device.id)?,
            storage: self.storage_of(&device, knows.storage).await?,
            renewal: renewal.map(|campaign| hex::encode(campaign.as_bytes())),
        })
    }
}

//! The connector trait and the order of enforcement.

use std::time::Duration;

use async_trait::async_trait;
use kf_api::revocation::BrokerReport;
use kf_key::{AuthorityId, UnixMillis};

use crate::{BrokerError, TlsIdentity};

/// One current CRL, as the broker is to read it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublishedCrl {
    /// The CA that signed it.
    pub authority: AuthorityId,
    /// `-----BEGIN X509 CRL-----`.
    pub pem: String,
}

/// What cutting a session found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// A session was open and has been closed.
    Closed,
    /// Nothing with this name was connected.
    NoSession,
}

/// A broker that devices hold sessions at.
///
/// Device names are the common names of LDevIDs. Implementations refuse names that the broker cannot carry
/// ([`BrokerError::DeviceName`]) and never wait without a limit.
#[async_trait]
pub trait BrokerConnector: Send + Sync {
    /// Name of the connector in reports and settings.
    fn name(&self) -> &str;

    /// Replaces the broker's CRLs, all at once: `crls` are *all* that it needs, one per issuing CA (or one per shard).
    /// A broker that lacks the current CRL of an issuing CA refuses every device of that CA.
    ///
    /// # Errors
    /// [`BrokerError`]; the former CRLs then stay as they were.
    async fn publish_crls(&self, crls: &[PublishedCrl]) -> Result<(), BrokerError>;

    /// Has the broker read the published CRLs; returns when it has.
    ///
    /// # Errors
    /// [`BrokerError`].
    async fn reload(&self) -> Result<(), BrokerError>;

    /// Makes the broker accept a device that got its first certificate. Idempotent.
    ///
    /// # Errors
    /// [`BrokerError`].
    async fn admit(&self, device_name: &str) -> Result<(), BrokerError>;

    /// Closes the device's sessions and bars it by name where the broker has means for that. Without a published and
    /// reloaded CRL the device may come straight back.
    ///
    /// # Errors
    /// [`BrokerError`].
    async fn cut(&self, device_name: &str) -> Result<Cut, BrokerError>;

    /// Watches the broker until nothing with this name is connected, at most `deadline` long; `false` when something
    /// still is.
    ///
    /// # Errors
    /// [`BrokerError`] when the broker cannot be asked.
    async fn verify_gone(&self, device_name: &str, deadline: Duration) -> Result<bool, BrokerError>;

    /// Lets a device back in whose hold was released: publish and reload CRLs first. Idempotent.
    ///
    /// # Errors
    /// [`BrokerError`].
    async fn readmit(&self, device_name: &str) -> Result<(), BrokerError>;

    /// The common name under which the connector itself signs in, when its certificate is past half of its life: time for
    /// [`BrokerConnector::renew_identity`]. `None` when it is not due, or when there is no such identity.
    fn identity_due(&self, now: UnixMillis) -> Option<String> {
        let _not_due = now;
        None
    }

    /// Signs in with another certificate from now on.
    ///
    /// # Errors
    /// [`BrokerError`]; the former identity then stays in use.
    async fn renew_identity(&self, identity: TlsIdentity) -> Result<(), BrokerError> {
        let _not_used = identity;
        Ok(())
    }

    /// Gives the broker an order for a device; `true` when the broker has acknowledged it, `false` when this kind of broker
    /// carries none. Whether the device is there to hear it is not known.
    ///
    /// # Errors
    /// [`BrokerError`]: it was not taken.
    async fn send_order(&self, device_name: &str, message: &[u8]) -> Result<bool, BrokerError> {
        let _not_carried = (device_name, message);
        Ok(false)
    }

    /// Closes the sessions of a device that keeps a good certificate although it lost another one: a session that was
    /// opened with the lost one must not stay up, and after publishing and reloading the CRLs only the good one comes back.
    ///
    /// # Errors
    /// [`BrokerError`]; the device may then be barred by name until it is readmitted.
    async fn restart_sessions(&self, device_name: &str) -> Result<Cut, BrokerError> {
        let cut = self.cut(device_name).await?;
        self.readmit(device_name).await?;
        Ok(cut)
    }

    /// Publish, reload, cut, verify: in this order, and what a failed step leaves possible is still done. `deadline`
    /// bounds the verification of each device.
    ///
    /// A step counts as done only when it was done for every device. Sessions are cut even when the CRL could not be
    /// published or read, because a closed session is better than an open one; the report then says what is missing.
    async fn enforce(&self, crls: &[PublishedCrl], device_names: &[&str], deadline: Duration) -> BrokerReport {
        let mut failures = Vec::new();
        let crl_published = note(&mut failures, "publish", self.publish_crls(crls).await).is_some();
        let reloaded = crl_published && note(&mut failures, "reload", self.reload().await).is_some();
        let mut session_cut = true;
        let mut verified = true;
        for device_name in device_names {
            session_cut &= note(&mut failures, "cut", self.cut(device_name).await).is_some();
        }
        for device_name in device_names {
            let gone = note(&mut failures, "verify", self.verify_gone(device_name, deadline).await);
            verified &= gone == Some(true);
            if gone == Some(false) {
                failures.push(format!("verify: {device_name} is still connected"));
            }
        }
        failures.truncate(MAX_FAILURES);
        BrokerReport {
            broker: self.name().to_owned(),
            crl_published,
            reloaded,
            session_cut,
            verified: verified && reloaded,
            failure: (!failures.is_empty()).then(|| failures.join("; ")),
        }
    }
}

/// The most failures that a report spells out.
const MAX_FAILURES: usize = 8;

fn note<T>(failures: &mut Vec<String>, step: &str, outcome: Result<T, BrokerError>) -> Option<T> {
    outcome.map_err(|error| failures.push(format!("{step}: {}", with_sources(&error)))).ok()
}

fn with_sources(error: &BrokerError) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

//! What brokers need although nobody was revoked: current CRLs, because a broker whose list has expired refuses every
//! device, and a connector whose own certificate is valid.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use kf_broker::{BrokerConnector, TlsIdentity};
use kf_crypto::PrivateKey;
use kf_key::{AuthorityId, KeyAlgorithm, UnixMillis};
use kf_pki::crl::CrlScope;

use crate::{Fleet, FleetError};

/// How long a broker that failed is left in peace.
const REST: u64 = 30 * UnixMillis::SECOND;

/// The full CRLs that a broker has read: CA and cRLNumber.
type Lists = Vec<(AuthorityId, u64)>;

/// What the brokers are known to have read.
#[derive(Default)]
pub(crate) struct BrokerMemory(Mutex<BTreeMap<String, Known>>);

#[derive(Clone, Default)]
struct Known {
    lists: Option<Lists>,
    rest_until: UnixMillis,
}

impl BrokerMemory {
    fn of(&self, broker: &str) -> Known {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(broker).cloned().unwrap_or_default()
    }

    fn learn(&self, broker: &str, known: Known) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(broker.to_owned(), known);
    }
}

impl Fleet {
    /// Brings every broker the current CRLs, if it has not read them, and renews the connectors' own certificates.
    pub(crate) async fn refresh_brokers(&self) {
        let lists = match self.current_full_lists().await {
            Ok(lists) => lists,
            Err(error) => {
                tracing::error!(error = %error, "no CRL for the brokers");
                return;
            }
        };
        for broker in self.attached_brokers() {
            let known = self.broker_memory.of(broker.name());
            if self.now() < known.rest_until {
                continue;
            }
            let mut next = Known { lists: Some(lists.clone()), rest_until: UnixMillis(0) };
            if let Err(reason) = self.refresh_broker(&broker, known.lists.as_ref() != Some(&lists)).await {
                tracing::error!(broker = broker.name(), reason, "the broker is not up to date");
                next = Known { lists: known.lists, rest_until: self.now().plus(REST) };
            }
            self.broker_memory.learn(broker.name(), next);
        }
    }

    async fn refresh_broker(&self, broker: &Arc<dyn BrokerConnector>, has_old_lists: bool) -> Result<(), String> {
        if let Some(name) = broker.identity_due(self.now()) {
            let identity = self.connector_identity(&name).await.map_err(|error| error.to_string())?;
            broker.renew_identity(identity).await.map_err(|error| error.to_string())?;
        }
        if has_old_lists {
            let crls = self.broker_crls().await.map_err(|error| error.to_string())?;
            broker.publish_crls(&crls).await.map_err(|error| error.to_string())?;
            broker.reload().await.map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    async fn connector_identity(&self, name: &str) -> Result<TlsIdentity, FleetError> {
        let issued = self.broker_identity(name).await?;
        let key = PrivateKey::from_pkcs8(KeyAlgorithm::P256, &issued.key_pkcs8)?;
        Ok(TlsIdentity { roots: self.client_anchors().as_ref().clone(), chain: issued.chain, key })
    }

    async fn current_full_lists(&self) -> Result<Lists, FleetError> {
        let mut lists = Vec::new();
        for known in self.authorities().all() {
            if let Some(crl) = self.crl(known.record.id, CrlScope::Full).await? {
                lists.push((known.record.id, crl.number));
            }
        }
        Ok(lists)
    }
}

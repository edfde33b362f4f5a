//! The connectors of the configuration. Each signs in to its broker with a client certificate of its own from the fleet,
//! under the name [`CONTROL_NAME`], which the broker's dynamic security plugin must let command.

use std::sync::{Arc, Weak};
use std::time::Duration;

use async_trait::async_trait;
use kf_broker::{
    BrokerConnector, BrokerError, BrokerProcess, Control, Cut, CutBy, DeviceTopics, Mosquitto, MosquittoSettings,
    PublishedCrl, TlsIdentity,
};
use kf_crypto::PrivateKey;
use kf_fleet::{BrokerConfig, Fleet};
use kf_key::{KeyAlgorithm, UnixMillis};
use tokio::sync::Mutex;

use crate::failure::Failure;

/// Common name of the connectors' certificates, and the MQTT client identifier of their sessions.
const CONTROL_NAME: &str = "keyfleet-server";

/// Opens every connector that is configured.
///
/// # Errors
/// [`Failure`] naming the connector and its setting.
pub(crate) async fn open(fleet: &Arc<Fleet>) -> Result<Vec<Arc<dyn BrokerConnector>>, Failure> {
    let mut connectors: Vec<Arc<dyn BrokerConnector>> = Vec::new();
    for config in &fleet.config().broker {
        let BrokerConfig::Mosquitto { name, .. } = config;
        let first = connect(fleet, config).await.map_err(|error| {
            let source = std::error::Error::source(&error).map(|source| format!(": {source}")).unwrap_or_default();
            Failure::local(format!("broker {name}: {error}{source}"), "correct its [[broker]] table in keyfleet.toml")
        })?;
        connectors.push(Arc::new(Renewed {
            name: name.clone(),
            fleet: Arc::downgrade(fleet),
            config: config.clone(),
            current: Mutex::new(first),
        }));
    }
    Ok(connectors)
}

/// A session at the broker and when its certificate is to be replaced.
struct Session {
    connector: Arc<Mosquitto>,
    renew_at: UnixMillis,
}

async fn connect(fleet: &Fleet, config: &BrokerConfig) -> Result<Session, BrokerError> {
    let BrokerConfig::Mosquitto { name, crl_file, pid_file, address, server_name } = config;
    let refuse = |setting: &'static str, reason: String| BrokerError::Configuration { setting, reason };
    let port = address
        .rsplit_once(':')
        .and_then(|(_host, port)| port.parse().ok())
        .ok_or_else(|| refuse("address", format!("`{address}` is not host:port")))?;
    let issued = fleet.broker_identity(CONTROL_NAME).await.map_err(|error| refuse("identity", error.to_string()))?;
    let key = PrivateKey::from_pkcs8(KeyAlgorithm::P256, &issued.key_pkcs8)
        .map_err(|_opaque| refuse("identity", "its key cannot be read".to_owned()))?;
    let control = Control {
        // What is connected to is also what the broker's certificate must name: `server_name` has to resolve here.
        host: server_name.clone(),
        port,
        identity: TlsIdentity { roots: fleet.client_anchors().as_ref().clone(), chain: issued.chain, key },
        client_id: CONTROL_NAME.to_owned(),
        cut_by: CutBy::DynamicSecurity(DeviceTopics::default()),
    };
    let connector = Mosquitto::open(MosquittoSettings {
        name: name.clone(),
        crl_file: crl_file.clone(),
        process: BrokerProcess::PidFile(pid_file.clone()),
        control: Some(control),
    })?;
    Ok(Session { connector: Arc::new(connector), renew_at: issued.renew_at })
}

/// A connector whose certificate is replaced before it ends, at the first act past its half life.
struct Renewed {
    name: String,
    // The fleet holds its connectors: a strong reference back would keep both for ever.
    fleet: Weak<Fleet>,
    config: BrokerConfig,
    current: Mutex<Session>,
}

impl Renewed {
    async fn connector(&self) -> Arc<Mosquitto> {
        let mut current = self.current.lock().await;
        if let Some(fleet) = self.fleet.upgrade()
            && fleet.clock().now() >= current.renew_at
        {
            match connect(&fleet, &self.config).await {
                Ok(session) => *current = session,
                // With issuance stopped the old certificate serves on as long as it lasts.
                Err(error) => tracing::warn!(broker = self.name, %error, "its certificate was not renewed"),
            }
        }
        Arc::clone(&current.connector)
    }
}

#[async_trait]
impl BrokerConnector for Renewed {
    fn name(&self) -> &str {
        &self.name
    }

    async fn publish_crls(&self, crls: &[PublishedCrl]) -> Result<(), BrokerError> {
        self.connector().await.publish_crls(crls).await
    }

    async fn reload(&self) -> Result<(), BrokerError> {
        self.connector().await.reload().await
    }

    async fn admit(&self, device_name: &str) -> Result<(), BrokerError> {
        self.connector().await.admit(device_name).await
    }

    async fn cut(&self, device_name: &str) -> Result<Cut, BrokerError> {
        self.connector().await.cut(device_name).await
    }

    async fn verify_gone(&self, device_name: &str, deadline: Duration) -> Result<bool, BrokerError> {
        self.connector().await.verify_gone(device_name, deadline).await
    }

    async fn readmit(&self, device_name: &str) -> Result<(), BrokerError> {
        self.connector().await.readmit(device_name).await
    }
}

//! The connectors of the configuration. Each signs in to its broker with a client certificate of its own from the fleet,
//! under the name [`CONTROL_NAME`], which the broker's dynamic security plugin must let command. The fleet renews these
//! certificates itself.

use std::sync::Arc;

use kf_broker::{
    BrokerConnector, BrokerError, BrokerProcess, Control, CutBy, DeviceTopics, Mosquitto, MosquittoSettings,
    TlsIdentity,
};
use kf_crypto::PrivateKey;
use kf_fleet::{BrokerConfig, Fleet};
use kf_key::KeyAlgorithm;

use crate::failure::Failure;

/// Common name of the connectors' certificates, and the MQTT client identifier of their sessions.
const CONTROL_NAME: &str = "keyfleet-server";

/// Opens every connector that is configured.
///
/// # Errors
/// [`Failure`] naming the connector and its setting.
pub(crate) async fn open(fleet: &Fleet) -> Result<Vec<Arc<dyn BrokerConnector>>, Failure> {
    let mut connectors: Vec<Arc<dyn BrokerConnector>> = Vec::new();
    for config in &fleet.config().broker {
        let BrokerConfig::Mosquitto { name, .. } = config;
        let connector = connect(fleet, config).await.map_err(|error| {
            let source = std::error::Error::source(&error).map(|source| format!(": {source}")).unwrap_or_default();
            Failure::local(format!("broker {name}: {error}{source}"), "correct its [[broker]] table in keyfleet.toml")
        })?;
        connectors.push(Arc::new(connector));
    }
    Ok(connectors)
}

async fn connect(fleet: &Fleet, config: &BrokerConfig) -> Result<Mosquitto, BrokerError> {
    let BrokerConfig::Mosquitto { name, crl_file, pid_file, address, server_name } = config;
    let refuse = |setting: &'static str, reason: String| BrokerError::Configuration { setting, reason };
    let (host, port) = address
        .rsplit_once(':')
        .and_then(|(host, port)| Some((host.trim_matches(['[', ']']), port.parse().ok()?)))
        .ok_or_else(|| refuse("address", format!("`{address}` is not host:port")))?;
    let issued = fleet.broker_identity(CONTROL_NAME).await.map_err(|error| refuse("identity", error.to_string()))?;
    let key = PrivateKey::from_pkcs8(KeyAlgorithm::P256, &issued.key_pkcs8)
        .map_err(|_opaque| refuse("identity", "its key cannot be read".to_owned()))?;
    let control = Control {
        host: host.to_owned(),
        port,
        server_name: Some(server_name.clone()),
        identity: TlsIdentity { roots: fleet.client_anchors().as_ref().clone(), chain: issued.chain, key },
        client_id: CONTROL_NAME.to_owned(),
        cut_by: CutBy::DynamicSecurity(DeviceTopics::default()),
    };
    Mosquitto::open(MosquittoSettings {
        name: name.clone(),
        crl_file: crl_file.clone(),
        process: BrokerProcess::PidFile(pid_file.clone()),
        control: Some(control),
    })
}

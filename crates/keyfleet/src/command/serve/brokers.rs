//! The connectors of the configuration. Each gets a client certificate of its own from the fleet; its common name is
//! what the broker's dynamic security plugin lets command.

use std::sync::Arc;

use kf_broker::{
    BrokerConnector, BrokerProcess, Control, CutBy, DeviceTopics, Mosquitto, MosquittoSettings, TlsIdentity,
};
use kf_crypto::PrivateKey;
use kf_fleet::{BrokerConfig, Fleet};
use kf_key::KeyAlgorithm;

use crate::failure::Failure;

/// Opens every connector that is configured.
///
/// # Errors
/// [`Failure`] naming the connector and its setting.
pub(crate) async fn open(fleet: &Fleet) -> Result<Vec<Arc<dyn BrokerConnector>>, Failure> {
    let mut connectors: Vec<Arc<dyn BrokerConnector>> = Vec::new();
    for config in &fleet.config().broker {
        connectors.push(open_one(fleet, config).await?);
    }
    Ok(connectors)
}

async fn open_one(fleet: &Fleet, config: &BrokerConfig) -> Result<Arc<dyn BrokerConnector>, Failure> {
    let BrokerConfig::Mosquitto { name, crl_file, pid_file, address, server_name } = config;
    let refuse = |problem: String| {
        Failure::local(format!("broker {name}: {problem}"), "correct its [[broker]] table in keyfleet.toml")
    };
    let port = address
        .rsplit_once(':')
        .and_then(|(_host, port)| port.parse().ok())
        .ok_or_else(|| refuse(format!("address `{address}` is not host:port")))?;
    let issued = fleet.broker_identity(name).await?;
    let key = PrivateKey::from_pkcs8(KeyAlgorithm::P256, &issued.key_pkcs8)
        .map_err(|_unreadable| refuse("its key is not P-256".to_owned()))?;
    let control = Control {
        // The name in the certificate is what is verified; on this host it also resolves to the broker.
        host: server_name.clone(),
        port,
        identity: TlsIdentity { roots: fleet.client_anchors().as_ref().clone(), chain: issued.chain, key },
        client_id: format!("keyfleet-{name}"),
        cut_by: CutBy::DynamicSecurity(DeviceTopics { publish: Vec::new(), subscribe: Vec::new() }),
    };
    let settings = MosquittoSettings {
        name: name.clone(),
        crl_file: crl_file.clone(),
        process: BrokerProcess::PidFile(pid_file.clone()),
        control: Some(control),
    };
    let connector = Mosquitto::open(settings).map_err(|error| refuse(error.to_string()))?;
    Ok(Arc::new(connector))
}

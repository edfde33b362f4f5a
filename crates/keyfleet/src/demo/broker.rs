//! The broker of the demonstration: Mosquitto where it is installed, else the built-in mutual-TLS echo.

use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use kf_broker::{
    BrokerConnector, BrokerProcess, Control, CutBy, DeviceTopics, EchoBroker, EchoSettings, Mosquitto, MosquittoConfig,
    MosquittoProcess, MosquittoSettings, TlsIdentity, find_mosquitto,
};
use kf_crypto::PrivateKey;
use kf_fleet::ServerIdentity;
use kf_key::KeyAlgorithm;

use super::report::Report;
use super::stage::Stage;
use super::{BrokerChoice, DemoError, at, failed};

const STEP: &str = "broker";
const CONTROL_NAME: &str = "keyfleet-server";
const READY: Duration = Duration::from_secs(20);

/// A running broker.
pub(crate) struct Broker {
    kind: Kind,
    pub(crate) port: u16,
}

enum Kind {
    Mosquitto(Box<MosquittoProcess>),
    Echo,
}

impl Broker {
    pub(crate) async fn start(stage: &Stage, choice: BrokerChoice, report: &mut Report) -> Result<Self, DemoError> {
        let program = find_mosquitto().filter(|_| choice != BrokerChoice::Echo);
        let broker = match program {
            Some(program) => Self::start_mosquitto(stage, &program).await?,
            None if choice == BrokerChoice::Mosquitto => {
                return Err(failed(STEP, "Mosquitto is not installed: apt-get install mosquitto"));
            }
            None => Self::start_echo(stage).await?,
        };
        report.check(STEP, &format!("{} runs on port {}", broker.describe(), broker.port), true);
        Ok(broker)
    }

    /// What it is, for people.
    pub(crate) const fn describe(&self) -> &'static str {
        match self.kind {
            Kind::Mosquitto(_) => "Mosquitto",
            Kind::Echo => "the built-in mutual-TLS echo",
        }
    }

    /// How the agents' configuration names it.
    pub(crate) const fn telemetry_kind(&self) -> &'static str {
        match self.kind {
            Kind::Mosquitto(_) => "mqtt",
            Kind::Echo => "echo",
        }
    }

    async fn start_mosquitto(stage: &Stage, program: &std::path::Path) -> Result<Self, DemoError> {
        let directory = stage.path().join("mosquitto");
        std::fs::create_dir(&directory).map_err(at(STEP))?;
        let identity = stage.fleet.tls_server_identity(loopback_names()).await.map_err(at(STEP))?;
        let port = free_port()?;
        let authorities = stage.fleet.client_anchors();
        let config = MosquittoConfig {
            port,
            client_authorities_pem: authorities.iter().map(|der| kf_pki::pem::certificate(der)).collect(),
            server_chain_pem: identity.chain.iter().map(|der| kf_pki::pem::certificate(der)).collect(),
            server_key: key_of(&identity)?,
            control_name: CONTROL_NAME.to_owned(),
            crls: stage.fleet.broker_crls().await.map_err(at(STEP))?,
        };
        let files = config.write(&directory).map_err(at(STEP))?;
        let process = MosquittoProcess::start(program, &files.config, READY).await.map_err(at(STEP))?;
        let control = stage.fleet.broker_identity(CONTROL_NAME).await.map_err(at(STEP))?;
        let settings = MosquittoSettings {
            name: "mosquitto".to_owned(),
            crl_file: files.crl_file,
            process: BrokerProcess::Pid(process.pid()),
            control: Some(Control {
                host: "localhost".to_owned(),
                port,
                server_name: None,
                identity: tls_identity(stage, control)?,
                client_id: CONTROL_NAME.to_owned(),
                cut_by: CutBy::DynamicSecurity(DeviceTopics::default()),
            }),
        };
        let connector = Mosquitto::open(settings).map_err(at(STEP))?;
        stage.fleet.attach_broker(Arc::new(connector));
        Ok(Self { kind: Kind::Mosquitto(Box::new(process)), port })
    }

    async fn start_echo(stage: &Stage) -> Result<Self, DemoError> {
        let identity = stage.fleet.tls_server_identity(loopback_names()).await.map_err(at(STEP))?;
        let settings = EchoSettings {
            name: "echo".to_owned(),
            listen: ([127, 0, 0, 1], 0).into(),
            identity: tls_identity(stage, identity)?,
            crls: stage.fleet.broker_crls().await.map_err(at(STEP))?,
            max_sessions: 256,
        };
        let echo = EchoBroker::start(settings).await.map_err(at(STEP))?;
        let port = echo.address().port();
        let connector: Arc<dyn BrokerConnector> = Arc::new(echo);
        stage.fleet.attach_broker(connector);
        Ok(Self { kind: Kind::Echo, port })
    }

    pub(crate) async fn stop(self) {
        if let Kind::Mosquitto(process) = self.kind
            && let Err(error) = process.stop().await
        {
            crate::output::say(&format!("Mosquitto did not stop: {error}"));
        }
    }
}

fn loopback_names() -> Vec<String> {
    vec!["localhost".to_owned(), "127.0.0.1".to_owned()]
}

/// A port that was free a moment ago: Mosquitto takes no listening socket and reports no port of its own choice.
fn free_port() -> Result<u16, DemoError> {
    let listener = TcpListener::bind("127.0.0.1:0").map_err(at(STEP))?;
    Ok(listener.local_addr().map_err(at(STEP))?.port())
}

fn key_of(identity: &ServerIdentity) -> Result<PrivateKey, DemoError> {
    PrivateKey::from_pkcs8(KeyAlgorithm::P256, &identity.key_pkcs8)
        .map_err(|_opaque| failed(STEP, "the broker's key cannot be read"))
}

fn tls_identity(stage: &Stage, identity: ServerIdentity) -> Result<TlsIdentity, DemoError> {
    let key = key_of(&identity)?;
    Ok(TlsIdentity { roots: vec![stage.root.clone()], chain: identity.chain, key })
}

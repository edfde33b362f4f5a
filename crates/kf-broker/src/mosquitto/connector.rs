//! The connector.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use kf_key::UnixMillis;

use super::control::{ControlChannel, Endpoint, take_over};
use super::dynamic_security::{self, DeviceTopics};
use super::process;
use crate::connector::{BrokerConnector, Cut, PublishedCrl};
use crate::{BrokerError, TlsIdentity, crl_bundle, device_name};

/// How long one step at the broker may take.
const STEP_DEADLINE: Duration = Duration::from_secs(10);

/// Which process reads the CRL file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BrokerProcess {
    /// Its number stands in this file.
    PidFile(PathBuf),
    /// Its number.
    Pid(u32),
}

/// How sessions are cut.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CutBy {
    /// By the dynamic security plugin: every session of the name, whatever its client identifier; and the name is barred.
    /// Without topics the devices' roles are left to whoever manages them.
    DynamicSecurity(DeviceTopics),
    /// By connecting under the client identifier that equals the device name. Sessions under another identifier stay
    /// open, the name is not barred, and absence cannot be verified: use it only where the plugin cannot be had.
    ClientIdTakeover,
}

/// The connector's own session at the broker.
#[derive(Debug)]
pub struct Control {
    /// Host of a TLS listener.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// Name in the broker's certificate, where that is not `host`.
    pub server_name: Option<String>,
    /// A certificate whose common name the broker lets command, and the roots of the broker's certificate.
    pub identity: TlsIdentity,
    /// MQTT client identifier of the session.
    pub client_id: String,
    /// How to cut.
    pub cut_by: CutBy,
}

/// Settings of a connector.
#[derive(Debug)]
pub struct MosquittoSettings {
    /// Name in reports.
    pub name: String,
    /// The listener's `crlfile`.
    pub crl_file: PathBuf,
    /// The process to be signalled.
    pub process: BrokerProcess,
    /// The session for commands; without it CRLs are published and nothing else can be done or verified.
    pub control: Option<Control>,
}

/// Mosquitto as a [`BrokerConnector`].
pub struct Mosquitto {
    name: String,
    crl_file: PathBuf,
    process: BrokerProcess,
    control: Mutex<Option<Arc<OpenControl>>>,
}

struct OpenControl {
    channel: ControlChannel,
    endpoint: Endpoint,
    server_name: Option<String>,
    client_id: String,
    cut_by: CutBy,
    /// Common name of the certificate in use, and when the next one is due.
    due: Option<(String, UnixMillis)>,
}

impl std::fmt::Debug for Mosquitto {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mosquitto")
            .field("name", &self.name)
            .field("crl_file", &self.crl_file)
            .field("process", &self.process)
            .finish_non_exhaustive()
    }
}

impl Mosquitto {
    /// Opens the connector; the session for commands connects in the background, and again when it breaks. Must be
    /// called inside a tokio runtime.
    ///
    /// # Errors
    /// [`BrokerError::Configuration`].
    pub fn open(settings: MosquittoSettings) -> Result<Self, BrokerError> {
        let MosquittoSettings { name, crl_file, process, control } = settings;
        let control = match control {
            None => None,
            Some(Control { host, port, server_name, identity, client_id, cut_by }) => {
                let tls = identity.client_config_for(server_name.as_deref())?;
                let endpoint = Endpoint { host, port, tls };
                let channel = ControlChannel::open(endpoint.clone(), &client_id);
                let due = identity.name_and_half_life();
                Some(Arc::new(OpenControl { channel, endpoint, server_name, client_id, cut_by, due }))
            }
        };
        Ok(Self { name, crl_file, process, control: Mutex::new(control) })
    }

    fn pid(&self) -> Result<u32, BrokerError> {
        match &self.process {
            BrokerProcess::Pid(pid) => Ok(*pid),
            BrokerProcess::PidFile(path) => {
                let failed = |source| BrokerError::File { action: "read", path: path.display().to_string(), source };
                let text = std::fs::read_to_string(path).map_err(failed)?;
                text.trim().parse().map_err(|_not_a_number| BrokerError::Configuration {
                    setting: "pid_file",
                    reason: "it holds no process number".to_owned(),
                })
            }
        }
    }

    fn open_control(&self) -> Option<Arc<OpenControl>> {
        // Replaced as a whole: nothing half done can be seen after a panic elsewhere.
        self.control.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn control(&self, what: &'static str) -> Result<Arc<OpenControl>, BrokerError> {
        let remedy = "give the connector a control certificate and load mosquitto_dynamic_security.so";
        self.open_control().ok_or(BrokerError::Unsupported { what, remedy })
    }

    async fn allow(&self, device: &str) -> Result<(), BrokerError> {
        device_name::check(device)?;
        let control = self.control("admit devices by name")?;
        let CutBy::DynamicSecurity(topics) = &control.cut_by else {
            return Ok(());
        };
        control.channel.forget(device);
        control.channel.command(&dynamic_security::allow(device, topics), STEP_DEADLINE).await.map(|_outcome| ())
    }
}

impl OpenControl {
    /// Returns when the broker has been around its loop, so that everything it logged before has reached us.
    async fn barrier(&self) -> Result<(), BrokerError> {
        match &self.cut_by {
            CutBy::DynamicSecurity(_) => {
                self.channel.command(&dynamic_security::barrier(), STEP_DEADLINE).await.map(|_outcome| ())
            }
            CutBy::ClientIdTakeover => self.channel.round_trip(STEP_DEADLINE).await,
        }
    }

    async fn reload(&self, pid: u32) -> Result<(), BrokerError> {
        // A broken control session must not keep the CRL from being read.
        if let Err(error) = self.barrier().await {
            process::signal_reload(pid)?;
            return Err(error);
        }
        let before = self.channel.reloads();
        process::signal_reload(pid)?;
        if self.channel.hears_log() && !self.channel.wait_reload(before, STEP_DEADLINE).await {
            return Err(BrokerError::Timeout { step: "reload" });
        }
        // The broker reads its files between two rounds of its loop: after the second answer it has.
        self.barrier().await?;
        self.barrier().await?;
        match self.channel.errors() {
            errors if errors.is_empty() => Ok(()),
            errors => Err(BrokerError::Refused { command: "reload", reason: errors.join("; ") }),
        }
    }
}

#[async_trait]
impl BrokerConnector for Mosquitto {
    fn name(&self) -> &str {
        &self.name
    }

    async fn publish_crls(&self, crls: &[PublishedCrl]) -> Result<(), BrokerError> {
        let text = crl_bundle::bundle(crls)?;
        let path = self.crl_file.clone();
        let written = tokio::task::spawn_blocking(move || crl_bundle::replace_file(&path, text.as_bytes()));
        written.await.map_err(|_aborted| BrokerError::Timeout { step: "publish" })?
    }

    async fn reload(&self) -> Result<(), BrokerError> {
        let pid = self.pid()?;
        match self.open_control() {
            Some(control) => control.reload(pid).await,
            None => process::signal_reload(pid),
        }
    }

    async fn admit(&self, device_name: &str) -> Result<(), BrokerError> {
        self.allow(device_name).await
    }

    async fn cut(&self, device_name: &str) -> Result<Cut, BrokerError> {
        device_name::check(device_name)?;
        let control = self.control("cut a session")?;
        if !control.channel.watch(device_name) {
            let reason = "too many devices wait to be verified at once".to_owned();
            return Err(BrokerError::Refused { command: "cut", reason });
        }
        match &control.cut_by {
            CutBy::DynamicSecurity(topics) => {
                let batch = dynamic_security::bar(device_name, topics);
                let outcome = control.channel.command(&batch, STEP_DEADLINE).await?;
                Ok(if outcome.closed_session { Cut::Closed } else { Cut::NoSession })
            }
            CutBy::ClientIdTakeover => {
                take_over(&control.endpoint, device_name, STEP_DEADLINE).await?;
                Ok(Cut::Closed)
            }
        }
    }

    async fn verify_gone(&self, device_name: &str, deadline: Duration) -> Result<bool, BrokerError> {
        let what = "tell who is connected";
        let control = self.control(what)?;
        if control.cut_by == CutBy::ClientIdTakeover {
            return Err(BrokerError::Unsupported { what, remedy: "load mosquitto_dynamic_security.so" });
        }
        if control.channel.is_connected(device_name).is_none() {
            self.cut(device_name).await?;
        }
        control.barrier().await?;
        if !control.channel.hears_log() {
            let remedy = "set `log_dest topic`, log types error, notice and information, and let the control \
                          certificate read $SYS/broker/log/#";
            return Err(BrokerError::Unsupported { what, remedy });
        }
        let gone = control.channel.wait_gone(device_name, deadline).await;
        if gone {
            control.channel.forget(device_name);
        }
        Ok(gone)
    }

    async fn readmit(&self, device_name: &str) -> Result<(), BrokerError> {
        self.allow(device_name).await
    }

    async fn send_order(&self, device_name: &str, message: &[u8]) -> Result<bool, BrokerError> {
        device_name::check(device_name)?;
        let Some(control) = self.open_control() else { return Ok(false) };
        let topic = format!("devices/{device_name}/orders");
        control.channel.publish(&topic, message, STEP_DEADLINE).await.map(|()| true)
    }

    fn identity_due(&self, now: UnixMillis) -> Option<String> {
        let control = self.open_control()?;
        control.due.as_ref().filter(|(_name, due)| now >= *due).map(|(name, _due)| name.clone())
    }

    async fn renew_identity(&self, identity: TlsIdentity) -> Result<(), BrokerError> {
        let former = self.control("sign in")?;
        let server_name = former.server_name.clone();
        let tls = identity.client_config_for(server_name.as_deref())?;
        let endpoint = Endpoint { tls, ..former.endpoint.clone() };
        // Two sessions under one client identifier would throw each other out for ever.
        former.channel.close();
        let channel = ControlChannel::open(endpoint.clone(), &former.client_id);
        let (client_id, cut_by) = (former.client_id.clone(), former.cut_by.clone());
        let due = identity.name_and_half_life();
        let renewed = OpenControl { channel, endpoint, server_name, client_id, cut_by, due };
        *self.control.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(renewed));
        Ok(())
    }
}

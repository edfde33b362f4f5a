//! A working configuration for a broker of our own, on loopback.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use kf_crypto::PrivateKey;
use serde_json::json;

use crate::crl_bundle::replace_file_with_mode;
use crate::{BrokerError, PublishedCrl, crl_bundle, device_name};

/// Where distributions put the plugin.
const PLUGIN_DIRECTORIES: [&str; 5] = [
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu",
    "/usr/lib/arm-linux-gnueabihf",
    "/usr/lib64",
    "/usr/lib",
];

fn find_plugin() -> Result<PathBuf, BrokerError> {
    let mut places = PLUGIN_DIRECTORIES.iter().map(|place| Path::new(place).join("mosquitto_dynamic_security.so"));
    places.find(|path| path.is_file()).ok_or_else(|| {
        let reason = "mosquitto_dynamic_security.so is not installed: it comes with Debian's mosquitto".to_owned();
        BrokerError::Configuration { setting: "plugin", reason }
    })
}

/// What a demonstration broker is made of: one TLS listener on 127.0.0.1 that admits only certificates of `roots` that
/// are not revoked, takes their common name as user name and client identifier (so that no device can take over the
/// session of another), and lets one name command the dynamic security plugin.
#[derive(Debug)]
pub struct MosquittoConfig {
    /// Port on 127.0.0.1.
    pub port: u16,
    /// Root and issuing CA certificates, PEM, that clients' certificates lead to.
    pub client_authorities_pem: String,
    /// The broker's chain, PEM, leaf first.
    pub server_chain_pem: String,
    /// The broker's key.
    pub server_key: PrivateKey,
    /// Common name of the connector's certificate.
    pub control_name: String,
    /// The CRLs to begin with: one of every issuing CA, or that CA's devices are refused.
    pub crls: Vec<PublishedCrl>,
}

/// What was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MosquittoFiles {
    /// `mosquitto.conf`.
    pub config: PathBuf,
    /// The CRL file, for [`crate::MosquittoSettings::crl_file`].
    pub crl_file: PathBuf,
}

impl MosquittoConfig {
    /// Writes the configuration into an existing directory that only its owner can enter.
    ///
    /// # Errors
    /// [`BrokerError`].
    pub fn write(&self, directory: &Path) -> Result<MosquittoFiles, BrokerError> {
        device_name::check(&self.control_name)?;
        let file = |name: &str| directory.join(name);
        let files = MosquittoFiles { config: file("mosquitto.conf"), crl_file: file("crl.pem") };
        crl_bundle::replace_file(&files.crl_file, crl_bundle::bundle(&self.crls)?.as_bytes())?;
        crl_bundle::replace_file(&file("authorities.pem"), self.client_authorities_pem.as_bytes())?;
        crl_bundle::replace_file(&file("server.pem"), self.server_chain_pem.as_bytes())?;
        let pkcs8 = self
            .server_key
            .to_pkcs8()
            .map_err(|error| BrokerError::Configuration { setting: "server_key", reason: error.to_string() })?;
        // Exposed to the file that the broker reads it from, in a directory that lasts as long as the demonstration.
        let key_pem = kf_key::SecretBytes::from_vec(pem("PRIVATE KEY", pkcs8.expose()).into_bytes());
        replace_file_with_mode(&file("server.key"), key_pem.expose(), 0o600)?;
        replace_file_with_mode(&file("dynamic-security.json"), self.dynamic_security().as_bytes(), 0o600)?;
        crl_bundle::replace_file(&files.config, self.text(directory)?.as_bytes())?;
        Ok(files)
    }

    fn text(&self, directory: &Path) -> Result<String, BrokerError> {
        let directory = directory.to_str().filter(|path| !path.contains(['\n', '\r'])).ok_or_else(|| {
            let reason = "the path is not text of one line".to_owned();
            BrokerError::Configuration { setting: "directory", reason }
        })?;
        let mut text = String::new();
        // Started as root the broker would change to a user that cannot read this directory.
        if rustix::process::geteuid().is_root() {
            text.push_str("user root\n");
        }
        let port = self.port;
        let plugin = find_plugin()?;
        let plugin = plugin.display();
        let written = write!(
            text,
            "per_listener_settings false\n\
             allow_anonymous false\n\
             persistence false\n\
             log_dest stderr\n\
             log_dest topic\n\
             log_type error\n\
             log_type warning\n\
             log_type notice\n\
             log_type information\n\
             connection_messages true\n\
             set_tcp_nodelay true\n\
             max_packet_size 65536\n\
             max_inflight_messages 20\n\
             max_queued_messages 1000\n\
             plugin {plugin}\n\
             plugin_opt_config_file {directory}/dynamic-security.json\n\
             listener {port} 127.0.0.1\n\
             cafile {directory}/authorities.pem\n\
             certfile {directory}/server.pem\n\
             keyfile {directory}/server.key\n\
             crlfile {directory}/crl.pem\n\
             tls_version tlsv1.2\n\
             require_certificate true\n\
             use_identity_as_username true\n\
             use_username_as_clientid true\n"
        );
        written.map_err(|_never| BrokerError::Configuration { setting: "directory", reason: String::new() })?;
        Ok(text)
    }

    /// Nobody may do anything, but the control name may command and read the log.
    fn dynamic_security(&self) -> String {
        let allow = |kind: &str, topic: &str| json!({"acltype": kind, "topic": topic, "allow": true});
        json!({
            "defaultACLAccess": {
                "publishClientSend": false, "publishClientReceive": false, "subscribe": false, "unsubscribe": true
            },
            "clients": [{"username": self.control_name, "roles": [{"rolename": "keyfleet-control"}]}],
            "groups": [],
            "roles": [{"rolename": "keyfleet-control", "acls": [
                allow("publishClientSend", "$CONTROL/dynamic-security/#"),
                allow("publishClientSend", "devices/+/orders"),
                allow("publishClientReceive", "$CONTROL/dynamic-security/#"),
                allow("subscribePattern", "$CONTROL/dynamic-security/#"),
                allow("publishClientReceive", "$SYS/broker/log/#"),
                allow("subscribePattern", "$SYS/broker/log/#"),
            ]}],
        })
        .to_string()
    }
}

fn pem(label: &'static str, der: &[u8]) -> String {
    der::pem::encode_string(label, der::pem::LineEnding::LF, der).unwrap_or_default()
}

//! `keyfleet.toml` and the layout of the data directory. Unknown fields are refused; every field has a safe default or
//! is required; secrets are referred to, never contained.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::FleetError;

/// The whole configuration.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FleetConfig {
    /// Name of the fleet: organisation in certificates, origin of the log. 1 to 64 characters.
    pub fleet: String,
    /// Where to listen.
    pub listen: ListenConfig,
    /// Where keys live; see `kf_signer::SignerConfig`.
    pub signer: kf_signer::SignerConfig,
    /// Directory outside this host (a file share) that keeps the newest checkpoint and the revocation fence.
    #[serde(default)]
    pub witness_dir: Option<PathBuf>,
    /// Directory in which backups are made; `backups` below the data directory when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup_dir: Option<PathBuf>,
    /// One person runs this fleet.
    #[serde(default)]
    pub single_control: bool,
    /// A permanent act on more devices than this needs two people.
    #[serde(default = "default_devices_above")]
    pub dual_control_above: u64,
    /// A batch of more devices than this needs two people.
    #[serde(default = "default_batch_above")]
    pub batch_dual_control_above: u64,
    /// Seconds between thisUpdate and nextUpdate of CRLs. Default 86,400.
    #[serde(default = "default_crl_seconds")]
    pub crl_lifetime_seconds: u64,
    /// Seconds an OCSP answer is valid. Default 3,600.
    #[serde(default = "default_ocsp_seconds")]
    pub ocsp_lifetime_seconds: u64,
    /// The rotation policy, a reviewed file; relative to the data directory. The built-in one when absent.
    #[serde(default)]
    pub rotation_policy_file: Option<PathBuf>,
    /// Whether the server makes new key epochs of facilities by itself when the policy asks for them, and retires those that
    /// nobody holds. Otherwise people do, with `keyfleet rotate`.
    #[serde(default)]
    pub rotation_automatic: bool,
    /// Requests in a second that this server is known to bear, for `campaign estimate`; not judged when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub campaign_requests_per_second: Option<u32>,
    /// Signatures in a second that it is known to bear; measured on one core at each estimate when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub campaign_signatures_per_second: Option<u32>,
    /// Days after which a drill is overdue, and every status says so; 0 for never. Default 180.
    #[serde(default = "default_drill_days")]
    pub drill_days: u32,
    /// A program that is called when break-glass is opened, with what, which and by whom; no shell, no environment, 30 seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alarm_command: Option<PathBuf>,
    /// Brokers to keep revoked devices out of.
    #[serde(default)]
    pub broker: Vec<BrokerConfig>,
    /// Written by `keyfleet demo`: `serve` refuses such data.
    #[serde(default)]
    pub demo: bool,
}

const fn default_devices_above() -> u64 {
    10
}

const fn default_batch_above() -> u64 {
    1_000
}

const fn default_drill_days() -> u32 {
    180
}

const fn default_crl_seconds() -> u64 {
    86_400
}

const fn default_ocsp_seconds() -> u64 {
    3_600
}

/// Where the server listens, and what the world calls it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListenConfig {
    /// HTTPS: EST and the API. Default `127.0.0.1:8443`.
    #[serde(default = "default_https")]
    pub https: String,
    /// Plain HTTP: CRLs, OCSP and CA certificates only. Default `127.0.0.1:8080`.
    #[serde(default = "default_http")]
    pub http: String,
    /// DNS names and addresses in the server's own certificate. Default `localhost`, `127.0.0.1`.
    #[serde(default = "default_names")]
    pub names: Vec<String>,
    /// Base of the plain HTTP addresses baked into certificates. Default `http://127.0.0.1:8080`.
    #[serde(default = "default_base_url")]
    pub public_http: String,
}

fn default_https() -> String {
    "127.0.0.1:8443".into()
}

fn default_http() -> String {
    "127.0.0.1:8080".into()
}

fn default_names() -> Vec<String> {
    vec!["localhost".into(), "127.0.0.1".into()]
}

fn default_base_url() -> String {
    "http://127.0.0.1:8080".into()
}

impl Default for ListenConfig {
    fn default() -> Self {
        Self { https: default_https(), http: default_http(), names: default_names(), public_http: default_base_url() }
    }
}

/// A broker that must keep revoked devices out.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", tag = "kind")]
pub enum BrokerConfig {
    /// Eclipse Mosquitto on this host, with the dynamic-security plugin.
    Mosquitto {
        /// Name in reports.
        name: String,
        /// `crlfile` of mosquitto.conf.
        crl_file: PathBuf,
        /// `pid_file` of mosquitto.conf.
        pid_file: PathBuf,
        /// Address of a listener with TLS and client certificates, `host:port`.
        address: String,
        /// Name in the broker's certificate.
        server_name: String,
    },
}

/// The files of one fleet.
#[derive(Clone, Debug)]
pub struct DataDir(PathBuf);

impl DataDir {
    /// The directory; nothing is touched.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// The directory itself.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The configuration.
    #[must_use]
    pub fn config_file(&self) -> PathBuf {
        self.0.join("keyfleet.toml")
    }

    /// The registry.
    #[must_use]
    pub fn database(&self) -> PathBuf {
        self.0.join("registry.sqlite")
    }

    /// The versions of the wrapping key, sealed under the root. Outside the registry, so that no backup holds them.
    #[must_use]
    pub fn wrapping_keys(&self) -> PathBuf {
        self.0.join("wrapping.keys")
    }

    /// The published log: checkpoint and tiles.
    #[must_use]
    pub fn log_dir(&self) -> PathBuf {
        self.0.join("log")
    }

    /// What `keyfleet restore` left for the next start: which backup the registry is from.
    #[must_use]
    pub fn restored_marker(&self) -> PathBuf {
        self.0.join("restored.json")
    }

    /// Where backups are made unless the configuration names another place.
    #[must_use]
    pub fn backups(&self) -> PathBuf {
        self.0.join("backups")
    }

    /// The root certificate, PEM.
    #[must_use]
    pub fn root_certificate(&self) -> PathBuf {
        self.0.join("root.pem")
    }

    /// The log's verifier key, for auditors.
    #[must_use]
    pub fn verifier_key(&self) -> PathBuf {
        self.0.join("log.vkey")
    }

    /// The first owner's API token, mode 0600, to be moved to where the owner works.
    #[must_use]
    pub fn owner_token(&self) -> PathBuf {
        self.0.join("owner.token")
    }

    /// Reads the configuration.
    ///
    /// # Errors
    /// [`FleetError::Local`] when it cannot be read, [`FleetError::Invalid`] naming an unknown or wrong field.
    pub fn load_config(&self) -> Result<FleetConfig, FleetError> {
        let path = self.config_file();
        let text = std::fs::read_to_string(&path)
            .map_err(|error| FleetError::Local { path: path.display().to_string(), problem: error.to_string() })?;
        toml::from_str(&text).map_err(|error| {
            FleetError::invalid(
                path.display().to_string(),
                error.to_string().trim_end().to_owned(),
                "correct the line; `keyfleet serve --check-config` tries it without starting",
            )
        })
    }
}

//! The configuration file: TOML, unknown fields refused, references to secrets but never secrets.

mod fleet;

use std::path::{Path, PathBuf};
use std::time::Duration;

use kf_key::KeyAlgorithm;
use serde::Deserialize;

pub use fleet::{DeviceKeySettings, Orders, SealedTelemetry, SealingSession};

/// The most octets of a configuration file.
const MAX_CONFIG_OCTETS: u64 = 64 * 1024;

/// Why a configuration is not accepted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("the configuration {path} cannot be read")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Larger than any configuration has to be.
    #[error("the configuration is larger than {MAX_CONFIG_OCTETS} octets")]
    TooLarge,
    /// Not TOML, an unknown field, or a value of the wrong type.
    #[error("the configuration is not valid: {0}")]
    Syntax(#[from] toml::de::Error),
    /// A value that cannot work.
    #[error("`{field}`: {reason}")]
    Value {
        /// Which field.
        field: &'static str,
        /// What is wrong with it, and what to write.
        reason: &'static str,
    },
}

/// Settings of one device's agent.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// `https://host[:port]` of the server.
    pub server: String,
    /// EST label of the product line; the server's default when absent.
    #[serde(default)]
    pub label: Option<String>,
    /// Name of the device: the user name that goes with an enrolment code.
    pub device_name: String,
    /// Where the identity is kept; made with mode 0700 when missing.
    pub state_dir: PathBuf,
    /// Whom to believe.
    pub trust: Trust,
    /// How to get the first certificate; may be absent once there is one.
    #[serde(default)]
    pub bootstrap: Bootstrap,
    /// The private key.
    #[serde(default)]
    pub key: Key,
    /// What happens around a renewal.
    #[serde(default)]
    pub renewal: Renewal,
    /// Messages to a broker: a counter that shows that the identity works, or what others hand over, sealed.
    #[serde(default)]
    pub telemetry: Option<Telemetry>,
    /// The symmetric key of the device.
    #[serde(default)]
    pub device_key: Option<DeviceKeySettings>,
    /// Orders that the device obeys.
    #[serde(default)]
    pub orders: Option<Orders>,
}

/// The anchor; exactly one of the two.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trust {
    /// The fleet's root certificate, PEM.
    #[serde(default)]
    pub root_file: Option<PathBuf>,
    /// SHA-256 of the root certificate's DER, hexadecimal. The certificate is fetched and kept.
    #[serde(default)]
    pub root_sha256: Option<String>,
}

/// How to get a certificate without having one. At most one source of a code; an IDevID may be given beside it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Bootstrap {
    /// A file that holds the enrolment code.
    pub code_file: Option<PathBuf>,
    /// An inherited file descriptor to read the enrolment code from.
    pub code_fd: Option<u32>,
    /// Name of a systemd credential that holds the enrolment code.
    pub code_credential: Option<String>,
    /// The IDevID's chain, PEM, leaf first.
    pub idevid_chain_file: Option<PathBuf>,
    /// The IDevID's key, PKCS#8 PEM.
    pub idevid_key_file: Option<PathBuf>,
    /// The IDevID's key as a factory station stored it: sealed under the seal key of this device, or what finds it in the
    /// hardware that `key.kind` names. Instead of `idevid_key_file`.
    pub idevid_sealed_key_file: Option<PathBuf>,
}

/// Where the private key lives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum KeyKind {
    /// In a file, sealed or plain.
    #[default]
    Software,
    /// In a TPM 2.0, never exportable.
    Tpm,
    /// In a PKCS#11 token, never exportable.
    Pkcs11,
    /// In a secure element of the ATECC608 class, never exportable.
    SecureElement,
}

/// The secure element that holds the key.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SecureElement {
    /// The kernel's I2C bus, an absolute path.
    pub bus: PathBuf,
    /// Its seven-bit address.
    pub address: u8,
}

impl Default for SecureElement {
    fn default() -> Self {
        Self { bus: PathBuf::from("/dev/i2c-1"), address: kf_secure_element::DEFAULT_ADDRESS }
    }
}

/// The TPM that holds the key.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Tpm {
    /// `device:/dev/tpmrm0`, or `swtpm:host=127.0.0.1,port=PORT` for an emulator.
    pub address: String,
    /// The longest wait for one answer, in seconds, 1 to 300.
    pub deadline_seconds: u32,
    /// Platform configuration registers of the SHA-256 bank that must hold what they hold when the keys are made, or
    /// what was approved. None: the keys work after every boot.
    pub pcrs: Vec<u8>,
    /// Public key (P-256, PEM) of who approves boot states; without it only the boot state of the making is good.
    pub policy_authority_file: Option<PathBuf>,
    /// Approved boot states, JSON; read at each start.
    pub approvals_file: Option<PathBuf>,
}

impl Default for Tpm {
    fn default() -> Self {
        Self {
            address: "device:/dev/tpmrm0".to_owned(),
            deadline_seconds: 20,
            pcrs: Vec::new(),
            policy_authority_file: None,
            approvals_file: None,
        }
    }
}

/// The token that holds the key.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pkcs11 {
    /// The token's PKCS#11 module, an absolute path.
    pub module: PathBuf,
    /// CKA_LABEL of the token.
    pub token: String,
}

/// The private key and how it rests.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Key {
    /// Where it lives: `software`, `tpm`, `pkcs11` or `secure-element`.
    pub kind: KeyKind,
    /// The TPM, for `kind = "tpm"`.
    pub tpm: Tpm,
    /// The token, for `kind = "pkcs11"`.
    pub pkcs11: Option<Pkcs11>,
    /// The secure element, for `kind = "secure-element"`.
    pub secure_element: SecureElement,
    /// `p-256`, `p-384` or `ed25519`.
    pub algorithm: KeyAlgorithm,
    /// An inherited file descriptor to read the seal key from: 32 octets, or 64 hexadecimal digits. With a TPM it is the
    /// authorisation value of the key and may be left out; with a token it is the PIN, as it is typed.
    pub seal_fd: Option<u32>,
    /// Name of a systemd credential that holds the seal key.
    pub seal_credential: Option<String>,
    /// Keep the key unwrapped in a file of mode 0600. Said on every start.
    pub allow_plain_key: bool,
}

impl Default for Key {
    fn default() -> Self {
        Self {
            kind: KeyKind::Software,
            tpm: Tpm::default(),
            pkcs11: None,
            secure_element: SecureElement::default(),
            algorithm: KeyAlgorithm::P256,
            seal_fd: None,
            seal_credential: None,
            allow_plain_key: false,
        }
    }
}

/// Around a renewal.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Renewal {
    /// Program and arguments, run without a shell after every change of the certificate.
    pub hook: Vec<String>,
    /// How long the hook may take, 1 to 3,600 seconds.
    pub hook_deadline_seconds: u32,
    /// An https address that a new certificate must be able to GET before the old one is dropped; the server's
    /// `cacerts` when absent.
    pub prove_url: Option<String>,
    /// Where to keep a copy of the certificate chain, PEM, for other programs.
    pub export_chain_file: Option<PathBuf>,
}

impl Default for Renewal {
    fn default() -> Self {
        Self { hook: Vec::new(), hook_deadline_seconds: 60, prove_url: None, export_chain_file: None }
    }
}

/// What the broker speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TelemetryKind {
    /// MQTT 3.1.1 over mutual TLS.
    Mqtt,
    /// Lines over mutual TLS that come back: the server's built-in echo.
    Echo,
}

/// Counter messages to a broker.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Telemetry {
    /// `mqtt` or `echo`.
    pub kind: TelemetryKind,
    /// Host name, as in the broker's certificate.
    pub host: String,
    /// Port.
    pub port: u16,
    /// MQTT topic, `devices/<name>/up` when absent; of sealed messages `devices/<name>/sealed/<service>`.
    #[serde(default)]
    pub topic: Option<String>,
    /// Milliseconds between counter messages, 50 to 86,400,000.
    #[serde(default = "default_interval_millis")]
    pub interval_millis: u32,
    /// The longest wait before the next attempt to connect, in milliseconds, 50 to 3,600,000.
    #[serde(default = "default_reconnect_max_millis")]
    pub reconnect_max_millis: u32,
    /// Sealed messages from elsewhere, in place of the counter.
    #[serde(default)]
    pub sealed: Option<SealedTelemetry>,
}

const fn default_interval_millis() -> u32 {
    60_000
}

const fn default_reconnect_max_millis() -> u32 {
    30_000
}

const fn refuse(field: &'static str, reason: &'static str) -> ConfigError {
    ConfigError::Value { field, reason }
}

impl Config {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        Self::parse(&Self::read(path)?)
    }

    fn read(path: &Path) -> Result<String, ConfigError> {
        let failed = |source| ConfigError::Read { path: path.to_owned(), source };
        if std::fs::metadata(path).map_err(failed)?.len() > MAX_CONFIG_OCTETS {
            return Err(ConfigError::TooLarge);
        }
        std::fs::read_to_string(path).map_err(failed)
    }

    /// As [`Config::load`], with the key elsewhere than the file says.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn load_with_key(path: &Path, kind: KeyKind) -> Result<Self, ConfigError> {
        let mut config: Self = toml::from_str(&Self::read(path)?)?;
        config.key.kind = kind;
        config.check()?;
        Ok(config)
    }

    /// Reads and checks a text.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        let config: Self = toml::from_str(text)?;
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<(), ConfigError> {
        if !self.server.starts_with("https://") {
            return Err(refuse("server", "begins with https://"));
        }
        if self.device_name.is_empty() || self.device_name.len() > 64 || !self.device_name.chars().all(fits_name) {
            return Err(refuse("device_name", "1 to 64 letters, digits, `-`, `.`, `_` or `:`"));
        }
        match (&self.trust.root_file, &self.trust.root_sha256) {
            (Some(_), None) => {}
            (None, Some(_)) => {
                self.root_sha256()?;
            }
            _ => return Err(refuse("trust", "give exactly one of root_file and root_sha256")),
        }
        self.bootstrap.check()?;
        self.key.check()?;
        self.renewal.check()?;
        self.telemetry.as_ref().map_or(Ok(()), Telemetry::check)?;
        self.check_fleet()
    }

    /// The pinned fingerprint, if there is one.
    pub(crate) fn root_sha256(&self) -> Result<Option<[u8; 32]>, ConfigError> {
        let Some(text) = &self.trust.root_sha256 else { return Ok(None) };
        let reason = "64 hexadecimal digits: the SHA-256 of the root certificate's DER";
        hex_octets(&text.replace(':', "")).map(Some).ok_or_else(|| refuse("trust.root_sha256", reason))
    }
}

const fn fits_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_' | ':')
}

/// 32 octets from 64 hexadecimal digits.
pub(crate) fn hex_octets(text: &str) -> Option<[u8; 32]> {
    let mut octets = [0; 32];
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    for (octet, pair) in octets.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        *octet = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(octets)
}

impl Bootstrap {
    fn check(&self) -> Result<(), ConfigError> {
        let sources = [self.code_file.is_some(), self.code_fd.is_some(), self.code_credential.is_some()];
        if sources.iter().filter(|given| **given).count() > 1 {
            return Err(refuse("bootstrap", "give one of code_file, code_fd and code_credential"));
        }
        if self.idevid_key_file.is_some() && self.idevid_sealed_key_file.is_some() {
            return Err(refuse("bootstrap", "give one of idevid_key_file and idevid_sealed_key_file"));
        }
        let has_key = self.idevid_key_file.is_some() || self.idevid_sealed_key_file.is_some();
        if self.idevid_chain_file.is_some() != has_key {
            return Err(refuse("bootstrap", "idevid_chain_file and a file of its key go together"));
        }
        Ok(())
    }
}

impl Key {
    fn check(&self) -> Result<(), ConfigError> {
        if !self.algorithm.may_sign_certificates() {
            return Err(refuse("key.algorithm", "p-256, p-384, ed25519, ml-dsa-44, ml-dsa-65 or ml-dsa-87"));
        }
        match self.kind {
            KeyKind::Software => {}
            KeyKind::Tpm => return self.check_tpm(),
            KeyKind::Pkcs11 => return self.check_pkcs11(),
            KeyKind::SecureElement => return self.check_secure_element(),
        }
        match (self.seal_fd.is_some(), self.seal_credential.is_some(), self.allow_plain_key) {
            (true, false, false) | (false, true, false) | (false, false, true) => Ok(()),
            (false, false, false) => Err(refuse(
                "key",
                "give seal_fd or seal_credential, or allow the key to rest unwrapped: allow_plain_key = true",
            )),
            _ => Err(refuse("key", "give exactly one of seal_fd, seal_credential and allow_plain_key")),
        }
    }
}

impl Key {
    fn check_hardware(&self) -> Result<(), ConfigError> {
        if self.algorithm != KeyAlgorithm::P256 {
            return Err(refuse("key.algorithm", "a key in hardware is p-256"));
        }
        if self.allow_plain_key {
            return Err(refuse("key.allow_plain_key", "a key in hardware never rests unwrapped: leave it out"));
        }
        if self.seal_fd.is_some() && self.seal_credential.is_some() {
            return Err(refuse("key", "give at most one of seal_fd and seal_credential"));
        }
        Ok(())
    }

    fn check_tpm(&self) -> Result<(), ConfigError> {
        self.check_hardware()?;
        let Tpm { address: _, deadline_seconds, pcrs, policy_authority_file, approvals_file } = &self.tpm;
        if !(1..=300).contains(deadline_seconds) {
            return Err(refuse("key.tpm.deadline_seconds", "1 to 300"));
        }
        if pcrs.iter().any(|register| *register > 23) {
            return Err(refuse("key.tpm.pcrs", "registers are 0 to 23"));
        }
        if policy_authority_file.is_some() != approvals_file.is_some() {
            return Err(refuse("key.tpm", "policy_authority_file and approvals_file go together"));
        }
        if policy_authority_file.is_some() && pcrs.is_empty() {
            return Err(refuse("key.tpm.pcrs", "name the registers that the policy authority approves"));
        }
        Ok(())
    }

    fn check_secure_element(&self) -> Result<(), ConfigError> {
        self.check_hardware()?;
        let SecureElement { bus, address } = &self.secure_element;
        if !bus.is_absolute() {
            return Err(refuse("key.secure_element.bus", "an absolute path, /dev/i2c-1 for example"));
        }
        if !(0x08..=0x77).contains(address) {
            return Err(refuse("key.secure_element.address", "a seven-bit address, 8 to 119"));
        }
        if self.seal_fd.is_some() || self.seal_credential.is_some() {
            return Err(refuse("key", "a secure element asks for no value: leave seal_fd and seal_credential out"));
        }
        Ok(())
    }

    fn check_pkcs11(&self) -> Result<(), ConfigError> {
        self.check_hardware()?;
        let Some(token) = &self.pkcs11 else {
            return Err(refuse("key.pkcs11", "name the token's module and label"));
        };
        if !token.module.is_absolute() {
            return Err(refuse("key.pkcs11.module", "an absolute path: a bare name would be searched for"));
        }
        if self.seal_fd.is_none() && self.seal_credential.is_none() {
            return Err(refuse("key", "give the token's PIN by seal_fd or seal_credential"));
        }
        Ok(())
    }
}

impl Renewal {
    fn check(&self) -> Result<(), ConfigError> {
        if !(1..=3_600).contains(&self.hook_deadline_seconds) {
            return Err(refuse("renewal.hook_deadline_seconds", "1 to 3,600"));
        }
        if self.hook.first().is_some_and(|program| !program.starts_with('/')) {
            return Err(refuse("renewal.hook", "the program is given by its absolute path; there is no shell"));
        }
        if self.hook.len() > 64 {
            return Err(refuse("renewal.hook", "at most 64 arguments"));
        }
        if self.prove_url.as_ref().is_some_and(|url| !url.starts_with("https://")) {
            return Err(refuse("renewal.prove_url", "begins with https://"));
        }
        Ok(())
    }

    pub(crate) fn hook_deadline(&self) -> Duration {
        Duration::from_secs(self.hook_deadline_seconds.into())
    }
}

impl Telemetry {
    fn check(&self) -> Result<(), ConfigError> {
        if self.host.is_empty() || self.port == 0 {
            return Err(refuse("telemetry", "host and port name the broker"));
        }
        if !(50..=86_400_000).contains(&self.interval_millis) {
            return Err(refuse("telemetry.interval_millis", "50 to 86,400,000"));
        }
        if !(50..=3_600_000).contains(&self.reconnect_max_millis) {
            return Err(refuse("telemetry.reconnect_max_millis", "50 to 3,600,000"));
        }
        if self.topic.as_ref().is_some_and(|topic| topic.is_empty() || topic.contains(['+', '#', '\0'])) {
            return Err(refuse("telemetry.topic", "a topic without `+` and `#`"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINIMAL: &str = r#"
        server = "https://127.0.0.1:8443"
        device_name = "meter-1"
        state_dir = "/var/lib/keyfleet-agent"
        [trust]
        root_file = "/etc/keyfleet/root.pem"
        [key]
        allow_plain_key = true
    "#;

    #[test]
    fn the_smallest_configuration_is_accepted_and_the_example_is_too() {
        let config = Config::parse(MINIMAL).unwrap();
        assert_eq!(config.key.algorithm, KeyAlgorithm::P256);
        assert_eq!(config.bootstrap, Bootstrap::default());
        let example = include_str!("../../../contrib/systemd/keyfleet-agent.toml");
        assert!(Config::parse(example).unwrap().key.seal_credential.is_some());
    }

    #[test]
    fn an_unknown_field_is_refused_and_named() {
        let refusal = Config::parse(&format!("{MINIMAL}\nseal_file = \"x\"")).unwrap_err().to_string();
        assert!(refusal.contains("seal_file"), "{refusal}");
    }

    #[test]
    fn what_cannot_work_is_refused_with_its_field() {
        let table = [
            ("https://127", "http://127", "server"),
            ("meter-1", "meter/1", "device_name"),
            ("root_file = \"/etc/keyfleet/root.pem\"", "", "trust"),
            ("root_file = \"/etc/keyfleet/root.pem\"", "root_sha256 = \"00\"", "trust.root_sha256"),
            ("allow_plain_key = true", "", "key"),
            ("allow_plain_key = true", "allow_plain_key = true\nseal_fd = 3", "key"),
            ("allow_plain_key = true", "allow_plain_key = true\nalgorithm = \"rsa-2048\"", "key.algorithm"),
            (
                "allow_plain_key = true",
                "allow_plain_key = true\n[bootstrap]\ncode_fd = 3\ncode_file = \"c\"",
                "bootstrap",
            ),
            ("allow_plain_key = true", "allow_plain_key = true\n[bootstrap]\nidevid_key_file = \"c\"", "bootstrap"),
            (
                "allow_plain_key = true",
                "allow_plain_key = true\n[bootstrap]\nidevid_chain_file = \"c\"\nidevid_key_file = \"k\"\nidevid_sealed_key_file = \"s\"",
                "bootstrap",
            ),
            (
                "allow_plain_key = true",
                "allow_plain_key = true\n[bootstrap]\nidevid_sealed_key_file = \"c\"",
                "bootstrap",
            ),
            ("allow_plain_key = true", "allow_plain_key = true\n[renewal]\nhook = [\"sh\"]", "renewal.hook"),
            (
                "allow_plain_key = true",
                "allow_plain_key = true\n[renewal]\nhook_deadline_seconds = 0",
                "renewal.hook_deadline_seconds",
            ),
        ];
        for (from, to, field) in table {
            let text = MINIMAL.replace(from, to);
            assert_ne!(text, MINIMAL);
            match Config::parse(&text) {
                Err(ConfigError::Value { field: named, .. }) => assert_eq!(named, field, "{to}"),
                other => panic!("{to}: {other:?}"),
            }
        }
    }
}

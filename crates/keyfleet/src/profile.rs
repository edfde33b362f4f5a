//! The profile: which server, whom to believe, and where the credential is. It refers to secrets and holds none.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use kf_client::{Client, ClientBuilder, TlsKey};
use kf_crypto::PrivateKey;
use kf_key::{KeyAlgorithm, SecretBytes};
use serde::{Deserialize, Serialize};

use crate::failure::Failure;
use crate::file;

/// A profile file. Relative paths are below the directory of the file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Profile {
    /// `https://host:port` of the server.
    pub(crate) server: String,
    /// The fleet's root certificate, PEM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) root: Option<PathBuf>,
    /// SHA-256 of the root certificate, hexadecimal; instead of `root`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) root_fingerprint: Option<String>,
    /// File with an API token, readable by its owner only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) token_file: Option<PathBuf>,
    /// Operator certificate with its chain, PEM, leaf first; instead of `token_file`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) certificate: Option<PathBuf>,
    /// Its private key, PKCS#8 PEM, readable by its owner only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) key: Option<PathBuf>,
}

/// Where the profile is looked for.
#[derive(Clone, Debug)]
pub(crate) enum Source {
    /// The file given with `--profile`.
    Given(PathBuf),
    /// `cli.toml` in the data directory.
    Data(PathBuf),
    /// `~/.config/keyfleet/cli.toml`.
    Home(PathBuf),
}

impl Source {
    /// The profile to use: `--profile`, else `--data`, else the one below the home directory.
    pub(crate) fn choose(profile: Option<&Path>, data: Option<&Path>) -> Result<Self, Failure> {
        match (profile, data) {
            (Some(file), _) => Ok(Self::Given(file.to_owned())),
            (None, Some(data)) => Ok(Self::Data(data.join("cli.toml"))),
            (None, None) => home_file().map(Self::Home),
        }
    }

    /// The file.
    pub(crate) fn path(&self) -> &Path {
        match self {
            Self::Given(path) | Self::Data(path) | Self::Home(path) => path,
        }
    }

    /// Reads the profile.
    ///
    /// # Errors
    /// [`Failure`], naming what to do where there is none.
    pub(crate) fn load(&self) -> Result<Profile, Failure> {
        let path = self.path();
        if !path.exists() {
            let remedy = match self {
                Self::Given(_) => "check the path, or make one with `keyfleet profile create --file FILE ...`",
                Self::Data(_) => "check --data: `keyfleet init` writes cli.toml there",
                Self::Home(_) => {
                    "give --data DIR or --profile FILE, or make it with \
                     `keyfleet profile create --server URL --root FILE --token-file FILE`"
                }
            };
            return Err(Failure::local(format!("there is no profile at {}", path.display()), remedy));
        }
        let text = file::read_text(path)?;
        let profile: Profile = toml::from_str(&text).map_err(|error| {
            Failure::local(
                format!("{} is not a profile: {}", path.display(), error.to_string().trim_end()),
                "its fields are server, root or root_fingerprint, and token_file or certificate and key",
            )
        })?;
        let directory = path.parent().unwrap_or_else(|| Path::new("."));
        let profile = profile.below(directory);
        Ok(match self {
            Self::Data(_) => profile.at_noted_address(directory)?,
            Self::Given(_) | Self::Home(_) => profile,
        })
    }
}

/// The file in a data directory that says where its server listens, while that is not where it is configured to.
const LISTENING: &str = "listening";

/// Notes that the server of this data directory listens at another address than the configured one; `None` removes the note.
/// It needs no flush: after a power cut no server runs.
///
/// # Errors
/// [`Failure`] naming the file.
pub(crate) fn note_address(directory: &Path, address: Option<SocketAddr>) -> Result<(), Failure> {
    let path = directory.join(LISTENING);
    let done = match address {
        Some(address) => std::fs::write(&path, format!("{address}\n")),
        None => match std::fs::remove_file(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            other => other,
        },
    };
    done.map_err(|error| {
        Failure::local(format!("cannot write {}: {error}", path.display()), "check who owns the data directory")
    })
}

fn home_file() -> Result<PathBuf, Failure> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let directory = set("XDG_CONFIG_HOME").or_else(|| set("HOME").map(|home| home.join(".config")));
    directory
        .map(|directory| directory.join("keyfleet").join("cli.toml"))
        .ok_or_else(|| Failure::usage("no profile is given and there is no home directory", "give --profile FILE"))
}

impl Profile {
    fn below(mut self, directory: &Path) -> Self {
        for path in [&mut self.root, &mut self.token_file, &mut self.certificate, &mut self.key].into_iter().flatten() {
            *path = directory.join(&*path);
        }
        self
    }

    /// With the port at which the server of this data directory says that it listens; the name stays the one in its certificate.
    fn at_noted_address(mut self, directory: &Path) -> Result<Self, Failure> {
        let path = directory.join(LISTENING);
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(self),
            Err(error) => {
                return Err(Failure::local(format!("cannot read {}: {error}", path.display()), "check who owns it"));
            }
        };
        let address: SocketAddr = text.trim().parse().map_err(|_not_an_address| {
            Failure::local(format!("{} is not an address", path.display()), "remove it, and start the server again")
        })?;
        if let Some((before, port)) = self.server.rsplit_once(':')
            && port.trim_end_matches('/').parse::<u16>().is_ok()
        {
            self.server = format!("{before}:{}", address.port());
        }
        Ok(self)
    }

    /// A client with these anchors and this credential.
    ///
    /// # Errors
    /// [`Failure`] naming the field and the file.
    pub(crate) fn client(&self, deadline: Duration) -> Result<Client, Failure> {
        if !self.server.starts_with("https://") {
            return Err(Failure::local(
                format!("`server` in the profile is `{}`", self.server),
                "write `server = \"https://HOST:PORT\"`: credentials travel over https only",
            ));
        }
        let builder = self.credential(self.trusting(Client::builder())?)?;
        Ok(builder.deadline(deadline).build()?)
    }

    /// A client that presents no credential, for what is public.
    ///
    /// # Errors
    /// As [`Profile::client`].
    pub(crate) fn anonymous_client(&self, deadline: Duration) -> Result<Client, Failure> {
        Ok(self.trusting(Client::builder())?.deadline(deadline).build()?)
    }

    fn trusting(&self, builder: ClientBuilder) -> Result<ClientBuilder, Failure> {
        match (&self.root, &self.root_fingerprint) {
            (Some(root), None) => Ok(builder.roots(certificates(root)?)),
            (None, Some(fingerprint)) => {
                let mut sha256 = [0; 32];
                let digits: String = fingerprint.chars().filter(|c| *c != ':').collect();
                hex::decode_to_slice(digits, &mut sha256).map_err(|_not_hexadecimal| {
                    Failure::local(
                        "`root_fingerprint` in the profile is not a SHA-256",
                        "write 64 hexadecimal digits: `openssl x509 -in root.pem -noout -fingerprint -sha256`",
                    )
                })?;
                Ok(builder.root_fingerprint(sha256))
            }
            _ => Err(Failure::local(
                "the profile must name either `root` or `root_fingerprint`",
                "copy root.pem from the server's data directory and write `root = \"root.pem\"`",
            )),
        }
    }

    fn credential(&self, builder: ClientBuilder) -> Result<ClientBuilder, Failure> {
        match (&self.token_file, &self.certificate, &self.key) {
            (Some(token), None, None) => Ok(builder.bearer(&trimmed(&file::read_secret(token)?))),
            (None, Some(certificate), Some(key)) => {
                let key: Arc<dyn TlsKey> = Arc::new(private_key(key)?);
                Ok(builder.identity(certificates(certificate)?, key))
            }
            _ => Err(Failure::local(
                "the profile must name either `token_file`, or `certificate` and `key`",
                "put the token in a file (chmod 600) and write `token_file = \"...\"`",
            )),
        }
    }
}

/// The certificates of a PEM file, DER.
///
/// # Errors
/// [`Failure`] when there is none.
pub(crate) fn certificates(path: &Path) -> Result<Vec<Vec<u8>>, Failure> {
    let found = kf_pki::pem::decode_all("CERTIFICATE", &file::read_text(path)?).unwrap_or_default();
    if found.is_empty() {
        return Err(Failure::local(
            format!("{} holds no certificate", path.display()),
            "give a PEM file with -----BEGIN CERTIFICATE-----",
        ));
    }
    Ok(found)
}

pub(crate) fn private_key(path: &Path) -> Result<PrivateKey, Failure> {
    let secret = file::read_secret(path)?;
    // Exposed to the PEM decoder; the decoded octets go straight into a secret again.
    let pem = std::str::from_utf8(secret.expose()).unwrap_or_default();
    let pkcs8 = kf_pki::pem::decode_all("PRIVATE KEY", pem)
        .and_then(|keys| keys.into_iter().next())
        .map(SecretBytes::from_vec)
        .ok_or_else(|| unreadable_key(path))?;
    [KeyAlgorithm::P256, KeyAlgorithm::P384, KeyAlgorithm::Ed25519]
        .into_iter()
        .find_map(|algorithm| PrivateKey::from_pkcs8(algorithm, &pkcs8).ok())
        .ok_or_else(|| unreadable_key(path))
}

fn unreadable_key(path: &Path) -> Failure {
    Failure::local(
        format!("{} holds no PKCS#8 private key of P-256, P-384 or Ed25519", path.display()),
        format!("openssl pkcs8 -topk8 -nocrypt -in {0} -out {0}.pkcs8", path.display()),
    )
}

/// The secret without white space at its ends.
fn trimmed(secret: &SecretBytes) -> SecretBytes {
    // Exposed to be copied without its line end.
    let inner = secret.expose().trim_ascii();
    SecretBytes::fill(inner.len(), |out| out.copy_from_slice(inner))
}

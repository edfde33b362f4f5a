//! The connection: encrypted wherever it leaves the host, the password from a file and never from an argument.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as Waker, Poll};
use std::time::Duration;

use clap::Args;
use kf_key::SecretBytes;
use rustls::pki_types::ServerName;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::config::{Host, SslMode};
use tokio_postgres::tls::{ChannelBinding, MakeTlsConnect, TlsConnect, TlsStream};
use tokio_postgres::{Client, Config, NoTls, Socket};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream as RustlsStream;

use crate::failure::Failure;

const CONNECT_DEADLINE: Duration = Duration::from_secs(30);
/// The most octets of a password file.
const MAX_PASSWORD_FILE_OCTETS: u64 = 64 * 1024;

/// How to get in.
#[derive(Debug, Args)]
pub(in super::super) struct Access {
    /// A file with the password; otherwise it is looked up in ~/.pgpass, as libpq does. Nobody else may read it
    #[arg(long, value_name = "FILE", requires = "postgres")]
    password_file: Option<PathBuf>,
    /// CA certificates (PEM) that the database's certificate is checked against; without it, only connections within this host are made
    #[arg(long, value_name = "FILE", requires = "postgres")]
    tls_ca: Option<PathBuf>,
}

/// What the database says, with its causes.
#[allow(clippy::needless_pass_by_value, reason = "fits map_err")]
pub(super) fn failed(error: tokio_postgres::Error) -> Failure {
    let said = error.as_db_error().map_or_else(
        || {
            let mut text = error.to_string();
            let mut source = std::error::Error::source(&error);
            while let Some(cause) = source {
                text = format!("{text}: {cause}");
                source = cause.source();
            }
            text
        },
        |refused| refused.message().to_owned(),
    );
    Failure::local(format!("PostgreSQL: {said}"), "mend that; the same command goes on where this one ended")
}

/// Connects, or says what is missing.
pub(super) async fn connect(connection: &str, access: &Access) -> Result<Client, Failure> {
    let mut config: Config = connection.parse().map_err(|error: tokio_postgres::Error| {
        Failure::usage(format!("--postgres: {error}"), "for example host=db.example dbname=clinic user=clinic")
    })?;
    if config.get_password().is_some() {
        let remedy = "everybody on this host can read it there: use --password-file or ~/.pgpass";
        return Err(Failure::usage("--postgres holds a password", remedy));
    }
    if let Some(password) = password(&config, access)? {
        // Exposed to the connection.
        config.password(password.expose());
    }
    config.application_name("keyfleet rewrap").connect_timeout(CONNECT_DEADLINE);
    let client = match &access.tls_ca {
        Some(path) => {
            config.ssl_mode(SslMode::Require);
            let (client, connection) = config.connect(Rustls(tls(path)?)).await.map_err(failed)?;
            spawn(connection);
            client
        }
        None if stays_here(&config) => {
            config.ssl_mode(SslMode::Disable);
            let (client, connection) = config.connect(NoTls).await.map_err(failed)?;
            spawn(connection);
            client
        }
        None => {
            return Err(Failure::usage(
                "the database is on another host, and nothing says whose certificate it has",
                "give its CA with --tls-ca",
            ));
        }
    };
    // A writer that waits for us forever would be worse than an error.
    client.batch_execute("SET lock_timeout = '30s'").await.map_err(failed)?;
    Ok(client)
}

fn spawn(connection: impl Future<Output = Result<(), tokio_postgres::Error>> + Send + 'static) {
    // Its end is told to whoever waits for an answer.
    drop(tokio::spawn(async move { drop(connection.await) }));
}

/// Whether the connection does not leave this host.
fn stays_here(config: &Config) -> bool {
    config.get_hostaddrs().iter().all(|address| address.is_loopback())
        && config.get_hosts().iter().all(|host| match host {
            Host::Unix(_) => true,
            Host::Tcp(name) => {
                name == "localhost" || name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
            }
        })
}

fn first_host(config: &Config) -> (String, u16) {
    let host = match config.get_hosts().first() {
        Some(Host::Tcp(name)) => name.clone(),
        // As libpq calls a socket in its password file.
        Some(Host::Unix(_)) | None => "localhost".to_owned(),
    };
    (host, config.get_ports().first().copied().unwrap_or(5432))
}

fn password(config: &Config, access: &Access) -> Result<Option<SecretBytes>, Failure> {
    if let Some(path) = &access.password_file {
        let text = private(path)?;
        // Exposed to be cut at its line end.
        let line = text.expose().split(|octet| *octet == b'\n').next().unwrap_or_default();
        return Ok(Some(SecretBytes::from_vec(line.strip_suffix(b"\r").unwrap_or(line).to_vec())));
    }
    let Some(home) = std::env::home_dir() else { return Ok(None) };
    let path = home.join(".pgpass");
    if !path.exists() {
        return Ok(None);
    }
    let (host, port) = first_host(config);
    let user = config.get_user().unwrap_or_default();
    let database = config.get_dbname().unwrap_or(user);
    let text = private(&path)?;
    // Exposed to be looked through.
    Ok(look_up(text.expose(), &[&host, &port.to_string(), database, user]))
}

/// Reads a file that nobody else may read.
fn private(path: &Path) -> Result<SecretBytes, Failure> {
    let refused = |error| Failure::file("read", path, error);
    let facts = fs::metadata(path).map_err(refused)?;
    if facts.permissions().mode() & 0o077 != 0 {
        let problem = format!("others may read {}", path.display());
        return Err(Failure::usage(problem, "chmod 600, and change the password if that was so for long"));
    }
    if facts.len() > MAX_PASSWORD_FILE_OCTETS {
        return Err(Failure::usage(format!("{} is no password file", path.display()), "give the right file"));
    }
    Ok(SecretBytes::from_vec(fs::read(path).map_err(refused)?))
}

/// The password of the first line that fits, in the format of libpq: `host:port:database:user:password`, `*` fits anything, a
/// backslash takes the next character as it is.
fn look_up(text: &[u8], wanted: &[&str; 4]) -> Option<SecretBytes> {
    for line in text.split(|octet| *octet == b'\n').filter(|line| !line.starts_with(b"#")) {
        let mut fields: Vec<Vec<u8>> = vec![Vec::new()];
        let mut octets = line.iter().copied().filter(|octet| *octet != b'\r');
        while let Some(octet) = octets.next() {
            let octet = match octet {
                b':' if fields.len() < 5 => {
                    fields.push(Vec::new());
                    continue;
                }
                b'\\' => octets.next().unwrap_or(octet),
                octet => octet,
            };
            if let Some(field) = fields.last_mut() {
                field.push(octet);
            }
        }
        let Some(password) = (fields.len() == 5).then(|| fields.pop()).flatten() else { continue };
        let fits = fields.iter().zip(wanted).all(|(field, wanted)| field == b"*" || field == wanted.as_bytes());
        let password = SecretBytes::from_vec(password);
        if fits {
            return Some(password);
        }
    }
    None
}

fn tls(path: &Path) -> Result<Arc<ClientConfig>, Failure> {
    let pem = fs::read(path).map_err(|error| Failure::file("read", path, error))?;
    let unusable = || Failure::usage(format!("{} holds no CA certificate", path.display()), "give one in PEM");
    let mut roots = RootCertStore::empty();
    for certificate in rustls::pki_types::CertificateDer::pem_slice_iter(&pem) {
        roots.add(certificate.map_err(|_not_pem| unusable())?).map_err(|_not_a_ca| unusable())?;
    }
    if roots.is_empty() {
        return Err(unusable());
    }
    let config = ClientConfig::builder_with_provider(kf_client::provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| Failure::local(error.to_string(), "report this"))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

/// Joins rustls to the client of the database.
struct Rustls(Arc<ClientConfig>);

struct Connector {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
}

/// An encrypted stream. No channel binding is offered: the certificate is checked, name and all.
struct Encrypted(Box<RustlsStream<Socket>>);

impl MakeTlsConnect<Socket> for Rustls {
    type Stream = Encrypted;
    type TlsConnect = Connector;
    type Error = rustls::pki_types::InvalidDnsNameError;

    fn make_tls_connect(&mut self, domain: &str) -> Result<Connector, Self::Error> {
        Ok(Connector { config: self.0.clone(), name: ServerName::try_from(domain.to_owned())? })
    }
}

impl TlsConnect<Socket> for Connector {
    type Stream = Encrypted;
    type Error = std::io::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Encrypted, std::io::Error>> + Send>>;

    fn connect(self, stream: Socket) -> Self::Future {
        Box::pin(async move {
            let stream = TlsConnector::from(self.config).connect(self.name, stream).await?;
            Ok(Encrypted(Box::new(stream)))
        })
    }
}

impl TlsStream for Encrypted {
    fn channel_binding(&self) -> ChannelBinding {
        ChannelBinding::none()
    }
}

impl AsyncRead for Encrypted {
    fn poll_read(mut self: Pin<&mut Self>, waker: &mut Waker<'_>, into: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut *self.0).poll_read(waker, into)
    }
}

impl AsyncWrite for Encrypted {
    fn poll_write(mut self: Pin<&mut Self>, waker: &mut Waker<'_>, from: &[u8]) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut *self.0).poll_write(waker, from)
    }

    fn poll_flush(mut self: Pin<&mut Self>, waker: &mut Waker<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut *self.0).poll_flush(waker)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, waker: &mut Waker<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut *self.0).poll_shutdown(waker)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_password_file_of_libpq_is_read_as_libpq_reads_it() {
        let file = b"# comment\nother:5432:clinic:ann:no\n*:5432:cli\\:nic:ann:pa\\\\ss:word\r\n*:*:*:*:any\n";
        let found = |wanted: [&str; 4]| look_up(file, &wanted).map(|found| found.expose().to_vec());
        assert_eq!(found(["db", "5432", "cli:nic", "ann"]).unwrap(), b"pa\\ss:word");
        assert_eq!(found(["other", "5432", "clinic", "ann"]).unwrap(), b"no");
        assert_eq!(found(["db", "1", "x", "y"]).unwrap(), b"any");
        assert!(look_up(b"short:line\n", &["a", "b", "c", "d"]).is_none());
    }

    #[test]
    fn only_a_connection_within_this_host_goes_without_tls() {
        let here = |text: &str| stays_here(&text.parse().unwrap());
        for text in ["host=/run/postgresql", "host=127.0.0.1", "host=localhost", "host=::1"] {
            assert!(here(text), "{text}");
        }
        for text in ["host=db.example", "host=localhost,db.example", "host=localhost hostaddr=192.0.2.1"] {
            assert!(!here(text), "{text}");
        }
    }
}

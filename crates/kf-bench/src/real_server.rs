//! `keyfleet serve` as an operator runs it: a process with its signer, reached over the network.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use kf_fleet::DataDir;
use rustls_pki_types::CertificateDer;
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::error::BenchError;
use crate::load::{Identity, Target, ask_json, connector, exchange, get, post};
use crate::scratch_fleet::{FACILITY, LINE};

/// A fleet made by `keyfleet init`, not running.
pub(crate) struct RealFleet {
    folder: tempfile::TempDir,
}

/// A running server.
pub(crate) struct RealServer {
    child: Child,
    /// Seconds from starting the process to its ready line.
    pub(crate) start_seconds: f64,
    /// HTTPS without a client certificate.
    pub(crate) https: Target,
    /// Plain HTTP.
    pub(crate) http: Target,
    root: Vec<u8>,
    authorization: String,
}

impl Drop for RealServer {
    fn drop(&mut self) {
        // Asked to end, so that its signer ends too; nothing is to be done when it has ended by itself.
        if let Some(process) = i32::try_from(self.child.id()).ok().and_then(rustix::process::Pid::from_raw) {
            let _already_ended = rustix::process::kill_process(process, rustix::process::Signal::TERM);
        }
        let _already_reaped = self.child.wait();
    }
}

/// `keyfleet` beside this program: `cargo xtask bench` builds both.
fn program() -> Result<PathBuf, BenchError> {
    let here = std::env::current_exe().map_err(BenchError::io("the path of this program"))?;
    let program = here.with_file_name("keyfleet");
    if program.is_file() {
        return Ok(program);
    }
    let why = format!("{} is not there: run cargo xtask bench", program.display());
    Err(BenchError::Failed { what: "the server", why })
}

impl RealFleet {
    pub(crate) fn create() -> Result<Self, BenchError> {
        let folder = tempfile::tempdir().map_err(BenchError::io("a scratch folder"))?;
        let this = Self { folder };
        let passphrase = this.folder.path().join("passphrase");
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&passphrase)
            .map_err(BenchError::io("the passphrase file"))?;
        // Guards a fleet that is thrown away at the end.
        file.write_all(b"a fleet for one benchmark").map_err(BenchError::io("the passphrase file"))?;
        let output = Command::new(program()?)
            .arg("--data")
            .arg(this.directory().path())
            .args(["init", "--fleet", "bench", "--single-control", "--passphrase-file"])
            .arg(&passphrase)
            .stdin(Stdio::null())
            .output()
            .map_err(BenchError::io("keyfleet init"))?;
        if output.status.success() {
            return Ok(this);
        }
        Err(BenchError::Failed { what: "keyfleet init", why: String::from_utf8_lossy(&output.stderr).into_owned() })
    }

    pub(crate) fn directory(&self) -> DataDir {
        DataDir::new(self.folder.path().join("data"))
    }

    /// Starts `keyfleet serve` and waits for its ready line.
    pub(crate) fn serve(&self) -> Result<RealServer, BenchError> {
        let directory = self.directory();
        let log = fs::File::create(self.folder.path().join("server.log")).map_err(BenchError::io("a log"))?;
        let start = Instant::now();
        let mut child = Command::new(program()?)
            .arg("--data")
            .arg(directory.path())
            .args(["serve", "--listen", "127.0.0.1:0", "--listen-http", "127.0.0.1:0"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .map_err(BenchError::io("keyfleet serve"))?;
        let not_ready = || BenchError::Failed { what: "keyfleet serve", why: "it printed no ready line".to_owned() };
        let stdout = child.stdout.take().ok_or_else(not_ready)?;
        let line = BufReader::new(stdout).lines().next().and_then(Result::ok).unwrap_or_default();
        let start_seconds = start.elapsed().as_secs_f64();
        let address = |key: &str| -> Result<SocketAddr, BenchError> {
            line.split(' ')
                .find_map(|word| word.strip_prefix(key))
                .and_then(|text| text.parse().ok())
                .ok_or_else(not_ready)
        };
        let (https, http) = (address("https=")?, address("http=")?);
        let root = certificate(&directory.root_certificate())?;
        let token = fs::read_to_string(directory.owner_token()).map_err(BenchError::io("the owner's token"))?;
        Ok(RealServer {
            child,
            start_seconds,
            https: Target { address: https, tls: Some(connector(&root, None)?) },
            http: Target { address: http, tls: None },
            root,
            authorization: format!("authorization: Bearer {}\r\n", token.trim()),
        })
    }
}

fn certificate(path: &Path) -> Result<Vec<u8>, BenchError> {
    let text = fs::read_to_string(path).map_err(BenchError::io(path.display().to_string()))?;
    kf_pki::pem::decode_all("CERTIFICATE", &text)
        .and_then(|found| found.into_iter().next())
        .ok_or_else(|| BenchError::Failed { what: "the root certificate", why: "not PEM".to_owned() })
}

/// A device with its LDevID.
#[derive(Clone)]
pub(crate) struct EnrolledDevice {
    pub(crate) target: Target,
}

impl RealServer {
    pub(crate) fn process(&self) -> u32 {
        self.child.id()
    }

    /// One POST to the API as the owner.
    pub(crate) fn post(&self, runtime: &Runtime, path: &str, body: &Value) -> Result<Value, BenchError> {
        let request = post(path, "application/json", &self.authorization, body.to_string().as_bytes());
        runtime.block_on(ask_json(&self.https, &request))
    }

    /// One GET from the API as the owner.
    pub(crate) fn get(&self, runtime: &Runtime, path: &str) -> Result<Value, BenchError> {
        runtime.block_on(ask_json(&self.https, &self.get_request(path)))
    }

    /// The octets of one GET as the owner.
    pub(crate) fn get_request(&self, path: &str) -> Vec<u8> {
        let mut request = get(path);
        request.truncate(request.len() - 2);
        request.extend_from_slice(self.authorization.as_bytes());
        request.extend_from_slice(b"\r\n");
        request
    }

    /// The facility and the product line that devices belong to.
    pub(crate) fn prepare(&self, runtime: &Runtime) -> Result<(), BenchError> {
        self.post(runtime, "/v1/facilities", &json!({"name": FACILITY}))?;
        self.post(runtime, "/v1/product-lines", &json!({"name": LINE, "policy": {"max_live_ldevids": 16}}))?;
        Ok(())
    }

    /// Registers a device, gives it a code, and enrols it over EST.
    pub(crate) fn enrol(&self, runtime: &Runtime, name: &str) -> Result<EnrolledDevice, BenchError> {
        self.post(runtime, "/v1/devices", &json!({"name": name, "facility": FACILITY, "product_line": LINE}))?;
        let made = self.post(runtime, "/v1/codes", &json!({"device": name}))?;
        let code = made.get("code").and_then(Value::as_str).unwrap_or_default();
        let basic = format!("authorization: Basic {}\r\n", STANDARD.encode(format!("{name}:{code}")));
        let key = kf_crypto::PrivateKey::generate(kf_key::KeyAlgorithm::P256)
            .map_err(BenchError::failed("a device's key"))?;
        let request = kf_pki::request::make_request(&key, "").map_err(BenchError::failed("a request"))?;
        let request = est_request("simpleenroll", &basic, &request);
        let answer = runtime.block_on(async { exchange(&mut self.https.connect().await?, &request).await })?;
        let chain = certificates(&answer.body)?;
        // Exposed to the TLS client, as the device's own key.
        let key = key.to_pkcs8().map_err(BenchError::failed("a device's key"))?.expose().to_vec();
        let tls = Some(connector(&self.root, Some(Identity { chain, key }))?);
        Ok(EnrolledDevice { target: Target { address: self.https.address, tls } })
    }
}

/// One EST request with a PKCS#10 body.
pub(crate) fn est_request(operation: &str, header: &str, request: &[u8]) -> Vec<u8> {
    let path = format!("/.well-known/est/{LINE}/{operation}");
    post(&path, "application/pkcs10", header, STANDARD.encode(request).as_bytes())
}

fn certificates(body: &[u8]) -> Result<Vec<CertificateDer<'static>>, BenchError> {
    let text: Vec<u8> = body.iter().copied().filter(|octet| !octet.is_ascii_whitespace()).collect();
    let der = STANDARD.decode(&text).map_err(|_error| BenchError::Failed {
        what: "an enrolment",
        why: String::from_utf8_lossy(body).into_owned(),
    })?;
    let found = kf_pki::cms::certificates_of(&der)
        .ok_or_else(|| BenchError::Failed { what: "an enrolment", why: "no certificates in it".to_owned() })?;
    Ok(found.into_iter().map(CertificateDer::from).collect())
}

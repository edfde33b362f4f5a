//! The identity at work, until it is revoked.

use std::path::PathBuf;
use std::time::Duration;

use kf_agent::{Agent, Event, EventSink};
use kf_broker::{
    BrokerConnector, BrokerProcess, Control, CutBy, DeviceTopics, EchoBroker, EchoSettings, Mosquitto, MosquittoConfig,
    MosquittoProcess, MosquittoSettings, PublishedCrl, TlsIdentity,
};
use kf_crypto::PrivateKey;
use kf_key::{AuthorityId, KeyAlgorithm, SecretBytes, UnixMillis};
use kf_testkit::{ForeignAuthority, IssuedIdentity, Tool, free_port, scratch};
use tokio::sync::mpsc;

use crate::bench::{Bench, LONG, Reply, bench};

const DEADLINE: Duration = Duration::from_secs(30);

fn crl(authority: &ForeignAuthority, revoked: &[u64]) -> PublishedCrl {
    PublishedCrl { authority: AuthorityId::from_parts(UnixMillis(1), [1; 10]), pem: authority.crl_pem(revoked) }
}

fn key(issued: &IssuedIdentity) -> PrivateKey {
    PrivateKey::from_pkcs8(KeyAlgorithm::P256, &SecretBytes::from_vec(issued.pkcs8.clone())).unwrap()
}

fn identity(authority: &ForeignAuthority, issued: &IssuedIdentity) -> TlsIdentity {
    TlsIdentity { roots: vec![authority.root_der()], chain: issued.chain.clone(), key: key(issued) }
}

/// A running agent whose events can be awaited.
struct Running {
    events: mpsc::UnboundedReceiver<Event>,
    agent: tokio::task::JoinHandle<()>,
}

fn start(bench: &Bench, kind: &str, port: u16) -> Running {
    std::fs::write(bench.path("code"), "code").unwrap();
    let more = format!(
        "[bootstrap]\ncode_file = \"{{dir}}/code\"\n[telemetry]\nkind = \"{kind}\"\nhost = \"localhost\"\nport = {port}\n\
         topic = \"devices/meter-1/up\"\ninterval_millis = 50\nreconnect_max_millis = 100\n"
    );
    let (sender, events) = mpsc::unbounded_channel();
    let sink = EventSink::new(move |event| drop(sender.send(event.clone())));
    let agent = Agent::open(bench.config(&more), sink).unwrap();
    let agent = tokio::spawn(async move {
        agent.run(std::future::pending()).await;
    });
    Running { events, agent }
}

impl Running {
    /// Waits for an event that fits, and returns those before it.
    async fn until(&mut self, fits: impl Fn(&Event) -> bool) -> Vec<Event> {
        let mut seen = Vec::new();
        let found = async {
            while let Some(event) = self.events.recv().await {
                if fits(&event) {
                    return;
                }
                seen.push(event);
            }
            panic!("the agent ended");
        };
        tokio::time::timeout(DEADLINE, found).await.unwrap_or_else(|_elapsed| panic!("it did not happen: {seen:?}"));
        seen
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.agent.abort();
    }
}

/// The serial number of the certificate in use: rcgen's serial numbers of the test authority fit 64 bits.
fn serial_in_use(bench: &Bench) -> u64 {
    let openssl = Tool::new("openssl");
    let output = openssl.run_with_input(&["x509", "-inform", "DER", "-noout", "-serial"], &bench.leaf_in_use());
    let text = String::from_utf8(output.stdout).unwrap();
    u64::from_str_radix(text.trim().strip_prefix("serial=").unwrap(), 16).unwrap()
}

async fn is_served_until_revoked(bench: &Bench, broker: &dyn BrokerConnector, mut running: Running) {
    running.until(|event| matches!(event, Event::Connected { .. })).await;
    running.until(|event| matches!(event, Event::Published { counter: 3 })).await;
    let crls = [crl(&bench.authority, &[serial_in_use(bench)])];
    let report = broker.enforce(&crls, &["meter-1"], DEADLINE).await;
    assert!(report.verified && report.session_cut, "{report:?}");
    running.until(|event| matches!(event, Event::Disconnected { .. })).await;
    for _attempt in 0..3 {
        let before = running.until(|event| matches!(event, Event::Refused { .. })).await;
        assert!(
            !before.iter().any(|event| matches!(event, Event::Connected { .. } | Event::Published { .. })),
            "{before:?}"
        );
    }
    broker.publish_crls(&[crl(&bench.authority, &[])]).await.unwrap();
    broker.reload().await.unwrap();
    broker.readmit("meter-1").await.unwrap();
    running.until(|event| matches!(event, Event::Connected { .. })).await;
    running.until(|event| matches!(event, Event::Published { .. })).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_is_served_by_the_echo_server_until_it_is_revoked_and_again_after_release() {
    let bench = bench(|_, _| Reply::Issue(LONG)).await;
    let settings = EchoSettings {
        name: "echo".to_owned(),
        listen: "127.0.0.1:0".parse().unwrap(),
        identity: identity(&bench.authority, &bench.authority.issue_server(&["localhost"])),
        crls: vec![crl(&bench.authority, &[])],
        max_sessions: 4,
    };
    let broker = EchoBroker::start(settings).await.unwrap();
    let running = start(&bench, "echo", broker.address().port());
    is_served_until_revoked(&bench, &broker, running).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_is_served_by_mosquitto_until_it_is_revoked_and_again_after_release() {
    let program: PathBuf = Tool::new("mosquitto").path().to_owned();
    let bench = bench(|_, _| Reply::Issue(LONG)).await;
    let directory = scratch();
    let (server, control) = (bench.authority.issue_server(&["localhost"]), bench.authority.issue_client("control"));
    let port = free_port();
    let config = MosquittoConfig {
        port,
        client_authorities_pem: bench.authority.authorities_pem(),
        server_chain_pem: server.chain.iter().map(|der| kf_pki::pem::certificate(der)).collect(),
        server_key: key(&server),
        control_name: "control".to_owned(),
        crls: vec![crl(&bench.authority, &[])],
    };
    let files = config.write(directory.path()).unwrap();
    let process = MosquittoProcess::start(&program, &files.config, DEADLINE).await.unwrap();
    let broker = Mosquitto::open(MosquittoSettings {
        name: "mosquitto".to_owned(),
        crl_file: files.crl_file,
        process: BrokerProcess::Pid(process.pid()),
        control: Some(Control {
            host: "localhost".to_owned(),
            port,
            server_name: None,
            identity: identity(&bench.authority, &control),
            client_id: "control".to_owned(),
            cut_by: CutBy::DynamicSecurity(DeviceTopics::default()),
        }),
    })
    .unwrap();
    broker.admit("meter-1").await.unwrap();
    let running = start(&bench, "mqtt", port);
    is_served_until_revoked(&bench, &broker, running).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_not_there_is_told_and_tried_again() {
    let bench = bench(|_, _| Reply::Issue(LONG)).await;
    let mut running = start(&bench, "mqtt", free_port());
    for _attempt in 0..2 {
        running.until(|event| matches!(event, Event::Unreachable { .. })).await;
    }
}

//! Mosquitto as Debian ships it.

use std::path::PathBuf;
use std::time::Duration;

use kf_broker::{
    BrokerConnector, BrokerError, BrokerProcess, Control, Cut, CutBy, DeviceTopics, Mosquitto, MosquittoConfig,
    MosquittoFiles, MosquittoProcess, MosquittoSettings,
};
use kf_key::UnixMillis;
use kf_mqtt::{Client, Event, EventLoop, Packet, QoS, Settings, SubscribeReasonCode};
use kf_testkit::{ForeignAuthority, IssuedIdentity, TempDir, Tool, free_port, scratch};

use crate::fleet::{DEADLINE, client_tls, crl, identity, key};

struct Bench {
    authority: ForeignAuthority,
    port: u16,
    files: MosquittoFiles,
    process: MosquittoProcess,
    broker: Mosquitto,
    _directory: TempDir,
}

fn pem_chain(chain: &[Vec<u8>]) -> String {
    let block = |der: &Vec<u8>| der::pem::encode_string("CERTIFICATE", der::pem::LineEnding::LF, der).unwrap();
    chain.iter().map(block).collect()
}

async fn bench() -> Bench {
    let program: PathBuf = Tool::new("mosquitto").path().to_owned();
    let authority = ForeignAuthority::new();
    let directory = scratch();
    let server = authority.issue_server(&["localhost", "broker.example"]);
    let port = free_port();
    let config = MosquittoConfig {
        port,
        client_authorities_pem: authority.authorities_pem(),
        server_chain_pem: pem_chain(&server.chain),
        server_key: key(&server),
        control_name: "keyfleet-control".to_owned(),
        crls: vec![crl(&authority, &[])],
    };
    let files = config.write(directory.path()).unwrap();
    let process = MosquittoProcess::start(&program, &files.config, DEADLINE).await.unwrap();
    let control = Control {
        host: "127.0.0.1".to_owned(),
        port,
        server_name: Some("broker.example".to_owned()),
        identity: identity(&authority, &authority.issue_client("keyfleet-control")),
        client_id: "keyfleet-control".to_owned(),
        cut_by: CutBy::DynamicSecurity(DeviceTopics::default()),
    };
    let broker = Mosquitto::open(MosquittoSettings {
        name: "mosquitto".to_owned(),
        crl_file: files.crl_file.clone(),
        process: BrokerProcess::Pid(process.pid()),
        control: Some(control),
    })
    .unwrap();
    Bench { authority, port, files, process, broker, _directory: directory }
}

struct Device {
    client: Client,
    events: EventLoop,
    name: String,
}

impl Bench {
    fn device(&self, name: &str, issued: &IssuedIdentity) -> Device {
        let settings = Settings {
            client_id: format!("id-of-{name}"),
            host: "localhost".to_owned(),
            port: self.port,
            keep_alive: Duration::from_secs(60),
            max_packet_octets: 10 * 1024,
            tls: client_tls(&self.authority, issued),
        };
        let (client, events) = kf_mqtt::open(settings, 16);
        Device { client, events, name: name.to_owned() }
    }
}

impl Device {
    /// Connects once; `false` when refused.
    async fn connect(&mut self) -> bool {
        matches!(self.next().await, Some(Event::Incoming(Packet::ConnAck(_))))
    }

    async fn next(&mut self) -> Option<Event> {
        tokio::time::timeout(DEADLINE, self.events.poll()).await.expect("the broker did not answer").ok()
    }

    /// Subscribes to its own topic, publishes there, and waits for what comes back; `false` when the session ends first
    /// or the broker denies the subscription.
    async fn is_served(&mut self) -> bool {
        let topic = format!("devices/{}/up", self.name);
        self.client.subscribe(&topic, QoS::AtLeastOnce).await.unwrap();
        self.client.publish(&topic, QoS::AtLeastOnce, "1").await.unwrap();
        while let Some(event) = self.next().await {
            match event {
                Event::Incoming(Packet::Publish(message)) => return message.topic == topic,
                Event::Incoming(Packet::SubAck(answer))
                    if answer.return_codes.contains(&SubscribeReasonCode::Failure) =>
                {
                    return false;
                }
                _ => {}
            }
        }
        false
    }

    /// Waits for the end of the session.
    async fn is_cut(&mut self) -> bool {
        while let Some(event) = self.next().await {
            assert!(!matches!(event, Event::Incoming(Packet::ConnAck(_))), "connected again");
        }
        true
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn crl_then_reload_then_cut_keeps_a_revoked_device_out() {
    let bench = bench().await;
    let (good, bad) = (bench.authority.issue_client("good"), bench.authority.issue_client("bad"));
    bench.broker.admit("good").await.unwrap();
    bench.broker.admit("bad").await.unwrap();
    bench.broker.admit("bad").await.unwrap();
    let (mut good_device, mut bad_device) = (bench.device("good", &good), bench.device("bad", &bad));
    assert!(good_device.connect().await && bad_device.connect().await);
    assert!(good_device.is_served().await && bad_device.is_served().await);

    let report = bench.broker.enforce(&[crl(&bench.authority, &[bad.serial])], &["bad"], DEADLINE).await;
    assert!(report.crl_published && report.reloaded && report.session_cut && report.verified, "{report:?}");
    assert_eq!(report.failure, None);
    assert!(bad_device.is_cut().await);
    for _attempt in 0..3 {
        assert!(!bad_device.connect().await, "a revoked device was let in");
    }
    assert!(good_device.is_served().await);

    bench.broker.publish_crls(&[crl(&bench.authority, &[])]).await.unwrap();
    bench.broker.reload().await.unwrap();
    bench.broker.readmit("bad").await.unwrap();
    assert!(bad_device.connect().await && bad_device.is_served().await);
    bench.process.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_without_the_crl_lets_the_device_back_in() {
    let bench = bench().await;
    let issued = bench.authority.issue_client("meter");
    bench.broker.admit("meter").await.unwrap();
    let mut device = bench.device("meter", &issued);
    assert!(device.connect().await && device.is_served().await);
    assert_eq!(bench.broker.cut("meter").await.unwrap(), Cut::Closed);
    assert!(device.is_cut().await);
    // The trap that the order of enforcement is there for: disabled, but named by its certificate.
    assert!(device.connect().await);
    assert!(!bench.broker.verify_gone("meter", Duration::from_millis(300)).await.unwrap());
    // What a cut does beyond disabling: without roles it can do nothing with the session.
    assert!(!device.is_served().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crl_without_the_cut_leaves_the_session_up() {
    let bench = bench().await;
    let issued = bench.authority.issue_client("meter");
    bench.broker.admit("meter").await.unwrap();
    let mut device = bench.device("meter", &issued);
    assert!(device.connect().await && device.is_served().await);
    bench.broker.publish_crls(&[crl(&bench.authority, &[issued.serial])]).await.unwrap();
    bench.broker.reload().await.unwrap();
    assert!(device.is_served().await);
    assert!(!bench.device("meter", &issued).connect().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_of_a_revoked_certificate_ends_although_the_device_has_a_good_one() {
    let bench = bench().await;
    let (stolen, good) = (bench.authority.issue_client("meter"), bench.authority.issue_client("meter"));
    bench.broker.admit("meter").await.unwrap();
    let mut thief = bench.device("meter", &stolen);
    assert!(thief.connect().await && thief.is_served().await);
    let report = bench.broker.enforce(&[crl(&bench.authority, &[stolen.serial])], &[], DEADLINE).await;
    assert!(report.reloaded, "{report:?}");
    assert_eq!(bench.broker.restart_sessions("meter").await.unwrap(), Cut::Closed);
    assert!(thief.is_cut().await);
    assert!(!thief.connect().await);
    let mut device = bench.device("meter", &good);
    assert!(device.connect().await && device.is_served().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_connector_changes_its_own_certificate_without_losing_its_grip() {
    let bench = bench().await;
    // Valid from 2020 to 4000: half of its life lies in 3010.
    let (early, late) = (UnixMillis::from_seconds(1_800_000_000), UnixMillis::from_seconds(33_000_000_000));
    assert_eq!(bench.broker.identity_due(early), None);
    assert_eq!(bench.broker.identity_due(late).as_deref(), Some("keyfleet-control"));
    bench.broker.admit("meter").await.unwrap();
    let issued = bench.authority.issue_client("meter");
    let mut device = bench.device("meter", &issued);
    assert!(device.connect().await && device.is_served().await);
    let next = bench.authority.issue_client("keyfleet-control");
    bench.broker.renew_identity(identity(&bench.authority, &next)).await.unwrap();
    let report = bench.broker.enforce(&[crl(&bench.authority, &[issued.serial])], &["meter"], DEADLINE).await;
    assert!(report.verified && report.session_cut, "{report:?}");
    assert!(device.is_cut().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_under_another_name_is_not_believed() {
    let bench = bench().await;
    let control = Control {
        host: "127.0.0.1".to_owned(),
        port: bench.port,
        server_name: Some("elsewhere.example".to_owned()),
        identity: identity(&bench.authority, &bench.authority.issue_client("keyfleet-control")),
        client_id: "keyfleet-control".to_owned(),
        cut_by: CutBy::DynamicSecurity(DeviceTopics::default()),
    };
    let broker = Mosquitto::open(MosquittoSettings {
        name: "mosquitto".to_owned(),
        crl_file: bench.files.crl_file.clone(),
        process: BrokerProcess::Pid(bench.process.pid()),
        control: Some(control),
    })
    .unwrap();
    let refusal = broker.admit("meter").await.unwrap_err();
    assert!(
        matches!(&refusal, BrokerError::Unreachable { reason, .. } if reason.contains("ertificate")),
        "{refusal:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_ticket_from_before_the_reload_does_not_get_past_the_crl() {
    let bench = bench().await;
    let issued = bench.authority.issue_client("meter");
    let directory = scratch();
    let file = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    std::fs::write(file("chain.pem"), pem_chain(&issued.chain)).unwrap();
    let pkcs8 = der::pem::encode_string("PRIVATE KEY", der::pem::LineEnding::LF, &issued.pkcs8).unwrap();
    std::fs::write(file("key.pem"), pkcs8).unwrap();
    let address = format!("localhost:{}", bench.port);
    let openssl = Tool::new("openssl");
    let (chain, key_file, session) = (file("chain.pem"), file("key.pem"), file("session"));
    // A CONNECT packet; the broker's CONNACK (20 02 00 00) tells that the session is served.
    let connect_packet = b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x3c\x00\x01r";
    let visit = |direction: &str| {
        let arguments = [
            "s_client",
            "-connect",
            &address,
            "-cert",
            &chain,
            "-cert_chain",
            &chain,
            "-key",
            &key_file,
            "-tls1_2",
            direction,
            &session,
            "-ign_eof",
            "-brief",
        ];
        openssl.run_with_input(&arguments, &[&connect_packet[..], b"\xe0\x00"].concat())
    };
    let served = |output: &kf_testkit::Output| output.stdout.windows(4).any(|bytes| bytes == [0x20, 2, 0, 0]);
    assert!(served(&visit("-sess_out")));
    assert!(served(&visit("-sess_in")));
    bench.broker.publish_crls(&[crl(&bench.authority, &[issued.serial])]).await.unwrap();
    bench.broker.reload().await.unwrap();
    assert!(!served(&visit("-sess_in")), "a resumed session was not checked against the CRL");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crl_file_that_the_broker_cannot_read_is_reported() {
    let bench = bench().await;
    std::fs::write(&bench.files.crl_file, "not a CRL").unwrap();
    let outcome = bench.broker.reload().await;
    assert!(matches!(&outcome, Err(BrokerError::Refused { command: "reload", .. })), "{outcome:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_reaches_its_own_topics_only() {
    let bench = bench().await;
    for name in ["meter-1", "meter-2"] {
        bench.broker.admit(name).await.unwrap();
    }
    let issued = bench.authority.issue_client("meter-1");
    let mut device = bench.device("meter-1", &issued);
    assert!(device.connect().await && device.is_served().await);
    device.name = "meter-2".to_owned();
    assert!(!device.is_served().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_down_is_reported_and_the_crl_is_published_all_the_same() {
    let Bench { authority, files, process, broker, _directory, .. } = bench().await;
    broker.admit("meter").await.unwrap();
    process.stop().await.unwrap();
    let crls = [crl(&authority, &[5])];
    let report = broker.enforce(&crls, &["no/such"], Duration::from_millis(100)).await;
    assert!(report.crl_published && !report.reloaded && !report.session_cut && !report.verified, "{report:?}");
    assert_eq!(std::fs::read_to_string(&files.crl_file).unwrap().trim(), crls[0].pem.trim());
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_control_session_nothing_is_claimed() {
    let authority = ForeignAuthority::new();
    let directory = scratch();
    let broker = Mosquitto::open(MosquittoSettings {
        name: "bare".to_owned(),
        crl_file: directory.path().join("crl.pem"),
        process: BrokerProcess::PidFile(directory.path().join("missing.pid")),
        control: None,
    })
    .unwrap();
    let report = broker.enforce(&[crl(&authority, &[])], &["meter"], DEADLINE).await;
    assert!(report.crl_published && !report.reloaded && !report.session_cut && !report.verified, "{report:?}");
    assert!(report.failure.unwrap().contains("mosquitto_dynamic_security"));
}

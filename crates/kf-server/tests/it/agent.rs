//! The agent against this server: a device's life from its code to its last refusal.

use std::sync::{Arc, Mutex};

use kf_agent::{Agent, Config, Event, EventSink, RunOutcome};
use kf_api::certificate::IssueRequest;
use kf_api::enrolment::EnrolmentDecision;
use kf_api::product_line::{Approval, EnrolmentPolicy};
use kf_fleet::Clock as _;
use kf_key::{CertificateProfile, UnixMillis};
use kf_pki::certificate::PresentedCertificate;
use kf_server::Limits;

use crate::rig::{Rig, hours_from, openssl};

/// A device named `pump-1` beside its server.
pub(crate) struct Device {
    pub(crate) rig: Rig,
    events: Arc<Mutex<Vec<Event>>>,
}

impl Device {
    pub(crate) async fn new(policy: EnrolmentPolicy) -> Self {
        Self::with(Limits::default(), policy).await
    }

    pub(crate) async fn with(limits: Limits, policy: EnrolmentPolicy) -> Self {
        let rig = Rig::start_with(limits, policy).await;
        rig.device("pump-1").await;
        Self { rig, events: Arc::default() }
    }

    /// Puts a fresh code where the device finds it.
    pub(crate) async fn give_code(&self) {
        let code = self.rig.code("pump-1").await;
        std::fs::write(self.rig.file("code"), code.split_once(':').unwrap().1).unwrap();
    }

    fn config(&self, trust: &str, bootstrap: &str) -> Config {
        self.config_with(trust, "allow_plain_key = true", bootstrap)
    }

    fn config_with(&self, trust: &str, key: &str, bootstrap: &str) -> Config {
        let text = format!(
            "server = \"{}\"\nlabel = \"pumps\"\ndevice_name = \"pump-1\"\nstate_dir = \"{}\"\n\
             [trust]\n{trust}\n[key]\n{key}\n[bootstrap]\n{bootstrap}\n",
            self.rig.https_url(""),
            self.rig.file("device").display()
        );
        Config::parse(&text).unwrap()
    }

    pub(crate) async fn start(&self, config: Config) -> (RunOutcome, Vec<Event>) {
        let log = self.events.clone();
        let sink = EventSink::new(move |event| log.lock().unwrap().push(event.clone()));
        let outcome = open_agent(&config, &sink).once().await;
        (outcome, std::mem::take(&mut *self.events.lock().unwrap()))
    }

    async fn once(&self) -> (RunOutcome, Vec<Event>) {
        let root = format!("root_file = \"{}\"", self.rig.root().display());
        let code = format!("code_file = \"{}\"", self.rig.file("code").display());
        self.start(self.config(&root, &code)).await
    }

    /// As [`Device::once`], with keys of this algorithm.
    pub(crate) async fn once_with_key(&self, algorithm: &str) -> (RunOutcome, Vec<Event>) {
        let root = format!("root_file = \"{}\"", self.rig.root().display());
        let code = format!("code_file = \"{}\"", self.rig.file("code").display());
        let key = format!("allow_plain_key = true\nalgorithm = \"{algorithm}\"");
        self.start(self.config_with(&root, &key, &code)).await
    }

    /// Moves the clocks of both sides: the device believes what it last saw.
    pub(crate) fn pass_hours(&self, hours: u64) {
        let now = hours_from(self.rig.clock.now(), hours);
        self.rig.clock.set(now);
        std::fs::write(self.rig.file("device/last-seen"), now.0.to_string()).unwrap();
    }

    /// The certificate in use.
    pub(crate) fn certificate(&self) -> PresentedCertificate {
        let slot = std::fs::read_to_string(self.rig.file("device/current")).unwrap();
        let chain = std::fs::read_to_string(self.rig.file(&format!("device/{}/chain", slot.trim()))).unwrap();
        PresentedCertificate::from_der(&kf_pki::pem::decode_all("CERTIFICATE", &chain).unwrap()[0]).unwrap()
    }
}

/// Opens an agent. A child that another test starts has this process's files, the lock of a state directory that was just
/// given back among them, from its fork to its exec: that moment is waited out.
pub(crate) fn open_agent(config: &Config, sink: &EventSink) -> Agent {
    let started = std::time::Instant::now();
    loop {
        match Agent::open(config.clone(), sink.clone()) {
            Err(failure)
                if failure.to_string().contains("another agent uses")
                    && started.elapsed() < std::time::Duration::from_secs(10) =>
            {
                std::thread::yield_now();
            }
            outcome => return outcome.unwrap(),
        }
    }
}

fn two_hours(grace: u32) -> EnrolmentPolicy {
    EnrolmentPolicy { ldevid_lifetime_hours: 2, renewal_grace_hours: grace, ..EnrolmentPolicy::default() }
}

fn refusals(events: &[Event]) -> Vec<&'static str> {
    let refused = events.iter().filter_map(|event| match event {
        Event::EnrolmentRefused { credential, .. } => Some(*credential),
        _ => None,
    });
    refused.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_enrols_renews_in_time_sleeps_and_renews_in_its_grace() {
    let device = Device::new(two_hours(10)).await;
    device.give_code().await;
    let (outcome, events) = device.once().await;
    assert!(outcome.is_valid && outcome.is_settled, "{events:?}");
    let first = device.certificate();
    assert!(device.once().await.0.is_settled);
    assert_eq!(device.certificate().serial, first.serial, "nothing is due");

    for hours in [2, 8] {
        let before = device.certificate();
        device.pass_hours(hours);
        let (outcome, events) = device.once().await;
        assert!(outcome.is_valid && outcome.is_settled, "after {hours} h: {events:?}");
        let after = device.certificate();
        assert_ne!((after.serial, &after.spki), (before.serial, &before.spki));
        assert_eq!((&after.subject, &after.subject_alt_name), (&before.subject, &before.subject_alt_name));
    }
    device.rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn beyond_the_grace_a_used_code_helps_nobody_and_a_new_one_does() {
    let device = Device::new(two_hours(1)).await;
    device.give_code().await;
    assert!(device.once().await.0.is_valid);
    device.pass_hours(5);
    let (outcome, events) = device.once().await;
    assert!(!outcome.is_valid && outcome.needs_attention, "{events:?}");
    assert_eq!(refusals(&events), ["certificate", "code"]);
    device.give_code().await;
    let (outcome, events) = device.once().await;
    assert!(outcome.is_valid && !outcome.needs_attention, "{events:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_device_is_refused_and_asks_for_help() {
    let device = Device::new(two_hours(10)).await;
    device.give_code().await;
    assert!(device.once().await.0.is_valid);
    device.rig.revoke(device.certificate().serial.unwrap()).await;
    device.pass_hours(2);
    let (outcome, events) = device.once().await;
    assert!(outcome.needs_attention, "{events:?}");
    assert_eq!(refusals(&events), ["certificate", "code"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_waits_for_approval_and_takes_up_what_it_asked_for() {
    let policy = EnrolmentPolicy { approval: Approval::Manual, ..EnrolmentPolicy::default() };
    let device = Device::new(policy).await;
    device.give_code().await;
    for _ in 0..2 {
        let (outcome, events) = device.once().await;
        assert!(!outcome.is_valid && !outcome.is_settled);
        assert!(events.iter().any(|event| matches!(event, Event::Pending { .. })), "{events:?}");
    }
    let (fleet, owner) = (&device.rig.fleet, &device.rig.owner);
    let waiting = fleet.enrolment_list(owner, Default::default()).await.unwrap().items;
    assert_eq!(waiting.len(), 1, "one request, however often it is sent");
    let decision = EnrolmentDecision { approve: true, why: "seen on the wall".into() };
    fleet.enrolment_decide(owner, waiting[0].id, decision).await.unwrap();
    let (outcome, events) = device.once().await;
    assert!(outcome.is_valid && outcome.is_settled, "{events:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_knows_only_the_root_s_fingerprint_finds_its_server_and_no_other() {
    let device = Device::new(EnrolmentPolicy::default()).await;
    device.give_code().await;
    let pem = std::fs::read_to_string(device.rig.root()).unwrap();
    let root = kf_pki::pem::decode_all("CERTIFICATE", &pem).unwrap().remove(0);
    let code = format!("code_file = \"{}\"", device.rig.file("code").display());
    let pinned = |digest: [u8; 32]| {
        let hex: String = digest.iter().map(|octet| format!("{octet:02x}")).collect();
        device.config(&format!("root_sha256 = \"{hex}\""), &code)
    };
    let (outcome, events) = device.start(pinned([7; 32])).await;
    assert!(!outcome.is_valid, "{events:?}");
    let (outcome, events) = device.start(pinned(kf_crypto::sha256(&root))).await;
    assert!(outcome.is_valid && outcome.is_settled, "{events:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_enrols_with_its_idevid() {
    let device = Device::new(EnrolmentPolicy::default()).await;
    let request = device.rig.request("idevid");
    let der = request.der.to_str().unwrap();
    let issue = IssueRequest {
        profile: CertificateProfile::IDevId,
        csr_pem: openssl(&["req", "-inform", "DER", "-in", der]).expect_success().stdout_text(),
        device: Some("pump-1".into()),
        operator: None,
        dns_names: Vec::new(),
        authority: None,
        lifetime_hours: None,
        dry_run: false,
    };
    let issued = device.rig.fleet.certificate_issue(&device.rig.owner, issue).await.unwrap();
    std::fs::write(device.rig.file("idevid.pem"), format!("{}{}", issued.pem, issued.chain_pem)).unwrap();
    let bootstrap = format!(
        "idevid_chain_file = \"{}\"\nidevid_key_file = \"{}\"",
        device.rig.file("idevid.pem").display(),
        request.key.display()
    );
    let root = format!("root_file = \"{}\"", device.rig.root().display());
    let (outcome, events) = device.start(device.config(&root, &bootstrap)).await;
    assert!(outcome.is_valid && outcome.is_settled, "{events:?}");
    assert!(device.certificate().not_after > device.rig.clock.now().plus(UnixMillis::DAY));
}

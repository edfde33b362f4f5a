//! A device's surroundings: an EST server, a state directory, a record of events.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use base64::prelude::{BASE64_STANDARD, Engine as _};
use kf_agent::key_source::KeySource;
use kf_agent::{Agent, Config, Event, EventSink, RunOutcome};
use kf_pki::request::CertificationRequest;
use kf_testkit::{Answer, ClientCheck, Day, ForeignAuthority, HttpsServer, Received, TempDir, scratch};

/// Longer than any fork takes to its exec, on a busy machine too.
const FORK_TO_EXEC: Duration = Duration::from_secs(10);

/// Valid from 2020 for ages: renewal lies centuries away.
pub(crate) const LONG: (Day, Day) = ((2020, 1, 1), (4000, 1, 1));
/// Valid from 1970 to 2049: two thirds are over, renewal is due.
pub(crate) const DUE: (Day, Day) = ((1970, 1, 2), (2049, 1, 1));
/// Expired.
pub(crate) const OVER: (Day, Day) = ((2020, 1, 1), (2021, 1, 1));

/// What the server does with an enrolment that is authenticated as it should be.
pub(crate) type Script = dyn Fn(&Received, usize) -> Reply + Send + Sync;

/// An answer to an enrolment.
#[derive(Clone, Debug)]
pub(crate) enum Reply {
    /// A certificate with these days; the same key gets the same certificate again.
    Issue((Day, Day)),
    /// The certificate is made, and the connection breaks before the answer.
    IssueAndHangUp((Day, Day)),
    /// Something else.
    Other(Answer),
}

#[derive(Default)]
struct Ledger {
    received: Vec<Received>,
    issued: BTreeMap<Vec<u8>, Vec<u8>>,
    enrolments: usize,
}

pub(crate) struct Bench {
    pub(crate) authority: Arc<ForeignAuthority>,
    pub(crate) server: HttpsServer,
    pub(crate) directory: TempDir,
    ledger: Arc<Mutex<Ledger>>,
    events: Arc<Mutex<Vec<Event>>>,
}

pub(crate) async fn bench(script: impl Fn(&Received, usize) -> Reply + Send + Sync + 'static) -> Bench {
    let authority = Arc::new(ForeignAuthority::new());
    let ledger: Arc<Mutex<Ledger>> = Arc::default();
    let identity = authority.issue_server(&["localhost"]);
    let (book, issuer) = (ledger.clone(), authority.clone());
    let script: Arc<Script> = Arc::new(script);
    let answer = move |request: Received| answer(&issuer, &book, script.as_ref(), request);
    let server = HttpsServer::start(&identity, ClientCheck::Anybody, answer).await;
    let directory = scratch();
    std::fs::write(directory.path().join("root.pem"), kf_pki::pem::certificate(&authority.root_der())).unwrap();
    Bench { authority, server, directory, ledger, events: Arc::default() }
}

fn certs_only(certificates: &[Vec<u8>]) -> Answer {
    let slices: Vec<&[u8]> = certificates.iter().map(Vec::as_slice).collect();
    Answer::new(200, BASE64_STANDARD.encode(kf_pki::cms::certs_only(&slices)))
        .header("content-type", "application/pkcs7-mime; smime-type=certs-only")
}

fn answer(authority: &ForeignAuthority, ledger: &Mutex<Ledger>, script: &Script, request: Received) -> Answer {
    let mut ledger = ledger.lock().unwrap();
    ledger.received.push(request.clone());
    if request.path.ends_with("/cacerts") {
        return certs_only(&[authority.root_der(), authority.issuing_der()]);
    }
    let number = ledger.enrolments;
    ledger.enrolments += 1;
    let mut issue = |days: (Day, Day)| {
        let request = CertificationRequest::from_body(&request.body).unwrap();
        let (_, public_key) = kf_crypto::public_key_of_spki(&request.key.spki).unwrap();
        let make = || authority.certify_client("meter-1", public_key, days.0, days.1);
        ledger.issued.entry(request.key.spki.clone()).or_insert_with(make).clone()
    };
    match script(&request, number) {
        Reply::Issue(days) => certs_only(&[issue(days)]),
        Reply::IssueAndHangUp(days) => {
            issue(days);
            Answer::HangUp
        }
        Reply::Other(answer) => answer,
    }
}

impl Bench {
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A configuration with `more` at its end; `{dir}` stands for the scratch directory.
    pub(crate) fn config_text(&self, more: &str) -> String {
        self.config_text_with_key("allow_plain_key = true", more)
    }

    /// As [`Bench::config_text`], with this table of the key.
    pub(crate) fn config_text_with_key(&self, key: &str, more: &str) -> String {
        let text = format!(
            "server = \"{}\"\nlabel = \"meters\"\ndevice_name = \"meter-1\"\nstate_dir = \"{{dir}}/state\"\n\
             [trust]\nroot_file = \"{{dir}}/root.pem\"\n[key]\n{key}\n{more}",
            self.server.url()
        );
        text.replace("{dir}", self.directory.path().to_str().unwrap())
    }

    pub(crate) fn config(&self, more: &str) -> Config {
        Config::parse(&self.config_text(more)).unwrap()
    }

    pub(crate) fn sink(&self) -> EventSink {
        let events = self.events.clone();
        EventSink::new(move |event| events.lock().unwrap().push(event.clone()))
    }

    /// One start of the agent, to where it would wait; the events since the last.
    pub(crate) async fn once(&self, more: &str) -> (RunOutcome, Vec<Event>) {
        let outcome = open(&self.config(more), || self.sink()).unwrap().once().await;
        (outcome, self.take_events())
    }

    /// The events since the last.
    pub(crate) fn take_events(&self) -> Vec<Event> {
        std::mem::take(&mut *self.events.lock().unwrap())
    }

    /// Enrolment requests received, with the operation's name and the client's leaf.
    pub(crate) fn enrolments(&self) -> Vec<(String, Received)> {
        let ledger = self.ledger.lock().unwrap();
        let enrolments = ledger.received.iter().filter(|request| !request.path.ends_with("/cacerts"));
        enrolments.map(|request| (request.path.rsplit('/').next().unwrap().to_owned(), request.clone())).collect()
    }

    pub(crate) fn received(&self) -> Vec<Received> {
        self.ledger.lock().unwrap().received.clone()
    }

    /// Certificates made.
    pub(crate) fn issued(&self) -> usize {
        self.ledger.lock().unwrap().issued.len()
    }

    /// The leaf of the slot in use, DER.
    pub(crate) fn leaf_in_use(&self) -> Vec<u8> {
        let slot = std::fs::read_to_string(self.path("state/current")).unwrap();
        let chain = std::fs::read_to_string(self.path(&format!("state/{}/chain", slot.trim()))).unwrap();
        kf_pki::pem::decode_all("CERTIFICATE", &chain).unwrap().remove(0)
    }
}

/// Opens an agent.
pub(crate) fn open(config: &Config, sink: impl Fn() -> EventSink) -> Result<Agent, Box<dyn std::error::Error>> {
    until_unlocked(|| Agent::open(config.clone(), sink()))
}

/// Opens an agent over these keys.
pub(crate) fn open_with(
    config: &Config,
    sink: impl Fn() -> EventSink,
    keys: impl Fn() -> Box<dyn KeySource>,
) -> Result<Agent, Box<dyn std::error::Error>> {
    until_unlocked(|| Agent::open_with(config.clone(), sink(), keys()))
}

/// A child that another test starts has this process's files, the lock of a state directory that was just given back among
/// them, from its fork to its exec: that moment is waited out.
fn until_unlocked<E: std::error::Error + 'static>(
    open: impl Fn() -> Result<Agent, E>,
) -> Result<Agent, Box<dyn std::error::Error>> {
    let started = Instant::now();
    loop {
        match open() {
            Err(failure) if is_locked(&failure) && started.elapsed() < FORK_TO_EXEC => std::thread::yield_now(),
            outcome => return outcome.map_err(Into::into),
        }
    }
}

fn is_locked(failure: &dyn std::error::Error) -> bool {
    failure.to_string().contains("another agent uses")
}

/// Names of the events, as on standard output.
pub(crate) fn names(events: &[Event]) -> Vec<String> {
    let name = |event| serde_json::to_value(event).unwrap()["event"].as_str().unwrap().to_owned();
    events.iter().map(name).collect()
}

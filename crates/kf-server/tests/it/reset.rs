//! A device that is sold: what its owner brought dies by order, and the next owner's server admits it by its IDevID.

mod hardware;
mod wipe;

use std::collections::BTreeSet;
use std::fs;
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use kf_agent::{Agent, Config, Event, EventSink, RunOutcome};
use kf_api::operator::Role;
use kf_api::order::{Order, OrderAct, OrderFilter, OrderProgress};
use kf_api::ownership::{LeavingDevice, OwnershipEnd, OwnershipRequest};
use kf_api::product_line::EnrolmentPolicy;
use kf_api::proposal::ProposalDecision;
use kf_api::vendor::{NewVendor, VendorImport, VendorRow};
use kf_fleet::Principal;
use kf_key::{DeviceState, ProposalId, SecretBytes};
use kf_server::Limits;
use kf_testkit::{CRASH_AT, ForeignAuthority, Output, Tool, crash_library};
use serde_json::{Value, json};

use crate::agent::open_agent;
use crate::rig::Rig;

/// What a program of the owner keeps in the agent.
const RECORD: &[u8] = b"the password of the owner's network";
/// 32 octets that the agent's keys are sealed under; handed over at each start, and not the owner's.
const SEAL: &str = "5e41000000000000000000000000000000000000000000000000000000005e41";

/// A maker, and a device with an IDevID of its own in a directory.
struct Made {
    maker: ForeignAuthority,
    scratch: kf_testkit::TempDir,
}

impl Made {
    fn new() -> Self {
        let (maker, scratch) = (ForeignAuthority::new(), kf_testkit::scratch());
        let identity = maker.issue_client("pump-1");
        let made = Self { maker, scratch };
        // Where a station puts it: in the directory that the agent starts from.
        fs::create_dir_all(made.state().join("factory")).unwrap();
        fs::write(made.idevid("key.pem"), kf_pki::pem::encode("PRIVATE KEY", &identity.pkcs8)).unwrap();
        let chain: String = identity.chain.iter().map(|der| kf_pki::pem::certificate(der)).collect();
        fs::write(made.idevid("chain.pem"), chain).unwrap();
        made
    }

    fn file(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    fn state(&self) -> PathBuf {
        self.file("state")
    }

    fn idevid(&self, name: &str) -> PathBuf {
        self.state().join("factory").join(name)
    }
}

/// A server that trusts the maker for this device.
struct Site {
    rig: Rig,
    second: Principal,
}

impl Site {
    async fn new(made: &Made) -> Self {
        let rig = Rig::start_with(Limits::default(), EnrolmentPolicy::default()).await;
        let vendor = NewVendor { name: "acme".into(), anchor_pem: pem_of(&made.maker.root_der()) };
        rig.fleet.vendor_create(&rig.owner, vendor).await.unwrap();
        let chain_pem = fs::read_to_string(made.idevid("chain.pem")).unwrap();
        let import = VendorImport {
            facility: "factory-a".into(),
            product_line: "pumps".into(),
            source: String::new(),
            dry_run: false,
            rows: vec![VendorRow { name: Some("pump-1".into()), identifier: None, chain_pem: Some(chain_pem) }],
        };
        let report = rig.fleet.vendor_import(&rig.owner, "acme", import).await.unwrap();
        assert_eq!(report.registered, 1, "{report:?}");
        let token = rig.operator("pavel", Role::FleetOperator, &[]).await;
        let second = rig.fleet.authenticate_token(&SecretBytes::from_vec(token.into_bytes())).await.unwrap();
        Self { rig, second }
    }

    /// What the owner configures, in a directory of its own.
    fn config(&self, made: &Made, state: &Path, more: &str) -> String {
        let pins = self.rig.fleet.device_pins().unwrap();
        for (file, pem) in [("delivery.pem", &pins.delivery_key_pem), ("order.pem", &pins.order_key_pem)] {
            fs::write(self.rig.file(file), pem).unwrap();
        }
        let file = |name: &str| self.rig.file(name).display().to_string();
        let factory = state.join("factory");
        format!(
            "server = \"{}\"\nlabel = \"pumps\"\ndevice_name = \"pump-1\"\nstate_dir = \"{}\"\n\
             [trust]\nroot_file = \"{}\"\n[key]\nseal_fd = 0\n\
             [bootstrap]\nidevid_chain_file = \"{}\"\nidevid_key_file = \"{}\"\ncode_file = \"{}\"\n\
             [device_key]\ndelivery_key_file = \"{}\"\n[orders]\norder_key_file = \"{}\"\n{more}\n",
            self.rig.https_url(""),
            state.display(),
            self.rig.root().display(),
            factory.join("chain.pem").display(),
            factory.join("key.pem").display(),
            made.file("code").display(),
            file("delivery.pem"),
            file("order.pem"),
        )
    }

    fn sale(&self, factory_reset: Option<bool>) -> OwnershipRequest {
        OwnershipRequest {
            end: OwnershipEnd::Resold,
            devices: vec![LeavingDevice { device: "pump-1".into(), replacement: None }],
            why: "sold".into(),
            customer: String::new(),
            wipe: None,
            factory_reset,
            station_records_erased: false,
            dry_run: false,
        }
    }

    /// Two people sell the device.
    async fn sell(&self) {
        let outcome = self.rig.fleet.ownership_end(&self.rig.owner, self.sale(None)).await.unwrap();
        self.agree(outcome.proposal.unwrap()).await;
    }

    /// The second one's yes.
    async fn agree(&self, proposal: ProposalId) {
        let yes = ProposalDecision { approve: true, why: "agreed".into() };
        self.rig.fleet.proposal_decide(&self.second, proposal, yes).await.unwrap();
    }

    async fn newest_order(&self) -> Order {
        let filter = OrderFilter { device: Some("pump-1".into()), after: None, limit: None };
        let orders = self.rig.fleet.order_list(&self.rig.owner, filter).await.unwrap().items;
        orders.into_iter().max_by_key(|order| order.counter).unwrap()
    }

    /// The newest order and how far it has come.
    async fn order(&self) -> (OrderAct, OrderProgress) {
        let newest = self.newest_order().await;
        (newest.act, newest.progress.unwrap())
    }

    async fn state_of_device(&self) -> DeviceState {
        self.rig.fleet.device_show(&self.rig.owner, "pump-1").await.unwrap().device.state
    }
}

fn pem_of(der: &[u8]) -> String {
    kf_pki::pem::certificate(der)
}

/// Opens the agent, with the seal key in an open file, as a service manager hands it over.
fn agent(config: &str, sink: &EventSink) -> Agent {
    let directory = kf_testkit::scratch();
    fs::write(directory.path().join("seal"), SEAL).unwrap();
    let seal = fs::File::open(directory.path().join("seal")).unwrap();
    let config = config.replace("seal_fd = 0", &format!("seal_fd = {}", seal.as_raw_fd()));
    open_agent(&Config::parse(&config).unwrap(), sink)
}

fn quiet() -> EventSink {
    EventSink::new(|_| {})
}

async fn once(config: &str) -> (RunOutcome, Vec<Event>) {
    let events = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&events);
    let sink = EventSink::new(move |event: &Event| log.lock().unwrap().push(event.clone()));
    let outcome = agent(config, &sink).once().await;
    let events = std::mem::take(&mut *events.lock().unwrap());
    (outcome, events)
}

fn has(events: &[Event], name: &str) -> bool {
    events.iter().any(|event| serde_json::to_value(event).unwrap()["event"] == name)
}

/// Every 8 octets in the files below a directory, but of those that are named.
fn fragments(directory: &Path, but: &[&str]) -> BTreeSet<Vec<u8>> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(directory).unwrap().map(Result::unwrap) {
        let name = entry.file_name();
        if but.contains(&name.to_str().unwrap()) {
            continue;
        }
        if entry.file_type().unwrap().is_dir() {
            found.extend(fragments(&entry.path(), but));
        } else {
            let octets = fs::read(entry.path()).unwrap();
            let telling = octets.windows(8).filter(|part| part.iter().any(|octet| *octet != part[0]));
            found.extend(telling.map(<[u8]>::to_vec));
        }
    }
    found
}

/// What no search counts: the maker's, and what has never been secret.
const NO_SECRET: [&str; 5] = ["factory", "last-seen", "root.der", "anchors", "lock"];

/// A device in the middle of its life with this owner: certificate, device key, a record, and the server knows its program.
async fn in_use(made: &Made, site: &Site) -> String {
    fs::write(made.file("code"), "").unwrap();
    let config = site.config(made, &made.state(), "");
    let (outcome, events) = once(&config).await;
    assert!(outcome.is_valid && outcome.is_settled && !outcome.was_reset, "{events:?}");
    assert!(has(&events, "device-key"), "{events:?}");
    let agent = agent(&config, &quiet());
    agent.put_record(7, &SecretBytes::from_vec(RECORD.to_vec())).unwrap();
    config
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_is_sold_forgets_its_owner_and_enrols_with_the_next_one_by_its_idevid() {
    let made = Made::new();
    let (site, next) = (Site::new(&made).await, Site::new(&made).await);
    // A device that never said that it knows the order is not given it; whoever insists is refused.
    let refused = site.rig.fleet.ownership_end(&site.rig.owner, site.sale(Some(true))).await.unwrap_err();
    assert!(refused.to_string().contains("has not said that it knows"), "{refused}");
    let config = in_use(&made, &site).await;
    let before = fragments(&made.state(), &NO_SECRET);
    let factory = fragments(&made.state().join("factory"), &[]);
    assert!(before.len() > 300 && factory.len() > 300, "keys, vault and the secret of the ownership are there");
    fs::write(made.file("code"), "a code of this owner").unwrap();

    site.sell().await;
    assert_eq!(site.order().await, (OrderAct::FactoryReset, OrderProgress::Queued));
    assert_eq!(site.state_of_device().await, DeviceState::Suspended);
    let (outcome, events) = once(&config).await;
    assert!(!outcome.is_valid && outcome.was_reset, "{events:?}");
    let left = events.iter().find_map(|event| match event {
        Event::FactoryReset { left } => Some(left.clone()),
        _ => None,
    });
    assert_eq!(left, Some(Vec::new()), "{events:?}");
    assert!(has(&events, "order-answered"), "{events:?}");
    assert_eq!(site.order().await, (OrderAct::FactoryReset, OrderProgress::Executed));
    let receipt = site.rig.fleet.ownership_receipt(&site.rig.owner, "pump-1").await.unwrap();
    assert_eq!((receipt.record.order_act, receipt.wipe.as_deref()), (Some(OrderAct::FactoryReset), Some("executed")));

    // Nothing of the owner is left in any file; the maker's is.
    let after = fragments(&made.state(), &NO_SECRET);
    let found: Vec<_> = after.intersection(&before).collect();
    assert!(found.is_empty(), "{} fragments are left, {:02x?} among them", found.len(), found.first());
    assert_eq!(fragments(&made.state().join("factory"), &[]), factory);
    assert!(!made.file("code").exists(), "the owner's code is gone too");

    // Who sold it does not get it back; nothing else has changed on the device.
    let (outcome, events) = once(&config).await;
    assert!(!outcome.is_valid && !outcome.was_reset && has(&events, "enrolment-refused"), "{events:?}");

    // The next owner configures it, and it enrols by first use.
    let (outcome, events) = once(&next.config(&made, &made.state(), "")).await;
    assert!(outcome.is_valid && outcome.is_settled && has(&events, "device-key"), "{events:?}");
    assert_eq!(next.state_of_device().await, DeviceState::Active);
    let opened = agent(&next.config(&made, &made.state(), ""), &quiet());
    assert!(opened.read_record(7).unwrap().is_none(), "the record of before is not there");
    drop(opened);
    // And may sell it again: its order key counts from 1.
    next.sell().await;
    let (outcome, events) = once(&next.config(&made, &made.state(), "")).await;
    assert!(outcome.was_reset, "{events:?}");
    assert_eq!(next.order().await, (OrderAct::FactoryReset, OrderProgress::Executed));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reset_that_the_device_forbids_is_declined_and_one_that_is_not_told_stands_in_nobodys_way() {
    let made = Made::new();
    let (site, next) = (Site::new(&made).await, Site::new(&made).await);
    in_use(&made, &site).await;
    site.sell().await;
    let (outcome, events) = once(&site.config(&made, &made.state(), "allow_factory_reset = false")).await;
    assert!(!outcome.was_reset && has(&events, "order") && !has(&events, "factory-reset"), "{events:?}");
    assert_eq!(site.order().await.1, OrderProgress::Declined);
    // Another one is obeyed, and the server hears nothing of it: it is configured away before the device can tell.
    site.sell().await;
    let config = site.config(&made, &made.state(), "");
    let starts = Starts::of(RESET_TEST, &made);
    let mut when = 1;
    let untold = loop {
        fs::write(made.file("code"), "a code of this owner").unwrap();
        let state = made.file(&format!("cut-{when}"));
        copy(&made.state(), &state);
        let config = config.replace(&made.state().display().to_string(), &state.display().to_string());
        assert!(
            starts.is_killed(&config, when),
            "it comes to its end without a moment in which it is reset and has not told"
        );
        if state.join("reset-done").exists() {
            break state;
        }
        when += 1;
    };
    assert_eq!(site.order().await.1, OrderProgress::Acknowledged);
    let (outcome, events) = once(&next.config(&made, &untold, "")).await;
    assert!(outcome.was_reset && has(&events, "order-refused"), "another server knows no such order: {events:?}");
    let (outcome, events) = once(&next.config(&made, &untold, "")).await;
    assert!(outcome.is_valid, "{events:?}");
}

const RESET_TEST: &str = "reset::a_reset_that_is_cut_at_any_durable_step_ends_as_a_whole";

/// Names the configuration that a child of the tests works with.
const CHILD: &str = "KF_SERVER_RESET_CHILD";
/// What it does: `put` the record, `read` it, or what is due.
const DOES: &str = "KF_SERVER_RESET_DOES";

/// In a child, starts the agent once, and writes down what it told.
async fn is_child() -> bool {
    let Some(file) = std::env::var_os(CHILD) else { return false };
    let text = fs::read_to_string(&file).unwrap();
    let told = match std::env::var(DOES).as_deref() {
        Ok("put") => {
            agent(&text, &quiet()).put_record(7, &SecretBytes::from_vec(RECORD.to_vec())).unwrap();
            Value::Null
        }
        Ok("read") => {
            let kept = agent(&text, &quiet()).read_record(7).ok().flatten();
            json!({"kept": kept.is_some_and(|kept| kept.equals(RECORD))})
        }
        _ => {
            let (outcome, events) = once(&text).await;
            json!({"is_valid": outcome.is_valid, "was_reset": outcome.was_reset, "events": events})
        }
    };
    fs::write(Path::new(&file).with_file_name("told.json"), told.to_string()).unwrap();
    true
}

/// Starts of the agent in processes of their own, which begin with `test`.
struct Starts<'a> {
    test: &'static str,
    made: &'a Made,
    /// By which such a process finds what holds its keys.
    variables: Vec<(&'static str, PathBuf)>,
    library: Option<&'static Path>,
}

impl<'a> Starts<'a> {
    const fn of(test: &'static str, made: &'a Made) -> Self {
        Self { test, made, variables: Vec::new(), library: None }
    }

    fn run(&self, config: &str, first: Option<&Path>, (name, value): (&str, &str)) -> Output {
        let file = self.made.file("child.toml");
        fs::write(&file, config).unwrap();
        // A TPM takes one client at a time: the child must not hold a connection of this process.
        let child = Tool::at(&std::env::current_exe().unwrap()).without_inherited_files();
        let child = self.variables.iter().fold(child, |child, (name, value)| child.env(name, value));
        let libraries = first.into_iter().chain(self.library).map(|library| library.display().to_string());
        let child = child.env("LD_PRELOAD", libraries.collect::<Vec<_>>().join(":"));
        child.env(CHILD, &file).env(name, value).run(&["--exact", self.test, "--nocapture", "--test-threads=1"])
    }

    /// Has it do what `what` says, as far as it comes.
    fn tries(&self, config: &str, what: &str) -> Output {
        self.run(config, None, (DOES, what))
    }

    /// The same to the end; what it told.
    fn does(&self, config: &str, what: &str) -> Value {
        drop(self.tries(config, what).expect_success());
        serde_json::from_slice(&fs::read(self.made.file("told.json")).unwrap()).unwrap()
    }

    /// Kills it at the `when`-th call that makes something durable or visible; whether it was killed.
    fn is_killed(&self, config: &str, when: u32) -> bool {
        let output = self.run(config, Some(crash_library()), (CRASH_AT, &when.to_string()));
        assert!(output.success() || !output.stderr_text().contains("panicked"), "{}", output.text());
        !output.success()
    }
}

/// Whether what a process told names an event.
fn told(answer: &Value, name: &str) -> bool {
    answer["events"].as_array().unwrap().iter().any(|event| event["event"] == name)
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reset_that_is_cut_at_any_durable_step_ends_as_a_whole() {
    if is_child().await {
        return;
    }
    let made = Made::new();
    let site = Site::new(&made).await;
    let config = in_use(&made, &site).await;
    let before = fragments(&made.state(), &NO_SECRET);
    let starts = Starts::of(RESET_TEST, &made);
    let (mut not_begun, mut in_the_middle) = (0, 0);
    for when in 1..400 {
        fs::write(made.file("code"), "a code of this owner").unwrap();
        // Sold again each time: the copy has not seen the order of before.
        site.sell().await;
        let state = made.file("copy");
        drop(fs::remove_dir_all(&state));
        copy(&made.state(), &state);
        let of_copy = config.replace(&made.state().display().to_string(), &state.display().to_string());
        let killed = starts.is_killed(&of_copy, when);
        if killed && state.join("current").exists() && !state.join("reset").exists() {
            // As before: what it kept opens. Or the step that counts was the last one, and the next start goes on from it.
            let opened = agent(&of_copy, &quiet());
            let kept = opened.read_record(7).ok().flatten();
            let goes_on = state.join("reset").exists();
            assert_eq!(kept.is_some_and(|kept| kept.equals(RECORD)), !goes_on, "cut at {when}");
            *(if goes_on { &mut in_the_middle } else { &mut not_begun }) += 1;
        } else if killed {
            in_the_middle += 1;
        }
        let is_told = |name| state.join(name).exists();
        if killed && !is_told("reset-told") && (is_told("reset") || is_told("current")) {
            let (outcome, events) = once(&of_copy).await;
            assert!(outcome.was_reset && has(&events, "order-answered"), "cut at {when}: {events:?}");
        }
        assert_eq!(site.order().await, (OrderAct::FactoryReset, OrderProgress::Executed), "cut at {when}");
        // What is left of a told one goes at the next start, before anything is asked of anybody.
        drop(agent(&of_copy, &quiet()));
        let after = fragments(&state, &[&NO_SECRET[..], &["owner", "vault"]].concat());
        let found: Vec<_> = after.intersection(&before).collect();
        assert!(found.is_empty(), "cut at {when}: {} fragments are left", found.len());
        assert!(
            !["reset", "reset-done", "reset-told", "current"].iter().any(|name| state.join(name).exists()),
            "cut at {when}"
        );
        assert!(state.join("factory/key.pem").exists(), "cut at {when}: the maker's key stays");
        let counter = site.newest_order().await.counter.to_be_bytes();
        let remembered = fs::read(state.join("remembered")).unwrap();
        assert!(remembered.chunks(8).any(|part| part == counter), "cut at {when}: the order may come again");
        if !killed {
            assert!(not_begun >= 3 && in_the_middle >= 10, "{not_begun}, {in_the_middle}: too few steps were hit");
            return;
        }
    }
    panic!("there is no end of durable steps");
}

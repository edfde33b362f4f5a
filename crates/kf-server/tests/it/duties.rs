//! What the agent does for its fleet, against this server: its device key, epochs, orders, and a year without a network.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use kf_agent::{Config, Event, RunOutcome};
use kf_api::operator::Role;
use kf_api::order::{OrderFilter, OrderProgress};
use kf_api::product_line::EnrolmentPolicy;
use kf_fleet::Clock as _;
use kf_server::Limits;

use crate::agent::Device;

const WIPE: &str = r#"{"device":"pump-1","act":"wipe","lifetime_hours":24,"why":"scrapped"}"#;
const ROTATE: &str = r#"{"device":"pump-1","act":"rotate","lifetime_hours":24,"why":"suspicion"}"#;

/// A device with its pins, and a second operator.
struct Site {
    device: Device,
    second: String,
}

impl Site {
    async fn new(policy: EnrolmentPolicy) -> Self {
        Self::with(Limits::default(), policy).await
    }

    async fn with(limits: Limits, policy: EnrolmentPolicy) -> Self {
        let device = Device::with(limits, policy).await;
        device.give_code().await;
        let pins = device.rig.curl(&[&device.rig.https_url("/v1/device/pins")]).expect(200).json();
        for (field, file) in [("delivery_key_pem", "delivery.pem"), ("order_key_pem", "order.pem")] {
            fs::write(device.rig.file(file), pins[field].as_str().unwrap()).unwrap();
        }
        let second = device.rig.operator("pavel", Role::FleetOperator, &[]).await;
        Self { device, second }
    }

    fn config(&self, orders: &str, server: &str) -> Config {
        let file = |name: &str| self.device.rig.file(name).display().to_string();
        let text = format!(
            "server = \"{server}\"\nlabel = \"pumps\"\ndevice_name = \"pump-1\"\nstate_dir = \"{}\"\n\
             [trust]\nroot_file = \"{}\"\n[key]\nallow_plain_key = true\n[bootstrap]\ncode_file = \"{}\"\n\
             [device_key]\ndelivery_key_file = \"{}\"\n[orders]\norder_key_file = \"{}\"\n{orders}\n",
            file("device"),
            self.device.rig.root().display(),
            file("code"),
            file("delivery.pem"),
            file("order.pem"),
        );
        Config::parse(&text).unwrap()
    }

    async fn once(&self) -> (RunOutcome, Vec<Event>) {
        self.once_with("").await
    }

    async fn once_with(&self, orders: &str) -> (RunOutcome, Vec<Event>) {
        self.device.start(self.config(orders, &self.device.rig.https_url(""))).await
    }

    /// Has two people order something.
    fn order(&self, wanted: &str) {
        let rig = &self.device.rig;
        let waiting = rig.api(&rig.owner_token, "POST", "/v1/orders", Some(wanted)).expect(201).json();
        let decision = format!("/v1/proposals/{}/decision", waiting["proposal"].as_str().unwrap());
        rig.api(&self.second, "POST", &decision, Some(r#"{"approve":true,"why":"agreed"}"#)).expect(200);
    }

    /// Progress of the newest order. Asked of the fleet itself: a token does not live for a year.
    async fn progress(&self) -> OrderProgress {
        let rig = &self.device.rig;
        let filter = OrderFilter { device: Some("pump-1".into()), after: None, limit: None };
        let listed = rig.fleet.order_list(&rig.owner, filter).await.unwrap();
        // Made at one moment of the test's clock, they are told apart by their counters.
        listed.items.into_iter().max_by_key(|order| order.counter).unwrap().progress.unwrap()
    }

    /// Whether the device holds the newest key.
    async fn is_up_to_date(&self) -> bool {
        let rig = &self.device.rig;
        rig.fleet.device_keys(&rig.owner, "pump-1").await.unwrap().up_to_date
    }
}

fn epochs(events: &[Event]) -> Vec<(u32, u32)> {
    let found = events.iter().filter_map(|event| match event {
        Event::DeviceKey { facility_epoch, device_epoch } => Some((*facility_epoch, *device_epoch)),
        _ => None,
    });
    found.collect()
}

fn has(events: &[Event], name: &str) -> bool {
    events.iter().any(|event| serde_json::to_value(event).unwrap()["event"] == name)
}

/// Every 8 octets in the files below a directory that are not all the same.
fn fragments(directory: &Path) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap().map(Result::unwrap) {
        if entry.file_type().unwrap().is_dir() {
            found.extend(fragments(&entry.path()));
        } else if !["root.der", "last-seen"].contains(&entry.file_name().to_str().unwrap()) {
            let octets = fs::read(entry.path()).unwrap();
            found.extend(
                octets.windows(8).filter(|part| part.iter().any(|octet| *octet != part[0])).map(<[u8]>::to_vec),
            );
        }
    }
    found.sort();
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn the_agent_fetches_each_epoch_and_acknowledges_it() {
    let site = Site::new(EnrolmentPolicy::default()).await;
    let (outcome, events) = site.once().await;
    assert!(outcome.is_valid && outcome.is_settled, "{events:?}");
    assert_eq!(epochs(&events), [(1, 1)]);
    assert!(site.is_up_to_date().await);
    // The same again is no news.
    assert_eq!(epochs(&site.once().await.1), []);
    let rig = &site.device.rig;
    rig.api(&rig.owner_token, "POST", "/v1/facilities/factory-a/epochs", Some("{}")).expect(201);
    assert!(!site.is_up_to_date().await);
    assert_eq!(epochs(&site.once().await.1), [(2, 1)]);
    rig.api(&rig.owner_token, "POST", "/v1/facilities/factory-a/epochs/1/retire", Some("{}")).expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_to_rotate_brings_a_new_key_and_certificate_and_is_obeyed_once() {
    let site = Site::new(EnrolmentPolicy::default()).await;
    site.once().await;
    let before = site.device.certificate();
    site.order(ROTATE);
    assert_eq!(site.progress().await, OrderProgress::Queued, "nothing has left the server");
    let (outcome, events) = site.once().await;
    assert!(outcome.is_valid && outcome.is_settled, "{events:?}");
    let after = site.device.certificate();
    assert_ne!((after.serial, &after.spki), (before.serial, &before.spki));
    assert!(has(&events, "order") && has(&events, "renewed") && has(&events, "order-answered"), "{events:?}");
    assert_eq!(site.progress().await, OrderProgress::Executed);
    let (_, events) = site.once().await;
    assert!(!has(&events, "order") && !has(&events, "renewed"), "{events:?}");
    assert_eq!(site.device.certificate().serial, after.serial);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_to_wipe_leaves_no_fragment_of_a_key_and_a_receipt() {
    let site = Site::new(EnrolmentPolicy::default()).await;
    site.once().await;
    let state = site.device.rig.file("device");
    let before = fragments(&state);
    assert!(before.len() > 300, "keys, vault and wrapping key are there");
    site.order(WIPE);
    let (outcome, events) = site.once().await;
    assert!(!outcome.is_valid, "{events:?}");
    let wiped = events.iter().find_map(|event| match event {
        Event::Wiped { left } => Some(left.clone()),
        _ => None,
    });
    assert_eq!(wiped, Some(Vec::new()), "{events:?}");
    assert!(has(&events, "order-answered"), "{events:?}");
    assert_eq!(site.progress().await, OrderProgress::Executed);
    let left: Vec<_> = fragments(&state).into_iter().filter(|part| before.binary_search(part).is_ok()).collect();
    assert!(left.is_empty(), "{} fragments are left, {:02x?} among them", left.len(), left.first());
    assert!(!site.device.rig.file("code").exists(), "the code is gone too");
    // Nothing brings it back: neither a start nor a new code.
    site.device.give_code().await;
    let (outcome, events) = site.once().await;
    assert!(!outcome.is_valid && !has(&events, "enrolled") && !has(&events, "order-answered"), "{events:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_device_s_policy_forbids_is_declined_and_an_order_that_expired_is_never_answered() {
    let site = Site::new(EnrolmentPolicy::default()).await;
    site.once().await;
    let before = site.device.certificate().serial;
    site.order(WIPE);
    let (_, events) = site.once_with("allow_wipe = false").await;
    assert!(has(&events, "order") && !has(&events, "wiped"), "{events:?}");
    assert_eq!(site.progress().await, OrderProgress::Declined);
    site.order(ROTATE);
    site.once_with("allow_rotate = false").await;
    assert_eq!((site.progress().await, site.device.certificate().serial), (OrderProgress::Declined, before));
    // The server forgets nothing that it was not told; it does not claim more than it knows either.
    site.order(ROTATE);
    site.device.pass_hours(25);
    assert_eq!(site.progress().await, OrderProgress::NeverAnswered);
    let (_, events) = site.once().await;
    assert!(!has(&events, "order"), "{events:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_was_away_for_a_year_comes_back_to_new_epochs_and_its_orders() {
    // A year and a quarter.
    let policy =
        EnrolmentPolicy { ldevid_lifetime_hours: 48, renewal_grace_hours: 10_950, ..EnrolmentPolicy::default() };
    // The server looks at its own certificate at once, not within the hour.
    let limits = Limits { identity_check: Duration::from_millis(20), ..Limits::default() };
    let site = Site::with(limits, policy).await;
    let (_, events) = site.once().await;
    assert_eq!(epochs(&events), [(1, 1)]);
    let before = site.device.certificate();
    let rig = &site.device.rig;
    rig.api(&rig.owner_token, "POST", "/v1/facilities/factory-a/epochs", Some("{}")).expect(201);
    site.order(&ROTATE.replace("24", "8760"));
    site.device.pass_hours(365 * 24);
    assert!(before.not_after < rig.clock.now(), "its certificate expired long ago");
    let begun = Instant::now();
    let (outcome, events) = loop {
        let (outcome, events) = site.once().await;
        if outcome.is_valid || begun.elapsed() > Duration::from_secs(30) {
            break (outcome, events);
        }
        assert!(!format!("{events:?}").contains("Refused"), "{events:?}");
    };
    assert!(outcome.is_settled && !outcome.needs_attention, "{events:?}");
    assert!(has(&events, "renewed") && has(&events, "order-answered"), "{events:?}");
    assert_eq!(epochs(&events), [(2, 1)]);
    assert!(site.is_up_to_date().await && site.progress().await == OrderProgress::Executed);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_down_costs_pauses_and_nothing_else() {
    let site = Site::new(EnrolmentPolicy::default()).await;
    site.once().await;
    let certificate = site.device.certificate().serial;
    site.order(ROTATE);
    let nobody = format!("https://localhost:{}", kf_testkit::free_port());
    let (outcome, events) = site.device.start(site.config("", &nobody)).await;
    assert!(outcome.is_valid && has(&events, "retry"), "{events:?}");
    assert_eq!((site.device.certificate().serial, site.progress().await), (certificate, OrderProgress::Queued));
    site.once().await;
    assert_eq!(site.progress().await, OrderProgress::Executed);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wipe_that_was_cut_short_is_finished_at_the_next_start_and_then_told() {
    let site = Site::new(EnrolmentPolicy::default()).await;
    site.once().await;
    site.order(WIPE);
    let (_, events) = site.once().await;
    assert!(has(&events, "wiped"), "{events:?}");
    let state = site.device.rig.file("device");
    // As if the power had gone before the rest was removed.
    fs::remove_file(state.join("wiped-done")).unwrap();
    fs::remove_file(state.join("wiped-told")).unwrap();
    fs::write(state.join("a/key"), b"a key that was still there").unwrap();
    let (_, events) = site.once().await;
    assert!(has(&events, "wiped") && has(&events, "order-answered"), "{events:?}");
    assert!(!state.join("a/key").exists());
    assert_eq!(site.progress().await, OrderProgress::Executed);
}

fn taken(events: &[Event]) -> Vec<&'static str> {
    let found = events.iter().filter_map(|event| match event {
        Event::ServerKey { role, .. } => Some(*role),
        _ => None,
    });
    found.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_agent_takes_up_the_keys_that_succeed_those_in_its_files_and_obeys_what_waits() {
    let site = Site::new(EnrolmentPolicy::default()).await;
    let (_, events) = site.once().await;
    assert_eq!(taken(&events), [""; 0]);
    let rig = &site.device.rig;
    let succeed = |class: &str| {
        let wanted = format!(r#"{{"class":"{class}","now":true,"why":"yearly"}}"#);
        let report = rig.api(&rig.owner_token, "POST", "/v1/rotation", Some(&wanted)).expect(200).json();
        let steps = report["items"].as_array().unwrap();
        let made = steps.iter().find(|step| step["operation"] == "make-successor").unwrap();
        assert_eq!(made["outcome"], "done", "{report}");
    };
    let remaining = |class: &str| {
        let report = rig
            .api(&rig.owner_token, "POST", "/v1/rotation", Some(&format!(r#"{{"class":"{class}","dry_run":true}}"#)))
            .expect(200)
            .json();
        report["items"][0]["remaining"].as_u64()
    };
    // Signed by the first key, and not fetched before there is another.
    site.order(ROTATE);
    for class in ["delivery-key", "order-key", "order-key"] {
        succeed(class);
    }
    assert_eq!((remaining("delivery-key"), remaining("order-key")), (Some(1), Some(1)));
    let (outcome, events) = site.once().await;
    assert!(outcome.is_valid && outcome.is_settled, "{events:?}");
    assert_eq!(taken(&events), ["delivery", "order"], "two links of the order key in one step");
    assert_eq!(site.progress().await, OrderProgress::Executed, "{events:?}");
    site.once().await;
    assert_eq!((remaining("delivery-key"), remaining("order-key")), (Some(0), Some(0)));
    // From its store, after a start; the files stay as they were.
    site.order(ROTATE);
    let (_, events) = site.once().await;
    assert_eq!((taken(&events), site.progress().await), (Vec::new(), OrderProgress::Executed), "{events:?}");
    // Another key in the file, by hand, ends what was taken up: nobody signs with it.
    let stranger = fs::read(rig.file("delivery.pem")).unwrap();
    fs::write(rig.file("order.pem"), &stranger).unwrap();
    site.order(ROTATE);
    let (_, events) = site.once().await;
    assert!(has(&events, "order-refused") && site.progress().await != OrderProgress::Executed, "{events:?}");
}

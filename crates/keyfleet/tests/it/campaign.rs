//! Campaigns and rotation with real agents, each a process of its own that asks the server when it likes.

use kf_testkit::Running;
use serde_json::Value;

use crate::console::{Fleet, Succeeds as _, json, private};
use crate::fleet::sign_up;
use crate::sealed::server;

/// Asks of a status before a test gives up; each is a process and a TLS handshake.
const MOST_ASKED: usize = 300;

fn start_agent(fleet: &Fleet, name: &str, has_device_key: bool) -> Running {
    let path = |file: &str| fleet.path(&format!("{name}{file}"));
    let device_key = match has_device_key {
        true => format!("[device_key]\ndelivery_key_file = {:?}\nrefresh_seconds = 1\n", fleet.path("delivery.pem")),
        false => String::new(),
    };
    let configuration = format!(
        "server = \"{}\"\nlabel = \"thermo\"\ndevice_name = \"{name}\"\nstate_dir = {:?}\n\
         [trust]\nroot_file = {:?}\n[key]\nallow_plain_key = true\n[bootstrap]\ncode_file = {:?}\n\
         {device_key}[orders]\norder_key_file = {:?}\npoll_seconds = 1\n",
        server(fleet),
        path(".state"),
        fleet.path("root.pem"),
        path(".code"),
        fleet.path("order.pem"),
    );
    private(&path(".toml"), &configuration);
    let config = format!("{name}.toml");
    let mut agent = fleet.tool().start(&["agent", "run", "--config", &config]);
    event(&mut agent, if has_device_key { "device-key" } else { "enrolled" });
    agent
}

/// A fleet of three devices, each with its agent running.
pub(crate) fn site() -> (Fleet, Vec<Running>) {
    site_with([true; 3], &[])
}

/// The same, in which some devices have a device key, after `first` was run.
pub(crate) fn site_with(device_keys: [bool; 3], first: &[&str]) -> (Fleet, Vec<Running>) {
    let fleet = Fleet::start(&[]).with_device();
    if !first.is_empty() {
        fleet.run(first).succeeds();
    }
    fleet.register("thermo-0002");
    fleet.register("thermo-0003");
    // The root as it is now: the server's own file follows its roots.
    std::fs::copy(fleet.data().join("root.pem"), fleet.path("root.pem")).unwrap();
    let pins = fleet.json(&["epoch", "pins"]);
    for (field, file) in [("delivery_key_pem", "delivery.pem"), ("order_key_pem", "order.pem")] {
        std::fs::write(fleet.path(file), pins[field].as_str().unwrap()).unwrap();
    }
    let names = ["thermo-0001", "thermo-0002", "thermo-0003"];
    let agents = std::array::from_fn::<_, 3, _>(|number| {
        let (name, has_device_key) = (names[number], device_keys[number]);
        fleet.run(&["code", "create", name, "--out", &format!("{name}.code")]).succeeds();
        start_agent(&fleet, name, has_device_key)
    });
    (fleet, agents.into())
}

/// Waits for an event of an agent.
pub(crate) fn event(agent: &mut Running, name: &str) -> Value {
    let wanted = format!("\"event\":\"{name}\"");
    let line = agent.wait_for_line(|line| line.contains(&wanted));
    serde_json::from_str(&line).unwrap()
}

/// Has a second person agree to what waits for one.
pub(crate) fn approved(fleet: &Fleet, arguments: &[&str]) {
    let waits = fleet.run(&[arguments, &["--format", "json"]].concat());
    assert_eq!(waits.code, Some(6), "{}", waits.text());
    if !fleet.path("bert.toml").exists() {
        sign_up(fleet, "bert", "fleet-operator");
    }
    let proposal = json(&waits)["proposal"].as_str().unwrap().to_owned();
    fleet.run_as("bert.toml", &["proposal", "approve", &proposal]).succeeds();
}

pub(crate) fn create(fleet: &Fleet, name: &str, kind: &str, more: &[&str]) -> Value {
    let plan = ["--canary", "1", "--wave", "5", "--per-minute", "600", "--jitter", "0s", "--soak", "0s"];
    fleet.json(&[&["campaign", "create", name, "--kind", kind, "--facility", "lyon"], &plan[..], more].concat())
}

#[test]
fn agents_get_new_device_keys_and_new_certificates_a_canary_first_and_one_that_sleeps_is_waited_for() {
    let (fleet, mut agents) = site();
    let estimate = create(&fleet, "keys", "device-key", &["--dry-run"])["estimate"].clone();
    assert_eq!((estimate["devices"].clone(), estimate["waves"].clone()), (3.into(), 2.into()), "{estimate}");
    assert_eq!(fleet.run(&["campaign", "show", "keys"]).code, Some(3), "a dry run makes nothing");

    // A slip of the pen, which is found before it begins.
    let slip = [
        "campaign",
        "create",
        "keys",
        "--kind",
        "device-key",
        "--name-prefix",
        "termo-",
        "--canary",
        "1",
        "--wave",
        "5",
    ];
    let slip = fleet.run(&[&slip[..], &["--per-minute", "600", "--jitter", "0s", "--soak", "0s"]].concat());
    assert!(slip.text().contains("no device that may enrol matches names that begin with `termo-`"), "{}", slip.text());
    let nobody = fleet.run(&["campaign", "start", "keys"]);
    assert!(nobody.code == Some(5) && nobody.text().contains("--allow-empty"), "{:?} {}", nobody.code, nobody.text());
    let both = fleet.run(&["campaign", "edit", "keys", "--name-prefix", "x", "--any", "name-prefix"]);
    assert_eq!(both.code, Some(2), "{}", both.text());
    let edit = ["campaign", "edit", "keys", "--facility", "lyon", "--any", "name-prefix", "--why", "a slip"];
    let edited = fleet.json(&edit);
    assert_eq!((edited["campaign"]["version"].clone(), edited["estimate"]["devices"].clone()), (2.into(), 3.into()));
    assert_eq!(edited["campaign"]["filter"], serde_json::json!({ "facility": "lyon" }));
    fleet.run(&["campaign", "start", "keys", "--why", "yearly"]).succeeds();
    let end = fleet.json(&["campaign", "show", "keys", "--follow"]);
    assert_eq!((end["state"].clone(), end["progress"]["done"].clone()), ("completed".into(), 3.into()), "{end}");
    for agent in &mut agents {
        assert_eq!(event(agent, "device-key")["device_epoch"], 2);
    }
    let shown = fleet.json(&["epoch", "show", "--device", "thermo-0002"]);
    assert_eq!((shown["device_epoch"].clone(), shown["up_to_date"].clone()), (2.into(), true.into()));

    // One agent is off while certificates are renewed.
    drop(agents.pop());
    create(&fleet, "certificates", "certificate", &["--min-done", "0", "--patience", "1s"]);
    approved(&fleet, &["campaign", "start", "certificates"]);
    for agent in &mut agents {
        event(agent, "renewal-asked");
        event(agent, "renewed");
    }
    let status = || fleet.json(&["campaign", "show", "certificates"]);
    let found = (0..MOST_ASKED).map(|_| status()).find(|found| found["progress"]["done"] == 2);
    let found = found.expect("two of three are done");
    assert_eq!((found["state"].clone(), found["progress"]["offered"].clone()), ("running".into(), 1.into()), "{found}");
    assert_eq!(found["progress"]["unheard"]["day"], 1);
    let asleep = ["campaign", "show", "certificates", "--devices", "--state", "offered"];
    assert_eq!(fleet.json(&asleep)["items"][0]["name"], "thermo-0003");

    agents.push(fleet.tool().start(&["agent", "run", "--config", "thermo-0003.toml"]));
    event(&mut agents[2], "renewed");
    let end = fleet.json(&["campaign", "show", "certificates", "--follow"]);
    assert_eq!((end["state"].clone(), end["progress"]["done"].clone()), ("completed".into(), 3.into()), "{end}");
    let listed = fleet.json(&["campaign", "list"]);
    assert_eq!(listed["items"].as_array().unwrap().len(), 2);
    fleet.run(&["audit", "verify", "--server"]).succeeds();
}

#[test]
fn a_campaign_is_estimated_changed_and_rolled_back_and_an_agent_that_was_off_keeps_its_key() {
    let (fleet, mut agents) = site();
    create(&fleet, "keys", "device-key", &[]);
    let forecast = fleet.json(&["campaign", "estimate", "keys"]);
    assert_eq!(forecast["estimate"]["devices"], 3, "{forecast}");
    assert!(!forecast["load"]["points"].as_array().unwrap().is_empty(), "{forecast}");
    let shown = fleet.run(&["campaign", "estimate", "keys"]);
    assert!(shown.text().contains("signatures a second (measured)"), "{}", shown.text());
    let change =
        ["campaign", "edit", "keys", "--canary", "3", "--min-done", "0", "--why", "all at once", "--seen", "1"];
    assert_eq!(fleet.json(&change)["campaign"]["version"], 2);
    let again = fleet.run(&change);
    assert!(again.code != Some(0) && again.text().contains("version 2 by now"), "{}", again.text());

    drop(agents.pop());
    fleet.run(&["campaign", "start", "keys"]).succeeds();
    let status = || fleet.json(&["campaign", "show", "keys"]);
    (0..MOST_ASKED).map(|_| status()).find(|found| found["progress"]["done"] == 2).expect("two of three are done");
    let running = fleet.run(&["campaign", "edit", "keys", "--wave", "1"]);
    assert!(running.text().contains("campaign pause"), "{}", running.text());
    assert!(fleet.run(&["campaign", "delete", "keys"]).text().contains("campaign abort"));
    let rolled = fleet.json(&["campaign", "rollback", "keys", "--why", "the firmware cannot"]);
    assert_eq!((rolled["rollback"]["taken_back"].clone(), rolled["rollback"]["stay"].clone()), (1.into(), 2.into()));
    let end = (0..MOST_ASKED).map(|_| status()).find(|found| found["progress"]["taken_back"] == 1);
    assert_eq!(end.expect("one is taken back")["state"], "rolled-back");
    agents.push(fleet.tool().start(&["agent", "run", "--config", "thermo-0003.toml"]));
    let epochs = ["thermo-0001", "thermo-0002", "thermo-0003"]
        .map(|name| fleet.json(&["epoch", "show", "--device", name])["device_epoch"].as_u64().unwrap());
    assert_eq!(epochs, [2, 2, 1]);

    create(&fleet, "mistake", "device-key", &[]);
    fleet.run(&["campaign", "delete", "mistake"]).succeeds();
    assert_eq!(fleet.run(&["campaign", "show", "mistake"]).code, Some(3));
    fleet.run(&["audit", "verify", "--server"]).succeeds();
}

#[test]
fn agents_put_what_they_keep_under_new_storage_keys_and_a_program_reads_it_afterwards() {
    let (fleet, mut agents) = site();
    let config = |number: usize| format!("thermo-000{number}.toml");
    let secret = b"the calibration of this device, and a password of 1234";
    drop(agents.pop());
    let put = |number: &str, octets: &[u8]| {
        fleet.tool().run_with_input(&["agent", "record", "put", "--config", &config(3), number], octets)
    };
    put("7", secret).succeeds();
    let long = put("8", &[1; 257]);
    assert!(long.code != Some(0) && long.text().contains("256 octets"), "{}", long.text());
    let busy = fleet.tool().run_with_input(&["agent", "record", "put", "--config", &config(1), "7"], b"x");
    assert!(busy.text().contains("another agent"), "{}", busy.text());
    let vault = std::fs::read(fleet.path("thermo-0003.state/vault")).unwrap();
    assert!(!vault.windows(8).any(|octets| secret.windows(8).any(|piece| piece == octets)));

    agents.push(fleet.tool().start(&["agent", "run", "--config", &config(3)]));
    create(&fleet, "storage", "storage", &[]);
    fleet.run(&["campaign", "start", "storage", "--why", "yearly"]).succeeds();
    for (agent, records) in agents.iter_mut().zip([0, 0, 1]) {
        let moved = event(agent, "storage-moved");
        assert_eq!((moved["version"].clone(), moved["records"].clone()), (2.into(), records.into()));
    }
    let end = fleet.json(&["campaign", "show", "storage", "--follow"]);
    assert_eq!((end["state"].clone(), end["progress"]["done"].clone()), ("completed".into(), 3.into()), "{end}");
    drop(agents);
    let kept = fleet.tool().run(&["agent", "record", "get", "--config", &config(3), "7"]);
    assert_eq!(kept.stdout, secret, "{}", kept.text());
    let after = std::fs::read(fleet.path("thermo-0003.state/vault")).unwrap();
    assert_ne!(vault, after);
    assert_ne!(fleet.tool().run(&["agent", "record", "get", "--config", &config(3), "9"]).code, Some(0));
    fleet.run(&["audit", "verify", "--server"]).succeeds();
}

#[test]
fn rotate_does_what_the_policy_asks_for_and_the_check_of_the_fleet_names_it_before() {
    let mut fleet = Fleet::start(&[]).with_device();
    let due = |fleet: &Fleet| fleet.json(&["policy", "check", "--fleet"])["items"].as_array().unwrap().len();
    assert_eq!(due(&fleet), 0);
    assert_eq!(fleet.json(&["rotate", "--dry-run"])["items"], serde_json::json!([]));
    // A policy by which a facility's key is due a second after it was made.
    let branch = ["facility-key", "batch-key", "device-key", "storage-key", "application-key"];
    let rules = branch.map(|class| format!("[class.{class}]\noriginator = \"30d\"\n")).concat();
    let policy = format!("version = 1\n{}", rules.replacen("\"30d\"\n", "\"30d\"\nrotate-at = 1\n", 1));
    std::fs::write(fleet.data().join("policy.toml"), policy.replacen("\"30d\"", "\"100s\"", 1)).unwrap();
    let file = fleet.data().join("keyfleet.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    private(&file, &format!("rotation_policy_file = \"policy.toml\"\n{text}"));
    fleet.stop();
    let refused = fleet.tool().run(&["serve", "--data", fleet.data().to_str().unwrap()]);
    assert_eq!(refused.code, Some(2), "what is below a key cannot outlive it: {}", refused.text());
    assert!(refused.text().contains("cannot outlive the facility-key"), "{}", refused.text());
    std::fs::write(fleet.data().join("policy.toml"), policy.replace("\"30d\"", "\"100s\"")).unwrap();

    let fleet = fleet.served();
    let found = (0..MOST_ASKED).any(|_| due(&fleet) == 1);
    assert!(found, "it is due after one percent of a hundred seconds");
    let dry = fleet.json(&["rotate", "--dry-run"]);
    assert_eq!(dry["items"][0]["outcome"], "planned", "{dry}");
    let done = fleet.json(&["rotate", "--why", "test"]);
    assert_eq!(
        (done["items"][0]["operation"].clone(), done["items"][0]["outcome"].clone()),
        ("make-successor".into(), "done".into())
    );
    let epochs = fleet.json(&["epoch", "list", "--facility", "lyon"]);
    assert_eq!(epochs["items"][0]["state"], "pending", "{epochs}");
}

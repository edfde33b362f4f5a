//! The whole way, with a real Mosquitto between: a device enrols, fetches its key, seals what programs hand over; a relay
//! opens it; orders come over the broker and are obeyed once; a wipe leaves nothing but its receipt.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::os::unix::net::UnixStream;
use std::path::Path;

use kf_testkit::{Running, Tool, free_port};
use serde_json::{Value, json};

use crate::broker::{configure, start_broker_with};
use crate::console::{Fleet, Succeeds as _, private};
use crate::fleet::sign_up;
use crate::sealed::{certified, server, start_broker as start_near_broker};

/// Before the broker reads it: gives the relay and a spy what a device must not have, and has subscriptions logged.
fn extra_rights(directory: &Path) {
    let mut config = fs::File::options().append(true).open(directory.join("mosquitto.conf")).unwrap();
    writeln!(config, "log_type subscribe").unwrap();
    let path = directory.join("dynamic-security.json");
    let mut rights: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let allow = |kind: &str, topic: &str| json!({"acltype": kind, "topic": topic, "allow": true});
    let role = |name: &str, acls: Vec<Value>| json!({"rolename": name, "acls": acls});
    let reads = |topic: &str| vec![allow("subscribePattern", topic), allow("publishClientReceive", topic)];
    let mut spy = reads("devices/+/orders");
    spy.push(allow("publishClientSend", "devices/+/orders"));
    rights["roles"].as_array_mut().unwrap().extend([role("relay", reads("devices/+/sealed/#")), role("spy", spy)]);
    let clients = ["relay", "spy"].map(|name| json!({"username": name, "roles": [{"rolename": name}]}));
    rights["clients"].as_array_mut().unwrap().extend(clients);
    fs::write(&path, rights.to_string()).unwrap();
}

/// An agent, its broker, and a relay behind it.
pub(crate) struct Site {
    pub(crate) fleet: Fleet,
    broker: Running,
    pub(crate) agent: Running,
    port: u16,
}

fn configuration(fleet: &Fleet, port: u16, session: &str, key: &str) -> String {
    let pins = fleet.json(&["epoch", "pins"]);
    for (field, file) in [("delivery_key_pem", "delivery.pem"), ("order_key_pem", "order.pem")] {
        fs::write(fleet.path(file), pins[field].as_str().unwrap()).unwrap();
    }
    let path = |name: &str| fleet.path(name);
    // The orders are to come over the broker: the server is not asked within the time of a test.
    format!(
        "server = \"{}\"\nlabel = \"thermo\"\ndevice_name = \"thermo-0001\"\nstate_dir = {:?}\n\
         [trust]\nroot_file = {:?}\n[bootstrap]\ncode_file = {:?}\n\
         [device_key]\ndelivery_key_file = {:?}\n\
         [orders]\norder_key_file = {:?}\npoll_seconds = 86400\n\
         [telemetry]\nkind = \"mqtt\"\nhost = \"localhost\"\nport = {port}\nreconnect_max_millis = 200\n\
         [telemetry.sealed]\nsocket = {:?}\nsession = \"{session}\"\n[key]\n{key}\n",
        server(fleet),
        path("state"),
        fleet.data().join("root.pem"),
        path("code"),
        path("delivery.pem"),
        path("order.pem"),
        path("messages.sock"),
    )
}

impl Site {
    pub(crate) fn start(session: &str) -> Self {
        Self::start_with(session, |tool| tool)
    }

    /// The same, the agent's program as `prepare` makes it.
    pub(crate) fn start_with(session: &str, prepare: impl Fn(Tool) -> Tool) -> Self {
        Self::start_where("allow_plain_key = true", session, prepare)
    }

    /// The same, with its keys where `key` says, the table of its configuration.
    pub(crate) fn start_where(key: &str, session: &str, prepare: impl Fn(Tool) -> Tool) -> Self {
        let mut fleet = Fleet::start(&[]).with_device();
        // Before the server knows the broker: it would end their sessions there to give them the rights of devices.
        for name in ["relay", "spy"] {
            fleet.register(name);
            certified(&fleet, name, &["--profile", "ldevid", "--device", name]);
        }
        let port = free_port();
        let broker = start_broker_with(&fleet, port, extra_rights);
        fleet.stop();
        configure(&fleet, port);
        let fleet = fleet.served();
        sign_up(&fleet, "bert", "fleet-operator");
        fleet.run(&["code", "create", "thermo-0001", "--out", "code"]).succeeds();
        private(&fleet.path("agent.toml"), &configuration(&fleet, port, session, key));
        let agent = prepare(fleet.tool()).start(&["agent", "run", "--config", "agent.toml"]);
        let mut site = Self { fleet, broker, agent, port };
        site.events(&["device-key", "connected"]);
        site
    }

    /// Waits for an event of the agent.
    pub(crate) fn event(&mut self, name: &str) -> Value {
        let wanted = format!("\"event\":\"{name}\"");
        let line = self.agent.wait_for_line(|line| line.contains(&wanted));
        serde_json::from_str(&line).unwrap()
    }

    /// Waits for events in whichever order.
    pub(crate) fn events(&mut self, names: &[&str]) -> Vec<Value> {
        let mut awaited: Vec<String> = names.iter().map(|name| format!("\"event\":\"{name}\"")).collect();
        let mut found = Vec::new();
        while !awaited.is_empty() {
            let line = self.agent.wait_for_line(|line| awaited.iter().any(|wanted| line.contains(wanted)));
            awaited.retain(|wanted| !line.contains(wanted));
            found.push(serde_json::from_str(&line).unwrap());
        }
        found
    }

    /// Hands a message to the agent, as any program may.
    pub(crate) fn say(&self, text: &str) {
        let mut socket = UnixStream::connect(self.fleet.path("messages.sock")).unwrap();
        writeln!(socket, "{text}").unwrap();
    }

    /// Has two people order something.
    pub(crate) fn order(&self, act: &str) {
        let order = ["order", "create", "--device", "thermo-0001", "--act", act, "--why", "test", "--yes"];
        let waits = self.fleet.run(&[&order[..], &["--format", "json"]].concat());
        let waits: Value = serde_json::from_slice(&waits.stdout).unwrap();
        self.fleet.run_as("bert.toml", &["proposal", "approve", waits["proposal"].as_str().unwrap()]).succeeds();
    }

    /// The newest order.
    fn newest_order(&self) -> Value {
        self.fleet.json(&["order", "list", "--device", "thermo-0001"])["items"][0].clone()
    }

    /// Arguments of Mosquitto's clients, as `name`.
    fn client(&self, name: &str, more: &[&str]) -> Vec<String> {
        let root = self.fleet.data().join("root.pem").display().to_string();
        let (port, cert, key) = (self.port.to_string(), format!("{name}.pem"), format!("{name}.key"));
        let fixed = ["-h", "localhost", "-p", &port, "--cafile", &root, "--cert", &cert, "--key", &key, "-q", "1"];
        fixed.iter().chain(more).map(ToString::to_string).collect()
    }

    /// Waits until `name` has subscribed.
    fn subscribed(&mut self, name: &str, topic: &str) {
        let subscription = format!("{name} 1 {topic}");
        self.broker.wait_for_line(|line| line.ends_with(&subscription));
    }

    /// Has the agent seal these texts; what a relay behind the broker hears, in hexadecimal.
    pub(crate) fn sealed(&mut self, texts: &[&str]) -> Vec<String> {
        let count = texts.len().to_string();
        let taken = self.client("relay", &["-t", "devices/+/sealed/#", "-C", &count, "-F", "%x", "-W", "60"]);
        let listener = self.tool("mosquitto_sub");
        let listener = std::thread::spawn(move || listener.run(&taken));
        self.subscribed("relay", "devices/+/sealed/#");
        for text in texts {
            self.say(text);
            self.event("sealed-published");
        }
        listener.join().unwrap().expect_success().stdout_text().lines().map(str::to_owned).collect()
    }

    fn tool(&self, program: &str) -> Tool {
        Tool::new(program).directory(self.fleet.scratch.path())
    }
}

/// Eight octets in a row, wherever they lie in the files below a directory, unless they are all the same.
pub(crate) fn fragments(directory: &Path, left_out: &[&str]) -> BTreeSet<Vec<u8>> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(directory).unwrap().map(Result::unwrap) {
        if entry.file_type().unwrap().is_dir() {
            found.extend(fragments(&entry.path(), left_out));
        } else if !left_out.contains(&entry.file_name().to_str().unwrap()) {
            // The agent replaces files beside us: one that is gone by now was a draft, and holds nothing any more.
            let Ok(octets) = fs::read(entry.path()) else { continue };
            found.extend(
                octets.windows(8).filter(|part| part.iter().any(|octet| *octet != part[0])).map(<[u8]>::to_vec),
            );
        }
    }
    found
}

#[test]
fn a_device_lives_from_its_code_over_sealed_telemetry_and_a_rotation_to_its_wipe() {
    let mut site = Site::start("derived");
    let fleet = &site.fleet;
    fleet.run(&["operator", "create", "relay", "--role", "relay", "--facility", "lyon"]).succeeds();
    fleet.run(&["token", "create", "relay", "--out", "relay.token"]).succeeds();
    let root = fleet.data().join("root.pem");
    private(
        &fleet.path("relay.toml"),
        &format!("server = {:?}\nroot = {root:?}\ntoken_file = \"relay.token\"\n", server(fleet)),
    );
    let near = free_port();
    let mut near_broker = start_near_broker(fleet, "near.conf", near);
    let mut plain = site.client("spy", &["-t", "plain/#", "-v"]);
    plain[3] = near.to_string();
    let mut listener = site.tool("mosquitto_sub").start(&plain);
    near_broker.wait_for_line(|line| line.contains("SUBACK"));
    let (from, to) = (format!("localhost:{}", site.port), format!("localhost:{near}"));
    let root = root.display().to_string();
    let relay = ["--profile", "relay.toml", "relay", "--broker", &from, "--ca", &root, "--cert", "relay.pem"];
    let topics = ["--key", "relay.key", "--from", "devices/+/sealed/#", "--to", "plain", "--to-broker", &to];
    let mut relay = fleet.tool().start(&[&relay[..], &topics].concat());
    relay.wait_for_line(|line| line.contains("receiving"));

    // Telemetry.
    site.say("21.5 C");
    site.event("sealed-published");
    let heard = |listener: &mut Running, text: &str| {
        let expected = format!("plain/thermo-0001/telemetry {text}");
        listener.wait_for_line(|line| line == expected);
    };
    heard(&mut listener, "21.5 C");

    // The broker refuses: what is said meanwhile waits.
    site.fleet.run(&["device", "suspend", "thermo-0001", "--why", "test"]).succeeds();
    site.event("disconnected");
    site.event("refused");
    site.say("22.0 C");
    site.fleet.run(&["device", "resume", "thermo-0001", "--why", "test"]).succeeds();
    site.event("connected");
    heard(&mut listener, "22.0 C");

    // A rotation, ordered over the broker.
    let before = fs::read(site.fleet.path("state/current")).unwrap();
    let taken = site.client("spy", &["-t", "devices/thermo-0001/orders", "-C", "1", "-N", "-W", "60"]);
    let spy = site.tool("mosquitto_sub");
    let spy = std::thread::spawn(move || spy.run(&taken));
    site.subscribed("spy", "devices/thermo-0001/orders");
    site.order("rotate");
    site.event("order");
    let seen = site.events(&["renewed", "order-answered", "connected"]);
    let answered = seen.iter().find(|event| event["event"] == "order-answered").unwrap();
    assert_eq!((&answered["counter"], &answered["outcome"]), (&json!(1), &json!("done")));
    assert_ne!(fs::read(site.fleet.path("state/current")).unwrap(), before);
    let order = site.newest_order();
    assert_eq!(order["progress"], "executed", "{order}");
    assert!(order["sent"].is_u64() && order["acknowledged"].is_u64() && order["delivered"].is_null(), "{order}");
    site.say("22.5 C");
    heard(&mut listener, "22.5 C");

    // Somebody at the broker sends the order again.
    fs::write(site.fleet.path("order.cbor"), spy.join().unwrap().expect_success().stdout).unwrap();
    let again = site.client("spy", &["-t", "devices/thermo-0001/orders", "-f", "order.cbor"]);
    site.tool("mosquitto_pub").run(&again).succeeds();
    let refused = site.event("order-refused");
    assert!(refused["reason"].as_str().unwrap().contains("seen before"), "{refused}");

    // The end.
    let state = site.fleet.path("state");
    let keys = fragments(&state, &["last-seen", "root.der", "lock"]);
    assert!(keys.len() > 500, "{} fragments of keys and certificates", keys.len());
    site.order("wipe");
    let wiped = site.event("wiped");
    assert_eq!(wiped["left"], json!([]));
    site.event("order-answered");
    let left = fragments(&state, &["last-seen", "root.der", "lock"]);
    let left: Vec<_> = left.intersection(&keys).collect();
    assert!(left.is_empty(), "{} fragments are left: {:02x?}", left.len(), left.first());
    assert_eq!(site.newest_order()["progress"], "executed");
}

#[test]
fn what_is_sealed_in_a_mixed_session_is_opened_while_the_session_lives() {
    let mut site = Site::start("mixed");
    site.event("session-agreed");
    let envelopes = site.sealed(&["21.5 C", "22.0 C"]);
    fs::write(site.fleet.path("first"), &envelopes[0]).unwrap();
    fs::write(site.fleet.path("second"), &envelopes[1]).unwrap();
    let opened = site.fleet.json(&["open", "first"]);
    assert_eq!(opened["plaintext"], "MjEuNSBD");
    assert!(opened["session"].is_string(), "{opened}");
    // The server forgets it with its own end, and nobody opens it afterwards.
    let Site { mut fleet, agent, .. } = site;
    drop(agent);
    fleet.stop();
    let fleet = fleet.served();
    let late = fleet.run(&["open", "second"]);
    assert!(late.code == Some(5) && late.stderr_text().contains("session"), "{}", late.text());
}

//! A fleet from `init` to revocation, driven as an operator does, with openssl as the judge.

use std::fs;
use std::net::{Shutdown, TcpListener, TcpStream};

use kf_testkit::{Output, Tool};

use crate::console::{Fleet, Succeeds as _, json, private};

fn openssl(fleet: &Fleet, arguments: &[&str]) -> Output {
    Tool::new("openssl").directory(fleet.scratch.path()).run(arguments)
}

fn issue(fleet: &Fleet, device: &str, csr: &str, out: &str) -> String {
    let issued =
        fleet.json(&["certificate", "issue", "--profile", "ldevid", "--device", device, "--csr", csr, "--out", out]);
    issued["serial"].as_str().unwrap().to_owned()
}

#[test]
fn a_newcomer_gets_a_device_certificate_with_openssl_alone_and_revokes_it() {
    let fleet = Fleet::start(&[]).with_device();
    let csr = fleet.request("thermo");
    let serial = issue(&fleet, "thermo-0001", &csr, "thermo.pem");
    let root = fleet.data().join("root.pem");
    let root = root.to_str().unwrap();
    let chain = ["verify", "-CAfile", root, "-untrusted", "thermo.pem", "thermo.pem"];
    openssl(&fleet, &chain).succeeds();
    openssl(&fleet, &["x509", "-in", "thermo.pem", "-noout", "-subject"]).expect_success().expect_text("thermo-0001");

    let device = fleet.json(&["device", "show", "thermo-0001"]);
    assert_eq!(device["device"]["state"], "active");
    assert_eq!(device["certificates"][0]["serial"], serial.as_str());

    let dry = fleet.json(&["revoke", "--device", "thermo-0001", "--reason", "keyCompromise", "--dry-run"]);
    assert_eq!((dry["done"].clone(), dry["certificates"].clone()), (false.into(), 1.into()));
    assert_eq!(status_by_ocsp(&fleet), "good");
    let done =
        fleet.json(&["revoke", "--device", "thermo-0001", "--reason", "keyCompromise", "--why", "lost", "--verify"]);
    assert_eq!(done["done"], true);
    assert_eq!(status_by_ocsp(&fleet), "revoked");
    let shown = fleet.json(&["certificate", "show", &serial]);
    assert_eq!((shown["status"].clone(), shown["reason"].clone()), ("revoked".into(), "keyCompromise".into()));
}

#[test]
fn status_waits_for_a_server_that_starts_and_not_for_somebody_else() {
    let fleet = Fleet::start(&[]);
    let profile = fs::read_to_string(fleet.data().join("cli.toml")).unwrap();
    let server = profile.split("https://").nth(1).unwrap().split('"').next().unwrap().to_owned();
    // Hangs up on the first that comes, as a server does whose start is cut short, then passes on to the real one.
    let door = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = door.local_addr().unwrap().to_string();
    let passing = std::thread::spawn(move || {
        drop(door.accept().unwrap());
        let (client, _) = door.accept().unwrap();
        let server = TcpStream::connect(server).unwrap();
        let (mut from, mut to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
        let forth = std::thread::spawn(move || {
            std::io::copy(&mut from, &mut to).unwrap();
            to.shutdown(Shutdown::Write).unwrap();
        });
        let (mut from, mut to) = (server, client);
        std::io::copy(&mut from, &mut to).unwrap();
        forth.join().unwrap();
    });
    let at = |address: &str| {
        let rest: Vec<_> = profile.lines().filter(|line| !line.starts_with("server")).collect();
        let text = format!("server = \"https://{address}\"\n{}\n", rest.join("\n"));
        private(&fleet.data().join("other.toml"), &text);
    };
    at(&address);
    let status = fleet.run_as("data/other.toml", &["status", "--wait", "600", "--format", "json"]);
    assert_eq!(json(&status.expect_success())["signer_up"], true);
    passing.join().unwrap();

    let other = Fleet::start(&[]);
    let theirs = fs::read_to_string(other.data().join("cli.toml")).unwrap();
    at(theirs.split("https://").nth(1).unwrap().split('"').next().unwrap());
    let refused = fleet.run_as("data/other.toml", &["status", "--wait", "600"]);
    assert_eq!(refused.code, Some(1), "{}", refused.text());
    assert!(refused.stderr_text().contains("no TLS session"), "{}", refused.text());
}

/// What `openssl ocsp` says of thermo.pem, its answer verified under the root.
fn status_by_ocsp(fleet: &Fleet) -> String {
    let root = fleet.data().join("root.pem");
    let issuing = fleet.path("issuing.pem");
    if !issuing.exists() {
        fleet.run(&["authority", "show", "issuing", "--out", "issuing.pem"]).succeeds();
    }
    let output = openssl(
        fleet,
        &[
            "ocsp",
            "-issuer",
            "issuing.pem",
            "-cert",
            "thermo.pem",
            "-CAfile",
            root.to_str().unwrap(),
            "-url",
            &format!("{}/ocsp", fleet.http),
        ],
    )
    .expect_success()
    .expect_text("Response verify OK");
    let text = output.stdout_text();
    let line = text.lines().find_map(|line| line.strip_prefix("thermo.pem: ")).unwrap();
    line.trim().to_owned()
}

#[test]
fn a_hold_is_released_and_a_revocation_is_not() {
    let fleet = Fleet::start(&[]).with_device();
    let csr = fleet.request("thermo");
    let serial = issue(&fleet, "thermo-0001", &csr, "thermo.pem");
    let status = || fleet.json(&["certificate", "show", &serial])["status"].clone();
    fleet.run(&["certificate", "hold", &serial, "--why", "look into it"]).succeeds();
    assert_eq!(status(), "held");
    fleet.run(&["certificate", "release", &serial]).succeeds();
    assert_eq!(status(), "good");
    fleet.run(&["certificate", "revoke", &serial, "--reason", "superseded"]).succeeds();
    let again = fleet.run(&["certificate", "release", &serial]);
    assert_eq!(again.code, Some(5), "{}", again.text());
    assert_eq!(status(), "revoked");
}

#[test]
fn each_refusal_of_the_server_has_its_exit_code_and_its_remedy() {
    let fleet = Fleet::start(&[]).with_device();
    let code = |arguments: &[&str]| {
        let output = fleet.run(arguments);
        assert!(output.stderr_text().contains("\n  try: "), "{arguments:?} has no remedy: {}", output.text());
        output.code
    };
    assert_eq!(code(&["device", "show", "nobody"]), Some(3));
    assert_eq!(code(&["facility", "create", "Lyon!"]), Some(2));
    assert_eq!(code(&["facility", "create", "lyon"]), Some(5));
    let resume = fleet.run(&["device", "resume", "thermo-0001"]);
    assert_eq!(resume.code, Some(5), "{}", resume.text());

    sign_up(&fleet, "anna", "auditor");
    fleet.run_as("anna.toml", &["device", "list"]).expect_success().expect_text("thermo-0001");
    let denied = fleet.run_as("anna.toml", &["facility", "create", "paris"]);
    assert_eq!(denied.code, Some(4), "{}", denied.text());

    fleet.run(&["operator", "disable", "anna", "--why", "left"]).succeeds();
    assert_eq!(fleet.run_as("anna.toml", &["whoami"]).code, Some(4));
}

#[test]
fn an_operator_signs_in_with_a_certificate_whose_key_never_left_the_machine() {
    let fleet = Fleet::start(&[]);
    fleet.run(&["operator", "create", "bert", "--role", "fleet-operator"]).succeeds();
    fleet
        .run(&["operator", "request-certificate", "bert", "--key", "bert.key", "--certificate", "bert.pem"])
        .succeeds();
    let server = fs::read_to_string(fleet.data().join("cli.toml")).unwrap();
    let server = server.lines().next().unwrap().trim_start_matches("server = ").trim_matches('"').to_owned();
    let root = fleet.data().join("root.pem");
    fleet
        .tool()
        .run(&[
            "profile",
            "create",
            "--server",
            &server,
            "--root",
            root.to_str().unwrap(),
            "--certificate",
            "bert.pem",
            "--key",
            "bert.key",
            "--file",
            "bert.toml",
        ])
        .succeeds();
    let who = json(&fleet.run_as("bert.toml", &["whoami", "--format", "json"]).expect_success());
    assert_eq!((who["name"].clone(), who["credential"].clone()), ("bert".into(), "certificate".into()));
}

#[test]
fn secrets_are_shown_once_and_go_to_private_files() {
    use std::os::unix::fs::PermissionsExt as _;
    let fleet = Fleet::start(&[]).with_device();
    let token = fleet.run(&["token", "create", "owner"]).expect_success();
    assert!(token.stdout_text().starts_with("kft_") && !token.stderr_text().contains("kft_"), "{}", token.text());
    fleet.run(&["code", "create", "thermo-0001", "--out", "code", "--svg", "label.svg", "--qr"]).succeeds();
    for name in ["code", "label.svg"] {
        assert_eq!(fs::metadata(fleet.path(name)).unwrap().permissions().mode() & 0o777, 0o600, "{name}");
    }
    let listed = fleet.run(&["code", "list", "thermo-0001", "--format", "json"]).expect_success().stdout_text();
    let code = fs::read_to_string(fleet.path("code")).unwrap();
    assert!(code.len() >= 20 && !listed.contains(&code), "{listed}");
}

#[test]
fn a_policy_is_changed_field_by_field() {
    let fleet = Fleet::start(&[]);
    fleet.run(&["product-line", "create", "thermo", "--ldevid-lifetime-hours", "48"]).succeeds();
    fleet
        .run(&["product-line", "set-policy", "thermo", "--approval", "manual", "--bootstrap-by-code", "false"])
        .succeeds();
    let policy = fleet.json(&["product-line", "show", "thermo"])["policy"].clone();
    assert_eq!(policy["ldevid_lifetime_hours"], 48);
    assert_eq!(policy["approval"], "manual");
    assert_eq!(policy["bootstrap_by_code"], false);
    assert_eq!(policy["bootstrap_by_idevid"], true);
    // What `show` prints for people is what `--policy-file` reads.
    let shown = fleet.run(&["product-line", "show", "thermo"]).expect_success().stdout_text();
    fs::write(fleet.path("policy.toml"), shown.split("# policy\n").nth(1).unwrap()).unwrap();
    fleet.run(&["product-line", "create", "copy", "--policy-file", "policy.toml"]).succeeds();
    assert_eq!(fleet.json(&["product-line", "show", "copy"])["policy"], policy);
}

#[test]
fn what_is_permanent_for_many_waits_for_a_second_person_and_says_so_by_its_exit_code() {
    let fleet = Fleet::start(&[]).with_device();
    let rows: String = (0..12).map(|number| format!("d-{number:02},lyon,thermo,b1\n")).collect();
    fs::write(fleet.path("devices.csv"), format!("name,facility,product_line,batch\n{rows}")).unwrap();
    fleet.run(&["device", "import", "devices.csv"]).succeeds();
    for number in 0..12 {
        let csr = fleet.request(&format!("d-{number:02}"));
        issue(&fleet, &format!("d-{number:02}"), &csr, &format!("d-{number:02}.pem"));
    }
    let arguments = ["revoke", "--batch", "b1", "--reason", "keyCompromise", "--confirm", "b1", "--format", "json"];
    let waits = fleet.run(&arguments);
    assert_eq!(waits.code, Some(6), "{}", waits.text());
    let outcome = json(&waits);
    assert_eq!(outcome["done"], false);
    let proposal = outcome["proposal"].as_str().unwrap();
    let own = fleet.run(&["proposal", "approve", proposal]);
    assert_eq!(own.code, Some(5), "nobody approves an own proposal: {}", own.text());
    let shown = fleet.json(&["proposal", "show", proposal]);
    assert_eq!((shown["state"].clone(), shown["devices"].clone()), ("waiting".into(), 12.into()));
    fleet.run(&["proposal", "cancel", proposal, "--why", "a rehearsal"]).succeeds();
    let revoked = || fleet.json(&["certificate", "list", "--status", "revoked"])["items"].as_array().unwrap().len();
    assert_eq!(revoked(), 0);

    sign_up(&fleet, "bert", "fleet-operator");
    let proposal = json(&fleet.run(&arguments))["proposal"].as_str().unwrap().to_owned();
    fleet.run_as("bert.toml", &["proposal", "approve", &proposal, "--why", "seen the boards"]).succeeds();
    assert_eq!(fleet.json(&["proposal", "show", &proposal])["state"], "done");
    assert_eq!(revoked(), 12);
}

/// An operator with a token and a profile, both named after them.
pub(crate) fn sign_up(fleet: &Fleet, name: &str, role: &str) {
    sign_up_for(fleet, name, role, &[]);
}

/// As [`sign_up`], with further arguments, such as the facilities that the operator may act for.
pub(crate) fn sign_up_for(fleet: &Fleet, name: &str, role: &str, more: &[&str]) {
    let token = format!("{name}.token");
    fleet.run(&[&["operator", "create", name, "--role", role], more].concat()).succeeds();
    fleet.run(&["token", "create", name, "--out", &token]).succeeds();
    let root = fleet.data().join("root.pem");
    let profile = fs::read_to_string(fleet.data().join("cli.toml")).unwrap();
    let profile = profile
        .replace("owner.token", fleet.path(&token).to_str().unwrap())
        .replace("root.pem", root.to_str().unwrap());
    private(&fleet.path(&format!("{name}.toml")), &profile);
}

#[test]
fn issuance_stops_and_starts_with_a_reason() {
    let fleet = Fleet::start(&[]).with_device();
    let csr = fleet.request("thermo");
    fleet.run(&["issuance", "stop", "--why", "an audit"]).succeeds();
    let arguments = ["certificate", "issue", "--profile", "ldevid", "--device", "thermo-0001", "--csr", csr.as_str()];
    let refused = fleet.run(&arguments);
    assert_eq!(refused.code, Some(1), "{}", refused.text());
    assert!(refused.stderr_text().contains("an audit"), "{}", refused.text());
    fleet.run(&["issuance", "start"]).succeeds();
    fleet.run(&arguments).expect_success().expect_text("-----BEGIN CERTIFICATE-----");
}

#[test]
fn the_log_verifies_from_outside_and_on_the_host_and_a_changed_one_does_not() {
    let mut fleet = Fleet::start(&[]).with_device();
    let key = fs::read_to_string(fleet.data().join("log.vkey")).unwrap();
    let from_outside = fleet.json(&["audit", "verify", "--server", "--verifier-key", key.trim(), "--keep", "kept"]);
    assert_eq!(from_outside["holds"], true);
    fleet.register("thermo-0002");
    // The server publishes what it logged before it ends.
    fleet.stop();
    let offline = fleet.json(&["audit", "verify", "--previous", "kept"]);
    assert_eq!((offline["holds"].clone(), offline["consistent_with"].clone()), (true.into(), 1.into()));
    assert!(offline["size"].as_u64() > from_outside["size"].as_u64(), "{offline}");

    let entries = find_bundle(&fleet.data().join("log/tile/entries"));
    let sound = fs::read(&entries).unwrap();
    // The entries are length-prefixed, so the forgery keeps every length.
    let at = sound.windows(15).position(|window| window == b"device.register").unwrap();
    let mut forged = sound.clone();
    forged[at + 14] = b's';
    fs::write(&entries, &forged).unwrap();
    let output = fleet.run(&["audit", "verify", "--format", "json"]);
    assert_eq!(output.code, Some(1), "{}", output.text());
    let verdict = json(&output);
    assert_eq!(verdict["holds"], false);
    assert!(verdict["findings"][0].as_str().unwrap().contains("was edited"), "{verdict}");
    fs::write(&entries, &sound).unwrap();
    fleet.run(&["audit", "verify"]).succeeds();
}

/// The newest (longest) bundle of entries below `directory`.
fn find_bundle(directory: &std::path::Path) -> std::path::PathBuf {
    let mut found = Vec::new();
    let mut open = vec![directory.to_owned()];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(&directory).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_dir() {
                open.push(entry.path());
            } else {
                found.push((entry.metadata().unwrap().len(), entry.path()));
            }
        }
    }
    found.into_iter().max().unwrap().1
}

#[test]
fn a_running_fleet_passes_its_own_doctor_but_for_what_is_truly_missing() {
    let fleet = Fleet::start(&[]).with_device();
    let output = fleet.run(&["doctor", "--format", "json"]);
    let findings = json(&output);
    for item in findings["items"].as_array().unwrap() {
        let name = item["check"].as_str().unwrap();
        let severity = item["severity"].as_str().unwrap();
        // These depend on the machine that runs the test, or are planted by the way this fleet was made.
        let expected = [
            "swap",
            "core-dumps",
            "locked-memory",
            "open-files",
            "disk-space",
            "witness",
            "owner-token",
            "file-system",
        ];
        assert!(severity == "SUCCESS" || expected.contains(&name), "{item}");
    }
    assert!(findings["items"].as_array().unwrap().iter().any(|item| item["check"] == "ocsp"), "{findings}");
    let from_outside = fleet.run(&["doctor", "--server", "--check", "server", "--check", "ocsp", "--check", "signer"]);
    assert!([Some(0), Some(11)].contains(&from_outside.code), "{}", from_outside.text());
}

#[test]
fn a_fleet_whose_root_lives_in_a_token_serves() {
    use kf_testkit::SoftHsm;
    let token = SoftHsm::new();
    let home = kf_testkit::scratch();
    private(&home.path().join("pin"), SoftHsm::PIN);
    let tool = crate::console::keyfleet(home.path()).env(SoftHsm::VARIABLE, token.configuration());
    tool.run(&[
        "init",
        "--data",
        "d",
        "--seal",
        "pkcs11",
        "--pkcs11-module",
        SoftHsm::module().to_str().unwrap(),
        "--pkcs11-token",
        SoftHsm::LABEL,
        "--pin-file",
        "pin",
        "--https",
        "127.0.0.1:0",
        "--http",
        "127.0.0.1:0",
    ])
    .succeeds();
    let mut server = tool.start(&["serve", "--data", "d"]);
    let ready = server.wait_for_line(|line| line.starts_with("ready https="));
    let https = ready.split_whitespace().find_map(|word| word.strip_prefix("https=")).unwrap().to_owned();
    let profile = home.path().join("d/cli.toml");
    private(&profile, &format!("server = \"https://{https}\"\nroot = \"root.pem\"\ntoken_file = \"owner.token\"\n"));
    tool.run(&["--data", "d", "facility", "create", "lyon"]).succeeds();
    let status = json(&tool.run(&["--data", "d", "--format", "json", "status"]).expect_success());
    assert_eq!(status["signer_up"], true);
}

#[test]
fn the_log_is_followed_as_it_grows_by_the_command_line_and_by_any_client_of_event_streams() {
    let fleet = Fleet::start(&[]).with_device();
    let token = fleet.path("stream.curl");
    let text = fs::read_to_string(fleet.data().join("cli.toml")).unwrap();
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("{name} = "))).unwrap();
        line.trim_matches('"').to_owned()
    };
    let bearer = fs::read_to_string(fleet.data().join(field("token_file"))).unwrap();
    private(
        &token,
        &format!("header = \"Authorization: Bearer {}\"\nheader = \"Accept: text/event-stream\"\n", bearer.trim()),
    );
    let (root, server) = (fleet.data().join("root.pem"), field("server"));
    let stream = |query: &str, last: &str| {
        let (url, header) = (format!("{server}/v1/events?{query}"), format!("Last-Event-ID: {last}"));
        let arguments = [
            "-sS",
            "--fail",
            "--cacert",
            root.to_str().unwrap(),
            "-K",
            "stream.curl",
            "-H",
            header.as_str(),
            url.as_str(),
        ];
        Tool::new("curl").directory(fleet.scratch.path()).run(&arguments).expect_success().stdout_text()
    };
    let newest = fleet.json(&["audit", "list", "--all"])["items"].as_array().unwrap().last().unwrap()["index"].clone();
    let newest = newest.to_string();

    // One that waits hears of what happens then, and of nothing else.
    let device = fleet.json(&["device", "show", "thermo-0001"])["device"]["id"].as_str().unwrap().to_owned();
    let data = fleet.data();
    let follow = ["--data", data.to_str().unwrap(), "--format", "json", "audit", "follow", "--after", &newest];
    let mut follower = fleet.tool().start(&[&follow[..], &["--subject", &device, "--count", "1"]].concat());
    fleet.run(&["facility", "create", "paris"]).succeeds();
    fleet.run(&["device", "suspend", "thermo-0001", "--why", "odd"]).succeeds();
    let line = follower.wait_for_line(|line| line.starts_with('{'));
    let heard: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(heard["entry"]["act"], "device.suspend");

    let text = stream("", &newest);
    let ids: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("id: ")).collect();
    let acts: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("event: ")).collect();
    assert_eq!((ids.len(), &acts[..]), (2, &["facility.create", "device.suspend"][..]), "{text}");
    // Nothing more happens: the place moves on, and no event is dispatched.
    let rest = stream("wait_seconds=0", ids[1]);
    assert!(rest.contains(&format!("id: {}", ids[1])) && !rest.contains("data:"), "{rest}");
}

//! A factory line as an operator runs it: batches that a real server authorised, on tokens, TPMs and fuses that others made; what
//! comes off the line is started as an agent and enrols.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use kf_testkit::{Output, Python, Running, SoftHsm, Tool};
use serde_json::Value;

use crate::console::{Fleet, Succeeds as _, private};
use crate::sealed::server;

/// What the station's keys are sealed under.
pub(crate) const STATION_PASSPHRASE: &str = "heron-plinth-4-dulcet-ravel-oak";

/// A station at work for a server.
pub(crate) struct LineUp {
    pub(crate) fleet: Fleet,
    /// What must be typed, for a recipe that burns.
    phrase: Option<String>,
}

impl LineUp {
    /// A batch of four devices by this recipe, whose product line is `thermo`.
    pub(crate) fn authorised(recipe: &str, more: &[&str]) -> Self {
        Self::with_keys_in(&[], recipe, more)
    }

    /// The same for a station whose keys are where `keys` says.
    fn with_keys_in(keys: &[&str], recipe: &str, more: &[&str]) -> Self {
        let fleet = Fleet::start(&[]);
        fleet.run(&["facility", "create", "lyon"]).succeeds();
        fleet.run(&["product-line", "create", "thermo"]).succeeds();
        fs::write(fleet.path("recipe.toml"), recipe).unwrap();
        private(&fleet.path("pass"), &format!("{STATION_PASSPHRASE}\n"));
        let request = ["station", "request", "--state", "station", "--name", "line-1", "--passphrase-file", "pass"];
        let files = ["--out", "station.request", "--public-key-out", "station.pem"];
        fleet.tool().run(&[&request[..], &files, keys].concat()).succeeds();
        let operator = ["operator", "create", "line-1", "--role", "station", "--facility", "lyon"];
        fleet.run(&[&operator[..], &["--voucher-key", "station.pem"]].concat()).succeeds();
        let plan = fleet.json(&["station", "run", "recipe.toml", "--dry-run"]);
        let hash = plan["hash"].as_str().unwrap();
        let batch = ["batch", "create", "b-1", "--product-line", "thermo", "--facility", "lyon", "--count", "4"];
        let by = ["--station-request", "station.request", "--recipe", hash, "--quota", "quota.cose"];
        fleet.run(&[&batch[..], &by, more].concat()).succeeds();
        let pins = fleet.json(&["batch", "pins"]);
        fs::write(fleet.path("server.pem"), pins["batch_key_pem"].as_str().unwrap()).unwrap();
        Self { fleet, phrase: plan["confirm"].as_str().map(str::to_owned) }
    }

    /// `station run`, with JSON events and the books at the end.
    fn run(&self, tool: Tool, more: &[&str]) -> Output {
        tool.run(&Self::arguments(more))
    }

    /// The same, left running.
    pub(crate) fn start(&self, tool: Tool, more: &[&str]) -> Running {
        tool.start(&Self::arguments(more))
    }

    fn arguments<'a>(more: &[&'a str]) -> Vec<&'a str> {
        let run = ["--format", "json", "station", "run", "recipe.toml", "--state", "station", "--quota", "quota.cose"];
        [&run[..], &["--server-key", "server.pem", "--passphrase-file", "pass"], more].concat()
    }

    /// Hands the records in; the server must take all of them.
    fn import(&self, devices: u64) {
        let export = ["station", "export", "--state", "station", "--batch", "b-1", "--out", "records.cbor"];
        self.fleet.tool().run(&export).succeeds();
        let merged = self.fleet.json(&["batch", "import", "b-1", "records.cbor"]);
        assert_eq!((&merged["merged"], &merged["conflict_count"]), (&devices.into(), &0.into()), "{merged}");
    }

    /// Starts the agent of the device whose files the station wrote to `images/N`, its server being where it is in this test and
    /// its hardware as `key` says; it must enrol by EST. The device's name.
    fn enrols(&self, tool: Tool, number: u32, key: &str) -> String {
        let folder = self.fleet.path(&format!("images/{number}"));
        let text = fs::read_to_string(folder.join("agent.toml")).unwrap();
        let was = text.lines().next().unwrap().to_owned();
        let text = text.replace(&was, &format!("server = \"{}\"", server(&self.fleet))) + key;
        fs::write(folder.join("agent.toml"), &text).unwrap();
        let name =
            text.lines().find_map(|line| line.strip_prefix("device_name = ")).unwrap().trim_matches('"').to_owned();
        let output = tool.directory(&folder).run(&["agent", "once", "--config", "agent.toml"]);
        assert!(output.success(), "{}", output.text());
        let shown = self.fleet.json(&["device", "show", &name]);
        assert_eq!(shown["device"]["state"], "active", "{shown}");
        let profiles: Vec<&str> =
            shown["certificates"].as_array().unwrap().iter().filter_map(|one| one["profile"].as_str()).collect();
        assert!(profiles.contains(&"idevid") && profiles.contains(&"ldevid"), "{shown}");
        name
    }

    /// The public key of the IDevID in `images/N`, as openssl reads it.
    fn key_of_image(&self, number: u32) -> String {
        let path = self.fleet.path(&format!("images/{number}/idevid.pem"));
        let show = ["x509", "-in", path.to_str().unwrap(), "-noout", "-pubkey"];
        Tool::new("openssl").run(&show).expect_success().stdout_text()
    }
}

/// Events and books.
fn lines(output: &Output) -> Vec<Value> {
    output.stdout_text().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn books(output: &Output) -> Value {
    assert!(output.success(), "{}", output.text());
    lines(output).pop().unwrap()
}

fn in_hardware(target: &str) -> String {
    format!(
        "format = 1\nsku = \"gateway-r2\"\nproduct_line = \"thermo\"\ntarget = \"{target}\"\n\
         [identity]\nalgorithm = \"p-256\"\norigin = \"device\"\nprotection = \"hardware\"\n"
    )
}

const PKCS11: [&str; 7] =
    ["--device", "pkcs11=keyfleet-test", "--device", "pkcs11=second", "--images", "images", "--device-pin-file"];

#[test]
fn devices_with_tokens_are_made_on_the_line_and_enrol_with_the_keys_in_them() {
    let line = LineUp::authorised(&in_hardware("pkcs11"), &[]);
    let token = SoftHsm::new();
    let second = ["--init-token", "--free", "--label", "second", "--pin", SoftHsm::PIN, "--so-pin", SoftHsm::SO_PIN];
    token.tool("softhsm2-util").run(&second).succeeds();
    private(&line.fleet.path("pin"), SoftHsm::PIN);
    let module = SoftHsm::module().to_str().unwrap();
    let keyfleet = || line.fleet.tool().env(SoftHsm::VARIABLE, token.configuration());
    let devices = [&PKCS11[..], &["pin", "--device-module", module]].concat();
    let made = line.run(keyfleet(), &devices);
    assert_eq!(books(&made)["good"], 2, "{}", made.text());
    assert!(!made.text().contains(SoftHsm::PIN));
    let again = line.run(keyfleet(), &devices);
    assert_eq!((&books(&again)["good"], &books(&again)["refused"]), (&2.into(), &2.into()), "{}", again.text());
    line.import(2);
    for (number, label) in [(1, SoftHsm::LABEL), (2, "second")] {
        let read = |kind: &str, name: &str| {
            let out = line.fleet.path(name);
            let object = ["--module", module, "--token-label", label, "--read-object", "--type", kind];
            let ids = token.tool("pkcs11-tool").run(&["--module", module, "--token-label", label, "--list-objects"]);
            let text = ids.expect_success().text();
            let id = text.lines().find_map(|line| line.trim().strip_prefix("ID:")).unwrap().trim().to_owned();
            let arguments = [&object[..], &["--id", &id, "--output-file", out.to_str().unwrap()]].concat();
            token.tool("pkcs11-tool").run(&arguments).succeeds();
            out.to_str().unwrap().to_owned()
        };
        let (certificate, key) = (read("cert", "token.der"), read("pubkey", "token.key"));
        let openssl = |arguments: &[&str]| Tool::new("openssl").run(arguments).expect_success().stdout_text();
        let of_certificate = openssl(&["x509", "-inform", "DER", "-in", &certificate, "-noout", "-pubkey"]);
        assert_eq!(of_certificate, openssl(&["pkey", "-pubin", "-inform", "DER", "-in", &key]), "in token {label}");
        assert_eq!(of_certificate, line.key_of_image(number));
    }
    let credentials = line.fleet.path("credentials");
    fs::create_dir(&credentials).unwrap();
    private(&credentials.join("keyfleet-pin"), SoftHsm::PIN);
    let agent = || keyfleet().env("CREDENTIALS_DIRECTORY", &credentials);
    let key = format!("[key.pkcs11]\nmodule = \"{module}\"\ntoken = \"{}\"\n", SoftHsm::LABEL);
    line.enrols(agent(), 1, &key);
    let listed = ["--module", module, "--token-label", SoftHsm::LABEL, "--login", "--pin", SoftHsm::PIN];
    let keys = token.tool("pkcs11-tool").run(&[&listed[..], &["--list-objects", "--type", "privkey"]].concat());
    assert_eq!(keys.text().matches("keyfleet-idevid").count(), 1, "the key of the IDevID stays: {}", keys.text());
}

#[cfg(feature = "tpm")]
#[test]
fn gateways_with_a_tpm_are_made_on_the_line_and_enrol_with_the_key_in_it() {
    let line = LineUp::authorised(&in_hardware("tpm"), &[]);
    let tpm = kf_testkit::SoftwareTpm::new();
    let device = format!("tpm={}", tpm.address());
    let made = line.run(line.fleet.tool(), &["--device", &device, "--images", "images"]);
    assert_eq!(books(&made)["good"], 1, "{}", made.text());
    let mac = lines(&made).iter().find_map(|event| event["mac"].as_str().map(str::to_owned)).unwrap();
    assert!(mac.starts_with("tpm-"), "{mac}");
    let again = line.run(line.fleet.tool(), &["--device", &device, "--images", "images"]);
    assert_eq!(books(&again)["refused"], 1, "the TPM is known again: {}", again.text());
    line.import(1);
    let key = format!("[key.tpm]\naddress = \"{}\"\n", tpm.address());
    line.enrols(line.fleet.tool(), 1, &key);
    let stored = fs::read(line.fleet.path("images/1/idevid.key")).unwrap();
    assert!(stored.len() > 200 && line.key_of_image(1).contains("BEGIN PUBLIC KEY"));
}

#[cfg(not(feature = "tpm"))]
#[test]
fn a_program_without_tpms_says_so() {
    let line = LineUp::authorised(&in_hardware("tpm"), &[]);
    let device = ["--device", "tpm=device:/dev/tpmrm0", "--images", "images"];
    let refused = line.run(line.fleet.tool(), &device);
    assert!(refused.text().contains("--features tpm"), "{}", refused.text());
}

#[test]
fn a_device_of_another_kind_than_the_recipe_is_refused_before_anything_is_begun() {
    let line = LineUp::authorised(&in_hardware("tpm"), &[]);
    let refused = line.run(line.fleet.tool(), &["--device", "pkcs11=x", "--images", "images"]);
    refused.expect_failure().expect_text("the recipe is for target tpm");
}

/// A fixture in Python, as a line would write one.
const HOOK: &str = include_str!("../../../../examples/fixture/fixture.py");

#[test]
fn a_recipe_whose_target_is_a_hook_runs_the_program_that_was_approved_and_no_other() {
    let folder = kf_testkit::scratch();
    let program = folder.path().join("fixture.py");
    fs::write(&program, HOOK).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o700)).unwrap();
    let hook = format!("target = \"hook\"\nhook = [{:?}]", program.display().to_string());
    let line = LineUp::authorised(&in_hardware("hook").replace("target = \"hook\"", &hook), &[]);
    let other = line.run(line.fleet.tool(), &["--fixture", "/bin/true"]);
    other.expect_failure().expect_text("it is the approved one");
    let made = line.run(line.fleet.tool(), &["--fixtures", "1"]);
    assert_eq!(books(&made)["good"], 2, "{}", made.text());
    line.import(2);
}

#[test]
fn a_scanner_that_types_gives_each_board_its_number_and_a_board_with_another_label_is_not_made() {
    let recipe = "format = 1\nsku = \"gate-r1\"\nproduct_line = \"thermo\"\ntarget = \"linux\"\n\
                  [identity]\nalgorithm = \"p-256\"\norigin = \"station\"\nprotection = \"sealed\"\n";
    let line = LineUp::authorised(recipe, &[]);
    let run = ["--format", "json", "station", "run", "recipe.toml", "--state", "station", "--quota", "quota.cose"];
    let at =
        ["--server-key", "server.pem", "--passphrase-file", "pass", "--scan", "--simulate", "3", "--fixtures", "1"];
    let scanned = b"fixture-1\nB00000001\n\nB00000009\nB00000003\n";
    let made = line.fleet.tool().run_with_input(&[&run[..], &at].concat(), scanned);
    let books = books(&made);
    assert_eq!((&books["good"], &books["refused"]), (&2.into(), &1.into()), "{}", made.text());
}

#[test]
fn a_linux_device_boots_from_the_stations_image_with_its_sealed_store_and_enrols_and_never_without_what_unseals_it() {
    let recipe = "format = 1\nsku = \"gate-r1\"\nproduct_line = \"thermo\"\ntarget = \"linux\"\n\
                  [identity]\nalgorithm = \"p-256\"\norigin = \"station\"\nprotection = \"sealed\"\n";
    let line = LineUp::authorised(recipe, &[]);
    let made = line.run(line.fleet.tool(), &["--simulate", "1", "--boards", "boards", "--fixtures", "1"]);
    assert_eq!(books(&made)["good"], 1, "{}", made.text());
    line.import(1);
    let board = line.fleet.path("boards/board-000001");
    let image = line.fleet.path("images/1");
    fs::create_dir_all(line.fleet.path("images")).unwrap();
    fs::rename(board.join("flash"), &image).unwrap();
    let credentials = line.fleet.path("credentials");
    fs::create_dir(&credentials).unwrap();
    let agent = || line.fleet.tool().env("CREDENTIALS_DIRECTORY", &credentials);
    private(&credentials.join("keyfleet-seal"), "another thirty-two octets of key");
    let sealed = agent().directory(&image).run(&["agent", "once", "--config", "agent.toml"]);
    sealed.expect_failure().expect_text("idevid_sealed_key_file");
    fs::copy(board.join("fuse"), credentials.join("keyfleet-seal")).unwrap();
    line.enrols(agent(), 1, "");
}

#[test]
fn a_linux_device_boots_from_the_file_system_that_the_station_made_as_debugfs_reads_it_and_enrols() {
    let recipe = "format = 1\nsku = \"gate-r1\"\nproduct_line = \"thermo\"\ntarget = \"linux\"\n\
                  [identity]\nalgorithm = \"p-256\"\norigin = \"station\"\nprotection = \"sealed\"\n\
                  [file_system]\nsize = 4194304\n";
    let line = LineUp::authorised(recipe, &[]);
    let made = line.run(line.fleet.tool(), &["--simulate", "1", "--boards", "boards", "--fixtures", "1"]);
    assert_eq!(books(&made)["good"], 1, "{}", made.text());
    line.import(1);
    let board = line.fleet.path("boards/board-000001");
    let image = board.join("flash/keyfleet.ext4");
    let image = image.to_str().unwrap();
    let checked = Tool::new("e2fsck").run(&["-fn", image]).expect_success().text();
    assert!(checked.contains("keyfleet:"), "{checked}");
    let found = line.fleet.tool().run(&["--format", "json", "image", "check", image]).expect_success().stdout_text();
    let found: Value = serde_json::from_str(&found).unwrap();
    assert_eq!(found["findings"], serde_json::json!([]), "{found}");
    let folder = line.fleet.path("images/1");
    fs::create_dir_all(&folder).unwrap();
    let dump = format!("rdump / {}", folder.display());
    Tool::new("debugfs").run(&["-R", &dump, image]).succeeds();
    let credentials = line.fleet.path("credentials");
    fs::create_dir(&credentials).unwrap();
    fs::copy(board.join("fuse"), credentials.join("keyfleet-seal")).unwrap();
    line.enrols(line.fleet.tool().env("CREDENTIALS_DIRECTORY", &credentials), 1, "");
}

#[test]
fn a_disk_with_too_little_space_makes_no_device_and_says_so_and_the_same_command_goes_on_when_there_is_enough() {
    let recipe = "format = 1\nsku = \"gate-r1\"\nproduct_line = \"thermo\"\ntarget = \"linux\"\n\
                  [identity]\nalgorithm = \"p-256\"\norigin = \"station\"\nprotection = \"sealed\"\n\
                  [label]\nserver = \"https://fleet.example\"\n";
    let line = LineUp::authorised(recipe, &[]);
    // A disk of its own for the station, with 4 MiB left at first, in a name space that ends with the script.
    let script = "set -e
        cp -a station copy; mount -t tmpfs -o size=32m none station; cp -a copy/. station
        head -c 29360128 /dev/zero >station/other
        run() { \"$0\" --format json station run recipe.toml --state station --quota quota.cose --server-key server.pem \\
            --passphrase-file pass --simulate 2 --fixtures 1; }
        run >full.json || :
        rm station/other; run >made.json
        \"$0\" station export --state station --batch b-1 --out records.cbor";
    let keyfleet = line.fleet.tool();
    let program = keyfleet.path().to_str().unwrap().to_owned();
    let shell = Tool::new("unshare").directory(&line.fleet.path("."));
    shell.run(&["--mount", "sh", "-c", script, &program]).succeeds();
    let read = |name: &str| -> Vec<Value> {
        let text = fs::read_to_string(line.fleet.path(name)).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let full = read("full.json");
    let reasons: Vec<&str> = full.iter().filter_map(|event| event["reason"].as_str()).collect();
    assert!(!reasons.is_empty() && reasons.iter().all(|reason| *reason == "disk-full"), "{reasons:?}");
    let books = |lines: &[Value]| lines.last().unwrap().clone();
    assert_eq!((&books(&full)["good"], &books(&full)["left"]), (&0.into(), &4.into()), "no number was used up");
    assert_eq!(books(&read("made.json"))["good"], 2);
    let merged = line.fleet.json(&["batch", "import", "b-1", "records.cbor"]);
    assert_eq!((&merged["merged"], &merged["conflict_count"]), (&2.into(), &0.into()), "{merged}");
}

#[cfg(feature = "tpm")]
#[test]
fn a_station_whose_keys_are_in_its_tpm_makes_a_batch_that_the_server_takes_and_a_copy_of_its_disk_is_refused() {
    let recipe = "format = 1\nsku = \"gate-r1\"\nproduct_line = \"thermo\"\ntarget = \"linux\"\n\
                  [identity]\nalgorithm = \"p-256\"\norigin = \"station\"\nprotection = \"sealed\"\n";
    let tpm = kf_testkit::SoftwareTpm::new();
    let line = LineUp::with_keys_in(&["--tpm", &tpm.address()], recipe, &[]);
    Tool::new("cp")
        .run(&["-a", &line.fleet.path("station").display().to_string(), &line.fleet.path("old").display().to_string()])
        .succeeds();
    let made = line.run(line.fleet.tool(), &["--simulate", "2", "--fixtures", "2"]);
    assert_eq!(books(&made)["good"], 2, "{}", made.text());
    line.import(2);
    fs::rename(line.fleet.path("station"), line.fleet.path("new")).unwrap();
    fs::rename(line.fleet.path("old"), line.fleet.path("station")).unwrap();
    let refused = line.run(line.fleet.tool(), &["--simulate", "2", "--fixtures", "2"]);
    refused.expect_failure().expect_text("old copy");
}

const FUSES: &str = r#"
format = 1
sku = "thermo-c3"
product_line = "thermo"
target = "esp32"
chip = "esp32-c3"
[identity]
algorithm = "p-256"
origin = "station"
protection = "plain"
unsafe_plain_private_key = true
[layout]
nvs = { offset = 0x9000, size = 0x6000 }
[[fuse]]
block = 3
purpose = "xts-aes128-key"
[chip_state]
jtag_disabled = true
"#;

/// A wrapper of a line around its flasher. It has one board; the key that it proves lies in the image, as the firmware finds it.
const FLASHER: &str = r#"#!/usr/bin/env python3
import json, subprocess, sys, tempfile
number, left, flash = sys.argv[1], 1, []
ask = lambda count: sys.stdin.buffer.read(count)
def say(answer, octets=b""):
    sys.stdout.buffer.write(json.dumps(answer).encode() + b"\n" + octets)
    sys.stdout.buffer.flush()
for line in sys.stdin.buffer:
    question = json.loads(line)
    match question["do"]:
        case "read":
            say({"mac": f"02:00:00:00:00:0{number}", "chip": "esp32-c3"} if left else {"none": True})
            left = 0
        case "write":
            flash = [(part, ask(part["length"])) for part in question["segments"]]
            say({})
        case "read-back":
            say({"segments": [part for part, _ in flash], "chip_state": {"jtag_disabled": True, "keys_hidden": True}},
                b"".join(octets for _, octets in flash))
        case "prove":
            message, image = ask(question["octets"]), flash[0][1]
            start = image.index(bytes.fromhex("3041020100301306072a8648ce3d0201"))
            with tempfile.NamedTemporaryFile() as key:
                key.write(image[start:start + 67])
                key.flush()
                sign = ["openssl", "dgst", "-sha256", "-keyform", "DER", "-sign", key.name]
                signature = subprocess.run(sign, input=message, capture_output=True, check=True).stdout
            say({"octets": len(signature)}, signature)
        case "show":
            say({})
        case other:
            say({"error": f"{other} is espefuse's"})
"#;

/// The virtual chips of espefuse: the port of a chip is the file of its fuses.
struct VirtualChips {
    espefuse: PathBuf,
    flasher: PathBuf,
}

impl VirtualChips {
    fn new(line: &LineUp) -> Self {
        let program = |name: &str, text: &str| {
            let path = line.fleet.path(name);
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
            path
        };
        let python = Python::with_esptool_module("espefuse");
        let espefuse = format!(
            "#!/bin/sh\n[ \"$1\" = --port ] || exit 64\nfuses=$2\nshift 2\n\
             exec {} -m espefuse --virt --path-efuse-file \"$fuses\" \"$@\"\n",
            python.tool().path().display()
        );
        Self { espefuse: program("espefuse", &espefuse), flasher: program("flasher", FLASHER) }
    }

    fn jtag_off(&self, chip: &str) {
        let fuses = ["burn-efuse", "DIS_PAD_JTAG", "1", "DIS_USB_JTAG", "1"];
        let arguments = [&["--port", chip, "--chip", "esp32c3", "--do-not-confirm"][..], &fuses].concat();
        Tool::at(&self.espefuse).run(&arguments).succeeds();
    }

    fn summary(&self, chip: &str) -> Value {
        let arguments = ["--port", chip, "--chip", "esp32c3", "summary", "--format", "json"];
        let text = Tool::at(&self.espefuse).run(&arguments).expect_success().stdout_text();
        serde_json::from_str(text.split_once('{').map(|(_, rest)| format!("{{{rest}")).unwrap().trim()).unwrap()
    }
}

#[test]
fn espefuse_burns_what_was_confirmed_and_a_chip_that_is_not_as_the_recipe_demands_is_scrap_while_the_line_goes_on() {
    let line = LineUp::authorised(FUSES, &["--allow-unsafe"]);
    let chips = VirtualChips::new(&line);
    let ports = ["good.bin", "open.bin"].map(|name| line.fleet.path(name).to_str().unwrap().to_owned());
    let [good, open] = &ports;
    chips.jtag_off(good);
    let (espefuse, flasher) = (chips.espefuse.to_str().unwrap(), chips.flasher.to_str().unwrap());
    let fixtures = ["--fixture", flasher, "--fixture", flasher, "--espefuse", espefuse, "--port", good, "--port", open];
    let before = fs::read(good).unwrap();
    let unconfirmed = line.run(line.fleet.tool(), &fixtures);
    unconfirmed.expect_failure().expect_text("fuses will be burnt");
    let wrong = line.run(line.fleet.tool(), &[&fixtures[..], &["--confirm", "BURN 000000000000"]].concat());
    wrong.expect_failure().expect_text("fuses will be burnt");
    assert!(fs::read(good).unwrap() == before, "nothing is burnt before it was typed");

    let phrase = line.phrase.clone().unwrap();
    let made = line.run(line.fleet.tool(), &[&fixtures[..], &["--confirm", &phrase]].concat());
    let books = books(&made);
    assert_eq!((&books["good"], &books["scrap"], &books["balances"]), (&1.into(), &1.into(), &true.into()), "{books}");
    let failed = lines(&made).into_iter().find(|event| event["reason"].is_string()).unwrap();
    assert_eq!((&failed["reason"], &failed["next"]), (&"fuses".into(), &"scrap bin".into()), "{failed}");
    assert_eq!(failed["mac"], "02:00:00:00:00:02");
    for chip in &ports {
        let summary = chips.summary(chip);
        assert_eq!(summary["KEY_PURPOSE_3"]["value"], "XTS_AES_128_KEY", "{summary}");
        assert_eq!(summary["BLOCK_KEY3"]["readable"], false, "{summary}");
    }
    // The next shift: the scrapped board is told by its fuses, and the line asks for another.
    let after = line.run(line.fleet.tool(), &[&fixtures[..], &["--confirm", &phrase]].concat());
    let reasons: Vec<Value> = lines(&after).into_iter().map(|event| event["reason"].clone()).collect();
    assert!(reasons.contains(&"already-made".into()) && reasons.contains(&"spent".into()), "{}", after.text());
    line.import(2);
    let shown = line.fleet.json(&["batch", "reconcile", "b-1"]);
    assert_eq!((&shown["passed"], &shown["scrapped"]), (&1.into(), &1.into()), "{shown}");
}

#[test]
fn a_station_that_pins_the_first_key_works_under_a_quota_of_the_next_one_by_the_links_behind_it() {
    let recipe = "format = 1\nsku = \"gate-r1\"\nproduct_line = \"thermo\"\ntarget = \"linux\"\n\
                  [identity]\nalgorithm = \"p-256\"\norigin = \"station\"\nprotection = \"sealed\"\n\
                  [label]\nserver = \"https://fleet.example\"\n";
    let line = LineUp::authorised(recipe, &[]);
    let fleet = &line.fleet;
    let rotated = fleet.json(&["rotate", "--class", "batch-authorisation-key", "--now", "--why", "yearly"]);
    assert_eq!(rotated["items"][0]["outcome"], "done", "{rotated}");
    let request = ["station", "request", "--state", "second", "--name", "line-2", "--passphrase-file", "pass"];
    let files = ["--out", "second.request", "--public-key-out", "second.pem"];
    fleet.tool().run(&[&request[..], &files].concat()).succeeds();
    let operator = ["operator", "create", "line-2", "--role", "station", "--facility", "lyon"];
    fleet.run(&[&operator[..], &["--voucher-key", "second.pem"]].concat()).succeeds();
    let hash = fleet.json(&["station", "run", "recipe.toml", "--dry-run"])["hash"].as_str().unwrap().to_owned();
    let batch = ["batch", "create", "b-2", "--product-line", "thermo", "--facility", "lyon", "--count", "4"];
    let by = ["--station-request", "second.request", "--recipe", &hash, "--quota", "second.cose"];
    fleet.run(&[&batch[..], &by].concat()).succeeds();
    let run = |quota: &str| {
        let run = ["--format", "json", "station", "run", "recipe.toml", "--state", "second", "--quota", quota];
        let more = ["--server-key", "server.pem", "--passphrase-file", "pass", "--simulate", "2", "--fixtures", "1"];
        fleet.tool().run(&[&run[..], &more].concat())
    };
    // Without its links it is a stranger's.
    let file = fs::read(fleet.path("second.cose")).unwrap();
    let alone = kf_batch::frame::split_quota(&file).unwrap().item;
    assert!(alone.len() < file.len());
    fs::write(fleet.path("alone.cose"), alone).unwrap();
    let refused = run("alone.cose");
    assert!(!refused.success() && refused.text().contains("another key"), "{}", refused.text());
    let made = run("second.cose");
    assert_eq!(books(&made)["good"], 2, "{}", made.text());
    let export = ["station", "export", "--state", "second", "--batch", "b-2", "--out", "second.cbor"];
    fleet.tool().run(&export).succeeds();
    let merged = fleet.json(&["batch", "import", "b-2", "second.cbor"]);
    assert_eq!((&merged["merged"], &merged["conflict_count"]), (&2.into(), &0.into()), "{merged}");
    let left = fleet.json(&["rotate", "--class", "batch-authorisation-key", "--dry-run"]);
    assert_eq!(
        (&left["items"][0]["operation"], &left["items"][0]["remaining"]),
        (&"await-devices".into(), &1.into()),
        "{left}"
    );
}

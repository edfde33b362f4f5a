//! `keyfleet destroy` against a served fleet. Devices that hold keys are in the tests of the use cases.

use kf_testkit::{Output, Running, SoftHsm, TempDir, Tool};

use crate::console::{Fleet, Succeeds as _, json, keyfleet, private};

#[test]
fn what_may_not_be_destroyed_is_refused_with_what_to_do_first() {
    let fleet = Fleet::start(&[]).with_device();
    let early = fleet.run(&["destroy", "device-key", "thermo-0001", "--why", "sold", "--dry-run"]);
    assert_eq!(early.code, Some(5), "{}", early.text());
    assert!(early.stderr_text().contains("keyfleet device decommission"), "{}", early.text());
    fleet.run(&["device", "decommission", "thermo-0001", "--why", "sold", "--yes"]).succeeds();
    let none = fleet.run(&["destroy", "device-key", "thermo-0001", "--why", "sold", "--dry-run"]);
    assert_eq!(none.code, Some(5), "it was never sent a key: {}", none.text());
    let unasked = fleet.run(&["destroy", "device-key", "thermo-0001", "--why", "sold"]);
    assert_eq!(unasked.code, Some(2), "nobody is there to be asked: {}", unasked.text());
    assert_eq!(fleet.json(&["destroy", "list"])["items"], serde_json::json!([]));
}

#[test]
fn a_retired_epoch_is_destroyed_once_a_second_person_agrees() {
    let fleet = Fleet::start(&[]).with_device();
    let destroy = ["destroy", "facility-epoch", "--facility", "lyon", "--epoch", "1", "--why", "site closed"];
    let early = fleet.run(&[&destroy[..], &["--dry-run"]].concat());
    assert!(early.stderr_text().contains("keyfleet epoch retire"), "{}", early.text());
    fleet.run(&["epoch", "advance", "--facility", "lyon"]).succeeds();
    fleet.run(&["epoch", "retire", "--facility", "lyon", "--epoch", "1"]).succeeds();
    let plan = fleet.json(&[&destroy[..], &["--dry-run"]].concat());
    assert_eq!((plan["plan"]["salts"].clone(), plan["plan"]["result"].clone()), (0.into(), "destroyed".into()));
    let waits = fleet.run(&[&destroy[..], &["--yes", "--format", "json"]].concat());
    assert_eq!(waits.code, Some(6), "{}", waits.text());
    let proposal = json(&waits)["proposal"].as_str().unwrap().to_owned();
    crate::fleet::sign_up(&fleet, "bert", "fleet-operator");
    fleet.run_as("bert.toml", &["proposal", "approve", &proposal]).succeeds();
    let listed = fleet.json(&["destroy", "list"]);
    let id = listed["items"][0]["id"].as_str().unwrap();
    let receipt = fleet.json(&["destroy", "receipt", id]);
    assert!(receipt["approved_by"].as_str().unwrap().starts_with("bert ("), "{receipt}");
    fleet.run(&["audit", "verify"]).succeeds();
}

/// A fleet whose keys are in a token or TPM, with a second CA, served.
struct InHardware {
    home: TempDir,
    tool: Tool,
    /// Of the server, for what anybody may ask.
    http: String,
    _server: Running,
    /// Of the CA that ends, and of its key.
    authority: String,
    key: String,
}

impl InHardware {
    fn founded(home: TempDir, tool: Tool, seal: &[&str]) -> Self {
        let ports = ["--https", "127.0.0.1:0", "--http", "127.0.0.1:0"];
        tool.run(&[&["init", "--data", "d", "--pin-file", "pin"], seal, &ports].concat()).succeeds();
        let mut server = tool.start(&["serve", "--data", "d"]);
        let ready = server.wait_for_line(|line| line.starts_with("ready https="));
        let address = |key: &str| ready.split_whitespace().find_map(|word| word.strip_prefix(key)).unwrap().to_owned();
        let profile = |name: &str, root: &str, token: &str| {
            let text = format!("server = \"https://{}\"\nroot = {root:?}\ntoken_file = {token:?}\n", address("https="));
            private(&home.path().join(name), &text);
        };
        profile("d/cli.toml", "root.pem", "owner.token");
        profile("bert.toml", "d/root.pem", "bert.token");
        let (authority, key) = Default::default();
        let mut fleet = Self { home, tool, http: address("http="), _server: server, authority, key };
        let shown = fleet.json(&["authority", "show", "issuing"]);
        fleet.authority = shown["id"].as_str().unwrap().to_owned();
        fleet.key = shown["key"].as_str().unwrap().to_owned();
        fleet.run(&["authority", "create", "second", "--make-default"]).succeeds();
        fleet
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.tool.run(&[&["--data", "d", "--format", "json"], arguments].concat())
    }

    fn json(&self, arguments: &[&str]) -> serde_json::Value {
        json(&self.run(arguments).expect_success())
    }

    /// Two people end the key of the first CA; the receipt.
    fn destroyed(&self) -> serde_json::Value {
        let destroy = ["destroy", "authority-key", "issuing", "--certificates-stay", "--why", "line closed", "--yes"];
        let waits = self.run(&destroy);
        assert_eq!(waits.code, Some(6), "{}", waits.text());
        let proposal = json(&waits)["proposal"].as_str().unwrap().to_owned();
        self.run(&["operator", "create", "bert", "--role", "fleet-operator"]).succeeds();
        self.run(&["token", "create", "bert", "--out", "bert.token"]).succeeds();
        self.tool.run(&["--profile", "bert.toml", "proposal", "approve", &proposal]).succeeds();
        let receipt = self.json(&["destroy", "list"])["items"][0].clone();
        assert_eq!(receipt["result"], "destroyed", "{receipt}");
        assert!(receipt["method"].as_str().unwrap().contains("destruction of the key object"), "{receipt}");
        assert!(receipt["holder"].as_str().unwrap().contains("holds no key labelled"), "{receipt}");
        assert!(self.json(&["authority", "show", "issuing"])["key_destroyed"].is_u64());
        receipt
    }

    /// Anybody gets the last list, which never expires; the CA issues nothing, the other one does.
    fn assert_closed(&self) {
        let url = format!("http://{}/crl/{}/full.crl", self.http, self.authority);
        let list = Tool::new("curl").run(&["-sSf", &url]).expect_success().stdout;
        let said = Tool::new("openssl").run_with_input(&["crl", "-inform", "DER", "-noout", "-nextupdate"], &list);
        assert_eq!(said.expect_success().stdout_text().trim(), "nextUpdate=Dec 31 23:59:59 9999 GMT");
        self.run(&["facility", "create", "lyon"]).succeeds();
        self.run(&["product-line", "create", "thermo"]).succeeds();
        self.run(&["device", "register", "thermo-0001", "--facility", "lyon", "--product-line", "thermo"]).succeeds();
        let openssl = Tool::new("openssl").directory(self.home.path());
        let new = ["req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-noenc", "-subj", "/CN=x"];
        openssl.run(&[&new[..], &["-keyout", "x.key", "-out", "x.csr"]].concat()).succeeds();
        let issue = ["certificate", "issue", "--csr", "x.csr", "--profile", "ldevid", "--device", "thermo-0001"];
        let by = |authority: &str| self.run(&[&issue[..], &["--authority", authority, "--out", "x.pem"]].concat());
        by("issuing").expect_failure().expect_text("no good issuing CA");
        by("second").succeeds();
        self.run(&["audit", "verify"]).succeeds();
    }
}

/// OpenSC's tool with a login at the token.
fn pkcs11_tool(token: &SoftHsm, more: &[&str]) -> Output {
    let module = SoftHsm::module().to_str().unwrap();
    let login = ["--module", module, "--token-label", SoftHsm::LABEL, "--login", "--pin", SoftHsm::PIN];
    token.tool("pkcs11-tool").run(&[&login[..], more].concat())
}

/// CKA_ID of the key with this label, as the tool lists it.
fn id_in_token(objects: &str, label: &str) -> String {
    let after = objects.split_once(label).unwrap().1;
    after.lines().find_map(|line| line.trim().strip_prefix("ID:")).unwrap().trim().to_owned()
}

#[test]
fn the_key_of_a_ca_in_a_token_is_destroyed_and_pkcs11_tool_neither_sees_it_nor_signs_with_it() {
    let (token, home) = (SoftHsm::new(), kf_testkit::scratch());
    private(&home.path().join("pin"), SoftHsm::PIN);
    let tool = keyfleet(home.path()).env(SoftHsm::VARIABLE, token.configuration());
    let module = SoftHsm::module().to_str().unwrap();
    let seal = ["--seal", "pkcs11", "--pkcs11-module", module, "--pkcs11-token", SoftHsm::LABEL];
    let fleet = InHardware::founded(home, tool, &seal);
    let objects = || pkcs11_tool(&token, &["--list-objects"]).expect_success().stdout_text();
    assert_eq!(objects().matches(&fleet.key).count(), 2, "both halves: {}", objects());
    let id = id_in_token(&objects(), &fleet.key);
    let (digest, signature) = (fleet.home.path().join("digest"), fleet.home.path().join("signature"));
    std::fs::write(&digest, [7; 32]).unwrap();
    let files = ["--input-file", digest.to_str().unwrap(), "--output-file", signature.to_str().unwrap()];
    let sign = || pkcs11_tool(&token, &[&["--sign", "--mechanism", "ECDSA", "--id", &id], &files[..]].concat());
    sign().succeeds();
    assert_eq!(std::fs::read(&signature).unwrap().len(), 64);

    let receipt = fleet.destroyed();
    assert!(receipt["holder"].as_str().unwrap().contains("the token"), "{receipt}");
    assert!(!objects().contains(&fleet.key), "{}", objects());
    let refused = sign();
    assert!(!refused.success() && refused.text().contains("not found"), "{}", refused.text());
    fleet.assert_closed();
}

#[cfg(feature = "tpm")]
#[test]
fn the_key_of_a_ca_in_a_tpm_is_destroyed_with_its_file_and_the_tpm_holds_nothing_that_signs() {
    let (tpm, home) = (kf_testkit::SoftwareTpm::new(), kf_testkit::scratch());
    private(&home.path().join("pin"), "13572468");
    let tool = keyfleet(home.path());
    let fleet = InHardware::founded(home, tool, &["--seal", "tpm", "--tpm", &tpm.address()]);
    let file = fleet.home.path().join(format!("d/tpm/{}.tpm", fleet.key));
    assert!(file.metadata().unwrap().len() > 200);
    let receipt = fleet.destroyed();
    let exceptions = receipt["exceptions"].to_string();
    assert!(exceptions.contains("copies of the key's file"), "{receipt}");
    assert!(!file.exists());
    fleet.assert_closed();
    // What is loaded is loaded for one act: the storage key above all others is left, and nothing that signs.
    drop(fleet);
    let handles = |of: &str| {
        let seen = tpm.tool("tpm2_getcap").run(&[of]).expect_success().stdout_text();
        seen.lines().map(|line| line.trim_start_matches("- ").to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(handles("handles-persistent"), Vec::<String>::new());
    for handle in handles("handles-transient") {
        let seen = tpm.tool("tpm2_readpublic").run(&["-c", &handle]).expect_success().stdout_text();
        let attributes = seen.lines().find_map(|line| line.trim().strip_prefix("value: fixedtpm|")).unwrap();
        assert!(attributes.ends_with("|restricted|decrypt"), "{handle}: {seen}");
    }
}

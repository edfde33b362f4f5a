//! Devices made elsewhere: their makers' certificates come from openssl, manifests from Python, enrolment from curl.

use std::fs;

use kf_testkit::{Output, Python, Tool};

use crate::console::{Fleet, Succeeds as _, json};

fn openssl(fleet: &Fleet, arguments: &[&str]) {
    Tool::new("openssl").directory(fleet.scratch.path()).run(arguments).succeeds();
}

const EC: [&str; 4] = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"];
const TO: [&str; 4] = ["--facility", "lyon", "--product-line", "thermo"];

/// A fleet in which a vendor is trusted.
fn fleet() -> Fleet {
    let fleet = Fleet::start(&[]);
    fleet.run(&["facility", "create", "lyon"]).succeeds();
    fleet.run(&["product-line", "create", "thermo"]).succeeds();
    vendor(&fleet, "acme");
    fleet.run(&["vendor", "create", "acme", "--anchor", "acme.pem"]).succeeds();
    fleet
}

/// `NAME.pem`, a root, and `NAME-issuing.pem` below it.
fn vendor(fleet: &Fleet, name: &str) {
    let (key, pem) = (format!("{name}.key"), format!("{name}.pem"));
    let subject = format!("/O={name}/CN={name} root");
    let root = ["req", "-x509", "-noenc", "-days", "30", "-keyout", &key, "-out", &pem, "-subj", &subject];
    openssl(fleet, &[&root[..], &EC].concat());
    let issuing = format!("{name}-issuing");
    certify(fleet, &issuing, &format!("/O={name}/CN={name} issuing"), name, "basicConstraints=critical,CA:TRUE\n");
}

/// `NAME.key` and `NAME.pem`, certified by `ISSUER`.
fn certify(fleet: &Fleet, name: &str, subject: &str, issuer: &str, extensions: &str) {
    let file = |name: &str, kind: &str| format!("{name}.{kind}");
    let (key, csr, pem, ext) = (file(name, "key"), file(name, "csr"), file(name, "pem"), file(name, "ext"));
    fs::write(fleet.path(&ext), extensions).unwrap();
    let request = ["req", "-new", "-noenc", "-keyout", &key, "-out", &csr, "-subj", subject];
    openssl(fleet, &[&request[..], &EC].concat());
    let (ca, ca_key) = (file(issuer, "pem"), file(issuer, "key"));
    openssl(
        fleet,
        &["x509", "-req", "-in", &csr, "-CA", &ca, "-CAkey", &ca_key, "-days", "30", "-extfile", &ext, "-out", &pem],
    );
}

/// An IDevID of the vendor's issuing CA: `NAME.key`, `NAME.pem`, and `NAME-chain.pem` with its issuer.
fn idevid(fleet: &Fleet, name: &str, serial_number: &str, vendor: &str) {
    let subject = format!("/O={vendor}/CN=sensor/serialNumber={serial_number}");
    certify(fleet, name, &subject, &format!("{vendor}-issuing"), "keyUsage=critical,digitalSignature\n");
    let part = |name: &str| fs::read_to_string(fleet.path(&format!("{name}.pem"))).unwrap();
    let chain = format!("{}{}", part(name), part(&format!("{vendor}-issuing")));
    fs::write(fleet.path(&format!("{name}-chain.pem")), chain).unwrap();
}

/// EST simpleenroll with the IDevID as TLS client certificate and a key of the request's own.
fn enrol(fleet: &Fleet, idevid: &str, request: &str) -> Output {
    let profile = fs::read_to_string(fleet.data().join("cli.toml")).unwrap();
    let server = profile.lines().next().unwrap().trim_start_matches("server = ").trim_matches('"').to_owned();
    let csr = fleet.request(request);
    openssl(fleet, &["req", "-in", &csr, "-outform", "DER", "-out", "request.der"]);
    openssl(fleet, &["base64", "-in", "request.der", "-out", "request.b64"]);
    let (root, chain, key) = (fleet.data().join("root.pem"), format!("{idevid}-chain.pem"), format!("{idevid}.key"));
    Tool::new("curl").directory(fleet.scratch.path()).run(&[
        "--silent",
        "--cacert",
        root.to_str().unwrap(),
        "--cert",
        &chain,
        "--key",
        &key,
        "--header",
        "Content-Type: application/pkcs10",
        "--data-binary",
        "@request.b64",
        "--write-out",
        "\nstatus %{http_code}",
        &format!("{server}/.well-known/est/thermo/simpleenroll"),
    ])
}

fn import(fleet: &Fleet, vendor: &str, file: &str, more: &[&str]) -> Output {
    fleet.run(&[&["vendor", "import", vendor, file, "--format", "json"][..], &TO, more].concat())
}

fn counts(output: &Output) -> [u64; 4] {
    let report = json(output);
    ["rows", "registered", "already_there", "refused"].map(|field| report[field].as_u64().unwrap())
}

fn csv_of(fleet: &Fleet, names: &[&str]) -> String {
    let rows = names.iter().map(|name| {
        let chain = fs::read_to_string(fleet.path(&format!("{name}-chain.pem"))).unwrap();
        format!("{name},\"{chain}\"\n")
    });
    let text = format!("name,certificate\n{}", rows.collect::<String>());
    fs::write(fleet.path("idevids.csv"), text).unwrap();
    "idevids.csv".to_owned()
}

#[test]
fn a_device_of_an_imported_certificate_enrols_with_it_and_another_of_the_same_vendor_does_not() {
    let fleet = fleet();
    idevid(&fleet, "one", "S-1", "acme");
    idevid(&fleet, "stranger", "S-2", "acme");
    let file = csv_of(&fleet, &["one"]);
    assert_eq!(counts(&import(&fleet, "acme", &file, &["--dry-run"]).expect_success()), [1, 1, 0, 0]);
    assert_eq!(fleet.json(&["device", "list"])["items"].as_array().unwrap().len(), 0, "a dry run registers nothing");
    assert_eq!(counts(&import(&fleet, "acme", &file, &[]).expect_success()), [1, 1, 0, 0]);
    assert_eq!(counts(&import(&fleet, "acme", &file, &[]).expect_success()), [1, 0, 1, 0], "again changes nothing");
    assert!(!enrol(&fleet, "stranger", "stranger-ldevid").text().contains("status 200"));
    enrol(&fleet, "one", "one-ldevid").expect_success().expect_text("status 200");
    let shown = fleet.json(&["device", "show", "one"]);
    assert_eq!(shown["device"]["state"], "active");
    let acts: Vec<&str> =
        shown["events"].as_array().unwrap().iter().map(|event| event["entry"]["act"].as_str().unwrap()).collect();
    assert!(acts.contains(&"vendor.first-use"), "{acts:?}");
    let listed = fleet.json(&["vendor", "devices", "acme"]);
    assert!(listed["items"][0]["first_used"].is_u64(), "{listed}");
}

#[test]
fn an_expected_device_is_bound_to_the_first_certificate_that_enrols_as_it() {
    let fleet = fleet();
    idevid(&fleet, "first", "S-7", "acme");
    idevid(&fleet, "second", "S-7", "acme");
    vendor(&fleet, "other");
    idevid(&fleet, "foreign", "S-7", "other");
    fs::write(fleet.path("expected.csv"), "identifier,name\nS-7,pump-7\nS-8,\n").unwrap();
    assert_eq!(counts(&import(&fleet, "acme", "expected.csv", &[]).expect_success()), [2, 2, 0, 0]);
    assert!(!enrol(&fleet, "foreign", "a").text().contains("status 200"), "another vendor's word counts for nothing");
    enrol(&fleet, "first", "b").expect_success().expect_text("status 200");
    assert!(!enrol(&fleet, "second", "c").text().contains("status 200"), "S-7 has its certificate");
    enrol(&fleet, "first", "d").expect_success().expect_text("status 200");
    assert_eq!(fleet.json(&["device", "show", "pump-7"])["device"]["state"], "active");
    fleet.run(&["vendor", "withdraw", "acme", "--why", "their CA leaked"]).succeeds();
    enrol(&fleet, "first", "e").expect_text("status 403");
    import(&fleet, "acme", "expected.csv", &[]).expect_failure().expect_text("withdrawn");
}

#[test]
fn a_manifest_of_secure_elements_is_believed_entry_by_entry() {
    let fleet = fleet();
    idevid(&fleet, "chip", "0123f1822c38dd7a01", "acme");
    idevid(&fleet, "bent", "0123aaaaaaaaaaaa01", "acme");
    vendor(&fleet, "signer");
    let python = Python::with_module("cryptography");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/microchip_manifest.py");
    let arguments = [script, "signer.key", "signer.pem", "manifest.json"];
    let elements = ["0123f1822c38dd7a01", "chip-chain.pem", "0123aaaaaaaaaaaa01", "bent-chain.pem"];
    let tool = python.tool().clone().directory(fleet.scratch.path());
    tool.run(&[arguments.as_slice(), &elements].concat()).succeeds();
    // The second entry is changed after it was signed.
    let mut manifest: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(fleet.path("manifest.json")).unwrap()).unwrap();
    let payload = manifest[1]["payload"].as_str().unwrap();
    manifest[1]["payload"] = format!("{}A", &payload[..payload.len() - 1]).into();
    fs::write(fleet.path("manifest.json"), manifest.to_string()).unwrap();

    import(&fleet, "acme", "manifest.json", &[]).expect_failure().expect_text("--signer");
    let refused = import(&fleet, "acme", "manifest.json", &["--signer", "acme.pem"]);
    assert_eq!(counts(&refused), [2, 0, 0, 2], "under another signer nothing is believed");
    let imported = import(&fleet, "acme", "manifest.json", &["--signer", "signer.pem"]);
    assert_eq!(counts(&imported), [2, 1, 0, 1]);
    assert!(imported.text().contains("signature does not verify"), "{}", imported.text());
    enrol(&fleet, "chip", "chip-ldevid").expect_success().expect_text("status 200");
    assert_eq!(fleet.json(&["device", "show", "0123f1822c38dd7a01"])["device"]["state"], "active");
}

#[test]
fn rows_that_cannot_be_trusted_are_refused_by_number_and_the_others_are_not() {
    let fleet = fleet();
    for (name, serial) in [("one", "S-1"), ("two", "S-2")] {
        idevid(&fleet, name, serial, "acme");
    }
    vendor(&fleet, "other");
    idevid(&fleet, "foreign", "S-3", "other");
    let file = csv_of(&fleet, &["one", "foreign", "two"]);
    let mut text = fs::read_to_string(fleet.path(&file)).unwrap();
    text.push_str("broken,%%%\nnothing,\n");
    fs::write(fleet.path(&file), text).unwrap();
    let output = import(&fleet, "acme", &file, &[]);
    assert_eq!(counts(&output), [5, 2, 0, 3]);
    let report = json(&output);
    let refused: Vec<(u64, &str)> = report["errors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|error| (error["row"].as_u64().unwrap(), error["field"].as_str().unwrap()))
        .collect();
    assert_eq!(refused, [(2, "chain_pem"), (4, "certificate"), (5, "identifier")]);
    // The same key under another name is another device with one key.
    fs::write(
        fleet.path("again.csv"),
        format!(
            "name,identifier,certificate\nthree,S-9,\"{}\"\n",
            fs::read_to_string(fleet.path("one-chain.pem")).unwrap()
        ),
    )
    .unwrap();
    assert_eq!(counts(&import(&fleet, "acme", "again.csv", &["--dry-run"])), [1, 0, 0, 1]);
    assert_eq!(counts(&import(&fleet, "acme", "again.csv", &[])), [1, 0, 0, 1]);
    // What is no CA anchors nothing: whoever holds its key could certify devices.
    fleet.run(&["vendor", "create", "leaf", "--anchor", "one.pem"]).expect_failure().expect_text("CA certificate");
}

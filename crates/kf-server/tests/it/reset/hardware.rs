//! The same where keys are in hardware: the owner's are gone from the token, the maker's stays in it and admits the device again.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use kf_agent::Config;
use kf_api::order::{OrderAct, OrderProgress};
use kf_exchange::PublicKey;
use kf_key::{DeviceState, SecretBytes};
#[cfg(feature = "tpm")]
use kf_testkit::SoftwareTpm;
use kf_testkit::{ForeignAuthority, SoftHsm};
use serde_json::Value;

use super::{Made, RECORD, Site, copy, fragments, once, quiet};

/// Validity of the IDevID.
const MADE: (i32, u8, u8) = (2000, 1, 1);
const FOR_EVER: (i32, u8, u8) = (2099, 12, 31);

/// A device whose IDevID's key is where `stored` says, beside its certificate.
fn made_with(spki: &[u8], stored: &[u8]) -> Made {
    let (maker, scratch) = (ForeignAuthority::new(), kf_testkit::scratch());
    let made = Made { maker, scratch };
    fs::create_dir_all(made.state().join("factory")).unwrap();
    let point = PublicKey::from_spki(spki).unwrap().to_sec1();
    let leaf = made.maker.certify_client("pump-1", &point, MADE, FOR_EVER);
    let chain = [leaf, made.maker.issuing_der()].map(|der| kf_pki::pem::certificate(&der)).concat();
    fs::write(made.idevid("chain.pem"), chain).unwrap();
    fs::write(made.idevid("idevid.key"), stored).unwrap();
    made
}

/// What an owner configures, with the key where `key` says.
fn config(site: &Site, made: &Made, key: &str) -> String {
    let text = site.config(made, &made.state(), "");
    let text = text.replace("[key]\nseal_fd = 0\n", &format!("[key]\n{key}\n"));
    text.replace("idevid_key_file", "idevid_sealed_key_file").replace("factory/key.pem", "factory/idevid.key")
}

/// Names the configuration that the child of the test below works with.
const CHILD: &str = "KF_SERVER_RESET_TOKEN_CHILD";
/// What it does: hand over a record, or what is due.
const RECORDS: &str = "KF_SERVER_RESET_TOKEN_RECORDS";
const TEST: &str = "reset::hardware::a_device_that_is_sold_leaves_its_token_with_the_makers_key_alone_and_enrols_by_it";

/// One start of the agent in a process of its own: the module reads the environment. What it told, and whether it was reset.
fn start(made: &Made, token: &SoftHsm, text: &str, puts_record: bool) -> (bool, Vec<Value>) {
    let (file, told) = (made.file("child.toml"), made.file("told.json"));
    fs::write(&file, text).unwrap();
    fs::write(made.file("pin"), SoftHsm::PIN).unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", TEST, "--nocapture", "--test-threads=1"]);
    child.env(CHILD, &file).env(SoftHsm::VARIABLE, token.configuration());
    child.env("CREDENTIALS_DIRECTORY", made.scratch.path()).stdout(Stdio::piped()).stderr(Stdio::piped());
    if puts_record {
        child.env(RECORDS, "put");
    }
    let output = child.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let told: Value = serde_json::from_slice(&fs::read(told).unwrap()).unwrap();
    (told["was_reset"].as_bool().unwrap(), told["events"].as_array().unwrap().clone())
}

async fn child(file: &Path) {
    let text = fs::read_to_string(file).unwrap();
    let told = if std::env::var_os(RECORDS).is_some() {
        let agent = super::open_agent(&Config::parse(&text).unwrap(), &quiet());
        agent.put_record(7, &SecretBytes::from_vec(RECORD.to_vec())).unwrap();
        serde_json::json!({"was_reset": false, "events": []})
    } else {
        let (outcome, events) = once(&text).await;
        serde_json::json!({"was_reset": outcome.was_reset, "events": events})
    };
    fs::write(file.with_file_name("told.json"), told.to_string()).unwrap();
}

fn told(events: &[Value], name: &str) -> bool {
    events.iter().any(|event| event["event"] == name)
}

fn pkcs11_tool(token: &SoftHsm, arguments: &[&str]) -> kf_testkit::Output {
    let module = SoftHsm::module().to_str().unwrap();
    let login = ["--module", module, "--token-label", SoftHsm::LABEL, "--login", "--pin", SoftHsm::PIN];
    token.tool("pkcs11-tool").run(&[&login[..], arguments].concat()).expect_success()
}

/// What a program that is not ours finds in the token: how many objects of the agent, and of the maker.
fn objects(token: &SoftHsm) -> (usize, usize) {
    let text = pkcs11_tool(token, &["--list-objects"]).stdout_text();
    let labels = || text.lines().filter(|line| line.trim_start().starts_with("label:"));
    let of = |prefix: &str| labels().filter(|line| line.contains(prefix)).count();
    (of("keyfleet-agent pump-1 "), of("keyfleet-idevid pump-1"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_is_sold_leaves_its_token_with_the_makers_key_alone_and_enrols_by_it() {
    if let Some(file) = std::env::var_os(CHILD) {
        return child(Path::new(&file)).await;
    }
    let token = SoftHsm::new();
    let label = "keyfleet-idevid pump-1";
    let made = ["--keypairgen", "--key-type", "EC:prime256v1", "--label", label, "--id", "01"];
    drop(pkcs11_tool(&token, &made));
    let spki = pkcs11_tool(&token, &["--read-object", "--type", "pubkey", "--label", label]).stdout;
    let made = made_with(&spki, &[&[4], label.as_bytes()].concat());
    let (site, next) = (Site::new(&made).await, Site::new(&made).await);
    let key = format!(
        "kind = \"pkcs11\"\nseal_credential = \"pin\"\n[key.pkcs11]\nmodule = \"{}\"\ntoken = \"{}\"",
        SoftHsm::module().display(),
        SoftHsm::LABEL
    );
    fs::write(made.file("code"), "").unwrap();
    let of_owner = config(&site, &made, &key);
    let (_, events) = start(&made, &token, &of_owner, false);
    assert!(told(&events, "device-key"), "{events:?}");
    start(&made, &token, &of_owner, true);
    let (of_agent, of_maker) = objects(&token);
    assert!(of_agent >= 2 && of_maker >= 1, "an identity key and the one that wraps: {of_agent}, {of_maker}");
    let factory = fragments(&made.state().join("factory"), &[]);
    // A copy of every file, as a thief may have made it.
    let aside = made.file("aside");
    copy(&made.state(), &aside);

    site.sell().await;
    let (was_reset, events) = start(&made, &token, &of_owner, false);
    assert!(was_reset && told(&events, "order-answered"), "{events:?}");
    assert_eq!(site.order().await, (OrderAct::FactoryReset, OrderProgress::Executed));
    assert_eq!(objects(&token), (0, of_maker), "the owner's keys are gone, the maker's is not");
    assert_eq!(fragments(&made.state().join("factory"), &[]), factory);

    // The next owner admits it by the key that stayed.
    let of_next = config(&next, &made, &key);
    let (_, events) = start(&made, &token, &of_next, false);
    assert!(told(&events, "device-key"), "{events:?}");
    assert_eq!(next.state_of_device().await, DeviceState::Active);
    assert!(objects(&token).0 >= 2);
    // The files of before are of no use beside the token.
    let file = made.file("thief.toml");
    let state = made.state().display().to_string();
    let of_thief =
        of_owner.replace(&format!("state_dir = \"{state}\""), &format!("state_dir = \"{}\"", aside.display()));
    fs::write(&file, &of_thief).unwrap();
    let opened = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", TEST, "--nocapture", "--test-threads=1"])
        .env(CHILD, &file)
        .env(RECORDS, "put")
        .env(SoftHsm::VARIABLE, token.configuration())
        .env("CREDENTIALS_DIRECTORY", made.scratch.path())
        .output()
        .unwrap();
    assert!(!opened.status.success(), "a vault of before opens under no key of the token");
}

#[cfg(feature = "tpm")]
#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_is_sold_keeps_the_makers_key_in_its_tpm_and_what_was_sealed_for_its_owner_is_gone() {
    let tpm = SoftwareTpm::new();
    let open = kf_tpm::Tpm::open(tpm.address().parse().unwrap(), std::time::Duration::from_secs(60)).unwrap();
    let blob = open.generate_signature_key(&kf_tpm::Protection::default()).unwrap();
    let made = made_with(&blob.spki().unwrap(), &[&[6], blob.to_bytes().as_slice()].concat());
    drop(open);
    let (site, next) = (Site::new(&made).await, Site::new(&made).await);
    let key = format!("kind = \"tpm\"\n[key.tpm]\naddress = \"{}\"\ndeadline_seconds = 60", tpm.address());
    fs::write(made.file("code"), "").unwrap();
    let of_owner = config(&site, &made, &key);
    let (outcome, events) = once(&of_owner).await;
    assert!(outcome.is_valid && super::has(&events, "device-key"), "{events:?}");
    super::agent(&of_owner, &quiet()).put_record(7, &SecretBytes::from_vec(RECORD.to_vec())).unwrap();
    let before = fragments(&made.state(), &super::NO_SECRET);
    assert!(before.len() > 300);
    let factory = fragments(&made.state().join("factory"), &[]);

    site.sell().await;
    let (outcome, events) = once(&of_owner).await;
    assert!(outcome.was_reset && super::has(&events, "order-answered"), "{events:?}");
    assert_eq!(site.order().await, (OrderAct::FactoryReset, OrderProgress::Executed));
    // The TPM keeps nothing by itself: what it had sealed and wrapped is nowhere any more.
    let after = fragments(&made.state(), &super::NO_SECRET);
    let found: Vec<_> = after.intersection(&before).collect();
    assert!(found.is_empty(), "{} fragments are left, {:02x?} among them", found.len(), found.first());
    let persistent = tpm.tool("tpm2_getcap").run(&["handles-persistent"]).expect_success().stdout_text();
    assert_eq!(persistent.trim(), "");
    assert_eq!(fragments(&made.state().join("factory"), &[]), factory);

    let (outcome, events) = once(&config(&next, &made, &key)).await;
    assert!(outcome.is_valid && super::has(&events, "device-key"), "{events:?}");
    assert_eq!(next.state_of_device().await, DeviceState::Active);
    assert!(super::agent(&config(&next, &made, &key), &quiet()).read_record(7).unwrap().is_none());
}

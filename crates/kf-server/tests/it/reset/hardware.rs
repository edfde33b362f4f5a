//! The same where keys are in hardware: the owner's are gone from the token, the maker's stays in it and admits the device again.

use std::fs;

use kf_api::order::{OrderAct, OrderProgress};
use kf_exchange::PublicKey;
use kf_key::DeviceState;
#[cfg(feature = "tpm")]
use kf_key::SecretBytes;
#[cfg(feature = "tpm")]
use kf_testkit::SoftwareTpm;
use kf_testkit::{ForeignAuthority, SoftHsm};

use super::{Made, Site, Starts, copy, fragments, told};
#[cfg(feature = "tpm")]
use super::{RECORD, once, quiet};

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

const TEST: &str = "reset::hardware::a_device_that_is_sold_leaves_its_token_with_the_makers_key_alone_and_enrols_by_it";

/// Starts of the agent with its keys in a token.
pub(super) fn with_token<'a>(test: &'static str, made: &'a Made, token: &SoftHsm) -> Starts<'a> {
    fs::write(made.file("pin"), SoftHsm::PIN).unwrap();
    let found = (SoftHsm::VARIABLE, token.configuration());
    let variables = vec![found, ("CREDENTIALS_DIRECTORY", made.scratch.path().to_owned())];
    Starts { variables, ..Starts::of(test, made) }
}

/// The table of such a key, without its heading.
pub(super) fn in_token() -> String {
    let (module, label) = (SoftHsm::module().display(), SoftHsm::LABEL);
    format!("kind = \"pkcs11\"\nseal_credential = \"pin\"\n[key.pkcs11]\nmodule = \"{module}\"\ntoken = \"{label}\"")
}

fn pkcs11_tool(token: &SoftHsm, arguments: &[&str]) -> kf_testkit::Output {
    let module = SoftHsm::module().to_str().unwrap();
    let login = ["--module", module, "--token-label", SoftHsm::LABEL, "--login", "--pin", SoftHsm::PIN];
    token.tool("pkcs11-tool").run(&[&login[..], arguments].concat()).expect_success()
}

/// What a program that is not ours finds in the token: how many objects of the agent, and of the maker.
pub(super) fn objects(token: &SoftHsm) -> (usize, usize) {
    let text = pkcs11_tool(token, &["--list-objects"]).stdout_text();
    let labels = || text.lines().filter(|line| line.trim_start().starts_with("label:"));
    let of = |prefix: &str| labels().filter(|line| line.contains(prefix)).count();
    (of("keyfleet-agent pump-1 "), of("keyfleet-idevid pump-1"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_is_sold_leaves_its_token_with_the_makers_key_alone_and_enrols_by_it() {
    if super::is_child().await {
        return;
    }
    let token = SoftHsm::new();
    let label = "keyfleet-idevid pump-1";
    let made = ["--keypairgen", "--key-type", "EC:prime256v1", "--label", label, "--id", "01"];
    drop(pkcs11_tool(&token, &made));
    let spki = pkcs11_tool(&token, &["--read-object", "--type", "pubkey", "--label", label]).stdout;
    let made = made_with(&spki, &[&[4], label.as_bytes()].concat());
    let (site, next) = (Site::new(&made).await, Site::new(&made).await);
    let (key, starts) = (in_token(), with_token(TEST, &made, &token));
    fs::write(made.file("code"), "").unwrap();
    let of_owner = config(&site, &made, &key);
    let start = starts.does(&of_owner, "due");
    assert!(told(&start, "device-key"), "{start}");
    starts.does(&of_owner, "put");
    let (of_agent, of_maker) = objects(&token);
    assert!(of_agent >= 2 && of_maker >= 1, "an identity key and the one that wraps: {of_agent}, {of_maker}");
    let factory = fragments(&made.state().join("factory"), &[]);
    // A copy of every file, as a thief may have made it.
    let aside = made.file("aside");
    copy(&made.state(), &aside);

    site.sell().await;
    let start = starts.does(&of_owner, "due");
    assert!(start["was_reset"] == true && told(&start, "order-answered"), "{start}");
    assert_eq!(site.order().await, (OrderAct::FactoryReset, OrderProgress::Executed));
    assert_eq!(objects(&token), (0, of_maker), "the owner's keys are gone, the maker's is not");
    assert_eq!(fragments(&made.state().join("factory"), &[]), factory);

    // The next owner admits it by the key that stayed.
    let of_next = config(&next, &made, &key);
    let start = starts.does(&of_next, "due");
    assert!(told(&start, "device-key"), "{start}");
    assert_eq!(next.state_of_device().await, DeviceState::Active);
    assert!(objects(&token).0 >= 2);
    // The files of before are of no use beside the token.
    let state = made.state().display().to_string();
    let of_thief =
        of_owner.replace(&format!("state_dir = \"{state}\""), &format!("state_dir = \"{}\"", aside.display()));
    let opened = starts.tries(&of_thief, "put");
    assert!(!opened.success(), "a vault of before opens under no key of the token");
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

//! The device's key in a secure element: enrolling, renewing, and an element that goes away.

use kf_agent::key_source::{ElementKeys, HardwareFault, KeyError, KeySource as _};
use kf_agent::{Agent, Config};
use kf_key::SecretBytes;
use kf_secure_element::layout;
use kf_testkit::{Fault, SecureElement};

use crate::bench::{Bench, DUE, LONG, Reply, bench, names};
use crate::personalized::{element, personalized};

fn open(bench: &Bench, chip: &SecureElement) -> Agent {
    let text = bench.config_text_with_key("kind = \"secure-element\"", "[bootstrap]\ncode_file = \"{dir}/code\"\n");
    let config = Config::parse(&text.replace("{dir}", bench.directory.path().to_str().unwrap())).unwrap();
    crate::bench::open_with(&config, || bench.sink(), || Box::new(ElementKeys::new(element(chip)).unwrap())).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_enrols_and_renews_with_keys_in_its_secure_element_and_destroys_old_ones() {
    let bench = bench(|_, number| Reply::Issue(if number == 0 { DUE } else { LONG })).await;
    let chip = personalized();
    std::fs::write(bench.path("code"), "ABCD-EFGH\n").unwrap();
    let outcome = open(&bench, &chip).once().await;
    assert!(outcome.is_valid && outcome.is_settled && !outcome.needs_attention);
    assert_eq!(names(&bench.take_events()), ["started", "enrolled", "renewed", "stopped"]);
    // The renewal was authenticated by the element: a client certificate that only its key can use.
    assert_eq!(bench.enrolments()[1].1.client_chain.len(), 2);
    chip.set_power(false);
    chip.set_power(true);
    let outcome = open(&bench, &chip).once().await;
    assert!(outcome.is_valid);
    assert_eq!(bench.enrolments().len(), 2);
    // One key is labelled, the one in use.
    let labelled = [12, 13, 14].iter().filter(|slot| chip.slot(**slot).starts_with(b"K")).count();
    assert_eq!(labelled, 1);
    let slot = std::fs::read_to_string(bench.path("state/current")).unwrap();
    let stored = std::fs::read(bench.path(&format!("state/{}/key", slot.trim()))).unwrap();
    for private in 0..5 {
        let key = chip.slot(private);
        assert!(!stored.windows(16).any(|window| key.windows(16).any(|part| part == window)), "no key on disk");
    }
}

/// The station's own part, the whole way to such a chip, is tested where the station is.
#[tokio::test(flavor = "multi_thread")]
async fn a_device_bootstraps_with_the_identity_that_the_line_locked_into_its_secure_element() {
    let bench = bench(|_, _| Reply::Issue(LONG)).await;
    let chip = personalized();
    let point = element(&chip).public_key(layout::IDENTITY).unwrap().to_sec1();
    let leaf = bench.authority.certify_client("factory-1", &point, (2020, 1, 1), (2049, 1, 1));
    let chain = [leaf.clone(), bench.authority.issuing_der()];
    let pem: String = chain.iter().map(|der| kf_pki::pem::certificate(der)).collect();
    std::fs::write(bench.path("idevid.pem"), pem).unwrap();
    std::fs::write(bench.path("idevid.key"), [7]).unwrap();
    let more = "[bootstrap]\nidevid_chain_file = \"{dir}/idevid.pem\"\nidevid_sealed_key_file = \"{dir}/idevid.key\"\n";
    let config = Config::parse(&bench.config_text_with_key("kind = \"secure-element\"", more)).unwrap();
    let keys = || -> Box<dyn kf_agent::key_source::KeySource> { Box::new(ElementKeys::new(element(&chip)).unwrap()) };
    let agent = crate::bench::open_with(&config, || bench.sink(), keys).unwrap();
    assert!(agent.once().await.is_valid);
    assert_eq!(bench.enrolments()[0].1.client_chain, chain, "the TLS session was the chip's");
    assert!(element(&chip).public_key(layout::IDENTITY).unwrap().to_sec1() == point, "the identity key stays");
}

#[test]
fn what_dies_in_a_secure_element_by_order_is_the_agents_and_not_what_the_line_locked() {
    let chip = personalized();
    let point = element(&chip).public_key(layout::IDENTITY).unwrap().to_sec1();
    let keys = ElementKeys::new(element(&chip)).unwrap();
    let (_, stored) = keys.generate().unwrap();
    assert!(keys.load(&stored).is_ok());
    keys.destroy_all().unwrap();
    assert!(keys.load(&stored).is_err(), "the key of an LDevID is gone");
    let idevid = keys.load(&SecretBytes::from_vec(vec![7])).unwrap();
    assert!(idevid.certification_request().is_ok(), "the IDevID still signs");
    assert!(element(&chip).public_key(layout::IDENTITY).unwrap().to_sec1() == point);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_element_that_vanishes_under_a_running_agent_delays_it_and_costs_nothing() {
    let bench = bench(|_, _| Reply::Issue(LONG)).await;
    let chip = personalized();
    std::fs::write(bench.path("code"), "ABCD-EFGH\n").unwrap();
    let agent = open(&bench, &chip);
    chip.fault(Fault::Vanish);
    let outcome = agent.once().await;
    assert!(!outcome.is_valid && !outcome.is_settled);
    assert_eq!(bench.enrolments().len(), 0);
    chip.set_power(true);
    let outcome = open(&bench, &chip).once().await;
    assert!(outcome.is_valid && outcome.is_settled);
}

#[test]
fn an_element_that_was_not_personalized_is_refused() {
    let refused = ElementKeys::new(element(&SecureElement::blank(1))).err();
    assert_eq!(refused, Some(KeyError::Hardware(HardwareFault::Refused)));
}

#[test]
fn settings_of_the_element_that_cannot_be_are_refused() {
    let text = |more: &str| {
        format!(
            "server = \"https://localhost\"\ndevice_name = \"m\"\nstate_dir = \"/s\"\n[trust]\nroot_file = \
             \"/r\"\n[key]\nkind = \"secure-element\"\n{more}"
        )
    };
    Config::parse(&text("")).unwrap();
    Config::parse(&text("[key.secure_element]\nbus = \"/dev/i2c-3\"\naddress = 53\n")).unwrap();
    for refused in [
        "algorithm = \"p-384\"",
        "allow_plain_key = true",
        "seal_fd = 3",
        "[key.secure_element]\nbus = \"i2c-1\"",
        "[key.secure_element]\naddress = 7",
        "[key.secure_element]\naddress = 128",
        "[key.secure_element]\nspeed = 1",
    ] {
        assert!(Config::parse(&text(refused)).is_err(), "{refused}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bus_that_is_not_there_is_said_so_and_nothing_is_written() {
    let bench = bench(|_, _| Reply::Issue(LONG)).await;
    let key = "kind = \"secure-element\"\n[key.secure_element]\nbus = \"/dev/no-such-bus\"";
    let config = bench.path("agent.toml");
    std::fs::write(&config, bench.config_text_with_key(key, "")).unwrap();
    let output = kf_testkit::Tool::at(std::path::Path::new(env!("CARGO_BIN_EXE_keyfleet-agent"))).run(&[
        "once",
        "--config",
        config.to_str().unwrap(),
    ]);
    let expected = if cfg!(feature = "secure-element") { "does not answer" } else { "--features secure-element" };
    assert!(!output.success() && output.text().contains(expected), "{}", output.text());
    assert_eq!(bench.enrolments().len(), 0);
}

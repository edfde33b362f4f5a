//! Agents whose keys are in hardware: what opens the hardware, what it releases, and what lies below that, in the agent's own process.
//!
//! What a module of PKCS#11 or the TPM's software stack keeps of its own objects is theirs: a token in software decrypts its keys in the
//! process of whoever uses it, and no test can know them. Searched for is what passed through our hands.

use std::fs;

use kf_key::SecretArray;
#[cfg(feature = "tpm")]
use kf_testkit::SoftwareTpm;
use kf_testkit::{KnownSecret, SoftHsm, TempDir, Tool, find_in_memory, search_memory};
use serde_json::json;

use super::agent::{device_key, id_of, opened};
use super::none_of;
use crate::agent::Site;

/// What unlocks the hardware, as a service manager hands it over: no program has these words in its text.
const UNLOCK: &str = "osier-74-plinth-wren-gorse";

/// A directory of credentials with what unlocks.
fn credentials() -> TempDir {
    let directory = kf_testkit::scratch();
    fs::write(directory.path().join("unlock"), format!("{UNLOCK}\n")).unwrap();
    directory
}

/// What the hardware gives the agent to wrap under, bound to the secret of this ownership.
fn bound(wrapping: &[u8], owner: &[u8]) -> [u8; 32] {
    kf_crypto::hmac_sha256(wrapping, &[b"keyfleet-agent owner v1 ", owner].concat())
}

/// An agent in the middle of its life: enrolled, its telemetry sealed, its key rotated.
struct Lived {
    site: Site,
    /// Found in its memory by what it opens, and in use.
    wrapping: [u8; 32],
    known: Vec<KnownSecret>,
}

impl Lived {
    fn of(mut site: Site) -> Self {
        let state = site.fleet.path("state");
        let vault = fs::read(state.join("vault")).unwrap();
        let wrapping = find_in_memory(site.agent.id(), |key| opened(&vault, key).is_some());
        // An agent holds what its vault lies under.
        let wrapping = wrapping.unwrap();
        let (device, mut known) = (id_of(&site), Vec::new());
        let code = fs::read(site.fleet.path("code")).unwrap();
        known.push(KnownSecret::new("code", code.trim_ascii()));
        known.push(KnownSecret::new("unlock", UNLOCK.as_bytes()));
        known.push(KnownSecret::new("secret of the ownership", &fs::read(state.join("owner")).unwrap()));
        known.push(KnownSecret::new("wrapping key", &wrapping));
        let mut note = |keys: [(&'static str, SecretArray<32>); 2]| {
            known.extend(keys.iter().map(|(name, key)| KnownSecret::new(name, key.expose())));
        };
        note(device_key(&state, &wrapping, device));
        site.say("21.5 C");
        site.event("sealed-published");
        site.order("rotate");
        site.events(&["renewed", "order-answered", "connected"]);
        note(device_key(&state, &wrapping, device));
        Self { site, wrapping, known }
    }

    /// What the hardware gave, which the wrapping key is made from.
    fn came_from(&mut self, given: &[u8]) {
        let owner = fs::read(self.site.fleet.path("state/owner")).unwrap();
        assert_eq!(bound(given, &owner), self.wrapping, "the test knows what the hardware gave");
        self.known.push(KnownSecret::new("what the hardware gave", given));
    }

    /// Searched while it lives: `in_use` must be found, and nothing else; then wiped, and searched for all of it.
    fn ends_without_a_trace(mut self, in_use: &[&str]) {
        let found = search_memory(self.site.agent.id(), &self.known);
        for name in in_use {
            assert!(found.count(name) > 0, "the search sees {name}, which is in use");
        }
        let all: Vec<&str> = self.known.iter().map(KnownSecret::name).collect();
        let passed: Vec<&str> = all.iter().copied().filter(|name| !in_use.contains(name)).collect();
        assert!(passed.len() >= 4, "{passed:?}");
        none_of(&found, &passed, "the agent");
        self.site.order("wipe");
        assert_eq!(self.site.event("wiped")["left"], json!([]));
        self.site.event("order-answered");
        none_of(&search_memory(self.site.agent.id(), &self.known), &all, "a wiped agent");
    }
}

#[test]
fn an_agent_with_its_keys_in_a_token_keeps_no_pin_and_no_key_that_passed_through_it_once_it_was_wiped() {
    let (token, credentials) = (SoftHsm::new(), credentials());
    let module = SoftHsm::module().to_str().unwrap();
    let tool = |more: &[&str]| {
        let token_of = ["--module", module, "--token-label", SoftHsm::LABEL, "--login"];
        drop(token.tool("pkcs11-tool").run(&[&token_of[..], more].concat()).expect_success());
    };
    tool(&["--pin", SoftHsm::PIN, "--change-pin", "--new-pin", UNLOCK]);
    let key = format!(
        "kind = \"pkcs11\"\nseal_credential = \"unlock\"\n[key.pkcs11]\nmodule = \"{module}\"\ntoken = \"{}\"",
        SoftHsm::LABEL
    );
    let prepare = |agent: Tool| {
        let agent = agent.env(SoftHsm::VARIABLE, token.configuration());
        agent.env("CREDENTIALS_DIRECTORY", credentials.path())
    };
    let mut lived = Lived::of(Site::start_where(&key, "derived", prepare));
    let at = |name: &str| credentials.path().join(name).display().to_string();
    fs::write(at("label"), "keyfleet-agent wrapping key v1").unwrap();
    let sign = ["--sign", "-m", "SHA256-HMAC", "--label", "keyfleet-agent thermo-0001 wrapping"];
    tool(&[&["--pin", UNLOCK][..], &sign, &["-i", &at("label"), "-o", &at("given")]].concat());
    lived.came_from(&fs::read(at("given")).unwrap());
    // Kept to log in again when the token was away.
    lived.ends_without_a_trace(&["wrapping key", "unlock"]);
}

#[cfg(feature = "tpm")]
#[test]
fn an_agent_with_its_keys_in_a_tpm_keeps_no_authorisation_value_and_nothing_that_it_released_once_it_was_wiped() {
    let (tpm, credentials) = (SoftwareTpm::new(), credentials());
    let address = tpm.address();
    let key = format!(
        "kind = \"tpm\"\nseal_credential = \"unlock\"\n[key.tpm]\naddress = \"{address}\"\ndeadline_seconds = 60"
    );
    let prepare = |agent: Tool| agent.env("CREDENTIALS_DIRECTORY", credentials.path());
    let mut lived = Lived::of(Site::start_where(&key, "derived", prepare));
    let owner = fs::read(lived.site.fleet.path("state/owner")).unwrap();
    let given = |storage: &[u8; 32]| kf_crypto::hmac_sha256(storage, b"keyfleet-agent wrapping key v1");
    let storage = find_in_memory(lived.site.agent.id(), |key| bound(&given(key), &owner) == lived.wrapping);
    // An agent holds the storage key that its TPM released.
    let storage = storage.unwrap();
    lived.came_from(&given(&storage));
    lived.known.push(KnownSecret::new("storage key", &storage));
    lived.ends_without_a_trace(&["wrapping key", "unlock", "storage key"]);
}

/// The element of a device, as the factory station hands it over, and what it gives to wrap under.
#[cfg(feature = "secure-element")]
fn personalized() -> (kf_testkit::SecureElement, SecretArray<32>) {
    use kf_agent::key_source::{ElementKeys, KeySource as _};
    use kf_secure_element::certificate::Stored;
    use kf_secure_element::layout::{self, Layout};
    use kf_secure_element::personalize::{Recipe, personalize};
    use kf_secure_element::{DEFAULT_ADDRESS, Element, TransportKey};

    let chip = kf_testkit::SecureElement::blank(12);
    let open = || Element::open(chip.bus(), chip.delay(), DEFAULT_ADDRESS).unwrap();
    let fresh = || SecretArray::fill(|key: &mut [u8; 32]| *key = kf_crypto::random_array().unwrap());
    let (transport, layout, root) = (TransportKey::new(layout::TRANSPORT, fresh()), Layout::keyfleet(), fresh());
    let recipe =
        Recipe { layout: &layout, transport: &transport, root: &root, is_root_fused: true, is_certificate_fixed: true };
    let mut element = open();
    let typed = element.config().serial_number().to_string();
    personalize(&mut element, &recipe, Some(Stored::Plain(&[0x30; 200])), &typed, &[7; 20]).unwrap();
    drop(element);
    let given = ElementKeys::new(open()).unwrap().wrapping_key().unwrap().unwrap();
    (chip, given)
}

#[cfg(feature = "secure-element")]
#[test]
fn an_agent_with_its_keys_in_a_secure_element_keeps_nothing_that_it_gave_once_it_was_wiped() {
    let (chip, given) = personalized();
    let served = chip.served();
    let bus = served.bus();
    let key = format!("kind = \"secure-element\"\n[key.secure_element]\nbus = \"{}\"", bus.display());
    let mut lived = Lived::of(Site::start_where(&key, "derived", |agent| served.seen_by(agent)));
    lived.came_from(given.expose());
    // Nothing unlocks such a chip.
    lived.known.retain(|secret| secret.name() != "unlock");
    lived.ends_without_a_trace(&["wrapping key"]);
}

//! An agent: what it keeps of codes and keys that it has done with, and of everything once it was wiped.

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use kf_derive::{FusedKey, KeyedHmac as _, SoftwareKey};
use kf_device::derivation::HeldKey;
use kf_device::storage::{Authenticated, Flash, Geometry, Medium, Store};
use kf_key::{DeviceId, SecretArray};
use kf_seal::Service;
use kf_testkit::{KnownSecret, search_memory};
use serde_json::json;

use super::{assert_that_this_machine_dumps, kib, leaves_a_core_dump, none_of, scalar};
use crate::agent::Site;

/// The private scalar of the identity that an agent uses.
fn identity_scalar(state: &Path) -> Vec<u8> {
    let slot = fs::read_to_string(state.join("current")).unwrap();
    scalar(&fs::read(state.join(slot.trim()).join("key")).unwrap()).to_vec()
}

/// A copy of an agent's vault, to be read as the agent reads it.
pub(super) struct Copy(Vec<u8>);

impl Flash for Copy {
    type Error = std::fmt::Error;

    fn geometry(&self) -> Geometry {
        Geometry { word: 8, sector: 4_096, sectors: 4 }
    }

    fn medium(&self) -> Medium {
        Medium::Remapped
    }

    fn read(&mut self, offset: u32, octets: &mut [u8]) -> Result<(), std::fmt::Error> {
        let start = usize::try_from(offset).unwrap();
        octets.copy_from_slice(&self.0[start..start + octets.len()]);
        Ok(())
    }

    fn program(&mut self, offset: u32, octets: &[u8]) -> Result<(), std::fmt::Error> {
        let start = usize::try_from(offset).unwrap();
        self.0[start..start + octets.len()].copy_from_slice(octets);
        Ok(())
    }

    fn erase(&mut self, sector: u32) -> Result<(), std::fmt::Error> {
        let start = usize::try_from(sector).unwrap() * 4_096;
        self.0[start..start + 4_096].fill(0xff);
        Ok(())
    }
}

fn wrapping_key(state: &Path) -> SecretArray<32> {
    let file = fs::File::open(state.join("wrapping-key")).unwrap();
    SecretArray::fill(|octets: &mut [u8; 32]| file.read_exact_at(octets, 0).unwrap())
}

/// What an agent's vault opens to under this key.
pub(super) fn opened(vault: &[u8], wrapping: &[u8; 32]) -> Option<Store<Copy, Authenticated>> {
    let key = SoftwareKey::new(SecretArray::fill(|octets| *octets = *wrapping));
    let integrity = SecretArray::fill(|tag| key.hmac_sha256(b"keyfleet-agent vault integrity v1", tag).unwrap());
    Store::open(Copy(vault.to_vec()), Authenticated::new(integrity)).ok()
}

/// The device key in an agent's vault, and the key of its telemetry.
pub(super) fn device_key(state: &Path, wrapping: &[u8; 32], device: DeviceId) -> [(&'static str, SecretArray<32>); 2] {
    let mut store = opened(&fs::read(state.join("vault")).unwrap(), wrapping).unwrap();
    let wrap = FusedKey::new(SoftwareKey::new(SecretArray::fill(|octets| *octets = *wrapping)));
    let held = HeldKey::load(&mut store, &wrap, device).unwrap().unwrap();
    let application = held.application(&Service::new("telemetry").unwrap()).unwrap().into_secret();
    [("device key", held.into_key().into_secret()), ("application key", application)]
}

pub(super) fn id_of(site: &Site) -> DeviceId {
    site.fleet.json(&["device", "show", "thermo-0001"])["device"]["id"].as_str().unwrap().parse().unwrap()
}

#[test]
fn an_agent_keeps_nothing_of_its_code_and_its_former_keys_and_after_a_wipe_of_any() {
    let mut site = Site::start("derived");
    let state = site.fleet.path("state");
    let (device, wrapping) = (id_of(&site), wrapping_key(&state));
    let code = fs::read_to_string(site.fleet.path("code")).unwrap();
    let first = identity_scalar(&state);
    let mut known = vec![
        KnownSecret::new("code", code.trim().as_bytes()),
        KnownSecret::new("former identity key", &first),
        KnownSecret::new("wrapping key", wrapping.expose()),
    ];
    let mut note = |keys: [(&'static str, SecretArray<32>); 2]| {
        known.extend(keys.iter().map(|(name, key)| KnownSecret::new(name, key.expose())));
    };
    note(device_key(&state, wrapping.expose(), device));
    site.say("21.5 C");
    site.event("sealed-published");
    site.order("rotate");
    site.events(&["renewed", "order-answered", "connected"]);
    note(device_key(&state, wrapping.expose(), device));
    let second = identity_scalar(&state);
    assert_ne!(first, second);
    known.push(KnownSecret::new("identity key", &second));

    let status = fs::read_to_string(format!("/proc/{}/status", site.agent.id())).unwrap();
    assert!(kib(&status, "VmLck:") > 1_000 && kib(&status, "VmSwap:") == 0, "{status}");
    let found = search_memory(site.agent.id(), &known);
    assert!(found.count("identity key") > 0, "the search sees the key in use");
    assert!(found.count("wrapping key") > 0, "the search sees what unwraps the others");
    none_of(&found, &["code", "former identity key", "device key", "application key"], "the agent");
    site.order("wipe");
    assert_eq!(site.event("wiped")["left"], json!([]));
    site.event("order-answered");
    let found = search_memory(site.agent.id(), &known);
    let all = ["code", "former identity key", "device key", "application key", "identity key", "wrapping key"];
    none_of(&found, &all, "a wiped agent");
}

#[test]
fn an_agent_leaves_no_core_dump() {
    let home = kf_testkit::scratch();
    assert_that_this_machine_dumps(home.path());
    let agent = Site::start_with("derived", kf_testkit::Tool::with_core_dumps).agent;
    assert!(!leaves_a_core_dump(agent));
}

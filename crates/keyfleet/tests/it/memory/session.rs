//! Mixed sessions: both sides mix secrets into their key that nobody can compute afterwards, so nothing may be left of it once it is over.

use kf_derive::{ApplicationKey, SessionKey, SoftwareKey};
use kf_key::SecretArray;
use kf_seal::{MAX_ENVELOPE_OCTETS, Opener, Sealed};
use kf_testkit::{KnownSecret, find_in_memory, search_memory};
use serde_json::json;

use super::{children, fleet, none_of};
use crate::agent::{Site, fragments};
use crate::console::{Fleet, Succeeds as _};
use crate::sealed::{Device, boot, seal};

/// The key of a session's telemetry.
fn application(session: &[u8; 32]) -> ApplicationKey {
    let key = SecretArray::fill(|octets| *octets = *session);
    SessionKey::from_keyed_hmac(SoftwareKey::new(key)).application(b"telemetry", 0).unwrap()
}

/// What lies below the key of a session, to be looked for: the key of its telemetry, and the one that sealed this payload.
fn below(which: &str, application: ApplicationKey, envelope: &[u8]) -> [KnownSecret; 2] {
    let sealed = Sealed::parse(envelope).unwrap();
    let sealing = application.boot(sealed.boot().random(), sealed.key_id().sender, sealed.algorithm().into()).unwrap();
    let known = |name: &str, octets: &[u8]| KnownSecret::new(&format!("{which} {name}"), octets);
    [known("sealing key", sealing.expose()), known("application key", application.into_secret().expose())]
}

/// Agrees a session, and has the server open a payload of it. What there is to be looked for.
fn used(fleet: &Fleet, device: &Device, which: &str, number: u32) -> Vec<KnownSecret> {
    let session = device.agree(fleet);
    let envelope = seal(fleet, &mut session.sealer(boot(number)), "21.5 C", "", "payload");
    fleet.run(&["open", "payload"]).succeeds();
    let known = |name: &str, octets: &[u8]| KnownSecret::new(&format!("{which} {name}"), octets);
    let mut all = vec![known("shared secret", &session.shared), known("session key", session.secret.expose())];
    all.extend(below(which, session.application(), &envelope));
    all
}

const FIRST: [&str; 4] = ["first shared secret", "first session key", "first application key", "first sealing key"];
const SECOND: [&str; 4] =
    ["second shared secret", "second session key", "second application key", "second sealing key"];

#[test]
fn neither_server_nor_signer_keeps_anything_of_a_mixed_session_that_was_replaced_or_ended() {
    let fleet = fleet();
    let device = Device::start(&fleet);
    let server = fleet.server_id();
    let [signer] = children(server).try_into().unwrap();
    let mut known = used(&fleet, &device, "first", 1);
    let (in_signer, in_server) = (search_memory(signer, &known), search_memory(server, &known));
    assert!(in_signer.count("first session key") > 0, "the search sees the key of a session that lives");
    assert!(in_server.count("first sealing key") > 0, "the search sees what opens further payloads");
    none_of(&in_signer, &["first shared secret", "first application key", "first sealing key"], "the signer");
    none_of(&in_server, &["first shared secret", "first session key", "first application key"], "the server");

    known.extend(used(&fleet, &device, "second", 2));
    let (in_signer, in_server) = (search_memory(signer, &known), search_memory(server, &known));
    assert!(in_signer.count("second session key") > 0 && in_server.count("second sealing key") > 0);
    none_of(&in_signer, &FIRST, "the signer after a session was replaced");
    none_of(&in_server, &FIRST, "the server after a session was replaced");

    // What a device will never use again ends with the next turn of the server.
    fleet.run(&["device", "decommission", "thermo-0001", "--why", "test", "--yes"]).succeeds();
    let log = || fleet.run(&["audit", "list", "--all"]).expect_success().stdout_text();
    let ended = |_| log().matches("session.end").count() == 2;
    assert!((0..200).any(ended), "the second session does not end");
    for (process, whose) in [(signer, "the signer"), (server, "the server")] {
        let found = search_memory(process, &known);
        none_of(&found, &[FIRST, SECOND].concat(), whose);
    }
}

/// The session under which an agent sealed this, found in its memory by what it opens; no test knows it from outside.
fn session_in(site: &Site, envelope: &[u8]) -> Option<[u8; 32]> {
    let sealed = Sealed::parse(envelope).unwrap();
    let mut out = [0; MAX_ENVELOPE_OCTETS];
    find_in_memory(site.agent.id(), |key| {
        let mut opener = Opener::new(&application(key), sealed.key_id(), &sealed).unwrap();
        opener.open(&sealed, b"", &mut out).is_ok()
    })
}

/// Has the agent seal something; the keys of its session.
fn sealed_by(site: &mut Site, which: &str) -> Vec<KnownSecret> {
    let envelope = hex::decode(site.sealed(&["21.5 C"]).remove(0)).unwrap();
    // An agent holds the key of a session that lives.
    let session = session_in(site, &envelope).unwrap();
    let mut known = vec![KnownSecret::new(&format!("{which} session key"), &session)];
    known.extend(below(which, application(&session), &envelope));
    known
}

#[test]
fn an_agent_keeps_nothing_of_a_mixed_session_that_fell_with_its_device_key_or_of_any_after_a_wipe() {
    let mut site = Site::start("mixed");
    site.event("session-agreed");
    let mut known = sealed_by(&mut site, "first");
    let found = search_memory(site.agent.id(), &known);
    assert!(found.count("first session key") > 0 && found.count("first sealing key") > 0, "they are in use");
    none_of(&found, &FIRST[2..3], "the agent");

    site.fleet.run(&["epoch", "advance", "--device", "thermo-0001", "--why", "test"]).succeeds();
    site.order("rotate");
    site.events(&["device-key", "session-agreed", "order-answered"]);
    known.extend(sealed_by(&mut site, "second"));
    let found = search_memory(site.agent.id(), &known);
    assert!(found.count("second session key") > 0 && found.count("second sealing key") > 0, "they are in use");
    none_of(&found, &FIRST, "the agent after a session fell");

    let on_disk = fragments(&site.fleet.path("state"), &[]);
    assert!(on_disk.len() > 500 && !known.iter().any(|secret| secret.lies_in(&on_disk)), "no session is on a disk");
    site.order("wipe");
    assert_eq!(site.event("wiped")["left"], json!([]));
    site.event("order-answered");
    none_of(&search_memory(site.agent.id(), &known), &[FIRST, SECOND].concat(), "a wiped agent");
}

//! A root succeeded under three real agents: they take the new one up in a campaign and prove it, get certificates below it,
//! and find their server when the old one is gone.

use kf_testkit::{Running, Tool};
use serde_json::Value;

use crate::campaign::{approved, create, event, site};
use crate::console::{Fleet, Succeeds as _, private};
use crate::sealed::server;

fn trust(fleet: &Fleet) -> Value {
    fleet.json(&["authority", "trust", "root"])
}

fn follow(fleet: &Fleet, campaign: &str) -> Value {
    let end = fleet.json(&["campaign", "show", campaign, "--follow"]);
    assert_eq!((end["state"].clone(), end["progress"]["done"].clone()), ("completed".into(), 3.into()), "{end}");
    end
}

/// `openssl verify` of what an agent shows, below one root and with some intermediates.
fn openssl_verifies(fleet: &Fleet, device: &str, root: &str, intermediates: &str) -> bool {
    let state = fleet.path(&format!("{device}.state"));
    let slot = std::fs::read_to_string(state.join("current")).unwrap();
    let chain = std::fs::read_to_string(state.join(slot.trim()).join("chain")).unwrap();
    let (root_file, rest) = (fleet.path("one-root.pem"), fleet.path("rest.pem"));
    std::fs::write(&root_file, root).unwrap();
    std::fs::write(&rest, format!("{chain}{intermediates}")).unwrap();
    let leaf = state.join(slot.trim()).join("chain");
    let text = |path: &std::path::Path| path.to_str().unwrap().to_owned();
    let arguments = ["verify", "-x509_strict", "-CAfile", &text(&root_file), "-untrusted", &text(&rest), &text(&leaf)];
    Tool::new("openssl").run(&arguments).success()
}

#[test]
fn agents_take_up_a_new_root_prove_it_move_below_it_and_outlive_the_old_one() {
    let (fleet, mut agents) = site();
    let certificate =
        |name: &str| fleet.json(&["authority", "show", name])["certificate_pem"].as_str().unwrap().to_owned();
    let old_root = certificate("root");
    let made = fleet.json(&["authority", "succeed", "root", "--why", "it ends next year"]);
    assert_eq!(made["succession"]["state"], "prepared", "{made}");
    assert_eq!(trust(&fleet)["trust"]["proved"], 0);

    create(&fleet, "anchors", "trust-anchor", &[]);
    fleet.run(&["campaign", "start", "anchors"]).succeeds();
    for agent in &mut agents {
        assert_eq!(event(agent, "trust-added")["roots"].as_array().unwrap().len(), 1);
    }
    follow(&fleet, "anchors");
    let found = trust(&fleet);
    assert_eq!((found["trust"]["proved"].clone(), found["trust"]["unproved"].clone()), (3.into(), 0.into()), "{found}");

    fleet.register("thermo-late");
    fleet.run(&["authority", "switch", "root"]).succeeds();
    create(&fleet, "certificates", "certificate", &[]);
    approved(&fleet, &["campaign", "start", "certificates"]);
    for agent in &mut agents {
        event(agent, "renewed");
    }
    follow(&fleet, "certificates");
    let new_root = certificate("root-2");
    let link = trust(&fleet)["new_with_old_pem"].as_str().unwrap().to_owned();
    for device in ["thermo-0001", "thermo-0002", "thermo-0003"] {
        assert!(openssl_verifies(&fleet, device, &new_root, ""), "{device} by the new root");
        assert!(openssl_verifies(&fleet, device, &old_root, &link), "{device} by the old root and the link");
        assert!(!openssl_verifies(&fleet, device, &old_root, ""), "{device} by the old root alone");
    }

    fleet.run(&["authority", "retire", "issuing"]).succeeds();
    let refused = fleet.run(&["authority", "retire", "root"]);
    assert!(!refused.success() && refused.text().contains("1 devices have not proved"), "{}", refused.text());
    let unproved = fleet.json(&["authority", "trust", "root", "--devices"]);
    assert_eq!(unproved["items"][0]["name"], "thermo-late");
    approved(&fleet, &["authority", "retire", "root", "--strand", "--why", "it was never built"]);
    assert_eq!(trust(&fleet)["state"], "retired");

    // The old root is gone, and they renew all the same, and let go of it.
    create(&fleet, "again", "certificate", &[]);
    approved(&fleet, &["campaign", "start", "again"]);
    for agent in &mut agents {
        assert_eq!(event(agent, "trust-dropped")["roots"].as_array().unwrap().len(), 1);
    }
    follow(&fleet, "again");
    fleet.run(&["audit", "verify", "--server"]).succeeds();
}

/// Starts the agent of a device that has been there before, with the server at another address; its keys and roots lie in `state`.
fn moved(fleet: &Fleet, device: &str, address: &str, state: &str) -> Running {
    let text = std::fs::read_to_string(fleet.path(&format!("{device}.toml"))).unwrap();
    let line = |line: &str| match line.split_once(" = ").map(|(field, _)| field) {
        Some("server") => format!("server = {address:?}\n"),
        Some("state_dir") => format!("state_dir = {:?}\n", fleet.path(state)),
        _ => format!("{line}\n"),
    };
    let configuration = format!("{state}.toml");
    private(&fleet.path(&configuration), &text.lines().map(line).collect::<String>());
    fleet.tool().start(&["agent", "run", "--config", &configuration])
}

/// The roots that an agent keeps, DER.
fn kept(fleet: &Fleet, state: &str) -> Vec<Vec<u8>> {
    let text = std::fs::read_to_string(fleet.path(state).join("anchors")).unwrap();
    kf_pki::pem::decode_all("CERTIFICATE", text.split_once('\n').unwrap().1).unwrap()
}

fn fingerprints(event: &Value) -> Vec<&str> {
    event["roots"].as_array().unwrap().iter().map(|root| root.as_str().unwrap()).collect()
}

#[test]
fn agents_that_took_up_a_root_let_go_of_it_when_it_is_withdrawn_believe_nothing_below_it_and_take_up_the_next() {
    let (mut fleet, mut agents) = site();
    let names = ["thermo-0001", "thermo-0002", "thermo-0003"];
    fleet.run(&["authority", "succeed", "root", "--why", "it ends next year"]).succeeds();
    let certificate = |fleet: &Fleet, name: &str| {
        let pem = fleet.json(&["authority", "show", name])["certificate_pem"].as_str().unwrap().to_owned();
        let der = kf_pki::pem::decode_all("CERTIFICATE", &pem).unwrap().remove(0);
        let digest = kf_crypto::sha256(&der).iter().map(|octet| format!("{octet:02x}")).collect::<String>();
        (pem, der, digest)
    };
    let (old_pem, old, old_digest) = certificate(&fleet, "root");
    let (_, new, new_digest) = certificate(&fleet, "root-2");
    create(&fleet, "anchors", "trust-anchor", &[]);
    fleet.run(&["campaign", "start", "anchors"]).succeeds();
    for agent in &mut agents {
        assert_eq!(fingerprints(&event(agent, "trust-added")), [&new_digest]);
    }
    follow(&fleet, "anchors");
    drop(agents);
    for name in names {
        assert_eq!(kept(&fleet, &format!("{name}.state")), [old.clone(), new.clone()], "{name}");
    }

    // The same fleet as it was, in other hands: there the new root takes over, and the server shows nothing else.
    fleet.stop();
    let twin = fleet.twin().served();
    let fleet = fleet.served();
    for step in [["switch", "root"], ["retire", "issuing"], ["retire", "root"]] {
        twin.run(&[&["authority"], &step[..]].concat()).succeeds();
    }
    let copy = |from: &str, to: &str| {
        let path = |name: &str| fleet.path(name).to_str().unwrap().to_owned();
        Tool::new("cp").run(&["-a", &path(from), &path(to)]).succeeds();
    };
    copy("thermo-0001.state", "led-astray");
    let mut astray = moved(&fleet, "thermo-0001", &server(&twin), "led-astray");
    assert_eq!(fingerprints(&event(&mut astray, "trust-dropped")), [&old_digest], "who trusts it believes that server");
    drop(astray);

    let mut agents: Vec<_> =
        names.iter().take(2).map(|name| moved(&fleet, name, &server(&fleet), &format!("{name}.state"))).collect();
    let refused = fleet.run(&["authority", "withdraw", "root", "--why", "wrong algorithm"]);
    assert!(!refused.success() && refused.text().contains("3 devices trust its successor"), "{}", refused.text());
    let withdraw = ["authority", "withdraw", "root", "--although-trusted", "--why", "wrong algorithm"];
    approved(&fleet, &withdraw);
    // One was off meanwhile.
    agents.push(moved(&fleet, names[2], &server(&fleet), "thermo-0003.state"));
    for (agent, name) in agents.iter_mut().zip(names) {
        assert_eq!(fingerprints(&event(agent, "trust-dropped")), [&new_digest], "{name}, at a poll");
        assert_eq!(kept(&fleet, &format!("{name}.state")), std::slice::from_ref(&old), "{name}");
    }
    assert_eq!(fleet.json(&["authority", "trust", "root-2"])["state"], "withdrawn");

    // They believe nothing below it any more.
    copy("thermo-0001.state", "not-led-astray");
    let mut wary = moved(&fleet, "thermo-0001", &server(&twin), "not-led-astray");
    let refused = event(&mut wary, "retry");
    assert!(refused["reason"].as_str().unwrap().contains("UnknownIssuer"), "{refused}");
    assert_eq!(kept(&fleet, "not-led-astray"), std::slice::from_ref(&old));
    drop(wary);

    // The old one goes on as if nothing had been.
    create(&fleet, "certificates", "certificate", &[]);
    approved(&fleet, &["campaign", "start", "certificates"]);
    for agent in &mut agents {
        event(agent, "renewed");
    }
    follow(&fleet, "certificates");
    for name in names {
        assert!(openssl_verifies(&fleet, name, &old_pem, ""), "{name} by the old root");
    }
    let again = fleet.json(&["authority", "succeed", "root", "--why", "as it should have been"]);
    assert_eq!(again["succession"]["successor_name"], "root-3", "{again}");
    create(&fleet, "anchors-again", "trust-anchor", &[]);
    fleet.run(&["campaign", "start", "anchors-again"]).succeeds();
    let (_, third, third_digest) = certificate(&fleet, "root-3");
    for (agent, name) in agents.iter_mut().zip(names) {
        assert_eq!(fingerprints(&event(agent, "trust-added")), [&third_digest], "{name}");
        assert_eq!(kept(&fleet, &format!("{name}.state")), [old.clone(), third.clone()], "{name}");
    }
    follow(&fleet, "anchors-again");
    fleet.run(&["audit", "verify", "--server"]).succeeds();
}

//! A root succeeded under three real agents: they take the new one up in a campaign and prove it, get certificates below it,
//! and find their server when the old one is gone.

use kf_testkit::Tool;
use serde_json::Value;

use crate::campaign::{approved, create, event, site};
use crate::console::{Fleet, Succeeds as _};

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

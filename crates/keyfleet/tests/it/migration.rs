//! A change of algorithm under three real agents: weighed before it starts, made by those that can, refused for one whose
//! device key goes to P-256 identities, and seen in the inventory.

use serde_json::Value;

use crate::campaign::{approved, create, event, site_with};
use crate::console::{Fleet, Succeeds as _};

/// Identity keys of this algorithm in the inventory; one that was replaced is listed until its certificate ends.
fn keys_of(fleet: &Fleet, algorithm: &str) -> usize {
    let found = fleet.json(&["inventory", "--class", "ldevid-key"]);
    found["items"].as_array().unwrap().iter().filter(|key| key["algorithm"] == algorithm).count()
}

fn sizes_of<'a>(outcome: &'a Value, algorithm: &str) -> &'a Value {
    let sizes = outcome["sizes"].as_array().unwrap();
    sizes.iter().find(|row| row["algorithm"] == algorithm).unwrap()
}

const ALLOW: [&str; 7] =
    ["product-line", "set-policy", "thermo", "--allow-algorithm", "p-256", "--allow-algorithm", "ml-dsa-44"];

#[test]
fn agents_change_to_ml_dsa_in_a_campaign_and_who_needs_p_256_keeps_it_and_is_listed() {
    let (fleet, mut agents) = site_with([false, false, true], &ALLOW);
    let dry = create(&fleet, "ml-dsa", "certificate", &["--algorithm", "ml-dsa-44", "--dry-run"]);
    let (before, after) = (sizes_of(&dry, "p-256"), sizes_of(&dry, "ml-dsa-44"));
    // FIPS 204: a public key of 1,312 octets and a signature of 2,420 where P-256 has 65 and at most 72.
    let octets = |row: &Value, what: &str| row[what].as_u64().unwrap();
    assert!(octets(after, "request") > octets(before, "request") + 3_500, "{dry}");
    assert!(octets(after, "certificate") > octets(before, "certificate") + 1_200, "the CA signs as before: {dry}");
    assert!(octets(after, "certificate_throughout") > octets(before, "certificate_throughout") + 3_500, "{dry}");
    assert!(octets(after, "ocsp_answer") > octets(before, "ocsp_answer") + 5_900, "{dry}");
    let (request, certificate, client) = ("request", "certificate", "tls_client");
    let one = octets(after, request) + octets(after, certificate) + octets(after, client);
    let fleet_renewal = octets(after, "fleet_renewal");
    assert!(fleet_renewal.abs_diff(3 * one) < 64, "times the fleet: {fleet_renewal} {one}");
    assert_eq!((keys_of(&fleet, "p-256"), keys_of(&fleet, "ml-dsa-44")), (3, 0));

    create(&fleet, "ml-dsa", "certificate", &["--algorithm", "ml-dsa-44"]);
    approved(&fleet, &["campaign", "start", "ml-dsa"]);
    for agent in &mut agents[..2] {
        event(agent, "renewed");
    }
    let end = fleet.json(&["campaign", "show", "ml-dsa", "--follow"]);
    let progress = &end["progress"];
    assert_eq!((progress["done"].clone(), progress["skipped"].clone()), (2.into(), 1.into()), "{end}");
    assert_eq!((end["algorithm"].clone(), end["state"].clone()), ("ml-dsa-44".into(), "completed".into()));
    let kept = fleet.json(&["campaign", "show", "ml-dsa", "--devices", "--state", "skipped"]);
    assert_eq!(kept["items"][0]["name"], "thermo-0003");
    assert_eq!((keys_of(&fleet, "p-256"), keys_of(&fleet, "ml-dsa-44")), (3, 2));

    // They poll, and renew, with what they have now.
    create(&fleet, "again", "certificate", &[]);
    approved(&fleet, &["campaign", "start", "again"]);
    for agent in &mut agents {
        event(agent, "renewed");
    }
    let end = fleet.json(&["campaign", "show", "again", "--follow"]);
    assert_eq!(end["progress"]["done"], 3, "{end}");
    assert_eq!((keys_of(&fleet, "p-256"), keys_of(&fleet, "ml-dsa-44")), (2, 4));
    let refused = fleet.run(&["campaign", "create", "no", "--kind", "device-key", "--algorithm", "p-384"]);
    assert!(!refused.success() && refused.text().contains("makes no identity keys"), "{}", refused.text());
    fleet.run(&["audit", "verify", "--server"]).succeeds();
}

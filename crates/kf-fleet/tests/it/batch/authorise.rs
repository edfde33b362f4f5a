use kf_api::batch::{BatchFilter, BatchState};
use kf_api::operator::Role;
use kf_api::proposal::ProposalDecision;
use kf_batch::P256Key;
use kf_batch::quota::{Quota, QuotaRefusal, StationKnows};
use kf_fleet::FleetError;
use kf_key::{CertificateProfile, DeviceState, UnixMillis};

use super::station::{Line, Station, fresh, new_batch};
use crate::scratch::{Scratch, field_of};

type Change = fn(&mut kf_api::batch::NewBatch);

#[tokio::test]
async fn a_quota_plans_its_devices_and_gives_the_station_no_more_than_a_batch() {
    let scratch = Scratch::new().await;
    let station = Station::new(&scratch, "line-1", "plant-a").await;
    let line = Line::start(&scratch, &station, "b-1", 30).await;
    let terms = &line.quota.terms;
    assert_eq!((terms.sequence, terms.devices.count(), terms.product_line_name.as_str()), (1, 30, "thermo"));
    let device = scratch.fleet.device_show(&scratch.owner, "b-1-000030").await.unwrap().device;
    assert_eq!(
        (device.id, device.state, device.batch.as_deref()),
        (line.device(29), DeviceState::Registered, Some("b-1"))
    );
    // The batch CA issues no CA certificates, ends with the quota, and does not lead to the fleet's root.
    let issuer = terms.issuer().unwrap();
    assert!(!issuer.may_issue_authorities && issuer.not_after <= terms.expires);
    assert_ne!(terms.anchor, terms.factory_certificate);
    let root = scratch.fleet.root_certificate().unwrap();
    assert_eq!(terms.anchor, root);
    let at = terms.issued;
    let made = line.certify(line.device(0), &fresh(), at);
    let chain = [terms.authority_certificate.as_slice(), &terms.factory_certificate];
    assert!(kf_pki::chain::verify_client(&made, &chain, &[&root], at).is_err());
    assert!(kf_pki::chain::verify_client(&made, &chain[..1], &chain[1..], at).is_ok());
    assert_eq!(line.batch_key().expose().len(), 32);
}

#[tokio::test]
async fn a_dry_run_and_a_refusal_plan_nothing() {
    let scratch = Scratch::new().await;
    let station = Station::new(&scratch, "line-1", "plant-a").await;
    let (_, request) = station.request(scratch.clock_now());
    let mut new = new_batch("b-1", 30, &request);
    new.dry_run = true;
    let outcome = scratch.fleet.batch_create(&scratch.owner, new.clone()).await.unwrap();
    assert!(!outcome.done && outcome.batch.last_name == "b-1-000030");
    let cases: [(&str, Change); 8] = [
        ("name", |new| new.name = "B 1".into()),
        ("name", |new| new.name = "b".repeat(49)),
        ("count", |new| new.count = 250_001),
        ("count", |new| new.count = 0),
        ("lifetime_hours", |new| new.lifetime_hours = Some(2_209)),
        ("recipe_sha256", |new| new.recipe_sha256 = "ab".into()),
        ("name_prefix", |new| new.digits = Some(1)),
        ("profile", |new| new.profile = Some(CertificateProfile::LDevId)),
    ];
    for (field, change) in cases {
        let mut bad = new.clone();
        bad.dry_run = false;
        change(&mut bad);
        let refused = scratch.fleet.batch_create(&scratch.owner, bad).await.unwrap_err();
        assert_eq!(field_of(&refused), field);
    }
    let batches = scratch.fleet.batch_list(&scratch.owner, BatchFilter::default()).await.unwrap();
    assert!(batches.items.is_empty());
    assert!(scratch.fleet.device_show(&scratch.owner, "b-1-000001").await.is_err());
}

#[tokio::test]
async fn a_large_batch_needs_two_people_and_survives_the_age_of_its_request() {
    let scratch = Scratch::with(|config| config.batch_dual_control_above = 20).await;
    let station = Station::new(&scratch, "line-1", "plant-a").await;
    let (keys, request) = station.request(scratch.clock_now());
    let outcome = scratch.fleet.batch_create(&scratch.owner, new_batch("b-1", 21, &request)).await.unwrap();
    let proposal = outcome.proposal.expect("it waits");
    assert!(scratch.fleet.batch_show(&scratch.owner, "b-1").await.is_err());
    scratch.pass(3 * UnixMillis::DAY);
    let yes = || ProposalDecision { approve: true, why: "agreed".into() };
    assert!(scratch.fleet.proposal_decide(&scratch.owner, proposal, yes()).await.is_err(), "nobody approves alone");
    let second = scratch.operator("pavel", Role::FleetOperator, &[]).await;
    scratch.fleet.proposal_decide(&second, proposal, yes()).await.unwrap();
    let document = scratch.fleet.batch_quota(&station.principal, "b-1").await.unwrap();
    let line = Line::take(&scratch, &station, keys, document).await;
    assert_eq!(line.quota.terms.devices.count(), 21);
}

#[tokio::test]
async fn a_station_request_must_be_fresh_signed_unused_and_of_a_station_of_the_facility() {
    let scratch = Scratch::new().await;
    let station = Station::new(&scratch, "line-1", "plant-a").await;
    let now = scratch.clock_now();
    let create = async |request: &[u8], name: &str| {
        scratch.fleet.batch_create(&scratch.owner, new_batch(name, 5, request)).await
    };
    let (_, stale) = station.request(now.minus(UnixMillis::DAY + 1));
    let (_, early) = station.request(now.plus(UnixMillis::HOUR));
    let thief = Station { identity: fresh(), name: station.name.clone(), principal: station.principal.clone() };
    let (_, forged) = thief.request(now);
    let elsewhere = Station::new(&scratch, "line-2", "plant-b").await;
    let (_, of_another) = elsewhere.request(now);
    for request in [&stale, &early, &forged, &of_another, &b"no request".to_vec()] {
        assert_eq!(field_of(&create(request, "b-1").await.unwrap_err()), "station_request");
    }
    let (_, good) = station.request(now);
    create(&good, "b-1").await.unwrap();
    let again = create(&good, "b-2").await.unwrap_err();
    assert!(matches!(again, FleetError::Conflict { .. } | FleetError::Invalid { .. }), "{again}");
    assert!(scratch.fleet.batch_show(&scratch.owner, "b-2").await.is_err());
}

#[tokio::test]
async fn quotas_of_a_station_count_up_and_an_older_one_is_refused() {
    let scratch = Scratch::new().await;
    let station = Station::new(&scratch, "line-1", "plant-a").await;
    let first = Line::start(&scratch, &station, "b-1", 3).await;
    let second = Line::start(&scratch, &station, "b-2", 3).await;
    assert_eq!((first.quota.terms.sequence, second.quota.terms.sequence), (1, 2));
    let pins = scratch.fleet.station_pins(&station.principal).await.unwrap();
    let server = P256Key::from_spki(&kf_pki::pem::decode_all("PUBLIC KEY", &pins.batch_key_pem).unwrap()[0]).unwrap();
    let knows = StationKnows {
        server_key: &server,
        station: "line-1",
        transport_key: &first.quota.terms.transport_key,
        record_key: &first.quota.terms.record_key,
        last_sequence: 2,
    };
    let refused = Quota::verify(&first.document, &knows, scratch.clock_now());
    assert_eq!(refused, Err(QuotaRefusal::RolledBack { last: 2 }));
}

#[tokio::test]
async fn a_station_sees_and_imports_its_own_batches_only_and_authorises_none() {
    let scratch = Scratch::new().await;
    let station = Station::new(&scratch, "line-1", "plant-a").await;
    let neighbour = Station::new(&scratch, "line-2", "plant-a").await;
    Line::start(&scratch, &station, "b-1", 3).await;
    let fleet = &scratch.fleet;
    let seen = fleet.batch_list(&neighbour.principal, BatchFilter::default()).await.unwrap();
    assert!(seen.items.is_empty());
    assert_eq!(fleet.batch_list(&station.principal, BatchFilter::default()).await.unwrap().items.len(), 1);
    assert!(matches!(fleet.batch_quota(&neighbour.principal, "b-1").await, Err(FleetError::NotFound(_))));
    let import = fleet.batch_import(&neighbour.principal, "b-1", Vec::new(), false).await;
    assert!(matches!(import, Err(FleetError::NotFound(_))));
    let (_, request) = station.request(scratch.clock_now());
    let create = fleet.batch_create(&station.principal, new_batch("b-2", 3, &request)).await;
    assert!(matches!(create, Err(FleetError::Denied(_))), "{create:?}");
    let cancel = fleet.batch_cancel(&station.principal, "b-1", Default::default()).await;
    assert!(matches!(cancel, Err(FleetError::Denied(_))), "{cancel:?}");
    assert_eq!(fleet.batch_show(&scratch.owner, "b-1").await.unwrap().state, BatchState::Open);
}

#[tokio::test]
async fn names_that_are_taken_plan_nothing() {
    let scratch = Scratch::new().await;
    let station = Station::new(&scratch, "line-1", "plant-a").await;
    scratch.device("b-1-000003").await;
    let (_, request) = station.request(scratch.clock_now());
    let refused = scratch.fleet.batch_create(&scratch.owner, new_batch("b-1", 5, &request)).await.unwrap_err();
    assert!(matches!(refused, FleetError::Conflict { .. } | FleetError::Invalid { .. }), "{refused}");
    assert!(scratch.fleet.device_show(&scratch.owner, "b-1-000001").await.is_err(), "nothing is half planned");
}

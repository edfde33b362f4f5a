//! New certificates as a campaign without orders: devices are asked when they poll, and the poll with the new certificate is the
//! proof. Nothing that a device could say counts.

use std::path::Path;

use kf_api::audit::AuditFilter;
use kf_api::campaign::{CampaignAct, CampaignActRequest, CampaignKind, CampaignPlan, NewCampaign};
use kf_api::facility::NewFacility;
use kf_api::order::OrderFilter;
use kf_crypto::PrivateKey;
use kf_exchange::order::OrderOutcome;
use kf_fleet::{Clock as _, Fleet, Knows, News, TlsClient};
use kf_key::{CampaignId, CampaignState, DeviceId, KeyAlgorithm, SecretArray, UnixMillis};

use crate::campaign::{SECOND, act, asked, new, obey, plan, status, turn, turns};
use crate::crash::{copied, killed_child};
use crate::scratch::{HERE, Identity, Scratch, csr, issued, serial_of};

const KNOWS: Knows<'_> = Knows { reset: false, renewal: true, storage: false, order_key: None, roots: None };

struct Kept {
    device: DeviceId,
    identity: Identity,
}

/// A device whose keys follow from its number, so that another process is the same device.
async fn enrolled(scratch: &Scratch, number: u8) -> Kept {
    let name = format!("thermo-{number}");
    let device = scratch.device(&name).await.id;
    let (code, key) = (scratch.code(&name).await, key_of(number, 1));
    let chain = issued(scratch.enrol_with(&name, &code, &csr(&key)).await.unwrap());
    Kept { device, identity: Identity { serial: serial_of(&chain), key, chain } }
}

fn key_of(number: u8, version: u8) -> PrivateKey {
    PrivateKey::p256_from_scalar(&SecretArray::fill(|octets| *octets = [16 * version + number; 32])).unwrap()
}

async fn fleet_of(scratch: &Scratch, count: u8) -> Vec<Kept> {
    let mut fleet = Vec::new();
    for number in 0..count {
        fleet.push(enrolled(scratch, number).await);
    }
    fleet
}

/// A campaign whose first wave has been asked.
async fn begun(scratch: &Scratch, canary: u32) {
    started(scratch, canary).await;
    turns(scratch, 6).await;
}

async fn started(scratch: &Scratch, canary: u32) {
    let plan = CampaignPlan { canary, min_done_percent: 0, ..plan() };
    let new = NewCampaign { plan, ..new(CampaignKind::Certificate) };
    scratch.fleet.campaign_create(&scratch.owner, new).await.unwrap();
    act(scratch, CampaignAct::Start).await.unwrap();
    // One person alone waits a day.
    scratch.pass(UnixMillis::DAY + SECOND);
    turn(scratch).await;
}

async fn single() -> Scratch {
    Scratch::with(|config| config.single_control = true).await
}

async fn news(fleet: &Fleet, identity: &Identity, knows: Knows<'_>) -> News {
    let above: Vec<&[u8]> = identity.chain[1..].iter().map(Vec::as_slice).collect();
    let certificate = fleet.verify_client_path(&identity.chain[0], &above).unwrap();
    fleet.device_news(TlsClient::with_certificate(&certificate, HERE), knows).await.unwrap()
}

/// Whether the device is asked when it polls.
async fn is_asked(scratch: &Scratch, identity: &Identity) -> bool {
    news(&scratch.fleet, identity, KNOWS).await.renewal.is_some()
}

async fn renewed(scratch: &Scratch, identity: &Identity, key: PrivateKey) -> Identity {
    let chain = issued(scratch.renew(identity, &csr(&key)).await.unwrap());
    Identity { serial: serial_of(&chain), key, chain }
}

fn fresh() -> PrivateKey {
    PrivateKey::generate(KeyAlgorithm::P256).unwrap()
}

/// What the log says of an act, entry by entry.
async fn entries(scratch: &Scratch, subject: &str, act: &str) -> Vec<serde_json::Value> {
    let events = scratch.fleet.device_show(&scratch.owner, subject).await.unwrap().events;
    events.into_iter().map(|event| event.entry).filter(|entry| entry["act"] == act).collect()
}

/// The devices that the log says were asked, each as often as it says so.
async fn asked_in_log(scratch: &Scratch, campaign: CampaignId) -> Vec<String> {
    let filter = AuditFilter { subject: Some(campaign.to_string()), limit: Some(1_000), after: None };
    let log = scratch.fleet.audit_list(&scratch.owner, filter).await.unwrap().items;
    let asks = log.iter().filter(|event| event.entry["act"] == "campaign.ask");
    asks.flat_map(|event| event.entry["detail"]["devices"].as_str().unwrap().split(' ')).map(str::to_owned).collect()
}

#[tokio::test]
async fn a_device_is_asked_when_it_polls_and_done_when_it_polls_with_the_new_certificate() {
    let mut scratch = single().await;
    let mut fleet = fleet_of(&scratch, 4).await;
    assert!(!is_asked(&scratch, &fleet[0].identity).await, "nobody asks");
    begun(&scratch, 1).await;
    let first = asked(&scratch).await;
    assert_eq!(first.len(), 1, "the canary is one device");
    let campaign = status(&scratch).await.campaign.id;
    // Everybody renews; who was not asked has done nothing for the campaign.
    for one in &mut fleet {
        let asks = news(&scratch.fleet, &one.identity, KNOWS).await.renewal;
        assert_eq!(asks, first.contains(&one.device).then(|| hex::encode(campaign.as_bytes())));
        one.identity = renewed(&scratch, &one.identity, fresh()).await;
    }
    turns(&scratch, 2).await;
    let found = status(&scratch).await.progress;
    assert_eq!(
        (found.done, found.offered, found.waiting),
        (0, 1, 3),
        "a certificate that nobody has used proves nothing"
    );
    for one in &fleet {
        assert!(!is_asked(&scratch, &one.identity).await);
    }
    // What was proved is forgotten with the process, and proved again.
    scratch = scratch.reopen().await;
    turn(&scratch).await;
    assert_eq!(status(&scratch).await.progress.done, 0);
    for one in fleet.iter().chain(&fleet) {
        assert!(!is_asked(&scratch, &one.identity).await);
    }
    turns(&scratch, 3).await;
    assert_eq!(status(&scratch).await.progress.done, 1, "the same step twice is one step");
    for _ in 0..40 {
        turn(&scratch).await;
        for one in &mut fleet {
            if is_asked(&scratch, &one.identity).await {
                one.identity = renewed(&scratch, &one.identity, fresh()).await;
            }
            is_asked(&scratch, &one.identity).await;
        }
    }
    let end = status(&scratch).await;
    assert_eq!((end.campaign.state, end.progress.done), (CampaignState::Completed, 4), "{end:?}");
    // Nothing was signed to ask them, and the log says who was asked and whose certificate answers.
    let orders = scratch.fleet.order_list(&scratch.owner, OrderFilter::default()).await.unwrap().items;
    assert!(orders.is_empty(), "{orders:?}");
    let named = asked_in_log(&scratch, campaign).await;
    assert_eq!(named.len(), 4);
    for (number, one) in fleet.iter().enumerate() {
        let issued = entries(&scratch, &format!("thermo-{number}"), "certificate.issue").await;
        let answers = issued.iter().filter(|entry| entry["detail"]["campaign"] == campaign.to_string()).count();
        assert_eq!(answers, 1, "{} {issued:?}", one.device);
        assert!(named.contains(&one.device.to_string()));
    }
}

#[tokio::test]
async fn a_device_that_polls_has_been_heard_of() {
    let scratch = single().await;
    let one = enrolled(&scratch, 0).await;
    let seen = async || {
        // A turn has what was noted written, and waits for nothing; whatever is written after it is there afterwards.
        scratch.fleet.turn().await;
        let name = format!("plant-{}", kf_crypto::random_array::<4>().map(hex::encode).unwrap());
        let new = NewFacility { name, description: String::new() };
        scratch.fleet.facility_create(&scratch.owner, new).await.unwrap();
        scratch.fleet.device_show(&scratch.owner, "thermo-0").await.unwrap().device.last_seen.unwrap()
    };
    let enrolled_at = seen().await;
    scratch.pass(UnixMillis::HOUR / 2);
    news(&scratch.fleet, &one.identity, KNOWS).await;
    assert_eq!(seen().await, enrolled_at, "not at each poll");
    scratch.pass(40 * UnixMillis::DAY);
    // A sighting waits for nothing, and one that is lost is made up for by the next poll.
    for _ in 0..10 {
        news(&scratch.fleet, &one.identity, Knows::default()).await;
        if seen().await == scratch.clock_now() {
            return;
        }
    }
    panic!("polls are not noted");
}

#[tokio::test]
async fn the_same_key_is_no_renewal_and_neither_is_a_certificate_of_before() {
    let scratch = single().await;
    let one = enrolled(&scratch, 0).await;
    let older = renewed(&scratch, &one.identity, fresh()).await;
    begun(&scratch, 1).await;
    assert!(is_asked(&scratch, &one.identity).await && is_asked(&scratch, &older).await);
    // A certificate for a key that was there before.
    let again = renewed(&scratch, &older, key_of(0, 1)).await;
    assert!(is_asked(&scratch, &again).await, "it has the key that it had");
    // The clock goes back, and the certificate that counts looks older than the one before.
    scratch.clock.set(scratch.clock_now().minus(200 * SECOND));
    let new = renewed(&scratch, &again, fresh()).await;
    assert!(new.serial < again.serial);
    assert!(!is_asked(&scratch, &new).await);
    turns(&scratch, 3).await;
    assert_eq!(status(&scratch).await.progress.done, 1);
}

#[tokio::test]
async fn programs_that_know_orders_only_are_given_one_and_answer_it() {
    let scratch = single().await;
    let mut fleet = fleet_of(&scratch, 3).await;
    begun(&scratch, 3).await;
    assert_eq!(asked(&scratch).await.len(), 3);
    // One renews by the word, one by its order, one fails at its order.
    fleet[0].identity = renewed(&scratch, &fleet[0].identity, fresh()).await;
    assert!(!is_asked(&scratch, &fleet[0].identity).await);
    assert!(obey(&scratch, &mut fleet[1].identity, OrderOutcome::Done).await);
    let twice = news(&scratch.fleet, &fleet[2].identity, Knows::default()).await;
    assert_eq!(
        news(&scratch.fleet, &fleet[2].identity, Knows::default()).await,
        twice,
        "one order, however often it asks"
    );
    assert!(twice.order.is_some() && twice.renewal.is_none());
    // A program that is brought up to date meanwhile has its order all the same, and is asked once.
    assert_eq!(news(&scratch.fleet, &fleet[2].identity, KNOWS).await, twice);
    assert!(obey(&scratch, &mut fleet[2].identity, OrderOutcome::Failed).await);
    turns(&scratch, 4).await;
    let end = status(&scratch).await;
    assert_eq!((end.progress.done, end.progress.failed), (2, 1), "{end:?}");
    let orders = scratch.fleet.order_list(&scratch.owner, OrderFilter::default()).await.unwrap().items;
    assert_eq!(orders.len(), 2);
}

#[tokio::test]
async fn a_pause_holds_back_who_was_not_told_and_a_roll_back_takes_it_back() {
    let scratch = single().await;
    let fleet = fleet_of(&scratch, 3).await;
    begun(&scratch, 3).await;
    assert!(is_asked(&scratch, &fleet[0].identity).await);
    act(&scratch, CampaignAct::Pause).await.unwrap();
    for one in &fleet {
        assert!(!is_asked(&scratch, &one.identity).await, "a pause holds at once");
        assert!(
            news(&scratch.fleet, &one.identity, Knows::default()).await.order.is_none(),
            "and nobody is given an order"
        );
    }
    // What was under way counts.
    let new = renewed(&scratch, &fleet[0].identity, fresh()).await;
    assert!(!is_asked(&scratch, &new).await);
    turns(&scratch, 2).await;
    assert_eq!(status(&scratch).await.progress.done, 1);
    act(&scratch, CampaignAct::Resume).await.unwrap();
    assert!(is_asked(&scratch, &fleet[1].identity).await);
    let request =
        CampaignActRequest { act: CampaignAct::RollBack, allow_empty: false, why: "mistake".into(), dry_run: true };
    let dry = scratch.fleet.campaign_act(&scratch.owner, "keys", request).await.unwrap().rollback.unwrap();
    assert_eq!((dry.taken_back, dry.may_still_act, dry.stay), (1, 1, 1), "{dry:?}");
    act(&scratch, CampaignAct::RollBack).await.unwrap();
    scratch.pass(UnixMillis::DAY + SECOND);
    turns(&scratch, 4).await;
    let end = status(&scratch).await;
    assert_eq!(end.campaign.state, CampaignState::RolledBack);
    assert_eq!((end.progress.taken_back, end.progress.offered, end.progress.done), (1, 1, 1), "{end:?}");
    for one in &fleet {
        assert!(!is_asked(&scratch, &one.identity).await);
    }
}

/// Names the directory to a child process.
const CHILD: &str = "KF_RENEWAL_CHILD";
const DEVICES: u8 = 3;

/// Server and devices go on from wherever they are. A device that was cut off has lost its answer, and asks again with the key that
/// it had made.
async fn go_on(directory: &Path) {
    let (fleet, clock, owner, _) = Scratch::open_in(directory).await.unwrap();
    for _ in 0..60 {
        clock.set(clock.now().plus(2 * SECOND));
        fleet.turn().await;
        for number in 0..DEVICES {
            let before = identity_in(directory, number);
            if news(&fleet, &before, KNOWS).await.renewal.is_none() {
                continue;
            }
            let above: Vec<&[u8]> = before.chain[1..].iter().map(Vec::as_slice).collect();
            let certificate = fleet.verify_client_path(&before.chain[0], &above).unwrap();
            let client = TlsClient::with_certificate(&certificate, HERE);
            let key = key_of(number, 2);
            let chain = fleet.est_simple_reenroll(kf_fleet::EstLabel::None, client, &csr(&key)).await.unwrap();
            let chain = issued(chain);
            let after = Identity { serial: serial_of(&chain), key, chain };
            assert!(news(&fleet, &after, KNOWS).await.renewal.is_none());
        }
        if fleet.campaign_show(&owner, "keys").await.unwrap().campaign.state == CampaignState::Completed {
            break;
        }
    }
    fleet.close().await;
}

fn identity_in(directory: &Path, number: u8) -> Identity {
    let text = std::fs::read_to_string(directory.join(format!("chain-{number}"))).unwrap();
    let chain: Vec<Vec<u8>> = text.lines().map(|line| hex::decode(line).unwrap()).collect();
    Identity { serial: serial_of(&chain), key: key_of(number, 1), chain }
}

#[tokio::test]
async fn a_crash_at_any_durable_step_asks_each_device_once_and_the_next_start_finishes() {
    if let Some(directory) = std::env::var_os(CHILD) {
        go_on(Path::new(&directory)).await;
        return;
    }
    let scratch = single().await;
    let fleet = fleet_of(&scratch, DEVICES).await;
    started(&scratch, 1).await;
    let campaign = status(&scratch).await.campaign.id;
    let closed = scratch.closed().await;
    for (number, one) in fleet.iter().enumerate() {
        let lines: Vec<String> = one.identity.chain.iter().map(hex::encode).collect();
        std::fs::write(closed.path().join(format!("chain-{number}")), lines.join("\n")).unwrap();
    }
    let test = "renewal_campaign::a_crash_at_any_durable_step_asks_each_device_once_and_the_next_start_finishes";
    let mut seen = std::collections::BTreeSet::new();
    for when in 1..400 {
        let directory = copied(closed.path());
        let was_killed = killed_child(test, (CHILD, directory.path()), when).await;
        let survivor = Scratch::at(directory).await;
        let found = status(&survivor).await;
        seen.insert((found.campaign.wave, found.progress.waiting, found.progress.offered, found.progress.done));
        let directory = survivor.closed().await;
        if was_killed {
            go_on(directory.path()).await;
        }
        let survivor = Scratch::at(directory).await;
        let end = status(&survivor).await;
        assert_eq!(end.campaign.state, CampaignState::Completed, "crash {when}: {end:?}");
        assert_eq!((end.progress.done, end.progress.devices), (3, 3), "crash {when}");
        let named = asked_in_log(&survivor, campaign).await;
        for (number, one) in fleet.iter().enumerate() {
            let asks = named.iter().filter(|device| **device == one.device.to_string()).count();
            assert_eq!(asks, 1, "crash {when}");
            let issued = entries(&survivor, &format!("thermo-{number}"), "certificate.issue").await;
            assert_eq!(issued.len(), 2, "crash {when}: an answer that was lost is the same one again");
            assert_eq!(issued.iter().filter(|entry| entry["detail"]["campaign"] == campaign.to_string()).count(), 1);
        }
        if !was_killed {
            break;
        }
    }
    assert!(seen.len() >= 6, "{seen:?}");
}

/// Devices ask one after another, and each that is told says so where the parent finds it.
async fn tell_all(directory: &Path) {
    let (fleet, clock, _, _) = Scratch::open_in(directory).await.unwrap();
    for number in 0..DEVICES {
        if news(&fleet, &identity_in(directory, number), KNOWS).await.renewal.is_some() {
            std::fs::write(directory.join(format!("told-{number}")), "").unwrap();
        }
        if number == 1 {
            clock.set(clock.now().plus(2 * SECOND));
            fleet.turn().await;
        }
    }
    fleet.close().await;
}

const TELL_CHILD: &str = "KF_TELL_CHILD";

#[tokio::test]
async fn after_a_crash_at_any_durable_step_no_device_that_was_told_is_said_to_have_been_taken_back() {
    if let Some(directory) = std::env::var_os(TELL_CHILD) {
        tell_all(Path::new(&directory)).await;
        return;
    }
    let scratch = single().await;
    let fleet = fleet_of(&scratch, DEVICES + 1).await;
    begun(&scratch, u32::from(DEVICES) + 1).await;
    let closed = scratch.closed().await;
    for (number, one) in fleet.iter().enumerate() {
        let lines: Vec<String> = one.identity.chain.iter().map(hex::encode).collect();
        std::fs::write(closed.path().join(format!("chain-{number}")), lines.join("\n")).unwrap();
    }
    let test =
        "renewal_campaign::after_a_crash_at_any_durable_step_no_device_that_was_told_is_said_to_have_been_taken_back";
    let mut seen = std::collections::BTreeSet::new();
    for when in 1..400 {
        let directory = copied(closed.path());
        let was_killed = killed_child(test, (TELL_CHILD, directory.path()), when).await;
        let told: Vec<DeviceId> = (0..usize::from(DEVICES))
            .filter(|number| directory.path().join(format!("told-{number}")).exists())
            .map(|number| fleet[number].device)
            .collect();
        let survivor = Scratch::at(directory).await;
        act(&survivor, CampaignAct::RollBack).await.unwrap();
        survivor.pass(UnixMillis::DAY + SECOND);
        turns(&survivor, 4).await;
        let end = status(&survivor).await;
        assert_eq!(end.campaign.state, CampaignState::RolledBack, "crash {when}");
        let may_act = asked(&survivor).await;
        assert!(told.iter().all(|device| may_act.contains(device)), "crash {when}: {told:?} {may_act:?}");
        let (taken_back, may_act) = (end.progress.taken_back, end.progress.offered);
        assert_eq!(taken_back + may_act, u64::from(DEVICES) + 1, "crash {when}");
        seen.insert((told.len(), may_act));
        if !was_killed {
            assert_eq!((told.len(), may_act), (usize::from(DEVICES), u64::from(DEVICES)), "a clean end is exact");
            break;
        }
    }
    // Cut off while devices were being told, it takes everybody who was asked for told; otherwise it knows.
    assert!(seen.contains(&(0, 0)) && seen.contains(&(2, 4)) && seen.contains(&(2, 2)), "{seen:?}");
}

//! A station whose keys are in SoftHSM2. A PKCS#11 module reads its environment and is initialised once per process, so each
//! scenario runs in a process of its own, started by this program with itself and a scratch token.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![allow(clippy::as_conversions)]

#[allow(dead_code, reason = "shared with the other tests")]
#[path = "it/stage.rs"]
mod stage;

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use kf_api::batch::Outcome;
use kf_batch::P256Key;
use kf_batch::record::KeyOrigin;
use kf_key::{KeyAlgorithm, SecretBytes};
use kf_pkcs11::SignatureToken;
use kf_station::clock::Clock;
use kf_station::fixture::{Board, DeviceFixture, Fixture, Simulator, Supply, TokenHolder};
use kf_station::ledger::LedgerError;
use kf_station::line::BookError;
use kf_station::recipe::Recipe;
use kf_station::rehearsal::{Order, authorise};
use kf_station::request::station_request;
use kf_station::station::{Setup, Station, StationError};
use kf_station::target::of_recipe;
use kf_station::token::{Generation, Pkcs11Token, SoftwareToken, StationKey, StationToken, TokenError, labels};
use kf_testkit::{Scenario, SoftHsm, Tool, run_scenarios};

use stage::{Disk, LINUX, NOW, Power, Stage, TestClock};

const SCENARIOS: [Scenario; 7] = [
    (
        "a_device_makes_its_key_in_its_token_and_is_finished_once_wherever_power_was_cut",
        a_device_makes_its_key_in_its_token,
    ),
    ("a_line_works_with_its_keys_in_a_token", a_line_works_with_its_keys_in_a_token),
    ("the_keys_of_a_station_are_found_again_and_the_counter_never_falls", keys_are_found_again),
    ("a_token_in_files_keeps_its_keys_and_its_counter", a_token_in_files_keeps_its_keys),
    (
        "the_keys_of_one_batch_are_destroyed_in_a_token_and_those_of_another_stay",
        the_keys_of_one_batch_are_destroyed_in_a_token,
    ),
    (
        "half_a_pair_that_a_power_cut_left_in_a_token_is_replaced_by_a_whole_one",
        half_a_pair_that_a_power_cut_left_is_replaced,
    ),
    (
        "the_keys_of_one_batch_are_overwritten_and_gone_from_files_and_those_of_another_stay",
        the_keys_of_one_batch_are_overwritten_and_gone_from_files,
    ),
];

fn main() -> ExitCode {
    run_scenarios(&SCENARIOS, |program| {
        let token = SoftHsm::new();
        (program.env(SoftHsm::VARIABLE, token.configuration()), token)
    })
}

fn open() -> Pkcs11Token {
    let pin = SecretBytes::from_vec(SoftHsm::PIN.as_bytes().to_vec());
    Pkcs11Token::open(SoftHsm::module().to_owned(), SoftHsm::LABEL.to_owned(), pin, NOW).unwrap()
}

fn a_line_works_with_its_keys_in_a_token() {
    let token: Arc<dyn StationToken> = Arc::new(open());
    token.draw(Generation::FIRST).unwrap();
    let recipe = Recipe::parse(LINUX).unwrap();
    let request = station_request(token.as_ref(), Generation::FIRST, "station-1", NOW).unwrap();
    let order = Order {
        station: "station-1",
        product_line: &recipe.product_line,
        plan: recipe.plan().hash,
        count: 5,
        allows_unsafe: false,
        hours: 24,
        now: NOW,
    };
    let authorised = authorise(&request, &order).unwrap();
    let target = of_recipe(&recipe).unwrap();
    let open = |disk: Disk| {
        Station::open(Setup {
            recipe: recipe.clone(),
            quota: authorised.quota.clone(),
            signed_quota: authorised.signed.clone(),
            confirmation: String::new(),
            journal: disk,
            token: Arc::clone(&token),
            generation: Generation::FIRST,
            target: Arc::clone(&target),
            labels: Arc::new(()),
            clock: Arc::new(TestClock(NOW.0.into())) as Arc<dyn Clock>,
            operator: "tester".to_owned(),
        })
    };
    let (station, _) = open(Disk::default()).unwrap();
    let supply = Supply::new((0..5).map(|number| Board::new(number, None)));
    station.run(vec![Box::new(Simulator::new(supply, Arc::clone(&target)))], &());
    assert_eq!(station.counts().good, 5);
    assert_eq!(token.counter(authorised.quota.terms.batch.as_bytes()), Ok(5));
    // The journal is lost, and the token still knows: an empty one is an old copy.
    let refused = open(Disk::default()).err();
    assert!(
        matches!(
            refused,
            Some(StationError::Ledger(LedgerError::Book(BookError::JournalRolledBack { token: 5, journal: 0 })))
        ),
        "{refused:?}"
    );
}

/// A recipe for keys that are born in a token.
const HELD: &str = r#"
format = 1
sku = "gateway-r2"
product_line = "gateway"
target = "pkcs11"
[identity]
algorithm = "p-256"
origin = "device"
protection = "hardware"
"#;

/// What a device passed with, after power was cut at this act of the station and the station started again.
fn make_after_a_cut(acts: u64, files: &Path) -> bool {
    let pin = || SecretBytes::from_vec(SoftHsm::PIN.as_bytes().to_vec());
    let device = || -> Box<dyn Fixture> {
        let holder = TokenHolder::open(SoftHsm::module().to_owned(), SoftHsm::LABEL.to_owned(), pin(), NOW).unwrap();
        Box::new(DeviceFixture::new(Box::new(holder), files.to_owned()).unwrap())
    };
    let (stage, power) = (Stage::new(HELD, 2), Power::for_acts(acts));
    let disk = Disk::powered(Vec::new(), Arc::clone(&power), 2);
    let durable = match stage.open_with(disk, stage.powered(&power)) {
        Ok((station, _)) => {
            station.run(vec![device()], &());
            station.into_file().durable
        }
        Err(_) => Vec::new(),
    };
    let was_cut = power.is_off();
    let (station, _) = stage.open(Disk { durable, ..Disk::default() }).unwrap();
    station.run(vec![device()], &());
    station.close_shift(true).unwrap();
    let counts = station.counts();
    assert!(counts.good == 1 && counts.scrap == 0 && counts.balance(), "act {acts}: {counts:?}");
    let records = stage.records(&mut station.into_file());
    let passed = records.iter().find(|record| record.outcome == Outcome::Passed).unwrap();
    assert_eq!(passed.key.unwrap().origin, KeyOrigin::SecureElement);
    let token = SignatureToken::open(SoftHsm::module().to_owned(), SoftHsm::LABEL.to_owned(), pin()).unwrap();
    let labels = token.labels("keyfleet-idevid ").unwrap();
    let [label] = labels.as_slice() else { panic!("act {acts}: keys of failed attempts are in the token: {labels:?}") };
    assert_eq!(token.certificate(label).unwrap(), passed.certificate, "act {acts}");
    let spki = token.key(label).unwrap().spki().to_vec();
    assert_eq!(kf_crypto::sha256(&spki), passed.key.unwrap().spki_sha256);
    // The next device is another one.
    token.remove_certificate(label).unwrap();
    was_cut
}

fn a_device_makes_its_key_in_its_token() {
    let mut acts = 0;
    loop {
        let files = kf_testkit::scratch();
        if !make_after_a_cut(acts, files.path()) {
            assert!(acts > 10, "the test cuts nothing");
            return;
        }
        acts += 1;
    }
}

const SECOND: Generation = match Generation::FIRST.next() {
    Some(second) => second,
    None => panic!("there is a second generation"),
};

/// The public halves of the identity key and of the keys of a generation.
fn keys_of(token: &dyn StationToken, generation: Generation) -> Result<[P256Key; 4], TokenError> {
    Ok([
        token.public_key(StationKey::Identity)?,
        token.public_key(StationKey::Authority(generation))?,
        token.public_key(StationKey::Record(generation))?,
        token.transport_key(generation)?,
    ])
}

fn keys_are_found_again() {
    let keys = {
        let token = open();
        assert_eq!(keys_of(&token, Generation::FIRST), Err(TokenError::MISSING));
        token.draw(Generation::FIRST).unwrap();
        token.advance(&[1; 16], 5).unwrap();
        token.advance(&[1; 16], 7).unwrap();
        token.advance(&[1; 16], 3).unwrap();
        keys_of(&token, Generation::FIRST)
    };
    let token = open();
    token.draw(Generation::FIRST).unwrap();
    assert_eq!(keys_of(&token, Generation::FIRST), keys);
    assert_eq!((token.counter(&[1; 16]), token.counter(&[2; 16])), (Ok(7), Ok(0)));
    let mut octets = [0; 64];
    token.fill_random(&mut octets).unwrap();
    assert!(octets.windows(8).any(|window| window != [0; 8]));
}

fn a_token_in_files_keeps_its_keys() {
    let directory = kf_testkit::scratch();
    let path = directory.path().join("token");
    let passphrase = || SecretBytes::from_vec(b"correct horse battery".to_vec());
    let keys = {
        let token = SoftwareToken::create(&path, &passphrase()).unwrap();
        token.draw(Generation::FIRST).unwrap();
        token.advance(&[1; 16], 7).unwrap();
        token.advance(&[1; 16], 3).unwrap();
        keys_of(&token, Generation::FIRST)
    };
    let token = SoftwareToken::open(&path, &passphrase()).unwrap();
    assert!(keys.is_ok());
    assert_eq!(keys_of(&token, Generation::FIRST), keys);
    assert_eq!(token.counter(&[1; 16]), Ok(7));
    assert!(SoftwareToken::create(&path, &passphrase()).is_err(), "a station is never overwritten");
    assert!(SoftwareToken::open(&path, &SecretBytes::from_vec(b"another passphrase".to_vec())).is_err());
    let counter = path.join(format!("counter-{}", hex(&[1; 16])));
    let before = std::fs::read(&counter).unwrap();
    token.advance(&[1; 16], 8).unwrap();
    let after = std::fs::read(&counter).unwrap();
    let length = after.len().max(before.len());
    let padded = |octets: &[u8]| [octets, &vec![0; length - octets.len()]].concat();
    let (before, after) = (padded(&before), padded(&after));
    for torn in 0..=length {
        // The beginning of the write reached the disk, or its end.
        for (mixed, what) in [
            ([&after[..torn], &before[torn..]].concat(), "beginning"),
            ([&before[..torn], &after[torn..]].concat(), "end"),
        ] {
            std::fs::write(&counter, mixed).unwrap();
            let counted = token.counter(&[1; 16]);
            assert!(matches!(counted, Ok(7 | 8)), "{what} of {torn} octets: {counted:?}");
        }
    }
    std::fs::write(&counter, b"forged").unwrap();
    assert!(token.counter(&[1; 16]).is_err(), "a counter that was written by somebody else counts nothing");
}

fn hex(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02x}")).collect()
}

/// Draws two generations, destroys the first, and looks: also through the token as it is opened anew.
fn destroy_the_first(open: &dyn Fn() -> Box<dyn StationToken>) {
    let token = open();
    token.draw(Generation::FIRST).unwrap();
    token.draw(SECOND).unwrap();
    let (first, second) = (keys_of(token.as_ref(), Generation::FIRST), keys_of(token.as_ref(), SECOND));
    let (first, second) = (first.unwrap(), second.unwrap());
    assert_eq!(first[0], second[0], "the station stays who it is");
    assert!(first[1..].iter().all(|key| !second[1..].contains(key)), "a key serves one batch");
    let batch = first[3];
    token.destroy(Generation::FIRST).unwrap();
    token.destroy(Generation::FIRST).unwrap();
    let look = |token: &dyn StationToken| {
        assert_eq!(keys_of(token, Generation::FIRST), Err(TokenError::MISSING));
        let gone = [StationKey::Authority(Generation::FIRST), StationKey::Record(Generation::FIRST)];
        assert!(gone.iter().all(|key| token.sign(*key, b"record") == Err(TokenError::MISSING)));
        assert_eq!(token.agree(Generation::FIRST, batch.point()).err(), Some(TokenError::MISSING));
        assert_eq!(keys_of(token, SECOND), Ok(second));
        assert!(token.sign(StationKey::Record(SECOND), b"record").is_ok());
        assert!(token.agree(SECOND, batch.point()).is_ok());
    };
    look(token.as_ref());
    drop(token);
    look(open().as_ref());
}

fn the_keys_of_one_batch_are_destroyed_in_a_token() {
    destroy_the_first(&|| Box::new(open()));
    let pin = SecretBytes::from_vec(SoftHsm::PIN.as_bytes().to_vec());
    let token = SignatureToken::open(SoftHsm::module().to_owned(), SoftHsm::LABEL.to_owned(), pin).unwrap();
    let found: std::collections::BTreeSet<_> = token.labels("keyfleet-station-").unwrap().into_iter().collect();
    let left = labels(SECOND).into_iter().chain([StationKey::Identity.label()]).collect();
    assert_eq!(found, left, "what C_FindObjects finds");
}

fn half_a_pair_that_a_power_cut_left_is_replaced() {
    open().draw(Generation::FIRST).unwrap();
    let halves = ["pubkey", "privkey", "pubkey"].into_iter().zip(labels(Generation::FIRST));
    let delete = ["--module", SoftHsm::module().to_str().unwrap(), "--token-label", SoftHsm::LABEL, "--login"];
    for (half, label) in halves {
        let which = ["--pin", SoftHsm::PIN, "--delete-object", "--type", half, "--label", label.as_str()];
        let tool = Tool::new("pkcs11-tool").env(SoftHsm::VARIABLE, std::env::var(SoftHsm::VARIABLE).unwrap());
        assert!(tool.run(&[&delete[..], &which].concat()).success(), "{label}");
    }
    let token = open();
    assert_eq!(keys_of(&token, Generation::FIRST), Err(TokenError::MISSING));
    token.draw(Generation::FIRST).unwrap();
    let keys = keys_of(&token, Generation::FIRST).unwrap();
    let message = b"a record";
    let signature = token.sign(StationKey::Record(Generation::FIRST), message).unwrap();
    let verified = kf_crypto::verify(KeyAlgorithm::P256, keys[2].point(), message, &signature);
    assert!(verified.is_ok(), "both halves are of one pair");
    assert!(token.agree(Generation::FIRST, keys[3].point()).is_ok());
}

fn the_keys_of_one_batch_are_overwritten_and_gone_from_files() {
    let directory = kf_testkit::scratch();
    let path = directory.path().join("token");
    let passphrase = || SecretBytes::from_vec(b"correct horse battery".to_vec());
    SoftwareToken::create(&path, &passphrase()).unwrap();
    let open = || SoftwareToken::open(&path, &passphrase()).unwrap();
    open().draw(Generation::FIRST).unwrap();
    // A second name of each file, to see what became of its content, and what an interrupted write left.
    let second_name = |label: &str| directory.path().join(label);
    for label in labels(Generation::FIRST) {
        std::fs::hard_link(path.join(&label), second_name(&label)).unwrap();
        std::fs::copy(path.join(&label), path.join(format!("{label}.new"))).unwrap();
    }
    destroy_the_first(&|| Box::new(open()));
    for label in labels(Generation::FIRST) {
        assert!(!path.join(&label).exists() && !path.join(format!("{label}.new")).exists());
        let content = std::fs::read(second_name(&label)).unwrap();
        assert!(content.len() > 32 && content.iter().all(|octet| *octet == 0), "{label}");
    }
}

//! A station whose keys are in SoftHSM2. A PKCS#11 module reads its environment and is initialised once per process, so each
//! scenario runs in a process of its own, started by this program with itself and a scratch token.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, clippy::as_conversions)]

#[path = "it/held.rs"]
mod held;
#[allow(dead_code, reason = "shared with the other tests")]
#[path = "it/stage.rs"]
mod stage;

use std::process::ExitCode;
use std::sync::Arc;

use kf_backend::SignatureKey;
use kf_key::{KeyId, SecretBytes};
use kf_pkcs11::SignatureToken;
use kf_station::clock::Clock;
use kf_station::fixture::{Board, Simulator, Supply};
use kf_station::ledger::LedgerError;
use kf_station::line::BookError;
use kf_station::recipe::Recipe;
use kf_station::rehearsal::{Order, authorise};
use kf_station::request::station_request;
use kf_station::station::{Setup, Station, StationError};
use kf_station::target::of_recipe;
use kf_station::token::{Pkcs11Token, SoftwareToken, StationKey, StationToken};
use kf_testkit::{SoftHsm, Tool};

use held::{Devices, HeldKey};
use stage::{Disk, LINUX, NOW, Stage, TestClock};

const SCENARIO: &str = "scenario";

type Scenario = (&'static str, fn());

const SCENARIOS: [Scenario; 4] = [
    ("a_device_makes_its_key_in_its_token_and_proves_it", a_device_makes_its_key_in_its_token),
    ("a_line_works_with_its_keys_in_a_token", a_line_works_with_its_keys_in_a_token),
    ("the_keys_of_a_station_are_found_again_and_the_counter_never_falls", keys_are_found_again),
    ("a_token_in_files_keeps_its_keys_and_its_counter", a_token_in_files_keeps_its_keys),
];

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let first = arguments.next();
    if first.as_deref() == Some(SCENARIO) {
        let name = arguments.next().expect("the name of a scenario");
        let (_, run) = SCENARIOS.into_iter().find(|(known, _)| *known == name).expect("a known scenario");
        run();
        return ExitCode::SUCCESS;
    }
    let filter = first.filter(|first| !first.starts_with('-')).unwrap_or_default();
    let mut failed = 0;
    for (name, _) in SCENARIOS.iter().filter(|(name, _)| name.contains(&filter)) {
        let token = SoftHsm::new();
        let output = Tool::at(&std::env::current_exe().unwrap())
            .env(SoftHsm::VARIABLE, token.configuration())
            .run(&[SCENARIO, name]);
        println!("test {name} ... {}", if output.success() { "ok" } else { "FAILED" });
        if !output.success() {
            println!("{}", output.text());
            failed += 1;
        }
    }
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn open() -> Pkcs11Token {
    let pin = SecretBytes::from_vec(SoftHsm::PIN.as_bytes().to_vec());
    Pkcs11Token::open(SoftHsm::module().to_owned(), SoftHsm::LABEL.to_owned(), pin, NOW).unwrap()
}

fn a_line_works_with_its_keys_in_a_token() {
    let token: Arc<dyn StationToken> = Arc::new(open());
    let recipe = Recipe::parse(LINUX).unwrap();
    let request = station_request(token.as_ref(), "station-1", NOW).unwrap();
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

struct InToken(Box<dyn SignatureKey>);

impl HeldKey for InToken {
    fn spki(&self) -> Vec<u8> {
        self.0.spki().to_vec()
    }

    fn sign(&self, message: &[u8]) -> Option<Vec<u8>> {
        self.0.sign(message).ok()
    }
}

/// The certificate that a device was given is of the key that pkcs11-tool finds in its token.
fn a_device_makes_its_key_in_its_token() {
    let pin = || SecretBytes::from_vec(SoftHsm::PIN.as_bytes().to_vec());
    let token = SignatureToken::open(SoftHsm::module().to_owned(), SoftHsm::LABEL.to_owned(), pin()).unwrap();
    let stage = Stage::new(&held::recipe("pkcs11"), 3);
    let (devices, written) = Devices::new(3, move |number| {
        let label = format!("idevid {number}");
        token.generate(&label, KeyId::from_parts(NOW, [0; 10])).unwrap();
        Box::new(InToken(token.key(&label).unwrap()))
    });
    let (station, _) = stage.open(Disk::default()).unwrap();
    station.run(vec![Box::new(devices)], &());
    assert_eq!(station.counts().good, 3, "{:?}", station.counts());
    let folder = kf_testkit::scratch();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    for (mac, segments) in written.lock().unwrap().iter() {
        let number = mac.rsplit(':').next().unwrap().trim_start_matches('0');
        let idevid = segments.iter().find(|segment| segment.name == "idevid.pem").unwrap();
        std::fs::write(path("idevid.pem"), idevid.octets.expose()).unwrap();
        let module = SoftHsm::module().to_str().unwrap();
        let (label, key) = (format!("idevid {number}"), path("key.der"));
        let read = ["--module", module, "--token-label", SoftHsm::LABEL, "--read-object", "--type", "pubkey"];
        let arguments = [&read[..], &["--label", &label, "--output-file", &key]].concat();
        drop(Tool::new("pkcs11-tool").run(&arguments).expect_success());
        let convert = ["pkey", "-pubin", "-inform", "DER", "-in", &key];
        let in_token = Tool::new("openssl").run(&convert).expect_success().stdout_text();
        let show = ["x509", "-in", &path("idevid.pem"), "-noout", "-pubkey"];
        assert_eq!(Tool::new("openssl").run(&show).expect_success().stdout_text(), in_token);
    }
}

fn keys_are_found_again() {
    let (keys, transport) = {
        let token = open();
        token.advance(&[1; 16], 5).unwrap();
        token.advance(&[1; 16], 7).unwrap();
        token.advance(&[1; 16], 3).unwrap();
        (StationKey::ALL.map(|key| token.public_key(key).unwrap()), token.transport_key().unwrap())
    };
    let token = open();
    assert_eq!(StationKey::ALL.map(|key| token.public_key(key).unwrap()), keys);
    assert_eq!(token.transport_key().unwrap(), transport);
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
        token.advance(&[1; 16], 7).unwrap();
        token.advance(&[1; 16], 3).unwrap();
        StationKey::ALL.map(|key| token.public_key(key).unwrap())
    };
    let token = SoftwareToken::open(&path, &passphrase()).unwrap();
    assert_eq!(StationKey::ALL.map(|key| token.public_key(key).unwrap()), keys);
    assert_eq!(token.counter(&[1; 16]), Ok(7));
    assert!(SoftwareToken::create(&path, &passphrase()).is_err(), "a station is never overwritten");
    assert!(SoftwareToken::open(&path, &SecretBytes::from_vec(b"another passphrase".to_vec())).is_err());
    let counter = path.join(format!("counter-{}", hex(&[1; 16])));
    std::fs::write(&counter, b"forged").unwrap();
    assert!(token.counter(&[1; 16]).is_err(), "a counter that was written by somebody else counts nothing");
}

fn hex(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02x}")).collect()
}

//! Secure elements of the ATECC608 class through the whole line, on the emulated chip.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use kf_api::batch::Outcome;
use kf_batch::record::{KeyOrigin, Record};
use kf_secure_element::certificate::{MAX_PLAIN_OCTETS, decode_plain};
use kf_secure_element::config::Slot;
use kf_secure_element::layout::{self, Layout};
use kf_secure_element::lock::ConfigLock;
use kf_secure_element::{DEFAULT_ADDRESS, Element};
use kf_station::fixture::{BurnOrder, ElementFixture, ElementOrder, Fixture, FixtureError, Reading, Verdict};
use kf_station::image::{Image, Segment};
use kf_station::line::{Counts, FailReason};
use kf_station::recipe::{ChipState, Recipe};
use kf_station::station::{Event, StationError, Watch};
use kf_testkit::{ElementBus, ElementDelay, Moment, SecureElement, Tool};

use crate::stage::{Disk, Power, Stage};

pub(crate) const ELEMENT: &str = r#"
format = 1
sku = "meter-a608"
product_line = "meter"
target = "secure-element"
[identity]
algorithm = "p-256"
origin = "device"
protection = "hardware"
slot = 0
[device_key]
inject = true
[secure_element]
lock_certificate = true
"#;

/// The boards beside their chips: files, and who is in the fixture.
struct Host {
    boards: Vec<SecureElement>,
    next: usize,
    current: Arc<Mutex<Option<SecureElement>>>,
    files: BTreeMap<usize, Vec<Segment>>,
    /// Writes to these boards fail.
    is_broken: bool,
}

type Chips = ElementFixture<ElementBus, ElementDelay>;

/// A fixture that is given these chips, one after the other.
fn chips(boards: &[SecureElement]) -> Chips {
    chips_of_host(boards, false)
}

fn chips_of_host(boards: &[SecureElement], is_broken: bool) -> Chips {
    let current = Arc::new(Mutex::new(None));
    let host =
        Host { boards: boards.to_vec(), next: 0, current: Arc::clone(&current), files: BTreeMap::new(), is_broken };
    let open = move || {
        let chip: SecureElement = current.lock().unwrap().clone().unwrap();
        Element::open(chip.bus(), chip.delay(), DEFAULT_ADDRESS)
    };
    ElementFixture::new(Box::new(host), Box::new(open))
}

impl Fixture for Host {
    fn read(&mut self) -> Result<Option<Reading>, FixtureError> {
        let Some(chip) = self.boards.get(self.next) else { return Ok(None) };
        *self.current.lock().unwrap() = Some(chip.clone());
        self.next += 1;
        Ok(Some(Reading { board: format!("M{}", self.next), ..Reading::default() }))
    }

    fn make_key(&mut self, _: kf_key::KeyAlgorithm, _: Option<u32>) -> Result<Vec<u8>, FixtureError> {
        Err(FixtureError::Unsupported)
    }

    fn write(&mut self, image: &Image) -> Result<(), FixtureError> {
        if self.is_broken {
            return Err(FixtureError::Failed);
        }
        self.files.insert(self.next, image.segments.iter().map(Segment::duplicate).collect());
        Ok(())
    }

    fn read_back(&mut self) -> Result<(Vec<Segment>, ChipState), FixtureError> {
        let files = self.files.get(&self.next).map(|files| files.iter().map(Segment::duplicate).collect());
        Ok((files.unwrap_or_default(), ChipState::default()))
    }

    fn prove(&mut self, _: &[u8]) -> Result<Vec<u8>, FixtureError> {
        Err(FixtureError::Unsupported)
    }
}

#[derive(Default)]
struct Reasons(Mutex<Vec<FailReason>>);

impl Watch for Reasons {
    fn tell(&self, event: &Event) {
        self.0.lock().unwrap().extend(event.reason);
    }
}

/// Works through these chips; the counts, why any failed, and the records.
fn run(stage: &Stage, boards: &[SecureElement]) -> (Counts, Vec<FailReason>, Vec<Record>) {
    let (station, _) = stage.open(Disk::default()).unwrap();
    let reasons = Reasons::default();
    station.run(vec![Box::new(chips(boards))], &reasons);
    let counts = station.counts();
    (counts, reasons.0.into_inner().unwrap(), stage.records(&mut station.into_file()))
}

fn open(chip: &SecureElement) -> Element<ElementBus, ElementDelay> {
    Element::open(chip.bus(), chip.delay(), DEFAULT_ADDRESS).unwrap()
}

/// The certificate in the chip.
fn certificate(chip: &SecureElement) -> Vec<u8> {
    let mut element = open(chip);
    let mut content = Vec::new();
    for slot in std::iter::once(layout::CERTIFICATE).chain(layout::CERTIFICATE_REST) {
        let mut part = vec![0; slot.octets()];
        element.read(slot, 0, &mut part).unwrap();
        content.extend(part);
    }
    let key = element.public_key(layout::IDENTITY).unwrap();
    decode_plain(&content, &key, &mut [0; MAX_PLAIN_OCTETS]).unwrap().to_vec()
}

/// The chip is locked as the recipe says, and holds the keys and the certificate of this record.
fn assert_finished(chip: &SecureElement, record: &Record) {
    assert_eq!(record.outcome, Outcome::Passed);
    let key = record.key.unwrap();
    assert_eq!(key.origin, KeyOrigin::SecureElement);
    let mut element = open(chip);
    let zone = *element.config();
    assert!(Layout::keyfleet().is_of(&zone) && zone.is_config_locked() && zone.is_data_locked());
    assert!(zone.is_slot_locked(layout::IDENTITY) && zone.is_slot_locked(layout::CERTIFICATE));
    assert!(!zone.is_slot_locked(layout::ROOT), "the device key may be replaced one day");
    assert_eq!(element.public_key(layout::IDENTITY).unwrap().spki_sha256(), key.spki_sha256);
    assert_eq!(Some(certificate(chip)), record.certificate);
    let print = element.hmac(layout::ROOT, b"keyfleet station device key fingerprint v1").unwrap();
    let recorded = record.fingerprints.iter().find(|one| one.slot == "device-key").unwrap();
    assert_eq!(*print.expose(), recorded.value, "the root key is the device key of the record");
}

#[test]
fn blank_chips_are_personalized_locked_and_pass_with_a_certificate_that_openssl_finds_to_be_of_their_key() {
    let stage = Stage::new(ELEMENT, 3);
    let boards = [1, 2, 3].map(SecureElement::blank);
    let (counts, reasons, records) = run(&stage, &boards);
    assert_eq!((counts.good, reasons), (3, vec![]), "{counts:?}");
    for (chip, record) in boards.iter().zip(&records) {
        assert_finished(chip, record);
    }
    let folder = kf_testkit::scratch();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let digest = kf_crypto::sha256(b"challenge");
    let signature = open(&boards[0]).sign(layout::IDENTITY, &digest).unwrap();
    std::fs::write(path("message"), b"challenge").unwrap();
    std::fs::write(path("signature"), kf_crypto::ecdsa_signature_to_der(&signature).unwrap()).unwrap();
    std::fs::write(path("idevid.der"), certificate(&boards[0])).unwrap();
    let (certificate, key) = (path("idevid.der"), path("key.pem"));
    let show = ["x509", "-inform", "DER", "-in", &certificate, "-noout", "-pubkey", "-out", &key];
    drop(Tool::new("openssl").run(&show).expect_success());
    let verify = ["dgst", "-sha256", "-verify", &key, "-signature", &path("signature"), &path("message")];
    assert!(Tool::new("openssl").run(&verify).expect_success().stdout_text().contains("Verified OK"));
}

#[test]
fn without_a_device_key_the_root_is_one_that_nobody_keeps_and_is_locked() {
    let recipe = ELEMENT.replace("inject = true", "inject = false").replace("lock_certificate = true", "");
    let stage = Stage::new(&recipe, 1);
    let chip = SecureElement::blank(1);
    let (counts, reasons, records) = run(&stage, std::slice::from_ref(&chip));
    assert_eq!((counts.good, reasons), (1, vec![]));
    let zone = *open(&chip).config();
    assert!(zone.is_slot_locked(layout::ROOT) && !zone.is_slot_locked(layout::CERTIFICATE));
    assert!(records[0].fingerprints.is_empty() && records[0].salt.is_none());
}

#[test]
fn locks_are_steps_that_cannot_be_undone_and_happen_only_after_the_phrase_was_typed() {
    let stage = Stage::new(ELEMENT, 1);
    let plan = stage.recipe.plan();
    let irreversible: Vec<&str> =
        plan.steps.iter().filter(|step| !step.is_reversible).map(|step| step.text.as_str()).collect();
    assert_eq!(irreversible.len(), 4, "{irreversible:?}");
    assert!(stage.recipe.burns());
    for phrase in ["", "BURN", "BURN 000000000000"] {
        assert!(matches!(stage.open_confirmed(phrase).err(), Some(StationError::NotConfirmed(_))), "{phrase}");
    }
    assert!(stage.open_confirmed(&plan.burn_phrase()).is_ok());
    let fused = Recipe::parse(&ELEMENT.replace("inject = true", "inject = false")).unwrap();
    assert_ne!(fused.plan().hash, plan.hash);
}

#[test]
fn the_key_of_a_chip_whose_board_failed_is_replaced_in_its_slot_and_the_same_chip_passes_later() {
    let (stage, chip) = (Stage::new(ELEMENT, 2), SecureElement::blank(1));
    let (station, _) = stage.open(Disk::default()).unwrap();
    station.run(vec![Box::new(chips_of_host(std::slice::from_ref(&chip), true))], &());
    let mut disk = station.into_file();
    let failed = stage.records(&mut disk).remove(0);
    let [check] = failed.checks.as_slice() else { panic!("{:?}", failed.checks) };
    assert!(check.passed && check.detail.as_ref().unwrap().contains("slot 0"), "{check:?}");
    let barred = failed.key.unwrap().spki_sha256;
    assert_ne!(open(&chip).public_key(layout::IDENTITY).unwrap().spki_sha256(), barred, "the barred key still signs");
    let (station, _) = stage.open(disk).unwrap();
    station.run(vec![Box::new(chips(std::slice::from_ref(&chip)))], &());
    let records = stage.records(&mut station.into_file());
    assert_finished(&chip, &records[1]);
}

#[test]
fn chips_that_were_locked_elsewhere_are_scrap_and_the_line_goes_on() {
    let (other, blank, foreign) = (SecureElement::blank(1), SecureElement::blank(2), SecureElement::blank(3));
    let (counts, ..) = run(&Stage::new(ELEMENT, 1), std::slice::from_ref(&other));
    assert_eq!(counts.good, 1);
    let mut element = open(&foreign);
    let layout = Layout::keyfleet().with_slot(Slot::new(7).unwrap(), zone_bits(0x8080), key_bits(0x0010));
    element.write_config(&layout).unwrap();
    let typed = element.config().serial_number().to_string();
    ConfigLock::order(&mut element, &layout, &typed).unwrap().execute(&mut element).unwrap();
    let stage = Stage::new(ELEMENT, 4);
    let boards = [other.clone(), foreign.clone(), blank.clone(), foreign];
    let (counts, reasons, records) = run(&stage, &boards);
    assert_eq!((counts.good, counts.scrap, counts.refused), (1, 2, 1), "{counts:?}");
    assert_eq!(reasons, [FailReason::Spent; 3]);
    assert_finished(&blank, records.last().unwrap());
}

const fn zone_bits(bits: u16) -> kf_secure_element::config::SlotConfig {
    kf_secure_element::config::SlotConfig::from_bits(bits)
}

const fn key_bits(bits: u16) -> kf_secure_element::config::KeyConfig {
    kf_secure_element::config::KeyConfig::from_bits(bits)
}

/// A station whose power goes with that of the chip: what fails at the chip is the last thing that happens.
struct OneSupply {
    inner: Chips,
    power: Arc<Power>,
}

impl OneSupply {
    fn with<T>(&self, outcome: Result<T, FixtureError>) -> Result<T, FixtureError> {
        outcome.inspect_err(|_cut| self.power.cut())
    }
}

impl Fixture for OneSupply {
    fn read(&mut self) -> Result<Option<Reading>, FixtureError> {
        let outcome = self.inner.read();
        self.with(outcome)
    }

    fn make_key(&mut self, algorithm: kf_key::KeyAlgorithm, slot: Option<u32>) -> Result<Vec<u8>, FixtureError> {
        self.inner.make_key(algorithm, slot)
    }

    fn personalize(&mut self, order: &ElementOrder) -> Result<Vec<u8>, FixtureError> {
        let outcome = self.inner.personalize(order);
        self.with(outcome)
    }

    fn write(&mut self, image: &Image) -> Result<(), FixtureError> {
        let outcome = self.inner.write(image);
        self.with(outcome)
    }

    fn burn(&mut self, order: &BurnOrder) -> Result<ChipState, FixtureError> {
        self.inner.burn(order)
    }

    fn read_back(&mut self) -> Result<(Vec<Segment>, ChipState), FixtureError> {
        let outcome = self.inner.read_back();
        self.with(outcome)
    }

    fn prove(&mut self, message: &[u8]) -> Result<Vec<u8>, FixtureError> {
        let outcome = self.inner.prove(message);
        self.with(outcome)
    }

    fn show(&mut self, verdict: Verdict) {
        self.inner.show(verdict);
    }
}

/// One device, power cut as `cut` says; then the station starts again with the same chip and must finish it. Whether power was
/// cut at all.
fn cut_and_finish(acts: u64, cut: Option<(usize, Moment)>, what: &str) -> bool {
    let power = Power::for_acts(acts);
    let stage = Stage::new(ELEMENT, 2);
    let chip = SecureElement::blank(1);
    if let Some((command, moment)) = cut {
        chip.cut_power(command, moment);
    }
    let disk = Disk::powered(Vec::new(), Arc::clone(&power), 2);
    let durable = match stage.open_with(disk, stage.powered(&power)) {
        Ok((station, _)) => {
            let inner = chips(std::slice::from_ref(&chip));
            station.run(vec![Box::new(OneSupply { inner, power: Arc::clone(&power) })], &());
            station.into_file().durable
        }
        Err(_) => Vec::new(),
    };
    let was_cut = power.is_off();
    chip.set_power(false);
    chip.set_power(true);
    let (station, _) = stage.open(Disk { durable, ..Disk::default() }).unwrap();
    let reasons = Reasons::default();
    station.run(vec![Box::new(chips(std::slice::from_ref(&chip)))], &reasons);
    station.close_shift(true).unwrap();
    let counts = station.counts();
    let reasons = reasons.0.into_inner().unwrap();
    assert!(counts.balance() && counts.open == 0, "{what}: {counts:?}");
    assert_eq!((counts.good, counts.scrap), (1, 0), "{what}: {reasons:?}");
    // One that was finished before the cut is turned away; any other is finished now.
    assert!(matches!(reasons.as_slice(), [] | [FailReason::AlreadyMade]), "{what}: {reasons:?}");
    let records = stage.records(&mut station.into_file());
    let passed: Vec<&Record> = records.iter().filter(|record| record.outcome == Outcome::Passed).collect();
    let [passed] = passed.as_slice() else { panic!("{what}: passed {} times", passed.len()) };
    assert_finished(&chip, passed);
    let mut keys: Vec<_> = records.iter().filter_map(|record| record.key.map(|key| key.spki_sha256)).collect();
    keys.sort_unstable();
    keys.dedup();
    assert_eq!(keys.len(), records.iter().filter(|record| record.key.is_some()).count(), "{what}: a key twice");
    was_cut
}

#[test]
fn power_cut_at_any_command_of_the_chip_station_and_chip_go_on_and_the_device_is_finished_once() {
    for moment in [Moment::Before, Moment::After] {
        let mut command = 0;
        // The station's own power goes with the chip's, and never before.
        while cut_and_finish(u64::MAX, Some((command, moment)), &format!("{moment:?} command {command}")) {
            command += 1;
        }
        assert!(command > 300, "{moment:?}: only {command} commands were cut");
    }
}

#[test]
fn power_cut_at_any_act_of_the_station_the_chip_is_finished_once() {
    let mut acts = 0;
    while cut_and_finish(acts, None, &format!("act {acts}")) {
        acts += 1;
    }
    assert!(acts > 10, "the test cuts nothing");
}

//! Roots that succeed one another. Certificates and offers are made by openssl.

use std::path::Path;

use kf_device::certificate::{Anchor, Certificate, CertsOnly};
use kf_device::storage::simulated::SimulatedFlash;
use kf_device::storage::{Checksum, Geometry, Medium, RecordId, StorageError, Store};
use kf_device::trust::{Anchors, MAX_ANCHORS};
use kf_key::UnixMillis;
use kf_testkit::Tool;

type Chip = SimulatedFlash<4_096>;

/// Keys and certificates in a directory.
struct Ceremony(Box<dyn AsRef<Path>>);

impl Ceremony {
    fn new() -> Self {
        let ceremony = Self(Box::new(kf_testkit::scratch()));
        std::fs::write(ceremony.path("ca.cnf"), "basicConstraints=critical,CA:TRUE\n").unwrap();
        ceremony
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.0.as_ref().as_ref().join(name)
    }

    fn openssl(&self, arguments: &str) {
        let arguments: Vec<&str> = arguments.split(' ').collect();
        let output = Tool::new("openssl").directory(self.0.as_ref().as_ref()).run(&arguments);
        assert!(output.success(), "{}", output.text());
    }

    /// A root of this name, in files that are named so too.
    fn root(&self, file: &str, name: &str) {
        self.openssl(&format!(
            "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN={name} -days 3650 -keyout {file}.key -out {file}.pem"
        ));
    }

    /// A certificate of `of`'s name and key, signed by `by`.
    fn signed(&self, of: &str, name: &str, by: &str, file: &str) {
        self.openssl(&format!("req -new -key {of}.key -subj /CN={name} -out {file}.csr"));
        self.openssl(&format!(
            "x509 -req -in {file}.csr -CA {by}.pem -CAkey {by}.key -days 30 -extfile ca.cnf -out {file}.pem"
        ));
    }

    fn offer(&self, files: &[&str]) -> Vec<u8> {
        let files: Vec<String> = files.iter().map(|file| format!("-certfile {file}.pem")).collect();
        self.openssl(&format!("crl2pkcs7 -nocrl {} -outform DER -out offer.p7", files.join(" ")));
        std::fs::read(self.path("offer.p7")).unwrap()
    }

    fn der(&self, file: &str) -> Vec<u8> {
        let text = std::fs::read_to_string(self.path(&format!("{file}.pem"))).unwrap();
        kf_pki::pem::decode_all("CERTIFICATE", &text).unwrap().remove(0)
    }

    fn anchor(&self, file: &str) -> Anchor {
        Anchor(Certificate::from_der(&self.der(file)).unwrap().fingerprint())
    }
}

/// `old` and `new`, the link between them, and a device certificate below each.
fn ceremony() -> Ceremony {
    let ceremony = Ceremony::new();
    ceremony.root("old", "root");
    ceremony.root("new", "root-2");
    ceremony.signed("new", "root-2", "old", "link");
    ceremony
}

fn blank() -> Chip {
    let chip = SimulatedFlash::new(Geometry { word: 4, sector: 1_024, sectors: 4 }, Medium::Raw);
    Store::format(chip, Checksum).unwrap().into_flash()
}

fn take_up(chip: &mut Chip, factory: Anchor, offer: &[u8], now: Option<UnixMillis>) -> (usize, Vec<Anchor>) {
    let mut store = Store::open(chip, Checksum).unwrap();
    let mut anchors = Anchors::load(&mut store, factory).unwrap();
    let added = anchors.take_up(&mut store, &CertsOnly::from_der(offer).unwrap(), now).unwrap();
    let again = Anchors::load(&mut store, factory).unwrap();
    assert_eq!(again, anchors, "what is held is durable");
    (added, again.iter().collect())
}

#[test]
fn a_root_that_a_held_one_vouches_for_is_held_and_its_certificates_are_believed() {
    let ceremony = ceremony();
    let (old, new) = (ceremony.anchor("old"), ceremony.anchor("new"));
    let mut chip = blank();
    let alone = ceremony.offer(&["old", "new"]);
    assert_eq!(take_up(&mut chip, old, &alone, None), (0, vec![old]), "for being offered it is not believed");
    let offer = ceremony.offer(&["old", "link", "new"]);
    assert_eq!(take_up(&mut chip, old, &offer, None), (1, vec![old, new]));
    assert_eq!(take_up(&mut chip, old, &offer, None), (0, vec![old, new]), "once");
}

#[test]
fn who_vouches_must_be_held_and_vouch_for_this_very_key_in_time() {
    let ceremony = ceremony();
    let old = ceremony.anchor("old");
    // Another root of the same name as the one that is held.
    ceremony.root("stranger", "root");
    ceremony.signed("new", "root-2", "stranger", "false-link");
    let offer = ceremony.offer(&["old", "stranger", "false-link", "new"]);
    assert_eq!(take_up(&mut blank(), old, &offer, None).0, 0);
    // A link for the name of the new root and another key.
    ceremony.root("other", "root-2");
    ceremony.signed("other", "root-2", "old", "link-of-another");
    let offer = ceremony.offer(&["old", "link-of-another", "new"]);
    assert_eq!(take_up(&mut blank(), old, &offer, None).0, 0);
    // The old root is not part of the offer: nothing says with which key it signs.
    assert_eq!(take_up(&mut blank(), old, &ceremony.offer(&["link", "new"]), None).0, 0);
    let offer = ceremony.offer(&["old", "link", "new"]);
    let link = ceremony.der("link");
    let ends = Certificate::from_der(&link).unwrap().not_after();
    assert_eq!(take_up(&mut blank(), old, &offer, Some(ends.plus(1_000))).0, 0, "the link has expired");
    assert_eq!(take_up(&mut blank(), old, &offer, Some(ends)).0, 1);
}

#[test]
fn a_retired_root_is_forgotten_after_the_others_were_tried_and_never_the_last_one() {
    let ceremony = ceremony();
    let (old, new) = (ceremony.anchor("old"), ceremony.anchor("new"));
    let mut chip = blank();
    take_up(&mut chip, old, &ceremony.offer(&["old", "link", "new"]), None);
    let mut store = Store::open(&mut chip, Checksum).unwrap();
    let mut anchors = Anchors::load(&mut store, old).unwrap();
    let both = ceremony.offer(&["old", "new"]);
    assert_eq!(anchors.without_retired(&CertsOnly::from_der(&both).unwrap()), None, "nothing was retired");
    let neither = ceremony.offer(&["link"]);
    assert_eq!(anchors.without_retired(&CertsOnly::from_der(&neither).unwrap()), None, "nothing would remain");
    let offer = ceremony.offer(&["new"]);
    let remaining = anchors.without_retired(&CertsOnly::from_der(&offer).unwrap()).unwrap();
    assert!(remaining.anchors().has(new.0) && !remaining.anchors().has(old.0));
    assert!(anchors.has(old.0), "until it has been tried");
    remaining.adopt(&mut anchors, &mut store).unwrap();
    assert_eq!(Anchors::load(&mut store, old).unwrap().iter().collect::<Vec<_>>(), [new]);
    store.put(RecordId(0x0040), &[1; 31]).unwrap();
    assert_eq!(Anchors::load(&mut store, old), Err(StorageError::Corrupt), "damage is not the factory's root again");
}

#[test]
fn more_roots_than_there_is_room_for_are_left_out() {
    let ceremony = Ceremony::new();
    ceremony.root("old", "root");
    let mut files = vec!["old".to_owned()];
    for number in 0..MAX_ANCHORS {
        let (root, link) = (format!("root{number}"), format!("link{number}"));
        ceremony.root(&root, &root);
        ceremony.signed(&root, &root, "old", &link);
        if files.len() + 2 <= 8 {
            files.extend([link, root]);
        }
    }
    let files: Vec<&str> = files.iter().map(String::as_str).collect();
    let mut chip = blank();
    let old = ceremony.anchor("old");
    assert_eq!(take_up(&mut chip, old, &ceremony.offer(&files), None).0, 3);
    let last = ceremony.offer(&["old", "link3", "root3"]);
    assert_eq!(take_up(&mut chip, old, &last, None).0, 0, "four are held");
}

#[test]
fn power_that_goes_at_any_word_leaves_the_roots_of_before_or_those_of_after() {
    let ceremony = ceremony();
    let (old, new) = (ceremony.anchor("old"), ceremony.anchor("new"));
    let offer = ceremony.offer(&["old", "link", "new"]);
    let mut cuts = 0;
    for at in 0.. {
        let mut chip = blank();
        chip.cut_after(at, [0, u32::MAX, at + 1][usize::try_from(at % 3).unwrap()]);
        let outcome = {
            let mut store = Store::open(&mut chip, Checksum).unwrap();
            let mut anchors = Anchors::load(&mut store, old).unwrap();
            anchors.take_up(&mut store, &CertsOnly::from_der(&offer).unwrap(), None)
        };
        let whole = outcome.is_ok();
        chip.power_on();
        let held: Vec<Anchor> = {
            let mut store = Store::open(&mut chip, Checksum).unwrap();
            Anchors::load(&mut store, old).unwrap().iter().collect()
        };
        assert!(held == [old] || held == [old, new], "cut {at}");
        assert_eq!(take_up(&mut chip, old, &offer, None).1, [old, new], "cut {at}");
        if whole {
            break;
        }
        cuts += 1;
    }
    assert!(cuts > 10, "{cuts}");
    assert!(Path::new(&ceremony.path("old.pem")).exists());
}

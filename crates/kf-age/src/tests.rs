use kf_testkit::Tool;

use super::*;

fn sealed(to: &[Recipient], octets: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    seal(to, octets, &mut out).unwrap();
    out
}

fn opened_by(identity: &Identity, octets: &[u8]) -> Result<Vec<u8>, OpenError> {
    let mut out = Vec::new();
    open(&[identity], octets, &mut out).map(|_octets| out)
}

fn clear(octets: usize) -> Vec<u8> {
    (0..octets).map(|place| (place % 251).to_le_bytes()[0]).collect()
}

#[test]
fn each_recipient_opens_it_and_nobody_else() {
    let (alice, bob, eve) = (Identity::generate(), Identity::generate(), Identity::generate());
    let text = clear(200_000);
    let file = sealed(&[alice.recipient(), bob.recipient()], &text);
    assert_eq!(opened_by(&alice, &file).unwrap(), text);
    assert_eq!(opened_by(&bob, &file).unwrap(), text);
    assert!(matches!(opened_by(&eve, &file), Err(OpenError::Identity)));
    assert!(matches!(seal(&[], &*text, Vec::new()), Err(SealError::NoRecipient)));
}

#[test]
fn what_was_cut_off_or_changed_is_refused() {
    let alice = Identity::generate();
    let file = sealed(&[alice.recipient()], &clear(140_000));
    for cut in [0, 10, 100, 190, 300, 70_000, file.len() - 1] {
        assert!(opened_by(&alice, &file[..cut]).is_err(), "cut at {cut}");
    }
    for place in (0..file.len()).step_by(997) {
        let mut changed = file.clone();
        changed[place] ^= 1;
        assert!(opened_by(&alice, &changed).is_err(), "changed at {place}");
    }
    assert!(matches!(opened_by(&alice, &file[..file.len() - 1]), Err(OpenError::Damaged)));
    assert!(matches!(opened_by(&alice, b"SQLite format 3"), Err(OpenError::Header)));
}

#[test]
fn an_identity_survives_its_octets_and_its_file() {
    let alice = Identity::generate();
    let octets = alice.octets().unwrap();
    let copy = SecretBytes::fill(32, |place| place.copy_from_slice(octets.expose()));
    assert_eq!(Identity::from_octets(&copy).unwrap().recipient(), alice.recipient());
    let file = alice.to_file();
    let commented = [b"# created: today\n\n".as_slice(), file.expose()].concat();
    assert_eq!(Identity::from_file(&commented).unwrap().recipient(), alice.recipient());
    assert!(Identity::from_octets(&SecretBytes::fill(31, |_| {})).is_err());
    for bad in [&b""[..], b"# nothing\n", b"AGE-SECRET-KEY-1XX", b"\xff\xfe", alice.recipient().to_string().as_bytes()]
    {
        assert!(Identity::from_file(bad).is_err());
    }
    assert!("age1xyz".parse::<Recipient>().is_err());
    assert_eq!(alice.recipient().to_string().parse::<Recipient>().unwrap(), alice.recipient());
}

#[test]
fn a_secret_is_bounded() {
    let alice = Identity::generate();
    let file = sealed(&[alice.recipient()], &clear(100));
    assert!(open_secret(&[&alice], &file, 100).unwrap().equals(&clear(100)));
    assert!(matches!(open_secret(&[&alice], &file, 99), Err(OpenError::Damaged)));
}

/// `age` and `age-keygen` of Debian or Go.
#[test]
fn age_opens_what_we_sealed_and_we_open_what_age_sealed() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let keygen = Tool::new("age-keygen");
    drop(keygen.run(&["-o", &at("theirs.key")]).expect_success());
    let theirs = Identity::from_file(&std::fs::read(at("theirs.key")).unwrap()).unwrap();
    let said = keygen.run(&["-y", &at("theirs.key")]).expect_success().stdout_text();
    assert_eq!(said.trim(), theirs.recipient().to_string());
    let text = clear(150_000);
    std::fs::write(at("ours.age"), sealed(&[theirs.recipient()], &text)).unwrap();
    let age = Tool::new("age");
    drop(age.run(&["-d", "-i", &at("theirs.key"), "-o", &at("clear"), &at("ours.age")]).expect_success());
    assert_eq!(std::fs::read(at("clear")).unwrap(), text);
    let ours = Identity::generate();
    let recipient = ours.recipient().to_string();
    drop(age.run(&["-r", &recipient, "-o", &at("theirs.age"), &at("clear")]).expect_success());
    assert_eq!(opened_by(&ours, &std::fs::read(at("theirs.age")).unwrap()).unwrap(), text);
    std::fs::write(at("ours.key"), ours.to_file().expose()).unwrap();
    drop(age.run(&["-d", "-i", &at("ours.key"), "-o", &at("again"), &at("theirs.age")]).expect_success());
}

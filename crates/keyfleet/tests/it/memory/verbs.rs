//! Verbs that last a moment, looked at before each of their durable steps and when they end: founding a fleet, restoring a backup, and what
//! people do with shares.

use std::fs;
use std::path::Path;

use kf_age::Identity;
use kf_backend::open_sealed_root;
use kf_escrow::Share;
use kf_key::SecretBytes;
use kf_testkit::{KnownSecret, Tool, scratch, search_memory};

use super::{PASSPHRASE, none_of, root_keys};
use crate::console::{Fleet, Succeeds as _, keyfleet, private};
use crate::escrow::{SHARES, person};

/// A word in the environment of every run, where it stays to the end: the search sees what is there.
const STAYS: (&str, &str) = ("KF_TEST_STAYS", "4d1f9c07be2855aa");

/// The words of a share, which are English ones of up to eight letters.
const WORDS: &str = "words of a share";
/// The longest run of them that is not taken for a piece of the share: one of the words, with the edges of its neighbours, is in many a text.
const COMMON_OCTETS: usize = 20;

/// Runs a verb, and searches it for the secrets that there are by then whenever it stands still. What is `in_use` must be seen on the way; when
/// the verb ends, nothing may be left.
fn look_at(tool: Tool, arguments: &[&str], in_use: Option<&str>, mut secrets: impl FnMut() -> Vec<KnownSecret>) {
    let tool = tool.env(STAYS.0, STAYS.1);
    let (mut was_seen, mut last) = (false, None);
    let run = tool.run_looked_at(arguments, |process| {
        let mut known = secrets();
        let names: Vec<String> = known.iter().map(|secret| secret.name().to_owned()).collect();
        known.push(KnownSecret::new("what stays", STAYS.1.as_bytes()));
        let mut found = search_memory(process, &known);
        found.findings.retain(|finding| finding.secret != WORDS || finding.octets > COMMON_OCTETS);
        assert!(found.count("what stays") > 0, "the search sees what is there");
        was_seen |= in_use.is_some_and(|name| found.count(name) > 0);
        last = Some((found, names));
    });
    drop(run.expect_success());
    assert!(was_seen || in_use.is_none(), "{arguments:?}: the search sees {in_use:?} while it is in use");
    let (found, names) = last.unwrap();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    none_of(&found, &names, &format!("{arguments:?}, when it ends,"));
}

/// An identity of age, as it lies in its file and as octets.
fn identity_of(name: &str, file: &[u8]) -> Vec<KnownSecret> {
    let identity = Identity::from_file(file).unwrap();
    let text = String::from_utf8(identity.to_file().expose().to_vec()).unwrap();
    let digits = text.split("AGE-SECRET-KEY-1").nth(1).unwrap().trim().to_owned();
    vec![
        KnownSecret::new(&format!("{name}, as text"), digits.as_bytes()),
        KnownSecret::new(name, identity.octets().unwrap().expose()),
    ]
}

fn opened(folder: &Path, file: &str, identity: &str) -> Vec<u8> {
    Tool::new("age").directory(folder).run(&["-d", "-i", identity, file]).expect_success().stdout
}

/// Octets in front of the values of a share, none of them secret, and of the digest behind.
const SHARE_FRAME: (usize, usize) = (11, 4);

/// The shares that lie in a directory by now: their values, the words, and the digits of the code.
fn shares_in(folder: &Path, made: &str) -> Vec<KnownSecret> {
    let mut known = Vec::new();
    for entry in fs::read_dir(folder.join(made)).into_iter().flatten() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let Some(person) = name.strip_suffix(".age").and_then(|name| name.rsplit('-').next()) else { continue };
        let sealed = fs::read(folder.join(made).join(&name)).unwrap();
        let identity = Identity::from_file(&fs::read(folder.join(format!("{person}.key"))).unwrap()).unwrap();
        // One that is being written is whole at the step behind.
        let Ok(text) = kf_age::open_secret(&[&identity], &sealed, 1 << 14) else { continue };
        let text = String::from_utf8(text.expose().to_vec()).unwrap();
        let words = text.lines().find(|line| !line.is_empty() && !line.starts_with('#')).unwrap();
        let octets = Share::from_words(words).unwrap().encode();
        let octets = octets.expose();
        let values = SHARE_FRAME.0..octets.len() - SHARE_FRAME.1;
        known.push(KnownSecret::new("share", &octets[values.clone()]));
        known.push(KnownSecret::new("digits of a share", hex::encode_upper(&octets[values]).as_bytes()));
        // Behind the words that stand for version, threshold, number and ceremony.
        let words: Vec<&str> = words.split(' ').collect();
        known.push(KnownSecret::new(WORDS, words[9..].join(" ").as_bytes()));
    }
    known
}

fn ceremony(folder: &Path, class: &str) {
    let custodians: String = ["alice", "bob"]
        .iter()
        .map(|name| format!("[[custodian]]\nperson = \"{name}\"\nrecipient = \"{}\"\n", person(folder, name)))
        .collect();
    let head = format!("version = 1\nname = \"acme\"\nclass = \"{class}\"\nthreshold = 2\nreview = \"by the board\"\n");
    fs::write(folder.join("ceremony.toml"), format!("{head}{custodians}")).unwrap();
}

const APPROVED: [&str; 5] = ["--offline", "--approved-by", "olga", "--approved-by", "pavel"];

#[test]
fn an_init_keeps_nothing_of_its_passphrase_its_root_and_the_token_that_it_wrote() {
    let home = scratch();
    private(&home.path().join("passphrase"), PASSPHRASE);
    let (seal, token) = (home.path().join("data/root.seal"), home.path().join("data/owner.token"));
    let arguments = ["init", "--data", "data", "--passphrase-file", "passphrase", "--fleet", "acme"];
    let mut root = None;
    look_at(keyfleet(home.path()), &arguments, Some("token"), || {
        let mut known = vec![KnownSecret::new("passphrase", PASSPHRASE.as_bytes())];
        if root.is_none() && seal.exists() {
            let passphrase = SecretBytes::from_vec(PASSPHRASE.as_bytes().to_vec());
            root = open_sealed_root(&seal, &passphrase).ok();
        }
        known.extend(root.as_ref().map(|root| KnownSecret::new("root", root.expose())));
        let token = fs::read_to_string(&token).unwrap_or_default();
        known.extend((token.len() > 20).then(|| KnownSecret::new("token", &token.trim().as_bytes()[4..])));
        known
    });
}

#[test]
fn a_backup_key_leaves_nothing_in_those_who_split_check_rehearse_and_release_it_and_in_a_restore() {
    let fleet = Fleet::start(&[]);
    let folder = fleet.scratch.path().to_owned();
    let dora = person(&folder, "dora");
    fleet.run(&["backup", "key", "create", "--recipient", &dora, "--out", "backup-key.age"]).succeeds();
    let backup = fleet.json(&["backup", "create"])["directory"].as_str().unwrap().to_owned();
    ceremony(&folder, "backup-key");
    let file = |name: &str| fs::read(folder.join(name)).unwrap();
    let secrets = || {
        let mut known = identity_of("backup key", &opened(&folder, "backup-key.age", "dora.key"));
        for name in ["dora", "alice", "bob"] {
            known.extend(identity_of(name, &file(&format!("{name}.key"))));
        }
        known.extend(shares_in(&folder, "made"));
        known
    };
    let tool = || fleet.tool();
    let key = ["--key", "backup-key.age", "--identity", "dora.key"];
    look_at(
        tool(),
        &[&["escrow", "split", "ceremony.toml", "--out", "made"][..], &key].concat(),
        Some("backup key"),
        secrets,
    );
    look_at(tool(), &[&["escrow", "verify", "made"][..], &SHARES[..4]].concat(), None, secrets);
    let rehearse = ["escrow", "rehearse", "made", "--offline", "--from", &backup];
    look_at(tool(), &[&rehearse[..], &SHARES].concat(), Some("share"), secrets);
    let frank = person(&folder, "frank");
    let release = ["escrow", "release", "made", "--why", "dora left", "--out", "back.age", "--recipient", &frank];
    look_at(tool(), &[&release[..], &APPROVED, &SHARES].concat(), Some("backup key"), secrets);
    let restore = ["restore", "--data", "restored", "--from", &backup];
    look_at(tool(), &[&restore[..], &key].concat(), Some("backup key"), secrets);
}

#[test]
fn a_root_leaves_nothing_in_those_who_split_rehearse_and_release_it() {
    let fleet = Fleet::with_passphrase(PASSPHRASE).served();
    let folder = fleet.scratch.path().to_owned();
    let dora = person(&folder, "dora");
    fleet.run(&["backup", "key", "create", "--recipient", &dora, "--out", "backup-key.age"]).succeeds();
    let backup = fleet.json(&["backup", "create"])["directory"].as_str().unwrap().to_owned();
    ceremony(&folder, "root");
    let keys = std::cell::OnceCell::new();
    let secrets = || {
        let mut known = keys.get_or_init(|| root_keys(&fleet)).clone();
        known.extend(shares_in(&folder, "made"));
        known
    };
    let data = fleet.data();
    let tool = || fleet.tool();
    let unlock = ["--data", data.to_str().unwrap(), "--passphrase-file", "passphrase"];
    let split = ["escrow", "split", "ceremony.toml", "--out", "made"];
    look_at(tool(), &[&split[..], &unlock].concat(), Some("root"), secrets);
    let rehearse = ["escrow", "rehearse", "made", "--offline", "--from", &backup];
    look_at(tool(), &[&rehearse[..], &SHARES].concat(), Some("share"), secrets);
    fs::rename(data.join("root.seal"), folder.join("lost.seal")).unwrap();
    let release = ["escrow", "release", "made", "--why", "the host burnt down"];
    look_at(tool(), &[&release[..], &APPROVED, &SHARES, &unlock].concat(), Some("root"), secrets);
}

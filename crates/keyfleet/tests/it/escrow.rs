//! `keyfleet escrow`: people, their shares, and a root that comes back.

use std::fs;
use std::path::Path;

use kf_key::SecretBytes;
use kf_signer::{BackendKind, Pkcs11Config, SecretSource, SignerClient, SignerCommand, SignerConfig};
use kf_testkit::{Output, SoftHsm, Tool, scratch};

use crate::console::{Fleet, Succeeds as _, json, keyfleet, private};
use crate::fleet::sign_up;

/// A person with an identity of age in `folder`; the recipient.
pub(crate) fn person(folder: &Path, name: &str) -> String {
    let file = format!("{name}.key");
    let keygen = Tool::new("age-keygen").directory(folder);
    keygen.run(&["-o", &file]).succeeds();
    keygen.run(&["-y", &file]).expect_success().stdout_text().trim().to_owned()
}

/// How Alice and Bob give theirs.
pub(crate) const SHARES: [&str; 8] = [
    "--share",
    "made/share-01-alice.age",
    "--identity",
    "alice.key",
    "--share",
    "made/share-02-bob.age",
    "--identity",
    "bob.key",
];

/// A ceremony for Alice and Bob, who use age, and Carol, who keeps paper.
fn ceremony(folder: &Path, class: &str) {
    let (alice, bob) = (person(folder, "alice"), person(folder, "bob"));
    let text = format!(
        "version = 1\nname = \"acme {class}\"\nclass = \"{class}\"\nthreshold = 2\nrehearse_days = 30\n\
         review = \"by the board\"\n[[custodian]]\nperson = \"alice\"\nrecipient = \"{alice}\"\n\
         [[custodian]]\nperson = \"bob\"\nrecipient = \"{bob}\"\n[[custodian]]\nperson = \"carol\"\n"
    );
    fs::write(folder.join("ceremony.toml"), text).unwrap();
}

const ALICE: [&str; 4] = ["--share", "made/share-01-alice.age", "--identity", "alice.key"];
const BOB: [&str; 4] = ["--share", "made/share-02-bob.age", "--identity", "bob.key"];
const CAROL: [&str; 2] = ["--share", "made/share-03-carol.txt"];

fn all<'a>(parts: &[&[&'a str]]) -> Vec<&'a str> {
    parts.concat()
}

fn transcript(folder: &Path) -> Vec<String> {
    let text = fs::read_to_string(folder.join("made/transcript.jsonl")).unwrap();
    let event = |line: &str| {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        format!("{} {}", line["event"].as_str().unwrap(), line["detail"]["custodian"].as_str().unwrap_or_default())
    };
    text.lines().map(event).map(|event| event.trim().to_owned()).collect()
}

fn proposal_of(output: &Output) -> String {
    assert_eq!(output.code, Some(6), "{}", output.text());
    json(output)["proposal"].as_str().unwrap().to_owned()
}

#[test]
fn a_root_is_split_rehearsed_released_by_two_people_and_opens_the_fleet_again() {
    let mut fleet = Fleet::start(&[]).with_device();
    let folder = fleet.scratch.path().to_owned();
    ceremony(&folder, "root");
    let data = fleet.data();
    let unlock = ["--passphrase-file", "passphrase"];
    let split = all(&[&["escrow", "split", "ceremony.toml", "--out", "made"], &unlock]);
    let dry = fleet.json(&all(&[&split, &["--dry-run"]]));
    assert_eq!((dry["threshold"].clone(), dry["custodians"][2]["person"].clone()), (2.into(), "carol".into()));
    assert!(!folder.join("made").exists());
    fleet.run(&split).succeeds();
    assert_eq!(fleet.run(&split).code, Some(5), "a ceremony is held once");
    assert_eq!(transcript(&folder), ["begin", "share alice", "share bob", "share carol", "end"]);
    fleet.run(&["escrow", "register", "made"]).succeeds();
    // Alice looks at her share with age alone, and with us.
    let seen = Tool::new("age").directory(&folder).run(&["-d", "-i", "alice.key", "made/share-01-alice.age"]);
    assert!(seen.expect_success().stdout_text().lines().any(|line| line.split(' ').count() == 46));
    fleet.run(&all(&[&["escrow", "verify", "made"], &ALICE])).succeeds();
    let stranger =
        fleet.run(&["escrow", "verify", "made", "--share", "made/share-01-alice.age", "--identity", "bob.key"]);
    assert_eq!(stranger.code, Some(2), "{}", stranger.text());

    let dora = person(&folder, "dora");
    fleet.run(&["backup", "key", "create", "--recipient", &dora, "--out", "backup-key-1.age"]).succeeds();
    let backup = fleet.json(&["backup", "create"])["directory"].as_str().unwrap().to_owned();
    let rehearse = ["escrow", "rehearse", "made", "--from", &backup];
    let few = fleet.run(&all(&[&rehearse, &CAROL]));
    assert!(few.stderr_text().contains("2 shares are needed, 1 were given"), "{}", few.text());
    let twice = fleet.run(&all(&[&rehearse, &CAROL, &CAROL]));
    assert!(twice.stderr_text().contains("share 3 was given twice"), "{}", twice.text());
    let known = fleet.json(&all(&[&rehearse, &ALICE, &CAROL]));
    assert!(known["rehearsed"].is_string() || known["rehearsed"].is_u64(), "{known}");
    let log = fleet.run(&["audit", "list", "--all"]).expect_success().stdout_text();
    assert!(log.contains("escrow.use") && log.contains("escrow.rehearse"), "{log}");

    let release = ["escrow", "release", "made", "--why", "the host burnt down"];
    let proposal = proposal_of(&fleet.run(&all(&[&release, &["--format", "json"]])));
    // There is a root already.
    let (before, sealed) = (transcript(&folder), fs::read(data.join("root.seal")).unwrap());
    let in_the_way = fleet.run(&all(&[&release, &["--proposal", &proposal], &unlock, &ALICE, &BOB]));
    assert_eq!(in_the_way.code, Some(5), "{}", in_the_way.text());
    let first = in_the_way.stderr_text().lines().next().unwrap().to_owned();
    assert!(first.contains("signer.sealed_file.path") && first.contains("root.seal exists"), "{first}");
    assert!(in_the_way.stderr_text().contains("move the file away"), "{}", in_the_way.text());
    assert_eq!((transcript(&folder), fs::read(data.join("root.seal")).unwrap()), (before, sealed), "no share was used");
    fs::rename(data.join("root.seal"), folder.join("lost.seal")).unwrap();
    let early = fleet.run(&all(&[&release, &["--proposal", &proposal], &unlock, &ALICE, &BOB]));
    assert!(early.stderr_text().contains("no release of this escrow is approved"), "{}", early.text());
    sign_up(&fleet, "bert", "fleet-operator");
    fleet.run_as("bert.toml", &["proposal", "approve", &proposal]).succeeds();
    fleet.run(&all(&[&release, &["--proposal", &proposal], &unlock, &ALICE, &BOB])).succeeds();
    fleet.stop();
    let fleet = fleet.served();
    assert_eq!(fleet.json(&["status"])["signer_up"], true);
    fleet.run(&["audit", "verify"]).succeeds();
    assert!(transcript(&folder).ends_with(&["use alice".into(), "use bob".into(), "released".into()]));
}

#[test]
fn what_is_wrong_with_a_ceremony_is_named_before_anything_is_made() {
    let home = scratch();
    let tool = keyfleet(home.path());
    ceremony(home.path(), "root");
    let good = fs::read_to_string(home.path().join("ceremony.toml")).unwrap();
    for (from, to, said) in [
        ("class = \"root\"", "class = \"identity\"", "never escrowed"),
        ("person = \"carol\"", "person = \"Alice\"", "one person counts once"),
        ("threshold = 2", "threshold = 1", "at least 2"),
        ("threshold = 2", "threshold = 4", "4 shares are needed and only 3 are made"),
        ("review = \"by the board\"", "review = \" \"", "who reviewed it"),
        ("version = 1", "version = 1\nsurprise = 1", "surprise"),
        ("recipient = \"age1", "recipient = \"age2", "custodian `alice`"),
    ] {
        fs::write(home.path().join("bad.toml"), good.replacen(from, to, 1)).unwrap();
        let refused = tool.run(&["escrow", "split", "bad.toml", "--out", "made", "--fresh"]);
        assert!(refused.code == Some(2) && refused.stderr_text().contains(said), "{to}: {}", refused.text());
        assert!(!home.path().join("made").exists());
    }
}

#[test]
fn a_ceremony_that_was_cut_short_voids_its_shares_and_is_held_again() {
    let home = scratch();
    let tool = keyfleet(home.path());
    ceremony(home.path(), "root");
    let split = ["escrow", "split", "ceremony.toml", "--out", "made", "--fresh"];
    tool.run(&split).succeeds();
    let old = fs::read(home.path().join("made/share-03-carol.txt")).unwrap();
    fs::remove_file(home.path().join("made/escrow.json")).unwrap();
    let unfinished = tool.run(&all(&[&["escrow", "verify", "made"], &CAROL]));
    assert_eq!(unfinished.code, Some(1), "{}", unfinished.text());
    let again = tool.run(&split).expect_success();
    assert!(again.stderr_text().contains("3 shares of a ceremony that was cut short are void"), "{}", again.text());
    assert!(transcript(home.path()).contains(&"void".to_owned()));
    private(&home.path().join("old.txt"), &String::from_utf8(old).unwrap());
    let foreign = tool.run(&["escrow", "verify", "made", "--share", "old.txt"]);
    assert!(foreign.stderr_text().contains("is of ceremony"), "{}", foreign.text());
    // One wrong word is found, and a transcript that was changed is not believed.
    let text = fs::read_to_string(home.path().join("made/share-03-carol.txt")).unwrap();
    let words = text.lines().nth(2).unwrap();
    let (first, rest) = words.split_once(' ').unwrap();
    let other = if first == "abandon" { "ability" } else { "abandon" };
    private(&home.path().join("slip.txt"), &format!("{other} {rest}\n"));
    let slip = tool.run(&["escrow", "verify", "made", "--share", "slip.txt"]);
    assert_eq!(slip.code, Some(2), "{}", slip.text());
    let path = home.path().join("made/transcript.jsonl");
    let changed = fs::read_to_string(&path).unwrap().replacen("alice", "mallory", 1);
    fs::write(&path, changed).unwrap();
    let refused = tool.run(&all(&[&["escrow", "verify", "made"], &CAROL]));
    assert!(refused.stderr_text().contains("does not follow from the one before"), "{}", refused.text());
}

/// A signer over the token, as the server starts it.
fn token_signer(home: &Path, token: &SoftHsm) -> SignerCommand {
    let config = SignerConfig {
        backend: BackendKind::Pkcs11,
        unlock: SecretSource::File(home.join("pin")),
        pkcs11: Some(Pkcs11Config {
            module: fs::canonicalize(SoftHsm::module()).unwrap(),
            token: SoftHsm::LABEL.to_owned(),
            root_label: "keyfleet root acme".to_owned(),
        }),
        ..SignerConfig::default()
    };
    let environment = vec![(SoftHsm::VARIABLE.to_owned(), token.configuration().to_str().unwrap().to_owned())];
    let program = env!("CARGO_BIN_EXE_keyfleet").into();
    SignerCommand { program, environment, ..SignerCommand::of_this_program("signer", config) }
}

#[test]
fn a_root_whose_token_is_lost_comes_back_from_its_shares_into_a_new_token() {
    let home = scratch();
    ceremony(home.path(), "root");
    private(&home.path().join("pin"), SoftHsm::PIN);
    let module = SoftHsm::module().to_str().unwrap();
    let release = [
        "escrow",
        "release",
        "made",
        "--why",
        "a new token",
        "--offline",
        "--approved-by",
        "olga",
        "--approved-by",
        "pavel",
        "--pkcs11-module",
        module,
        "--pkcs11-token",
        SoftHsm::LABEL,
        "--fleet",
        "acme",
        "--passphrase-file",
        "pin",
    ];
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let into = |token: &SoftHsm, shares: &[&[&str]]| {
        let tool = keyfleet(home.path()).env(SoftHsm::VARIABLE, token.configuration());
        tool.run(&all(&[&[&release[..]], shares].concat()))
    };
    keyfleet(home.path()).run(&["escrow", "split", "ceremony.toml", "--out", "made", "--fresh"]).succeeds();
    let secret = || SecretBytes::from_vec(b"what only this root unwraps".to_vec());
    let first = SoftHsm::new();
    into(&first, &[&ALICE, &BOB]).succeeds();
    let wrapped = runtime.block_on(async {
        let signer = SignerClient::spawn(token_signer(home.path(), &first)).await.unwrap();
        let wrapped = signer.wrap(b"test", &secret()).await.unwrap();
        signer.shutdown().await;
        wrapped
    });
    let occupied = into(&first, &[&ALICE, &BOB]);
    assert!(occupied.stderr_text().contains("never overwritten"), "{}", occupied.text());
    drop(first);
    let second = SoftHsm::new();
    into(&second, &[&BOB, &CAROL]).succeeds();
    runtime.block_on(async {
        let signer = SignerClient::spawn(token_signer(home.path(), &second)).await.unwrap();
        assert!(signer.unwrap(b"test", &wrapped).await.unwrap().equals(b"what only this root unwraps"));
        signer.shutdown().await;
    });
    let alone = keyfleet(home.path()).run(&all(&[
        &["escrow", "release", "made", "--why", "x", "--offline", "--approved-by", "olga", "--approved-by", "Olga"],
        &ALICE,
        &BOB,
    ]));
    assert_eq!(alone.code, Some(2), "one person twice is one person: {}", alone.text());
}

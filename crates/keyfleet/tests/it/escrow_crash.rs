//! Ceremonies that are killed at every durable step: the shares that left stay good, none is used up without a trace, and the same command
//! goes on.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use kf_escrow::{Share, combine};
use kf_testkit::{CRASH_AT, Output, Tool, crash_library};
use serde_json::Value;

use crate::console::{Fleet, Succeeds as _, keyfleet, private};
use crate::escrow::{SHARES, person};

/// A fleet with a backup key that dora holds, a backup, and a ceremony over that key for three people with keys of their own.
fn prepared() -> (Fleet, String) {
    let fleet = Fleet::start(&[]);
    let folder = fleet.scratch.path().to_owned();
    let people = ["alice", "bob", "carol", "dora"].map(|name| person(&folder, name));
    fleet.run(&["backup", "key", "create", "--recipient", &people[3], "--out", "backup-key.age"]).succeeds();
    let backup = fleet.json(&["backup", "create"])["directory"].as_str().unwrap().to_owned();
    let custodian =
        |(name, key): (&str, &String)| format!("[[custodian]]\nperson = \"{name}\"\nrecipient = \"{key}\"\n");
    let custodians: String = ["alice", "bob", "carol"].into_iter().zip(&people).map(custodian).collect();
    let head = "version = 1\nname = \"acme\"\nclass = \"backup-key\"\nthreshold = 2\nreview = \"by the board\"\n";
    fs::write(folder.join("ceremony.toml"), format!("{head}{custodians}")).unwrap();
    (fleet, backup)
}

const KEY: [&str; 4] = ["--key", "backup-key.age", "--identity", "dora.key"];

/// Runs a command that is killed at its `when`-th durable step; whether it was.
fn killed(folder: &Path, arguments: &[&str], when: u32) -> (bool, Output) {
    let library = crash_library().to_str().unwrap().to_owned();
    let tool = keyfleet(folder).env("LD_PRELOAD", library).env(CRASH_AT, when.to_string());
    let output = tool.run(arguments);
    (output.code.is_none(), output)
}

fn share(folder: &Path, file: &Path, person: &str) -> Share {
    let key = format!("{person}.key");
    let opened = Tool::new("age").directory(folder).run(&["-d", "-i", &key, file.to_str().unwrap()]);
    let text = opened.expect_success().stdout_text();
    let words = text.lines().find(|line| !line.is_empty() && !line.starts_with('#')).unwrap();
    Share::from_words(words).unwrap()
}

/// The lines of a transcript, each `event share`.
fn lines(directory: &Path) -> Vec<String> {
    let Ok(text) = fs::read_to_string(directory.join("transcript.jsonl")) else { return Vec::new() };
    let line = |line: &str| {
        let line: Value = serde_json::from_str(line).unwrap();
        let share = line["detail"]["share"].as_str().unwrap_or_default().to_owned();
        format!("{} {share}", line["event"].as_str().unwrap()).trim().to_owned()
    };
    // A last line without its end announced nothing.
    text.split_inclusive('\n').filter(|line| line.ends_with('\n')).map(line).collect()
}

/// Custodians leave at once with what the transcript says is theirs.
fn handed_out(folder: &Path, made: &Path, people: [&'static str; 3]) -> BTreeMap<&'static str, Share> {
    let mut shares = BTreeMap::new();
    for (person, index) in people.into_iter().zip(1..) {
        if lines(made).contains(&format!("share {index}")) {
            let file = made.join(format!("share-{index:02}-{person}.age"));
            shares.insert(person, share(folder, &file, person));
            fs::remove_file(file).unwrap();
        }
    }
    shares
}

/// The ceremony is whole: the shares that left and those that are there open one key, each was handed out once, and nothing else is left.
fn assert_whole(folder: &Path, made: &Path, mut shares: BTreeMap<&'static str, Share>, when: u32) {
    for (person, index) in ["alice", "bob", "carol"].into_iter().zip(1..) {
        let file = made.join(format!("share-{index:02}-{person}.age"));
        shares.entry(person).or_insert_with(|| share(folder, &file, person));
    }
    let keys = [["alice", "bob"], ["bob", "carol"], ["alice", "carol"]].map(|pair| {
        let copies = pair.map(|name| Share::decode(shares[name].encode().expose()).unwrap());
        combine(&copies).unwrap_or_else(|error| panic!("killed at {when}: {pair:?}: {error}"))
    });
    assert!(keys.iter().all(|key| key.equals(keys[0].expose())), "killed at {when}: it is one key");
    let lines = lines(made);
    for index in 1..=3 {
        let named = lines.iter().filter(|line| **line == format!("share {index}")).count();
        assert_eq!(named, 1, "killed at {when}: {lines:?}");
    }
    assert!(!lines.iter().any(|line| line.starts_with("void")), "killed at {when}: {lines:?}");
    let mut files: Vec<String> =
        fs::read_dir(made).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    files.retain(|name| !name.starts_with("share-"));
    files.sort();
    assert_eq!(files, ["escrow.json", "transcript.jsonl"], "killed at {when}");
}

#[test]
fn a_split_that_was_killed_at_any_durable_step_goes_on_with_the_shares_that_left() {
    let (fleet, _) = prepared();
    let folder = fleet.scratch.path();
    let people = ["alice", "bob", "carol"];
    let (mut crashes, mut left) = (0, 0);
    for when in 1..100 {
        let made = format!("made-{when}");
        let split = [&["escrow", "split", "ceremony.toml", "--out", &made][..], &KEY].concat();
        let (was_killed, first) = killed(folder, &split, when);
        assert!(was_killed || first.success(), "{}", first.text());
        let made = folder.join(&made);
        let shares = handed_out(folder, &made, people);
        left += shares.len();
        let again = fleet.run(&split);
        assert!(again.success() || again.code == Some(5), "killed at {when}: {}", again.text());
        assert_whole(folder, &made, shares, when);
        if !was_killed {
            break;
        }
        crashes += 1;
    }
    assert!((12..90).contains(&crashes) && left >= 6, "{crashes} crashes, {left} shares had left");
}

#[test]
fn a_new_root_whose_ceremony_was_killed_at_any_durable_step_is_undone_before_a_share_left_and_goes_on_after() {
    let home = kf_testkit::scratch();
    let folder = home.path();
    let people = ["alice", "bob", "carol"];
    let custodians: String = people
        .iter()
        .map(|name| format!("[[custodian]]\nperson = \"{name}\"\nrecipient = \"{}\"\n", person(folder, name)))
        .collect();
    let head = "version = 1\nname = \"acme\"\nclass = \"root\"\nthreshold = 2\nreview = \"by the board\"\n";
    fs::write(folder.join("ceremony.toml"), format!("{head}{custodians}")).unwrap();
    let (mut crashes, mut left, mut undone, mut went_on) = (0, 0, 0, 0);
    for when in 1..100 {
        let name = format!("made-{when}");
        let made = folder.join(&name);
        let split = ["escrow", "split", "ceremony.toml", "--out", &name, "--fresh"];
        let (was_killed, first) = killed(folder, &split, when);
        assert!(was_killed || first.success(), "{}", first.text());
        let shares = handed_out(folder, &made, people);
        left += shares.len();
        let begun = fs::read_to_string(made.join("ceremony.state")).ok();
        let again = keyfleet(folder).run(&split);
        assert!(again.success() || again.code == Some(5), "killed at {when}: {}", again.text());
        assert_whole(folder, &made, shares, when);
        undone += usize::from(was_killed && begun.is_none() && left == 0);
        if let Some(begun) = begun {
            let id = serde_json::from_str::<Value>(&begun).unwrap()["ceremony"].as_str().unwrap().to_owned();
            let record: Value = serde_json::from_slice(&fs::read(made.join("escrow.json")).unwrap()).unwrap();
            assert_eq!(record["ceremony"], id.as_str(), "killed at {when}: it is the ceremony that was begun");
            went_on += usize::from(was_killed);
        }
        if !was_killed {
            break;
        }
        crashes += 1;
    }
    assert!((12..90).contains(&crashes), "{crashes} crashes");
    assert!(left >= 6 && undone >= 2 && went_on >= 4, "{left} shares had left, {undone} undone, {went_on} went on");
}

#[test]
fn a_new_root_that_is_under_way_is_not_split_from_elsewhere_and_a_share_that_was_changed_is_named() {
    let home = kf_testkit::scratch();
    let folder = home.path();
    let custodians: String = ["alice", "bob"]
        .iter()
        .map(|name| format!("[[custodian]]\nperson = \"{name}\"\nrecipient = \"{}\"\n", person(folder, name)))
        .collect();
    let head = "version = 1\nname = \"acme\"\nclass = \"root\"\nthreshold = 2\nreview = \"by the board\"\n";
    fs::write(folder.join("ceremony.toml"), format!("{head}{custodians}")).unwrap();
    let split = ["escrow", "split", "ceremony.toml", "--out", "made", "--fresh"];
    let is_begun = |when| {
        let (was_killed, _) = killed(folder, &split, when);
        was_killed && folder.join("made/ceremony.state").exists()
    };
    assert!((4..40).any(is_begun));
    let without = keyfleet(folder).run(&["escrow", "split", "ceremony.toml", "--out", "made", "--data", "none"]);
    assert!(without.code == Some(2) && without.stderr_text().contains("is under way here"), "{}", without.text());
    let hidden = fs::read_dir(folder.join("made")).unwrap().map(|entry| entry.unwrap().path());
    let hidden = hidden.filter(|path| path.to_string_lossy().contains("share-02")).last().unwrap();
    let good = fs::read(&hidden).unwrap();
    fs::write(&hidden, b"rubbish").unwrap();
    let changed = keyfleet(folder).run(&split);
    assert!(changed.stderr_text().contains("share 2 is not there as it was written"), "{}", changed.text());
    fs::write(&hidden, good).unwrap();
    keyfleet(folder).run(&split).succeeds();
}

#[test]
fn a_ceremony_that_is_under_way_is_that_one_or_given_up_aloud() {
    let (fleet, _) = prepared();
    let folder = fleet.scratch.path();
    let split = [&["escrow", "split", "ceremony.toml", "--out", "made"][..], &KEY].concat();
    let (was_killed, _) = (4..40)
        .map(|when| killed(folder, &split, when))
        .find(|_| lines(&folder.join("made")).contains(&"share 1".to_owned()))
        .unwrap();
    assert!(was_killed);
    let state = fs::read(folder.join("made/ceremony.state")).unwrap();
    // Another file, or another key, is refused and names what is under way.
    let text = fs::read_to_string(folder.join("ceremony.toml")).unwrap();
    fs::write(folder.join("other.toml"), text.replace("by the board", "by nobody")).unwrap();
    let other = [&["escrow", "split", "other.toml", "--out", "made"][..], &KEY].concat();
    let refused = fleet.run(&other);
    assert!(
        refused.code == Some(2) && refused.stderr_text().contains("reviewed as another file"),
        "{}",
        refused.text()
    );
    let eve = person(folder, "eve");
    fleet.run(&["backup", "key", "create", "--recipient", &eve, "--out", "other.age"]).succeeds();
    let key = ["escrow", "split", "ceremony.toml", "--out", "made", "--key", "other.age", "--identity", "eve.key"];
    let refused = fleet.run(&key);
    assert!(refused.code == Some(2) && refused.stderr_text().contains("is of another key"), "{}", refused.text());
    // The state alone opens nothing, and was not touched by the refusals.
    assert_eq!(fs::read(folder.join("made/ceremony.state")).unwrap(), state);
    let unfinished = fleet.run(&["escrow", "verify", "made"]);
    assert_eq!(unfinished.code, Some(1), "{}", unfinished.text());
    fleet.run(&[&split[..], &["--void"]].concat()).succeeds();
    let told = lines(&folder.join("made"));
    assert!(told.iter().any(|line| line == "void") && told.last().unwrap() == "end", "{told:?}");
    assert_eq!(fleet.run(&split).code, Some(5), "a ceremony is held once");
}

#[test]
fn a_rehearsal_that_was_killed_at_any_step_leaves_each_use_in_the_transcript_and_is_held_again() {
    let (fleet, backup) = prepared();
    let folder = fleet.scratch.path();
    fleet.run(&[&["escrow", "split", "ceremony.toml", "--out", "made"][..], &KEY].concat()).succeeds();
    let shares = [
        "--share",
        "made/share-01-alice.age",
        "--identity",
        "alice.key",
        "--share",
        "made/share-03-carol.age",
        "--identity",
        "carol.key",
    ];
    let rehearse = [&["escrow", "rehearse", "made", "--offline", "--from", &backup][..], &shares].concat();
    let mut crashes = 0;
    for when in 1..60 {
        let before = lines(&folder.join("made")).len();
        let (was_killed, first) = killed(folder, &rehearse, when);
        assert!(was_killed || first.success(), "{}", first.text());
        let after = lines(&folder.join("made"));
        assert!(after.len() >= before, "killed at {when}: a line is gone");
        if !was_killed {
            let told = after.get(before..).unwrap();
            assert_eq!(told, ["use 1", "use 3", "rehearsed"]);
            break;
        }
        crashes += 1;
    }
    assert!((3..50).contains(&crashes), "{crashes}");
    fleet
        .run(&["escrow", "verify", "made", "--share", "made/share-01-alice.age", "--identity", "alice.key"])
        .succeeds();
}

#[test]
fn a_release_that_was_killed_at_any_durable_step_goes_on_under_its_approval() {
    let (fleet, _) = prepared();
    let folder = fleet.scratch.path();
    fleet.run(&[&["escrow", "split", "ceremony.toml", "--out", "made"][..], &KEY].concat()).succeeds();
    let frank = person(folder, "frank");
    let approved = ["--offline", "--approved-by", "olga", "--approved-by", "pavel", "--recipient", &frank];
    let mut crashes = 0;
    for when in 1..60 {
        let out = format!("released-{when}.age");
        let release = ["escrow", "release", "made", "--why", "dora left", "--out", &out];
        let release = [&release[..], &approved, &SHARES].concat();
        let before = lines(&folder.join("made")).len();
        let (was_killed, first) = killed(folder, &release, when);
        assert!(was_killed || first.success(), "{}", first.text());
        if was_killed {
            let seen = fleet.run(&["escrow", "verify", "made"]).expect_success();
            let is_open = lines(&folder.join("made")).get(before..).unwrap().iter().any(|line| line == "release");
            let is_over = lines(&folder.join("made")).last().unwrap() == "released";
            assert_eq!(seen.stderr_text().contains("was cut short"), is_open && !is_over, "{}", seen.text());
            let again = fleet.run(&release);
            assert!(again.success() || (is_over && again.code == Some(5)), "killed at {when}: {}", again.text());
        }
        let told = lines(&folder.join("made"));
        let told = told.get(before..).unwrap();
        assert_eq!(told.last().unwrap(), "released", "killed at {when}: {told:?}");
        let used = told.iter().filter(|line| line.starts_with("use")).count();
        assert!(used >= 2, "killed at {when}: {told:?}");
        let opened = Tool::new("age").directory(folder).run(&["-d", "-i", "frank.key", &out]);
        assert!(opened.expect_success().stdout_text().contains("AGE-SECRET-KEY-"), "killed at {when}");
        if !was_killed {
            break;
        }
        crashes += 1;
    }
    assert!((6..50).contains(&crashes), "{crashes}");
}

#[test]
fn a_share_on_paper_is_read_back_by_a_camera_and_by_eye() {
    let (fleet, _) = prepared();
    let folder = fleet.scratch.path();
    let text = fs::read_to_string(folder.join("ceremony.toml")).unwrap();
    // Carol has no key: her share is printed.
    let cut = text.find("[[custodian]]\nperson = \"carol\"").unwrap();
    fs::write(folder.join("paper.toml"), format!("{}[[custodian]]\nperson = \"carol\"\n", &text[..cut])).unwrap();
    fleet.run(&[&["escrow", "split", "paper.toml", "--out", "made"][..], &KEY].concat()).succeeds();
    let page = fs::read_to_string(folder.join("made/share-03-carol.txt")).unwrap();
    // What a printer makes of the half blocks: eight dots for each module, ink where there is a block, paper around it.
    const MARGIN: usize = 32;
    let rows: Vec<Vec<char>> = page
        .lines()
        .filter(|line| line.chars().any(|character| "█▀▄".contains(character)))
        .map(|line| line.chars().collect())
        .collect();
    let width = rows.iter().map(Vec::len).max().unwrap() * 8 + 2 * MARGIN;
    let mut dots = vec![255_u8; width * MARGIN];
    for row in &rows {
        for is_upper in [true, false] {
            let is_ink = |character: &char| matches!((character, is_upper), ('█', _) | ('▀', true) | ('▄', false));
            let mut line = vec![255_u8; MARGIN];
            line.extend(row.iter().flat_map(|character| [if is_ink(character) { 0 } else { 255 }; 8]));
            line.resize(width, 255);
            dots.extend(std::iter::repeat_n(line, 8).flatten());
        }
    }
    dots.extend(vec![255_u8; width * MARGIN]);
    let mut picture = format!("P5\n{width} {}\n255\n", dots.len() / width).into_bytes();
    picture.extend(dots);
    fs::write(folder.join("share.pgm"), picture).unwrap();
    let seen = Tool::new("zbarimg").directory(folder).run(&["--raw", "--quiet", "share.pgm"]);
    private(&folder.join("seen.txt"), &seen.expect_success().stdout_text());
    let read = fleet.run(&["escrow", "verify", "made", "--share", "seen.txt"]).expect_success();
    assert!(read.stderr_text().contains("for carol: it is whole"), "{}", read.text());
    fleet.run(&["escrow", "verify", "made", "--share", "made/share-03-carol.txt"]).succeeds();
}

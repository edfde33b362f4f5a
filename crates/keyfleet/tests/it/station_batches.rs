//! One station directory, batch after batch and several at once, whatever holds the keys.

use std::fs;
use std::path::Path;

use kf_testkit::{Output, SoftHsm, Tool};
use serde_json::Value;

use crate::console::{Fleet, Succeeds as _, private};
use crate::line::STATION_PASSPHRASE;

const RECIPE: &str = "format = 1\nsku = \"gate-r1\"\nproduct_line = \"thermo\"\ntarget = \"linux\"\n\
                      [identity]\nalgorithm = \"p-256\"\norigin = \"station\"\nprotection = \"sealed\"\n";

/// A station and the server that it works for.
struct Factory {
    fleet: Fleet,
    /// Where the station's keys are.
    keys: Vec<String>,
    environment: Option<(&'static str, String)>,
}

impl Factory {
    fn new(keys: &[&str], secret: &str, environment: Option<(&'static str, String)>) -> Self {
        let fleet = Fleet::start(&[]);
        fleet.run(&["facility", "create", "lyon"]).succeeds();
        fleet.run(&["product-line", "create", "thermo"]).succeeds();
        fs::write(fleet.path("recipe.toml"), RECIPE).unwrap();
        private(&fleet.path("pass"), &format!("{secret}\n"));
        let keys = keys.iter().map(|word| (*word).to_owned()).collect();
        let factory = Self { fleet, keys, environment };
        factory.request("first", &["--public-key-out", "station.pem"]).succeeds();
        let operator = ["operator", "create", "line-1", "--role", "station", "--facility", "lyon"];
        factory.fleet.run(&[&operator[..], &["--voucher-key", "station.pem"]].concat()).succeeds();
        let pins = factory.fleet.json(&["batch", "pins"]);
        fs::write(factory.fleet.path("server.pem"), pins["batch_key_pem"].as_str().unwrap()).unwrap();
        factory
    }

    fn in_files() -> Self {
        Self::new(&[], STATION_PASSPHRASE, None)
    }

    fn tool(&self) -> Tool {
        let tool = self.fleet.tool();
        match &self.environment {
            Some((name, value)) => tool.env(name, value),
            None => tool,
        }
    }

    fn request(&self, out: &str, more: &[&str]) -> Output {
        let request = ["station", "request", "--state", "station", "--name", "line-1", "--passphrase-file", "pass"];
        let keys: Vec<&str> = self.keys.iter().map(String::as_str).collect();
        self.tool().run(&[&request[..], &["--out", out], &keys, more].concat())
    }

    /// A batch of four for a request; its quota gets the name of the batch.
    fn create(&self, batch: &str, request: &str) -> Output {
        let plan = self.fleet.json(&["station", "run", "recipe.toml", "--dry-run"]);
        let create = ["batch", "create", batch, "--product-line", "thermo", "--facility", "lyon", "--count", "4"];
        let by = ["--station-request", request, "--recipe", plan["hash"].as_str().unwrap(), "--quota", batch];
        self.fleet.run(&[&create[..], &by].concat())
    }

    /// Works on a batch until so many boards lie on the pile, those of other batches included.
    fn run(&self, batch: &str, boards: &str, more: &[&str]) -> Output {
        let run = ["--format", "json", "station", "run", "recipe.toml", "--state", "station", "--quota", batch];
        let with = ["--server-key", "server.pem", "--passphrase-file", "pass", "--fixtures", "2"];
        let boards = ["--simulate", boards, "--boards", "boards"];
        self.tool().run(&[&run[..], &with, &boards, more].concat())
    }

    fn close(&self, batch: &str) -> Output {
        let run = ["--format", "json", "station", "run", "recipe.toml", "--state", "station", "--quota", batch];
        self.tool().run(&[&run[..], &["--server-key", "server.pem", "--passphrase-file", "pass", "--final"]].concat())
    }

    fn status(&self) -> Vec<Value> {
        let status = ["--format", "json", "station", "status", "--state", "station"];
        let output = self.fleet.tool().run(&status).expect_success();
        let listing: Value = serde_json::from_slice(&output.stdout).unwrap();
        listing["items"].as_array().unwrap().clone()
    }

    /// Batch, state and generation of each.
    fn stands(&self) -> Vec<(String, String, u64)> {
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let one = |row: &Value| (text(&row["name"]), text(&row["state"]), row["generation"].as_u64().unwrap());
        self.status().iter().map(one).collect()
    }

    fn import(&self, batch: &str) -> Value {
        let export = ["station", "export", "--state", "station", "--batch", batch, "--out"];
        let records = format!("{batch}.records");
        self.tool().run(&[&export[..], &[&records]].concat()).succeeds();
        self.fleet.json(&["batch", "import", batch, &records])
    }
}

fn good(output: &Output) -> Value {
    assert!(output.success(), "{}", output.text());
    let books: Value = serde_json::from_str(output.stdout_text().lines().last().unwrap()).unwrap();
    books["good"].clone()
}

fn row(batch: &str, state: &str, generation: u64) -> (String, String, u64) {
    (batch.to_owned(), state.to_owned(), generation)
}

/// Two batches, both open at once, then closed one after the other; `held` lists the generations whose keys are in the token.
fn two_batches(factory: &Factory, held: &dyn Fn() -> Vec<u64>) {
    factory.create("b-1", "first").succeeds();
    assert_eq!(good(&factory.run("b-1", "2", &[])), 2);
    factory.request("second", &[]).succeeds();
    factory.create("b-2", "second").succeeds();
    assert_eq!(good(&factory.run("b-2", "4", &[])), 2);
    assert_eq!(factory.stands(), [row("b-1", "open", 1), row("b-2", "open", 2)]);
    assert_eq!(held(), [1, 2]);
    let closed = factory.run("b-1", "6", &["--final"]);
    assert_eq!(good(&closed), 4);
    closed.expect_text("its keys (generation 1) are destroyed");
    assert_eq!(factory.stands(), [row("b-1", "closed", 1), row("b-2", "open", 2)]);
    assert_eq!(held(), [2]);
    assert_eq!(good(&factory.close("b-1")), 4, "ending once more tells the books");
    factory.run("b-1", "8", &[]).expect_failure().expect_text("make a request for the next batch");
    assert_eq!(good(&factory.run("b-2", "8", &["--final"])), 4);
    assert_eq!(held(), Vec::<u64>::new());
    for batch in ["b-1", "b-2"] {
        let merged = factory.import(batch);
        assert_eq!((&merged["merged"], &merged["conflict_count"]), (&4.into(), &0.into()), "{merged}");
        assert_eq!((&merged["receipts"], &merged["refused_count"]), (&1.into(), &0.into()), "{merged}");
        let again = factory.fleet.json(&["batch", "import", batch, &format!("{batch}.records")]);
        assert_eq!((&again["receipts"], &again["merged"]), (&0.into(), &0.into()), "once and for all: {again}");
        let books = factory.fleet.json(&["batch", "reconcile", batch]);
        assert_eq!((&books["passed"], &books["missing"]), (&4.into(), &0.into()), "{books}");
        assert!(books["key_destroyed"].is_u64(), "{books}");
    }
    // The word of one batch is not taken for another.
    let receipts: Vec<_> =
        fs::read_dir(factory.fleet.path("station/batches")).unwrap().map(|entry| entry.unwrap().path()).collect();
    let first = receipts.iter().min().unwrap().join("keys-destroyed");
    let other = factory.fleet.run(&["batch", "import", "b-2", first.to_str().unwrap()]);
    other.expect_failure().expect_text("about the keys of another batch");
    factory.request("third", &[]).succeeds();
    factory.create("b-3", "third").succeeds();
    assert_eq!(good(&factory.run("b-3", "9", &[])), 1);
    assert_eq!(held(), [3]);
}

/// Generations of which all keys are in a listing of labels; some only are a failure.
fn generations(labels: &str) -> Vec<u64> {
    let is_there = |kind: &str, generation: u64| {
        let label = format!("keyfleet-station-{kind}-{generation}");
        labels.split_whitespace().any(|word| word == label)
    };
    (1..10)
        .filter(|generation| {
            let there = ["authority", "record", "transport"].map(|kind| is_there(kind, *generation));
            assert!(there == [true; 3] || there == [false; 3], "generation {generation} in part: {labels}");
            there[0]
        })
        .collect()
}

fn names_in(directory: &Path) -> String {
    let names = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.collect::<Vec<_>>().join("\n")
}

#[test]
fn a_station_with_its_keys_in_files_makes_batch_after_batch_and_holds_the_keys_of_the_open_ones_only() {
    let factory = Factory::in_files();
    two_batches(&factory, &|| generations(&names_in(&factory.fleet.path("station/token"))));
}

#[test]
fn a_station_with_its_keys_in_a_pkcs11_token_makes_batch_after_batch_and_the_token_finds_no_key_of_a_closed_one() {
    let token = SoftHsm::new();
    let module = SoftHsm::module().to_str().unwrap();
    let environment = (SoftHsm::VARIABLE, token.configuration().to_str().unwrap().to_owned());
    let keys = ["--pkcs11-module", module, "--pkcs11-token", SoftHsm::LABEL];
    let factory = Factory::new(&keys, SoftHsm::PIN, Some(environment));
    let held = || {
        let list = ["--module", module, "--token-label", SoftHsm::LABEL, "--login", "--pin", SoftHsm::PIN];
        let objects = token.tool("pkcs11-tool").run(&[&list[..], &["--list-objects"]].concat()).expect_success();
        generations(&objects.stdout_text())
    };
    two_batches(&factory, &held);
}

#[cfg(feature = "tpm")]
#[test]
fn a_station_with_its_keys_in_a_tpm_makes_batch_after_batch_and_keeps_no_object_of_a_closed_one() {
    let tpm = kf_testkit::SoftwareTpm::new();
    let factory = Factory::new(&["--tpm", &tpm.address()], STATION_PASSPHRASE, None);
    two_batches(&factory, &|| generations(&names_in(&factory.fleet.path("station/token"))));
}

#[test]
fn asking_again_before_a_quota_was_taken_gives_the_same_keys_and_fresh_ones_are_drawn_when_asked_for() {
    let factory = Factory::in_files();
    let held = || generations(&names_in(&factory.fleet.path("station/token")));
    factory.request("again", &[]).succeeds();
    assert_eq!(held(), [1]);
    factory.create("b-1", "first").succeeds();
    // The same keys: the server says what to do.
    factory.create("b-2", "again").expect_failure().expect_text("station request --fresh");
    factory.request("fresh", &["--fresh"]).expect_success().expect_text("keys of generation 1 are destroyed");
    assert_eq!(held(), [2]);
    factory.create("b-2", "fresh").succeeds();
    factory.run("b-1", "1", &[]).expect_failure().expect_text("keys that this station does not hold");
    assert_eq!(good(&factory.run("b-2", "1", &[])), 1);
    assert_eq!(factory.stands(), [row("b-2", "open", 2)]);
}

#[test]
fn a_batch_that_was_cancelled_is_given_up_by_name_and_its_keys_are_destroyed() {
    let factory = Factory::in_files();
    factory.create("b-1", "first").succeeds();
    assert_eq!(good(&factory.run("b-1", "1", &[])), 1);
    let cancel = ["station", "cancel", "--state", "station", "--batch", "b-1", "--passphrase-file", "pass"];
    factory.tool().run(&cancel).expect_failure().expect_text("--confirm b-1");
    let confirmed = [&cancel[..], &["--confirm", "b-1"]].concat();
    factory.tool().run(&confirmed).expect_success().expect_text("its keys (generation 1) are destroyed");
    factory.tool().run(&confirmed).expect_success().expect_text("had ended before");
    assert_eq!(factory.stands(), [row("b-1", "cancelled", 1)]);
    assert_eq!(generations(&names_in(&factory.fleet.path("station/token"))), Vec::<u64>::new());
    factory.run("b-1", "2", &[]).expect_failure().expect_text("has ended here");
    // What was made before leaves all the same.
    assert_eq!(factory.import("b-1")["merged"], 1);
}

/// Every name and content below a directory.
fn copy(from: &Path, to: &Path) {
    let _copied = fs::remove_dir_all(to);
    Tool::new("cp").run(&["-a", &from.display().to_string(), &to.display().to_string()]).succeeds();
}

#[test]
fn power_cut_after_any_file_of_a_take_or_an_end_leaves_what_the_next_start_finishes() {
    let factory = Factory::in_files();
    let path = |name: &str| factory.fleet.path(name);
    let held = || generations(&names_in(&path("station/token")));
    factory.create("b-1", "first").succeeds();
    copy(&path("station"), &path("asked"));
    assert_eq!(good(&factory.run("b-1", "1", &[])), 1);
    let batch = fs::read_dir(path("station/batches")).unwrap().next().unwrap().unwrap().path();
    let batch = format!("batches/{}", batch.file_name().unwrap().to_str().unwrap());
    // Taking: the files of a batch in the order in which they are written, on the state before; the counters never follow.
    for files in 0..=3 {
        copy(&path("station"), &path("whole"));
        copy(&path("asked"), &path("station"));
        fs::create_dir_all(path(&format!("station/{batch}"))).unwrap();
        for file in &["server-key", "generation", "quota"][..files] {
            fs::copy(path(&format!("whole/{batch}/{file}")), path(&format!("station/{batch}/{file}"))).unwrap();
        }
        // A request before the batch is run again: of one that was taken it never names the keys.
        factory.request(&format!("after-{files}"), &[]).succeeds();
        assert_eq!(held(), if files == 3 { vec![1, 2] } else { vec![1] }, "{files} files");
        let _boards = fs::remove_dir_all(path("boards"));
        assert_eq!(good(&factory.run("b-1", "1", &[])), 1, "{files} files");
        assert_eq!(factory.stands(), [row("b-1", "open", 1)]);
    }
    // Ending: the same, backwards from the end.
    let boards = path("boards");
    copy(&path("station"), &path("open"));
    assert_eq!(good(&factory.run("b-1", "4", &["--final"])), 4);
    assert!(boards.exists());
    copy(&path("station"), &path("ended"));
    let keys: Vec<String> =
        ["authority", "record", "transport"].map(|kind| format!("token/keyfleet-station-{kind}-1")).into();
    let journal_only = |destroyed: usize, marks: &[&str]| {
        copy(&path("ended"), &path("station"));
        for mark in ["ended", "keys-destroyed"] {
            if !marks.contains(&mark) {
                fs::remove_file(path(&format!("station/{batch}/{mark}"))).unwrap();
            }
        }
        for key in &keys[destroyed..] {
            fs::copy(path(&format!("open/{key}")), path(&format!("station/{key}"))).unwrap();
        }
    };
    let is_gone = |what: &str| {
        assert_eq!(factory.stands()[0], row("b-1", "closed", 1), "{what}");
        let left = keys.iter().filter(|key| path(&format!("station/{key}")).exists()).count();
        assert_eq!(left, 0, "{what}");
    };
    // The journal says that it is closed, and nothing else does: by running it again, or by the next request.
    journal_only(0, &[]);
    assert_eq!(good(&factory.close("b-1")), 4);
    is_gone("closed again");
    journal_only(0, &[]);
    factory.request("next", &[]).succeeds();
    is_gone("another request");
    for destroyed in 0..=3 {
        journal_only(destroyed, &["ended"]);
        assert_eq!(factory.stands()[0], row("b-1", "ending", 1));
        assert_eq!(good(&factory.close("b-1")), 4);
        is_gone(&format!("{destroyed} keys destroyed"));
    }
}

#[test]
fn a_batch_whose_keys_are_not_in_the_token_or_whose_directory_is_damaged_is_refused_with_what_to_do() {
    let factory = Factory::in_files();
    factory.create("b-1", "first").succeeds();
    assert_eq!(good(&factory.run("b-1", "1", &[])), 1);
    factory.request("second", &[]).succeeds();
    factory.create("b-2", "second").succeeds();
    assert_eq!(good(&factory.run("b-2", "2", &[])), 1);
    let path = |name: &str| factory.fleet.path(name);
    fs::remove_file(path("station/token/keyfleet-station-record-1")).unwrap();
    let refused = factory.run("b-1", "3", &[]).expect_failure();
    refused.expect_text("generation 1, are not in the station's token").expect_text("station cancel");
    let status = factory.status();
    let batches = path("station/batches");
    let first = fs::read_dir(&batches).unwrap().map(|entry| entry.unwrap().path()).min().unwrap();
    // A generation that this token never drew: its own directory is another station's.
    fs::write(first.join("generation"), "7").unwrap();
    factory.run("b-2", "3", &[]).expect_failure().expect_text("another one, or an old copy");
    for damaged in ["0", "first", ""] {
        fs::write(first.join("generation"), damaged).unwrap();
        let one = ["station", "cancel", "--state", "station", "--batch", "b-1", "--passphrase-file", "pass"];
        factory.tool().run(&one).expect_failure().expect_text("restore the directory of this batch");
        let shown = factory.tool().run(&["station", "status", "--state", "station"]);
        shown.expect_failure().expect_text("b-2").expect_text("restore the directory of this batch");
        // It is in nobody else's way.
        assert!(factory.run("b-2", "3", &[]).success());
    }
    fs::write(first.join("generation"), "1").unwrap();
    assert_eq!(factory.stands(), [row("b-1", "open", 1), row("b-2", "open", 2)], "{status:?}");
}

#[test]
fn two_copies_of_a_station_that_both_make_devices_are_found_when_their_records_meet() {
    let factory = Factory::in_files();
    let path = |name: &str| factory.fleet.path(name);
    factory.create("b-1", "first").succeeds();
    assert_eq!(good(&factory.run("b-1", "1", &[])), 1);
    copy(&path("station"), &path("twin"));
    assert_eq!(good(&factory.run("b-1", "2", &[])), 2);
    assert_eq!(factory.import("b-1")["merged"], 2);
    fs::remove_file(path("b-1.records")).unwrap();
    copy(&path("twin"), &path("station"));
    // Another board gets the number that the first copy gave.
    fs::remove_dir_all(path("boards")).unwrap();
    assert_eq!(good(&factory.run("b-1", "3", &[])), 3);
    let export = ["station", "export", "--state", "station", "--batch", "b-1", "--out", "b-1.records"];
    factory.tool().run(&export).succeeds();
    let merged = factory.fleet.run(&["batch", "import", "b-1", "b-1.records"]);
    merged.expect_failure().expect_text("cloned-station");
    let books = factory.fleet.run(&["--format", "json", "batch", "reconcile", "b-1"]);
    assert!(!books.success() && books.text().contains("made-twice"), "{}", books.text());
}

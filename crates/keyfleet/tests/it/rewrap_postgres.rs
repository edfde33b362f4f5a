//! `keyfleet rewrap --postgres` against a real PostgreSQL: every value of a column is brought along, whoever else writes there.

use std::fs;
use std::path::Path;

use kf_testkit::{Output, Postgres};
use serde_json::json;

use crate::console::{Fleet, Succeeds as _, json as json_of, private};
use crate::rewrap::{decrypted, encrypted, version, with_key};

/// A fleet with a key whose data is in a database.
fn with_database() -> (Fleet, Postgres) {
    let fleet = with_key();
    private(&fleet.path("database.password"), Postgres::PASSWORD);
    (fleet, Postgres::new())
}

fn arguments(database: &Postgres, table: &str, column: &str) -> Vec<String> {
    let words = ["rewrap", "patients", "--postgres", &database.connection(), "--password-file", "database.password"];
    let column = ["--table", table, "--column", column, "--external-aad", "clinic", "--format", "json"];
    words.into_iter().chain(column).map(str::to_owned).collect()
}

fn rewrap(fleet: &Fleet, database: &Postgres, (table, column): (&str, &str), extra: &[&str]) -> Output {
    let arguments = arguments(database, table, column);
    let all: Vec<&str> = arguments.iter().map(String::as_str).chain(extra.iter().copied()).collect();
    fleet.run(&all)
}

fn rotate(fleet: &Fleet) {
    fleet.run(&["encryption-key", "rotate", "patients"]).succeeds();
}

#[test]
fn text_and_bytea_come_along_and_everything_else_in_the_column_stays_as_it_was() {
    let (fleet, database) = with_database();
    let (word, other) = (encrypted(&fleet, "patients", "blood 0"), encrypted(&fleet, "staff", "nurse"));
    rotate(&fleet);
    let newest = encrypted(&fleet, "patients", "blood A");
    database.sql(&format!(
        "CREATE SCHEMA clinic; CREATE TABLE clinic.\"Patient records\" (id bigint PRIMARY KEY, \"Record\" text, raw bytea);
        INSERT INTO clinic.\"Patient records\" VALUES (1, '{word}', '{word}'), (2, NULL, NULL),
            (3, '{{\"a\": \"{word}\", \"b\": \"{word}\", \"c\": \"{other}\"}}', '\\xff00'), (4, '{newest}', '{newest}'),
            (5, 'kfc1.not-one', 'kfc1.not-one'), (6, '', ''), (-7, 'öäü {word}', '{other}');"
    ));
    let all = "SELECT id, \"Record\", encode(raw, 'escape') FROM clinic.\"Patient records\" ORDER BY id";
    let before = database.sql(all);
    let table = "clinic.Patient records";
    let counted = json_of(&rewrap(&fleet, &database, (table, "Record"), &["--dry-run"]).expect_success());
    assert_eq!((&counted["by_version"], &counted["rows"]), (&json!({"1": 4, "2": 1}), &json!(7)));
    assert_eq!(database.sql(all), before, "a dry run changes nothing");

    let done = json_of(&rewrap(&fleet, &database, (table, "Record"), &[]).expect_success());
    assert_eq!((&done["changed"], &done["rows_changed"], &done["nulls"]), (&json!(4), &json!(3), &json!(1)), "{done}");
    assert_eq!((&done["other_keys"], &done["newest"]), (&json!(1), &json!(1)), "{done}");
    let done = json_of(&rewrap(&fleet, &database, (table, "raw"), &[]).expect_success());
    assert_eq!((&done["changed"], &done["other_keys"]), (&json!(1), &json!(1)), "{done}");
    let field = |id: i32, column: &str| {
        database.sql(&format!("SELECT {column} FROM clinic.\"Patient records\" WHERE id = {id}"))
    };
    for text in [field(1, "\"Record\""), field(1, "convert_from(raw, 'UTF8')")] {
        assert_eq!((version(&text), decrypted(&fleet, &text)), (2, "blood 0".to_owned()));
    }
    assert!(field(-7, "\"Record\"").starts_with("öäü kfc1."));
    assert_eq!(field(3, "encode(raw, 'hex')"), "ff00");
    assert_eq!((field(5, "\"Record\""), field(2, "\"Record\" IS NULL")), ("kfc1.not-one".into(), "t".into()));
    assert!(field(3, "\"Record\"").contains(&other));
    let again = json_of(&rewrap(&fleet, &database, (table, "Record"), &[]).expect_success());
    assert_eq!((&again["changed"], &again["newest"]), (&json!(0), &json!(5)), "{again}");
    let rest = json_of(&rewrap(&fleet, &database, (table, "Record"), &["--after", "3", "--dry-run"]).expect_success());
    assert_eq!(rest["rows"], 3);
}

#[test]
fn a_run_that_is_killed_between_two_pages_is_finished_by_the_next_and_no_writer_loses_anything() {
    let (fleet, database) = with_database();
    let word = encrypted(&fleet, "patients", "x");
    rotate(&fleet);
    database.sql(&format!(
        "CREATE TABLE t (id int PRIMARY KEY, c text);
        INSERT INTO t SELECT g, '{word}' FROM generate_series(1, 600) g;"
    ));
    // Somebody holds a row of a later page: the run stands still there, with the pages before it done.
    let mut holder = database.start_sql("BEGIN; SELECT 'held' FROM t WHERE id = 400 FOR UPDATE; SELECT pg_sleep(600)");
    let locked = "SELECT count(*) FROM pg_locks l JOIN pg_class c ON c.oid = l.relation
        WHERE c.relname = 't' AND l.mode = 'RowShareLock'";
    while database.sql(locked) == "0" {
        assert!(holder.is_alive(), "{}", holder.printed());
    }
    let data = fleet.data();
    let mut all = vec!["--data".to_owned(), data.to_str().unwrap().to_owned()];
    all.extend(arguments(&database, "t", "c"));
    let mut run = fleet.tool().without_inherited_files().start(&all);
    let waits = "SELECT count(*) FROM pg_stat_activity
        WHERE application_name = 'keyfleet rewrap' AND wait_event_type = 'Lock'";
    while database.sql(waits) == "0" {
        assert!(run.is_alive(), "{}", run.printed());
    }
    drop(run);
    let old = format!("SELECT count(*) FROM t WHERE c = '{word}'");
    let left: u32 = database.sql(&old).parse().unwrap();
    assert!((1..600).contains(&left), "pages before the held row are done, the others are not: {left}");
    database.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE '%pg_sleep%' AND pid <> pg_backend_pid()");
    drop(holder);

    // Writers go on while the next run works.
    let writer = database.start_sql(
        "DO $$ BEGIN FOR i IN 1..3000 LOOP UPDATE t SET c = c || '.' WHERE id = 1 + i % 600; COMMIT; END LOOP; END $$",
    );
    while rewrap(&fleet, &database, ("t", "c"), &[]).code == Some(6) {}
    assert!(writer.wait().success());
    rewrap(&fleet, &database, ("t", "c"), &[]).succeeds();
    let lost = "SELECT count(*) FROM t WHERE c NOT LIKE 'kfc1.%.....' OR c LIKE '%......'";
    assert_eq!(database.sql(lost), "0", "each row was written five times, and has five marks");
    assert_eq!(database.sql(&format!("SELECT count(*) FROM t WHERE c LIKE '{word}%'")), "0");
    let text = database.sql("SELECT rtrim(c, '.') FROM t WHERE id = 400");
    assert_eq!((version(&text), decrypted(&fleet, &text)), (2, "x".to_owned()));
}

#[test]
fn a_ciphertext_that_is_bound_to_its_row_opens_there_alone_and_a_refused_one_is_named_by_its_key() {
    let (fleet, database) = with_database();
    fs::write(fleet.path("plain"), "x").unwrap();
    let bound = |name: &str| {
        let aad = format!("patient {name}");
        let encrypt = ["encrypt", "patients", "plain", "--external-aad", &aad];
        fleet.run_as("clinic.toml", &encrypt).expect_success().stdout_text().trim().to_owned()
    };
    let (ann, bob) = (bound("ann"), bound("bob"));
    rotate(&fleet);
    database.sql(&format!(
        "CREATE TABLE t (name text UNIQUE NOT NULL, c text, free text);
        INSERT INTO t VALUES ('ann', '{ann}'), ('bob', '{bob}'), ('cid', '{bob}');"
    ));
    let by_row = ["--key-column", "name", "--external-aad", "patient {key}"];
    let connection = database.connection();
    let run = |extra: &[&str]| {
        let words = ["rewrap", "patients", "--postgres", &connection, "--password-file", "database.password"];
        fleet.run(&[&words[..], &["--table", "t", "--column", "c", "--format", "json"], &by_row, extra].concat())
    };
    let refused = run(&[]);
    assert!(refused.code == Some(5) && refused.stderr_text().contains("key cid"), "{}", refused.text());
    assert_eq!(database.sql("SELECT count(*) FROM t WHERE c LIKE '%'"), "3");
    assert_eq!(database.sql("SELECT c FROM t WHERE name = 'ann'"), ann, "nothing of its page was changed");
    let kept = run(&["--keep-refused"]);
    let said = json_of(&kept);
    assert_eq!((kept.code, &said["changed"], &said["refused"]), (Some(5), &json!(2), &json!(1)), "{}", kept.text());
    assert_eq!(database.sql("SELECT c FROM t WHERE name = 'cid'"), bob);
    for (arguments, because) in [
        (vec!["--table", "t", "--column", "c"], "no primary key"),
        (vec!["--table", "t", "--column", "c", "--key-column", "free"], "may hold a value twice"),
        (vec!["--table", "t", "--column", "nothing"], "no column nothing"),
        (vec!["--table", "nothing", "--column", "c"], "no table nothing"),
    ] {
        let words = ["rewrap", "patients", "--postgres", &connection, "--password-file", "database.password"];
        let refused = fleet.run(&[&words[..], &arguments].concat());
        assert!(refused.code == Some(2) && refused.stderr_text().contains(because), "{}", refused.text());
    }
    let with_password = format!("{connection} password=secret");
    let told = fleet.run(&["rewrap", "patients", "--postgres", &with_password, "--table", "t", "--column", "c"]);
    assert!(told.code == Some(2) && told.stderr_text().contains("holds a password"), "{}", told.text());
    assert!(!told.text().contains("secret"));
}

#[test]
fn another_host_is_reached_with_tls_and_by_the_name_in_its_certificate_alone() {
    let (fleet, _) = with_database();
    let openssl = |arguments: &[&str]| {
        kf_testkit::Tool::new("openssl").directory(fleet.scratch.path()).run(arguments).succeeds();
    };
    let key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-noenc"];
    openssl(
        &[&["req", "-x509", "-days", "2", "-subj", "/CN=ca", "-keyout", "ca.key", "-out", "ca.pem"][..], &key].concat(),
    );
    openssl(&[&["req", "-new", "-subj", "/CN=db", "-keyout", "db.key", "-out", "db.csr"][..], &key].concat());
    fs::write(fleet.path("db.ext"), "subjectAltName=IP:127.0.0.1\n").unwrap();
    let issue = ["x509", "-req", "-in", "db.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2"];
    openssl(&[&issue[..], &["-extfile", "db.ext", "-out", "db.pem"]].concat());
    let read = |name: &str| fs::read_to_string(Path::new(&fleet.path(name))).unwrap();
    let database = Postgres::with_tls(&read("db.pem"), &read("db.key"));
    let word = encrypted(&fleet, "patients", "x");
    rotate(&fleet);
    database.sql(&format!("CREATE TABLE t (id int PRIMARY KEY, c text); INSERT INTO t VALUES (1, '{word}')"));
    let over = |host: &str, extra: &[&str]| {
        let connection = format!("host={host} port={} dbname=postgres user={}", database.port(), Postgres::USER);
        let words = ["rewrap", "patients", "--postgres", &connection, "--password-file", "database.password"];
        fleet.run(&[&words[..], &["--table", "t", "--column", "c", "--external-aad", "clinic"], extra].concat())
    };
    let plain = over("db.example", &[]);
    assert!(plain.code == Some(2) && plain.stderr_text().contains("--tls-ca"), "{}", plain.text());
    let other_name = over("localhost", &["--tls-ca", "ca.pem"]).expect_failure();
    assert!(other_name.stderr_text().contains("certificate"), "{}", other_name.text());
    over("127.0.0.1", &["--tls-ca", "ca.pem"]).succeeds();
    assert_eq!(version(&database.sql("SELECT c FROM t")), 2);
}

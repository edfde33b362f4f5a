//! What a power cut leaves: the database and its write-ahead log as they are on disk at some moment.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use kf_access::Visibility;
use kf_key::DeviceState;
use kf_store::certificate::IssuanceOutcome;
use kf_store::{Options, Store};

use crate::fixture::{
    certificate, device, device_id, done, entry, issuance, open, populate, register, serial, small_reserve,
};

fn copy(from: &Path, to: &Path) {
    for name in ["registry.db", "registry.db-wal"] {
        std::fs::copy(from.join(name), to.join(name)).unwrap();
    }
}

/// Every certificate has its log entry, its key binding and an active device; every entry about one has the certificate.
fn check_consistent(store: &Store, devices: u64) -> u64 {
    let mut found = 0;
    for number in 1..=devices {
        let there = store.certificate(serial(number), &Visibility::Fleet).unwrap().is_some();
        let subject = format!("cert:{}", serial(number));
        let entries = store.log_list(Some(&subject), &Visibility::Fleet, &Default::default()).unwrap().items;
        assert_eq!(entries.len(), usize::from(there), "certificate {number}");
        let holder = store.key_standing(&crate::fixture::random(number)).unwrap().holder;
        assert_eq!(holder.is_some(), there, "certificate {number}");
        if let Some(device) = store.device(device_id(number), &Visibility::Fleet).unwrap() {
            assert_eq!(device.state == DeviceState::Active, there, "device {number}");
        } else {
            assert!(!there);
        }
        found += u64::from(there);
    }
    let (good, ..) = store.certificate_counts(&Visibility::Fleet).unwrap();
    let authorities = u64::try_from(store.authorities().unwrap().len()).unwrap();
    assert_eq!(good, found + authorities);
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_before_a_power_cut_is_there_with_its_log_entry() {
    const DEVICES: u64 = 150;
    let directory = tempfile::tempdir().unwrap();
    let store = open(&directory, small_reserve());
    populate(&store).await;
    register(&store, DEVICES).await;
    let acknowledged = Arc::new(AtomicU64::new(0));
    let tasks: Vec<_> = (0..5)
        .map(|worker| {
            let (store, acknowledged) = (store.clone(), acknowledged.clone());
            tokio::spawn(async move {
                for number in (1..=DEVICES).filter(|number| number % 5 == worker) {
                    let wanted = issuance(certificate(number, Some(&device(number))), DeviceState::Registered);
                    let entry = entry("certificate.issue", None, &[format!("cert:{}", serial(number))]);
                    let outcome = store.record_issuance(wanted, entry).await.unwrap();
                    assert!(matches!(outcome, IssuanceOutcome::Recorded { .. }));
                    acknowledged.fetch_add(1, Ordering::SeqCst);
                }
            })
        })
        .collect();
    let mut cuts = Vec::new();
    while tasks.iter().any(|task| !task.is_finished()) {
        let cut = tempfile::tempdir().unwrap();
        let before = acknowledged.load(Ordering::SeqCst);
        copy(directory.path(), cut.path());
        cuts.push((before, cut));
        tokio::task::yield_now().await;
    }
    for task in tasks {
        task.await.unwrap();
    }
    assert!(cuts.len() > 3, "the work was over before it could be cut");
    let last = cuts.len() - 1;
    for (number, (before, cut)) in cuts.iter().enumerate() {
        if number % (last / 8 + 1) != 0 && number != last {
            continue;
        }
        let survivor = open(cut, small_reserve());
        let found = check_consistent(&survivor, DEVICES);
        assert!(found >= *before, "{before} were acknowledged, {found} are there");
        // And the survivor goes on.
        survivor.append_log(done()).await.unwrap();
    }
}

#[tokio::test]
async fn a_write_ahead_log_torn_anywhere_leaves_a_whole_number_of_groups() {
    const DEVICES: u64 = 12;
    let directory = tempfile::tempdir().unwrap();
    let store = open(&directory, Options { group: 2, ..small_reserve() });
    populate(&store).await;
    register(&store, DEVICES).await;
    for number in 1..=DEVICES {
        let wanted = issuance(certificate(number, Some(&device(number))), DeviceState::Registered);
        let entry = entry("certificate.issue", None, &[format!("cert:{}", serial(number))]);
        store.record_issuance(wanted, entry).await.unwrap();
    }
    let whole = std::fs::metadata(directory.path().join("registry.db-wal")).unwrap().len();
    let mut seen = std::collections::BTreeSet::new();
    for cut_at in (whole / 2..=whole).step_by(usize::try_from(whole / 60).unwrap()) {
        let cut = tempfile::tempdir().unwrap();
        copy(directory.path(), cut.path());
        let wal = std::fs::OpenOptions::new().write(true).open(cut.path().join("registry.db-wal")).unwrap();
        wal.set_len(cut_at).unwrap();
        let survivor = open(&cut, small_reserve());
        seen.insert(check_consistent(&survivor, DEVICES));
    }
    assert!(seen.len() > 3, "the cuts hit too few different moments: {seen:?}");
}

#[tokio::test]
async fn a_log_cut_out_of_the_file_is_noticed_at_start() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(&directory, small_reserve());
    store.append_log(vec![done(); 300]).await.unwrap();
    drop(store);
    let path = directory.path().join("registry.db");
    let connection = rusqlite::Connection::open(&path).unwrap();
    connection.execute("DELETE FROM log WHERE idx >= 200", []).unwrap();
    drop(connection);
    let result = Store::open(&path, small_reserve());
    assert!(matches!(result, Err(kf_store::StoreError::Corrupt { .. })), "{result:?}");
}

/// Names the directory in which the child of a test works.
const CHILD_DIRECTORY: &str = "KF_STORE_CRASH_CHILD";
const CHILD_DEVICES: u64 = 40;

/// What the child does until something stops it: issue, and say aloud what was acknowledged.
async fn issue_until_stopped(directory: &Path) {
    let store = Store::open(&directory.join("registry.db"), small_reserve()).unwrap();
    populate(&store).await;
    register(&store, CHILD_DEVICES).await;
    for number in 1..=CHILD_DEVICES {
        let wanted = issuance(certificate(number, Some(&device(number))), DeviceState::Registered);
        let entry = entry("certificate.issue", None, &[format!("cert:{}", serial(number))]);
        match store.record_issuance(wanted, entry).await {
            Ok(_) => println!("durable: {number}"),
            Err(error) => {
                println!("refused {error:?}");
                println!("then {:?}", store.append_log(done()).await.unwrap_err());
                println!("health {:?}", store.health());
                return;
            }
        }
    }
}

/// Runs `test` of this binary as a child below strace with faults injected; what it said.
fn child_below_strace(test: &str, directory: &Path, fault: &str) -> String {
    let output = std::process::Command::new("strace")
        .args(["-f", "-qqq", "-o", "/dev/null", "-e", &format!("inject={fault}")])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(CHILD_DIRECTORY, directory)
        .output()
        .expect("strace is needed: apt-get install strace");
    String::from_utf8(output.stdout).unwrap()
}

fn acknowledged(said: &str) -> u64 {
    u64::try_from(said.matches("durable: ").count()).unwrap()
}

#[tokio::test]
async fn a_process_killed_at_any_write_or_flush_loses_nothing_that_it_acknowledged() {
    if let Some(directory) = std::env::var_os(CHILD_DIRECTORY) {
        return issue_until_stopped(Path::new(&directory)).await;
    }
    let test = "crash::a_process_killed_at_any_write_or_flush_loses_nothing_that_it_acknowledged";
    let faults = [60, 75, 82].map(|when| format!("fsync,fdatasync:signal=KILL:when={when}"));
    let torn = [700, 900, 1_101, 1_250].map(|when| format!("pwrite64:signal=KILL:when={when}"));
    let mut interrupted = 0;
    for fault in faults.iter().chain(&torn) {
        let directory = tempfile::tempdir().unwrap();
        let said = child_below_strace(test, directory.path(), fault);
        let before = acknowledged(&said);
        interrupted += u64::from(before > 0 && before < CHILD_DEVICES);
        let survivor = open(&directory, small_reserve());
        let found = check_consistent(&survivor, CHILD_DEVICES);
        assert!(found >= before, "{fault}: {before} were acknowledged, {found} are there");
    }
    assert!(interrupted >= 4, "too few children were killed at work: {interrupted}");
}

#[tokio::test]
async fn a_flush_that_fails_is_never_acknowledged_and_stops_issuance() {
    if let Some(directory) = std::env::var_os(CHILD_DIRECTORY) {
        return issue_until_stopped(Path::new(&directory)).await;
    }
    let test = "crash::a_flush_that_fails_is_never_acknowledged_and_stops_issuance";
    let directory = tempfile::tempdir().unwrap();
    let said = child_below_strace(test, directory.path(), "fsync,fdatasync:error=EIO:when=60");
    let before = acknowledged(&said);
    assert!(before > 0 && before < CHILD_DEVICES, "{said}");
    assert!(said.contains("refused Io"), "{said}");
    // One flush failed; the next would have succeeded, and is not tried.
    assert!(said.contains("then Fenced"), "{said}");
    let survivor = open(&directory, small_reserve());
    assert!(check_consistent(&survivor, CHILD_DEVICES) >= before);
}

//! The memory of a process that has restored a backup, searched for the key that opened it.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};

use kf_age::Identity;
use kf_api::backup::NewBackupKey;
use kf_fleet::{BackupKeys, DataDir, RestoreOptions, restore};
use kf_key::SecretBytes;
use kf_testkit::{KnownSecret, search_memory};

use crate::backup::nightly;
use crate::crash::SPAWNING;
use crate::scratch::Scratch;

/// Names the directory in which the child of the test below works.
const CHILD: &str = "KF_FLEET_MEMORY_CHILD";
const TEST: &str = "memory::what_opened_a_backup_is_in_memory_no_more_once_it_is_restored";
const READY: &str = "restored";

fn read(path: &Path) -> SecretBytes {
    // Read in one piece of the right size: what a reader that grows leaves behind would be the test's own.
    let mut file = std::fs::File::open(path).unwrap();
    let octets = usize::try_from(file.metadata().unwrap().len()).unwrap();
    SecretBytes::fill(octets, |place| file.read_exact(place).unwrap())
}

/// Restores, lets go of the key, keeps another secret, and waits to be looked at.
fn child(directory: &Path) {
    let keys =
        BackupKeys::open(&[read(&directory.join("key.sealed")).expose().to_vec()], &[read(&directory.join("alice"))]);
    let options = RestoreOptions {
        from: std::fs::read_dir(directory.join("backups")).unwrap().next().unwrap().unwrap().path(),
        at: None,
        keys: keys.unwrap(),
        witness: None,
        accept_loss: true,
        dry_run: false,
    };
    assert!(restore(&DataDir::new(directory.join("restored")), &options).unwrap().done);
    drop(options);
    let kept = read(&directory.join("kept"));
    std::io::stdout().write_all(format!("\n{READY}\n").as_bytes()).unwrap();
    let _the_parent_goes = std::io::stdin().read(&mut [0]);
    drop(kept);
}

#[tokio::test]
async fn what_opened_a_backup_is_in_memory_no_more_once_it_is_restored() {
    if let Some(directory) = std::env::var_os(CHILD) {
        return child(Path::new(&directory));
    }
    let scratch = Scratch::new().await;
    let (key, alice) = (Identity::generate(), Identity::generate());
    let new = NewBackupKey { recipient: key.recipient().to_string(), sealed_to: vec![alice.recipient().to_string()] };
    scratch.fleet.backup_key_create(&scratch.owner, new).await.unwrap();
    scratch.fleet.backup_create(&scratch.owner, nightly()).await.unwrap();
    let closed = scratch.closed().await;
    std::fs::rename(closed.path().join("data/backups"), closed.path().join("backups")).unwrap();
    let kept: [u8; 32] = kf_crypto::random_array().unwrap();
    let mut sealed = Vec::new();
    kf_age::seal(&[alice.recipient()], key.to_file().expose(), &mut sealed).unwrap();
    std::fs::write(closed.path().join("key.sealed"), sealed).unwrap();
    std::fs::write(closed.path().join("alice"), alice.to_file().expose()).unwrap();
    std::fs::write(closed.path().join("kept"), kept).unwrap();

    let turn = SPAWNING.write().await;
    let mut running = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", TEST, "--nocapture", "--test-threads=1"])
        .env(CHILD, closed.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    drop(turn);
    let mut lines = BufReader::new(running.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap() == READY), "the child did not restore");
    // The identities as text: what follows the prefix that all have in common.
    let text = |identity: &Identity| {
        let file = identity.to_file();
        let text = String::from_utf8(file.expose().to_vec()).unwrap();
        text.split("AGE-SECRET-KEY-1").nth(1).unwrap().trim().to_owned()
    };
    let known = [
        KnownSecret::new("kept", &kept),
        KnownSecret::new("backup key, as text", text(&key).as_bytes()),
        KnownSecret::new("backup key", key.octets().unwrap().expose()),
        KnownSecret::new("alice's identity, as text", text(&alice).as_bytes()),
        KnownSecret::new("alice's identity", alice.octets().unwrap().expose()),
    ];
    let found = search_memory(running.id(), &known);
    drop(running.stdin.take());
    assert!(running.wait().unwrap().success());
    assert!(found.count("kept") > 0, "the search sees what is there");
    let left: Vec<_> = found.findings.iter().filter(|finding| finding.secret != "kept").collect();
    assert!(left.is_empty(), "{left:?}");
}

//! Children that are killed at one durable step after the other.

use std::io::Read as _;
use std::path::Path;
use std::process::{Command, Stdio};

use kf_testkit::{CRASH_AT, crash_library};

use tokio::sync::RwLock;

use crate::rollback::copy;

/// Held for writing while a process starts: until it has become another program it has a copy of every descriptor, and so the
/// lock of every registry that is open; held for reading from closing a registry to opening it again.
pub(crate) static SPAWNING: RwLock<()> = RwLock::const_new(());

/// Runs `test` of this binary, which does something in the directory that the variable names, and kills it at the `when`-th call that
/// makes something durable or visible; whether it was killed.
pub(crate) async fn killed_child(test: &str, (variable, directory): (&str, &Path), when: u32) -> bool {
    let turn = SPAWNING.write().await;
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(variable, directory)
        .env("LD_PRELOAD", crash_library())
        .env(CRASH_AT, when.to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A spawned process lets go of the files that it inherited a moment after its parent goes on; with its first word it has.
    let mut stdout = child.stdout.take().unwrap();
    let _is_dead = stdout.read(&mut [0]).unwrap();
    child.stdout = Some(stdout);
    drop(turn);
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let complained = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() || !complained.contains("panicked"), "{said}{complained}");
    !output.status.success()
}

/// A copy of a closed fleet in a directory of its own.
pub(crate) fn copied(from: &Path) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    copy(from, directory.path());
    directory
}

//! Children that are killed at one durable step after the other: by a library loaded in front of libc that counts the calls of
//! all threads together, which no tracer does.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use kf_testkit::Tool;

use tokio::sync::RwLock;

use crate::rollback::copy;

/// Held for writing while a process starts: until it has become another program it has a copy of every descriptor, and so the
/// lock of every registry that is open; held for reading from closing a registry to opening it again.
pub(crate) static SPAWNING: RwLock<()> = RwLock::const_new(());

/// Kills the process instead of the call whose number is in `KF_CRASH_AT`. The others go through.
const SHIM: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/types.h>
static atomic_long calls;
static void step(void) {
    const char *at = getenv("KF_CRASH_AT");
    if (at && atomic_fetch_add(&calls, 1) + 1 == atol(at)) { raise(SIGKILL); }
}
#define WRAP(name, parameters, arguments) \
    int name parameters { static int (*next) parameters; \
        if (!next) { *(void **)&next = dlsym(RTLD_NEXT, #name); } step(); return next arguments; }
WRAP(fsync, (int fd), (fd))
WRAP(fdatasync, (int fd), (fd))
WRAP(rename, (const char *from, const char *to), (from, to))
WRAP(unlink, (const char *path), (path))
WRAP(ftruncate, (int fd, off_t length), (fd, length))
WRAP(ftruncate64, (int fd, off64_t length), (fd, length))
"#;

/// The library, compiled once.
fn shim() -> &'static Path {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        // Used until the last test ends, and so never removed by the process that made it.
        let directory = tempfile::tempdir().unwrap().keep();
        let (source, library) = (directory.join("crash.c"), directory.join("crash.so"));
        std::fs::write(&source, SHIM).unwrap();
        let text = |path: &Path| path.to_str().unwrap().to_owned();
        let arguments = ["-shared", "-fPIC", "-o", &text(&library), &text(&source), "-ldl"];
        drop(Tool::new("cc").run(&arguments).expect_success());
        library
    })
}

/// Runs `test` of this binary, which does something in the directory that the variable names, and kills it at the `when`-th call that
/// makes something durable or visible; whether it was killed.
pub(crate) async fn killed_child(test: &str, (variable, directory): (&str, &Path), when: u32) -> bool {
    let turn = SPAWNING.write().await;
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(variable, directory)
        .env("LD_PRELOAD", shim())
        .env("KF_CRASH_AT", when.to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
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

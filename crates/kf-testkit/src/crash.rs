//! Programs that are killed at one durable step after the other, or stopped at each of them to be looked at: by a library loaded in front of
//! libc that counts the calls of all threads together, which no tracer does.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use crate::Tool;

/// The variable with the number of the call at which the process is killed.
pub const CRASH_AT: &str = "KF_CRASH_AT";

/// The variable with the process whose child is stopped.
pub(crate) const STOP_FOR: &str = "KF_STOP_FOR";

/// Kills the process instead of the call whose number is in `KF_CRASH_AT`. The others go through. The child of the process in `KF_STOP_FOR`
/// stops before each call and when it ends; its own children go on.
const SHIM: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/types.h>
#include <unistd.h>
static void stop(void) {
    const char *parent = getenv("KF_STOP_FOR");
    if (parent && getppid() == atol(parent)) { raise(SIGSTOP); }
}
static void __attribute__((destructor)) end(void) { stop(); }
static atomic_long calls;
static void step(void) {
    const char *at = getenv("KF_CRASH_AT");
    if (at && atomic_fetch_add(&calls, 1) + 1 == atol(at)) { raise(SIGKILL); }
    stop();
}
#define WRAP(name, parameters, arguments) \
    int name parameters { static int (*next) parameters; \
        if (!next) { *(void **)&next = dlsym(RTLD_NEXT, #name); } step(); return next arguments; }
WRAP(fsync, (int fd), (fd))
WRAP(fdatasync, (int fd), (fd))
WRAP(rename, (const char *from, const char *to), (from, to))
WRAP(link, (const char *from, const char *to), (from, to))
WRAP(unlink, (const char *path), (path))
WRAP(remove, (const char *path), (path))
WRAP(ftruncate, (int fd, off_t length), (fd, length))
WRAP(ftruncate64, (int fd, off64_t length), (fd, length))
"#;

/// The library to name in `LD_PRELOAD`, compiled once.
///
/// # Panics
/// Without a C compiler.
#[must_use]
pub fn crash_library() -> &'static Path {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    LIBRARY.get_or_init(|| preloaded("crash", SHIM))
}

/// Compiles a library that is loaded in front of libc.
///
/// # Panics
/// Without a C compiler.
pub(crate) fn preloaded(name: &str, text: &str) -> PathBuf {
    // Used until the last test ends, and so never removed by the process that made it.
    let directory = crate::scratch().keep();
    let (source, library) = (directory.join(format!("{name}.c")), directory.join(format!("{name}.so")));
    std::fs::write(&source, text).expect("a scratch directory can be written");
    let text = |path: &Path| path.to_str().expect("a scratch path is text").to_owned();
    let arguments = ["-shared", "-fPIC", "-o", &text(&library), &text(&source), "-ldl"];
    drop(Tool::new("cc").run(&arguments).expect_success());
    library
}

//! What a C programmer gets: the installed library, found by pkg-config, compiled without a warning, run.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a test fails by panicking")]

#[allow(clippy::expect_used, reason = "of the tests of kf-flash")]
#[path = "../../../kf-flash/tests/it/chip_flash.rs"]
mod chip_flash;
mod est_server;
mod header;
mod host;
mod life;
mod nvs;
mod refusals;
mod reset;
mod sessions;
mod vectors;

use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use kf_testkit::Tool;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap().to_path_buf()
}

/// Where the library is installed: once, by the command that a person types.
fn prefix() -> &'static Path {
    static PREFIX: OnceLock<PathBuf> = OnceLock::new();
    PREFIX.get_or_init(|| {
        let prefix = Path::new(env!("CARGO_TARGET_TMPDIR")).join("c-library");
        let cargo = Tool::at(Path::new(env!("CARGO"))).directory(&root()).deadline(Duration::from_secs(1_200));
        let place = prefix.to_str().unwrap();
        drop(cargo.run(&["xtask", "c-library", "--prefix", place]).expect_success());
        prefix
    })
}

fn pkg_config() -> Vec<String> {
    let tool = Tool::new("pkg-config").env("PKG_CONFIG_PATH", prefix().join("lib/pkgconfig"));
    let flags = tool.run(&["--cflags", "--libs", "keyfleet"]).expect_success().stdout_text();
    flags.split_whitespace().map(str::to_owned).collect()
}

/// Compiles C (or C++) files into a program in `folder`, which is searched for headers too.
fn compile(compiler: &str, standard: &str, folder: &Path, sources: &[PathBuf]) -> Tool {
    let program = folder.join("program");
    let mut arguments = vec![standard.to_owned()];
    arguments.extend(["-Wall", "-Wextra", "-Wpedantic", "-Werror", "-O1", "-g"].map(str::to_owned));
    // Whatever is written beside an array of the program ends it.
    arguments.extend(["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-o"].map(str::to_owned));
    arguments.extend([program.to_str().unwrap().to_owned(), format!("-I{}", folder.display())]);
    arguments.extend(sources.iter().map(|source| source.to_str().unwrap().to_owned()));
    arguments.extend(pkg_config());
    drop(Tool::new(compiler).directory(folder).run(&arguments).expect_success());
    Tool::at(&program).directory(folder).env("ASAN_OPTIONS", "detect_leaks=0")
}

fn c_file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/c").join(name)
}

//! `cargo xtask c-library`: builds and installs what a C firmware links: header, static library, pkg-config file.

use std::fs;
use std::path::{Path, PathBuf};

use crate::firmware;
use crate::process::{Failure, Result, cargo, run, target_directory, workspace_root};

/// What `cargo xtask c-library` is asked for.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Where to install: `include`, `lib` and `lib/pkgconfig` below it.
    #[arg(long)]
    prefix: PathBuf,
    /// A microcontroller, built by Debian's compiler; this machine when not given.
    #[arg(long, value_parser = [firmware::CORTEX_M4])]
    target: Option<String>,
    /// An algorithm of sealed payloads to build in, given once for each; all when not given. One alone saves flash.
    #[arg(long = "algorithm", value_parser = ["aes-128-ccm", "aes-128-gcm", "chacha20-poly1305"])]
    algorithms: Vec<String>,
}

/// What the standard library needs of the system; the microcontroller's library has none.
const LIBRARIES_OF_THE_HOST: &str = " -lpthread -ldl -lm";

/// Builds and installs.
///
/// # Errors
/// When something is missing, does not build, or cannot be written.
pub(crate) fn install(arguments: &Arguments) -> Result<()> {
    let (library, libraries) = match &arguments.target {
        None => (build_for_host(&arguments.algorithms)?, LIBRARIES_OF_THE_HOST),
        Some(target) => (firmware::build_c_library(target, &arguments.algorithms)?, ""),
    };
    install_into(&arguments.prefix, &library, libraries)?;
    println!("installed libkeyfleet.a, keyfleet.h and keyfleet.pc below {}", arguments.prefix.display());
    Ok(())
}

fn build_for_host(algorithms: &[String]) -> Result<PathBuf> {
    let mut build = cargo();
    build.args(["rustc", "--quiet", "--locked", "--profile", "c-library", "--package", "kf-ffi", "--lib"]);
    run(build.args(features(algorithms)).args(["--crate-type", "staticlib"]), "read the compiler's message above")?;
    Ok(target_directory().join("c-library/libkf_ffi.a"))
}

/// The features of a library that has these algorithms alone; none: all.
pub(crate) fn features(algorithms: &[String]) -> Vec<String> {
    if algorithms.is_empty() {
        return Vec::new();
    }
    vec!["--no-default-features".to_owned(), "--features".to_owned(), algorithms.join(",")]
}

/// Copies header and library, and writes the pkg-config file, which finds the others from where it lies.
///
/// # Errors
/// When a file cannot be written.
pub(crate) fn install_into(prefix: &Path, library: &Path, libraries: &str) -> Result<()> {
    let header = workspace_root().join("crates/kf-ffi/include/keyfleet.h");
    copy(&header, &prefix.join("include/keyfleet.h"))?;
    copy(library, &prefix.join("lib/libkeyfleet.a"))?;
    let text = package_file(libraries);
    let place = prefix.join("lib/pkgconfig/keyfleet.pc");
    make_folder_of(&place)?;
    fs::write(&place, text).map_err(|error| cannot_write(&place, &error))
}

fn package_file(libraries: &str) -> String {
    let version = env!("CARGO_PKG_VERSION");
    format!(
        "prefix=${{pcfiledir}}/../..\nincludedir=${{prefix}}/include\nlibdir=${{prefix}}/lib\n\nName: keyfleet\n\
         Description: keys of a device: health-tested noise, journaled storage, enrolment, sealed payloads, destruction\n\
         Version: {version}\nCflags: -I${{includedir}}\nLibs: -L${{libdir}} -lkeyfleet{libraries}\n"
    )
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    make_folder_of(to)?;
    fs::copy(from, to).map(|_octets| ()).map_err(|error| cannot_write(to, &error))
}

fn make_folder_of(path: &Path) -> Result<()> {
    path.parent().map_or(Ok(()), fs::create_dir_all).map_err(|error| cannot_write(path, &error))
}

fn cannot_write(path: &Path, error: &std::io::Error) -> Failure {
    Failure::new(format!("cannot write {}: {error}", path.display()), "choose another --prefix, or make it writable")
}

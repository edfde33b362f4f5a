//! `cargo xtask firmware`: builds what runs on a microcontroller and runs it in the emulator.
//!
//! `core` for a microcontroller is compiled from source, which takes a compiler and a source of one version: Debian's
//! rustc-web, cargo-web and rust-web-src. They are called by their full paths and get an environment without the traces
//! of the toolchain that runs this task, which in turn never sees them.

use std::path::PathBuf;
use std::process::Command;

use crate::prerequisites;
use crate::process::{Failure, Result, cargo, command, run, target_directory, workspace_root};

const CARGO: &str = "/usr/bin/cargo";
const RUSTC: &str = "/usr/bin/rustc";
/// The version that the firmware's figures were taken with.
const VERSION: &str = "1.96.";
const TARGET: &str = "thumbv7em-none-eabihf";

/// The packages of the firmware that are images.
const IMAGES: [&str; 4] = ["core-image", "device-image", "figures-image", "vectors-image"];

/// Variables that would make Debian's cargo use another compiler or other flags than firmware/.cargo/config.toml says.
const FOREIGN: [&str; 10] = [
    "CARGO",
    "CARGO_BUILD_RUSTC",
    "CARGO_BUILD_TARGET",
    "CARGO_ENCODED_RUSTFLAGS",
    "CARGO_TARGET_DIR",
    "RUSTC_WORKSPACE_WRAPPER",
    "RUSTC_WRAPPER",
    "RUSTDOC",
    "RUSTFLAGS",
    "RUSTUP_TOOLCHAIN",
];

/// What `cargo xtask firmware` is asked for.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Build the images and stop.
    #[arg(long)]
    build_only: bool,
    /// Write the measured figures into docs/manual/firmware.md instead of comparing them with it.
    #[arg(long)]
    update: bool,
    /// How the checks are printed: text or json.
    #[arg(long, default_value = "text", value_parser = ["text", "json"])]
    format: String,
}

/// Builds all images, runs them, and holds the results against vectors, limits and the manual.
///
/// # Errors
/// When something is missing, does not build, or does not hold.
pub(crate) fn run_all(arguments: &Arguments) -> Result<()> {
    prerequisites::install_for_firmware()?;
    build()?;
    if arguments.build_only {
        return Ok(());
    }
    let packages = ["--package", "kf-emulator", "--package", "keyfleet"];
    run(cargo().args(["build", "--quiet", "--locked"]).args(packages), "read the compiler's message above")?;
    check(arguments.update, &arguments.format)
}

/// The same, as a step of the test command.
///
/// # Errors
/// As [`run_all`].
pub(crate) fn step() -> Result<()> {
    let formatting = ["fmt", "--manifest-path", "firmware/Cargo.toml", "--all", "--check"];
    run(cargo().args(formatting), "run `cargo fmt --manifest-path firmware/Cargo.toml --all`")?;
    run_all(&Arguments { build_only: false, update: false, format: "text".to_owned() })
}

fn check(update: bool, format: &str) -> Result<()> {
    let mut check = command(target_directory().join("debug/kf-emulator"));
    check.args(["check", "--format", format, "--images"]).arg(images());
    if update {
        check.arg("--update");
    }
    run(&mut check, "each line that does not hold is marked above")
}

/// Where the built images lie.
pub(crate) fn images() -> PathBuf {
    build_folder().join(TARGET).join("release")
}

fn build_folder() -> PathBuf {
    target_directory().join("firmware")
}

fn build() -> Result<()> {
    check_version(CARGO, "cargo-web")?;
    check_version(RUSTC, "rustc-web")?;
    // Each image by itself: built together they would get each other's features, and the core would count all ciphers.
    for image in IMAGES {
        let mut build = debian_cargo();
        build.args(["build", "--quiet", "--release", "--locked", "--package", image, "--target-dir"]);
        run(build.arg(build_folder()), "read the compiler's message above")?;
    }
    Ok(())
}

fn debian_cargo() -> Command {
    let mut cargo = command(CARGO);
    cargo.current_dir(workspace_root().join("firmware"));
    FOREIGN.iter().for_each(|name| {
        cargo.env_remove(name);
    });
    // The packages hold a stable compiler; compiling `core` is a feature of nightly ones, which this admits.
    cargo.env("RUSTC", RUSTC).env("RUSTC_BOOTSTRAP", "1");
    cargo
}

fn check_version(program: &str, package: &str) -> Result<()> {
    let remedy = format!("apt-get install {package}");
    let text = crate::process::output(command(program).arg("--version"), &remedy)?;
    match text.split_whitespace().nth(1) {
        Some(version) if version.starts_with(VERSION) => Ok(()),
        _ => Err(Failure::new(format!("{program} is {}, not {VERSION}x", text.trim()), remedy)),
    }
}

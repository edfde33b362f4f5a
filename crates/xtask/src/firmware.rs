//! `cargo xtask firmware`: builds what runs on a microcontroller and runs it in the emulator.
//!
//! `core` for a microcontroller is compiled from source, which takes a compiler and a source of one version: Debian's
//! rustc-web, cargo-web and rust-web-src. They are called by their full paths and get an environment without the traces
//! of the toolchain that runs this task, which in turn never sees them.

use std::path::PathBuf;
use std::process::Command;

use crate::process::{Failure, Result, cargo, command, run, target_directory, workspace_root};
use crate::{c_library, prerequisites};

const CARGO: &str = "/usr/bin/cargo";
const RUSTC: &str = "/usr/bin/rustc";
/// The version that the firmware's figures were taken with.
const VERSION: &str = "1.96.";

/// A Cortex-M4 or M7 with FPU, as Rust names it.
pub(crate) const CORTEX_M4: &str = "thumbv7em-none-eabihf";

/// What is built, and the packages of the firmware that are images for it.
const TARGETS: [(&str, &[&str]); 1] = [(CORTEX_M4, &["core-image", "device-image", "figures-image", "vectors-image"])];

/// The images in C: the name, and the file with its `main` in examples/c/bare-metal.
const C_IMAGES: [(&str, &str); 2] = [("c-device-image", "device.c"), ("c-vectors-image", "vectors.c")];

/// How C is compiled for a target: as its Rust code is.
const C_FLAGS: &[&str] = &[
    "-std=c11",
    "-Wall",
    "-Wextra",
    "-Wpedantic",
    "-Werror",
    "-Os",
    "-mcpu=cortex-m4",
    "-mthumb",
    "-mfloat-abi=hard",
    "-mfpu=fpv4-sp-d16",
    "-ffunction-sections",
    "-nostartfiles",
    "--specs=nosys.specs",
    "-Wl,--gc-sections,-z,noexecstack",
];

/// Where the power cuts of the test command fall: always at the same places, so that it fails for everybody or nobody.
const SEED_OF_TESTS: u64 = 1;

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

/// Builds the C library for a microcontroller, with these algorithms of sealed payloads or all, and gives its path.
///
/// # Errors
/// When something is missing or does not build.
pub(crate) fn build_c_library(target: &str, algorithms: &[String]) -> Result<PathBuf> {
    prerequisites::install_for_firmware()?;
    check_compiler()?;
    build_package("c-library", target, &c_library::features(algorithms))?;
    Ok(images_of(target).join("libkeyfleet.a"))
}

/// What `cargo xtask firmware` is asked for.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Build the images and stop.
    #[arg(long)]
    build_only: bool,
    /// Write the measured figures into docs/manual/firmware.md instead of comparing them with it.
    #[arg(long)]
    update: bool,
    /// Where the power cuts of the device's life fall; drawn and printed when not given.
    #[arg(long)]
    seed: Option<u64>,
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
    check(arguments)
}

/// The same, as a step of the test command. The emulator's host and the server are those of the step that built the workspace: two
/// packages by themselves would be built anew, with what they use, because their features are fewer.
///
/// # Errors
/// As [`run_all`].
pub(crate) fn step() -> Result<()> {
    let formatting = ["fmt", "--manifest-path", "firmware/Cargo.toml", "--all", "--check"];
    run(cargo().args(formatting), "run `cargo fmt --manifest-path firmware/Cargo.toml --all`")?;
    prerequisites::install_for_firmware()?;
    build()?;
    check(&Arguments { build_only: false, update: false, seed: Some(SEED_OF_TESTS), format: "text".to_owned() })
}

fn check(arguments: &Arguments) -> Result<()> {
    let mut check = command(target_directory().join("debug/kf-emulator"));
    check.args(["check", "--format", &arguments.format]);
    for (target, _) in TARGETS {
        check.arg("--images").arg(images_of(target));
    }
    if arguments.update {
        check.arg("--update");
    }
    if let Some(seed) = arguments.seed {
        check.args(["--seed", &seed.to_string()]);
    }
    run(&mut check, "each line that does not hold is marked above")
}

/// Where the images built for a target lie.
fn images_of(target: &str) -> PathBuf {
    build_folder().join(target).join("release")
}

fn build_folder() -> PathBuf {
    target_directory().join("firmware")
}

fn build() -> Result<()> {
    check_compiler()?;
    // Each image by itself: built together they would get each other's features, and the core would count all ciphers.
    for (target, images) in TARGETS {
        for image in images {
            build_package(image, target, &[])?;
        }
        build_c_images(target)?;
    }
    Ok(())
}

/// Installs the C library and links C images against it as a product does, by what pkg-config says.
fn build_c_images(target: &str) -> Result<()> {
    let (prefix, sources) = (build_folder().join("c-library"), workspace_root().join("examples/c/bare-metal"));
    c_library::install_into(&prefix, &build_c_library(target, &[])?, "")?;
    let mut flags = command("pkg-config");
    flags.args(["--cflags", "--libs", "keyfleet"]).env("PKG_CONFIG_PATH", prefix.join("lib/pkgconfig"));
    let flags = crate::process::output(&mut flags, "apt-get install pkg-config")?;
    for (image, main) in C_IMAGES {
        let mut compile = command("arm-none-eabi-gcc");
        compile.args(C_FLAGS).arg("-T").arg(sources.join("board.ld"));
        let files = ["board.c", "frame.c", main].map(|file| sources.join(file));
        compile.args(files).args(flags.split_whitespace());
        run(compile.arg("-o").arg(images_of(target).join(image)), "read the compiler's message above")?;
    }
    Ok(())
}

fn build_package(package: &str, target: &str, features: &[String]) -> Result<()> {
    let mut build = debian_cargo();
    build.args(["build", "--quiet", "--release", "--locked", "--package", package, "--target", target]);
    run(build.args(features).arg("--target-dir").arg(build_folder()), "read the compiler's message above")
}

fn check_compiler() -> Result<()> {
    check_version(CARGO, "cargo-web")?;
    check_version(RUSTC, "rustc-web")
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

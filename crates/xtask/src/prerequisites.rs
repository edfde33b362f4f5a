//! What the tests need beside Rust and a C compiler: Debian packages and a Python environment.

use std::fs;
use std::path::{Path, PathBuf};

use crate::process::{Failure, Result, cargo, command, run, succeeds, workspace_root};

/// How to tell that a package is there, also when it came from elsewhere than Debian.
enum Probe {
    /// A command of this name.
    Tool(&'static str),
    /// Installed according to dpkg: a library or a set of plug-ins.
    Package,
    /// The Python module of this name.
    PythonModule(&'static str),
}

/// Debian packages and how each is recognised; every one is used by a test.
const PACKAGES: &[(&str, Probe)] = &[
    ("mosquitto", Probe::Tool("mosquitto")),
    ("mosquitto-clients", Probe::Tool("mosquitto_pub")),
    ("strongswan-pki", Probe::Tool("pki")),
    ("libstrongswan-standard-plugins", Probe::Package),
    ("libstrongswan-extra-plugins", Probe::Package),
    ("gnutls-bin", Probe::Tool("certtool")),
    ("softhsm2", Probe::Tool("softhsm2-util")),
    ("age", Probe::Tool("age")),
    ("opensc", Probe::Tool("pkcs11-tool")),
    ("openssl", Probe::Tool("openssl")),
    ("curl", Probe::Tool("curl")),
    ("default-jre-headless", Probe::Tool("keytool")),
    ("python3", Probe::Tool("python3")),
    ("python3-venv", Probe::PythonModule("ensurepip")),
    ("strace", Probe::Tool("strace")),
    ("swtpm", Probe::Tool("swtpm")),
    ("swtpm-tools", Probe::Tool("swtpm_setup")),
    ("tpm2-tools", Probe::Tool("tpm2_pcrread")),
    ("libtss2-dev", Probe::Package),
    ("libssl-dev", Probe::Package),
    ("libsqlite3-dev", Probe::Package),
    ("libclang-dev", Probe::Package),
    ("pkg-config", Probe::Tool("pkg-config")),
    ("cryptsetup-bin", Probe::Tool("cryptsetup")),
    ("e2fsprogs", Probe::Tool("mke2fs")),
    ("util-linux", Probe::Tool("unshare")),
    ("systemd", Probe::Tool("systemd-analyze")),
    ("faketime", Probe::Tool("faketime")),
    ("gcc", Probe::Tool("cc")),
    ("g++", Probe::Tool("g++")),
    ("binutils", Probe::Tool("nm")),
    ("zbar-tools", Probe::Tool("zbarimg")),
    ("librsvg2-bin", Probe::Tool("rsvg-convert")),
    ("poppler-utils", Probe::Tool("pdftoppm")),
    ("postgresql-15", Probe::Package),
    ("postgresql-client-15", Probe::Tool("psql")),
];

/// What building and running the firmware takes. The compiler and the source of `core` must be of one version, which
/// Debian's packages are.
const FIRMWARE_PACKAGES: &[(&str, Probe)] = &[
    ("rustc-web", Probe::Package),
    ("cargo-web", Probe::Package),
    ("rust-web-src", Probe::Package),
    ("binutils-arm-none-eabi", Probe::Tool("arm-none-eabi-ld")),
    ("gcc-arm-none-eabi", Probe::Tool("arm-none-eabi-gcc")),
    ("libnewlib-arm-none-eabi", Probe::Package),
    ("qemu-system-arm", Probe::Tool("qemu-system-arm")),
];

/// Programs of others that the benchmarks measure beside us.
const PEER_PACKAGES: &[(&str, Probe)] = &[("openssl", Probe::Tool("openssl")), ("golang-cfssl", Probe::Tool("cfssl"))];

/// A Python environment below `target`, with everything that it holds, pinned.
struct PythonEnvironment {
    folder: &'static str,
    requirements: &'static str,
}

/// The environments, apart because their packages ask for different versions of the same thing, or because what is in one
/// may only be run as a program of its own (esptool is GPL).
const PYTHON_ENVIRONMENTS: [PythonEnvironment; 4] = [
    PythonEnvironment { folder: "venv", requirements: include_str!("../python-requirements.txt") },
    PythonEnvironment { folder: "venv-espressif", requirements: include_str!("../python-requirements-espressif.txt") },
    PythonEnvironment { folder: "venv-cyclonedx", requirements: include_str!("../python-requirements-cyclonedx.txt") },
    PythonEnvironment { folder: "venv-esptool", requirements: include_str!("../python-requirements-esptool.txt") },
];

/// Installs what is missing.
///
/// # Errors
/// When something is missing and this process is not root, or installing fails.
pub(crate) fn install() -> Result<()> {
    rust_components()?;
    debian_packages(PACKAGES)?;
    debian_packages(FIRMWARE_PACKAGES)?;
    PYTHON_ENVIRONMENTS.iter().try_for_each(python_environment)?;
    // Later steps read the whole graph of dependencies, also of targets that nothing here builds, and do so offline.
    run(
        cargo().args(["fetch", "--locked"]),
        "check that crates.io (or the registry that cargo is configured for) can be reached",
    )
}

/// Installs what is missing for the firmware alone.
///
/// # Errors
/// As [`install`].
pub(crate) fn install_for_firmware() -> Result<()> {
    debian_packages(FIRMWARE_PACKAGES)
}

/// Installs the peers of the benchmarks where they are missing.
///
/// # Errors
/// As [`install`].
pub(crate) fn install_peers() -> Result<()> {
    debian_packages(PEER_PACKAGES)
}

/// The folder whose commands the tests must find first.
pub(crate) fn python_commands() -> PathBuf {
    workspace_root().join("target/venv/bin")
}

fn rust_components() -> Result<()> {
    for (component, subcommand) in [("rustfmt", "fmt"), ("clippy", "clippy")] {
        if succeeds(command("cargo").args([subcommand, "--version"])) {
            continue;
        }
        eprintln!("installing the Rust component {component}");
        let remedy = format!("run `rustup component add {component}`");
        run(command("rustup").args(["component", "add", component]), &remedy)?;
    }
    Ok(())
}

fn debian_packages(packages: &[(&str, Probe)]) -> Result<()> {
    let missing: Vec<&str> =
        packages.iter().filter(|(package, probe)| !is_present(package, probe)).map(|(package, _)| *package).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let line = format!("apt-get update && apt-get install --no-install-recommends {}", missing.join(" "));
    if !rustix::process::geteuid().is_root() {
        return Err(Failure::new(
            format!("the tests need Debian packages that are missing: {}", missing.join(" ")),
            format!("run as root: {line}"),
        ));
    }
    eprintln!("installing Debian packages: {}", missing.join(" "));
    let remedy = format!("find out why, or run it yourself: {line}");
    run(apt_get().arg("update"), &remedy)?;
    run(apt_get().args(["install", "--yes", "--no-install-recommends"]).args(&missing), &remedy)?;
    match packages.iter().find(|(package, probe)| !is_present(package, probe)) {
        None => Ok(()),
        Some((package, _)) => {
            Err(Failure::new(format!("{package} is installed, but what it brings is not found"), "check PATH"))
        }
    }
}

/// apt-get, its talk on standard error, never asking, waiting for another apt-get to finish.
fn apt_get() -> std::process::Command {
    let mut apt_get = command("sh");
    apt_get.args(["-c", "exec apt-get \"$@\" >&2", "apt-get", "-q", "-o", "DPkg::Lock::Timeout=300"]);
    apt_get.env("DEBIAN_FRONTEND", "noninteractive");
    apt_get
}

fn is_present(package: &str, probe: &Probe) -> bool {
    match probe {
        Probe::Tool(tool) => is_on_path(tool),
        Probe::Package => {
            let mut query = command("dpkg-query");
            query.args(["--show", "--showformat=${db:Status-Status}", package]).stderr(std::process::Stdio::null());
            query.output().is_ok_and(|answer| answer.stdout == b"installed")
        }
        Probe::PythonModule(module) => succeeds(command("python3").args(["-c", &format!("import venv, {module}")])),
    }
}

fn is_on_path(tool: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // Brokers and other daemons live in sbin, which is not on everybody's PATH.
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/usr/local/sbin", "/sbin"].map(PathBuf::from))
        .any(|folder| folder.join(tool).is_file())
}

/// Makes an environment with exactly the pinned packages, where the tests look for it, wherever cargo builds. A stamp
/// tells whether it is up to date.
fn python_environment(environment: &PythonEnvironment) -> Result<()> {
    let venv = workspace_root().join("target").join(environment.folder);
    let stamp = venv.join("requirements.txt");
    if fs::read_to_string(&stamp).is_ok_and(|installed| installed == environment.requirements) {
        return Ok(());
    }
    eprintln!("making the Python environment {}", venv.display());
    run(
        command("python3").args(["-m", "venv", "--clear"]).arg(&venv),
        "check that `python3 -m venv` works (Debian: python3-venv)",
    )?;
    let write = |path: &Path| {
        fs::write(path, environment.requirements)
            .map_err(|error| Failure::new(format!("cannot write {}: {error}", path.display()), "check the disk"))
    };
    let wanted = venv.join("wanted.txt");
    write(&wanted)?;
    run(
        command(venv.join("bin/python"))
            .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--requirement"])
            .arg(&wanted),
        "check that PyPI (or the index that pip is configured for) can be reached",
    )?;
    // Last, so that a broken installation is not taken for a whole one.
    write(&stamp)
}

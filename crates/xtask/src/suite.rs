//! `cargo xtask test` and `cargo xtask bench`.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde::Deserialize;

use crate::process::{Failure, Result, cargo, command, output, shown, target_directory};
use crate::{document_commands, firmware, prerequisites, process, tidy};

/// One step: its heading and what it does.
type Step = (&'static str, fn(&mut Tally) -> Result<()>);

/// In this order: what fails fastest comes first, and each later step may rely on the earlier ones.
const STEPS: [Step; 9] = [
    ("prerequisites", |_| prerequisites::install()),
    ("formatting", |_| formatting()),
    ("tidy", |_| tidy::run()),
    ("build", |_| build()),
    ("lints", |_| lints()),
    ("tests", tests),
    ("firmware", |_| firmware::step()),
    ("demo", |_| demo()),
    ("commands in the documents", |_| document_commands::run(&[])),
];

/// What the test binaries reported, added up.
#[derive(Default)]
struct Tally {
    passed: u64,
    failed: u64,
    ignored: u64,
}

/// Runs every step, stopping at the first that fails, and closes with one line.
///
/// # Errors
/// The failure of the step.
pub(crate) fn run() -> Result<()> {
    let mut tally = Tally::default();
    let mut times = Vec::new();
    let mut outcome = Ok(());
    for (name, step) in STEPS {
        println!("\n==> {name}");
        let start = Instant::now();
        outcome = step(&mut tally);
        let verdict = if outcome.is_ok() { "ok" } else { "FAILED" };
        println!("<== {name}: {verdict} in {}", minutes(start.elapsed()));
        times.push((name, verdict, start.elapsed()));
        if outcome.is_err() {
            break;
        }
    }
    print_summary(&times, &tally);
    outcome
}

/// Builds server and benchmarks in the release profile, and runs the benchmarks.
///
/// # Errors
/// When something does not build, or a figure could not be measured. A figure that misses its aim is no failure.
pub(crate) fn bench(arguments: &[String]) -> Result<()> {
    process::run(
        cargo().args(["build", "--release", "--locked", "--package", "keyfleet", "--package", "kf-bench"]),
        "read the compiler's message above",
    )?;
    if let Err(missing) = prerequisites::install_peers() {
        // The report names a peer that is not there.
        eprintln!("{missing}");
    }
    let program = target_directory().join("release/kf-bench");
    process::run(command(program).args(arguments), "read what could not be measured above")
}

fn print_summary(times: &[(&str, &str, Duration)], tally: &Tally) {
    println!("\nSummary");
    for (name, verdict, time) in times {
        println!("  {verdict:<6} {:>9}  {name}", minutes(*time));
    }
    println!("{} passed, {} failed, {} ignored", tally.passed, tally.failed, tally.ignored);
}

fn minutes(time: Duration) -> String {
    format!("{}m{:02}s", time.as_secs() / 60, time.as_secs() % 60)
}

fn formatting() -> Result<()> {
    process::run(cargo().args(["fmt", "--all", "--check"]), "run `cargo fmt`")
}

fn build() -> Result<()> {
    let mut build = cargo();
    build.args(["build", "--workspace", "--all-targets", "--locked"]);
    process::run(add_test_features(&mut build)?, "read the compiler's message above")?;
    // What a machine without the TPM2 software stack builds.
    let mut bare = cargo();
    bare.args(["check", "--locked", "--all-targets"]);
    for name in with_feature(&["tpm", "tss"])? {
        bare.args(["--package", &name]);
    }
    process::run(&mut bare, "make it compile without the features `tpm` and `tss` too")
}

fn lints() -> Result<()> {
    let mut clippy = cargo();
    clippy.args(["clippy", "--workspace", "--all-targets", "--locked"]);
    add_test_features(&mut clippy)?.args(["--", "--deny", "warnings"]);
    process::run(&mut clippy, "mend what clippy names; an exception is an `expect` attribute with its reason")
}

/// All tests in one go: unit, integration, the slow suites and the compile-fail examples in the documentation.
fn tests(tally: &mut Tally) -> Result<()> {
    let mut test = cargo();
    test.args(["test", "--workspace", "--no-fail-fast", "--locked"]);
    add_test_features(&mut test)?;
    let mut path = vec![prerequisites::python_commands()];
    path.extend(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()));
    path.extend(["/usr/sbin", "/sbin"].map(PathBuf::from));
    let path = std::env::join_paths(path)
        .map_err(|error| Failure::new(format!("PATH cannot be extended: {error}"), "mend PATH"))?;
    // The TPM2 software stack prints every refusal, and the tests provoke many.
    test.env("PATH", path).env("RUST_BACKTRACE", "1").env("TSS2_LOG", "all+NONE");
    count_results(&mut test, tally)
}

/// Shows the output of `cargo test` line by line and adds up what it reports.
fn count_results(test: &mut Command, tally: &mut Tally) -> Result<()> {
    let text = shown(test);
    let remedy = "read the failures above; one test runs alone with `cargo test -p CRATE NAME`";
    let cannot_start = |error| Failure::new(format!("cannot run `{text}`: {error}"), remedy);
    let mut child = test.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().map_err(cannot_start)?;
    if let Some(stdout) = child.stdout.take() {
        for line in BufReader::new(stdout).lines() {
            let line = line.map_err(cannot_start)?;
            tally.add(&line);
            println!("{line}");
        }
    }
    let status = child.wait().map_err(cannot_start)?;
    if status.success() { Ok(()) } else { Err(Failure::new(format!("`{text}` failed: {status}"), remedy)) }
}

impl Tally {
    /// Adds a line such as `test result: ok. 3 passed; 0 failed; 0 ignored; …`; leaves any other alone.
    fn add(&mut self, line: &str) {
        let Some((_, counts)) = line.strip_prefix("test result: ").and_then(|rest| rest.split_once(". ")) else {
            return;
        };
        for count in counts.split("; ") {
            match count.split_once(' ') {
                Some((number, "passed")) => self.passed += number.parse().unwrap_or(0),
                Some((number, "failed")) => self.failed += number.parse().unwrap_or(0),
                Some((number, "ignored")) => self.ignored += number.parse().unwrap_or(0),
                _ => {}
            }
        }
    }
}

/// Features that the tests turn on: `slow`, test binaries that a plain `cargo test` leaves out so that it stays quick,
/// and those that link the TPM2 software stack, which a machine that only builds need not have.
const TEST_FEATURES: [&str; 5] = ["slow", "tpm", "tss", "secure-element", "linux"];

fn add_test_features(command: &mut Command) -> Result<&mut Command> {
    let metadata = tidy::metadata()?;
    let features: Vec<String> = metadata
        .packages
        .iter()
        .flat_map(|package| TEST_FEATURES.map(|feature| (package, feature)))
        .filter(|(package, feature)| package.features.contains_key(*feature))
        .map(|(package, feature)| format!("{}/{feature}", package.name))
        .collect();
    if !features.is_empty() {
        command.arg("--features").arg(features.join(","));
    }
    Ok(command)
}

/// The crates that have one of these features.
fn with_feature(features: &[&str]) -> Result<Vec<String>> {
    let packages = tidy::metadata()?.packages.into_iter();
    let has_one = packages.filter(|package| features.iter().any(|feature| package.features.contains_key(*feature)));
    Ok(has_one.map(|package| package.name).collect())
}

#[derive(Deserialize)]
struct DemoCheck {
    step: String,
    checked: String,
    holds: bool,
}

/// Runs each scene of the demo once and looks at every check itself, beside the exit status.
fn demo() -> Result<()> {
    ["fleet", "incident"].into_iter().try_for_each(scene)
}

fn scene(name: &str) -> Result<()> {
    let keyfleet = target_directory().join("debug/keyfleet");
    let remedy = "run `cargo run -- demo` (`--scene incident`) and read its lines";
    let text = output(command(keyfleet).args(["demo", "--scene", name, "--format", "json"]), remedy)?;
    let checks = parse_demo(&text)?;
    for check in &checks {
        println!("{} {}: {}", if check.holds { "holds" } else { "FAILS" }, check.step, check.checked);
    }
    if checks.is_empty() {
        return Err(Failure::new("the demo reported no check", remedy));
    }
    match checks.iter().find(|check| !check.holds) {
        None => Ok(()),
        Some(check) => Err(Failure::new(format!("the demo's step {} does not hold", check.step), remedy)),
    }
}

fn parse_demo(text: &str) -> Result<Vec<DemoCheck>> {
    serde_json::Deserializer::from_str(text)
        .into_iter()
        .collect::<std::result::Result<_, _>>()
        .map_err(|error| Failure::new(format!("the demo printed something else: {error}"), "one JSON object per check"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reports_of_all_test_binaries_are_added_up() {
        let mut tally = Tally::default();
        tally.add("running 3 tests");
        tally.add("test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s");
        tally.add("test result: FAILED. 2 passed; 5 failed; 0 ignored; 0 measured; 0 filtered out");
        assert_eq!((tally.passed, tally.failed, tally.ignored), (5, 5, 1));
    }

    #[test]
    fn a_demo_that_prints_something_else_than_checks_is_refused() {
        assert!(parse_demo("all good").is_err());
        assert!(parse_demo("{\"step\":\"init\"}").is_err());
        let checks = parse_demo("{\"step\":\"init\",\"checked\":\"x\",\"holds\":true}\n").expect("one check");
        assert!(checks.iter().all(|check| check.holds));
    }
}

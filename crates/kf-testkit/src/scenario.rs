//! Tests of which each needs a process of its own, because what they load is initialised once in each: a test program without the
//! usual harness, which starts itself.

use std::process::ExitCode;

use crate::Tool;

/// A test: its name as a sentence, and what it does.
pub type Scenario = (&'static str, fn());

const SCENARIO: &str = "scenario";

/// The `main` of such a program: runs each scenario whose name has the first argument in it, in a process that `prepare` sets
/// up. What `prepare` gives beside it lives as long as that process.
///
/// # Panics
/// In the process of a scenario, when that fails.
#[allow(clippy::print_stdout, reason = "the output of a test program")]
pub fn run_scenarios<T>(scenarios: &[Scenario], mut prepare: impl FnMut(Tool) -> (Tool, T)) -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let first = arguments.next();
    if first.as_deref() == Some(SCENARIO) {
        let name = arguments.next().expect("the name of a scenario");
        let (_, run) = scenarios.iter().find(|(known, _)| *known == name).expect("a known scenario");
        run();
        return ExitCode::SUCCESS;
    }
    let filter = first.filter(|first| !first.starts_with('-')).unwrap_or_default();
    let program = std::env::current_exe().expect("the path of this program");
    let mut failed = 0;
    for (name, _) in scenarios.iter().filter(|(name, _)| name.contains(&filter)) {
        let (tool, _kept) = prepare(Tool::at(&program));
        let output = tool.run(&[SCENARIO, name]);
        println!("test {name} ... {}", if output.success() { "ok" } else { "FAILED" });
        if !output.success() {
            println!("{}", output.text());
            failed += 1;
        }
    }
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

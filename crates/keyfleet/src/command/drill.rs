//! `keyfleet drill`.

use std::fmt::Write as _;
use std::sync::Arc;

use clap::Args;
use kf_api::drill::{DrillReport, RecordedDrill};
use kf_fleet::{DrillOptions, SystemClock};

use super::incident::Subjects;
use crate::api::Context;
use crate::failure::Failure;
use crate::output::{Format, Names, object, printable, raw, say};

/// What to rehearse.
#[derive(Debug, Args)]
pub(crate) struct Drill {
    #[command(flatten)]
    subjects: Subjects,
    /// Devices at each facility that are brought back one by one
    #[arg(long, value_name = "NUMBER", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1000))]
    sample: u32,
    /// Have the server keep verdict and figures, and write them into the log: without, nothing of the fleet is touched
    #[arg(long)]
    record: bool,
}

/// Works on this host, with the server running or not: the registry is read, and never written.
pub(crate) async fn run(context: &Context, drill: Drill) -> Result<(), Failure> {
    let Drill { subjects, sample, record } = drill;
    let source = context.data_dir()?;
    let scratch = tempfile::Builder::new().prefix("keyfleet-drill-").tempdir().map_err(|source| Failure::File {
        action: "make",
        path: "a directory for the copy".to_owned(),
        source,
    })?;
    say("copying the registry; nothing of the fleet is changed");
    let options = DrillOptions { subjects: subjects.into_subjects(), sample };
    let report = kf_fleet::drill(&source, scratch.path(), Arc::new(SystemClock), options).await?;
    match context.format {
        Format::Table => raw(screen(&report).as_bytes())?,
        format => object(format, &report, &Names::new())?,
    }
    if record {
        let kept: RecordedDrill = context.api()?.post("/v1/drills", &report).await?;
        say(&format!("recorded as log entry {}", kept.log_index.unwrap_or_default()));
    }
    if report.passed { Ok(()) } else { Err(failed(&report)) }
}

fn failed(report: &DrillReport) -> Failure {
    let check = report.checks.iter().find(|check| !check.holds).map(|check| format!("{}: {}", check.what, check.found));
    let late = report.timings.iter().find(|timing| timing.limit_millis.is_some_and(|limit| timing.millis > limit));
    let late = late.map(|timing| format!("{} took {} ms", timing.what, timing.millis));
    Failure::Local {
        problem: format!("the drill failed: {}", check.or(late).unwrap_or_default()),
        remedy: "look at the checks and timings above; what fails in a drill fails in earnest".to_owned(),
    }
}

/// Adds a line; writing to a string cannot fail.
macro_rules! line {
    ($text:expr, $($argument:tt)*) => {
        let _written = writeln!($text, "{}", printable(&format!($($argument)*)));
    };
}

fn screen(report: &DrillReport) -> String {
    let mut text = String::new();
    let subjects = report.subjects.join(", ");
    line!(text, "drill of {}: {subjects}, {} of {} devices hit", report.fleet, report.hit, report.devices);
    for timing in &report.timings {
        let limit = timing.limit_millis.map(|limit| format!(" of {limit} ms allowed")).unwrap_or_default();
        line!(text, "  {:>8} ms  {}{limit}", timing.millis, timing.what);
    }
    for check in &report.checks {
        line!(text, "  {:8}  {} ({})", if check.holds { "holds" } else { "FAILS" }, check.what, check.found);
    }
    for missing in &report.not_shown {
        line!(text, "  not shown  {missing}");
    }
    line!(text, "{}", if report.passed { "passed" } else { "failed" });
    text
}

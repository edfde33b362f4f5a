//! What was checked, one line or one JSON object each, as soon as it is known.

use std::io::Write;
use std::process::ExitCode;

use serde::Serialize;

#[derive(Serialize)]
struct Check<'a> {
    step: &'a str,
    checked: &'a str,
    holds: bool,
}

/// Prints checks and remembers whether all hold.
pub(crate) struct Report {
    json: bool,
    checks: usize,
    all_hold: bool,
}

impl Report {
    pub(crate) const fn new(json: bool) -> Self {
        Self { json, checks: 0, all_hold: true }
    }

    /// One check.
    pub(crate) fn check(&mut self, step: &str, checked: &str, holds: bool) {
        self.checks += 1;
        self.all_hold &= holds;
        let line = if self.json {
            serde_json::to_string(&Check { step, checked, holds }).unwrap_or_default()
        } else {
            format!("{} {step:<10} {checked}", if holds { "ok  " } else { "FAIL" })
        };
        // Whoever listened has gone: the exit status still tells.
        let _ = writeln!(std::io::stdout(), "{line}");
    }

    /// Talk for people, on standard error.
    pub(crate) fn say(&self, text: &str) {
        crate::output::say(text);
    }

    /// Whether there was something to check and all of it holds.
    pub(crate) const fn all_hold(&self) -> bool {
        self.all_hold && self.checks > 0
    }

    /// Success if there was something to check and all of it holds.
    pub(crate) fn close(&self) -> ExitCode {
        if !self.json {
            let verdict = if self.all_hold { "all hold" } else { "NOT all hold" };
            crate::output::say(&format!("{} checks, {verdict}", self.checks));
        }
        if self.all_hold() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}

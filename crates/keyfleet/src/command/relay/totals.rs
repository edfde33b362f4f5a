//! What a relay counted.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use kf_api::sealed::OpenRefusal;
use serde::Serialize;

use crate::failure::Failure;
use crate::output::{Format, Names, object, raw, say};

/// Printed when the relay ends.
#[derive(Debug, Default, Serialize)]
pub(super) struct Totals {
    /// Messages that came.
    pub(super) received: u64,
    /// Messages that were published in the plain, and acknowledged.
    pub(super) relayed: u64,
    /// Messages that found the queue full, or whose plain topic no broker takes.
    pub(super) dropped: u64,
    /// Messages that did not open, each for one reason.
    pub(super) refused: BTreeMap<&'static str, u64>,
}

impl Totals {
    /// Counts a refusal; the first of each kind is told.
    pub(super) fn refused(&mut self, refusal: OpenRefusal, problem: &str) {
        let count = self.refused.entry(refusal.name()).or_default();
        *count += 1;
        if *count == 1 {
            say(&format!("refused, and counted from now on: {}: {problem}", refusal.name()));
        }
    }

    /// One line, or one object.
    pub(super) fn print(&self, format: Format) -> Result<(), Failure> {
        if format != Format::Table {
            return object(format, self, &Names::new());
        }
        raw(self.line().as_bytes())
    }

    fn line(&self) -> String {
        let Self { received, relayed, dropped, refused } = self;
        let all: u64 = refused.values().sum();
        let mut line = format!("received={received} relayed={relayed} dropped={dropped} refused={all}");
        for (refusal, count) in refused {
            // Writing to a string cannot fail.
            let _written = write!(line, " refused.{refusal}={count}");
        }
        line.push('\n');
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_says_how_many_were_refused_for_which_reason() {
        let mut totals = Totals { received: 4, relayed: 1, ..Totals::default() };
        for refusal in [OpenRefusal::Replayed, OpenRefusal::NotAuthentic, OpenRefusal::Replayed] {
            totals.refused(refusal, "x");
        }
        let expected = "received=4 relayed=1 dropped=0 refused=3 refused.not-authentic=1 refused.replayed=2\n";
        assert_eq!(totals.line(), expected);
    }
}

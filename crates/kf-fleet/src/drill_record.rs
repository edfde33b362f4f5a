//! Drills that were held. A drill runs beside the server, on a copy; whoever held it has it recorded, and the log says who that was.

use kf_access::{Action, Principal, Target, authorize};
use kf_api::drill::{DrillReport, RecordedDrill};
use kf_api::{Page, PageRequest};
use kf_key::UnixMillis;

use crate::entry::Entry;
use crate::naming::check_text;
use crate::{Fleet, FleetError};

const MINUTE: u64 = 60 * UnixMillis::SECOND;
/// The most rows of each kind in a report.
const MAX_ROWS: usize = 100;
/// The longest text in one.
const MAX_TEXT: usize = 500;
/// A drill that is longer ago is not recorded as if it were of now.
const MAX_AGE: u64 = 7 * UnixMillis::DAY;

impl Fleet {
    /// Records a drill with its verdict and figures.
    ///
    /// # Errors
    /// [`FleetError::Invalid`] for a report of another fleet, of the future or longer ago than a week, or with rows that are none;
    /// [`FleetError::Denied`].
    pub async fn drill_record(&self, who: &Principal, report: DrillReport) -> Result<RecordedDrill, FleetError> {
        authorize(who, Action::IncidentManage, Target::Fleet)?;
        self.check_drill(&report)?;
        let now = self.now();
        let DrillReport { at, subjects, devices, hit, sample, timings, checks, passed, not_shown, steps, .. } = report;
        // The verdict follows from what is in the report, whatever the report says of itself.
        let late = |millis: u64, limit: Option<u64>| limit.is_some_and(|limit| millis > limit);
        let holds = checks.iter().all(|check| check.holds)
            && !timings.iter().any(|timing| late(timing.millis, timing.limit_millis));
        let drill = RecordedDrill {
            at,
            recorded: now,
            by: format!("{} ({})", who.name, who.id),
            subjects,
            devices,
            hit,
            sample,
            steps: u64::try_from(steps.len()).unwrap_or(u64::MAX),
            timings,
            checks,
            passed: passed && holds,
            not_shown,
            log_index: None,
        };
        let figures: Vec<String> =
            drill.timings.iter().map(|timing| format!("{}: {} ms", timing.what, timing.millis)).collect();
        let failed: Vec<&str> =
            drill.checks.iter().filter(|check| !check.holds).map(|check| check.what.as_str()).collect();
        let entry = self
            .evidence(Entry::done(who, "drill.record", now))
            .with("verdict", if drill.passed { "passed" } else { "failed" })
            .with("held", at.0)
            .with("subjects", drill.subjects.join(", "))
            .with("devices", devices)
            .with("hit", hit)
            .with("brought_back", sample)
            .with("figures", shortened(&figures.join("; ")))
            .with("failed", shortened(&failed.join("; ")));
        Ok(self.store.record_drill(drill, entry.build()).await?.value)
    }

    fn check_drill(&self, report: &DrillReport) -> Result<(), FleetError> {
        let now = self.now();
        let invalid = |field: &str, problem: &str| {
            Err(FleetError::invalid(field, problem.to_owned(), "send what `keyfleet drill --record` made, at once"))
        };
        if report.fleet != self.config.fleet {
            return invalid("fleet", "is another one");
        }
        if report.at > now.plus(MINUTE) || report.at.plus(MAX_AGE) < now {
            return invalid("at", "is in the future, or longer ago than a week");
        }
        let rows = [report.subjects.len(), report.timings.len(), report.checks.len(), report.not_shown.len()];
        if rows.iter().any(|rows| *rows > MAX_ROWS) || report.timings.is_empty() || report.checks.is_empty() {
            return invalid("report", "has no timings, no checks, or more than 100 of something");
        }
        if report.hit > report.devices || report.sample > report.hit {
            return invalid("hit", "is more than there are devices, or fewer than came back");
        }
        let texts = report.subjects.iter().chain(&report.not_shown);
        let texts = texts.chain(report.timings.iter().map(|timing| &timing.what));
        let texts = texts.chain(report.checks.iter().flat_map(|check| [&check.what, &check.found]));
        for text in texts {
            check_text("report", text, MAX_TEXT)?;
        }
        Ok(())
    }

    /// Drills that were recorded, oldest first.
    ///
    /// # Errors
    /// [`FleetError::Denied`].
    pub async fn drill_list(&self, who: &Principal, page: PageRequest) -> Result<Page<RecordedDrill>, FleetError> {
        authorize(who, Action::IncidentRead, Target::Fleet)?;
        Ok(self.store.drills(&page)?)
    }

    /// What is to be said of drills in the status: that none was passed for too long.
    pub(crate) fn drill_warning(&self) -> Option<String> {
        let days = u64::from(self.config.drill_days);
        let founded = self.store.keys_after(None, 1).ok()?.first().map(|key| key.created)?;
        let last = self.store.last_passed_drill().ok()?;
        let is_overdue = days > 0 && self.now() > last.unwrap_or(founded).plus(days.saturating_mul(UnixMillis::DAY));
        let what = if last.is_some() { "passed" } else { "was recorded" };
        is_overdue.then(|| {
            format!(
                "a drill is overdue: none {what} for {days} days; `keyfleet drill --record` plays the loss of a site"
            )
        })
    }
}

/// What an entry of the log has room for.
fn shortened(text: &str) -> String {
    text.chars().take(4_000).collect()
}

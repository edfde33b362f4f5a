//! Drills that were held are in the log, with a verdict that follows from their figures, and one that is missing is said.

use kf_api::PageRequest;
use kf_api::drill::{DrillCheck, DrillReport, DrillTiming};
use kf_api::operator::Role;
use kf_fleet::FleetError;
use kf_key::UnixMillis;

use crate::scratch::{START, Scratch, field_of};

fn report(at: UnixMillis) -> DrillReport {
    DrillReport {
        fleet: "Scratch".into(),
        at,
        subjects: vec!["facility plant-a".into()],
        devices: 10,
        hit: 4,
        sample: 2,
        timings: vec![DrillTiming { what: "plan".into(), millis: 100, limit_millis: Some(60_000) }],
        steps: Vec::new(),
        checks: vec![DrillCheck { what: "nobody is stranded".into(), holds: true, found: "0".into() }],
        passed: true,
        not_shown: Vec::new(),
    }
}

async fn warning(scratch: &Scratch) -> Option<String> {
    let status = scratch.fleet.status(&scratch.owner).await.unwrap();
    status.warnings.into_iter().find(|warning| warning.contains("drill is overdue"))
}

#[tokio::test]
async fn a_drill_is_recorded_with_who_held_it_and_its_figures() {
    let scratch = Scratch::new().await;
    let made = scratch.fleet.drill_record(&scratch.owner, report(START)).await.unwrap();
    assert!(made.passed && made.by.starts_with("olga (op_"), "{made:?}");
    let entries = scratch.fleet.audit_list(&scratch.owner, Default::default()).await.unwrap().items;
    let entry = entries.iter().find(|entry| Some(entry.index) == made.log_index).unwrap();
    assert_eq!(entry.entry["act"], "drill.record");
    assert_eq!(entry.entry["detail"]["verdict"], "passed");
    assert_eq!(entry.entry["detail"]["figures"], "plan: 100 ms");
    let auditor = scratch.operator("audrey", Role::Auditor, &[]).await;
    assert_eq!(scratch.fleet.drill_list(&auditor, PageRequest::default()).await.unwrap().items, [made]);
    assert!(matches!(scratch.fleet.drill_record(&auditor, report(START)).await, Err(FleetError::Denied(_))));
    let local = scratch.operator("ines", Role::FacilityOperator, &["plant-a"]).await;
    assert!(matches!(scratch.fleet.drill_list(&local, PageRequest::default()).await, Err(FleetError::Denied(_))));
}

#[tokio::test]
async fn a_verdict_that_the_figures_do_not_bear_out_is_not_believed() {
    let scratch = Scratch::new().await;
    let mut late = report(START);
    late.timings[0].millis = 60_001;
    let mut failed = report(START);
    failed.checks[0].holds = false;
    for report in [late, failed] {
        assert!(!scratch.fleet.drill_record(&scratch.owner, report).await.unwrap().passed);
    }
    let of = |change: fn(&mut DrillReport)| {
        let mut report = report(START);
        change(&mut report);
        report
    };
    for (report, field) in [
        (of(|report| report.fleet = "another".into()), "fleet"),
        (of(|report| report.at = START.plus(UnixMillis::HOUR)), "at"),
        (of(|report| report.at = UnixMillis(0)), "at"),
        (of(|report| report.checks.clear()), "report"),
        (of(|report| report.subjects = vec!["x".into(); 101]), "report"),
        (of(|report| report.subjects = vec!["x\n".into()]), "report"),
        (of(|report| report.hit = 11), "hit"),
    ] {
        assert_eq!(field_of(&scratch.fleet.drill_record(&scratch.owner, report).await.unwrap_err()), field);
    }
}

#[tokio::test]
async fn a_drill_that_nobody_passes_alarms_until_somebody_does() {
    let scratch = Scratch::with(|config| config.drill_days = 90).await;
    assert_eq!(warning(&scratch).await, None);
    scratch.pass(91 * UnixMillis::DAY);
    assert!(warning(&scratch).await.unwrap().contains("none was recorded for 90 days"));
    let now = scratch.clock_now();
    let failed = DrillReport { passed: false, ..report(now) };
    scratch.fleet.drill_record(&scratch.owner, failed).await.unwrap();
    assert!(warning(&scratch).await.is_some(), "one that failed is none");
    scratch.fleet.drill_record(&scratch.owner, report(now)).await.unwrap();
    assert_eq!(warning(&scratch).await, None);
    scratch.pass(91 * UnixMillis::DAY);
    assert!(warning(&scratch).await.unwrap().contains("none passed for 90 days"));
    let scratch = scratch.configured(|config| config.drill_days = 0).await;
    assert_eq!(warning(&scratch).await, None, "nobody asked for drills");
}

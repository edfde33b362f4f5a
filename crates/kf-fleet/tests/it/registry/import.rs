//! Import of devices from CSV and JSON.

use std::fmt::Write;

use kf_api::audit::AuditFilter;
use kf_api::device::{DeviceFilter, ImportFormat, ImportReport};
use kf_api::operator::Role;
use kf_fleet::{FleetError, Principal};

use crate::scratch::{Scratch, field_of};

fn csv(rows: impl IntoIterator<Item = String>) -> String {
    let mut text = String::from("name,facility,product_line,batch,attr.colour\n");
    for row in rows {
        writeln!(text, "{row}").unwrap();
    }
    text
}

fn rows(range: std::ops::Range<u32>) -> impl Iterator<Item = String> {
    range.map(|number| format!("t-{number},plant-a,thermo,b1,red"))
}

async fn import(scratch: &Scratch, who: &Principal, text: &str, dry_run: bool) -> ImportReport {
    scratch.fleet.device_import(who, ImportFormat::Csv, text.as_bytes(), dry_run).await.unwrap()
}

async fn count(scratch: &Scratch) -> u64 {
    let status = scratch.fleet.status(&scratch.owner).await.unwrap();
    status.devices.iter().map(|(_, count)| count).sum()
}

#[tokio::test]
async fn a_file_is_registered_over_several_transactions_and_sent_again_resumes() {
    let scratch = Scratch::new().await;
    let half = csv(rows(0..1_200));
    let whole = csv(rows(0..2_500));
    let report = import(&scratch, &scratch.owner, &half, false).await;
    assert_eq!((report.rows, report.registered, report.already_there, report.refused), (1_200, 1_200, 0, 0));
    let report = import(&scratch, &scratch.owner, &whole, false).await;
    assert_eq!((report.rows, report.registered, report.already_there, report.refused), (2_500, 1_300, 1_200, 0));
    let before = scratch.fleet.status(&scratch.owner).await.unwrap().log_size;
    let report = import(&scratch, &scratch.owner, &whole, false).await;
    assert_eq!((report.registered, report.already_there), (0, 2_500));
    assert_eq!(scratch.fleet.status(&scratch.owner).await.unwrap().log_size, before);
    assert_eq!(count(&scratch).await, 2_500);
}

#[tokio::test]
async fn wrong_rows_are_numbered_and_named_and_the_others_are_registered() {
    let scratch = Scratch::new().await;
    scratch.device_at("taken", "plant-b", "thermo").await;
    let text = csv([
        "t-1,plant-a,thermo,b1,red".to_owned(),
        "t 2,plant-a,thermo,b1,red".to_owned(),
        "t-3,nowhere,thermo,b1,red".to_owned(),
        "t-4,plant-a,nothing,b1,red".to_owned(),
        "t-5,plant-a,thermo".to_owned(),
        "t-1,plant-a,thermo,b1,red".to_owned(),
        "taken,plant-a,thermo,b1,red".to_owned(),
        "t-8,plant-b,thermo,,".to_owned(),
    ]);
    let wanted = [(2, "name"), (3, "facility"), (4, "product_line"), (5, "row"), (6, "name"), (7, "name")];
    for dry_run in [true, false] {
        let report = import(&scratch, &scratch.owner, &text, dry_run).await;
        let mut found: Vec<_> = report.errors.iter().map(|error| (error.row, error.field.as_str())).collect();
        found.sort_unstable();
        assert_eq!(found, wanted);
        assert!(report.errors.iter().all(|error| !error.problem.is_empty() && !error.remedy.is_empty()));
        assert_eq!((report.dry_run, report.rows, report.registered, report.refused), (dry_run, 8, 2, 6));
    }
    assert_eq!(count(&scratch).await, 3);
}

#[tokio::test]
async fn a_dry_run_says_what_the_import_will_do_and_writes_nothing() {
    let scratch = Scratch::new().await;
    import(&scratch, &scratch.owner, &csv(rows(0..3)), false).await;
    let log_before = scratch.fleet.status(&scratch.owner).await.unwrap().log_size;
    let text =
        csv(rows(1..1_500).chain(["t-0,plant-b,thermo,b1,red".to_owned(), "t-1,plant-a,thermo,b1,red".to_owned()]));
    let dry = import(&scratch, &scratch.owner, &text, true).await;
    assert_eq!(count(&scratch).await, 3);
    assert_eq!(scratch.fleet.status(&scratch.owner).await.unwrap().log_size, log_before);
    let wet = import(&scratch, &scratch.owner, &text, false).await;
    assert_eq!(ImportReport { dry_run: false, ..dry.clone() }, wet);
    assert_eq!((dry.registered, dry.already_there, dry.refused), (1_497, 2, 2));
}

#[tokio::test]
async fn a_text_that_breaks_off_registers_nothing() {
    let scratch = Scratch::new().await;
    let mut text = String::from("[");
    for number in 0..1_500 {
        write!(text, r#"{{"name":"t-{number}","facility":"plant-a","product_line":"thermo"}},"#).unwrap();
    }
    let error =
        scratch.fleet.device_import(&scratch.owner, ImportFormat::Json, text.as_bytes(), false).await.unwrap_err();
    assert_eq!(field_of(&error), "body");
    assert_eq!(count(&scratch).await, 0);
    let error = scratch.fleet.device_import(&scratch.owner, ImportFormat::Csv, b"name\n", false).await.unwrap_err();
    assert_eq!(field_of(&error), "header");
}

#[tokio::test]
async fn json_registers_the_same_devices_as_csv() {
    let scratch = Scratch::new().await;
    import(&scratch, &scratch.owner, &csv(rows(0..2)), false).await;
    let json = br#"[{"name":"t-0","facility":"plant-a","product_line":"thermo","batch":"b1","attributes":{"colour":"red"}},
                    {"name":"t-1","facility":"plant-a","product_line":"thermo","batch":"b1","attributes":{"colour":"blue"}},
                    {"name":"t-2","facility":"plant-a","product_line":"thermo"},
                    {"name":"t-3","facility":"plant-a","product_line":"thermo","owner":"me"}]"#;
    let report = scratch.fleet.device_import(&scratch.owner, ImportFormat::Json, json, false).await.unwrap();
    assert_eq!((report.rows, report.registered, report.already_there, report.refused), (4, 1, 1, 2));
}

#[tokio::test]
async fn all_refused_rows_are_counted_and_a_thousand_of_them_named() {
    let scratch = Scratch::new().await;
    let text = csv((0..1_500).map(|number| format!("t {number},plant-a,thermo,,")));
    let report = import(&scratch, &scratch.owner, &text, true).await;
    assert_eq!((report.refused, report.errors.len(), report.registered), (1_500, 1_000, 0));
    assert_eq!(report.errors.last().unwrap().row, 1_000);
}

#[tokio::test]
async fn a_station_imports_to_its_own_facility_and_learns_nothing_of_others() {
    let scratch = Scratch::new().await;
    let station = scratch.operator("station-1", Role::Station, &["plant-a"]).await;
    let text =
        csv(["t-1,plant-a,thermo,,".to_owned(), "t-2,plant-b,thermo,,".to_owned(), "t-3,nowhere,thermo,,".to_owned()]);
    let report = import(&scratch, &station, &text, false).await;
    assert_eq!((report.registered, report.refused), (1, 2));
    let problem = |at: usize, name: &str| report.errors[at].problem.replace(name, "X");
    assert_eq!(
        problem(0, "plant-b"),
        problem(1, "nowhere"),
        "the refusal tells a facility that exists from one that does not"
    );
    let auditor = scratch.operator("anna", Role::Auditor, &[]).await;
    let denied = scratch.fleet.device_import(&auditor, ImportFormat::Csv, text.as_bytes(), true).await;
    assert!(matches!(denied, Err(FleetError::Denied(_))));
}

#[tokio::test]
async fn every_registration_of_an_import_is_logged_with_its_row_and_the_files_digest() {
    let scratch = Scratch::new().await;
    let text = csv(rows(0..3));
    import(&scratch, &scratch.owner, &text, false).await;
    let devices = scratch.fleet.device_list(&scratch.owner, DeviceFilter::default()).await.unwrap().items;
    assert_eq!(devices.len(), 3);
    for device in devices {
        let filter = AuditFilter { subject: Some(device.id.to_string()), ..AuditFilter::default() };
        let entries = scratch.fleet.audit_list(&scratch.owner, filter).await.unwrap().items;
        let [record] = entries.as_slice() else { panic!("{entries:?}") };
        assert_eq!(record.entry["act"], "device.register");
        assert_eq!(record.entry["detail"]["import"], hex(&kf_crypto::sha256(text.as_bytes())));
        let row: u32 = record.entry["detail"]["row"].as_str().unwrap().parse().unwrap();
        assert_eq!(device.name, format!("t-{}", row - 1));
    }
}

fn hex(octets: &[u8]) -> String {
    octets.iter().fold(String::new(), |text, octet| text + &format!("{octet:02x}"))
}

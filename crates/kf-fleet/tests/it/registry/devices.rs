//! Registration, listing and history of devices.

use kf_api::device::{DeviceAct, DeviceActRequest, DeviceFilter, NewDevice};
use kf_api::operator::Role;
use kf_fleet::FleetError;
use kf_key::DeviceState;

use crate::scratch::{Scratch, field_of};

fn new(name: &str) -> NewDevice {
    NewDevice {
        name: name.into(),
        facility: "plant-a".into(),
        product_line: "thermo".into(),
        batch: Some("batch-1".into()),
        attributes: [("colour".to_owned(), "red".to_owned())].into(),
    }
}

#[tokio::test]
async fn registering_the_same_facts_again_answers_with_the_device_that_is_there() {
    let scratch = Scratch::new().await;
    let first = scratch.fleet.device_register(&scratch.owner, new("t-1")).await.unwrap();
    let before = scratch.fleet.status(&scratch.owner).await.unwrap().log_size;
    scratch.pass(1_000);
    let by_id =
        NewDevice { facility: first.facility.to_string(), product_line: first.product_line.to_string(), ..new("t-1") };
    for again in [new("t-1"), by_id] {
        assert_eq!(scratch.fleet.device_register(&scratch.owner, again).await.unwrap(), first);
    }
    assert_eq!(scratch.fleet.status(&scratch.owner).await.unwrap().log_size, before);
}

#[tokio::test]
async fn a_name_with_other_facts_is_a_conflict_and_changes_nothing() {
    let scratch = Scratch::new().await;
    let first = scratch.fleet.device_register(&scratch.owner, new("t-1")).await.unwrap();
    let others = [
        NewDevice { facility: "plant-b".into(), ..new("t-1") },
        NewDevice { batch: None, ..new("t-1") },
        NewDevice { attributes: Default::default(), ..new("t-1") },
    ];
    for other in others {
        let error = scratch.fleet.device_register(&scratch.owner, other).await.unwrap_err();
        assert!(matches!(error, FleetError::Conflict { .. }));
        assert_eq!(field_of(&error), "name");
    }
    assert_eq!(scratch.fleet.device_show(&scratch.owner, "t-1").await.unwrap().device, first);
}

#[tokio::test]
async fn a_name_taken_at_another_facility_does_not_tell_where() {
    let scratch = Scratch::new().await;
    scratch.device_at("t-1", "plant-b", "thermo").await;
    let lena = scratch.operator("lena", Role::FacilityOperator, &["plant-a"]).await;
    let error = scratch.fleet.device_register(&lena, new("t-1")).await.unwrap_err();
    assert!(matches!(error, FleetError::Conflict { .. }));
    let text = format!("{error:?}");
    assert!(!text.contains("plant-b") && !text.contains("dev_") && !text.contains("fac_"), "{text}");
}

#[tokio::test]
async fn unknown_places_are_not_found_and_wrong_fields_are_named() {
    let scratch = Scratch::new().await;
    let register = |new: NewDevice| scratch.fleet.device_register(&scratch.owner, new);
    let nowhere = register(NewDevice { facility: "nowhere".into(), ..new("t-1") }).await;
    assert!(matches!(nowhere, Err(FleetError::NotFound("facility"))));
    let nothing = register(NewDevice { product_line: "nothing".into(), ..new("t-1") }).await;
    assert!(matches!(nothing, Err(FleetError::NotFound("product line"))));
    assert_eq!(field_of(&register(new("t 1")).await.unwrap_err()), "name");
    let error = register(NewDevice { batch: Some("a\n".into()), ..new("t-1") }).await.unwrap_err();
    assert_eq!(field_of(&error), "batch");
}

#[tokio::test]
async fn a_listing_matches_every_filter_and_pages_without_repeating() {
    let scratch = Scratch::new().await;
    scratch.line("flow", Default::default()).await;
    for (name, facility, line) in [
        ("a-1", "plant-a", "thermo"),
        ("a-2", "plant-a", "flow"),
        ("b-1", "plant-b", "thermo"),
        ("b-2", "plant-b", "flow"),
        ("a-3", "plant-a", "thermo"),
    ] {
        scratch.device_at(name, facility, line).await;
    }
    let suspend =
        DeviceActRequest { act: DeviceAct::Suspend, why: "test".into(), departure: Default::default(), dry_run: false };
    scratch.fleet.device_act(&scratch.owner, "a-3", suspend).await.unwrap();
    let list = async |filter: DeviceFilter| {
        let page = scratch.fleet.device_list(&scratch.owner, filter).await.unwrap();
        let mut names: Vec<String> = page.items.into_iter().map(|device| device.name).collect();
        names.sort();
        names.join(" ")
    };
    let filter = DeviceFilter::default;
    assert_eq!(list(filter()).await, "a-1 a-2 a-3 b-1 b-2");
    assert_eq!(list(DeviceFilter { facility: Some("plant-b".into()), ..filter() }).await, "b-1 b-2");
    assert_eq!(list(DeviceFilter { product_line: Some("flow".into()), ..filter() }).await, "a-2 b-2");
    assert_eq!(list(DeviceFilter { state: Some(DeviceState::Suspended), ..filter() }).await, "a-3");
    assert_eq!(list(DeviceFilter { name_prefix: Some("b-".into()), ..filter() }).await, "b-1 b-2");
    assert_eq!(list(DeviceFilter { batch: Some("no-such".into()), ..filter() }).await, "");
    let both = DeviceFilter { facility: Some("plant-a".into()), product_line: Some("flow".into()), ..filter() };
    assert_eq!(list(both).await, "a-2");

    let mut seen = Vec::new();
    let mut paged = DeviceFilter { limit: Some(2), ..filter() };
    loop {
        let page = scratch.fleet.device_list(&scratch.owner, paged.clone()).await.unwrap();
        seen.extend(page.items.into_iter().map(|device| device.name));
        paged.after = page.next;
        if paged.after.is_none() {
            break;
        }
    }
    seen.sort();
    assert_eq!(seen, ["a-1", "a-2", "a-3", "b-1", "b-2"]);
}

#[tokio::test]
async fn a_device_is_shown_with_its_names_certificates_and_history() {
    let scratch = Scratch::new().await;
    let device = scratch.device("t-1").await;
    let identity = scratch.enrol("t-1").await;
    let shown = scratch.fleet.device_show(&scratch.owner, &device.id.to_string()).await.unwrap();
    assert_eq!(shown.device.state, DeviceState::Active);
    assert_eq!((shown.facility_name.as_str(), shown.product_line_name.as_str()), ("plant-a", "thermo"));
    assert_eq!(shown.certificates.iter().map(|certificate| certificate.serial).collect::<Vec<_>>(), [identity.serial]);
    let acts: Vec<_> = shown.events.iter().map(|event| event.entry["act"].as_str().unwrap()).collect();
    assert_eq!(acts, ["device.register", "code.create", "certificate.issue"]);
}

#[tokio::test]
async fn a_station_registers_devices_at_its_facility_and_nowhere_else() {
    let scratch = Scratch::new().await;
    let station = scratch.operator("station-1", Role::Station, &["plant-a"]).await;
    assert!(scratch.fleet.device_register(&station, new("t-1")).await.is_ok());
    let elsewhere = NewDevice { facility: "plant-b".into(), ..new("t-2") };
    assert!(matches!(scratch.fleet.device_register(&station, elsewhere).await, Err(FleetError::NotFound("facility"))));
}

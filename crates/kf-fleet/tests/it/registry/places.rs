//! Facilities and product lines.

use kf_api::PageRequest;
use kf_api::facility::NewFacility;
use kf_api::operator::Role;
use kf_api::product_line::{EnrolmentPolicy, NewProductLine};
use kf_fleet::FleetError;

use crate::scratch::{Scratch, field_of};

#[tokio::test]
async fn a_facility_is_found_by_name_and_by_id() {
    let scratch = Scratch::new().await;
    let by_name = scratch.fleet.facility_show(&scratch.owner, "plant-a").await.unwrap();
    let by_id = scratch.fleet.facility_show(&scratch.owner, &by_name.id.to_string()).await.unwrap();
    assert_eq!(by_name, by_id);
    let missing = scratch.fleet.facility_show(&scratch.owner, "plant-z").await;
    assert!(matches!(missing, Err(FleetError::NotFound("facility"))));
}

#[tokio::test]
async fn a_name_in_use_is_refused_by_field_and_nothing_is_written() {
    let scratch = Scratch::new().await;
    let before = scratch.fleet.status(&scratch.owner).await.unwrap().log_size;
    let facility = NewFacility { name: "plant-a".into(), description: String::new() };
    let error = scratch.fleet.facility_create(&scratch.owner, facility).await.unwrap_err();
    assert!(matches!(error, FleetError::Conflict { .. }));
    assert_eq!(field_of(&error), "name");
    let line = NewProductLine { name: "thermo".into(), authority: None, policy: EnrolmentPolicy::default() };
    let error = scratch.fleet.product_line_create(&scratch.owner, line).await.unwrap_err();
    assert!(matches!(error, FleetError::Conflict { .. }));
    assert_eq!(field_of(&error), "name");
    assert_eq!(scratch.fleet.status(&scratch.owner).await.unwrap().log_size, before);
}

#[tokio::test]
async fn wrong_names_and_descriptions_are_refused_by_field() {
    let scratch = Scratch::new().await;
    for (name, description, field) in
        [("Plant", "", "name"), ("", "", "name"), ("p", "a\nb", "description"), ("p", &*"x".repeat(201), "description")]
    {
        let new = NewFacility { name: name.into(), description: description.into() };
        let error = scratch.fleet.facility_create(&scratch.owner, new).await.unwrap_err();
        assert_eq!(field_of(&error), field);
    }
}

#[tokio::test]
async fn facilities_are_paged_and_each_is_shown_once() {
    let scratch = Scratch::new().await;
    for number in 0..5 {
        let new = NewFacility { name: format!("site-{number}"), description: String::new() };
        scratch.fleet.facility_create(&scratch.owner, new).await.unwrap();
    }
    let mut names = Vec::new();
    let mut page = PageRequest { after: None, limit: Some(3) };
    loop {
        let found = scratch.fleet.facility_list(&scratch.owner, page.clone()).await.unwrap();
        assert!(found.items.len() <= 3);
        names.extend(found.items.into_iter().map(|facility| facility.name));
        page.after = found.next;
        if page.after.is_none() {
            break;
        }
    }
    names.sort();
    assert_eq!(names, ["plant-a", "plant-b", "site-0", "site-1", "site-2", "site-3", "site-4"]);
    let nonsense = PageRequest { after: Some("nonsense".into()), limit: None };
    let error = scratch.fleet.facility_list(&scratch.owner, nonsense).await.unwrap_err();
    assert_eq!(field_of(&error), "after");
}

#[tokio::test]
async fn a_change_of_policy_is_logged_with_what_it_was_before() {
    let scratch = Scratch::new().await;
    let policy = EnrolmentPolicy { ldevid_lifetime_hours: 24, ..EnrolmentPolicy::default() };
    let line = scratch.fleet.product_line_set_policy(&scratch.owner, "thermo", policy.clone()).await.unwrap();
    assert_eq!(line.policy, policy);
    let shown = scratch.fleet.product_line_show(&scratch.owner, &line.id.to_string()).await.unwrap();
    assert_eq!(shown, line);
    let filter = kf_api::audit::AuditFilter { subject: Some(line.id.to_string()), ..Default::default() };
    let entries = scratch.fleet.audit_list(&scratch.owner, filter).await.unwrap().items;
    let last = &entries.last().unwrap().entry;
    assert_eq!(last["act"], "product-line.set-policy");
    assert!(last["detail"]["before"].as_str().unwrap().contains("\"ldevid_lifetime_hours\":2160"));
    assert!(last["detail"]["after"].as_str().unwrap().contains("\"ldevid_lifetime_hours\":24"));
}

#[tokio::test]
async fn a_product_line_names_an_issuing_ca_that_exists_and_never_the_root() {
    let scratch = Scratch::new().await;
    let create = |name: &str, authority: &str| {
        let new =
            NewProductLine { name: name.into(), authority: Some(authority.into()), policy: EnrolmentPolicy::default() };
        scratch.fleet.product_line_create(&scratch.owner, new)
    };
    assert!(matches!(create("a", "nowhere").await, Err(FleetError::NotFound("authority"))));
    assert_eq!(field_of(&create("a", "root").await.unwrap_err()), "authority");
    assert!(create("a", "issuing").await.unwrap().authority.is_some());
}

#[tokio::test]
async fn everybody_in_scope_reads_product_lines() {
    let scratch = Scratch::new().await;
    let lena = scratch.operator("lena", Role::FacilityOperator, &["plant-a"]).await;
    let lines = scratch.fleet.product_line_list(&lena, PageRequest::default()).await.unwrap();
    assert_eq!(lines.items.len(), 1);
    assert!(scratch.fleet.product_line_show(&lena, "thermo").await.is_ok());
}

use super::*;

fn contradictions(text: &str) -> Vec<String> {
    match Policy::parse(text) {
        Err(PolicyError::Contradictions(found)) => found.iter().map(ToString::to_string).collect(),
        other => panic!("{other:?}"),
    }
}

fn days(rule: &Rule) -> u64 {
    rule.originator.expect("a period").milliseconds() / kf_key::UnixMillis::DAY
}

#[test]
fn a_file_that_says_nothing_is_the_default_policy() {
    assert_eq!(Policy::parse("version = 1").expect("valid"), Policy::default());
    assert_eq!(contradiction::find(&Policy::default()), []);
}

#[test]
fn every_preset_is_free_of_contradictions_by_itself_and_says_what_it_demands() {
    for preset in Preset::ALL {
        let policy = Policy::parse(&format!("version = 1\npreset = \"{}\"", preset.name())).expect("valid");
        assert_eq!(policy.preset(), preset);
        assert!(preset.statement().len() > 80);
    }
}

#[test]
fn an_override_changes_the_fields_that_it_names_for_its_scope_alone() {
    let text = "version = 1\n[[override]]\nfacility = \"lyon\"\n[override.class.ldevid-key]\noriginator = \"30d\"\n";
    let policy = Policy::parse(text).expect("valid");
    let lyon = Scope { facility: Some("lyon"), product_line: Some("thermo") };
    let graz = Scope { facility: Some("graz"), product_line: Some("thermo") };
    assert_eq!(days(&policy.rule(KeyClass::LDevIdKey, lyon)), 30);
    assert_eq!(days(&policy.rule(KeyClass::LDevIdKey, graz)), 90);
    assert_eq!(policy.rule(KeyClass::LDevIdKey, lyon).rotate_at, 67);
    assert_eq!(policy.rule(KeyClass::OperatorKey, lyon), policy.rule(KeyClass::OperatorKey, graz));
}

#[test]
fn facility_and_product_line_give_the_stricter_value_and_both_together_the_last_word() {
    let text = "version = 1\n\
        [[override]]\nfacility = \"lyon\"\n[override.class.ldevid-key]\noriginator = \"30d\"\n\
        [[override]]\nproduct-line = \"thermo\"\n[override.class.ldevid-key]\noriginator = \"60d\"\nrotate-at = 50\n\
        [[override]]\nfacility = \"lyon\"\nproduct-line = \"lock\"\n[override.class.ldevid-key]\noriginator = \"80d\"\n";
    let policy = Policy::parse(text).expect("valid");
    let rule =
        |facility, line| policy.rule(KeyClass::LDevIdKey, Scope { facility: Some(facility), product_line: Some(line) });
    assert_eq!((days(&rule("lyon", "thermo")), rule("lyon", "thermo").rotate_at), (30, 50));
    assert_eq!(days(&rule("graz", "thermo")), 60);
    assert_eq!(days(&rule("lyon", "lock")), 80);
}

#[test]
fn every_contradiction_is_named_with_its_place_and_what_to_do() {
    let text = "version = 1\n\
        [class.ldevid-key]\noriginator = \"3y\"\nuses = 5\nrecipient-after = \"1y\"\nrotate-at = 0\n\
        [class.data-encryption-key]\nuses = 9999999999\nrecipient-after = \"4y\"\n\
        [class.device-key]\noriginator = \"360d\"\n[class.facility-key]\noriginator = \"200d\"\n\
        [class.storage-key]\noctets = 0\noriginator = \"100d\"\n";
    let found = contradictions(text);
    for part in [
        "ldevid-key: originator: longer than the 2y",
        "ldevid-key: recipient-after: keys of this class have no",
        "ldevid-key: rotate-at: expected a percentage",
        "ldevid-key: uses, octets: they are not counted for keys of this class",
        "data-encryption-key: uses: beyond the 4294967296 uses",
        "data-encryption-key: recipient-after: longer than the 3y",
        "device-key: originator: a key cannot outlive the facility-key above it, which ends after 200d",
        "storage-key: uses, octets: a limit of zero",
    ] {
        assert!(found.iter().any(|line| line.contains(part)), "{part} not in {found:#?}");
    }
    assert_eq!(found.len(), 8, "{found:#?}");
}

#[test]
fn an_exception_allows_more_than_the_recommendation_and_counts_for_the_period_it_was_written_for() {
    let longer = "version = 1\n[class.data-encryption-key]\noriginator = \"5y\"\n";
    assert_eq!(contradictions(longer).len(), 1);
    Policy::parse(&format!("{longer}exception = \"archive, split knowledge\"\n")).expect("valid");
    // The exception of the default is not one for whatever somebody sets later.
    assert_eq!(contradictions("version = 1\n[class.fleet-root-key]\noriginator = \"50y\"\n").len(), 1);
}

#[test]
fn what_is_wrong_in_an_override_is_named_with_its_scope_and_what_is_wrong_everywhere_only_once() {
    let text = "version = 1\n[class.log-key]\nrotate-at = 200\n\
        [[override]]\nfacility = \"lyon\"\n[override.class.device-key]\noriginator = \"2y\"\n\
        [[override]]\n[[override]]\nfacility = \"lyon\"\n";
    let found = contradictions(text);
    assert!(found.iter().any(|line| line.starts_with("facility lyon: device-key: originator: longer")), "{found:#?}");
    assert!(found.iter().any(|line| line.contains("names a facility, a product line, or both")), "{found:#?}");
    assert!(found.iter().any(|line| line.contains("two overrides")), "{found:#?}");
    assert_eq!(found.iter().filter(|line| line.contains("rotate-at")).count(), 1, "{found:#?}");
}

#[test]
fn a_policy_longer_than_its_preset_is_refused() {
    let text = "version = 1\npreset = \"90-days\"\n[class.ldevid-key]\noriginator = \"180d\"\n";
    assert!(contradictions(text).iter().any(|line| line.contains("the preset asks for at most 90d")));
}

#[test]
fn unknown_fields_classes_versions_and_sizes_are_refused() {
    for text in [
        "version = 1\nfoo = 1",
        "version = 1\n[class.ldevid-key]\nttl = \"1d\"",
        "version = 1\n[class.rsa-key]\n",
        "version = 1\n[class.ldevid-key]\noriginator = \"soon\"",
        "version = 1\n[class.ldevid-key]\nrotate-on = [\"full-moon\"]",
        "version = 1\n[class.ldevid-key]\nuses = -1",
        "",
        "not toml",
    ] {
        assert!(matches!(Policy::parse(text), Err(PolicyError::Syntax(_))), "{text}");
    }
    assert_eq!(Policy::parse("version = 2"), Err(PolicyError::Version(2)));
    assert_eq!(Policy::parse(&"#".repeat(MAX_POLICY_OCTETS + 1)), Err(PolicyError::TooLarge));
    let many = format!("version = 1\n{}", "[[override]]\nfacility = \"a\"\n".repeat(MAX_OVERRIDES + 1));
    assert_eq!(Policy::parse(&many), Err(PolicyError::TooManyOverrides(MAX_OVERRIDES + 1)));
}

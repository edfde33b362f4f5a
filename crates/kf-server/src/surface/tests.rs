use super::*;

fn est(path: &str) -> Option<(EstLabel<'_>, Option<EstOperation>)> {
    match Surface::of(path) {
        Surface::Est(label, operation) => Some((label, operation)),
        _ => None,
    }
}

#[test]
fn both_layouts_of_est_paths_name_label_and_operation() {
    for (name, operation) in EstOperation::ALL {
        assert_eq!(est(&format!("/.well-known/est/{name}")), Some((EstLabel::None, Some(operation))));
        for path in [format!("/.well-known/est/pump-1.a/{name}"), format!("/pump-1.a/.well-known/est/{name}")] {
            assert_eq!(est(&path), Some((EstLabel::Line("pump-1.a"), Some(operation))), "{path}");
        }
    }
}

#[test]
fn a_path_that_is_almost_est_is_not_taken_for_it() {
    for path in [
        "/.well-known/est",
        "/.well-known/estcacerts",
        "/a/.well-known/est/b/cacerts",
        "/a/b/.well-known/est/cacerts",
        "/.well-known/est//cacerts",
        "//.well-known/est/cacerts",
        "/.well-known/est/%2e%2e/cacerts",
        "/.well-known/est/Pump/cacerts",
        "x/.well-known/est/cacerts",
    ] {
        assert_eq!(est(path), None, "{path}");
    }
    assert_eq!(est("/.well-known/est/unknown"), Some((EstLabel::None, None)));
    assert_eq!(est("/.well-known/est/a/b/cacerts"), Some((EstLabel::Line("a"), None)));
    assert_eq!(est(&format!("/.well-known/est/{}/cacerts", "a".repeat(65))), None);
}

#[test]
fn only_what_is_signed_in_itself_may_be_plain() {
    for path in ["/ocsp", "/ocsp/MFE", "/crl/ca_1/0.crl", "/ca/ca_1.cer", "/livez", "/"] {
        assert!(Surface::of(path).may_be_plain(), "{path}");
    }
    for path in [
        "/v1",
        "/v1/whoami",
        "/v1/nothing",
        "/metrics",
        "/readyz",
        "/.well-known/est/simpleenroll",
        "/.well-known/est/unknown",
        "/a/.well-known/est/cacerts",
    ] {
        assert!(!Surface::of(path).may_be_plain(), "{path}");
    }
}

proptest::proptest! {
    #[test]
    fn no_path_panics_and_none_makes_enrolment_plain(path in "(/|[a-z.%-]|well-known|est|v1|ocsp|crl){0,12}") {
        let surface = Surface::of(&path);
        proptest::prop_assert!(Surface::NAMES.contains(&surface.name()), "it is counted");
        if path.contains("/.well-known/est/") && matches!(surface, Surface::Est(..)) {
            proptest::prop_assert!(!surface.may_be_plain());
        }
    }
}

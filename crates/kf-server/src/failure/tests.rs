use http_body_util::BodyExt as _;

use super::*;

async fn text(reply: Reply) -> String {
    String::from_utf8(reply.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
}

fn every_error() -> Vec<(FleetError, u16, &'static str)> {
    let (field, problem, remedy) = (String::from("name"), String::from("is empty"), String::from("give it a name"));
    let denied = kf_access::Denied { role: "auditor", action: "device.move", may_know: true };
    vec![
        (
            FleetError::Invalid { field: field.clone(), problem: problem.clone(), remedy: remedy.clone() },
            400,
            "invalid",
        ),
        (FleetError::Unauthenticated, 401, "unauthenticated"),
        (FleetError::Denied(denied), 403, "denied"),
        (
            FleetError::Forbidden { field: field.clone(), problem: problem.clone(), remedy: remedy.clone() },
            403,
            "forbidden",
        ),
        (FleetError::NotFound("device"), 404, "not-found"),
        (FleetError::Conflict { field, problem, remedy }, 409, "conflict"),
        (FleetError::TooMany { retry_after_seconds: 7 }, 429, "too-many"),
        (FleetError::IssuanceStopped("drill".into()), 503, "issuance-stopped"),
        (FleetError::StoreFull, 503, "store-full"),
        (FleetError::Fenced("older than the witness".into()), 503, "fenced"),
        (FleetError::Local { path: "/var/lib/secret-place".into(), problem: "gone".into() }, 500, "internal"),
        (FleetError::Bug("arithmetic"), 500, "internal"),
    ]
}

#[tokio::test]
async fn every_error_has_its_status_and_its_problem_type() {
    for (error, status, code) in every_error() {
        let shown = error.to_string();
        let reply = Failure::from(error).into_problem();
        assert_eq!(reply.status().as_u16(), status, "{shown}");
        assert_eq!(reply.headers()["content-type"], "application/problem+json");
        let problem: Problem = serde_json::from_str(&text(reply).await).unwrap();
        assert_eq!(problem.kind, format!("urn:keyfleet:problem:{code}"), "{shown}");
        assert_eq!(problem.status, status, "{shown}");
    }
}

#[tokio::test]
async fn what_failed_inside_is_not_told_outside() {
    for error in [
        FleetError::Local { path: "/var/lib/secret-place".into(), problem: "secret-problem".into() },
        FleetError::Bug("secret-arithmetic"),
    ] {
        assert!(!text(Failure::from(error).into_problem()).await.contains("secret"));
    }
}

#[test]
fn a_challenge_fits_the_surface() {
    let api = Failure::unauthenticated().into_problem();
    assert_eq!(api.headers()[WWW_AUTHENTICATE], "Bearer realm=\"keyfleet\"");
    let est = Failure::unauthenticated().into_text();
    assert_eq!(est.headers()[WWW_AUTHENTICATE], "Basic realm=\"est\"");
    assert!(!Failure::not_found().into_text().headers().contains_key(WWW_AUTHENTICATE));
}

#[tokio::test]
async fn est_refusals_name_field_and_remedy_in_plain_text() {
    let reply = Failure::invalid("key", "RSA of 1024 bits", "use P-256").into_text();
    assert_eq!(reply.status(), StatusCode::BAD_REQUEST);
    assert_eq!(text(reply).await, "key: RSA of 1024 bits; use P-256\r\n");
}

#[test]
fn retry_after_is_a_number() {
    let reply = Failure::from(FleetError::TooMany { retry_after_seconds: 90 }).into_text();
    assert_eq!(reply.headers()[RETRY_AFTER], "90");
}

#[tokio::test]
async fn an_echo_is_short_and_has_no_control_characters() {
    let reply = Failure::invalid("name", &"\r\nX: y\u{7}".repeat(1_000), "shorten it").into_text();
    let text = text(reply).await;
    assert!(text.len() < 1_000, "{}", text.len());
    assert!(!text.trim_end().contains(['\r', '\n', '\u{7}']));
}

//! `/v1`, health and metrics, with curl as the client.

use kf_api::certificate::IssueRequest;
use kf_api::operator::Role;
use kf_key::CertificateProfile;

use crate::rig::{Rig, openssl};

#[tokio::test(flavor = "multi_thread")]
async fn what_is_created_can_be_read_back_and_listed() {
    let rig = Rig::start().await;
    let token = &rig.owner_token;
    let made = rig.api(token, "POST", "/v1/facilities", Some(r#"{"name":"factory-c","description":"third"}"#));
    made.expect(201);
    let id = made.json()["id"].as_str().unwrap().to_owned();
    for reference in ["factory-c", &id] {
        let shown = rig.api(token, "GET", &format!("/v1/facilities/{reference}"), None);
        assert_eq!(shown.expect(200).json(), made.json());
    }
    let page = rig.api(token, "GET", "/v1/facilities?limit=2", None);
    let page = page.expect(200).json();
    assert_eq!(page["items"].as_array().unwrap().len(), 2);
    let next = rig.api(token, "GET", &format!("/v1/facilities?limit=2&after={}", page["next"].as_str().unwrap()), None);
    assert_eq!(next.expect(200).json()["items"].as_array().unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_are_problem_documents_that_name_field_and_remedy() {
    let rig = Rig::start().await;
    let token = &rig.owner_token;
    let device = r#"{"name":"pump-1","facility":"factory-a","product_line":"pumps"}"#;
    let cases = [
        ("POST", "/v1/facilities", Some(r#"{"name":"NOT A NAME"}"#), 400, "invalid"),
        ("POST", "/v1/facilities", Some(r#"{"name":"x","colour":"red"}"#), 400, "invalid"),
        ("POST", "/v1/facilities", Some(r#"{"name":"#), 400, "invalid"),
        ("POST", "/v1/facilities", Some(r#"{"name":"factory-a"}"#), 409, "conflict"),
        ("GET", "/v1/facilities/none", None, 404, "not-found"),
        ("GET", "/v1/facilities?colour=red", None, 400, "invalid"),
        ("GET", "/v1/facilities?limit=many", None, 400, "invalid"),
        ("GET", "/v1/certificates/xyz", None, 400, "invalid"),
        ("DELETE", "/v1/codes/fac_00000000000000000000000000000000", None, 400, "invalid"),
        ("GET", "/v1/nothing", None, 404, "not-found"),
        ("GET", "/v1", None, 404, "not-found"),
        ("DELETE", "/v1/facilities", None, 405, "method-not-allowed"),
        ("POST", "/v1/devices/import?format=xml", Some("x"), 400, "invalid"),
        ("POST", "/v1/blocked-keys", Some(r#"{"spki_sha256":["zz"]}"#), 400, "invalid"),
        ("POST", "/v1/devices/none/move", Some(r#"{"facility":"factory-b","whom":"me"}"#), 400, "invalid"),
    ];
    rig.api(token, "POST", "/v1/devices", Some(device)).expect(201);
    for (method, path, body, status, code) in cases {
        let answer = rig.api(token, method, path, body);
        answer.expect(status);
        assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{method} {path}");
        let problem = answer.json();
        assert_eq!(problem["type"], format!("urn:keyfleet:problem:{code}"), "{method} {path}");
        assert_eq!(problem["status"], status, "{method} {path}");
        if code == "invalid" || code == "conflict" {
            assert!(problem["field"].is_string() && problem["remedy"].is_string(), "{method} {path}: {problem}");
        }
        assert!(answer.header("x-request-id").is_some(), "{method} {path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_of_the_wrong_kind_or_size_is_refused() {
    let rig = Rig::start().await;
    let (bearer, url) = (format!("Authorization: Bearer {}", rig.owner_token), rig.https_url("/v1/facilities"));
    rig.curl(&["-H", &bearer, "-d", r#"{"name":"x"}"#, &url]).expect(415);
    let large = rig.file("large.json");
    std::fs::write(&large, vec![b' '; 1_100_000]).unwrap();
    let data = format!("@{}", large.display());
    rig.curl(&["-H", &bearer, "-H", "Content-Type: application/json", "--data-binary", &data, &url]).expect(413);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_csv_is_imported_with_a_dry_run_first() {
    let rig = Rig::start().await;
    let file = rig.file("devices.csv");
    std::fs::write(&file, "name,facility,product_line\npump-1,factory-a,pumps\npump-2,factory-x,pumps\n").unwrap();
    let (bearer, data) = (format!("Authorization: Bearer {}", rig.owner_token), format!("@{}", file.display()));
    for (dry_run, left) in [(true, 0), (false, 1)] {
        let url = rig.https_url(&format!("/v1/devices/import?format=csv&dry_run={dry_run}"));
        let report = rig.curl(&["-H", &bearer, "-H", "Content-Type: text/csv", "--data-binary", &data, &url]);
        let report = report.expect(200).json();
        assert_eq!(report["registered"], 1, "{report}");
        assert_eq!(report["errors"][0]["row"], 2, "{report}");
        let listed = rig.api(&rig.owner_token, "GET", "/v1/devices?name_prefix=pump", None);
        assert_eq!(listed.expect(200).json()["items"].as_array().unwrap().len(), left);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_import_that_waits_for_100_continue_arrives() {
    let rig = Rig::start().await;
    let mut rows = String::from("name,facility,product_line,attr.note\n");
    for number in 0..6_000 {
        rows.push_str(&format!("pump-{number},factory-a,pumps,{}\n", "x".repeat(200)));
    }
    assert!(rows.len() > 1_200_000);
    let file = rig.file("large.csv");
    std::fs::write(&file, rows).unwrap();
    let (bearer, data) = (format!("Authorization: Bearer {}", rig.owner_token), format!("@{}", file.display()));
    let url = rig.https_url("/v1/devices/import?format=csv&dry_run=true");
    let arguments =
        ["-H", &bearer, "-H", "Expect: 100-continue", "-H", "Content-Type: text/csv", "--data-binary", &data, &url];
    let output = rig.curl(&arguments);
    let text = format!("{}{}", output.head, output.text());
    assert!(text.contains("200 OK") && text.contains("\"registered\":6000"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_certificate_signs_in_until_it_is_revoked_and_a_device_certificate_never_does() {
    let rig = Rig::start().await;
    rig.operator("audra", Role::Auditor, &[]).await;
    let request = rig.request("audra");
    let csr_pem =
        openssl(&["req", "-inform", "DER", "-in", request.der.to_str().unwrap()]).expect_success().stdout_text();
    let issue = IssueRequest {
        profile: CertificateProfile::Operator,
        csr_pem,
        device: None,
        operator: Some("audra".into()),
        dns_names: Vec::new(),
        authority: None,
        lifetime_hours: None,
        dry_run: false,
    };
    let issued = rig.fleet.certificate_issue(&rig.owner, issue).await.unwrap();
    let certificate = rig.file("audra.pem");
    std::fs::write(&certificate, format!("{}{}", issued.pem, issued.chain_pem)).unwrap();
    let url = rig.https_url("/v1/whoami");
    let pair = ["--cert", certificate.to_str().unwrap(), "--key", request.key.to_str().unwrap(), &url];
    let who = rig.curl(&pair).expect(200).json();
    assert_eq!((who["name"].as_str(), who["role"].as_str()), (Some("audra"), Some("auditor")));
    rig.revoke(issued.certificate.serial).await;
    rig.curl(&pair).expect(401);

    let (request, certificate) = rig.enrolled("pump-1").await;
    let pair = ["--cert", certificate.to_str().unwrap(), "--key", request.key.to_str().unwrap(), &url];
    rig.curl(&pair).expect(401);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_withdrawn_token_is_refused_at_the_next_request_and_two_headers_always() {
    let rig = Rig::start().await;
    let token = rig.operator("bob", Role::FacilityOperator, &["factory-b"]).await;
    rig.api(&token, "GET", "/v1/whoami", None).expect(200);
    let tokens = rig.api(&rig.owner_token, "GET", "/v1/tokens?operator=bob", None).json();
    let path = format!("/v1/tokens/{}", tokens[0]["id"].as_str().unwrap());
    assert!(rig.api(&rig.owner_token, "DELETE", &path, None).expect(204).body.is_empty());
    let refused = rig.api(&token, "GET", "/v1/whoami", None);
    assert_eq!(refused.expect(401).header("www-authenticate"), Some("Bearer realm=\"keyfleet\""));
    assert!(!refused.text().contains(&token));
    let bearer = format!("Authorization: Bearer {}", rig.owner_token);
    rig.curl(&["-H", &bearer, "-H", &bearer, &rig.https_url("/v1/whoami")]).expect(400);
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_are_for_operators_and_hold_no_device() {
    let rig = Rig::start().await;
    rig.enrolled("pump-1").await;
    rig.curl(&[&rig.https_url("/metrics")]).expect(401);
    rig.curl(&[&rig.http_url("/metrics")]).expect(403);
    let text = rig.api(&rig.owner_token, "GET", "/metrics", None).expect(200).text();
    for name in [
        "keyfleet_devices{",
        "keyfleet_http_requests_total{",
        "keyfleet_enrol_seconds_bucket{",
        "keyfleet_crl_next_update_seconds",
        "keyfleet_audit_head",
        "keyfleet_connections{",
    ] {
        assert!(text.contains(name), "{name} is missing:\n{text}");
    }
    assert!(!text.contains("pump-1"));
}

#[tokio::test(flavor = "multi_thread")]
async fn liveness_is_everywhere_and_readiness_on_https() {
    let rig = Rig::start().await;
    rig.curl(&[&rig.http_url("/livez")]).expect(200);
    rig.curl(&[&rig.https_url("/livez")]).expect(200);
    rig.curl(&[&rig.https_url("/readyz")]).expect(200);
    rig.curl(&[&rig.http_url("/readyz")]).expect(403);
    rig.curl(&[&rig.http_url("/")]).expect(404);
}

#[tokio::test(flavor = "multi_thread")]
async fn issuance_stops_at_once_and_says_why() {
    let rig = Rig::start().await;
    rig.device("pump-1").await;
    let (code, request) = (rig.code("pump-1").await, rig.request("pump-1"));
    let token = &rig.owner_token;
    rig.api(token, "PUT", "/v1/issuance", Some(r#"{"run":false,"why":"drill"}"#)).expect(200);
    let path = "/.well-known/est/pumps/simpleenroll";
    let stopped = rig.est(path, &["--user", &code], &request);
    assert!(stopped.expect(503).text().contains("drill"), "{}", stopped.text());
    rig.api(token, "PUT", "/v1/issuance", Some(r#"{"run":true}"#)).expect(200);
    rig.est(path, &["--user", &code], &request).expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_is_listed_and_its_files_are_served_but_no_others() {
    let rig = Rig::start().await;
    let token = &rig.owner_token;
    let records = rig.api(token, "GET", "/v1/audit?limit=5", None).expect(200).json();
    assert_eq!(records["items"].as_array().unwrap().len(), 5, "{records}");
    let key = rig.curl(&[&rig.https_url("/v1/audit/verifier-key")]);
    assert!(key.expect(200).text().contains('+'), "{}", key.text());
    let checkpoint = rig.api(token, "GET", "/v1/audit/log/checkpoint", None);
    assert!(checkpoint.expect(200).text().contains('\u{2014}'), "{}", checkpoint.text());
    for path in ["../registry.sqlite", "%2e%2e/registry.sqlite", "tile/../../keyfleet.toml", "/etc/passwd", "nothing"] {
        let (bearer, url) = (format!("Authorization: Bearer {token}"), rig.https_url(&format!("/v1/audit/log/{path}")));
        let answer = rig.curl(&["--path-as-is", "-H", &bearer, &url]);
        assert!(matches!(answer.status, 400 | 404), "{path}: {}", answer.head);
    }
}

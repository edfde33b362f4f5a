//! EST, with curl as the client.

use kf_api::enrolment::EnrolmentDecision;
use kf_api::product_line::{Approval, EnrolmentPolicy};
use kf_server::Limits;

use crate::rig::{Ends as _, Rig, openssl};

const ENROLL: &str = "/.well-known/est/pumps/simpleenroll";
const REENROLL: &str = "/.well-known/est/pumps/simplereenroll";

#[tokio::test(flavor = "multi_thread")]
async fn cacerts_are_certs_only_in_one_line_at_both_layouts_and_without_a_label() {
    let rig = Rig::start().await;
    for path in ["/.well-known/est/cacerts", "/.well-known/est/pumps/cacerts", "/pumps/.well-known/est/cacerts"] {
        let answer = rig.curl(&[&rig.https_url(path)]);
        answer.expect(200);
        assert_eq!(answer.header("content-type"), Some("application/pkcs7-mime; smime-type=certs-only"));
        assert_eq!(answer.header("content-transfer-encoding"), None);
        assert_eq!(answer.header("transfer-encoding"), None);
        assert_eq!(answer.header("content-length"), Some(answer.body.len().to_string().as_str()));
        assert!(answer.text().ends_with("\r\n") && answer.text().trim_end().lines().count() == 1, "{}", answer.text());
        let pem = std::fs::read_to_string(rig.certificate("cacerts", &answer)).unwrap();
        assert_eq!(pem.matches("BEGIN CERTIFICATE").count(), 2, "{pem}");
    }
    rig.curl(&[&rig.https_url("/.well-known/est/nothing/cacerts")]).expect(404);
    rig.curl(&[&rig.https_url("/.well-known/est/pumps/unknown")]).expect(404);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_head_is_small_and_spelt_as_small_clients_expect() {
    let rig = Rig::start().await;
    let answer = rig.curl(&[&rig.https_url("/.well-known/est/cacerts")]);
    assert!(answer.head.len() < 1_024 - 512, "{}", answer.head);
    assert!(answer.head.starts_with("HTTP/1.1 200 OK\r\n"), "{}", answer.head);
    assert!(answer.head.contains("\r\nContent-Length: "), "{}", answer.head);
}

#[tokio::test(flavor = "multi_thread")]
async fn libest_and_lines_that_say_so_get_wrapped_base64() {
    let rig = Rig::start().await;
    let url = rig.https_url("/.well-known/est/cacerts");
    let wrapped = rig.curl(&["-A", "libest 3.2.0p", &url]);
    assert!(wrapped.text().lines().count() > 5);
    assert!(wrapped.text().lines().all(|line| line.len() <= 64));
    rig.certificate("wrapped", &wrapped);
    assert_eq!(rig.curl(&["-A", "notlibest", &url]).text().lines().count(), 1);

    let policy = EnrolmentPolicy { wrap_base64: true, ..EnrolmentPolicy::default() };
    let rig = Rig::start_with(Limits::default(), policy).await;
    assert!(rig.curl(&[&rig.https_url("/.well-known/est/pumps/cacerts")]).text().lines().count() > 5);
    assert_eq!(rig.curl(&[&rig.https_url("/.well-known/est/cacerts")]).text().lines().count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn csrattrs_are_base64_of_a_sequence() {
    let rig = Rig::start().await;
    let answer = rig.curl(&[&rig.https_url("/.well-known/est/pumps/csrattrs")]);
    answer.expect(200);
    assert_eq!(answer.header("content-type"), Some("application/csrattrs"));
    std::fs::write(rig.file("csrattrs"), &answer.body).unwrap();
    let decoded = rig.file("csrattrs.der");
    let (from, to) = (rig.file("csrattrs"), decoded.to_str().unwrap().to_owned());
    openssl(&["base64", "-d", "-A", "-in", from.to_str().unwrap(), "-out", &to]).succeeds();
    openssl(&["asn1parse", "-inform", "DER", "-in", &to]).expect_success().expect_text("SEQUENCE");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_code_enrols_once_and_the_certificate_renews_itself() {
    let rig = Rig::start().await;
    let (request, certificate) = rig.enrolled("pump-1").await;
    let (root, issuer) = (rig.root(), rig.issuer().await);
    let (root, issuer) = (root.to_str().unwrap(), issuer.to_str().unwrap());
    openssl(&["verify", "-CAfile", root, "-untrusted", issuer, certificate.to_str().unwrap()]).succeeds();
    let pair = ["--cert", certificate.to_str().unwrap(), "--key", request.key.to_str().unwrap()];
    let renewed = rig.certificate("renewed", rig.est(REENROLL, &pair, &rig.renewal()).expect(200));
    let names = |pem: &std::path::Path| {
        let arguments = ["x509", "-noout", "-subject", "-ext", "subjectAltName", "-in", pem.to_str().unwrap()];
        openssl(&arguments).expect_success().stdout_text()
    };
    assert_eq!(names(&renewed), names(&certificate));
    assert_ne!(rig.serial(&renewed), rig.serial(&certificate));
    // Names of the client's choosing are refused, not taken.
    let other = rig.request_for("other", "/CN=somebody-else");
    let refused = rig.est(REENROLL, &pair, &other);
    assert!(refused.expect(400).text().starts_with("subject: "), "{}", refused.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_wrapped_at_64_columns_or_in_pem_is_accepted() {
    let rig = Rig::start().await;
    for (name, arguments) in [("wrapped", ["base64", "-in"]), ("pem", ["req", "-inform"])] {
        rig.device(name).await;
        let code = rig.code(name).await;
        let mut request = rig.request(name);
        let der = request.der.to_str().unwrap();
        let text = match arguments {
            ["req", inform] => openssl(&["req", inform, "DER", "-in", der]),
            [command, input] => openssl(&[command, input, der]),
        };
        request.base64 = rig.file("as-sent");
        std::fs::write(&request.base64, text.expect_success().stdout).unwrap();
        let more = ["--user", code.as_str(), "-H", "Content-Transfer-Encoding: base64"];
        rig.est(ENROLL, &more, &request).expect(200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_credential_est_invites_to_basic_and_a_wrong_code_is_no_better() {
    let rig = Rig::start().await;
    rig.device("pump-1").await;
    let request = rig.request("pump-1");
    for more in [&[][..], &["--user", "pump-1:WRONG-CODE"], &["--user", "nobody:WRONG-CODE"]] {
        let answer = rig.est(ENROLL, more, &request);
        answer.expect(401);
        assert_eq!(answer.header("www-authenticate"), Some("Basic realm=\"est\""));
        assert!(answer.header("content-type").unwrap().starts_with("text/plain"));
        assert!(!answer.text().contains("WRONG-CODE"), "{}", answer.text());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_request_is_refused_in_plain_text_naming_field_and_remedy() {
    let rig = Rig::start().await;
    rig.device("pump-1").await;
    let code = rig.code("pump-1").await;
    let mut request = rig.request("pump-1");
    let good = std::fs::read(&request.base64).unwrap();
    request.base64 = rig.file("bad");
    for bad in [&b""[..], b"hello", &good[..good.len() / 2]] {
        std::fs::write(&request.base64, bad).unwrap();
        let answer = rig.est(ENROLL, &["--user", &code], &request);
        answer.expect(400);
        assert!(answer.text().contains(": ") && answer.text().contains("; "), "{}", answer.text());
    }
    // Nothing was spent: the code still works.
    std::fs::write(&request.base64, good).unwrap();
    rig.est(ENROLL, &["--user", &code], &request).expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_media_type_is_refused_and_an_absent_one_is_not() {
    let rig = Rig::start().await;
    rig.device("pump-1").await;
    let code = rig.code("pump-1").await;
    let request = rig.request("pump-1");
    let (data, url) = (format!("@{}", request.base64.display()), rig.https_url(ENROLL));
    rig.curl(&["--user", &code, "--data-binary", &data, &url]).expect(415);
    rig.curl(&["--user", &code, "-H", "Content-Type:", "--data-binary", &data, &url]).expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn operations_answer_to_their_method_only_and_full_cmc_is_not_offered() {
    let rig = Rig::start().await;
    let get = rig.curl(&[&rig.https_url(ENROLL)]);
    assert_eq!(get.expect(405).header("allow"), Some("POST"));
    let post = rig.curl(&["-d", "x", &rig.https_url("/.well-known/est/cacerts")]);
    assert_eq!(post.expect(405).header("allow"), Some("GET"));
    rig.curl(&["-d", "x", &rig.https_url("/.well-known/est/fullcmc")]).expect(501);
}

#[tokio::test(flavor = "multi_thread")]
async fn server_side_keys_are_refused_unless_policy_allows_them_and_then_fit_their_certificate() {
    let rig = Rig::start().await;
    rig.device("pump-1").await;
    let path = "/.well-known/est/pumps/serverkeygen";
    let (code, request) = (rig.code("pump-1").await, rig.request("pump-1"));
    let refused = rig.est(path, &["--user", &code], &request);
    assert!(matches!(refused.status, 400 | 403), "{}{}", refused.head, refused.text());

    let policy = EnrolmentPolicy { server_keygen: true, ..EnrolmentPolicy::default() };
    let rig = Rig::start_with(Limits::default(), policy).await;
    rig.device("pump-1").await;
    let (code, request) = (rig.code("pump-1").await, rig.request("pump-1"));
    let answer = rig.est(path, &["--user", &code], &request);
    answer.expect(200);
    assert_eq!(answer.header("content-type"), Some("multipart/mixed; boundary=keyfleet-server-key"));
    let text = answer.text();
    let part = |index: usize| text.split("--keyfleet-server-key").nth(index).unwrap().split("\r\n\r\n").nth(1).unwrap();
    std::fs::write(rig.file("key.b64"), part(1)).unwrap();
    let (from, to) = (rig.file("key.b64"), rig.file("key.der"));
    openssl(&["base64", "-d", "-A", "-in", from.to_str().unwrap(), "-out", to.to_str().unwrap()]).succeeds();
    let made = openssl(&["pkey", "-inform", "DER", "-in", to.to_str().unwrap(), "-pubout"]).expect_success();
    let certificates = crate::rig::Answer { status: 200, head: String::new(), body: part(2).as_bytes().to_vec() };
    let pem = rig.certificate("made", &certificates);
    let certified = openssl(&["x509", "-noout", "-pubkey", "-in", pem.to_str().unwrap()]).expect_success();
    assert_eq!(made.stdout_text(), certified.stdout_text());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manual_enrolment_waits_with_a_numeric_retry_after_and_is_granted_after_approval() {
    let policy = EnrolmentPolicy { approval: Approval::Manual, ..EnrolmentPolicy::default() };
    let rig = Rig::start_with(Limits::default(), policy).await;
    rig.device("pump-1").await;
    let (code, request) = (rig.code("pump-1").await, rig.request("pump-1"));
    for _ in 0..2 {
        let waiting = rig.est(ENROLL, &["--user", &code], &request);
        waiting.expect(202);
        assert!(waiting.header("retry-after").unwrap().parse::<u32>().unwrap() > 0);
        assert_eq!(waiting.header("content-length"), Some("0"));
    }
    let waiting = rig.fleet.enrolment_list(&rig.owner, Default::default()).await.unwrap().items;
    assert_eq!(waiting.len(), 1);
    let decision = EnrolmentDecision { approve: true, why: String::new() };
    rig.fleet.enrolment_decide(&rig.owner, waiting[0].id, decision).await.unwrap();
    rig.est(ENROLL, &["--user", &code], &request).expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_http_gets_no_enrolment() {
    let rig = Rig::start().await;
    rig.device("pump-1").await;
    let (code, request) = (rig.code("pump-1").await, rig.request("pump-1"));
    let data = format!("@{}", request.base64.display());
    for path in [ENROLL, REENROLL, "/.well-known/est/cacerts", "/pumps/.well-known/est/serverkeygen", "/v1/whoami"] {
        let url = rig.http_url(path);
        let answer =
            rig.curl(&["--user", &code, "-H", "Content-Type: application/pkcs10", "--data-binary", &data, &url]);
        answer.expect(403);
        assert_eq!(answer.header("content-type"), Some("application/problem+json"));
        assert_eq!(answer.json()["type"], "urn:keyfleet:problem:https-required");
    }
    // Nothing was processed: the code still works where it belongs.
    rig.est(ENROLL, &["--user", &code], &request).expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_with_the_same_key_gets_the_same_certificate_and_another_key_gets_none() {
    let rig = Rig::start().await;
    rig.device("pump-1").await;
    let (code, request) = (rig.code("pump-1").await, rig.request("pump-1"));
    let first = rig.est(ENROLL, &["--user", &code], &request);
    let again = rig.est(ENROLL, &["--user", &code], &request);
    assert_eq!(again.expect(200).body, first.expect(200).body);
    let other = rig.request("other");
    let refused = rig.est(ENROLL, &["--user", &code], &other);
    assert!(matches!(refused.status, 401 | 403 | 409), "{}{}", refused.head, refused.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn guessing_is_answered_with_429_and_a_number_of_seconds() {
    let rig = Rig::start().await;
    rig.device("pump-1").await;
    let request = rig.request("pump-1");
    let limited = (0..40)
        .map(|_| rig.est(ENROLL, &["--user", "pump-1:WRONG"], &request))
        .find(|answer| answer.status == 429)
        .expect("forty guesses were allowed");
    assert!(limited.header("retry-after").unwrap().parse::<u32>().unwrap() > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_neither_enrols_under_another_label_nor_once_it_is_suspended() {
    let rig = Rig::start().await;
    let line = kf_api::product_line::NewProductLine {
        name: "valves".into(),
        authority: None,
        policy: EnrolmentPolicy::default(),
    };
    rig.fleet.product_line_create(&rig.owner, line).await.unwrap();
    rig.device("pump-1").await;
    let (code, request) = (rig.code("pump-1").await, rig.request("pump-1"));
    let refused = rig.est("/.well-known/est/valves/simpleenroll", &["--user", &code], &request);
    assert!(refused.expect(400).text().starts_with("label: "), "{}", refused.text());
    let suspend = rig.api(&rig.owner_token, "POST", "/v1/devices/pump-1/act", Some(r#"{"act":"suspend","why":"x"}"#));
    suspend.expect(200);
    let refused = rig.est(ENROLL, &["--user", &code], &request);
    assert!(matches!(refused.status, 401 | 403), "{}{}", refused.head, refused.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewal_sent_again_is_answered_with_the_same_certificate_and_the_one_in_use_stays_good() {
    let rig = Rig::start().await;
    let (request, certificate) = rig.enrolled("pump-1").await;
    let pair = ["--cert", certificate.to_str().unwrap(), "--key", request.key.to_str().unwrap()];
    let renewal = rig.renewal();
    let first = rig.est(REENROLL, &pair, &renewal);
    // More often than certificates may live at the same time: each time it is the one in use that authenticates.
    for _ in 0..=EnrolmentPolicy::default().max_live_ldevids {
        assert_eq!(rig.est(REENROLL, &pair, &renewal).expect(200).body, first.expect(200).body);
    }
}

//! TLS, with openssl and GnuTLS as the clients.

use std::time::Duration;

use kf_api::product_line::EnrolmentPolicy;
use kf_fleet::{Clock as _, SystemClock};
use kf_server::Limits;
use kf_testkit::Tool;

use crate::rig::{Ends as _, Rig, hours_from, openssl};

fn s_client(rig: &Rig, more: &[&str]) -> String {
    let (address, root) = (rig.https.to_string(), rig.root());
    let mut arguments = vec!["s_client", "-connect", &address, "-CAfile", root.to_str().unwrap()];
    arguments.extend(["-verify_return_error", "-verify_ip", "127.0.0.1"]);
    arguments.extend(more);
    Tool::new("openssl").run_with_input(&arguments, b"GET /livez HTTP/1.0\r\n\r\n").text()
}

#[tokio::test(flavor = "multi_thread")]
async fn openssl_verifies_the_server_over_tls_1_3_and_1_2_and_nothing_older() {
    let rig = Rig::start().await;
    for (flag, name) in [("-tls1_3", "TLSv1.3"), ("-tls1_2", "TLSv1.2")] {
        let text = s_client(&rig, &[flag, "-quiet", "-ign_eof"]);
        assert!(text.contains("HTTP/1.0 200 OK") && text.contains("\r\n\r\nok\n"), "{text}");
        let text = s_client(&rig, &[flag]);
        assert!(text.contains(name) && text.contains("Verify return code: 0 (ok)"), "{text}");
    }
    for flag in ["-tls1_1", "-tls1"] {
        let text = s_client(&rig, &[flag, "-cipher", "ALL:@SECLEVEL=0"]);
        assert!(text.contains("Cipher is (NONE)"), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_staples_a_good_ocsp_answer() {
    let rig = Rig::start().await;
    for flag in ["-tls1_3", "-tls1_2"] {
        let text = s_client(&rig, &[flag, "-status"]);
        assert!(text.contains("OCSP Response Status: successful") && text.contains("Cert Status: good"), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_session_is_resumed_and_http_2_is_not_spoken() {
    let rig = Rig::start().await;
    let text = s_client(&rig, &["-tls1_3", "-quiet", "-ign_eof", "-msg"]);
    assert!(text.contains("Finished") && !text.contains("NewSessionTicket"), "{text}");
    let text = s_client(&rig, &["-tls1_2"]);
    assert!(!text.contains("TLS session ticket:"), "{text}");
    let text = s_client(&rig, &["-alpn", "h2"]);
    assert!(text.contains("no application protocol"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn gnutls_verifies_the_server() {
    let rig = Rig::start().await;
    let (port, root) = (rig.https.port().to_string(), rig.root());
    let arguments =
        ["--port", &port, "--x509cafile", root.to_str().unwrap(), "--verify-hostname", "127.0.0.1", "127.0.0.1"];
    Tool::new("gnutls-cli")
        .run_with_input(&arguments, b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        .expect_text("The certificate is trusted");
}

#[tokio::test(flavor = "multi_thread")]
async fn curl_speaks_http_1_0_and_1_1() {
    let rig = Rig::start().await;
    for url in [rig.https_url("/livez"), rig.http_url("/livez")] {
        assert!(rig.curl(&["--http1.0", &url]).expect(200).head.starts_with("HTTP/1.0 200 OK"));
        assert!(rig.curl(&["--http1.1", &url]).expect(200).head.starts_with("HTTP/1.1 200 OK"));
        assert!(rig.curl(&["--http2", &url]).expect(200).head.starts_with("HTTP/1.1 200 OK"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_leads_nowhere_is_refused_in_the_handshake() {
    let rig = Rig::start().await;
    let (key, certificate) = (rig.file("stranger.key"), rig.file("stranger.pem"));
    openssl(&[
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-subj",
        "/CN=pump-1",
        "-keyout",
        key.to_str().unwrap(),
        "-out",
        certificate.to_str().unwrap(),
    ])
    .succeeds();
    let root = rig.root();
    let output = Tool::new("curl").run(&[
        "-sS",
        "--cacert",
        root.to_str().unwrap(),
        "--cert",
        certificate.to_str().unwrap(),
        "--key",
        key.to_str().unwrap(),
        &rig.https_url("/livez"),
    ]);
    output.expect_failure().expect_text("alert");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_header_cannot_claim_a_certificate() {
    let rig = Rig::start().await;
    let (_, certificate) = rig.enrolled("pump-1").await;
    let der = openssl(&["x509", "-outform", "DER", "-in", certificate.to_str().unwrap()]).expect_success().stdout;
    use base64::Engine as _;
    let encoded = base64::engine::general_purpose::STANDARD.encode(der);
    let request = rig.request("renewal");
    for name in ["X-Client-Cert", "X-SSL-Client-Cert", "Client-Cert", "X-Forwarded-Client-Cert", "SSL_CLIENT_CERT"] {
        let header = format!("{name}: :{encoded}:");
        let answer = rig.est("/.well-known/est/pumps/simplereenroll", &["-H", &header], &request);
        assert!(matches!(answer.status, 401 | 403), "{name}: {}", answer.head);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_are_told_which_authorities_their_certificate_may_come_from() {
    let rig = Rig::start().await;
    let text = s_client(&rig, &["-tls1_2"]);
    let names = text.split("Acceptable client certificate CA names").nth(1).unwrap();
    assert!(names.contains("test-fleet root CA") && names.contains("test-fleet issuing CA"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_renews_over_tls_1_2_and_1_3() {
    let rig = Rig::start().await;
    for (name, version) in [("pump-1", "1.2"), ("pump-2", "1.3")] {
        let (request, certificate) = rig.enrolled(name).await;
        let pair = ["--cert", certificate.to_str().unwrap(), "--key", request.key.to_str().unwrap()];
        let more = [&pair[..], &["--tls-max", version]].concat();
        rig.est("/.well-known/est/pumps/simplereenroll", &more, &rig.renewal()).expect(200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_replaces_its_own_certificate_before_it_expires() {
    let limits = Limits { identity_check: Duration::from_millis(20), ..Limits::default() };
    let rig = Rig::start_with(limits, EnrolmentPolicy::default()).await;
    let serial = || {
        let address = rig.https.to_string();
        let shown = Tool::new("openssl").run_with_input(&["s_client", "-connect", &address], b"").text();
        let pem = format!("-----BEGIN{}", shown.split("-----BEGIN").nth(1).expect(&shown));
        let text = Tool::new("openssl").run_with_input(&["x509", "-noout", "-serial"], pem.as_bytes());
        text.expect_success().stdout_text()
    };
    let first = serial();
    assert_eq!(serial(), first);
    // Half of a week and an hour.
    rig.clock.set(hours_from(SystemClock.now(), 85));
    let replaced = async {
        while serial() == first {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), replaced).await.expect("the old certificate is still served");
}

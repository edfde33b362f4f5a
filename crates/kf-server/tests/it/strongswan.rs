//! EST with strongSwan's `pki`: a client with a parser of its own, TLS 1.2 and P-256.

use std::path::{Path, PathBuf};

use kf_api::enrolment::EnrolmentDecision;
use kf_api::product_line::{Approval, EnrolmentPolicy};
use kf_server::Limits;
use kf_testkit::{Output, Tool};

use crate::rig::{Ends as _, Request, Rig, openssl};

fn est(rig: &Rig, request: &Request, more: &[&str]) -> Output {
    let (url, root) = (rig.https_url("/pumps"), rig.root());
    let mut arguments =
        vec!["--est", "--url", &url, "--cacert", root.to_str().unwrap(), "--in", request.der.to_str().unwrap()];
    arguments.extend(more);
    Tool::new("pki").run(&arguments)
}

/// Writes the certificate that `pki` printed.
fn printed(rig: &Rig, name: &str, output: Output) -> PathBuf {
    let path = rig.file(&format!("{name}.der"));
    std::fs::write(&path, output.expect_success().stdout).unwrap();
    path
}

fn subject(certificate: &Path) -> String {
    openssl(&["x509", "-inform", "DER", "-noout", "-subject", "-in", certificate.to_str().unwrap()])
        .expect_success()
        .stdout_text()
}

#[tokio::test(flavor = "multi_thread")]
async fn strongswan_fetches_the_ca_certificates() {
    let rig = Rig::start().await;
    let (url, root, out) = (rig.https_url("/pumps"), rig.root(), rig.file("ca.pem"));
    let arguments = [
        "--estca",
        "--url",
        &url,
        "--cacert",
        root.to_str().unwrap(),
        "--caout",
        out.to_str().unwrap(),
        "--outform",
        "pem",
    ];
    Tool::new("pki").run(&arguments).succeeds();
    assert!(std::fs::read_to_string(&out).unwrap().contains("BEGIN CERTIFICATE"));
}

#[tokio::test(flavor = "multi_thread")]
async fn strongswan_enrols_with_a_code_and_renews_with_its_certificate() {
    let rig = Rig::start().await;
    rig.device("pump-1").await;
    let (code, request) = (rig.code("pump-1").await, rig.request("pump-1"));
    let first = printed(&rig, "first", est(&rig, &request, &["--userpass", &code]));
    assert!(subject(&first).contains("pump-1"));

    let key = rig.file("first.key.der");
    openssl(&["pkey", "-in", request.key.to_str().unwrap(), "-outform", "DER", "-out", key.to_str().unwrap()])
        .succeeds();
    // A renewal keeps the subject (RFC 7030 section 4.2.2), so the request repeats the certificate's.
    let renewal = renewal(&rig, &first);
    let chain = rig.issuer().await;
    let pair = ["--cert", first.to_str().unwrap(), "--key", key.to_str().unwrap(), "--cacert", chain.to_str().unwrap()];
    let second = printed(&rig, "second", est(&rig, &renewal, &pair));
    assert!(subject(&second).contains("pump-1"));
    assert_ne!(std::fs::read(first).unwrap(), std::fs::read(second).unwrap());
}

/// A request with a fresh key and the subject and alternative names of `certificate`, made by openssl.
fn renewal(rig: &Rig, certificate: &Path) -> Request {
    let made = rig.request("renewal");
    let text = rig.file("renewal.txt");
    let (from, key) = (certificate.to_str().unwrap(), made.key.to_str().unwrap());
    let (der, text) = (made.der.to_str().unwrap(), text.to_str().unwrap());
    // `x509 -x509toreq` prints text before PEM whatever the format asked for, so a second run turns it into DER.
    let copy = ["x509", "-inform", "DER", "-in", from, "-x509toreq", "-copy_extensions", "copy", "-signkey", key];
    openssl(&[&copy[..], &["-out", text]].concat()).succeeds();
    openssl(&["req", "-in", text, "-outform", "DER", "-out", der]).succeeds();
    made
}

#[tokio::test(flavor = "multi_thread")]
async fn strongswan_with_a_wrong_code_gets_no_certificate() {
    let rig = Rig::start().await;
    rig.device("pump-1").await;
    let request = rig.request("pump-1");
    est(&rig, &request, &["--userpass", "pump-1:WRONG"]).fails();
}

#[tokio::test(flavor = "multi_thread")]
async fn strongswan_reads_retry_after_and_is_granted_after_approval() {
    let policy = EnrolmentPolicy { approval: Approval::Manual, ..EnrolmentPolicy::default() };
    let rig = Rig::start_with(Limits::default(), policy).await;
    rig.device("pump-1").await;
    let (code, request) = (rig.code("pump-1").await, rig.request("pump-1"));
    let (url, root) = (rig.https_url("/pumps"), rig.root());
    let (root, der) = (root.to_str().unwrap(), request.der.to_str().unwrap());
    let arguments = ["--est", "--url", &url, "--cacert", root, "--in", der, "--userpass", &code, "--interval", "1"];
    let mut client = Tool::new("pki").start(&arguments);
    let line = client.wait_for_line(|line| line.contains("pending"));
    assert!(line.contains("60"), "it waits as long as the server said: {line}");
    drop(client);

    let waiting = rig.fleet.enrolment_list(&rig.owner, Default::default()).await.unwrap().items;
    let decision = EnrolmentDecision { approve: true, why: String::new() };
    rig.fleet.enrolment_decide(&rig.owner, waiting[0].id, decision).await.unwrap();
    let certificate = printed(&rig, "granted", est(&rig, &request, &["--userpass", &code]));
    assert!(subject(&certificate).contains("pump-1"));
}

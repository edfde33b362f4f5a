//! A root that takes over, as TLS clients see it: openssl proves that it trusts the new one by naming it.

use std::time::{Duration, Instant};

use kf_api::succession::{NewSuccession, SuccessionAct, SuccessionActRequest};
use kf_pki::certificate::PresentedCertificate;
use kf_testkit::Tool;

use crate::rig::{Answer, Rig, openssl};

/// One authority's certificate in a file of its own.
async fn root(rig: &Rig, name: &str) -> String {
    let shown = rig.fleet.authority_show(&rig.owner, name).await.unwrap();
    let path = rig.file(&format!("{name}.cer.pem"));
    std::fs::write(&path, shown.certificate_pem).unwrap();
    path.to_str().unwrap().to_owned()
}

/// `openssl s_client` with this trust; what it prints.
fn s_client(rig: &Rig, trusted: &str, more: &[&str]) -> String {
    let address = rig.https.to_string();
    let mut arguments = vec!["s_client", "-connect", &address, "-CAfile", trusted, "-tls1_3", "-showcerts"];
    arguments.extend(more);
    Tool::new("openssl").run_with_input(&arguments, b"GET /livez HTTP/1.0\r\n\r\n").text()
}

fn certificates_in(text: &str) -> usize {
    text.matches("-----BEGIN CERTIFICATE-----").count()
}

/// The listener takes up what the CAs are now; until it has, the old chain is shown.
fn until(what: &str, holds: impl Fn() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < Duration::from_secs(20), "{what} never came");
        std::thread::yield_now();
    }
}

async fn proved(rig: &Rig) -> u64 {
    rig.fleet.succession_show(&rig.owner, "root").await.unwrap().trust.unwrap().proved
}

async fn step(rig: &Rig, authority: &str, act: SuccessionAct) {
    let request =
        SuccessionActRequest { act, strand: false, although_trusted: false, why: String::new(), dry_run: false };
    assert!(rig.fleet.succession_act(&rig.owner, authority, request).await.unwrap().done);
}

const VERIFIED: &str = "Verify return code: 0 (ok)";

#[tokio::test(flavor = "multi_thread")]
async fn openssl_is_shown_the_chain_of_the_root_that_it_names_and_proves_its_trust_by_accepting_it() {
    let rig = Rig::start().await;
    let old = root(&rig, "root").await;
    let (request, certificate) = rig.enrolled("pump-1").await;
    let identity = ["-cert", certificate.to_str().unwrap(), "-key", request.key.to_str().unwrap()];
    rig.fleet.succession_create(&rig.owner, "root", NewSuccession::default()).await.unwrap();
    let new = root(&rig, "root-2").await;
    let named = ["-requestCAfile", new.as_str()];
    until("the chain of the new root", || s_client(&rig, &new, &named).contains(VERIFIED));
    assert!(s_client(&rig, &old, &[]).contains(VERIFIED), "everybody else sees what they saw");
    assert!(!s_client(&rig, &new, &[]).contains(VERIFIED), "who does not name it is not shown it");
    assert_eq!(proved(&rig).await, 0, "nobody has shown who it is");
    assert!(s_client(&rig, &old, &identity).contains(VERIFIED));
    assert_eq!(proved(&rig).await, 0, "the old root explains that chain");
    assert!(s_client(&rig, &new, &[&named[..], &identity].concat()).contains(VERIFIED));
    assert_eq!(proved(&rig).await, 1);

    step(&rig, "root", SuccessionAct::Switch).await;
    until("the link", || certificates_in(&s_client(&rig, &old, &[])) == 3);
    assert!(s_client(&rig, &old, &[]).contains(VERIFIED) && s_client(&rig, &new, &[]).contains(VERIFIED));
    assert_eq!(certificates_in(&s_client(&rig, &new, &named)), 2, "who names the new root needs no link");
    step(&rig, "issuing", SuccessionAct::Retire).await;
    step(&rig, "root", SuccessionAct::Retire).await;
    until("the end of the link", || certificates_in(&s_client(&rig, &new, &[])) == 2);
    assert!(!s_client(&rig, &old, &[]).contains(VERIFIED), "who knows the old root alone is left behind");
    // What it issued is accepted, and its CRL is there.
    let pair = ["--cert", certificate.to_str().unwrap(), "--key", request.key.to_str().unwrap()];
    rig.est("/.well-known/est/pumps/simplereenroll", &pair, &rig.renewal()).expect(200);
    let text = openssl(&["x509", "-noout", "-ext", "crlDistributionPoints", "-in", certificate.to_str().unwrap()]);
    let text = text.expect_success().stdout_text();
    let url = text.split("URI:").nth(1).unwrap().split_whitespace().next().unwrap().to_owned();
    let answer: Answer = rig.curl(&[&url]);
    answer.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn est_hands_out_both_roots_and_their_links_while_one_takes_over() {
    let rig = Rig::start().await;
    let count = |rig: &Rig, name: &str| {
        let answer = rig.curl(&[&rig.https_url("/.well-known/est/pumps/cacerts")]);
        let pem = std::fs::read_to_string(rig.certificate(name, answer.expect(200))).unwrap();
        certificates_in(&pem)
    };
    assert_eq!(count(&rig, "before"), 2);
    rig.fleet.succession_create(&rig.owner, "root", NewSuccession::default()).await.unwrap();
    assert_eq!(count(&rig, "both"), 6, "two roots, two links, two issuing CAs (RFC 7030 section 4.1.3)");
    let (old, new) = (root(&rig, "root").await, root(&rig, "root-2").await);
    // Without the roots: openssl goes no further than the first issuer that it finds, and a root is its own.
    let text = std::fs::read_to_string(rig.file("both.pem")).unwrap();
    let others: String = kf_pki::pem::decode_all("CERTIFICATE", &text)
        .unwrap()
        .iter()
        .filter(|der| PresentedCertificate::from_der(der).is_some_and(|found| found.subject != found.issuer))
        .map(|der| kf_pki::pem::certificate(der))
        .collect();
    let all = rig.file("others.pem");
    std::fs::write(&all, others).unwrap();
    for (anchor, name) in [(&old, "issuing-2"), (&new, "issuing")] {
        let leaf = root(&rig, name).await;
        let arguments = ["verify", "-x509_strict", "-CAfile", anchor, "-untrusted", all.to_str().unwrap(), &leaf];
        drop(openssl(&arguments).expect_success());
    }
}

//! Client certificates past their last moment, and revoked ones.

use kf_api::certificate::IssueRequest;
use kf_api::product_line::EnrolmentPolicy;
use kf_fleet::{Clock as _, SystemClock};
use kf_key::{CertificateProfile, UnixMillis};
use kf_server::Limits;

use crate::rig::{Answer, Rig, hours_from};

const ENROLL: &str = "/.well-known/est/pumps/simpleenroll";
const REENROLL: &str = "/.well-known/est/pumps/simplereenroll";

/// Enrols with a lifetime of two hours, moves the clock `hours` on, and tries to renew.
async fn renew_after(hours: u64, grace_hours: u32) -> Answer {
    let policy =
        EnrolmentPolicy { ldevid_lifetime_hours: 2, renewal_grace_hours: grace_hours, ..EnrolmentPolicy::default() };
    let rig = Rig::start_with(Limits::default(), policy).await;
    let (request, certificate) = rig.enrolled("pump-1").await;
    rig.clock.set(hours_from(SystemClock.now(), hours));
    let pair = ["--cert", certificate.to_str().unwrap(), "--key", request.key.to_str().unwrap()];
    rig.est(REENROLL, &pair, &rig.renewal())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_renews_itself_before_expiry_and_inside_the_grace_window_only() {
    renew_after(1, 4).await.expect(200);
    renew_after(4, 4).await.expect(200);
    let late = renew_after(8, 4).await;
    assert!(matches!(late.status, 401 | 403), "{}{}", late.head, late.text());
    let never = renew_after(4, 0).await;
    assert!(matches!(never.status, 401 | 403), "{}{}", never.head, never.text());
}

/// A device with an IDevID issued two hundred days ago and valid for a hundred... as the registry's profile limits allow.
async fn with_old_idevid(accept_expired: bool) -> (Rig, String, String) {
    let policy = EnrolmentPolicy { accept_expired_idevid: accept_expired, ..EnrolmentPolicy::default() };
    let rig = Rig::start_with(Limits::default(), policy).await;
    rig.device("pump-1").await;
    let request = rig.request("idevid");
    let issue = IssueRequest {
        profile: CertificateProfile::IDevId,
        csr_pem: crate::rig::openssl(&["req", "-inform", "DER", "-in", request.der.to_str().unwrap()])
            .expect_success()
            .stdout_text(),
        device: Some("pump-1".into()),
        operator: None,
        dns_names: Vec::new(),
        authority: None,
        lifetime_hours: Some(2),
        dry_run: false,
    };
    let issued = rig.fleet.certificate_issue(&rig.owner, issue).await.unwrap();
    let certificate = rig.file("idevid.pem");
    std::fs::write(&certificate, format!("{}{}", issued.pem, issued.chain_pem)).unwrap();
    let (certificate, key) = (certificate.to_str().unwrap().to_owned(), request.key.to_str().unwrap().to_owned());
    (rig, certificate, key)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idevid_bootstraps_and_after_expiry_only_where_policy_says_so() {
    for (hours, accept, granted) in [(0, false, true), (3, true, true), (3, false, false)] {
        let (rig, certificate, key) = with_old_idevid(accept).await;
        rig.clock.set(hours_from(SystemClock.now(), hours));
        let answer = rig.est(ENROLL, &["--cert", &certificate, "--key", &key], &rig.request("pump-1"));
        if granted {
            answer.expect(200);
        } else {
            assert!(matches!(answer.status, 401 | 403), "{}{}", answer.head, answer.text());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_certificate_renews_nothing() {
    let rig = Rig::start().await;
    let (request, certificate) = rig.enrolled("pump-1").await;
    rig.revoke(rig.serial(&certificate)).await;
    let pair = ["--cert", certificate.to_str().unwrap(), "--key", request.key.to_str().unwrap()];
    let answer = rig.est(REENROLL, &pair, &rig.renewal());
    assert!(matches!(answer.status, 401 | 403), "{}{}", answer.head, answer.text());
    assert!(rig.show(rig.serial(&certificate)).await.certificate.revoked > Some(UnixMillis(0)));
}

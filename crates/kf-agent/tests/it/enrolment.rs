//! Enrolling, renewing, waiting, coming back after a long time.

use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use kf_agent::{Agent, Event};
use kf_testkit::Answer;

use crate::bench::{Bench, DUE, LONG, OVER, Reply, bench, names};

const CODE: &str = "[bootstrap]\ncode_file = \"{dir}/code\"\n";

fn give_code(bench: &Bench) {
    std::fs::write(bench.path("code"), "ABCD-EFGH\n").unwrap();
}

#[tokio::test]
async fn a_device_enrols_with_its_code_and_then_rests() {
    let bench = bench(|_, _| Reply::Issue(LONG)).await;
    give_code(&bench);
    let (outcome, events) = bench.once(CODE).await;
    assert!(outcome.is_valid && outcome.is_settled && !outcome.needs_attention);
    assert_eq!(names(&events), ["started", "key-not-sealed", "enrolled", "stopped"]);
    let enrolments = bench.enrolments();
    assert_eq!((enrolments.len(), enrolments[0].0.as_str()), (1, "simpleenroll"));
    assert_eq!(enrolments[0].1.headers["authorization"], "Basic bWV0ZXItMTpBQkNELUVGR0g=");
    // The proof: the new certificate, with its issuer, was shown to the server.
    let proof = bench.received().into_iter().rfind(|request| !request.client_chain.is_empty()).unwrap();
    assert_eq!(proof.client_chain, [bench.leaf_in_use(), bench.authority.issuing_der()]);

    let (outcome, events) = bench.once(CODE).await;
    assert!(outcome.is_valid);
    assert_eq!(names(&events), ["started", "key-not-sealed", "stopped"]);
    assert_eq!(bench.enrolments().len(), 1);
}

#[tokio::test]
async fn the_state_is_for_its_owner_only_and_holds_one_key() {
    let bench = bench(|_, _| Reply::Issue(LONG)).await;
    give_code(&bench);
    bench.once(CODE).await;
    let mode = |name: &str| std::fs::metadata(bench.path(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("state"), mode("state/a"), mode("state/a/key")), (0o700, 0o700, 0o600));
    let files = |slot: &str| std::fs::read_dir(bench.path(slot)).unwrap().count();
    assert_eq!((files("state/a"), files("state/b")), (2, 0));
}

#[tokio::test]
async fn a_due_certificate_is_renewed_with_itself_and_a_new_key() {
    let bench = bench(|_, number| Reply::Issue(if number == 0 { DUE } else { LONG })).await;
    give_code(&bench);
    let (_, events) = bench.once(CODE).await;
    assert_eq!(names(&events), ["started", "key-not-sealed", "enrolled", "renewed", "stopped"]);
    let enrolments = bench.enrolments();
    assert_eq!(enrolments[1].0, "simplereenroll");
    assert!(!enrolments[1].1.headers.contains_key("authorization"));
    assert_ne!(enrolments[0].1.body, enrolments[1].1.body);
    assert_eq!(enrolments[1].1.client_chain.len(), 2);
    assert_ne!(enrolments[1].1.client_chain[0], bench.leaf_in_use());
}

#[tokio::test]
async fn an_enrolment_that_waits_for_approval_is_asked_again_with_the_same_request_after_a_restart() {
    let waiting = || Reply::Other(Answer::new(202, "").header("retry-after", "120"));
    let bench = bench(move |_, number| if number < 2 { waiting() } else { Reply::Issue(LONG) }).await;
    give_code(&bench);
    for _ in 0..2 {
        let (outcome, events) = bench.once(CODE).await;
        assert!(!outcome.is_valid && !outcome.is_settled);
        assert!(events.contains(&Event::Pending { retry_after_seconds: 120 }));
    }
    assert!(bench.once(CODE).await.0.is_valid);
    let bodies: Vec<_> = bench.enrolments().into_iter().map(|(_, request)| request.body).collect();
    assert!(bodies.len() == 3 && bodies.iter().all(|body| *body == bodies[0]));
}

#[tokio::test]
async fn an_answer_that_was_lost_is_asked_for_again_and_brings_the_same_certificate() {
    let bench = bench(|_, number| if number == 0 { Reply::IssueAndHangUp(LONG) } else { Reply::Issue(LONG) }).await;
    give_code(&bench);
    let (outcome, events) = bench.once(CODE).await;
    assert!(!outcome.is_valid && !outcome.is_settled);
    assert!(names(&events).contains(&"retry".to_owned()));
    assert!(bench.once(CODE).await.0.is_valid);
    assert_eq!((bench.enrolments().len(), bench.issued()), (2, 1));
}

#[tokio::test]
async fn an_expired_certificate_renews_itself_inside_the_server_s_grace() {
    let bench = bench(|_, number| Reply::Issue(if number == 0 { DUE } else { LONG })).await;
    give_code(&bench);
    bench.once(CODE).await;
    let leaf = expire(&bench);
    std::fs::remove_file(bench.path("code")).unwrap();
    let (outcome, events) = bench.once(CODE).await;
    assert!(outcome.is_valid, "{events:?}");
    let (operation, request) = bench.enrolments().pop().unwrap();
    assert_eq!((operation.as_str(), &request.client_chain[0]), ("simplereenroll", &leaf));
}

/// Puts an expired certificate for the key in use into its slot, as after a long time in a drawer.
fn expire(bench: &Bench) -> Vec<u8> {
    let slot = std::fs::read_to_string(bench.path("state/current")).unwrap();
    let presented = kf_pki::certificate::PresentedCertificate::from_der(&bench.leaf_in_use()).unwrap();
    let (_, public_key) = kf_crypto::public_key_of_spki(&presented.spki).unwrap();
    let leaf = bench.authority.certify_client("meter-1", public_key, OVER.0, OVER.1);
    let path = bench.path(&format!("state/{}/chain", slot.trim()));
    std::fs::write(path, kf_pki::pem::certificate(&leaf)).unwrap();
    leaf
}

#[tokio::test]
async fn beyond_the_grace_a_code_brings_the_device_back_and_without_one_somebody_is_asked() {
    let bench = bench(|request, _| match request.path.ends_with("/simplereenroll") {
        true => Reply::Other(Answer::new(403, r#"{"type":"urn:x","status":403,"title":"the grace is over"}"#)),
        false => Reply::Issue(LONG),
    })
    .await;
    give_code(&bench);
    bench.once(CODE).await;
    expire(&bench);
    std::fs::remove_file(bench.path("code")).unwrap();
    let (outcome, events) = bench.once(CODE).await;
    assert!(!outcome.is_valid && outcome.needs_attention);
    let refused = events.iter().find_map(|event| match event {
        Event::EnrolmentRefused { credential, status, reason } => Some((*credential, *status, reason.as_str())),
        _ => None,
    });
    assert_eq!(refused, Some(("certificate", 403, "the grace is over")));
    assert!(names(&events).contains(&"needs-attention".to_owned()));

    give_code(&bench);
    let (outcome, _) = bench.once(CODE).await;
    assert!(outcome.is_valid && !outcome.needs_attention);
    assert_eq!(bench.enrolments().pop().unwrap().0, "simpleenroll");
}

#[tokio::test]
async fn a_device_without_anything_to_show_asks_and_makes_no_key() {
    let bench = bench(|_, _| Reply::Issue(LONG)).await;
    let (outcome, events) = bench.once(CODE).await;
    assert!(outcome.needs_attention && !outcome.is_valid);
    assert_eq!(names(&events), ["started", "key-not-sealed", "needs-attention", "stopped"]);
    assert_eq!(bench.received().len(), 0);
    assert_eq!(std::fs::read_dir(bench.path("state/a")).unwrap().count(), 0);
}

#[tokio::test]
async fn an_idevid_enrols_by_its_own_certificate() {
    let bench = bench(|_, _| Reply::Issue(LONG)).await;
    let idevid = bench.authority.issue_client("factory-1");
    let chain: String = idevid.chain.iter().map(|der| kf_pki::pem::certificate(der)).collect();
    std::fs::write(bench.path("idevid.pem"), chain).unwrap();
    std::fs::write(bench.path("idevid.key"), kf_pki::pem::encode("PRIVATE KEY", &idevid.pkcs8)).unwrap();
    let more = "[bootstrap]\nidevid_chain_file = \"{dir}/idevid.pem\"\nidevid_key_file = \"{dir}/idevid.key\"\n";
    assert!(bench.once(more).await.0.is_valid);
    let (operation, request) = bench.enrolments().remove(0);
    assert_eq!((operation.as_str(), &request.client_chain), ("simpleenroll", &idevid.chain));
}

#[tokio::test]
async fn a_certificate_that_fails_its_proof_never_replaces_the_one_in_use() {
    let renews = Arc::new(AtomicBool::new(false));
    let switch = renews.clone();
    let bench = bench(move |request, number| match request.path.rsplit('/').next() {
        Some("prove") => Reply::Other(Answer::new(403, "")),
        _ if number == 0 => Reply::Issue(DUE),
        _ if switch.load(Ordering::Relaxed) => Reply::Issue(LONG),
        _ => Reply::Other(Answer::new(503, "")),
    })
    .await;
    give_code(&bench);
    let proving = format!("{CODE}[renewal]\nprove_url = \"{}/prove\"\n", bench.server.url());
    // Nothing is in use before a first proof has succeeded.
    let (outcome, events) = bench.once(&proving).await;
    assert!(!outcome.is_valid && !outcome.is_settled);
    assert!(!names(&events).contains(&"enrolled".to_owned()) && !bench.path("state/current").exists());
    // Another address accepts it.
    assert!(bench.once(CODE).await.0.is_valid);
    let in_use = bench.leaf_in_use();
    // Its successor is issued and refused, at every start.
    renews.store(true, Ordering::Relaxed);
    for _ in 0..2 {
        let (outcome, _) = bench.once(&proving).await;
        assert!(outcome.is_valid && !outcome.is_settled);
        assert_eq!((bench.issued(), bench.leaf_in_use()), (2, in_use.clone()));
    }
    let (outcome, events) = bench.once(CODE).await;
    assert!(outcome.is_settled && names(&events).contains(&"renewed".to_owned()));
    assert_ne!(bench.leaf_in_use(), in_use);
}

#[tokio::test]
async fn a_pinned_root_is_fetched_checked_and_kept() {
    let bench = bench(|_, _| Reply::Issue(LONG)).await;
    give_code(&bench);
    let pinning = |root: &[u8]| {
        let sha256: String = kf_crypto::sha256(root).iter().map(|octet| format!("{octet:02X}")).collect();
        let text = bench.config_text(CODE);
        let file = format!("root_file = \"{}\"", bench.path("root.pem").display());
        assert!(text.contains(&file));
        kf_agent::Config::parse(&text.replace(&file, &format!("root_sha256 = \"{sha256}\""))).unwrap()
    };
    let wrong = Agent::open(pinning(b"another"), bench.sink()).unwrap().once().await;
    assert!(!wrong.is_valid);
    assert_eq!(bench.enrolments().len(), 0, "nothing is shown to a server that is not trusted");
    assert!(bench.received().iter().all(|request| request.client_chain.is_empty()));

    let right = pinning(&bench.authority.root_der());
    assert!(crate::bench::open(&right, || bench.sink()).unwrap().once().await.is_valid);
    assert_eq!(std::fs::read(bench.path("state/root.der")).unwrap(), bench.authority.root_der());
    std::fs::write(bench.path("state/root.der"), b"tampered").unwrap();
    assert!(crate::bench::open(&right, || bench.sink()).unwrap().once().await.is_valid);
}

#[tokio::test]
async fn a_server_that_is_down_is_tried_again_and_the_identity_stays() {
    let bench =
        bench(|_, number| if number == 0 { Reply::Issue(DUE) } else { Reply::Other(Answer::new(503, "")) }).await;
    give_code(&bench);
    let (outcome, events) = bench.once(CODE).await;
    assert!(outcome.is_valid && !outcome.is_settled);
    assert_eq!(names(&events), ["started", "key-not-sealed", "enrolled", "retry", "stopped"]);
}

#[tokio::test]
async fn two_agents_do_not_share_a_state_directory() {
    let bench = bench(|_, _| Reply::Issue(LONG)).await;
    let first = Agent::open(bench.config(""), bench.sink()).unwrap();
    let refusal = Agent::open(bench.config(""), bench.sink()).unwrap_err().to_string();
    assert!(refusal.contains("another agent"), "{refusal}");
    drop(first);
    assert!(crate::bench::open(&bench.config(""), || bench.sink()).is_ok());
}

#[tokio::test]
async fn the_hook_runs_once_for_every_certificate_and_the_chain_is_exported() {
    let bench = bench(|_, number| Reply::Issue(if number == 0 { DUE } else { LONG })).await;
    give_code(&bench);
    let script = "#!/bin/sh\necho ran >> \"$1\"\n";
    std::fs::write(bench.path("hook"), script).unwrap();
    std::fs::set_permissions(bench.path("hook"), PermissionsExt::from_mode(0o700)).unwrap();
    let more = format!(
        "{CODE}[renewal]\nhook = [\"/bin/sh\", \"{{dir}}/hook\", \"{{dir}}/ran\"]\nexport_chain_file = \"{{dir}}/chain.pem\"\n"
    );
    let (_, events) = bench.once(&more).await;
    let runs = |events: &[Event]| events.iter().filter(|e| matches!(e, Event::Hook { succeeded: true, .. })).count();
    assert_eq!(runs(&events), 2, "{events:?}");
    assert_eq!(runs(&bench.once(&more).await.1), 0);
    assert_eq!(std::fs::read_to_string(bench.path("ran")).unwrap().lines().count(), 2);
    let exported = std::fs::read_to_string(bench.path("chain.pem")).unwrap();
    let exported = kf_pki::pem::decode_all("CERTIFICATE", &exported).unwrap();
    assert_eq!(exported, [bench.leaf_in_use(), bench.authority.issuing_der()]);
    // A power cut between the act and its note: the hook runs again rather than not at all.
    std::fs::remove_file(bench.path("state/hooked")).unwrap();
    assert_eq!(runs(&bench.once(&more).await.1), 1);
}

#[tokio::test]
async fn a_certificate_for_another_key_is_not_taken() {
    let bench = bench(|_, _| {
        let other = kf_testkit::ForeignAuthority::new().issue_client("meter-1");
        let slices: Vec<&[u8]> = other.chain.iter().map(Vec::as_slice).collect();
        let body = base64::Engine::encode(&base64::prelude::BASE64_STANDARD, kf_pki::cms::certs_only(&slices));
        Reply::Other(Answer::new(200, body))
    })
    .await;
    give_code(&bench);
    let (outcome, events) = bench.once(CODE).await;
    assert!(!outcome.is_valid);
    assert!(names(&events).contains(&"retry".to_owned()));
    assert!(!bench.path("state/current").exists());
}

#[tokio::test]
async fn a_request_that_the_server_calls_wrong_is_thrown_away_with_its_key() {
    let bench =
        bench(|_, number| if number == 0 { Reply::Other(Answer::new(400, "weak")) } else { Reply::Issue(LONG) });
    let bench = bench.await;
    give_code(&bench);
    assert!(!bench.once(CODE).await.0.is_valid);
    assert_eq!(std::fs::read_dir(bench.path("state/a")).unwrap().count(), 0);
    assert!(bench.once(CODE).await.0.is_valid);
    let enrolments = bench.enrolments();
    assert_ne!(enrolments[0].1.body, enrolments[1].1.body);
}

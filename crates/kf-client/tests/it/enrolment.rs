//! EST: what is sent and what is understood.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use kf_client::est::{self, Enrolment, EstError, Service};
use kf_client::{Client, ClientError};
use kf_key::SecretBytes;
use kf_testkit::{Answer, ClientCheck, ForeignAuthority, HttpsServer, Received};

struct Bench {
    authority: ForeignAuthority,
    server: HttpsServer,
    answer: Arc<Mutex<Answer>>,
    received: Arc<Mutex<Vec<Received>>>,
}

async fn bench() -> Bench {
    let authority = ForeignAuthority::new();
    let answer = Arc::new(Mutex::new(Answer::new(500, "")));
    let received: Arc<Mutex<Vec<Received>>> = Arc::default();
    let (given, log) = (answer.clone(), received.clone());
    let identity = authority.issue_server(&["localhost"]);
    let server = HttpsServer::start(&identity, ClientCheck::Anybody, move |request| {
        log.lock().unwrap().push(request);
        given.lock().unwrap().clone()
    });
    let server = server.await;
    Bench { authority, server, answer, received }
}

impl Bench {
    fn service(&self) -> Service {
        Service::new(&self.server.url(), Some("meters")).unwrap()
    }

    fn client(&self) -> Client {
        let code = SecretBytes::from_vec(b"ABCD-EFGH".to_vec());
        Client::builder().roots(vec![self.authority.root_der()]).basic("meter-1", &code).build().unwrap()
    }

    fn answer(&self, answer: Answer) {
        *self.answer.lock().unwrap() = answer;
    }
}

fn certs_only(certificates: &[Vec<u8>]) -> Vec<u8> {
    let slices: Vec<&[u8]> = certificates.iter().map(Vec::as_slice).collect();
    kf_pki::cms::certs_only(&slices)
}

fn wrapped(text: &str) -> String {
    text.as_bytes().chunks(64).map(|line| format!("{}\r\n", String::from_utf8_lossy(line))).collect()
}

#[tokio::test]
async fn a_request_goes_out_as_one_line_of_base64_and_certificates_come_back_in_either_form() {
    let bench = bench().await;
    let certificates = bench.authority.issue_client("meter-1").chain;
    let text = BASE64_STANDARD.encode(certs_only(&certificates));
    for body in [text.clone(), format!("{text}\r\n"), wrapped(&text)] {
        bench.answer(Answer::new(200, body));
        let enrolment = est::simple_enroll(&bench.client(), &bench.service(), &[0x30; 100]).await.unwrap();
        assert_eq!(enrolment, Enrolment::Issued(certificates.clone()));
    }
    let received = bench.received.lock().unwrap();
    let request = &received[0];
    assert_eq!((request.method.as_str(), request.path.as_str()), ("POST", "/.well-known/est/meters/simpleenroll"));
    assert_eq!(request.headers["content-type"], "application/pkcs10");
    assert!(!request.headers.contains_key("content-transfer-encoding"));
    assert_eq!(request.body, BASE64_STANDARD.encode([0x30; 100]).into_bytes());
}

#[tokio::test]
async fn accepted_is_pending_with_the_wait_that_was_asked_for() {
    let bench = bench().await;
    for (header, seconds) in [(Some("17"), 17), (None, 60), (Some("nonsense"), 60)] {
        let mut answer = Answer::new(202, "");
        if let Some(header) = header {
            answer = answer.header("retry-after", header);
        }
        bench.answer(answer);
        let enrolment = est::simple_reenroll(&bench.client(), &bench.service(), &[1]).await.unwrap();
        assert_eq!(enrolment, Enrolment::Pending { retry_after: Duration::from_secs(seconds) });
    }
    assert!(bench.received.lock().unwrap()[0].path.ends_with("/simplereenroll"));
}

#[tokio::test]
async fn a_refusal_keeps_its_status_words_and_wait() {
    let bench = bench().await;
    bench.answer(Answer::new(429, "slow down").header("retry-after", "90"));
    let refusal = est::simple_enroll(&bench.client(), &bench.service(), &[1]).await.unwrap_err();
    assert_eq!((refusal.status(), refusal.retry_after()), (Some(429), Some(Duration::from_secs(90))));
    let cause = std::error::Error::source(&refusal).unwrap().to_string();
    assert!(cause.contains("slow down"), "{cause}");
}

#[tokio::test]
async fn an_answer_that_is_no_certificate_is_an_error() {
    let bench = bench().await;
    let empty = BASE64_STANDARD.encode(certs_only(&[]));
    for body in [String::new(), "!!!".to_owned(), BASE64_STANDARD.encode("junk"), empty] {
        bench.answer(Answer::new(200, body.clone()));
        let refusal = est::cacerts(&bench.client(), &bench.service()).await.unwrap_err();
        assert!(matches!(refusal, EstError::Call(ClientError::Answer { .. })), "{body}: {refusal:?}");
    }
    bench.answer(Answer::new(200, vec![b'A'; est::MAX_ANSWER_OCTETS + 1]));
    assert!(est::cacerts(&bench.client(), &bench.service()).await.is_err());
}

#[tokio::test]
async fn no_csr_attributes_are_none_and_given_ones_are_bytes() {
    let bench = bench().await;
    for status in [204, 404] {
        bench.answer(Answer::new(status, ""));
        assert_eq!(est::csrattrs(&bench.client(), &bench.service()).await.unwrap(), None);
    }
    bench.answer(Answer::new(200, BASE64_STANDARD.encode([0x30, 0])));
    assert_eq!(est::csrattrs(&bench.client(), &bench.service()).await.unwrap(), Some(vec![0x30, 0]));
}

#[tokio::test]
async fn a_root_is_fetched_from_an_untrusted_server_by_its_fingerprint_without_any_credential() {
    let bench = bench().await;
    let root = bench.authority.root_der();
    bench.answer(Answer::new(200, BASE64_STANDARD.encode(certs_only(&[bench.authority.issuing_der(), root.clone()]))));
    let service = bench.service();
    let fetch = |pin| est::root_by_fingerprint(&service, pin, Duration::from_secs(20));
    assert_eq!(fetch(kf_crypto::sha256(&root)).await.unwrap(), root);
    assert!(fetch([7; 32]).await.is_err());
    for request in bench.received.lock().unwrap().iter() {
        assert!(!request.headers.contains_key("authorization") && request.client_chain.is_empty());
    }
}

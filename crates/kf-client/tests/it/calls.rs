//! Calls, limits, deadlines, problems.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use kf_client::{Client, ClientError, Method};
use kf_key::SecretBytes;
use kf_testkit::{Answer, ClientCheck, ForeignAuthority, HttpsServer, Received};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

struct Bench {
    authority: ForeignAuthority,
    server: HttpsServer,
    received: Arc<Mutex<Vec<Received>>>,
}

async fn bench(answer: impl Fn(&Received) -> Answer + Send + Sync + 'static) -> Bench {
    let authority = ForeignAuthority::new();
    let received: Arc<Mutex<Vec<Received>>> = Arc::default();
    let log = received.clone();
    let identity = authority.issue_server(&["localhost"]);
    let server = HttpsServer::start(&identity, ClientCheck::Anybody, move |request| {
        let answer = answer(&request);
        log.lock().unwrap().push(request);
        answer
    });
    let server = server.await;
    Bench { authority, server, received }
}

impl Bench {
    fn builder(&self) -> kf_client::ClientBuilder {
        Client::builder().roots(vec![self.authority.root_der()])
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.server.url())
    }
}

#[tokio::test]
async fn a_session_keeps_its_connection_and_single_calls_do_not() {
    let bench = bench(|_| Answer::new(200, "ok")).await;
    let client = bench.builder().build().unwrap();
    let mut session = client.session();
    for _ in 0..3 {
        let answer = session.request(Method::GET, &bench.url("/a?b=c"), &[], "").await.unwrap();
        assert_eq!((answer.status.as_u16(), &answer.body[..]), (200, &b"ok"[..]));
    }
    client.request(Method::POST, &bench.url("/p"), &[], "body").await.unwrap();
    let received = bench.received.lock().unwrap();
    let connections: Vec<u64> = received.iter().map(|request| request.connection).collect();
    assert_eq!(connections, [0, 0, 0, 1]);
    assert_eq!(
        (received[0].path.as_str(), received[0].headers["host"].to_str().unwrap()),
        ("/a?b=c", &bench.server.url()[8..])
    );
    assert_eq!((received[3].method.as_str(), &received[3].body[..]), ("POST", &b"body"[..]));
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused_and_one_at_the_limit_is_not() {
    let bench = bench(|request| Answer::new(200, vec![0; request.path[1..].parse().unwrap()])).await;
    let client = bench.builder().body_limit(1_000).build().unwrap();
    assert_eq!(client.request(Method::GET, &bench.url("/1000"), &[], "").await.unwrap().body.len(), 1_000);
    let refusal = client.request(Method::GET, &bench.url("/1001"), &[], "").await.unwrap_err();
    assert!(matches!(refusal, ClientError::BodyTooLarge { limit_octets: 1_000 }), "{refusal}");
}

#[tokio::test]
async fn a_silent_server_runs_into_the_deadline() {
    let bench = bench(|_| Answer::Silence).await;
    let client = bench.builder().deadline(Duration::from_millis(50)).build().unwrap();
    let refusal = client.request(Method::GET, &bench.url("/"), &[], "").await.unwrap_err();
    assert!(matches!(refusal, ClientError::Deadline { millis: 50 }), "{refusal}");
}

#[tokio::test]
async fn a_server_that_hangs_up_is_an_error_and_the_call_is_not_repeated() {
    let bench = bench(|_| Answer::HangUp).await;
    let client = bench.builder().build().unwrap();
    let refusal = client.request(Method::POST, &bench.url("/"), &[], "once").await.unwrap_err();
    assert!(matches!(refusal, ClientError::Exchange { .. }), "{refusal}");
    assert_eq!(bench.received.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn a_problem_arrives_with_its_field_and_remedy() {
    let bench = bench(|request| match request.path.as_str() {
        "/problem" => Answer::new(
            409,
            r#"{"type":"urn:keyfleet:problem:conflict","status":200,"title":"the name is taken","field":"name","remedy":"choose another"}"#,
        )
        .header("content-type", "application/problem+json"),
        "/html" => Answer::new(502, "<html>\n\u{7}bad gateway"),
        "/empty" => Answer::new(204, ""),
        _ => Answer::new(200, "[1,2"),
    })
    .await;
    let client = bench.builder().build().unwrap();
    match client.get_json::<Vec<u8>>(&bench.url("/problem")).await.unwrap_err() {
        ClientError::Problem(problem) => {
            assert_eq!((problem.status, problem.field.as_deref()), (409, Some("name")));
            assert_eq!(ClientError::Problem(problem).to_string(), "the name is taken: choose another");
        }
        other => panic!("{other}"),
    }
    match client.get_json::<Vec<u8>>(&bench.url("/html")).await.unwrap_err() {
        ClientError::Status { status, excerpt } => assert_eq!((status, excerpt.as_str()), (502, "<html>bad gateway")),
        other => panic!("{other}"),
    }
    client.get_json::<()>(&bench.url("/empty")).await.unwrap();
    assert!(matches!(client.get_json::<Vec<u8>>(&bench.url("/x")).await, Err(ClientError::Answer { .. })));
}

#[tokio::test]
async fn tokens_and_passwords_travel_over_https_only_and_show_in_no_text() {
    let bench = bench(|_| Answer::new(200, "null")).await;
    let token = || SecretBytes::from_vec(b"canary-token".to_vec());
    let bearer = bench.builder().bearer(&token()).build().unwrap();
    let basic = bench.builder().basic("meter-1", &token()).build().unwrap();
    bearer.get_json::<()>(&bench.url("/")).await.unwrap();
    basic.get_json::<()>(&bench.url("/")).await.unwrap();
    {
        let received = bench.received.lock().unwrap();
        assert_eq!(received[0].headers["authorization"], "Bearer canary-token");
        assert_eq!(received[1].headers["authorization"], "Basic bWV0ZXItMTpjYW5hcnktdG9rZW4=");
    }
    let plain = format!("http://127.0.0.1:{}/", bench.server.port());
    for client in [bearer, basic] {
        assert!(!format!("{client:?}").contains("canary"));
        let refusal = client.request(Method::GET, &plain, &[], "").await.unwrap_err();
        assert!(matches!(refusal, ClientError::SecretOverPlainHttp));
    }
    let broken = bench.builder().bearer(&SecretBytes::from_vec(b"canary\nsplit".to_vec())).build().unwrap_err();
    assert!(matches!(&broken, ClientError::Setting { setting: "authorization", .. }));
    assert!(!format!("{broken} {broken:?}").contains("canary"));
    assert!(bench.builder().basic("a:b", &token()).build().is_err());
}

#[tokio::test]
async fn plain_http_serves_public_documents() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/full.crl", listener.local_addr().unwrap());
    let serving = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut head = [0; 1024];
        let read = stream.read(&mut head).await.unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\ncrl").await.unwrap();
        String::from_utf8(head[..read].to_vec()).unwrap()
    });
    let client = Client::builder().build().unwrap();
    let answer = client.request(Method::GET, &url, &[], "").await.unwrap();
    assert_eq!(&answer.body[..], b"crl");
    assert!(serving.await.unwrap().starts_with("GET /full.crl HTTP/1.1\r\n"));
    let without_anchors = client.request(Method::GET, "https://127.0.0.1:1/", &[], "").await;
    assert!(matches!(without_anchors, Err(ClientError::Setting { setting: "anchors", .. })));
}

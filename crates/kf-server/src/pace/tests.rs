use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

use super::*;

fn paced(buffer: usize) -> (Paced<tokio::io::DuplexStream>, tokio::io::DuplexStream, Arc<Pace>) {
    let (server, client) = duplex(buffer);
    let pace = Pace::new();
    (Paced::new(server, Arc::clone(&pace), Limits::default()), client, pace)
}

async fn seconds_until_cut(stream: &mut Paced<tokio::io::DuplexStream>) -> u64 {
    let begun = Instant::now();
    let mut octet = [0; 1];
    loop {
        if let Err(error) = stream.read_exact(&mut octet).await {
            assert_eq!(error.kind(), ErrorKind::TimedOut);
            return begun.elapsed().as_secs();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_sends_nothing_is_cut_as_if_its_head_were_slow() {
    let (mut stream, _client, _) = paced(64);
    assert_eq!(seconds_until_cut(&mut stream).await, 10);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_trickles_its_head_is_cut_at_the_deadline_of_the_whole_head() {
    let (mut stream, mut client, _) = paced(64);
    tokio::spawn(async move {
        while client.write_all(b"x").await.is_ok() {
            tokio::time::sleep(Duration::from_secs(3)).await;
        }
    });
    assert_eq!(seconds_until_cut(&mut stream).await, 10);
}

#[tokio::test(start_paused = true)]
async fn between_requests_a_client_may_be_idle_longer_and_then_owes_its_head() {
    let (mut stream, mut client, pace) = paced(64);
    pace.request_begins();
    pace.request_ends();
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_secs(50)).await;
        client.write_all(b"G").await.unwrap();
        std::future::pending::<()>().await;
    });
    assert_eq!(seconds_until_cut(&mut stream).await, 60);
    let (mut idle, _client, pace) = paced(64);
    pace.request_begins();
    pace.request_ends();
    assert_eq!(seconds_until_cut(&mut idle).await, 60);
}

#[tokio::test(start_paused = true)]
async fn while_a_request_is_worked_on_the_head_deadline_rests() {
    let (mut stream, _client, pace) = paced(64);
    pace.request_begins();
    let mut octet = [0; 1];
    let waited = tokio::time::timeout(Duration::from_secs(600), stream.read(&mut octet)).await;
    assert!(waited.is_err(), "the read ended");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_take_its_answer_is_cut() {
    let (mut stream, _client, pace) = paced(16);
    pace.request_begins();
    pace.request_ends();
    let begun = Instant::now();
    let error = stream.write_all(&[0; 1_024]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TimedOut);
    assert_eq!(begun.elapsed().as_secs(), 30);
}

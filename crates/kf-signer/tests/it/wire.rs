//! What a broken or hostile server can send to the signer's process.

use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};

use proptest::prelude::*;

fn start() -> (Child, UnixStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let child = Command::new(env!("CARGO_BIN_EXE_keyfleet-signer"))
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    (child, ours)
}

fn frame(length: u32, kind: u8, body: &[u8]) -> Vec<u8> {
    [&length.to_be_bytes()[..], &7_u64.to_be_bytes(), &[kind], body].concat()
}

/// Sends `octets`, reads to the end and returns what came and whether the process ended by itself, not by a signal.
fn exchange(octets: &[u8], close: bool) -> (Vec<u8>, bool) {
    let (mut child, mut socket) = start();
    // A signer that refuses may close before it has read everything.
    drop(socket.write_all(octets));
    if close {
        socket.shutdown(std::net::Shutdown::Write).unwrap();
    }
    let mut answer = Vec::new();
    drop(socket.read_to_end(&mut answer));
    (answer, child.wait().unwrap().code().is_some())
}

#[test]
fn oversized_frames_and_unknown_kinds_end_the_connection_before_they_are_read() {
    // Not closed: the signer ends by itself, from the header alone.
    for (length, kind) in [(1024 * 1024 + 10, 1), (64 * 1024 * 1024 + 10, 6), (u32::MAX, 1), (8, 1), (9, 0), (9, 200)] {
        let (answer, ended) = exchange(&frame(length, kind, &[]), false);
        assert!(ended && answer.is_empty(), "length {length}, kind {kind}: {answer:?}");
    }
}

#[test]
fn a_first_request_that_is_no_hello_is_answered_with_an_error_and_nothing_else() {
    for (kind, body) in [(11_u8, b"".as_slice()), (1, b"{"), (1, b"{\"config\":{\"unknown\":1},\"create_root\":false}")]
    {
        let length = u32::try_from(body.len() + 9).unwrap();
        let (answer, ended) = exchange(&frame(length, kind, body), false);
        assert!(ended);
        assert_eq!(answer.get(4..13), frame(0, 0x81, &[]).get(4..13), "{answer:?}");
    }
}

#[test]
fn a_connection_that_is_closed_at_once_ends_the_process() {
    assert_eq!(exchange(&[], true), (Vec::new(), true));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]
    #[test]
    fn garbage_ends_the_process_without_a_crash(octets in proptest::collection::vec(any::<u8>(), 0..400)) {
        let (_, ended) = exchange(&octets, true);
        prop_assert!(ended);
    }
}

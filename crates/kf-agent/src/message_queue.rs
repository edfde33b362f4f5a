//! Messages that wait to be sealed: a bounded queue, and where they come from: lines of a Unix socket or of standard
//! input. While there is no broker the newest are kept.

use std::collections::VecDeque;
use std::io::{self, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kf_seal::MAX_PLAINTEXT_OCTETS;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::net::UnixListener;
use tokio::sync::{Notify, Semaphore};

use crate::event::{Event, EventSink};

/// The most octets that wait.
const MAX_WAITING_OCTETS: usize = 4 * 1024 * 1024;
/// The most programs that are connected to the socket.
const MAX_WRITERS: usize = 16;
/// Room for one read.
const READ_OCTETS: usize = 4 * 1024;
/// What a socket's file may be done with: by the agent's user and group.
const SOCKET_MODE: u32 = 0o660;

/// Messages in order; when there are too many the oldest goes.
pub(crate) struct MessageQueue {
    waiting: Mutex<Waiting>,
    came: Notify,
    most: usize,
}

#[derive(Default)]
struct Waiting {
    messages: VecDeque<Vec<u8>>,
    octets: usize,
    dropped: u64,
}

impl MessageQueue {
    pub(crate) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { waiting: Mutex::default(), came: Notify::new(), most })
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn push(&self, message: Vec<u8>) {
        let mut waiting = self.waiting();
        waiting.octets = waiting.octets.saturating_add(message.len());
        waiting.messages.push_back(message);
        while waiting.messages.len() > self.most || waiting.octets > MAX_WAITING_OCTETS {
            let Some(oldest) = waiting.messages.pop_front() else { break };
            waiting.octets = waiting.octets.saturating_sub(oldest.len());
            waiting.dropped = waiting.dropped.saturating_add(1);
        }
        drop(waiting);
        self.came.notify_one();
    }

    /// Takes the oldest, waiting for one. Safe to cancel.
    pub(crate) async fn take(&self) -> Vec<u8> {
        loop {
            {
                let mut waiting = self.waiting();
                if let Some(message) = waiting.messages.pop_front() {
                    waiting.octets = waiting.octets.saturating_sub(message.len());
                    return message;
                }
            }
            self.came.notified().await;
        }
    }

    /// How many were dropped since this was last asked.
    pub(crate) fn dropped(&self) -> u64 {
        std::mem::take(&mut self.waiting().dropped)
    }
}

/// Takes lines from standard input until it ends, on a thread of its own: a read from there cannot be cancelled.
pub(crate) fn from_stdin(queue: Arc<MessageQueue>, events: EventSink) -> io::Result<()> {
    let work = move || {
        let (mut input, mut assembly) = (io::stdin().lock(), Assembly::default());
        let mut octets = [0; READ_OCTETS];
        loop {
            let came = match input.read(&mut octets) {
                Ok(came) => came,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return events.tell(&Event::MessageRefused { reason: error.to_string() }),
            };
            if !assembly.take(octets.get(..came).unwrap_or_default(), &queue, &events) {
                return;
            }
        }
    };
    std::thread::Builder::new().name("messages".to_owned()).spawn(work).map(drop)
}

/// Binds the socket, replacing one that an earlier agent left behind.
pub(crate) fn bind(path: &PathBuf) -> io::Result<UnixListener> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(SOCKET_MODE))?;
    Ok(listener)
}

/// Takes lines from whoever connects.
pub(crate) async fn from_socket(listener: UnixListener, queue: Arc<MessageQueue>, events: EventSink) {
    let writers = Arc::new(Semaphore::new(MAX_WRITERS));
    loop {
        let Ok(turn) = writers.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let (queue, events) = (queue.clone(), events.clone());
                tokio::spawn(async move {
                    let mut stream = stream;
                    lines(&mut stream, &queue, &events).await;
                    drop(turn);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "nobody can connect to the socket of messages");
                tokio::time::sleep(std::time::Duration::from_secs(1)).await;
            }
        }
    }
}

/// One message per line. A line that is too long ends its stream: what follows could be the rest of it.
async fn lines<R: AsyncRead + Unpin>(input: &mut R, queue: &MessageQueue, events: &EventSink) {
    let mut assembly = Assembly::default();
    let mut octets = [0; READ_OCTETS];
    loop {
        match input.read(&mut octets).await {
            Ok(came) if assembly.take(octets.get(..came).unwrap_or_default(), queue, events) => {}
            Ok(_) => return,
            Err(error) => return events.tell(&Event::MessageRefused { reason: error.to_string() }),
        }
    }
}

/// A line that is not whole yet.
#[derive(Default)]
struct Assembly(Vec<u8>);

impl Assembly {
    /// Takes what was read, nothing at the end; whether the stream goes on.
    fn take(&mut self, octets: &[u8], queue: &MessageQueue, events: &EventSink) -> bool {
        for octet in octets {
            if *octet == b'\n' {
                self.end(queue);
            } else if self.0.len() >= MAX_PLAINTEXT_OCTETS {
                let reason = format!("a line has more than {MAX_PLAINTEXT_OCTETS} octets; its stream was closed");
                events.tell(&Event::MessageRefused { reason });
                return false;
            } else {
                self.0.push(*octet);
            }
        }
        if octets.is_empty() {
            self.end(queue);
        }
        !octets.is_empty()
    }

    fn end(&mut self, queue: &MessageQueue) {
        let mut message = std::mem::take(&mut self.0);
        if message.last() == Some(&b'\r') {
            message.pop();
        }
        if !message.is_empty() {
            queue.push(message);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_oldest_goes_when_too_many_wait_and_is_counted() {
        let queue = MessageQueue::new(2);
        for text in ["1", "2", "3"] {
            queue.push(text.into());
        }
        assert_eq!((queue.take().await, queue.take().await), (b"2".to_vec(), b"3".to_vec()));
        assert_eq!((queue.dropped(), queue.dropped()), (1, 0));
        let large = MessageQueue::new(4_096);
        for _ in 0..400 {
            large.push(vec![0; MAX_PLAINTEXT_OCTETS]);
        }
        assert_eq!(large.dropped(), 400 - 256, "four MiB are 256 messages of the largest size");
    }

    #[tokio::test]
    async fn each_line_is_a_message_and_one_that_is_too_long_ends_its_stream() {
        let told = Arc::new(Mutex::new(0));
        let count = told.clone();
        let events = EventSink::new(move |_| *count.lock().unwrap() += 1);
        let queue = MessageQueue::new(8);
        let text = format!("one\r\n\ntwo\n{}\nnever\n", "x".repeat(MAX_PLAINTEXT_OCTETS + 1));
        lines(&mut text.as_bytes(), &queue, &events).await;
        assert_eq!((queue.take().await, queue.take().await), (b"one".to_vec(), b"two".to_vec()));
        assert!(queue.waiting().messages.is_empty());
        assert_eq!(*told.lock().unwrap(), 1);
        lines(&mut &b"without an end"[..], &queue, &events).await;
        assert_eq!(queue.take().await, b"without an end");
    }
}

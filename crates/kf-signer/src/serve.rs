//! The signer's loop: one thread reads, two work, each writes a batch of answers at once.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Condvar, Mutex, PoisonError};

use zeroize::Zeroize;

use crate::SignerError;
use crate::engine::{Answer, Engine};
use crate::frame::{Frame, Inbox, encode};
use crate::protocol::{DONE, DONE_SECRET, FAILED, REQUESTS, RequestKind, bug, encode_error};

/// Threads that answer. The processors are shared with the server, and a token is one queue anyway.
const WORKERS: usize = 2;
/// The most requests taken at once, which bounds how long the first answer of a batch waits for the last.
const MAX_BATCH: usize = 32;
/// Stack that is written over after each batch, in about a microsecond: more than the deepest request uses, which is more where
/// nothing is optimised.
const STACK_OCTETS: usize = if cfg!(debug_assertions) { 256 * 1024 } else { 32 * 1024 };
/// The most requests and octets that wait; beyond it the socket is not read.
const MAX_WAITING: usize = 4096;
const MAX_WAITING_OCTETS: usize = 128 * 1024 * 1024;

/// Answers requests until the client closes the connection or breaks the protocol.
pub(crate) fn serve(engine: &Engine, stream: &UnixStream, inbox: Inbox) {
    let queue = Queue::default();
    let writer = Mutex::new(stream);
    std::thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| work(engine, &queue, &writer));
        }
        if let Err(error) = read_requests(stream, inbox, &queue) {
            tracing::warn!(%error, "the connection to the server ends");
        }
        queue.close();
    });
}

/// Why reading ended before the client was done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    #[error("cannot read")]
    Io(#[from] std::io::Error),
    #[error(transparent)]
    Frame(#[from] crate::frame::FrameError),
}

/// Reads until a frame is whole; `None` at the end of the stream.
pub(crate) fn read_frame(mut stream: &UnixStream, inbox: &mut Inbox) -> Result<Option<Frame>, ReadError> {
    loop {
        if let Some(frame) = inbox.next()? {
            return Ok(Some(frame));
        }
        match stream.read(inbox.space()?) {
            Ok(0) => return Ok(None),
            Ok(octets) => inbox.filled(octets),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
}

fn read_requests(mut stream: &UnixStream, mut inbox: Inbox, queue: &Queue) -> Result<(), ReadError> {
    let mut frames = Vec::new();
    loop {
        while let Some(frame) = inbox.next()? {
            frames.push(frame);
        }
        queue.push(&mut frames);
        match stream.read(inbox.space()?) {
            Ok(0) => return Ok(()),
            Ok(octets) => inbox.filled(octets),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
}

fn work(engine: &Engine, queue: &Queue, writer: &Mutex<&UnixStream>) {
    let mut answers = Vec::new();
    while let Some(batch) = queue.take() {
        let mut has_secret = false;
        for mut frame in batch {
            has_secret |= (REQUESTS.is_secret)(frame.kind)
                || RequestKind::from_code(frame.kind).is_some_and(RequestKind::yields_secret);
            append_answer(engine, &frame, &mut answers);
            if (REQUESTS.is_secret)(frame.kind) {
                frame.body.zeroize();
            }
        }
        // Signatures, derivations and exchanges leave pieces of keys in frames that are gone.
        kf_key::wipe_stack::<STACK_OCTETS>();
        // A client that is gone needs no answer; the reader notices the end of the stream.
        drop(writer.lock().unwrap_or_else(PoisonError::into_inner).write_all(&answers));
        if has_secret {
            answers.zeroize();
        }
        answers.clear();
    }
}

fn append_answer(engine: &Engine, frame: &Frame, answers: &mut Vec<u8>) {
    let outcome = RequestKind::from_code(frame.kind).ok_or_else(|| bug("unknown kind")).and_then(|kind| {
        // A bug costs one request, not the process that holds the root.
        catch_unwind(AssertUnwindSafe(|| engine.answer(kind, &frame.body)))
            .unwrap_or_else(|_panic| Err(bug("a request panicked")))
    });
    if let Err(error @ SignerError::Refused(_)) = &outcome {
        tracing::warn!(%error, "request refused");
    }
    let encoded = match &outcome {
        Ok(Answer::Octets(octets)) => encode(frame.id, DONE, &[octets]),
        // Exposed to the server that asked for it.
        Ok(Answer::Secret(secret)) => encode(frame.id, DONE_SECRET, &[secret.expose()]),
        Err(error) => encode(frame.id, FAILED, &[&encode_error(error)]),
    };
    let Ok(mut encoded) = encoded else { return };
    answers.extend_from_slice(&encoded);
    if matches!(outcome, Ok(Answer::Secret(_))) {
        encoded.zeroize();
    }
}

#[derive(Default)]
struct Queue {
    waiting: Mutex<Waiting>,
    filled: Condvar,
    emptied: Condvar,
}

#[derive(Default)]
struct Waiting {
    frames: VecDeque<Frame>,
    octets: usize,
    is_closed: bool,
}

impl Waiting {
    fn has_room(&self) -> bool {
        self.frames.len() < MAX_WAITING && self.octets <= MAX_WAITING_OCTETS
    }
}

impl Queue {
    /// Adds what was read, under one lock as far as there is room, and waits for room otherwise.
    fn push(&self, frames: &mut Vec<Frame>) {
        let mut frames = frames.drain(..).peekable();
        while frames.peek().is_some() {
            let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            while !waiting.has_room() {
                waiting = self.emptied.wait(waiting).unwrap_or_else(PoisonError::into_inner);
            }
            let mut added = 0;
            while waiting.has_room()
                && let Some(frame) = frames.next()
            {
                waiting.octets += frame.body.len();
                waiting.frames.push_back(frame);
                added += 1;
            }
            drop(waiting);
            if added == 1 { self.filled.notify_one() } else { self.filled.notify_all() }
        }
    }

    /// A fair share of what waits; `None` when the queue is closed and empty.
    fn take(&self) -> Option<Vec<Frame>> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        while waiting.frames.is_empty() {
            if waiting.is_closed {
                return None;
            }
            waiting = self.filled.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
        let share = waiting.frames.len().div_ceil(WORKERS).min(MAX_BATCH);
        let batch: Vec<Frame> = waiting.frames.drain(..share).collect();
        waiting.octets -= batch.iter().map(|frame| frame.body.len()).sum::<usize>();
        drop(waiting);
        self.emptied.notify_all();
        Some(batch)
    }

    fn close(&self) {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).is_closed = true;
        self.filled.notify_all();
    }
}

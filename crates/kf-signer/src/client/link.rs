//! One connection in one life of the signer.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use kf_key::KeyId;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, oneshot, watch};
use zeroize::Zeroize;

use crate::SignerError;
use crate::frame::{Frame, Inbox, encode};
use crate::protocol::{ANSWERS, FAILED, RequestKind, decode_error};
use crate::start::start;

/// Requests that wait to be written; beyond it callers wait.
const MAX_UNWRITTEN: usize = 1024;
/// The most frames joined into one write.
const MAX_JOINED: usize = 256;
/// A frame of this size is written by itself instead of being copied.
const LARGE_FRAME_OCTETS: usize = 128 * 1024;
/// How long a request may take. A token that blocks longer counts as gone.
const DEADLINE: Duration = Duration::from_secs(60);

/// Frames to be written, and answers awaited.
pub(super) struct Link {
    outgoing: Mutex<Option<mpsc::Sender<Outgoing>>>,
    awaited: Arc<Awaited>,
    next_id: AtomicU64,
    loaded: Mutex<BTreeSet<KeyId>>,
    /// How many changes of the registered versions of the wrapping key the other end knows.
    pub(super) wrapping_seen: AtomicU64,
    /// Held while a key is being loaded.
    pub(super) loading: tokio::sync::Mutex<()>,
}

struct Outgoing {
    frame: Vec<u8>,
    is_secret: bool,
}

/// Callers by request; `None` once the connection ended.
struct Awaited(Mutex<Option<BTreeMap<u64, oneshot::Sender<Frame>>>>);

/// Resolves when the connection has ended.
pub(super) struct Ended(watch::Receiver<bool>);

impl Ended {
    pub(super) async fn wait(mut self) {
        // An error means that the reading task is gone, which is the same.
        drop(self.0.wait_for(|ended| *ended).await);
    }
}

impl Link {
    /// Takes over a connected socket. Must be called within a tokio runtime.
    pub(super) fn open(stream: UnixStream) -> Result<(Arc<Self>, Ended), SignerError> {
        let stream = stream
            .set_nonblocking(true)
            .and_then(|()| tokio::net::UnixStream::from_std(stream))
            .map_err(|error| start(&error))?;
        let (reader, writer) = stream.into_split();
        let (outgoing, waiting) = mpsc::channel(MAX_UNWRITTEN);
        let awaited = Arc::new(Awaited(Mutex::new(Some(BTreeMap::new()))));
        let (ended, watching) = watch::channel(false);
        let for_reader = Arc::clone(&awaited);
        drop(tokio::spawn(write_frames(writer, waiting)));
        drop(tokio::spawn(async move {
            read_answers(reader, &for_reader).await;
            for_reader.close();
            ended.send_replace(true);
        }));
        let link = Self {
            outgoing: Mutex::new(Some(outgoing)),
            awaited,
            next_id: AtomicU64::new(1),
            loaded: Mutex::new(BTreeSet::new()),
            wrapping_seen: AtomicU64::new(0),
            loading: tokio::sync::Mutex::new(()),
        };
        Ok((Arc::new(link), Ended(watching)))
    }

    /// Sends a request and waits for the body of its answer.
    pub(super) async fn call(&self, kind: RequestKind, parts: &[&[u8]]) -> Result<Vec<u8>, SignerError> {
        self.call_within(kind, parts, DEADLINE).await
    }

    pub(super) async fn call_within(
        &self,
        kind: RequestKind,
        parts: &[&[u8]],
        deadline: Duration,
    ) -> Result<Vec<u8>, SignerError> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let frame = encode(id, kind.code(), parts).map_err(|error| start(&error))?;
        let answer = self.awaited.expect(id).ok_or(SignerError::Unavailable)?;
        let outgoing = self.outgoing.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let outgoing = outgoing.ok_or(SignerError::Unavailable)?;
        let is_secret = kind == RequestKind::Wrap;
        let exchange = async {
            outgoing.send(Outgoing { frame, is_secret }).await.map_err(|_ended| SignerError::Unavailable)?;
            // While this caller waits, the connection stays open, even when the client is being shut down.
            answer.await.map_err(|_ended| SignerError::Unavailable)
        };
        let frame = match tokio::time::timeout(deadline, exchange).await {
            Ok(frame) => frame?,
            Err(_elapsed) => {
                self.awaited.forget(id);
                return Err(SignerError::Unavailable);
            }
        };
        if frame.kind == FAILED { Err(decode_error(&frame.body)) } else { Ok(frame.body) }
    }

    /// No further requests; the connection ends when those under way are answered.
    pub(super) fn stop(&self) {
        drop(self.outgoing.lock().unwrap_or_else(PoisonError::into_inner).take());
    }

    pub(super) fn has(&self, key: KeyId) -> bool {
        self.loaded().contains(&key)
    }

    pub(super) fn remember(&self, key: KeyId) {
        self.loaded().insert(key);
    }

    pub(super) fn forget(&self, key: KeyId) {
        self.loaded().remove(&key);
    }

    fn loaded(&self) -> std::sync::MutexGuard<'_, BTreeSet<KeyId>> {
        self.loaded.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Awaited {
    fn expect(&self, id: u64) -> Option<oneshot::Receiver<Frame>> {
        let (sender, receiver) = oneshot::channel();
        self.lock().as_mut()?.insert(id, sender);
        Some(receiver)
    }

    fn forget(&self, id: u64) {
        if let Some(callers) = self.lock().as_mut() {
            callers.remove(&id);
        }
    }

    /// Hands over a batch of answers; an answer nobody waits for any more is dropped.
    fn deliver(&self, frames: &mut Vec<Frame>) {
        let mut guard = self.lock();
        let Some(callers) = guard.as_mut() else { return };
        for frame in frames.drain(..) {
            if let Some(caller) = callers.remove(&frame.id) {
                drop(caller.send(frame));
            }
        }
    }

    /// Every caller learns that no answer comes.
    fn close(&self) {
        drop(self.lock().take());
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<BTreeMap<u64, oneshot::Sender<Frame>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Joins what waits into one write. Ends, and closes this direction, when every sender is gone.
async fn write_frames(mut writer: OwnedWriteHalf, mut waiting: mpsc::Receiver<Outgoing>) {
    let mut batch = Vec::with_capacity(MAX_JOINED);
    let mut joined = Vec::new();
    while waiting.recv_many(&mut batch, MAX_JOINED).await > 0 {
        // Callers that a batch of answers just woke get to add their next requests to the same write.
        tokio::task::yield_now().await;
        while batch.len() < MAX_JOINED
            && let Ok(outgoing) = waiting.try_recv()
        {
            batch.push(outgoing);
        }
        let mut has_secret = false;
        let mut outcome = Ok(());
        for mut outgoing in batch.drain(..) {
            has_secret |= outgoing.is_secret;
            if outgoing.frame.len() < LARGE_FRAME_OCTETS {
                joined.extend_from_slice(&outgoing.frame);
            } else {
                outcome = outcome.and(writer.write_all(&joined).await).and(writer.write_all(&outgoing.frame).await);
                joined.clear();
            }
            if outgoing.is_secret {
                outgoing.frame.zeroize();
            }
        }
        outcome = outcome.and(writer.write_all(&joined).await);
        if has_secret {
            joined.zeroize();
        }
        joined.clear();
        if let Err(error) = outcome {
            tracing::debug!(%error, "the signer does not read");
            return;
        }
    }
}

async fn read_answers(mut reader: OwnedReadHalf, awaited: &Awaited) {
    let mut inbox = Inbox::new(ANSWERS);
    let mut frames = Vec::new();
    loop {
        loop {
            match inbox.next() {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(error) => return tracing::error!(%error, "the signer breaks the protocol"),
            }
        }
        awaited.deliver(&mut frames);
        let Ok(space) = inbox.space() else {
            return tracing::error!("the signer breaks the protocol");
        };
        match reader.read(space).await {
            Ok(octets) if octets > 0 => inbox.filled(octets),
            // End of the stream, or a connection that broke: the same to the callers.
            _ => return,
        }
    }
}

//! A limit on how long a back end may take: hardware that hangs must not hang its callers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::Duration;

use kf_derive::Info;
use kf_key::{KeyAlgorithm, KeyId, SecretArray};

use crate::{BackendError, Capabilities, GeneratedKeyPair, KeyBackend, KeyHandle, SignatureKey, TokenFault};

/// The most calls that wait. Hardware is one queue; whoever comes later is refused at once.
const MAX_WAITING: usize = 256;

/// A back end of which each call is answered within a limit, if only by [`TokenFault::Late`].
///
/// All calls run on one thread, in order. One that is late goes on there, because nothing can stop a call into a
/// module; its result is dropped (and a key in it wiped) without having been seen, and calls that gave up waiting before
/// their turn are never started. A key pair that was generated late is in the token under a label that is then taken:
/// the caller draws another identifier.
pub struct Deadline {
    inner: Arc<dyn KeyBackend>,
    worker: Arc<Worker>,
}

impl std::fmt::Debug for Deadline {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Deadline").field("limit", &self.worker.limit).finish_non_exhaustive()
    }
}

impl Deadline {
    /// Half a minute: key generation in a slow token takes seconds, and a person at a console gives up later.
    pub const LIMIT: Duration = Duration::from_secs(30);

    /// Puts `limit` on every call of `inner`.
    ///
    /// # Errors
    /// [`BackendError::Bug`] when the system gives no thread.
    pub fn new(inner: Arc<dyn KeyBackend>, limit: Duration) -> Result<Self, BackendError> {
        let (jobs, queue) = sync_channel(MAX_WAITING);
        thread::Builder::new()
            .name("key back end".to_owned())
            .spawn(move || work(&queue))
            .map_err(|_refused| BackendError::Bug("no thread for the key back end"))?;
        Ok(Self { inner, worker: Arc::new(Worker { jobs, limit }) })
    }

    fn ask<T: Send + 'static>(
        &self,
        call: impl FnOnce(&dyn KeyBackend) -> Result<T, BackendError> + Send + 'static,
    ) -> Result<T, BackendError> {
        let inner = Arc::clone(&self.inner);
        self.worker.run(move || call(&*inner))
    }
}

type Job = Box<dyn FnOnce() + Send>;

fn work(queue: &Receiver<Job>) {
    while let Ok(job) = queue.recv() {
        job();
    }
}

struct Worker {
    jobs: SyncSender<Job>,
    limit: Duration,
}

impl Worker {
    fn run<T: Send + 'static>(
        &self,
        call: impl FnOnce() -> Result<T, BackendError> + Send + 'static,
    ) -> Result<T, BackendError> {
        let late = || BackendError::Token(TokenFault::Late { seconds: self.limit.as_secs() });
        let (answer, answered) = sync_channel(1);
        let is_abandoned = Arc::new(AtomicBool::new(false));
        let abandon = Arc::clone(&is_abandoned);
        let job = Box::new(move || {
            if !is_abandoned.load(Ordering::Acquire) {
                // Nobody waits any more: the result is dropped here.
                drop(answer.send(call()));
            }
        });
        match self.jobs.try_send(job) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => return Err(late()),
            Err(TrySendError::Disconnected(_)) => return Err(BackendError::Bug("the back end's thread ended")),
        }
        match answered.recv_timeout(self.limit) {
            Ok(result) => result,
            Err(RecvTimeoutError::Timeout) => {
                abandon.store(true, Ordering::Release);
                Err(late())
            }
            Err(RecvTimeoutError::Disconnected) => Err(BackendError::Bug("the back end's thread ended")),
        }
    }
}

impl KeyBackend for Deadline {
    fn capabilities(&self) -> &Capabilities {
        self.inner.capabilities()
    }

    fn expand_root(&self, info: &Info) -> Result<SecretArray<32>, BackendError> {
        let info = info.clone();
        self.ask(move |inner| inner.expand_root(&info))
    }

    fn generate_key_pair(&self, key: KeyId, algorithm: KeyAlgorithm) -> Result<GeneratedKeyPair, BackendError> {
        self.ask(move |inner| inner.generate_key_pair(key, algorithm))
    }

    fn open_key(&self, key: KeyId, handle: &KeyHandle) -> Result<Box<dyn SignatureKey>, BackendError> {
        let handle = handle.clone();
        let opened = self.ask(move |inner| inner.open_key(key, &handle))?;
        let (algorithm, spki) = (opened.algorithm(), opened.spki().to_vec());
        let worker = Arc::clone(&self.worker);
        Ok(Box::new(LimitedKey { inner: Arc::from(opened), algorithm, spki, worker }))
    }

    fn destroy_key(&self, key: KeyId, handle: &KeyHandle) -> Result<(), BackendError> {
        let handle = handle.clone();
        self.ask(move |inner| inner.destroy_key(key, &handle))
    }

    fn health(&self) -> Result<(), BackendError> {
        self.ask(|inner| inner.health())
    }
}

struct LimitedKey {
    inner: Arc<dyn SignatureKey>,
    algorithm: KeyAlgorithm,
    spki: Vec<u8>,
    worker: Arc<Worker>,
}

impl SignatureKey for LimitedKey {
    fn algorithm(&self) -> KeyAlgorithm {
        self.algorithm
    }

    fn spki(&self) -> &[u8] {
        &self.spki
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, BackendError> {
        let (inner, message) = (Arc::clone(&self.inner), message.to_vec());
        self.worker.run(move || inner.sign(&message))
    }
}

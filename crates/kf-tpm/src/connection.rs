//! The way to one TPM: a thread that owns it, a queue of bounded length, and callers that wait no longer than they say.
//!
//! The calls of the software stack block without a limit. They run on a thread of their own, one at a time, because a
//! TPM does one thing at a time anyway; a caller that has waited long enough goes away with [`TpmError::Late`], and what
//! the TPM answers afterwards is wiped and thrown away. Until then further calls are refused at once.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use tss_esapi::Context;

use crate::live::Live;
use crate::{TpmAddress, TpmError};

/// How many calls may wait.
const QUEUE: usize = 16;

/// The longest wait for one call, unless told otherwise. Making a key takes a slow TPM some seconds.
pub const DEFAULT_DEADLINE: Duration = Duration::from_secs(20);

/// How long the last owner waits for the thread to let go of the TPM: whoever opens it next finds it free. A TPM that hangs keeps nobody.
const LET_GO: Duration = Duration::from_secs(2);

/// One TPM, shared by clones.
#[derive(Clone)]
pub struct Tpm {
    worker: Arc<Handle>,
    is_late: Arc<AtomicBool>,
    deadline: Duration,
    address: TpmAddress,
}

impl std::fmt::Debug for Tpm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tpm").field("address", &self.address.to_string()).finish_non_exhaustive()
    }
}

/// The thread, as its callers see it.
struct Handle {
    /// Present until the last owner is gone.
    queue: Option<SyncSender<Job>>,
    /// Disconnected once the thread has let go of the TPM.
    ended: Mutex<Receiver<()>>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        drop(self.queue.take());
        let ended = self.ended.get_mut().unwrap_or_else(PoisonError::into_inner);
        let _let_go_or_late = ended.recv_timeout(LET_GO);
    }
}

struct Job {
    give_up_at: Instant,
    /// Runs on the thread that owns the TPM. It answers its caller itself; returns whether the connection still serves.
    work: Box<dyn FnMut(&mut Worker) + Send>,
}

/// What the thread owns.
struct Worker {
    address: TpmAddress,
    live: Option<Live>,
}

impl Tpm {
    /// Opens the TPM.
    ///
    /// # Errors
    /// [`TpmError::Unreachable`], [`TpmError::Late`].
    pub fn open(address: TpmAddress, deadline: Duration) -> Result<Self, TpmError> {
        let (queue, jobs) = sync_channel(QUEUE);
        let is_late = Arc::new(AtomicBool::new(false));
        let worker = Worker { address: address.clone(), live: None };
        let seen = Arc::clone(&is_late);
        let (ends, ended) = sync_channel(0);
        thread::Builder::new()
            .name("tpm".to_owned())
            .spawn(move || {
                worker.serve(&jobs, &seen);
                drop(ends);
            })
            .map_err(|_no_thread| TpmError::Bug("no thread"))?;
        let worker = Arc::new(Handle { queue: Some(queue), ended: Mutex::new(ended) });
        let this = Self { worker, is_late, deadline, address };
        this.call(|live| live.storage_key().map(drop))?;
        Ok(this)
    }

    /// The same TPM, for a caller that waits for its answers this long.
    #[must_use]
    pub fn with_deadline(&self, deadline: Duration) -> Self {
        Self { deadline, ..self.clone() }
    }

    /// Where it is.
    #[must_use]
    pub const fn address(&self) -> &TpmAddress {
        &self.address
    }

    /// Runs `work` with the TPM. Whatever `work` does must bear being done twice: when a connection that was good at
    /// the last call turns out to be dead, a new one is made and the work done again.
    ///
    /// # Errors
    /// [`TpmError::Late`] and [`TpmError::Busy`], or whatever the work reports.
    pub(crate) fn call<T: Send + 'static>(
        &self,
        work: impl Fn(&mut Live) -> Result<T, TpmError> + Send + 'static,
    ) -> Result<T, TpmError> {
        if self.is_late.load(Ordering::Acquire) {
            return Err(TpmError::Busy);
        }
        let (answer, answered) = sync_channel(1);
        let give_up_at = Instant::now().checked_add(self.deadline).ok_or(TpmError::Bug("deadline"))?;
        let work = Box::new(move |worker: &mut Worker| {
            // A caller that is gone gets nothing: the answer is dropped, and wiped when it is a secret.
            drop(answer.try_send(worker.run(&work)));
        });
        let queue = self.worker.queue.as_ref().ok_or(TpmError::Bug("the TPM's queue is closed"))?;
        queue.try_send(Job { give_up_at, work }).map_err(|error| match error {
            TrySendError::Full(_) => TpmError::Busy,
            TrySendError::Disconnected(_) => TpmError::Bug("the TPM's thread ended"),
        })?;
        match answered.recv_timeout(self.deadline) {
            Ok(outcome) => outcome,
            Err(RecvTimeoutError::Timeout) => {
                // Unless the answer came just now: then nothing is under way that would take the mark away again.
                if answered.try_recv().is_err() {
                    self.is_late.store(true, Ordering::Release);
                    if matches!(answered.try_recv(), Ok(_) | Err(TryRecvError::Disconnected)) {
                        self.is_late.store(false, Ordering::Release);
                    }
                }
                Err(TpmError::Late { millis: u64::try_from(self.deadline.as_millis()).unwrap_or(u64::MAX) })
            }
            // The thread skips what nobody waits for.
            Err(RecvTimeoutError::Disconnected) => Err(TpmError::Busy),
        }
    }
}

impl Worker {
    fn serve(mut self, jobs: &Receiver<Job>, is_late: &AtomicBool) {
        while let Ok(mut job) = jobs.recv() {
            if Instant::now() < job.give_up_at {
                (job.work)(&mut self);
            }
            drop(job);
            is_late.store(false, Ordering::Release);
        }
    }

    fn run<T>(&mut self, work: &impl Fn(&mut Live) -> Result<T, TpmError>) -> Result<T, TpmError> {
        let was_open = self.live.is_some();
        let outcome = self.attempt(work);
        match outcome {
            // Another TPM may stand there by now, or none: then the first error says more.
            Err(TpmError::Vanished { .. }) if was_open => match self.attempt(work) {
                Err(TpmError::Unreachable { .. }) => outcome,
                again => again,
            },
            outcome => outcome,
        }
    }

    fn attempt<T>(&mut self, work: &impl Fn(&mut Live) -> Result<T, TpmError>) -> Result<T, TpmError> {
        let mut live = match self.live.take() {
            Some(live) => live,
            None => self.connect()?,
        };
        let outcome = work(&mut live);
        // After an error that we do not understand nothing is assumed about what is loaded: a new connection is.
        let is_broken = outcome.as_ref().is_err_and(TpmError::breaks_connection);
        if !is_broken && live.flush_call().is_ok() {
            self.live = Some(live);
        }
        outcome
    }

    fn connect(&self) -> Result<Live, TpmError> {
        let context = Context::new(self.address.conf()).map_err(|error| TpmError::Unreachable {
            address: self.address.to_string(),
            code: crate::error::response_code(error),
        })?;
        Live::new(context, !self.address.is_managed()).map_err(|error| match error {
            TpmError::Vanished { code, .. } => TpmError::Unreachable { address: self.address.to_string(), code },
            other => other,
        })
    }
}

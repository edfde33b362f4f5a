//! Deadlines of a connection's octets. hyper has one timer for "waiting for the next request" and "reading its head";
//! here they differ: an idle client may keep its connection for a minute, one that has begun a request must end its head
//! within seconds, and one that does not take its answer is cut.

use std::future::Future as _;
use std::io::{Error, ErrorKind, IoSlice, Result};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

use crate::limits::Limits;

/// What a connection is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Between requests.
    Idle,
    /// In a request's head.
    Head,
    /// From the end of the head to the answer; the body has its own deadline.
    Busy,
}

/// The phase of a connection, shared between its stream and its service: the low two bits; a count of changes above
/// them, so that a phase left and entered again is seen as new.
#[derive(Debug)]
pub(crate) struct Pace(AtomicU64);

impl Pace {
    /// A connection that has just been opened owes its first request.
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self(AtomicU64::new(1)))
    }

    /// A request's head is complete.
    pub(crate) fn request_begins(&self) {
        self.enter(2);
    }

    /// The answer is made.
    pub(crate) fn request_ends(&self) {
        self.enter(0);
    }

    /// Whether a request is being answered.
    pub(crate) fn is_busy(&self) -> bool {
        self.load().1 == Phase::Busy
    }

    fn enter(&self, bits: u64) {
        let changes = self.0.load(Ordering::Acquire) >> 2;
        self.0.store((changes.wrapping_add(1) << 2) | bits, Ordering::Release);
    }

    fn load(&self) -> (u64, Phase) {
        let value = self.0.load(Ordering::Acquire);
        let phase = match value & 0b11 {
            0 => Phase::Idle,
            1 => Phase::Head,
            _ => Phase::Busy,
        };
        (value, phase)
    }
}

/// A stream whose reads and writes have deadlines.
#[derive(Debug)]
pub(crate) struct Paced<S> {
    stream: S,
    pace: Arc<Pace>,
    seen: u64,
    read_deadline: Instant,
    /// Wakes the read by its deadline at the latest; earlier, it is set anew. It is never set further ahead than the
    /// shortest deadline, so that a deadline moved nearer needs no touch of the timer, which each request would pay for.
    alarm: Pin<Box<Sleep>>,
    stalled: Option<Pin<Box<Sleep>>>,
    limits: Limits,
}

impl<S> Paced<S> {
    pub(crate) fn new(stream: S, pace: Arc<Pace>, limits: Limits) -> Self {
        let (seen, _) = pace.load();
        let read_deadline = Instant::now() + limits.head;
        let alarm = Box::pin(tokio::time::sleep(limits.head.min(limits.idle)));
        Self { stream, pace, seen, read_deadline, alarm, stalled: None, limits }
    }

    fn arm(&mut self, after: Duration) {
        self.read_deadline = Instant::now() + after;
    }

    /// Ready once the deadline of the read is over.
    fn poll_read_deadline(&mut self, context: &mut Context<'_>) -> Poll<()> {
        loop {
            ready!(self.alarm.as_mut().poll(context));
            let now = Instant::now();
            if now >= self.read_deadline {
                return Poll::Ready(());
            }
            let soonest = now + self.limits.head.min(self.limits.idle);
            self.alarm.as_mut().reset(self.read_deadline.min(soonest));
        }
    }

    /// Notices a change of phase made by the service.
    fn phase(&mut self) -> Phase {
        let (value, phase) = self.pace.load();
        if value != self.seen {
            self.seen = value;
            match phase {
                Phase::Idle => self.arm(self.limits.idle),
                Phase::Head => self.arm(self.limits.head),
                Phase::Busy => {}
            }
        }
        phase
    }

    /// Passes a write's result on, unless nothing has moved for too long.
    fn unless_stalled<T>(&mut self, context: &mut Context<'_>, result: Poll<Result<T>>) -> Poll<Result<T>> {
        if result.is_ready() {
            self.stalled = None;
            // Octets that leave are a sign of life: a long download is not an idle connection.
            if self.pace.load().1 == Phase::Idle {
                self.arm(self.limits.idle);
            }
            return result;
        }
        let limit = self.limits.stalled_write;
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
        ready!(stalled.as_mut().poll(context));
        Poll::Ready(Err(Error::new(ErrorKind::TimedOut, "the client does not take its answer")))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Paced<S> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<Result<()>> {
        let this = self.get_mut();
        let phase = this.phase();
        let before = buffer.filled().len();
        if let Poll::Ready(result) = Pin::new(&mut this.stream).poll_read(context, buffer) {
            if phase == Phase::Idle && buffer.filled().len() > before {
                this.pace.enter(1);
                this.phase();
            }
            return Poll::Ready(result);
        }
        if phase == Phase::Busy {
            return Poll::Pending;
        }
        ready!(this.poll_read_deadline(context));
        Poll::Ready(Err(Error::new(ErrorKind::TimedOut, "the client is too slow")))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Paced<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, octets: &[u8]) -> Poll<Result<usize>> {
        let this = self.get_mut();
        let result = Pin::new(&mut this.stream).poll_write(context, octets);
        this.unless_stalled(context, result)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<Result<usize>> {
        let this = self.get_mut();
        let result = Pin::new(&mut this.stream).poll_write_vectored(context, slices);
        this.unless_stalled(context, result)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        let this = self.get_mut();
        let result = Pin::new(&mut this.stream).poll_flush(context);
        this.unless_stalled(context, result)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        let this = self.get_mut();
        let result = Pin::new(&mut this.stream).poll_shutdown(context);
        this.unless_stalled(context, result)
    }
}

#[cfg(test)]
mod tests;

//! What is published next: the counter, or what others handed over, sealed.

use std::sync::Arc;

use tokio::sync::watch;
use tokio::time::Interval;

use super::message;
use crate::event::{Event, EventSink};
use crate::key_ring::{Envelope, KeyRing, NotSealed, Sealing};
use crate::message_queue::MessageQueue;

/// What is published next.
pub(crate) enum Outbox {
    Counter(CounterOutbox),
    Sealed(Box<SealedOutbox>),
}

/// A number that goes up with each message that was acknowledged.
pub(crate) struct CounterOutbox {
    pub(crate) device_name: String,
    pub(crate) acknowledged: u64,
    pub(crate) interval: Interval,
}

/// Messages from the queue, sealed when they are about to leave: one that waited for a year leaves under the key of today.
pub(crate) struct SealedOutbox {
    queue: Arc<MessageQueue>,
    ring: KeyRing,
    wanted: Sealing,
    generation: watch::Receiver<u64>,
    /// Taken from the queue and not acknowledged yet.
    pending: Option<Vec<u8>>,
    /// The same, sealed: sent again as it is, so that the receiver can tell a repetition.
    envelope: Option<Envelope>,
    count: u64,
}

impl SealedOutbox {
    pub(crate) fn new(queue: Arc<MessageQueue>, ring: KeyRing, wanted: Sealing) -> Self {
        let generation = ring.generation();
        Self { queue, ring, wanted, generation, pending: None, envelope: None, count: 0 }
    }

    async fn next(&mut self, events: &EventSink) -> Vec<u8> {
        loop {
            let plaintext = match self.pending.take() {
                Some(plaintext) => plaintext,
                None => self.queue.take().await,
            };
            // Put back before anything is awaited: a session that ends here loses no message.
            let plaintext = self.pending.insert(plaintext).clone();
            if self.generation.has_changed().unwrap_or(false) {
                self.generation.mark_unchanged();
                self.envelope = None;
            }
            if let Some(envelope) = &self.envelope {
                return envelope.octets.clone();
            }
            match self.ring.seal(self.wanted, &plaintext) {
                Ok(Some(envelope)) => return self.envelope.insert(envelope).octets.clone(),
                Err(NotSealed::Message(error)) => {
                    events.tell(&Event::MessageRefused { reason: error.to_string() });
                    self.pending = None;
                    continue;
                }
                Err(NotSealed::Key(error)) => {
                    events.tell(&Event::MessageRefused { reason: crate::failure::chain_of(&error) });
                }
                Ok(None) => {}
            }
            // No key yet, or no session: it comes, or the agent ends.
            if self.generation.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    fn acknowledged(&mut self, events: &EventSink) {
        let boot = self.envelope.take().map(|envelope| envelope.boot).unwrap_or_default();
        self.pending = None;
        self.count = self.count.saturating_add(1);
        events.tell(&Event::SealedPublished { boot, count: self.count });
        let messages = self.queue.dropped();
        if messages > 0 {
            events.tell(&Event::Dropped { messages });
        }
    }
}

impl Outbox {
    /// The next message, waiting for one. The same again, as long as it was not acknowledged.
    pub(super) async fn next(&mut self, events: &EventSink) -> Vec<u8> {
        match self {
            Self::Counter(counter) => {
                counter.interval.tick().await;
                message(&counter.device_name, counter.acknowledged.saturating_add(1)).into_bytes()
            }
            Self::Sealed(sealed) => sealed.next(events).await,
        }
    }

    /// What [`Outbox::next`] gave has arrived at the broker.
    pub(super) fn acknowledged(&mut self, events: &EventSink) {
        match self {
            Self::Counter(counter) => {
                counter.acknowledged = counter.acknowledged.saturating_add(1);
                events.tell(&Event::Published { counter: counter.acknowledged });
            }
            Self::Sealed(sealed) => sealed.acknowledged(events),
        }
    }
}

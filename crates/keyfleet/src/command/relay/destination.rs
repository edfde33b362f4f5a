//! The publishing session.

use std::cell::RefCell;

use kf_mqtt::{Client, Event, EventLoop, Packet, QoS, RequestError};
use tokio::sync::watch;

use super::totals::Totals;
use super::{FIRST_REST, LONGEST_REST};
use crate::failure::chain_of;
use crate::output::say;

/// A plain message.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) topic: String,
    pub(super) payload: Vec<u8>,
}

/// How the session stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Standing {
    /// Counts sessions, from 1.
    session: u64,
    is_up: bool,
    /// Acknowledgements in this session.
    acknowledged: usize,
}

/// Publishes to the broker of the plain topics.
#[derive(Debug)]
pub(super) struct Destination {
    standing: watch::Sender<Standing>,
}

impl Destination {
    pub(super) fn new() -> Self {
        Self { standing: watch::Sender::new(Standing::default()) }
    }

    /// Keeps a session, for ever.
    pub(super) async fn keep(&self, mut events: EventLoop) {
        let mut rest = FIRST_REST;
        loop {
            match events.poll().await {
                Ok(Event::Incoming(Packet::ConnAck(_))) => {
                    rest = FIRST_REST;
                    self.standing.send_modify(|standing| {
                        *standing = Standing { session: standing.session + 1, is_up: true, acknowledged: 0 };
                    });
                    say("publishing");
                }
                Ok(Event::Incoming(Packet::PubAck(_))) => {
                    self.standing.send_modify(|standing| standing.acknowledged += 1);
                }
                Ok(_) => {}
                Err(error) => {
                    self.standing.send_modify(|standing| standing.is_up = false);
                    say(&format!("nothing is published, again in {} ms: {}", rest.as_millis(), chain_of(&error)));
                    tokio::time::sleep(rest).await;
                    rest = (rest * 2).min(LONGEST_REST);
                }
            }
        }
    }

    /// Publishes until all are acknowledged: what a session did not acknowledge, the next one gets again. A broker
    /// acknowledges in order (MQTT 3.1.1 section 4.6).
    pub(super) async fn publish(&self, client: &Client, messages: &[Message], totals: &RefCell<Totals>) {
        let mut standing = self.standing.subscribe();
        let mut left = messages;
        while !left.is_empty() {
            let Ok(start) = standing.wait_for(|standing| standing.is_up).await.map(|standing| *standing) else {
                return;
            };
            let mut sent = 0;
            for message in left {
                match client.publish(&message.topic, QoS::AtLeastOnce, message.payload.as_slice()).await {
                    Ok(()) => sent += 1,
                    Err(RequestError::Ended) => return,
                    Err(error) => {
                        say(&format!("dropped: {error}"));
                        break;
                    }
                }
            }
            let wanted = start.acknowledged + sent;
            let over = |standing: &Standing| !standing.is_up || standing.session != start.session;
            let done = |standing: &Standing| over(standing) || standing.acknowledged >= wanted;
            let Ok(end) = standing.wait_for(done).await.map(|standing| *standing) else { return };
            // Of a session that a later one has taken the place of, nothing is known.
            let taken =
                if end.session == start.session { end.acknowledged.min(wanted) - start.acknowledged } else { 0 };
            // A message that no session takes is left out, or it would keep back all others.
            let skipped = usize::from(!over(&end) && sent < left.len());
            let mut totals = totals.borrow_mut();
            totals.relayed += u64::try_from(taken).unwrap_or(u64::MAX);
            totals.dropped += u64::try_from(skipped).unwrap_or(u64::MAX);
            left = left.get(taken + skipped..).unwrap_or_default();
        }
    }
}

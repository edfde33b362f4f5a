//! The receiving session.

use std::cell::RefCell;

use kf_mqtt::{Client, Event, EventLoop, Packet, QoS, SubscribeReasonCode};
use tokio::sync::mpsc;

use super::totals::Totals;
use super::{FIRST_REST, LONGEST_REST};
use crate::failure::{Failure, chain_of};
use crate::output::say;

/// A message that came.
#[derive(Debug)]
pub(super) struct Received {
    pub(super) topic: String,
    pub(super) payload: Vec<u8>,
}

/// Receives from the broker of the sealed topics.
pub(super) struct Source<'a> {
    pub(super) client: Client,
    pub(super) events: EventLoop,
    pub(super) filters: &'a [String],
    pub(super) queue: mpsc::Sender<Received>,
    pub(super) totals: &'a RefCell<Totals>,
}

impl Source<'_> {
    /// Goes on for ever, over any number of sessions; ends with what only a person can mend.
    pub(super) async fn receive(mut self) -> Failure {
        let mut rest = FIRST_REST;
        loop {
            match self.events.poll().await {
                Ok(Event::Incoming(Packet::ConnAck(_))) => {
                    let filters: Vec<&str> = self.filters.iter().map(String::as_str).collect();
                    if let Err(error) = self.client.try_subscribe_many(&filters, QoS::AtLeastOnce) {
                        return Failure::usage(
                            format!("--from: {error}"),
                            "give filters of MQTT, for example sealed/#",
                        );
                    }
                }
                Ok(Event::Incoming(Packet::SubAck(answer))) => {
                    if answer.return_codes.contains(&SubscribeReasonCode::Failure) {
                        return Failure::local(
                            "the broker does not let the relay read the sealed topics",
                            "give the name of the relay's certificate the right to subscribe to --from",
                        );
                    }
                    rest = FIRST_REST;
                    say("receiving");
                }
                Ok(Event::Incoming(Packet::Publish(message))) => {
                    self.totals.borrow_mut().received += 1;
                    let received = Received { topic: message.topic, payload: message.payload.to_vec() };
                    if self.queue.try_send(received).is_err() {
                        self.totals.borrow_mut().dropped += 1;
                    }
                }
                Ok(_) => {}
                Err(error) => {
                    say(&format!("nothing is received, again in {} ms: {}", rest.as_millis(), chain_of(&error)));
                    tokio::time::sleep(rest).await;
                    rest = (rest * 2).min(LONGEST_REST);
                }
            }
        }
    }
}

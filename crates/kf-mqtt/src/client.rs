//! Asking an event loop to send something.

use std::sync::Arc;
use std::time::Duration;

use rumqttc::mqttbytes::{self, v4};
use rustls::ClientConfig;
use tokio::sync::mpsc;

use crate::event_loop::EventLoop;

/// The most octets of a string of MQTT (section 1.5.3).
pub(crate) const MAX_STRING_OCTETS: usize = 65_535;

/// Where to connect, and as whom.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The client identifier (section 3.1.3.1), at most 65,535 octets.
    pub client_id: String,
    /// DNS name or IP address of the broker; its certificate must name it.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// How long without a ping; whole seconds, from 1 to 65,535.
    pub keep_alive: Duration,
    /// The most octets of a packet that is sent, and of what follows the fixed header of one that is received.
    pub max_packet_octets: usize,
    /// Whom to believe, and the client's certificate.
    pub tls: Arc<ClientConfig>,
}

/// How surely a message arrives (section 4.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QoS {
    /// Sent, not acknowledged.
    AtMostOnce,
    /// Acknowledged by PUBACK.
    AtLeastOnce,
}

/// A request that is not queued.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// Section 4.7: a topic has from 1 to 65,535 octets, no NUL, and wildcards only where a filter may have them.
    #[error("not a valid topic or filter: {topic:?}")]
    Topic {
        /// Its beginning.
        topic: String,
    },
    /// SUBSCRIBE needs a filter (MQTT-3.8.3-3).
    #[error("a subscription needs at least one filter")]
    NoFilter,
    /// More than `max_packet_octets` of the settings.
    #[error("a packet of {octets} octets: at most {limit_octets} are sent")]
    TooLarge {
        /// Its size.
        octets: usize,
        /// The most.
        limit_octets: usize,
    },
    /// Too many requests wait already.
    #[error("too many requests wait to be sent: try again")]
    Full,
    /// Nobody polls it any longer.
    #[error("the event loop has ended")]
    Ended,
}

#[derive(Debug)]
pub(crate) enum Request {
    Publish(v4::Publish),
    Subscribe(v4::Subscribe),
    Disconnect,
}

/// Queues requests for its event loop; clones share the queue.
#[derive(Clone, Debug)]
pub struct Client {
    requests: mpsc::Sender<Request>,
    max_packet_octets: usize,
}

/// A client and its event loop; at most `max_waiting` requests wait between them.
#[must_use]
pub fn open(settings: Settings, max_waiting: usize) -> (Client, EventLoop) {
    let (client, requests) = Client::with_queue(max_waiting, settings.max_packet_octets);
    (client, EventLoop::new(settings, requests))
}

impl Client {
    pub(crate) fn with_queue(max_waiting: usize, max_packet_octets: usize) -> (Self, mpsc::Receiver<Request>) {
        let (sender, receiver) = mpsc::channel(max_waiting.max(1));
        (Self { requests: sender, max_packet_octets }, receiver)
    }

    /// Queues a message, waiting for room. With [`QoS::AtLeastOnce`] a PUBACK tells that it arrived.
    ///
    /// # Errors
    /// [`RequestError`].
    pub async fn publish(&self, topic: &str, qos: QoS, payload: impl Into<Vec<u8>>) -> Result<(), RequestError> {
        let topic_fits = is_string(topic) && mqttbytes::valid_topic(topic);
        topic_fits.then_some(()).ok_or_else(|| topic_error(topic))?;
        let mut publish = v4::Publish::new(topic, qos.into(), payload);
        // The session gives it another identifier; its octets count already.
        publish.pkid = u16::from(qos == QoS::AtLeastOnce);
        self.check_size(publish.size())?;
        self.queue(Request::Publish(publish)).await
    }

    /// Queues a subscription to one filter, waiting for room. A SUBACK tells whether it was granted.
    ///
    /// # Errors
    /// [`RequestError`].
    pub async fn subscribe(&self, filter: &str, qos: QoS) -> Result<(), RequestError> {
        let request = self.subscription(&[filter], qos)?;
        self.queue(request).await
    }

    /// Queues one subscription to several filters, without waiting, so that the task that polls may call it.
    ///
    /// # Errors
    /// [`RequestError`].
    pub fn try_subscribe_many(&self, filters: &[&str], qos: QoS) -> Result<(), RequestError> {
        self.requests.try_send(self.subscription(filters, qos)?).map_err(|refused| match refused {
            mpsc::error::TrySendError::Full(_) => RequestError::Full,
            mpsc::error::TrySendError::Closed(_) => RequestError::Ended,
        })
    }

    /// Queues the end of the session; [`crate::Event::Disconnected`] tells that it was sent.
    ///
    /// # Errors
    /// [`RequestError::Ended`].
    pub async fn disconnect(&self) -> Result<(), RequestError> {
        self.queue(Request::Disconnect).await
    }

    fn subscription(&self, filters: &[&str], qos: QoS) -> Result<Request, RequestError> {
        if filters.is_empty() {
            return Err(RequestError::NoFilter);
        }
        if let Some(refused) = filters.iter().find(|filter| !is_string(filter) || !mqttbytes::valid_filter(filter)) {
            return Err(topic_error(refused));
        }
        let filters = filters.iter().map(|filter| v4::SubscribeFilter::new((*filter).to_owned(), qos.into()));
        let subscribe = v4::Subscribe::new_many(filters);
        self.check_size(subscribe.size())?;
        Ok(Request::Subscribe(subscribe))
    }

    fn check_size(&self, octets: usize) -> Result<(), RequestError> {
        if octets > self.max_packet_octets {
            return Err(RequestError::TooLarge { octets, limit_octets: self.max_packet_octets });
        }
        Ok(())
    }

    async fn queue(&self, request: Request) -> Result<(), RequestError> {
        self.requests.send(request).await.map_err(|_closed| RequestError::Ended)
    }
}

/// Sections 1.5.3 and 4.7.3.
fn is_string(topic: &str) -> bool {
    (1..=MAX_STRING_OCTETS).contains(&topic.len()) && !topic.contains('\0')
}

fn topic_error(topic: &str) -> RequestError {
    RequestError::Topic { topic: topic.chars().take(80).collect() }
}

impl From<QoS> for mqttbytes::QoS {
    fn from(qos: QoS) -> Self {
        match qos {
            QoS::AtMostOnce => Self::AtMostOnce,
            QoS::AtLeastOnce => Self::AtLeastOnce,
        }
    }
}

//! One session over a stream, from CONNECT to its end.

use std::collections::BTreeSet;
use std::io;
use std::time::Duration;

use bytes::BytesMut;
use rumqttc::mqttbytes::v4::{ConnAck, Connect, ConnectReturnCode, Packet, PubAck};
use rumqttc::mqttbytes::{Error as CodecError, QoS};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadHalf, WriteHalf};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use crate::client::{MAX_STRING_OCTETS, Request, Settings};
use crate::error::MqttError;
use crate::event_loop::Event;

/// How long the answer to a ping may take, if `keep_alive` is not shorter, and the sending of DISCONNECT.
const ANSWER_DEADLINE: Duration = Duration::from_secs(10);
/// How long the end of TLS may take once DISCONNECT was sent.
const SHUTDOWN_DEADLINE: Duration = Duration::from_secs(1);
/// The most packets that await an acknowledgement; further requests wait.
const MAX_IN_FLIGHT: usize = 64;
/// While so many octets wait to be sent, nothing is read: a broker that does not read is not answered either.
const MAX_UNSENT_OCTETS: usize = 64 * 1024;
/// Room for one read.
const READ_OCTETS: usize = 4 * 1024;

/// What the session's timer is set for.
#[derive(Debug, PartialEq, Eq)]
enum Pulse {
    /// The next PINGREQ.
    Rest,
    /// The last moment for PINGRESP.
    PingSent,
    /// The last moment for DISCONNECT to leave.
    Leaving,
}

/// What one wait has brought.
enum Step {
    Sent(io::Result<()>),
    Read(io::Result<usize>),
    Asked(Request),
    Due,
}

/// A session; dropping it closes the connection.
pub(crate) struct Session<S> {
    reader: ReadHalf<S>,
    writer: WriteHalf<S>,
    received: BytesMut,
    unsent: BytesMut,
    is_flushed: bool,
    max_packet_octets: usize,
    in_flight: BTreeSet<u16>,
    last_identifier: u16,
    keep_alive: Duration,
    pulse: Pulse,
    due: Instant,
}

impl<S: AsyncRead + AsyncWrite> Session<S> {
    /// Sends CONNECT and waits for CONNACK; the caller sets the deadline.
    pub(crate) async fn open(stream: S, settings: &Settings) -> Result<(Self, ConnAck), MqttError> {
        if settings.client_id.len() > MAX_STRING_OCTETS {
            return Err(MqttError::ClientId { limit_octets: MAX_STRING_OCTETS });
        }
        let keep_alive_seconds = u16::try_from(settings.keep_alive.as_secs()).unwrap_or(u16::MAX).max(1);
        let keep_alive = Duration::from_secs(keep_alive_seconds.into());
        let (reader, writer) = tokio::io::split(stream);
        let mut session = Self {
            reader,
            writer,
            received: BytesMut::new(),
            unsent: BytesMut::new(),
            is_flushed: true,
            max_packet_octets: settings.max_packet_octets,
            in_flight: BTreeSet::new(),
            last_identifier: 0,
            keep_alive,
            pulse: Pulse::Rest,
            due: Instant::now() + keep_alive,
        };
        let mut connect = Connect::new(settings.client_id.clone());
        connect.keep_alive = keep_alive_seconds;
        session.put(&Packet::Connect(connect))?;
        // A broker that has refused the certificate may be gone already. Why it went shows when reading.
        let sent = send(&mut session.writer, &mut session.unsent).await;
        session.is_flushed = sent.is_ok();
        match session.first_packet().await? {
            Packet::ConnAck(answer) if answer.code == ConnectReturnCode::Success => {
                sent.map_err(|source| MqttError::transport(source, false))?;
                session.due = Instant::now() + keep_alive;
                Ok((session, answer))
            }
            Packet::ConnAck(answer) => Err(MqttError::Refused { code: answer.code }),
            packet => Err(MqttError::Unexpected { packet: name_of(&packet) }),
        }
    }

    async fn first_packet(&mut self) -> Result<Packet, MqttError> {
        loop {
            if let Some(packet) = self.take()? {
                return Ok(packet);
            }
            let read = read(&mut self.reader, &mut self.received).await;
            read.map_err(|source| MqttError::transport(source, false))?;
        }
    }

    /// Goes on until there is something to tell. Safe to cancel: what was read, taken from the queue or partly sent is
    /// kept in `self`.
    pub(crate) async fn next(&mut self, requests: &mut mpsc::Receiver<Request>) -> Result<Event, MqttError> {
        loop {
            if let Some(packet) = self.take()? {
                self.acknowledge(&packet)?;
                return Ok(Event::Incoming(packet));
            }
            if self.pulse == Pulse::Leaving && self.is_flushed {
                // DISCONNECT has left; whether the end of TLS does changes nothing.
                let _outcome = tokio::time::timeout(SHUTDOWN_DEADLINE, self.writer.shutdown()).await;
                return Ok(Event::Disconnected);
            }
            if self.pulse == Pulse::Rest && Instant::now() >= self.due {
                self.put(&Packet::PingReq)?;
                self.set_pulse(Pulse::PingSent);
            }
            match self.step(requests).await {
                Step::Sent(outcome) => {
                    outcome.map_err(|source| MqttError::transport(source, true))?;
                    self.is_flushed = true;
                }
                Step::Read(outcome) => {
                    outcome.map_err(|source| MqttError::transport(source, true))?;
                }
                Step::Asked(request) => self.ask(request)?,
                Step::Due => match self.pulse {
                    Pulse::Rest => {}
                    Pulse::PingSent => return Err(MqttError::PingUnanswered),
                    Pulse::Leaving => return Err(MqttError::Timeout { step: "DISCONNECT" }),
                },
            }
        }
    }

    async fn step(&mut self, requests: &mut mpsc::Receiver<Request>) -> Step {
        let stays = self.pulse != Pulse::Leaving;
        let may_read = stays && self.unsent.len() < MAX_UNSENT_OCTETS;
        let may_ask = stays && self.is_flushed && self.in_flight.len() < MAX_IN_FLIGHT;
        let due = self.due;
        let Self { reader, writer, received, unsent, is_flushed, .. } = self;
        // No order among these: none of them starves another.
        let traffic = async {
            tokio::select! {
                outcome = send(writer, unsent), if !*is_flushed => Step::Sent(outcome),
                outcome = read(reader, received), if may_read => Step::Read(outcome),
                Some(request) = requests.recv(), if may_ask => Step::Asked(request),
                else => std::future::pending().await,
            }
        };
        // In this order: an answer that is there already counts, however late it is asked for.
        tokio::select! {
            biased;
            step = traffic => step,
            () = sleep_until(due) => Step::Due,
        }
    }

    fn ask(&mut self, request: Request) -> Result<(), MqttError> {
        match request {
            Request::Publish(mut publish) => {
                if publish.qos != QoS::AtMostOnce {
                    publish.pkid = self.identifier();
                }
                self.put(&Packet::Publish(publish))
            }
            Request::Subscribe(mut subscribe) => {
                subscribe.pkid = self.identifier();
                self.put(&Packet::Subscribe(subscribe))
            }
            Request::Disconnect => {
                self.set_pulse(Pulse::Leaving);
                self.put(&Packet::Disconnect)
            }
        }
    }

    /// An identifier that nothing in flight has, never 0 (MQTT-2.3.1-1); found at the latest after [`MAX_IN_FLIGHT`].
    fn identifier(&mut self) -> u16 {
        loop {
            self.last_identifier = self.last_identifier.checked_add(1).unwrap_or(1);
            if self.in_flight.insert(self.last_identifier) {
                return self.last_identifier;
            }
        }
    }

    /// What a packet changes here.
    fn acknowledge(&mut self, packet: &Packet) -> Result<(), MqttError> {
        let awaited = match packet {
            Packet::Publish(publish) => {
                return match publish.qos {
                    QoS::AtMostOnce => Ok(()),
                    QoS::AtLeastOnce => self.put(&Packet::PubAck(PubAck::new(publish.pkid))),
                    // No subscription of ours asks for it (MQTT-3.8.4-6).
                    QoS::ExactlyOnce => Err(MqttError::Unexpected { packet: "PUBLISH with QoS 2" }),
                };
            }
            Packet::PubAck(answer) => self.in_flight.remove(&answer.pkid),
            Packet::SubAck(answer) => self.in_flight.remove(&answer.pkid),
            Packet::PingResp if self.pulse == Pulse::PingSent => {
                self.set_pulse(Pulse::Rest);
                true
            }
            // It may come after we asked to leave.
            Packet::PingResp => self.pulse == Pulse::Leaving,
            _ => false,
        };
        if awaited { Ok(()) } else { Err(MqttError::Unexpected { packet: name_of(packet) }) }
    }

    fn set_pulse(&mut self, pulse: Pulse) {
        let wait = match pulse {
            Pulse::Rest => self.keep_alive,
            Pulse::PingSent => ANSWER_DEADLINE.min(self.keep_alive),
            Pulse::Leaving => ANSWER_DEADLINE,
        };
        self.due = Instant::now() + wait;
        self.pulse = pulse;
    }

    fn put(&mut self, packet: &Packet) -> Result<(), MqttError> {
        self.is_flushed = false;
        // Requests are measured when they are queued; what else is sent is smaller than any sensible limit.
        packet.write(&mut self.unsent, usize::MAX).map_err(MqttError::Malformed)?;
        Ok(())
    }

    fn take(&mut self) -> Result<Option<Packet>, MqttError> {
        match Packet::read(&mut self.received, self.max_packet_octets) {
            Ok(packet) => Ok(Some(packet)),
            Err(CodecError::InsufficientBytes(_)) => Ok(None),
            Err(error) => Err(MqttError::malformed(error, self.max_packet_octets)),
        }
    }
}

/// Sends and flushes; what is not yet sent stays in `unsent`.
async fn send(writer: &mut (impl AsyncWrite + Unpin), unsent: &mut BytesMut) -> io::Result<()> {
    while !unsent.is_empty() {
        if writer.write_buf(unsent).await? == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
    }
    writer.flush().await
}

/// Reads some octets behind those that are there.
async fn read(reader: &mut (impl AsyncRead + Unpin), received: &mut BytesMut) -> io::Result<usize> {
    received.reserve(READ_OCTETS);
    match reader.read_buf(received).await? {
        0 => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "end of the stream")),
        octets => Ok(octets),
    }
}

const fn name_of(packet: &Packet) -> &'static str {
    match packet {
        Packet::Connect(_) => "CONNECT",
        Packet::ConnAck(_) => "CONNACK",
        Packet::Publish(_) => "PUBLISH",
        Packet::PubAck(_) => "PUBACK",
        Packet::PubRec(_) => "PUBREC",
        Packet::PubRel(_) => "PUBREL",
        Packet::PubComp(_) => "PUBCOMP",
        Packet::Subscribe(_) => "SUBSCRIBE",
        Packet::SubAck(_) => "SUBACK",
        Packet::Unsubscribe(_) => "UNSUBSCRIBE",
        Packet::UnsubAck(_) => "UNSUBACK",
        Packet::PingReq => "PINGREQ",
        Packet::PingResp => "PINGRESP",
        Packet::Disconnect => "DISCONNECT",
    }
}

#[cfg(test)]
mod tests;

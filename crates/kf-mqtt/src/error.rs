//! Why a session did not come to be, or ended.

use std::io;

use rumqttc::mqttbytes;
use rumqttc::mqttbytes::v4::ConnectReturnCode;

/// A session that failed. The chain of sources keeps the [`io::Error`], and with it an alert of TLS.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MqttError {
    /// `host` of the settings.
    #[error("`host` is neither a DNS name nor an IP address: {host}")]
    Host {
        /// What it is.
        host: String,
    },
    /// `client_id` of the settings, which is a string of MQTT (section 1.5.3).
    #[error("`client_id` is longer than {limit_octets} octets: choose a shorter one")]
    ClientId {
        /// The most octets.
        limit_octets: usize,
    },
    /// Nobody answers there.
    #[error("no TCP connection to the broker")]
    Connect(#[source] io::Error),
    /// TLS failed on either side.
    #[error("the TLS handshake with the broker failed")]
    Handshake(#[source] io::Error),
    /// The broker took longer than a step may take.
    #[error("the broker took too long: {step}")]
    Timeout {
        /// Which step.
        step: &'static str,
    },
    /// CONNACK with a return code other than 0 (section 3.2.2.3).
    #[error("the broker refused the connection: {code:?}")]
    Refused {
        /// Why.
        code: ConnectReturnCode,
    },
    /// The connection ended between the handshake and CONNACK: what brokers do that refuse a certificate silently.
    #[error("the broker closed the connection before CONNACK")]
    ClosedBeforeAcceptance(#[source] io::Error),
    /// The connection ended afterwards.
    #[error("the broker closed the connection")]
    Closed(#[source] io::Error),
    /// Reading or writing failed for another reason, such as an alert.
    #[error("the connection to the broker failed")]
    Transport(#[source] io::Error),
    /// PINGREQ was not answered by PINGRESP (section 3.1.2.10): the connection is dead.
    #[error("the broker did not answer a ping")]
    PingUnanswered,
    /// A packet is larger than `max_packet_octets` of the settings.
    #[error("the broker sent a packet of {octets} octets: at most {limit_octets} are read")]
    TooLarge {
        /// How much it announced.
        octets: usize,
        /// The most that are read.
        limit_octets: usize,
    },
    /// Not MQTT.
    #[error("the broker sent what is no packet of MQTT 3.1.1")]
    Malformed(#[source] mqttbytes::Error),
    /// A packet that has no place there.
    #[error("the broker sent {packet}, which has no place there")]
    Unexpected {
        /// Its name.
        packet: &'static str,
    },
}

impl MqttError {
    /// A failed read or write once there is a stream.
    pub(crate) fn transport(source: io::Error, is_accepted: bool) -> Self {
        let is_closed = matches!(
            source.kind(),
            io::ErrorKind::UnexpectedEof
                | io::ErrorKind::ConnectionReset
                | io::ErrorKind::ConnectionAborted
                | io::ErrorKind::BrokenPipe
                | io::ErrorKind::WriteZero
        );
        match (is_closed, is_accepted) {
            (true, false) => Self::ClosedBeforeAcceptance(source),
            (true, true) => Self::Closed(source),
            (false, _) => Self::Transport(source),
        }
    }

    pub(crate) fn malformed(source: mqttbytes::Error, limit_octets: usize) -> Self {
        match source {
            mqttbytes::Error::PayloadSizeLimitExceeded(octets) => Self::TooLarge { octets, limit_octets },
            source => Self::Malformed(source),
        }
    }
}

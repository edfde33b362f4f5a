//! Every limit of the listeners, with its reason.

use std::time::Duration;

/// Limits of the listeners. The defaults fit a fleet whose devices renew over slow links; tests shorten the deadlines.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Open connections per listener. One more takes the place of the oldest that is not being answered, or waits if
    /// all are. Counted per listener, so that a flood on plain HTTP leaves HTTPS alone.
    pub connections: usize,
    /// From accept to the end of the TLS handshake.
    pub handshake: Duration,
    /// From the first octet of a request (or the handshake) to the end of its head.
    pub head: Duration,
    /// From the end of the head to the end of the body.
    pub body: Duration,
    /// The same for an import, whose body is large.
    pub import_body: Duration,
    /// Between an answer and the next request.
    pub idle: Duration,
    /// An answer of which the client takes nothing for this long is abandoned.
    pub stalled_write: Duration,
    /// A connection is closed after the first answer past this age, so that no client holds one for ever.
    pub connection_age: Duration,
    /// What requests in flight are given when the server stops.
    pub drain: Duration,
    /// How often the listener's own certificate and staple are compared with the clock: the fleet's clock may jump, so
    /// nothing sleeps until a moment of it.
    pub identity_check: Duration,
    /// Octets of a request's head.
    pub head_octets: usize,
    /// Octets of a JSON body.
    pub json_octets: usize,
    /// Octets of an import.
    pub import_octets: usize,
    /// Octets of records of a batch in one call: a thousand of them.
    pub batch_octets: usize,
    /// Octets of a batch of data to be encrypted, decrypted or brought under a newer version.
    pub data_octets: usize,
    /// Octets of an EST body: base64 of the largest certification request, with white space.
    pub est_octets: usize,
    /// Octets of an OCSP request.
    pub ocsp_octets: usize,
    /// Octets of a message of a key exchange or of an answer to an order.
    pub message_octets: usize,
    /// Imports at the same time: each holds its body in memory.
    pub imports: usize,
    /// Requests that wait for events at the same time: each holds a connection.
    pub followers: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 4_096,
            handshake: Duration::from_secs(10),
            head: Duration::from_secs(10),
            body: Duration::from_secs(30),
            import_body: Duration::from_secs(600),
            idle: Duration::from_secs(60),
            stalled_write: Duration::from_secs(30),
            connection_age: Duration::from_secs(3_600),
            drain: Duration::from_secs(10),
            identity_check: Duration::from_secs(30),
            head_octets: 16 * 1024,
            json_octets: 1024 * 1024,
            import_octets: 64 * 1024 * 1024,
            batch_octets: 4 * 1024 * 1024,
            data_octets: 4 * 1024 * 1024,
            est_octets: 2 * kf_pki::request::MAX_REQUEST_OCTETS,
            ocsp_octets: kf_pki::ocsp::MAX_REQUEST_OCTETS,
            message_octets: 512,
            imports: 2,
            followers: 256,
        }
    }
}

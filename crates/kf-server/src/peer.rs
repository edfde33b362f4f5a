//! Who is at the other end of a connection, as TCP and TLS know it.

use std::net::IpAddr;

use kf_fleet::{ClientCertificate, TlsClient};

/// The other end of a connection.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    /// Its address; IPv4 in its own form even on a dual-stack socket.
    pub(crate) address: IpAddr,
    /// Whether the connection is TLS.
    pub(crate) secure: bool,
    /// The certificate whose path the handshake validated. Its status is asked again at each request.
    pub(crate) certificate: Option<ClientCertificate>,
}

impl Peer {
    /// The client as the use cases of EST want it.
    pub(crate) fn as_tls_client(&self) -> TlsClient<'_> {
        TlsClient { certificate: self.certificate.as_ref(), address: self.address }
    }
}

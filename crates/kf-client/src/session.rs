//! A connection and the calls on it.

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_LENGTH, HOST};
use http::{HeaderName, HeaderValue, Method, Request};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;

use crate::ClientError;
use crate::address::Address;
use crate::client::{Client, Response};

/// The most header fields of an answer.
const MAX_HEADERS: usize = 64;
/// The most octets that are buffered of an answer's head.
const MAX_HEAD_OCTETS: usize = 64 * 1024;

/// Calls that share a connection as long as the peer keeps it open and the address stays the same.
#[derive(Debug)]
pub struct Session {
    client: Client,
    open: Option<Connection>,
}

#[derive(Debug)]
struct Connection {
    peer: Address,
    sender: SendRequest<Full<Bytes>>,
    driver: JoinHandle<()>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Session {
    pub(crate) const fn new(client: Client) -> Self {
        Self { client, open: None }
    }

    /// As [`Client::request`], on the connection of the last call if it still holds. A call is never repeated: if the
    /// peer closed the connection in the meantime, the caller sees it and decides.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn request(
        &mut self,
        method: Method,
        url: &str,
        headers: &[(HeaderName, HeaderValue)],
        body: impl Into<Bytes> + Send,
    ) -> Result<Response, ClientError> {
        let address = Address::parse(url)?;
        let request = self.head(method, &address, headers, body.into())?;
        let deadline = self.client.settings.deadline;
        let outcome = tokio::time::timeout(deadline, self.exchange(&address, request)).await;
        let outcome = outcome.unwrap_or(Err(ClientError::Deadline { millis: deadline.as_millis() }));
        if outcome.is_err() {
            self.open = None;
        }
        outcome
    }

    fn head(
        &self,
        method: Method,
        address: &Address,
        headers: &[(HeaderName, HeaderValue)],
        body: Bytes,
    ) -> Result<Request<Full<Bytes>>, ClientError> {
        let authorization = self.client.settings.authorization.as_ref();
        if authorization.is_some() && !address.is_tls {
            return Err(ClientError::SecretOverPlainHttp);
        }
        let length = body.len();
        let has_body = length > 0 || matches!(method, Method::POST | Method::PUT | Method::PATCH);
        let mut request = Request::builder().method(method).uri(&address.target).header(HOST, &address.authority);
        if has_body {
            request = request.header(CONTENT_LENGTH, length);
        }
        if let Some(value) = authorization {
            request = request.header(AUTHORIZATION, value);
        }
        for (name, value) in headers {
            request = request.header(name, value);
        }
        request.body(Full::new(body)).map_err(ClientError::exchange)
    }

    async fn exchange(&mut self, address: &Address, request: Request<Full<Bytes>>) -> Result<Response, ClientError> {
        let reusable = self.open.take().filter(|open| open.peer.same_peer(address) && !open.sender.is_closed());
        let mut connection = match reusable {
            Some(connection) => connection,
            None => connect(&self.client, address).await?,
        };
        connection.sender.ready().await.map_err(ClientError::exchange)?;
        let answer = connection.sender.send_request(request).await.map_err(ClientError::exchange)?;
        let (head, body) = answer.into_parts();
        let limit_octets = self.client.settings.body_limit_octets;
        let body = Limited::new(body, limit_octets).collect().await.map_err(|error| {
            if error.is::<LengthLimitError>() {
                ClientError::BodyTooLarge { limit_octets }
            } else {
                ClientError::Exchange { source: error }
            }
        })?;
        self.open = Some(connection);
        Ok(Response { status: head.status, headers: head.headers, body: body.to_bytes() })
    }
}

async fn connect(client: &Client, address: &Address) -> Result<Connection, ClientError> {
    let endpoint = address.endpoint();
    let tls = match (address.is_tls, client.settings.tls.clone()) {
        (false, _) => None,
        (true, Some(config)) => Some((config, address.server_name()?)),
        (true, None) => {
            let reason = "https needs anchors: give the root certificate or its fingerprint".to_owned();
            return Err(ClientError::Setting { setting: "anchors", reason });
        }
    };
    let stream = TcpStream::connect((address.host.as_str(), address.port))
        .await
        .map_err(|source| ClientError::Unreachable { address: endpoint.clone(), source })?;
    // Small requests must not wait for an acknowledgement.
    if let Err(source) = stream.set_nodelay(true) {
        return Err(ClientError::Unreachable { address: endpoint, source });
    }
    let Some((config, name)) = tls else { return start(address, stream).await };
    let stream =
        TlsConnector::from(config).connect(name, stream).await.map_err(|source| match crate::alert_in(&source) {
            Some(alert) => ClientError::Refused(alert),
            None => ClientError::Tls { address: endpoint, source },
        })?;
    start(address, stream).await
}

async fn start<S>(address: &Address, stream: S) -> Result<Connection, ClientError>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (sender, driver) = http1::Builder::new()
        .max_headers(MAX_HEADERS)
        .max_header_size(MAX_HEAD_OCTETS)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(ClientError::exchange)?;
    // What the driver fails with also reaches the call in progress.
    let driver = tokio::spawn(async move { driver.await.unwrap_or_default() });
    Ok(Connection { peer: address.clone(), sender, driver })
}

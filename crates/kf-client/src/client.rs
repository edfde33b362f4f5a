//! The client and its settings.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use kf_key::SecretBytes;
use rustls::ClientConfig;
use rustls::time_provider::{DefaultTimeProvider, TimeProvider};

use crate::session::Session;
use crate::trust::Trust;
use crate::{Anchors, ClientError, TlsKey, identity, tls};

/// The most octets of a body, unless told otherwise.
pub const DEFAULT_BODY_LIMIT_OCTETS: usize = 32 * 1024 * 1024;
/// How long a whole call may take, unless told otherwise.
pub const DEFAULT_DEADLINE: Duration = Duration::from_secs(30);

/// An answer, whatever its status.
#[derive(Clone, Debug)]
pub struct Response {
    /// Status.
    pub status: StatusCode,
    /// Header fields.
    pub headers: HeaderMap,
    /// Body, within the limit.
    pub body: Bytes,
}

/// An HTTPS client: cheap to clone, safe to share.
#[derive(Clone, Debug)]
pub struct Client {
    pub(crate) settings: Arc<Settings>,
}

pub(crate) struct Settings {
    pub(crate) tls: Option<Arc<ClientConfig>>,
    pub(crate) authorization: Option<HeaderValue>,
    pub(crate) body_limit_octets: usize,
    pub(crate) deadline: Duration,
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { tls, authorization, body_limit_octets, deadline } = self;
        f.debug_struct("Settings")
            .field("tls", &tls.is_some())
            .field("authorization", &authorization.is_some())
            .field("body_limit_octets", body_limit_octets)
            .field("deadline", deadline)
            .finish()
    }
}

/// What a client is made of. Without anchors it can speak plain HTTP only.
#[derive(Debug, Default)]
pub struct ClientBuilder {
    trust: Option<Trust>,
    identity: Option<Identity>,
    authorization: Option<HeaderValue>,
    body_limit_octets: Option<usize>,
    deadline: Option<Duration>,
    time: Option<Arc<dyn TimeProvider>>,
    failure: Option<&'static str>,
}

#[derive(Debug)]
struct Identity {
    chain: Vec<Vec<u8>>,
    key: Arc<dyn TlsKey>,
}

impl Client {
    /// Nothing set.
    #[must_use]
    pub fn builder() -> ClientBuilder {
        ClientBuilder::default()
    }

    /// One call on a connection of its own. `headers` come on top of Host, Content-Length and Authorization.
    ///
    /// # Errors
    /// [`ClientError`]; an answer of any status is none.
    pub async fn request(
        &self,
        method: Method,
        url: &str,
        headers: &[(HeaderName, HeaderValue)],
        body: impl Into<Bytes> + Send,
    ) -> Result<Response, ClientError> {
        self.session().request(method, url, headers, body).await
    }

    /// Calls that share a connection as long as it holds.
    #[must_use]
    pub fn session(&self) -> Session {
        Session::new(self.clone())
    }

    /// The TLS settings, for another protocol to the same fleet (MQTT). `None` without anchors.
    #[must_use]
    pub fn tls_config(&self) -> Option<Arc<ClientConfig>> {
        self.settings.tls.clone()
    }
}

impl ClientBuilder {
    /// Whom to believe.
    #[must_use]
    pub fn anchors(mut self, anchors: Anchors) -> Self {
        self.trust = Some(Trust::Anchored(anchors));
        self
    }

    /// Believes anyone, for a fetch without credentials whose answer is checked by its fingerprint.
    pub(crate) fn provisional(mut self) -> Self {
        self.trust = Some(Trust::Provisional);
        self
    }

    /// Believes these CA certificates (DER).
    #[must_use]
    pub fn roots(self, certificates: Vec<Vec<u8>>) -> Self {
        self.anchors(Anchors::Certificates(certificates))
    }

    /// Believes the root with this SHA-256 of its DER, which the server must send in its chain.
    #[must_use]
    pub fn root_fingerprint(self, sha256: [u8; 32]) -> Self {
        self.anchors(Anchors::RootFingerprint(sha256))
    }

    /// Authenticates by certificate: `chain` DER, leaf first.
    #[must_use]
    pub fn identity(mut self, chain: Vec<Vec<u8>>, key: Arc<dyn TlsKey>) -> Self {
        self.identity = Some(Identity { chain, key });
        self
    }

    /// Authenticates by a bearer token (RFC 6750), over https only.
    #[must_use]
    pub fn bearer(self, token: &SecretBytes) -> Self {
        // Exposed to the header that carries it.
        self.authorization("Bearer ", token.expose())
    }

    /// Authenticates by HTTP Basic (RFC 7617), over https only.
    #[must_use]
    pub fn basic(self, user: &str, password: &SecretBytes) -> Self {
        let user_length = user.len();
        let pair = SecretBytes::fill(user_length + 1 + password.len(), |pair| {
            // Exposed to the header that carries it.
            let parts = user.bytes().chain(std::iter::once(b':')).chain(password.expose().iter().copied());
            pair.iter_mut().zip(parts).for_each(|(octet, part)| *octet = part);
        });
        if user.contains(':') {
            return Self { failure: Some("a user name with a colon (RFC 7617 section 2)"), ..self };
        }
        let encoded = SecretBytes::from_vec(BASE64_STANDARD.encode(pair.expose()).into_bytes());
        self.authorization("Basic ", encoded.expose())
    }

    fn authorization(mut self, scheme: &str, credential: &[u8]) -> Self {
        let value = SecretBytes::from_vec([scheme.as_bytes(), credential].concat());
        match HeaderValue::from_bytes(value.expose()) {
            Ok(mut header) => {
                header.set_sensitive(true);
                self.authorization = Some(header);
            }
            Err(_invalid) => self.failure = Some("it holds characters that no HTTP header may hold"),
        }
        self
    }

    /// The most octets of a body.
    #[must_use]
    pub const fn body_limit(mut self, octets: usize) -> Self {
        self.body_limit_octets = Some(octets);
        self
    }

    /// How long a whole call may take, from resolving the name to the last octet.
    #[must_use]
    pub const fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = Some(deadline);
        self
    }

    /// The clock that certificates are judged by; the system's when not given.
    #[must_use]
    pub fn time(mut self, time: Arc<dyn TimeProvider>) -> Self {
        self.time = Some(time);
        self
    }

    /// The client.
    ///
    /// # Errors
    /// [`ClientError::Setting`].
    pub fn build(self) -> Result<Client, ClientError> {
        let Self { trust, identity, authorization, body_limit_octets, deadline, time, failure } = self;
        if let Some(reason) = failure {
            return Err(ClientError::Setting { setting: "authorization", reason: reason.to_owned() });
        }
        let identity = match identity {
            Some(Identity { chain, key }) => Some(Arc::new(identity::certified_key(chain, key)?)),
            None => None,
        };
        let time = time.unwrap_or_else(|| Arc::new(DefaultTimeProvider));
        let tls = match (trust, identity) {
            (Some(trust), identity) => Some(tls::client_config(&trust, identity, time)?),
            (None, Some(_)) => {
                let reason = "a client certificate needs anchors for the server's".to_owned();
                return Err(ClientError::Setting { setting: "anchors", reason });
            }
            (None, None) => None,
        };
        let body_limit_octets = body_limit_octets.unwrap_or(DEFAULT_BODY_LIMIT_OCTETS);
        let deadline = deadline.unwrap_or(DEFAULT_DEADLINE);
        Ok(Client { settings: Arc::new(Settings { tls, authorization, body_limit_octets, deadline }) })
    }
}

//! What the device asks the server beside enrolment: key exchanges, sessions, orders.

use kf_api::order::{
    ACTS_HEADER, ALGORITHM_HEADER, ANCHOR_HEADER, ANCHORS_HEADER, ORDER_KEY_HEADER, OrderAct, RENEWAL_HEADER,
    STORAGE_HEADER,
};
use kf_client::header::{CONTENT_TYPE, RETRY_AFTER};
use kf_client::{ClientError, HeaderName, HeaderValue, Method, Response};
use kf_key::KeyAlgorithm;

use crate::enrolment::Server;
use crate::failure::chain_of;
use crate::identity::Identity;

const CBOR: &str = "application/cbor";

/// What the device says of itself when it asks.
#[derive(Debug, Default)]
pub(crate) struct Knows {
    /// It can be asked for a new storage key, and for a factory reset: it signs what it answers.
    pub(crate) keeps_records: bool,
    /// It can be asked for a new identity key and certificate, by no order.
    pub(crate) renewal: bool,
    /// SHA-256, hexadecimal, of the order key that it obeys.
    pub(crate) order_key: Option<String>,
}

/// Beside a poll: a header with text that was made here.
fn said(name: &'static str, text: &str) -> Option<(HeaderName, HeaderValue)> {
    Some((HeaderName::from_static(name), HeaderValue::from_str(text).ok()?))
}

/// What waits for the device.
#[derive(Debug)]
pub(crate) struct News {
    /// The oldest order.
    pub(crate) order: Option<Vec<u8>>,
    /// SHA-256, hexadecimal, of a root that it is to take up.
    pub(crate) anchor: Option<String>,
    /// The same of a root that it holds, and that is handed out no more.
    pub(crate) gone_anchor: Option<String>,
    /// What asks for a new storage key; the statement is to name it.
    pub(crate) storage: Option<[u8; 16]>,
    /// Whether a new identity key and certificate are asked for.
    pub(crate) renewal: bool,
    /// Beside an order to rotate: what the new key is to be.
    pub(crate) algorithm: Option<KeyAlgorithm>,
    /// SHA-256, hexadecimal, of the newest order key.
    pub(crate) order_key: Option<String>,
}

/// A call that brought nothing.
#[derive(Debug)]
pub(crate) struct Refusal {
    /// HTTP status, 0 when there was no answer.
    pub(crate) status: u16,
    /// The server's words, or why there was no answer.
    pub(crate) reason: String,
    /// The server's Retry-After, in milliseconds, or 0.
    pub(crate) retry_after: u64,
}

impl Refusal {
    /// Whether the same octets would be refused again.
    pub(crate) const fn is_final(&self) -> bool {
        matches!(self.status, 400..=499) && !matches!(self.status, 401 | 408 | 429)
    }
}

impl From<ClientError> for Refusal {
    fn from(error: ClientError) -> Self {
        Self { status: 0, reason: chain_of(&error), retry_after: 0 }
    }
}

fn refused(answer: &Response) -> Refusal {
    let status = answer.status.as_u16();
    let problem: Option<kf_api::Problem> = serde_json::from_slice(&answer.body).ok();
    let words = problem.map(|problem| chain_of(&ClientError::Problem(problem)));
    let seconds = answer.headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    Refusal {
        status,
        reason: words.unwrap_or_else(|| format!("the server answered {status}")),
        retry_after: seconds.unwrap_or_default().saturating_mul(1_000),
    }
}

/// 32 hexadecimal digits.
fn request_of(text: &str) -> Option<[u8; 16]> {
    let digits = text.as_bytes().first_chunk::<32>().filter(|_| text.len() == 32)?;
    let mut octets = [0; 16];
    for (octet, pair) in octets.iter_mut().zip(digits.chunks_exact(2)) {
        *octet = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(octets)
}

impl Server {
    async fn post(&self, path: &str, message: &[u8]) -> Result<Vec<u8>, Refusal> {
        let client = self.client().build()?;
        let headers = [(CONTENT_TYPE, HeaderValue::from_static(CBOR))];
        let answer = client.request(Method::POST, &self.url(path), &headers, message.to_vec()).await?;
        if answer.status.is_success() { Ok(answer.body.to_vec()) } else { Err(refused(&answer)) }
    }

    /// One message of a key exchange. It authenticates itself: no certificate is shown.
    pub(crate) async fn exchange(&self, message: &[u8]) -> Result<Vec<u8>, Refusal> {
        self.post("/v1/device/exchange", message).await
    }

    /// One message of an exchange for a mixed session.
    pub(crate) async fn session(&self, message: &[u8]) -> Result<Vec<u8>, Refusal> {
        self.post("/v1/device/session", message).await
    }

    /// The device's signed answer to an order.
    pub(crate) async fn answer_order(&self, message: &[u8]) -> Result<(), Refusal> {
        self.post("/v1/device/orders/outcome", message).await.map(drop)
    }

    /// The device's signed statement that its data lie under a new storage key.
    pub(crate) async fn tell_storage(&self, message: &[u8]) -> Result<(), Refusal> {
        self.post("/v1/device/storage", message).await.map(drop)
    }

    /// How the keys that devices pin were succeeded: links, one after the other.
    pub(crate) async fn successions(&self) -> Result<Vec<u8>, Refusal> {
        let client = self.client().build()?;
        let answer = client.request(Method::GET, &self.url("/v1/device/successions"), &[], Vec::new()).await?;
        match answer.status.as_u16() {
            200 => Ok(answer.body.to_vec()),
            // A server from before successions.
            404 => Ok(Vec::new()),
            _ => Err(refused(&answer)),
        }
    }

    /// What waits for the device.
    pub(crate) async fn news(&self, identity: &Identity, knows: Knows) -> Result<News, Refusal> {
        let client = self.client().identity(identity.chain.clone(), identity.key.clone()).build()?;
        let Knows { keeps_records, renewal, order_key } = knows;
        let held = self.anchors().fingerprints();
        let says: Vec<_> = [
            keeps_records.then_some((STORAGE_HEADER, "1")),
            renewal.then_some((RENEWAL_HEADER, "1")),
            keeps_records.then_some((ACTS_HEADER, OrderAct::FactoryReset.name())),
            order_key.as_deref().map(|key| (ORDER_KEY_HEADER, key)),
            // Who holds one root alone has none that it could let go of.
            (self.anchors().roots.len() > 1).then_some((ANCHORS_HEADER, held.as_str())),
        ]
        .into_iter()
        .flatten()
        .filter_map(|(name, text)| said(name, text))
        .collect();
        let answer = client.request(Method::GET, &self.url("/v1/device/orders"), &says, Vec::new()).await?;
        let word = |name| answer.headers.get(name).and_then(|value| value.to_str().ok());
        let mut news = News {
            order: None,
            anchor: word(ANCHOR_HEADER).map(str::to_owned),
            gone_anchor: word(ANCHORS_HEADER).map(str::to_owned),
            storage: word(STORAGE_HEADER).and_then(request_of),
            renewal: renewal && word(RENEWAL_HEADER).is_some(),
            algorithm: None,
            order_key: word(ORDER_KEY_HEADER).map(str::to_owned),
        };
        match answer.status.as_u16() {
            204 => Ok(news),
            200 => {
                news.algorithm = word(ALGORITHM_HEADER).and_then(|name| name.parse().ok());
                news.order = Some(answer.body.to_vec());
                Ok(news)
            }
            _ => Err(refused(&answer)),
        }
    }
}

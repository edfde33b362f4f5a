//! Calls that carry JSON, and problem details.

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderName, HeaderValue, Method};
use kf_api::Problem;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::ClientError;
use crate::client::{Client, Response};

const JSON: HeaderValue = HeaderValue::from_static("application/json");

impl Response {
    /// This answer if its status is 2xx.
    ///
    /// # Errors
    /// [`ClientError::Problem`] when the server explained itself, else [`ClientError::Status`].
    pub fn success(self) -> Result<Self, ClientError> {
        if self.status.is_success() { Ok(self) } else { Err(self.refusal()) }
    }

    /// The body as JSON, if the status is 2xx. An empty body reads as `null`.
    ///
    /// # Errors
    /// As [`Response::success`], or [`ClientError::Answer`].
    pub fn json<T: DeserializeOwned>(self) -> Result<T, ClientError> {
        let answer = self.success()?;
        let body: &[u8] = if answer.body.is_empty() { b"null" } else { &answer.body };
        serde_json::from_slice(body)
            .map_err(|error| ClientError::Answer { expected: "the JSON expected here", source: Some(Box::new(error)) })
    }

    fn refusal(&self) -> ClientError {
        match serde_json::from_slice::<Problem>(&self.body) {
            // The status line is what proxies and logs see: it wins over what the body says.
            Ok(problem) => ClientError::Problem(Problem { status: self.status.as_u16(), ..problem }),
            Err(_other_body) => {
                let text = String::from_utf8_lossy(&self.body);
                let excerpt = text.chars().filter(|c| !c.is_control()).take(200).collect();
                ClientError::Status { status: self.status.as_u16(), excerpt }
            }
        }
    }
}

impl Client {
    /// GET of a JSON resource.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn get_json<T: DeserializeOwned>(&self, url: &str) -> Result<T, ClientError> {
        self.request(Method::GET, url, &[(ACCEPT, JSON)], Bytes::new()).await?.json()
    }

    /// A call with a JSON body and a JSON answer.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn send_json<B: Serialize + Sync, T: DeserializeOwned>(
        &self,
        method: Method,
        url: &str,
        body: &B,
    ) -> Result<T, ClientError> {
        self.send_json_with(method, url, &[], body).await
    }

    /// As [`Client::send_json`], with further header fields.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn send_json_with<B: Serialize + Sync, T: DeserializeOwned>(
        &self,
        method: Method,
        url: &str,
        headers: &[(HeaderName, HeaderValue)],
        body: &B,
    ) -> Result<T, ClientError> {
        let body = serde_json::to_vec(body)
            .map_err(|error| ClientError::Setting { setting: "body", reason: error.to_string() })?;
        let headers = [&[(ACCEPT, JSON), (CONTENT_TYPE, JSON)], headers].concat();
        self.request(method, url, &headers, body).await?.json()
    }
}

//! The talk with the server: EST as each credential, and the proof of a new certificate.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use kf_api::endorsement::{ANSWER_LABEL, Endorsement, EndorsementAnswer, EndorsementChallenge, EndorsementRequest};
use kf_client::est::{self, EstError, Service};
use kf_client::header::CONTENT_TYPE;
use kf_client::{Client, ClientBuilder, ClientError, HeaderValue, Method, TlsKey};
use kf_crypto::PrivateKey;
use kf_device::enrolment::machine::{Credential, Outcome};
use kf_key::{KeyAlgorithm, SecretBytes};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::anchors::Anchors;
use crate::clock::Clock;
use crate::config::Config;
use crate::failure::{Failure, chain_of};
use crate::identity::Identity;
use crate::key_source::{DeviceKey, KeySource};
use crate::secret_source;

/// How long one call to the server may take.
const CALL_DEADLINE: Duration = Duration::from_secs(30);

/// Where keys are proven.
const ENDORSEMENT: &str = "/v1/device/endorsement";

/// What a device shows that has no certificate of its own yet.
pub(crate) enum Shown<'a> {
    Code { device_name: &'a str, code: SecretBytes },
    Chain { chain: Vec<Vec<u8>>, key: Arc<dyn TlsKey> },
}

/// What an attempt to enrol brought, with the words for an event.
pub(crate) enum Attempt {
    /// Certificates, DER, the server's CA certificates among them.
    Issued(Vec<Vec<u8>>),
    Other(Outcome, Trouble),
}

/// Why it brought nothing.
#[derive(Debug)]
pub(crate) struct Trouble {
    pub(crate) status: u16,
    pub(crate) reason: String,
}

/// The server, as this device knows it.
pub(crate) struct Server {
    service: Service,
    /// `https://host:port`.
    base: String,
    clock: Clock,
    anchors: Anchors,
}

impl Server {
    pub(crate) fn new(config: &Config, clock: Clock, anchors: Anchors) -> Result<Self, ClientError> {
        let service = Service::new(&config.server, config.label.as_deref())?;
        let base = config.server.trim_end_matches('/').to_owned();
        Ok(Self { service, base, clock, anchors })
    }

    /// Root certificates, DER.
    pub(crate) fn roots(&self) -> &[Vec<u8>] {
        &self.anchors.roots
    }

    pub(crate) const fn anchors(&self) -> &Anchors {
        &self.anchors
    }

    pub(crate) const fn anchors_mut(&mut self) -> &mut Anchors {
        &mut self.anchors
    }

    /// The CA certificates that the server hands out.
    pub(crate) async fn authorities(&self) -> Result<Vec<Vec<u8>>, EstError> {
        est::cacerts(&self.client().build()?, &self.service).await
    }

    /// Whether the server is found by these roots alone.
    pub(crate) async fn reached_by(&self, roots: Vec<Vec<u8>>) -> Result<(), EstError> {
        est::cacerts(&self.client().roots(roots).build()?, &self.service).await.map(drop)
    }

    /// The address of a path of the API.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    pub(crate) fn client(&self) -> ClientBuilder {
        Client::builder().roots(self.anchors.roots.clone()).time(Arc::new(self.clock.clone())).deadline(CALL_DEADLINE)
    }

    /// Sends a request and, when it is granted, fetches the CA certificates that belong to it.
    pub(crate) async fn enrol(&self, credential: Credential, shown: Shown<'_>, request: &[u8]) -> Attempt {
        match self.try_enrol(credential, shown, request).await {
            Ok(est::Enrolment::Issued(mut certificates)) => {
                // What is granted is granted: without the CA certificates the chain is just shorter.
                let anonymous = self.client().build();
                if let Ok(client) = anonymous
                    && let Ok(authorities) = est::cacerts(&client, &self.service).await
                {
                    certificates.extend(authorities);
                }
                Attempt::Issued(certificates)
            }
            Ok(est::Enrolment::Pending { retry_after }) => {
                let trouble = Trouble { status: 202, reason: "it waits for approval".to_owned() };
                Attempt::Other(Outcome::Pending { retry_after: millis(retry_after) }, trouble)
            }
            Err(error) => classify(credential, &error),
        }
    }

    /// Proves that a key lives in this device's TPM, where the server wants that. A server that knows nothing of it, or
    /// asks for none, is as good as one that is satisfied.
    pub(crate) async fn prove_key(
        &self,
        credential: Credential,
        shown: Shown<'_>,
        key: &dyn DeviceKey,
    ) -> Result<(), Attempt> {
        let Some(attestation) = key.attestation().map_err(|error| unproven(&error))? else { return Ok(()) };
        let client = match shown {
            Shown::Code { device_name, code } => self.client().basic(device_name, &code),
            Shown::Chain { chain, key } => self.client().identity(chain, key),
        };
        let client = client.build().map_err(|error| unproven(&error))?;
        let request = EndorsementRequest {
            public_area: BASE64_STANDARD.encode(&attestation.public_area),
            endorsement_certificate: BASE64_STANDARD.encode(&attestation.endorsement_certificate),
            issuers: Vec::new(),
        };
        let made = post::<_, EndorsementChallenge>(&client, &self.url(ENDORSEMENT), &request).await;
        let challenge = match made {
            Ok(challenge) => challenge,
            // The line asks for no TPM, or this is another EST server.
            Err((404 | 405 | 409, _)) => return Ok(()),
            Err((status, reason)) => return Err(refused_proof(credential, status, reason)),
        };
        let malformed = || unproven(&ClientError::Answer { expected: "a challenge", source: None });
        let mut id = [0; 16];
        decode_hex(&challenge.id, &mut id).ok_or_else(malformed)?;
        let blob = BASE64_STANDARD.decode(&challenge.credential).map_err(|_not_base64| malformed())?;
        let seed = BASE64_STANDARD.decode(&challenge.encrypted_seed).map_err(|_not_base64| malformed())?;
        let secret = key.activate(&blob, &seed).map_err(|error| unproven(&error))?;
        // Exposed to make the answer, which tells nothing of it.
        let answer = kf_crypto::hmac_sha256(secret.expose(), &[ANSWER_LABEL, &id].concat());
        let answer = EndorsementAnswer { answer: answer.iter().map(|octet| format!("{octet:02x}")).collect() };
        let url = self.url(&format!("{ENDORSEMENT}/{}", challenge.id));
        let answered = post::<_, Endorsement>(&client, &url, &answer).await;
        answered.map(drop).map_err(|(status, reason)| refused_proof(credential, status, reason))
    }

    async fn try_enrol(
        &self,
        credential: Credential,
        shown: Shown<'_>,
        request: &[u8],
    ) -> Result<est::Enrolment, EstError> {
        let client = match shown {
            Shown::Code { device_name, code } => self.client().basic(device_name, &code),
            Shown::Chain { chain, key } => self.client().identity(chain, key),
        };
        let client = client.build()?;
        match credential {
            Credential::Certificate => est::simple_reenroll(&client, &self.service, request).await,
            Credential::Code | Credential::IDevId => est::simple_enroll(&client, &self.service, request).await,
        }
    }

    /// Connects with a new certificate. Any answer but a refusal of the certificate counts: the handshake is the proof.
    pub(crate) async fn prove(&self, identity: &Identity, url: Option<&str>) -> Result<(), (Outcome, Trouble)> {
        let url = url.map_or_else(|| self.service.url("cacerts"), str::to_owned);
        let client = self.client().identity(identity.chain.clone(), identity.key.clone()).build();
        let answer = match client {
            Ok(client) => client.request(Method::GET, &url, &[], Vec::new()).await,
            Err(error) => Err(error),
        };
        match answer {
            Ok(answer) if matches!(answer.status.as_u16(), 401 | 403) => {
                let status = answer.status.as_u16();
                Err((
                    Outcome::ProofRefused,
                    Trouble { status, reason: "the new certificate is not accepted".to_owned() },
                ))
            }
            Ok(answer) if answer.status.is_server_error() => {
                let status = answer.status.as_u16();
                let reason = format!("the server answered {status}");
                Err((Outcome::Failed { retry_after: 0 }, Trouble { status, reason }))
            }
            Ok(_) => Ok(()),
            Err(error @ ClientError::Refused(_)) => Err((Outcome::ProofRefused, trouble(0, &error))),
            Err(error) => Err((Outcome::Failed { retry_after: 0 }, trouble(0, &error))),
        }
    }
}

/// Fetches the pinned root from a server that is not trusted yet.
pub(crate) async fn fetch_root(config: &Config, sha256: [u8; 32]) -> Result<Vec<u8>, EstError> {
    let service = Service::new(&config.server, config.label.as_deref())?;
    est::root_by_fingerprint(&service, sha256, CALL_DEADLINE).await
}

/// Sends JSON and reads JSON; a refusal is a status (0 when there is none) and its words.
async fn post<T: Serialize + Sync, U: DeserializeOwned>(
    client: &Client,
    url: &str,
    body: &T,
) -> Result<U, (u16, String)> {
    let failed = |error: &dyn std::error::Error| (0, chain_of(error));
    let body = serde_json::to_vec(body).map_err(|error| failed(&error))?;
    let headers = [(CONTENT_TYPE, HeaderValue::from_static("application/json"))];
    let answer = client.request(Method::POST, url, &headers, body).await.map_err(|error| failed(&error))?;
    let status = answer.status.as_u16();
    if !answer.status.is_success() {
        let problem: Option<kf_api::Problem> = serde_json::from_slice(&answer.body).ok();
        let words = problem.map(|problem| chain_of(&ClientError::Problem(problem)));
        return Err((status, words.unwrap_or_else(|| format!("the server answered {status}"))));
    }
    serde_json::from_slice(&answer.body).map_err(|error| (0, chain_of(&error)))
}

/// A proof that did not come about for a reason on this side or on the way.
fn unproven(error: &(dyn std::error::Error + 'static)) -> Attempt {
    Attempt::Other(Outcome::Failed { retry_after: 0 }, trouble(0, error))
}

/// A proof that the server refused.
fn refused_proof(credential: Credential, status: u16, reason: String) -> Attempt {
    let outcome = match status {
        401 | 403 => Outcome::Refused(credential),
        400 | 413 | 422 => Outcome::RequestRefused,
        _ => Outcome::Failed { retry_after: 0 },
    };
    Attempt::Other(outcome, Trouble { status, reason })
}

fn decode_hex(text: &str, out: &mut [u8]) -> Option<()> {
    if text.len() != out.len().checked_mul(2)? || !text.is_ascii() {
        return None;
    }
    for (octet, pair) in out.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        *octet = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(())
}

fn trouble(status: u16, error: &(dyn std::error::Error + 'static)) -> Trouble {
    Trouble { status, reason: chain_of(error) }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn classify(credential: Credential, error: &EstError) -> Attempt {
    let retry_after = error.retry_after().map_or(0, millis);
    let status = error.status().unwrap_or_default();
    let outcome = match (error, status) {
        (_, 401 | 403) | (EstError::Call(ClientError::Refused(_)), _) => Outcome::Refused(credential),
        // The request itself is at fault: the same one would be refused for ever.
        (_, 400 | 409 | 413 | 422) => Outcome::RequestRefused,
        _ => Outcome::Failed { retry_after },
    };
    let reason = match error {
        EstError::Refused { refusal, .. } => chain_of(refusal.as_ref()),
        other => chain_of(other),
    };
    Attempt::Other(outcome, Trouble { status, reason })
}

/// The IDevID from the factory.
#[derive(Debug)]
pub(crate) struct FactoryIdentity {
    pub(crate) chain: Vec<Vec<u8>>,
    pub(crate) key: Arc<dyn TlsKey>,
}

impl FactoryIdentity {
    /// Reads chain and key, of whichever algorithm.
    pub(crate) fn read(chain_file: &Path, key_file: &Path) -> Result<Self, Failure> {
        let chain = Self::read_chain(chain_file)?;
        let field = "bootstrap.idevid_key_file";
        let pkcs8 = secret_source::private_key_pem(key_file, field)?;
        let key = KeyAlgorithm::ALL
            .into_iter()
            .filter(|algorithm| algorithm.may_sign_certificates())
            .find_map(|algorithm| PrivateKey::from_pkcs8(algorithm, &pkcs8).ok())
            .ok_or(Failure::Content { field, expected: "a P-256, P-384, Ed25519 or ML-DSA key in PKCS#8" })?;
        Ok(Self { chain, key: Arc::new(key) })
    }

    /// As [`Self::read`], for a key that was stored as `keys` stores keys: sealed under the same seal key.
    pub(crate) fn read_sealed(chain_file: &Path, key_file: &Path, keys: &dyn KeySource) -> Result<Self, Failure> {
        let chain = Self::read_chain(chain_file)?;
        let field = "bootstrap.idevid_sealed_key_file";
        let stored = secret_source::stored_key(key_file).map_err(|source| Failure::Source { field, source })?;
        let key = keys.load(&stored).map_err(|_opaque| Failure::Content {
            field,
            expected: "a key sealed under the seal key of this device",
        })?;
        Ok(Self { chain, key: key.tls_key() })
    }

    fn read_chain(chain_file: &Path) -> Result<Vec<Vec<u8>>, Failure> {
        let field = "bootstrap.idevid_chain_file";
        let text = std::fs::read_to_string(chain_file).map_err(|source| Failure::Source { field, source })?;
        kf_pki::pem::decode_all("CERTIFICATE", &text)
            .filter(|chain| !chain.is_empty())
            .ok_or(Failure::Content { field, expected: "a certificate chain in PEM" })
    }
}

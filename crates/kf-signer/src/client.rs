//! The client: async, cheap to clone, many requests in flight on one socket.

mod batch;
mod derivation;
mod exchange;
mod link;
mod meter;
mod process;
mod wrapping;

use std::collections::BTreeMap;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use kf_backend::{KeyBackend, algorithm_code};
use kf_key::{KeyAlgorithm, KeyId, SecretBytes};
use kf_pki::certificate::{CheckedTbs, IssuedCertificate};
use kf_pki::crl::CheckedCrl;
use tokio::sync::watch;

use crate::engine::{Engine, back_end};
use crate::frame::{Inbox, MAX_BODY_OCTETS, MAX_CRL_OCTETS};
use crate::protocol::{Fields, MAX_SECRET_OCTETS, REQUESTS, RequestKind, bug, prefix, too_large};
use crate::start::start;
use crate::{
    GeneratedKey, KeyFacts, KeyHandle, KeyPurpose, RateCeilings, SignerCapabilities, SignerCommand, SignerError,
    SignerRefusal, content,
};
pub use batch::BatchPlace;
pub use exchange::DeviceProof;
use link::Link;
pub use meter::{SetAside, SetAsideSignatures, SignatureUse};

/// Octets of key identifier in front of what is signed.
const KEY_OCTETS: usize = 16;

/// Talks to the signer. Clones share one connection; the signer ends when the last of them is dropped.
#[derive(Clone)]
pub struct SignerClient {
    shared: Arc<Shared>,
}

impl std::fmt::Debug for SignerClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SignerClient").finish_non_exhaustive()
    }
}

/// How the signer is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignerHealth {
    /// Keys loaded in this life of the process.
    pub keys_loaded: usize,
    /// Signatures made in this life of the process, per key.
    pub signatures: Vec<(KeyId, u64)>,
    /// How often the process was restarted since the client started it.
    pub restarts: u64,
}

struct Shared {
    link: RwLock<Option<Arc<Link>>>,
    registered: Mutex<BTreeMap<KeyId, (KeyHandle, KeyFacts)>>,
    wrapping: wrapping::Registered,
    meter: meter::Meter,
    capabilities: Arc<SignerCapabilities>,
    restarts: AtomicU64,
    /// Zero when the signer runs in this process.
    process_id: AtomicU32,
    is_stopping: watch::Sender<bool>,
    /// Shut down, or given up.
    has_ended: watch::Sender<bool>,
}

impl Shared {
    fn new(capabilities: SignerCapabilities, link: Arc<Link>) -> Arc<Self> {
        Arc::new(Self {
            link: RwLock::new(Some(link)),
            registered: Mutex::new(BTreeMap::new()),
            wrapping: wrapping::Registered::default(),
            meter: meter::Meter::default(),
            capabilities: Arc::new(capabilities),
            restarts: AtomicU64::new(0),
            process_id: AtomicU32::new(0),
            is_stopping: watch::Sender::new(false),
            has_ended: watch::Sender::new(false),
        })
    }

    fn set_link(&self, link: Option<Arc<Link>>) {
        *self.link.write().unwrap_or_else(PoisonError::into_inner) = link;
    }
}

impl SignerClient {
    /// Starts the signer and waits until it has unsealed the root or logged in to the token.
    ///
    /// # Errors
    /// [`SignerError::Start`].
    pub async fn spawn(command: SignerCommand) -> Result<Self, SignerError> {
        process::spawn(command).await.map(|shared| Self { shared })
    }

    /// The same request path over a socket pair to threads of this process: for tests and benchmarks. Must be called
    /// within a tokio runtime.
    ///
    /// # Errors
    /// [`SignerError::Start`].
    pub fn in_process(backend: Arc<dyn KeyBackend>, ceilings: RateCeilings) -> Result<Self, SignerError> {
        let engine = Engine::new(backend, ceilings).map_err(back_end)?;
        let (ours, theirs) = UnixStream::pair().map_err(|error| start(&error))?;
        let capabilities = engine.capabilities();
        let (link, ended) = Link::open(ours)?;
        let shared = Shared::new(capabilities, link);
        let served = std::thread::Builder::new().name("signer".to_owned()).spawn(move || {
            crate::serve::serve(&engine, &theirs, Inbox::new(REQUESTS));
        });
        served.map_err(|error| start(&error))?;
        let weak = Arc::downgrade(&shared);
        drop(tokio::spawn(async move {
            ended.wait().await;
            if let Some(shared) = weak.upgrade() {
                shared.set_link(None);
                shared.has_ended.send_replace(true);
            }
        }));
        Ok(Self { shared })
    }

    /// Generates a signature key. It is registered without an issuer name; register it again with one.
    ///
    /// # Errors
    /// [`SignerRefusal::Algorithm`] when the back end does not hold such keys for this purpose; [`SignerError`].
    pub async fn generate_key(
        &self,
        key: KeyId,
        purpose: KeyPurpose,
        algorithm: KeyAlgorithm,
    ) -> Result<GeneratedKey, SignerError> {
        let link = self.ready().await?;
        let request = [key.as_bytes().as_slice(), &[purpose.code(), algorithm_code(algorithm)]];
        let body = link.call(RequestKind::Generate, &request).await?;
        let mut fields = Fields(&body);
        let spki = fields.prefixed().ok_or_else(|| bug("unreadable answer"))?.to_vec();
        let handle = KeyHandle::from_bytes(fields.rest()).map_err(|_unreadable| bug("unreadable handle"))?;
        self.register_key(key, handle.clone(), KeyFacts { purpose, issuer_name: Vec::new() });
        Ok(GeneratedKey { key, purpose, algorithm, spki, handle })
    }

    /// Tells the client of a key from the registry; it is loaded when first used, and again after a restart.
    /// Registering again replaces the facts.
    pub fn register_key(&self, key: KeyId, handle: KeyHandle, facts: KeyFacts) {
        self.registered().insert(key, (handle, facts));
        if let Ok(link) = self.link() {
            link.forget(key);
        }
    }

    /// Signs the self-signed certificate of a root whose key is `key`, and fixes the root's name.
    ///
    /// # Errors
    /// [`SignerError`]. The permission is spent either way.
    pub async fn sign_root(&self, key: KeyId, checked: CheckedTbs) -> Result<IssuedCertificate, SignerError> {
        let name = content::self_signed_name(checked.tbs())?;
        let signature = self.sign(RequestKind::SignRoot, key, checked.tbs(), MAX_BODY_OCTETS).await?;
        if let Some((_, facts)) = self.registered().get_mut(&key) {
            facts.issuer_name = name;
        }
        checked.complete(&signature).map_err(|_refusal| bug("certificate encoding"))
    }

    /// Signs a checked certificate.
    ///
    /// # Errors
    /// [`SignerError`]. The permission is spent either way.
    pub async fn sign_certificate(&self, key: KeyId, checked: CheckedTbs) -> Result<IssuedCertificate, SignerError> {
        let signature = self.sign(RequestKind::SignCertificate, key, checked.tbs(), MAX_BODY_OCTETS).await?;
        checked.complete(&signature).map_err(|_refusal| bug("certificate encoding"))
    }

    /// Signs a checked CRL of at most 64 MiB; returns it whole, DER.
    ///
    /// # Errors
    /// [`SignerError`].
    pub async fn sign_crl(&self, key: KeyId, checked: CheckedCrl) -> Result<Vec<u8>, SignerError> {
        let signature = self.sign(RequestKind::SignCrl, key, checked.tbs(), MAX_CRL_OCTETS).await?;
        Ok(checked.complete(&signature))
    }

    /// Signs the note `origin`, `size`, `root` (C2SP tlog-checkpoint); returns the 64 octets of Ed25519.
    ///
    /// # Errors
    /// [`SignerError`]; a smaller size than before, or another root at the same size, is refused.
    pub async fn sign_checkpoint(
        &self,
        key: KeyId,
        origin: &str,
        size: u64,
        root: [u8; 32],
    ) -> Result<[u8; 64], SignerError> {
        self.count(key, SignatureUse::GoOn).await?;
        let link = self.link_with(key).await?;
        let request = [key.as_bytes().as_slice(), &size.to_be_bytes(), &root, origin.as_bytes()];
        let signature = link.call(RequestKind::SignCheckpoint, &request).await?;
        signature.try_into().map_err(|_other_length| bug("signature length"))
    }

    /// Wraps a secret of at most 64 KiB under the newest version of the wrapping key, bound to `context` (at most 1,024 octets).
    ///
    /// # Errors
    /// [`SignerError`].
    pub async fn wrap(&self, context: &[u8], secret: &SecretBytes) -> Result<Vec<u8>, SignerError> {
        if secret.len() > MAX_SECRET_OCTETS {
            return Err(too_large(MAX_SECRET_OCTETS));
        }
        // Exposed to the socket, whose other end only the signer has.
        self.ready().await?.call(RequestKind::Wrap, &[&prefix(context)?, context, secret.expose()]).await
    }

    /// Unwraps what [`SignerClient::wrap`] made.
    ///
    /// # Errors
    /// [`SignerError::Wrapped`] for another root or context.
    pub async fn unwrap(&self, context: &[u8], wrapped: &[u8]) -> Result<SecretBytes, SignerError> {
        if wrapped.len() > MAX_SECRET_OCTETS + 64 {
            return Err(SignerError::Wrapped);
        }
        let body = self.ready().await?.call(RequestKind::Unwrap, &[&prefix(context)?, context, wrapped]).await?;
        Ok(SecretBytes::from_vec(body))
    }

    /// Destroys a registered key: in the token when it is there; the caller destroys the stored handle. One that the token has no
    /// more is no error, so that it can be repeated.
    ///
    /// # Errors
    /// [`SignerError`].
    pub async fn destroy_key(&self, key: KeyId) -> Result<(), SignerError> {
        let handle = self.registered().get(&key).map(|(handle, _)| handle.to_bytes()).ok_or_else(|| unknown(key))?;
        self.ready().await?.call(RequestKind::Destroy, &[key.as_bytes(), &handle]).await?;
        self.registered().remove(&key);
        if let Ok(link) = self.link() {
            link.forget(key);
        }
        Ok(())
    }

    /// Asks the back end for a key again that is not registered any more: an error says that it is gone, or why nobody knows.
    ///
    /// # Errors
    /// [`SignerError`].
    pub async fn load_anew(&self, key: KeyId, handle: &KeyHandle) -> Result<(), SignerError> {
        let handle = handle.to_bytes();
        let request = [key.as_bytes().as_slice(), &prefix(&handle)?, &handle];
        self.link()?.call(RequestKind::Load, &request).await.map(drop)
    }

    /// Asks the signer and its back end whether they work.
    ///
    /// # Errors
    /// [`SignerError`].
    pub async fn health(&self) -> Result<SignerHealth, SignerError> {
        let body = self.link()?.call(RequestKind::Health, &[]).await?;
        let mut fields = Fields(&body);
        let mut signatures = Vec::new();
        while let Some(key) = fields.key() {
            let count = fields.array().map(u64::from_be_bytes).ok_or_else(|| bug("unreadable answer"))?;
            signatures.push((key, count));
        }
        let restarts = self.shared.restarts.load(Ordering::Relaxed);
        Ok(SignerHealth { keys_loaded: signatures.len(), signatures, restarts })
    }

    /// What the back end declared at start.
    #[must_use]
    pub fn capabilities(&self) -> Arc<SignerCapabilities> {
        Arc::clone(&self.shared.capabilities)
    }

    /// The process that runs or ran last; `None` for one within this process.
    #[must_use]
    pub fn process_id(&self) -> Option<u32> {
        Some(self.shared.process_id.load(Ordering::Relaxed)).filter(|id| *id != 0)
    }

    /// Lets the signer finish what it has and waits until it ended. Afterwards every call is [`SignerError::Unavailable`].
    pub async fn shutdown(&self) {
        let mut has_ended = self.shared.has_ended.subscribe();
        self.shared.is_stopping.send_replace(true);
        // Requests in flight hold the link; with the last of them the socket closes.
        let link = self.shared.link.write().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(link) = &link {
            link.stop();
        }
        drop(link);
        // An error means that the watching task is gone, and the signer with it.
        drop(has_ended.wait_for(|ended| *ended).await);
    }

    fn registered(&self) -> std::sync::MutexGuard<'_, BTreeMap<KeyId, (KeyHandle, KeyFacts)>> {
        self.shared.registered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn link(&self) -> Result<Arc<Link>, SignerError> {
        let link = self.shared.link.read().unwrap_or_else(PoisonError::into_inner);
        link.clone().ok_or(SignerError::Unavailable)
    }

    /// The link, with `key` loaded at its other end.
    async fn link_with(&self, key: KeyId) -> Result<Arc<Link>, SignerError> {
        let link = self.ready().await?;
        if link.has(key) {
            return Ok(link);
        }
        // One load at a time: the first of many waiting requests does it for all.
        let turn = link.loading.lock().await;
        if !link.has(key) {
            let (handle, facts) = self.registered().get(&key).cloned().ok_or_else(|| unknown(key))?;
            if handle.purpose() != facts.purpose {
                return Err(SignerError::Refused(SignerRefusal::Purpose));
            }
            let handle = handle.to_bytes();
            let request = [key.as_bytes().as_slice(), &prefix(&handle)?, &handle, &facts.issuer_name];
            link.call(RequestKind::Load, &request).await?;
            link.remember(key);
        }
        drop(turn);
        Ok(link)
    }

    /// A root signs little, and its successor too: it is counted and never stopped. Nor is what revokes.
    fn use_of(&self, kind: RequestKind, key: KeyId) -> SignatureUse {
        let is_issuing = self.registered().get(&key).is_some_and(|(_, facts)| facts.purpose == KeyPurpose::IssuingCa);
        if kind == RequestKind::SignCertificate && is_issuing { SignatureUse::Issue } else { SignatureUse::GoOn }
    }

    async fn sign(&self, kind: RequestKind, key: KeyId, tbs: &[u8], limit: usize) -> Result<Vec<u8>, SignerError> {
        if tbs.len() > limit - KEY_OCTETS {
            return Err(too_large(limit - KEY_OCTETS));
        }
        self.count(key, self.use_of(kind, key)).await?;
        self.link_with(key).await?.call(kind, &[key.as_bytes(), tbs]).await
    }
}

const fn unknown(key: KeyId) -> SignerError {
    SignerError::Refused(SignerRefusal::UnknownKey(key))
}

//! The signer's side of each request.

mod batch;
mod derivation;
mod exchange;
mod keys;
mod mixed_session;
mod order;
mod succession;
mod wrapping;

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Instant;

use kf_backend::{BackendError, KeyBackend, algorithm_of_code, generate_wrapped, open_wrapped};
use kf_key::{KeyId, SecretBytes};
use kf_log::Checkpoint;

use crate::content;
use crate::handle::HandleSeal;
use crate::protocol::{Fields, RequestKind, bug, prefix, too_large};
use crate::{KeyHandle, KeyPurpose, RateCeilings, SignerCapabilities, SignerError, SignerRefusal};
use derivation::FacilityKeys;
pub(crate) use derivation::salt_context;
use exchange::Sessions;
use keys::LoadedKey;
use mixed_session::MixedSessions;
use wrapping::WrappingKeys;

/// The most keys loaded at a time.
const MAX_KEYS: usize = 65_536;

/// Holds the back end and the opened keys.
pub(crate) struct Engine {
    backend: Arc<dyn KeyBackend>,
    ceilings: RateCeilings,
    handle_seal: HandleSeal,
    wrapping: WrappingKeys,
    facilities: FacilityKeys,
    sessions: Sessions,
    mixed: MixedSessions,
    keys: RwLock<BTreeMap<KeyId, Arc<LoadedKey>>>,
}

/// What a request yields.
pub(crate) enum Answer {
    Octets(Vec<u8>),
    Secret(SecretBytes),
}

impl Engine {
    pub(crate) fn new(backend: Arc<dyn KeyBackend>, ceilings: RateCeilings) -> Result<Self, BackendError> {
        backend.health()?;
        let handle_seal = HandleSeal::new(backend.as_ref())?;
        Ok(Self {
            backend,
            ceilings,
            handle_seal,
            wrapping: WrappingKeys::default(),
            facilities: FacilityKeys::default(),
            sessions: Sessions::default(),
            mixed: MixedSessions::default(),
            keys: RwLock::default(),
        })
    }

    pub(crate) fn capabilities(&self) -> SignerCapabilities {
        let declared = self.backend.capabilities();
        SignerCapabilities {
            backend: declared.kind,
            key_algorithms: declared.key_algorithms.clone(),
            needs_preimage_record: declared.is_hardware,
            description: declared.description.clone(),
        }
    }

    /// Answers one request.
    pub(crate) fn answer(&self, kind: RequestKind, body: &[u8]) -> Result<Answer, SignerError> {
        let octets = match kind {
            RequestKind::Hello => Err(bug("a second hello")),
            RequestKind::Generate => self.generate(Fields(body)),
            RequestKind::Load => self.load(Fields(body)),
            RequestKind::SignRoot => self.sign_root(Fields(body)),
            RequestKind::SignCertificate => self.sign_certificate(Fields(body)),
            RequestKind::SignCrl => self.sign_crl(Fields(body)),
            RequestKind::SignCheckpoint => self.sign_checkpoint(Fields(body)),
            RequestKind::Wrap => self.wrap(Fields(body)),
            RequestKind::Unwrap => return self.unwrap(Fields(body)).map(Answer::Secret),
            RequestKind::Destroy => self.destroy(Fields(body)),
            RequestKind::Health => self.health(),
            RequestKind::NewSalt => self.new_salt(Fields(body)),
            RequestKind::Challenge => self.challenge(Fields(body)),
            RequestKind::Deliver => self.deliver(Fields(body)),
            RequestKind::Acknowledge => self.acknowledge(Fields(body)),
            RequestKind::SignOrder => self.sign_order(Fields(body)),
            RequestKind::SignSuccession => self.sign_succession(Fields(body)),
            RequestKind::SignQuota => self.sign_quota(Fields(body)),
            RequestKind::OpenSalts => self.open_salts(Fields(body)),
            RequestKind::OpenSession => self.open_session(Fields(body)),
            RequestKind::AcknowledgeSession => self.acknowledge_session(Fields(body)),
            RequestKind::EndSession => self.end_session(Fields(body)),
            RequestKind::NewWrapping => self.new_wrapping(Fields(body)),
            RequestKind::LoadWrapping => self.load_wrapping(Fields(body)),
            RequestKind::ForgetWrapping => self.forget_wrapping(Fields(body)),
            RequestKind::Rewrap => self.rewrap(Fields(body)),
            RequestKind::RewrapHandle => self.rewrap_handle(Fields(body)),
            RequestKind::DeriveSession => return self.derive_session(Fields(body)).map(Answer::Secret),
            RequestKind::DeriveSealing => return self.derive_sealing(Fields(body)).map(Answer::Secret),
        };
        octets.map(Answer::Octets)
    }

    fn generate(&self, mut fields: Fields<'_>) -> Result<Vec<u8>, SignerError> {
        let key = fields.key().ok_or_else(malformed)?;
        let purpose = fields.octet().and_then(KeyPurpose::from_code).ok_or_else(malformed)?;
        let algorithm = fields.octet().and_then(algorithm_of_code).ok_or_else(malformed)?;
        fields.end().ok_or_else(malformed)?;
        let is_held = self.backend.capabilities().holds(algorithm);
        if !purpose.suits(algorithm) || !(is_held || purpose.may_be_wrapped()) {
            return Err(SignerError::Refused(SignerRefusal::Algorithm));
        }
        // Many tokens lack Ed25519. The log's key may then be software under the token's root; a CA key may not.
        let pair = if is_held {
            self.backend.generate_key_pair(key, algorithm)
        } else {
            generate_wrapped(self.backend.as_ref(), key, algorithm)
        }
        .map_err(back_end)?;
        let handle = self.protect(key, purpose, pair.handle)?;
        self.open(key, &handle, &[])?;
        Ok([prefix(&pair.spki)?.as_slice(), &pair.spki, &handle.to_bytes()].concat())
    }

    fn load(&self, mut fields: Fields<'_>) -> Result<Vec<u8>, SignerError> {
        let key = fields.key().ok_or_else(malformed)?;
        let handle =
            KeyHandle::from_bytes(fields.prefixed().ok_or_else(malformed)?).map_err(|_unreadable| unknown(key))?;
        self.open(key, &handle, fields.rest())?;
        Ok(Vec::new())
    }

    /// Opens a key, unless it is open; then only its name may be added, never changed.
    fn open(&self, key: KeyId, handle: &KeyHandle, issuer_name: &[u8]) -> Result<(), SignerError> {
        if !self.handle_seal.is_ours(key, handle) {
            return Err(unknown(key));
        }
        if let Ok(loaded) = self.loaded(key) {
            return loaded.name(issuer_name);
        }
        let purpose = handle.purpose();
        let inner = self.unprotect(key, handle)?;
        let opened = match inner.as_ref() {
            kf_backend::KeyHandle::Wrapped { algorithm, sealed } if purpose.may_be_wrapped() => {
                open_wrapped(self.backend.as_ref(), key, *algorithm, sealed)
            }
            inner => self.backend.open_key(key, inner),
        }
        .map_err(|error| if error == BackendError::Handle { unknown(key) } else { back_end(error) })?;
        let loaded = LoadedKey::new(purpose, opened, self.ceiling(purpose), Instant::now());
        loaded.name(issuer_name)?;
        let mut keys = self.keys.write().unwrap_or_else(PoisonError::into_inner);
        if keys.len() >= MAX_KEYS {
            return Err(too_large(MAX_KEYS));
        }
        // Two requests may have opened it at once: the first stays, with its counts.
        keys.entry(key).or_insert_with(|| Arc::new(loaded));
        Ok(())
    }

    const fn ceiling(&self, purpose: KeyPurpose) -> u32 {
        match purpose {
            KeyPurpose::RootCa => self.ceilings.root_ca_per_minute,
            KeyPurpose::IssuingCa => self.ceilings.issuing_ca_per_minute,
            KeyPurpose::LogCheckpoint => self.ceilings.log_per_minute,
            KeyPurpose::Delivery => self.ceilings.delivery_per_minute,
            KeyPurpose::Order => self.ceilings.order_per_minute,
            KeyPurpose::BatchAuthorisation => self.ceilings.batch_per_minute,
        }
    }

    fn loaded(&self, key: KeyId) -> Result<Arc<LoadedKey>, SignerError> {
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        keys.get(&key).cloned().ok_or_else(|| unknown(key))
    }

    fn sign_root(&self, mut fields: Fields<'_>) -> Result<Vec<u8>, SignerError> {
        let key = fields.key().ok_or_else(malformed)?;
        let loaded = self.loaded(key)?;
        loaded.require(&[KeyPurpose::RootCa])?;
        let tbs = fields.rest();
        let name = content::check_root(tbs, loaded.spki())?;
        loaded.name(&name)?;
        loaded.sign(key, tbs, Instant::now())
    }

    fn sign_certificate(&self, mut fields: Fields<'_>) -> Result<Vec<u8>, SignerError> {
        let key = fields.key().ok_or_else(malformed)?;
        let loaded = self.loaded(key)?;
        loaded.require(&[KeyPurpose::RootCa, KeyPurpose::IssuingCa])?;
        let tbs = fields.rest();
        match loaded.purpose() {
            KeyPurpose::RootCa => content::check_below_root(tbs, loaded.issuer_name()?)?,
            _ => {
                content::check_end_entity(tbs, loaded.issuer_name()?)?;
            }
        }
        loaded.sign(key, tbs, Instant::now())
    }

    fn sign_crl(&self, mut fields: Fields<'_>) -> Result<Vec<u8>, SignerError> {
        let key = fields.key().ok_or_else(malformed)?;
        let loaded = self.loaded(key)?;
        loaded.require(&[KeyPurpose::RootCa, KeyPurpose::IssuingCa])?;
        let tbs = fields.rest();
        content::check_crl(tbs, loaded.issuer_name()?)?;
        loaded.sign(key, tbs, Instant::now())
    }

    fn sign_checkpoint(&self, mut fields: Fields<'_>) -> Result<Vec<u8>, SignerError> {
        let key = fields.key().ok_or_else(malformed)?;
        let size = fields.array().map(u64::from_be_bytes).ok_or_else(malformed)?;
        let root: [u8; 32] = fields.array().ok_or_else(malformed)?;
        let loaded = self.loaded(key)?;
        loaded.require(&[KeyPurpose::LogCheckpoint])?;
        let origin = content::check_origin(fields.rest())?;
        // The note is built here, so that the key can sign nothing but a checkpoint (C2SP tlog-checkpoint).
        let note = Checkpoint { origin: origin.to_owned(), size, root }.to_text();
        loaded.sign_checkpoint(key, size, root, note.as_bytes(), Instant::now())
    }

    fn destroy(&self, mut fields: Fields<'_>) -> Result<Vec<u8>, SignerError> {
        let key = fields.key().ok_or_else(malformed)?;
        let handle = KeyHandle::from_bytes(fields.rest()).map_err(|_unreadable| unknown(key))?;
        if !self.handle_seal.is_ours(key, &handle) {
            return Err(unknown(key));
        }
        if handle.is_hardware() == self.backend.capabilities().is_hardware {
            let inner = self.unprotect(key, &handle)?;
            match self.backend.destroy_key(key, &inner) {
                // It went before, and whoever asked did not hear of it.
                Ok(()) | Err(BackendError::MissingKey { .. }) => {}
                Err(error) => return Err(back_end(error)),
            }
        }
        self.keys.write().unwrap_or_else(PoisonError::into_inner).remove(&key);
        Ok(Vec::new())
    }

    fn health(&self) -> Result<Vec<u8>, SignerError> {
        self.backend.health().map_err(back_end)?;
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        Ok(keys
            .iter()
            .flat_map(|(key, loaded)| key.as_bytes().iter().copied().chain(loaded.signed().to_be_bytes()))
            .collect())
    }
}

fn malformed() -> SignerError {
    bug("malformed request")
}

const fn unknown(key: KeyId) -> SignerError {
    SignerError::Refused(SignerRefusal::UnknownKey(key))
}

/// What the back end says, with its cause: for the log and the operator.
#[allow(clippy::needless_pass_by_value, reason = "fits map_err")]
pub(crate) fn back_end(error: BackendError) -> SignerError {
    SignerError::Backend(error.to_string())
}

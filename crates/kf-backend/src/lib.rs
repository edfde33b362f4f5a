//! Key back ends: what holds the fleet root and the CA keys.
//!
//! A back end declares what it can do ([`Capabilities`]) and refuses the rest before touching hardware. The root never
//! leaves it: all it offers over the root is one keyed HMAC-SHA-256 ([`KeyBackend::expand_root`]), which is one step of
//! the hierarchy of `kf-derive`. Signature keys are named by an opaque [`KeyHandle`] that the registry can store.
//! Every back end passes the same suite, [`conformance::check`].
#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod capabilities;
pub mod conformance;
mod deadline;
mod error;
mod fused;
mod handle;
mod locked_memory;
mod seal;
mod software;
mod wrapped;

use kf_derive::{Algorithm, Info, KeyDerivationKey, Level, Purpose, SoftwareKey};
use kf_key::{KeyAlgorithm, KeyId, SecretArray};

pub use capabilities::{BackendKind, Capabilities, RootUse};
pub use deadline::Deadline;
pub use error::{BackendError, TokenFault};
pub use fused::{FusedBackend, unwrap_replaceable, wrap_replaceable};
pub use handle::{HandleError, KeyHandle, MAX_HANDLE_OCTETS, algorithm_code, algorithm_of_code};
pub use locked_memory::lock_memory;
pub use seal::{MIN_PASSPHRASE_OCTETS, SealError, create_sealed_root, open_sealed_root, seal_root};
pub use software::SoftwareBackend;
pub use wrapped::{generate_wrapped, open_wrapped};

/// A signature key pair that was just generated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GeneratedKeyPair {
    /// SubjectPublicKeyInfo, DER.
    pub spki: Vec<u8>,
    /// How the back end finds the private key again.
    pub handle: KeyHandle,
}

/// What holds the fleet root and signature keys. Calls block; callers own the threads.
pub trait KeyBackend: Send + Sync {
    /// What this back end is and can do. Costs nothing.
    fn capabilities(&self) -> &Capabilities;

    /// One step below the root: `HMAC-SHA-256(root, info || 0x01)`.
    ///
    /// # Errors
    /// [`BackendError::OnlyWraps`] before anything is touched, when the root is of [`RootUse::OnlyWraps`] and the place is
    /// not a wrapping key; [`BackendError`].
    fn expand_root(&self, info: &Info) -> Result<SecretArray<32>, BackendError>;

    /// Generates a signature key pair, non-extractable where the back end is hardware.
    ///
    /// # Errors
    /// [`BackendError::Algorithm`] before anything is touched when the algorithm is not among the capabilities.
    fn generate_key_pair(&self, key: KeyId, algorithm: KeyAlgorithm) -> Result<GeneratedKeyPair, BackendError>;

    /// Opens a signature key. `key` must be the identifier under which it was generated.
    ///
    /// # Errors
    /// [`BackendError::Handle`] for a handle of another back end, key or algorithm.
    fn open_key(&self, key: KeyId, handle: &KeyHandle) -> Result<Box<dyn SignatureKey>, BackendError>;

    /// Destroys the private key where the back end holds it. For a wrapped key the caller destroys the handle.
    ///
    /// # Errors
    /// [`BackendError`].
    fn destroy_key(&self, key: KeyId, handle: &KeyHandle) -> Result<(), BackendError>;

    /// Whether the back end answers now: one HMAC under the root, compared with the one made at start.
    ///
    /// # Errors
    /// [`BackendError`].
    fn health(&self) -> Result<(), BackendError>;
}

/// The root inside a back end as the first key of the hierarchy:
/// `FleetRoot::from_keyed_hmac(HeldRoot::new(backend)).facility(…)` is one call to the back end and the rest in process.
#[derive(Clone, Copy)]
pub struct HeldRoot<'a>(&'a dyn KeyBackend);

impl std::fmt::Debug for HeldRoot<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("HeldRoot").field(self.0.capabilities()).finish()
    }
}

impl<'a> HeldRoot<'a> {
    /// The root that `backend` holds.
    #[must_use]
    pub const fn new(backend: &'a dyn KeyBackend) -> Self {
        Self(backend)
    }
}

impl KeyDerivationKey for HeldRoot<'_> {
    type Error = BackendError;
    type Child = SoftwareKey;

    fn derive(&self, info: &Info) -> Result<SecretArray<32>, BackendError> {
        self.0.expand_root(info)
    }
}

/// An opened private signature key.
pub trait SignatureKey: Send + Sync {
    /// Algorithm.
    fn algorithm(&self) -> KeyAlgorithm;

    /// SubjectPublicKeyInfo, DER.
    fn spki(&self) -> &[u8];

    /// Signs `message` (not a digest). ECDSA signatures are DER `Ecdsa-Sig-Value`, Ed25519 signatures 64 octets.
    ///
    /// # Errors
    /// [`BackendError`].
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, BackendError>;
}

/// The `info` of a value that shows that the root is still the same and is used for nothing else.
///
/// # Errors
/// [`BackendError::Bug`], which cannot occur.
pub fn key_check_info() -> Result<Info, BackendError> {
    Info::new(Level::Wrapping, Algorithm::HmacSha256, Purpose::KeyCheck, &[], 0)
        .map_err(|_too_long| BackendError::Bug("key check info"))
}

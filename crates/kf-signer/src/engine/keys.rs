//! A key that is open: what it may sign, how often it did, and how far its log has come.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Instant;

use kf_backend::SignatureKey;
use kf_key::KeyId;

use super::back_end;
use crate::rate::{Admission, RateWindow};
use crate::{KeyPurpose, SignerError, SignerRefusal};

pub(crate) struct LoadedKey {
    purpose: KeyPurpose,
    key: Box<dyn SignatureKey>,
    /// Set once in the life of the process, so that whoever holds the socket cannot rename an issuer.
    issuer_name: OnceLock<Vec<u8>>,
    window: Mutex<RateWindow>,
    signed: AtomicU64,
    checkpoint: Mutex<Option<(u64, [u8; 32])>>,
}

impl LoadedKey {
    pub(crate) fn new(purpose: KeyPurpose, key: Box<dyn SignatureKey>, ceiling: u32, now: Instant) -> Self {
        Self {
            purpose,
            key,
            issuer_name: OnceLock::new(),
            window: Mutex::new(RateWindow::new(ceiling, now)),
            signed: AtomicU64::new(0),
            checkpoint: Mutex::new(None),
        }
    }

    pub(crate) const fn purpose(&self) -> KeyPurpose {
        self.purpose
    }

    pub(crate) fn spki(&self) -> &[u8] {
        self.key.spki()
    }

    pub(crate) fn signed(&self) -> u64 {
        self.signed.load(Ordering::Relaxed)
    }

    pub(crate) fn require(&self, purposes: &[KeyPurpose]) -> Result<(), SignerError> {
        if purposes.contains(&self.purpose) { Ok(()) } else { Err(SignerError::Refused(SignerRefusal::Purpose)) }
    }

    /// Fixes the issuer Name; an empty one says nothing.
    pub(crate) fn name(&self, name: &[u8]) -> Result<(), SignerError> {
        if name.is_empty() || self.issuer_name.get_or_init(|| name.to_vec()) == name {
            return Ok(());
        }
        Err(SignerError::Refused(SignerRefusal::Content("the key has another issuer name".to_owned())))
    }

    pub(crate) fn issuer_name(&self) -> Result<&[u8], SignerError> {
        self.issuer_name.get().map(Vec::as_slice).ok_or_else(|| {
            SignerError::Refused(SignerRefusal::Content("the key has no issuer name yet; register it".to_owned()))
        })
    }

    /// Counts, then signs what has been checked.
    pub(crate) fn sign(&self, key: KeyId, checked: &[u8], now: Instant) -> Result<Vec<u8>, SignerError> {
        self.count(key, now)?;
        let signature = self.key.sign(checked).map_err(back_end)?;
        self.signed.fetch_add(1, Ordering::Relaxed);
        Ok(signature)
    }

    /// Signs a checkpoint that neither goes back nor forks. The lock is held over the signature, so that two sizes
    /// cannot overtake each other.
    pub(crate) fn sign_checkpoint(
        &self,
        key: KeyId,
        size: u64,
        root: [u8; 32],
        note: &[u8],
        now: Instant,
    ) -> Result<Vec<u8>, SignerError> {
        let mut last = self.checkpoint.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((last_size, last_root)) = *last
            && (size < last_size || (size == last_size && root != last_root))
        {
            return Err(SignerError::Refused(SignerRefusal::Checkpoint { last: last_size }));
        }
        let signature = self.sign(key, note, now)?;
        *last = Some((size, root));
        Ok(signature)
    }

    fn count(&self, key: KeyId, now: Instant) -> Result<(), SignerError> {
        let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        let per_minute = window.ceiling();
        match window.admit(now) {
            Admission::Admitted => return Ok(()),
            Admission::FirstRefusal => tracing::warn!(%key, per_minute, "a key reached its ceiling of signatures"),
            Admission::Refused => {}
        }
        Err(SignerError::Rate { key, per_minute })
    }
}

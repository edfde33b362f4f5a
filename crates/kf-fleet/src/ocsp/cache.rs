//! Pre-signed answers. An answer is kept only if no status changed between the look-up it rests on and its entry, so
//! that none outlives a revocation that was acknowledged.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use kf_key::{SerialNumber, UnixMillis};

/// The most answers kept, about 800 octets each.
const MAX_ANSWERS: usize = 65_536;

/// An answer without nonce.
#[derive(Clone)]
pub(super) struct Kept {
    pub(super) der: Arc<[u8]>,
    /// Tells one version of the answer from another, as an entity tag does.
    pub(super) tag: u64,
    pub(super) this_update: UnixMillis,
    pub(super) next_update: UnixMillis,
}

impl Kept {
    /// Until when it is given out: the middle of its validity.
    pub(super) const fn half(&self) -> UnixMillis {
        self.this_update.plus(self.next_update.since(self.this_update) / 2)
    }
}

/// Answers by serial number and CertID as asked.
#[derive(Default)]
pub(crate) struct AnswerCache {
    answers: Mutex<BTreeMap<(SerialNumber, Vec<u8>), Kept>>,
    changes: AtomicU64,
}

impl AnswerCache {
    /// To be read before the status look-up that an answer will rest on.
    pub(super) fn changes(&self) -> u64 {
        self.changes.load(Ordering::SeqCst)
    }

    /// A kept answer that is still in the first half of its validity, and the status changes so far.
    pub(super) fn find(&self, serial: SerialNumber, cert_id: &[u8], now: UnixMillis) -> Option<(Kept, u64)> {
        let answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = answers.get(&(serial, cert_id.to_vec()))?;
        // Changes are counted under the lock, so that this count and the entry belong together.
        (now >= kept.this_update && now < kept.half()).then(|| (kept.clone(), self.changes()))
    }

    /// Keeps an answer, unless a status changed since `changes` was read.
    pub(super) fn keep(&self, serial: SerialNumber, cert_id: Vec<u8>, changes: u64, kept: Kept) {
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        if self.changes.load(Ordering::SeqCst) != changes {
            return;
        }
        if answers.len() >= MAX_ANSWERS {
            answers.pop_first();
        }
        answers.insert((serial, cert_id), kept);
    }

    /// Forgets the answers of these certificates. To be called after the commit and before the acknowledgement.
    pub(crate) fn forget(&self, serials: &[SerialNumber]) {
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        self.changes.fetch_add(1, Ordering::SeqCst);
        for serial in serials {
            while let Some(key) = answers
                .range((*serial, Vec::new())..)
                .next()
                .filter(|((found, _), _)| found == serial)
                .map(|(key, _)| key.clone())
            {
                answers.remove(&key);
            }
        }
    }

    /// Forgets everything: a CA changed or its responder was renewed.
    pub(crate) fn forget_all(&self) {
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        self.changes.fetch_add(1, Ordering::SeqCst);
        answers.clear();
    }
}

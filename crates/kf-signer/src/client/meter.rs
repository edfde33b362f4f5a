//! Signatures are set aside before they are made, many at a time: one durable step for all of them, and after a crash a key has
//! signed at most as often as its count says.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use kf_key::KeyId;

use super::SignerClient;
use crate::SignerError;

/// What a signature is for, as far as a limit goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignatureUse {
    /// Something new: it is not made beyond the limit.
    Issue,
    /// What must go on whatever the count says: CRLs, checkpoints, what a root signs, the link to a successor.
    GoOn,
}

/// Signatures that were set aside, durably.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SetAside {
    /// How many; at least one.
    pub count: u64,
    /// Whether they lie beyond the limit, and are for what must go on alone.
    pub is_beyond: bool,
}

/// Sets signatures of a key aside. It answers [`SignerError::UsedUp`] where the limit leaves none to issue with.
pub type SetAsideSignatures = Arc<
    dyn Fn(KeyId, SignatureUse) -> Pin<Box<dyn Future<Output = Result<SetAside, SignerError>> + Send>> + Send + Sync,
>;

/// What is left of what was set aside.
#[derive(Default)]
pub(super) struct Meter {
    set_aside: RwLock<Option<SetAsideSignatures>>,
    left: Mutex<BTreeMap<(KeyId, bool), u64>>,
    turn: tokio::sync::Mutex<()>,
}

impl Meter {
    fn take(&self, key: KeyId, wanted: SignatureUse) -> bool {
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        let beyond = (wanted == SignatureUse::GoOn).then_some((key, true));
        for place in [Some((key, false)), beyond].into_iter().flatten() {
            if let Some(count) = left.get_mut(&place).filter(|count| **count > 0) {
                *count = count.saturating_sub(1);
                return true;
            }
        }
        false
    }

    fn add(&self, key: KeyId, aside: SetAside) {
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        let count = left.entry((key, aside.is_beyond)).or_default();
        *count = count.saturating_add(aside.count);
    }
}

impl SignerClient {
    /// Has every signature counted from now on, by whoever keeps the counts.
    pub fn count_signatures(&self, set_aside: SetAsideSignatures) {
        *self.shared.meter.set_aside.write().unwrap_or_else(PoisonError::into_inner) = Some(set_aside);
    }

    /// Takes one signature of a key from what is set aside.
    ///
    /// # Errors
    /// [`SignerError::UsedUp`], and those of whoever keeps the counts.
    pub(super) async fn count(&self, key: KeyId, wanted: SignatureUse) -> Result<(), SignerError> {
        let meter = &self.shared.meter;
        let set_aside = meter.set_aside.read().unwrap_or_else(PoisonError::into_inner).clone();
        // A fleet that is being founded, and the tests of this crate, have nobody who counts.
        let Some(set_aside) = set_aside else { return Ok(()) };
        if meter.take(key, wanted) {
            return Ok(());
        }
        // One at a time: the first of many waiting requests sets aside for all.
        let _turn = meter.turn.lock().await;
        if meter.take(key, wanted) {
            return Ok(());
        }
        let SetAside { count, is_beyond } = set_aside(key, wanted).await?;
        meter.add(key, SetAside { count: count.saturating_sub(1), is_beyond });
        Ok(())
    }
}

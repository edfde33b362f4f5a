//! CRLs: kept in memory, rebuilt shard by shard within a second of a revocation, read without waiting.

mod board;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kf_broker::PublishedCrl;
use kf_key::{AuthorityId, DeviceId, DeviceState, UnixMillis};
use kf_pki::crl::CrlScope;
use kf_store::final_crl::FinalCrl;
use kf_store::revocation::{Revoked, StatusChange};

pub(crate) use board::Board;

use crate::authority::Known;
use crate::fence::Line;
use crate::{Fleet, FleetError};

/// A signed CRL as it is served.
#[derive(Clone, Debug)]
pub struct CurrentCrl {
    /// CertificateList, DER.
    pub der: Arc<[u8]>,
    /// cRLNumber.
    pub number: u64,
    /// thisUpdate.
    pub this_update: UnixMillis,
    /// nextUpdate.
    pub next_update: UnixMillis,
}

fn locked(board: &Mutex<Board>) -> MutexGuard<'_, Board> {
    board.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Fleet {
    /// The newest CRL of a CA and scope, or `None` when there is no such CA or shard. A full CRL that is out of date
    /// because of a revocation is signed anew here.
    ///
    /// # Errors
    /// [`FleetError::Signer`] when the list cannot be signed and none was before.
    pub async fn crl(&self, authority: AuthorityId, scope: CrlScope) -> Result<Option<CurrentCrl>, FleetError> {
        let Some(board) = self.board(authority).filter(|board| locked(board).has(scope)) else { return Ok(None) };
        let current = locked(&board).current(scope, self.now());
        match (current, scope) {
            (Some((crl, true)), _) | (Some((crl, false)), CrlScope::Shard(_)) => Ok(Some(crl)),
            (stale, _) => match self.sign_crl(authority, &board, scope).await {
                Ok(()) => Ok(locked(&board).current(scope, self.now()).map(|(crl, _)| crl)),
                Err(error) => stale.map(|(crl, _)| Some(crl)).ok_or(error),
            },
        }
    }

    /// Enters changes of status where CRLs and OCSP see them, and wakes the publisher. To be called after the commit
    /// and before the acknowledgement.
    pub(crate) fn enter_status_changes(&self, changes: &[StatusChange]) {
        if changes.is_empty() {
            return;
        }
        self.fence.note(changes);
        let mut by_authority: BTreeMap<AuthorityId, Vec<&StatusChange>> = BTreeMap::new();
        for change in changes {
            by_authority.entry(change.authority).or_default().push(change);
        }
        for (authority, changes) in by_authority {
            let Some(board) = self.board(authority) else { continue };
            let mut board = locked(&board);
            for change in changes {
                match change.revoked {
                    Some((at, reason)) => board.enter(change.serial, at, reason, change.not_after),
                    None => board.release(change.serial),
                }
            }
        }
        let serials: Vec<_> = changes.iter().map(|change| change.serial).collect();
        self.answers.forget(&serials);
        self.wake.notify_one();
    }

    /// As [`Fleet::enter_status_changes`], for a mass act whose changes may be too many to be listed one by one.
    pub(crate) fn enter_revoked(&self, revoked: &Revoked) -> Result<(), FleetError> {
        if revoked.is_complete() {
            self.enter_status_changes(&revoked.changes);
            return self.note_states(revoked);
        }
        for authority in
            revoked.shards.iter().map(|(authority, _)| *authority).collect::<std::collections::BTreeSet<_>>()
        {
            self.fill_board(authority)?;
            self.note_all_stopped(authority)?;
        }
        self.note_states(revoked)?;
        self.answers.forget_all();
        self.wake.notify_one();
        Ok(())
    }

    /// Notes the states of devices, after those of their certificates: whoever reads that a device is stopped has read that they are.
    fn note_states(&self, revoked: &Revoked) -> Result<(), FleetError> {
        let at = self.now();
        let line = |(device, state): (DeviceId, DeviceState)| Line::DeviceState { device, state, at };
        let mut states = revoked.states.clone();
        if states.len() >= Revoked::MAX_CHANGES {
            // It was too much to be listed.
            states.clear();
            self.store.for_each_stopped_device(&mut |device, state| states.push((device, state)))?;
        }
        self.fence.note_lines(states.into_iter().map(line));
        Ok(())
    }

    /// Tells the witness what a CA has stopped, where it was too much to be listed.
    fn note_all_stopped(&self, authority: AuthorityId) -> Result<(), FleetError> {
        let mut changes = Vec::new();
        self.store.for_each_revoked(authority, &mut |entry| changes.push(entry.as_change(authority)))?;
        self.fence.note(&changes);
        Ok(())
    }

    /// Makes a board for every CA that has none yet; of one that is closed nothing is revoked any more.
    pub(crate) fn load_boards(&self) -> Result<(), FleetError> {
        let authorities = self.authorities();
        let is_live = |id: &AuthorityId| authorities.live().any(|known| known.record.id == *id);
        self.boards.write().unwrap_or_else(PoisonError::into_inner).retain(|id, _| is_live(id));
        for known in authorities.live() {
            let missing = self.board(known.record.id).is_none();
            if missing {
                self.make_board(known)?;
                if known.record.key_destroyed.is_some() {
                    self.close_board(known.record.id)?;
                }
            }
        }
        Ok(())
    }

    /// Makes a board for a CA that has none: one that is closed, or was withdrawn, has no lists any more until its key ends.
    pub(crate) fn ensure_board(&self, known: &Known) -> Result<(), FleetError> {
        match self.board(known.record.id) {
            Some(_) => Ok(()),
            None => self.make_board(known),
        }
    }

    fn make_board(&self, known: &Known) -> Result<(), FleetError> {
        let board = Arc::new(Mutex::new(Board::new(known.issuer.clone(), known.record.key)));
        self.boards.write().unwrap_or_else(PoisonError::into_inner).insert(known.record.id, board);
        self.fill_board(known.record.id)
    }

    fn fill_board(&self, authority: AuthorityId) -> Result<(), FleetError> {
        let Some(board) = self.board(authority) else { return Ok(()) };
        let mut entries = Vec::new();
        self.store.for_each_revoked(authority, &mut |entry| entries.push(entry))?;
        let mut board = locked(&board);
        for entry in entries {
            board.enter(entry.serial, entry.at, entry.reason, entry.not_after);
        }
        Ok(())
    }

    /// Signs every shard that changed or is past half of its life. Failures are logged and tried again at the next
    /// turn; the older list stays.
    pub(crate) async fn sign_due_crls(&self) {
        let boards: Vec<_> = {
            let boards = self.boards.read().unwrap_or_else(PoisonError::into_inner);
            boards.iter().map(|(authority, board)| (*authority, Arc::clone(board))).collect()
        };
        for (authority, board) in boards {
            let with_full = locked(&board).is_without_shards_in_use() || !self.attached_brokers().is_empty();
            let due = locked(&board).due(self.now(), with_full);
            for scope in due {
                if let Err(error) = self.sign_crl(authority, &board, scope).await {
                    tracing::error!(%authority, ?scope, error = %error, "CRL not signed");
                }
            }
        }
    }

    /// Signs every list of a CA once more, never to expire. Nothing is published.
    pub(crate) async fn sign_last_lists(&self, known: &Known) -> Result<Vec<FinalCrl>, FleetError> {
        let authority = known.record.id;
        let board = self.board(authority).ok_or(FleetError::Bug("a CA without lists"))?;
        let shards = known.issuer.shard_count.max(1);
        let first = self.store.reserve_crl_numbers(authority, shards.saturating_add(1)).await?;
        let this_update = UnixMillis::from_seconds(self.now().seconds());
        let mut lists = Vec::with_capacity(usize::from(shards) + 1);
        for (shard, number) in std::iter::once(None).chain((0..shards).map(Some)).zip(first..) {
            let scope = shard.map_or(CrlScope::Full, CrlScope::Shard);
            let draft = locked(&board).last_draft(scope, number, this_update);
            let draft = draft.map_err(|_reason| FleetError::Bug("last CRL draft"))?;
            let key = draft.key;
            let der = self.signer.sign_crl(key, draft.checked).await?;
            lists.push(FinalCrl { shard, number, this_update, der });
        }
        Ok(lists)
    }

    /// The last lists that the witness has and this registry, being of before, has not.
    pub(crate) fn last_lists_at_witness(&self, known: &Known) -> Result<Option<Vec<FinalCrl>>, FleetError> {
        if !self.store.final_crls(known.record.id)?.is_empty() {
            return Ok(None);
        }
        self.fence.last_lists(&known.issuer, self.now())
    }

    /// Counts the changes of status below a CA.
    pub(crate) fn status_changes_of(&self, authority: AuthorityId) -> u64 {
        self.board(authority).map_or(0, |board| locked(&board).changes())
    }

    /// Serves the last lists from now on.
    pub(crate) fn close_board(&self, authority: AuthorityId) -> Result<(), FleetError> {
        let lists = self.store.final_crls(authority)?;
        if let Some(board) = self.board(authority) {
            locked(&board).close(lists);
        }
        Ok(())
    }

    async fn sign_crl(&self, authority: AuthorityId, board: &Mutex<Board>, scope: CrlScope) -> Result<(), FleetError> {
        let number = self.store.reserve_crl_numbers(authority, 1).await?;
        let lifetime = self.config.crl_lifetime_seconds.saturating_mul(UnixMillis::SECOND);
        let draft =
            locked(board).draft(scope, number, self.now(), lifetime).map_err(|_reason| FleetError::Bug("CRL draft"))?;
        let key = draft.key;
        let (checked, finish) = draft.into_parts();
        let der = self.signer.sign_crl(key, checked).await?;
        locked(board).publish(finish(der));
        Ok(())
    }

    /// The full CRLs of all CAs, PEM, as brokers need them.
    ///
    /// # Errors
    /// [`FleetError::Signer`].
    pub async fn broker_crls(&self) -> Result<Vec<PublishedCrl>, FleetError> {
        let mut lists = Vec::new();
        for known in self.authorities().live() {
            let authority = known.record.id;
            if let Some(crl) = self.crl(authority, CrlScope::Full).await? {
                lists.push(PublishedCrl { authority, pem: kf_pki::pem::encode("X509 CRL", &crl.der) });
            }
        }
        Ok(lists)
    }

    /// The highest cRLNumber of each CA that is out.
    pub(crate) fn crl_numbers(&self) -> BTreeMap<AuthorityId, u64> {
        let boards = self.boards.read().unwrap_or_else(PoisonError::into_inner);
        boards.iter().filter_map(|(id, board)| Some((*id, locked(board).highest_number()?))).collect()
    }

    /// Earliest nextUpdate of all CRLs.
    pub(crate) fn crl_next_update(&self) -> Option<UnixMillis> {
        let boards = self.boards.read().unwrap_or_else(PoisonError::into_inner);
        boards.values().filter_map(|board| locked(board).next_update()).min()
    }

    fn board(&self, authority: AuthorityId) -> Option<Arc<Mutex<Board>>> {
        self.boards.read().unwrap_or_else(PoisonError::into_inner).get(&authority).cloned()
    }
}

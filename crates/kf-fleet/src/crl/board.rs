//! The revoked certificates of one CA, by shard, and the newest signed CRL of each scope.

use std::collections::BTreeMap;
use std::sync::Arc;

use kf_key::{KeyId, RevocationReason, SerialNumber, UnixMillis};
use kf_pki::crl::{CheckedCrl, CrlEntry, CrlScope, EncodedEntry, NO_NEXT_UPDATE, check_crl};
use kf_pki::issuer::Issuer;
use kf_store::final_crl::FinalCrl;

use super::CurrentCrl;

struct Revoked {
    encoded: EncodedEntry,
    not_after: UnixMillis,
}

/// One published list: the newest one, and whether a change came after it.
#[derive(Default)]
struct Slot {
    current: Option<CurrentCrl>,
    /// Counts changes; a list signed for an older count is out of date.
    changes: u64,
    signed_changes: Option<u64>,
}

/// A list to be signed, and what it was made from.
pub(crate) struct Draft {
    pub(crate) scope: CrlScope,
    pub(crate) key: KeyId,
    pub(crate) checked: CheckedCrl,
    number: u64,
    this_update: UnixMillis,
    next_update: UnixMillis,
    changes: u64,
}

/// All lists of one CA.
pub(crate) struct Board {
    issuer: Issuer,
    key: KeyId,
    shards: Vec<(BTreeMap<SerialNumber, Revoked>, Slot)>,
    full: Slot,
    /// Whether the CA has signed its last lists and its key is destroyed.
    is_closed: bool,
}

impl Board {
    /// A board without entries.
    pub(crate) fn new(issuer: Issuer, key: KeyId) -> Self {
        let count = usize::from(issuer.shard_count.max(1));
        let shards = std::iter::repeat_with(Default::default).take(count).collect();
        Self { issuer, key, shards, full: Slot::default(), is_closed: false }
    }

    /// Whether the CA has one shard only, as a root has: its certificates point at the full list.
    pub(crate) const fn is_without_shards_in_use(&self) -> bool {
        self.shards.len() <= 1
    }

    /// Enters a revoked or held certificate; a later reason replaces an earlier one.
    pub(crate) fn enter(
        &mut self,
        serial: SerialNumber,
        revoked: UnixMillis,
        reason: RevocationReason,
        not_after: UnixMillis,
    ) {
        let encoded = CrlEntry { serial, revoked, reason }.encode();
        let shard = usize::from(serial.shard(self.issuer.shard_count));
        if let Some((entries, slot)) = self.shards.get_mut(shard) {
            entries.insert(serial, Revoked { encoded, not_after });
            slot.changes += 1;
            self.full.changes += 1;
        }
    }

    /// Takes out a certificate that was released from hold.
    pub(crate) fn release(&mut self, serial: SerialNumber) {
        let shard = usize::from(serial.shard(self.issuer.shard_count));
        if let Some((entries, slot)) = self.shards.get_mut(shard)
            && entries.remove(&serial).is_some()
        {
            slot.changes += 1;
            self.full.changes += 1;
        }
    }

    /// Takes the last lists: from now on they are the newest, whatever changes.
    pub(crate) fn close(&mut self, lists: Vec<FinalCrl>) {
        self.is_closed = true;
        for FinalCrl { shard, number, this_update, der } in lists {
            let scope = shard.map_or(CrlScope::Full, CrlScope::Shard);
            let Some(slot) = self.slot_mut(scope) else { continue };
            let crl = CurrentCrl { der: Arc::from(der), number, this_update, next_update: NO_NEXT_UPDATE };
            slot.current = Some(crl);
        }
    }

    /// Counts every change, so that one which came meanwhile is noticed.
    pub(crate) const fn changes(&self) -> u64 {
        self.full.changes
    }

    /// Scopes whose list is missing, out of date or past half of its life. The full list counts only when `with_full`.
    pub(crate) fn due(&self, now: UnixMillis, with_full: bool) -> Vec<CrlScope> {
        if self.is_closed {
            return Vec::new();
        }
        let shards = self.shards.iter().zip(0u16..).filter(|((_, slot), _)| slot.is_due(now));
        let mut due: Vec<CrlScope> = shards.map(|(_, index)| CrlScope::Shard(index)).collect();
        if with_full && self.full.is_due(now) {
            due.push(CrlScope::Full);
        }
        due
    }

    /// Builds the list of a scope, to be signed under `number`, which must never have been used by this CA. An entry
    /// leaves once it has been on a list of this scope that was made after its certificate expired (RFC 5280 section
    /// 3.3).
    pub(crate) fn draft(
        &mut self,
        scope: CrlScope,
        number: u64,
        now: UnixMillis,
        lifetime: u64,
    ) -> Result<Draft, &'static str> {
        self.forget_long_expired(now);
        let last = self.slot(scope).and_then(|slot| slot.current.as_ref()).map(|crl| crl.this_update);
        self.draft_of(scope, number, (now, now.plus(lifetime)), last)
    }

    /// The last list of a scope: it never expires, and leaves out nothing that is known.
    pub(crate) fn last_draft(&self, scope: CrlScope, number: u64, now: UnixMillis) -> Result<Draft, &'static str> {
        self.draft_of(scope, number, (now, NO_NEXT_UPDATE), None)
    }

    fn draft_of(
        &self,
        scope: CrlScope,
        number: u64,
        (now, next_update): (UnixMillis, UnixMillis),
        last: Option<UnixMillis>,
    ) -> Result<Draft, &'static str> {
        let (slot, shards) = match scope {
            CrlScope::Full => (&self.full, self.shards.as_slice()),
            CrlScope::Shard(index) => {
                let shard = self.shards.get(usize::from(index)).ok_or("no such shard")?;
                (&shard.1, std::slice::from_ref(shard))
            }
        };
        let entries: Vec<&EncodedEntry> = shards
            .iter()
            .flat_map(|(entries, _)| entries.values())
            .filter(|revoked| last.is_none_or(|last| revoked.not_after >= last))
            .map(|revoked| &revoked.encoded)
            .collect();
        let changes = slot.changes;
        let checked = check_crl(&self.issuer, scope, number, now, next_update, entries.into_iter())?;
        Ok(Draft { scope, key: self.key, checked, number, this_update: now, next_update, changes })
    }

    /// No list needs entries that expired a month ago; the registry keeps them.
    fn forget_long_expired(&mut self, now: UnixMillis) {
        for (entries, _) in &mut self.shards {
            entries.retain(|_, revoked| revoked.not_after.plus(30 * UnixMillis::DAY) >= now);
        }
    }

    /// Publishes a signed list, unless a newer one is there already.
    pub(crate) fn publish(&mut self, signed: SignedDraft) {
        let Some(slot) = self.slot_mut(signed.scope) else { return };
        if slot.current.as_ref().is_none_or(|current| current.number < signed.crl.number) {
            slot.current = Some(signed.crl);
            slot.signed_changes = Some(signed.changes);
        }
    }

    /// The newest list of a scope, and whether it is fresh: nothing changed since, and its life is not half over.
    pub(crate) fn current(&self, scope: CrlScope, now: UnixMillis) -> Option<(CurrentCrl, bool)> {
        let slot = self.slot(scope)?;
        let current = slot.current.clone()?;
        Some((current, self.is_closed || !slot.is_due(now)))
    }

    /// Whether the scope exists.
    pub(crate) fn has(&self, scope: CrlScope) -> bool {
        match scope {
            CrlScope::Full => true,
            CrlScope::Shard(index) => usize::from(index) < self.shards.len(),
        }
    }

    /// The highest cRLNumber of all lists that are out.
    pub(crate) fn highest_number(&self) -> Option<u64> {
        let slots = self.shards.iter().map(|(_, slot)| slot).chain([&self.full]);
        slots.filter_map(|slot| slot.current.as_ref().map(|crl| crl.number)).max()
    }

    /// Earliest nextUpdate of all lists that are out.
    pub(crate) fn next_update(&self) -> Option<UnixMillis> {
        let slots = self.shards.iter().map(|(_, slot)| slot).chain([&self.full]);
        slots.filter_map(|slot| slot.current.as_ref().map(|crl| crl.next_update)).min()
    }

    fn slot(&self, scope: CrlScope) -> Option<&Slot> {
        match scope {
            CrlScope::Full => Some(&self.full),
            CrlScope::Shard(index) => self.shards.get(usize::from(index)).map(|(_, slot)| slot),
        }
    }

    fn slot_mut(&mut self, scope: CrlScope) -> Option<&mut Slot> {
        match scope {
            CrlScope::Full => Some(&mut self.full),
            CrlScope::Shard(index) => self.shards.get_mut(usize::from(index)).map(|(_, slot)| slot),
        }
    }
}

impl Slot {
    fn is_due(&self, now: UnixMillis) -> bool {
        self.signed_changes != Some(self.changes)
            || self.current.as_ref().is_none_or(|crl| {
                let half = crl.next_update.since(crl.this_update) / 2;
                now >= crl.this_update.plus(half)
            })
    }
}

/// A signed list on its way to its slot.
pub(crate) struct SignedDraft {
    scope: CrlScope,
    changes: u64,
    crl: CurrentCrl,
}

impl Draft {
    /// Splits off what is signed; the rest waits for the DER.
    pub(crate) fn into_parts(self) -> (CheckedCrl, impl FnOnce(Vec<u8>) -> SignedDraft) {
        let Self { scope, checked, number, this_update, next_update, changes, key: _ } = self;
        let finish = move |der: Vec<u8>| SignedDraft {
            scope,
            changes,
            crl: CurrentCrl { der: Arc::from(der), number, this_update, next_update },
        };
        (checked, finish)
    }
}

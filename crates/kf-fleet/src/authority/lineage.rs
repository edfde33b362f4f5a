//! Which CA takes over from which, in memory.

use std::collections::BTreeMap;

use kf_access::Visibility;
use kf_api::authority::AuthorityKind;
use kf_api::succession::Succession;
use kf_key::{AuthorityId, SuccessionState};
use kf_store::Store;

use crate::FleetError;

/// One succession, with the link certificates of a root.
pub(crate) struct Handover {
    pub(crate) succession: Succession,
    /// NewWithOld, DER.
    pub(crate) new_with_old: Option<Vec<u8>>,
    /// OldWithNew, DER.
    pub(crate) old_with_new: Option<Vec<u8>>,
}

/// All successions of the fleet at one moment.
#[derive(Default)]
pub(crate) struct Lineage {
    /// By predecessor.
    handovers: BTreeMap<AuthorityId, Handover>,
    /// Those that were withdrawn, by the CA that was to take over. Their predecessors may have other successors.
    withdrawn: BTreeMap<AuthorityId, Succession>,
}

/// The most generations that are followed.
const MAX_GENERATIONS: usize = 64;

impl Lineage {
    pub(crate) fn load(store: &Store) -> Result<Self, FleetError> {
        let (mut handovers, mut withdrawn) = (BTreeMap::new(), BTreeMap::new());
        for stored in store.successions()? {
            if stored.succession.state == SuccessionState::Withdrawn {
                withdrawn.insert(stored.succession.successor, stored.succession);
                continue;
            }
            let der = |serial: Option<kf_key::SerialNumber>| -> Result<Option<Vec<u8>>, FleetError> {
                let Some(serial) = serial else { return Ok(None) };
                let found = store.certificate(serial, &Visibility::Fleet)?;
                found.map(|found| Some(found.der)).ok_or(FleetError::Bug("succession without its link certificate"))
            };
            let (new_with_old, old_with_new) = (der(stored.new_with_old)?, der(stored.old_with_new)?);
            let pem = |der: &Option<Vec<u8>>| der.as_ref().map(|der| kf_pki::pem::certificate(der));
            let succession = Succession {
                new_with_old_pem: pem(&new_with_old),
                old_with_new_pem: pem(&old_with_new),
                ..stored.succession
            };
            handovers.insert(succession.predecessor, Handover { succession, new_with_old, old_with_new });
        }
        Ok(Self { handovers, withdrawn })
    }

    /// Those that go on, or have gone on to their end.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Handover> {
        self.handovers.values()
    }

    /// What has become of a CA as the old one.
    pub(crate) fn from(&self, authority: AuthorityId) -> Option<&Handover> {
        self.handovers.get(&authority)
    }

    /// How a CA came to be the new one.
    pub(crate) fn to(&self, authority: AuthorityId) -> Option<&Handover> {
        self.handovers.values().find(|handover| handover.succession.successor == authority)
    }

    /// The succession in which a CA was to take over, and was withdrawn.
    pub(crate) fn withdrawn(&self, authority: AuthorityId) -> Option<&Succession> {
        self.withdrawn.get(&authority)
    }

    /// Whether a CA issues: it has not handed over, is not still waiting to take over, and was not withdrawn.
    pub(crate) fn may_issue(&self, authority: AuthorityId) -> bool {
        let handed_over =
            self.from(authority).is_some_and(|handover| handover.succession.state >= SuccessionState::Switched);
        let waits = self.to(authority).is_some_and(|handover| handover.succession.state < SuccessionState::Switched);
        !handed_over && !waits && !self.withdrawn.contains_key(&authority)
    }

    /// Whether a CA is handed out to devices.
    pub(crate) fn is_handed_out(&self, authority: AuthorityId) -> bool {
        self.from(authority).is_none_or(|handover| handover.succession.state < SuccessionState::Retired)
    }

    /// Whether everything that a CA issued has expired, or it was withdrawn before it issued anything.
    pub(crate) fn is_closed(&self, authority: AuthorityId) -> bool {
        if self.withdrawn.contains_key(&authority) {
            return true;
        }
        self.from(authority).is_some_and(|handover| handover.succession.state == SuccessionState::Closed)
    }

    /// The CA that issues today in the place of this one; itself, if it has not handed over.
    pub(crate) fn today(&self, authority: AuthorityId) -> AuthorityId {
        let mut at = authority;
        for _ in 0..MAX_GENERATIONS {
            match self.from(at).filter(|handover| handover.succession.state >= SuccessionState::Switched) {
                Some(handover) => at = handover.succession.successor,
                None => break,
            }
        }
        at
    }

    /// The succession of roots in which both are handed out.
    pub(crate) fn open_root(&self) -> Option<&Handover> {
        self.handovers.values().find(|handover| {
            handover.succession.kind == AuthorityKind::Root && handover.succession.state < SuccessionState::Retired
        })
    }
}

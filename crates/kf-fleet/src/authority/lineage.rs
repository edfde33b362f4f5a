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

/// All successions of the fleet at one moment, by predecessor.
#[derive(Default)]
pub(crate) struct Lineage(BTreeMap<AuthorityId, Handover>);

/// The most generations that are followed.
const MAX_GENERATIONS: usize = 64;

impl Lineage {
    pub(crate) fn load(store: &Store) -> Result<Self, FleetError> {
        let mut handovers = BTreeMap::new();
        for stored in store.successions()? {
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
        Ok(Self(handovers))
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &Handover> {
        self.0.values()
    }

    /// What has become of a CA as the old one.
    pub(crate) fn from(&self, authority: AuthorityId) -> Option<&Handover> {
        self.0.get(&authority)
    }

    /// How a CA came to be the new one.
    pub(crate) fn to(&self, authority: AuthorityId) -> Option<&Handover> {
        self.0.values().find(|handover| handover.succession.successor == authority)
    }

    /// Whether a CA issues: it has not handed over, and is not still waiting to take over.
    pub(crate) fn may_issue(&self, authority: AuthorityId) -> bool {
        let handed_over =
            self.from(authority).is_some_and(|handover| handover.succession.state >= SuccessionState::Switched);
        let waits = self.to(authority).is_some_and(|handover| handover.succession.state < SuccessionState::Switched);
        !handed_over && !waits
    }

    /// Whether a CA is handed out to devices.
    pub(crate) fn is_handed_out(&self, authority: AuthorityId) -> bool {
        self.from(authority).is_none_or(|handover| handover.succession.state < SuccessionState::Retired)
    }

    /// Whether everything that a CA issued has expired.
    pub(crate) fn is_closed(&self, authority: AuthorityId) -> bool {
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
        self.0.values().find(|handover| {
            handover.succession.kind == AuthorityKind::Root && handover.succession.state < SuccessionState::Retired
        })
    }
}

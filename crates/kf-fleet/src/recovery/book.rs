//! What the fence knows, line by line, in the form in which a registry is compared with it.

use std::collections::{BTreeMap, BTreeSet};

use kf_api::batch::BatchState;
use kf_key::{
    AuthorityId, BackupId, BatchId, DeviceId, DeviceState, FacilityId, OperatorId, ProposalId, SerialNumber, TokenId,
    UnixMillis,
};
use kf_store::incident::HoldTarget;
use kf_store::revocation::StatusChange;

use crate::FleetError;
use crate::fence::{FenceKeeper, Line};

/// Where issuance is stopped: at a facility, by a CA, or with neither everywhere.
pub(super) type Place = (Option<FacilityId>, Option<AuthorityId>);

/// What the fence knows.
#[derive(Default)]
pub(super) struct Book {
    pub(super) certificates: BTreeMap<SerialNumber, StatusChange>,
    /// The newest state of each device that was ever stopped.
    pub(super) devices: BTreeMap<DeviceId, DeviceState>,
    pub(super) batches: BTreeMap<BatchId, BatchState>,
    pub(super) blocked: BTreeSet<[u8; 32]>,
    /// Why nothing is issued there; `None`: it goes on.
    pub(super) issuance: BTreeMap<Place, Option<String>>,
    pub(super) backups: BTreeMap<BackupId, (u32, UnixMillis, bool)>,
    /// Whether they may sign in, of those who were ever disabled.
    pub(super) operators: BTreeMap<OperatorId, bool>,
    pub(super) withdrawn: BTreeSet<TokenId>,
    pub(super) opened: BTreeSet<ProposalId>,
}

impl Book {
    pub(super) fn read(fence: &FenceKeeper) -> Result<Self, FleetError> {
        let mut book = Self::default();
        fence.for_each_line(|line| book.take(line))?;
        Ok(book)
    }

    fn take(&mut self, line: Line) {
        match line {
            Line::Certificate { serial, authority, device, not_after, stopped } => {
                let change = StatusChange { serial, authority, shard: 0, revoked: stopped, not_after, device };
                self.certificates.insert(serial, change);
            }
            Line::DeviceState { device, state, .. } => {
                self.devices.insert(device, state);
            }
            Line::BatchEnded { batch, state, .. } => {
                self.batches.insert(batch, state);
            }
            Line::KeyBlocked { spki_sha256, .. } => {
                let mut digest = [0; 32];
                if hex::decode_to_slice(&spki_sha256, &mut digest).is_ok() {
                    self.blocked.insert(digest);
                }
            }
            Line::Issuance { facility, authority, stopped, .. } => {
                self.issuance.insert((facility, authority), stopped);
            }
            Line::Backup { backup, key_version, at } => drop(self.backups.insert(backup, (key_version, at, false))),
            Line::BackupRetired { backup, .. } => {
                if let Some((.., is_retired)) = self.backups.get_mut(&backup) {
                    *is_retired = true;
                }
            }
            Line::Operator { operator, enabled, .. } => drop(self.operators.insert(operator, enabled)),
            Line::TokenWithdrawn { token, .. } => drop(self.withdrawn.insert(token)),
            Line::BreakGlassOpened { credential, .. } => drop(self.opened.insert(credential)),
            // Taken care of once the fleet is open.
            Line::DeviceKey { .. }
            | Line::AuthorityKey { .. }
            | Line::LogKey { .. }
            | Line::PinnedKey { .. }
            | Line::FacilityEpoch { .. }
            | Line::EncryptionMinimum { .. }
            | Line::EncryptionVersion { .. }
            | Line::WrappingVersion { .. } => {}
        }
    }
}

/// The facility or CA; `None`: the whole fleet.
pub(super) const fn target_of(place: Place) -> Option<HoldTarget> {
    match place {
        (Some(facility), _) => Some(HoldTarget::Facility(facility)),
        (None, Some(authority)) => Some(HoldTarget::Authority(authority)),
        (None, None) => None,
    }
}

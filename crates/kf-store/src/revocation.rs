//! Revocation, hold and release, of one certificate or of many.

use std::collections::BTreeSet;

use kf_access::Visibility;
use kf_key::{AuthorityId, DeviceId, FacilityId, RevocationReason, SerialNumber, UnixMillis};

use crate::{Audit, Logged, Store, StoreError};

/// Which certificates an act touches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selection {
    /// One certificate.
    Certificate(SerialNumber),
    /// Those of a device.
    Device(DeviceId),
    /// Those of every device of a batch.
    Batch(String),
    /// Those of every device of a facility.
    Facility(FacilityId),
    /// Everything a CA issued; its own certificate is not among them.
    Authority(AuthorityId),
}

/// Which profiles a mass revocation touches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profiles {
    /// LDevIDs only: the IDevID stays with the device.
    LDevIdOnly,
    /// IDevIDs and LDevIDs.
    Device,
    /// All.
    All,
}

/// A revocation, a hold (`certificateHold`) or a release (`removeFromCRL`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revocation {
    /// Which certificates.
    pub selection: Selection,
    /// Of which profiles; a single certificate is taken whatever its profile.
    pub profiles: Profiles,
    /// Why. A hold touches good ones, a release held ones, anything else good and held ones.
    pub reason: RevocationReason,
    /// When.
    pub at: UnixMillis,
}

/// A certificate whose status changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StatusChange {
    /// Serial number.
    pub serial: SerialNumber,
    /// Who issued it.
    pub authority: AuthorityId,
    /// The CRL shard it belongs to.
    pub shard: u16,
    /// When, and why; absent: released.
    pub revoked: Option<(UnixMillis, RevocationReason)>,
    /// Last moment of its validity: the entry may leave the CRL after it.
    pub not_after: UnixMillis,
    /// The device it names.
    pub device: Option<DeviceId>,
}

/// What a revocation did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Revoked {
    /// Certificates whose status changed.
    pub certificates: u64,
    /// Devices touched.
    pub devices: u64,
    /// The CRL shards that changed.
    pub shards: BTreeSet<(AuthorityId, u16)>,
    /// The changes, at most [`Revoked::MAX_CHANGES`]; beyond it read the shards again with [`Store::for_each_revoked`].
    pub changes: Vec<StatusChange>,
}

impl Revoked {
    /// The most changes that are listed one by one.
    pub const MAX_CHANGES: usize = 250_000;

    /// Whether every change is listed.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        u64::try_from(self.changes.len()) == Ok(self.certificates)
    }
}

/// A revoked or held certificate, for building a CRL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RevokedEntry {
    /// Serial number.
    pub serial: SerialNumber,
    /// When.
    pub at: UnixMillis,
    /// Why.
    pub reason: RevocationReason,
    /// Last moment of its validity.
    pub not_after: UnixMillis,
}

impl Store {
    /// Revokes, holds or releases, in one set-based statement per table; works on a full disk. Never leaves
    /// `visibility`. The log entry is completed with `detail.certificates` and `detail.devices`.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] when a single certificate (or the named device, facility or CA) is not there or not
    /// visible; [`StoreError::IllegalState`] when a single certificate is not in a state that the act can change.
    pub async fn revoke(
        &self,
        revocation: Revocation,
        visibility: Visibility,
        audit: impl Into<Audit>,
    ) -> Result<Logged<Revoked>, StoreError> {
        let _ = (revocation, visibility, audit.into());
        todo!()
    }

    /// How many certificates and devices [`Store::revoke`] would touch: `(certificates, devices)`.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn count_revocation(&self, revocation: &Revocation, visibility: &Visibility) -> Result<(u64, u64), StoreError> {
        let _ = (revocation, visibility);
        todo!()
    }

    /// Calls `each` for every revoked or held certificate of a CA, in the order of serial numbers.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn for_each_revoked(
        &self,
        authority: AuthorityId,
        each: &mut dyn FnMut(RevokedEntry),
    ) -> Result<(), StoreError> {
        let _ = (authority, each);
        todo!()
    }
}

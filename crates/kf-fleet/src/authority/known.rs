//! The CAs in memory: what issuance, CRLs and OCSP need of them at every request.

use std::collections::BTreeMap;
use std::sync::Arc;

use kf_api::authority::{Authority, AuthorityKind};
use kf_api::product_line::ProductLine;
use kf_key::{AuthorityId, CertificateStatus, FacilityId, KeyId, SuccessionState};
use kf_pki::issuer::Issuer;
use kf_pki::ocsp::IssuerHashes;
use kf_signer::{KeyFacts, KeyHandle, KeyPurpose, SignerClient};
use kf_store::Store;
use kf_store::key::{KeyMaterial, KeyRecord};

use super::lineage::Lineage;
use crate::FleetError;

/// A CA, ready for use.
pub(crate) struct Known {
    pub(crate) record: Authority,
    pub(crate) issuer: Issuer,
    pub(crate) hashes: IssuerHashes,
}

impl Known {
    /// The key to sign with.
    ///
    /// # Errors
    /// [`FleetError::Conflict`] when it is destroyed.
    pub(crate) fn signing_key(&self) -> Result<KeyId, FleetError> {
        if self.record.key_destroyed.is_none() {
            return Ok(self.record.key);
        }
        Err(FleetError::conflict(
            "authority",
            format!("the key of {} is destroyed: it signs nothing any more", self.record.name),
            "use another CA; without a root, found a new fleet and enrol the devices there",
        ))
    }
}

/// All CAs of the fleet at one moment.
#[derive(Default)]
pub(crate) struct Authorities {
    by_id: BTreeMap<AuthorityId, Arc<Known>>,
    pub(crate) lineage: Lineage,
}

/// The most certificates of a chain below the root.
const MAX_CHAIN: usize = 8;

impl Authorities {
    /// Reads the CAs from the registry and tells the signer of their keys.
    pub(crate) fn load(store: &Store, signer: &SignerClient, base_url: &str) -> Result<Self, FleetError> {
        let mut by_id = BTreeMap::new();
        for record in store.authorities()? {
            let stored =
                store.authority_certificate(record.id)?.ok_or(FleetError::Bug("authority without certificate"))?;
            let issuer = Issuer::from_certificate(record.id, &stored.der, record.shard_count, base_url)
                .map_err(|_not_an_issuer| FleetError::Bug("stored authority is no CA"))?;
            let key = store.key(record.key)?.ok_or(FleetError::Bug("authority without key"))?;
            // A CA whose key is destroyed is still asked about what it certified.
            if key.material != KeyMaterial::Destroyed {
                let facts = KeyFacts { purpose: purpose_of(record.kind), issuer_name: issuer.name.to_vec() };
                signer.register_key(record.key, handle_of(&key)?, facts);
            }
            let hashes = IssuerHashes::of(&issuer);
            by_id.insert(record.id, Arc::new(Known { record, issuer, hashes }));
        }
        Ok(Self { by_id, lineage: Lineage::load(store)? })
    }

    pub(crate) fn get(&self, id: AuthorityId) -> Option<&Arc<Known>> {
        self.by_id.get(&id)
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &Arc<Known>> {
        self.by_id.values()
    }

    pub(crate) fn by_name(&self, name: &str) -> Option<&Arc<Known>> {
        self.by_id.values().find(|known| known.record.name == name)
    }

    /// CAs of which something has not expired, and that were not withdrawn: they sign CRLs, have OCSP responders, and are trusted by this server.
    pub(crate) fn live(&self) -> impl Iterator<Item = &Arc<Known>> {
        self.by_id.values().filter(|known| !self.lineage.is_closed(known.record.id))
    }

    /// The root below which certificates are issued today.
    pub(crate) fn root(&self) -> Option<&Arc<Known>> {
        self.roots().find(|known| self.lineage.may_issue(known.record.id))
    }

    /// The fleet's roots that are not closed.
    pub(crate) fn roots(&self) -> impl Iterator<Item = &Arc<Known>> {
        self.live().filter(|known| known.record.kind == AuthorityKind::Root)
    }

    /// The roots that devices and operators are to trust: today's first.
    pub(crate) fn anchors(&self) -> Vec<&Arc<Known>> {
        let today = self.root();
        let others = self.roots().filter(|known| !self.was_withdrawn_before(known)).filter(|known| {
            self.lineage.is_handed_out(known.record.id) && today.is_none_or(|today| today.record.id != known.record.id)
        });
        today.into_iter().chain(others).collect()
    }

    /// Whether a restored registry holds a CA as one that is to take over, and the witness knew that it was revoked since.
    fn was_withdrawn_before(&self, known: &Known) -> bool {
        let waits = self.lineage.to(known.record.id).filter(|one| one.succession.state == SuccessionState::Prepared);
        waits.is_some() && known.record.status != CertificateStatus::Good
    }

    /// Of a CA that is being succeeded, or that succeeds one that is still handed out: the other one.
    pub(crate) fn twin(&self, id: AuthorityId) -> Option<&Arc<Known>> {
        let heir = self.lineage.from(id).map(|handover| handover.succession.successor);
        let parent = self.lineage.to(id).map(|handover| handover.succession.predecessor);
        let is_good = |known: &&Arc<Known>| known.record.status == CertificateStatus::Good;
        let shown = |id: AuthorityId| self.get(id).filter(is_good).filter(|_| self.lineage.is_handed_out(id));
        heir.and_then(shown).or_else(|| parent.and_then(shown))
    }

    /// The root of what factory stations certify, once there is one.
    pub(crate) fn factory(&self) -> Option<&Arc<Known>> {
        self.by_id.values().find(|known| known.record.kind == AuthorityKind::Factory)
    }

    /// The fleet's default issuing CA.
    pub(crate) fn default_issuing(&self) -> Option<&Arc<Known>> {
        self.usable().find(|known| known.record.is_default)
    }

    /// Issuing CAs that are good.
    fn usable(&self) -> impl Iterator<Item = &Arc<Known>> {
        self.by_id.values().filter(|known| {
            known.record.kind == AuthorityKind::Issuing
                && known.record.status == CertificateStatus::Good
                && self.lineage.may_issue(known.record.id)
                && known.record.key_destroyed.is_none()
        })
    }

    /// The CA for a device: its product line's, else its facility's, else the fleet's default.
    pub(crate) fn for_device(&self, line: &ProductLine, facility: FacilityId) -> Result<&Arc<Known>, FleetError> {
        // A line that names a CA means whoever has taken over from it.
        let of_line = line.authority.map(|id| self.lineage.today(id));
        let of_line = of_line.and_then(|id| self.usable().find(|known| known.record.id == id));
        if line.authority.is_some() && of_line.is_none() {
            return Err(no_authority());
        }
        of_line
            .or_else(|| self.usable().find(|known| known.record.facility == Some(facility)))
            .or_else(|| self.default_issuing())
            .ok_or_else(no_authority)
    }

    /// Issuing CAs that may serve a device: the product line's own, or the default and those of facilities.
    pub(crate) fn serving(&self, of_line: Option<AuthorityId>) -> impl Iterator<Item = &Arc<Known>> {
        self.usable().filter(move |known| match of_line {
            Some(id) => known.record.id == self.lineage.today(id),
            None => known.record.is_default || known.record.facility.is_some(),
        })
    }

    /// The CA by id, good and issuing.
    pub(crate) fn issuing(&self, id: AuthorityId) -> Result<&Arc<Known>, FleetError> {
        let id = self.lineage.today(id);
        self.usable().find(|known| known.record.id == id).ok_or_else(no_authority)
    }

    /// The certificate that leads from below `id` to the old root, while some may know that one alone.
    fn link_above(&self, id: AuthorityId) -> Option<&[u8]> {
        let root = self.below_root(id).last()?.record.issuer?;
        let handover = self.lineage.to(root)?;
        let is_needed = handover.succession.state == SuccessionState::Switched;
        handover.new_with_old.as_deref().filter(|_| is_needed)
    }

    /// Certificates from a CA up to below the root, DER; at the end the link to an old root that is still handed out.
    pub(crate) fn chain_without_root(&self, id: AuthorityId) -> Vec<Vec<u8>> {
        let below = self.below_root(id).map(|known| known.issuer.certificate.to_vec());
        below.chain(self.link_above(id).map(<[u8]>::to_vec)).collect()
    }

    /// The same as PEM, which the registry keeps.
    pub(crate) fn chain_pem_without_root(&self, id: AuthorityId) -> String {
        let below: String = self.below_root(id).map(|known| known.record.certificate_pem.as_str()).collect();
        below + &self.link_above(id).map(kf_pki::pem::certificate).unwrap_or_default()
    }

    fn below_root(&self, id: AuthorityId) -> impl Iterator<Item = &Arc<Known>> {
        let is_issuing = |known: &&Arc<Known>| known.record.kind == AuthorityKind::Issuing;
        std::iter::successors(self.get(id).filter(is_issuing), move |known| {
            known.record.issuer.and_then(|issuer| self.get(issuer)).filter(is_issuing)
        })
        .take(MAX_CHAIN)
    }
}

fn no_authority() -> FleetError {
    FleetError::conflict(
        "authority",
        "no good issuing CA serves this request",
        "create one with `keyfleet authority create`, or name one that is good",
    )
}

/// What the key of a CA may sign.
pub(crate) const fn purpose_of(kind: AuthorityKind) -> KeyPurpose {
    match kind {
        AuthorityKind::Root | AuthorityKind::Factory => KeyPurpose::RootCa,
        AuthorityKind::Issuing => KeyPurpose::IssuingCa,
    }
}

/// How the registry keeps a key handle.
pub(crate) fn material_of(handle: &KeyHandle) -> KeyMaterial {
    if handle.is_hardware() { KeyMaterial::Token(handle.to_string()) } else { KeyMaterial::Wrapped(handle.to_bytes()) }
}

/// The key handle that the registry keeps.
pub(crate) fn handle_of(key: &KeyRecord) -> Result<KeyHandle, FleetError> {
    match &key.material {
        KeyMaterial::Wrapped(bytes) => {
            KeyHandle::from_bytes(bytes).map_err(|_unknown| FleetError::Bug("stored key handle"))
        }
        KeyMaterial::Token(text) => text.parse().map_err(|_unknown| FleetError::Bug("stored key handle")),
        KeyMaterial::Destroyed => {
            Err(FleetError::conflict("key", format!("{} is destroyed", key.id), "use a CA whose key is active"))
        }
    }
}

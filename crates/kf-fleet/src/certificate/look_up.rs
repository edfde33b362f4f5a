//! Looking certificates up, and keys that are never certified.

use kf_access::{Action, Principal, Target, authorize};
use kf_api::certificate::{Certificate, CertificateFilter, CertificateWithPem};
use kf_api::{Page, PageRequest};
use kf_key::SerialNumber;
use kf_store::certificate::CertificateQuery;

use crate::entry::Entry;
use crate::fence::Line;
use crate::naming::check_why;
use crate::{Fleet, FleetError};

/// Keys in one act of blocking.
const MAX_BLOCKED_AT_ONCE: usize = 100_000;

impl Fleet {
    /// A certificate by serial number.
    ///
    /// # Errors
    /// [`FleetError::NotFound`].
    pub async fn certificate_show(
        &self,
        who: &Principal,
        serial: SerialNumber,
    ) -> Result<CertificateWithPem, FleetError> {
        let found = self.store.certificate(serial, &who.visibility())?.ok_or(FleetError::NotFound("certificate"))?;
        let target = found.certificate.facility.map_or(Target::Fleet, Target::Facility);
        authorize(who, Action::CertificateRead, target)?;
        let chain_pem = self.authorities().chain_pem_without_root(found.certificate.authority);
        Ok(CertificateWithPem { certificate: found.certificate, pem: kf_pki::pem::certificate(&found.der), chain_pem })
    }

    /// Certificates that match: in the order of issue, or of expiry when `expires_before` is given.
    ///
    /// # Errors
    /// [`FleetError::Invalid`], [`FleetError::NotFound`] for a device, facility or CA, [`FleetError::Denied`].
    pub async fn certificate_list(
        &self,
        who: &Principal,
        filter: CertificateFilter,
    ) -> Result<Page<Certificate>, FleetError> {
        let permit = authorize(who, Action::CertificateRead, Target::Visible)?;
        let device = match &filter.device {
            Some(reference) => Some(self.find_device(reference, permit.visibility())?.id),
            None => None,
        };
        let facility = match &filter.facility {
            Some(reference) => Some(self.find_facility(reference, permit.visibility())?.id),
            None => None,
        };
        let authority = match &filter.authority {
            Some(reference) => Some(self.find_authority(reference)?.record.id),
            None => None,
        };
        let query = CertificateQuery {
            device,
            facility,
            authority,
            profile: filter.profile,
            status: filter.status,
            expires_before: filter.expires_before,
            page: PageRequest { after: filter.after, limit: filter.limit },
        };
        Ok(self.store.certificates(&query, permit.visibility())?)
    }

    /// Puts public keys on the list of keys that are never certified: SHA-256 of SubjectPublicKeyInfo, 1 to 100,000
    /// at once. Returns how many were new.
    ///
    /// # Errors
    /// [`FleetError::Invalid`], [`FleetError::Denied`].
    pub async fn key_block(&self, who: &Principal, spki_sha256: Vec<[u8; 32]>, why: String) -> Result<u64, FleetError> {
        check_why(&why)?;
        if !(1..=MAX_BLOCKED_AT_ONCE).contains(&spki_sha256.len()) {
            return Err(FleetError::invalid(
                "spki_sha256",
                format!("{} keys", spki_sha256.len()),
                format!("name 1 to {MAX_BLOCKED_AT_ONCE} keys; send more in several parts"),
            ));
        }
        authorize(who, Action::KeyBlock, Target::Fleet)?;
        let now = self.now();
        let mut digest = kf_crypto::Sha256::new();
        spki_sha256.iter().for_each(|key| digest.update(key));
        let mut entry = Entry::done(who, "key.block", now)
            .because(&why)
            .with("keys", spki_sha256.len())
            .with("list_sha256", hex::encode(digest.finish()));
        if let [key] = spki_sha256.as_slice() {
            entry = entry.about(format!("spki:{}", hex::encode(key)));
        }
        let lines: Vec<Line> =
            spki_sha256.iter().map(|key| Line::KeyBlocked { spki_sha256: hex::encode(key), at: now }).collect();
        let fresh = self.store.block_keys(spki_sha256, now, entry.build()).await?.value;
        self.tell_witness(lines);
        Ok(fresh)
    }
}

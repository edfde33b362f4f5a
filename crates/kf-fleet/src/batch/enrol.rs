//! IDevIDs of batch CAs at the door: a path in the handshake, and adoption of one whose record is still on its way.

use kf_access::Visibility;
use kf_api::batch::BatchState;
use kf_api::certificate::Certificate;
use kf_api::operator::Credential;
use kf_batch::quota::QuotaTerms;
use kf_key::{CertificateProfile, CertificateStatus};
use kf_pki::certificate::{PresentedCertificate, Subject, as_issued};
use kf_pki::chain::{Currency, verify_client};
use kf_pki::request::RequestedKey;
use kf_store::batch::StoredBatch;
use kf_store::certificate::{Basis, DeviceIssuance, Issuance, KeyHolder};

use crate::enrolment::device_principal;
use crate::entry::Entry;
use crate::{ClientCertificate, Fleet, FleetError};

impl Fleet {
    /// The terms of the batch whose CA issued a certificate, by the authorityKeyIdentifier. Read from the registry, where
    /// nothing stands that was not signed here.
    fn batch_of(&self, presented: &PresentedCertificate) -> Option<(StoredBatch, QuotaTerms)> {
        let identifier = presented.authority_key_identifier.as_deref()?;
        let stored = self.store.batch_by_key_identifier(identifier).ok().flatten()?;
        let terms = kf_batch::quota::stored_terms(&stored.quota).ok()?;
        Some((stored, terms))
    }

    /// Validates the path of an IDevID of a batch CA. Those CAs end within weeks and what they issued does not: one that was
    /// merged is judged as of the moment of its issue, and found in the registry octet by octet. One that was not is
    /// judged as of now, while the quota lasts.
    ///
    /// # Errors
    /// [`FleetError::Unauthenticated`].
    pub(crate) fn verify_batch_path(&self, leaf: &[u8]) -> Result<ClientCertificate, FleetError> {
        let presented = PresentedCertificate::from_der(leaf).ok_or(FleetError::Unauthenticated)?;
        let (stored, terms) = self.batch_of(&presented).ok_or(FleetError::Unauthenticated)?;
        let serial = presented.serial.ok_or(FleetError::Unauthenticated)?;
        let registered = self.store.certificate(serial, &Visibility::Fleet)?;
        let is_merged = registered.is_some_and(|registered| registered.der == leaf);
        let is_early = stored.batch.state == BatchState::Open
            && stored.batch.allows_early_enrolment
            && self.now() <= stored.batch.expires;
        let at = match (is_merged, is_early) {
            (true, _) => presented.not_before,
            (false, true) => self.now(),
            (false, false) => return Err(FleetError::Unauthenticated),
        };
        let (authority, factory) = (&terms.authority_certificate, &terms.factory_certificate);
        verify_client(leaf, &[authority], &[factory], at).map_err(|_path| FleetError::Unauthenticated)?;
        Ok(ClientCertificate { der: leaf.into(), serial: Some(serial), currency: Currency::Current, vendor: None })
    }

    /// Takes an IDevID on whose record has not been merged, where its batch allows that: it is then in the registry as if it
    /// had been, once per device, and a record that says otherwise is a conflict.
    ///
    /// # Errors
    /// [`FleetError::Unauthenticated`] for whatever is not exactly that.
    pub(crate) async fn adopt_early(&self, client: &ClientCertificate) -> Result<(), FleetError> {
        let presented = PresentedCertificate::from_der(&client.der).ok_or(FleetError::Unauthenticated)?;
        let Some((stored, terms)) = self.batch_of(&presented) else { return Ok(()) };
        let batch = &stored.batch;
        let is_early = batch.state == BatchState::Open && batch.allows_early_enrolment && self.now() <= batch.expires;
        if !is_early {
            return Ok(());
        }
        let name = common_name(&presented.subject).ok_or(FleetError::Unauthenticated)?;
        let id = terms.devices.device_named(&name).ok_or(FleetError::Unauthenticated)?;
        let subject = Subject::Device {
            organization: terms.organization.clone(),
            device: id,
            name,
            product_line: terms.product_line_name.clone(),
        };
        let issuer = terms.issuer().map_err(|_not_an_issuer| FleetError::Bug("a stored batch CA"))?;
        let facts = as_issued(&issuer, subject, &client.der).map_err(|_not_as_issued| FleetError::Unauthenticated)?;
        let key = RequestedKey::from_spki(&presented.spki).map_err(|_refused| FleetError::Unauthenticated)?;
        self.check_requested_key(&key, Some(&KeyHolder::Device(id)))?;
        let device = self.store.device(id, &Visibility::Fleet)?.ok_or(FleetError::Unauthenticated)?;
        let certificates = self.store.certificates_of_device(id, &Visibility::Fleet)?;
        if certificates.iter().any(|known| known.profile == CertificateProfile::IDevId) {
            tracing::warn!(device = %id, batch = %batch.id, "a second IDevID for a device of a batch was refused");
            return Err(FleetError::Unauthenticated);
        }
        let certificate = Certificate {
            serial: facts.serial,
            authority: stored.authority,
            profile: CertificateProfile::IDevId,
            device: Some(id),
            operator: None,
            facility: Some(device.facility),
            subject: facts.subject,
            spki_sha256: hex::encode(facts.spki_sha256),
            not_before: facts.not_before,
            not_after: facts.not_after,
            status: CertificateStatus::Good,
            revoked: None,
            reason: None,
        };
        let who = device_principal(&device, Credential::Certificate);
        let entry = Entry::done(&who, "certificate.adopt", self.now())
            .about(format!("cert:{}", certificate.serial))
            .about(format!("spki:{}", certificate.spki_sha256))
            .about(id)
            .about(batch.id)
            .at_facility(Some(device.facility));
        let issuance = Issuance {
            certificate,
            der: client.der.to_vec(),
            device: Some(DeviceIssuance {
                seen: device.state,
                protection: None,
                max_live_ldevids: None,
                is_sighting: false,
            }),
            basis: Basis::Standing,
            at: self.now(),
        };
        self.store.record_issuance(issuance, entry.build()).await?;
        Ok(())
    }
}

/// The common name of a subject, as devices have it: without characters that RFC 4514 escapes.
fn common_name(subject: &[u8]) -> Option<String> {
    let text = kf_pki::name::to_rfc4514(subject)?;
    text.split(',').find_map(|part| part.strip_prefix("CN=")).map(str::to_owned)
}

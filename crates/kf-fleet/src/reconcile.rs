//! What start-up does about acts that a crash cut in two.

use kf_api::certificate::Certificate;
use kf_key::{CertificateStatus, RevocationReason};
use kf_store::certificate::PreImage;

use crate::entry::Entry;
use crate::{Fleet, FleetError};

impl Fleet {
    /// Certificates whose octets were recorded and perhaps signed in hardware, but never issued, are revoked: if one
    /// exists after all, OCSP and CRL refuse it.
    pub(crate) async fn reconcile(&self) -> Result<(), FleetError> {
        for orphan in self.store.orphans()? {
            let Some(certificate) = self.certificate_of(&orphan) else {
                tracing::error!(serial = %orphan.serial, "an orphan cannot be read");
                continue;
            };
            let entry = Entry::done(&Self::server_principal(), "certificate.revoke", self.now())
                .about(format!("cert:{}", orphan.serial))
                .because("its octets were to be signed when the server stopped; it was never handed out")
                .with("reason", RevocationReason::CessationOfOperation);
            self.store.revoke_orphan(certificate, entry.build()).await?;
            tracing::warn!(serial = %orphan.serial, "an orphaned certificate was revoked");
        }
        Ok(())
    }

    fn certificate_of(&self, orphan: &PreImage) -> Option<Certificate> {
        let facts = kf_pki::certificate::facts_of_tbs(&orphan.tbs)?;
        Some(Certificate {
            serial: orphan.serial,
            authority: orphan.authority,
            profile: facts.profile,
            device: None,
            operator: None,
            facility: None,
            subject: facts.subject,
            spki_sha256: hex::encode(facts.spki_sha256),
            not_before: facts.not_before,
            not_after: facts.not_after,
            status: CertificateStatus::Revoked,
            revoked: Some(self.now()),
            reason: Some(RevocationReason::CessationOfOperation),
        })
    }
}

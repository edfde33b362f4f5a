//! Certification authorities.

mod known;
mod lineage;
pub(crate) mod succession;
mod withdrawal;

use std::sync::{Arc, PoisonError};

use kf_access::{Action, Principal, Target, authorize};
use kf_api::authority::{Authority, AuthorityKind, NewAuthority};
use kf_api::certificate::Certificate;
use kf_api::{Page, PageRequest};
use kf_key::{
    AuthorityId, CertificateProfile, CertificateStatus, FacilityId, KeyAlgorithm, KeyId, KeyState, KeyType,
    SerialNumber, UnixMillis,
};
use kf_pki::certificate::{CertificateFacts, IssuanceRequest, IssuedCertificate, Subject, check_issuance};
use kf_pki::request::RequestedKey;
use kf_signer::{GeneratedKey, KeyFacts, KeyPurpose};
use kf_store::authority::AuthorityRecord;
use kf_store::key::KeyRecord;

pub(crate) use known::{Authorities, Known, handle_of, material_of, purpose_of};

use crate::entry::Entry;
use crate::issuance::BACKDATE;
use crate::naming::check_name;
use crate::{Fleet, FleetError};

const DEFAULT_LIFETIME_DAYS: u32 = 3_650;
const MAX_LIFETIME_DAYS: u32 = 7_300;
const DEFAULT_SHARDS: u16 = 8;
const MAX_SHARDS: u16 = 256;

impl Fleet {
    /// Creates an issuing CA below the root.
    ///
    /// # Errors
    /// [`FleetError::Invalid`], [`FleetError::Conflict`] for a name in use, [`FleetError::Signer`].
    pub async fn authority_create(&self, who: &Principal, new: NewAuthority) -> Result<Authority, FleetError> {
        let permit = authorize(who, Action::AuthorityCreate, Target::Fleet)?;
        let plan = self.plan_authority(new, permit.visibility())?;
        let authorities = self.authorities();
        let root = authorities.root().ok_or(FleetError::Bug("no root"))?;
        let root_key = root.signing_key()?;
        if self.store.authority_by_name(&plan.name)?.is_some() {
            return Err(FleetError::conflict(
                "name",
                format!("a CA named `{}` exists", plan.name),
                "choose another name",
            ));
        }
        let now = self.now();
        let key_id = KeyId::from_parts(now, kf_crypto::random_array()?);
        let key = self.signer.generate_key(key_id, KeyPurpose::IssuingCa, plan.algorithm).await?;
        let request = plan.request(&self.config.fleet, &key, now, root.issuer.not_after)?;
        let checked = check_issuance(&root.issuer, request)
            .map_err(|refusal| FleetError::invalid("authority", refusal.to_string(), "correct the request"))?;
        let signed = self.signer.sign_certificate(root_key, checked).await?;
        let record = plan.record(Some(root.record.id), &key, &signed, now);
        let authority = record.authority.clone();
        let entry = Entry::done(who, "authority.create", now)
            .about(authority.id)
            .about(format!("cert:{}", signed.facts.serial))
            .at_facility(authority.facility)
            .with("name", &authority.name)
            .with("algorithm", authority.algorithm);
        self.store.insert_authority(record, entry.build()).await?;
        self.reload_authorities()?;
        self.sign_due_crls().await;
        Ok(authority)
    }

    fn plan_authority(&self, new: NewAuthority, visibility: &kf_access::Visibility) -> Result<Plan, FleetError> {
        check_name("name", &new.name)?;
        let facility = match &new.facility {
            Some(reference) => Some(self.find_facility(reference, visibility)?.id),
            None => None,
        };
        let algorithm = new.algorithm.unwrap_or(KeyAlgorithm::P256);
        let held = self.signer.capabilities().key_algorithms.contains(&algorithm);
        if !algorithm.may_sign_certificates() || !held {
            return Err(FleetError::invalid(
                "algorithm",
                format!("this fleet's key back end holds no {algorithm} CA keys"),
                "choose p-256, or see `keyfleet status` for what the back end offers",
            ));
        }
        let days = new.lifetime_days.unwrap_or(DEFAULT_LIFETIME_DAYS);
        if !(1..=MAX_LIFETIME_DAYS).contains(&days) {
            return Err(FleetError::invalid("lifetime_days", format!("{days} is out of range"), "use 1 to 7300"));
        }
        let shard_count = new.shard_count.unwrap_or(DEFAULT_SHARDS);
        if !(1..=MAX_SHARDS).contains(&shard_count) {
            return Err(FleetError::invalid("shard_count", format!("{shard_count} is out of range"), "use 1 to 256"));
        }
        Ok(Plan {
            id: AuthorityId::from_parts(self.now(), kf_crypto::random_array()?),
            name: new.name,
            kind: AuthorityKind::Issuing,
            facility,
            algorithm,
            lifetime: u64::from(days) * UnixMillis::DAY,
            shard_count,
            is_default: new.make_default,
        })
    }

    /// A CA by name or id.
    ///
    /// # Errors
    /// [`FleetError::NotFound`].
    pub async fn authority_show(&self, who: &Principal, authority: &str) -> Result<Authority, FleetError> {
        authorize(who, Action::AuthorityRead, Target::Fleet)?;
        Ok(self.find_authority(authority)?.record.clone())
    }

    /// All CAs.
    ///
    /// # Errors
    /// [`FleetError::Denied`].
    pub async fn authority_list(&self, who: &Principal, page: PageRequest) -> Result<Page<Authority>, FleetError> {
        authorize(who, Action::AuthorityRead, Target::Fleet)?;
        let after = match &page.after {
            Some(after) => Some(after.parse::<AuthorityId>().map_err(|error| {
                FleetError::invalid("after", error.to_string(), "send the `next` of the page before")
            })?),
            None => None,
        };
        let rows = usize::try_from(page.rows()).unwrap_or(usize::MAX);
        let authorities = self.authorities();
        let mut rest = authorities.all().filter(|known| after.is_none_or(|after| known.record.id > after));
        let items: Vec<Authority> = rest.by_ref().take(rows).map(|known| known.record.clone()).collect();
        let next = rest.next().and(items.last()).map(|last| last.id.to_string());
        Ok(Page { items, next })
    }

    /// A CA certificate, DER, for the address in AIA. Public.
    #[must_use]
    pub fn authority_certificate(&self, authority: AuthorityId) -> Option<Vec<u8>> {
        let known = self.authorities().get(authority).map(|known| known.issuer.certificate.to_vec());
        known.or_else(|| self.batch_authority_certificate(authority))
    }

    /// The root certificate, DER. Public.
    #[must_use]
    pub fn root_certificate(&self) -> Option<Vec<u8>> {
        self.authorities().root().map(|known| known.issuer.certificate.to_vec())
    }

    pub(crate) fn find_authority(&self, reference: &str) -> Result<Arc<Known>, FleetError> {
        let authorities = self.authorities();
        let found = match reference.parse::<AuthorityId>() {
            Ok(id) => authorities.get(id).cloned(),
            Err(_not_an_id) => authorities.by_name(reference).cloned(),
        };
        found.ok_or(FleetError::NotFound("authority"))
    }

    /// Reads the CAs again after one was created or revoked.
    pub(crate) fn reload_authorities(&self) -> Result<(), FleetError> {
        let fresh = Authorities::load(&self.store, &self.signer, &self.config.listen.public_http)?;
        *self.authorities.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(fresh);
        self.authorities_changed.send_modify(|changes| *changes = changes.wrapping_add(1));
        self.answers.forget_all();
        self.load_boards()
    }
}

/// A CA that is about to be created.
pub(crate) struct Plan {
    pub(crate) id: AuthorityId,
    pub(crate) name: String,
    pub(crate) kind: AuthorityKind,
    pub(crate) facility: Option<FacilityId>,
    pub(crate) algorithm: KeyAlgorithm,
    pub(crate) lifetime: u64,
    pub(crate) shard_count: u16,
    pub(crate) is_default: bool,
}

impl Plan {
    const fn profile(&self) -> CertificateProfile {
        match self.kind {
            AuthorityKind::Root | AuthorityKind::Factory => CertificateProfile::Root,
            AuthorityKind::Issuing => CertificateProfile::IssuingCa,
        }
    }

    /// What is to be certified.
    pub(crate) fn request(
        &self,
        fleet: &str,
        key: &GeneratedKey,
        now: UnixMillis,
        issuer_ends: UnixMillis,
    ) -> Result<IssuanceRequest, FleetError> {
        // Each generation of a root has a name of its own: no name stands for two keys.
        let common_name = format!("{fleet} {} CA", self.name);
        Ok(IssuanceRequest {
            profile: self.profile(),
            subject: Subject::Authority { common_name, organization: fleet.to_owned() },
            key: RequestedKey::from_spki(&key.spki).map_err(|_refused| FleetError::Bug("a key of the signer"))?,
            serial: SerialNumber::from_parts(now, kf_crypto::random_array()?),
            not_before: now.minus(BACKDATE),
            not_after: Some(now.plus(self.lifetime).min(issuer_ends)),
        })
    }

    /// The rows to be kept.
    pub(crate) fn record(
        self,
        issuer: Option<AuthorityId>,
        key: &GeneratedKey,
        signed: &IssuedCertificate,
        now: UnixMillis,
    ) -> AuthorityRecord {
        let facts = &signed.facts;
        let certificate = row_of(issuer.unwrap_or(self.id), facts);
        let key = key_record(key, format!("authority:{}", self.name), now);
        let authority = Authority {
            id: self.id,
            name: self.name,
            kind: self.kind,
            issuer,
            facility: self.facility,
            is_default: self.is_default,
            algorithm: self.algorithm,
            key: key.id,
            subject: facts.subject.clone(),
            shard_count: self.shard_count,
            certificate_pem: kf_pki::pem::certificate(&signed.der),
            not_before: facts.not_before,
            not_after: facts.not_after,
            status: CertificateStatus::Good,
            key_destroyed: None,
        };
        AuthorityRecord { authority, certificate, der: signed.der.clone(), key }
    }
}

/// A certificate that a CA has as one, or that leads to one, as a row of the registry.
fn row_of(authority: AuthorityId, facts: &CertificateFacts) -> Certificate {
    Certificate {
        serial: facts.serial,
        authority,
        profile: facts.profile,
        device: None,
        operator: None,
        facility: None,
        subject: facts.subject.clone(),
        spki_sha256: hex::encode(facts.spki_sha256),
        not_before: facts.not_before,
        not_after: facts.not_after,
        status: CertificateStatus::Good,
        revoked: None,
        reason: None,
    }
}

/// A fresh signature key as the registry keeps it: active at once.
pub(crate) fn key_record(key: &GeneratedKey, purpose: String, now: UnixMillis) -> KeyRecord {
    KeyRecord {
        id: key.key,
        key_type: KeyType::PrivateSignature,
        algorithm: key.algorithm,
        state: KeyState::Active,
        purpose,
        material: material_of(&key.handle),
        spki: key.spki.clone(),
        created: now,
        activated: Some(now),
        suspended: None,
        deactivated: None,
        compromised: None,
        destroyed: None,
    }
}

/// The facts under which the signer uses the key of a CA.
pub(crate) fn facts_of(kind: AuthorityKind, issuer_name: &[u8]) -> KeyFacts {
    KeyFacts { purpose: purpose_of(kind), issuer_name: issuer_name.to_vec() }
}

//! A batch is authorised: keys of the station checked, its CA certified, the quota signed, the devices registered.

use base64::Engine as _;
use kf_access::{Action, Principal, Target, authorize};
use kf_api::authority::AuthorityKind;
use kf_api::batch::{Batch, BatchState, NewBatch};
use kf_api::operator::{Operator, Role};
use kf_api::product_line::ProductLine;
use kf_batch::device_list::{DeviceList, MAX_DEVICES, Naming};
use kf_batch::quota::{Quota, QuotaTerms};
use kf_batch::station_request::{StationRequest, StationRequestRefusal};
use kf_batch::{FormatError, P256Key};
use kf_key::{
    AuthorityId, BatchId, CertificateProfile, FacilityId, KeyAlgorithm, KeyId, KeyRole, SerialNumber, UnixMillis,
};
use kf_pki::certificate::{IssuanceRequest, IssuedCertificate, Subject, check_issuance, check_root};
use kf_pki::request::{CertificationRequest, RequestedKey};
use kf_signer::KeyPurpose;
use kf_store::batch::{BatchRecord, StoredBatch};

use crate::authority::{Known, Plan, facts_of};
use crate::entry::Entry;
use crate::issuance::BACKDATE;
use crate::naming::{check_device_name, check_name};
use crate::pinned_key::PinnedKey;
use crate::proposal::Consent;
use crate::{Fleet, FleetError};

const FACTORY: &str = "factory";
const DEFAULT_LIFETIME_HOURS: u32 = 168;
const MAX_LIFETIME_HOURS: u32 = 2_208;
const DEFAULT_DIGITS: u8 = 6;
/// With `batch ` in front it is a common name (RFC 5280 appendix A: 64 characters).
const MAX_BATCH_NAME: usize = 48;
/// More than any station request has in base64.
const MAX_REQUEST_CHARACTERS: usize = 12 * 1024;

/// Held while the factory root is made, which is made once, when it is first needed.
static FOUNDING: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// A batch that may be authorised.
pub(crate) struct BatchPlan {
    pub(crate) facility: FacilityId,
    line: ProductLine,
    station: Operator,
    request: StationRequest,
    request_sha256: [u8; 32],
    authority_key: RequestedKey,
    recipe: [u8; 32],
    lifetime: u64,
    devices: DeviceList,
    new: NewBatch,
}

/// The key by which a station is known.
pub(super) fn identity_of(station: &Operator) -> Option<P256Key> {
    let keys = kf_pki::pem::decode_all("PUBLIC KEY", station.voucher_key_pem.as_deref()?)?;
    P256Key::from_spki(keys.first()?).ok()
}

fn invalid_format(field: &'static str) -> impl Fn(FormatError) -> FleetError {
    move |error| FleetError::invalid(field, error.to_string(), "correct it and try again")
}

impl Fleet {
    /// Checks everything about a batch that does not need a signature.
    pub(crate) fn plan_batch(
        &self,
        who: &Principal,
        new: &NewBatch,
        received: UnixMillis,
    ) -> Result<BatchPlan, FleetError> {
        check_name("name", &new.name)?;
        if new.name.len() > MAX_BATCH_NAME {
            return Err(FleetError::invalid("name", "is longer than 48 characters", "choose a shorter name"));
        }
        let facility = self.find_facility(&new.facility, &who.visibility())?.id;
        authorize(who, Action::BatchCreate, Target::Facility(facility))?;
        let line = self.find_product_line(&new.product_line)?;
        if new.profile.is_some_and(|profile| profile != CertificateProfile::IDevId) {
            return Err(FleetError::invalid(
                "profile",
                "is not one that a factory issues",
                "use idevid: devices get their LDevIDs from this server",
            ));
        }
        if !(1..=MAX_DEVICES).contains(&new.count) {
            return Err(FleetError::invalid("count", format!("{} is out of range", new.count), "use 1 to 250000"));
        }
        let hours = new.lifetime_hours.unwrap_or(DEFAULT_LIFETIME_HOURS);
        if !(1..=MAX_LIFETIME_HOURS).contains(&hours) {
            return Err(FleetError::invalid("lifetime_hours", format!("{hours} is out of range"), "use 1 to 2208"));
        }
        let mut recipe = [0; 32];
        hex::decode_to_slice(&new.recipe_sha256, &mut recipe).map_err(|_not_hex| {
            FleetError::invalid("recipe_sha256", "is not 64 hexadecimal digits", "copy it from the recipe's plan")
        })?;
        let (station, request, document) = self.station_request(new, facility, received)?;
        let authority_key = self.authority_key(&request)?;
        Ok(BatchPlan {
            facility,
            line,
            station,
            request,
            request_sha256: kf_crypto::sha256(&document),
            authority_key,
            recipe,
            lifetime: u64::from(hours) * UnixMillis::HOUR,
            devices: devices_of(new, received)?,
            new: new.clone(),
        })
    }

    /// The station request, verified under the identity key of the station that it names.
    fn station_request(
        &self,
        new: &NewBatch,
        facility: FacilityId,
        received: UnixMillis,
    ) -> Result<(Operator, StationRequest, Vec<u8>), FleetError> {
        let refused = |problem: String| {
            FleetError::invalid("station_request", problem, "have the station make a fresh request and hand that in")
        };
        let text: String =
            new.station_request.chars().take(MAX_REQUEST_CHARACTERS).filter(|c| !c.is_ascii_whitespace()).collect();
        let document = base64::engine::general_purpose::STANDARD
            .decode(text)
            .map_err(|_not_base64| refused("is not base64".into()))?;
        let claimed = StationRequest::claimed(&document).map_err(|error| refused(error.to_string()))?;
        let station = self.store.operator_by_name(&claimed.station)?.filter(|operator| {
            operator.role == Role::Station && operator.enabled && operator.facilities.contains(&facility)
        });
        let station = station.ok_or_else(|| {
            FleetError::invalid(
                "station_request",
                format!("names `{}`, which is no enabled station of this facility", claimed.station),
                "add it with `keyfleet operator create NAME --role station --facility … --voucher-key …`, under that name",
            )
        })?;
        let identity = identity_of(&station).ok_or_else(|| {
            FleetError::invalid(
                "station_request",
                "the station has no P-256 key on record",
                "add the station with its key",
            )
        })?;
        let request = StationRequest::verify(&document, &identity, received).map_err(|error| match error {
            StationRequestRefusal::Format(FormatError::OtherKey | FormatError::Unauthentic) => {
                refused("is not signed by the key of that station".into())
            }
            other => refused(other.to_string()),
        })?;
        Ok((station, request, document))
    }

    /// The key of the batch CA, with its possession proved.
    fn authority_key(&self, request: &StationRequest) -> Result<RequestedKey, FleetError> {
        let refused = |problem: String| {
            FleetError::invalid(
                "station_request.authority_csr",
                problem,
                "have the station make a fresh key and request",
            )
        };
        let csr = CertificationRequest::from_der(&request.authority_csr).map_err(|error| refused(error.to_string()))?;
        if !matches!(csr.key.algorithm, KeyAlgorithm::P256 | KeyAlgorithm::P384) {
            return Err(refused(format!("a {} key signs no certificates here", csr.key.algorithm)));
        }
        let others = [&request.transport_key, &request.record_key];
        if others.iter().any(|other| other.spki_sha256() == csr.key.spki_sha256) {
            return Err(refused("one key serves for two things".into()));
        }
        self.check_requested_key(&csr.key, None)?;
        if self.store.key_standing(&csr.key.spki_sha256)?.holder.is_some() {
            return Err(FleetError::invalid(
                "station_request.authority_csr",
                "the key was certified before: the request has served a batch already",
                "run that batch at the station, which takes its quota, and make a request for the next one; or have the station give it up: `keyfleet station request --fresh`",
            ));
        }
        Ok(csr.key)
    }

    /// The batch as it would be.
    pub(super) fn sketch_batch(&self, plan: &BatchPlan, now: UnixMillis) -> Result<Batch, FleetError> {
        let serial = SerialNumber::from_parts(now, kf_crypto::random_array()?);
        let id = BatchId::from_parts(now, kf_crypto::random_array()?);
        let sequence = self.store.next_batch_sequence(plan.station.id)?;
        Ok(plan.batch(id, sequence, serial, (now, now.plus(plan.lifetime))))
    }

    /// Certifies, signs, registers.
    pub(crate) async fn carry_out_batch(
        &self,
        who: &Principal,
        new: &NewBatch,
        received: UnixMillis,
        why: &str,
        consent: &Consent,
    ) -> Result<Batch, FleetError> {
        let plan = self.plan_batch(who, new, received)?;
        let (key, _) = self.batch_key().await?;
        let factory = self.factory().await?;
        let now = self.now();
        let expires = now.plus(plan.lifetime).min(factory.issuer.not_after);
        let issued = self.certify_batch_authority(&plan, &factory, now, expires).await?;
        let terms = self.terms(&plan, &factory, &issued, (now, expires))?;
        let quota = self.signer.sign_quota(key, &terms).await?;
        let batch = plan.batch(terms.batch, terms.sequence, issued.facts.serial, (now, expires));
        let record = self.record(
            &plan,
            &terms,
            &issued,
            StoredBatch { batch: batch.clone(), authority: terms.authority, quota },
        )?;
        let entry = self
            .evidence(Entry::done(who, "batch.create", now))
            .about(batch.id)
            .about(plan.station.id)
            .about(format!("cert:{}", batch.authority_serial))
            .about(format!("spki:{}", hex::encode(issued.facts.spki_sha256)))
            .at_facility(Some(plan.facility))
            .because(why)
            .with("name", &batch.name)
            .with("devices", batch.devices)
            .with("first", &batch.first_name)
            .with("last", &batch.last_name)
            .with("recipe", &batch.recipe_sha256)
            .with("sequence", batch.sequence)
            .with("quota_sha256", hex::encode(kf_crypto::sha256(&record.stored.quota)))
            .with("expires", expires.0);
        self.store.insert_batch(record, consent.with(entry.build())).await?;
        Ok(batch)
    }

    async fn certify_batch_authority(
        &self,
        plan: &BatchPlan,
        factory: &Known,
        now: UnixMillis,
        expires: UnixMillis,
    ) -> Result<IssuedCertificate, FleetError> {
        let request = IssuanceRequest {
            profile: CertificateProfile::IssuingCa,
            subject: Subject::Authority {
                common_name: format!("batch {}", plan.new.name),
                organization: self.config.fleet.clone(),
            },
            key: plan.authority_key.clone(),
            serial: SerialNumber::from_parts(now, kf_crypto::random_array()?),
            not_before: now.minus(BACKDATE),
            not_after: Some(UnixMillis::from_seconds(expires.seconds())),
        };
        let checked = check_issuance(&factory.issuer, request)
            .map_err(|refusal| FleetError::invalid("station_request", refusal.to_string(), "correct the request"))?;
        Ok(self.signer.sign_certificate(factory.signing_key()?, checked).await?)
    }

    fn terms(
        &self,
        plan: &BatchPlan,
        factory: &Known,
        issued: &IssuedCertificate,
        (now, expires): (UnixMillis, UnixMillis),
    ) -> Result<QuotaTerms, FleetError> {
        let (facility_epoch, _) = self.store.newest_facility_epoch(plan.facility)?;
        let authorities = self.authorities();
        let root = authorities.root().ok_or(FleetError::Bug("no root"))?;
        Ok(QuotaTerms {
            batch: BatchId::from_parts(now, kf_crypto::random_array()?),
            name: plan.new.name.clone(),
            facility: plan.facility,
            facility_epoch,
            product_line: plan.line.id,
            product_line_name: plan.line.name.clone(),
            organization: self.config.fleet.clone(),
            station: plan.station.id,
            station_name: plan.station.name.clone(),
            sequence: self.store.next_batch_sequence(plan.station.id)?,
            recipe: plan.recipe,
            allows_unsafe: plan.new.allow_unsafe,
            allows_early_enrolment: plan.new.allow_early_enrolment,
            issued: now,
            expires,
            server: self.public_address(),
            anchor: root.issuer.certificate.to_vec(),
            authority: AuthorityId::from_parts(now, kf_crypto::random_array()?),
            authority_certificate: issued.der.clone(),
            factory_certificate: factory.issuer.certificate.to_vec(),
            base_url: self.config.listen.public_http.clone(),
            devices: plan.devices.clone(),
            transport_key: plan.request.transport_key,
            record_key: plan.request.record_key,
        })
    }

    /// Where devices find this server: its first name, with the port it listens on.
    fn public_address(&self) -> String {
        let name = self.config.listen.names.first().map_or("localhost", String::as_str);
        match self.config.listen.https.rsplit_once(':') {
            Some((_, "443")) | None => name.to_owned(),
            Some((_, port)) => format!("{name}:{port}"),
        }
    }

    fn record(
        &self,
        plan: &BatchPlan,
        terms: &QuotaTerms,
        issued: &IssuedCertificate,
        stored: StoredBatch,
    ) -> Result<BatchRecord, FleetError> {
        let issuer = terms.issuer().map_err(|_not_an_issuer| FleetError::Bug("the batch CA is no CA"))?;
        let factory = self.authorities().factory().ok_or(FleetError::Bug("no factory root"))?.record.id;
        let facts = &issued.facts;
        let certificate = kf_api::certificate::Certificate {
            serial: facts.serial,
            authority: factory,
            profile: facts.profile,
            device: None,
            operator: None,
            facility: Some(plan.facility),
            subject: facts.subject.clone(),
            spki_sha256: hex::encode(facts.spki_sha256),
            not_before: facts.not_before,
            not_after: facts.not_after,
            status: kf_key::CertificateStatus::Good,
            revoked: None,
            reason: None,
        };
        Ok(BatchRecord {
            stored,
            request_sha256: plan.request_sha256,
            key_identifier: issuer.key_identifier,
            certificate,
            der: issued.der.clone(),
            devices: plan.devices.iter().collect(),
        })
    }

    /// The key that signs quotas; made when it is first needed.
    pub(super) async fn batch_key(&self) -> Result<(KeyId, P256Key), FleetError> {
        let (id, spki) = self.pinned_key_or_first(KeyRole::Batch).await?;
        let key = P256Key::from_spki(&spki).map_err(|_other_curve| FleetError::Bug("batch key"))?;
        Ok((id, key))
    }

    /// Every key that ever signed quotas: what one of them signed stays believed when it has ended.
    pub(super) fn batch_keys(&self) -> Result<Vec<(KeyId, P256Key)>, FleetError> {
        let keys = self.pinned_keys();
        let read = |key: &PinnedKey| match P256Key::from_spki(&key.spki) {
            Ok(read) => Ok((key.id, read)),
            Err(_other_curve) => Err(FleetError::Bug("batch key")),
        };
        keys.of(KeyRole::Batch).iter().map(read).collect()
    }

    /// The links from the first key that stations pin to the one that signed a quota.
    pub(super) fn links_of_quota(&self, quota: &[u8]) -> Result<Vec<u8>, FleetError> {
        let by = self.batch_keys()?.into_iter().find(|(_, key)| Quota::open(quota, key).is_ok());
        let (id, _) = by.ok_or(FleetError::Bug("a stored quota"))?;
        Ok(self.pinned_keys().links_to(KeyRole::Batch, id))
    }

    /// The root of what stations certify; made when it is first needed. It is not below the fleet's root: nobody who trusts
    /// that for LDevIDs or servers trusts a station.
    async fn factory(&self) -> Result<std::sync::Arc<Known>, FleetError> {
        let turn = FOUNDING.lock().await;
        if let Some(known) = self.authorities().factory() {
            return Ok(std::sync::Arc::clone(known));
        }
        let now = self.now();
        let authorities = self.authorities();
        let root = authorities.root().ok_or(FleetError::Bug("no root"))?;
        let plan = Plan {
            id: AuthorityId::from_parts(now, kf_crypto::random_array()?),
            name: FACTORY.into(),
            kind: AuthorityKind::Factory,
            facility: None,
            algorithm: root.record.algorithm,
            lifetime: root.issuer.not_after.since(now),
            shard_count: 1,
            is_default: false,
        };
        let id = KeyId::from_parts(now, kf_crypto::random_array()?);
        let key = self.signer.generate_key(id, KeyPurpose::RootCa, plan.algorithm).await?;
        let checked = check_root(plan.request(&self.config.fleet, &key, now, root.issuer.not_after)?)
            .map_err(|_refusal| FleetError::Bug("the factory root is refused"))?;
        let signed = self.signer.sign_root(key.key, checked).await?;
        let record = plan.record(None, &key, &signed, now);
        let entry = Entry::done(&Self::server_principal(), "authority.create", now)
            .about(record.authority.id)
            .about(format!("cert:{}", signed.facts.serial))
            .with("name", &record.authority.name)
            .with("algorithm", record.authority.algorithm);
        self.store.insert_authority(record, entry.build()).await?;
        self.reload_authorities()?;
        let known = self.authorities().factory().map(std::sync::Arc::clone).ok_or(FleetError::Bug("factory root"))?;
        self.signer.register_key(id, key.handle, facts_of(AuthorityKind::Factory, &known.issuer.name));
        drop(turn);
        self.sign_due_crls().await;
        Ok(known)
    }
}

impl BatchPlan {
    fn batch(
        &self,
        id: BatchId,
        sequence: u64,
        authority_serial: SerialNumber,
        (issued, expires): (UnixMillis, UnixMillis),
    ) -> Batch {
        let naming = self.devices.naming();
        Batch {
            id,
            name: self.new.name.clone(),
            facility: self.facility,
            product_line: self.line.id,
            station: self.station.id,
            sequence,
            recipe_sha256: hex::encode(self.recipe),
            devices: self.devices.count(),
            first_name: naming.name(0),
            last_name: naming.name(self.devices.count().saturating_sub(1)),
            allows_unsafe: self.new.allow_unsafe,
            allows_early_enrolment: self.new.allow_early_enrolment,
            authority_serial,
            issued,
            expires,
            state: BatchState::Open,
            ended: None,
        }
    }
}

fn devices_of(new: &NewBatch, now: UnixMillis) -> Result<DeviceList, FleetError> {
    let naming = Naming {
        prefix: new.name_prefix.clone().unwrap_or_else(|| format!("{}-", new.name)),
        digits: new.digits.unwrap_or(DEFAULT_DIGITS),
        first: new.first_number.unwrap_or(1),
    };
    let list = DeviceList::fresh(now, kf_crypto::random_array()?, new.count, naming);
    let list = list.map_err(invalid_format("name_prefix"))?;
    check_device_name("name_prefix", &list.naming().name(0))?;
    Ok(list)
}

//! EST's use cases.

mod claim;
mod refusal;

use std::net::IpAddr;
use std::sync::Arc;

use kf_access::Principal;
use kf_api::device::Device;
use kf_api::enrolment::{Enrolment, EnrolmentState};
use kf_api::operator::{Credential, Role};
use kf_api::product_line::{Approval, ProductLine};
use kf_crypto::PrivateKey;
use kf_enrol::bootstrap::{self, Bootstrap};
use kf_enrol::renewal::{self, Renewal};
use kf_key::{CertificateProfile, DeviceState, EnrolmentId, RevocationReason, SecretBytes, SerialNumber, UnixMillis};
use kf_pki::certificate::{PresentedCertificate, Subject};
use kf_pki::request::{CertificationRequest, RequestedKey};
use kf_store::certificate::{Basis, DeviceIssuance, KeyHolder};

pub(crate) use claim::{Attempts, Claim};
pub(crate) use refusal::{of_request, of_rule};

use crate::entry::Entry;
use crate::issuance::{Issued, Order};
use crate::news::is_shown;
use crate::tls::requested_key;
use crate::{ClientCertificate, Fleet, FleetError};

/// How long a device waits before it asks again for an enrolment that a person must approve.
const APPROVAL_RETRY_SECONDS: u32 = 60;
/// The most CA certificates in a `cacerts` answer.
const MAX_CA_CERTIFICATES: usize = 32;

/// The `<label>` of an EST path: a product line, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EstLabel<'a> {
    /// `/.well-known/est/<operation>`.
    None,
    /// `/.well-known/est/<label>/<operation>` or `/<label>/.well-known/est/<operation>`.
    Line(&'a str),
}

/// What the TLS layer and HTTP say about the client.
#[derive(Clone, Copy, Debug)]
pub struct TlsClient<'a> {
    /// Its certificate, if it presented one.
    pub certificate: Option<&'a ClientCertificate>,
    /// Its address, for rate limits.
    pub address: IpAddr,
}

/// How a client proves which device it is.
#[derive(Debug)]
pub enum EnrolCredential {
    /// The TLS client certificate alone.
    Certificate,
    /// HTTP Basic: user name = device name, password = enrolment code or `voucher.` and a station's voucher.
    Basic {
        /// Device name.
        user: String,
        /// Code or voucher.
        password: SecretBytes,
    },
    /// Neither.
    Nothing,
}

/// What came of an enrolment.
#[derive(Debug)]
pub enum EnrolOutcome {
    /// The certificate and the issuing CAs without the root, DER, leaf first.
    Issued(Vec<Vec<u8>>),
    /// Waits for a person: 202 with Retry-After.
    Waiting {
        /// Seconds to wait.
        retry_after_seconds: u32,
    },
}

/// A key made for a device that cannot make its own (RFC 7030 section 4.4), with its certificate.
#[derive(Debug)]
pub struct ServerKey {
    /// Private key, PKCS#8.
    pub key_pkcs8: SecretBytes,
    /// Certificate and issuing CAs, DER, leaf first.
    pub chain: Vec<Vec<u8>>,
}

impl Fleet {
    /// The CA certificates for EST `cacerts`: the root, and the issuing CAs that may serve the label, DER. While one root takes
    /// over from another: both, the links between them (RFC 7030 section 4.1.3), and the issuing CAs below either.
    ///
    /// # Errors
    /// [`FleetError::NotFound`] for an unknown label.
    pub async fn est_ca_certificates(&self, label: EstLabel<'_>) -> Result<Vec<Vec<u8>>, FleetError> {
        let line = self.line_of(label)?;
        let authorities = self.authorities();
        let root = authorities.root().ok_or(FleetError::Bug("no root"))?;
        let of_line = line.and_then(|line| line.authority);
        let mut found = vec![root.issuer.certificate.to_vec()];
        found.extend(authorities.anchors().iter().skip(1).map(|known| known.issuer.certificate.to_vec()));
        if let Some(handover) = authorities.lineage.open_root() {
            found.extend(handover.old_with_new.iter().chain(&handover.new_with_old).cloned());
        }
        for known in authorities.serving(of_line) {
            let twin = authorities.twin(known.record.id);
            found.extend(std::iter::once(known).chain(twin).map(|known| known.issuer.certificate.to_vec()));
        }
        found.truncate(MAX_CA_CERTIFICATES);
        Ok(found)
    }

    /// The CsrAttrs of a label, DER.
    ///
    /// # Errors
    /// [`FleetError::NotFound`] for an unknown label.
    pub async fn est_csr_attributes(&self, label: EstLabel<'_>) -> Result<Vec<u8>, FleetError> {
        let algorithms = match self.line_of(label)? {
            Some(line) => line.policy.allowed_algorithms.clone(),
            None => kf_api::product_line::EnrolmentPolicy::default().allowed_algorithms,
        };
        Ok(kf_pki::cms::csr_attributes(&algorithms))
    }

    /// Whether EST answers to this label wrap base64 whatever the client.
    #[must_use]
    pub fn est_wraps_base64(&self, label: EstLabel<'_>) -> bool {
        matches!(self.line_of(label), Ok(Some(line)) if line.policy.wrap_base64)
    }

    /// EST `simpleenroll`: bootstrap by IDevID, enrolment code or voucher. `body` as received (base64, DER or PEM).
    ///
    /// # Errors
    /// [`FleetError::Unauthenticated`] without a usable credential, [`FleetError::TooMany`] after failed attempts,
    /// [`FleetError::Invalid`] for a bad request or key, [`FleetError::Forbidden`] where no credential would help.
    pub async fn est_simple_enroll(
        &self,
        label: EstLabel<'_>,
        client: TlsClient<'_>,
        credential: EnrolCredential,
        body: &[u8],
    ) -> Result<EnrolOutcome, FleetError> {
        let label = self.line_of(label)?;
        let mut claim = self.claim(client, &credential).await?;
        let request = CertificationRequest::from_body(body).map_err(of_request)?;
        if claim.device.state == DeviceState::Suspended {
            // One that was sold waits like this for who claimed it.
            claim.device = self.taken(&claim, &request.key).await?;
        }
        let outcome = self.bootstrap(label, &claim, client, request.key).await;
        self.note_refusal(&claim.device, claim.credential(), outcome).await
    }

    async fn bootstrap(
        &self,
        label: Option<Arc<ProductLine>>,
        claim: &Claim,
        client: TlsClient<'_>,
        key: RequestedKey,
    ) -> Result<EnrolOutcome, FleetError> {
        let line = self.line(claim.device.product_line)?;
        let facts = Bootstrap {
            device: &claim.device,
            proof: claim.proof(),
            label: label.map(|line| line.id),
            key: &key,
            policy: &line.policy,
            endorsed: self.endorsed(&claim.device, &line, &key)?,
            now: self.now(),
        };
        let grant = match bootstrap::decide(&facts) {
            Ok(grant) => grant,
            Err(refused) => return Err(self.refused(claim, client, refused).await),
        };
        self.check_requested_key(&key, Some(&KeyHolder::Device(claim.device.id)))?;
        let device = &self.taken(claim, &key).await?;
        if let Some(pin) = claim.first_use() {
            self.note_first_use(claim, pin).await?;
        }
        let mut basis = claim.basis();
        if let Some(before) = self.store.issued_before(&basis, &key.spki_sha256)? {
            return Ok(self.answer(before.der, before.certificate.authority));
        }
        if grant.approval == Approval::Manual && !grant.retry {
            match self.approval(device, &key).await? {
                ApprovalOutcome::Waits => {
                    return Ok(EnrolOutcome::Waiting { retry_after_seconds: APPROVAL_RETRY_SECONDS });
                }
                ApprovalOutcome::Granted(id) if basis == Basis::Standing => basis = Basis::Enrolment(id),
                ApprovalOutcome::Granted(_) => {}
            }
        }
        let who = device_principal(device, claim.credential());
        let issued = self.issue_ldevid(&who, device, &line, key, basis).await?;
        self.admit_at_brokers(device).await;
        Ok(self.answer(issued.der, issued.certificate.authority))
    }

    /// EST `simplereenroll`: the TLS client certificate is the one being renewed.
    ///
    /// # Errors
    /// As [`Fleet::est_simple_enroll`].
    pub async fn est_simple_reenroll(
        &self,
        label: EstLabel<'_>,
        client: TlsClient<'_>,
        body: &[u8],
    ) -> Result<EnrolOutcome, FleetError> {
        let label = self.line_of(label)?;
        let (presented, registered, device) = self.device_of_certificate(client)?;
        let request = CertificationRequest::from_body(body).map_err(of_request)?;
        let line = self.line(device.product_line)?;
        let facts = Renewal {
            presented: &presented,
            registered: &registered,
            device: &device,
            label: label.map(|line| line.id),
            request: &request,
            policy: &line.policy,
            endorsed: self.endorsed(&device, &line, &request.key)?,
            now: self.now(),
        };
        let outcome = match renewal::decide(&facts) {
            Ok(_) => self.renew(&device, &line, request.key.clone(), registered.serial).await,
            Err(refused) => match self.answer_that_superseded(&facts)? {
                Some(answer) => Ok(answer),
                None => Err(of_rule(refused)),
            },
        };
        self.note_refusal(&device, Credential::Certificate, outcome).await
    }

    async fn renew(
        &self,
        device: &Device,
        line: &ProductLine,
        key: RequestedKey,
        of: SerialNumber,
    ) -> Result<EnrolOutcome, FleetError> {
        self.check_requested_key(&key, Some(&KeyHolder::Device(device.id)))?;
        let authorities = self.authorities();
        let authority = authorities.for_device(line, device.facility)?;
        let valid_until = renewal::repeatable_until(&line.policy, self.now(), authority.issuer.not_after);
        let basis = Basis::Renewal { of, authority: authority.record.id, valid_until };
        // A device whose power went before it had stored the answer asks again. Each answer a certificate of its own
        // would supersede the one in use, and lock the device out.
        if let Some(before) = self.store.issued_before(&basis, &key.spki_sha256)? {
            metrics::counter!("keyfleet_renewals_total", "result" => "repeated").increment(1);
            return Ok(self.answer(before.der, before.certificate.authority));
        }
        let who = device_principal(device, Credential::Certificate);
        let issued = self.issue_ldevid(&who, device, line, key, basis).await?;
        metrics::counter!("keyfleet_renewals_total", "result" => "issued").increment(1);
        Ok(self.answer(issued.der, issued.certificate.authority))
    }

    /// The answer that a device lost, where that answer superseded the very certificate with which it asks again: a line that
    /// lets a device have one certificate would lock it out. Nothing is issued, and everything else must hold.
    fn answer_that_superseded(&self, facts: &Renewal<'_>) -> Result<Option<EnrolOutcome>, FleetError> {
        let is_superseded = facts.registered.reason == Some(RevocationReason::Superseded);
        let registered =
            &kf_api::certificate::Certificate { status: kf_key::CertificateStatus::Good, ..facts.registered.clone() };
        if !is_superseded || renewal::decide(&Renewal { registered, ..*facts }).is_err() {
            return Ok(None);
        }
        let authorities = self.authorities();
        let line = self.line(facts.device.product_line)?;
        let authority = authorities.for_device(&line, facts.device.facility)?;
        let valid_until = renewal::repeatable_until(&line.policy, self.now(), authority.issuer.not_after);
        let basis = Basis::Renewal { of: facts.registered.serial, authority: authority.record.id, valid_until };
        let before = self.store.issued_before(&basis, &facts.request.key.spki_sha256)?;
        Ok(before.map(|before| self.answer(before.der, before.certificate.authority)))
    }

    /// EST `serverkeygen`; refused unless the line's policy allows it.
    ///
    /// # Errors
    /// As [`Fleet::est_simple_enroll`].
    pub async fn est_server_keygen(
        &self,
        label: EstLabel<'_>,
        client: TlsClient<'_>,
        credential: EnrolCredential,
        body: &[u8],
    ) -> Result<ServerKey, FleetError> {
        let label = self.line_of(label)?;
        let claim = self.claim(client, &credential).await?;
        let line = self.line(claim.device.product_line)?;
        if !line.policy.server_keygen {
            return Err(refusal::no_server_keygen());
        }
        // The request's own key is discarded; its signature still shows that the client formed it (RFC 7030 4.4.1).
        CertificationRequest::from_body(body).map_err(of_request)?;
        let algorithm = line.policy.allowed_algorithms.iter().find(|algorithm| algorithm.may_sign_certificates());
        let algorithm = algorithm.ok_or(FleetError::Bug("a policy without an algorithm"))?;
        let key = PrivateKey::generate(*algorithm)?;
        match self.bootstrap(label, &claim, client, requested_key(&key)?).await? {
            EnrolOutcome::Issued(chain) => Ok(ServerKey { key_pkcs8: key.to_pkcs8()?, chain }),
            EnrolOutcome::Waiting { .. } => Err(refusal::keygen_waits()),
        }
    }

    async fn issue_ldevid(
        &self,
        who: &Principal,
        device: &Device,
        line: &ProductLine,
        key: RequestedKey,
        basis: Basis,
    ) -> Result<Issued, FleetError> {
        let authorities = self.authorities();
        let issuance = DeviceIssuance {
            seen: device.state,
            protection: None,
            max_live_ldevids: Some(line.policy.max_live_ldevids),
            is_sighting: true,
        };
        let order = Order {
            who,
            authority: authorities.for_device(line, device.facility)?,
            profile: CertificateProfile::LDevId,
            subject: self.device_subject(device, line),
            key,
            lifetime: Some(u64::from(line.policy.ldevid_lifetime_hours) * UnixMillis::HOUR),
            device: Some((device.id, issuance)),
            operator: None,
            facility: Some(device.facility),
            basis,
            why: "",
        };
        self.issue(order).await
    }

    pub(crate) fn device_subject(&self, device: &Device, line: &ProductLine) -> Subject {
        Subject::Device {
            organization: self.config.fleet.clone(),
            device: device.id,
            name: device.name.clone(),
            product_line: line.name.clone(),
        }
    }

    /// Looks up, or notes, the enrolment that a person must approve.
    async fn approval(&self, device: &Device, key: &RequestedKey) -> Result<ApprovalOutcome, FleetError> {
        let found = match self.store.enrolment_of(device.id, &key.spki_sha256)? {
            Some(found) => found,
            None => {
                let enrolment = Enrolment {
                    id: EnrolmentId::from_parts(self.now(), kf_crypto::random_array()?),
                    device: device.id,
                    device_name: device.name.clone(),
                    spki_sha256: hex::encode(key.spki_sha256),
                    requested: self.now(),
                    state: EnrolmentState::Waiting,
                };
                let who = device_principal(device, Credential::Certificate);
                let entry = Entry::done(&who, "enrolment.request", self.now())
                    .about(enrolment.id)
                    .about(device.id)
                    .at_facility(Some(device.facility));
                self.store.request_enrolment(enrolment, entry.build()).await?
            }
        };
        match found.state {
            EnrolmentState::Waiting => Ok(ApprovalOutcome::Waits),
            EnrolmentState::Approved | EnrolmentState::Issued => Ok(ApprovalOutcome::Granted(found.id)),
            EnrolmentState::Refused => Err(refusal::by_a_person()),
        }
    }

    /// Lets a device that was never enrolled before in at the brokers.
    pub(crate) async fn admit_at_brokers(&self, device: &Device) {
        if device.state != DeviceState::Registered {
            return;
        }
        for broker in self.attached_brokers() {
            if let Err(error) = broker.admit(&device.name).await {
                tracing::warn!(broker = broker.name(), device = %device.id, error = %error, "device not admitted");
            }
        }
    }

    fn answer(&self, der: Vec<u8>, authority: kf_key::AuthorityId) -> EnrolOutcome {
        let mut chain = vec![der];
        chain.extend(self.authorities().chain_without_root(authority));
        EnrolOutcome::Issued(chain)
    }

    fn line_of(&self, label: EstLabel<'_>) -> Result<Option<Arc<ProductLine>>, FleetError> {
        match label {
            EstLabel::None => Ok(None),
            EstLabel::Line(name) => self.line_named(name)?.map(Some).ok_or(FleetError::NotFound("EST label")),
        }
    }

    /// The device that a TLS client certificate of ours names.
    pub(crate) fn device_of_certificate(
        &self,
        client: TlsClient<'_>,
    ) -> Result<(PresentedCertificate, kf_api::certificate::Certificate, Device), FleetError> {
        let presented = client.certificate.ok_or(FleetError::Unauthenticated)?;
        let serial = presented.serial.ok_or(FleetError::Unauthenticated)?;
        let holder = self.store.holder(serial)?.filter(|holder| is_shown(holder, presented));
        let holder = holder.ok_or(FleetError::Unauthenticated)?;
        let parsed = PresentedCertificate::from_der(&presented.der).ok_or(FleetError::Unauthenticated)?;
        Ok((parsed, holder.certificate.certificate, holder.device))
    }
}

enum ApprovalOutcome {
    Waits,
    Granted(EnrolmentId),
}

/// A device as who acts.
pub(crate) fn device_principal(device: &Device, credential: Credential) -> Principal {
    Principal::new(device.id.to_string(), device.name.clone(), Role::Device, [device.facility], credential)
}

impl<'a> TlsClient<'a> {
    /// A client without certificate.
    #[must_use]
    pub const fn anonymous(address: IpAddr) -> Self {
        Self { certificate: None, address }
    }

    /// A client with a certificate whose path was validated.
    #[must_use]
    pub const fn with_certificate(certificate: &'a ClientCertificate, address: IpAddr) -> Self {
        Self { certificate: Some(certificate), address }
    }
}

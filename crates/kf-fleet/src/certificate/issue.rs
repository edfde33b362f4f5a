//! Certificates on an operator's request.

use std::sync::Arc;

use kf_access::{Action, Permit, Principal, Target, authorize};
use kf_api::certificate::{CertificateWithPem, IssueRequest};
use kf_api::device::Device;
use kf_key::{CertificateProfile, DeviceId, FacilityId, OperatorId, UnixMillis};
use kf_pki::certificate::Subject;
use kf_pki::pem;
use kf_pki::request::CertificationRequest;
use kf_store::certificate::{Basis, DeviceIssuance, KeyHolder};

use crate::authority::{Authorities, Known};
use crate::enrolment::of_request;
use crate::issuance::{Order, record_of};
use crate::{Fleet, FleetError};

/// Lifetimes where the request names none.
const TLS_SERVER_LIFETIME: u64 = 90 * UnixMillis::DAY;
const OPERATOR_LIFETIME: u64 = 90 * UnixMillis::DAY;
/// The most names in a TLS server certificate.
const MAX_NAMES: usize = 32;

/// Whom a requested certificate names, from the registry.
struct Named {
    subject: Subject,
    authority: Arc<Known>,
    lifetime: Option<u64>,
    device: Option<(DeviceId, DeviceIssuance)>,
    operator: Option<OperatorId>,
    facility: Option<FacilityId>,
    holder: Option<KeyHolder>,
    /// The device as it was before: brokers are told of a device's first LDevID only.
    newcomer: Option<Device>,
    _permit: Permit,
}

impl Fleet {
    /// Issues a certificate for a request made elsewhere. With `dry_run` everything is checked, nothing is signed, and
    /// the answer's `pem` is empty.
    ///
    /// # Errors
    /// [`FleetError::Invalid`], [`FleetError::Conflict`], [`FleetError::NotFound`], [`FleetError::Denied`],
    /// [`FleetError::IssuanceStopped`], [`FleetError::StoreFull`], [`FleetError::Signer`].
    pub async fn certificate_issue(
        &self,
        who: &Principal,
        request: IssueRequest,
    ) -> Result<CertificateWithPem, FleetError> {
        let authorities = self.authorities();
        let named = match request.profile {
            CertificateProfile::IDevId | CertificateProfile::LDevId => self.name_device(who, &request, &authorities)?,
            CertificateProfile::TlsServer => self.name_server(who, &request, &authorities)?,
            CertificateProfile::Operator => self.name_operator(who, &request, &authorities)?,
            CertificateProfile::Root
            | CertificateProfile::IssuingCa
            | CertificateProfile::LinkCa
            | CertificateProfile::OcspSigner => {
                return Err(FleetError::invalid(
                    "profile",
                    format!("{} certificates are not issued on request", request.profile),
                    "use idevid, ldevid, tls-server or operator; CAs are made with `keyfleet authority create`",
                ));
            }
        };
        let csr = CertificationRequest::from_body(request.csr_pem.as_bytes()).map_err(of_request)?;
        self.check_requested_key(&csr.key, named.holder.as_ref())?;
        let order = Order {
            who,
            authority: &named.authority,
            profile: request.profile,
            subject: named.subject,
            key: csr.key,
            lifetime: named.lifetime,
            device: named.device,
            operator: named.operator,
            facility: named.facility,
            basis: Basis::Standing,
            why: "",
        };
        if request.dry_run {
            return self.rehearse(&order);
        }
        let newcomer = named.newcomer;
        let issued = self.issue(order).await?;
        if let Some(device) = &newcomer {
            self.admit_at_brokers(device).await;
        }
        Ok(CertificateWithPem {
            pem: pem::certificate(&issued.der),
            chain_pem: authorities.chain_pem_without_root(issued.certificate.authority),
            certificate: issued.certificate,
        })
    }

    fn rehearse(&self, order: &Order<'_>) -> Result<CertificateWithPem, FleetError> {
        let checked = self.check_order(order)?;
        let certificate = record_of(checked.facts(), order);
        Ok(CertificateWithPem { certificate, pem: String::new(), chain_pem: String::new() })
    }

    fn name_device(
        &self,
        who: &Principal,
        request: &IssueRequest,
        authorities: &Authorities,
    ) -> Result<Named, FleetError> {
        let device = request.device.as_deref().ok_or_else(|| missing("device"))?;
        let device = self.find_device(device, &who.visibility())?;
        let permit = authorize(who, Action::CertificateIssueDevice, Target::Facility(device.facility))?;
        if !device.state.may_enrol() {
            return Err(FleetError::conflict(
                "device",
                format!("device `{}` is {}", device.name, device.state),
                "resume it first; a decommissioned device never comes back",
            ));
        }
        let line = self.line(device.product_line)?;
        let chosen = authorities.for_device(&line, device.facility)?;
        let authority = self.chosen_authority(request, authorities, chosen)?;
        let is_ldevid = request.profile == CertificateProfile::LDevId;
        let lifetime = match (is_ldevid, request.lifetime_hours) {
            (_, Some(hours)) => Some(hours_of(hours)),
            (true, None) => Some(hours_of(line.policy.ldevid_lifetime_hours)),
            (false, None) => None,
        };
        let issuance = DeviceIssuance {
            seen: device.state,
            protection: None,
            max_live_ldevids: is_ldevid.then_some(line.policy.max_live_ldevids),
            is_sighting: false,
        };
        Ok(Named {
            subject: self.device_subject(&device, &line),
            authority,
            lifetime,
            device: Some((device.id, issuance)),
            operator: None,
            facility: Some(device.facility),
            holder: Some(KeyHolder::Device(device.id)),
            newcomer: is_ldevid.then_some(device),
            _permit: permit,
        })
    }

    fn name_server(
        &self,
        who: &Principal,
        request: &IssueRequest,
        authorities: &Authorities,
    ) -> Result<Named, FleetError> {
        let permit = authorize(who, Action::CertificateIssueServer, Target::Fleet)?;
        if request.dns_names.is_empty() || request.dns_names.len() > MAX_NAMES {
            return Err(FleetError::invalid(
                "dns_names",
                format!("{} names were given", request.dns_names.len()),
                "give 1 to 32 DNS names or IP addresses",
            ));
        }
        let default = authorities.default_issuing().ok_or(FleetError::Bug("no default issuing CA"))?;
        Ok(Named {
            subject: Subject::Server { dns_names: request.dns_names.clone() },
            authority: self.chosen_authority(request, authorities, default)?,
            lifetime: Some(request.lifetime_hours.map_or(TLS_SERVER_LIFETIME, hours_of)),
            device: None,
            operator: None,
            facility: None,
            holder: None,
            newcomer: None,
            _permit: permit,
        })
    }

    fn name_operator(
        &self,
        who: &Principal,
        request: &IssueRequest,
        authorities: &Authorities,
    ) -> Result<Named, FleetError> {
        let permit = authorize(who, Action::CertificateIssueOperator, Target::Fleet)?;
        let operator = request.operator.as_deref().ok_or_else(|| missing("operator"))?;
        let operator = self.find_operator(operator)?;
        if !operator.enabled {
            return Err(FleetError::conflict("operator", "is disabled", "enable the operator first"));
        }
        let default = authorities.default_issuing().ok_or(FleetError::Bug("no default issuing CA"))?;
        Ok(Named {
            subject: Subject::Operator { organization: self.config.fleet.clone(), name: operator.name },
            authority: self.chosen_authority(request, authorities, default)?,
            lifetime: Some(request.lifetime_hours.map_or(OPERATOR_LIFETIME, hours_of)),
            device: None,
            operator: Some(operator.id),
            facility: None,
            holder: Some(KeyHolder::Operator(operator.id)),
            newcomer: None,
            _permit: permit,
        })
    }

    fn chosen_authority(
        &self,
        request: &IssueRequest,
        authorities: &Authorities,
        otherwise: &Arc<Known>,
    ) -> Result<Arc<Known>, FleetError> {
        match &request.authority {
            None => Ok(Arc::clone(otherwise)),
            Some(reference) => {
                let id = self.find_authority(reference)?.record.id;
                authorities.issuing(id).cloned()
            }
        }
    }
}

fn hours_of(hours: u32) -> u64 {
    u64::from(hours).saturating_mul(UnixMillis::HOUR)
}

fn missing(field: &str) -> FleetError {
    FleetError::invalid(field, "is missing", format!("name the {field} the certificate is for"))
}

//! Which device a client claims to be, and with what.

use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

use kf_access::Visibility;
use kf_api::certificate::Certificate;
use kf_api::device::Device;
use kf_api::operator::{Credential, Operator, Role};
use kf_api::product_line::ProductLine;
use kf_api::vendor::{Vendor, VendorDevice};
use kf_enrol::bootstrap::{self, Bootstrap, Proof};
use kf_enrol::code::EnrolmentCode;
use kf_enrol::endorsement::Endorsed;
use kf_enrol::limit::{AddressKey, FailureWindow, device_must_wait};
use kf_enrol::voucher::{UnverifiedVoucher, Voucher};
use kf_enrol::{Refusal, RefusalClass};
use kf_key::{DeviceId, SecretBytes, UnixMillis, VendorId};
use kf_pki::certificate::PresentedCertificate;
use kf_pki::request::RequestedKey;
use kf_store::certificate::Basis;
use kf_store::enrolment::CodeRecord;
use kf_store::vendor::BoundCertificate;

use super::{EnrolCredential, TlsClient, device_principal, refusal};
use crate::endorsement::may_prove_by_certificate;
use crate::entry::Entry;
use crate::{ClientCertificate, Fleet, FleetError};

/// What marks a voucher in the password of HTTP Basic.
const VOUCHER_MARK: &[u8] = b"voucher.";
/// Refusals of one device that are logged within a quarter of an hour; a device that asks in a loop must not fill the
/// log.
const LOGGED_REFUSALS: u32 = 5;

/// A device, and what was shown for it. Found, not yet judged: `kf_enrol::bootstrap` does that.
pub(crate) struct Claim {
    pub(crate) device: Device,
    kind: Kind,
}

enum Kind {
    IDevId {
        presented: Box<PresentedCertificate>,
        registered: Box<Certificate>,
    },
    VendorIDevId {
        presented: Box<PresentedCertificate>,
        certificate: [u8; 32],
        vendor: Box<Vendor>,
        registered: VendorDevice,
    },
    Code(CodeRecord),
    Voucher {
        voucher: Voucher,
        station: Box<Operator>,
    },
}

impl Claim {
    pub(super) fn proof(&self) -> Proof<'_> {
        match &self.kind {
            Kind::IDevId { presented, registered } => Proof::IDevId { presented, registered },
            Kind::VendorIDevId { presented, certificate, vendor, registered } => {
                Proof::VendorIDevId { presented, certificate: *certificate, vendor, registered }
            }
            Kind::Code(record) => Proof::Code { code: &record.code, used_with: record.used_with },
            Kind::Voucher { voucher, station } => Proof::Voucher { voucher, station },
        }
    }

    /// Whether the claim lets the device prove a key: as far as it would let it enrol, but a certificate that renews
    /// does as well.
    pub(crate) fn may_prove(&self, key: &RequestedKey, line: &ProductLine, now: UnixMillis) -> Result<(), Refusal> {
        if let Kind::IDevId { registered, .. } = &self.kind {
            return may_prove_by_certificate(&self.device, registered);
        }
        let endorsed = Endorsed { policy: None, registered: None, proven: None };
        let facts = Bootstrap {
            device: &self.device,
            proof: self.proof(),
            label: None,
            key,
            policy: &line.policy,
            endorsed,
            now,
        };
        bootstrap::decide(&facts).map(drop)
    }

    /// SHA-256 of the SubjectPublicKeyInfo of the certificate that was presented.
    pub(crate) fn presented_key(&self) -> Option<[u8; 32]> {
        match &self.kind {
            Kind::IDevId { presented, .. } | Kind::VendorIDevId { presented, .. } => Some(presented.spki_sha256),
            Kind::Code(_) | Kind::Voucher { .. } => None,
        }
    }

    /// Of a manufacturer's IDevID that is used for the first time: what to bind the device to.
    pub(super) fn first_use(&self) -> Option<BoundCertificate> {
        match &self.kind {
            Kind::VendorIDevId { presented, certificate, registered, .. } if registered.first_used.is_none() => {
                Some(BoundCertificate { certificate: *certificate, spki: presented.spki_sha256 })
            }
            _ => None,
        }
    }

    pub(super) fn basis(&self) -> Basis {
        match &self.kind {
            Kind::IDevId { .. } | Kind::VendorIDevId { .. } => Basis::Standing,
            Kind::Code(record) => Basis::Code(record.code.id),
            Kind::Voucher { voucher, station } => {
                Basis::Voucher { id: voucher.id.clone(), station: station.id, expires: voucher.expires }
            }
        }
    }

    pub(crate) const fn credential(&self) -> Credential {
        match &self.kind {
            Kind::IDevId { .. } | Kind::VendorIDevId { .. } => Credential::Certificate,
            Kind::Code(_) => Credential::Code,
            Kind::Voucher { .. } => Credential::Voucher,
        }
    }
}

/// Failed attempts per address, and refusals per device that were logged.
pub(crate) struct Attempts {
    by_address: Mutex<FailureWindow<AddressKey>>,
    logged: Mutex<FailureWindow<DeviceId>>,
}

impl Default for Attempts {
    fn default() -> Self {
        Self {
            by_address: Mutex::new(FailureWindow::for_addresses()),
            logged: Mutex::new(FailureWindow::new(LOGGED_REFUSALS, kf_enrol::limit::WINDOW, 65_536)),
        }
    }
}

impl Attempts {
    fn must_wait(&self, address: AddressKey, now: UnixMillis) -> Option<u32> {
        self.by_address.lock().unwrap_or_else(PoisonError::into_inner).must_wait(&address, now)
    }

    fn failed(&self, address: AddressKey, now: UnixMillis) {
        self.by_address.lock().unwrap_or_else(PoisonError::into_inner).record_failure(address, now);
    }

    fn may_log(&self, device: DeviceId, now: UnixMillis) -> bool {
        let mut logged = self.logged.lock().unwrap_or_else(PoisonError::into_inner);
        let may = logged.must_wait(&device, now).is_none();
        if may {
            logged.record_failure(device, now);
        }
        may
    }
}

impl Fleet {
    /// Finds the device that a client claims to be.
    pub(crate) async fn claim(&self, client: TlsClient<'_>, credential: &EnrolCredential) -> Result<Claim, FleetError> {
        match credential {
            EnrolCredential::Basic { user, password } => {
                self.check_attempts(client.address)?;
                self.claim_by_secret(client, user, password).await
            }
            EnrolCredential::Certificate | EnrolCredential::Nothing => {
                if let Some(certificate) = client.certificate
                    && let Some(vendor) = certificate.vendor
                {
                    return self.claim_by_vendor(certificate, vendor);
                }
                let (presented, registered, device) = match self.device_of_certificate(client) {
                    Err(FleetError::Unauthenticated) => {
                        // It may be an IDevID of a batch whose record is still on its way.
                        self.adopt_early(client.certificate.ok_or(FleetError::Unauthenticated)?).await?;
                        self.device_of_certificate(client)?
                    }
                    found => found?,
                };
                let kind = Kind::IDevId { presented: Box::new(presented), registered: Box::new(registered) };
                Ok(Claim { device, kind })
            }
        }
    }

    /// The device that a manufacturer's IDevID is for.
    fn claim_by_vendor(&self, certificate: &ClientCertificate, vendor: VendorId) -> Result<Claim, FleetError> {
        let presented = PresentedCertificate::from_der(&certificate.der).ok_or(FleetError::Unauthenticated)?;
        let vendor = self.store.vendor(vendor)?.ok_or(FleetError::Unauthenticated)?;
        let digest = kf_crypto::sha256(&certificate.der);
        let registered = self.vendor_device_of(&vendor, &digest, &presented)?.ok_or(FleetError::Unauthenticated)?;
        let device = self.store.device(registered.device, &Visibility::Fleet)?.ok_or(FleetError::Unauthenticated)?;
        let kind = Kind::VendorIDevId {
            presented: Box::new(presented),
            certificate: digest,
            vendor: Box::new(vendor),
            registered,
        };
        Ok(Claim { device, kind })
    }

    /// Refuses an address that failed too often.
    pub(crate) fn check_attempts(&self, address: IpAddr) -> Result<(), FleetError> {
        match self.attempts.must_wait(AddressKey::from(address), self.now()) {
            Some(retry_after_seconds) => Err(FleetError::TooMany { retry_after_seconds }),
            None => Ok(()),
        }
    }

    /// Counts a failed attempt of an address.
    pub(crate) fn count_attempt(&self, address: IpAddr) {
        self.attempts.failed(AddressKey::from(address), self.now());
        metrics::counter!("keyfleet_enrolment_failures_total").increment(1);
    }

    async fn claim_by_secret(
        &self,
        client: TlsClient<'_>,
        user: &str,
        password: &SecretBytes,
    ) -> Result<Claim, FleetError> {
        let Some(device) = self.store.device_by_name(user, &Visibility::Fleet)? else {
            return Err(self.failed_attempt(client, None).await);
        };
        let attempts = self.store.failed_attempts(device.id)?;
        if let Some(retry_after_seconds) = device_must_wait(attempts.count, attempts.last, self.now()) {
            return Err(FleetError::TooMany { retry_after_seconds });
        }
        // Exposed to be hashed (code) or verified (voucher); it is the client's, and compared with nothing in clear.
        let kind = match password.expose().strip_prefix(VOUCHER_MARK) {
            Some(voucher) => self.voucher(voucher)?,
            None => self.code_of(&device, password.expose())?,
        };
        match kind {
            Some(kind) => Ok(Claim { device, kind }),
            None => Err(self.failed_attempt(client, Some(&device)).await),
        }
    }

    fn code_of(&self, device: &Device, text: &[u8]) -> Result<Option<Kind>, FleetError> {
        let Ok(code) = EnrolmentCode::parse(text) else { return Ok(None) };
        let hash = code.hash();
        let codes = self.store.codes_of_device(device.id)?;
        Ok(codes.into_iter().find(|record| record.hash == hash).map(Kind::Code))
    }

    fn voucher(&self, text: &[u8]) -> Result<Option<Kind>, FleetError> {
        let Ok(unverified) = UnverifiedVoucher::parse(text) else { return Ok(None) };
        let Some(station) = self.store.operator(unverified.station())? else { return Ok(None) };
        let key = station.voucher_key_pem.as_deref().filter(|_| station.role == Role::Station && station.enabled);
        let key =
            key.and_then(|pem| kf_pki::pem::decode_all("PUBLIC KEY", pem)).and_then(|keys| keys.into_iter().next());
        let Some(key) = key else { return Ok(None) };
        let verified = unverified.verify(&key, self.now()).ok();
        Ok(verified.map(|voucher| Kind::Voucher { voucher, station: Box::new(station) }))
    }

    /// Counts a failed attempt against the address and, where there is one, the device.
    async fn failed_attempt(&self, client: TlsClient<'_>, device: Option<&Device>) -> FleetError {
        self.count_attempt(client.address);
        if let Some(device) = device {
            if let Err(error) = self.store.count_failed_attempt(device.id, self.now()).await {
                tracing::error!(error = %error, "a failed attempt was not counted");
            }
            self.log_refusal(device, Credential::Code, "the code or voucher is not accepted").await;
        }
        FleetError::Unauthenticated
    }

    /// A refusal by the rules; a wrong secret counts as a failed attempt.
    pub(crate) async fn refused(&self, claim: &Claim, client: TlsClient<'_>, refused: Refusal) -> FleetError {
        let is_guessed = matches!(claim.kind, Kind::Code(_) | Kind::Voucher { .. });
        if refused.class() == RefusalClass::Credential && is_guessed {
            return self.failed_attempt(client, Some(&claim.device)).await;
        }
        refusal::of_rule(refused)
    }

    /// Logs a refusal, seldom enough, and passes the outcome on.
    pub(crate) async fn note_refusal<T>(
        &self,
        device: &Device,
        credential: Credential,
        outcome: Result<T, FleetError>,
    ) -> Result<T, FleetError> {
        if let Err(error) = &outcome
            && !matches!(error, FleetError::Unauthenticated | FleetError::TooMany { .. })
        {
            self.log_refusal(device, credential, &error.to_string()).await;
        }
        outcome
    }

    async fn log_refusal(&self, device: &Device, credential: Credential, why: &str) {
        if !self.attempts.may_log(device.id, self.now()) {
            return;
        }
        let entry = Entry::done(&device_principal(device, credential), "enrolment.refuse", self.now())
            .about(device.id)
            .at_facility(Some(device.facility))
            .because(why);
        if let Err(error) = self.store.append_log(entry.build()).await {
            tracing::error!(error = %error, "a refusal was not logged");
        }
    }
}

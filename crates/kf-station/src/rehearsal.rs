//! A rehearsal: a throw-away server that authorises a batch for a station, so that a recipe, a line and its people can be tried
//! without one. Nothing that a rehearsal makes is accepted by a real server: it knows neither CA nor keys.

use kf_batch::device_list::{DeviceList, Naming};
use kf_batch::quota::{Quota, QuotaTerms, StationKnows};
use kf_batch::salt::SealedBatchKey;
use kf_batch::station_request::StationRequest;
use kf_batch::{FormatError, P256Key};
use kf_crypto::{CryptoError, HpkePrivateKey, PrivateKey};
use kf_key::{
    AuthorityId, BatchId, CertificateProfile, FacilityId, KeyAlgorithm, OperatorId, ProductLineId, SerialNumber,
    UnixMillis,
};
use kf_pki::certificate::{IssuanceRequest, Subject, check_issuance, check_root};
use kf_pki::issuer::Issuer;
use kf_pki::request::{CertificationRequest, RequestedKey};

use crate::request::RequestError;

/// Why a rehearsal is not set up. Each is a bug or a broken machine.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RehearsalError {
    /// A document.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// The provider.
    #[error("a cryptographic operation failed")]
    Crypto,
    /// The station request.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// A certificate that is not issued.
    #[error("a certificate of the rehearsal is not issued")]
    Certificate,
    /// A quota that is not taken.
    #[error(transparent)]
    Quota(#[from] kf_batch::quota::QuotaRefusal),
}

impl From<CryptoError> for RehearsalError {
    fn from(_opaque: CryptoError) -> Self {
        Self::Crypto
    }
}

/// What the throw-away server decides.
#[derive(Clone, Debug)]
pub struct Order<'a> {
    /// Name of the station.
    pub station: &'a str,
    /// Product line.
    pub product_line: &'a str,
    /// Hash of the plan.
    pub plan: [u8; 32],
    /// How many devices.
    pub count: u32,
    /// Whether keys in clear are allowed.
    pub allows_unsafe: bool,
    /// Hours until the quota ends.
    pub hours: u64,
    /// The present moment.
    pub now: UnixMillis,
}

/// A quota, as it was signed and as it was verified.
#[derive(Debug)]
pub struct Authorised {
    /// As signed.
    pub signed: Vec<u8>,
    /// Verified.
    pub quota: Quota,
    /// The key that signed it.
    pub server_key: P256Key,
}

/// Authorises a batch for whoever made `request`.
///
/// # Errors
/// [`RehearsalError`].
pub fn authorise(request: &[u8], order: &Order<'_>) -> Result<Authorised, RehearsalError> {
    let request = StationRequest::claimed(request)?;
    let server = PrivateKey::generate(KeyAlgorithm::P256)?;
    let server_key = P256Key::from_spki(&server.spki())?;
    let expires = order.now.plus(order.hours * UnixMillis::HOUR);
    let (factory_certificate, authority, authority_certificate) = certificates(&request, order.now, expires)?;
    let batch = BatchId::from_parts(order.now, kf_crypto::random_array()?);
    let naming = Naming { prefix: format!("{}-", order.product_line), digits: 6, first: 1 };
    let terms = QuotaTerms {
        batch,
        name: "rehearsal".to_owned(),
        facility: FacilityId::from_parts(order.now, kf_crypto::random_array()?),
        facility_epoch: 1,
        product_line: ProductLineId::from_parts(order.now, kf_crypto::random_array()?),
        product_line_name: order.product_line.to_owned(),
        organization: "Keyfleet Rehearsal".to_owned(),
        station: OperatorId::from_parts(order.now, kf_crypto::random_array()?),
        station_name: order.station.to_owned(),
        sequence: 1,
        recipe: order.plan,
        allows_unsafe: order.allows_unsafe,
        allows_early_enrolment: false,
        issued: order.now,
        expires,
        server: "rehearsal.invalid".to_owned(),
        anchor: factory_certificate.clone(),
        authority,
        authority_certificate,
        factory_certificate,
        base_url: "http://rehearsal.invalid".to_owned(),
        devices: DeviceList::fresh(order.now, kf_crypto::random_array()?, order.count, naming)?,
        transport_key: request.transport_key,
        record_key: request.record_key,
    };
    let batch_key = kf_crypto::random_secret::<32>()?;
    let salt_key = HpkePrivateKey::derive(&kf_crypto::random_secret::<32>()?)?;
    let sealed = SealedBatchKey::seal(&batch_key, &request.transport_key, &terms.hash())?;
    let quota = Quota { terms, salt_key: P256Key::from_point(*salt_key.public_key())?, batch_key: sealed };
    let unsigned = quota.prepare(&server_key)?;
    let signature = server.sign(&unsigned.to_be_signed())?;
    let signed = unsigned.complete(&signature)?;
    let knows = StationKnows {
        server_key: &server_key,
        station: order.station,
        transport_key: &request.transport_key,
        record_key: &request.record_key,
        last_sequence: 0,
    };
    let quota = Quota::verify(&signed, &knows, order.now)?;
    Ok(Authorised { signed, quota, server_key })
}

/// The factory CA's certificate, the batch CA's identifier and certificate.
fn certificates(
    request: &StationRequest,
    now: UnixMillis,
    expires: UnixMillis,
) -> Result<(Vec<u8>, AuthorityId, Vec<u8>), RehearsalError> {
    let certificate = |_refusal| RehearsalError::Certificate;
    let factory = PrivateKey::generate(KeyAlgorithm::P256)?;
    let subject =
        |name: &str| Subject::Authority { common_name: name.to_owned(), organization: "Keyfleet Rehearsal".to_owned() };
    let root = check_root(IssuanceRequest {
        profile: CertificateProfile::Root,
        subject: subject("Rehearsal root"),
        key: RequestedKey::from_spki(&factory.spki()).map_err(|_request| RehearsalError::Certificate)?,
        serial: SerialNumber::from_parts(now, kf_crypto::random_array()?),
        not_before: now,
        not_after: Some(expires.plus(UnixMillis::DAY)),
    })
    .map_err(certificate)?;
    let signature = factory.sign(root.tbs())?;
    let root = root.complete(&signature).map_err(certificate)?.der;
    let authority = AuthorityId::from_parts(now, kf_crypto::random_array()?);
    let issuer = Issuer::from_certificate(authority, &root, 1, "http://rehearsal.invalid")
        .map_err(|_not_one| RehearsalError::Certificate)?;
    let csr = CertificationRequest::from_der(&request.authority_csr).map_err(|_request| RehearsalError::Certificate)?;
    let issuing = check_issuance(
        &issuer,
        IssuanceRequest {
            profile: CertificateProfile::IssuingCa,
            subject: subject("Rehearsal batch CA"),
            key: csr.key,
            serial: SerialNumber::from_parts(now, kf_crypto::random_array()?),
            not_before: now,
            not_after: Some(expires),
        },
    )
    .map_err(certificate)?;
    let signature = factory.sign(issuing.tbs())?;
    let issuing = issuing.complete(&signature).map_err(certificate)?.der;
    Ok((root, authority, issuing))
}

//! Enrolment and renewal over EST, driven by the SDK's state machine.

use kf_device::certificate::{Certificate, MAX_CERTIFICATE_OCTETS};
use kf_device::enrolment::machine::{Credential, Outcome, Step};
use kf_device::enrolment::{
    Enrolment, MAX_AUTHORIZATION_OCTETS, Operation, REQUEST_OCTETS, Service, basic_authorization, body,
    certification_request, issued, outcome_of, validity_of,
};
use kf_device::identity::{Candidate, Certified, SoftwareIdentity};
use kf_device::trust::Anchors;
use kf_key::UnixMillis;

use crate::device::Device;
use crate::fields::Fields;
use crate::host::{Request, ask};
use crate::text::{OrText, Text};
use crate::trust;

/// More steps than any path through the machine has.
const MAX_STEPS: u32 = 24;
pub(crate) const ANSWER_OCTETS: usize = 8 * 1024;

/// Enrolment code, empty for none; whether to renew at once: goes on until nothing is due. Gives the certificate.
pub(crate) fn enrol(
    device: &mut Device<'_>,
    now: UnixMillis,
    fields: &mut Fields<'_>,
    result: &mut [u8],
) -> Result<usize, Text> {
    let code = fields.next()?;
    let renew_now = fields.octet()? == 1;
    keep_certificate(device, now, code, renew_now)?;
    let identity = device.identity()?.ok_or(Text::of("there is no identity"))?;
    Ok(identity.certificate(&mut device.store, result).or_text("certificate")?.len())
}

/// Makes the device hold a certificate that is not due for renewal.
pub(crate) fn keep_certificate(
    device: &mut Device<'_>,
    now: UnixMillis,
    code: &[u8],
    renew_now: bool,
) -> Result<(), Text> {
    let mut octets = [0; MAX_CERTIFICATE_OCTETS];
    let mut enrolment =
        Enrolment::load(&mut device.store, !code.is_empty(), false, &mut octets).or_text("enrolment")?;
    if renew_now {
        enrolment.renew_now();
    }
    for _ in 0..MAX_STEPS {
        let outcome = match enrolment.next(now) {
            Step::Wait { .. } if enrolment.state().is_valid(now) => return Ok(()),
            Step::Wait { .. } => return Err(Text::of("the server did not grant the enrolment; try again later")),
            Step::AskForAttention(_) => return Err(Text::of("there is no credential that the server takes")),
            Step::RunHook => Outcome::HookRan,
            Step::MakeRequest => make_request(device)?,
            Step::Enrol(credential) => request_certificate(device, now, credential, code)?,
            Step::Prove => prove(device)?,
            Step::Adopt => adopt(device)?,
        };
        // Exposed to the machine: it only spreads waits.
        let random = u64::from_be_bytes(*device.source.random().or_text("noise")?.expose());
        enrolment.observe(outcome, now, random);
    }
    Err(Text::of("the enrolment does not come to an end"))
}

fn make_request(device: &mut Device<'_>) -> Result<Outcome, Text> {
    let seed = device.source.seed().or_text("seed")?;
    let nonce = device.source.nonce().or_text("nonce")?;
    Candidate::generate(&mut device.store, &device.fuses.chip, device.fuses.device, seed, nonce)
        .or_text("identity key")?;
    Ok(Outcome::RequestMade)
}

fn request_certificate(
    device: &mut Device<'_>,
    now: UnixMillis,
    credential: Credential,
    code: &[u8],
) -> Result<Outcome, Text> {
    let candidate = Candidate::load(&mut device.store, &device.fuses.chip, device.fuses.device)
        .or_text("identity key")?
        .ok_or(Text::of("there is no key that waits for a certificate"))?;
    let mut authorities = [0; ANSWER_OCTETS];
    let authorities = trust::authorities(device, now, &mut authorities)?;
    let mut answer = [0; ANSWER_OCTETS];
    let answer = post(device, credential, code, &candidate, &mut answer)?;
    if let Some(outcome) = outcome_of(credential, answer.status, answer.retry_after_seconds) {
        return Ok(outcome);
    }
    let certificate = issued(answer, &candidate.public_key(), &authorities).or_text("issued certificate")?;
    candidate
        .certify(&mut device.store, certificate.as_der())
        .map_err(|refused| Text::because("issued certificate", &refused.error))?;
    Ok(Outcome::Issued(validity_of(&certificate)))
}

/// A request for the CA certificates.
pub(crate) fn get<'a>(path: &'a str, certificate: &'a [u8], anchors: Anchors) -> Request<'a> {
    Request {
        method: Operation::CaCerts.method(),
        path,
        content_type: "",
        authorization: "",
        body: &[],
        certificate,
        headers: "",
        anchors,
    }
}

fn post<'a>(
    device: &mut Device<'_>,
    credential: Credential,
    code: &[u8],
    candidate: &Candidate<SoftwareIdentity>,
    answer: &'a mut [u8],
) -> Result<kf_device::enrolment::Answer<'a>, Text> {
    let operation = Operation::of(credential);
    let (mut der, mut base64) = ([0; REQUEST_OCTETS], [0; 2 * REQUEST_OCTETS]);
    let der = certification_request(candidate.key(), &mut der).or_text("request")?;
    let body = body(der, &mut base64).or_text("request")?;
    let mut header = [0; MAX_AUTHORIZATION_OCTETS];
    let (mut octets, mut certificate, mut identity) = ([0; MAX_CERTIFICATE_OCTETS], 0, None);
    let authorization = match credential {
        Credential::Code => basic_authorization(device.fuses.name(), code, &mut header).or_text("code")?,
        Credential::Certificate | Credential::IDevId => {
            let in_use = device.identity()?.ok_or(Text::of("there is no identity"))?;
            certificate = in_use.certificate(&mut device.store, &mut octets).or_text("certificate")?.len();
            identity = Some(in_use);
            ""
        }
    };
    let label = Service::new(Some(device.fuses.label())).or_text("label")?;
    let path = label.path(operation);
    let request = Request {
        method: operation.method(),
        path: path.as_str(),
        content_type: operation.content_type().unwrap_or_default(),
        authorization,
        body,
        certificate: octets.get(..certificate).unwrap_or_default(),
        headers: "",
        anchors: device.anchors,
    };
    ask(device.line, &request, identity.as_ref().map(|identity| identity.key()), answer)
}

/// Connects under the new certificate.
fn prove(device: &mut Device<'_>) -> Result<Outcome, Text> {
    let certified = load_certified(device)?;
    let mut octets = [0; MAX_CERTIFICATE_OCTETS];
    let certificate = certified.certificate(&mut device.store, &mut octets).or_text("certificate")?;
    Certificate::from_der(certificate).or_text("certificate")?;
    let path = Service::new(Some(device.fuses.label())).or_text("label")?.path(Operation::CaCerts);
    let mut answer = [0; ANSWER_OCTETS];
    let answer =
        ask(device.line, &get(path.as_str(), certificate, device.anchors), Some(certified.key()), &mut answer)?;
    Ok(match answer.status {
        200 => Outcome::Proved,
        401 | 403 => Outcome::ProofRefused,
        _ => Outcome::Failed { retry_after: 0 },
    })
}

fn adopt(device: &mut Device<'_>) -> Result<Outcome, Text> {
    let _erasure_of_the_old_key = load_certified(device)?.adopt(&mut device.store).or_text("identity")?;
    Ok(Outcome::Adopted)
}

fn load_certified(device: &mut Device<'_>) -> Result<Certified<SoftwareIdentity>, Text> {
    Certified::load(&mut device.store, &device.fuses.chip, device.fuses.device)
        .or_text("identity")?
        .ok_or(Text::of("there is no certificate to prove"))
}

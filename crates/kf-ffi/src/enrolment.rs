//! Enrolment and renewal over EST without a socket: requests go out as octets, answers come in.

use core::ffi::c_char;
use core::ptr;

use kf_device::certificate::{Anchor, MAX_CERTIFICATE_OCTETS};
use kf_device::enrolment::machine::{Attention, Credential, Outcome, Step};
use kf_device::enrolment::{
    Answer, Authorities, Enrolment, MAX_AUTHORIZATION_OCTETS, MAX_PATH_OCTETS, Method, Operation, REQUEST_OCTETS,
    Service, basic_authorization, body, certification_request, issued, outcome_of, validity_of,
};
use kf_device::identity::Certified;
use kf_device::trust::Anchors;
use kf_key::UnixMillis;

use crate::device::Device;
use crate::handle::{self, Held, InHandle};
use crate::identity::Which;
use crate::pointer;
use crate::status::Status;

/// `kf_est` of the header.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs, reason = "the header documents them")]
pub struct EstOfC {
    pub label: *const c_char,
    pub name: *const c_char,
    pub code: *const u8,
    pub code_length: usize,
    pub authorities: *mut u8,
    pub authorities_capacity: usize,
    pub anchor: [u8; 32],
    pub grade: u8,
    pub has_factory_identity: u8,
    pub renew_now: u8,
}

/// `kf_request` of the header.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs, reason = "the header documents them")]
pub struct RequestOfC {
    pub until: u64,
    pub path: *const c_char,
    pub content_type: *const c_char,
    pub authorization: *const c_char,
    pub body: *const u8,
    pub body_length: usize,
    pub what: u8,
    pub method: u8,
    pub identity: u8,
    pub reason: u8,
}

/// Octets of a request in base64.
const BODY_OCTETS: usize = REQUEST_OCTETS.div_ceil(3) * 4;
/// More steps than any path through the machine has without the server.
const MAX_STEPS: u32 = 8;
/// The most octets of a device's name.
const NAME_OCTETS: usize = 64;
/// No Retry-After in the answer.
const NO_RETRY_AFTER: u32 = u32::MAX;
/// What `kf_request.identity` says beside [`Which`].
const NO_IDENTITY: u8 = 0;
const FACTORY_IDENTITY: u8 = 4;

const SEND: u8 = 1;
const WAIT: u8 = 2;
const CHANGED: u8 = 3;
const ATTENTION: u8 = 4;

/// Which answer is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Due {
    Nothing,
    Authorities,
    Certificate(Credential),
    Proof,
}

/// What a `kf_enrolment` holds.
#[derive(Debug)]
pub struct Enrolling {
    enrolment: Enrolment,
    label: ([u8; NAME_OCTETS], usize),
    name: ([u8; NAME_OCTETS], usize),
    est: EstOfC,
    due: Due,
    /// Octets of the authorities in the caller's memory, once they are there.
    authorities: Option<usize>,
    path: [u8; MAX_PATH_OCTETS + 1],
    authorization: [u8; MAX_AUTHORIZATION_OCTETS + 1],
    body: [u8; BODY_OCTETS],
}

impl InHandle for Enrolling {
    const MARK: u64 = 0x4b46_454e_524f_4c31;
    const WORDS: usize = 160;
}

impl Drop for Enrolling {
    fn drop(&mut self) {
        self.forget_code();
    }
}

/// A text of the caller, copied.
fn copied(text: &str) -> Result<([u8; NAME_OCTETS], usize), Status> {
    let mut octets = [0; NAME_OCTETS];
    octets.get_mut(..text.len()).ok_or(Status::Length)?.copy_from_slice(text.as_bytes());
    Ok((octets, text.len()))
}

fn text((octets, length): &([u8; NAME_OCTETS], usize)) -> &str {
    octets.get(..*length).and_then(|octets| core::str::from_utf8(octets).ok()).unwrap_or_default()
}

/// An optional text.
///
/// # Safety
/// `pointer` is NULL or points to a text that ends with NUL.
unsafe fn optional<'a>(pointer: *const c_char) -> Result<&'a str, Status> {
    // SAFETY: by the caller's promise.
    if pointer.is_null() { Ok("") } else { unsafe { pointer::text(pointer) } }
}

/// What a description of the service points to.
struct Texts<'a> {
    label: &'a str,
    name: &'a str,
    code: &'a [u8],
}

/// # Safety
/// `est` is NULL or valid, and so is what it points to.
unsafe fn texts<'a>(est: *const EstOfC) -> Result<Texts<'a>, Status> {
    // SAFETY: by the caller's promise.
    let est = unsafe { pointer::value(est) }?;
    // SAFETY: by the caller's promise; of the memory for authorities only the pointer is looked at.
    unsafe {
        let _checked = pointer::octets_mut(est.authorities, est.authorities_capacity)?;
        Ok(Texts {
            label: optional(est.label)?,
            name: optional(est.name)?,
            code: pointer::octets(est.code, est.code_length)?,
        })
    }
}

border! {
    /// `kf_enrolment_begin` of the header.
    kf_enrolment_begin(enrolment: *mut Held<Enrolling>, device: *mut Held<Device>, est: *const EstOfC)
    takes {
        out = handle::place(enrolment),
        device = handle::get(device),
        texts = texts(est),
        est = pointer::value(est),
    } {
        Service::new(label_of(texts.label))?;
        if !matches!(est.grade, 1 | 2) {
            return Err(Status::Argument);
        }
        let mut header = [0; MAX_AUTHORIZATION_OCTETS];
        basic_authorization(texts.name, texts.code, &mut header).map_err(|_too_long| Status::Length)?;
        zero(&mut header);
        let mut octets = [0; MAX_CERTIFICATE_OCTETS];
        let (has_code, has_factory) = (!texts.code.is_empty(), est.has_factory_identity != 0);
        let mut enrolment = Enrolment::load(&mut device.store, has_code, has_factory, &mut octets)?;
        if est.renew_now != 0 {
            enrolment.renew_now();
        }
        out.put(Enrolling {
            enrolment,
            label: copied(texts.label)?,
            name: copied(texts.name)?,
            est: *est,
            due: Due::Nothing,
            authorities: None,
            path: [0; MAX_PATH_OCTETS + 1],
            authorization: [0; MAX_AUTHORIZATION_OCTETS + 1],
            body: [0; BODY_OCTETS],
        })
    }
}

/// An empty label is none.
fn label_of(label: &str) -> Option<&str> {
    (!label.is_empty()).then_some(label)
}

/// Wipes what may be secret.
fn zero(octets: &mut [u8]) {
    for octet in octets {
        // SAFETY: the pointer comes from a reference.
        unsafe { ptr::write_volatile(octet, 0) };
    }
}

border! {
    /// `kf_enrolment_next` of the header.
    kf_enrolment_next(
        enrolment: *mut Held<Enrolling>,
        device: *mut Held<Device>,
        now: u64,
        request: *mut RequestOfC,
    ) takes {
        enrolment = handle::get(enrolment),
        device = handle::get(device),
        request = pointer::value_mut(request),
    } {
        *request = RequestOfC::empty();
        // SAFETY: the header asks that the code stays until the enrolment ends.
        let code = unsafe { pointer::octets(enrolment.est.code, enrolment.est.code_length) }?;
        *request = enrolment.next(&mut device, code, UnixMillis(now))?;
        Ok(())
    }
}

impl RequestOfC {
    const fn empty() -> Self {
        Self {
            until: 0,
            path: ptr::null(),
            content_type: ptr::null(),
            authorization: ptr::null(),
            body: ptr::null(),
            body_length: 0,
            what: 0,
            method: 0,
            identity: NO_IDENTITY,
            reason: 0,
        }
    }

    const fn of(what: u8) -> Self {
        Self { what, ..Self::empty() }
    }
}

impl Enrolling {
    /// Does what the device can do alone, until the server, the clock or a person is needed.
    fn next(&mut self, device: &mut Device, code: &[u8], now: UnixMillis) -> Result<RequestOfC, Status> {
        self.due = Due::Nothing;
        for _ in 0..MAX_STEPS {
            let outcome = match self.enrolment.next(now) {
                Step::Wait { until } => return Ok(RequestOfC { until: until.0, ..RequestOfC::of(WAIT) }),
                Step::AskForAttention(attention) => return self.ask_for_attention(device, attention, now),
                Step::RunHook => {
                    self.observe(device, Outcome::HookRan, now)?;
                    return Ok(RequestOfC::of(CHANGED));
                }
                Step::MakeRequest => {
                    device.make_identity(self.est.grade)?;
                    Outcome::RequestMade
                }
                Step::Enrol(credential) => return self.ask_server(device, credential, code),
                Step::Prove => return Ok(self.get(Due::Proof, Which::Certified.code())),
                Step::Adopt => {
                    let (_in_use, _erasure) = device.certified()?.adopt(&mut device.store)?;
                    Outcome::Adopted
                }
            };
            self.observe(device, outcome, now)?;
        }
        Err(Status::Bug)
    }

    fn ask_for_attention(
        &mut self,
        device: &mut Device,
        attention: Attention,
        now: UnixMillis,
    ) -> Result<RequestOfC, Status> {
        self.observe(device, Outcome::AttentionAsked, now)?;
        let reason = match attention {
            Attention::NoBootstrap => 1,
            Attention::AllRefused => 2,
        };
        Ok(RequestOfC { reason, ..RequestOfC::of(ATTENTION) })
    }

    fn observe(&mut self, device: &mut Device, outcome: Outcome, now: UnixMillis) -> Result<(), Status> {
        let random = device.spread()?;
        self.enrolment.observe(outcome, now, random);
        Ok(())
    }

    /// The authorities first, then the request.
    fn ask_server(&mut self, device: &mut Device, credential: Credential, code: &[u8]) -> Result<RequestOfC, Status> {
        if self.authorities.is_none() {
            return Ok(self.get(Due::Authorities, NO_IDENTITY));
        }
        let candidate = device.candidate()?;
        let mut der = [0; REQUEST_OCTETS];
        let Ok(der) = certification_request(candidate.key(), &mut der);
        let body_length = body(der, &mut self.body)?.len();
        let operation = Operation::of(credential);
        let identity = match credential {
            Credential::Code => {
                let mut header = [0; MAX_AUTHORIZATION_OCTETS];
                let text = basic_authorization(text(&self.name), code, &mut header)?;
                fill(&mut self.authorization, text.as_bytes());
                zero(&mut header);
                NO_IDENTITY
            }
            Credential::Certificate => Which::InUse.code(),
            Credential::IDevId => FACTORY_IDENTITY,
        };
        let authorization =
            if credential == Credential::Code { self.authorization.as_ptr().cast() } else { ptr::null() };
        self.due = Due::Certificate(credential);
        let body = self.body.as_ptr();
        Ok(RequestOfC { authorization, body, body_length, ..self.request(operation, identity) })
    }

    fn get(&mut self, due: Due, identity: u8) -> RequestOfC {
        self.due = due;
        self.request(Operation::CaCerts, identity)
    }

    fn request(&mut self, operation: Operation, identity: u8) -> RequestOfC {
        // The label was checked when the enrolment began.
        if let Ok(service) = Service::new(label_of(text(&self.label))) {
            let path = service.path(operation);
            fill(&mut self.path, path.as_str().as_bytes());
        }
        let method = match operation.method() {
            Method::Get => 1,
            Method::Post => 2,
        };
        let content_type =
            if operation.content_type().is_some() { c"application/pkcs10".as_ptr() } else { ptr::null() };
        RequestOfC { path: self.path.as_ptr().cast(), content_type, method, identity, ..RequestOfC::of(SEND) }
    }

    fn forget_code(&mut self) {
        zero(&mut self.authorization);
    }
}

/// A text and the NUL behind it.
fn fill(place: &mut [u8], text: &[u8]) {
    let padded = text.iter().copied().chain(core::iter::repeat(0));
    place.iter_mut().zip(padded).for_each(|(place, octet)| *place = octet);
}

border! {
    /// `kf_enrolment_answer` of the header.
    kf_enrolment_answer(
        enrolment: *mut Held<Enrolling>,
        device: *mut Held<Device>,
        now: u64,
        status: u16,
        retry_after_seconds: u32,
        body: *mut u8,
        length: usize,
    ) takes {
        enrolment = handle::get(enrolment),
        device = handle::get(device),
        body = pointer::octets_mut(body, length),
    } {
        let retry_after_seconds = (retry_after_seconds != NO_RETRY_AFTER).then_some(retry_after_seconds);
        let (answer, now) = (Answer { status, retry_after_seconds, body }, UnixMillis(now));
        enrolment.forget_code();
        // SAFETY: the header asks that this memory stays until the enrolment ends, and is used for nothing else.
        let memory = unsafe { pointer::octets_mut(enrolment.est.authorities, enrolment.est.authorities_capacity) }?;
        match core::mem::replace(&mut enrolment.due, Due::Nothing) {
            Due::Nothing => Err(Status::State),
            Due::Authorities => enrolment.take_authorities(&mut device, answer, memory, now),
            Due::Certificate(credential) => {
                enrolment.take_certificate(&mut device, credential, answer, memory, now)
            }
            Due::Proof => enrolment.take_proof(&mut device, status, retry_after_seconds, now),
        }
    }
}

impl Enrolling {
    fn take_authorities(
        &mut self,
        device: &mut Device,
        answer: Answer<'_>,
        memory: &mut [u8],
        now: UnixMillis,
    ) -> Result<(), Status> {
        let retry_after = millis(answer.retry_after_seconds);
        if answer.status != 200 {
            return self.observe(device, Outcome::Failed { retry_after }, now);
        }
        let Some(place) = memory.get_mut(..answer.body.len()) else {
            self.observe(device, Outcome::Failed { retry_after }, now)?;
            return Err(Status::Buffer);
        };
        // Reading decodes in place; the copy is read again when the certificate comes.
        place.copy_from_slice(answer.body);
        let length = place.len();
        let anchors = Anchors::load(&mut device.store, Anchor(self.est.anchor))?;
        let taken = Authorities::read(answer, anchors).map_err(Status::from).and_then(|mut authorities| {
            // A device without a clock says 0, and does not judge the validity of links.
            let clock = (now.0 > 0).then_some(now);
            Ok(authorities.take_up(&mut device.store, clock)?)
        });
        match taken {
            Ok(_new) => {
                self.authorities = Some(length);
                Ok(())
            }
            Err(status) => {
                self.observe(device, Outcome::Failed { retry_after }, now)?;
                Err(status)
            }
        }
    }

    fn take_certificate(
        &mut self,
        device: &mut Device,
        credential: Credential,
        answer: Answer<'_>,
        memory: &mut [u8],
        now: UnixMillis,
    ) -> Result<(), Status> {
        let length = self.authorities.take().ok_or(Status::State)?;
        if let Some(outcome) = outcome_of(credential, answer.status, answer.retry_after_seconds) {
            return self.observe(device, outcome, now);
        }
        let candidate = device.candidate()?;
        let kept = memory.get_mut(..length).ok_or(Status::State)?;
        let kept = Answer { status: 200, retry_after_seconds: None, body: kept };
        let anchors = Anchors::load(&mut device.store, Anchor(self.est.anchor))?;
        let outcome = Authorities::read(kept, anchors)
            .and_then(|authorities| issued(answer, &candidate.public_key(), &authorities))
            .map_err(Status::from)
            .and_then(|certificate| {
                let certified = candidate.certify(&mut device.store, certificate.as_der());
                certified.map_err(|refused| Status::from(refused.error))?;
                Ok(Outcome::Issued(validity_of(&certificate)))
            });
        match outcome {
            Ok(outcome) => self.observe(device, outcome, now),
            Err(status) => {
                self.observe(device, Outcome::Failed { retry_after: 0 }, now)?;
                Err(status)
            }
        }
    }

    fn take_proof(
        &mut self,
        device: &mut Device,
        status: u16,
        retry_after_seconds: Option<u32>,
        now: UnixMillis,
    ) -> Result<(), Status> {
        match status {
            200 => self.observe(device, Outcome::Proved, now),
            401 | 403 => {
                self.observe(device, Outcome::ProofRefused, now)?;
                if self.enrolment.state().gives_up_proof() {
                    let _erasure = Certified::discard(device.certified()?, &mut device.store)?;
                    self.observe(device, Outcome::Discarded, now)?;
                }
                Ok(())
            }
            _ => self.observe(device, Outcome::Failed { retry_after: millis(retry_after_seconds) }, now),
        }
    }
}

fn millis(seconds: Option<u32>) -> u64 {
    seconds.map_or(0, |seconds| u64::from(seconds).saturating_mul(1_000))
}

/// `kf_enrolment_end` of the header.
///
/// # Safety
/// `enrolment` is NULL or a handle.
// SAFETY: no other symbol of this name exists: the prefix is ours.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kf_enrolment_end(enrolment: *mut Held<Enrolling>) {
    // SAFETY: by the caller's promise.
    unsafe { handle::wipe(enrolment) }
}

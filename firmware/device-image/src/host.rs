//! The modem: it does TLS and HTTP, and has no key.

use core::cell::RefCell;

use board::line::Line;
use kf_device::enrolment::{Answer, Method};
use kf_device::identity::IdentityKey;
use kf_device::trust::{Anchors, MAX_ANCHORS};

use crate::text::Text;

/// A request as the modem takes it.
pub(crate) struct Request<'a> {
    pub(crate) method: Method,
    pub(crate) path: &'a str,
    pub(crate) content_type: &'a str,
    pub(crate) authorization: &'a str,
    pub(crate) body: &'a [u8],
    /// The certificate to show in TLS, DER; none when empty.
    pub(crate) certificate: &'a [u8],
    /// Further headers, one a line.
    pub(crate) headers: &'a str,
    /// Whom to believe: the modem has no trust of its own.
    pub(crate) anchors: Anchors,
}

/// The most octets that a TLS session asks to be signed.
const MAX_TO_BE_SIGNED_OCTETS: usize = 512;

/// Sends a request and waits for the answer, signing for the TLS session when the modem asks for it.
pub(crate) fn ask<'a, K: IdentityKey>(
    line: &RefCell<Line>,
    request: &Request<'_>,
    key: Option<&K>,
    buffer: &'a mut [u8],
) -> Result<Answer<'a>, Text> {
    ask_for_news(line, request, key, buffer).map(|(answer, _)| answer)
}

/// As [`ask`]; beside the answer the headers of the server that are meant for devices, one a line.
pub(crate) fn ask_for_news<'a, K: IdentityKey>(
    line: &RefCell<Line>,
    request: &Request<'_>,
    key: Option<&K>,
    buffer: &'a mut [u8],
) -> Result<(Answer<'a>, &'a str), Text> {
    send(line, request);
    loop {
        let length = line.borrow_mut().receive(buffer).map_err(|_too_long| Text::of("the answer is too long"))?.len();
        let Some((kind, rest)) = buffer.get(..length).and_then(<[u8]>::split_first) else {
            return Err(Text::of("the modem said nothing"));
        };
        match kind {
            b'A' => return answer(buffer, length),
            b'S' if rest.len() <= MAX_TO_BE_SIGNED_OCTETS => {
                let signature = key.and_then(|key| key.sign(rest).ok());
                match signature {
                    Some(signature) => line.borrow_mut().send(&[b"s", &signature]),
                    None => line.borrow_mut().send(&[b"s"]),
                }
            }
            _ => return Err(Text::of("the modem said something else")),
        }
    }
}

fn send(line: &RefCell<Line>, request: &Request<'_>) {
    let Request { method, path, content_type, authorization, body, certificate, headers, anchors } = request;
    let mut believed = [[0; 32]; MAX_ANCHORS];
    believed.iter_mut().zip(anchors.iter()).for_each(|(place, anchor)| *place = anchor.0);
    let believed = believed.as_flattened().get(..32 * anchors.iter().count()).unwrap_or_default();
    let fields = [path.as_bytes(), content_type.as_bytes(), authorization.as_bytes(), body, certificate];
    let [a, b, c, d, e] = fields.map(length);
    let [path, content_type, authorization, body, certificate] = fields;
    let (f, g) = (length(headers.as_bytes()), length(believed));
    let method: &[u8] = if matches!(method, Method::Post) { &[1] } else { &[0] };
    line.borrow_mut().send(&[
        b"H",
        method,
        &a,
        path,
        &b,
        content_type,
        &c,
        authorization,
        &d,
        body,
        &e,
        certificate,
        &f,
        headers.as_bytes(),
        &g,
        believed,
    ]);
}

fn length(field: &[u8]) -> [u8; 2] {
    u16::try_from(field.len()).unwrap_or(u16::MAX).to_le_bytes()
}

/// Status 2, Retry-After 4, length of the headers 2, headers, body.
fn answer(buffer: &mut [u8], length: usize) -> Result<(Answer<'_>, &str), Text> {
    let cut = || Text::of("the answer is cut short");
    let (_, rest) = buffer.get_mut(..length).and_then(<[u8]>::split_first_mut).ok_or_else(cut)?;
    let (status, rest) = rest.split_first_chunk_mut().ok_or_else(cut)?;
    let (retry, rest) = rest.split_first_chunk_mut().ok_or_else(cut)?;
    let (of_headers, rest) = rest.split_first_chunk_mut().ok_or_else(cut)?;
    let (headers, body) = rest.split_at_mut_checked(usize::from(u16::from_le_bytes(*of_headers))).ok_or_else(cut)?;
    let headers = core::str::from_utf8(headers).map_err(|_not_utf8| Text::of("a header is no text"))?;
    let retry = u32::from_be_bytes(*retry);
    let retry_after_seconds = (retry != u32::MAX).then_some(retry);
    Ok((Answer { status: u16::from_be_bytes(*status), retry_after_seconds, body }, headers))
}

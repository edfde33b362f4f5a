//! The modem: it does TLS and HTTP, and has no key.

use core::cell::RefCell;

use board::line::Line;
use kf_device::enrolment::{Answer, Method};
use kf_device::identity::IdentityKey;

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
    let Request { method, path, content_type, authorization, body, certificate } = request;
    let fields = [path.as_bytes(), content_type.as_bytes(), authorization.as_bytes(), body, certificate];
    let [a, b, c, d, e] = fields.map(|field| u16::try_from(field.len()).unwrap_or(u16::MAX).to_le_bytes());
    let [path, content_type, authorization, body, certificate] = fields;
    let method: &[u8] = if matches!(method, Method::Post) { &[1] } else { &[0] };
    line.borrow_mut().send(&[b"H", method, &a, path, &b, content_type, &c, authorization, &d, body, &e, certificate]);
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

fn answer(buffer: &mut [u8], length: usize) -> Result<Answer<'_>, Text> {
    let cut = || Text::of("the answer is cut short");
    let (_, rest) = buffer.get_mut(..length).and_then(<[u8]>::split_first_mut).ok_or_else(cut)?;
    let (status, rest) = rest.split_first_chunk_mut().ok_or_else(cut)?;
    let (retry, body) = rest.split_first_chunk_mut().ok_or_else(cut)?;
    let retry = u32::from_be_bytes(*retry);
    let retry_after_seconds = (retry != u32::MAX).then_some(retry);
    Ok(Answer { status: u16::from_be_bytes(*status), retry_after_seconds, body })
}

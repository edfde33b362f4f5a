//! The Authorization header: HTTP Basic for EST (RFC 7617), Bearer for the API (RFC 6750).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderMap;
use http::header::AUTHORIZATION;
use kf_fleet::EnrolCredential;
use kf_key::SecretBytes;

use crate::failure::Failure;

/// The most octets of an Authorization header: a station's voucher in base64 is below 4 KiB.
const MAX_OCTETS: usize = 8 * 1024;
/// The most octets of a user name, which is a device name.
const MAX_USER_OCTETS: usize = 64;
/// The most octets of an API token.
const MAX_TOKEN_OCTETS: usize = 128;

/// The single Authorization header, split into scheme and credentials.
///
/// # Errors
/// More than one, or one that is too long or not text.
fn single(headers: &HeaderMap) -> Result<Option<(&str, &str)>, Failure> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let refused = |problem| Failure::invalid("Authorization", problem, "send one Authorization header");
    if values.next().is_some() {
        return Err(refused("there is more than one"));
    }
    if value.len() > MAX_OCTETS {
        return Err(refused("it is too long"));
    }
    let Ok(text) = value.to_str() else { return Err(refused("it is not ASCII text")) };
    let (scheme, credentials) = text.split_once(' ').unwrap_or((text, ""));
    Ok(Some((scheme, credentials.trim())))
}

/// The enrolment credential of a request. Without an Authorization header the TLS certificate speaks, if there is one.
///
/// # Errors
/// A header that is not well-formed HTTP Basic. Another scheme counts as no credential, so that the answer's challenge
/// tells the client what would help.
pub(crate) fn enrolment(headers: &HeaderMap, has_certificate: bool) -> Result<EnrolCredential, Failure> {
    let without = if has_certificate { EnrolCredential::Certificate } else { EnrolCredential::Nothing };
    match single(headers)? {
        Some((scheme, credentials)) if scheme.eq_ignore_ascii_case("basic") => basic(credentials).ok_or_else(|| {
            Failure::invalid(
                "Authorization",
                "it is not HTTP Basic with a device name and a code",
                "send base64 of `<device name>:<enrolment code>`",
            )
        }),
        _ => Ok(without),
    }
}

fn basic(credentials: &str) -> Option<EnrolCredential> {
    let decoded = STANDARD.decode(credentials).ok().map(SecretBytes::from_vec)?;
    // Exposed to be split at the first colon (RFC 7617 section 2); both halves are copied, the whole is wiped.
    let octets = decoded.expose();
    let colon = octets.iter().position(|octet| *octet == b':')?;
    let (user, password) = (octets.get(..colon)?, octets.get(colon.checked_add(1)?..)?);
    if user.is_empty() || user.len() > MAX_USER_OCTETS || password.is_empty() {
        return None;
    }
    let user = std::str::from_utf8(user).ok()?.to_owned();
    Some(EnrolCredential::Basic {
        user,
        password: SecretBytes::fill(password.len(), |out| out.copy_from_slice(password)),
    })
}

/// The API token of a request, if it carries one.
///
/// # Errors
/// A header of another scheme, or a token of impossible length.
pub(crate) fn bearer(headers: &HeaderMap) -> Result<Option<SecretBytes>, Failure> {
    match single(headers)? {
        None => Ok(None),
        Some((scheme, token))
            if scheme.eq_ignore_ascii_case("bearer") && !token.is_empty() && token.len() <= MAX_TOKEN_OCTETS =>
        {
            Ok(Some(SecretBytes::fill(token.len(), |out| out.copy_from_slice(token.as_bytes()))))
        }
        Some(_) => Err(Failure::unauthenticated()),
    }
}

#[cfg(test)]
mod tests;

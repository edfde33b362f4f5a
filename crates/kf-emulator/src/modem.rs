//! The modem of the emulated board: TLS and HTTP for a device that keeps its key to itself.

use std::fmt;
use std::sync::{Arc, Mutex};

use kf_client::{Client, HeaderValue, Method, TlsKey, header};
use kf_crypto::CryptoError;
use kf_device::certificate::Certificate;
use kf_key::KeyAlgorithm;

use crate::bridge::BridgeError;
use crate::machine::Machine;

/// Where the server is and whom to believe.
#[derive(Clone, Debug)]
pub(crate) struct Server {
    /// `https://host:port`.
    pub(crate) url: String,
    /// The root's certificate, DER.
    pub(crate) root: Vec<u8>,
}

/// A request of the firmware, taken apart.
struct Request<'a> {
    is_post: bool,
    path: &'a str,
    content_type: &'a str,
    authorization: &'a str,
    body: &'a [u8],
    certificate: &'a [u8],
}

/// The device's key, which signs at the other end of the line.
struct KeyInFirmware {
    machine: Arc<Mutex<Machine>>,
    spki: Vec<u8>,
}

impl fmt::Debug for KeyInFirmware {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyInFirmware")
    }
}

impl TlsKey for KeyInFirmware {
    fn algorithm(&self) -> KeyAlgorithm {
        KeyAlgorithm::P256
    }

    fn spki(&self) -> Vec<u8> {
        self.spki.clone()
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, CryptoError> {
        let mut machine = self.machine.lock().map_err(|_poisoned| CryptoError)?;
        let answer = machine.ask(&[b"S", message].concat()).map_err(|_gone| CryptoError)?;
        match answer.split_first() {
            Some((b's', signature)) if signature.len() == 64 => Ok(der(signature)),
            _ => Err(CryptoError),
        }
    }
}

/// ECDSA-Sig-Value (RFC 5480) of a signature of fixed length.
fn der(signature: &[u8]) -> Vec<u8> {
    let (r, s) = signature.split_at(signature.len() / 2);
    let body = [integer(r), integer(s)].concat();
    [vec![0x30, short_length(&body)], body].concat()
}

fn integer(number: &[u8]) -> Vec<u8> {
    let zeroes = number.iter().take_while(|octet| **octet == 0).count().min(number.len().saturating_sub(1));
    let digits = number.get(zeroes..).unwrap_or_default();
    let pad: &[u8] = if digits.first().is_some_and(|first| *first >= 0x80) { &[0] } else { &[] };
    let body = [pad, digits].concat();
    [vec![0x02, short_length(&body)], body].concat()
}

/// Two numbers of 32 octets stay below 128.
fn short_length(body: &[u8]) -> u8 {
    u8::try_from(body.len()).unwrap_or(0x7f)
}

/// Carries out a request and gives the frame that answers it. A server that cannot be reached is an answer too: status 0.
///
/// # Errors
/// [`BridgeError`] when the request itself makes no sense.
pub(crate) fn carry(
    machine: &Arc<Mutex<Machine>>,
    server: Option<&Server>,
    runtime: &tokio::runtime::Runtime,
    frame: &[u8],
) -> Result<Vec<u8>, BridgeError> {
    let request = parse(frame).ok_or(BridgeError::Frame)?;
    let Some(server) = server else { return Ok(answer(0, None, b"")) };
    let mut client = Client::builder().roots(vec![server.root.clone()]);
    if !request.certificate.is_empty() {
        let certificate = Certificate::from_der(request.certificate).map_err(|_malformed| BridgeError::Frame)?;
        let spki = certificate.public_key().to_vec();
        let key = KeyInFirmware { machine: Arc::clone(machine), spki };
        client = client.identity(vec![request.certificate.to_vec()], Arc::new(key));
    }
    let client = client.build()?;
    let mut headers = Vec::new();
    for (name, value) in [(header::CONTENT_TYPE, request.content_type), (header::AUTHORIZATION, request.authorization)]
    {
        if !value.is_empty() {
            headers.push((name, HeaderValue::from_str(value).map_err(|_invalid| BridgeError::Frame)?));
        }
    }
    let method = if request.is_post { Method::POST } else { Method::GET };
    let url = format!("{}{}", server.url, request.path);
    match runtime.block_on(client.request(method, &url, &headers, request.body.to_vec())) {
        Ok(response) => {
            let retry = response.headers.get(header::RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
            Ok(answer(response.status.as_u16(), retry, &response.body))
        }
        // A certificate that is refused ends the handshake; to the device that is an answer.
        Err(error) if kf_client::alert_in(&error).is_some() => Ok(answer(403, None, b"")),
        Err(_unreachable) => Ok(answer(0, None, b"")),
    }
}

fn parse(frame: &[u8]) -> Option<Request<'_>> {
    let (method, mut rest) = frame.split_first()?;
    let mut next = || {
        let (length, after) = rest.split_first_chunk()?;
        let (field, after) = after.split_at_checked(usize::from(u16::from_le_bytes(*length)))?;
        rest = after;
        Some(field)
    };
    let mut text = || std::str::from_utf8(next()?).ok();
    let (path, content_type, authorization) = (text()?, text()?, text()?);
    let (body, certificate) = (next()?, next()?);
    Some(Request { is_post: *method == 1, path, content_type, authorization, body, certificate })
}

fn answer(status: u16, retry_after_seconds: Option<u32>, body: &[u8]) -> Vec<u8> {
    let retry = retry_after_seconds.unwrap_or(u32::MAX);
    [b"A", status.to_be_bytes().as_slice(), &retry.to_be_bytes(), body].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_shortest_der() {
        let mut signature = [0; 64];
        signature[30] = 0x80;
        signature[63] = 0x7f;
        assert_eq!(der(&signature), [0x30, 8, 0x02, 3, 0, 0x80, 0, 0x02, 1, 0x7f]);
        assert_eq!(der(&[0xff; 64]).len(), 72);
    }

    #[test]
    fn a_request_that_is_cut_short_is_refused() {
        let frame = [&[1_u8][..], &[1, 0, b'/'], &[0, 0], &[0, 0], &[2, 0, 5, 6], &[0, 0]].concat();
        let request = parse(&frame).expect("whole");
        assert_eq!((request.is_post, request.path, request.body), (true, "/", [5, 6].as_slice()));
        for length in 0..frame.len() {
            assert!(parse(&frame[..length]).is_none(), "{length}");
        }
    }
}

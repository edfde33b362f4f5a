//! The modem of the emulated board: TLS and HTTP for a device that keeps its key to itself.

use std::fmt;
use std::sync::{Arc, Mutex};

use kf_client::{Client, HeaderName, HeaderValue, Method, TlsKey, header};
use kf_crypto::CryptoError;
use kf_device::certificate::{Certificate, CertsOnly};
use kf_key::KeyAlgorithm;

use crate::bridge::BridgeError;
use crate::machine::Machine;

/// Where the server is.
#[derive(Clone, Debug)]
pub(crate) struct Server {
    /// `https://host:port`.
    pub(crate) url: String,
    /// A root's certificate, DER, for firmware that believes it.
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
    /// Further headers, one a line.
    headers: &'a str,
    /// Fingerprints of the roots that it believes.
    believed: &'a [[u8; 32]],
}

/// Certificates that came by in answers to `cacerts`. Which of them is believed, the firmware says.
#[derive(Debug, Default)]
pub(crate) struct KnownRoots(Vec<Vec<u8>>);

/// The most certificates that the modem remembers.
const MAX_KNOWN: usize = 32;

impl KnownRoots {
    fn learn(&mut self, path: &str, body: &[u8]) {
        use base64::Engine as _;
        let text: Vec<u8> = body.iter().copied().filter(|octet| !octet.is_ascii_whitespace()).collect();
        let Some(der) =
            path.ends_with("/cacerts").then(|| base64::prelude::BASE64_STANDARD.decode(text).ok()).flatten()
        else {
            return;
        };
        for certificate in CertsOnly::from_der(&der).into_iter().flatten() {
            if self.0.len() < MAX_KNOWN && !self.0.iter().any(|known| known == certificate.as_der()) {
                self.0.push(certificate.as_der().to_vec());
            }
        }
    }

    /// The roots with these fingerprints, as far as they are known.
    fn believed(&self, server: &Server, fingerprints: &[[u8; 32]]) -> Vec<Vec<u8>> {
        let is_believed = |der: &Vec<u8>| {
            Certificate::from_der(der).is_ok_and(|certificate| fingerprints.contains(&certificate.fingerprint()))
        };
        let mut roots: Vec<_> =
            std::iter::once(&server.root).chain(&self.0).filter(|der| is_believed(der)).cloned().collect();
        roots.dedup();
        roots
    }
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
    (server, known): (Option<&Server>, &mut KnownRoots),
    runtime: &tokio::runtime::Runtime,
    frame: &[u8],
) -> Result<Vec<u8>, BridgeError> {
    let request = parse(frame).ok_or(BridgeError::Frame)?;
    let Some(server) = server else { return Ok(unanswered(0)) };
    let roots = known.believed(server, request.believed);
    if roots.is_empty() {
        return Ok(unanswered(0));
    }
    let mut client = Client::builder().roots(roots);
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
    for line in request.headers.lines() {
        let (name, value) = line.split_once(':').ok_or(BridgeError::Frame)?;
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_invalid| BridgeError::Frame)?;
        headers.push((name, HeaderValue::from_str(value).map_err(|_invalid| BridgeError::Frame)?));
    }
    let method = if request.is_post { Method::POST } else { Method::GET };
    let url = format!("{}{}", server.url, request.path);
    match runtime.block_on(client.request(method, &url, &headers, request.body.to_vec())) {
        Ok(response) => {
            let retry = response.headers.get(header::RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
            known.learn(request.path, &response.body);
            let mut beside = String::new();
            for (name, value) in &response.headers {
                if let (true, Ok(value)) = (name.as_str().starts_with(FOR_DEVICES), value.to_str()) {
                    beside.push_str(&format!("{name}:{value}\n"));
                }
            }
            answer(response.status.as_u16(), retry, &beside, &response.body)
        }
        // A certificate that is refused ends the handshake; to the device that is an answer.
        Err(error) if kf_client::alert_in(&error).is_some() => Ok(unanswered(403)),
        Err(_unreachable) => Ok(unanswered(0)),
    }
}

/// How the names of headers begin that are meant for devices.
const FOR_DEVICES: &str = "keyfleet-";

fn parse(frame: &[u8]) -> Option<Request<'_>> {
    let (method, mut rest) = frame.split_first()?;
    let path = text(&mut rest)?;
    let (content_type, authorization) = (text(&mut rest)?, text(&mut rest)?);
    let (body, certificate) = (field(&mut rest)?, field(&mut rest)?);
    let (headers, (believed, odd)) = (text(&mut rest)?, field(&mut rest)?.as_chunks());
    (odd.is_empty() && rest.is_empty()).then_some(())?;
    Some(Request { is_post: *method == 1, path, content_type, authorization, body, certificate, headers, believed })
}

fn field<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, after) = rest.split_first_chunk()?;
    let (field, after) = after.split_at_checked(usize::from(u16::from_le_bytes(*length)))?;
    *rest = after;
    Some(field)
}

fn text<'a>(rest: &mut &'a [u8]) -> Option<&'a str> {
    std::str::from_utf8(field(rest)?).ok()
}

/// Status 2, Retry-After 4, the length of the headers 2, the headers, body.
fn answer(status: u16, retry_after_seconds: Option<u32>, headers: &str, body: &[u8]) -> Result<Vec<u8>, BridgeError> {
    let retry = retry_after_seconds.unwrap_or(u32::MAX).to_be_bytes();
    let length = u16::try_from(headers.len()).map_err(|_too_long| BridgeError::TooLong)?;
    Ok([b"A", status.to_be_bytes().as_slice(), &retry, &length.to_le_bytes(), headers.as_bytes(), body].concat())
}

/// The status of a request that no server has answered.
fn unanswered(status: u16) -> Vec<u8> {
    [b"A", status.to_be_bytes().as_slice(), &u32::MAX.to_be_bytes(), &[0; 2]].concat()
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
        let frame = [
            &[1_u8][..],
            &[1, 0, b'/'],
            &[0, 0],
            &[0, 0],
            &[2, 0, 5, 6],
            &[0, 0],
            &[4, 0],
            b"a:b\n",
            &[32, 0],
            &[7; 32],
        ]
        .concat();
        let request = parse(&frame).expect("whole");
        assert_eq!((request.is_post, request.path, request.body), (true, "/", [5, 6].as_slice()));
        assert_eq!((request.headers, request.believed), ("a:b\n", [[7; 32]].as_slice()));
        for length in 0..frame.len() {
            assert!(parse(&frame[..length]).is_none(), "{length}");
        }
        assert!(parse(&[&frame[..], &[0]].concat()).is_none(), "too long");
    }

    #[test]
    fn no_answer_is_an_answer_without_headers_and_body() {
        assert_eq!(Some(unanswered(403)), answer(403, None, "", b"").ok());
        assert!(answer(200, None, &"x".repeat(65_536), b"").is_err());
    }
}

//! The answer of serverkeygen (RFC 7030 section 4.4.2): a multipart body of a private key and its certificate.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::StatusCode;
use http::header::CACHE_CONTROL;
use kf_key::SecretBytes;

use super::CERTS_ONLY;
use super::transfer::{self, Wrapping};
use crate::reply::{Reply, reply, wiped, with_header};

// Fixed: no base64 line contains a hyphen, so it cannot occur in a part.
const BOUNDARY: &str = "keyfleet-server-key";
const MEDIA_TYPE: &str = "multipart/mixed; boundary=keyfleet-server-key";

/// Key and certificates as `multipart/mixed`. The body is wiped once hyper has let it go; what lies in TLS and socket
/// buffers on the way is the price of keys made elsewhere, and why policy leaves this off.
pub(super) fn key_and_certificates(key_pkcs8: &SecretBytes, certificates: &[u8], wrapping: Wrapping) -> Reply {
    // In a MIME part, unlike in HTTP, the transfer encoding must be named: without it the part would be read as text.
    let head = format!("--{BOUNDARY}\r\nContent-Type: application/pkcs8\r\nContent-Transfer-Encoding: base64\r\n\r\n");
    let middle = format!("\r\n--{BOUNDARY}\r\nContent-Type: {CERTS_ONLY}\r\nContent-Transfer-Encoding: base64\r\n\r\n");
    let certificates = transfer::encode(certificates, wrapping);
    let end = format!("--{BOUNDARY}--\r\n");
    let length = key_pkcs8.len().div_ceil(3) * 4;
    let rest: [&[u8]; 3] = [middle.as_bytes(), &certificates, end.as_bytes()];
    let total = head.len() + length + rest.iter().map(|part| part.len()).sum::<usize>();
    let body = SecretBytes::fill(total, |out| {
        let (start, tail) = out.split_at_mut(head.len());
        start.copy_from_slice(head.as_bytes());
        let (key, mut tail) = tail.split_at_mut(length);
        // Exposed to be encoded straight into the body.
        drop(STANDARD.encode_slice(key_pkcs8.expose(), key));
        for part in rest {
            let (place, further) = std::mem::take(&mut tail).split_at_mut(part.len());
            place.copy_from_slice(part);
            tail = further;
        }
    });
    with_header(reply(StatusCode::OK, MEDIA_TYPE, wiped(body)), CACHE_CONTROL, "no-store")
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;

    #[tokio::test]
    async fn the_body_has_two_parts_that_end_with_the_boundary() {
        let key = SecretBytes::from_vec(vec![0xaa; 138]);
        let reply = key_and_certificates(&key, &[0xbb; 700], Wrapping::None);
        let body = reply.into_body().collect().await.unwrap().to_bytes();
        let body = String::from_utf8(body.to_vec()).unwrap();
        let parts: Vec<_> = body.split("--keyfleet-server-key").collect();
        assert_eq!(parts.len(), 4, "{body}");
        assert_eq!(parts[0], "");
        assert_eq!(parts[3], "--\r\n");
        let decoded = |part: &str| STANDARD.decode(part.split("\r\n\r\n").nth(1).unwrap().trim()).unwrap();
        assert_eq!(decoded(parts[1]), vec![0xaa; 138]);
        assert_eq!(decoded(parts[2]), vec![0xbb; 700]);
    }
}

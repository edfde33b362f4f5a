//! PEM (RFC 7468).

use base64::Engine as _;

/// The most blocks that are read.
const MAX_BLOCKS: usize = 64;
/// The most octets of a text that is read.
const MAX_TEXT_OCTETS: usize = 1024 * 1024;

/// Characters in a line (RFC 7468 section 2).
const LINE: usize = 64;

/// PEM of DER with label `CERTIFICATE`. Public, so it need not take the same time for every content, which makes
/// [`encode`] ten times as slow.
#[must_use]
pub fn certificate(der: &[u8]) -> String {
    let digits = base64::engine::general_purpose::STANDARD.encode(der);
    let mut pem = String::with_capacity(64 + digits.len().div_ceil(LINE) * (LINE + 1));
    pem.push_str("-----BEGIN CERTIFICATE-----\n");
    let mut rest = digits.as_str();
    while !rest.is_empty() {
        let (line, after) = rest.split_at(rest.len().min(LINE));
        pem.push_str(line);
        pem.push('\n');
        rest = after;
    }
    pem.push_str("-----END CERTIFICATE-----\n");
    pem
}

/// PEM of DER, in a time that does not depend on what is in it.
#[must_use]
pub fn encode(label: &str, der: &[u8]) -> String {
    pem_rfc7468::encode_string(label, pem_rfc7468::LineEnding::LF, der).unwrap_or_default()
}

/// The DER of every PEM block with this label, at most 64 blocks in at most 1 MiB. Text between blocks is skipped
/// (RFC 7468 section 2), lines may be of any length, because programs differ in how they wrap.
///
/// # Errors
/// `None` when the text is larger, or a block of this label is broken.
#[must_use]
pub fn decode_all(label: &str, text: &str) -> Option<Vec<Vec<u8>>> {
    decode_any(&[label], text)
}

/// As [`decode_all`], of any of these labels.
pub(crate) fn decode_any(labels: &[&str], text: &str) -> Option<Vec<Vec<u8>>> {
    if text.len() > MAX_TEXT_OCTETS {
        return None;
    }
    let mut blocks = Vec::new();
    let mut rest = text;
    while let Some((_, after)) = rest.split_once("-----BEGIN ") {
        rest = after;
        let begun = |label: &&str| after.strip_prefix(*label)?.strip_prefix("-----");
        let Some((label, after)) = labels.iter().find_map(|label| Some((label, begun(label)?))) else { continue };
        let (body, following) = after.split_once("-----END ")?;
        let following = following.strip_prefix(label)?.strip_prefix("-----")?;
        if blocks.len() >= MAX_BLOCKS {
            return None;
        }
        let mut digits = Vec::with_capacity(body.len());
        body.split_ascii_whitespace().for_each(|line| digits.extend_from_slice(line.as_bytes()));
        blocks.push(base64::engine::general_purpose::STANDARD.decode(digits).ok()?);
        rest = following;
    }
    Some(blocks)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_of_one_label_are_found_between_text_and_other_blocks() {
        let text = format!(
            "Certificate:\n    Data\n{}noise\r\n{}{}",
            certificate(b"one"),
            encode("PRIVATE KEY", b"secret"),
            certificate(&[7; 100]).replace('\n', "\r\n")
        );
        assert_eq!(decode_all("CERTIFICATE", &text), Some(vec![b"one".to_vec(), vec![7; 100]]));
        assert_eq!(decode_all("X509 CRL", &text), Some(vec![]));
    }

    #[test]
    fn certificates_are_written_as_any_other_der() {
        for octets in [1, 47, 48, 49, 96, 700] {
            let der = vec![0xA5; octets];
            assert_eq!(certificate(&der), encode("CERTIFICATE", &der), "{octets}");
        }
    }

    #[test]
    fn broken_blocks_and_too_many_of_them_are_refused() {
        assert_eq!(decode_all("CERTIFICATE", "-----BEGIN CERTIFICATE-----\nAAAA"), None);
        assert_eq!(decode_all("CERTIFICATE", "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----"), None);
        assert_eq!(decode_all("CERTIFICATE", &certificate(b"x").repeat(65)), None);
        assert_eq!(decode_all("CERTIFICATE", &" ".repeat(MAX_TEXT_OCTETS + 1)), None);
    }
}

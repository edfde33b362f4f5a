//! Private keys that tell themselves by their form.

use alloc::string::String;

use memchr::memmem;

use super::finding::{FindingKind, KeyFormat};
use super::window::LOOKAHEAD;

/// The longest label of a PEM line that is a private key's.
const MAX_LABEL: usize = 40;
/// The shortest DER of a private key: a P-192 scalar in SEC1.
const MIN_DER: usize = 24;

/// What was found in a window: where it begins, how long it is, and what it is.
pub(super) type Found = (usize, usize, FindingKind);

/// PEM private keys that begin before `end`.
pub(super) fn pem(window: &[u8], end: usize, mut found: impl FnMut(Found)) {
    const BEGIN: &[u8] = b"-----BEGIN ";
    for start in memmem::find_iter(window, BEGIN).take_while(|start| *start < end) {
        let rest = window.get(start..).unwrap_or_default();
        let rest = rest.get(..LOOKAHEAD).unwrap_or(rest);
        let label_on = rest.get(BEGIN.len()..).unwrap_or_default();
        let label_on = label_on.get(..MAX_LABEL + 5).unwrap_or(label_on);
        let Some(label) = memmem::find(label_on, b"-----").and_then(|at| label_on.get(..at)) else { continue };
        if !label.ends_with(b"PRIVATE KEY") || !label.iter().all(|octet| octet.is_ascii_graphic() || *octet == b' ') {
            continue;
        }
        let last_line = [b"-----END ".as_slice(), label, b"-----"].concat();
        let whole = memmem::find(rest, &last_line).map(|at| at + last_line.len());
        let label = String::from_utf8_lossy(label).into_owned();
        let octets = whole.unwrap_or(BEGIN.len() + label.len() + 5);
        found((start, octets, FindingKind::PrivateKeyPem { label, is_truncated: whole.is_none() }));
    }
}

/// DER private keys that begin from `start` on and before `end`. A key inside of another, as in PKCS#8, is not reported again.
pub(super) fn der(window: &[u8], start: usize, end: usize, mut found: impl FnMut(Found)) {
    // All three forms begin with a sequence and the integer 0 or 1, so that the integer is what to look for.
    let mut covered = start;
    for at in memmem::find_iter(window, &[0x02, 0x01]).filter(|at| *at > 1) {
        if !matches!(window.get(at + 2), Some(0 | 1)) {
            continue;
        }
        // The header of the sequence has 2 to 4 octets before it.
        for header in 2..=4 {
            let Some(start) = at.checked_sub(header).filter(|start| *start >= covered && *start < end) else {
                continue;
            };
            let candidate = window.get(start..).unwrap_or_default();
            let Some(der) = sequence(candidate, header) else { continue };
            if let Some(format) = key_format(der) {
                found((start, der.len(), FindingKind::PrivateKeyDer { format }));
                covered = start + der.len();
                break;
            }
        }
        if at > end + 4 {
            break;
        }
    }
}

/// The sequence at the beginning of `candidate`, if its header has this many octets, the least that its length takes.
fn sequence(candidate: &[u8], header: usize) -> Option<&[u8]> {
    let content = match (candidate, header) {
        ([0x30, short, ..], 2) if *short < 0x80 => usize::from(*short),
        ([0x30, 0x81, long, ..], 3) if *long >= 0x80 => usize::from(*long),
        ([0x30, 0x82, high, low, ..], 4) if *high > 0 => usize::from(u16::from_be_bytes([*high, *low])),
        _ => return None,
    };
    let octets = header + content;
    if octets > LOOKAHEAD { None } else { candidate.get(..octets).filter(|der| der.len() >= MIN_DER) }
}

fn key_format(der: &[u8]) -> Option<KeyFormat> {
    if pkcs8::PrivateKeyInfoRef::try_from(der).is_ok() {
        return Some(KeyFormat::Pkcs8);
    }
    if sec1::EcPrivateKey::try_from(der).is_ok_and(|key| key.private_key.len() >= 20) {
        return Some(KeyFormat::Sec1);
    }
    // Small moduli are not keys; a run of short integers is some other structure.
    let is_rsa = pkcs1::RsaPrivateKeyRef::try_from(der)
        .is_ok_and(|key| key.modulus.as_bytes().len() >= 64 && key.private_exponent.as_bytes().len() >= 32);
    is_rsa.then_some(KeyFormat::Pkcs1)
}

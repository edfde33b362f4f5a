//! Trust anchors that succeed one another (RFC 7030 section 4.1.3, RFC 9810 section 4.4), as who holds them sees it: a new
//! root is believed when one that is held vouches for it, and never for being offered.

use kf_key::UnixMillis;

use crate::certificate::Certificate;
use crate::public_key::PublicKey;

/// The most anchors that are held at a time.
pub const MAX_ANCHORS: usize = 4;
/// The most certificates of an offer that are looked at.
const MAX_OFFERED: usize = 64;
/// KeyUsage bit keyCertSign (5).
const KEY_CERT_SIGN: u8 = 0b0000_0100;

/// The roots among `offered` that none of `held` is, and that one of `held` has signed a link certificate for, which is
/// among `offered` too: DER, in the order of the offer, at most as many as there is room for below [`MAX_ANCHORS`].
#[must_use]
pub fn vouched(held: &[Vec<u8>], offered: &[Vec<u8>], now: UnixMillis) -> Vec<Vec<u8>> {
    let offered = offered.get(..MAX_OFFERED).unwrap_or(offered);
    let parsed: Vec<(&Vec<u8>, Certificate<'_>)> =
        offered.iter().filter_map(|der| Some((der, authority_at(der, now)?))).collect();
    let anchors: Vec<Certificate<'_>> = held.iter().filter_map(|der| authority_at(der, now)).collect();
    let is_vouched = |root: &Certificate<'_>| {
        parsed.iter().any(|(_, link)| {
            let is_link = link.tbs.subject == root.tbs.subject && link.tbs.spki == root.tbs.spki;
            is_link && anchors.iter().any(|anchor| is_signed_by(link, anchor))
        })
    };
    parsed
        .iter()
        .filter(|(der, root)| is_signed_by(root, root) && !held.contains(der) && is_vouched(root))
        .map(|(der, _)| (*der).clone())
        .take(MAX_ANCHORS.saturating_sub(held.len()))
        .collect()
}

/// What remains of `held` when a server that was verified under one of them offers `offered`: roots that it hands out no
/// more have been retired. `None` when nothing changes, or nothing would remain.
#[must_use]
pub fn remaining(held: &[Vec<u8>], offered: &[Vec<u8>]) -> Option<Vec<Vec<u8>>> {
    let rest: Vec<Vec<u8>> = held.iter().filter(|der| offered.contains(der)).cloned().collect();
    (!rest.is_empty() && rest.len() < held.len()).then_some(rest)
}

/// A CA certificate that may issue CA certificates and is valid at `now`.
fn authority_at(der: &[u8], now: UnixMillis) -> Option<Certificate<'_>> {
    let certificate = Certificate::from_der(der)?;
    let tbs = &certificate.tbs;
    let constraints = tbs.extensions.authority()?;
    let signs = tbs.extensions.key_usage().is_some_and(|usage| usage & KEY_CERT_SIGN != 0);
    let is_current = tbs.not_before <= now && now <= tbs.not_after;
    (constraints.is_authority && constraints.path_length != Some(0) && signs && is_current).then_some(certificate)
}

fn is_signed_by(certificate: &Certificate<'_>, issuer: &Certificate<'_>) -> bool {
    let Some(scheme) = certificate.scheme else { return false };
    certificate.tbs.issuer == issuer.tbs.subject
        && PublicKey::from_spki(issuer.tbs.spki)
            .is_ok_and(|key| key.verify(scheme, certificate.tbs_der, certificate.signature).is_ok())
}

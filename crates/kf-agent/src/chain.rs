//! From what the server sent to the chain that the device shows.

use kf_pki::certificate::PresentedCertificate;

/// The most certificates of a chain.
const MAX_CHAIN: usize = 8;

/// The certificate for this key, and above it the issuers found in `pool`, without the self-signed root that the other
/// side has anyway. `None` when no certificate is for this key.
pub(crate) fn build(spki: &[u8], pool: &[Vec<u8>]) -> Option<Vec<Vec<u8>>> {
    let known: Vec<(PresentedCertificate, &Vec<u8>)> =
        pool.iter().filter_map(|der| Some((PresentedCertificate::from_der(der)?, der))).collect();
    let (leaf, leaf_der) = known.iter().find(|(certificate, _)| certificate.spki == spki)?;
    let mut chain = vec![(*leaf_der).clone()];
    let mut issuer = leaf.issuer.clone();
    let is_root = |name: &[u8]| known.iter().any(|(root, _)| root.subject == name && root.issuer == name);
    // At a root the chain ends, though another one may vouch for it (RFC 9810 section 4.4).
    while chain.len() < MAX_CHAIN && !is_root(&issuer) {
        let found = known.iter().find(|(certificate, _)| {
            certificate.subject == issuer && certificate.issuer != certificate.subject && certificate.spki != spki
        });
        let Some((certificate, der)) = found else { break };
        if chain.contains(der) {
            break;
        }
        chain.push((*der).clone());
        issuer.clone_from(&certificate.issuer);
    }
    Some(chain)
}

#[cfg(test)]
mod tests {
    use kf_key::{KeyAlgorithm, SecretBytes};
    use kf_testkit::ForeignAuthority;

    use super::*;

    #[test]
    fn a_chain_goes_from_the_key_s_certificate_to_below_the_root() {
        let authority = ForeignAuthority::new();
        let issued = authority.issue_client("meter");
        let other = authority.issue_client("other");
        let pkcs8 = SecretBytes::from_vec(issued.pkcs8.clone());
        let spki = kf_crypto::PrivateKey::from_pkcs8(KeyAlgorithm::P256, &pkcs8).unwrap().spki();
        let (leaf, issuing, root) = (&issued.chain[0], authority.issuing_der(), authority.root_der());
        let pool = vec![root.clone(), other.chain[0].clone(), issuing.clone(), leaf.clone(), b"junk".to_vec()];
        assert_eq!(build(&spki, &pool).unwrap(), [leaf.clone(), issuing]);
        assert_eq!(build(&spki, &[leaf.clone(), root]).unwrap(), std::slice::from_ref(leaf));
        assert_eq!(build(&[0], &pool), None);
    }
}
